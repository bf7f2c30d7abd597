"""`engineworks detect` on real photos with the trained example."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from engineworks import hosts
from engineworks.cli import main
from engineworks.export import torch_session
from tests import builders

BEAR = "000000000285.jpg"


@pytest.fixture
def photo():
    return next(path for path in builders.photos() if path.name == BEAR)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_bear_is_named(yolox_engine, photo, capsys):
    assert main(["detect", str(yolox_engine), str(photo)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"{photo}  586x640")
    assert [line.split()[0] for line in told[1:]] == ["bear"]


def test_json_is_a_line_per_image(yolox_engine, photo, capsys):
    other = builders.photos()[1]
    assert main(["detect", str(yolox_engine), str(photo), str(other), "--json"]) == 0
    first, second = lines(capsys.readouterr().out)
    (bear,) = first["detections"]
    assert (bear["label"], bear["class_id"]) == ("bear", 21)
    assert (first["width"], first["height"]) == (586, 640)
    left, top, right, bottom = bear["xyxy"]
    assert 0 <= left < right <= 586
    assert 0 <= top < bottom <= 640
    assert set(first["stage_ms"]) == {"preprocess", "infer", "postprocess"}
    assert second["image"] == str(other)


def test_unreadable_images_are_named_and_the_others_go_on(yolox_engine, photo, tmp_path, capsys):
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no picture")
    images = [tmp_path / "cut.jpg", photo, tmp_path / "gone.jpg", tmp_path / "text.png"]
    assert main(["detect", str(yolox_engine), *map(str, images), "--json"]) == 1
    told = capsys.readouterr()
    answers = lines(told.out)
    assert ["error" in answer for answer in answers] == [True, False, True, True]
    assert answers[0]["error"]["type"] == "DataError"
    for name in ("cut.jpg", "gone.jpg", "text.png"):
        assert name in told.err


def test_pictures_are_written_with_boxes(yolox_engine, photo, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    shutil.copy(photo, folder / BEAR)
    out = tmp_path / "new" / "out"
    given = [str(photo), str(folder)]
    assert main(["detect", str(yolox_engine), *given, "-o", str(out)]) == 0
    # Two images of one name do not overwrite each other, and nothing half-made is left.
    assert sorted(path.name for path in out.iterdir()) == ["000000000285-2.jpg", BEAR]
    before, after = cv2.imread(str(photo)), cv2.imread(str(out / BEAR))
    changed = np.abs(before.astype(int) - after).max(axis=2) > 60
    assert before.shape == after.shape
    assert 0.001 < changed.mean() < 0.2


def test_the_images_themselves_are_never_overwritten(yolox_engine, photo, tmp_path, capsys):
    shutil.copy(photo, tmp_path / BEAR)
    before = (tmp_path / BEAR).read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        assert main(["detect", str(yolox_engine), str(tmp_path / BEAR), "-o", str(out)]) == 2
        assert "overwritten" in capsys.readouterr().err
    assert (tmp_path / BEAR).read_bytes() == before


def test_a_name_as_long_as_the_disk_takes_is_read_and_written(yolox_engine, photo, tmp_path):
    long = tmp_path / ("\u00e9" * 125 + ".jpg")  # 254 bytes
    shutil.copy(photo, long)
    out = tmp_path / "out"
    assert main(["detect", str(yolox_engine), str(long), "-o", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == [long.name]


def test_hostile_pictures_do_not_stop_the_others(yolox_engine, photo, tmp_path, capsys):
    os.mkfifo(tmp_path / "b.png")
    shutil.copy(builders.ROOT / "tests/cases/hostile/bomb_decl_60000.png", tmp_path / "c.png")
    shutil.copy(builders.ROOT / "tests/cases/hostile/forged_jpg_30000.jpg", tmp_path / "d.jpg")
    for name in ("a.jpg", "z.jpg"):
        shutil.copy(photo, tmp_path / name)
    assert main(["detect", str(yolox_engine), str(tmp_path), "--json"]) == 1
    answers = lines(capsys.readouterr().out)
    assert ["error" in answer for answer in answers] == [False, True, True, True, False]
    assert "60000x60000 pixels" in answers[2]["error"]["message"]
    assert answers[0]["detections"] == answers[4]["detections"] != []


def test_a_higher_confidence_leaves_fewer(yolox_engine, capsys):
    photo = str(builders.photos()[1])
    counts = []
    for confidence in ("0.02", "0.6"):
        main(["detect", str(yolox_engine), photo, "--json", "--confidence", confidence])
        (answer,) = lines(capsys.readouterr().out)
        assert all(item["confidence"] > float(confidence) for item in answer["detections"])
        counts.append(len(answer["detections"]))
    assert counts[0] > counts[1]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {"iou": 0.45}),
        (["--iou", "0.9"], {"iou": 0.9}),
        (["--iou", "0.9", "--max-detections", "3"], {"iou": 0.9, "max_detections": 3}),
    ],
)
def test_overlaps_and_the_most_may_be_chosen(yolox_engine, capsys, options, wanted):
    from engineworks import runtime

    photo = builders.photos()[4]
    main(["detect", str(yolox_engine), str(photo), "--json", "--confidence", "0.1", *options])
    (answer,) = lines(capsys.readouterr().out)
    with runtime.open(yolox_engine) as session:
        found = runtime.Detector(session, confidence=0.1, **wanted)(runtime.read_image(photo))
        other = runtime.Detector(session, confidence=0.1)(runtime.read_image(photo))
    given = [item["confidence"] for item in answer["detections"]]
    np.testing.assert_allclose(given, found.confidence, atol=1e-4)
    assert len(found) != len(other)  # the engine's own 0.65 gives another answer


@pytest.mark.parametrize("options", [["--iou", "0"], ["--iou", "nan"], ["--max-detections", "0"]])
def test_overlaps_that_cannot_be_are_refused(yolox_engine, capsys, options):
    with pytest.raises(SystemExit):
        main(["detect", str(yolox_engine), "x.jpg", *options])
    assert options[1] in capsys.readouterr().err


@pytest.mark.parametrize("value", ["1", "-0.1", "much"])
def test_a_confidence_that_is_none_is_a_usage_error(yolox_engine, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["detect", str(yolox_engine), "a.jpg", f"--confidence={value}"])
    assert value in capsys.readouterr().err


def test_a_folder_without_images_is_refused(yolox_engine, tmp_path, capsys):
    assert main(["detect", str(yolox_engine), str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_the_output_must_be_a_folder(yolox_engine, photo, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["detect", str(yolox_engine), str(photo), "-o", str(tmp_path / "file")]) == 2
    assert "another folder for -o" in capsys.readouterr().err


def test_logs_say_what_was_found_and_what_was_not(yolox_engine, photo, tmp_path):
    log = tmp_path / "log.jsonl"
    given = [str(photo), str(tmp_path / "gone.jpg")]
    assert main(["detect", str(yolox_engine), *given, "--log", str(log)]) == 1
    found, failed = lines(log.read_text())
    assert found["detections"] == {"bear": 1}
    assert found["input_shape"] == [640, 586, 3]
    assert (failed["frame"], failed["error"]["type"]) == (1, "DataError")


def test_an_interruption_ends_without_a_trace(yolox_engine, photo):
    """Ctrl-C while images are being read: exit code 130, one word."""
    command = [sys.executable, "-m", "engineworks.cli", "detect", str(yolox_engine)]
    process = subprocess.Popen(
        [*command, *[str(photo)] * 3000, "--metrics-port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline().startswith("metrics: ")  # it is past its imports
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=300)
    assert (process.returncode, told) == (130, "stopped\n")


def test_an_engine_that_normalises_itself_is_run_and_timed(
    store, yolox_onnx, photo, tmp_path, capsys
):
    pixels = builders.behind_pixels(yolox_onnx, tmp_path / "pixels.onnx")
    engine = builders.put_engine(store, pixels).uri
    assert main(["detect", engine, str(photo)]) == 0
    assert "bear" in capsys.readouterr().out
    assert main(["bench", engine, "--seconds", "0.1"]) == 0


class TestOwnDecoder:
    """A layout `module:function`: the engine holds its name, the folder its code."""

    @pytest.fixture
    def engine(self, store, yolox_onnx):
        task = dataclasses.replace(builders.yolox_task(), layout="own_decoder:decode")
        return builders.put_engine(store, yolox_onnx, task=task).uri

    def test_it_is_asked_for(self, engine, photo, capsys):
        assert main(["detect", engine, str(photo)]) == 2
        assert "--decoder-from DIR" in capsys.readouterr().err

    def test_it_is_used(self, engine, photo, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("sys.path", list(sys.path))
        builders.write(
            tmp_path / "own_decoder.py",
            """
            import numpy as np

            def decode(outputs, size, confidence):
                return np.array([[0, 0, 9, 9]], np.float32), np.array([0.5]), np.array([2])
            """,
        )
        command = ["detect", engine, str(photo), "--decoder-from", str(tmp_path), "--json"]
        assert main(command) == 0
        (answer,) = lines(capsys.readouterr().out)
        assert [item["label"] for item in answer["detections"]] == ["car"]

    def test_it_must_be_there(self, engine, photo, tmp_path, capsys):
        command = ["detect", engine, str(photo), "--decoder-from", str(tmp_path / "nowhere")]
        sys.modules.pop("own_decoder", None)
        assert main(command) == 2
        assert "own_decoder" in capsys.readouterr().err


class TestEngine:
    """How ENGINE is found."""

    def home(self, tmp_path, monkeypatch, variants):
        latest = tmp_path / "home" / "runs" / "latest"
        latest.mkdir(parents=True)
        (latest / "summary.json").write_text(json.dumps({"variants": variants}))
        monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "home"))

    def test_a_variant_of_the_latest_run(self, yolox_engine, photo, tmp_path, monkeypatch, capsys):
        variant = {"name": "onnxruntime-cpu/fp32", "engine": {"uri": str(yolox_engine)}}
        self.home(tmp_path, monkeypatch, [variant])
        assert main(["detect", "onnxruntime-cpu/fp32", str(photo)]) == 0
        assert "bear" in capsys.readouterr().out

    def test_a_file_uri(self, yolox_engine, photo):
        assert main(["detect", yolox_engine.as_uri(), str(photo)]) == 0

    def test_an_unknown_variant_is_refused_with_those_there_are(
        self, tmp_path, monkeypatch, capsys
    ):
        self.home(tmp_path, monkeypatch, [{"name": "openvino/fp16"}])
        assert main(["detect", "openvino/fp99", "a.jpg"]) == 2
        assert "openvino/fp16" in capsys.readouterr().err

    def test_a_variant_that_failed_is_refused_with_its_reason(self, tmp_path, monkeypatch, capsys):
        failed = {"name": "openvino/int8", "engine": None, "verdict": "failed", "reason": "slow"}
        self.home(tmp_path, monkeypatch, [failed])
        assert main(["inspect", "openvino/int8"]) == 2
        assert "failed (slow)" in capsys.readouterr().err

    def test_without_a_run_the_error_says_where_it_looked(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path))
        assert main(["detect", "openvino/fp32", "a.jpg"]) == 2
        assert str(tmp_path) in capsys.readouterr().err

    def test_a_summary_that_is_none_is_refused(self, tmp_path, monkeypatch, capsys):
        self.home(tmp_path, monkeypatch, None)
        assert main(["detect", "openvino/fp32", "a.jpg"]) == 2
        assert "no summary of a run" in capsys.readouterr().err

    def test_a_folder_without_a_manifest_is_refused(self, tmp_path, capsys):
        assert main(["detect", str(tmp_path), "a.jpg"]) == 2
        assert "no manifest.json" in capsys.readouterr().err


class TestBenchAndInspect:
    def test_bench_prints_a_row_per_batch(self, yolox_engine, capsys):
        command = ["bench", str(yolox_engine), "--batch", "1", "2", "--seconds", "0.2", "--json"]
        assert main([*command, "--threads", "1"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [(row["batch"], row["threads"]) for row in rows] == [(1, 1), (2, 1)]
        assert all(row["p50_ms"] > 0 and row["n"] >= 30 for row in rows)

    def test_bench_in_words(self, yolox_engine, capsys):
        assert main(["bench", str(yolox_engine), "--seconds", "0.1"]) == 0
        assert "416x416" in capsys.readouterr().out

    def test_bench_tells_the_throughput_of_each_session_and_of_all(self, yolox_engine, capsys):
        command = ["bench", str(yolox_engine), "--sessions", "2", "--seconds", "0.5"]
        assert main([*command, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        assert [part["device"] for part in row["devices"]] == [0, 0]
        assert row["threads"] == max(1, hosts.cores() // 2)
        parts = [part["throughput_per_s"] for part in row["devices"]]
        assert sum(parts) == pytest.approx(row["throughput_per_s"], rel=0.5)
        assert all(0 < part["busy"] <= 1 for part in row["devices"])
        assert main(command) == 0
        assert "x of one session alone" in capsys.readouterr().out

    @pytest.fixture
    def alone(self, monkeypatch):
        """No module `model` of another example is there, as in a process of its own."""
        monkeypatch.delitem(sys.modules, "model", raising=False)
        monkeypatch.setattr(sys, "path", list(sys.path))
        yield
        sys.modules.pop("model", None)

    def test_bench_of_a_recipe_times_its_model_in_pytorch(self, alone, capsys):
        recipe = "examples/resnet20_cifar10/recipe.yaml"
        command = ["bench", recipe, "--batch", "2", "--seconds", "0.2", "--threads", "1", "--json"]
        assert main(command) == 0
        found = json.loads(capsys.readouterr().out)
        (row,) = found["rows"]
        assert (row["height"], row["width"], row["batch"], row["threads"]) == (32, 32, 2, 1)
        assert row["p50_ms"] > 0
        assert found["environment"]["device"] == torch_session.place(0)
        assert main([*command, "--sessions", "2"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        assert row["place"] == torch_session.place(0)
        assert [part["device"] for part in row["devices"]] == [0, 0]

    def test_bench_of_a_recipe_without_torch_says_what_to_install(self, alone, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        assert main(["bench", "examples/resnet20_cifar10/recipe.yaml"]) == 2
        assert "pip install 'engineworks[export,pipeline]'" in capsys.readouterr().err

    def test_bench_of_a_recipe_refuses_a_gpu_that_pytorch_does_not_see(self, alone, capsys):
        recipe = "examples/resnet20_cifar10/recipe.yaml"
        assert main(["bench", recipe, "--devices", "0", "63"]) == 2
        assert "there is no device 63" in capsys.readouterr().err

    def test_bench_refuses_a_gpu_for_an_engine_of_the_cpu(self, yolox_engine, capsys):
        assert main(["bench", str(yolox_engine), "--devices", "0", "1"]) == 2
        assert "no device 1" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "wrong",
        [
            ["--batch", "0"],
            ["--seconds", "0"],
            ["--seconds", "-1"],
            ["--seconds", "nan"],
            ["--sessions", "0"],
            ["--sessions", "100000"],
            ["--devices", "-1"],
        ],
    )
    def test_bench_refuses_what_cannot_be_measured(self, yolox_engine, wrong, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", str(yolox_engine), *wrong])
        assert wrong[1] in capsys.readouterr().err

    def test_threads_must_be_a_number(self, yolox_engine):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", str(yolox_engine), "--threads", "many"])

    def test_inspect_says_what_a_host_lacks_to_open_an_engine(self, store, tiny_onnx, capsys):
        engine = builders.put_engine(store, tiny_onnx, runtime="coreml")
        assert main(["inspect", engine.uri, "--json"]) == 0
        here = json.loads(capsys.readouterr().out)["here"]
        on_a_mac = hosts.probe().os.startswith("Darwin")
        assert here == "opens on this machine" or not on_a_mac
        assert "needs macOS 14 or newer" in here or on_a_mac

    def test_inspect_shows_long_lists_by_their_ends(self, yolox_engine, capsys):
        assert main(["inspect", str(yolox_engine)]) == 0
        told = capsys.readouterr().out
        assert "(person, bicycle, " in told
        assert "... toothbrush (80))" in told
        assert main(["inspect", str(yolox_engine), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["task"]["labels"]) == 80
