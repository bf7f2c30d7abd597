"""Names are drawn as they are, or by their numbers, never as question marks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engineworks.runtime import Detections, drawing

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
