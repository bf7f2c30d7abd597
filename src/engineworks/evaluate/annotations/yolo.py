"""YOLO labels: a text file per picture, a line per object, in fractions of the picture's sides.

Layouts: a folder of labels, or `data.yaml` with `labels/` where pictures have `images/`, or labels
beside their pictures. Lines are boxes (centre, size) or polygons. Source:
https://docs.ultralytics.com/datasets/detect/
"""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from engineworks import folders
from engineworks.errors import DataError
from engineworks.evaluate.annotations import turned
from engineworks.evaluate.annotations.coco import CocoLabels, Row, fit
from engineworks.evaluate.annotations.fields import number, text, whole
from engineworks.facts.data import BadImage
from engineworks.files import read_bytes, read_text
from engineworks.runtime.picture_header import read_header
from engineworks.specs import DataSpec

#: Names of classes: the file that trainers read, and the one that LabelImg writes.
NAMES = "data.yaml"
CLASSES = "classes.txt"
ENDINGS = (".yaml", ".yml")

#: A label file, and one of names, is never larger.
_MOST = 2**24

#: Height and width of a picture that cannot be read: its boxes are no slips of whoever drew them.
_UNREADABLE = (1000, 1000)

#: Fractions may pass the edge by little; pixels are far beyond it.
_BEYOND = 2.0


def is_yolo(path: Path) -> bool:
    """Whether annotations given so are YOLO's."""
    return path.is_dir() or path.suffix.lower() in ENDINGS


def label_files(spec: DataSpec) -> dict[str, Path]:
    """Label files by their place below the folder of labels, with the names of classes.

    Raises:
        DataError: There is none.
    """
    path = Path(spec.annotations or "")
    if path.is_dir():
        root, above = path, [path, *path.parents[:3]]
    else:
        root, above = _labels_of(Path(spec.images)), []
    files = {name: root / name for name in folders.find(root, {".txt"}).files}
    names = path if path.is_file() else _first(above, (NAMES, "data.yml", "dataset.yaml"))
    if names is not None:
        files[NAMES] = names
    if not any(_is_labels(name) for name in files):
        raise DataError(
            f"data.annotations: {path} is there, and {root} holds no label file (.txt)",
            hint="give COCO JSON; or the folder of YOLO labels, or its data.yaml with labels/ "
            "where the pictures have images/",
        )
    return files


def _labels_of(images: Path) -> Path:
    """The folder of labels beside a folder, or a list, of pictures."""
    root = images.parent if images.suffix.lower() == ".txt" else images
    parts = list(root.parts)
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        beside = Path(*parts[:place], "labels", *parts[place + 1 :])
        if beside.is_dir():
            return beside
    return root


def _first(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    places = [folder / name for folder in folders for name in names]
    return next((place for place in places if place.is_file()), None)


def _is_labels(name: str) -> bool:
    return name.lower().endswith(".txt") and PurePosixPath(name).name != CLASSES


def read_yolo(
    spec: DataSpec, labels: tuple[str, ...], files: Sequence[str], root: Path
) -> tuple[CocoLabels, list[BadImage]]:
    """Read the labels of these pictures; one without a label file has no object.

    Args:
        spec: With annotations.
        labels: Class names in index order.
        files: Pictures, relative to `root`.
        root: Their folder.

    Returns:
        (boxes in pixels, label files whose picture is not there).

    Raises:
        DataError: A line that is none, no picture with labels, or classes that do not fit.
    """
    path = Path(spec.annotations or "")
    known = label_files(spec)
    names = _names(known) or labels
    if not names:
        raise DataError(
            f"data.annotations: {path} does not name its classes",
            hint=f"add {NAMES} with names: [...] above the labels, or name them in task.labels",
        )
    of, notes = _matched(files, known)
    if not of:
        raise DataError(
            f"none of the {len(files)} images in {spec.images} has labels in {path}: "
            f"{files[0]} would have {PurePosixPath(files[0]).with_suffix('.txt')}",
            hint="give the folder of labels that mirrors data.images",
        )
    images, annotations = [], []
    points = _has_points(known)
    for place, name in enumerate(files, start=1):
        height, width = _size(root / name, spec)
        images.append({"id": place, "file_name": name, "height": height, "width": width})
        rows = _rows(known[of[name]], len(names), points) if name in of else []
        annotations += [_annotation(row, place, width, height) for row in rows]
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in enumerate(names)]
    truth = fit(path, images, categories, annotations, labels)
    truth = dataclasses.replace(truth, notes=(*truth.notes, *notes))
    return truth, _orphans(known, set(of.values()), names)


def _orphans(known: Mapping[str, Path], used: set[str], names: Sequence[str]) -> list[BadImage]:
    """Label files with objects whose picture is not there; other texts are none."""
    missing = []
    points = _has_points(known)
    for name, file in known.items():
        if not _is_labels(name) or name in used:
            continue
        try:
            rows = _rows(file, len(names), points)
        except DataError:
            continue
        if rows:
            missing.append(BadImage(file=name, reason=f"{name} labels a picture that is not there"))
    return missing


def _matched(
    files: Sequence[str], known: Mapping[str, Path]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The label file of each picture that has one, and what is to be said of it.

    Names that are equal come first. Others may differ in letter case and in how Unicode writes an
    accent, where one picture and one label file are left for each other.
    """
    of: dict[str, str] = {}
    for name in files:
        label_file = next((place for place in _places(name) if place in known), None)
        if label_file is not None:
            of[name] = label_file
    used = set(of.values())
    spare: dict[str, list[str]] = defaultdict(list)
    for file in known:
        if _is_labels(file) and file not in used:
            spare[_spelled(file)].append(file)
    asked: dict[str, list[str]] = defaultdict(list)
    for name in files if spare else ():
        if name not in of:
            for place in {_spelled(place) for place in _places(name)} & spare.keys():
                asked[place].append(name)
    other = {
        names[0]: spare[place][0]
        for place, names in asked.items()
        if len(names) == len(spare[place]) == 1
    }
    notes = []
    if other:
        name, file = next(iter(other.items()))
        notes.append(
            f"{len(other)} of {len(files)} label files differ from their pictures' names in case "
            f"or accents (the first: {file!r} is of {name!r})"
        )
    of |= other
    without = len(files) - len(of)
    if without:
        notes.append(
            f"{without} of {len(files)} images have no label file: taken as pictures without "
            "objects"
        )
    return of, tuple(notes)


def _spelled(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _places(name: str) -> list[str]:
    """Where the label file of a picture may lie."""
    path = PurePosixPath(name).with_suffix(".txt")
    parts = list(path.parts)
    tries = [path.as_posix(), f"labels/{path.as_posix()}"]
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        parts[place] = "labels"
        tries += ["/".join(parts), "/".join(parts[place + 1 :])]
    return tries


def _names(known: Mapping[str, Path]) -> tuple[str, ...]:
    """Class names in index order; empty where none are written down."""
    if NAMES in known:
        return _yaml_names(known[NAMES])
    lists = [file for name, file in known.items() if PurePosixPath(name).name == CLASSES]
    if not lists:
        return ()
    try:
        lines = read_text(lists[0], encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.annotations: {lists[0]} cannot be read ({error})",
            hint="write one class name a line, in the order of their numbers",
        ) from error
    # A line without a name holds the place of a class.
    return _once(tuple(line.strip() or str(i) for i, line in enumerate(lines)), lists[0])


def _yaml_names(path: Path) -> tuple[str, ...]:
    names = _yaml(path).get("names")
    if names is None:
        return ()
    try:
        if isinstance(names, dict):
            by_index = {whole(key, "a key of names"): value for key, value in names.items()}
            if sorted(by_index) != list(range(len(by_index))) or len(by_index) != len(names):
                raise ValueError(f"names has the keys {sorted(by_index)[:8]}, not 0, 1, 2, ...")
            names = [by_index[index] for index in range(len(by_index))]
        if not isinstance(names, list):
            raise ValueError(f"names is {type(names).__name__}, not a list")
        texts = tuple(text(name, f"names[{i}]") for i, name in enumerate(names))
    except ValueError as error:
        raise DataError(
            f"data.annotations: {path}: {error}", hint="write names: [cat, dog, ...]"
        ) from error
    return _once(texts, path)


def _once(names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise DataError(
            f"data.annotations: {path} names the class {doubled!r} twice, as "
            f"{names.index(doubled)} and {len(names) - 1 - names[::-1].index(doubled)}",
            hint="name every class once",
        )
    return names


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = read_text(path, encoding="utf-8-sig")
        _refuse_doubled(yaml.compose(content, yaml.SafeLoader))
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise DataError(
            f"data.annotations: {path} is not YAML ({' '.join(str(error).split())[:200]})",
            hint="give COCO JSON, or the data.yaml of YOLO labels",
        ) from error
    return document if isinstance(document, dict) else {}


def _refuse_doubled(root: Any) -> None:
    """Refuse a key that stands twice: the last one would be taken without a word."""
    inside = [value for key, value in getattr(root, "value", ()) if key.value == "names"]
    for node in (root, *inside):
        if getattr(node, "tag", "").endswith(":map"):
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise ValueError(f"the key {key!r} stands there twice")


def _has_points(known: Mapping[str, Path]) -> bool:
    """Whether lines hold a box and key points (`kpt_shape`), not a polygon."""
    return NAMES in known and "kpt_shape" in _yaml(known[NAMES])


def _size(path: Path, spec: DataSpec) -> tuple[int, int]:
    """(height, width) of the picture that fractions are of; any where decoding will fail."""
    try:
        header = read_header(data := read_bytes(path, 3 * spec.max_pixels))
    except OSError:
        return _UNREADABLE
    if header is None:
        return _UNREADABLE
    quarter = spec.frame != "unturned" and turned.tagged(data) >= 5
    return (header.width, header.height) if quarter else (header.height, header.width)


def _rows(path: Path, classes: int, points: bool) -> list[tuple[int, list[float]]]:
    """(class, left, top, width and height in fractions) of each line."""
    rows = []
    try:
        lines = read_bytes(path, _MOST).decode("utf-8-sig").splitlines()
        for place, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_row(line.split(), f"line {place}", classes, points))
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.annotations: {path}: {getattr(error, 'strerror', None) or error}",
            hint="a line is: class, centre x, centre y, width, height in fractions of the "
            "picture's sides; or class and the corners of a polygon",
        ) from error
    return rows


def _row(parts: list[str], at: str, classes: int, points: bool) -> tuple[int, list[float]]:
    index = number(parts[0], f"{at}: the class")
    if not index.is_integer() or not 0 <= index < classes:
        raise ValueError(f"{at}: the class is {parts[0]}, of {classes} (0 to {classes - 1})")
    values = [number(part, at) for part in parts[1:]]
    if len(values) == 4 or (points and len(values) > 4):
        across, down, width, height = values[:4]
        box = [across - width / 2, down - height / 2, width, height]
    elif len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    else:
        more = " (a confidence? these would be answers, not labels)" if len(values) == 5 else ""
        raise ValueError(f"{at} has {len(values)} numbers after the class{more}")
    if max(map(math.fabs, values[:4])) > _BEYOND:
        raise ValueError(f"{at}: {' '.join(parts[1:5])} are pixels, not fractions")
    return int(index), box


def _annotation(row: tuple[int, list[float]], image: int, width: int, height: int) -> Row:
    index, box = row
    bbox = [box[0] * width, box[1] * height, box[2] * width, box[3] * height]
    return {
        "image_id": image, "category_id": index, "bbox": bbox, "area": bbox[2] * bbox[3],
        "iscrowd": 0,
    }  # fmt: skip
