"""Names are drawn as they are, or by their numbers, never as question marks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engineworks.runtime import Detections, drawing
from engineworks.runtime.drawing import legend, limbs, paint
from engineworks.runtime.planes import Planes, split

LABELS = ("\u03ba\u03cc\u03ba\u03ba\u03b9\u03bd\u03bf", "\u5199\u771f", "cat")


def drawn(kind, labels):
    picture = np.zeros((80, 300, 3), np.uint8)
    found = Detections(
        xyxy=np.array([[10, 40, 60, 70]], np.float32),
        confidence=np.array([0.5], np.float32),
        class_id=np.array([kind]),
    )
    drawing.draw(picture, found, labels)
    return picture


@pytest.fixture(autouse=True)
def fresh():
    drawing._draws_all_scripts.cache_clear()
    yield
    drawing._draws_all_scripts.cache_clear()


@pytest.mark.parametrize("kind", [0, 1])
def test_a_name_of_any_script_is_no_row_of_question_marks(kind):
    marks = ["?" * len(name) for name in LABELS]
    assert (drawn(kind, LABELS) != drawn(kind, marks)).any()
    assert (drawn(kind, LABELS) != drawn(kind, [])).any()


def test_an_older_opencv_draws_the_number_and_says_so_once(monkeypatch, caplog):
    numbers = [drawn(kind, []) for kind in range(2)]
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    for kind in range(2):
        np.testing.assert_array_equal(drawn(kind, LABELS), numbers[kind])
    assert len(caplog.records) == 1
    assert "opencv-python-headless>=5" in caplog.text
    assert (drawn(2, LABELS) != drawn(2, [])).any()


@pytest.mark.parametrize(
    ("overlay", "track", "wanted"),
    [
        (None, None, ["cat 0.83"]),
        (None, 7, ["7 cat"]),
        ("24.9 fps", None, ["cat 0.83", "24.9 fps"]),
        ("24.9 fps", 7, ["ID 7 cat 0.83", "24.9 fps"]),
        ("", 7, ["ID 7 cat 0.83"]),
    ],
)
def test_more_is_written_where_asked(monkeypatch, overlay, track, wanted):
    written = []
    monkeypatch.setattr(drawing._Image, "name", lambda self, text, *place: written.append(text))
    found = Detections(
        xyxy=np.array([[10, 40, 60, 70]], np.float32),
        confidence=np.array([0.83], np.float32),
        class_id=np.array([2]),
        track_id=None if track is None else np.array([track]),
    )
    drawing.draw(np.zeros((80, 300, 3), np.uint8), found, LABELS, overlay=overlay)
    assert written == wanted


def _planes(image):
    y, u, v = split(image, "bt601")
    return Planes(y=y, u=u, v=v)


def test_areas_in_planes_have_the_colours_of_those_in_a_picture():
    image = np.full((64, 96, 3), (90, 120, 150), np.uint8)
    numbers = np.zeros((64, 96), np.int16)
    numbers[:32, :48], numbers[32:, 48:] = 1, 3
    planes = _planes(image)
    paint(planes, numbers, [1, 3])
    paint(image, numbers, [1, 3])
    apart = np.abs(planes.bgr().astype(int) - image)
    # Colour has half the pixels: beside an edge it is of both sides.
    inside = np.ones((64, 96), bool)
    inside[28:36], inside[:, 44:52] = False, False
    assert apart[inside].max() <= 4
    assert (image[40, 10] == (90, 120, 150)).all()
    assert np.abs(image[10, 10].astype(int) - (90, 120, 150)).max() > 30


def test_limbs_in_planes_lie_where_those_in_a_picture_lie():
    image = np.full((64, 96, 3), 90, np.uint8)
    planes = _planes(image)
    points = np.array([[[10, 10, 0.9], [80, 50, 0.9], [80, 10, 0.1]]])
    for picture in (image, planes):
        limbs(picture, points, [(0, 1), (1, 2)], 0.3, [4])
    there = (image != 90).any(axis=2)
    also = np.abs(planes.bgr().astype(int) - 90).max(axis=2) > 20
    assert there[30, 43:48].any()
    assert not there[20:40, 78:84].any()  # the point in doubt is not connected
    assert (there & also).sum() > 0.8 * there.sum()


def test_names_of_areas_stand_under_each_other():
    image = np.zeros((80, 200, 3), np.uint8)
    legend(image, [(0, "road"), (1, "sky")], "12 fps")
    rows = np.flatnonzero((image[:, 4] > 0).any(axis=1))
    assert (np.diff(rows) <= 2).all()
    assert rows[-1] > 24
    plates = {tuple(image[row, 1]) for row in rows}
    assert len(plates) >= 3
