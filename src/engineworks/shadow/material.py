"""What a shadow run looks at: pictures, with or without what is true of them, and streams.

Pictures come in random order: neighbours in a folder often show the same thing. Knows no engine.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engineworks import folders
from engineworks.errors import DataError
from engineworks.evaluate.annotations.coco import read_coco
from engineworks.evaluate.frame_scores import Rows
from engineworks.evaluate.tasks.classification import class_of
from engineworks.runtime.pictures import SUFFIXES, read_picture
from engineworks.runtime.sources import Frame, SourceOptions, is_live, open_source, spoken
from engineworks.runtime.sources import files as files_of

#: `--labels` with this word: a picture is of the class whose name its folder has.
FOLDERS = "folders"


@dataclass(frozen=True, kw_only=True)
class ShadowFrame:
    """A frame, and what is known of it."""

    frame: Frame
    source: int
    timed: bool
    """Whether its neighbours are moments of one stream."""
    truth: Rows | None = None


@dataclass(frozen=True, kw_only=True)
class LabelledPicture:
    """A picture file with what is true of it."""

    path: Path
    truth: Rows | None = None
    size: tuple[int, int] | None = None
    """(height, width) that its labels are of."""


class Material:
    """Frames of sources, one after another.

    Args:
        sources: Addresses, as `engineworks video` takes them, and picture files.
        options: How streams are read; `fps` was given: folders are frames of a video.
        pictures: Those with labels; None: nothing has any.
        seed: Of the order of pictures.

    Raises:
        DataError: A source is given twice.
    """

    def __init__(
        self,
        sources: Sequence[str],
        options: SourceOptions,
        *,
        folders_are_video: bool = False,
        pictures: Sequence[LabelledPicture] | None = None,
        seed: int = 0,
    ) -> None:
        _refuse_doubles(sources)
        self._options = options
        self.notes: list[str] = []
        self.streams = [] if pictures is not None else list(sources)
        chosen = list(pictures or ())
        if pictures is None and not folders_are_video:
            still = [address for address in sources if is_picture(address)]
            self.streams = [address for address in sources if address not in still]
            chosen = [
                LabelledPicture(path=Path(str(path)))
                for address in still
                for path in ([address] if Path(address).is_file() else files_of(address))
            ]
        random.Random(seed).shuffle(chosen)  # noqa: S311 - an order, no secret
        self.pictures = chosen
        self.stop = threading.Event()
        """Ends a stream's waits when set."""

    @property
    def live(self) -> bool:
        """Whether frames are lost while nobody takes them."""
        return any(map(is_live, self.streams))

    @property
    def timed(self) -> bool:
        """Whether any of them are moments of one stream."""
        return bool(self.streams)

    def __iter__(self) -> Iterator[ShadowFrame]:
        yield from self._pictures()
        for number, address in enumerate(self.streams, start=1):
            came = 0
            try:
                for frame in self._stream(address):
                    came += 1
                    yield ShadowFrame(frame=frame, source=number, timed=True)
            except DataError as error:
                if not came:
                    raise
                self._note(f"{error.message}, after {came} frames")  # they were compared

    def _stream(self, address: str) -> Iterator[Frame]:
        source = open_source(address, self._options, self.stop)
        try:
            yield from source
        finally:
            for note in source.troubles.notes:
                self._note(f"{spoken(address)}: {note}")
            source.close()

    def _pictures(self) -> Iterator[ShadowFrame]:
        for number, entry in enumerate(self.pictures):
            try:
                image = read_picture(entry.path, max_pixels=self._options.max_pixels).image
            except DataError as error:
                self._note(f"left out: {error.message}")
                continue
            if entry.size is not None and image.shape[:2] != entry.size:
                self._note(
                    f"left out: {entry.path.name} is {image.shape[1]}x{image.shape[0]}, its labels "
                    f"are of {entry.size[1]}x{entry.size[0]}"
                )
                continue
            frame = Frame(pixels=image, number=number, time_s=float(number))
            yield ShadowFrame(frame=frame, source=0, timed=False, truth=entry.truth)

    def _note(self, text: str) -> None:
        if len(self.notes) < 20:
            self.notes.append(text)


def _refuse_doubles(sources: Sequence[str]) -> None:
    """What was seen twice would count twice, and is known after the first time."""
    seen: set[str] = set()
    for address in sources:
        place = str(Path(address).resolve()) if Path(address).exists() else address
        if place in seen:
            raise DataError(
                f"{spoken(address)} is given twice: its frames would say the same again",
                hint="give each source once; for more observations, more footage is needed",
            )
        seen.add(place)


def is_picture(address: str) -> bool:
    """Whether this is a picture file or a folder of some, of which none follows another."""
    path = Path(address)
    return path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES)


def labelled(sources: Sequence[str], labels: str, classes: Sequence[str]) -> list[LabelledPicture]:
    """Pictures with what is true of them.

    Args:
        sources: The one folder of the pictures.
        labels: A COCO JSON file, or `folders`.
        classes: Names of the engines' classes, in their order.

    Raises:
        DataError: Not one folder, labels that do not fit, or nothing labelled.
    """
    if len(sources) != 1 or not Path(sources[0]).is_dir():
        raise DataError(
            f"--labels are of the pictures in one folder, and {', '.join(map(spoken, sources))} "
            "is none",
            hint="give the folder; without labels use --reference",
        )
    folder = Path(sources[0])
    pictures = (
        _by_folder(folder, classes) if labels == FOLDERS else _by_coco(folder, labels, classes)
    )
    if not pictures:
        raise DataError(
            f"no picture in {folder} has a label in {labels}",
            hint="give the folder that file_name of the annotations is relative to",
        )
    return pictures


def _by_folder(folder: Path, classes: Sequence[str]) -> list[LabelledPicture]:
    names = folders.find(folder, SUFFIXES).files
    return [
        LabelledPicture(
            path=folder / name,
            truth=[{"category_id": class_of(name, tuple(classes)), "score": 1.0}],
        )
        for name in names
    ]


def _by_coco(folder: Path, labels: str, classes: Sequence[str]) -> list[LabelledPicture]:
    known = read_coco(Path(labels), tuple(classes))
    number = {category: index for index, category in enumerate(known.category_id)}
    truth: dict[int, Rows] = defaultdict(list)
    for row in known.raw["annotations"]:
        if not row["iscrowd"]:
            truth[row["image_id"]].append(
                {
                    "category_id": number[row["category_id"]],
                    "bbox": row["bbox"],
                    "score": 1.0,
                }
            )
    return [
        LabelledPicture(path=folder / name, truth=truth[image], size=known.size[name])
        for name, image in known.image_id.items()
        if (folder / name).is_file()
    ]
