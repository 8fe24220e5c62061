"""Whether a coil shades a scan, and the factor of the forward model that says so."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.operators.bias_field import BiasField
from dynamicdps.operators.operator import Composition, Operator
from dynamicdps.volumes import Volume, from_slices, to_slices
from dynamicdps.volumes.bias_estimate import BiasEstimate, estimate_bias
from dynamicdps.volumes.preparation import Step

CHOICES = ("auto", "off", "on")
# Anatomy alone looks like shading. Its logarithm grows with the exponent of the contrast; divided by it, the standard deviation over the
# brain was at most 0.022 in whole brains and 0.079 in slabs (benchmarks/shading.py): what is found beyond that is the coil's.
WHOLE_LIMIT, SLAB_LIMIT = 0.03, 0.08
WHOLE_MM = 80.0


@dataclass(frozen=True)
class Shading:
    """Shading of a scan, found and judged.

    Attributes:
        estimate: the smooth field, or `None` where it was not looked for or could not be found.
        spread: standard deviation of its logarithm over the brain.
        limit: what anatomy alone may look like, in the same units.
        kept: whether it is a factor of the forward model.
        choice: one of `CHOICES`, as asked for.
        remark: why there is no estimate.
    """

    estimate: BiasEstimate | None
    spread: float
    limit: float
    kept: bool
    choice: str
    remark: str = ""

    def flat(self, scan: Volume) -> Volume:
        """The scan without its shading; the scan itself where none is kept."""
        return self.estimate.correct(scan) if self.estimate is not None and self.kept else scan

    def factor(self) -> BiasField | None:
        """The operator to put after all others, on the scanner's grid; `None` where no shading is kept."""
        if self.estimate is None or not self.kept:
            return None
        return BiasField(torch.from_numpy(self.estimate.coefficients).float())

    def step(self) -> Step:
        """What run.json says of it."""
        found: dict[str, Any] = {"kept": self.kept}
        warnings = []
        if self.remark:
            found["remark"] = self.remark
        if self.estimate is not None:
            low, high = self.estimate.range
            found |= {
                "spread": round(self.spread, 4),
                "limit": round(self.limit, 4),
                "range_in_brain": [round(low, 4), round(high, 4)],
                "coefficients": np.round(self.estimate.coefficients, 6).tolist(),
            }
            if self.kept and high > 3 * low:
                warnings.append(f"the shading spans {low:.2f} to {high:.2f} of its mean; look at it before you trust the result")
        return Step("shading", {"shading": self.choice}, found, warnings)


def find_shading(scan: Volume, inside: NDArray[np.bool_], gamma: float, choice: str = "auto") -> Shading:
    """Estimate the shading of a scan and keep it where it is more than anatomy alone looks like.

    Args:
        scan: the measurement, any units.
        inside: the brain, same shape.
        gamma: exponent of the scan's contrast.
        choice: ``"auto"``; ``"on"``: keep what is found; ``"off"``: do not look.

    Raises:
        InputError: the choice is another one, or shading has to be found (``"on"``) in too small a brain.
    """
    if choice not in CHOICES:
        raise InputError(f"shading is {choice!r}; expected one of {', '.join(CHOICES)}; change --shading")
    limit = gamma * (WHOLE_LIMIT if _shortest_mm(scan, inside) >= WHOLE_MM else SLAB_LIMIT)
    if choice == "off":
        return Shading(None, 0.0, limit, False, choice, "not looked for")
    try:
        estimate = estimate_bias(scan, inside)
    except InputError as error:
        if choice == "on":
            raise
        return Shading(None, 0.0, limit, False, choice, str(error))
    spread = float(np.log(estimate.field.data[inside].astype(np.float64)).std())
    return Shading(estimate, spread, limit, choice == "on" or spread > limit, choice)


def without_shading(scan: Volume, operator: Operator) -> Volume:
    """A measurement divided by the shading that its operator ends with: what models see that know no coils. Itself without any."""
    last = operator.operators[0] if isinstance(operator, Composition) else operator
    if not isinstance(last, BiasField):
        return scan
    y = to_slices(scan.data).movedim(0, 1)[None]
    return scan.with_data(from_slices((y / last.gain(y))[0].movedim(0, 1)))


def _shortest_mm(scan: Volume, inside: NDArray[np.bool_]) -> float:
    """Shortest edge of the brain's box, faces to faces."""
    indices = np.argwhere(inside)
    if not len(indices):
        return 0.0
    return float(((np.ptp(indices, axis=0) + 1) * scan.spacing).min())
