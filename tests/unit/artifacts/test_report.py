"""The report: every variant's fate, everything optional, nothing unescaped, nothing loaded."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from artifacts.report import page as report
from artifacts.report import pictures, plots
from artifacts.summary import Engine, PackageRow, Registered, StageTiming, Summary, Variant
from engineworks.facts.data import BadImage, PinnedData
from engineworks.facts.engine import Accuracy, DeliveredPrecision, Parity, ParityRow
from engineworks.facts.host import HostCard
from engineworks.facts.model import (
    Analysis,
    ExportAttempt,
    Exported,
    LayerCost,
    Reference,
    Simplified,
)
from engineworks.facts.package import Check
from engineworks.facts.timing import BenchmarkRow, Comparison, Contender
from engineworks.manifest import Artifact, Manifest
from engineworks.specs import BudgetSpec, DataSpec, Preprocess, TaskSpec
from engineworks.store import LocalStore
from tests import builders
from tests.builders import MADE_HERE

HOSTILE = "<script>alert('x')</script>\"'&"


def artifact(kind: str = "onnx", **fields: Any) -> Artifact:
    """An artifact that lies in no store."""
    manifest = Manifest(
        kind=kind, name="tiny", entry="model.onnx", files=(), inputs=(builders.tensor(),),
        outputs=(builders.tensor("boxes", ("batch", 8, 85)),), preprocess=Preprocess(),
        provenance=MADE_HERE, **fields,
    )  # fmt: skip
    return Artifact(kind=kind, sha256="a" * 64, size_bytes=1000, uri="gone", manifest=manifest)


def predictions(store: LocalStore, folder: Path, answers: list[Any], **fields: Any) -> Artifact:
    """Predictions as the check and reference stages leave them."""
    path = builders.write(folder / "predictions.json", json.dumps(answers))
    return store.put(
        {"predictions.json": path}, kind="predictions", name="tiny", entry="predictions.json",
        provenance=MADE_HERE, **fields,
    )  # fmt: skip


def accuracy(value: float = 0.35, reference: float = 0.36) -> Accuracy:
    return Accuracy(metric="AP", value=value, reference=reference, drop=reference - value, images=2)


def row(batch: int = 1, p50_ms: float = 7.0, **changes: Any) -> BenchmarkRow:
    values: dict[str, Any] = {
        "height": 16, "width": 16, "batch": batch, "threads": 2, "mean_ms": p50_ms * 1.1,
        "std_ms": 0.5, "p50_ms": p50_ms, "p95_ms": p50_ms * 1.3, "p99_ms": None,
        "ci95_ms": (p50_ms * 0.98, p50_ms * 1.02), "cpu_ms": 13.0, "throughput_per_s": 140.0,
        "n": 400, "warmup": 20, "inconclusive": "",
    }  # fmt: skip
    return BenchmarkRow(**{**values, **changes})


def parity() -> Parity:
    line = ParityRow(output="boxes", batch=1, max_abs_diff=3e-4, relative_diff=9e-5, snr_db=99.7)
    return Parity(
        holds=True, reason="", limit="relative difference <= 0.001", max_abs_diff=3e-4,
        relative_diff=9e-5, snr_db=99.7, identical_rows_diff=0.0, rows=(line,),
    )  # fmt: skip


def truth() -> DeliveredPrecision:
    return DeliveredPrecision(
        asked="fp16", delivered="fp16", holds=True, stored_bytes={"fp16": 2_000_000, "i64": 208},
        computed_nodes={"fp32": 148}, note="this CPU has no fp16 arithmetic",
    )  # fmt: skip


def variant(name: str = "openvino/fp16", word: Any = "shipped", **changes: Any) -> Variant:
    """A variant that went through every stage."""
    target, precision = name.rsplit("/", 1)
    values: dict[str, Any] = {
        "name": name, "target": target, "precision": precision, "required": True,
        "verdict": word, "reason": f"why {name} is {word}", "accuracy": accuracy(),
        "parity": parity(), "delivered_precision": truth(), "benchmark": (row(), row(batch=4)),
        "environment": {"cpu": "a cpu", "load_average_1min": 0.5, "virtual_machine": True},
        "engine": Engine(sha256="e" * 64, size_bytes=3 * 2**20, uri="store/ee"),
        "registered": Registered(model="tiny", version="7", alias="candidate"),
    }  # fmt: skip
    return Variant(**{**values, **changes})


def unbuilt(name: str, word: Any) -> Variant:
    """A variant that never got an engine."""
    target, precision = name.rsplit("/", 1)
    return Variant(
        name=name, target=target, precision=precision, required=False, verdict=word,
        reason=f"why {name} is {word}",
    )  # fmt: skip


def summary(*variants: Variant, **changes: Any) -> Summary:
    attempt = ExportAttempt(
        exporter="legacy", passed=False, reason="unsupported operator", max_abs_diff=None,
        nodes=None, size_bytes=None, elapsed_s=1.5,
    )  # fmt: skip
    values: dict[str, Any] = {
        "schema": 1, "run_id": "20261123-023533-098-tiny", "name": "tiny",
        "recipe": "recipe.yaml", "recipe_sha256": "b" * 64,
        "host": HostCard(name="vm", os="Linux", arch="x86_64", python="3.11", cpu="a cpu",
                         cores=2, cpu_flags=("avx2",), memory_mib=4096, packages={}),
        "size": (16, 16), "budget": BudgetSpec(), "data": None,
        "reference": Reference(artifact=artifact("reference"), predictions=None,
                               metric="", value=None, images=0, detail={},
                               outputs=("boxes",), elapsed_s=1.0),
        "exported": Exported(onnx=artifact(), chosen="dynamo", reason="it alone agrees",
                             opset=20, attempts=(attempt,)),
        "simplified": None,
        "analysis": Analysis(parameters=904_490, flops=1_045_106_816, nodes=365,
                             weight_bytes={"fp32": 3_617_960}, operators={"Conv": 113},
                             largest=(LayerCost(name="conv_1", operator="Conv", parameters=1744,
                                                macs=74_760_192),),
                             unsupported_operators={"openvino": ("NonZero",)}),
        "variants": variants, "comparison": None, "stages": (), "wall_s": 82.2, "overhead_s": 4.1,
    }  # fmt: skip
    return Summary(**{**values, **changes})


def comparison(name: str) -> Comparison:
    return Comparison(
        size=(16, 16), batch=1, recommended=name, reason="fastest: other takes 1.20x as long",
        contenders=(
            Contender(variant=name, ratio=1.0, ci95=(1.0, 1.0), p50_ms=7.0),
            Contender(variant="other", ratio=1.2, ci95=(1.18, 1.23), p50_ms=8.4),
        ),
    )  # fmt: skip


class _Page(HTMLParser):
    """Tags, what they load, and whether they close in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            value or "" for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "data", "action")
        ]  # fmt: skip
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> _Page:
    """What holds for every page: well-formed, no script, nothing loaded from elsewhere."""
    found = _Page()
    found.feed(page)
    assert not found.open
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert all(re.match(r"#|data:image/jpeg;base64,", load) for load in found.loads), found.loads
    assert "url(" not in page and "@import" not in page
    assert not re.search(r"\son\w+=", page)
    return found


def boxes(image_id: int, *entries: tuple[int, float, tuple[int, int, int, int]]) -> list[Any]:
    return [
        {"image_id": image_id, "category_id": number, "score": score, "bbox": list(bbox)}
        for number, score, bbox in entries
    ]


def detection_run(store: LocalStore, folder: Path, label: str = "cat", **changes: Any) -> Summary:
    """Two photos: in the second the variant loses one box and finds another."""
    images = folder / "images"
    files = {"a.jpg": (60, 80), "b.jpg": (60, 80)}
    for file, (height, width) in files.items():
        builders.picture(images / file, height, width)
    truth_file = builders.coco(
        folder / "truth.json",
        files,
        [("a.jpg", label, [1, 1, 20, 20]), ("b.jpg", label, [1, 1, 20, 20])],
        {label: 5},
    )
    shared = boxes(100, (5, 0.9, (1, 1, 20, 20)))
    before = shared + boxes(101, (5, 0.8, (2, 2, 20, 20)), (5, 0.1, (40, 2, 9, 9)))
    after = shared + boxes(101, (5, 0.7, (40, 30, 20, 20)))
    task = TaskSpec(kind="detection")
    data = PinnedData(
        spec=DataSpec(images=str(images), annotations=str(truth_file)), files=tuple(files),
        sha256="d" * 64, bad=(BadImage(file=HOSTILE, reason="no image"),), objects=2,
    )  # fmt: skip
    known = predictions(store, folder, before, task=task)
    reference = Reference(
        artifact=known, predictions=known, metric="AP", value=0.36, images=2,
        detail={"AP": 0.36, "AP_small": -1.0}, outputs=("boxes",), elapsed_s=1.0,
    )  # fmt: skip
    drawn = variant(recommended=True, predictions=predictions(store, folder, after))
    return summary(
        drawn, data=data, reference=reference, comparison=comparison(drawn.name), **changes
    )


def classification_run(
    store: LocalStore, folder: Path, after: list[Any], labels: tuple[str, ...] = ("cat", "dog")
) -> Summary:
    files = ("cat/1.png", "dog/2.png")
    for file in files:
        builders.picture(folder / "images" / file, 32, 32)
    task = TaskSpec(kind="classification", labels=labels)
    engine = builders.put_bytes(store, folder, kind="engine", task=task)
    before = [["cat/1.png", 0, 3.0], ["dog/2.png", 0, 2.0]]
    known = predictions(store, folder, before, task=dataclasses.replace(task, labels=()))
    reference = Reference(
        artifact=known, predictions=known, metric="top1", value=0.5, images=2,
        detail={"top1": 0.5}, outputs=("y",), elapsed_s=1.0,
    )  # fmt: skip
    return summary(
        variant(
            predictions=predictions(store, folder, after),
            engine=Engine(sha256=engine.sha256, size_bytes=5, uri=engine.uri),
        ),
        data=PinnedData(spec=DataSpec(images=str(folder / "images")), files=files, sha256="d" * 64),
        reference=reference,
    )


def test_every_variant_has_its_verdict_and_reason(store: LocalStore) -> None:
    variants = (
        variant(recommended=True),
        variant("onnxruntime-cpu/int8", "rejected"),
        unbuilt("tensorrt/fp16", "skipped"),
        unbuilt("coreml/fp16", "failed"),
        unbuilt("jetson/int8", "pending"),
    )
    page = report.render(summary(*variants, comparison=comparison("openvino/fp16")), store)
    check(page)
    for one in variants:
        assert one.reason in page
        assert f'<span class="verdict {one.verdict}">{one.verdict}</span>' in page
    assert "Ship openvino/fp16 on this machine" in page
    assert "Fastest: other takes 1.20x as long." in page
    assert "Required but not shipped: onnxruntime-cpu/int8 (rejected)." in page
    assert "tiny v7" in page


def test_why_nothing_ships(store: LocalStore) -> None:
    page = report.render(summary(variant(word="rejected"), unbuilt("null/fp32", "failed")), store)
    check(page)
    assert "Nothing ships from this run" in page
    assert "1 rejected, 1 failed." in page
    assert page.count("why openvino/fp16 is rejected") == 2


def test_a_run_that_only_waits_is_no_failure(store: LocalStore) -> None:
    page = report.render(summary(unbuilt("tensorrt/fp16", "pending")), store)
    check(page)
    assert "Nothing ships yet" in page
    assert 'class="decision waits"' in page
    assert "why tensorrt/fp16 is pending" in page


def test_shipped_without_a_comparison(store: LocalStore) -> None:
    page = report.render(summary(variant()), store)
    check(page)
    assert "1 of 1 variants may ship" in page


def test_text_from_files_is_escaped(store: LocalStore, tmp_path: Path) -> None:
    hostile = detection_run(store, tmp_path, label=HOSTILE, name=HOSTILE, recipe=HOSTILE)
    packaged = PackageRow(
        kind=HOSTILE, state=HOSTILE, reason=HOSTILE, server=HOSTILE, unproven=(HOSTILE,),
        checks=(Check(name=HOSTILE, holds=False, detail=HOSTILE),), sha256=HOSTILE,
    )  # fmt: skip
    first = dataclasses.replace(
        hostile.variants[0], name=HOSTILE, reason=HOSTILE, package=(packaged,),
        environment={HOSTILE: HOSTILE},
    )  # fmt: skip
    stage = StageTiming(
        name=HOSTILE, variant=HOSTILE, elapsed_s=1, cached=False, peak_mib=1, log=HOSTILE
    )
    hostile = dataclasses.replace(
        hostile, variants=(first,), stages=(stage,), comparison=comparison(HOSTILE)
    )
    page = report.render(hostile, store)
    check(page)
    assert HOSTILE not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_everything_optional_may_be_missing(store: LocalStore) -> None:
    bare = Variant(
        name="null/fp32", target="null", precision="fp32", required=True, verdict="shipped",
        reason="nothing was measured", recommended=True,
    )  # fmt: skip
    page = report.render(summary(bare), store)
    check(page)
    assert 'class="plot' not in page
    assert "No variant was timed." in page
    assert "The recipe asks for none." in page
    assert "The recipe names no data: parity judges" in page


def test_no_variant_at_all(store: LocalStore) -> None:
    page = report.render(summary(), store)
    check(page)
    assert "The recipe plans no variant." in page


def test_every_field_filled(store: LocalStore) -> None:
    page = report.render(builders.example(Summary), store)
    check(page)
    assert "a reason" in page


def test_inconclusive_rows_have_a_footnote(store: LocalStore) -> None:
    noisy = variant(benchmark=(row(inconclusive="other processes used 34% of the CPU"),))
    page = report.render(summary(noisy), store)
    check(page)
    assert '<small class="warn">inconclusive</small>' in page
    assert "openvino/fp16, 16 &times; 16, batch 1: other processes used 34% of the CPU." in page


def test_p99_with_too_few_calls(store: LocalStore) -> None:
    page = report.render(summary(variant(benchmark=(row(), row(batch=4, p99_ms=12.34)))), store)
    assert page.count("n &lt; 660") == 1
    assert "12.34" in page


def test_detection_counts_and_draws_what_differs(store: LocalStore, tmp_path: Path) -> None:
    run = detection_run(store, tmp_path)
    shown = pictures.gallery(run, store)
    assert shown is not None
    (change,) = shown.changes
    assert (change.before, change.after, change.lost, change.gained) == (2, 2, 1, 1)
    assert change.files == ("b.jpg",)
    assert [picture.file for picture in shown.pictures] == ["b.jpg", "a.jpg"]
    assert [picture.differs for picture in shown.pictures] == [True, False]
    page = report.render(run, store)
    assert check(page).tags.count("img") == 4
    assert "not labelled" in page


def test_photos_that_are_gone_are_counted(store: LocalStore, tmp_path: Path) -> None:
    run = detection_run(store, tmp_path)
    (tmp_path / "images" / "a.jpg").unlink()
    page = report.render(run, store)
    assert check(page).tags.count("img") == 2
    assert "1 photo could not be read" in page


def test_predictions_that_are_gone(store: LocalStore, tmp_path: Path) -> None:
    run = detection_run(store, tmp_path)
    page = report.render(run, LocalStore(tmp_path / "empty"))
    assert "img" not in check(page).tags
    (tmp_path / "truth.json").unlink()
    assert "img" not in check(report.render(run, store)).tags


def test_classification_shows_images_that_change_class(store: LocalStore, tmp_path: Path) -> None:
    run = classification_run(store, tmp_path, [["cat/1.png", 1, 1.5], ["dog/2.png", 1, 4.0]])
    shown = pictures.gallery(run, store)
    assert shown is not None
    (change,) = shown.changes
    assert (change.before, change.after, change.lost, change.gained) == (1, 1, 1, 1)
    assert change.files == ("cat/1.png", "dog/2.png")
    page = report.render(run, store)
    assert check(page).tags.count("img") == 2
    assert "Images that change class" in page
    assert "openvino/fp16: dog 1.50" in page


def test_classification_without_changes_shows_mistakes(store: LocalStore, tmp_path: Path) -> None:
    run = classification_run(store, tmp_path, [["cat/1.png", 0, 3.0], ["dog/2.png", 0, 2.0]])
    page = report.render(run, store)
    assert check(page).tags.count("img") == 1
    assert "No engine changes any class." in page


def test_class_names_are_escaped(store: LocalStore, tmp_path: Path) -> None:
    answers = [["cat/1.png", 1, 1.5], ["dog/2.png", 7, 4.0]]
    page = report.render(classification_run(store, tmp_path, answers, ("cat", HOSTILE)), store)
    check(page)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "class 7 4.00" in page


def test_a_task_without_answers(store: LocalStore, tmp_path: Path) -> None:
    known = predictions(store, tmp_path, [], task=TaskSpec())
    reference = Reference(
        artifact=known, predictions=known, metric="", value=None,
        images=0, detail={}, outputs=("y",), elapsed_s=1.0,
    )  # fmt: skip
    page = report.render(summary(variant(accuracy=None), reference=reference), store)
    assert "img" not in check(page).tags
    assert 'class="plot' not in page


@pytest.mark.parametrize(
    ("budget", "texts", "limit"),
    [
        (BudgetSpec(max_drop=0.005), ["source model 0.3600", "budget 0.3550"], None),
        (BudgetSpec(max_drop=None), ["source model 0.3600"], None),
        (BudgetSpec(max_drop=None, max_p50_ms=5), ["source model 0.3600"], "5 ms"),
    ],
)
def test_plot_draws_the_budget(budget: BudgetSpec, texts: list[str], limit: str | None) -> None:
    scored = variant(accuracy=accuracy(0.30, 0.36), benchmark=(row(p50_ms=7.0),))
    plot = plots.scatter(summary(scored, budget=budget), 720, 320)
    assert plot is not None
    assert [level.text for level in plot.levels] == texts
    assert (plot.limit.text if plot.limit else None) == limit


@pytest.mark.parametrize("width", [360, 720])
@pytest.mark.parametrize("times", [[7.0], [7.0, 7.0, 7.01], [0.2, 9.0], [0.28, 0.283, 0.288, 0.29]])
def test_plot_stays_in_its_frame(width: int, times: list[float]) -> None:
    variants = [variant(f"target{i}/fp32", benchmark=(row(p50_ms=t),)) for i, t in enumerate(times)]
    plot = plots.scatter(summary(*variants), width, 300)
    assert plot is not None
    assert len(plot.marks) == len(times)
    for mark in plot.marks:
        assert plot.left <= mark.low <= mark.x <= mark.high <= plot.right
        assert plot.top <= mark.y <= plot.bottom
        assert plot.top - 12 <= mark.label_y <= plot.bottom
    assert len({(mark.label_x, mark.label_y) for mark in plot.marks}) == len(times)
    assert 2 <= len(plot.x_ticks) <= 10
    assert len({tick.text for tick in plot.x_ticks}) == len(plot.x_ticks)


def test_simplification_and_stages(store: LocalStore) -> None:
    simplified = Simplified(
        onnx=artifact(), kept=False, reason="answers differ", nodes_before=367, nodes_after=365,
        size_before_bytes=4_000_000, size_after_bytes=3_600_000, max_abs_diff=0.5,
    )  # fmt: skip
    stages = (
        StageTiming(name="export", variant="", elapsed_s=9.04, cached=False, peak_mib=628.5,
                    log="/home/me/runs/20261123-023533-098-tiny/logs/export"),
        StageTiming(name="check", variant="null/fp32", elapsed_s=0.0, cached=True, peak_mib=0.0,
                    log="/home/me/runs/20261122-000000-000-tiny/logs/check"),
    )  # fmt: skip
    page = report.render(summary(variant(), simplified=simplified, stages=stages), store)
    check(page)
    assert "Rolled back: answers differ." in page
    assert "<code>logs/export</code>" in page
    assert "<code>../20261122-000000-000-tiny/logs/check</code>" in page
    assert "1 ran, 1 came from the cache." in page
    assert "lacks NonZero" in page


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (report.ms(0.2834), "0.283"),
        (report.ms(0.2834, 7.1), "0.28"),
        (report.ms(123.45), "123.5"),
        (report.ms(None), "\u2013"),
        (report.si(904_490), "904\u202fk"),
        (report.si(1_045_106_816), "1.05\u202fG"),
        (report.si(12), "12"),
        (report.count(12_345), "12\u202f345"),
        (report.signed(-0.00001), "0.0000"),
        (report.signed(-0.01), "\u22120.0100"),
        (report.signed(0.01), "+0.0100"),
        (report.seconds(0.25), "0.25 s"),
        (report.seconds(82.2), "1 min 22 s"),
        (report.small(0.0), "0"),
        (report.small(float("inf")), "not finite"),
        (report.snr(200.0), "equal"),
        (report.mib(3 * 2**20), "3.00"),
    ],
)
def test_numbers_as_text(text: str, wanted: str) -> None:
    assert text == wanted
