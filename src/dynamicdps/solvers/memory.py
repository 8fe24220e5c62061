"""Memory of a reconstruction, and how many slices may pass the network at once within a budget.

The figures are measured (Linux, torch 2.13 on CPU; docs/performance.md says how) and rounded up.
"""

from typing import Any

from dynamicdps.errors import InputError

GIGABYTE = 1e9
# Python, torch and the models, GB.
FIXED = 0.8
# For each voxel of the image grid, bytes: a volume of thick slices is solved whole, single slices a batch at a time.
OF_VOLUMES = 260.0
OF_SLICES = 70.0
# For each voxel and posterior sample that is kept for the intervals of volumes: the samples as they come, joined, and as volumes.
OF_SAMPLES = 12.0
# For each pixel of a slice in the network, bytes, with 64 channels at full resolution.
OF_NETWORK = {"float32": 1500.0, "bfloat16": 1100.0}
# The same with the graph that a gradient needs, in either precision.
OF_GRAPH = 5200.0
CHANNELS = 64
# More slices at once are not faster.
MOST_SLICES = 16


def chunk_within(
    budget: float, shape: tuple[int, int, int], whole: bool, card: dict[str, Any], precision: str, kept: int = 0, backward: bool = False
) -> int:
    """Slices a denoiser pass so that the process stays within a budget.

    Args:
        budget: GB (1e9 bytes) for the whole process.
        shape: image grid ``(x, y, z)``.
        whole: the volume is solved at once, because its measured slices are thick.
        card: of the prior; its network's channels count.
        precision: ``"float32"`` or ``"bfloat16"``.
        kept: posterior samples that are kept.
        backward: the solver differentiates through the network, whose graph takes more than its passes.

    Returns:
        From 1 to 16.

    Raises:
        InputError: not even one slice at a time fits.
    """
    x, y, z = shape
    channels = card.get("network", {}).get("channels", [CHANNELS])[0]
    a_slice = x * y * (OF_GRAPH if backward else OF_NETWORK[precision]) * max(channels, 16) / CHANNELS / GIGABYTE
    held = FIXED + x * y * z * ((OF_VOLUMES if whole else OF_SLICES) + OF_SAMPLES * kept) / GIGABYTE
    if not held + a_slice <= budget:
        raise InputError(
            f"the memory is limited to {budget:g} GB; expected at least {held + a_slice:.1f} GB for an image of {x} x {y} x {z} voxels; "
            "raise --memory or cut the scan"
        )
    # Rounding may leave the quotient just below 1.
    return max(1, int(min(MOST_SLICES, (budget - held) / a_slice)))
