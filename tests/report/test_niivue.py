"""The viewer's program is the file that its notice names, and can stand inside a page."""

import hashlib
import re
from importlib.resources import files

FOLDER = files("dynamicdps.report") / "static" / "niivue"


def test_the_file_is_the_noticed_one() -> None:
    notice = (FOLDER / "NOTICE.txt").read_text(encoding="utf-8")
    digest = hashlib.sha256((FOLDER / "niivue.umd.js").read_bytes()).hexdigest()
    assert re.search(r"^sha256 +(\w+)$", notice, flags=re.MULTILINE)[1] == digest  # type: ignore[index]
    assert "BSD 2-Clause License" in (FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_the_file_can_stand_inside_a_page() -> None:
    """It neither ends its element, nor is changed by the reader of HTML (which would change its hash), nor needs other files."""
    data = (FOLDER / "niivue.umd.js").read_bytes()
    for ending in (b"</script", b"<!--", b"\0", b"\r"):
        assert ending not in data
    for loader in (b"new Worker(", b"importScripts(", b"sourceMappingURL"):
        assert loader not in data
    assert len(data) < 2_500_000
