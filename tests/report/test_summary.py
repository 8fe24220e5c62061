"""Three planes and a table, on their own."""

import io

import numpy as np
import pytest
from PIL import Image

from dynamicdps.evaluation import StageMetrics
from dynamicdps.report.summary import planes, summary_page
from dynamicdps.volumes import Volume


@pytest.fixture
def marked() -> Volume:
    """A grey block with a bright corner at the patient's right, front and top; slices of 2 mm."""
    data = np.full((40, 60, 30), 0.4, dtype=np.float32)
    data[19:, 29:, 14:] = 1.0
    return Volume(500 * data, np.diag([1.0, 1.0, 2.0, 1.0]))


def test_right_front_and_top_are_where_they_belong(marked: Volume) -> None:
    """The patient's left is on the left."""
    pictures = planes(marked, 500.0)
    shapes = {"axial": (60, 40), "coronal": (30, 20), "sagittal": (30, 30)}
    for plane, picture in pictures.items():
        grey = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), dtype=float)
        assert grey.shape == shapes[plane]
        rows, columns = grey.shape[0] // 2, grey.shape[1] // 2
        # Pixels beside the edges are between both values.
        assert grey[: rows - 2, columns + 2 :].mean() > 240
        for part in (grey[: rows - 2, : columns - 2], grey[rows + 2 :, : columns - 2], grey[rows + 2 :, columns + 2 :]):
            assert part.mean() < 120


def test_a_volume_without_signal_is_shown_too(marked: Volume) -> None:
    assert set(planes(marked.with_data(np.zeros(marked.shape)), 1.0)) == {"axial", "coronal", "sagittal"}


def test_what_is_unknown_is_left_out_and_words_are_no_markup(marked: Volume) -> None:
    stages = {"initial image": StageMetrics(data_misfit=2.5), "enhanced": StageMetrics(data_misfit=1.25, volume_mm3={"gm": 1000.0})}
    page = summary_page("<i>", marked, 500.0, stages, {"gm": (900.0, 1200.0)}, ["<script>"])
    assert "&lt;i&gt;" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "1.25" in page
    assert "PSNR" not in page
    assert "1.0 (0.9 to 1.2)" in page
