"""The recorded truth comes back as it was."""

from __future__ import annotations

import numpy as np

from engineworks.export import reference


def test_inputs_and_answers_come_back_in_the_models_order(tmp_path):
    inputs = np.random.default_rng(0).random((2, 3, 4, 4), np.float32)
    outputs = {
        "z": np.arange(2, dtype=np.int64),
        "a/b:0": np.ones((2, 5), np.float16),
        "inputs": np.zeros(2, np.float32),
    }
    reference.save(tmp_path / "r.npz", inputs, outputs)
    found_inputs, found = reference.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(found_inputs, inputs)
    assert list(found) == list(outputs)
    for name, answer in outputs.items():
        np.testing.assert_array_equal(found[name], answer)
        assert found[name].dtype == answer.dtype
