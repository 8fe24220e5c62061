"""What benchmarks/mutation_faults.py and mutation_sample.py change, and what they count."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from dynamicdps.volumes import morphology

SOURCE = '''
"""A module."""

LIMIT = 3


def grown(x: int | None, by: float = 0.5) -> bool:
    """A text with 1 number."""
    if x is None or x < 2:
        raise ValueError(f"{x + 1}")
    return x * by > -LIMIT


class Shape:
    @property
    def area(self) -> float:
        return self.side**2 if self.closed else 0


def paired(a: list[int], b: list[int]) -> dict[int, int]:
    return dict(zip(a, b, strict=True))
'''
FOUND = {
    "grown": ["1.5", "x is None and x < 2", "x is not None", "x <= 2", "3", "return None", "x * by >= -LIMIT", "x / by", "LIMIT"],
    "paired": ["return None"],
    "Shape.area": ["return None", "self.side ** 2 if not self.closed else 0", "self.side * 2", "3", "1"],
}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return import_module("mutation_faults")


def test_texts_annotations_and_errors_stay_as_they_are(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(SOURCE, encoding="utf-8")
    faults = program.faults(tmp_path, "made.py")
    for name, after in FOUND.items():
        assert [fault.after for fault in faults if fault.function == name] == after
    assert [fault.number for fault in faults if fault.function == "grown"] == list(range(9))
    assert {fault.function for fault in faults} == set(FOUND)


def test_every_fault_changes_the_code_once(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(SOURCE, encoding="utf-8")
    faults = program.faults(tmp_path, "made.py")
    codes = {program.ast.unparse(program.faulty_tree(tmp_path, fault)) for fault in faults}
    assert len(codes) == len(faults)
    assert program.ast.unparse(program.ast.parse(SOURCE)) not in codes


def test_a_fault_reaches_those_who_hold_the_function(program: ModuleType) -> None:
    source = Path(morphology.__file__).parents[1]
    fault = next(f for f in program.faults(source, "volumes/morphology.py") if f.after == "return None")
    held = getattr(morphology, fault.function)
    code, defaults = held.__code__, held.__defaults__
    try:
        program.insert(source, fault)
        assert held.__code__ is not code
        assert held.__code__.co_name == code.co_name
        assert held.__defaults__ == defaults
    finally:
        held.__code__ = code


@pytest.mark.parametrize(("successes", "n", "interval"), [(50, 100, (0.4038, 0.5962)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))])
def test_wilson_s_interval(program: ModuleType, successes: int, n: int, interval: tuple[float, float]) -> None:
    """Known values (Brown, Cai and DasGupta 2001)."""
    assert import_module("mutation_sample").wilson(successes, n) == pytest.approx(interval, abs=1e-4)
