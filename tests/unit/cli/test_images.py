"""`classify` and `run`: answers of any engine from the command line."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from engineworks import runtime
from engineworks.cli import answers, main, raw
from engineworks.errors import InferenceError
from engineworks.specs import TaskSpec
from tests.unit.runtime.test_scores import LABELS, colour_engine


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def engine(store, tmp_path):
    task = TaskSpec(kind="classification", labels=LABELS, scores="logits")
    return colour_engine(store, tmp_path, "Identity", task).uri


@pytest.fixture
def red(tmp_path):
    image = np.zeros((10, 12, 3), np.uint8)
    image[..., 2] = 255
    assert cv2.imwrite(str(tmp_path / "red.png"), image)
    return tmp_path / "red.png"


class TestClassify:
    def test_the_best_classes_are_named(self, engine, red, capsys):
        assert main(["classify", engine, str(red), "--top", "2"]) == 0
        first, best, second = capsys.readouterr().out.splitlines()
        assert first.startswith(f"{red}  12x10  ")
        # e^4 / (e^4 + 2)
        assert best.split() == ["red", "0.9647"]
        assert second.split() == ["green", "0.0177"]

    def test_json_lines_name_bad_files_and_go_on(self, engine, red, tmp_path, capsys):
        (tmp_path / "bad.png").write_bytes(b"no picture")
        assert main(["classify", engine, str(tmp_path / "bad.png"), str(red), "--json"]) == 1
        bad, good = lines(capsys.readouterr().out)
        assert bad["error"]["type"] == "DataError"
        assert [entry["label"] for entry in good["classes"]] == ["red", "green", "blue"]
        assert good["classes"][0]["class_id"] == 0

    def test_a_detector_is_refused(self, yolox_engine, red, capsys):
        assert main(["classify", str(yolox_engine), str(red)]) == 2
        told = capsys.readouterr().err
        assert "detection, not classification" in told
        assert "next: use engineworks detect" in told

    def test_by_detect_it_is_refused_with_the_command_for_it(self, engine, red, capsys):
        assert main(["detect", engine, str(red)]) == 2
        told = capsys.readouterr().err
        assert "classification, not detection" in told
        assert "next: use engineworks classify" in told


class TestRun:
    def test_an_image_is_prepared_as_the_manifest_says(self, engine, red, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["run", engine, str(red), "-o", str(out)]) == 0
        told = capsys.readouterr().out
        assert "scores" in told
        assert "float32 [1, 3]  0.0 .. 4.0" in told
        with np.load(out / "red.npz") as found:
            np.testing.assert_allclose(found["scores"], [[4, 0, 0]], atol=1e-6)

    def test_arrays_go_in_as_they_are_and_come_out_as_the_engine_gives_them(
        self, yolox_engine, yolox_onnx, tmp_path
    ):
        """By plain ONNX Runtime: two rows of a detector, whatever its task."""
        batch = np.random.default_rng(0).random((2, 3, 416, 416), np.float32) * 255
        session = ort.InferenceSession(str(yolox_onnx), providers=["CPUExecutionProvider"])
        (wanted,) = session.run(None, {"images": batch})
        np.save(tmp_path / "one.npy", batch)
        np.savez(tmp_path / "two.npz", images=batch)
        command = ["run", str(yolox_engine), str(tmp_path / "one.npy"), str(tmp_path / "two.npz")]
        assert main([*command, "-o", str(tmp_path / "out")]) == 0
        for name in ("one", "two"):
            with np.load(tmp_path / "out" / f"{name}.npz") as found:
                assert found.files == ["detections"]
                np.testing.assert_allclose(found["detections"], wanted, atol=2e-3)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("empty.npy", b""),
            ("text.npz", b"hello"),
            ("wrong.npy", np.zeros((1, 3, 5, 5), np.float32)),
            ("type.npy", np.zeros((1, 3, 8, 8))),
            ("names.npz", {"pictures": np.zeros((1, 3, 8, 8), np.float32)}),
            ("more.npz", {"images": np.zeros((1, 3, 8, 8), np.float32), "labels": np.zeros(2)}),
            ("object.npy", np.array([{"a": 1}], object)),
            ("gone.npy", None),
        ],
    )
    def test_a_file_that_does_not_fit_is_named_and_the_next_is_run(
        self, engine, red, tmp_path, capsys, name, content
    ):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, dict):
            np.savez(path, **content)
        elif content is not None:
            np.save(path, content, allow_pickle=True)
        assert main(["run", engine, str(path), str(red), "--json"]) == 1
        told = capsys.readouterr()
        bad, good = lines(told.out)
        assert bad["error"]["type"] in ("DataError", "FeedError")
        assert str(path) in told.err
        assert good["outputs"][0]["shape"] == [1, 3]

    def test_values_that_are_no_numbers_are_counted(self, engine, tmp_path, capsys):
        np.save(tmp_path / "nan.npy", np.full((1, 3, 8, 8), np.nan, np.float32))
        assert main(["run", engine, str(tmp_path / "nan.npy")]) == 0
        assert "None .. None  (3 of 3 NaN or inf)" in capsys.readouterr().out
        assert main(["run", engine, str(tmp_path / "nan.npy"), "--json"]) == 0
        (line,) = lines(capsys.readouterr().out)
        assert line["outputs"][0]["not_finite"] == 3

    def test_outputs_of_any_name_are_kept(self, tmp_path):
        from engineworks.cli.raw import save

        arrays = {"file": np.arange(3), "/model.22/Concat:0": np.ones((2, 2)), "a b": np.zeros(0)}
        save(tmp_path / "x.npz", arrays)
        with np.load(tmp_path / "x.npz") as found:
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)

    def test_of_one_input_the_output_may_be_the_file_itself(self, engine, red, tmp_path):
        assert main(["run", engine, str(red), "-o", str(tmp_path / "raw.npz")]) == 0
        with np.load(tmp_path / "raw.npz") as found:
            np.testing.assert_allclose(found["scores"], [[4, 0, 0]], atol=1e-6)
        (tmp_path / "there.npz").mkdir()
        assert main(["run", engine, str(red), "-o", str(tmp_path / "there.npz")]) == 0
        assert (tmp_path / "there.npz" / "red.npz").is_file()

    @pytest.mark.parametrize(
        ("name", "times", "words"),
        [("raw.npz", 2, "one file, and 2 are read"), ("raw.npy", 1, "no .npy is written"),
         ("new/raw.npz", 1, "there is no folder")],
    )  # fmt: skip
    def test_a_folder_named_like_a_file_is_not_made(
        self, engine, red, tmp_path, capsys, name, times, words
    ):
        assert main(["run", engine, *[str(red)] * times, "-o", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / name).exists()

    def test_an_array_is_not_overwritten_by_its_answer(self, engine, tmp_path, capsys):
        path = tmp_path / "in.npz"
        np.savez(path, images=np.zeros((1, 3, 8, 8), np.float32))
        before = path.read_bytes()
        assert main(["run", engine, str(path), "-o", str(path)]) == 2
        assert "it would be destroyed" in capsys.readouterr().err
        assert path.read_bytes() == before

    def test_a_name_as_long_as_the_disk_takes_is_written(self, engine, red, tmp_path):
        long = red.rename(red.with_name("n" * 251 + ".png"))
        assert main(["run", engine, str(long), "-o", str(tmp_path / "out")]) == 0
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["n" * 251 + ".npz"]

    def test_a_folder_with_inputs_takes_no_outputs(self, engine, red, capsys):
        assert main(["run", engine, str(red), "-o", str(red.parent)]) == 2
        assert "holds images to read" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["detect", "classify", "run"])
def test_what_the_engine_raises_is_counted(
    command, store, engine, yolox_engine, red, tmp_path, monkeypatch
):
    def broken(self, feeds):
        raise InferenceError("the runtime failed", hint="nothing helps")

    used = str(yolox_engine) if command == "detect" else engine
    with runtime.open(used) as session:
        monkeypatch.setattr(type(session), "infer", broken)
    log = tmp_path / "log.jsonl"
    assert main([command, used, str(red), "--log", str(log)]) == 2
    told = lines(log.read_text())
    assert [entry["status"] for entry in told if "status" in entry] == ["failed"]


class TestWhatCannotBeRead:
    """One name that is of no use ends neither the batch nor the command with a trace."""

    def test_a_name_longer_than_any_file_has(self, engine, red, capsys):
        assert main(["classify", engine, "n" * 300 + ".png", str(red)]) == 1
        told = capsys.readouterr()
        assert "cannot be read (File name too long)" in told.err
        assert told.out.startswith(str(red))

    @pytest.mark.parametrize("command", ["bench", "inspect", "verify", "video"])
    def test_as_an_engine_or_a_video(self, engine, capsys, command):
        names = ["n" * 300, "x.mp4"] if command == "video" else ["n" * 300]
        assert main([command, *names]) == 2
        assert main(["video", engine, "n" * 300, "--jsonl", "-"]) == 2
        assert "Traceback" not in capsys.readouterr().err

    def test_a_folder_without_images_beside_good_ones(self, engine, red, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        command = ["classify", engine, str(tmp_path / "empty"), str(red)]
        assert main(command) == 1
        told = capsys.readouterr()
        assert "empty holds no image" in told.err
        assert told.out.startswith(str(red))
        assert main(command[:-1]) == 2

    def test_an_archive_that_unpacks_to_gigabytes(self, engine, tmp_path, capsys):
        path = tmp_path / "bomb.npz"
        header = np.lib.format.magic(1, 0)
        shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 16000, 16000), }"
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("images.npy", "w", force_zip64=True) as part,
        ):
            part.write(header + struct.pack("<H", 118) + shape.ljust(117) + b"\n")
            for _ in range(70):
                part.write(bytes(2**23))
        assert path.stat().st_size < 2**20
        assert main(["run", engine, str(path)]) == 1
        assert "bytes of arrays, more than the 536,870,912" in capsys.readouterr().err

    def test_a_pipe_as_an_array(self, engine, tmp_path, capsys):
        os.mkfifo(tmp_path / "a.npy")
        assert main(["run", engine, str(tmp_path / "a.npy")]) == 1
        assert "is a pipe" in capsys.readouterr().err


class TestTheLog:
    def test_a_full_disk_is_told_in_words(self, engine, red, capsys):
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        assert main(["classify", engine, str(red), "--log", "/dev/full"]) == 2
        told = capsys.readouterr().err
        assert "--log: /dev/full cannot be written (No space left on device)" in told
        assert "Traceback" not in told

    def test_a_pipe_that_nobody_reads_is_refused_at_once(self, engine, red, tmp_path, capsys):
        os.mkfifo(tmp_path / "log")
        assert main(["classify", engine, str(red), "--log", str(tmp_path / "log")]) == 2
        assert "a pipe that nobody reads" in capsys.readouterr().err

    def test_lines_are_added_to_a_file(self, engine, red, tmp_path):
        log = tmp_path / "log.jsonl"
        for _ in range(2):
            assert main(["classify", engine, str(red), "--log", str(log)]) == 0
        events = [row["event"] for row in lines(log.read_text())]
        assert events.count("inference") == 2


class TestMemory:
    """Memory that ends is told by the file that it ended at, and the next one is read."""

    @pytest.mark.parametrize("where", ["decoding", "the engine's answer", "drawing"])
    def test_the_next_file_is_read(self, engine, red, tmp_path, capsys, monkeypatch, where):
        other = tmp_path / "other.png"
        shutil.copy(red, other)

        def full(original):
            def one_time(*arguments, **named):
                monkeypatch.undo()
                raise MemoryError("Unable to allocate 9 GiB")

            return one_time

        place, name = {
            "decoding": (answers, "read_picture"),
            "the engine's answer": (runtime.Predictor, "__call__"),
            "drawing": (answers, "_tell"),
        }[where]
        monkeypatch.setattr(place, name, full(getattr(place, name)))
        assert main(["classify", engine, str(red), str(other)]) == 1
        told = capsys.readouterr()
        assert f"{red}: memory ran out while it was in work (Unable to allocate 9 GiB)" in told.err
        assert str(other) in told.out

    def test_outside_of_files_it_is_words_too(self, engine, red, capsys, monkeypatch):
        def full(*arguments, **named):
            raise MemoryError

        monkeypatch.setattr(answers, "open_predictor", full)
        assert main(["classify", engine, str(red)]) == 2
        assert "memory ran out (MemoryError)\n  next: " in capsys.readouterr().err

    @pytest.mark.parametrize("size", [0, 1, 7])
    def test_an_outputs_extent_is_numpys(self, monkeypatch, size):
        monkeypatch.setattr(raw, "_BLOCK", 3)
        values = np.random.default_rng(0).normal(size=size).astype(np.float32)
        ends = (values.min(), values.max()) if size else ()
        wanted = [float(f"{float(end):.6g}") for end in ends] or [None] * 2
        assert raw.extent(values) == (*wanted, 0)
        with_nan = np.concatenate([values, np.array([np.nan, np.inf], np.float32)])
        assert raw.extent(with_nan) == (*wanted, 2)
        assert raw.extent(np.array(["a"])) == (None, None, 0)
