"""Whether boxes were drawn on pictures as they are stored, by what the source model finds.

Square pictures do not tell by their size which way up they were annotated. Pure.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from engineworks.evaluate.annotations import turned
from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.evaluate.chance import beats
from engineworks.evaluate.precision import average_precision, sides
from engineworks.facts.data import Frames, PinnedData

#: With fewer photos nothing has 95 % confidence, and only twice the score counts.
FEW = 5


def compare(results: list[Any], labels: CocoLabels, data: PinnedData) -> Frames | None:
    """Score the answers on turned pictures against boxes taken in both ways.

    Args:
        results: COCO results on upright pictures.
        labels: Boxes, taken as drawn on upright pictures.
        data: Which pictures are turned; None comes back when none is, or the recipe says how boxes
            were drawn.
    """
    numbers = {
        picture.file: picture.orientation
        for picture in data.turned
        # An oblong picture that is turned by a quarter has the size of its annotation one way only.
        if picture.orientation < 5 or labels.size[picture.file][0] == labels.size[picture.file][1]
    }
    if not numbers or data.spec.frame is not None:
        return None
    ids = [labels.image_id[name] for name in numbers]
    # Seen from the stored picture, the sizes that were read belong to the upright one.
    stored = dataclasses.replace(
        labels,
        size={
            name: size[::-1] if numbers.get(name, 1) >= 5 else size
            for name, size in labels.size.items()
        },
    )
    answers, as_read = sides(results, labels, ids)
    _, other = sides(results, turned.upright(stored, numbers), ids)
    upright = average_precision(answers, as_read)
    unturned = average_precision(answers, other)
    pairs = [list(zip(answers, truth, strict=True)) for truth in (other, as_read)]
    clear = beats(*pairs) if len(answers) >= FEW else unturned > 2 * upright
    return Frames(
        photos=len(answers), upright=upright, unturned=unturned,
        doubtful=unturned > upright and clear,
    )  # fmt: skip
