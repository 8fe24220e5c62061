"""Contrast between field strengths from the physics of relaxation.

Relaxation times T1, T2 and T2* of brain tissue against field strength, the signal of three sequences, and the curve that takes
intensities of one scan to those of another. Published T1 values of one tissue at one field strength differ by 10 to 25 % between
methods, ages and regions: the curves are a start for a fit, not a calibration.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import MonotoneCurve, tissue_curve

TISSUES = ("csf", "grey", "white")
WHITE_MATTER = 0.9
SMALLEST_CONTRAST = 0.01

_LOWEST_FIELD, _HIGHEST_FIELD = 0.05, 3.0
_HERTZ_PER_TESLA = 42.577e6

# T1 = a * (gamma B0) ** b, seconds and hertz. Bottomley et al. 1984 (1 to 100 MHz, mostly excised tissue, 20 % scatter);
# Rooney et al. 2007 (0.2 to 7 T, in vivo; their fit is up to a quarter below what they measured at 0.2 T).
_BOTTOMLEY = {"grey": (0.00362, 0.3082), "white": (0.00152, 0.3477)}
_ROONEY = {"grey": (0.00116, 0.376), "white": (0.00071, 0.382)}
_ONLY_BOTTOMLEY, _ONLY_ROONEY = 0.1, 1.5
# Free water hardly disperses: one value for all fields (Rooney et al. 2007).
_CSF_T1 = 4.3

# R2 = r0 + r1 * B0 in 1/s, through the T2 of Cox and Gowland 2010 (frontal grey 87, 76, 47 ms and white 80, 71, 47 ms at 1.5, 3, 7 T).
# Extrapolated to 0.05 T: 119 and 102 ms, beside the 101 and 92 ms without dispersion of Bottomley et al. 1984. CSF: about 2 s.
_R2 = {"csf": (0.5, 0.0), "grey": (8.3, 1.83), "white": (9.7, 1.64)}
# R2* - R2 per tesla: brings grey and white matter within 8 % of Peters et al. 2007 (66 and 53 ms at 3 T). A magnet that is not
# homogeneous adds to it.
_R2_PRIME = 1.5
# Water relative to CSF, +- 0.04 (Tofts, Quantitative MRI of the Brain, 2003).
_PROTON_DENSITY = {"csf": 1.0, "grey": 0.82, "white": 0.70}


@dataclass(frozen=True)
class Tissue:
    """What a tissue's signal depends on.

    Attributes:
        t1: longitudinal relaxation time in s.
        t2: transverse relaxation time in s.
        t2_star: the same with dephasing in the magnet's inhomogeneities, in s; at most `t2`.
        proton_density: relative to CSF.
    """

    t1: float
    t2: float
    t2_star: float
    proton_density: float

    def __post_init__(self) -> None:
        for name in ("t1", "t2", "t2_star", "proton_density"):
            _positive(name, getattr(self, name))


def tissue(name: str, field: float) -> Tissue:
    """Relaxation of ``"csf"``, ``"grey"`` or ``"white"`` matter of a healthy adult at a field strength.

    T1 of grey and white matter follows Bottomley et al. (1984) up to 0.1 T and Rooney et al. (2007) from 1.5 T, each the power law
    that their authors fitted there; between, the logarithms are interpolated over the logarithm of the field. Expect errors of
    20 % of T1, 15 % of T2, 25 % of T2* and 5 % of the proton density.

    Args:
        name: of the tissue.
        field: in T, 0.05 to 3.

    Raises:
        InputError: there is no such tissue, or the field is out of its range.
    """
    if name not in TISSUES:
        raise InputError(f"there is no tissue {name!r}; expected one of {', '.join(TISSUES)}")
    if not _LOWEST_FIELD <= field <= _HIGHEST_FIELD:
        raise InputError(f"the field strength is {field} T; expected {_LOWEST_FIELD:g} to {_HIGHEST_FIELD:g} T; give it in tesla")
    offset, rise = _R2[name]
    r2 = offset + rise * field
    return Tissue(_t1(name, field), 1 / r2, 1 / (r2 + _R2_PRIME * field), _PROTON_DENSITY[name])


def _t1(name: str, field: float) -> float:
    if name == "csf":
        return _CSF_T1
    low, high = (a * math.pow(_HERTZ_PER_TESLA * field, b) for a, b in (_BOTTOMLEY[name], _ROONEY[name]))
    share = math.log(field / _ONLY_BOTTOMLEY) / math.log(_ONLY_ROONEY / _ONLY_BOTTOMLEY)
    return low * math.pow(high / low, min(1.0, max(0.0, share)))


@dataclass(frozen=True)
class SpinEcho:
    """A 90 degree pulse and its echo.

    Attributes:
        repetition_time: TR in s, longer than the echo time.
        echo_time: TE in s.
    """

    repetition_time: float
    echo_time: float

    def __post_init__(self) -> None:
        _positive("repetition_time", self.repetition_time)
        _positive("echo_time", self.echo_time)
        _longer("repetition_time", self.repetition_time, self.echo_time)

    def signal(self, tissue: Tissue) -> float:
        """``PD (1 - 2 exp(-(TR - TE / 2) / T1) + exp(-TR / T1)) exp(-TE / T2)``: the refocusing pulse at TE / 2 inverts."""
        recovered = 1 - 2 * math.exp(-(self.repetition_time - self.echo_time / 2) / tissue.t1) + math.exp(-self.repetition_time / tissue.t1)
        return tissue.proton_density * recovered * math.exp(-self.echo_time / tissue.t2)


@dataclass(frozen=True)
class SpoiledGradientEcho:
    """A train of small pulses in its steady state (FLASH, SPGR).

    Attributes:
        repetition_time: TR in s, longer than the echo time.
        echo_time: TE in s.
        flip_angle: in degrees, above 0 and up to 90.
    """

    repetition_time: float
    echo_time: float
    flip_angle: float

    def __post_init__(self) -> None:
        _positive("repetition_time", self.repetition_time)
        _positive("echo_time", self.echo_time)
        _longer("repetition_time", self.repetition_time, self.echo_time)
        _flip_angle(self.flip_angle)

    def signal(self, tissue: Tissue) -> float:
        """``PD sin(a) (1 - E) / (1 - E cos(a)) exp(-TE / T2*)`` with ``E = exp(-TR / T1)`` (Ernst and Anderson 1966)."""
        angle, e = math.radians(self.flip_angle), math.exp(-self.repetition_time / tissue.t1)
        steady = (1 - e) / (1 - e * math.cos(angle))
        return tissue.proton_density * math.sin(angle) * steady * math.exp(-self.echo_time / tissue.t2_star)


@dataclass(frozen=True)
class Mprage:
    """Inversion, then a train of gradient echoes, repeated (Mugler and Brookeman 1990).

    Attributes:
        repetition_time: TR from inversion to inversion in s.
        inversion_time: TI from the inversion to the centre of the train in s.
        echo_time: TE in s.
        flip_angle: in degrees, above 0 and up to 90.
        echo_spacing: time between the pulses of the train in s, longer than TE.
        pulses: in the train, at least 1; half of them lie before the centre.
    """

    repetition_time: float
    inversion_time: float
    echo_time: float
    flip_angle: float
    echo_spacing: float
    pulses: int

    def __post_init__(self) -> None:
        for name in ("repetition_time", "inversion_time", "echo_time", "echo_spacing"):
            _positive(name, getattr(self, name))
        _flip_angle(self.flip_angle)
        _longer("echo_spacing", self.echo_spacing, self.echo_time)
        if self.pulses < 1:
            raise InputError(f"pulses is {self.pulses}; expected at least 1")
        before, after = self._train
        if self.inversion_time < before * self.echo_spacing or self.repetition_time < self.inversion_time + after * self.echo_spacing:
            raise InputError(
                f"a train of {self.pulses} pulses every {self.echo_spacing:g} s does not fit around an inversion_time of "
                f"{self.inversion_time:g} s in a repetition_time of {self.repetition_time:g} s; expected a shorter train"
            )

    @property
    def _train(self) -> tuple[int, int]:
        """Pulses before the central one, and from it to the end."""
        return self.pulses // 2, self.pulses - self.pulses // 2

    def signal(self, tissue: Tissue) -> float:
        """Signal of the central echo in the steady state; negative where the magnetisation has not yet recovered through 0."""
        angle = math.radians(self.flip_angle)
        before, after = self._train

        def recover(m: float, seconds: float) -> float:
            return 1 - (1 - m) * math.exp(-seconds / tissue.t1)

        def pulses(m: float, count: int) -> float:
            for _ in range(count):
                m = recover(m * math.cos(angle), self.echo_spacing)
            return m

        def to_centre(m: float) -> float:
            return pulses(recover(-m, self.inversion_time - before * self.echo_spacing), before)

        def to_end(m: float) -> float:
            return recover(pulses(m, after), self.repetition_time - self.inversion_time - after * self.echo_spacing)

        start = _fixed_point(lambda m: to_end(to_centre(m)))
        return tissue.proton_density * to_centre(start) * math.sin(angle) * math.exp(-self.echo_time / tissue.t2_star)


def _fixed_point(cycle: Callable[[float], float]) -> float:
    """Magnetisation that a cycle brings back; a cycle of pulses and recoveries is a straight line, so two of its points say it."""
    at_zero = cycle(0.0)
    return at_zero / (1 - (cycle(1.0) - at_zero))


PulseSequence = SpinEcho | SpoiledGradientEcho | Mprage


def tissue_signals(sequence: PulseSequence, field: float) -> dict[str, float]:
    """Magnitude of the signal of each of `TISSUES`, relative to fully relaxed CSF at once after a 90 degree pulse.

    Raises:
        InputError: the field is out of its range.
    """
    return {name: abs(sequence.signal(tissue(name, field))) for name in TISSUES}


def contrast_between(sequence_a: PulseSequence, field_a: float, sequence_b: PulseSequence, field_b: float) -> MonotoneCurve:
    """The increasing curve from intensities of scan a to those of scan b of the same brain.

    Its knots are 0 and the signals of CSF, grey and white matter in both scans, each scan scaled so that white matter is 0.9, where
    the package's intensity scaling puts it in a T1-weighted scan. A curve on intensities knows three tissues; what else they
    mix with (fat, iron, lesions) does not lie on it.

    Args:
        sequence_a: of the scan that is mapped, T1-weighted.
        field_a: its field strength in T, 0.05 to 3.
        sequence_b: of the scan to map to.
        field_b: its field strength in T.

    Raises:
        InputError: a field is out of its range, or CSF, grey and white matter are not in increasing order in both scans, at least
            0.01 apart; then no increasing curve exists.
    """
    a, b = (_scaled(sequence, field) for sequence, field in ((sequence_a, field_a), (sequence_b, field_b)))
    return tissue_curve(a, torch.tensor(b))


def _scaled(sequence: PulseSequence, field: float) -> list[float]:
    signals = tissue_signals(sequence, field)
    values = [WHITE_MATTER * signals[name] / signals["white"] for name in TISSUES]
    if min(v - u for u, v in zip([0.0, *values], values, strict=False)) < SMALLEST_CONTRAST:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in zip(TISSUES, values, strict=True))
        raise InputError(
            f"at {field:g} T this {type(sequence).__name__} gives {shown}; expected csf < grey < white, at least "
            f"{SMALLEST_CONTRAST:g} apart, because otherwise no increasing curve maps the scans; choose a T1-weighted protocol"
        )
    return values


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value}; expected a number greater than 0")


def _longer(name: str, value: float, echo_time: float) -> None:
    if value <= echo_time:
        raise InputError(f"{name} is {value:g} s with an echo_time of {echo_time:g} s; expected it to be longer; change one of them")


def _flip_angle(value: float) -> None:
    if not 0 < value <= 90:
        raise InputError(f"flip_angle is {value}; expected degrees above 0 and up to 90")


# The 3 T T1-weighted scan of many large studies; low-field protocols differ too much between makers to name one.
MPRAGE_3T = Mprage(2.3, 0.9, 0.003, 9.0, 0.0071, 176)
