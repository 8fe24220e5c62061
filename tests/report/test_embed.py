"""What lies in the page is what the files hold: values, places, and no more than may be."""

import base64
import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from dynamicdps.report.embed import Box, Embedded, differences, embed, embed_all
from dynamicdps.volumes import Volume
from tests.conftest import make_phantom


def unpacked(embedded: Embedded) -> nib.Nifti1Image:
    """As the viewer reads it: signs out of the lowest bits, bytes together, differences summed up."""
    content = gzip.decompress(base64.b64decode(embedded.text))
    header = nib.Nifti1Header(content[:348])
    kind = header.get_data_dtype()
    folded = np.frombuffer(content[352:], np.uint8).reshape(kind.itemsize, -1).T.copy().view(f"<u{kind.itemsize}").ravel().astype(np.int64)
    values = np.cumsum((folded >> 1) ^ -(folded & 1)).astype(kind).reshape(header.get_data_shape(), order="F")
    return nib.Nifti1Image.from_bytes(content[:352] + values.tobytes(order="F"))


@pytest.mark.parametrize(
    ("values", "folded"),
    [
        (np.array([3, 3, 1, 255, 0], np.uint8), [6, 0, 3, 3, 2]),
        # -1 and 300 apart: 1 and 600 without sign, low bytes first.
        (np.array([-1, 299], np.int16), [1, 600 % 256, 0, 600 // 256]),
    ],
)
def test_differences_by_hand(values: np.ndarray, folded: list[int]) -> None:
    assert list(differences(values)) == folded


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_differences_wrap(kind: type) -> None:
    ends = np.iinfo(kind)
    values = np.array([ends.max, ends.min, ends.max, 0, ends.min], kind)
    folded = np.frombuffer(differences(values), np.uint8).reshape(values.itemsize, -1).T.copy().view(f"<u{values.itemsize}").ravel()
    steps = (folded.astype(np.int64) >> 1) ^ -(folded.astype(np.int64) & 1)
    np.testing.assert_array_equal(np.cumsum(steps).astype(kind), values)


@settings(max_examples=40, deadline=None)
@given(low=st.floats(-1e4, 1e4), width=st.floats(1e-3, 1e4), level=st.floats(1e-3, 10), seed=st.integers(0, 99), zero=st.booleans())
def test_values_are_right_to_half_a_grey_level(low: float, width: float, level: float, seed: int, zero: bool) -> None:
    data = low + width * np.random.default_rng(seed).random((5, 6, 7))
    data[0] = 0 if zero else data[0]
    embedded = embed(Volume(data.astype(np.float32), np.eye(4)), level)
    read = unpacked(embedded).get_fdata()
    # The data themselves are float32.
    assert np.abs(read - data.astype(np.float32)).max() <= 0.5 * embedded.level * (1 + 1e-9)
    assert embedded.level <= max(level, np.ptp(np.append(data, 0)) / 59_000)
    if zero:
        assert (read[0] == 0).all()


def test_few_levels_take_a_byte_and_many_two(phantom: Volume) -> None:
    assert unpacked(embed(phantom, 0.005)).get_data_dtype() == np.uint8
    assert unpacked(embed(phantom, 1e-4)).get_data_dtype() == np.int16
    coarse = embed(phantom, 1e-9)
    assert coarse.level == pytest.approx(float(np.ptp(phantom.data)) / 60_000, rel=0.02)


def test_header_holds_grid_and_scale_only(phantom: Volume) -> None:
    header = unpacked(embed(phantom, 0.005)).header
    for name in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        assert bytes(header[name]).strip(b"\0") == b""
    assert len(header.extensions) == 0


def test_values_that_are_not_finite_become_zero(phantom: Volume) -> None:
    broken = phantom.data.copy()
    broken[0], broken[1], broken[2] = np.nan, np.inf, -np.inf
    read = unpacked(embed(phantom.with_data(broken), 0.005)).get_fdata()
    assert (read[:3] == 0).all()
    assert np.abs(read[3:] - phantom.data[3:]).max() <= 0.0026


def test_crop_keeps_places_and_all_signal() -> None:
    phantom = make_phantom((30, 40, 20))
    data = np.zeros((60, 70, 50), dtype=np.float32)
    data[10:40, 20:60, 15:35] = phantom.data
    affine = np.array([[0.9, 0.1, 0, -20.0], [-0.1, 0.9, 0, 5.0], [0, 0, 1.2, 7.0], [0, 0, 0, 1]])
    volume = Volume(data, affine)
    box = Box.around(volume, data > 0)
    cropped = box.crop(volume)
    assert cropped.data.size < 0.4 * data.size
    assert cropped.data.astype(float).sum() == pytest.approx(data.astype(float).sum(), rel=1e-12)
    brightest = np.unravel_index(cropped.data.argmax(), cropped.shape)
    wanted = np.unravel_index(data.argmax(), data.shape)
    np.testing.assert_allclose(apply_affine(cropped.affine, brightest), apply_affine(affine, wanted), atol=1e-6)


def test_crop_of_another_grid_covers_the_same_space() -> None:
    grid = make_phantom((40, 40, 20))
    box = Box(grid, slice(8, 24), slice(12, 28), slice(4, 16))
    coarse = Volume(np.ones((10, 10, 5), dtype=np.float32), grid.affine @ np.diag([4, 4, 4, 1.0]) @ _shift(0.375))
    cropped = box.crop(coarse)
    assert cropped.shape == (4, 4, 3)
    np.testing.assert_allclose(apply_affine(cropped.affine, [0, 0, 0]), apply_affine(coarse.affine, [2, 3, 1]))
    elsewhere = Volume(coarse.data, coarse.affine + np.array([[0, 0, 0, 1e4]] * 3 + [[0, 0, 0, 0]]))
    assert box.crop(elsewhere) is elsewhere


def test_a_box_ends_where_another_volume_does() -> None:
    grid = make_phantom((40, 40, 20))
    box = Box(grid, slice(2, 38), slice(0, 40), slice(5, 20))
    part = Volume(np.ones((5, 8, 5), dtype=np.float32), grid.affine @ np.diag([4, 4, 2, 1.0]) @ _shift(2.0))
    inside = box.within(part)
    # Voxels 8, 12, ... 24 of 4 voxels each reach from 6 to 26 along x, to 38 along y; of 2 from 3 to 13 along z.
    assert (inside.x, inside.y, inside.z) == (slice(6, 27), slice(6, 39), slice(5, 14))
    elsewhere = Volume(part.data, part.affine + np.array([[0, 0, 0, 1e4]] * 3 + [[0, 0, 0, 0]]))
    assert box.within(elsewhere) is box
    assert box.within(grid) == box


def _shift(voxels: float) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = voxels
    return out


def test_an_image_without_signal_is_kept_whole(phantom: Volume) -> None:
    assert Box.around(phantom, np.zeros(phantom.shape, dtype=bool)).crop(phantom).shape == phantom.shape


def test_a_page_stays_small_and_thinned_voxels_keep_value_and_place() -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((96, 80, 20)).astype(np.float32), np.diag([1.0, 2.0, 5.0, 1.0]))
    whole = embed_all({"a": (volume, 0.005), "b": (volume, 0.005)})
    size = sum(len(e.text) for e in whole.values())
    assert whole["a"].every == (1, 1, 1)
    thin = embed_all({"a": (volume, 0.005), "b": (volume, 0.005)}, max_text=size // 3)
    assert thin["a"].every == (2, 2, 1)
    assert sum(len(e.text) for e in thin.values()) <= size // 3
    image = unpacked(thin["a"])
    assert image.shape == (48, 40, 20)
    assert np.abs(image.get_fdata() - volume.data[::2, ::2]).max() <= 0.0026
    np.testing.assert_allclose(image.affine, np.diag([2.0, 4.0, 5.0, 1.0]))
    assert embed_all({"a": (volume, 0.005)}, max_text=1)["a"].every == (2, 2, 1)
