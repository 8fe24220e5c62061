"""Bundled weights with their model cards and calibrations, and a scan to try them on."""

from pathlib import Path

FOLDER = Path(__file__).parent


def demo_scan() -> Path:
    """The bundled scan: an axial slab of Colin 27, skull-stripped, 1 mm; no model has seen it. Its notice lies beside it."""
    return FOLDER / "demo" / "colin27_slab_T1w.nii.gz"
