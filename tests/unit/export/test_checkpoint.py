"""Weights are found where training programs put them, and never chosen in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engineworks.errors import ModelError, RecipeError
from engineworks.export import checkpoint
from engineworks.specs import InputSpec, ModelSpec


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


LAST, EMA = net(1).state_dict(), net(2).state_dict()


def before(prefix, state=LAST):
    return {prefix + name: value for name, value in state.items()}


def inner_compiled():
    return {name.replace("0.", "0._orig_mod.", 1): value for name, value in LAST.items()}


ONE = {
    "plain": (LAST, ""),
    "state_dict": ({"state_dict": LAST, "epoch": 3}, "state_dict"),
    "module.": ({"state_dict": before("module.")}, "state_dict.module"),
    "lightning": ({"state_dict": before("model."), "loops": {"a": 1}}, "state_dict.model"),
    "compiled": (before("_orig_mod."), ""),
    "compiled part": (inner_compiled(), ""),
    "both": ({"model": before("module._orig_mod.")}, "model.module"),
    "ema.module": ({"ema": {"module": LAST, "updates": 10}}, "ema.module"),
    "params": ({"params": LAST}, "params"),
    "swa": ({"n_averaged": torch.tensor(3), **before("module.")}, "module"),
    "with a loss": ({"state_dict": {**before("net."), "loss.w": torch.ones(2)}}, "state_dict.net"),
    "optimizer": (
        {"model": LAST, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, "model",
    ),
    "equal twins": ({"model": LAST, "ema": {k: v.clone() for k, v in LAST.items()}}, "model"),
}  # fmt: skip

TWO = {
    "timm": ({"state_dict": LAST, "state_dict_ema": EMA}, "state_dict", "state_dict_ema"),
    "model and ema": (
        {"model": LAST, "ema": {"module": EMA, "updates": 1}}, "model", "ema.module",
    ),
    "prefixes": (
        {"state_dict": {**before("model."), **before("model_ema.", EMA)}},
        "state_dict.model", "state_dict.model_ema",
    ),
    "top and ema.": ({**LAST, **before("ema.", EMA)}, "the top", "ema"),
    "beside old": ({"model": {**LAST, **before("ema.", EMA)}}, "model", "model.ema"),
    "network and ema": (
        {**before("net."), **before("net.ema.", EMA)},
        "net", "net.ema",
    ),
    "generator": ({"params": LAST, "params_ema": EMA}, "params", "params_ema"),
}  # fmt: skip


def load(tmp_path, content, key=""):
    torch.save(content, tmp_path / "w.pt")
    module = net()
    said = checkpoint.load(module, tmp_path / "w.pt", trust=False, key=key, source="model:build")
    return module, said


def same(module, state):
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("form", ONE)
def test_the_only_weights_that_fit_are_taken_and_said(form, tmp_path):
    content, key = ONE[form]
    module, said = load(tmp_path, content)
    assert same(module, LAST)
    assert said.partition(",")[0] == (f"weights from {key}" if key else "")
    assert ("left aside" in said) == (form in ("swa", "with a loss"))


@pytest.mark.parametrize("form", TWO)
def test_two_that_differ_are_a_choice(form, tmp_path):
    content, last, ema = TWO[form]
    with pytest.raises(ModelError, match="2 different sets") as caught:
        load(tmp_path, content)
    assert f"model.weights_key: {ema}" in caught.value.hint
    assert repr(last) in caught.value.message
    assert same(load(tmp_path, content, key=last)[0], LAST)
    module, said = load(tmp_path, content, key=ema)
    assert same(module, EMA)
    assert ema in said


def test_a_key_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with pytest.raises(ModelError, match="'emma'") as caught:
        load(tmp_path, TWO["timm"][0], key="emma")
    assert "state_dict, state_dict_ema" in caught.value.hint


def test_one_layer_more_or_less_is_no_fit(tmp_path):
    less = dict(list(before("module.").items())[:-1])
    more = {**before("module."), "module.extra": torch.ones(1)}
    for content, word in ((less, "3.bias"), (more, "extra")):
        with pytest.raises(ModelError, match="does not fit") as caught:
            load(tmp_path, {"state_dict": content})
        assert word in caught.value.message
        assert "(state_dict.module)" in caught.value.message


def test_no_tensors_are_no_weights(tmp_path):
    with pytest.raises(ModelError, match="its keys: epoch, lr"):
        load(tmp_path, {"epoch": 1, "lr": 0.1})


def test_torchscript_given_as_weights_is_named(tmp_path):
    torch.jit.trace(net().eval(), torch.ones(1, 3, 3, 3)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match="TorchScript") as caught:
        checkpoint.load(net(), tmp_path / "w.pt", trust=False, key="", source="model:build")
    assert "w.torchscript" in caught.value.hint


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt"])
def test_a_source_that_may_be_either_is_told_both_ways(name):
    with pytest.raises(RecipeError) as caught:
        ModelSpec(source=name, input=InputSpec(size=(8, 8)))
    assert "m.torchscript" in caught.value.hint
    assert "model.weights" in caught.value.hint


@pytest.mark.parametrize("other", ["discriminator.", "_orig_mod.", "old."])
def test_names_without_a_prefix_are_not_passed_over_for_others(other, tmp_path):
    content = {**LAST, **before(other, EMA)}
    for file, first in ((content, "the top"), ({"model": content}, "model")):
        with pytest.raises(ModelError, match="2 different sets") as caught:
            load(tmp_path, file)
        assert repr(first) in caught.value.message
        assert other.rstrip(".") in caught.value.message
        assert "averaged" not in caught.value.hint
        assert same(load(tmp_path, file, key=first)[0], LAST)


def test_a_larger_network_is_not_cut_down_to_this_one(tmp_path):
    with pytest.raises(ModelError, match="does not fit"):
        load(tmp_path, {**LAST, "head2.weight": torch.ones(2)})


@pytest.mark.parametrize("ema", [
    {"ema": {"decay": 0.9, "shadow_params": list(EMA.values())}},
    {"shadow": list(EMA.values())},
    {"model_ema": {name.replace(".", ""): value for name, value in EMA.items()}},
])  # fmt: skip
def test_an_average_without_names_is_told_of(ema, tmp_path):
    module, said = load(tmp_path, {"model": LAST, **ema})
    assert same(module, LAST)
    assert "weights from model; averaged weights (EMA) at " + next(iter(ema)) in said
    assert "cannot be matched by name" in said


def test_complex_weights_are_refused(tmp_path):
    content = {k: v.to(torch.complex64) if v.is_floating_point() else v for k, v in LAST.items()}
    with pytest.raises(ModelError, match=r"'0.weight' in w.pt is complex64.* float32"):
        load(tmp_path, content)


def refused(tmp_path, state):
    path = tmp_path / "w.pt"
    torch.save(state, path)
    with pytest.raises(ModelError) as told:
        checkpoint.load(net(0), path, trust=False, key="", source="model:build")
    return told.value.message


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(tmp_path, dtype):
    """PyTorch would copy them: 0.13 becomes 0, or 13 where somebody multiplied by 100."""
    small = {**LAST, "3.weight": (LAST["3.weight"] * 100).to(dtype)}
    assert "'3.weight' in w.pt is" in refused(tmp_path, small)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are(tmp_path, dtype):
    path = tmp_path / "w.pt"
    torch.save({**LAST, "3.weight": LAST["3.weight"].to(dtype)}, path)
    module = net(0)
    checkpoint.load(module, path, trust=False, key="", source="model:build")
    wanted = LAST["3.weight"].to(dtype).float()
    assert torch.equal(module.state_dict()["3.weight"], wanted)


def test_what_pytorch_forgives_is_named(tmp_path):
    """A batch norm's counter is missing: load_state_dict says nothing, and so did the refusal."""
    lacking = {name: v for name, v in LAST.items() if "num_batches" not in name}
    assert "it lacks '1.num_batches_tracked' (1 in all)" in refused(tmp_path, lacking)
    other = {**LAST, "1.num_batches_tracked": torch.zeros(1, dtype=torch.long)}
    assert "'1.num_batches_tracked' is [1], not []" in refused(tmp_path, other)


@pytest.mark.parametrize("how", ["sparse", "meta"])
def test_tensors_that_hold_no_plain_numbers_are_refused_in_words(tmp_path, how):
    weight = LAST["3.weight"]
    strange = weight.to_sparse() if how == "sparse" else weight.to("meta")
    told = refused(tmp_path, {**LAST, "3.weight": strange})
    assert "PyTorch cannot copy the weights of w.pt" in told
