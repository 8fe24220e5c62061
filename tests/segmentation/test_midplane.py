"""The plane between the halves of bodies whose halves are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dynamicdps.segmentation import fit_midplane

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = (-70, -80, -70)


def halves(turn: tuple[float, float, float], shift: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Two tissues that are even across a plane, turned by degrees about x, y, z and shifted by mm, and the plane's normal."""
    matrix = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (71, 81, 71)), indexing="ij"), -1)
    x, y, z = np.moveaxis((index * 2.0 + AFFINE[:3, 3] - shift) @ matrix, -1, 0)
    outer = (np.abs(x) / 50) ** 2 + (y / 62) ** 2 + ((z - 4) / 48) ** 2 + 0.2 * np.sin(y / 12) < 1
    inner = ((np.abs(x) - 15) / 10) ** 2 + ((y - 8) / 30) ** 2 + ((z - 6) / 14) ** 2 < 1
    return np.stack([outer & ~inner, inner]).astype(np.float32), matrix[:, 0]


@pytest.mark.parametrize(("turn", "shift"), [((0, 0, 0), (0, 0, 0)), ((8, 6, -9), (5, -3, 4)), ((0, -12, 14), (-6, 2, 0))])
def test_the_plane_of_a_turned_and_shifted_body_is_found(turn: tuple[float, float, float], shift: tuple[float, float, float]) -> None:
    tissues, normal = halves(turn, shift)
    found = fit_midplane(tissues, AFFINE)
    assert np.degrees(np.arccos(min(1.0, float(found.normal @ normal)))) < 0.7
    assert float(found.distance(np.array(shift, float))) == pytest.approx(0, abs=0.5)
    assert found.agreement > 0.9


def test_a_mirrored_body_has_the_mirrored_plane() -> None:
    tissues, _ = halves((8, 6, -9), (5, -3, 4))
    tissues[1, 45:50, 40:50, 30:40] = 1  # its halves differ a little
    found, other = fit_midplane(tissues, AFFINE), fit_midplane(np.ascontiguousarray(tissues[:, ::-1]), AFFINE)
    np.testing.assert_allclose(other.normal, found.normal * (1, -1, -1), atol=1e-5)
    assert other.offset == pytest.approx(-found.offset, abs=1e-3)


def test_a_body_without_a_second_half_agrees_little() -> None:
    tissues, _ = halves((0, 0, 0), (0, 0, 0))
    tissues[:, :36] = 0
    assert fit_midplane(tissues, AFFINE).agreement < fit_midplane(halves((0, 0, 0), (0, 0, 0))[0], AFFINE).agreement - 0.2
