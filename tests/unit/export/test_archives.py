"""A poisoned `.pt2` or TorchScript file is refused before anything in it has run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from engineworks.errors import ModelError
from engineworks.export.source import open_source
from tests.builders import pinned, samples, tiny_module
from tests.unit.export.test_source import Trap

X = samples(2)
OPEN = ({0: torch.export.Dim.DYNAMIC},)


class Sized(nn.Module):
    """Its program has conditions and computed sizes."""

    def forward(self, x):
        if x.shape[0] * 2 > 3:
            x = x + 1
        return x.reshape(x.shape[0] * 3, -1)


def saved(module, shapes=None):
    file = io.BytesIO()
    example = torch.from_numpy(X if shapes else X[:1])
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    torch.export.save(program, file)
    return file.getvalue()


def changed(data, change):
    """The same archive after `change(parts)`, a dict of names and bytes."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    parts = {
        name: reader.get_record(name)
        for name in reader.get_all_records()
        if not name.startswith(".data") and name != "byteorder"
    }
    change(parts)
    file = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(file)
    writer.set_min_version(6)
    for name, content in parts.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return file.getvalue()


def in_json(name, edit):
    def change(parts, folder):
        program = json.loads(parts[name])
        edit(program, f"__import__('os').mkdir({str(folder / 'sprung')!r})", folder)
        parts[name] = json.dumps(program).encode()

    return change


def poison_inputs(parts, folder):
    file = io.BytesIO()
    torch.save(((Trap(folder),), {}), file)
    parts["data/sample_inputs/model.pt"] = file.getvalue()


def poison_weight(parts, folder):
    config = json.loads(parts["data/weights/model_weights_config.json"])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    parts["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    file = io.BytesIO()
    torch.save(Trap(folder), file)
    parts[f"data/weights/{first['path_name']}"] = file.getvalue()


def poison_constant(parts, folder):
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True,
             "tensor_meta": None}  # fmt: skip
    parts["data/constants/model_constants_config.json"] = json.dumps(
        {"config": {"k": entry}}
    ).encode()
    parts["data/constants/opaque_obj_0"] = pickle.dumps(Trap(folder))


def set_target(target, *arguments):
    def edit(program, code, folder):
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = target
        node["inputs"] = [
            {"name": "", "arg": {"as_string": str(folder / "sprung")}, "kind": 1}, *arguments
        ]  # fmt: skip

    return edit


def set_name(program, code, folder):
    """The name of the input stands in source that is generated and run."""
    text = json.dumps(program).replace('"x"', json.dumps(f"x={code}"))
    program.clear()
    program.update(json.loads(text))


def set_size(program, code, folder):
    values = program["graph_module"]["graph"]["sym_int_values"]
    next(v for v in values.values() if "as_expr" in v)["as_expr"]["expr_str"] = code


MODEL = "models/model.json"

POISONS = {
    "inputs": poison_inputs,
    "weight": poison_weight,
    "constant": poison_constant,
    "size": in_json(MODEL, set_size),
    "condition": in_json(MODEL, lambda p, code, f: p.update(guards_code=[f"{code} is None"])),
    "string in a condition": in_json(
        MODEL, lambda p, code, f: p.update(guards_code=[f"'\"+str({code})+\"' != 1"])
    ),
    "name": in_json(MODEL, set_name),
    "function": in_json(MODEL, set_target("torch.serialization.os.mkdir")),
    "file operator": in_json(MODEL, set_target("torch.ops.aten.from_file.default")),
    "library": lambda parts, folder: parts.update(
        {"data/aotinductor/model/x.wrapper.so": b"\x7fELF"}
    ),
}

#: Those that do run when the file is trusted: the refusal is what stops them.
RUN = {"inputs", "weight", "constant", "size", "condition"}


@pytest.fixture(scope="module")
def sized():
    return saved(Sized(), OPEN)


@pytest.fixture(scope="module")
def plain():
    return saved(tiny_module())


@pytest.mark.parametrize("kind", POISONS)
def test_a_poisoned_export_is_refused_and_nothing_has_run(kind, sized, plain, tmp_path):
    data = plain if kind == "weight" else sized
    data = changed(data, lambda parts: POISONS[kind](parts, tmp_path))
    (tmp_path / "m.pt2").write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.pt2") as caught:
        open_source(pinned(tmp_path, "m.pt2"), X[:2])
    assert not (tmp_path / "sprung").exists()
    assert "model.trust: true" in caught.value.hint
    if kind in RUN:
        with contextlib.suppress(Exception):
            open_source(pinned(tmp_path, "m.pt2", trust=True), X[:2])
        assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("before", ["nothing", "a new one"])
def test_an_export_of_an_older_torch_is_refused_without_trust(before, sized, tmp_path):
    (tmp_path / "m.pt2").write_bytes(sized if before == "a new one" else b"")
    with zipfile.ZipFile(tmp_path / "m.pt2", "a") as file:
        file.writestr("version", "8.1")
        file.writestr("serialized_example_inputs.pt", pickle.dumps(Trap(tmp_path)))
    with pytest.raises(ModelError, match="before 2.8"):
        open_source(pinned(tmp_path, "m.pt2"), X[:1])
    assert not (tmp_path / "sprung").exists()


class Many(nn.Module):
    """What programs of networks hold: attention, sizes by arithmetic, texts, nested answers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        with torch.no_grad():
            y = self.conv(x)
        b, c, h, w = y.shape
        t = y.flatten(2).transpose(1, 2)
        t, _ = self.attend(t, t, t)
        larger = nn.functional.interpolate(y, size=(h * 2, w * 2), mode="bilinear")
        picked = larger[(larger > 0.5) & (larger < 0.7)].sum()
        return {"a b": torch.einsum("bnc,n->bc", t, torch.arange(h * w).float()) + picked,
                "deep": (larger, [t.view(b, h, w, c)])}  # fmt: skip


@pytest.mark.parametrize("shapes", [None, ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO},)])
def test_programs_of_networks_pass(shapes, tmp_path):
    (tmp_path / "m.pt2").write_bytes(saved(Many(), shapes))
    opened = open_source(pinned(tmp_path, "m.pt2"), X[:1])
    assert opened.outputs == ("a b", "deep_0", "deep_1_0")


def test_conditions_of_a_network_pass(sized, tmp_path):
    (tmp_path / "m.pt2").write_bytes(sized)
    assert open_source(pinned(tmp_path, "m.pt2"), X[:2]).outputs == ("output",)


class Scripted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


SCRIPTS = {
    "save": "torch.save(x, PATH)",
    "save by method": "x.save(PATH)",
    "map": "x = torch.add(x, torch.sum(torch.from_file(PATH, True, 4)))",
    "extension": "ops.somebody.write(x, PATH)",
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_torchscript_that_touches_files_is_refused_and_has_not_run(kind, tmp_path):
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(Scripted()), scripted)

    def poison(parts):
        name = next(name for name, code in parts.items() if b"def forward(" in code)
        line = SCRIPTS[kind].replace("PATH", json.dumps(str(tmp_path / "sprung")))
        head, returned, rest = parts[name].decode().partition("-> Tensor:\n")
        parts[name] = f"{head}{returned}    {line}\n{rest}".encode()

    (tmp_path / "m.ts").write_bytes(changed(scripted.getvalue(), poison))
    with pytest.raises(ModelError, match=r"m\.ts holds") as caught:
        open_source(pinned(tmp_path, "m.ts"), X[:2])
    assert not (tmp_path / "sprung").exists()
    assert "model.trust: true" in caught.value.hint
    if kind in ("save", "map"):
        open_source(pinned(tmp_path, "m.ts", trust=True), X[:2])
        assert (tmp_path / "sprung").exists()
