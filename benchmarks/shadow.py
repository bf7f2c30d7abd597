"""`make bench-shadow`: is a shadow run misled seldom, and does it find what is worse?

Real engines answer real photos once (`_shadow_scores.py`); their frame scores are then drawn in
random orders, RUNS times (200), and looked at after every frame. Two engines of equal AP must not
be called better or worse in more than 5 % of the runs, which end as `engineworks shadow` does; a
candidate that has lost a point of AP must be found within N frames in at least 80 % of 50 runs.
Both against labels and against the fp32 source. Where it is drawn for every frame which of the two
has the noise, they are equal by every score, and the runs go on to the last frame.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _shadow_delay, _shadow_scores
from benchmarks._bars import Bar, finish
from benchmarks._shadow_scores import BOXES, Judged, Pool
from engineworks.evaluate.sequential import SequentialTest

Array = np.ndarray[Any, Any]

RUNS = int(os.environ.get("RUNS") or 200)

#: Frames after which a run that was not misled ends.
FRAMES = 3000

#: Frames within which a loss of a point is to be found, against labels and the fp32 source.
WITHIN = {"labels": 1000, "reference": 1000}
FINDS, FOUND = 50, 0.8

#: Blocks of 2 s of a stream, and scenes of so many of them in the mean.
BLOCKS, SCENES = 1000, (0.5, 1.0, 2.0, 5.0)

MISLED = 0.05
MAX_DROP = 0.01


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one shadow run said, and after how many observations."""

    decision: str
    observations: int


def run(differences: Array, max_drop: float | None = None) -> Run:
    """Look after every difference until a decision falls."""
    test = SequentialTest(max_drop)
    for difference in differences.tolist():
        test.add(difference)
        if test.decision:
            break
    return Run(decision=test.decision, observations=test.count)


def drawn(rng: Any, values: Array, count: int) -> Array:
    """Frames in a random order, as often as needed."""
    return np.asarray(values[rng.integers(len(values), size=count)])


def misled(differences: Array, max_drop: float | None, *, both_ways: bool = False) -> float:
    """Share of runs that call one of two equal engines better or worse."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(RUNS):
        seen = drawn(rng, differences, FRAMES)
        if both_ways:  # who has the noise is drawn anew for every frame
            seen = seen * rng.choice([-1.0, 1.0], FRAMES)
        wrong += run(seen, max_drop).decision in ("better", "worse")
    return wrong / RUNS


def misled_by_scenes(differences: Array, blocks: float) -> float:
    """The same on a stream whose scenes last so many blocks in the mean, each good or bad."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(RUNS):
        lengths = 1 + rng.geometric(min(1.0, 1 / (10 * blocks)), BLOCKS * 10)  # tenths of blocks
        scene = drawn(rng, differences, len(lengths)) * rng.choice([-1.0, 1.0], len(lengths))
        tenths = np.repeat(scene, lengths)[: BLOCKS * 10]
        wrong += run(tenths.reshape(BLOCKS, 10).mean(axis=1)).decision != ""
    return wrong / RUNS


def found(differences: Array, within: int) -> tuple[float, int]:
    """Share of runs that find the worse one within so many frames; the frames of 80 % of them."""
    rng = np.random.default_rng(3)
    runs = [run(drawn(rng, differences, 4 * within)) for _ in range(FINDS)]
    needed = sorted(r.observations if r.decision == "worse" else 4 * within for r in runs)
    return sum(n <= within for n in needed) / FINDS, needed[int(FOUND * FINDS) - 1]


def main() -> int:
    """Measure, draw, print bars. 0 only if all hold."""
    with tempfile.TemporaryDirectory() as work:
        bars, details = _measured(Pool(Path(os.environ.get("SHADOW_HOME") or work)))
    return finish("shadow", bars, details)


def _measured(pool: Pool) -> tuple[list[Bar], dict[str, Any]]:
    source = pool.answers(pool.base)
    half, other = pool.answers(pool.rounded()), pool.answers(pool.base, "openvino")
    truths = {"labels": pool.labels, "reference": [BOXES.as_truth(rows) for rows in source]}
    bars: list[Bar] = []
    details: dict[str, Any] = {"frames": len(pool.frames), "runs": RUNS, "looks": FRAMES}
    for judge, truth in truths.items():
        # Against the source itself, the champion is another engine than the source.
        champion = _shadow_scores.judged(source if judge == "labels" else half, truth)
        equal = {
            "another runtime": _shadow_scores.judged(other, truth),
            "fp16 weights" if judge == "labels" else "fp32 weights": _shadow_scores.judged(
                half if judge == "labels" else source, truth
            ),
        }
        noise, equal["a twin in AP"] = _shadow_scores.twin(pool, truth, champion)
        how, lost = _shadow_scores.worse(pool, truth, champion)
        facts = {
            "champion AP": champion.ap,
            "twin": noise,
            "worse AP": lost.ap,
            "worse": how,
            "worse by the frame score": float((lost.scores - champion.scores).mean()),
        }
        more, told = _judged_by(judge, champion, equal, lost)
        bars += more
        details[judge] = {**facts, **told}
    delay = _shadow_delay.measure(pool.engine(), pool.frames[:40])
    details["beside a live source"] = delay
    # How much slower the champion was is told, no bar: it is a fact of the machine and its load.
    bars.append(Bar("share of the CPU", delay["share used"], "of cores", _shadow_delay.SHARE))
    return bars, details


def _judged_by(
    judge: str, champion: Judged, equal: dict[str, Judged], lost: Judged
) -> tuple[list[Bar], dict[str, Any]]:
    bars: list[Bar] = []
    told: dict[str, Any] = {}
    for name, engine in equal.items():
        difference = engine.scores - champion.scores
        told[name] = {
            "AP": engine.ap,
            "frame score": float(difference.mean()),
            "frames that differ": float((difference != 0).mean()),
        }
        told[name]["called better or worse where nothing else is asked"] = misled(difference, None)
        share = misled(difference, MAX_DROP)
        bars.append(Bar(f"misled by {name} against {judge}", share, "of runs", MISLED))
    noise = lost.scores - champion.scores
    share = misled(noise, None, both_ways=True)
    bars.append(Bar(f"misled by noise both ways against {judge}", share, "of runs", MISLED))
    for blocks in SCENES:
        share = misled_by_scenes(noise, blocks)
        name = f"misled by scenes of {blocks:g} blocks against {judge}"
        bars.append(Bar(name, share, "of runs", MISLED))
    share, frames = found(noise, WITHIN[judge])
    name = f"a point lost found within {WITHIN[judge]} frames against {judge}"
    bars.append(Bar(name, share, "of runs", FOUND, at_least=True))
    rng = np.random.default_rng(4)
    same = equal["another runtime"].scores - champion.scores
    equals = [run(drawn(rng, same, FRAMES), MAX_DROP) for _ in range(FINDS)]
    told["frames that find a lost point in 80 % of runs"] = frames
    told["frames until another runtime is not worse than 0.01, median"] = int(
        np.median([r.observations for r in equals])
    )
    return bars, told


if __name__ == "__main__":
    raise SystemExit(main())
