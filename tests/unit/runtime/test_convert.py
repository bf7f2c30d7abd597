"""Other tools read our detections as we mean them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from engineworks.runtime.convert import to_coco, to_supervision
from engineworks.runtime.detections import Detections

LABELS = ("ant", "bee", "cat")


def two(tracked=True):
    return Detections(
        xyxy=np.array([[10, 20, 40, 80], [0, 0, 5, 6]], np.float32),
        confidence=np.array([0.75, 0.5], np.float32),
        class_id=np.array([2, 0]),
        track_id=np.array([7, 9]) if tracked else None,
    )


def test_coco_results_have_left_top_width_height():
    first, second = to_coco(two(), 42)
    assert first == {
        "image_id": 42, "category_id": 2, "bbox": [10.0, 20.0, 30.0, 60.0], "score": 0.75,
    }  # fmt: skip
    assert second["bbox"] == [0.0, 0.0, 5.0, 6.0]
    json.dumps([first, second])


def test_coco_categories_are_looked_up_and_unknown_classes_left_out():
    (only,) = to_coco(two(), 1, category_id=[90, 91])
    assert only["category_id"] == 90
    assert to_coco(Detections.empty(), 1) == []


@pytest.mark.parametrize("tracked", [True, False])
def test_supervision_gets_every_column(tracked):
    pytest.importorskip("supervision")
    made = to_supervision(two(tracked), LABELS)
    np.testing.assert_array_equal(made.xyxy, two().xyxy)
    np.testing.assert_array_equal(made.confidence, two().confidence)
    np.testing.assert_array_equal(made.class_id, [2, 0])
    assert made.data["class_name"].tolist() == ["cat", "ant"]
    if tracked:
        assert made.tracker_id.tolist() == [7, 9]
    else:
        assert made.tracker_id is None
    # supervision's own operations accept it
    assert len(made[made.confidence > 0.6]) == 1
    assert len(to_supervision(Detections.empty(), LABELS)) == 0


def test_without_supervision_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['supervision'] = None\n"
        "from engineworks.runtime.convert import to_supervision\n"
        "from engineworks.runtime.detections import Detections\n"
        "try:\n    to_supervision(Detections.empty())\n"
        "except Exception as error:\n    print(type(error).__name__, error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(" ", 1)[0] == "MissingDependency"
    assert "engineworks[supervision]" in done.stdout
