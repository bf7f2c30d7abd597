"""Class names of a recipe: a list in it, or a text file beside it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from engineworks import files
from engineworks.errors import DataError, RecipeError
from engineworks.specs import TaskSpec

#: Bytes of a file of labels; 20,000 names have some 300 kB.
_MOST_LABELS = 2**24


def read_labels(task: TaskSpec, folder: Path) -> tuple[str, ...]:
    """Class names in index order; a class without a name is called by its number."""
    if not isinstance(task.labels, str):
        if task.labels and not any(name.strip() for name in task.labels):
            raise RecipeError(
                f"task.labels: all {len(task.labels)} names are empty",
                hint="name the classes in the model's order, or leave task.labels out",
            )
        return _numbered(task.labels)
    path = folder / task.labels
    try:
        # Lines as editors show them: `splitlines` ends one at a dozen other characters, too.
        lines = files.read_text(path, "utf-8-sig", _MOST_LABELS).rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"task.labels: {path} cannot be read ({getattr(error, 'strerror', None) or error})",
            hint="give a text file with one class name per line, or a list of names",
        ) from error
    names = [line.strip() for line in lines]
    labels = _numbered(names) if any(names) else ()
    doubled = [name for name, count in Counter(map(_spelled, labels)).items() if count > 1]
    if doubled:
        raise DataError(
            f"task.labels: {path} names the class {doubled[0]!r} twice",
            hint="name every class once",
        )
    strange = [name for name in labels if any(unicodedata.category(c) == "Cc" for c in name)]
    if strange:
        raise DataError(
            f"task.labels: {path} holds {strange[0][:40]!r}, which is no readable name",
            hint="give a text file with one class name per line, or a list of names",
        )
    return labels


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """An empty line holds the place of a class without a name."""
    return tuple(name or str(number) for number, name in enumerate(names))


def _spelled(name: str) -> str:
    """A name as one sees it: macOS writes letters and their accents apart."""
    return unicodedata.normalize("NFC", name)
