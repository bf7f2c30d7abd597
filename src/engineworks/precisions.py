"""The precisions: what each stores and computes in, and how far its answers may be off.

The one table of them; nothing else tests for a precision's name but the targets, which build them.
Knows no engine and no array.
"""

from __future__ import annotations

from dataclasses import dataclass

from engineworks.errors import RecipeError


@dataclass(frozen=True)
class Limit:
    """What agreement with the source model means; a rule that is None is not applied."""

    max_relative: float | None = None
    """Largest difference / max(1, largest reference value)."""
    min_snr_db: float | None = None
    """Signal-to-noise ratio of a whole output."""
    max_hush: float = 1e-3
    """Largest absolute difference in an output that is near silent, in place of a ratio."""
    min_group_db: float | None = None
    """The same of every group of channels, without its mean (`evaluate/groups.py`): where nothing
    else judges what a quieter group says beside a louder one."""
    identical: float = 1e-4
    """Largest relative difference between answers to identical rows of one batch: another tail
    of a vector loop. In integers a difference in the last float bit may become one level."""
    judge: str = "the task metric"
    """Who judges where no rule is applied."""

    def __str__(self) -> str:
        rules = []
        if self.max_relative is not None:
            rules.append(f"relative difference <= {self.max_relative:g}")
        if self.min_snr_db is not None:
            rules.append(f"SNR >= {self.min_snr_db:g} dB")
        if self.min_group_db is not None:
            rules.append(f"{self.min_group_db:g} dB in every group of channels")
        return ", ".join(rules) or f"no limit of its own: {self.judge} judges"


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One row of the table."""

    name: str
    stored_bits: int
    """Bits of a stored weight."""
    computed_bits: int
    """Bits of the values that layers multiply."""
    searched: bool = False
    """Whether its graph is searched for: which layers bear it."""
    judged: Limit
    """What numbers must hold where a task metric, or what answers mean, judges too."""
    alone: Limit
    """The same where nothing else judges."""

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded to fewer bits than the source model has."""
        return self.stored_bits == self.computed_bits == 32

    @property
    def coarse(self) -> bool:
        """Whether weights or values are so short that numbers alone say too little."""
        return min(self.stored_bits, self.computed_bits) <= 8

    @property
    def calibrated(self) -> bool:
        """Whether the values between layers need ranges, from images that show them."""
        return self.computed_bits <= 8

    @property
    def weights_only(self) -> bool:
        """Whether weights are stored in fewer bits than values are computed in."""
        return self.stored_bits < self.computed_bits

    @property
    def must_gain(self) -> bool:
        """Whether it is shipped only if faster (or smaller) than the next higher precision.

        What rounds values between layers pays for conversions, which may cost more than it gains.
        """
        return self.calibrated


#: fp32 may only sum in another order. Narrower types round every weight and value; the largest of
#: a million differences then sits in some cell that no score ever picks, so the whole output is
#: judged; where neither labels nor meaning judge, every group of channels is, too. Of coarse
#: weights or values a task metric says more than any ratio
#: (docs/decisions/003-parity-by-precision.md).
_TABLE = (
    Precision(
        name="fp32",
        stored_bits=32,
        computed_bits=32,
        judged=Limit(max_relative=1e-3),
        alone=Limit(max_relative=1e-3),
    ),
    Precision(
        name="fp16",
        stored_bits=16,
        computed_bits=16,
        judged=Limit(min_snr_db=30),
        alone=Limit(min_snr_db=30, min_group_db=20),
    ),
    Precision(
        name="bf16",
        stored_bits=16,
        computed_bits=16,
        judged=Limit(min_snr_db=20),
        alone=Limit(min_snr_db=20, min_group_db=10),
    ),
    Precision(
        name="w8a16",
        stored_bits=8,
        computed_bits=16,
        searched=True,
        judged=Limit(),
        alone=Limit(min_snr_db=20, min_group_db=20),
    ),
    Precision(
        name="int8",
        stored_bits=8,
        computed_bits=8,
        searched=True,
        judged=Limit(identical=0.02),
        alone=Limit(min_snr_db=20, min_group_db=20, identical=0.02, max_hush=1e-2),
    ),
)

#: By name, from high to low.
PRECISIONS = {precision.name: precision for precision in _TABLE}

#: Names of those that are so, for who reads names that may be of another version.
SEARCHED, CALIBRATED, COARSE = (
    tuple(row.name for row in _TABLE if getattr(row, what))
    for what in ("searched", "calibrated", "coarse")
)


def get(name: str) -> Precision:
    """A precision by its name.

    Raises:
        RecipeError: There is none of this name.
    """
    if name not in PRECISIONS:
        raise RecipeError(
            f"there is no precision {name!r}", hint=f"the precisions are: {', '.join(PRECISIONS)}"
        )
    return PRECISIONS[name]


def by_width() -> dict[int, Precision]:
    """The first precision that stores and computes in each number of bits, widest first."""
    first: dict[int, Precision] = {}
    for precision in (row for row in _TABLE if not row.weights_only):
        first.setdefault(precision.stored_bits, precision)
    return first
