"""A small world of deliveries: keys, a repository, tiny engines, a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from engineworks.delivery import enrolment, keyring
from engineworks.delivery.agent import Agent
from engineworks.delivery.cards import Card, Slot
from engineworks.delivery.home import Home
from engineworks.delivery.keyring import Keyring
from engineworks.delivery.metadata import TOP
from engineworks.delivery.repository import Repository
from engineworks.delivery.target import SignedTarget
from engineworks.delivery.transport import Folder
from engineworks.delivery.trial import DeviceTrial
from engineworks.manifest import Provenance, Requires, TensorSpec
from engineworks.store import LocalStore

MODEL, VARIANT = "yolox", "onnxruntime/fp32"


def passes(folder: Path, sealed: Path | None, *, threads: int, limit_s: float) -> DeviceTrial:
    """A trial that every engine passes, without a child process."""
    return DeviceTrial(ok=True, reason="not tried", p50_ms=1.0)


def graph(path: Path, factor: float) -> Path:
    """An ONNX graph of 200 bytes: y = factor * x."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    weight = numpy_helper.from_array(np.array([factor], np.float32), "w")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    made = helper.make_graph([node], "net", [given], [wanted], [weight])
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(made, opset_imports=opsets, ir_version=9), str(path))
    return path


class World:
    """Keys of every role, a repository with the models given, and a store of engines."""

    def __init__(self, folder: Path, *, models: tuple[str, ...] = (MODEL,), root: int = 1) -> None:
        self.folder = folder
        self.store = LocalStore(folder / "store")
        public = {role: [self.key(f"{role}-1")] for role in TOP}
        public["root"] += [self.key(f"root-{n}") for n in range(2, root + 1)]
        self.repository.create(public, {"root": max(1, root - 1)})
        for model in models:
            public_key = self.key(f"model-{model}")
            self.repository.delegate(model, [public_key])
        self.generation = 0

    def key(self, name: str) -> Any:
        return keyring.make(self.folder / "keys" / f"{name}.pem")

    @property
    def repository(self) -> Repository:
        return Repository(self.folder / "repository", Keyring([self.folder / "keys"]))

    def engine(
        self, factor: float, *, extra: dict[str, bytes] | None = None, **fields: Any
    ) -> Path:
        """An engine whose answer is `factor` times its input."""
        files = {"model.onnx": graph(self.folder / f"{factor}.onnx", factor)}
        for name, data in (extra or {}).items():
            files[name] = self.folder / f"extra-{name.replace('/', '-')}"
            files[name].write_bytes(data)
        x = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
        values: dict[str, Any] = {
            "kind": "engine", "name": "net", "entry": "model.onnx", "inputs": (x,),
            "outputs": (dataclasses.replace(x, name="y"),), "target": "onnxruntime",
            "precision": "fp32", "requires": Requires(runtime="onnxruntime"),
            "provenance": Provenance(stage="test"),
        }  # fmt: skip
        artifact = self.store.put(files, **{**values, **fields})
        return self.store.open(artifact)

    def put(
        self, engine: Path, *, model: str = MODEL, variant: str = VARIANT, **said: Any
    ) -> SignedTarget:
        """Publish an engine as the next generation."""
        self.generation = said.pop("generation", self.generation + 1)
        before = self.repository.target(model, variant)
        allowed = (before.sha256, *before.allowed) if before else ()
        allowed = tuple(dict.fromkeys(one for one in allowed if one != engine.name))
        values = {"version": str(self.generation), "allowed": allowed, **said}
        target = SignedTarget(
            model=model, variant=variant, sha256=engine.name, generation=self.generation, **values
        )
        return self.repository.put(model, variant, engine, target)

    def device(self, name: str = "device", card: Card | None = None, **fields: Any) -> Home:
        """An enrolled device."""
        home = Home(self.folder / name)
        invitation = self.folder / f"{name}.invite"
        root = self.repository.root.to_bytes()
        invitation.write_text(enrolment.invite(str(self.folder / "repository"), root))
        slots = {"main": Slot(model=MODEL, variant=VARIANT)}
        values: dict[str, Any] = {"slots": slots, "watch_s": 0.0, "margin_mib": 1.0, **fields}
        enrolment.enrol(home, invitation, card or Card(**values))
        return home

    def agent(self, home: Home, **parts: Any) -> Agent:
        """Its agent, which reads the repository's folder and tries nothing."""
        values = {"source": Folder(self.folder / "repository"), "tries": passes, **parts}
        return Agent(home, **values)


def running(home: Home, name: str = "main") -> str:
    """Identity of the engine that a slot's link leads to; empty: none."""
    link = home.current(name)
    return link.resolve(strict=True).name if link.is_symlink() else ""
