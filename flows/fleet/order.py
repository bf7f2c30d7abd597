"""What a machine of the fleet is asked: one variant, with everything it needs, by reference.

An order is small JSON. Its digest covers what it means and not where things lie, so two runs of
one recipe give the same order, and it is built once. Photos and a recipe's own decoder travel as
artifacts.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.codec import digest, place, to_json
from engineworks.errors import DataError
from engineworks.evaluate import datasets
from engineworks.facts.data import PinnedData
from engineworks.facts.host import HostCard
from engineworks.facts.model import PinnedModel
from engineworks.facts.plan import Plan, PlannedVariant
from engineworks.manifest import Artifact, Provenance
from engineworks.recipe import Loaded, Recipe
from engineworks.store import LocalStore
from flows.steps.prepare import Model

#: Folder of the photos in a data artifact, and the name of the annotations beside it.
IMAGES = "images"
ANNOTATIONS = "annotations.json"
#: Empty files hold a place in an artifact that must have an entry.
ENTRY = "contents.txt"


@dataclass(frozen=True, kw_only=True)
class Order:
    """One variant for one kind of machine."""

    recipe_sha256: str
    """Of the meaning of `recipe`."""
    recipe: dict[str, Any] = place()
    """The resolved recipe, with this target only."""
    target: str
    precision: str
    options: dict[str, Any]
    siblings: tuple[str, ...]
    """Precisions of the same target: INT8 is held against the next of them."""
    required: bool = place()
    model: Model
    sized: tuple[Model, ...]
    data: Artifact | None
    """The photos, when engines are judged on some."""
    code: Artifact | None
    """The Python files beside the recipe, when it has a decoder of its own."""
    checkout_sha256: str

    @property
    def sha256(self) -> str:
        """Identity of the order."""
        return digest(self)


@dataclass(frozen=True, kw_only=True)
class Luggage:
    """What the orders of one run share."""

    data: Artifact | None
    """The photos, when engines are judged on some."""
    code: Artifact | None
    """The Python files beside the recipe, when it has a decoder of its own."""


def pack_luggage(store: LocalStore, loaded: Loaded, model: Model) -> Luggage:
    """Put photos and the recipe's own code into the store."""
    own_decoder = ":" in loaded.recipe.task.layout
    return Luggage(
        data=_pack_data(store, model.data, loaded.recipe.name) if model.data else None,
        code=_pack_code(store, loaded, model.pinned) if own_decoder else None,
    )


def _pack_data(store: LocalStore, data: PinnedData, name: str) -> Artifact:
    root = datasets.root_of(data.spec)
    away = [file for file in data.files if Path(file).is_absolute() or ".." in Path(file).parts]
    if away:
        raise DataError(
            f"data.images lists {away[0]!r}, which lies outside the list's own folder: other "
            "machines could not be told of it",
            hint="put the list above all of its images",
        )
    files = {f"{IMAGES}/{file}": root / file for file in data.files}
    digests = {f"{IMAGES}/{file}": sha256 for file, sha256 in data.digests.items()}
    if data.truth is not None:
        files[ANNOTATIONS] = store.entry(data.truth)
    return _put(store, files, digests, "data", name)


def _pack_code(store: LocalStore, loaded: Loaded, pinned: PinnedModel) -> Artifact:
    """The files of the recipe's own decoder that lie beside the recipe."""
    digests = next(c.files for c in pinned.code if c.reference == loaded.recipe.task.layout)
    beside = {name for name in digests if (loaded.folder / name).is_file()}
    files = {name: loaded.folder / name for name in beside}
    return _put(store, files, digests, "code", loaded.recipe.name)


def _put(
    store: LocalStore, files: dict[str, Path], digests: Mapping[str, str], kind: str, name: str
) -> Artifact:
    """Files as one artifact, if they are those that were pinned.

    Raises:
        InputError: One of them is another one by now.
    """
    with tempfile.TemporaryDirectory() as work:
        entry = Path(work, ENTRY)
        entry.write_text(f"{len(files)} files\n", encoding="ascii")
        return store.put(
            {**files, ENTRY: entry}, digests, kind=kind, name=name, entry=ENTRY,
            provenance=Provenance(stage="order"),
        )  # fmt: skip


def write(
    loaded: Loaded, plan: Plan, planned: PlannedVariant, model: Model, sized: list[Model],
    luggage: Luggage, checkout_sha256: str,
) -> Order:  # fmt: skip
    """The order of one variant."""
    recipe = loaded.recipe
    mine = tuple(spec for spec in recipe.targets if spec.target == planned.target)
    alone = recipe.model_copy(update={"targets": mine})
    sections = {name: getattr(alone, name) for name in Recipe.model_fields}
    return Order(
        recipe_sha256=digest({**sections, "labels": loaded.labels}),
        recipe=to_json(sections),
        target=planned.target,
        precision=planned.precision,
        options=planned.options,
        siblings=tuple(
            dict.fromkeys(v.precision for v in plan.variants if v.target == planned.target)
        ),
        required=planned.required,
        model=_bare(model),
        sized=tuple(map(_bare, sized)),
        data=luggage.data,
        code=luggage.code,
        checkout_sha256=checkout_sha256,
    )


def _bare(model: Model) -> Model:
    """Without what depends on the recipe's other targets, which do not concern this order."""
    if model.analysis is None:
        return model
    analysis = dataclasses.replace(model.analysis, lacking={}, largest=())
    return dataclasses.replace(model, analysis=analysis)


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """An order on the machine that carries it out: every path leads somewhere here."""

    loaded: Loaded
    plan: Plan
    planned: PlannedVariant
    model: Model
    sized: list[Model]


def unpack(order: Order, store: LocalStore, card: HostCard) -> Unpacked:
    """Fetch what an order needs.

    Raises:
        ArtifactError: Something of it is nowhere, or damaged.
        StoreError: The store cannot be reached, or the disk is full.
    """
    luggage = Luggage(data=order.data, code=order.code)
    folder, (model, *sized) = arrive((order.model, *order.sized), luggage, store)
    loaded = Loaded(
        recipe=Recipe.model_validate(order.recipe),
        path=Path(order.model.shared.name),
        folder=folder,
        labels=order.model.shared.labels,
        sha256=order.recipe_sha256,
    )
    variants = tuple(
        PlannedVariant(
            target=order.target,
            precision=precision,
            options=order.options,
            required=order.required,
            action="run",
            reason="",
        )
        for precision in order.siblings
    )
    return Unpacked(
        loaded=loaded,
        plan=Plan(host=card, variants=variants),
        planned=next(v for v in variants if v.precision == order.precision),
        model=model,
        sized=sized,
    )


def arrive(
    models: Iterable[Model], luggage: Luggage, store: LocalStore
) -> tuple[Path, list[Model]]:
    """Fetch the luggage of a run of another machine, or of another day.

    Returns:
        The folder of the recipe's own code, and the models with paths that lead somewhere here.
    """
    data = store.open(luggage.data) if luggage.data else None
    folder = store.open(luggage.code) if luggage.code else store.root
    return folder, [_settle(model, store, data, folder) for model in models]


def _settle(model: Model, store: LocalStore, data: Path | None, folder: Path) -> Model:
    pinned = model.data
    if pinned is not None and data is not None:
        spec = dataclasses.replace(
            pinned.spec,
            images=str(data / IMAGES),
            annotations=str(data / ANNOTATIONS) if pinned.spec.annotations else None,
        )
        pinned = dataclasses.replace(pinned, spec=spec)
    return dataclasses.replace(
        model,
        shared=dataclasses.replace(model.shared, store=str(store.root)),
        pinned=dataclasses.replace(model.pinned, folder=str(folder)),
        data=pinned,
    )
