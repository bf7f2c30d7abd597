"""Dashboard and alerts speak of metrics that there are, by the labels that those have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from engineworks.runtime.metrics import TABLE
from infra import dashboard

COMPOSE = Path(dashboard.__file__).parent / "compose"
PARTS = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SERIES = {metric.name + part: metric for metric in TABLE for part in PARTS[metric.kind]}


def rules():
    (group,) = yaml.safe_load((COMPOSE / "alerts.yml").read_text())["groups"]
    return group["rules"]


def drawn():
    return [
        target["expr"]
        for panel in json.loads(dashboard.FILE.read_text())["panels"]
        for target in panel["targets"]
    ]


@pytest.mark.parametrize("expression", [*drawn(), *(rule["expr"] for rule in rules())])
def test_every_series_is_one_of_the_table(expression):
    summed = {
        label.strip()
        for group in re.findall(r"by \(([^)]*)\)", expression)
        for label in group.split(",")
    }
    for name, matchers in re.findall(r"(engineworks_\w+)(?:\{([^}]*)\})?", expression):
        assert name in SERIES
        known = {*SERIES[name].labels, "instance", "job"}
        known |= {"le"} if name.endswith("_bucket") else set()
        labels = summed | set(re.findall(r"(\w+)\s*=~?", matchers))
        assert labels <= known, f"{name} has no label {sorted(labels - known)}"


def test_every_metric_of_the_table_is_drawn():
    words = " ".join(drawn())
    assert [metric.name for metric in TABLE if metric.name not in words] == []


def test_the_dashboard_is_the_one_that_is_made():
    assert dashboard.FILE.read_text() == dashboard.text(), "run python -m infra.dashboard"


def test_every_alert_has_its_series_in_the_rules_own_test():
    told = {
        case["alertname"]
        for test in yaml.safe_load((COMPOSE / "alerts.test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert told == {rule["alert"] for rule in rules()}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_hold_in_prometheus_own_test():
    done = subprocess.run(
        ["promtool", "test", "rules", str(COMPOSE / "alerts.test.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_compose_mounts_is_there():
    text = (COMPOSE.parent / "compose.yaml").read_text()
    for place in re.findall(r"\./(compose/[\w./-]+):", text):
        example = (COMPOSE.parent / f"{place}.example").exists()  # the user's own, made from it
        assert example or (COMPOSE.parent / place).exists(), place
