"""Inputs on which a model answers: comparing engines on silence proves nothing.

A text detector answers 1e-7 everywhere on photos without text, and then the rounding of any engine
is louder than the answer. So where an output stays near zero on the first inputs, further ones are
tried: more of the user's images, then pictures made here. Knows arrays, no task and no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from engineworks.evaluate.parity import silent
from engineworks.specs import Size

Array = np.ndarray[Any, Any]

#: How many further inputs are tried.
TRIES = 32


def choose(
    infer: Callable[[Array], Mapping[str, Array]], inputs: Iterable[Array], rows: int
) -> tuple[Array, dict[str, Array], str]:
    """The first inputs, and in their last places others on which silent outputs speak.

    Args:
        infer: Batch (b, channels, height, width) -> outputs by name, a row for each image.
        inputs: (channels, height, width) each, in order of preference; read no further than needed.
        rows: How many are kept.

    Returns:
        (inputs (rows, ...), the answers to them, words on what was silent or "").
    """
    further = iter(inputs)
    kept = [row for _, row in zip(range(rows), further, strict=False)]
    answers = dict(infer(np.stack(kept)))
    quiet = silent(answers)
    if not quiet:
        return np.stack(kept), answers, ""
    loudest: dict[str, tuple[float, Array]] = {}
    for row in further:
        got = infer(row[None])
        for name in quiet:
            peak = float(np.abs(got[name]).max(initial=0.0))
            if np.isfinite(peak) and peak > loudest.get(name, (quiet[name], None))[0]:
                loudest[name] = peak, row
        if loudest.keys() == quiet.keys() and not silent(
            {n: np.array(loudest[n][0]) for n in quiet}
        ):
            break
    others = list({id(row): row for _, row in loudest.values()}.values())[: max(rows - 1, 1)]
    if others:
        kept[len(kept) - min(len(others), len(kept)) :] = others[: len(kept)]
        answers = dict(infer(np.stack(kept)))
    still = silent(answers)
    notes = [f"{name} is near silent on every input tried (at most {peak:.1e})"
             for name, peak in still.items()]  # fmt: skip
    if len(still) < len(quiet):
        heard = ", ".join(name for name in quiet if name not in still)
        notes.append(f"inputs were chosen on which {heard} answers")
    return np.stack(kept), answers, "; ".join(notes)


def pictures(size: Size) -> Iterator[Array]:
    """Pictures (height, width, 3) uint8 in which networks find something.

    Noise as cameras have it, soft blobs, edges, and writing.
    """
    import cv2

    height, width = size
    generator = np.random.default_rng(0)
    for _ in range(4):
        yield generator.integers(0, 256, (height, width, 3), np.uint8)
    for cells in (4, 12):
        small = generator.integers(0, 256, (cells, cells, 3), np.uint8)
        yield cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    grid = np.indices((height, width)).sum(0)
    yield np.repeat(np.where(grid // max(2, min(size) // 8) % 2, 235, 20)[..., None], 3, 2).astype(
        np.uint8
    )
    for paper, ink, lines in ((255, 0, 4), (20, 240, 2)):
        page = np.full((height, width, 3), paper, np.uint8)
        scale = height / lines / 40
        for line in range(lines):
            place = (width // 20, int((line + 0.75) * height / lines))
            cv2.putText(
                page, "ABC 0123 text", place, cv2.FONT_HERSHEY_SIMPLEX, scale, (ink,) * 3,
                max(1, round(scale * 2)), cv2.LINE_AA,
            )  # fmt: skip
        yield page
    yield np.full((height, width, 3), 128, np.uint8)
