"""An engine, what it was made of down to the trained weights, and what was made of it.

Every link is an artifact that a digest names. Its manifest may lie in a store at hand, or may not:
then the digest is all that is known. Knows manifests and stores, no document's form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engineworks import manifest as manifests
from engineworks.errors import ArtifactError
from engineworks.manifest import MANIFEST_NAME, Manifest
from engineworks.store import file_sha256, is_identity, named, verify

#: Of one engine: a chain of the deepest known has some ten.
_MOST_LINKS = 200


@dataclass(frozen=True, kw_only=True)
class Link:
    """One artifact of the chain."""

    sha256: str
    """Identity."""
    manifest: Manifest | None
    """None: it lies nowhere here."""
    made_of: tuple[str, ...]
    """Identities of its parents."""
    manifest_sha256: str = ""
    """sha256 of the manifest file's bytes; empty where it is not at hand."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The chain of one engine."""

    engine: Link
    before: tuple[Link, ...]
    """What it was made of, the trained model first."""
    after: tuple[Link, ...]
    """Packages and its sealed test."""

    @property
    def chain(self) -> tuple[Link, ...]:
        """All links, each after those that it was made of."""
        return (*self.before, self.engine, *self.after)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Identities of links whose manifests are not at hand."""
        return tuple(link.sha256 for link in self.chain if link.manifest is None)

    def of(self, sha256: str) -> Link:
        """A link by its identity."""
        return next(link for link in self.chain if link.sha256 == sha256)

    def ancestors(self, link: Link) -> tuple[Link, ...]:
        """Everything that a link was made of, the trained model first."""
        wanted, left = set[str](), list(link.made_of)
        while left:
            sha256 = left.pop()
            if sha256 not in wanted:
                wanted.add(sha256)
                left += self.of(sha256).made_of
        return tuple(other for other in self.chain if other.sha256 in wanted)


def trace(
    engine: Path,
    stores: Iterable[Path],
    made_of_it: Sequence[str] = (),
    folders: Sequence[Path] = (),
) -> Lineage:
    """Follow an engine's parents as far as their manifests are at hand.

    Args:
        engine: Its folder; every file of it is verified.
        stores: Folders of stores to look in.
        made_of_it: Identities of packages, and of its sealed test.
        folders: Folders of artifacts that were made of it, beside those in stores.

    Raises:
        ArtifactError: The engine is damaged, or is none.
    """
    manifest = verify(engine)
    if manifest.kind != "engine":
        raise ArtifactError(
            f"{engine} is an artifact of the kind {manifest.kind}, not an engine",
            hint="give an engine's folder, a variant of the latest run, or a bundle",
        )
    places = list(stores)
    if named(engine):
        places.append(engine.absolute().parent.parent)
    own = _link(engine, manifest.sha256)
    before = {link.sha256: link for link in _parents(own, places)}
    later = [_found(sha256, places) for sha256 in dict.fromkeys(made_of_it)]
    later += [_link(folder, verify(folder).sha256) for folder in folders]
    return Lineage(
        engine=own, before=tuple(before.values()),
        after=tuple({link.sha256: _of_engine(link, own) for link in later}.values()),
    )  # fmt: skip


def _parents(link: Link, places: Sequence[Path]) -> Iterator[Link]:
    """All that a link was made of, parents before children, each once."""
    done = {link.sha256}
    ordered: list[Link] = []

    def visit(sha256: str) -> None:
        if sha256 in done or len(done) >= _MOST_LINKS:
            return
        done.add(sha256)
        parent = _found(sha256, places)
        for other in parent.made_of:
            visit(other)
        ordered.append(parent)

    for sha256 in link.made_of:
        visit(sha256)
    known = {other.sha256 for other in ordered}
    for other in ordered:
        # Of a chain that is cut off, what it hangs on is not named twice.
        yield Link(
            sha256=other.sha256, manifest=other.manifest, manifest_sha256=other.manifest_sha256,
            made_of=tuple(name for name in other.made_of if name in known),
        )  # fmt: skip


def _of_engine(link: Link, engine: Link) -> Link:
    """What was made of the engine names no other parent that the chain knows."""
    return Link(
        sha256=link.sha256, manifest=link.manifest, manifest_sha256=link.manifest_sha256,
        made_of=(engine.sha256,),
    )  # fmt: skip


def _found(sha256: str, places: Sequence[Path]) -> Link:
    for place in places:
        folder = place / sha256[:2] / sha256
        try:
            return _link(folder, sha256)
        except ArtifactError:
            continue
    return Link(sha256=sha256, manifest=None, made_of=())


def _link(folder: Path, sha256: str) -> Link:
    """A link from its folder; its manifest must have its identity.

    Raises:
        ArtifactError: It has not, or there is none.
    """
    manifest = manifests.load(folder / MANIFEST_NAME)
    if manifest.sha256 != sha256:
        raise ArtifactError(
            f"{folder} holds artifact {manifest.sha256[:16]}..., not {sha256[:16]}...",
            hint="fetch it again",
        )
    parents = tuple(name for name in manifest.provenance.parents if is_identity(name))
    return Link(
        sha256=sha256, manifest=manifest, made_of=tuple(dict.fromkeys(parents)),
        manifest_sha256=file_sha256(folder / MANIFEST_NAME),
    )  # fmt: skip
