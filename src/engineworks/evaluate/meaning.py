"""Whether an engine's answers mean what the source model's do, where no labels can tell.

The source's own answers stand for the truth. Which reader fits which output is told by the recipe,
or recognised from what the source answered; what nothing can read is left to the numbers. Knows no
image files and no vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from engineworks import precisions
from engineworks.evaluate import parity, readings, recognize, tasks
from engineworks.evaluate.parity import Limit
from engineworks.evaluate.readings import DetectionReader, Reader
from engineworks.facts.engine import Meaning, Reading
from engineworks.runtime.heads import Decoder
from engineworks.runtime.heads.detection import LAYOUTS
from engineworks.specs import Size, TaskSpec

Array = np.ndarray[Any, Any]
Infer = Callable[[Array], Mapping[str, Array]]
Answers = list[tuple[Any, ...]]

#: What a verdict says where no reader fits, or the source shows too little.
NOT_JUDGED = "numbers agree; what they mean was not judged"


class Judge:
    """Reads engines' outputs on fixed inputs, and compares them with the source model's.

    Args:
        source: (1, channels, height, width) float32 -> the source model's outputs by name.
        rows: Inputs, each (channels, height, width) float32; gone through once for every engine.
        task: What the recipe says of the outputs.
        size: Input (height, width).
        decode: The recipe's own decoder, if it has one.
    """

    def __init__(
        self,
        source: Infer,
        rows: Callable[[], Iterable[Array]],
        task: TaskSpec,
        size: Size,
        decode: Decoder | None = None,
    ) -> None:
        self._rows = rows
        first = [source(row[None]) for row in islice(rows(), recognize.LOOKED)]
        seen = {name: np.concatenate([outputs[name] for outputs in first]) for name in first[0]}
        self.readers = _readers(seen, task, size, decode)
        read = {name for reader in self.readers for name in reader.outputs}
        self.unread = tuple(name for name in seen if name not in read)
        self.want = self.answers(source)

    def answers(self, infer: Infer) -> Answers:
        """What an engine's outputs say, image by image."""
        answers: Answers = []
        if not self.readers:
            return answers
        for row in self._rows():
            outputs = {name: value[0] for name, value in infer(row[None]).items()}
            answers.append(tuple(reader.read(outputs) for reader in self.readers))
        return answers

    def compare(self, got: Answers) -> Meaning:
        """Hold an engine's answers against the source's."""
        all_readings = [
            _reading(reader, [row[n] for row in self.want], [row[n] for row in got])
            for n, reader in enumerate(self.readers)
        ]
        judged = [reading for reading in all_readings if reading.judged or not reading.holds]
        broken = [
            f"{reading.kind}: {reading.reason}" for reading in all_readings if not reading.holds
        ]
        whole = bool(judged) and len(judged) == len(all_readings) and not self.unread
        return Meaning(
            judged=bool(judged),
            whole=whole,
            holds=not broken,
            reason="; ".join(broken),
            words=_words(judged, all_readings, self.unread, len(self.want)),
            agreement=min((reading.agreement for reading in judged), default=None),
            images=len(self.want),
            readings=tuple(all_readings),
            unread=self.unread,
        )


def limits(precision: str, meaning: Meaning | None) -> tuple[Limit, dict[str, Limit]]:
    """What numbers must hold where no metric judges, and what those of outputs that were read.

    Args:
        precision: Of the engine.
        meaning: What its answers mean; None where that was not asked.

    Returns:
        (limit, limits by output where they differ: class numbers are no magnitudes).
    """
    if meaning is None:
        return parity.limit(precision, judged=not precisions.get(precision).coarse), {}
    looser = replace(parity.limit(precision, judged=True), judge="what the answers mean")
    others = {
        name: replace(looser, min_snr_db=None) if reading.kind == "numbers" else looser
        for reading in meaning.readings
        if reading.judged
        for name in reading.outputs
    }
    return looser if meaning.whole else parity.limit(precision, judged=False), others


def _readers(
    seen: Mapping[str, Array], task: TaskSpec, size: Size, decode: Decoder | None
) -> tuple[Reader, ...]:
    """By the recipe's task; without one by what is recognised; the other outputs one by one."""
    given = tasks.load(task.kind).readers(seen, task, size, decode) if task.judged else ()
    layout = None if task.judged else recognize.recognize(seen, size)
    if layout is not None:
        given = (DetectionReader(layout=layout, decode=LAYOUTS[layout.name].decode, size=size),)
    read = {name for reader in given for name in reader.outputs}
    others = [readings.of_output(name, seen[name]) for name in seen if name not in read]
    return (*given, *(reader for reader in others if reader is not None))


def _reading(reader: Reader, want: Sequence[Any], got: Sequence[Any]) -> Reading:
    judged = reader.compare(want, got)
    return Reading(
        kind=reader.kind,
        outputs=reader.outputs,
        sure=reader.sure,
        why=reader.why,
        judged=judged.judged,
        holds=not judged.reasons,
        reason="; ".join(judged.reasons),
        figures=judged.figures,
        agreement=judged.agreement,
    )


def _words(
    judged: Sequence[Reading], all_readings: Sequence[Reading], unread: tuple[str, ...], images: int
) -> str:
    """What was judged and how well it agrees, in words."""
    if not judged:
        return NOT_JUDGED
    said = ", ".join(_agreement(reading) for reading in judged)
    doubt = "" if all(r.sure != "likely" for r in judged) else ", read as it most likely is"
    rest = [name for r in all_readings if r not in judged for name in r.outputs] + list(unread)
    left = f"; what {', '.join(rest)} means was not judged" if rest else ""
    return f"means what the source means on {images} images{doubt} ({said}){left}"


def _agreement(reading: Reading) -> str:
    figures = reading.figures
    if reading.kind == "detections":
        lost, gained, moved = (int(figures[name]) for name in ("lost", "gained", "moved"))
        return (
            f"of {int(figures['objects'])} detections {lost} lost, {gained} gained, "
            f"{moved} moved, AP against the source {figures['AP']:.3f}"
        )
    if reading.kind == "classes":
        return f"best class the same on {100 * figures['top1_agreement']:.0f} %"
    if reading.kind == "numbers":
        return f"{reading.outputs[0]} the same on {100 * figures['agreement']:.0f} %"
    return f"{reading.outputs[0]} overlaps by {figures['IoU']:.2f}"
