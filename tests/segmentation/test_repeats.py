"""Volumes that are found again from drawn images of a scan."""

from dataclasses import replace

import numpy as np
import pytest

from dynamicdps.segmentation import repeated_volumes
from dynamicdps.segmentation.classes import Structure
from dynamicdps.volumes import Volume
from tests.segmentation.coded_heads import SKIN, coded_head, coded_network

# With air around it: draws see all of it.
HEAD = coded_head((73, 73, 73))


def drawn(head: Volume) -> list[dict[Structure, float]]:
    network = coded_network()
    return repeated_volumes(network, head, head, network.chances(head), None, count=2, noise_std=0.01)


def test_what_lies_far_from_the_brain_does_not_change_draws() -> None:
    below = 30
    data = np.pad(HEAD.data, ((0, 0), (0, 0), (below, 0)))
    data[..., : below - 15] = SKIN
    affine = HEAD.affine.copy()
    affine[2, 3] -= 2.0 * below
    for alone, on_a_body in zip(drawn(HEAD), drawn(Volume(data, affine)), strict=True):
        assert on_a_body == pytest.approx(alone, rel=1e-6)


def test_draws_count_where_the_scan_counts() -> None:
    network = coded_network()
    chances = network.chances(HEAD)
    x = np.arange(HEAD.shape[0])[:, None, None] * np.ones(HEAD.shape)
    half = chances.within(HEAD.with_data((x < HEAD.shape[0] // 2).astype(np.float32)))
    whole, part = (
        repeated_volumes(network, HEAD, HEAD, each, None, count=2, noise_std=0.0) for each in (chances, replace(half, counted=half.inside))
    )
    assert sum(part[0].values()) == pytest.approx(sum(whole[0].values()) / 2, rel=0.1)
