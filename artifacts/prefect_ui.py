"""What a person sees of a run in the Prefect UI: progress, the table, a report, links.

Source: https://docs.prefect.io/v3/develop/artifacts
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from artifacts import table
from artifacts.summary import Summary


def _key(kind: str, name: str) -> str:
    """Artifact keys allow lowercase letters, digits and dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}".lower()).strip("-")


#: Cached stages follow each other in milliseconds; the server need not hear of each.
EVERY_S = 0.5


class ProgressBar:
    """A progress artifact in percent."""

    def __init__(self, name: str, steps: int) -> None:
        self._steps = max(1, steps)
        self._done = 0
        self._shown = time.monotonic()
        self._id: Any = create_progress_artifact(
            0.0, key=_key("progress", name), description=f"stages of {name}"
        )

    def step(self) -> None:
        """One stage more is done."""
        self._done = min(self._steps, self._done + 1)
        if self._done < self._steps and time.monotonic() - self._shown < EVERY_S:
            return
        self._shown = time.monotonic()
        update_progress_artifact(self._id, 100.0 * self._done / self._steps)


def show(summary: Summary, folder: Path) -> None:
    """Table, report and links of a finished run."""
    cells = [dict(zip(table.HEADINGS, row, strict=True)) for row in table.rows(summary)]
    notes = "\n\n".join(note.replace("*", "\\*", 1) for note in table.footnotes(summary))
    create_table_artifact(table=cells, key=_key("variants", summary.name), description=notes)
    create_markdown_artifact(
        f"# {summary.name}\n\n{table.markdown(summary)}\n\n"
        + "".join(f"- **{v.name}** {v.verdict}: {v.reason}\n" for v in summary.variants),
        key=_key("report", summary.name),
        description=f"run {summary.run_id}",
    )
    report = folder / "report.html"
    create_link_artifact(
        report.as_uri(), link_text="report.html", key=_key("report-file", summary.name)
    )
    if summary.mlflow is not None and summary.mlflow.tracking_uri.startswith("http"):
        where = summary.mlflow
        create_link_artifact(
            f"{where.tracking_uri}/#/experiments/{where.experiment_id}/runs/{where.run_id}",
            link_text="MLflow run",
            key=_key("mlflow", summary.name),
        )
