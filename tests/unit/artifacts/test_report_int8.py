"""INT8 in the report: the verdict's sentence, the search, what changed, what calibration saw."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from artifacts.report import int8, pictures, trials
from artifacts.report import page as report
from artifacts.summary import Engine, Summary, Variant
from engineworks.facts.engine import Accuracy, DetectionDiff, PhotoDiff
from engineworks.facts.int8 import Calibration, Coverage, MovingRange, Quantized, Sensitivity, Trial
from engineworks.facts.timing import PrecisionComparison
from engineworks.specs import BudgetSpec
from engineworks.store import LocalStore
from tests.unit.artifacts.test_report import (
    HOSTILE,
    artifact,
    boxes,
    check,
    comparison,
    detection_run,
    predictions,
    row,
    summary,
    unbuilt,
    variant,
)

MIB = 2**20


def trial(step: str = "placement", metric: float | None = 0.35, **changes: Any) -> Trial:
    """A candidate held against a float engine of 0.36 and a budget of 0.01."""
    values: dict[str, Any] = {
        "step": step, "label": f"{step} {metric}", "method": "mse", "integer_layers": 7,
        "layers": 9, "metric": metric, "drop": None if metric is None else 0.36 - metric,
        "agreement": None if metric is None else 0.9, "ratio": 0.8, "ci95": (0.78, 0.83),
        "size_bytes": MIB, "elapsed_s": 2.5, "holds": metric is not None and metric >= 0.35,
    }  # fmt: skip
    return Trial(**{**values, **changes})


USUAL = trial("usual", 0.12, ratio=1.3)
SWEPT = trial("calibrator", 0.30, ratio=None, ci95=None)
TIMED = trial("placement", None, ratio=0.7)
LOST = trial("sensitivity", 0.34, ratio=0.75)
CHOSEN = trial("float_block", 0.355, ratio=0.8)
SLOWER = trial("float_block", 0.358, ratio=0.9)


def quantized(*trials: Trial, chosen: Trial = CHOSEN, **changes: Any) -> Quantized:
    trials = trials or (USUAL, SWEPT, TIMED, LOST, SLOWER, CHOSEN)
    values: dict[str, Any] = {
        "onnx": artifact(), "chosen": chosen, "holds": chosen.holds, "reason": "7 of 9 layers",
        "metric": "AP", "reference": 0.36, "images": 33, "trials": trials,
        "sensitivity": (Sensitivity(part="conv_8", layers=2, gain=-0.001, ratio=None),
                        Sensitivity(part="conv_1", layers=3, gain=0.04, ratio=1.024),
                        Sensitivity(part="conv_5", layers=1, gain=0.01, ratio=0.99)),
        "nodes": ("conv_5", "conv_8"), "float_layers": ("conv_1", "conv_2"), "evaluations": 6,
        "stopped": "", "elapsed_s": 82.2,
    }  # fmt: skip
    return Quantized(**{**values, **changes})


def compared(speedup: float = 1.2, low: float = 1.15, high: float = 1.25) -> PrecisionComparison:
    return PrecisionComparison(
        variant="openvino/fp16", speedup=speedup, ci95=(low, high), size_bytes=int(2.25 * MIB)
    )


def integers(word: Any = "shipped", **changes: Any) -> Variant:
    values: dict[str, Any] = {
        "quantized": quantized(), "precision_comparison": compared(),
        "engine": Engine(sha256="e" * 64, size_bytes=int(1.5 * MIB), uri="store/ee"),
        "accuracy": accuracy(0.355),
    }  # fmt: skip
    return variant("openvino/int8", word, **{**values, **changes})


def accuracy(value: float) -> Accuracy:
    return Accuracy(metric="AP", value=value, reference=0.36, drop=0.36 - value, images=2)


@pytest.mark.parametrize(
    ("word", "changes", "wanted"),
    [
        (
            "shipped",
            {},
            "openvino/int8 ships: it loses 0.0050 (AP 0.3550, source model 0.3600; allowed 0.0100)"
            " and is 1.20x as fast as openvino/fp16 (95 % interval 1.15\u20131.25), in 1.50 MiB "
            "instead of 2.25.",
        ),
        (
            "shipped",
            {"accuracy": accuracy(0.3605), "precision_comparison": None},
            "openvino/int8 ships: it loses nothing (AP 0.3605, source model 0.3600).",
        ),
        (
            "rejected",
            {"precision_comparison": compared(1.01, 0.76, 1.18)},
            "openvino/int8 does not ship: it loses 0.0050 (AP 0.3550, source model 0.3600; allowed "
            "0.0100), but is not surely faster than openvino/fp16: 1.01x as fast (95 % interval "
            "0.76\u20131.18), in 1.50 MiB instead of 2.25.",
        ),
        (
            "rejected",
            {"accuracy": accuracy(0.30), "precision_comparison": compared(0.5, 0.4, 0.625)},
            "openvino/int8 does not ship: it loses 0.0600 (AP 0.3000, source model 0.3600; allowed "
            "0.0100) and takes 2.00x as long as openvino/fp16 (95 % interval 1.60\u20132.50), in "
            "1.50 MiB instead of 2.25.",
        ),
        (
            "rejected",
            {"accuracy": accuracy(0.30)},
            "openvino/int8 does not ship: it loses 0.0600 (AP 0.3000, source model 0.3600; allowed "
            "0.0100), but is 1.20x as fast as openvino/fp16 (95 % interval 1.15\u20131.25), in "
            "1.50 MiB instead of 2.25.",
        ),
        (  # Accurate and fast: the verdict's own words say what else is wrong.
            "rejected",
            {"reason": "p50 9.0 ms, allowed 5.0 ms", "precision_comparison": None},
            "openvino/int8 does not ship: it loses 0.0050 (AP 0.3550, source model 0.3600; allowed "
            "0.0100). p50 9.0 ms, allowed 5.0 ms.",
        ),
        (  # Shipped for its size: slower, and it says so.
            "shipped",
            {"accuracy": None, "precision_comparison": compared(0.8, 0.75, 0.9)},
            "openvino/int8 ships: it agrees with the float engine to 0.900 of 1 (there is no "
            "metric) and takes 1.25x as long as openvino/fp16 (95 % interval 1.11\u20131.33), in "
            "1.50 MiB instead of 2.25.",
        ),
        ("failed", {"reason": "it crashed"}, "openvino/int8 failed: it crashed."),
    ],
)
def test_the_sentence_joins_accuracy_and_speed(
    word: Any, changes: dict[str, Any], wanted: str
) -> None:
    assert int8.sentence(integers(word, **changes), max_drop=0.01) == wanted


def test_without_a_budget_no_limit_is_named() -> None:
    words = int8.sentence(
        integers(accuracy=accuracy(0.3), precision_comparison=None), max_drop=None
    )
    assert words == "openvino/int8 ships: it loses 0.0600 (AP 0.3000, source model 0.3600)."


def test_what_ships_instead() -> None:
    half = variant("openvino/fp16")
    best = variant("onnxruntime-cpu/fp32", recommended=True)
    rejected = integers("rejected")
    cases: list[tuple[Variant, list[Variant], str]] = [
        (rejected, [half], "openvino/fp16 ships instead."),
        (
            rejected,
            [half, best],
            "openvino/fp16 ships instead; onnxruntime-cpu/fp32 is the one to ship on this machine.",
        ),
        (rejected, [best], "onnxruntime-cpu/fp32 ships instead."),
        (rejected, [], "Nothing ships instead."),
        (rejected, [variant("openvino/fp16", "rejected")], "Nothing ships instead."),
        (integers(recommended=True), [half], "It is the one to ship on this machine."),
        (integers(), [half], ""),
        (integers(), [best], "onnxruntime-cpu/fp32 is the one to ship on this machine."),
    ]
    for one, others, wanted in cases:
        assert int8.instead(one, summary(one, *others)) == wanted
    timed = dataclasses.replace(comparison(best.name), contenders=(
        *comparison(best.name).contenders[:1],
        dataclasses.replace(comparison(best.name).contenders[1], variant="openvino/int8"),
    ))  # fmt: skip
    assert int8.instead(integers(), summary(integers(), best, comparison=timed)) == (
        "onnxruntime-cpu/fp32 is the one to ship on this machine: openvino/int8 takes 1.20x as "
        "long as the fastest."
    )


def test_a_benchmark_that_says_the_opposite_is_named() -> None:
    half = variant("openvino/fp16", benchmark=(row(p50_ms=7.3),))
    for speedup, p50_ms, wanted in (
        (compared(1.2, 1.15, 1.25), 8.4, True),  # faster in turn, slower by itself
        (compared(1.2, 1.15, 1.25), 6.0, False),
        (compared(1.0, 0.9, 1.1), 8.4, False),  # nobody knows: nothing to contradict
        (compared(0.5, 0.4, 0.6), 6.0, True),
        (compared(0.5, 0.4, 0.6), 8.4, False),
    ):
        one = integers(precision_comparison=speedup, benchmark=(row(p50_ms=p50_ms),))
        words = int8.doubt(one, summary(half, one))
        assert (f"{p50_ms:.2f} ms against 7.30 ms" in words) == wanted
        assert bool(words) == wanted
    assert int8.doubt(integers(precision_comparison=None), summary(half)) == ""
    assert (
        int8.doubt(integers(), summary(integers())) == ""
    )  # the other is no variant of the recipe


def test_the_plot_shows_what_has_both_figures() -> None:
    (whole, near) = trials.search_plots(quantized(), max_drop=0.01)
    assert [dot.trial for dot in whole.dots] == [None, USUAL, LOST, SLOWER, CHOSEN]
    assert [dot.trial for dot in near.dots] == [None, LOST, SLOWER, CHOSEN]
    assert [level.text for level in whole.levels] == ["float 0.3600", "budget 0.3500"]
    assert [dot.label for dot in whole.dots] == ["float", "usual", "", "", "chosen"]
    assert [dot.chosen for dot in near.dots] == [False, False, False, True]
    by_trial = {dot.trial: dot for dot in whole.dots}
    # Right is slower, down is worse; the float engine stands on its own line.
    assert by_trial[LOST].x < by_trial[CHOSEN].x < by_trial[SLOWER].x < by_trial[None].x
    assert by_trial[None].x < by_trial[USUAL].x
    assert by_trial[SLOWER].y < by_trial[CHOSEN].y < by_trial[LOST].y < by_trial[USUAL].y
    assert by_trial[None].y == whole.levels[0].at
    assert by_trial[CHOSEN].y < whole.levels[1].at < by_trial[LOST].y
    left, top, right, bottom = trials.FRAME
    for plot in (whole, near):
        for dot in plot.dots:
            assert left <= dot.x <= right
            assert top <= dot.y <= bottom


def test_without_a_metric_the_plot_shows_agreement() -> None:
    tried = [
        dataclasses.replace(one, metric=None, drop=None, agreement=value)
        for one, value in ((USUAL, 0.5), (CHOSEN, 0.95))
    ]
    (plot,) = trials.search_plots(
        quantized(*tried, chosen=tried[1], reference=None, metric=""), max_drop=0.01
    )
    assert plot.metric == "agreement"
    assert [level.text for level in plot.levels] == ["float 1.0000"]
    assert len(plot.dots) == 3


@pytest.mark.parametrize("tried", [(SWEPT, TIMED), (SWEPT,)])
def test_no_plot_where_nothing_has_both(tried: tuple[Trial, ...]) -> None:
    assert trials.search_plots(quantized(*tried, chosen=SWEPT), max_drop=0.01) == ()


def test_without_a_budget_there_is_one_plot_and_no_limit() -> None:
    (plot,) = trials.search_plots(quantized(), max_drop=None)
    assert [level.text for level in plot.levels] == ["float 0.3600"]


def test_a_long_search_shows_the_best_of_each_step() -> None:
    again = trial("float_block", 0.351, ratio=0.6)
    found = quantized(USUAL, SWEPT, trial("calibrator", 0.2), TIMED, LOST, again, SLOWER, CHOSEN)
    # The chosen one stands for its step, whatever else was faster there.
    assert int8.highlights(found) == (USUAL, SWEPT, TIMED, LOST, CHOSEN)
    found = quantized(USUAL, again, SLOWER, chosen=USUAL)
    assert int8.highlights(found) == (USUAL, again)


def section(page: str, start: str, end: str) -> str:
    return page[page.index(start) : page.index(end, page.index(start))]


def texts(html: str) -> list[list[str]]:
    """Cells of table rows as plain text."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", html, re.S)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S) for row in rows]
    return [
        [re.sub(r"[ \n]+", " ", re.sub(r"<.*?>", " ", c)).strip() for c in row] for row in cells
    ]


def test_the_table_of_trial(store: LocalStore) -> None:
    page = report.render(summary(integers()), store)
    check(page)
    rows = texts(section(page, '<h3 class="variant">openvino/int8', "What integers cost"))
    assert rows[0][4] == "AP"
    assert rows[1] == [
        "usual INT8", "usual 0.12", "mse", "7 of 9", "0.1200", "+0.2400", "0.900",
        "1.30 0.78&ndash;0.83", "2.5",
    ]  # fmt: skip
    assert rows[2][7] == "&ndash;"  # scored, not timed
    assert rows[3][4:7] == ["&ndash;", "&ndash;", "&ndash;"]  # timed, not scored
    assert rows[6][1] == "float_block 0.355 chosen"
    assert len(rows) == 7
    assert "candidates, in the order they were tried" not in page
    assert page.count('class="chosen"') == 1
    assert "6 candidates, 6 measured, 1 min 22 s, scored on 33 images" in page


def test_a_long_search_is_folded(store: LocalStore) -> None:
    trials = (USUAL, *(trial("placement", 0.3 + n / 1000) for n in range(14)), CHOSEN)
    found = quantized(*trials, stopped="the time limit of 5 s was reached")
    page = report.render(summary(integers(quantized=found)), store)
    check(page)
    folded = section(page, "<summary>All 16 candidates", "</details>")
    assert len(texts(folded)) == 17
    assert "stopped early: the time limit of 5 s was reached" in page


def test_parts_are_ranked_by_what_they_win(store: LocalStore) -> None:
    page = report.render(summary(integers()), store)
    rows = texts(section(page, "What integers cost", "</table>"))
    assert rows[1:] == [
        ["conv_1", "3", "+0.0400", "", "+2.4\u202f%", "left in float"],
        ["conv_5", "1", "+0.0100", "", "\u22121.0\u202f%", ""],
        ["conv_8", "2", "\u22120.0010", "", "&ndash;", ""],
    ]
    parts = int8.sections(summary(integers()), store)[0].parts
    assert [part.share for part in parts] == [1.0, 0.25, 0.0]


def test_a_graph_that_came_quantized(store: LocalStore) -> None:
    given = trial("given", None, ratio=None, ci95=None, layers=0, integer_layers=0, holds=True)
    found = quantized(
        given, chosen=given, reference=None, images=0, sensitivity=(), float_layers=(),
        reason="quantized elsewhere, taken as it is", elapsed_s=0.0,
    )  # fmt: skip
    page = report.render(summary(integers(quantized=found, precision_comparison=None)), store)
    check(page)
    assert "quantized elsewhere, taken as it is" in page
    assert 'class="plot search"' not in page
    assert "What integers cost" not in page


def test_int8_that_got_nowhere_is_a_sentence(store: LocalStore) -> None:
    page = report.render(summary(unbuilt("jetson/int8", "skipped")), store)
    check(page)
    assert "<b>jetson/int8 skipped: why jetson/int8 is skipped.</b> Nothing ships instead." in page


def test_no_int8_no_section(store: LocalStore) -> None:
    page = report.render(summary(variant()), store)
    assert 'id="int8"' not in page
    assert 'id="calibration"' not in page


def detector(store: LocalStore, folder: Path, label: str = "cat") -> Summary:
    """fp16 as in `detection_run`; INT8 loses the box of the first photo and moves none."""
    run = detection_run(store, folder, label)
    diff = DetectionDiff(
        confidence=0.3, matched=1, lost=1, gained=2, moved=0, lost_by_class={"5": 1},
        gained_by_class={"9": 2}, by_size={"small": (1, 0, 0), "medium": (0, 2, 0)},
        worst=(PhotoDiff(image_id=100, lost=1, gained=0, moved=0),
               PhotoDiff(image_id=999, lost=1, gained=0, moved=0)),
    )  # fmt: skip
    answers = boxes(101, (5, 0.8, (2, 2, 20, 20)))
    found = integers(difference=diff, predictions=predictions(store, folder, answers))
    return dataclasses.replace(run, variants=(*run.variants, found))


def test_objects_by_class_and_size(store: LocalStore, tmp_path: Path) -> None:
    run = detector(store, tmp_path)
    objects = int8.sections(run, store)[0].objects
    assert objects is not None
    assert objects.classes == (("class 9", 0, 2), ("cat", 1, 0))
    assert objects.most == 2
    (picture,) = objects.pictures  # image 999 is in no file
    assert (picture.file, picture.variant) == ("a.jpg", "openvino/int8")
    assert picture.note == "1 labelled objects, 1 lost, 0 gained, 0 moved"
    assert picture.before_text == "1 boxes, 1 of them here only"
    assert picture.after_text == "0 boxes, none of them here only"
    page = report.render(run, store)
    check(page)
    shown = section(page, "What it sees differently", "<details")
    assert "1 found by both, <b>1 lost, 2 gained, 0 moved</b>" in shown
    rows = texts(shown)
    assert rows[1:3] == [["class 9", "0", "2", ""], ["cat", "1", "0", ""]]
    assert rows[4:] == [["small", "1", "0", "0", ""], ["medium", "0", "2", "0", ""]]


def test_photos_of_objects_may_be_gone(store: LocalStore, tmp_path: Path) -> None:
    run = detector(store, tmp_path)
    (tmp_path / "images" / "a.jpg").unlink()
    objects = int8.sections(run, store)[0].objects
    assert objects is not None
    assert (objects.pictures, objects.missing) == ((), 1)
    (tmp_path / "truth.json").unlink()
    objects = int8.sections(run, store)[0].objects
    assert objects is not None
    assert objects.classes == (("class 9", 0, 2), ("class 5", 1, 0))
    check(report.render(run, store))


def test_photos_show_the_variant_that_differs(store: LocalStore, tmp_path: Path) -> None:
    run = detector(store, tmp_path)
    shown = pictures.gallery(run, store)
    assert shown is not None
    # The recommended variant loses and gains one in b.jpg; only INT8 differs in a.jpg.
    assert [(p.file, p.variant, p.differs) for p in shown.pictures] == [
        ("b.jpg", "openvino/fp16", True), ("a.jpg", "openvino/int8", True),
    ]  # fmt: skip
    # What is drawn under INT8 is not drawn again with the same variant.
    shown = pictures.gallery(run, store, {("openvino/int8", "a.jpg")})
    assert shown is not None
    assert [(p.file, p.variant, p.differs) for p in shown.pictures] == [
        ("b.jpg", "openvino/fp16", True), ("a.jpg", "openvino/fp16", False),
    ]  # fmt: skip
    page = report.render(run, store)
    assert "1 photo that differs, and those with the most objects" in page


def coverage(**changes: Any) -> Coverage:
    values: dict[str, Any] = {
        "samples": 29, "tensors": 243, "channels": 22106, "dead_channels": 3,
        "outlier_channels": 15, "narrow_channels": 85, "steps": (1, 2, 4, 8, 16, 29),
        "convergence": (0.08, 0.04, 0.05, 0.03, 0.016, 0.0),
        "moving": (MovingRange(tensor="conv_70", change=0.22),
                   MovingRange(tensor="silu_2", change=-0.135)),
        "classes": {"cat": 2, "dog": 0, "person": 54}, "warnings": ("1 of 3 classes are on no",),
    }  # fmt: skip
    return Coverage(**{**values, **changes})


def calibrated(**changes: Any) -> Summary:
    found = Calibration(artifact=artifact(), coverage=coverage(**changes), elapsed_s=3.5)
    return summary(integers(), calibration=found)


def test_calibration(store: LocalStore) -> None:
    page = report.render(calibrated(), store)
    check(page)
    shown = section(page, 'id="calibration"', 'id="pictures"')
    assert "29 samples in one pass, 3.5 s" in shown
    assert "Warning:</span> 1 of 3 classes are on no." in shown
    assert "243, 22\u202f106 channels" in shown
    for word, number in (("Dead", 3), ("Outlier", 15), ("Narrow", 85)):
        assert f"<dt>{word}</dt><dd>{number} channels" in shown
    rows = texts(shown)
    assert ["conv_70", "+22.0\u202f%", ""] in rows
    assert ["silu_2", "\u221213.5\u202f%", ""] in rows
    assert "2 of 3 classes were seen." in shown
    assert rows[-2:] == [["person", "54", ""], ["cat", "2", ""]]
    assert "1 on no calibration image" in shown


def test_the_curve_falls_from_left_to_right() -> None:
    curve = trials.curve(coverage())
    assert curve is not None
    left, top, right, bottom = trials.CURVE
    xs, ys = [x for x, *_ in curve.points], [y for _, y, _ in curve.points]
    assert xs == sorted(xs)
    assert left < xs[0] < xs[-1] < right
    assert min(ys) == ys[0] > top
    assert ys[-1] == bottom
    assert ys[2] < ys[1]  # 5 % lies above 4 %
    # Doubled samples are as far apart as any other doubling.
    assert xs[1] - xs[0] == pytest.approx(xs[3] - xs[2], abs=0.2)
    assert [tick.text for tick in curve.x_ticks] == ["1", "2", "4", "8", "16", "29"]
    assert curve.points[0][2] == "8.0% after 1"
    assert curve.y_ticks[0].text == "0%"


def test_near_steps_leave_room_for_their_numbers() -> None:
    curve = trials.curve(coverage(steps=(256, 512, 520), convergence=(0.02, 0.01, 0.0)))
    assert curve is not None
    assert [tick.text for tick in curve.x_ticks] == ["256", "520"]


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": (1,), "convergence": (0.0,), "moving": (), "classes": {}, "warnings": ()},
        {"steps": (), "convergence": (), "moving": (), "classes": {"cat": 0}},
        {"convergence": (0.0,) * 6},
    ],
)
def test_calibration_that_says_little(store: LocalStore, changes: dict[str, Any]) -> None:
    page = report.render(calibrated(**changes), store)
    check(page)
    assert ("How ranges settled" in page) == (len(changes.get("steps", "many")) > 1)


def test_names_are_escaped(store: LocalStore, tmp_path: Path) -> None:
    hostile = trial("float_block", 0.355, label=HOSTILE, method=HOSTILE)
    found = quantized(
        USUAL, hostile, chosen=hostile, reason=HOSTILE, metric=HOSTILE, stopped=HOSTILE,
        sensitivity=(Sensitivity(part=HOSTILE, layers=1, gain=0.1, ratio=1.0),),
        float_layers=(HOSTILE,),
    )  # fmt: skip
    run = detector(store, tmp_path, label=HOSTILE)
    bad = dataclasses.replace(run.variants[1], name=HOSTILE, quantized=found, reason=HOSTILE)
    saw = Calibration(
        artifact=artifact(), elapsed_s=1.0,
        coverage=coverage(classes={HOSTILE: 3}, warnings=(HOSTILE,),
                          moving=(MovingRange(tensor=HOSTILE, change=0.1),)),
    )  # fmt: skip
    page = report.render(
        dataclasses.replace(run, variants=(run.variants[0], bad), calibration=saw), store
    )
    check(page)
    assert HOSTILE not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("ratio", "wanted"),
    [(1.024, "+2.4\u202f%"), (0.9, "\u221210.0\u202f%"), (1.0, "0.0\u202f%"),
     (0.9999, "0.0\u202f%")],
)  # fmt: skip
def test_change_as_text(ratio: float, wanted: str) -> None:
    assert report.change(ratio) == wanted


def test_budget_of_the_recipe_is_used(store: LocalStore) -> None:
    page = report.render(summary(integers(), budget=BudgetSpec(max_drop=0.02)), store)
    assert "budget 0.3400" in page
    assert "allowed 0.0200" in page
