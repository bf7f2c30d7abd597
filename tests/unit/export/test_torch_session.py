"""A PyTorch model as a session: the same answers as the source, alone and spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engineworks.errors import ArtifactError, ModelError
from engineworks.export import torch_session
from engineworks.runtime.session_pool import SessionPool
from engineworks.specs import Preprocess
from tests.builders import pinned, samples, tiny_module, write

X = samples()

FACTORY = """
from tests.builders import tiny_module as build
"""


def save(form, folder):
    """A pinned source of one form."""
    if form == "factory":
        write(folder / "ewtest_session_model.py", FACTORY)
        return pinned(folder, source="ewtest_session_model:build")
    module, example = tiny_module(), torch.from_numpy(X)
    if form == "torchscript":
        torch.jit.trace(module, example).save(str(folder / "model.torchscript"))
        return pinned(folder, source="model.torchscript")
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(
        torch.export.export(module, (example,), dynamic_shapes=shapes), folder / "model.pt2"
    )
    return pinned(folder, source="model.pt2")


@pytest.fixture(params=["factory", "torchscript", "pt2"])
def opener(request, tmp_path):
    return torch_session.opener(save(request.param, tmp_path), "tiny", Preprocess())


def wanted(rows):
    with torch.inference_mode():
        return tiny_module()(torch.from_numpy(np.ascontiguousarray(rows))).numpy()


def test_it_answers_as_the_model_does_at_every_batch(opener):
    with opener(0, 1) as session:
        (given,), (answer,) = session.inputs, session.outputs
        for rows in (X, X[:1], X[::-1]):
            got = session.infer({given.name: np.ascontiguousarray(rows)})[answer.name]
            np.testing.assert_allclose(got, wanted(rows), rtol=1e-5, atol=1e-6)
        with pytest.raises(ValueError, match="must be float32"):
            session.infer({given.name: X[:, :2].copy()})


def test_it_is_spread_as_an_engine_is(opener):
    with SessionPool(opener, [0, 0], threads=1) as pool:
        name = pool.session.inputs[0].name
        answers = list(pool.map({name: x[None]} for _ in range(10) for x in X))
        assert sum(share.calls for share in pool.shares()) == 10 * len(X)
    got = np.concatenate([next(iter(answer.values())) for answer in answers])
    np.testing.assert_allclose(got, np.tile(wanted(X), (10, 1)), rtol=1e-5, atol=1e-6)


def test_a_gpu_that_is_not_there_is_refused_by_its_number(opener):
    for device in (63, -1):
        with pytest.raises(ArtifactError, match=f"there is no device {device}"):
            opener(device, 1)


def test_an_onnx_file_is_no_model_of_pytorch(tmp_path, tiny_onnx):
    (tmp_path / "model.onnx").write_bytes(tiny_onnx.read_bytes())
    source = pinned(tmp_path, source="model.onnx")
    with pytest.raises(ModelError, match="PyTorch does not run"):
        torch_session.opener(source, "tiny", Preprocess())


def test_a_batch_that_the_model_is_not_made_for_is_refused_in_words(tmp_path):
    program = torch.export.export(tiny_module(), (torch.from_numpy(X[:1]),))
    torch.export.save(program, tmp_path / "model.pt2")
    source = pinned(tmp_path, source="model.pt2")
    refused = pytest.raises(ModelError, match=r"at an input of shape \[4, 3, 16, 16\]")
    with torch_session.opener(source, "tiny", Preprocess())(0, 1) as session, refused:
        session.infer({session.inputs[0].name: X})


def test_a_graph_that_names_a_device_is_moved_with_it(tmp_path):
    class Named(torch.nn.Module):
        def forward(self, x):
            return x.to(torch.float64).mean((2, 3)) + torch.arange(3, device=x.device)

    program = torch.export.export(Named(), (torch.from_numpy(X[:1]),))
    moved = torch_session._on(program, "pt2", "meta")
    assert moved(torch.empty(1, 3, 16, 16, device="meta")).device.type == "meta"


def test_a_factory_that_gives_one_module_gives_every_session_its_own(tmp_path):
    write(tmp_path / "ewtest_shared_model.py", "from tests.builders import tiny_module\n"
          "MODULE = tiny_module()\ndef build(): return MODULE\n")  # fmt: skip
    opener = torch_session.opener(
        pinned(tmp_path, source="ewtest_shared_model:build"), "tiny", Preprocess()
    )
    with opener(0, 1) as one, opener(0, 1) as other:
        assert one._module is not other._module
        assert one.manifest.details == {"device": torch_session.place(0)}
        assert not torch.backends.cudnn.allow_tf32
