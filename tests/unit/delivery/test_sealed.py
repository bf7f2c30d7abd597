"""An engine's sealed test travels with it, and decides on the device."""

from __future__ import annotations

from pathlib import Path

from engineworks.delivery import trial
from engineworks.delivery.target import SignedTarget
from engineworks.export.torch_onnx import runner
from engineworks.sealed import making, pictures
from engineworks.specs import Preprocess, TaskSpec
from tests import builders
from tests.deliveries import MODEL, VARIANT, World, running

TASK = TaskSpec(kind="classification", labels=("ant", "bee", "cow", "dog", "elk"), scores="logits")


def seal(world, engine, onnx, folder):
    """The sealed test of an engine on generated pictures, expecting what a graph answers."""
    made = [making.SealedPicture(image=one, photo=False) for one in pictures.generated(4, (16, 16))]
    folder.mkdir()
    test, files = making.seal(Path(engine.uri), made, runner(onnx), folder)
    sealed = world.store.put(
        files, kind="sealed", name=engine.manifest.name, entry="test.json",
        details={"engine": test.engine}, provenance=builders.MADE_HERE,
    )  # fmt: skip
    return Path(sealed.uri)


def put(world, engine, test, generation):
    said = SignedTarget(
        model=MODEL, variant=VARIANT, version="1", sha256=engine.sha256, generation=generation
    )
    world.repository.put(MODEL, VARIANT, Path(engine.uri), said, test)


def test_a_sealed_test_is_fetched_and_held(tmp_path):
    world = World(tmp_path)
    home = world.device()
    onnx = [builders.conv_net(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1)]
    first, second = (
        builders.put_engine(world.store, path, name="net", preprocess=Preprocess(), task=TASK)
        for path in onnx
    )
    test = seal(world, first, onnx[0], tmp_path / "one")
    put(world, first, test, 1)
    [good] = world.agent(home, tries=trial.run).once().slots
    # Somebody publishes another engine with the test of this one.
    put(world, second, test, 2)
    [bad] = world.agent(home, tries=trial.run).once().slots

    assert good.outcome == "switched"
    assert (bad.outcome, bad.check, running(home)) == ("failed", "sealed test", first.sha256)
    assert "another engine" in bad.reason
