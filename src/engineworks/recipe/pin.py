"""Fixes the model of a recipe by digests, before anything is computed from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from engineworks import usercode
from engineworks.errors import ModelError
from engineworks.evaluate import tasks
from engineworks.export import sources
from engineworks.facts.model import PinnedModel
from engineworks.recipe.schema import Loaded
from engineworks.store import LocalStore


def pin_model(loaded: Loaded, store: LocalStore | None = None) -> PinnedModel:
    """Fix the model source by digests.

    Args:
        loaded: The recipe.
        store: Keeps the copy of the model file that stages read; None: they read the file itself.

    Raises:
        ModelError: A file is missing or empty, or the factory's module is nowhere.
    """
    spec, task = loaded.recipe.model, loaded.recipe.task
    path = (
        spec.weights or ""
        if spec.form == "factory"
        else str(loaded.folder / Path(spec.source).expanduser())
    )
    key = "model.source" if spec.form != "factory" else "model.weights"
    if path and not Path(path).is_file():
        wrong = "is no ordinary file" if Path(path).exists() else "does not exist"
        raise ModelError(
            f"{key}: {path} {wrong}", hint="give a path relative to the recipe's folder"
        )
    if path and Path(path).stat().st_size == 0:
        raise ModelError(f"{key}: {path} is empty", hint="copy the file again")
    references = [spec.source] if spec.form == "factory" else []
    references += tasks.own_code(task)
    code = tuple(usercode.pin(reference, loaded.folder) for reference in references)
    model = PinnedModel(
        spec=spec,
        folder=str(loaded.folder),
        path=path,
        code=code,
        code_sha256=usercode.sha256(code),
        bytes_sha256="",
    )
    if not path:
        return model
    if store is None:
        return dataclasses.replace(model, bytes_sha256=sources.file_digest(Path(path), spec.form))
    stored = sources.hold(Path(path), spec.form, store, loaded.recipe.name)
    return dataclasses.replace(model, stored=stored, bytes_sha256=sources.bytes_sha256(stored))
