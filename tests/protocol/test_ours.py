"""Our own server is asked the protocol suite and answers as Triton did, or the table says why not.

Triton's answers are kept in `triton.json`, renewed by `make test-servers` (tests/servers).
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.protocol import ask, models
from tests.protocol.cases import CASES

TRITON = json.loads((Path(__file__).parent / "triton.json").read_text(encoding="utf-8"))

#: Triton says 500 to what is the client's fault, and 501 or 503 to what it does not do.
FAULT = {"status": 400, "error": "told"}
UNKNOWN = {"status": 404, "error": "told"}
ENCODED = {"status": 415, "error": "told"}

DOUBLE = {"name": "double", "datatype": "FP32", "shape": [1, 4]}
TOTAL = {"name": "total", "datatype": "FP32", "shape": [1, 1]}
DOUBLE_BYTES = "000000400000a0c00000c0400000803e"  # 2, -5, 6, 0.25
TOTAL_BYTES = "0000d03f"  # 1.625


def answered(*outputs, **more):
    content = {"model_name": "{floats}", "model_version": "{version}", "outputs": list(outputs)}
    return {"status": 200, "content": content, **more}


def in_bytes(output, size):
    return {**output, "parameters": {"binary_data_size": size}}


#: Where ours differs from Triton 2.51: the answer, and why.
DIFFERENCES = {
    "an unknown model is not ready": (UNKNOWN, "as its metadata and inference: 404"),
    "another version is not ready": (UNKNOWN, "as its metadata and inference: 404"),
    "unload of an unknown model": (UNKNOWN, "Triton's repository was not under control"),
    "more rows than it takes": (
        answered(
            {**DOUBLE, "shape": [9, 4], "data": [2.0, -5.0, 6.0, 0.25] * 9},
            {**TOTAL, "shape": [9, 1], "data": [1.625] * 9},
        ),
        "larger requests are split in order",
    ),
    "outputs in another order": (
        answered({**TOTAL, "data": [1.625]}, {**DOUBLE, "data": [2.0, -5.0, 6.0, 0.25]}),
        "outputs come in the order they are asked for; Triton keeps the model's",
    ),
    "binary outputs in another order": (
        answered(in_bytes(TOTAL, 4), in_bytes(DOUBLE, 16), binary=TOTAL_BYTES + DOUBLE_BYTES),
        "binary_data_output holds for every output that says nothing itself, as Triton's own page "
        "has it; Triton forgets it where outputs are named",
    ),
    "binary for all, JSON for one": (
        answered(
            {**DOUBLE, "data": [2.0, -5.0, 6.0, 0.25]}, in_bytes(TOTAL, 4), binary=TOTAL_BYTES
        ),
        "the same",
    ),
    "a shape beyond all numbers": (FAULT, "Triton 2.51 ends: the process is gone"),
    "NaN, which is no JSON": (FAULT, "JSON has no NaN; binary tensors have"),
    "brackets within brackets": (FAULT, "the depth of JSON is limited"),
    "a byte that does not fit": (FAULT, "Triton makes 0 of 256 and says nothing"),
    "gzip": (ENCODED, "bodies are not unpacked: a bomb would be; the answer says so"),
    "deflate": (ENCODED, "the same"),
    "called gzip and is not": (ENCODED, "the same"),
    "an encoding nobody knows": (ENCODED, "the same"),
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("protocol")
    named = [f"{name}={engine}" for name, engine in models.engines(folder).items()]
    with servers.serving(folder, *named) as running:
        versions = {
            name: httpx.get(f"{running.url}/v2/models/{name}", trust_env=False).json()["versions"]
            for name in ("floats", "bytes")
        }
        names = {
            "floats": "floats", "bytes": "bytes",
            "version": versions["floats"][0], "bytes_version": versions["bytes"][0],
        }  # fmt: skip
        port = httpx.URL(running.url).port
        yield lambda case: ask.answer(port, case, names)


def test_the_suite_is_whole():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 60
    assert set(TRITON) == set(names) >= set(DIFFERENCES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case(ours, case):
    wanted = TRITON[case.name]
    if wanted["status"] == 500:
        wanted = FAULT
    wanted, _ = DIFFERENCES.get(case.name, (wanted, ""))
    assert ours(case) == wanted


def test_a_difference_that_is_none_stands_in_no_table():
    assert [name for name, (answer, _) in DIFFERENCES.items() if answer == TRITON[name]] == []
