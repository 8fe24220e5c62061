"""The layout of scans that show the same part of the head."""

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from dynamicdps.priors.layout import COMPONENTS, EDGE, Layout
from dynamicdps.training.windows import TrainingVolume

FEWEST_SCANS = 16


def fit_layout(volumes: Sequence[TrainingVolume], suffix: str = "T1w") -> Layout | None:
    """The layout of scans that show the same part of the head, each and its mirror image; `None` where they are too few.

    Args:
        volumes: skull-stripped, slices from below upwards; those of the most frequent shape of one contrast count.
        suffix: contrast, as a BIDS suffix.
    """
    counted = Counter(v.data.shape for v in volumes if v.contrast == suffix and min(v.data.shape) >= EDGE)
    shape, count = counted.most_common(1)[0] if counted else ((0, 0, 0), 0)
    if count < FEWEST_SCANS:
        return None
    alike = [v for v in volumes if v.contrast == suffix and v.data.shape == shape]
    images = torch.stack([F.avg_pool3d(torch.from_numpy(v.data).float()[None] * v.scale, EDGE)[0] for v in alike])
    images = torch.cat([images, images.flip(-1)])
    mean = images.mean(0)
    _, values, directions = torch.linalg.svd((images - mean).flatten(1), full_matrices=False)
    kept = min(COMPONENTS, count, len(directions))
    components = (values / len(images) ** 0.5)[:kept, None] * directions[:kept]
    return Layout(mean, components.view(kept, *mean.shape), EDGE, suffix)
