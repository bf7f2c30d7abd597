"""Packages of a whole run, through the real command: no proof, no good end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from engineworks import packaging
from tests.flows.conftest import ROOT

pytestmark = pytest.mark.flows

TARGETS = """
packages:
  - package: triton
targets:
  - target: "null"
  - target: onnxruntime-cpu
"""


def test_a_package_without_a_proof_waits_and_says_for_what(project):
    project.edit('targets:\n  - target: "null"\n', TARGETS)
    outcome = project.ship()
    assert outcome.code == 4, outcome.err
    jsonschema.validate(
        outcome.summary, json.loads((ROOT / "docs" / "summary.schema.json").read_text())
    )
    variant = outcome.variant("onnxruntime-cpu/fp32")
    assert variant["verdict"] == "shipped"
    (row,) = variant["package"]
    assert (row["kind"], row["state"]) == ("triton", "pending")
    assert "make servers NAMES=triton" in row["reason"]
    assert "package triton pending" in outcome.out
    folder = Path(row["uri"].removeprefix("file://"))
    assert {path.name for path in folder.rglob("*")} >= {"config.pbtxt", "model.onnx"}
    (other,) = outcome.variant("null/fp32")["package"]
    assert other["state"] == "skipped"  # and by that alone nothing would wait

    home = Path(os.environ.get("ENGINEWORKS_HOME") or ROOT / ".engineworks").absolute()
    if not packaging.load("triton").environment.missing(home):
        (project.home / "servers").symlink_to(home / "servers")
        proven = project.ship()
        assert proven.code == 0, proven.err
        assert proven.variant("onnxruntime-cpu/fp32")["package"][0]["state"] == "proven"
        assert proven.executed == {"package", "log"}
