"""Who may ask: whoever knows the address with its token, from the page itself; and what a browser may do with the answers."""

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The page's own files and nothing else; NiiVue makes its pictures in memory.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report is a page of its own with a policy inside it; here it has no origin, so that it can reach neither jobs nor any other place.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
READING = ("GET", "HEAD")
WRONG_ADDRESS = "this address is not that of a running dynamicdps app; open the one that it printed when it was started"


class Guard:
    """Pass on requests for ``/TOKEN/...`` alone, as ``/...``; all others are refused, whatever they ask for.

    A request must name the address itself as its host, so that no other name leads here (DNS rebinding); where it names an origin, that
    must be the page's, and it must name one to change something, as browsers do.
    """

    def __init__(self, app: App, token: str, host: str, once: str = "") -> None:
        """Make it.

        Args:
            app: what is guarded.
            token: first part of every path.
            host: address and port, ``127.0.0.1:PORT``.
            once: ``/once/ONCE`` leads to the page a single time; empty for no such address. A browser is started with it, because
                others on the machine can see the words that a program is started with.
        """
        self._app = app
        self._token = token.encode()
        self._host = host.encode()
        self._origin = b"http://" + self._host
        self._once = f"/once/{once}".encode() if once else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                given = {name.lower() for name, _ in headers}
                headers += [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
                message = {**message, "headers": headers}
            await send(message)

        if self._once and hmac.compare_digest(scope["path"].encode(), self._once) and _all(scope["headers"], b"host") == [self._host]:
            self._once = b""
            leads = [(b"location", b"/" + self._token + b"/")]
            await send_with_headers({"type": "http.response.start", "status": 303, "headers": leads})
            await send_with_headers({"type": "http.response.body", "body": b""})
            return
        status = self._refusal(scope)
        if status:
            start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
            await send_with_headers(start)
            await send_with_headers({"type": "http.response.body", "body": WRONG_ADDRESS.encode()})
            return
        _, _, rest = scope["path"].lstrip("/").partition("/")
        await self._app({**scope, "path": f"/{rest}"}, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> int:
        """The status of a refusal; 0 where there is none."""
        headers = scope["headers"]
        if _all(headers, b"host") != [self._host]:
            return 421
        first, slash, _ = scope["path"].lstrip("/").partition("/")
        if not hmac.compare_digest(first.encode(), self._token) or not slash:
            return 403
        origins = _all(headers, b"origin")
        if origins not in ([], [self._origin]) or (scope["method"] not in READING and not origins):
            return 403
        return 0


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]
