"""A file outside of the package adds a solver and operators, a model file a prior of another contrast; every command works with them."""

import csv
import json
from pathlib import Path

import pytest

from dynamicdps import extension
from dynamicdps.cli import main
from dynamicdps.operators import registry
from dynamicdps.solvers import registry as solver_registry
from dynamicdps.volumes import load
from tests.cli.tiny import write_tiny
from tests.conftest import make_phantom

EXTENSION = '''
from dataclasses import dataclass

from dynamicdps.operators import LinearOperator, Operator, SameGrid, register_operator
from dynamicdps.solvers import SamplerConfig, sampler


@dataclass(frozen=True)
class LandweberConfig(SamplerConfig):
    steps: int = 3
    start_sigma: float | None = 0.1
    rate: float = 0.5


@sampler("landweber", LandweberConfig)
def landweber(task, config):
    term = task.term

    def sample(run):
        x = task.initial
        for sigma, _ in run.steps():
            near = term.linearise(x)
            x = run.denoise(x + config.rate * near.vjp(term.target - near.value), sigma)
            run.record(term.misfit(x))
        return x

    return sample


@register_operator
@dataclass(frozen=True, eq=False)
class Ghost(SameGrid, LinearOperator):
    """A part of the image lies half a field of view away."""

    share: float = 0.1

    def forward(self, x):
        return x + self.share * x.roll(x.shape[-2] // 2, -2)


@register_operator
@dataclass(frozen=True, eq=False)
class Saturation(SameGrid, Operator):
    """A receiver that saturates where a row is bright."""

    strength: float = 0.5

    def forward(self, x):
        return x / (1 + self.strength * x.mean(-1, keepdim=True))
'''
OPERATORS = {"Ghost": "share", "Saturation": "strength"}


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file registers is gone after the test."""
    monkeypatch.setattr(registry, "_OPERATORS", dict(registry._OPERATORS))
    monkeypatch.setattr(solver_registry, "_SOLVERS", dict(solver_registry._SOLVERS))
    monkeypatch.setattr(extension, "_LOADED", {})


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the extension, tiny T2w models, a T2w scan and an operator's file of each kind."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(EXTENSION, encoding="utf-8")
    for kind in ("prior", "unet"):
        write_tiny(tmp_path / f"t2w-{kind}.safetensors", kind, contrast="T2w, skull-stripped, axial")
    make_phantom((24, 28, 8)).save(tmp_path / "sub-1_T2w.nii.gz")
    for name in OPERATORS:
        Path(f"{name}.json").write_text(json.dumps({"type": name, OPERATORS[name]: 0.2, "noise_std": 0.01}), encoding="utf-8")
    return tmp_path


MODELS = ["--prior", "t2w-prior.safetensors", "--extension", "mine.py"]


@pytest.mark.parametrize("operator", OPERATORS)
def test_from_the_scan_to_the_report(operator: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["simulate", "sub-1_T2w.nii.gz", "--out", "poor_T2w.nii.gz", "--degradation", f"{operator}.json", "--extension", "mine.py"])
        == 0
    )
    written = json.loads(Path("poor_T2w.operator.json").read_text())
    assert (written["type"], written[OPERATORS[operator]]) == (operator, 0.2)
    # The operator lies beside the scan.
    solving = ["--solver", "landweber", "--set", "rate=0.4", "--conditional", "t2w-unet.safetensors", "--mask", "none"]
    assert main(["enhance", "poor_T2w.nii.gz", "--out", "out", *MODELS, *solving]) == 0
    record = json.loads(Path("out/run.json").read_text())
    assert record["operator"]["type"] == operator
    assert record["contrast"] == "T2w"
    assert record["settings"]["rate"] == 0.4
    assert "mine.py" in record["inputs"]
    page = Path("out/report.html").read_bytes()
    Path("out/report.html").unlink()
    assert main(["report", "out"]) == 0
    assert Path("out/report.html").read_bytes() == page
    assert load(Path("out/enhanced.nii.gz")).shape == (24, 28, 8)
    capsys.readouterr()
    assert main(["rerun", "out/run.json"]) == 0
    assert ", 0 have others" in capsys.readouterr().out


def test_the_fit_says_what_it_can_find(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The scan's own fit is of the package's scanner; it names its parameters where another is asked for."""
    words = ["calibrate", "operator", "sub-1_T2w.nii.gz", "--out", "found.json", "--mask", "none"]
    assert main([*words, "--fit", "share"]) == 2
    assert "no parameter 'share'" in capsys.readouterr().err
    assert main([*words, "--conditional", "t2w-unet.safetensors"]) == 0
    assert json.loads(Path("found.json").read_text())["type"] == "LowField"


def test_benchmark(places: Path) -> None:
    Path("mine.json").write_text(json.dumps({name: json.loads(Path(f"{name}.json").read_text()) for name in OPERATORS}))
    command = ["benchmark", "sub-1_T2w.nii.gz", "--out", "table", *MODELS, "--degradations", "mine.json", "--slices-per-scan", "2"]
    assert main([*command, "--conditions", "identity/Ghost,identity/Saturation", "--solvers", "conditional,landweber"]) == 0
    with Path("table/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["condition"], row["solver"]) for row in rows} == {
        (f"identity/{name}", solver) for name in OPERATORS for solver in ("conditional", "landweber")
    }
    assert all(float(row["psnr"]) > 0 for row in rows)
    assert {row["nfe"] for row in rows if row["solver"] == "landweber"} == {"3"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def x(:", "SyntaxError"),
        ("raise KeyError('x')", "KeyError"),
        (EXTENSION.replace('"landweber"', '"dps"'), "there is a solver 'dps' already"),
        (None, "there is no Python file"),
    ],
)
def test_a_file_that_fails_is_refused(text: str | None, said: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if text is None:
        Path("mine.py").unlink()
    else:
        Path("mine.py").write_text(text, encoding="utf-8")
    assert main(["simulate", "sub-1_T2w.nii.gz", "--out", "poor.nii.gz", "--extension", "mine.py"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert "expected" in line
    assert not Path("poor.nii.gz").exists()


def test_parameters_of_lowfield_are_not_those_of_another_operator(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "sub-1_T2w.nii.gz", "--out", "poor.nii.gz", "--degradation", "Ghost.json", "--extension", "mine.py"]
    for option in (["--gamma", "0.5"], ["--snr", "20"]):
        assert main([*words, *option]) == 2
        assert f"{option[0]} is given with Ghost.json, a Ghost" in capsys.readouterr().err


def test_without_the_file_nobody_knows_its_names(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enhance", "sub-1_T2w.nii.gz", "--out", "out", "--solver", "landweber"]) == 2
    assert "there is no solver 'landweber'" in capsys.readouterr().err
    assert main(["simulate", "sub-1_T2w.nii.gz", "--out", "poor.nii.gz", "--degradation", "Ghost.json"]) == 2
    assert "does not describe an operator" in capsys.readouterr().err
