"""Four forms of a trained model are opened, or refused with the reason, before anything costly."""

from __future__ import annotations

import itertools
import os
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from engineworks.errors import ModelError
from engineworks.export.source import open_source
from tests.builders import pinned, samples, tiny_module, write

X = samples(3)
numbers = itertools.count()

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, outputs=5):
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


def build(outputs=5):
    return Net(outputs)


def answer_with(wrap):
    class Wrapped(Net):
        def forward(self, x):
            y = super().forward(x)
            return {
                "tuple": (y, y + 1), "dict": {"scores": y, "deep": [y, y + 1]}, "text": "cat",
                "nothing": (), "none": (y, None), "nan": y / 0 * 0,
                "twins": {"left": {"score": y}, "right": {"score": y + 1}},
            }[wrap]

    return Wrapped()


def fails(): raise RuntimeError("no network today")
def makes_a_list(): return [1, 2]
not_callable = 3
"""


@pytest.fixture
def factory(tmp_path):
    """`source of a function in a module of its own` for each test: imports are cached."""
    name = f"ewtest_model_{next(numbers)}"
    write(tmp_path / f"{name}.py", FACTORY)
    yield lambda function: f"{name}:{function}"
    sys.modules.pop(name, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def module_of(source, folder):
    """The factory's network, made by plain Python."""
    space: dict = {}
    exec((folder / f"{source.partition(':')[0]}.py").read_text(), space)  # noqa: S102
    return space["build"]()


def save_weights(path, source, folder, wrap=lambda state: state):
    torch.manual_seed(1)
    module = module_of(source, folder)
    torch.save(wrap(module.state_dict()), path)
    with torch.no_grad():
        return module.eval()(torch.from_numpy(X)).numpy()


class TestFactory:
    @pytest.mark.parametrize(
        "wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}]
    )
    def test_answers_with_its_weights(self, factory, tmp_path, wrap):
        source = factory("build")
        wanted = save_weights(tmp_path / "w.pt", source, tmp_path, wrap)
        opened = open_source(pinned(tmp_path, source, weights="w.pt"), X[:1])
        assert opened.outputs == ("output",)
        np.testing.assert_allclose(opened.infer(X)["output"], wanted, rtol=1e-5, atol=1e-6)
        assert not opened.module.training

    def test_takes_its_arguments(self, factory, tmp_path):
        opened = open_source(pinned(tmp_path, factory("build"), arguments={"outputs": 7}), X[:1])
        assert opened.infer(X)["output"].shape == (3, 7)

    @pytest.mark.parametrize(
        ("function", "spec", "says"),
        [
            ("fails", {}, "RuntimeError: no network today"),
            ("makes_a_list", {}, "returned list, not a torch module"),
            ("not_callable", {}, "no callable 'not_callable'"),
            ("bild", {}, "no callable 'bild'"),
            ("build", {"arguments": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ],
    )
    def test_that_gives_no_network_is_named(self, factory, tmp_path, function, spec, says):
        with pytest.raises(ModelError, match=says) as caught:
            open_source(pinned(tmp_path, factory(function), **spec), X[:1])
        assert "model.source" in caught.value.message

    @pytest.mark.parametrize(
        ("code", "says"),
        [
            ("import no_such_package_xyz", "no_such_package_xyz"),
            ("1 / 0", "ZeroDivisionError"),
            ("def broken(:", "SyntaxError"),
        ],
    )
    def test_whose_module_does_not_import_is_named(self, tmp_path, code, says):
        name = f"ewtest_broken_{next(numbers)}"
        write(tmp_path / f"{name}.py", code)
        with pytest.raises(ModelError, match=says):
            open_source(pinned(tmp_path, f"{name}:build"), X[:1])

    def test_that_refuses_the_input_is_named_with_its_shape(self, factory, tmp_path):
        with pytest.raises(ModelError, match=r"\[1, 1, 16, 16\]") as caught:
            open_source(pinned(tmp_path, factory("build")), X[:1, :1])
        assert "model.input" in caught.value.hint


class TestWeights:
    def refuse(self, factory, tmp_path, function="build", **spec):
        with pytest.raises(ModelError) as caught:
            open_source(pinned(tmp_path, factory(function), weights="w.pt", **spec), X[:1])
        assert "w.pt" in caught.value.message
        return caught.value

    def test_of_another_network_are_refused_by_layer(self, factory, tmp_path):
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
        assert "conv.weight" in self.refuse(factory, tmp_path).message

    def test_of_another_width_are_refused_by_shape(self, factory, tmp_path):
        torch.save(nn.Sequential().state_dict(), tmp_path / "w.pt")
        state = module_of(factory("build"), tmp_path).state_dict()
        torch.save({key: value[:4] for key, value in state.items()}, tmp_path / "w.pt")
        assert "4, 3, 3, 3" in self.refuse(factory, tmp_path).message

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_that_are_cut_are_refused_as_damaged(self, factory, tmp_path, share, zipped):
        state = {f"w{i}": torch.zeros(500) for i in range(9)}
        torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        os.truncate(tmp_path / "w.pt", int((tmp_path / "w.pt").stat().st_size * share))
        assert "copy it again" in self.refuse(factory, tmp_path).hint

    @pytest.mark.parametrize(
        "content", [b"<html>404 Not Found</html>", bytes(100), b"PK\3\4"],
        ids=["web page", "zeros", "zip"],
    )  # fmt: skip
    def test_that_are_no_weights_are_not_to_be_trusted(self, factory, tmp_path, content):
        (tmp_path / "w.pt").write_bytes(content)
        error = self.refuse(factory, tmp_path)
        assert "trust" not in error.hint
        assert "pickled" not in error.message

    def test_a_list_is_no_state_dict(self, factory, tmp_path):
        torch.save([torch.zeros(1)], tmp_path / "w.pt")
        assert "list" in self.refuse(factory, tmp_path).message

    def test_pickled_code_is_refused_without_trust_and_not_run(self, factory, tmp_path):
        source = factory("build")
        torch.save({"state_dict": module_of(source, tmp_path).state_dict(), "x": Trap(tmp_path)},
                   tmp_path / "w.pt")  # fmt: skip
        assert "trust: true" in self.refuse(lambda function: source, tmp_path).hint
        assert not (tmp_path / "sprung").exists()
        open_source(pinned(tmp_path, source, weights="w.pt", trust=True), X[:1])
        assert (tmp_path / "sprung").exists()


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "sprung"),)


class TestAnswers:
    @pytest.mark.parametrize(
        ("wrap", "names"),
        [("tuple", ("output_0", "output_1")), ("dict", ("scores", "deep_0", "deep_1"))],
    )
    def test_of_several_tensors_are_named(self, factory, tmp_path, wrap, names):
        model = pinned(tmp_path, factory("answer_with"), arguments={"wrap": wrap})
        opened = open_source(model, X[:1])
        answers = opened.infer(X)
        assert opened.outputs == tuple(answers) == names
        np.testing.assert_allclose(answers[names[-1]], answers[names[0]] + 1, rtol=1e-5)

    def test_get_the_recipes_names_in_order(self, factory, tmp_path):
        model = pinned(
            tmp_path, factory("answer_with"), arguments={"wrap": "tuple"}, outputs=("low", "high")
        )
        answers = open_source(model, X[:1]).infer(X)
        assert (answers["high"] > answers["low"]).all()

    def test_and_names_must_be_as_many(self, factory, tmp_path):
        model = pinned(tmp_path, factory("build"), outputs=("a", "b"))
        with pytest.raises(ModelError, match="names 2 outputs, the model has 1"):
            open_source(model, X[:1])

    @pytest.mark.parametrize(
        ("wrap", "says"),
        [("text", "str"), ("none", "NoneType"), ("nothing", "no output|nothing"), ("nan", "NaN")],
    )
    def test_that_are_no_numbers_are_refused(self, factory, tmp_path, wrap, says):
        model = pinned(tmp_path, factory("answer_with"), arguments={"wrap": wrap})
        with pytest.raises(ModelError, match=says):
            open_source(model, X[:1])

    def test_of_the_same_name_are_kept_apart(self, factory, tmp_path):
        model = pinned(tmp_path, factory("answer_with"), arguments={"wrap": "twins"})
        opened = open_source(model, X[:1])
        assert len(set(opened.outputs)) == len(opened.infer(X)) == 2


def wanted_of(module):
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


class TestFiles:
    def test_an_onnx_file_answers_row_by_row(self, tiny_onnx):
        opened = open_source(pinned(tiny_onnx.parent, tiny_onnx.name), X[:1])
        assert opened.outputs == ("scores",)
        wanted = wanted_of(tiny_module())
        np.testing.assert_allclose(opened.infer(X)["scores"], wanted, atol=1e-5)

    def test_an_onnx_file_with_a_fixed_batch_answers_many_rows(self, tiny_onnx, tmp_path):
        model = onnx.load(str(tiny_onnx))
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, str(tmp_path / "fixed.onnx"))
        opened = open_source(pinned(tmp_path, "fixed.onnx"), X[:1])
        assert opened.infer(X)["scores"].shape == (3, 5)

    def test_a_torchscript_file_answers(self, tmp_path):
        module = tiny_module()
        torch.jit.trace(module, torch.from_numpy(X[:1])).save(str(tmp_path / "m.torchscript"))
        opened = open_source(pinned(tmp_path, "m.torchscript"), X[:1])
        np.testing.assert_allclose(opened.infer(X)["output"], wanted_of(module), atol=1e-5)

    def test_a_torch_export_file_answers(self, tmp_path):
        module = tiny_module()
        program = torch.export.export(module, (torch.from_numpy(X[:1]),))
        torch.export.save(program, tmp_path / "m.pt2")
        opened = open_source(pinned(tmp_path, "m.pt2"), X[:1])
        np.testing.assert_allclose(opened.infer(X)["output"], wanted_of(module), atol=1e-5)

    @pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.torchscript"])
    @pytest.mark.parametrize(
        "content", [b"", b"no model", bytes(range(256)) * 20], ids=["empty", "text", "bytes"]
    )
    def test_a_file_of_something_else_is_named(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=rf"model\.source: .*{name}"):
            open_source(pinned(tmp_path, name), X[:1])

    def test_a_cut_onnx_file_is_named(self, tiny_onnx, tmp_path):
        whole = tiny_onnx.read_bytes()
        (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelError, match=r"m\.onnx"):
            open_source(pinned(tmp_path, "m.onnx"), X[:1])

    def test_an_onnx_file_with_two_inputs_is_refused_by_their_names(self, tmp_path):
        pair = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 16, 16])
            for name in ("left", "right", "sum")
        ]
        node = onnx.helper.make_node("Add", ["left", "right"], ["sum"])
        graph = onnx.helper.make_graph([node], "g", pair[:2], pair[2:])
        opset = onnx.helper.make_opsetid("", 17)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.save(model, str(tmp_path / "two.onnx"))
        with pytest.raises(ModelError, match=r"2 inputs \(left, right\)"):
            open_source(pinned(tmp_path, "two.onnx"), X[:1])

    @pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 3, 2, 2)])
    def test_an_onnx_file_that_refuses_the_input_is_named(self, tiny_onnx, shape):
        with pytest.raises(ModelError, match="refuses an input of shape"):
            open_source(pinned(tiny_onnx.parent, tiny_onnx.name), np.zeros(shape, np.float32))
