"""The data term of a scan: of its image, or of its k-space."""

import torch

from dynamicdps.data_term.data_term import DataTerm
from dynamicdps.operators import Noise, ScanOperator
from dynamicdps.volumes import Volume, to_batch, to_slices


def scan_term(
    scan: Volume, operator: ScanOperator, scale: float, *, whole: bool | None = None, device: torch.device | str = "cpu"
) -> DataTerm:
    """A scan's measurement as a data term, in image intensities.

    Args:
        scan: on the scanner's grid, scanner units.
        operator: its forward model with its weights; where it has k-space, that is the measurement, and the scan says nothing.
        scale: scanner units of one image-intensity unit.
        whole: one image of all slices; by default where the operator couples them, else each slice is an image of its own.
        device: of the measurement.
    """
    if operator.kspace is not None:
        encoded = operator.kspace.operator(operator.operator)
        noise = Noise(min(max(operator.kspace.noise_std / scale, 1e-6), 1.0))
        return DataTerm((operator.kspace.data / scale).to(device), encoded, noise)
    couples = operator.couples_slices if whole is None else whole
    y = (to_batch if couples else to_slices)(scan.data / scale, device)
    weights = None
    if operator.weights is not None:
        of_slices = to_slices(operator.weights)[:, 0]
        weights = of_slices if len(of_slices) > 1 else of_slices[0]
    return DataTerm(y, operator.operator, operator.noise, weights)
