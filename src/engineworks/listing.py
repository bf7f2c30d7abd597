"""A folder whose listing is a list: one file for each kind, and what other distributions add.

A file is imported when it is first used, so that a missing vendor's package never hurts the
others. A file of the folder wins over another distribution's of the same name. Knows nothing of
what the files declare.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from importlib import metadata
from typing import Generic, TypeVar

from engineworks.errors import EngineworksError

T = TypeVar("T")


class Listing(Generic[T]):
    """The kinds of one folder.

    Args:
        package: Dotted name of the folder; also the entry-point group, but for what lies between
            `engineworks` and its last part.
        path: Its `__path__`.
        declares: Type of the value that each file declares.
        attribute: Name of that value.
        noun: What a kind is called.
        at: Where people name one, for messages.
        guide: The page that says what a file holds.
        error: Raised when a kind cannot be had.
        dashes: Whether kinds are spelled with `-` where files have `_`.
    """

    def __init__(
        self,
        package: str,
        path: Iterable[str],
        declares: type[T],
        attribute: str,
        *,
        noun: str,
        at: str,
        guide: str,
        error: type[EngineworksError],
        dashes: bool = False,
    ) -> None:
        self.group = f"engineworks.{package.rpartition('.')[2]}"
        """Entry-point group of other distributions: name -> module."""
        self._package, self._path, self._dashes = package, path, dashes
        self._declares, self._attribute = declares, attribute
        self._noun, self._at, self._guide, self._error = noun, at, guide, error
        self._modules: dict[str, str] = {}
        self._loaded: dict[str, T] = {}

    @property
    def modules(self) -> dict[str, str]:
        """Kind -> module to import, sorted by kind."""
        if not self._modules:
            others = {e.name: e.value for e in metadata.entry_points(group=self.group)}
            files = [m.name for m in pkgutil.iter_modules(self._path) if m.name[0] != "_"]
            every = {**others, **{name: f"{self._package}.{name}" for name in files}}
            self._modules = {self._spelled(name): every[name] for name in sorted(every)}
        return self._modules

    def _spelled(self, name: str) -> str:
        return name.replace("_", "-") if self._dashes else name

    def foreign(self, name: str) -> str:
        """The module of a kind from another distribution; empty for one of this folder."""
        module = self.modules.get(name, "")
        return "" if module.startswith(f"{self._package}.") else module

    def load(self, name: str) -> T:
        """Import a kind's file, once.

        Raises:
            EngineworksError: Of `error`: there is no such kind, or its file does not import or
                declares nothing.
        """
        if name not in self._loaded:
            self._loaded[name] = self._import(name)
        return self._loaded[name]

    def _import(self, name: str) -> T:
        if name not in self.modules:
            raise self._error(
                f"{self._at}: there is no {self._noun} {name!r}",
                hint=f"the {self._noun}s are: {', '.join(self.modules)}",
            )
        place = self.modules[name]
        try:
            module = importlib.import_module(place)
        except Exception as error:
            raise self._error(
                f"{self._at}: {name} comes from {place}, which cannot be imported "
                f"({type(error).__name__}: {error})",
                hint=f"repair or uninstall the package that provides this {self._noun}",
            ) from error
        value = getattr(module, self._attribute, None)
        if not isinstance(value, self._declares):
            raise self._error(
                f"{self._at}: {place} has no {self._attribute} = {self._declares.__name__}(...)",
                hint=f"see {self._guide} for what a {self._noun}'s file holds",
            )
        return value

    def forget(self) -> None:
        """Look again: distributions have come or gone."""
        self._modules, self._loaded = {}, {}
