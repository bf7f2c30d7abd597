"""Is a candidate worse than the champion? Both answers to the same photos, held side by side.

The figure is the lower end of the one-sided 95 % interval of candidate - champion. Pure: answers
and labels in, figures out. Knows no registry and no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.evaluate.photo_scores import PhotoScores

Array = np.ndarray[Any, Any]

#: One-sided 95 % points: of the normal distribution, and of Student's t with GROUPS - 1 degrees.
NORMAL, STUDENT = 1.645, 1.729

#: Parts that a set of photos is cut into, each left out once.
GROUPS = 20

#: Photos beyond which nobody is sent to label more.
MOST = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What the same photos say of two versions."""

    metric: str
    photos: int
    """Photos that both have answered and that are labelled."""
    candidate: float
    champion: float
    bound: float
    """Lower 95 % bound of candidate - champion; -inf where there are too few photos for one."""
    needed: int
    """Photos that would tell at this difference; 0: these do, or no number would."""

    @property
    def difference(self) -> float:
        """Candidate - champion: below 0 is a loss."""
        return self.candidate - self.champion


def compare(candidate: PhotoScores, champion: PhotoScores, max_drop: float) -> Paired:
    """Hold two versions' answers to the same photos side by side.

    Where every photo is right or wrong by itself, the interval is that of Agresti and Min (half a
    photo added to each of the four kinds of pairs), which stays honest where few or no photos
    differ. AP and mean IoU are no means over photos: theirs is a grouped jackknife's, the
    difference computed with each of 20 groups of photos left out.

    Args:
        candidate: What may be promoted.
        champion: What is live, on the same photos in the same order.
        max_drop: Largest loss that is allowed.
    """
    if candidate.right is not None and champion.right is not None:
        return _shares(candidate.metric, candidate.right, champion.right, max_drop)
    return _jackknife(candidate, champion, max_drop)


def _shares(metric: str, right: Array, before: Array, max_drop: float) -> Paired:
    won, lost, n = int((right & ~before).sum()), int((before & ~right).sum()), len(right)
    bound = _agresti_min(won, lost, n) if n else -math.inf
    needed = 0
    if n == 0:
        needed = GROUPS
    elif bound <= -max_drop and (won - lost) / n > -max_drop:
        needed = _photos(lambda m: _agresti_min(won * m / n, lost * m / n, m) > -max_drop, n)
    return Paired(
        metric=metric, photos=n, bound=bound, needed=needed,
        candidate=float(right.mean()) if n else 0.0, champion=float(before.mean()) if n else 0.0,
    )  # fmt: skip


def _agresti_min(won: float, lost: float, n: float) -> float:
    more = n + 2
    difference = (won - lost) / more
    error = math.sqrt(max(0.0, won + lost + 1 - (won - lost) ** 2 / more)) / more
    return difference - NORMAL * error


def _photos(enough: Callable[[int], bool], n: int) -> int:
    """The least number of photos that is enough, if any."""
    high = n
    while not enough(high):
        high *= 2
        if high > MOST:
            return 0
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _jackknife(candidate: PhotoScores, champion: PhotoScores, max_drop: float) -> Paired:
    n = candidate.photos
    places = list(range(n))
    values = [side.on(places) if n else 0.0 for side in (candidate, champion)]
    difference = values[0] - values[1]
    bound, needed = -math.inf, 0
    if n < GROUPS:
        needed = GROUPS
    else:
        left = []
        for group in range(GROUPS):
            kept = [place for place in places if place % GROUPS != group]
            left.append(candidate.on(kept) - champion.on(kept))
        error = float(np.sqrt((GROUPS - 1) * np.var(left)))
        bound = difference - STUDENT * error
        if bound <= -max_drop < difference:
            needed = math.ceil(n * (STUDENT * error / (difference + max_drop)) ** 2) + 1
            needed = 0 if needed > MOST else max(needed, n + 1)
    return Paired(
        metric=candidate.metric, photos=n, candidate=values[0], champion=values[1], bound=bound,
        needed=needed,
    )  # fmt: skip
