"""What report.html says of INT8: verdict and speed in a sentence, the search, what it changed.

Knows how to choose and place facts; `int8.html.j2` writes them. Reads no pixel itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from artifacts.report import pictures as gallery
from artifacts.report.trials import Curve, SearchPlot, curve, search_plots
from artifacts.summary import Summary, Variant
from artifacts.table import main_row
from engineworks import precisions
from engineworks.evaluate.pictures import GalleryPicture
from engineworks.facts.engine import DetectionDiff
from engineworks.facts.int8 import Calibration, Coverage, Quantized, Sensitivity, Trial
from engineworks.store import LocalStore

#: Photos drawn of one variant: the page holds them all as data.
PHOTOS = 4

#: A search with more trials shows the best of each step, and the others folded.
LONG = 12

#: Steps of the search in its order; each has its colour.
STEPS = {
    "given": "quantized elsewhere",
    "usual": "usual INT8",
    "calibrator": "ranges",
    "placement": "which layers",
    "sensitivity": "one part in float",
    "float_block": "parts in float",
    "refine": "refine",
}

ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the graph and what it loses in integers."""

    found: Sensitivity
    share: float
    """Its gain relative to the largest, 0..1."""
    left: bool
    """Whether the chosen graph leaves it in float."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Objects seen differently: by class and by size, name -> (lost, gained, moved)."""

    found: DetectionDiff
    classes: tuple[tuple[str, int, int], ...]
    most: int
    pictures: tuple[GalleryPicture, ...]
    missing: int
    legend: str
    """What colours in the pictures mean."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything about one INT8 variant."""

    variant: Variant
    sentence: str
    instead: str
    doubt: str
    """Where the benchmark's own rows say the opposite of the side-by-side timing."""
    plots: tuple[SearchPlot, ...]
    steps: tuple[str, ...]
    """Those in the plots, for the legend."""
    highlights: tuple[Trial, ...]
    parts: tuple[Part, ...]
    objects: Objects | None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The calibration section."""

    coverage: Coverage
    elapsed_s: float
    curve: Curve | None
    classes: tuple[tuple[str, int], ...]
    """Seen on calibration images, most first."""
    absent: tuple[str, ...]


def sections(summary: Summary, store: LocalStore) -> tuple[Section, ...]:
    """One for each variant in INT8, in the recipe's order."""
    return tuple(
        _section(variant, summary, store)
        for variant in summary.variants
        if variant.precision in precisions.CALIBRATED or variant.quantized is not None
    )


def _section(variant: Variant, summary: Summary, store: LocalStore) -> Section:
    quantized = variant.quantized
    drawn = search_plots(quantized, summary.budget.max_drop) if quantized else ()
    steps = {dot.trial.step for plot in drawn for dot in plot.dots if dot.trial}
    return Section(
        variant=variant,
        sentence=sentence(variant, summary.budget.max_drop),
        instead=instead(variant, summary),
        doubt=doubt(variant, summary),
        plots=drawn,
        steps=tuple(sorted(steps, key=_order)),
        highlights=highlights(quantized) if quantized else (),
        parts=_parts(quantized) if quantized else (),
        objects=_objects(variant, summary, store),
    )


def _order(step: str) -> int:
    return list(STEPS).index(step) if step in STEPS else len(STEPS)


# --- words ---


def sentence(variant: Variant, max_drop: float | None) -> str:
    """The verdict, joining accuracy and speed."""
    if variant.verdict not in ("shipped", "rejected"):
        return f"{variant.name} {variant.verdict}: {variant.reason}."
    accurate, first = _accuracy(variant, max_drop)
    quick, second = _speed(variant)
    ships = variant.verdict == "shipped"
    text = f"{variant.name} {'ships' if ships else 'does not ship'}: it {first}"
    if second:
        text += f"{' and' if accurate == quick else ', but'} {second}"
    other = not ships and accurate and quick  # what keeps it is neither of the two
    return f"{text}. {variant.reason}." if other else f"{text}."


def _accuracy(variant: Variant, max_drop: float | None) -> tuple[bool, str]:
    accuracy, quantized = variant.accuracy, variant.quantized
    if accuracy is None and variant.meaning is not None:
        meaning = variant.meaning
        return (
            meaning.holds,
            meaning.words if meaning.holds else f"says other things: {meaning.reason}",
        )
    if accuracy is None:
        if quantized is None or quantized.chosen.agreement is None:
            return True, "was judged by no metric"
        score = quantized.chosen.agreement
        return (
            quantized.holds,
            f"agrees with the float engine to {score:.3f} of 1 (there is no metric)",
        )
    values = f"{accuracy.metric} {accuracy.value:.4f}, source model {accuracy.reference:.4f}"
    if accuracy.drop < 0.00005:
        return True, f"loses nothing ({values})"
    allowed = "" if max_drop is None else f"; allowed {max_drop:.4f}"
    inside = max_drop is None or accuracy.drop <= max_drop + ROUNDING
    return inside, f"loses {accuracy.drop:.4f} ({values}{allowed})"


def _speed(variant: Variant) -> tuple[bool, str]:
    compared, engine = variant.precision_comparison, variant.engine
    if compared is None:
        return True, ""
    low, high = compared.ci95
    if low > 1:
        claim = f"is {compared.speedup:.2f}x as fast as {compared.variant}"
    elif high < 1:
        claim = f"takes {1 / compared.speedup:.2f}x as long as {compared.variant}"
        low, high = 1 / high, 1 / low
    else:
        claim = f"is not surely faster than {compared.variant}: {compared.speedup:.2f}x as fast"
    claim += f" (95 % interval {low:.2f}\u2013{high:.2f})"
    if engine is not None:
        sizes = engine.size_bytes / 2**20, compared.size_bytes / 2**20
        claim += ", in {:.2f} MiB instead of {:.2f}".format(*sizes)
    # What ships has gained what the recipe wants, be it size.
    return variant.verdict == "shipped" or compared.ci95[0] > 1, claim


def instead(variant: Variant, summary: Summary) -> str:
    """What goes to this machine in its place; empty when it is the one."""
    best = next((v.name for v in summary.variants if v.recommended), "")
    if variant.recommended:
        return "It is the one to ship on this machine."
    if variant.verdict == "shipped":
        return f"{best} is the one to ship on this machine{_behind(variant, summary)}." * bool(best)
    shipped = [other.name for other in summary.shipped]
    if variant.precision_comparison is not None and variant.precision_comparison.variant in shipped:
        advice = f"{variant.precision_comparison.variant} ships instead"
        also = best and best != variant.precision_comparison.variant
        return f"{advice}; {best} is the one to ship on this machine." if also else f"{advice}."
    if best or shipped:
        return f"{best or shipped[0]} ships instead."
    return "Nothing ships instead."


def doubt(variant: Variant, summary: Summary) -> str:
    """Whether separate benchmarks contradict the timing in turn; empty when they agree."""
    compared = variant.precision_comparison
    other = next((v for v in summary.variants if compared and v.name == compared.variant), None)
    mine = main_row(variant, summary.size)
    theirs = main_row(other, summary.size) if other else None
    if compared is None or mine is None or theirs is None:
        return ""
    low, high = compared.ci95
    if (low > 1) == (mine.p50_ms < theirs.p50_ms) or low <= 1 <= high:
        return ""
    return (
        f"In the benchmark, each timed by itself, it is the other way round: {mine.p50_ms:.2f} ms "
        f"against {theirs.p50_ms:.2f} ms. Blocks in turn see the same machine, separate runs do "
        "not, so the blocks decide."
    )


def _behind(variant: Variant, summary: Summary) -> str:
    contenders = summary.comparison.contenders if summary.comparison else ()
    ratio = next((c.ratio for c in contenders if c.variant == variant.name), None)
    return "" if ratio is None else f": {variant.name} takes {ratio:.2f}x as long as the fastest"


# --- the search ---


def highlights(quantized: Quantized) -> tuple[Trial, ...]:
    """The chosen trial and the best of each other step, in the order they were tried."""
    best: dict[str, Trial] = {}
    for trial in quantized.trials:
        held = best.setdefault(trial.step, trial)
        if trial == quantized.chosen or (
            held != quantized.chosen and _better(trial) > _better(held)
        ):
            best[trial.step] = trial
    return tuple(sorted(best.values(), key=quantized.trials.index))


def _better(trial: Trial) -> tuple[bool, bool, float, float]:
    """Inside the budget the fastest, else the most accurate of those that were scored."""
    fast = -math.inf if trial.ratio is None else -trial.ratio
    if trial.holds:
        return True, True, fast, 0.0
    value = trial.metric if trial.metric is not None else trial.agreement
    return False, value is not None, value or 0.0, fast


def _parts(quantized: Quantized) -> tuple[Part, ...]:
    most = max((part.gain for part in quantized.sensitivity), default=0.0)
    return tuple(
        Part(
            found=part,
            share=max(0.0, part.gain / most) if most > 0 else 0.0,
            left=part.part in quantized.float_layers,
        )
        for part in sorted(quantized.sensitivity, key=lambda part: -part.gain)
    )


# --- what changed, and what calibration saw ---


def _objects(variant: Variant, summary: Summary, store: LocalStore) -> Objects | None:
    difference = variant.difference
    if difference is None:
        return None
    known = gallery.album(summary, store)
    names = known.names if known else {}
    counts = {
        key: (difference.lost_by_class.get(key, 0), difference.gained_by_class.get(key, 0))
        for key in {**difference.lost_by_class, **difference.gained_by_class}
    }
    ranked = sorted(counts.items(), key=lambda item: (-sum(item[1]), -item[1][0], item[0]))
    pictures, missing = gallery.worst(summary, store, known, variant, PHOTOS)
    most = max([1, *(n for pair in counts.values() for n in pair), *_most(difference.by_size)])
    return Objects(
        found=difference,
        classes=tuple((names.get(key, f"class {key}"), *pair) for key, pair in ranked),
        most=most,
        pictures=pictures,
        missing=missing,
        legend=known.words.legend if known else "",
    )


def _most(sizes: Mapping[str, tuple[int, int, int]]) -> list[int]:
    return [number for counts in sizes.values() for number in counts[:2]]


def samples(calibration: Calibration | None) -> Samples | None:
    """What the calibration samples cover."""
    if calibration is None:
        return None
    coverage = calibration.coverage
    seen = [(name, number) for name, number in coverage.classes.items() if number]
    return Samples(
        coverage=coverage,
        elapsed_s=calibration.elapsed_s,
        curve=curve(coverage),
        classes=tuple(sorted(seen, key=lambda item: (-item[1], item[0]))),
        absent=tuple(name for name, number in coverage.classes.items() if not number),
    )
