"""A head of labels: shells of skin, bone and fluid around a brain with its parts."""

import numpy as np

from dynamicdps.volumes import Volume

# Outer radius of each shell as a share of the head's, and its label.
SHELLS = ((1.0, 511), (0.85, 515), (0.75, 24), (0.68, 3), (0.55, 2), (0.25, 4))


def make_labels(shape: tuple[int, int, int], spacing: float = 2.0) -> Volume:
    """Label map with FreeSurfer's numbers, air around the head."""
    grid = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    labels = np.zeros(shape, np.float32)
    for share, label in SHELLS:
        labels[radius < share] = label
    x, _, z = grid
    labels[(radius < 0.68) & (z < -0.3) & (x < 0)] = 8
    labels[(radius < 0.68) & (z < -0.3) & (x >= 0)] = 47
    affine = np.diag([spacing, spacing, spacing, 1.0])
    return Volume(labels, affine)
