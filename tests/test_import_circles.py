"""No module imports itself by way of others, not even inside of functions or for types alone."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"


def imports(source: Path) -> dict[str, set[str]]:
    """Modules that each module names in its import statements.

    The package's own `__init__` is left out: it only hands out what others have, and others take nothing but the version from it.
    """
    files = {".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path for path in source.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        if "." not in module:
            continue
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {name if name in files else node.module for name in below}
        found[module] = {name for name in named if name in files and "." in name and name != module}
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that reach each other."""
    reach = {module: set(named) for module, named in graph.items()}
    changed = True
    while changed:
        changed = False
        for module, named in reach.items():
            wider = named.union(*(reach.get(each, set()) for each in named))
            if wider != named:
                reach[module], changed = wider, True
    inside = {module: frozenset(other for other in named if module in reach.get(other, set())) for module, named in reach.items()}
    return sorted({group for group in inside.values() if len(group) > 1}, key=sorted)  # type: ignore[arg-type]


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(imports(SOURCE)) == []


@pytest.mark.parametrize("line", ["from pack.b import x", "import pack.b", "from pack import b", "def f():\n    from pack import b"])
def test_a_circle_is_found(line: str, tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from pack.a import x")
    (package / "a.py").write_text(line)
    (package / "b.py").write_text("from pack.c import x")
    (package / "c.py").write_text("from pack.a import x")
    assert circles(imports(tmp_path)) == [{"pack.a", "pack.b", "pack.c"}]
    (package / "c.py").write_text("")
    assert circles(imports(tmp_path)) == []
