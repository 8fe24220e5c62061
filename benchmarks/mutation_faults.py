"""Small faults in Python code, and how to put one into a module that is already loaded.

A fault changes one expression or one ``return`` of a function or method. Texts, annotations, decorators, ``raise``, ``assert`` and the
``strict`` of ``zip`` stay as they are: no result depends on them, or a test would only repeat them.
"""

import ast
import copy
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip
LEFT_OUT_FIELDS = {"annotation", "returns", "decorator_list"}
LEFT_OUT_NODES = (ast.Raise, ast.Assert, ast.JoinedStr)


@dataclass(frozen=True)
class Fault:
    """One change: the ``number``-th of the function ``function`` ("name" or "Class.name") of a file."""

    file: str
    function: str
    number: int
    lines: tuple[int, ...]
    before: str
    after: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.function}:{self.number}"

    @property
    def package(self) -> str:
        return self.file.split("/")[0]


@dataclass
class Place:
    """A node and where it hangs in its parent."""

    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST
    lines: tuple[int, ...]

    def replace(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def places(node: ast.AST, lines: tuple[int, ...] = ()) -> Iterator[Place]:
    """All nodes below that can be changed, with the lines of the statement that they belong to."""
    for field, value in ast.iter_fields(node):
        if field in LEFT_OUT_FIELDS:
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, LEFT_OUT_NODES) or is_type_check(child) or is_length_check(child):
                continue
            own = statement_lines(child) if isinstance(child, ast.stmt) else lines
            yield Place(node, field, index if isinstance(value, list) else None, child, own)
            yield from places(child, own)


def is_type_check(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"


def is_length_check(node: ast.AST) -> bool:
    """``zip(..., strict=True)`` asserts that lengths are equal."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def statement_lines(node: ast.stmt) -> tuple[int, ...]:
    """Lines of a statement; of a compound one those of its head."""
    body = getattr(node, "body", None)
    end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
    return tuple(range(node.lineno, end + 1))


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The node with one fault, for every fault that it can have."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if type(operator) in COMPARISONS:
                changed = copy.deepcopy(node)
                changed.ops[i] = COMPARISONS[type(operator)]()
                yield changed
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        changed = copy.deepcopy(node)
        changed.op = ARITHMETIC[type(node.op)]()
        yield changed
    elif isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield changed
    elif isinstance(node, ast.UnaryOp):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None and not is_none(node.value):
        yield ast.Return(ast.Constant(None))
    if isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call) and not is_type_check(node.test):
        changed = copy.deepcopy(node)
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed


def is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of the module and methods of its classes, by name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{method.name}", method) for method in node.body if isinstance(method, ast.FunctionDef))


def faults(source: Path, file: str) -> list[Fault]:
    """All faults of the file ``source / file``."""
    found = []
    for name, function in dict(functions(ast.parse((source / file).read_text(encoding="utf-8")))).items():
        number = 0
        # A default is computed once, when the module is loaded; all that the function does may show it.
        whole = tuple(range(function.lineno, (function.end_lineno or function.lineno) + 1))
        for place in places(function):
            for changed in changes(place.node):
                found.append(Fault(file, name, number, place.lines or whole, head(place.node), head(changed)))
                number += 1
    return found


def head(node: ast.AST) -> str:
    """A node as one short line of code."""
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))
    return text.splitlines()[0][:100]


def faulty_tree(source: Path, fault: Fault) -> ast.Module:
    """The tree of the file with the fault in it."""
    tree = ast.parse((source / fault.file).read_text(encoding="utf-8"))
    function = dict(functions(tree))[fault.function]
    number = 0
    for place in places(function):
        for changed in changes(place.node):
            if number == fault.number:
                place.replace(ast.copy_location(changed, place.node))
                return ast.fix_missing_locations(tree)
            number += 1
    raise LookupError(fault.name)


def insert(source: Path, fault: Fault) -> None:
    """Put the fault into the loaded module; all who hold the function have it then.

    Code and defaults are exchanged in the function itself. What the module computed when it was loaded stays as it was.
    """
    module = importlib.import_module("dynamicdps." + fault.file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    path = str(source / fault.file)
    tree = faulty_tree(source, fault)
    code: CodeType = compile(tree, path, "exec")
    function = module
    for part in fault.function.split("."):
        code = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == part][-1]
        function = inspect.getattr_static(function, part)
    # What a property, a cached property, a static or a class method holds.
    function = next((f for name in ("fget", "func", "__func__") if (f := getattr(function, name, None))), function)
    target = inspect.unwrap(function)
    if not isinstance(target, FunctionType):
        raise TypeError(f"{fault.name} is a {type(target).__name__}")
    target.__code__ = code
    defaults = dict(functions(tree))[fault.function].args
    target.__defaults__ = changed_defaults(defaults.defaults, target.__defaults__)
    for argument, default in zip(defaults.kwonlyargs, defaults.kw_defaults, strict=True):
        if default is not None and target.__kwdefaults__:
            target.__kwdefaults__[argument.arg] = plain_value(default, target.__kwdefaults__[argument.arg])


def changed_defaults(nodes: list[ast.expr], values: tuple[object, ...] | None) -> tuple[object, ...] | None:
    """Defaults whose plain values, numbers and tuples of them, are those of the tree."""
    if values is None:
        return None
    return tuple(plain_value(node, value) for node, value in zip(nodes, values, strict=True))


def plain_value(node: ast.expr, other: object) -> object:
    """What a literal stands for; ``other`` where the node is none."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return other
