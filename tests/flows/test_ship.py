"""The command `python -m flows.ship`, as a user meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from mlflow import MlflowClient

from tests.flows.conftest import ROOT, Project

pytestmark = pytest.mark.flows


def mlflow_of(project):
    uri = f"sqlite:///{project.home / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_run_leaves_summary_report_mlflow_run_and_registered_versions(project):
    project.edit('  - target: "null"', '  - target: onnxruntime-cpu\n  - target: "null"')
    project.edit("export: {exporters: [legacy], simplify: false}", "export: {}")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    assert "onnxruntime-cpu/fp32" in outcome.out and "shipped" in outcome.out
    latest = project.home / "runs" / "latest"
    schema = json.loads((ROOT / "docs" / "summary.schema.json").read_text())
    jsonschema.validate(outcome.summary, schema)
    assert "onnxruntime-cpu/fp32" in (latest / "report.html").read_text()
    assert not list((project.home / "store").glob(".tmp/*"))

    mlflow = mlflow_of(project)
    run = mlflow.get_run(outcome.summary["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["onnxruntime-cpu-fp32/p50_ms"] > 0
    assert run.data.metrics["stages/build/onnxruntime-cpu-fp32/elapsed_s"] > 0
    assert run.data.params["recipe.targets.1.target"] == "null"
    assert run.data.tags["verdict.null-fp32"] == "shipped"
    files = {file.path for file in mlflow.list_artifacts(run.info.run_id)}
    assert {"report.html", "summary.json", "recipe.yaml", "onnx", "engines", "reference"} <= files
    for variant in outcome.summary["variants"]:
        registered = variant["registered"]
        version = mlflow.get_model_version_by_alias("tiny", registered["alias"])
        assert str(version.version) == registered["version"]
        assert version.tags["sha256"] == variant["engine"]["sha256"]
        assert version.tags["target"] == variant["target"]
        engine = mlflow.download_artifacts(run.info.run_id, version.source.split("/", 2)[2])
        assert json.loads(Path(engine, "manifest.json").read_text())["kind"] == "engine"


def test_nothing_changed_means_nothing_runs_and_nothing_is_registered_twice(project):
    """With two sets of options of one target, whose engines are the same bytes."""
    again = '  - target: "null"\n    label: again\n    options: {act: ship}'
    project.edit('  - target: "null"', f'  - target: "null"\n{again}')
    first = project.ship("--log-level", "error")
    assert first.code == 0, first.err
    names = [variant["name"] for variant in first.summary["variants"]]
    assert names == ["null/fp32", "null/fp32:again"]
    aliases = [variant["registered"]["alias"] for variant in first.summary["variants"]]
    assert aliases == ["candidate-null-fp32", "candidate-null-fp32--again"]
    logs = {path.name: path for path in (project.home / "runs/latest/logs").iterdir()}
    assert {"build_null-fp32", "build_null-fp32--again"} <= set(logs)
    assert "INFO" not in (logs["build_null-fp32"] / "log.txt").read_text()
    second = project.ship()
    assert second.code == 0, second.err
    assert second.executed == set()
    assert "0 stages ran" in second.out
    assert second.summary["mlflow"]["run_id"] == first.summary["mlflow"]["run_id"]
    versions = mlflow_of(project).search_model_versions("name = 'tiny'")
    assert {version.tags["variant"] for version in versions} == set(names)
    assert len(versions) == 2
    assert second.summary["overhead_s"] > 0


@pytest.mark.usefixtures("prepared")
def test_other_batches_rerun_only_the_benchmark_and_what_follows(project):
    assert project.ship().code == 0
    project.edit("batches: [1, 2]", "batches: [1, 3]")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    assert outcome.executed == {"benchmark", "log"}
    assert [row["batch"] for row in outcome.variant("null/fp32")["benchmark"]] == [1, 3]
    assert len(mlflow_of(project).search_model_versions("name = 'tiny'")) == 1


@pytest.mark.usefixtures("prepared")
def test_a_comment_or_another_folder_reruns_nothing(project, tmp_path_factory):
    assert project.ship().code == 0
    elsewhere = tmp_path_factory.mktemp("moved")
    for name in ("model.py", "weights.pt"):
        shutil.copy(project.folder / name, elsewhere)
    moved = Project(elsewhere, project.api)
    moved.home = project.home
    moved.recipe.write_text("# a comment\n" + project.recipe.read_text())
    shutil.copy(project.folder / "model.py", elsewhere)
    outcome = moved.ship()
    assert outcome.code == 0, outcome.err
    assert outcome.executed == {"log"}  # the registry says which recipe a version is of
    assert moved.ship().executed == set()


@pytest.mark.usefixtures("prepared")
def test_changed_weights_rerun_everything(project):
    import torch

    assert project.ship().code == 0
    state = torch.load(project.folder / "weights.pt", weights_only=True)
    state["head.bias"] += 1
    torch.save(state, project.folder / "weights.pt")
    outcome = project.ship()
    assert {"reference", "export", "build", "check", "benchmark"} <= outcome.executed


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("act", "verdict", "words"),
    [
        ("refuse", "failed", "was asked to refuse"),
        ("crash", "failed", "SIGSEGV"),
        ("hang", "failed", "limit"),
        ("drift", "rejected", "SNR"),
        ("untruth", "failed", "asked for fp16, the engine is fp32"),
    ],
)
def test_a_variant_that_goes_wrong_gets_a_verdict_and_sinks_no_other(project, act, verdict, words):
    project.edit(
        '  - target: "null"',
        '  - target: "null"\n    precisions: [fp16]\n    required: false\n'
        f"    options: {{act: {act}}}\n  - target: onnxruntime-cpu",
    )
    project.recipe.write_text(project.recipe.read_text() + "limits: {build_s: 15}\n")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    bad = outcome.variant("null/fp16")
    assert bad["verdict"] == verdict
    assert words in bad["reason"]
    assert bad["registered"] is None
    assert outcome.variant("onnxruntime-cpu/fp32")["verdict"] == "shipped"


@pytest.mark.usefixtures("prepared")
def test_a_required_variant_that_is_not_shipped_fails_the_run(project):
    project.edit('  - target: "null"', '  - target: "null"\n    options: {act: drift}')
    outcome = project.ship()
    assert outcome.code == 1
    assert outcome.variant("null/fp32")["verdict"] == "rejected"
    assert "rejected" in outcome.out
    assert outcome.summary["comparison"] is None


@pytest.mark.usefixtures("prepared")
def test_a_damaged_or_missing_engine_is_made_again(project):
    assert project.ship().code == 0
    (engine,) = project.engines()
    answers = engine / "answers.npz"
    answers.write_bytes(answers.read_bytes()[:-1] + b"x")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    assert outcome.executed == {"build"}
    shutil.rmtree(engine)
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    assert outcome.executed == {"build"}
    assert project.ship().executed == set()


def test_dry_run_says_what_would_run_and_touches_nothing(fresh):
    outcome = fresh.ship("--dry-run", "--json")
    assert outcome.code == 0
    plan = json.loads(outcome.out)
    assert [v["action"] for v in plan["variants"]] == ["run"]
    assert not (fresh.home / "store").exists()
    assert not (fresh.home / "runs").exists()


@pytest.mark.usefixtures("prepared")
def test_json_prints_the_summary_and_nothing_else(project):
    outcome = project.ship("--json", "--quiet")
    assert outcome.code == 0, outcome.err
    printed = json.loads(outcome.out)
    assert printed == outcome.summary
    assert outcome.err.strip() == ""


def test_without_a_server_the_embedded_one_is_used(project):
    project.api = ""
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    assert (project.home / "prefect" / "prefect.db").is_file()


@pytest.mark.parametrize("form", ["onnx", "pt2", "torchscript"])
def test_model_files_ship_as_well(project, weights, form):
    import torch

    scope: dict = {}
    exec((project.folder / "model.py").read_text(), scope)  # noqa: S102 - the test's own text
    net = scope["build"]().eval()
    net.load_state_dict(torch.load(weights, weights_only=True))
    example = torch.rand(2, 3, 32, 32)
    path = project.folder / f"net.{form}"
    batch = torch.export.Dim("batch")
    if form == "onnx":
        torch.onnx.export(
            net, (example,), path, dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "b"}, "y": {0: "b"}},
        )  # fmt: skip
    elif form == "pt2":
        torch.export.save(torch.export.export(net, (example,), dynamic_shapes=({0: batch},)), path)
    else:
        torch.jit.trace(net, example).save(path)
    project.edit("  source: model:build\n  weights: weights.pt\n", f"  source: net.{form}\n")
    project.edit('"null"', "onnxruntime-cpu")
    project.edit("exporters: [legacy], ", "")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    variant = outcome.variant("onnxruntime-cpu/fp32")
    assert variant["verdict"] == "shipped"
    assert variant["parity"]["max_abs_diff"] < 1e-4


@pytest.mark.usefixtures("prepared")
def test_facts_that_return_move_the_alias_back_and_a_rejected_engine_is_no_candidate(project):
    import torch

    weights = project.folder / "weights.pt"
    first = weights.read_bytes()
    one = project.ship().summary["variants"][0]["registered"]
    state = torch.load(weights, weights_only=True)
    state["head.bias"] += 1
    torch.save(state, weights)
    two = project.ship().summary["variants"][0]["registered"]
    assert (one["version"], two["version"]) == ("1", "2")
    weights.write_bytes(first)
    outcome = project.ship()
    assert outcome.executed == {"log"}
    assert outcome.summary["variants"][0]["registered"] == one
    mlflow = mlflow_of(project)
    assert str(mlflow.get_model_version_by_alias("tiny", one["alias"]).version) == "1"
    assert len(mlflow.search_model_versions("name = 'tiny'")) == 2

    project.recipe.write_text(project.recipe.read_text() + "budget: {max_size_mib: 0.0001}\n")
    outcome = project.ship()
    assert outcome.code == 1
    assert outcome.variant("null/fp32")["verdict"] == "rejected"
    assert mlflow.get_model_version("tiny", "1").tags["verdict"] == "rejected"
    assert mlflow.get_registered_model("tiny").aliases == {}


@pytest.mark.usefixtures("prepared")
def test_an_unreachable_mlflow_loses_no_verdict(project):
    outcome = project.ship(
        MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        ENGINEWORKS_MLFLOW_PATIENCE_S="0",
    )
    assert outcome.code == 3, outcome.err
    assert "MLflow" in outcome.err and "MLFLOW_TRACKING_URI" in outcome.err
    assert "secret" not in outcome.err
    assert outcome.variant("null/fp32")["verdict"] == "shipped"
    assert outcome.summary["mlflow"] is None
    text = "".join(p.read_text(errors="replace") for p in project.home.rglob("*.json"))
    assert "secret" not in text
    assert project.ship().executed == {"log"}
