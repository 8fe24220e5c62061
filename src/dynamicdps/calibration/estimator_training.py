"""Train the estimator of a scanner's parameters on simulated scans."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from dynamicdps.atomic_file import atomic_write
from dynamicdps.calibration.fit import contrast_from_image, low_field
from dynamicdps.calibration.parameter_estimator import KIND, LOG_STD, NAMES, ContrastWeight, EstimatorNetwork, ParameterEstimator, targets
from dynamicdps.calibration.scan_statistics import ScanStatistics, scan_statistics
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json
from dynamicdps.operators.image_grid import voxel_factors
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.noise import Noise
from dynamicdps.volumes import IntensityScale, load, to_slices
from dynamicdps.volumes.noise_estimate import MAD_OF_NORMAL, estimate_noise

Enhance = Callable[[Tensor, LowField, Sequence[int]], Tensor]

COVERAGE = 0.95
WHITE_MATTER = 0.85
_HELD_OUT = 6  # every sixth subject calibrates the intervals
_JITTER = 0.05  # of the standardised inputs
_BATCH = 128
_QUIET = 0.25
_KEEP_EVERY = 250


@dataclass(frozen=True)
class ScannerRange:
    """Scanners drawn at random: the limits of each parameter.

    Wider than what the estimator is meant for (gamma 0.3 to 1.5, blur 0 to 3 mm, slices of 2 to 6 mm, signal to noise 10 to 50): at the
    ends of a training range estimates shrink to its middle.

    Attributes:
        gamma: exponent of the contrast, uniform.
        blur: standard deviation in mm, uniform.
        slice_thickness: full width at half maximum in mm, uniform.
        snr: signal to noise of white matter, uniform in its logarithm.
        quiet_snr: likewise, for a quarter of the scans: simulations in papers often have almost no noise.
        in_plane_factor: in-plane voxel sizes in mm, one of these.
        slice_spacing: distances of slices in mm, one of these.
        depth: slab in mm, uniform.
    """

    gamma: tuple[float, float] = (0.25, 1.7)
    blur: tuple[float, float] = (0.0, 3.3)
    slice_thickness: tuple[float, float] = (1.0, 7.0)
    snr: tuple[float, float] = (7.0, 70.0)
    quiet_snr: tuple[float, float] = (70.0, 1000.0)
    in_plane_factor: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
    slice_spacing: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
    depth: tuple[int, int] = (16, 64)

    def draw(self, random: np.random.Generator) -> tuple[LowField, Noise]:
        """One scanner and its noise."""
        gamma = float(random.uniform(*self.gamma))
        lowest, highest = self.quiet_snr if random.random() < _QUIET else self.snr
        snr = math.exp(random.uniform(math.log(lowest), math.log(highest)))
        scanner = LowField(
            gamma=gamma,
            in_plane_factor=float(random.choice(self.in_plane_factor)),
            blur=float(random.uniform(*self.blur)),
            slice_thickness=float(random.uniform(*self.slice_thickness)),
            slice_spacing=float(random.choice(self.slice_spacing)),
        )
        return scanner, Noise(WHITE_MATTER**gamma / snr, str(random.choice(["gaussian", "rician"])))


@dataclass(frozen=True, eq=False)
class Simulated:
    """One scan simulated from a good one.

    Attributes:
        scanner: what it was simulated with.
        noise_std: standard deviation of the noise that it was simulated with.
        y: the scan, ``(1, 1, depth, height, width)``, in image intensities.
        shape: of the image.
        statistics: of the scan.
        noise: measured standard deviation.
    """

    scanner: LowField
    noise_std: float
    y: Tensor
    shape: torch.Size
    statistics: ScanStatistics
    noise: float

    @property
    def targets(self) -> NDArray[np.float64]:
        """What the network is to say."""
        thickness = self.scanner.slice_thickness
        assert thickness is not None
        return targets(float(self.scanner.gamma), float(self.scanner.blur), thickness, self.statistics.top)


def simulate_scan(head: Tensor, random: np.random.Generator, ranges: ScannerRange) -> Simulated | None:
    """A slab of a head through a scanner drawn at random; `None` where the slab holds too little of the head.

    Args:
        head: skull-stripped volume ``(depth, height, width)`` in image intensities, 1 mm.
        random: of scanner, slab and noise.
        ranges: scanners.
    """
    scanner, drawn = ranges.draw(random)
    depth = min(len(head), int(random.integers(ranges.depth[0], ranges.depth[1] + 1)))
    first = int(random.integers(len(head) - depth + 1))
    image = head[None, None, first : first + depth]
    generator = torch.Generator().manual_seed(int(random.integers(2**31)))
    y = drawn.draw(scanner(image), [generator])
    try:
        noise = float(estimate_noise(y).std[0])
        statistics = scan_statistics(y[0, 0], voxel_factors(scanner), noise)
    except InputError:
        # The tip of a head: no scan that anybody would fit.
        return None
    return Simulated(scanner, drawn.std, y, image.shape, statistics, noise)


def train_estimator(
    scans: Sequence[Path],
    out: Path,
    *,
    simulations: int = 8000,
    epochs: int = 120,
    members: int = 3,
    ranges: ScannerRange = ScannerRange(),
    enhance: Enhance | None = None,
    with_image: int = 120,
    seed: int = 0,
    data_name: str = "unnamed",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Simulate, train and write ``operator-fit.safetensors`` with its model card.

    Every sixth subject is held out: the intervals are stretched until they hold on its scans.

    Args:
        scans: skull-stripped scans at 1 mm.
        out: folder.
        simulations: scans to simulate.
        epochs: passes over them.
        members: networks whose mixture is the estimate.
        ranges: scanners.
        enhance: a conditional model, from a scan, its operator and the image's shape to the image; without it an initial image will
            not improve the contrast.
        with_image: scans of held-out subjects to run it on.
        seed: of everything.
        data_name: what the card says about the data.
        progress: called with scans simulated and planned.

    Raises:
        InputError: there are fewer than two scans, or one cannot be read.
    """
    if len(scans) < 2:
        raise InputError(f"there are {len(scans)} scans; expected at least 2, one of them to be held out; name more")
    heads = [to_slices(IntensityScale.robust(v.data).apply(v).data)[:, 0] for v in map(load, scans)]
    held_out = range(0, len(heads), min(_HELD_OUT, len(heads)))
    planned = simulations + (with_image if enhance else 0)
    out.mkdir(parents=True, exist_ok=True)
    whose, x, t, noise = _simulate(heads, out / "simulations.npz", simulations, ranges, seed, progress, planned)
    new = np.isin(whose, held_out)
    network = fit_network(x[~new], t[~new], epochs=epochs, members=members, seed=seed)
    stretch, errors = calibrate_intervals(network, x[new], t[new])
    lowest, highest = np.quantile(noise[new], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()
    errors["noise_std"] = round(float(np.median(np.abs(noise[new] - 1))), 5)
    contrast = ContrastWeight()
    if enhance is not None:
        plain = ParameterEstimator(network, stretch, (lowest, highest), contrast, {}, {})
        chosen: list[Simulated] = []
        random = np.random.default_rng([seed, simulations])
        while len(chosen) < with_image:
            scan = simulate_scan(heads[held_out[len(chosen) % len(held_out)]], random, ranges)
            chosen += [] if scan is None else [scan]
        contrast, errors["gamma_with_image"] = weigh_image(
            plain, chosen, enhance, lambda k: progress and progress(simulations + k, planned)
        )
    path = out / f"{KIND}.safetensors"
    with atomic_write(path) as partial:
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, partial)
        # safetensors makes files that only their owner can read.
        partial.chmod(0o644)
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    card: dict[str, Any] = {
        "kind": KIND,
        "members": members,
        "ranges": asdict(ranges),
        "stretch": stretch,
        "noise_ratio": [round(lowest, 4), round(highest, 4)],
        "contrast": asdict(contrast),
        "held_out_error": errors,
        "coverage": COVERAGE,
        "simulations": simulations,
        "subjects": len(scans),
        "data": data_name,
        "seed": seed,
        "sha256": digest,
    }
    write_json(path.with_suffix(".json"), card)
    return path


def _simulate(
    heads: Sequence[Tensor],
    path: Path,
    count: int,
    ranges: ScannerRange,
    seed: int,
    progress: Callable[[int, int], None] | None,
    planned: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Head, statistics, targets and noise ratio of simulated scans; kept on disk, so that a training that was stopped goes on.

    Every scan has a generator of its own: it is the same whatever was done before.
    """
    note = json.dumps([asdict(ranges), seed, len(heads)])
    rows: list[tuple[int, NDArray[np.float64], NDArray[np.float64], float]] = []
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["note"]) == note:
                rows = list(zip(kept["whose"].tolist(), kept["x"], kept["t"], kept["noise"].tolist(), strict=True))[:count]

    def columns() -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        whose, x, t, noise = zip(*rows, strict=True)
        return np.array(whose), np.stack(x), np.stack(t), np.array(noise)

    while len(rows) < count:
        random = np.random.default_rng([seed, len(rows)])
        scan = None
        while scan is None:
            which = int(random.integers(len(heads)))
            scan = simulate_scan(heads[which], random, ranges)
        rows.append((which, scan.statistics.values, scan.targets, scan.noise / scan.noise_std))
        if len(rows) % _KEEP_EVERY == 0 or len(rows) == count:
            whose, x, t, noise = columns()
            with atomic_write(path) as partial:
                np.savez(partial, whose=whose, x=x, t=t, noise=noise, note=np.array(note))
        if progress is not None:
            progress(len(rows), planned)
    return columns()


def weigh_image(
    estimator: ParameterEstimator, scans: Sequence[Simulated], enhance: Enhance, progress: Callable[[int], object]
) -> tuple[ContrastWeight, float]:
    """How much an initial image's contrast is worth beside the statistics', on scans of held-out heads.

    Args:
        estimator: of the statistics.
        scans: simulated.
        enhance: the conditional model.
        progress: called with scans done.

    Returns:
        The weight, and the median error of the combined ``log gamma``.
    """
    rows = []
    for k, scan in enumerate(scans):
        estimate = estimator(scan.statistics)
        factor, _, spacing = voxel_factors(scan.scanner)
        operator = low_field(estimate.mean, (factor, factor, spacing))
        scale = scan.statistics.top / estimate.mean["top"]
        # With less than the true depth between slices that are near each other, the operator keeps them.
        x = enhance(scan.y / scale, operator, scan.shape)
        fit = contrast_from_image(operator, scan.y / scale, x)
        true = math.log(float(scan.scanner.gamma))
        rows.append((math.log(estimate.mean["gamma"]) - true, math.log(fit.values["gamma"]) - true, estimate.std["gamma"]))
        progress(k + 1)
    own, image, std = np.array(rows).T

    def combined(weight: float) -> NDArray[np.float64]:
        error = (1 - weight) * own + weight * image
        return np.asarray(np.abs(error - np.median(error)))

    # Absolute errors: where the conditional model fails altogether, its contrast is far off.
    weight = min((k / 20 for k in range(21)), key=lambda w: float(combined(w).mean()))
    offset = -float(np.median((1 - weight) * own + weight * image))
    error = combined(weight)
    image_std = float(np.median(np.abs(image - np.median(image))) / MAD_OF_NORMAL)
    spread = np.hypot((1 - weight) * std, weight * image_std)
    level = min(1.0, math.ceil((len(rows) + 1) * COVERAGE) / len(rows))
    stretch = float(np.quantile(error / spread, level))
    return (
        ContrastWeight(weight, round(offset, 5), round(image_std, 5), round(stretch, 4)),
        round(float(np.median(error)), 5),
    )


def fit_network(x: NDArray[np.float64], t: NDArray[np.float64], *, epochs: int = 120, members: int = 3, seed: int = 0) -> EstimatorNetwork:
    """Maximum likelihood of a normal error whose standard deviation is learned too.

    Args:
        x: statistics ``(count, COUNT)``.
        t: targets ``(count, 4)``.
        epochs: passes over them.
        members: networks, each from its own random start.
        seed: of starts and order.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EstimatorNetwork(members)
        statistics, wanted = torch.from_numpy(x).float(), torch.from_numpy(t).float()
        present = ~torch.isnan(statistics)
        amount = present.sum(0).clamp_min(1)
        network.centre = statistics.nan_to_num(0.0).sum(0) / amount
        squares = torch.where(present, statistics - network.centre, 0.0).square().sum(0) / amount
        # A statistic that never varies says nothing when it does not, and much when it suddenly does.
        network.spread = squares.sqrt().clamp_min(1e-3)
        network.target_centre, network.target_spread = wanted.mean(0), wanted.std(0).clamp_min(1e-6)
        inputs, goal = network.inputs(statistics), (wanted - network.target_centre) / network.target_spread
        batch = min(_BATCH, len(x))
        for member in network.members:
            optimiser = torch.optim.AdamW(member.parameters(), lr=1e-3, weight_decay=1e-2)
            total = epochs * (len(x) // batch)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=total)
            member.train()
            for _ in range(epochs):
                order = torch.randperm(len(x))
                for k in range(len(x) // batch):
                    chosen = order[k * batch : (k + 1) * batch]
                    noisy = inputs[chosen] + _JITTER * torch.randn(len(chosen), inputs.shape[1])
                    mean, log_std = member(noisy).chunk(2, -1)
                    log_std = log_std.clamp(*LOG_STD)
                    loss = (0.5 * ((mean - goal[chosen]) / log_std.exp()).square() + log_std).mean()
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    schedule.step()
    return network.eval().requires_grad_(False)


def calibrate_intervals(
    network: EstimatorNetwork, x: NDArray[np.float64], t: NDArray[np.float64]
) -> tuple[dict[str, float], dict[str, float]]:
    """Factors on the standard deviations that cover 95 % of scans that were held out (split conformal), and their median errors."""
    with torch.inference_mode():
        mean, std = network(torch.from_numpy(x).float())
    error = (mean.double() - torch.from_numpy(t)).abs()
    scores = error / std.double()
    level = min(1.0, math.ceil((len(x) + 1) * COVERAGE) / len(x))
    stretch = torch.quantile(scores, level, dim=0)
    return (
        {name: round(float(s), 4) for name, s in zip(NAMES, stretch, strict=True)},
        {name: round(float(e), 5) for name, e in zip(NAMES, error.median(0).values, strict=True)},
    )
