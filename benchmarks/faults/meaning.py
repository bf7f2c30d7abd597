"""Without labels: INT8 engines damaged on purpose are rejected for what they mean, sound ones pass.

    python -m benchmarks.faults.meaning [MODEL ...]

Six detectors are YOLOX-Nano's trained weights behind public heads, four classifiers ResNet-20's
(`_heads.py`); they answer real photos, and no head of them was trained by itself. Each is quantized
once, soundly; every damage is done to the answers of that engine. Build, check and verdict are the
product's own stages, on OpenVINO.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bars import Bar, finish
from benchmarks.faults import _heads

TARGET = "openvino"

#: Images that calibrate, and that judge.
IMAGES = 24


@dataclass(frozen=True, kw_only=True)
class Base:
    """A trained net in float and in integers, with its photos."""

    floats: Any
    integers: Any
    """The same as Q/DQ graph, soundly quantized."""
    shared: Any
    size: tuple[int, int]
    samples: Any
    inputs: np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A head on a net, what does nothing to it, and what damages it."""

    base: Base
    make: Callable[[Any, Any], Any]
    sound: Any
    damages: dict[str, Any]


def _base(work: Path, store: Any, name: str, onnx: Path, images: Iterable[Path], pre: Any) -> Base:
    from onnx import load, save

    from engineworks import hosts, targets
    from engineworks.calibrate import collect, derive
    from engineworks.export.torch_onnx import signature
    from engineworks.qdq import pairs
    from engineworks.qdq.graph import Graph
    from engineworks.runtime.pictures import read_image
    from engineworks.runtime.preprocess import Preprocessor
    from tests.builders import MADE_HERE, shared

    height, width = (int(side) for side in signature(onnx)[0][0].shape[2:])
    files = list(images)
    prepare = Preprocessor(pre, (height, width))
    rows = [prepare(read_image(path))[0] for path in files]
    graph = Graph(onnx)
    scheme = targets.int8_rules(TARGET, hosts.probe()).scheme
    statistics = collect.collect(graph, (row[None] for row in rows))
    bounds = derive.derive(graph, statistics, "mse", scheme)
    path = work / f"{name}_int8.onnx"
    save(pairs.emit(graph, bounds, graph.computing, scheme), str(path))
    samples = store.put(
        {f"{number:05}.jpg": path for number, path in enumerate(files)},
        kind="samples", name=name, entry="00000.jpg", provenance=MADE_HERE,
    )  # fmt: skip
    return Base(
        floats=load(str(onnx)), integers=load(str(path)), size=(height, width), samples=samples,
        shared=shared(store, name=name, preprocess=pre), inputs=np.stack(rows[:4]),
    )  # fmt: skip


def _resnet(path: Path) -> Path:
    """The example's trained ResNet-20 as ONNX."""
    import torch

    from tests.builders import EXAMPLES

    folder = EXAMPLES / "resnet20_cifar10"
    # Both examples call their module `model`; this one gets a name of its own.
    spec = importlib.util.spec_from_file_location("resnet20_model", folder / "model.py")
    assert spec is not None  # noqa: S101 - the file is in the repository
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.build().eval()
    net.load_state_dict(torch.load(folder / "resnet20_cifar10.pt", weights_only=True))
    torch.onnx.export(
        net, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False, opset_version=17,
        input_names=["images"], output_names=["logits"],
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip
    return path


def cases(work: Path, store: Any) -> dict[str, Case]:
    """All models."""
    from engineworks.specs import Preprocess
    from tests.builders import EXAMPLES, YOLOX_PREPROCESS, export_yolox

    tiny = sorted((EXAMPLES / "resnet20_cifar10" / "data" / "test").glob("*/000?.jpg"))
    seen = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    classifier = _base(work, store, "resnet20", _resnet(work / "resnet.onnx"), tiny, seen)
    photos = sorted((EXAMPLES / "yolox_nano/data/train2017").glob("*.jpg"))[:IMAGES]
    large = export_yolox(work / "yolox.onnx")
    detector = _base(work, store, "yolox", large, photos, YOLOX_PREPROCESS)
    found = {
        name: Case(base=detector, make=make, sound=_heads.none, damages=_heads.DAMAGES)
        for name, make in _heads.DETECTORS.items()
    }
    return found | {
        name: Case(
            base=classifier, make=make, sound=_heads.logits_none, damages=_heads.CLASS_DAMAGES
        )
        for name, make in _heads.CLASSIFIERS.items()
    }


def verdicts(case: Case, store: Any, work: Path) -> dict[str, Any]:
    """The verdict on the sound engine and on each damaged one, with what was checked."""
    from onnx import save

    from engineworks import hosts
    from engineworks.export.torch_onnx import runner
    from engineworks.specs import BudgetSpec
    from engineworks.stages.build import BuildRequest, build
    from engineworks.stages.check import CheckRequest, check
    from engineworks.verdict import decide
    from tests.builders import put_onnx, put_reference

    host, base = hosts.probe(), case.base
    path = work / "float.onnx"
    save(case.make(base.floats, case.sound), str(path))
    source = put_onnx(store, path)
    reference = put_reference(store, work, base.inputs, runner(path)(base.inputs))
    found = {}
    for word, damage in {"sound": case.sound, **case.damages}.items():
        path = work / "int8.onnx"
        save(case.make(base.integers, damage), str(path))
        built = build(
            BuildRequest(
                shared=base.shared, onnx=put_onnx(store, path), reference=None, target=TARGET,
                precision="int8", options={}, tools={}, host=host, builder=host,
            )
        )  # fmt: skip
        checked = check(
            CheckRequest(
                shared=base.shared, engine=built.engine, reference=reference, metric="",
                value=None, data=None, size=base.size, largest_batch=2, float_predictions=None,
                float_onnx=source, samples=base.samples, folder=str(work), code_sha256="",
                threads=0, tools={}, host=host,
            )
        )  # fmt: skip
        found[word] = decide(BudgetSpec(), built, checked, None), checked
    return found


def run(names: Iterable[str] = ()) -> tuple[list[Bar], dict[str, Any]]:
    """Judge every model's engines."""
    from engineworks.store import LocalStore

    rejected = passed = 0
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work, store = Path(folder), LocalStore(Path(folder, "store"))
        models = cases(work, store)
        models = {name: models[name] for name in names or models}
        for name, case in models.items():
            found = verdicts(case, store, work)
            sound, checked = found.pop("sound")
            good = sound.verdict == "shipped" and checked.parity.holds
            good = good and checked.meaning is not None and checked.meaning.judged
            missed = [word for word, (_, bad) in found.items() if bad.meaning.holds]
            passed, rejected = passed + good, rejected + (not missed)
            rows[name] = {
                "sound": sound.reason, "missed": missed,
                **{word: dataclasses.asdict(verdict) for word, (verdict, _) in found.items()},
            }  # fmt: skip
            print(f"{name:<10} sound: {sound.verdict}, {sound.reason}", flush=True)
            for word, (verdict, _) in found.items():
                print(f"           {word}: {verdict.verdict}, {verdict.reason}", flush=True)
    count = len(models)
    bars = [
        Bar("damaged INT8 rejected for what it means", rejected, f"of {count}", count, True),
        Bar("sound INT8 passes parity and meaning", passed, f"of {count}", count, True),
    ]
    return bars, {"models": rows}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    bars, details = run(sys.argv[1:])
    raise SystemExit(finish("faults_meaning", bars, details))
