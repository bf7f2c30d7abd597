"""The cases of the Open Inference Protocol suite, as bytes that go over HTTP.

`{floats}` and `{bytes}` stand for the two models that every server under test holds
(`models.py`), `{version}` for the version that it gives them. Source:
https://github.com/kserve/open-inference-protocol and Triton's extensions for binary tensors,
the repository and classification.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INFER = "/v2/models/{floats}/infer"
BYTES = "/v2/models/{bytes}/infer"
LENGTH = "Inference-Header-Content-Length"

#: One row of the model `floats`: FP32 [batch, 4].
ROW = [1.0, -2.5, 3.0, 0.125]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request."""

    name: str
    method: str = "POST"
    path: str = INFER
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: int = 0
    """Send the body in so many chunks, without its length."""


def get(name: str, path: str, **options: Any) -> Case:
    return Case(name=name, method="GET", path=path, **options)


def tensor(rows: int = 1, **changes: Any) -> dict[str, Any]:
    """The input of the model `floats` as JSON; a value None leaves a key out."""
    given: dict[str, Any] = {
        "name": "x",
        "datatype": "FP32",
        "shape": [rows, 4],
        "data": ROW * rows,
    }
    given.update(changes)
    return {key: value for key, value in given.items() if value is not None}


def ask(name: str, *inputs: dict[str, Any], path: str = INFER, **top: Any) -> Case:
    body = json.dumps({"inputs": list(inputs) or [tensor()], **top}).encode()
    return Case(name=name, path=path, body=body)


def raw(name: str, body: bytes | str, path: str = INFER, **headers: str) -> Case:
    body = body.encode() if isinstance(body, str) else body
    return Case(
        name=name,
        path=path,
        body=body,
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )


def binary(
    name: str, *, rows: int = 1, data: bytes | None = None, size: Any = "right",
    head: Any = "right", tail: bytes = b"", **top: Any,
) -> Case:  # fmt: skip
    """A request whose tensor follows its JSON as bytes."""
    data = np.array(ROW * rows, np.float32).tobytes() if data is None else data
    length = len(data) if size == "right" else size
    given = tensor(rows, data=None, parameters={"binary_data_size": length})
    text = json.dumps({"inputs": [given], **top}).encode()
    headers = {LENGTH: str(len(text)) if head == "right" else head}
    return Case(name=name, body=text + data + tail, headers=headers)


def whole(name: str, values: Any, **changes: Any) -> Case:
    """The input of the model `bytes`: UINT8 [batch, 2]."""
    given = {"name": "x", "datatype": "UINT8", "shape": [1, 2], "data": values, **changes}
    return ask(name, {k: v for k, v in given.items() if v is not None}, path=BYTES)


BINARY_OUT = {"parameters": {"binary_data_output": True}}
PLAIN = json.dumps({"inputs": [tensor()]}).encode()
DEEP = 20_000

CASES: tuple[Case, ...] = (
    # Health and metadata
    get("live", "/v2/health/live"),
    get("ready", "/v2/health/ready"),
    get("server metadata", "/v2"),
    get("model metadata", "/v2/models/{floats}"),
    get("model metadata of a version", "/v2/models/{floats}/versions/{version}"),
    get("metadata of bytes", "/v2/models/{bytes}"),
    get("metadata of another version", "/v2/models/{floats}/versions/99"),
    get("metadata of a version that is no number", "/v2/models/{floats}/versions/latest"),
    get("metadata of an unknown model", "/v2/models/nothing"),
    get("model ready", "/v2/models/{floats}/ready"),
    get("model ready of a version", "/v2/models/{floats}/versions/{version}/ready"),
    get("an unknown model is not ready", "/v2/models/nothing/ready"),
    get("another version is not ready", "/v2/models/{floats}/versions/99/ready"),
    get("no such path", "/v2/nothing"),
    get("infer by GET", INFER),
    Case(name="infer by PUT", method="PUT", body=PLAIN),
    Case(name="live by POST", path="/v2/health/live"),
    # Inference in JSON
    ask("one row"),
    ask("one row of a version", path="/v2/models/{floats}/versions/{version}/infer"),
    ask("of another version", path="/v2/models/{floats}/versions/99/infer"),
    ask("of an unknown model", path="/v2/models/nothing/infer"),
    ask("three rows", tensor(3)),
    ask("rows nested by the shape", tensor(2, data=[ROW, ROW])),
    ask("as many rows as it takes", tensor(8)),
    ask("more rows than it takes", tensor(9)),
    ask("an id", id="abc-1"),
    ask("an id beyond ASCII", id="fünf"),
    ask("an id that is a number", id=7),
    ask("one output", outputs=[{"name": "double"}]),
    ask("outputs in another order", outputs=[{"name": "total"}, {"name": "double"}]),
    ask("no outputs asked for", outputs=[]),
    ask("an unknown output", outputs=[{"name": "half"}]),
    ask("an output without a name", outputs=[{}]),
    ask("outputs that are no list", outputs={"name": "double"}),
    ask("whole numbers for floats", tensor(data=[1, -2, 3, 0])),
    ask("exponents and signed zero", tensor(data=[1e-3, -0.0, 2.5e2, 1e38])),
    ask("true and false for floats", tensor(data=[True, False, True, False])),
    ask("text for floats", tensor(data=["1", "2", "3", "4"])),
    ask("null for floats", tensor(data=[1.0, None, 3.0, 4.0])),
    ask("an object for data", tensor(data={"0": 1.0})),
    ask("too few numbers", tensor(data=ROW[:3])),
    ask("too many numbers", tensor(data=[*ROW, 1.0])),
    ask("no data", tensor(data=None)),
    ask("no inputs", path=INFER, inputs=[]),
    raw("no key inputs", "{}"),
    raw("inputs that are an object", '{"inputs": {"name": "x"}}'),
    raw("inputs that are numbers", '{"inputs": [1]}'),
    ask("an unknown input", tensor(name="y")),
    ask("an input too many", tensor(), tensor(name="y")),
    ask("an input twice", tensor(), tensor()),
    ask("an input without a name", tensor(name=None)),
    ask("another datatype", tensor(datatype="INT32")),
    ask("a datatype in small letters", tensor(datatype="fp32")),
    ask("a datatype that is none", tensor(datatype="FLOAT")),
    ask("no datatype", tensor(datatype=None)),
    ask("no shape", tensor(shape=None)),
    ask("a shape of another rank", tensor(shape=[4])),
    ask("a shape with a dimension too many", tensor(shape=[1, 4, 1])),
    ask("another dimension", tensor(shape=[1, 5], data=[*ROW, 1.0])),
    ask("no row", tensor(shape=[0, 4], data=[])),
    ask("a negative dimension", tensor(shape=[-1, 4])),
    ask("a shape of fractions", tensor(shape=[1.5, 4])),
    ask("a shape of booleans", tensor(shape=[True, 4])),
    ask("a shape in words", tensor(shape="1,4")),
    ask("a shape beyond all numbers", tensor(shape=[2**31, 2**31])),
    ask("a shape of 65 dimensions", tensor(shape=[1] * 64 + [4])),
    ask("parameters nobody knows", parameters={"colour": "blue"}),
    ask("parameters that are a list", parameters=[1]),
    ask("a key nobody knows", colour="blue"),
    raw("an empty body", b""),
    raw("a body that is no JSON", "inputs=1"),
    raw("a body that is a list", "[]"),
    raw("a body that is a number", "7"),
    raw("JSON that ends early", PLAIN[:-2]),
    raw("JSON with something behind it", PLAIN + b"{}"),
    raw("NaN, which is no JSON", PLAIN.replace(b"3.0", b"NaN")),
    raw("bytes that are no UTF-8", PLAIN.replace(b"FP32", b"FP32\xff")),
    raw("brackets without end as data", PLAIN.replace(b"[1.0", b"[" * DEEP)),
    raw("brackets within brackets", PLAIN[:-1] + b', "x": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
    raw("JSON called plain text", PLAIN, Content_Type="text/plain"),
    Case(name="JSON in chunks", body=PLAIN, chunks=3),
    # Compression
    raw("gzip", gzip.compress(PLAIN), Content_Encoding="gzip"),
    raw("deflate", zlib.compress(PLAIN), Content_Encoding="deflate"),
    raw("called gzip and is not", PLAIN, Content_Encoding="gzip"),
    raw("an encoding nobody knows", PLAIN, Content_Encoding="pigz"),
    # Binary tensors
    binary("binary in, JSON out"),
    binary("binary in and out", **BINARY_OUT),
    binary("three rows in binary", rows=3, **BINARY_OUT),
    ask("JSON in, binary out", **BINARY_OUT),
    ask(
        "one output in binary, one in JSON",
        outputs=[{"name": "double", "parameters": {"binary_data": True}}, {"name": "total"}],
    ),
    binary(
        "binary outputs in another order",
        outputs=[{"name": "total"}, {"name": "double"}], **BINARY_OUT,
    ),
    binary(
        "binary for all, JSON for one",
        outputs=[{"name": "double", "parameters": {"binary_data": False}}, {"name": "total"}],
        **BINARY_OUT,
    ),
    Case(name="binary in chunks", body=binary("").body, headers=binary("").headers, chunks=4),
    binary("fewer bytes than the shape", data=bytes(12)),
    binary("more bytes than the shape", data=bytes(20)),
    binary("fewer bytes than said", size=32),
    binary("a size in words", size="16"),
    binary("a negative size", size=-16),
    binary("a fraction of a size", size=16.5),
    binary("bytes behind the last tensor", tail=b"more"),
    binary("no size, though bytes follow", size=None),
    binary("a header length beyond the body", head="100000"),
    binary("a header length of nothing", head="0"),
    binary("a negative header length", head="-1"),
    binary("a header length in words", head="all"),
    binary("a header length into the JSON", head="20"),
    # A NaN passes as bytes: there is no JSON in its way.
    binary("NaN in binary", data=np.full(4, np.nan, np.float32).tobytes(), **BINARY_OUT),
    # Whole numbers
    whole("bytes as numbers", [3, 200]),
    whole("a byte that does not fit", [3, 256]),
    whole("a negative byte", [3, -1]),
    whole("a byte with a fraction", [3, 1.5]),
    whole("a byte beyond all numbers", [3, 10**30]),
    # The repository
    Case(name="repository index", path="/v2/repository/index"),
    raw("repository index of what is ready", '{"ready": true}', "/v2/repository/index"),
    Case(name="unload of an unknown model", path="/v2/repository/models/nothing/unload"),
    get("index by GET", "/v2/repository/index"),
)  # fmt: skip
