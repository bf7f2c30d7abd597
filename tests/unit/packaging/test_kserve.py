"""A package for KServe as it is written; its manifests are held against KServe's own schemas.

`kserve-schemas.json.gz` holds the schemas of charts/kserve-crd of https://github.com/kserve/kserve
(Apache-2.0, commit aaac4e294, after v0.20), without their descriptions.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from engineworks import packaging
from engineworks.errors import BuildError
from engineworks.store import verify
from tests.unit.packaging.conftest import row

KSERVE = packaging.load("kserve")
SCHEMAS = json.loads(
    gzip.decompress((Path(__file__).parent / "kserve-schemas.json.gz").read_bytes())
)
SETS = ("inference-service", "triton", "engineworks-server")


def closed(schema):
    """A structural schema that refuses what it does not name, as the API server's strict mode."""
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema:
        schema["properties"] = {key: closed(each) for key, each in schema["properties"].items()}
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
        if not open_ended and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


def refused(manifest):
    """What Kubernetes would refuse; "" for nothing."""
    schema = closed(SCHEMAS[f"{manifest['apiVersion']} {manifest['kind']}"])
    schema["properties"]["metadata"] = {"type": "object"}
    found = list(jsonschema.Draft7Validator(schema).iter_errors(manifest))
    return "; ".join(f"{'/'.join(map(str, each.path))}: {each.message[:120]}" for each in found)


def manifests(output, name):
    return list(yaml.safe_load_all(output.files[f"manifests/{name}.yaml"].read_text()))


@pytest.mark.parametrize("name", SETS)
def test_manifests_are_what_kserve_publishes(engine, written, name):
    made = manifests(written("kserve", engine()), name)
    assert made
    assert [refused(manifest) for manifest in made] == [""] * len(made)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "predictor", "minReplica"), 1),
        (("spec", "predictor", "maxReplicas"), "four"),
        (("spec", "predictor", "containers", 0, "readinessProbe", "periodSecond"), 5),
    ],
)
def test_the_schemas_refuse_what_is_wrong(engine, written, path, value):
    (manifest,) = manifests(written("kserve", engine()), "inference-service")
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert refused(manifest)


def test_a_pod_has_the_cpus_of_the_engines_threads(engine, written):
    output = written("kserve", engine(), [row(1, 10.0, threads=2)], memory="2Gi", max_replicas=9)
    (service,) = manifests(output, "inference-service")
    predictor = service["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "2Gi"}
    assert "--threads=2" in container["args"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 9)
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/models/cars/ready"


def test_a_service_refers_to_the_runtime_beside_it(engine, written):
    runtime, service = manifests(written("kserve", engine()), "triton")
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = [each["name"] for each in runtime["spec"]["supportedModelFormats"]]
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in formats


def test_the_container_holds_engine_and_runtime(engine, written):
    folder = engine()
    output = written("kserve", folder)
    assert output.files["app/engine/model.onnx"].read_bytes() == b"graph"
    assert "app/engineworks/runtime/engines/onnxruntime.py" in output.files
    assert "USER 1000" in output.files["Dockerfile"].read_text()


def test_names_are_those_that_kubernetes_takes(engine, written):
    (service,) = manifests(written("kserve", engine(name="yolo_x.nano")), "inference-service")
    assert service["metadata"]["name"] == "yolo-x-nano"


def test_what_does_not_fit_is_told_why(engine):
    assert "not of tensorrt" in KSERVE.fits(verify(engine(runtime="tensorrt")), {})
    with pytest.raises(BuildError, match="no range"):
        packaging.check_options("kserve", KSERVE, {"min_replicas": 5, "max_replicas": 2})
