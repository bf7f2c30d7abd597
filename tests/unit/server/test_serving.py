"""The server as its clients see it: a real process, real engines, over HTTP."""

from __future__ import annotations

import base64
import json
import re

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engineworks import runtime
from engineworks.runtime import heads as head
from engineworks.runtime.heads import segmentation
from engineworks.runtime.pictures import decode_picture
from engineworks.runtime.session import open_engine
from tests import builders, servers

PHOTO = servers.picture()


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    return {
        "finder": servers.oracle_engine(folder / "oracle"),
        "fixed": servers.constant_detector(folder / "fixed", (4, 8, 16, 24), batch=4),
        "nothing": servers.null_engine(folder / "null"),
        "total": servers.total_engine(folder / "total"),
    }


@pytest.fixture(scope="module")
def server(engines, tmp_path_factory):
    named = [f"{name}={folder}" for name, folder in engines.items()]
    with servers.serving(tmp_path_factory.mktemp("serve"), *named) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


def boxes(answer):
    assert answer.status_code == 200, answer.text
    return [(d["label"], d["xyxy"]) for d in answer.json()["detections"]]


RED = [("red", [8.0, 16.0, 40.0, 48.0])]


class TestImages:
    @pytest.mark.parametrize("kind", [".png", ".bmp", ".webp", ".tiff", ".ppm"])
    def test_the_boxes_are_those_that_were_painted(self, client, kind):
        answer = client.post("/detect?model=finder", content=servers.picture(kind))
        assert boxes(answer) == RED

    def test_every_way_in_gives_the_same_answer(self, client):
        url = "/detect?model=finder"
        text = base64.b64encode(PHOTO).decode()
        lines = re.sub("(.{76})", "\\1\r\n", text)
        url_alphabet = base64.urlsafe_b64encode(PHOTO).decode().rstrip("=")
        for answer in (
            client.post(url, content=PHOTO),
            client.post(url, content=PHOTO, headers={"content-type": "image/png"}),
            client.post(url, content=PHOTO, headers={"content-type": "image/jpeg"}),  # mislabelled
            client.post(
                url, content=PHOTO, headers={"content-type": "application/x-www-form-urlencoded"}
            ),
            client.post(url, files={"file": ("photo.png", PHOTO, "image/png")}),
            client.post(url, files={"image": PHOTO}, data={"note": "a field beside it"}),
            client.post(url, content=iter([PHOTO[:10], PHOTO[10:]])),  # chunked
            *(
                client.post(url, json={"image": said})
                for said in (text, lines, url_alphabet, f"data:image/png;base64,{text}")
            ),
        ):
            assert boxes(answer) == RED

    def test_the_answer_names_the_engine_that_gave_it(self, client, engines):
        answer = client.post("/detect?model=finder", content=PHOTO).json()
        with open_engine(engines["finder"]) as session:
            sha256 = session.manifest.sha256
        assert answer["model"] == {
            "name": "finder",
            "version": sha256[:12],
            "variant": "onnxruntime/fp32",
            "digest": sha256,
        }
        assert (answer["height"], answer["width"]) == (64, 64)
        assert set(answer["stage_ms"]) == {"decode", "preprocess", "infer", "postprocess"}

    def test_confidence_and_iou_count_for_one_request_alone(self, client):
        url = "/detect?model=finder"
        assert boxes(client.post(f"{url}&confidence=0.95", content=PHOTO)) == []
        assert boxes(client.post(f"{url}&confidence=0.5&iou=0.3", content=PHOTO)) == RED
        data = {"image": base64.b64encode(PHOTO).decode(), "confidence": 0.95}
        assert boxes(client.post(url, json=data)) == []
        assert boxes(client.post(url, content=PHOTO)) == RED

    def test_a_classifier_names_its_best_classes(self, client):
        answer = client.post("/classify?top=2", content=PHOTO).json()
        assert answer["model"]["name"] == "nothing"
        assert answer["classes"] == [
            {"label": label, "class_id": number, "confidence": 0.3333}
            for number, label in enumerate("ab")
        ]

    def test_every_task_of_the_runtime_has_its_route(self, tmp_path):
        engines = (
            servers.color_map_engine(tmp_path / "a"),
            servers.pose_engine(tmp_path / "b"),
        )
        with servers.serving(tmp_path, *map(str, engines)) as running, running.client() as client:
            areas = client.post("/segment", content=PHOTO).json()
            poses = client.post("/keypoints?confidence=0.5", content=PHOTO).json()
            assert (
                client.post("/keypoints?confidence=0.95", content=PHOTO).json()["detections"] == []
            )
            paths = client.get("/openapi.json").json()["paths"]
        assert {f"/{head.load(kind).command}" for kind in head.names()} <= set(paths)
        red = next(entry for entry in areas["areas"] if entry["label"] == "red")
        mask = segmentation.from_png(base64.b64decode(areas["mask_png"]))
        assert mask.shape == (64, 64)
        assert (mask[20:44, 12:36] == 0).all()
        assert red["pixels"] == (mask == 0).sum()
        (pose,) = poses["detections"]
        assert pose["xyxy"] == [8.0, 16.0, 40.0, 48.0]
        assert pose["keypoints"] == [
            {"name": "head", "x": 10.0, "y": 20.0, "confidence": 0.8},
            {"name": "foot", "x": 30.0, "y": 40.0, "confidence": 0.7},
        ]

    def test_an_engine_of_fixed_batch_answers_one_image(self, client):
        # of its 32x32 input to the picture's 64x64
        assert boxes(client.post("/detect?model=fixed", content=PHOTO)) == [
            ("thing", [8.0, 16.0, 32.0, 48.0])
        ]

    def test_without_a_name_only_one_fitting_engine_answers(self, client):
        answer = client.post("/detect", content=PHOTO)
        assert answer.status_code == 400
        assert "finder, fixed" in answer.json()["error"]
        assert client.post("/detect?model=nothing", content=PHOTO).status_code == 400
        assert client.post("/classify?confidence=0.5", content=PHOTO).status_code == 400  # has none
        assert client.post("/detect?model=absent", content=PHOTO).status_code == 404

    def test_a_trained_detector_finds_what_the_runtime_finds(self, yolox_engine, tmp_path):
        photo = builders.photos()[3]
        with open_engine(yolox_engine) as session:
            detector = runtime.Detector(session, confidence=0.25, iou=0.5)
            found = detector(decode_picture(photo.read_bytes(), "photo").image)
        with servers.serving(tmp_path, str(yolox_engine)) as running, running.client() as client:
            answer = client.post(
                "/detect?confidence=0.25&iou=0.5", content=photo.read_bytes()
            ).json()
        assert len(found) > 3
        seen = answer["detections"]
        assert [entry["class_id"] for entry in seen] == found.class_id.tolist()
        np.testing.assert_allclose([entry["xyxy"] for entry in seen], found.xyxy, atol=0.006)
        np.testing.assert_allclose(
            [entry["confidence"] for entry in seen], found.confidence, atol=6e-5
        )


class TestProtocol:
    """The Open Inference Protocol, with JSON and with binary tensors."""

    def infer(self, client, model, request, **options):
        return client.post(f"/v2/models/{model}/infer", json=request, **options)

    def tensor(self, array, **more):
        names = {"float32": "FP32", "int64": "INT64"}
        return {
            "name": "x",
            "datatype": names[array.dtype.name],
            "shape": list(array.shape),
            "data": array.tolist(),
            **more,
        }

    def test_metadata_describes_the_server_and_its_engines(self, client):
        server = client.get("/v2").json()
        assert server["name"] == "engineworks"
        assert "binary_tensor_data" in server["extensions"]
        found = client.get("/v2/models/total").json()
        assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert [o["name"] for o in found["outputs"]] == ["means", "total"]
        (version,) = found["versions"]
        assert client.get(f"/v2/models/total/versions/{version}").json() == found
        assert client.get("/v2/models/total/versions/7").status_code == 404
        assert client.get("/v2/models/total/ready").json()["ready"]
        assert client.get("/v2/models/absent/ready").status_code == 404
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200

    def test_json_numbers_go_in_and_come_out(self, client):
        rows = np.arange(8, dtype=np.float32).reshape(2, 4)
        for data in (rows.tolist(), rows.ravel().tolist()):
            request = {"id": "seven", "inputs": [self.tensor(rows, data=data)]}
            answer = self.infer(client, "total", request).json()
            assert answer["id"] == "seven"
            assert answer["model_name"] == "total"
            assert answer["outputs"] == [
                {"name": "means", "datatype": "FP32", "shape": [2, 1], "data": [1.5, 5.5]},
                {"name": "total", "datatype": "FP32", "shape": [], "data": [28.0]},
            ]

    def test_binary_tensors_go_in_and_come_out(self, client):
        rows = np.random.default_rng(0).random((3, 4), np.float32)
        data = rows.tobytes()
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "x", "datatype": "FP32", "shape": [3, 4],
                        "parameters": {"binary_data_size": len(data)},
                    }
                ],
                "outputs": [
                    {"name": "total"},
                    {"name": "means", "parameters": {"binary_data": True}},
                ],
            }
        ).encode()  # fmt: skip
        answer = client.post(
            "/v2/models/total/infer",
            content=head + data,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        end = int(answer.headers["Inference-Header-Content-Length"])
        told = json.loads(answer.content[:end])
        assert [o["name"] for o in told["outputs"]] == ["total", "means"]
        assert told["outputs"][0]["data"] == [pytest.approx(rows.sum())]
        assert told["outputs"][1]["parameters"] == {"binary_data_size": 12}
        means = np.frombuffer(answer.content[end:], np.float32)
        np.testing.assert_allclose(means, rows.mean(1), rtol=1e-6)

    def test_the_tensors_are_those_of_the_engine_bit_by_bit(self, client, engines):
        rows = np.random.default_rng(1).random((1, 3, 64, 64), np.float32)
        with open_engine(engines["finder"]) as session:
            wanted = session.infer({"images": rows})["detections"]
        request = {"inputs": [self.tensor(rows, name="images")]}
        answer = self.infer(client, "finder", request).json()["outputs"][0]
        assert np.array(answer["data"], np.float32).tobytes() == wanted.tobytes()

    def test_more_rows_than_a_batch_are_split_in_order(self, client):
        rows = np.zeros((21, 3, 64, 64), np.float32)
        for number, row in enumerate(rows):
            row[0, 10 : 12 + number, 10:20] = 1  # red, and taller in every row
        data = rows.tobytes()
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "images", "datatype": "FP32", "shape": list(rows.shape),
                        "parameters": {"binary_data_size": len(data)},
                    }
                ]
            }
        ).encode()  # fmt: skip
        answer = client.post(
            "/v2/models/finder/infer",
            content=head + data,
            headers={"Inference-Header-Content-Length": str(len(head))},
        ).json()["outputs"][0]
        assert answer["shape"] == [21, 3, 6]
        heights = np.array(answer["data"]).reshape(21, 3, 6)[:, 0, 3] - 10
        assert heights.tolist() == [2.0 + number for number in range(21)]

    def test_rows_that_cannot_be_split_are_refused_with_the_limit(self, client):
        rows = np.zeros((9, 4), np.float32)
        answer = self.infer(client, "total", {"inputs": [self.tensor(rows)]})
        assert answer.status_code == 413
        assert "8" in answer.json()["hint"]

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"shape": [-1, 4]}, "shape"),
            ({"shape": [0, 4]}, "shape"),
            ({"shape": [2**31, 2**31]}, "shape"),
            ({"shape": [1] * 65}, "shape"),
            ({"shape": [1.0, 4]}, "shape"),
            ({"shape": [True, 4]}, "shape"),
            ({"shape": [4]}, "shape"),
            ({"shape": [1, 5]}, "shape"),
            ({"shape": "1,4"}, "shape"),
            ({"datatype": "FP64"}, "FP32"),
            ({"datatype": 7}, "FP32"),
            ({"name": "y"}, "none of this engine's"),
            ({"name": None}, "none of this engine's"),
            ({"data": [1, 2, 3]}, "4 numbers"),
            ({"data": [[1, 2], [3]]}, "4 numbers"),
            ({"data": ["a", "b", "c", "d"]}, "4 numbers"),
            ({"data": [True, False, True, True]}, "4 numbers"),
            ({"data": [None] * 4}, "4 numbers"),
            ({"data": {"a": 1}}, "no data"),
            ({"parameters": {"binary_data_size": 16}}, "both"),
            ({"parameters": {"binary_data_size": -16}, "data": None}, "both"),
            ({"parameters": []}, "parameters"),
        ],
    )
    def test_wrong_tensors_are_refused_with_the_rule(self, client, change, word):
        tensor = {**self.tensor(np.ones((1, 4), np.float32)), **change}
        answer = self.infer(client, "total", {"inputs": [tensor]})
        assert answer.status_code == 400
        assert word in answer.json()["error"] + answer.json()["hint"]

    @pytest.mark.parametrize(
        "request_",
        [
            {},
            {"inputs": 3},
            {"inputs": []},
            {"inputs": [3]},
            {"inputs": [{}], "outputs": {}},
        ],
    )
    def test_wrong_requests_are_refused(self, client, request_):
        assert self.infer(client, "total", request_).status_code == 400

    @pytest.mark.parametrize("length", ["-1", "x", "99999", "3", "1e3", "9" * 30])
    def test_wrong_lengths_of_the_head_are_refused(self, client, length):
        answer = client.post(
            "/v2/models/total/infer",
            content=b'{"inputs": []}',
            headers={"Inference-Header-Content-Length": length},
        )
        assert answer.status_code == 400

    def test_binary_sizes_must_be_those_of_the_tensor(self, client):
        for size, tail in ((12, b"\0" * 12), (16, b"\0" * 12), (16, b"\0" * 20), (2**40, b"")):
            head = json.dumps(
                {
                    "inputs": [
                        {
                            "name": "x", "datatype": "FP32", "shape": [1, 4],
                            "parameters": {"binary_data_size": size},
                        }
                    ]
                }
            ).encode()  # fmt: skip
            answer = client.post(
                "/v2/models/total/infer",
                content=head + tail,
                headers={"Inference-Header-Content-Length": str(len(head))},
            )
            assert answer.status_code == 400, (size, len(tail))

    def test_the_repository_is_listed(self, client):
        found = client.post("/v2/repository/index").json()
        assert [entry["name"] for entry in found] == ["finder", "fixed", "nothing", "total"]
        assert {entry["state"] for entry in found} == {"READY"}


class TestOperation:
    def test_health_says_what_is_served(self, client):
        assert client.get("/health/live").json() == {"live": True}
        ready = client.get("/health/ready").json()
        assert ready["ready"]
        assert set(ready["models"]) == {"finder", "fixed", "nothing", "total"}

    def test_the_description_of_the_api_has_examples(self, client):
        spec = client.get("/openapi.json").json()
        answers = spec["paths"]["/detect"]["post"]["responses"]
        example = answers["200"]["content"]["application/json"]["example"]
        shown = client.post("/detect?model=finder", content=PHOTO).json()
        assert set(example) == set(shown)
        assert set(example["model"]) == set(shown["model"])
        assert set(example["detections"][0]) == set(shown["detections"][0])
        assert "application/json" in spec["paths"]["/detect"]["post"]["requestBody"]["content"]

    def test_a_request_keeps_its_id(self, client):
        answer = client.get("/health/live", headers={"X-Request-Id": "job-7"})
        assert answer.headers["X-Request-Id"] == "job-7"
        odd = client.get("/health/live", headers={"X-Request-Id": "a b\tc"})
        assert re.fullmatch("[0-9a-f]{16}", odd.headers["X-Request-Id"])

    def samples(self, client):
        text = client.get("/metrics").text
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def requests(self, client):
        return {
            (dict(key[1:])["model"], dict(key[1:])["route"], dict(key[1:])["outcome"]): value
            for key, value in self.samples(client).items()
            if key[0] == "engineworks_requests_total"
        }

    def test_each_request_is_counted_once_under_its_outcome(self, client):
        before = self.requests(client)
        cases = {
            ("finder", "/detect", "ok"): lambda: client.post("/detect?model=finder", content=PHOTO),
            ("finder", "/detect", "undecodable"): lambda: client.post(
                "/detect?model=finder", content=b"<html>"
            ),
            ("", "/detect", "unknown_model"): lambda: client.post(
                "/detect?model=absent", content=PHOTO
            ),
            ("", "/detect", "bad_request"): lambda: client.post(
                "/detect?model=finder&confidence=7", content=PHOTO
            ),
            ("total", "/v2/infer", "bad_request"): lambda: client.post(
                "/v2/models/total/infer", content=b"{"
            ),
            ("", "/detect", "too_large"): lambda: client.post(
                "/detect", content=b"\xff" * (21 * 2**20)
            ),
            ("", "other", "unknown_path"): lambda: client.get("/etc/passwd"),
        }
        for times, send in enumerate(cases.values(), start=1):
            for _ in range(times):
                send()
        after = self.requests(client)
        counted = {
            key: after[key] - before.get(key, 0)
            for key in after
            if after[key] != before.get(key, 0) and key[1] != "/metrics"
        }
        assert counted == {key: times for times, key in enumerate(cases, start=1)}

    def test_series_name_model_variant_and_version(self, client):
        found = self.samples(client)
        infos = [
            dict(key[1:]) for key, value in found.items() if key[0] == "engineworks_engine_info"
        ]
        assert {info["model"] for info in infos} == {"finder", "fixed", "nothing", "total"}
        assert all(info["version"] and info["variant"] for info in infos)
        stages = {
            dict(key[1:])["stage"]
            for key in found
            if key[0] == "engineworks_stage_seconds_count" and dict(key[1:])["model"] == "finder"
        }
        assert {"decode", "preprocess", "infer", "postprocess"} <= stages


def test_a_server_that_cannot_open_its_engine_says_so_and_ends(tmp_path, engines):
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in engines["total"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.onnx").write_bytes(b"x" * (folder / "model.onnx").stat().st_size)
    done = servers.refused(tmp_path, str(folder), "--port", "0")
    assert done.returncode == 2
    assert "ArtifactError" in done.stderr
    assert "altered" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_client_library_of_others_reads_the_description(client):
    """OpenAPI's rule: every path parameter of a route is described."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for route in methods.values():
            named = {p["name"] for p in route.get("parameters", ()) if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path


def test_httpx_sees_the_reason_of_a_body_that_is_refused(client):
    answer = client.post("/detect", content=b"\0" * (25 * 2**20))
    assert isinstance(answer, httpx.Response)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
