"""A scan's forward model from the scan itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dynamicdps.calibration.fit import OperatorFit, fit_operator
from dynamicdps.calibration.shading import Shading, find_shading
from dynamicdps.conditional import load_conditional
from dynamicdps.networks.precision import type_named
from dynamicdps.pipeline.inputs import name_of
from dynamicdps.solvers.initial import Initial, initial_from_model, initial_from_volume
from dynamicdps.volumes import BrainScan, IntensityScale, Volume
from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.noise_estimate import NoiseEstimate, scan_noise

# Of other scans than these the brightest tissue is not white matter or as smooth as it, and anatomy would be taken for the coil: on nine
# simulated T2w scans the shading that was found lay further from the coil's than none at all does in eight.
SHADED = ("T1w", "FLAIR")
NO_SHADING = "not looked for: anatomy of this contrast would be taken for the coil's shading; say --shading on to try"


@dataclass(frozen=True)
class FittedScan:
    """A scan's initial image, its shading, and the operator that was found from all three."""

    initial: Initial
    fit: OperatorFit
    shading: Shading


def header_values(acquisition: Acquisition) -> dict[str, float]:
    """What a scan's header and sidecar say of its operator: the slice thickness."""
    thickness = acquisition.slice_thickness_mm
    return {} if thickness is None else {"slice_thickness": thickness}


def fit_scan(
    head: BrainScan,
    initial: Volume | None,
    conditional: str,
    fit: Sequence[str],
    known: Mapping[str, float],
    noise: NoiseEstimate | None = None,
    shading: str = "off",
    contrast: str = "T1w",
    precision: str = "float32",
) -> FittedScan:
    """Find a scan's operator as a user would who has nothing else.

    The statistics come first: their contrast says how much of the shading may be anatomy. What is left without the shading goes to the
    conditional model (its scale depends on the contrast), and its image, or the one that is given, sharpens the contrast.

    Contrasts at low field differ from those that the prior knows by a curve that is learned for T1w scans alone. Of others the scan's own
    contrast is the image's: the curve is the identity, and the initial image says the intensity scale.

    Args:
        head: the scan and its brain.
        initial: any model's enhanced volume.
        conditional: a conditional model, where there is none.
        fit: what to find; what is known is kept.
        known: values from the header or the user, by name.
        noise: of the scan, where it was measured elsewhere.
        shading: one of `dynamicdps.calibration.shading.CHOICES`.
        contrast: of the scan, one of `dynamicdps.volumes.contrast.CONTRASTS`.
        precision: type in which the conditional model computes, by name.

    Raises:
        InputError: as `fit_operator` and `find_shading`.
    """
    scan, noise = head.brain, noise or scan_noise(head)
    known = known if contrast == "T1w" else {"gamma": 1.0} | dict(known)
    wanted = [name for name in fit if name not in known]
    first = fit_operator(scan, fit=wanted, known=known, noise=noise)
    inside = head.mask.inside if head.weights is None else head.weights > 0
    skipped = shading == "auto" and contrast not in SHADED
    found = find_shading(scan, inside, float(first.scanner.gamma), "off" if skipped else shading)
    found = replace(found, choice=shading, remark=NO_SHADING) if skipped else found
    even = found.flat(scan)
    if found.kept:
        first = fit_operator(even, fit=wanted, known=known, noise=noise)
    if initial is not None:
        image, says_contrast = initial_from_volume(even, first.scan_operator, initial, name_of(initial)), True
    else:
        model = load_conditional(conditional, precision=type_named(precision))
        image = initial_from_model(found.flat(head.around), first.scan_operator, model, conditional, head.soft_mask)
        says_contrast = not model.keeps_contrast
    sharp = image.volume if says_contrast else None
    scale = None if contrast == "T1w" else IntensityScale.robust(image.volume.data).scale
    return FittedScan(image, fit_operator(scan, sharp, fit=wanted, known=known, noise=noise, shading=found, scale=scale), found)
