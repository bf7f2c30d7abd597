"""Where an engine comes from, held against the standards' own schemas and against the bytes."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from referencing import Registry, Resource

from artifacts import summary as summaries
from artifacts.summary import Engine, PackageRow, SealedRow, Summary, Variant
from engineworks.cli import main
from engineworks.facts.data import PinnedData
from engineworks.facts.engine import Accuracy
from engineworks.facts.int8 import Calibration, Quantized
from engineworks.facts.timing import BenchmarkRow
from engineworks.manifest import MANIFEST_NAME, Provenance
from engineworks.specs import DataSpec
from engineworks.store import LocalStore
from tests import builders

STANDARDS = Path(__file__).parent / "standards"
TOOLS = {"engineworks": "0.1.0", "onnx": "1.23.2"}


def schema(name):
    return json.loads(gzip.decompress((STANDARDS / f"{name}.schema.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def cyclonedx():
    resources = [Resource.from_contents(schema(name)) for name in ("spdx", "jsf-0.82")]
    registry = Registry().with_resources([(item.id(), item) for item in resources])
    return jsonschema.Draft7Validator(schema("bom-1.6"), registry=registry)


@pytest.fixture(scope="module")
def in_toto():
    """Message by name, of the standard's own descriptors."""
    described = descriptor_pb2.FileDescriptorSet()
    described.ParseFromString((STANDARDS / "in-toto-attestation-1.protoset").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for name in ("struct", "timestamp"):
        module = __import__(f"google.protobuf.{name}_pb2", fromlist=["DESCRIPTOR"])
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in described.file:
        pool.AddSerializedFile(file.SerializeToString())
    return lambda name: message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"in_toto_attestation.{name}")
    )()


def hold_to_in_toto(in_toto, statement):
    """As in-toto's own validators do: the form by its descriptors, then the rules."""
    parsed = json_format.ParseDict(statement, in_toto("v1.Statement"))
    assert parsed.type == "https://in-toto.io/Statement/v1"
    assert parsed.predicate_type == "https://slsa.dev/provenance/v1"
    assert parsed.subject and all(subject.digest for subject in parsed.subject)
    names = [subject.name for subject in parsed.subject]
    assert len(set(names)) == len(names)
    predicate = json_format.ParseDict(
        statement["predicate"], in_toto("predicates.provenance.v1.Provenance")
    )
    assert re.match(r"[a-z]+:", predicate.build_definition.build_type)
    assert predicate.build_definition.external_parameters
    assert re.match(r"[a-z]+:", predicate.run_details.builder.id)
    for item in predicate.build_definition.resolved_dependencies:
        assert item.name and item.digest
    for item in (*parsed.subject, *predicate.build_definition.resolved_dependencies):
        for algorithm, value in item.digest.items():
            assert algorithm in ("sha256", "engineworks") and re.fullmatch("[0-9a-f]{64}", value)
    return predicate


def put(store, folder, kind, content, parents=(), stage="", **fields):
    path = folder / f"{kind}.bin"
    path.write_bytes(content)
    return store.put(
        {f"{kind}.bin": path}, kind=kind, name="tiny", entry=f"{kind}.bin",
        provenance=Provenance(
            stage=stage or kind, parents=tuple(parent.sha256 for parent in parents), tools=TOOLS,
            host="a machine", recipe_sha256="c" * 64 if stage != "pin" else "",
        ),
        **fields,
    )  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """A chain as `ship` makes it, and the summary of its run."""
    home = tmp_path / "home"
    store = LocalStore(home / "store")
    source = put(store, tmp_path, "source", b"weights", stage="pin")
    reference = put(store, tmp_path, "reference", b"answers", [source])
    graph = put(store, tmp_path, "onnx", b"graph", [reference], "export")
    calibration = put(store, tmp_path, "calibration", b"ranges", [graph], "calibrate")
    integers = put(store, tmp_path, "onnx", b"integers", [graph, calibration], "quantize")
    engine = put(
        store, tmp_path, "engine", b"engine", [integers], "build", target="openvino",
        precision="int8", task=builders.yolox_task(), inputs=(builders.tensor(),),
    )  # fmt: skip
    package = put(store, tmp_path, "package", b"package", [engine])
    sealed = put(store, tmp_path, "sealed", b"test", [engine], "seal", details={
        "parent": engine.sha256}
    )  # fmt: skip
    example = builders.example
    row = dataclasses.replace(
        example(Variant), name="openvino/int8", target="openvino", precision="int8",
        verdict="shipped", reason="it holds", host=None, registered=None,
        engine=Engine(sha256=engine.sha256, size_bytes=6, uri=engine.uri),
        quantized=dataclasses.replace(example(Quantized), onnx=integers),
        package=(
            dataclasses.replace(
                example(PackageRow), kind="triton", state="pending", sha256=package.sha256
            ),
        ),
        sealed=dataclasses.replace(example(SealedRow), sha256=sealed.sha256),
        accuracy=Accuracy(metric="AP", value=0.25, reference=0.26, drop=0.01, images=33,
                          detail={"AP50": 0.5}),
        benchmark=(
            dataclasses.replace(
                example(BenchmarkRow), height=16, width=16, batch=1, threads=2, p50_ms=4.5,
                ci95_ms=(4.25, 5.0), p99_ms=None, inconclusive="",
            ),
        ),
    )  # fmt: skip
    base = example(Summary)
    summary = dataclasses.replace(
        base, run_id="20260101-000000-000-tiny", name="tiny", variants=(row,),
        data=dataclasses.replace(
            example(PinnedData), spec=DataSpec(images="/secret/place/val2017"), files=("a", "b"),
            sha256="d" * 64, objects=7,
        ),
        calibration=dataclasses.replace(example(Calibration), artifact=calibration),
    )  # fmt: skip
    folder = home / "runs" / summary.run_id
    folder.mkdir(parents=True)
    summaries.write(summary, folder / "summary.json")
    chain = [source, reference, graph, calibration, integers, engine, package, sealed]
    return home, chain


@pytest.fixture
def written(made, tmp_path, monkeypatch, capsys):
    """The three files, of an engine of the state folder."""
    home, chain = made
    monkeypatch.setenv("ENGINEWORKS_HOME", str(home))
    output = tmp_path / "out"
    assert main(["provenance", chain[5].uri, "-o", str(output), "--json"]) == 0
    return json.loads(capsys.readouterr().out), output, chain


def sha256(text):
    return hashlib.sha256(text).hexdigest()


def test_the_statement_names_every_link_down_to_the_weights(written, in_toto):
    said, output, chain = written
    statement = json.loads((output / "engine.intoto.json").read_text())
    predicate = hold_to_in_toto(in_toto, statement)
    subjects = {item["name"]: item["digest"] for item in statement["subject"]}
    assert subjects == {
        "engine tiny openvino/int8": {"engineworks": chain[5].sha256},
        "engine.bin": {"sha256": sha256(b"engine")},
        MANIFEST_NAME: {"sha256": sha256((Path(chain[5].uri) / MANIFEST_NAME).read_bytes())},
    }
    needed = predicate.build_definition.resolved_dependencies
    assert [dict(item.digest)["sha256"] for item in needed] == [
        sha256(content) for content in (b"weights", b"answers", b"graph", b"ranges", b"integers")
    ]
    assert [item.annotations["stage"] for item in needed] == [
        "pin", "reference", "export", "calibrate", "quantize",
    ]  # fmt: skip
    assert predicate.run_details.builder.id == "urn:engineworks:machine:a%20machine"
    assert dict(predicate.run_details.builder.version) == TOOLS
    assert predicate.run_details.metadata.invocation_id == "20260101-000000-000-tiny"
    assert dict(predicate.build_definition.external_parameters) == {
        "model": "tiny", "target": "openvino", "precision": "int8", "recipeSha256": "c" * 64,
    }  # fmt: skip
    assert said["unknown"] == [] and len(said["chain"]) == 8


def test_each_link_has_a_statement_whose_dependencies_were_made_before(written, in_toto):
    _, output, chain = written
    lines = (output / "chain.statements.jsonl").read_text().splitlines()
    made = []
    for line, artifact in zip(lines, chain, strict=True):
        statement = json.loads(line)
        predicate = hold_to_in_toto(in_toto, statement)
        assert statement["subject"][0]["digest"] == {"engineworks": artifact.sha256}
        needed = [item.annotations["artifact"] for item in
                  predicate.build_definition.resolved_dependencies]  # fmt: skip
        assert set(needed) <= set(made)
        assert needed == list(artifact.manifest.provenance.parents)
        made.append(artifact.sha256)


def test_the_bill_of_materials_is_cyclonedx_with_a_model_card(written, cyclonedx):
    _, output, chain = written
    text = (output / "bom.cdx.json").read_text()
    bom = json.loads(text)
    assert [error.message for error in cyclonedx.iter_errors(bom)] == []
    assert "/secret" not in text
    engine = bom["metadata"]["component"]
    assert engine["type"] == "machine-learning-model"
    assert engine["hashes"] == [{"alg": "SHA-256", "content": sha256(b"engine")}]
    card = engine["modelCard"]
    assert card["modelParameters"]["task"] == "detection"
    assert card["modelParameters"]["datasets"] == [{"ref": "data:evaluation"},
                                                   {"ref": "data:calibration"}]  # fmt: skip
    assert card["properties"][0] == {"name": "engineworks:class:0", "value": "person"}
    metrics = {
        metric["type"]: metric for metric in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    assert {name: metrics[name]["value"] for name in ("AP", "AP50", "latency p50 ms")} == {
        "AP": "0.25", "AP50": "0.5", "latency p50 ms": "4.5",
    }  # fmt: skip
    assert metrics["latency p50 ms"]["confidenceInterval"] == {
        "lowerBound": "4.25", "upperBound": "5",
    }  # fmt: skip
    assert "latency p99 ms" not in metrics
    assert "package triton: pending" in card["considerations"]["technicalLimitations"]
    others = {item["bom-ref"]: item for item in bom["components"]}
    assert others["data:evaluation"]["name"] == "val2017"
    assert others[f"artifact:{chain[0].sha256}"]["hashes"][0]["content"] == sha256(b"weights")
    needs = {item["ref"]: item["dependsOn"] for item in bom["dependencies"]}
    assert set(needs) <= {*others, engine["bom-ref"]}
    assert {name for item in needs.values() for name in item} <= {*others, engine["bom-ref"]}
    assert needs[f"artifact:{chain[6].sha256}"][0] == engine["bom-ref"]
    assert f"artifact:{chain[3].sha256}" in needs[f"artifact:{chain[4].sha256}"]
    assert {f"tool:{name}@{version}" for name, version in TOOLS.items()} <= set(others)


def test_signed_statements_are_dsse_envelopes_that_openssl_verifies(
    made, tmp_path, monkeypatch, in_toto
):
    home, chain = made
    monkeypatch.setenv("ENGINEWORKS_HOME", str(home))
    key, output = tmp_path / "k", tmp_path / "out"
    assert main(["bundle", "--new-key", str(key)]) == 0
    assert main(["provenance", chain[5].uri, "-o", str(output), "--key", str(key)]) == 0
    statements = [json.loads((output / "engine.intoto.json").read_text())]
    lines = (output / "chain.statements.jsonl").read_text().splitlines()
    statements += [json.loads(line) for line in lines]
    envelopes = (output / "attestations.intoto.jsonl").read_text().splitlines()
    for line, statement in zip(envelopes, statements, strict=True):
        envelope = json.loads(line)
        assert set(envelope) == {"payloadType", "payload", "signatures"}
        payload = base64.b64decode(envelope["payload"], validate=True)
        assert json.loads(payload) == statement
        hold_to_in_toto(in_toto, statement)
        # As https://github.com/secure-systems-lab/dsse/blob/master/protocol.md has it.
        kind = envelope["payloadType"]
        signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
        (signature,) = envelope["signatures"]
        (tmp_path / "sig").write_bytes(base64.b64decode(signature["sig"]))
        for data, code in ((signed, 0), (signed + b" ", 1)):
            (tmp_path / "data").write_bytes(data)
            done = subprocess.run(
                ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", f"{key}.pub", "-rawin",
                 "-in", tmp_path / "data", "-sigfile", tmp_path / "sig"], capture_output=True,
            )  # fmt: skip
            assert done.returncode == code, done.stderr


def test_a_copy_elsewhere_tells_what_it_knows(made, tmp_path, monkeypatch, capsys, cyclonedx,
                                              in_toto):  # fmt: skip
    home, chain = made
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "nothing"))
    folder = tmp_path / "bundle"
    LocalStore(home / "store").open(chain[5])
    for artifact, name in ((chain[5], "engine"), (chain[7], "sealed")):
        (folder / name).mkdir(parents=True)
        for file in Path(artifact.uri).iterdir():
            (folder / name / file.name).write_bytes(file.read_bytes())
    (folder / "bundle.json").write_text("{}")
    output = tmp_path / "out"
    assert main(["provenance", str(folder), "-o", str(output)]) == 0
    said = capsys.readouterr().out
    assert "of 1 artifacts only the digest is known here" in said
    assert "no summary.json speaks of it" in said
    bom = json.loads((output / "bom.cdx.json").read_text())
    assert [error.message for error in cyclonedx.iter_errors(bom)] == []
    statement = json.loads((output / "engine.intoto.json").read_text())
    predicate = hold_to_in_toto(in_toto, statement)
    (unknown,) = predicate.build_definition.resolved_dependencies
    assert dict(unknown.digest) == {"engineworks": chain[4].sha256}
    lines = (output / "chain.statements.jsonl").read_text().splitlines()
    assert [json.loads(line)["subject"][0]["digest"]["engineworks"] for line in lines] == [
        chain[5].sha256, chain[7].sha256,
    ]  # fmt: skip


def test_what_is_damaged_or_no_engine_is_refused(made, tmp_path, monkeypatch, capsys):
    home, chain = made
    monkeypatch.setenv("ENGINEWORKS_HOME", str(home))
    output = ["-o", str(tmp_path / "out")]
    assert main(["provenance", chain[6].uri, *output]) == 2
    assert "of the kind package, not an engine" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert main(["provenance", chain[5].uri, "-o", str(tmp_path / "there")]) == 2
    other = tmp_path / "other.json"
    other.write_text('{"variants": []}')
    assert main(["provenance", chain[5].uri, *output, "--summary", str(other)]) == 2
    assert "knows no engine" in capsys.readouterr().err
    (Path(chain[5].uri) / "engine.bin").write_bytes(b"ENGINE")
    assert main(["provenance", chain[5].uri, *output]) == 2
    assert "it was altered" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_parent_that_names_its_child_ends_nothing(made, tmp_path, monkeypatch):
    """Provenance is no part of an identity: whoever writes a manifest may write anything there."""
    from engineworks import manifest as manifests

    home, chain = made
    monkeypatch.setenv("ENGINEWORKS_HOME", str(home))
    path = Path(chain[4].uri) / MANIFEST_NAME
    known = manifests.load(path)
    parents = (chain[5].sha256, "../../etc", *known.provenance.parents)
    bent = dataclasses.replace(
        known, provenance=dataclasses.replace(known.provenance, parents=parents)
    )
    path.chmod(0o644)
    path.write_text(manifests.dump(bent))
    assert main(["provenance", chain[5].uri, "-o", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "chain.statements.jsonl").read_text().splitlines()
    assert len(lines) == 8


def test_the_schemas_refuse_what_is_wrong(written, cyclonedx, in_toto):
    _, output, _ = written
    bom = json.loads((output / "bom.cdx.json").read_text())
    bom["metadata"]["component"]["modelCard"]["score"] = 1
    assert list(cyclonedx.iter_errors(bom))
    statement = json.loads((output / "engine.intoto.json").read_text())
    statement["predicate"]["buildDefinition"]["resolved"] = []
    with pytest.raises(json_format.ParseError):
        hold_to_in_toto(in_toto, statement)
