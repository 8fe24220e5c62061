from dataclasses import dataclass

import pytest

from dynamicdps.solvers.reconstruction import check_positive


@dataclass(frozen=True)
class Made:
    count: int = 1
    weight: float = 1.0
    scale: float = 0.0
    on: bool = False
    name: str = ""


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Made(count=0), "count is 0; expected at least 1"),
        (Made(weight=0.0), "weight is 0.0; expected a number greater than 0"),
        (Made(weight=float("nan")), "weight is nan; expected a number greater than 0"),
        (Made(scale=-0.5), "scale is -0.5; expected 0 or more"),
    ],
)
def test_a_refusal_says_what_the_number_may_be(config: Made, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_positive(config, ("scale",))


def test_zero_passes_where_it_means_something() -> None:
    check_positive(Made(), ("scale",))
    with pytest.raises(ValueError, match="scale is 0"):
        check_positive(Made())
