"""report.html: one self-contained page that answers what may ship, and shows the evidence.

Knows how to put the facts; `pictures.py` picks photos, `plots.py` places marks, and
`report.html.j2` writes it all, every text escaped; `int8.py` chooses what is said of INT8.
The page loads nothing and runs no script.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import jinja2

from artifacts.report import int8, pictures, plots, trials
from artifacts.summary import Summary, Variant
from artifacts.table import computed, main_row
from engineworks.facts.timing import BenchmarkRow
from engineworks.store import LocalStore

DASH = "\u2013"


def render(summary: Summary, store: LocalStore) -> str:
    """The page of one run.

    Args:
        summary: The run's facts.
        store: Holds the predictions. Those and photos that are gone are left out and named.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        count=count, ms=ms, mib=mib, si=si, seconds=seconds, small=small, signed=signed, snr=snr,
        change=change,
    )  # fmt: skip
    integers = int8.sections(summary, store)
    drawn = {
        (picture.variant, picture.file)
        for section in integers
        if section.objects
        for picture in section.objects.pictures
    }
    recommended = next((v for v in summary.variants if v.recommended), None)
    page: str = environment.get_template("report.html.j2").render(
        summary=summary,
        started=_started(summary.run_id),
        best=recommended,
        best_row=main_row(recommended, summary.size) if recommended else None,
        outcomes=Counter(variant.verdict for variant in summary.variants),
        main_row=lambda variant: main_row(variant, summary.size),
        computed=computed,
        plots=[
            plot
            for width, height in ((720, 320), (360, 300))
            if (plot := plots.scatter(summary, width, height))
        ],
        matrix=_matrix(summary),
        doubts=_doubts(summary),
        environment=_environment(summary.variants),
        gallery=pictures.gallery(summary, store, drawn),
        integers=integers,
        samples=int8.samples(summary.calibration),
        frame=trials,
        step_words=int8.STEPS,
        long=int8.LONG,
        log_name=lambda log: _log_name(log, summary.run_id),
    )
    return page


def _started(run_id: str) -> str:
    """Date and time as the run's name gives them."""
    parts = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", run_id)
    return "{}-{}-{} {}:{}:{}".format(*parts.groups()) if parts else ""


def _log_name(log: str, run_id: str) -> str:
    """A log folder relative to this run's folder; a cached stage's lies in another run's."""
    inside = log.rpartition("/runs/")[2]
    return inside.removeprefix(f"{run_id}/") if inside.startswith(run_id) else f"../{inside}"


# --- tables ---

Shape = tuple[int, int, int]


def _matrix(summary: Summary) -> dict[Shape, list[tuple[Variant, BenchmarkRow]]]:
    """Benchmark rows by (height, width, batch), so that variants stand under each other."""
    matrix: defaultdict[Shape, list[tuple[Variant, BenchmarkRow]]] = defaultdict(list)
    for variant in summary.variants:
        for row in variant.benchmark:
            matrix[row.height, row.width, row.batch].append((variant, row))
    return dict(matrix)


def _doubts(summary: Summary) -> dict[tuple[str, Shape], tuple[int, str]]:
    """(variant, shape) -> (footnote number, why its figures are inconclusive)."""
    doubted = (
        ((variant.name, shape), row.inconclusive)
        for shape, entries in _matrix(summary).items()
        for variant, row in entries
        if row.inconclusive
    )
    return {key: (number, reason) for number, (key, reason) in enumerate(doubted, start=1)}


def _environment(variants: Iterable[Variant]) -> dict[str, dict[str, list[str]]]:
    """Fact -> value -> the variants that were timed under it."""
    facts: dict[str, dict[str, list[str]]] = {}
    for variant in variants:
        for fact, value in (variant.environment or {}).items():
            values = facts.setdefault(fact.replace("_", " "), {})
            values.setdefault(_word(value), []).append(variant.name)
    return facts


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def count(value: float | None) -> str:
    """12345 -> 12 345, with narrow no-break spaces."""
    return DASH if value is None else f"{value:,.0f}".replace(",", "\u202f")


def ms(value: float | None, like: float | None = None) -> str:
    """Milliseconds; `like` is the figure beside it whose number of decimals it takes."""
    if value is None:
        return DASH
    scale = value if like is None else like
    return f"{value:.{3 if scale < 1 else 2 if scale < 100 else 1}f}"


def mib(size_bytes: float | None) -> str:
    """Bytes as MiB."""
    return DASH if size_bytes is None else f"{size_bytes / 2**20:.2f}"


def si(value: float) -> str:
    """904490 -> 904 k, 1045106816 -> 1.05 G."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            scaled = value / factor
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}\u202f{unit}"
    return f"{value:g}"


def seconds(value: float) -> str:
    """A duration with its unit."""
    if value >= 60:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    return f"{value:.{2 if value < 1 else 1}f} s"


def small(value: float | None) -> str:
    """A difference: two digits and the power of ten."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "not finite"
    return "0" if value == 0 else f"{value:.1e}"


def signed(value: float) -> str:
    """Four decimals with their sign; zero has none."""
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0 else text.replace("-", "\u2212")


def change(ratio: float) -> str:
    """1.024 -> +2.4 %."""
    text = f"{100 * (ratio - 1):+.1f}".replace("-", "\u2212")
    return f"{text if text[1:] != '0.0' else '0.0'}\u202f%"


def snr(value: float) -> str:
    """Decibels; 200 stands for equal answers."""
    return "equal" if value >= 200 else f"{value:.1f} dB".replace("-", "\u2212")
