"""Whether a score is better than chance, with 95 % confidence.

A score is held against the same answers on the labels of other photos, and against one constant
answer. Pure: answers and labels in, evidence out. Knows no model and no picture.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.evaluate.precision import Side, average_precision, sides
from engineworks.facts.data import Chance

Array = np.ndarray[Any, Any]

#: Fewer labelled objects show nothing.
LEAST = 10

#: So many exchanges beside the real order: to beat them all by chance has probability 1/20.
EXCHANGES = 19

#: Photos whose labels are tried as a constant answer.
CONSTANTS = 8


#: Photos from which a binomial is a normal distribution, and where 5 % of that begin.
MANY = 500
ONE_SIDED = 1.645

Pair = tuple[Side, Side]


def of_detection(
    results: Sequence[dict[str, Any]],
    labels: CocoLabels,
    ids: list[int],
    sigmas: Sequence[float] | None = None,
) -> Chance:
    """Hold the AP of found objects against chance.

    Args:
        results: COCO results on these images.
        labels: Their boxes; crowds are left aside.
        ids: The images that were run.
        sigmas: Spread of each point, where objects overlap by their points.
    """
    answers, truths = sides(results, labels, ids, sigmas)
    return judged(
        Photos(answers, truths), Photos(truths, truths), sum(len(t.score) for t in truths), "AP"
    )


class Photos:
    """Answers of some photos, to be scored against labels in any order of the photos."""

    def __init__(self, answers: Sequence[Side], truths: Sequence[Side]) -> None:
        self.answers = answers
        self.truths = truths

    def __len__(self) -> int:
        return len(self.truths)

    def value(self, order: Sequence[int] | None = None) -> float:
        """AP where photo i is held against the labels of photo `order[i]`."""
        places = range(len(self)) if order is None else order
        return average_precision(self.answers, [self.truths[place] for place in places])

    def constant(self) -> tuple[float, list[Side]]:
        """The best of some constant answers: the labels of one photo, given to all others."""
        count = min(CONSTANTS, len(self))
        best: tuple[float, int] = (0.0, 0)
        for place in np.linspace(0, len(self) - 1, count).round().astype(int):
            others = [truth for i, truth in enumerate(self.truths) if i != place]
            best = max(best, (average_precision([self.truths[place]] * len(others), others), place))
        return best[0], [self.truths[best[1]]] * len(self)

    def beats(self, other: Sequence[Side]) -> bool:
        """Whether these answers are better than others, with 95 % confidence.

        A photo that is answered with its own labels is left aside: a constant was made of it.
        """
        all_three = zip(self.answers, other, self.truths, strict=True)
        kept = [(a, b, truth) for a, b, truth in all_three if b is not truth]
        return beats([(a, truth) for a, _, truth in kept], [(b, truth) for _, b, truth in kept])


def beats(pairs: Sequence[Pair], other: Sequence[Pair]) -> bool:
    """Whether the first pairs score better by more than exchanging them photo by photo explains.

    Args:
        pairs: (answers, labels) of each photo.
        other: The same photos with other answers, or other labels.
    """
    if len(pairs) < math.ceil(math.log2(EXCHANGES + 1)):
        return _precision(pairs) > _precision(other)

    def ahead(swap: Sequence[bool]) -> float:
        left = [b if s else a for a, b, s in zip(pairs, other, swap, strict=True)]
        right = [a if s else b for a, b, s in zip(pairs, other, swap, strict=True)]
        return _precision(left) - _precision(right)

    rng = np.random.default_rng(0)
    none = (False,) * len(pairs)
    swaps: set[tuple[bool, ...]] = set()
    while len(swaps) < EXCHANGES:
        swap = tuple(bool(half) for half in rng.random(len(pairs)) < 0.5)
        if swap != none:
            swaps.add(swap)
    here = ahead(none)
    return here > 0 and all(ahead(swap) < here for swap in swaps)


def _precision(pairs: Sequence[Pair]) -> float:
    return average_precision([pair[0] for pair in pairs], [pair[1] for pair in pairs])


class Classes:
    """Answered and true classes of some photos."""

    def __init__(self, answers: Array, truths: Array) -> None:
        self.answers = answers
        self.truths = truths

    def __len__(self) -> int:
        return len(self.truths)

    def value(self, order: Sequence[int] | None = None) -> float:
        """Top-1 where photo i is held against the label of photo `order[i]`."""
        truths = self.truths if order is None else self.truths[np.array(order)]
        return float((self.answers == truths).mean())

    def constant(self) -> tuple[float, Array]:
        """The most frequent class, answered always."""
        most, count = Counter(self.truths.tolist()).most_common(1)[0]
        return count / len(self), np.full(len(self), most)

    def beats(self, other: Array) -> bool:
        """Exact sign test over the photos that only one of the two has right."""
        mine, theirs = self.answers == self.truths, other == self.truths
        return mostly(int((mine & ~theirs).sum()), int((theirs & ~mine).sum()))


def mostly(won: int, lost: int) -> bool:
    """Whether more are won than chance explains, with 95 % confidence: the exact sign test."""
    both = won + lost
    if both > MANY:  # as the normal distribution has it
        return (won - 0.5 - both / 2) / math.sqrt(both / 4) >= ONE_SIDED
    tail = sum(math.comb(both, k) for k in range(won, both + 1))
    return both > 0 and tail * 20 <= 2**both


def of_classification(predictions: Sequence[Sequence[Any]], truths: Array) -> Chance:
    """Hold a classifier's top-1 against chance.

    Args:
        predictions: [file, class index, score] of each photo.
        truths: int (n,), true class indices.
    """
    answers = np.array([row[1] for row in predictions], np.int64)
    return judged(Classes(answers, truths), Classes(truths, truths), len(truths), "top1")


class Scored(Protocol):
    """Answers to some photos, which can be scored against labels in any order of the photos."""

    def __len__(self) -> int: ...

    def value(self, order: Sequence[int] | None = None) -> float:
        """The score where photo i is held against the label of photo `order[i]`."""
        ...

    def constant(self) -> tuple[float, Any]:
        """The score of the best constant answer, and that answer to all photos."""
        ...

    def beats(self, other: Any) -> bool:
        """Whether these answers are better than others, with 95 % confidence."""
        ...


def judged(mine: Scored, perfect: Scored, objects: int, metric: str) -> Chance:
    """The evidence and what it says. Only what right answers would pass can be failed.

    Args:
        mine: What was answered.
        perfect: The labels as answers.
        objects: How many things are labelled.
        metric: What `value` is.
    """
    if objects < LEAST:
        reason = f"{objects} labelled objects are too few to tell {metric} from chance"
        return Chance(word="not judged", reason=reason, objects=objects, photos=len(mine))
    value = mine.value()
    orders = _orders(len(mine))
    strange = [mine.value(order) for order in orders]
    others = max(strange, default=0.0)
    level, constant = mine.constant()

    def says(word: Any, reason: str) -> Chance:
        return Chance(
            word=word, reason=reason, objects=objects, photos=len(mine), value=value,
            others=others, constant=level,
        )  # fmt: skip

    shown = f"{metric} {value:.4f} on {len(mine)} photos with {objects} objects"
    if value <= 0:
        return says("near zero", f"{shown}: nothing is right")
    told = len(orders) == EXCHANGES and value > others
    beats = mine.beats(constant)
    against = f"the same answers on the labels of other photos reach {others:.4f}"
    always = f"one answer for all photos reaches {level:.4f}"
    if told and beats:
        return says("better", f"{shown}; {against}, {always}")
    could_tell = len(orders) == EXCHANGES and perfect.value() > max(map(perfect.value, orders))
    if not told and could_tell:
        return says("near zero", f"{shown}, no better than chance: {against}")
    if not beats and (value < level or perfect.beats(constant)):
        return says("near zero", f"{shown}, no better than a constant answer: {always}")
    return says("not judged", f"{shown}: too few photos, or too much alike, to tell from chance")


def _orders(count: int) -> list[list[int]]:
    """`EXCHANGES` different orders of so many photos, none of them the real one; fewer if few."""
    if count < 4:
        return []
    rng = np.random.default_rng(0)
    real = tuple(range(count))
    orders: dict[tuple[int, ...], list[int]] = {}
    while len(orders) < EXCHANGES:
        order = tuple(int(place) for place in rng.permutation(count))
        if order != real:
            orders[order] = list(order)
    return list(orders.values())
