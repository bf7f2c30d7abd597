"""Is the mean of a stream of differences above or below a number? Looked at as often as one likes.

Every limit is a bet: whoever says that the mean lies on one side of it offers a game that is fair
at best, and capital that grows 40-fold all the same speaks against the limit. The chance that this
ever happens to a true limit is 1 in 40, however often one looks and whenever one ends (Ville 1939;
I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", J. R.
Statist. Soc. B 86 (2024), arXiv:2010.09686). Capital is spread over a few fixed stakes (their
section 4.3), so nothing is tuned to the data. The interval holds all limits that stand.

What is assumed: every difference lies in -1..1, and none is known from those before it beyond the
mean that all share. Frames of a video break that, blocks of them less; `correlation` measures what
is left of it, and no decision falls while that is high. Pure: knows no engine and no picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engineworks.errors import DataError

Array = np.ndarray[Any, Any]

#: `not worse`: than by max_drop. Empty: none has fallen.
Decision = Literal["better", "worse", "not worse", ""]

#: Chance of the interval ever to miss the mean; half of it on each side.
ALPHA = 0.05

#: Shares of the largest stake that is never ruinous; the capital is split among them evenly.
STAKES = np.array([0.95, *(2.0**-power for power in range(1, 10))])

#: Likeness of neighbouring differences from which they do not count as one each.
ALIKE = 0.2

#: Observations beyond which nobody is sent to wait for more.
MOST = 10_000_000

#: Distinct differences from which the interval takes them in steps, so that its time is bounded.
_DISTINCT = 5_000

_WANTED = math.log(2 / ALPHA)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where the mean lies, at every time together with 95 % confidence."""

    low: float
    high: float


class SequentialTest:
    """Differences candidate - champion, one by one, until a decision falls.

    Args:
        max_drop: A loss below it is none: `not worse` is a decision; None: it is not asked for.

    Raises:
        DataError: `max_drop` is no number above 0 and below 1.
    """

    def __init__(self, max_drop: float | None = None) -> None:
        if max_drop is not None and not 0 < max_drop < 1:
            raise DataError(
                f"a largest loss of {max_drop:g} is none: it lies above 0 and below 1",
                hint="give 0.01 for a hundredth of the score",
            )
        self._seen: list[float] = []
        self._games: dict[Decision, _Game] = {"better": _Game(0.0), "worse": _Game(0.0, sign=-1)}
        if max_drop is not None:
            self._games["not worse"] = _Game(-max_drop)
        self._known = 0, Interval(low=-1.0, high=1.0)
        self._total = self._squares = self._products = 0.0

    def add(self, difference: float) -> None:
        """Take the next difference.

        Raises:
            ValueError: It is no number in -1..1.
        """
        if not -1 <= difference <= 1:
            raise ValueError(f"a difference of scores in 0..1 lies in -1..1, not {difference!r}")
        if self._seen:
            self._products += self._seen[-1] * difference
        self._seen.append(float(difference))
        self._total += difference
        self._squares += difference * difference
        for game in self._games.values():
            game.play(difference)

    @property
    def count(self) -> int:
        """Differences taken so far."""
        return len(self._seen)

    @property
    def mean(self) -> float:
        """Of them; 0 before the first."""
        return self._total / self.count if self._seen else 0.0

    @property
    def decision(self) -> Decision:
        """What the capital says now; nothing while neighbours are alike."""
        for word, game in self._games.items():
            if game.log_capital >= _WANTED:
                return "" if self.alike else word
        return ""

    @property
    def alike(self) -> bool:
        """Whether neighbours are too much alike to count as one each."""
        return self.correlation > max(ALIKE, 2 / math.sqrt(max(1, self.count)))

    @property
    def correlation(self) -> float:
        """Lag-1 autocorrelation of the differences, -1..1; 0 where they do not vary."""
        n, mean = self.count, self.mean
        spread = self._squares - n * mean**2
        if n < 2 or spread <= 1e-12 * n:
            return 0.0
        ends = self._seen[0] + self._seen[-1]
        shared = self._products - mean * (2 * self._total - ends) + (n - 1) * mean**2
        return float(np.clip(shared / spread, -1, 1))

    def interval(self) -> Interval:
        """All means that the differences so far let stand."""
        known, interval = self._known
        if known != self.count:
            seen = np.array(self._seen)
            interval = Interval(low=_lowest(seen), high=-_lowest(-seen))
            self._known = self.count, interval
        return interval

    def needed(self) -> int:
        """About how many further differences would bring a decision if they go on like this.

        0: one has fallen, or no number would.
        """
        if not self._seen or self.decision:
            return 0
        seen = np.array(self._seen)
        waits = [game.wait(seen) for game in self._games.values()]
        least = min(waits)
        return 0 if least > MOST else max(1, math.ceil(least))


class _Game:
    """The bet against "the mean is at most `limit`"; with sign -1 against "at least -limit"."""

    def __init__(self, limit: float, sign: int = 1) -> None:
        self._limit, self._sign = limit, sign
        self._logs = np.zeros(len(STAKES))
        self.log_capital = 0.0

    def play(self, value: float) -> None:
        self._logs += _gains(self._sign * value, self._limit)
        self.log_capital = _pooled(self._logs)

    def wait(self, seen: Array) -> float:
        """Rounds until the capital is there at the rate so far; inf where it does not grow."""
        rate = _gains(self._sign * seen[:, None], self._limit).mean(axis=0)
        short = _WANTED + math.log(len(STAKES)) - self._logs
        rounds = [max(0.0, s) / r for s, r in zip(short, rate, strict=True) if r > 0]
        return min(rounds, default=math.inf)


def _gains(value: Any, limit: float) -> Array:
    """Log of what a stake becomes: 1 + stake (value - limit) / (1 + limit), one for each stake."""
    return np.asarray(np.log1p(STAKES * (value - limit) / (1 + limit)))


def _pooled(logs: Array) -> float:
    """Log of the mean of capitals that are given by their logs."""
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


def _lowest(seen: Array) -> float:
    """The largest limit of -1..1 that the game has refuted; -1: none. Capital falls with it."""
    if not len(seen) or seen.mean() <= -1:
        return -1.0
    values, counts = np.unique(seen, return_counts=True)
    if len(values) > _DISTINCT:  # rounded down, which can only widen the interval
        seen = np.maximum(-1.0, np.floor(seen * _DISTINCT / 2) / (_DISTINCT / 2))
        values, counts = np.unique(seen, return_counts=True)
    low, high = -1.0, float(seen.mean())
    for _ in range(40):
        middle = (low + high) / 2
        logs = (counts[:, None] * _gains(values[:, None], middle)).sum(axis=0)
        low, high = (middle, high) if _pooled(logs) >= _WANTED else (low, middle)
    return low
