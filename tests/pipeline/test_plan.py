"""What an enhancement says before it starts."""

from pathlib import Path
from typing import Any

import pytest

import dynamicdps as dd
from dynamicdps.pipeline.plan import Plan, in_minutes


def announced(scan: Any, **values: Any) -> Plan:
    plans: list[Plan] = []
    dd.enhance(scan, announce=plans.append, **values)
    (plan,) = plans
    return plan


def test_a_plan_says_what_is_known_of_scan_scanner_models_and_solver(poor: Path, quick: dict[str, Any]) -> None:
    named = poor.rename(poor.with_name("sub-1_T1w.nii.gz"))
    poor.with_name("poor.operator.json").rename(named.with_name("sub-1_T1w.operator.json"))
    plan = announced(named, **quick)
    rows = dict(plan.rows)
    assert "12 x 14 x 12 voxels of 4 x 4 x 1 mm" in rows["scan"]
    assert rows["recognised"].startswith("an image file, a brain without its skull, T1w by its name")
    said = dict(announced(named, **quick | {"contrast": "unknown"}).rows)["recognised"]
    assert "another contrast as you say" in said
    assert rows["scanner"].startswith("given (beside the scan): LowField(")
    assert quick["conditional"] in rows["initial image"]
    assert rows["solver"].startswith("dynamicdps, 2 posterior samples of 1 noise level each")
    assert set(plan.seconds) == {"initial", "solve", "volumes", "write"}
    assert "--quality fast" in rows["faster"]


def test_the_contrast_is_said_to_be_known_from_where_it_is(poor: Path, quick: dict[str, Any]) -> None:
    assert "its contrast is seen from its intensities" in dict(announced(poor, **quick).rows)["recognised"]
    poor.with_name("poor.json").write_text('{"EchoTime": 0.006, "RepetitionTime": 1.5, "InversionTime": 0.3}')
    assert "T1w by its sequence" in dict(announced(poor, **quick).rows)["recognised"]


def test_a_scan_without_an_operator_is_said_to_be_fitted(poor: Path, quick: dict[str, Any]) -> None:
    poor.with_name("poor.operator.json").unlink()
    rows = dict(announced(poor, **quick | {"estimate": "deterministic"}).rows)
    assert "found from the scan" in rows["scanner"]
    assert "--quality fast" not in rows.get("faster", "")


def test_where_the_time_is_unknown_it_is_said(poor: Path, quick: dict[str, Any]) -> None:
    plan = announced(poor, **quick | {"solver": "diffpir"})
    assert dict(plan.rows)["time"] == "not known beforehand for diffpir"
    assert not plan.seconds


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "5 seconds"), (33, "35 seconds"), (100, "2 minutes"), (1210, "20 minutes"), (9000, "2.5 hours")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_minutes(seconds) == words
