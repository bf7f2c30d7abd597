"""Asks a server the suite's cases and brings its answers into one form."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

from tests.protocol.cases import LENGTH, Case

#: Seconds that a server has for any case.
PATIENCE_S = 10.0


def answers(port: int, cases: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Case name -> the server's answer in one form.

    Args:
        port: Of 127.0.0.1.
        cases: As `cases.CASES`.
        names: `floats`, `bytes` and `version` -> what this server calls them.
    """
    return {case.name: answer(port, case, names) for case in cases}


def answer(port: int, case: Case, names: Mapping[str, str]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    path = case.path.format(**names)
    headers = {"Content-Type": "application/json", **case.headers}
    body: Any = case.body
    if case.chunks:
        step = -(-len(case.body) // case.chunks)
        body = (case.body[at : at + step] for at in range(0, len(case.body), step))
    try:
        connection.request(case.method, path, body, headers, encode_chunked=bool(case.chunks))
        response = connection.getresponse()
        return _form(response.status, response.headers, response.read(), names)
    except (OSError, http.client.HTTPException):  # which one: by how far it came
        return {"status": 0, "content": "the connection broke"}
    finally:
        connection.close()


def _form(status: int, headers: Any, body: bytes, names: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"status": status}
    if status >= 400:
        said["error"] = _error(body)
        return said
    length = headers.get(LENGTH)
    text, tail = (body[: int(length)], body[int(length) :]) if length else (body, b"")
    try:
        content = json.loads(text, parse_constant=str) if text.strip() else None
    except ValueError:
        return {**said, "content": "no JSON"}
    said["content"] = _neutral(content, names)
    if tail:
        said["binary"] = tail.hex()
    return said


def _error(body: bytes) -> str:
    """Whether an error is told as the protocol wants it; its words are each server's own."""
    try:
        content = json.loads(body)
    except ValueError:
        return "no JSON"
    told = content.get("error") if isinstance(content, dict) else None
    return "told" if isinstance(told, str) and told else "not told"


def _neutral(content: Any, names: Mapping[str, str]) -> Any:
    """Without what is each server's own: names, platform, versions; `extensions` stay out."""
    if isinstance(content, list):  # the index
        known = {value: key for key, value in names.items()}
        return sorted(
            [known[entry["name"]], entry.get("state")]
            for entry in content
            if entry.get("name") in known
        )
    if not isinstance(content, dict):
        return content
    if "extensions" in content:
        return {key: type(value).__name__ for key, value in sorted(content.items())}
    if "platform" in content:
        content = {key: content[key] for key in ("name", "versions", "inputs", "outputs")}
    if "live" in content or "ready" in content:
        return None  # Triton says nothing beside the status
    own = {value: f"{{{key}}}" for key, value in names.items()}
    if "bytes_version" in names:  # where a version is the model's own
        own[names["bytes_version"]] = "{version}"
    for key in ("name", "model_name", "model_version"):
        if key in content:
            content[key] = own.get(content[key], content[key])
    if "versions" in content:
        content["versions"] = [own.get(version, version) for version in content["versions"]]
    return content
