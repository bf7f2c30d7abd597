"""One bit of an engine is flipped, anywhere: it must not open where its identity is known.

    python -m benchmarks.faults.bit_flips [FLIPS]

Half of the flips are in the manifest, which is small and says how everything is used; the others
are spread over all files by their size.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._bars import Bar, finish
from engineworks.errors import ArtifactError
from engineworks.manifest import Provenance, Requires, TensorSpec
from engineworks.runtime import open as open_engine
from engineworks.specs import Preprocess, TaskSpec
from engineworks.store import LocalStore
from tests import builders


def engine(folder: Path) -> Path:
    """An engine of ONNX Runtime in a store, with everything that a manifest can say."""
    graph = builders.conv_net(folder / "net.onnx")
    store = LocalStore(folder / "store")
    artifact = store.put(
        {"model.onnx": graph},
        kind="engine", name="flipped", entry="model.onnx",
        inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3, 16, 16)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=("batch", 5)),),
        preprocess=Preprocess(color="bgr", mean=(0.5, 0.25, 0.125)),
        task=TaskSpec(kind="classification", labels=("a", "b", "c", "d", "é")),
        target="onnxruntime-cpu", precision="fp32", requires=Requires(runtime="onnxruntime"),
        provenance=Provenance(stage="build", parents=("0" * 64,), tools={"numpy": "2"}, host="x"),
    )  # fmt: skip
    return Path(artifact.uri)


def flip(folder: Path, dice: random.Random, *, in_manifest: bool) -> tuple[str, int, int]:
    """Flip a bit and try to open the engine; (file, byte, bit) if it opened, and put it back.

    Raises:
        ArtifactError: It was refused, which is right; the bit is back.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    path = folder / "manifest.json" if in_manifest else dice.choices(files, sizes)[0]
    whole = path.read_bytes()
    position, bit = dice.randrange(len(whole)), dice.randrange(8)
    changed = bytearray(whole)
    changed[position] ^= 1 << bit
    path.write_bytes(changed)
    try:
        open_engine(folder, threads=1).close()
    finally:
        path.write_bytes(whole)
    return path.name, position, bit


def run(flips: int = 200) -> tuple[list[Bar], dict[str, Any]]:
    """Flip bits one after the other."""
    dice = random.Random(7)  # noqa: S311 - no secret
    refused, opened = 0, []
    with tempfile.TemporaryDirectory() as work:
        folder = engine(Path(work))
        open_engine(folder, threads=1).close()  # whole, it opens
        for number in range(flips):
            try:
                opened.append(flip(folder, dice, in_manifest=number % 2 == 0))
            except ArtifactError:
                refused += 1
        open_engine(folder, threads=1).close()
    for name, position, bit in opened:
        print(f"opened with bit {bit} of byte {position} of {name} flipped")
    return [Bar(f"bit flips refused, of {flips}", refused, "", flips, at_least=True)], {}


if __name__ == "__main__":
    raise SystemExit(finish("faults_bit_flips", *run(*map(int, sys.argv[1:2]))))
