"""Relaxation against field strength, signal equations against hand-computed values, and the contrast between two scans."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from dynamicdps.operators.field_strength import (
    MPRAGE_3T,
    TISSUES,
    Mprage,
    PulseSequence,
    SpinEcho,
    SpoiledGradientEcho,
    Tissue,
    contrast_between,
    tissue,
    tissue_signals,
)
from tests.properties import input_error

FIELDS = [0.05, 0.064, 0.1, 0.2, 0.5, 1.0, 1.5, 3.0]
SAMPLE = Tissue(t1=0.8, t2=0.08, t2_star=0.05, proton_density=0.7)
LOW_FIELD_T1W = SpoiledGradientEcho(0.02, 0.005, 60.0)


@pytest.mark.parametrize("field", FIELDS)
def test_tissues_are_in_order(field: float) -> None:
    csf, grey, white = (tissue(name, field) for name in TISSUES)
    assert white.t1 < grey.t1 < csf.t1
    assert white.t2 < grey.t2 < csf.t2
    assert white.proton_density < grey.proton_density < csf.proton_density
    for one in (csf, grey, white):
        assert one.t2_star < one.t2 < one.t1


@pytest.mark.parametrize("name", ["grey", "white"])
def test_t1_grows_and_t2_falls_with_the_field(name: str) -> None:
    fields = [*(0.05 * 60 ** (i / 200) for i in range(200)), 3.0]
    tissues = [tissue(name, field) for field in fields]
    assert all(a.t1 < b.t1 for a, b in itertools.pairwise(tissues))
    assert all(a.t2 > b.t2 and a.t2_star > b.t2_star for a, b in itertools.pairwise(tissues))


@pytest.mark.parametrize(
    ("name", "field", "t1"),
    [
        ("grey", 0.05, 0.00362 * 2_128_850**0.3082),
        ("white", 0.05, 0.00152 * 2_128_850**0.3477),
        ("grey", 3.0, 0.00116 * 127_731_000**0.376),
        ("white", 1.5, 0.00071 * 63_865_500**0.382),
        ("csf", 0.3, 4.3),
    ],
)
def test_t1_of_the_published_fits(name: str, field: float, t1: float) -> None:
    assert tissue(name, field).t1 == pytest.approx(t1, rel=1e-9)


def test_relaxation_is_near_other_measurements() -> None:
    """Within the stated uncertainty of values that were not used: Stanisz et al. 2005 (3 T), Rooney et al. 2007 (white, 0.2 T)."""
    assert tissue("white", 3.0).t1 == pytest.approx(1.08, rel=0.2)
    assert tissue("white", 3.0).t2 == pytest.approx(0.069, rel=0.15)
    assert tissue("white", 0.2).t1 == pytest.approx(0.361, rel=0.2)


def test_spin_echo_by_hand() -> None:
    # 0.7 (1 - 2 exp(-0.49 / 0.8) + exp(-0.5 / 0.8)) exp(-0.02 / 0.08)
    assert SpinEcho(0.5, 0.02).signal(SAMPLE) == pytest.approx(0.7 * (1 - 2 * 0.5419942 + 0.5352614) * 0.7788008, rel=1e-5)
    assert SpinEcho(1e3, 0.02).signal(SAMPLE) == pytest.approx(0.7 * math.exp(-0.02 / 0.08))


def test_spoiled_gradient_echo_by_hand() -> None:
    # exp(-0.02 / 0.8) = 0.9753099, sin 30 = 0.5, cos 30 = 0.8660254, exp(-0.005 / 0.05) = 0.9048374
    expected = 0.7 * 0.5 * (1 - 0.9753099) / (1 - 0.9753099 * 0.8660254) * 0.9048374
    assert SpoiledGradientEcho(0.02, 0.005, 30.0).signal(SAMPLE) == pytest.approx(expected, rel=1e-5)
    assert SpoiledGradientEcho(1e3, 0.005, 30.0).signal(SAMPLE) == pytest.approx(0.7 * 0.5 * math.exp(-0.1))


def test_ernst_angle_is_the_brightest() -> None:
    ernst = math.degrees(math.acos(math.exp(-0.02 / SAMPLE.t1)))
    brightest = SpoiledGradientEcho(0.02, 0.005, ernst).signal(SAMPLE)
    assert all(SpoiledGradientEcho(0.02, 0.005, ernst + off).signal(SAMPLE) < brightest for off in (-1.0, 1.0))


def test_inversion_recovery_with_a_single_small_pulse() -> None:
    """``1 - 2 exp(-TI / T1) / (1 + exp(-TR / T1))``, 0 at ``T1 log(2 / (1 + exp(-TR / T1)))``."""
    null = SAMPLE.t1 * math.log(2 / (1 + math.exp(-2.0 / SAMPLE.t1)))
    sequence = Mprage(2.0, null, 0.003, 0.01, 0.005, 1)
    # A pulse of a hundredth of a degree takes 1.5e-8 of the magnetisation.
    scale = 0.7 * math.sin(math.radians(0.01)) * math.exp(-0.003 / 0.05)
    assert sequence.signal(SAMPLE) / scale == pytest.approx(0, abs=1e-6)
    early = replace(sequence, inversion_time=0.2).signal(SAMPLE) / scale
    assert early == pytest.approx(1 - 2 * math.exp(-0.25) / (1 + math.exp(-2.5)), rel=1e-6)
    assert early < 0
    assert replace(sequence, repetition_time=1e3, inversion_time=500.0).signal(SAMPLE) / scale == pytest.approx(1)


def test_inversion_recovery_with_a_pulse_of_90_degrees() -> None:
    """``1 - 2 exp(-TI / T1) + exp(-TR / T1)``: the pulse leaves nothing; 0 at ``T1 log(2 / (1 + exp(-TR / T1)))`` too."""
    sequence, scale = Mprage(2.0, 0.2, 0.003, 90.0, 0.005, 1), 0.7 * math.exp(-0.003 / 0.05)
    assert sequence.signal(SAMPLE) / scale == pytest.approx(1 - 2 * math.exp(-0.25) + math.exp(-2.5))
    null = SAMPLE.t1 * math.log(2 / (1 + math.exp(-2.5)))
    assert replace(sequence, inversion_time=null).signal(SAMPLE) == pytest.approx(0, abs=1e-9)


def test_long_train_reaches_the_steady_state_of_a_gradient_echo() -> None:
    train = Mprage(60.0, 20.0, 0.003, 12.0, 0.01, 3000)
    assert train.signal(SAMPLE) == pytest.approx(SpoiledGradientEcho(0.01, 0.003, 12.0).signal(SAMPLE), rel=1e-6)


def test_mprage_is_the_simulated_steady_state() -> None:
    angle, m, centre = math.radians(9.0), 1.0, 0.0
    for _ in range(20):
        m = 1 - (1 + m) * math.exp(-(0.9 - 88 * 0.0071) / SAMPLE.t1)
        for pulse in range(176):
            centre = m if pulse == 88 else centre
            m = 1 - (1 - m * math.cos(angle)) * math.exp(-0.0071 / SAMPLE.t1)
        m = 1 - (1 - m) * math.exp(-(2.3 - 0.9 - 88 * 0.0071) / SAMPLE.t1)
    assert MPRAGE_3T.signal(SAMPLE) == pytest.approx(0.7 * centre * math.sin(angle) * math.exp(-0.003 / 0.05), rel=1e-9)


@pytest.mark.parametrize(("sequence", "field"), [(MPRAGE_3T, 3.0), (LOW_FIELD_T1W, 0.055), (SpinEcho(0.5, 0.015), 1.5)])
def test_contrast_of_a_scan_with_itself_is_the_identity(sequence: PulseSequence, field: float) -> None:
    curve = contrast_between(sequence, field, sequence, field)
    x = torch.linspace(-0.2, 1.2, 100)
    torch.testing.assert_close(curve(x), x, rtol=1e-5, atol=1e-6)


def test_contrast_to_low_field() -> None:
    curve = contrast_between(MPRAGE_3T, 3.0, LOW_FIELD_T1W, 0.055)
    a, b = tissue_signals(MPRAGE_3T, 3.0), tissue_signals(LOW_FIELD_T1W, 0.055)
    for name in TISSUES:
        torch.testing.assert_close(curve(torch.tensor(0.9 * a[name] / a["white"])), torch.tensor(0.9 * b[name] / b["white"]))
    x = torch.linspace(-0.2, 1.2, 1000)
    assert (curve(x).diff() > 0).all()
    torch.testing.assert_close(curve(torch.tensor([0.0, 0.9])), torch.tensor([0.0, 0.9]))
    # At low field grey matter is closer to white matter.
    assert float(curve(torch.tensor(0.9 * a["grey"] / a["white"]))) > 0.9 * a["grey"] / a["white"]


def test_reversed_contrast_is_refused() -> None:
    t2_weighted = SpinEcho(4.0, 0.1)
    assert tissue_signals(t2_weighted, 0.064)["csf"] > tissue_signals(t2_weighted, 0.064)["white"]
    with input_error("expected csf < grey < white"):
        contrast_between(MPRAGE_3T, 3.0, t2_weighted, 0.064)
    with input_error("expected csf < grey < white"):
        contrast_between(t2_weighted, 3.0, LOW_FIELD_T1W, 0.055)


def test_contrast_that_vanishes_is_refused() -> None:
    """A gradient echo of TR 52 ms and 40 degrees has no contrast between grey and white matter at 0.055 T."""
    with input_error("expected csf < grey < white"):
        contrast_between(MPRAGE_3T, 3.0, SpoiledGradientEcho(0.052, 0.013, 40.0), 0.055)


def test_bad_parameters_are_named() -> None:
    with input_error("there is no tissue 'fat'"):
        tissue("fat", 1.0)
    for field in (0.01, 7.0, float("nan")):
        with input_error("field strength"):
            tissue("grey", field)
    with input_error("t1"):
        Tissue(0.0, 0.1, 0.1, 1.0)
    with input_error("repetition_time"):
        SpinEcho(0.01, 0.02)
    with input_error("flip_angle"):
        SpoiledGradientEcho(0.02, 0.005, 120.0)
    with input_error("echo_time"):
        SpoiledGradientEcho(0.02, -0.005, 20.0)
    with input_error("pulses"):
        replace(MPRAGE_3T, pulses=0)
    with input_error("does not fit"):
        replace(MPRAGE_3T, pulses=300)


def test_what_follows_the_echo_comes_later() -> None:
    for wrong in ({"echo_spacing": MPRAGE_3T.echo_time}, {"echo_time": MPRAGE_3T.echo_spacing}):
        with input_error("expected it to be longer"):
            replace(MPRAGE_3T, **wrong)
    for make in (lambda repetition: SpinEcho(repetition, 0.02), lambda repetition: SpoiledGradientEcho(repetition, 0.02, 10.0)):
        assert make(0.021).repetition_time == 0.021
        with input_error("repetition_time is 0.02 s with an echo_time of 0.02 s"):
            make(0.02)
