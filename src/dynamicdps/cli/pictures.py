"""Pictures of slices outside the report."""

from pathlib import Path

import torch
from torch import Tensor

from dynamicdps.atomic_file import atomic_write


def write_sheet(path: Path, slices: Tensor, title: str, columns: int = 4) -> None:
    """Write slices ``(count, 1, height, width)`` in [0, 1] as one PNG, front up."""
    from matplotlib.figure import Figure

    images = [s[0].flip(0).clamp(0, 1) for s in slices.cpu()]
    images += [torch.zeros_like(images[0])] * (-len(images) % columns if len(images) > columns else 0)
    columns = min(columns, len(images))
    sheet = torch.cat([torch.cat(images[i : i + columns], dim=1) for i in range(0, len(images), columns)])
    height, width = sheet.shape
    figure = Figure(figsize=(width / 72, height / 72 + 0.4), facecolor="black")
    axes = figure.add_axes((0, 0, 1, height / (height + 0.4 * 72)))
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    figure.suptitle(title, color="white", y=0.99, fontsize=11)
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
