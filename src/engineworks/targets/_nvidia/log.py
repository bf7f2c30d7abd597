"""The builder's own words: kept for the engine, shortened for a person.

Makes the logger and the progress monitor that a TensorRT module wants. Knows no graph.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

#: Lines of a machine without a driver that say nothing about the graph.
NOISE = re.compile(r"Cuda Runtime|cudaError|CUDA initialization failure|^\s*$")

_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}


@cache
def _logger(trt: Any) -> Any:
    """The one logger of this process: TensorRT ignores every later one."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Hands lines to the `BuildLog` made last."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append((severity.name, message))
            if severity.name in _LEVELS:
                log.log(_LEVELS[severity.name], "%s", message)

    return Logger()


class BuildLog:
    """Collects what the builder says from now on; `logger` is handed to the vendor."""

    def __init__(self, trt: Any) -> None:
        self.lines: list[tuple[str, str]] = []
        self.logger = _logger(trt)
        self.logger.lines = self.lines

    def errors(self) -> str:
        """The errors so far in one line, without noise; "" when there are none."""
        errors = [text for level, text in self.lines if "ERROR" in level and not NOISE.search(text)]
        return plain("\n".join(errors))

    def find(self, pattern: str) -> str:
        """First group of the last line that matches; "" when none does."""
        for _, text in reversed(self.lines):
            match = re.search(pattern, text)
            if match:
                return match[1]
        return ""

    def write(self, path: Path) -> Path:
        """Write everything but the builder's chatter."""
        kept = (
            f"{level}: {text}" for level, text in self.lines
            if level != "VERBOSE" or text.startswith("Engine Layer Information")
        )  # fmt: skip
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")
        return path


def plain(text: str, most: int = 400) -> str:
    """A vendor's message without noise, source positions and line breaks."""
    lines = [line.strip() for line in text.splitlines() if not NOISE.search(line)]
    joined = "; ".join(dict.fromkeys(lines))
    joined = re.sub(r"\s*In \w+ at \S+:\d+\)", ")", joined)
    return joined if len(joined) <= most else joined[: most - 3] + "..."


def progress(trt: Any) -> Any:
    """A progress monitor that logs the builder's phases; None where the module has none."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Logs each phase of the first two levels when it starts."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._depth: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            depth = self._depth.get(parent_phase or "", -1) + 1
            self._depth[phase_name] = depth
            if depth < 2:
                log.info("%s%s (%d steps)", "  " * depth, phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._depth.pop(phase_name, None)

    return Monitor()
