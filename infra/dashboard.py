"""The Grafana dashboard of engines, made from the one table of metrics.

`python -m infra.dashboard` writes `compose/dashboards/engineworks.json`; a test holds the file
against what this makes. Knows the table and Grafana's JSON, no server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.runtime import metrics
from engineworks.runtime.metrics import Metric

FILE = Path(__file__).parent / "compose" / "dashboards" / "engineworks.json"

#: Of the metrics that have a model.
_CHOSEN = '{model=~"$model"}'
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph.

    Args:
        title: What it shows.
        unit: Grafana's word for it.
        series: Legend -> expression.
        stacked: Whether the series add up to something.
    """

    title: str
    unit: str
    series: dict[str, str]
    stacked: bool = False


def rate(metric: Metric, part: str = "") -> str:
    """How fast a counter, or a part of a histogram, grows in a second."""
    return f"rate({metric.name}{part}{_CHOSEN}[$__rate_interval])"


def quantile(share: float, metric: Metric, *by: str) -> str:
    """A quantile of a histogram, by labels."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(metric, '_bucket')}))"


def panels() -> tuple[Panel, ...]:
    """All graphs, in the order in which somebody asks who was called at night."""
    requests, request, stage = metrics.REQUESTS, metrics.REQUEST, metrics.STAGE
    late = '{model=~"$model", outcome=~"queue_full|too_late"}'
    refused = f"rate({requests.name}{late}[$__rate_interval])"
    waiting = f"{metrics.QUEUE.name}{_CHOSEN}"
    return (
        Panel(
            title="Requests by outcome", unit="reqps", stacked=True,
            series={"{{outcome}}": f"sum by (outcome) ({rate(requests)})"},
        ),
        Panel(
            title="Whole request, refusals too", unit="s",
            series={
                f"{{{{model}}}} p{share * 100:g}": quantile(share, request, "model")
                for share in (0.5, 0.95, 0.99)
            },
        ),
        Panel(
            title="Refused for want of time", unit="percentunit",
            series={
                "{{model}}": f"sum by (model) ({refused}) / sum by (model) ({rate(requests)})"
            },
        ),
        Panel(
            title="Stage, 99 of 100", unit="s",
            series={"{{model}} {{stage}}": quantile(0.99, stage, "model", "stage")},
        ),
        Panel(
            title="Rows of an inference", unit="short",
            series={
                "{{model}}": f"sum by (model) ({rate(metrics.BATCH, '_sum')}) / "
                f"sum by (model) ({rate(metrics.BATCH, '_count')})"
            },
        ),
        Panel(
            title="Waiting for the engine", unit="short",
            series={"{{model}} {{stream}}": f"sum by (model, stream) ({waiting})"},
        ),
        Panel(
            title="Images", unit="short", stacked=True,
            series={"{{model}} {{status}}": f"sum by (model, status) ({rate(metrics.INFERENCES)})"},
        ),
        Panel(
            title="Detections by class", unit="short", stacked=True,
            series={"{{class}}": f"topk(20, sum by (class) ({rate(metrics.DETECTIONS)}))"},
        ),
        Panel(
            title="Frames of live streams left out", unit="short",
            series={"{{model}} {{stream}}": f"sum by (model, stream) ({rate(metrics.DROPPED)})"},
        ),
        Panel(
            title="Memory of GPUs", unit="bytes",
            series={"GPU {{gpu}}": f"max by (instance, gpu) ({metrics.GPU_MEMORY.name})"},
        ),
        Panel(
            title="Workers that answer, by engine", unit="short",
            series={
                "{{model}} {{variant}} {{version}}":
                f"sum by (model, variant, version) ({metrics.ENGINE.name}{_CHOSEN}) > 0"
            },
        ),
    )  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Grafana's JSON."""
    return {
        "uid": "engineworks",
        "title": "engineworks",
        "tags": ["engineworks"],
        "schemaVersion": 41,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source", "label": "Source", "type": "datasource",
                    "query": "prometheus", "refresh": 1,
                },
                {
                    "name": "model", "label": "Model", "type": "query", "datasource": _SOURCE,
                    "query": f"label_values({metrics.ENGINE.name}, model)", "refresh": 2,
                    "multi": True, "includeAll": True, "allValue": ".*",
                },
            ]
        },
        "panels": [_drawn(number, panel) for number, panel in enumerate(panels())],
    }  # fmt: skip


def _drawn(number: int, panel: Panel) -> dict[str, Any]:
    stacking = {"mode": "normal" if panel.stacked else "none"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "min": 0,
                "custom": {"fillOpacity": 20 if panel.stacked else 0, "stacking": stacking},
            },
            "overrides": [],
        },
        "targets": [
            {
                "refId": "ABC"[place], "datasource": _SOURCE, "expr": expression,
                "legendFormat": legend,
            }
            for place, (legend, expression) in enumerate(panel.series.items())
        ],
    }  # fmt: skip


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
