"""Priors and measurements whose posterior is known in closed form: what samplers are checked against."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LowField, Operator, add_noise
from dynamicdps.solvers import Reconstruction, make_config, solve_tensors
from dynamicdps.solvers.registry import find_solver

LEVELS = torch.logspace(-3, 1.4771, 200, dtype=torch.float64)


@dataclass(frozen=True)
class IsotropicGaussian:
    """Independent normal pixels: ``p(x0 | x)`` is normal around the denoised image with covariance ``r(sigma)^2 I``, as samplers assume."""

    height: int = 6
    width: int = 6
    data_mean: float = 0.5
    std: float = 0.2

    @cached_property
    def errors(self) -> dict[float, float]:
        return {s: s * self.std / (s**2 + self.std**2) ** 0.5 for s in LEVELS.tolist()}

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.to(x).view(-1, 1, 1, 1)
        return self.data_mean + self.std**2 / (self.std**2 + s**2) * (x - self.data_mean)

    def posterior(self, term: DataTerm) -> "Gaussian":
        size = self.height * self.width
        prior = torch.full((size,), self.data_mean, dtype=torch.float64), self.std**2 * torch.eye(size, dtype=torch.float64)
        return condition(*prior, dense(term.scanner, self.height, self.width), term.noise.std, term.measurement)


@dataclass(frozen=True)
class CorrelatedGaussian:
    """Normal pixels with a squared-exponential covariance and a little white noise: neighbours tell of each other, as in an image."""

    height: int = 6
    width: int = 6
    data_mean: float = 0.5
    std: float = 0.2
    length: float = 1.5
    white: float = 0.05

    @cached_property
    def covariance(self) -> Tensor:
        rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (self.height, self.width)), indexing="ij")
        places = torch.stack([rows.flatten(), columns.flatten()], dim=1)
        smooth = torch.exp(-0.5 * (torch.cdist(places, places) / self.length) ** 2)
        return self.std**2 * smooth + self.white**2 * torch.eye(len(places), dtype=torch.float64)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances and directions."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return values, vectors

    @cached_property
    def errors(self) -> dict[float, float]:
        values = self.spectrum[0]
        return {s: float((values * s**2 / (values + s**2)).mean().sqrt()) for s in LEVELS.tolist()}

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        values, vectors = (part.to(x) for part in self.spectrum)
        shares = values / (values + sigma.to(x)[:, None] ** 2)
        centred = (x - self.data_mean).flatten(1)
        return self.data_mean + ((centred @ vectors * shares) @ vectors.T).view_as(x)

    def posterior(self, term: DataTerm) -> "Gaussian":
        mean = torch.full((self.height * self.width,), self.data_mean, dtype=torch.float64)
        return condition(mean, self.covariance, dense(term.scanner, self.height, self.width), term.noise.std, term.measurement)


@dataclass(frozen=True)
class TwoGaussians:
    """A mixture: with probability `weight` independent normal pixels around one image, otherwise around another."""

    images: Tensor  # (2, height, width), float64
    weight: float = 0.5
    std: float = 0.1

    @property
    def height(self) -> int:
        return int(self.images.shape[1])

    @property
    def width(self) -> int:
        return int(self.images.shape[2])

    @property
    def data_mean(self) -> float:
        return float(self.weight * self.images[0].mean() + (1 - self.weight) * self.images[1].mean())

    @property
    def weights(self) -> Tensor:
        return torch.tensor([self.weight, 1 - self.weight], dtype=torch.float64)

    @cached_property
    def errors(self) -> dict[float, float]:
        """``s^2 sigma^2 / (s^2 + sigma^2)`` within a component, and what is left open between the two.

        How sure ``x`` makes of its component depends on one number, its place along the line between the two images: the mean
        over `x` is an integral along that line.
        """
        gap = (self.images[0] - self.images[1]).flatten()
        place = torch.linspace(-12, 12, 4001, dtype=torch.float64)
        found = {}
        for s in LEVELS.tolist():
            total = self.std**2 + s**2
            far = float(gap.norm()) / total**0.5
            centres = torch.tensor([0.5, -0.5], dtype=torch.float64) * far
            x = place * (1 + far)
            density = self.weights[:, None] * torch.exp(-0.5 * (x - centres[:, None]) ** 2) / (2 * torch.pi) ** 0.5
            both = density.prod(0) / density.sum(0).clamp_min(1e-300)
            between = float(torch.trapezoid(both, x)) * (s**2 / total) ** 2 * float(gap.square().mean())
            found[s] = (self.std**2 * s**2 / total + between) ** 0.5
        return found

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        images = self.images.to(x)
        variance = self.std**2 + sigma.to(x).view(-1, 1, 1, 1) ** 2
        distances = (x - images).square().flatten(2).sum(2)
        chances = torch.softmax(self.weights.to(x).log() - distances / (2 * variance.flatten(1)), dim=1)
        nearest = (chances[:, :, None, None] * images).sum(1, keepdim=True)
        return nearest + self.std**2 / variance * (x - nearest)

    def posterior(self, term: DataTerm) -> tuple[Tensor, list["Gaussian"]]:
        """Weights and components."""
        matrix, std = dense(term.scanner, *self.images.shape[1:]), term.noise.std
        inner = self.std**2 * torch.eye(matrix.shape[1], dtype=torch.float64)
        parts = [condition(image.flatten(), inner, matrix, std, term.measurement) for image in self.images]
        spread = matrix @ inner @ matrix.T + std**2 * torch.eye(len(matrix), dtype=torch.float64)
        evidence = [
            torch.distributions.MultivariateNormal(matrix @ image.flatten(), spread).log_prob(term.measurement.double().flatten())
            for image in self.images
        ]
        return torch.softmax(self.weights.log() + torch.stack(evidence), dim=0), parts


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of flat images."""

    mean: Tensor
    covariance: Tensor

    def whiten(self, x: Tensor) -> Tensor:
        """Standard normal numbers, if `x` ``(samples, size)`` is drawn from it."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (x - self.mean) @ vectors / values.sqrt()

    def along(self, directions: Tensor) -> "Gaussian":
        """Of the coefficients ``directions^T x``; `directions` ``(size, number)``."""
        return Gaussian(directions.T @ self.mean, directions.T @ self.covariance @ directions)


def condition(mean: Tensor, covariance: Tensor, matrix: Tensor, noise_std: float, y: Tensor) -> Gaussian:
    """The posterior of a normal `x` given ``y = matrix x + noise`` (Bishop 2006, eq. 2.116)."""
    cross = covariance @ matrix.T
    gain = torch.linalg.solve(matrix @ cross + noise_std**2 * torch.eye(len(matrix), dtype=torch.float64), cross.T).T
    return Gaussian(mean + gain @ (y.double().flatten() - matrix @ mean), covariance - gain @ cross.T)


def dense(operator: Operator, height: int, width: int) -> Tensor:
    """The linear part as a matrix ``(measurements, pixels)``, float64."""
    size = height * width
    assert operator.linear is not None
    return operator.linear(torch.eye(size, dtype=torch.float64).view(size, 1, height, width)).flatten(1).T


def split(operator: Operator, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Orthonormal directions ``(pixels, number)`` that the operator measures, and those that it does not."""
    matrix = dense(operator, height, width)
    _, values, directions = torch.linalg.svd(matrix, full_matrices=True)
    rank = int((values > 1e-6 * values[0]).sum())
    return directions[:rank].T, directions[rank:].T


def draw(
    name: str,
    prior: Any,
    terms: DataTerm | Sequence[DataTerm],
    count: int,
    *,
    slices: bool = False,
    seed: int = 0,
    **settings: Any,
) -> Tensor:
    """`count` samples of a solver for one measurement or several of one image, as flat images, float64.

    Each is an image of its own in the batch, or, with `slices`, a slice of one volume that couples none: one stream of random numbers
    for all, so that many steps stay quick.
    """
    given = [terms] if isinstance(terms, DataTerm) else terms

    def many(part: Tensor) -> Tensor:
        return part[:, :, None].expand(-1, -1, count, -1, -1) if slices else part.expand(count, -1, -1, -1)

    start = many(torch.full((1, 1, prior.height, prior.width), prior.data_mean).to(given[0].measurement))
    config = make_config(name, {"samples": 1, "chunk": count} | settings)
    repeated = [replace(term, measurement=many(term.measurement)) for term in given]
    found = solve_tensors(name, repeated, prior, start, generator=torch.Generator().manual_seed(seed), config=config)
    return found.image.double().reshape(count, -1)


@dataclass(frozen=True)
class Fit:
    """Samples of many equal problems as what an affine map of measurement and noise makes of them.

    Attributes:
        gain: slope of the measured coefficient over what was measured; 0 is the prior's mean, 1 the measurement as it is.
        spread: standard deviation of the measured coefficient around that line.
        unseen_mean: mean of the coefficients that are not measured, less the prior's.
        unseen_spread: their standard deviation.
        misfit: rms of ``(y - H x) / noise_std``.
    """

    gain: float
    spread: float
    unseen_mean: float
    unseen_spread: float
    misfit: float = 0.0


@dataclass(frozen=True)
class Blocks:
    """Independent normal pixels seen at half the resolution: every 2 x 2 block is a problem of its own, and all are equal.

    In orthonormal coordinates a block has one measured coefficient c, with ``w = c + 2 noise_std n``, and three that the operator
    does not see.
    """

    size: int = 64
    batch: int = 4
    noise_std: float = 0.05

    @cached_property
    def prior(self) -> IsotropicGaussian:
        return IsotropicGaussian(self.size, self.size)

    @cached_property
    def operator(self) -> LowField:
        return LowField(in_plane_factor=2.0)

    @cached_property
    def y(self) -> Tensor:
        truth = torch.randn(self.batch, 1, self.size, self.size, generator=torch.Generator().manual_seed(3))
        y = self.operator(self.prior.data_mean + self.prior.std * truth)
        return add_noise(y, self.noise_std, [torch.Generator().manual_seed(i) for i in range(self.batch)])

    @property
    def term(self) -> DataTerm:
        return DataTerm(self.y, self.operator, self.noise_std)

    @property
    def count(self) -> int:
        """Measured coefficients."""
        return self.y.numel()

    def run(self, name: str, initial: Tensor | None = None, **settings: Any) -> Reconstruction:
        """One sample of every image of the batch, from a high level to a low one unless the settings say otherwise."""
        start = torch.full((self.batch, 1, self.size, self.size), self.prior.data_mean) if initial is None else initial
        known = {f.name for f in fields(find_solver(name)[1])}
        usual = {"start_sigma": 10.0, "stop_sigma": 0.003, "samples": 1, "chunk": self.batch, "spacing": "log", "noise_scale": 1.0}
        config = make_config(name, {key: value for key, value in usual.items() if key in known} | settings)
        return solve_tensors(name, [self.term], self.prior, start, generator=torch.Generator().manual_seed(0), config=config)

    def sample(self, name: str, **settings: Any) -> Fit:
        found = self.run(name, **settings)
        return self.fit(found.image, float(found.misfit.mean()))

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The measured coefficient of each block and the three others, ``(batch, 1, rows, columns)`` each, the latter stacked first."""
        a, b, c, d = ((x.double() - self.prior.data_mean)[..., i::2, j::2] / 2 for i in (0, 1) for j in (0, 1))
        return a + b + c + d, torch.stack([a + b - c - d, a - b + c - d, a - b - c + d])

    def fit(self, x: Tensor, misfit: float = 0.0) -> Fit:
        measured, unseen = self.coefficients(x)
        told = 2 * (self.y.double() - self.prior.data_mean)
        gain = float((measured * told).sum() / told.square().sum())
        return Fit(gain, float((measured - gain * told).std()), float(unseen.mean()), float(unseen.std()), misfit)

    def posterior(self, prior_variance: float = 1.0, noise_variance: float = 1.0, spread: float = 1.0) -> Fit:
        """The exact posterior; with factors on the prior's variance, the noise's, and the posterior's own deviation."""
        s2, n2 = prior_variance * self.prior.std**2, noise_variance * 4 * self.noise_std**2
        return Fit(s2 / (s2 + n2), spread * (s2 * n2 / (s2 + n2)) ** 0.5, 0.0, spread * s2**0.5)

    def assert_fit(self, found: Fit, expected: Fit, allowance: float = 0.02, **shares: float) -> None:
        """The numbers agree within 4 standard errors and a share of their size; `shares` are allowances of single numbers.

        The share of a mean is one of the standard deviation.
        """
        told = 2 * float((self.y.double() - self.prior.data_mean).square().mean().sqrt())
        errors = {
            "gain": (expected.spread / told / self.count**0.5, 1.0),
            "spread": (expected.spread / (2 * self.count) ** 0.5, expected.spread),
            "unseen_mean": (expected.unseen_spread / (3 * self.count) ** 0.5, expected.unseen_spread),
            "unseen_spread": (expected.unseen_spread / (6 * self.count) ** 0.5, expected.unseen_spread),
        }
        for name, (error, scale) in errors.items():
            limit = 4 * error + shares.get(name, allowance) * scale
            assert abs(getattr(found, name) - getattr(expected, name)) <= limit, (name, found, expected, limit)


def assert_moments(x: Tensor, exact: Gaussian, allowance: float = 0.005) -> None:
    """Mean, standard deviation and correlations of samples are the exact ones in every direction.

    Each within 4.5 standard errors and an allowance, in units of the posterior's deviation along the direction.
    """
    z = exact.whiten(x)
    count = len(z)
    assert float(z.mean(0).abs().max()) <= 4.5 / count**0.5 + allowance
    assert float((z.std(0) - 1).abs().max()) <= 4.5 / (2 * count) ** 0.5 + allowance
    assert abs(float(z.std(0).mean()) - 1) <= 4.5 / (2 * z.numel()) ** 0.5 + allowance
    between = torch.corrcoef(z.T) - torch.eye(z.shape[1], dtype=z.dtype)
    assert float(between.abs().max()) <= 4.5 / count**0.5 + allowance
