"""Named degradations."""

from dynamicdps.errors import InputError
from dynamicdps.operators.low_field import LowField

# White matter lies near 0.9 of the image range; 0.9 ** 0.7 / 25 is the noise of a signal-to-noise ratio of 25 there.
_THICK_NOISE = 0.9**0.7 / 25

PRESETS = {
    # Kim et al. 2025: in distribution, and with a contrast that the conditional model never saw.
    "iqt-in": LowField(gamma=0.8, in_plane_factor=4.0, blur=1.0, noise_std=0.001),
    "iqt-out": LowField(gamma=0.4, in_plane_factor=4.0, blur=1.0, noise_std=0.001),
    "blur-mismatch": LowField(gamma=0.8, in_plane_factor=4.0, blur=2.0, noise_std=0.001),
    "thick-5mm": LowField(gamma=0.7, in_plane_factor=1.5, slice_thickness=5.0, noise_std=_THICK_NOISE),
}


def preset(name: str) -> LowField:
    """A degradation by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f"there is no degradation {name!r}; expected one of {', '.join(PRESETS)}; choose one or give its parameters")
    return PRESETS[name]
