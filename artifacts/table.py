"""The table of variants and its footnotes, the same in terminal, Prefect, MLflow and README.

Knows summary.json; decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from artifacts.summary import Summary, Variant
from engineworks.facts.engine import DeliveredPrecision
from engineworks.facts.timing import BenchmarkRow
from engineworks.verdict import cut_short, likely

HEADINGS = (
    "variant", "verdict", "metric", "drop", "p50 ms", "images/s", "MiB", "stored/computed"
)  # fmt: skip


def rows(summary: Summary) -> list[tuple[str, ...]]:
    """The table of variants as text, the same in terminal, Prefect, MLflow and README."""
    return [_row(variant, summary) for variant in summary.variants]


def _row(variant: Variant, summary: Summary) -> tuple[str, ...]:
    accuracy, truth, engine = variant.accuracy, variant.delivered_precision, variant.engine
    first = main_row(variant, summary.size)
    return (
        variant.name + (" *" if variant.recommended else ""),
        variant.verdict,
        f"{accuracy.metric} {accuracy.value:.4f}" if accuracy else "-",
        f"{accuracy.drop:+.4f}" if accuracy else "-",
        f"{first.p50_ms:.2f}{'?' if first.inconclusive else ''}" if first else "-",
        f"{first.throughput_per_s:.1f}" if first else "-",
        f"{engine.size_bytes / 2**20:.2f}" if engine else "-",
        f"{truth.delivered}/{computed(truth)}" if truth else "-",
    )


def computed(truth: DeliveredPrecision) -> str:
    """The precision in which most nodes compute."""
    return max(truth.computed_nodes, key=lambda word: truth.computed_nodes[word], default="-")


def main_row(variant: Variant, size: Sequence[int]) -> BenchmarkRow | None:
    """The benchmark row at the model's own size and batch 1."""
    for row in variant.benchmark:
        if (row.height, row.width, row.batch) == (*size, 1):
            return row
    return None


def markdown(summary: Summary) -> str:
    """The table and its footnotes as Markdown."""
    lines = [
        "| " + " | ".join(HEADINGS) + " |",
        "|" + " --- |" * len(HEADINGS),
        *(
            "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
            for row in rows(summary)
        ),
        "",
        *(note.replace("*", "\\*", 1) for note in footnotes(summary)),
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "/")


def _reserve(variant: Variant) -> str:
    """What a shipped variant's verdict says with a reservation; empty when it has none."""
    said = [variant.meaning.words] if variant.meaning is not None else []
    stopped = variant.quantized.stopped if variant.quantized else ""
    return "; ".join([*said, *[cut_short(stopped)] * bool(stopped)])


def _source_notes(summary: Summary) -> list[str]:
    """What a reader must know of the source model and of the data."""
    notes = []
    chance = summary.reference.chance
    if chance is not None and chance.word == "not judged":
        notes.append(
            f"Whether the source model is better than chance was not judged: {chance.reason}."
        )
    elif chance is not None and chance.word == "near zero":
        notes.append(
            f"The source model is no better than chance, which data.accept allows: "
            f"{chance.reason}. {likely(chance)}."
        )
    elif summary.reference.value is not None and summary.reference.value <= 0:
        notes.append(
            f"The source model itself scores {summary.reference.metric} "
            f"{summary.reference.value:.4f}: check task.labels, task.layout and preprocess, "
            "or its weights."
        )
    if summary.data is not None:
        notes += [f"data: {note}." for note in summary.data.notes]
        if summary.data.bad:
            first = summary.data.bad[0].reason
            notes.append(f"data: {len(summary.data.bad)} images skipped, the first: {first}.")
    return notes


def footnotes(summary: Summary) -> list[str]:
    """What a reader must know to read the table."""
    height, width = summary.size
    notes = [
        f"{v.name}: {v.verdict}, {v.reason}." for v in summary.variants if v.verdict != "shipped"
    ]
    notes += _source_notes(summary)
    notes += [
        f"{v.name}: {advice}."
        for v in summary.variants
        if v.verdict == "shipped" and (advice := _reserve(v))
    ]
    if summary.comparison is not None:
        comparison = summary.comparison
        best = comparison.recommended
        advice = f"* ship {best} on this machine" if best else "None is recommended"
        notes.append(f"{advice}: {comparison.reason}.")
    notes += [
        f"{v.registered.alias} was on {v.registered.taken_from}, and is now on version "
        f"{v.registered.version} of this recipe."
        for v in summary.variants
        if v.registered is not None and v.registered.taken_from
    ]
    notes += [
        f"{v.name}: package {row.kind} {row.state}"
        + (f" by {row.server}" if row.state == "proven" else f", {row.reason.splitlines()[0]}")
        + "".join(f"; {gap}" for gap in row.unproven if row.state == "proven")
        + "."
        for v in summary.variants
        for row in v.package
    ]
    notes += [
        f"{v.name}: no sealed test, {v.sealed.reason}."
        for v in summary.variants
        if v.sealed is not None and v.sealed.state == "failed"
    ]
    threads = next((row.threads for v in summary.variants for row in v.benchmark), None)
    if threads is not None:
        where = "; ".join(
            dict.fromkeys(
                f"{v.host.name} ({v.host.cpu})" if v.host else summary.host.cpu
                for v in summary.variants
                if v.benchmark
            )
        )
        notes.append(f"Latency at {height}x{width}, batch 1, {threads} threads, on {where}.")
    shown = [main_row(variant, summary.size) for variant in summary.variants]
    if any(row is not None and row.inconclusive for row in shown):
        notes.append("Latencies with ? are inconclusive: the report says why.")
    notes += [
        f"{v.name}: {v.delivered_precision.note}."
        for v in summary.variants
        if v.delivered_precision is not None and v.delivered_precision.note
    ]
    return notes
