"""Structured logs: one JSON object a line, for whoever reads logs by machine.

`LogRecorder` writes a line per image; `json_handler` turns the library's ordinary log records into
lines of the same kind. Configures nothing globally.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from engineworks.errors import MissingDependency
from engineworks.runtime.metrics import EngineName, Recorder


class LogRecorder(Recorder):
    """Writes what is recorded as JSON lines.

    Args:
        file: Where to; opened and closed by the caller.

    Raises:
        MissingDependency: structlog is not installed.
    """

    def __init__(self, file: TextIO) -> None:
        structlog = _structlog()
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(file),
            processors=[*_stamps(structlog), structlog.processors.JSONRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

    def of(self, engine: EngineName) -> LogRecorder:
        """See `Recorder.of`."""
        named = copy.copy(self)
        named._log = self._log.bind(
            model=engine.model, variant=engine.variant, version=engine.version
        )
        return named

    def inference(
        self,
        stream: str,
        stage_ms: Mapping[str, float],
        detections_by_class: Mapping[str, int],
        status: str = "ok",
        *,
        frame: int | None = None,
        input_shape: Sequence[int] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """See `Recorder.inference`."""
        fields: dict[str, Any] = {"stream": stream, "status": status}
        if frame is not None:
            fields["frame"] = frame
        if input_shape is not None:
            fields["input_shape"] = list(input_shape)
        fields["stage_ms"] = {stage: round(spent, 3) for stage, spent in stage_ms.items()}
        fields["detections"] = dict(detections_by_class)
        if error is not None:
            message = getattr(error, "message", None) or str(error)
            fields["error"] = {"type": type(error).__name__, "message": message}
        (self._log.info if error is None else self._log.error)("inference", **fields)

    def dropped(self, stream: str, n: int = 1) -> None:
        """See `Recorder.dropped`."""
        self._log.warning("dropped", stream=stream, frames=n)


def json_handler(file: TextIO) -> logging.Handler:
    """A handler for `logging` that writes every record as one JSON line.

    Raises:
        MissingDependency: structlog is not installed.
    """
    structlog = _structlog()
    handler = logging.StreamHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *_stamps(structlog),
                structlog.stdlib.add_logger_name,
                structlog.processors.format_exc_info,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    return handler


def _stamps(structlog: Any) -> list[Any]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.add_log_level,
    ]


def _structlog() -> Any:
    try:
        import structlog
        import structlog.stdlib
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "JSON logs need the package 'structlog'", hint="pip install 'engineworks[metrics]'"
        ) from error
    return structlog
