"""Options of `video` and `videos` that would do nothing: refused, since somebody meant something.

Knows which option concerns which source and output; opens neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from engineworks.errors import DataError
from engineworks.runtime.sources import spoken, uses

#: Option, its field of `SourceOptions`, and what it is about.
_OF_SOURCES = (
    ("--raw-size", "raw_size", "of raw frames on standard input (SRC -)"),
    ("--fps", "fps", "of images in a folder and of raw frames, which have no clock"),
    ("--hardware", "hardware", "of the decoder of videos and streams"),
    ("--give-up", "give_up_s", "of cameras and streams"),
)


def refuse_idle(options: argparse.Namespace, sources: Sequence[str], *, drawn: bool) -> None:
    """Refuse what no source or output here has a use for.

    Args:
        options: Of the command; None or False where they were not given.
        sources: Their addresses.
        drawn: Whether pictures are drawn, into a file or a window.

    Raises:
        DataError: Names the option and what it is for.
    """
    for option, field, about in _OF_SOURCES:
        if getattr(options, field) is not None and not any(field in uses(s) for s in sources):
            raise DataError(
                f"{option} does nothing here: it is {about}, and {spoken(sources[0])} is none",
                hint=f"leave {option} out",
            )
    for option, given in (
        ("--video-height", options.video_height is not None), ("--overlay", options.overlay),
    ):  # fmt: skip
        if given and not drawn:
            raise DataError(
                f"{option} does nothing here: it is of the drawn video, and none is written",
                hint=f"leave {option} out, or have the video written",
            )


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of `SourceOptions` that were asked for; the others keep their defaults."""
    fields = [field for _, field, _ in _OF_SOURCES]
    return {
        field: getattr(options, field) for field in fields if getattr(options, field) is not None
    }
