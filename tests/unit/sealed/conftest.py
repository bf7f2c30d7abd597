"""A tiny classifier, its sealed test, and ways to change it with digests that fit again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engineworks import manifest as manifests
from engineworks.export.torch_onnx import runner
from engineworks.sealed import making, pictures
from engineworks.specs import Preprocess, TaskSpec
from engineworks.store import LocalStore, entry_of
from tests import builders

PREPROCESS = Preprocess(color="rgb", resize="letterbox", mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.4))
TASK = TaskSpec(kind="classification", labels=("ant", "bee", "cow", "dog", "elk"), scores="logits")


@dataclasses.dataclass(frozen=True)
class Tiny:
    onnx: Path
    engine: Path
    test: Path


def seal(store: LocalStore, engine: Any, source: Any, folder: Path, count: int = 8) -> Any:
    """The sealed test of an engine, on generated pictures; an artifact."""
    made = [
        making.SealedPicture(image=image, photo=False)
        for image in pictures.generated(count, (16, 16))
    ]
    folder.mkdir()
    test, files = making.seal(Path(engine.uri), made, source, folder)
    return store.put(
        files,
        kind="sealed",
        name=engine.manifest.name,
        entry="test.json",
        details={"engine": test.engine},
        provenance=builders.MADE_HERE,
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("sealed")
    store = LocalStore(folder / "store")
    onnx = builders.conv_net(folder / "net.onnx")
    engine = builders.put_engine(store, onnx, name="tiny", preprocess=PREPROCESS, task=TASK)
    test = seal(store, engine, runner(onnx), folder / "work")
    return Tiny(onnx=onnx, engine=Path(engine.uri), test=Path(test.uri))


@pytest.fixture
def changed(tiny: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the engine with another graph or manifest, every digest right again."""

    def change(
        graph: Callable[[dict[str, np.ndarray[Any, Any]]], None] | None = None, **fields: Any
    ) -> Path:
        from onnx import load, numpy_helper, save

        folder = shutil.copytree(tiny.engine, tmp_path / f"engine-{len(list(tmp_path.iterdir()))}")
        path = folder / "model.onnx"
        if graph is not None:
            model = load(str(path))
            weights = {w.name: numpy_helper.to_array(w).copy() for w in model.graph.initializer}
            graph(weights)
            for place in model.graph.initializer:
                place.CopyFrom(numpy_helper.from_array(weights[place.name], place.name))
            save(model, str(path))
        manifest = manifests.load(folder / "manifest.json")
        manifest = dataclasses.replace(manifest, files=(entry_of("model.onnx", path),), **fields)
        (folder / "manifest.json").write_text(manifests.dump(manifest))
        return folder

    return change
