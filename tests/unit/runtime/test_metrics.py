"""Metrics and logs as those who read them see them: over HTTP, and line by line."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pynvml
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engineworks.errors import DataError, EngineworksError
from engineworks.runtime import metrics
from engineworks.runtime.logs import LogRecorder, json_handler
from engineworks.runtime.metrics import (
    EngineName,
    PrometheusRecorder,
    Recorder,
    Recorders,
    serve,
)

ENGINE = {"model", "variant", "version"}
USED = metrics.GPU_MEMORY.name
DOCS = Path(__file__).resolve().parents[3] / "docs"


def read(port, host="127.0.0.1"):
    """Name and labels of a sample, without those of an engine -> value, as Prometheus reads it."""
    with urlopen(f"http://{host}:{port}/metrics", timeout=60) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (
            sample.name,
            *(pair for pair in sorted(sample.labels.items()) if pair[0] not in ENGINE),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def note(recorder):
    recorder.inference("a", {"preprocess": 2.0, "infer": 30.0}, {"bear": 2}, frame=0)
    recorder.inference("a", {"infer": 50.0}, {"bear": 1, "cat": 1}, frame=1, input_shape=(4, 6, 3))
    recorder.inference("b", {}, {}, "failed", error=DataError("no image", hint="give one"))
    recorder.dropped("a", 3)
    recorder.queue("a", 5)
    recorder.queue("a", 4)


def test_a_server_reads_what_was_recorded():
    recorder = PrometheusRecorder()
    note(recorder)
    with serve(recorder, 0) as port:
        found = read(port)
    assert found["engineworks_inferences_total", ("status", "ok"), ("stream", "a")] == 2
    assert found["engineworks_inferences_total", ("status", "failed"), ("stream", "b")] == 1
    assert found["engineworks_detections_total", ("class", "bear")] == 3
    assert found["engineworks_dropped_frames_total", ("stream", "a")] == 3
    assert found["engineworks_queue_depth", ("stream", "a")] == 4
    assert found["engineworks_stage_seconds_count", ("stage", "infer")] == 2
    assert found["engineworks_stage_seconds_sum", ("stage", "infer")] == pytest.approx(0.08)
    below = "engineworks_stage_seconds_bucket"
    assert found[below, ("le", "0.032"), ("stage", "infer")] == 1
    assert found[below, ("le", "0.064"), ("stage", "infer")] == 2


def test_two_engines_are_told_apart_by_name_variant_and_version():
    recorder, file = PrometheusRecorder(), io.StringIO()
    both = Recorders([recorder, LogRecorder(file)])
    for version in ("a" * 12, "b" * 12):
        engine = EngineName(model="cars", variant="openvino/int8", version=version)
        both.of(engine).inference("cam", {"infer": 1.0}, {"car": 2})
    samples = {
        (sample.name, sample.labels["model"], sample.labels["version"]): sample.value
        for family in recorder.registry.collect()
        for sample in family.samples
        if sample.name in ("engineworks_detections_total", "engineworks_inferences_total")
    }
    assert samples == {
        (f"engineworks_{what}_total", "cars", version): value
        for what, value in (("detections", 2), ("inferences", 1))
        for version in ("a" * 12, "b" * 12)
    }
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["version"] for line in lines] == ["a" * 12, "b" * 12]
    assert {line["variant"] for line in lines} == {"openvino/int8"}


def test_the_port_is_on_this_machine_only_and_closed_afterwards():
    with serve(PrometheusRecorder(), 0) as port:
        other = socket.gethostbyname(socket.gethostname())
        if not other.startswith("127."):
            with pytest.raises((URLError, OSError)):
                read(port, other)
    with pytest.raises(URLError):
        read(port)


def test_a_port_that_cannot_be_had_is_refused_by_number():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 70000):
            with (
                pytest.raises(EngineworksError, match=rf"127\.0\.0\.1:{port}"),
                serve(PrometheusRecorder(), port),
            ):
                pass


def test_two_recorders_do_not_share_their_counts():
    one, other = PrometheusRecorder(), PrometheusRecorder()
    note(one)
    with serve(other, 0) as port:
        assert not any(key[0] == "engineworks_inferences_total" for key in read(port))


def test_streams_on_several_threads_lose_no_count():
    recorder = PrometheusRecorder()

    def work(stream):
        for _ in range(200):
            recorder.inference(stream, {"infer": 1.0}, {"bear": 1})

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with serve(recorder, 0) as port:
        assert read(port)["engineworks_detections_total", ("class", "bear")] == 1600


def gpus():
    """How many GPUs NVML sees here."""
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 0


def test_the_memory_of_every_gpu_is_read_and_of_no_other():
    with serve(PrometheusRecorder(), 0) as port:
        found = {key[1]: value for key, value in read(port).items() if key[0] == USED}
    assert set(found) == {("gpu", str(index)) for index in range(gpus())}
    assert all(value > 0 for value in found.values())


def test_the_table_follows_the_rules_for_names():
    """https://prometheus.io/docs/practices/naming/: prefix, base unit as suffix, _total."""
    for metric in metrics.TABLE:
        assert metric.name.startswith("engineworks_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        if metric.unit in ("seconds", "bytes"):
            assert metric.name.endswith(f"_{metric.unit}")


def test_the_table_in_the_documents_is_the_one_in_the_code():
    text = (DOCS / "runtime.md").read_text(encoding="utf-8")
    for metric in metrics.TABLE:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} |" in text


def test_the_recorder_of_nothing_takes_everything():
    note(Recorder())


def test_several_recorders_all_get_it():
    file, counted = io.StringIO(), PrometheusRecorder()
    note(Recorders([LogRecorder(file), counted]))
    assert len(file.getvalue().splitlines()) == 4
    with serve(counted, 0) as port:
        assert read(port)["engineworks_queue_depth", ("stream", "a")] == 4


def test_each_image_is_a_line():
    file = io.StringIO()
    note(LogRecorder(file))
    first, second, failed, dropped = map(json.loads, file.getvalue().splitlines())
    assert first["event"] == "inference"
    assert first["stage_ms"] == {"preprocess": 2.0, "infer": 30.0}
    assert (second["stream"], second["frame"]) == ("a", 1)
    assert second["detections"] == {"bear": 1, "cat": 1}
    assert second["input_shape"] == [4, 6, 3]
    assert failed["level"] == "error"
    assert failed["error"] == {"type": "DataError", "message": "no image"}
    assert (dropped["event"], dropped["frames"], dropped["level"]) == ("dropped", 3, "warning")
    assert all("timestamp" in line for line in (first, failed, dropped))


def test_ordinary_log_records_become_lines_of_the_same_kind():
    file = io.StringIO()
    log, handler = logging.getLogger("engineworks.test_logs"), json_handler(file)
    log.addHandler(handler)
    log.setLevel(logging.INFO)  # whatever another test has set above it
    try:
        log.warning("lost %s", "cam1")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("stopped")
    finally:
        log.removeHandler(handler)
    lost, stopped = map(json.loads, file.getvalue().splitlines())
    assert (lost["event"], lost["level"], lost["logger"]) == (
        "lost cam1", "warning", "engineworks.test_logs",
    )  # fmt: skip
    assert "ValueError: broken" in stopped["exception"]
