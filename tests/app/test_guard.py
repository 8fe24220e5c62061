"""Only who knows the address, asks this machine by its number and comes from the page is answered."""

from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from dynamicdps.app.guard import HEADERS, Guard
from tests.app.conftest import HOST, ORIGIN, TOKEN


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(scope["path"])(scope, receive, send)


def status(path: str = f"/{TOKEN}/", method: str = "GET", **headers: str) -> int:
    client = TestClient(Guard(echo, TOKEN, HOST), base_url=ORIGIN)
    return int(client.request(method, path, headers=headers).status_code)


@pytest.mark.parametrize("path", [f"/{TOKEN}/", f"/{TOKEN}/api/state"])
def test_the_token_opens_the_page(path: str) -> None:
    assert status(path) == 200


@pytest.mark.parametrize("path", ["/", "/api/state", "/app.js", f"/{TOKEN}", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/", f"/x/{TOKEN}/", "/é/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_answered_without_the_token(path: str, method: str) -> None:
    assert status(path, method, origin=ORIGIN) == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8123", "localhost:8123", "127.0.0.1", "127.0.0.1:80", "[::1]:8123", ""])
def test_another_name_of_the_machine_is_refused(host: str) -> None:
    """A page elsewhere whose name is made to lead to 127.0.0.1 (DNS rebinding) still sends its own name."""
    assert status(host=host) == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", f"https://{HOST}", f"{ORIGIN}.evil.example"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_another_origin_is_refused(origin: str, method: str) -> None:
    assert status(method=method, origin=origin) == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_changes_something_must_name_its_origin(method: str) -> None:
    assert status(method=method) == 403
    assert status(method=method, origin=ORIGIN) == 200


def test_every_answer_forbids_other_origins() -> None:
    client = TestClient(Guard(echo, TOKEN, HOST), base_url=ORIGIN)
    for answer in (client.get(f"/{TOKEN}/"), client.get("/")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "access-control-allow-origin" not in answer.headers
        for part in answer.headers["content-security-policy"].split("; "):
            assert set(part.split()[1:]) <= {"'none'", "'self'", "data:", "blob:"}


def test_a_refusal_does_not_tell_the_token() -> None:
    answer = TestClient(Guard(echo, TOKEN, HOST), base_url=ORIGIN).get("/")
    assert TOKEN not in answer.text + str(answer.headers)


def test_the_address_that_starts_a_browser_leads_to_the_page_once() -> None:
    client = TestClient(Guard(echo, TOKEN, HOST, "once"), base_url=ORIGIN, follow_redirects=False)
    assert client.get("/once/twice").status_code == 403
    assert client.get("/once/once", headers={"host": "evil.example"}).status_code == 421
    first = client.get("/once/once")
    assert (first.status_code, first.headers["location"]) == (303, f"/{TOKEN}/")
    assert client.get("/once/once").status_code == 403
    assert TestClient(Guard(echo, TOKEN, HOST), base_url=ORIGIN, follow_redirects=False).get("/once/").status_code == 403


def test_no_websocket_is_opened() -> None:
    from starlette.websockets import WebSocketDisconnect

    client = TestClient(Guard(echo, TOKEN, HOST), base_url=ORIGIN)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"/{TOKEN}/"):
        pass
