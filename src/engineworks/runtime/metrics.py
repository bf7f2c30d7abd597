"""What a running engine reports: one table of metrics, and the recorders that fill it.

Detectors, pipelines and servers call a `Recorder`; the base class records nothing and costs
nothing. `PrometheusRecorder` fills the table, `logs.LogRecorder` writes lines. Knows no engine
and opens no port by itself.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engineworks.errors import EngineworksError, MissingDependency
from engineworks.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class EngineName:
    """Which engine a series or a line is about; the labels that all of them share."""

    model: str = ""
    variant: str = ""
    version: str = ""

    @property
    def labels(self) -> tuple[str, str, str]:
        """The values of `OF_ENGINE`."""
        return self.model, self.variant, self.version


def name_of(manifest: Manifest, model: str = "") -> EngineName:
    """What metrics and logs call an engine; `model` in place of the manifest's name."""
    return EngineName(
        model=model or manifest.name,
        variant=f"{manifest.target}/{manifest.precision}",
        version=manifest.sha256[:12],
    )


#: The labels of every series about an engine.
OF_ENGINE = ("model", "variant", "version")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of the table: everything that a dashboard or a second server must agree on."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


INFERENCES = Metric(
    name="engineworks_inferences_total",
    kind="counter",
    unit="images",
    help="Images that went through the engine.",
    labels=(*OF_ENGINE, "stream", "status"),
)
STAGE = Metric(
    name="engineworks_stage_seconds",
    kind="histogram",
    unit="seconds",
    help="Time of one stage for one image.",
    labels=(*OF_ENGINE, "stage"),
    # From 0.25 ms (suppression on a CPU) doubling to 8 s (a large model on a small board).
    buckets=tuple(0.00025 * 2**step for step in range(16)),
)
DETECTIONS = Metric(
    name="engineworks_detections_total",
    kind="counter",
    unit="detections",
    help="Objects found.",
    labels=(*OF_ENGINE, "class"),
)
QUEUE = Metric(
    name="engineworks_queue_depth",
    kind="gauge",
    unit="frames",
    help="Frames that wait for the engine.",
    labels=(*OF_ENGINE, "stream"),
)
DROPPED = Metric(
    name="engineworks_dropped_frames_total",
    kind="counter",
    unit="frames",
    help="Frames of live streams that were left out because newer ones had come.",
    labels=(*OF_ENGINE, "stream"),
)
GPU_MEMORY = Metric(
    name="engineworks_gpu_memory_used_bytes",
    kind="gauge",
    unit="bytes",
    help="Memory in use on a GPU, by all processes (NVML).",
    labels=("gpu",),
)

ENGINE = Metric(
    name="engineworks_engine_info",
    kind="gauge",
    unit="engines",
    help="1 while this engine answers, 0 once another took its place.",
    labels=OF_ENGINE,
)
REQUESTS = Metric(
    name="engineworks_requests_total",
    kind="counter",
    unit="requests",
    help="Requests of clients, each under one outcome; those that chose no engine have no model.",
    labels=(*OF_ENGINE, "route", "outcome"),
)
REQUEST = Metric(
    name="engineworks_request_seconds",
    kind="histogram",
    unit="seconds",
    help="Time of a whole request, from its head to its answer.",
    labels=(*OF_ENGINE, "route"),
    # From 1 ms doubling to 33 s.
    buckets=tuple(0.001 * 2**step for step in range(16)),
)
BATCH = Metric(
    name="engineworks_batch_rows",
    kind="histogram",
    unit="rows",
    help="Rows of one inference.",
    labels=OF_ENGINE,
    buckets=tuple(float(2**step) for step in range(9)),
)

#: Names, units and buckets, shared by every command and server.
TABLE = (
    INFERENCES, STAGE, DETECTIONS, QUEUE, DROPPED, GPU_MEMORY, ENGINE, REQUESTS, REQUEST, BATCH
)  # fmt: skip


class Recorder:
    """Takes note of nothing: the base of all recorders, and the one where none was asked for."""

    def of(self, engine: EngineName) -> Recorder:
        """The recorder for what one engine does: the same place, under its name."""
        return self

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
        """One image is done, or failed.

        Args:
            stream: Where it came from; few different values, for they are labels.
            stage_ms: Stage (`decode`, `preprocess`, `infer`, `postprocess`, `track`, ...) ->
                milliseconds.
            detections_by_class: Class name -> objects found.
            status: `ok`, or a word for what went wrong.
            frame: Number of the frame in its stream, from 0.
            input_shape: Height, width and channels of the source image.
            error: What was raised.
        """

    def dropped(self, stream: str, n: int = 1) -> None:
        """`n` frames of a live stream were left out."""

    def queue(self, stream: str, depth: int) -> None:
        """So many frames of this stream wait now."""

    def request(self, route: str, outcome: str, took_s: float) -> None:
        """A client's request has ended so, after so many seconds."""

    def batch(self, rows: int) -> None:
        """So many rows went through the engine at once."""

    def answers(self, serving: bool) -> None:
        """The engine answers from now on, or no longer."""


class Recorders(Recorder):
    """Passes everything on to several recorders."""

    def __init__(self, recorders: Iterable[Recorder]) -> None:
        self._all = tuple(recorders)

    def of(self, engine: EngineName) -> Recorders:
        """See `Recorder.of`."""
        return Recorders(recorder.of(engine) for recorder in self._all)

    def inference(self, *arguments: Any, **named: Any) -> None:
        """See `Recorder.inference`."""
        for recorder in self._all:
            recorder.inference(*arguments, **named)

    def dropped(self, stream: str, n: int = 1) -> None:
        """See `Recorder.dropped`."""
        for recorder in self._all:
            recorder.dropped(stream, n)

    def queue(self, stream: str, depth: int) -> None:
        """See `Recorder.queue`."""
        for recorder in self._all:
            recorder.queue(stream, depth)

    def request(self, route: str, outcome: str, took_s: float) -> None:
        """See `Recorder.request`."""
        for recorder in self._all:
            recorder.request(route, outcome, took_s)

    def batch(self, rows: int) -> None:
        """See `Recorder.batch`."""
        for recorder in self._all:
            recorder.batch(rows)

    def answers(self, serving: bool) -> None:
        """See `Recorder.answers`."""
        for recorder in self._all:
            recorder.answers(serving)


class PrometheusRecorder(Recorder):
    """Fills the table in a Prometheus registry.

    Args:
        registry: A `prometheus_client.CollectorRegistry`; None: a new one of its own.

    Raises:
        MissingDependency: prometheus_client is not installed.
    """

    def __init__(self, registry: Any = None) -> None:
        prometheus = _prometheus()
        kinds = {
            "counter": prometheus.Counter,
            "histogram": prometheus.Histogram,
            # Of several processes that share a folder the sum over those that live.
            "gauge": functools.partial(prometheus.Gauge, multiprocess_mode="livesum"),
        }
        self.registry = prometheus.CollectorRegistry() if registry is None else registry
        series = {}
        for metric in TABLE:
            if metric is not GPU_MEMORY:
                extra = {"buckets": metric.buckets} if metric.buckets else {}
                series[metric.name] = kinds[metric.kind](
                    metric.name, metric.help, metric.labels, registry=self.registry, **extra
                )
        self._made = series
        self._engine = EngineName().labels
        self._known: dict[tuple[str, ...], Any] = {}
        self.registry.register(GpuMemory())

    def of(self, engine: EngineName) -> PrometheusRecorder:
        """See `Recorder.of`."""
        named = copy.copy(self)
        named._engine = engine.labels
        named._known = {}
        return named

    def _series(self, metric: Metric, *labels: str) -> Any:
        """One series of a metric about this engine; found again quickly."""
        key = (metric.name, *labels)
        known = self._known.get(key)
        if known is None:
            known = self._made[metric.name].labels(*self._engine, *labels)
            self._known[key] = known
        return known

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
        self._series(INFERENCES, stream, status).inc()
        for stage, spent_ms in stage_ms.items():
            self._series(STAGE, stage).observe(spent_ms / 1e3)
        for name, count in detections_by_class.items():
            self._series(DETECTIONS, name).inc(count)

    def dropped(self, stream: str, n: int = 1) -> None:
        """See `Recorder.dropped`."""
        self._series(DROPPED, stream).inc(n)

    def queue(self, stream: str, depth: int) -> None:
        """See `Recorder.queue`."""
        self._series(QUEUE, stream).set(depth)

    def request(self, route: str, outcome: str, took_s: float) -> None:
        """See `Recorder.request`."""
        self._series(REQUESTS, route, outcome).inc()
        self._series(REQUEST, route).observe(took_s)

    def batch(self, rows: int) -> None:
        """See `Recorder.batch`."""
        self._series(BATCH).observe(rows)

    def answers(self, serving: bool) -> None:
        """See `Recorder.answers`."""
        self._series(ENGINE).set(int(serving))


class GpuMemory:
    """Asks NVML when the metrics are read; gives nothing where there is no GPU or no NVML."""

    def __init__(self) -> None:
        self._gpus: list[Any] = []
        with contextlib.suppress(Exception):  # no package, no driver, no GPU: no metric
            import pynvml

            pynvml.nvmlInit()
            self._gpus = [
                pynvml.nvmlDeviceGetHandleByIndex(index)
                for index in range(pynvml.nvmlDeviceGetCount())
            ]

    def collect(self) -> Iterator[Any]:
        """Prometheus calls this for every reading."""
        if not self._gpus:
            return
        import pynvml
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(GPU_MEMORY.name, GPU_MEMORY.help, labels=GPU_MEMORY.labels)
        for index, gpu in enumerate(self._gpus):
            with contextlib.suppress(pynvml.NVMLError):
                family.add_metric([str(index)], pynvml.nvmlDeviceGetMemoryInfo(gpu).used)
        yield family


@contextlib.contextmanager
def serve(recorder: PrometheusRecorder, port: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve `/metrics` over HTTP while the block runs; gives the port, also where 0 was asked.

    Raises:
        EngineworksError: The port cannot be opened.
    """
    try:
        server, thread = _prometheus().start_http_server(port, host, recorder.registry)
    except (OSError, OverflowError) as error:
        raise EngineworksError(
            f"metrics cannot be served on {host}:{port} "
            f"({getattr(error, 'strerror', None) or error})",
            hint="choose another port, or 0 for any free one",
        ) from error
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _prometheus() -> Any:
    try:
        import prometheus_client
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "metrics need the package 'prometheus_client'",
            hint="pip install 'engineworks[metrics]'",
        ) from error
    return prometheus_client
