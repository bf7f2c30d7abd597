"""What the samples cover is counted, and what is suspicious is said in words."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.calibrate.collect import Statistics
from engineworks.calibrate.coverage import report
from engineworks.calibrate.ranges import Histogram

PLAIN = Histogram(0, 1.0, np.ones(4, np.int64), 0.0, 4.0)
STEPS = (1, 2, 4, 8)
PHOTO = np.array([[0.0, 0.0, 0.0], [255.0, 255.0, 255.0], [120.0, 110.0, 100.0]])


def channels(*ends):
    """(3, channels) of (minimum, maximum)."""
    low, high = np.array(ends, np.float64).T
    return np.stack([low, high, (low + high) / 2])


def statistics(steps=STEPS, samples=8, photo=PHOTO, history=None, **tables):
    """Of the input `images` and one tensor per table."""
    tables = {"images": photo, **tables}
    settled = np.repeat([[0.0, 4.0]], len(steps), axis=0)
    return Statistics(
        tensors=dict.fromkeys(tables, PLAIN),
        channels=tables,
        steps=steps,
        history={name: (history or {}).get(name, settled) for name in tables},
        samples=samples,
    )


def growing(*highs):
    return np.array([[0.0, high] for high in highs])


def test_good_samples_give_no_warning():
    found = report(statistics(a=channels((0, 1), (-1, 1))), "images", {"cat": 3, "dog": 1})
    assert found.warnings == ()
    assert (found.samples, found.tensors, found.channels) == (8, 2, 5)
    assert (found.dead_channels, found.outlier_channels, found.narrow_channels) == (0, 0, 0)
    assert found.moving == ()
    assert found.steps == STEPS
    assert found.convergence == (0, 0, 0, 0)
    assert found.classes == {"cat": 3, "dog": 1}


def test_channels_that_never_change_are_dead():
    found = report(statistics(a=channels((0, 0), (2, 2), (0, 2))), "images", {})
    assert found.dead_channels == 2


def test_channels_far_beyond_the_others_are_outliers():
    ends = [(-1, 1)] * 9
    assert report(statistics(a=channels(*ends, (0, 7.9))), "images", {}).outlier_channels == 0
    assert report(statistics(a=channels(*ends, (-8.1, 0))), "images", {}).outlier_channels == 1


def test_channels_that_use_few_levels_are_narrow():
    ends = [(-1, 1)] * 9
    found = report(statistics(a=channels(*ends, (0, 0.03), (0, 0.04))), "images", {})
    assert found.narrow_channels == 1


def test_a_tensor_of_zeros_has_dead_channels_only():
    found = report(statistics(a=channels((0, 0), (0, 0))), "images", {})
    assert (found.dead_channels, found.outlier_channels, found.narrow_channels) == (2, 0, 0)


class TestMoving:
    def test_ranges_that_still_grow_are_named_the_worst_first(self):
        history = {"a": growing(1, 2, 4, 4.4), "b": growing(1, 1, 1, 3)}
        tables = {"a": channels((0, 4)), "b": channels((0, 3))}
        found = report(statistics(history=history, **tables), "images", {})
        assert [(m.tensor, round(m.change, 3)) for m in found.moving] == [("b", 2.0), ("a", 0.1)]
        assert "2 of 3 ranges still moved by more than 5%" in found.warnings[0]

    def test_a_little_is_no_matter(self):
        history = {"a": growing(1, 2, 4, 4.1)}
        found = report(statistics(history=history, a=channels((0, 4))), "images", {})
        assert (found.moving, found.warnings) == ((), ())

    def test_the_lower_end_counts_too(self):
        history = {"a": np.array([[-1.0, 1], [-1, 1], [-1, 1], [-2, 1]])}
        found = report(statistics(history=history, a=channels((-2, 1))), "images", {})
        assert found.moving[0].change == 1

    def test_it_is_held_against_half_the_samples_and_not_the_last_step(self):
        """With 9 samples the last step, 8, lies close by."""
        history = {"a": growing(1, 1, 1, 2, 2)}
        found = report(
            statistics(steps=(1, 2, 4, 8, 9), samples=9, history=history, a=channels((0, 2))),
            "images", {},
        )  # fmt: skip
        assert found.moving[0].change == 1

    def test_convergence_is_that_of_the_median_range(self):
        history = {
            "images": growing(4, 4, 4, 4), "a": growing(1, 2, 4, 4), "b": growing(2, 3, 4, 4),
        }  # fmt: skip
        tables = {"a": channels((0, 4)), "b": channels((0, 4))}
        found = report(statistics(history=history, **tables), "images", {})
        assert found.convergence == (0.5, 0.25, 0, 0)

    def test_at_most_ten_are_named(self):
        names = [f"t{number}" for number in range(30)]
        found = report(
            statistics(
                history={name: growing(1, 1, 1, 2) for name in names},
                **{name: channels((0, 2)) for name in names},
            ),
            "images", {},
        )  # fmt: skip
        assert len(found.moving) == 10
        assert "30 of 31" in found.warnings[0]


def test_one_sample_is_not_trusted():
    found = report(statistics(steps=(1,), samples=1), "images", {})
    assert "one sample" in found.warnings[0]
    assert found.convergence == (0.0,)


def test_classes_that_are_on_no_image_are_named():
    classes = {f"c{number}": 0 for number in range(7)} | {"cat": 2}
    (warning,) = report(statistics(), "images", classes).warnings
    assert "7 of 8 classes are on no calibration image (c0, c1, c2, c3, c4, ...)" in warning


def test_a_constant_input_is_suspicious():
    photo = np.array([[0.0, 7.0, 0.0], [255.0, 7.0, 255.0], [120.0, 7.0, 100.0]])
    (warning,) = report(statistics(photo=photo), "images", {}).warnings
    assert "constant" in warning


@pytest.mark.parametrize(("blue", "grey"), [(120.0, True), (119.0, False)])
def test_grey_images_for_a_colour_model_are_suspicious(blue, grey):
    photo = PHOTO.copy()
    photo[2] = [120.0, 120.0, blue]
    warnings = report(statistics(photo=photo), "images", {}).warnings
    assert any("grey" in warning for warning in warnings) is grey
