"""Several scans of one head: where they lie to each other, and what they measure of one image together."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.calibration.fit import OperatorFit
from dynamicdps.calibration.shading import without_shading
from dynamicdps.data_term import scan_term
from dynamicdps.errors import InputError
from dynamicdps.evaluation import data_misfit
from dynamicdps.evaluation.null_space import unsupported_by_all
from dynamicdps.operators import Composition, LowField, Operator, ScanOperator, SwapSliceAxis
from dynamicdps.pipeline.inputs import name_of
from dynamicdps.pipeline.other_contrast import OtherContrast, explain
from dynamicdps.pipeline.poses import SAME_HEAD, Pose, ScanToAlign, find_poses, image_grid, moved
from dynamicdps.pipeline.ranges import Ranges, misfit_range
from dynamicdps.pipeline.scan_contrast import KNOWN
from dynamicdps.priors import Denoiser, Prior
from dynamicdps.report.trace import Rows, start_rows
from dynamicdps.solvers import DynamicDPSConfig, Result, StartLevelRule, solve, start_rule_of
from dynamicdps.solvers.ablation import DataStepConfig
from dynamicdps.solvers.initial import Initial, initial_from_volume
from dynamicdps.solvers.solve import on_grid
from dynamicdps.volumes import BrainMask, BrainScan, Volume, from_slices, to_batch
from dynamicdps.volumes.crop import bounding_box, crop
from dynamicdps.volumes.grids import Grid, covered, grid_over, native_grid, prior_grid, sample
from dynamicdps.volumes.noise_estimate import NoiseEstimate

# Around the brain, in mm: as far as a thick slice there reaches into it.
MARGIN_MM = 8
# Wavelength of the detail that counts for the information along an axis: details of 2 mm.
DETAIL_MM = 4.0
# Share of a brain that no curve explains from which on a warning says so.
MUCH = 0.2


@dataclass(frozen=True)
class OneScan:
    """One of several scans of a head.

    Attributes:
        name: its path, or ``array``.
        head: the scan and its brain.
        operator: its forward model on its own image grid, with its intensity scale.
        initial: an enhanced image of it alone, in its units.
        fit: how the operator was fitted; `None` where it was given.
        pose: its place in the image's space; `None` until it is found.
        contrast: one of `dynamicdps.volumes.contrast.CONTRASTS`.
    """

    name: str
    head: BrainScan
    operator: ScanOperator
    initial: Initial
    fit: OperatorFit | None
    pose: Pose | None = None
    contrast: str = "T1w"

    @property
    def scale(self) -> float:
        """Units of the scan of one image-intensity unit."""
        assert self.operator.intensity_scale is not None
        return self.operator.intensity_scale

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Where its brain was measured."""
        measured = self.head.measured
        return self.head.mask.inside if measured is None else measured > 0

    def to_align(self) -> ScanToAlign:
        image = self.initial.volume
        whole = self.operator.operator
        bare = whole.operators[-1] if isinstance(whole, Composition) else whole
        return ScanToAlign(
            without_shading(self.head.brain, whole), self.counted, bare, image.with_data(image.data / self.scale), self.contrast
        )

    def operator_on(self, grid: Grid) -> ScanOperator:
        """Its forward model of images on a grid, with the places of its slices and the weights of its voxels."""
        motion = None if self.pose is None or self.pose.slices is None else self.pose.slices.movements
        own = self.operator if self.head.measured is None else self.operator.weighted(self.head.measured)
        return on_grid(self.head.brain, own, grid.shape, grid.affine, motion)

    def placed(self, pose: Pose) -> "OneScan":
        """The scan at its pose: its affines change, no voxel does."""
        head = replace(self.head, whole=moved(self.head.whole, pose.movement), brain=moved(self.head.brain, pose.movement))
        return replace(self, pose=pose, head=head, initial=replace(self.initial, volume=moved(self.initial.volume, pose.movement)))

    def to_json(self) -> dict[str, Any]:
        """What run.json says of it."""
        sizes = [round(s, 4) for s in self.head.whole.spacing]
        pose = {} if self.pose is None else {"pose": self.pose.to_json()}
        return {"scan": self.name, "contrast": self.contrast, "spacing_mm": sizes, "operator": self.operator.to_json(), **pose}


def align(scans: Sequence[OneScan], *, keep_all: bool = False) -> tuple[list[OneScan], list[str]]:
    """The scans at their poses, and warnings.

    Raises:
        InputError: a scan does not show what the others do, and not all are to be kept.
    """
    poses = find_poses([each.to_align() for each in scans])
    warnings = []
    worst = min(range(len(scans)), key=lambda k: poses[k].correlation)
    if poses[worst].correlation < SAME_HEAD:
        found = (
            f"{scans[worst].name} does not show what the other scans show (correlation {poses[worst].correlation:.2f}, at least "
            f"{SAME_HEAD:g} in scans of one head)"
        )
        if not keep_all:
            raise InputError(f"{found}; expected scans of one head; leave it out, or give --keep-all if it is the same head")
        warnings.append(f"{found}; it was kept because --keep-all was given")
    return [scan.placed(pose) for scan, pose in zip(scans, poses, strict=True)], warnings


def alike_contrasts(scans: Sequence[OneScan]) -> list[OneScan]:
    """The scans with one exponent of their contrast, where the intervals of the fitted ones do not tell them apart.

    The data step then goes along one curve for all of them, and errors of single fits average out. Scans of another contrast than the
    first one's stay as they are.
    """
    leading = [each for each in scans if each.contrast == scans[0].contrast]
    intervals = [None if each.fit is None else each.fit.intervals.get("gamma") for each in leading]
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(leading) or max(low for low, _ in known) > min(high for _, high in known):
        return list(scans)
    gammas = [float(each.fit.scanner.gamma) for each in leading if each.fit is not None]
    common = float(np.exp(np.mean(np.log(gammas))))
    return [
        replace(each, operator=replace(each.operator, operator=_with_gamma(each.operator.operator, common)))
        if each.contrast == scans[0].contrast
        else each
        for each in scans
    ]


def _with_gamma(operator: Operator, gamma: float) -> Operator:
    if isinstance(operator, Composition):
        return Composition((*operator.operators[:-1], _with_gamma(operator.operators[-1], gamma)))
    if isinstance(operator, SwapSliceAxis):
        return SwapSliceAxis(_with_gamma(operator.inner, gamma), operator.axis)
    return replace(operator, gamma=gamma) if isinstance(operator, LowField) else operator


def in_order(scans: Sequence[OneScan]) -> list[int]:
    """Indices of the scans in an order that does not depend on the one in which they were given; those in the image's contrast first."""
    keys = [
        (
            (*KNOWN, each.contrast).index(each.contrast),
            -int(np.argmax(each.head.whole.spacing)),
            each.head.whole.shape,
            float(each.head.whole.data.sum(dtype=np.float64)),
            each.name,
        )
        for each in scans
    ]
    return sorted(range(len(scans)), key=lambda k: keys[k])


def without_repeats(scans: Sequence[OneScan]) -> tuple[list[OneScan], list[str]]:
    """The scans without those that are another one's copy: a measurement counts once."""
    kept: list[OneScan] = []
    warnings = []
    for scan in scans:
        twin = next((k for k in kept if np.array_equal(k.head.whole.data, scan.head.whole.data)), None)
        if twin is None:
            kept.append(scan)
        else:
            warnings.append(f"{scan.name} holds the same values as {twin.name} and counts once")
    return kept, warnings


@dataclass
class ScansOfHead:
    """Several scans of one head as one measurement; a `dynamicdps.pipeline.measurements.Measurement`.

    The image has the first scan's contrast. Scans of another one explain the same image through a curve each, found when it is solved for.

    Attributes:
        scans: at their poses, in the order of `in_order`.
        given: their indices in the order in which they were given; the first is shown.
        start: an image to start from, in the space of the first one's header; `None` for the mean of the scans' own.
        shading: whether that of scans of another contrast is looked for.
        head: the mean of those in the image's contrast on voxels of 1 mm, in the units of `scans[0]`, with the brain that most of
            them hold.
    """

    scans: Sequence[OneScan]
    given: Sequence[int]
    start: Volume | None = None
    noise: NoiseEstimate | None = None
    space: str = ""
    shading: bool = True
    head: BrainScan = field(init=False)

    def __post_init__(self) -> None:
        self.head = _together(self._leading)
        grid = native_grid(self.head.brain)
        images = [replace(s.initial.volume, data=s.initial.volume.data / np.float32(s.scale)) for s in self._leading]
        self._mean = mean_of(images, grid, order=3)
        self._pairs = [(each.head.brain, each.operator_on(grid)) for each in self.scans]
        self._pairs = self._of_one_scale()
        self._explained: dict[int, OtherContrast] = {}

    def _leads(self, scan: OneScan) -> bool:
        """Whether a scan is in the image's contrast."""
        return scan.contrast == self.scans[0].contrast

    @property
    def _leading(self) -> list[OneScan]:
        return [each for each in self.scans if self._leads(each)]

    @property
    def operator(self) -> ScanOperator:
        """The operator of the first scan of the list, on the image grid."""
        return self._pairs[0][1]

    def initial(self) -> tuple[Initial, list[str]]:
        """The image to start from, in the units of `scans[0]`, and warnings: the mean of the scans' own enhanced images, or the one given.

        Raises:
            InputError: the one that is given lies outside of the scans.
        """
        scale = float(self._pairs[0][1].intensity_scale or 1.0)
        mean = self._mean.with_data(self._mean.data * np.float32(scale))
        if self.start is None:
            source, count = self.scans[0].initial.source, len(self._leading)
            return Initial(mean, f"mean of {count} images, each by {source}" if count > 1 else source), []
        # In the units of the scan that is named first, or in those of one in the image's contrast.
        first = self.scans[self.given[0]]
        brain, own = self._pairs[self.given[0] if self._leads(first) else 0]
        assert first.pose is not None
        name = name_of(self.start)
        found = initial_from_volume(brain, own, moved(self.start, first.pose.movement), name)
        image = found.volume.with_data(found.volume.data * np.float32(scale / float(own.intensity_scale or 1.0)))
        inside = self.head.inside_on(mean) > 0
        likeness = float(np.corrcoef(image.data[inside], mean.data[inside])[0, 1]) if np.ptp(image.data[inside]) > 0 else 0.0
        warning = (
            f"the initial image {name} is little like what the scans show (correlation {likeness:.2f}); expected an image in the space of "
            f"{first.name}, which is given first; check its affine"
        )
        return replace(found, volume=image), [warning] * (likeness < SAME_HEAD)

    def prepare(self, seed: int) -> None:
        del seed

    def settings(self, config: Any, prior: Prior) -> Any:
        """How a solver is run for an image that starts as the mean of several: DynamicDPS from a lower level.

        The error of n images falls by the root of n in their mean, and start levels are calibrated on the images of single scans.
        """
        if not isinstance(config, DynamicDPSConfig):
            return config
        rule = config.start_rule or start_rule_of(prior, self.head.brain.shape[2])
        if config.start_sigma is not None or self.start is not None or not isinstance(rule, StartLevelRule):
            return config
        grid, inside = native_grid(self.head.brain), self._mean.data > 0
        count = float(np.sum([covered(each.initial.volume, grid)[inside].mean() for each in self._leading])) if inside.any() else 1.0
        if count <= 1:
            return config
        return replace(config, start_rule=rule.lowered(count**-0.5, f"the initial image is the mean of {count:.1f}"))

    @property
    def shown(self) -> Volume:
        return self.scans[self.given[0]].head.brain

    @property
    def others_shown(self) -> list[Volume]:
        """The measurements of the scans that were given after the first."""
        return [self.scans[k].head.brain for k in self.given[1:]]

    def solve(self, name: str, operator: ScanOperator, prior: Denoiser, **options: Any) -> Result:
        del operator
        if len(self._leading) < len(self.scans):
            self._explain_others(prior, options["initial"])
        found = solve(name, self._trusted, None, prior, **options)
        residuals = [found.residual, *found.other_residuals]
        # Where a voxel counts less because no curve explains it, the residual is to show what is left there.
        residuals = [
            residual.with_data(residual.data / from_slices(self._explained[k].weights[None, None])) if k in self._explained else residual
            for k, residual in enumerate(residuals)
        ]
        shown, *others = (residuals[k] for k in self.given)
        return replace(found, residual=shown, other_residuals=tuple(others), predicted=tuple(found.predicted[k] for k in self.given))

    @property
    def _trusted(self) -> list[tuple[Volume, ScanOperator]]:
        """The pairs with less weight where no curve explains a scan of another contrast."""
        pairs = list(self._pairs)
        for k, explained in self._explained.items():
            brain, own = pairs[k]
            trust = from_slices(explained.weights[None, None])
            pairs[k] = brain, own.weighted(trust if own.weights is None else own.weights * trust)
        return pairs

    def _explain_others(self, prior: Denoiser, initial: Volume) -> None:
        """Find how the image explains each scan of another contrast: from the initial image, then from what all scans make of it."""
        image, config = initial, DataStepConfig(iterations=1)
        for again in (True, False):
            for k, scan in enumerate(self.scans):
                if not self._leads(scan):
                    self._explain(k, image)
            if again:
                image = solve("data-step", self._trusted, None, prior, initial=initial, config=config).volume

    def _explain(self, k: int, image: Volume) -> None:
        """Find how an image, in the units of `scans[0]`, explains a scan of another contrast."""
        brain, own = self.scans[k].head.brain, self.scans[k].operator_on(native_grid(self.head.brain))
        term = scan_term(brain, own, self.scans[k].scale, whole=True)
        x = to_batch(image.data / float(self._pairs[0][1].intensity_scale or 1.0))
        found = explain(term, x, brain.spacing, shading=self.shading)
        linear = own.operator.linear
        assert linear is not None, "several scans are linear behind their contrasts"
        self._explained[k], self._pairs[k] = found, (brain, replace(own, operator=found.scanner(linear)))

    def misfit(self, image: Volume, operator: ScanOperator, result: Result) -> tuple[float, Ranges]:
        """Pooled over the scans; the range over slices reaches from the least of a scan to the most of one."""
        del operator
        squares, counts, ranges = [], [], []
        for brain, own in self._pairs:
            own_scale = float(own.intensity_scale or 1.0)
            seen = image.with_data(image.data * np.float32(own_scale / result.scale.scale))
            squares.append(data_misfit(seen, brain, own, result.scale) ** 2)
            counts.append(_counted(brain, own))
            ranges.append(misfit_range(seen, brain, own, replace(result.scale, scale=own_scale))["data_misfit"])
        whole = float(np.sqrt(np.average(squares, weights=counts)))
        return whole, {"data_misfit": (min(low for low, _ in ranges), max(high for _, high in ranges))}

    def starts(self, operator: ScanOperator, result: Result) -> Rows:
        del operator
        return start_rows(result, self._trusted)

    def unsupported(self, result: Result, operator: ScanOperator) -> Volume | None:
        del operator
        return unsupported_by_all(result.volume, [own for _, own in self._pairs], result.scale)

    def doubts(self) -> list[str]:
        return [
            f"no curve of intensities explains {self.scans[k].name} in {share:.0%} of its brain, where it counts less; see its residual"
            for k in self._explained
            if (share := self._unexplained(k)) > MUCH
        ]

    def facts(self) -> dict[str, Any]:
        shape = native_grid(self.head.brain).shape
        pairs = self._trusted
        known = np.array([[_counted(brain, own), *_power_along(own, shape)] for brain, own in pairs])
        known /= np.array([[own.noise.std**2] for _, own in pairs])
        shares = np.round(known / known.sum(0), 3).tolist()
        names = "share_of_information", "share_along_axes"
        return {
            "scans": [
                self.scans[k].to_json() | self._of_curve(k) | dict(zip(names, (shares[k][0], shares[k][1:]), strict=True))
                for k in self.given
            ]
        }

    def _of_curve(self, k: int) -> dict[str, Any]:
        """What run.json says of a scan of another contrast: the operator from the image to it, and where its curve fails."""
        if k not in self._explained:
            return {}
        own, explained = self.scans[k].operator, self._explained[k]
        operator = replace(own, operator=explained.with_curve(_with_gamma(own.operator, 1.0)))
        return {"operator": operator.to_json(), "unexplained_share": round(self._unexplained(k), 4)}

    def _unexplained(self, k: int) -> float:
        """Share of a scan's brain whose voxels count less than a half because no curve explains them."""
        inside = self.scans[k].counted
        return float((from_slices(self._explained[k].weights[None, None])[inside] ** 2 < 0.5).mean())

    def _of_one_scale(self) -> list[tuple[Volume, ScanOperator]]:
        """The pairs with intensity scales that agree about the mean image; their geometric mean stays."""
        scales = [float(own.intensity_scale or 1.0) for _, own in self._pairs]
        gains = []
        for scan, (brain, own), scale in zip(self.scans, self._pairs, scales, strict=True):
            if not self._leads(scan):
                # Its curve has the scale.
                gains.append(1.0)
                continue
            foretold = from_slices(own.operator(_as_tensor(self._mean)))
            inside = (foretold > 0) & (brain.data > 0 if own.weights is None else own.weights > 0)
            seen = brain.data / scale
            gains.append(float((foretold * seen)[inside].sum() / (foretold**2)[inside].sum()) if inside.any() else 1.0)
        middle = float(np.exp(np.mean(np.log(gains))))
        return [
            (brain, replace(own, intensity_scale=scale * gain / middle))
            for (brain, own), scale, gain in zip(self._pairs, scales, gains, strict=True)
        ]


def _as_tensor(volume: Volume) -> Tensor:
    return to_batch(volume.data).clamp_min(0)


def _counted(brain: Volume, operator: ScanOperator) -> float:
    """How many voxels of a scan count: all of them where no weights say otherwise."""
    return float(brain.data.size if operator.weights is None else operator.weights.sum())


def _power_along(operator: ScanOperator, shape: tuple[int, int, int]) -> list[float]:
    """What a scan shows of a wave of `DETAIL_MM` along each axis of an image of 1 mm: the sum of its squares, without a contrast."""
    linear = operator.operator.linear
    assert linear is not None, "several scans are linear behind their contrasts"
    powers = []
    for axis in range(3):
        phase = torch.arange(shape[axis]) * (2 * torch.pi / DETAIL_MM)
        sizes = [1, 1, 1, 1, 1]
        sizes[-1 - axis] = shape[axis]
        waves = [wave.view(sizes).expand(1, 1, *shape[::-1]) for wave in (phase.cos(), phase.sin())]
        seen = np.sum([from_slices(linear(wave.contiguous())) ** 2 for wave in waves], axis=0)
        powers.append(float((seen if operator.weights is None else seen * operator.weights).sum()))
    return powers


def mean_of(images: Sequence[Volume], grid: Grid, order: int = 1) -> Volume:
    """The mean on a grid of those images that cover each voxel."""
    total, count = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    for image in images:
        total += sample(image, grid, order).data
        count += covered(image, grid)
    return Volume(np.asarray(total / np.maximum(count, 1), dtype=np.float32), grid.affine, grid.native)


def _together(scans: Sequence[OneScan]) -> BrainScan:
    """The scans as one: their mean on voxels of 1 mm over all of them, with the brain that most of them hold."""
    wholes = [replace(s.head.whole, data=s.head.whole.data * np.float32(scans[0].scale / s.scale)) for s in scans]
    grid = _union(wholes)
    whole = mean_of(wholes, grid)
    masks = [Volume(s.head.mask.inside.astype(np.float32), s.head.whole.affine) for s in scans]
    # Masks are read where one of them may be true only.
    around = image_grid([(m, m.data > 0) for m in masks], MARGIN_MM)
    corner = np.rint(around.affine[:3, 3] - grid.affine[:3, 3]).astype(int)
    low, high = np.maximum(corner, 0), np.minimum(corner + np.array(around.shape), np.array(grid.shape))
    part = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    inside = np.zeros(grid.shape, bool)
    inside[part] = mean_of(masks, native_grid(crop(whole, part))).data > 0.5
    if not inside.any():
        raise InputError("the brains of the scans do not overlap; expected scans of one head in one space; check their affines")
    box = bounding_box(inside, MARGIN_MM)
    methods = list(dict.fromkeys(s.head.mask.method for s in scans))
    stripped = all(s.head.weights is None for s in scans)
    mask = BrainMask(inside, "none" if stripped else " and ".join(methods), [])
    brain = crop(whole, box)
    weights = None if stripped else inside[box].astype(np.float32)
    brain = brain if weights is None else brain.with_data(brain.data * weights)
    return BrainScan(whole, scans[0].head.acquisition, mask, brain, weights)


def _union(volumes: Sequence[Volume]) -> Grid:
    """Voxels of 1 mm along the world's axes over the volumes to the outer faces of their voxels."""
    grids = [prior_grid(each) for each in volumes]
    return grid_over([centre for g in grids for centre in (g.affine[:3, 3], g.affine[:3, 3] + np.array(g.shape) - 1)])
