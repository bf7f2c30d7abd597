"""Every number of summary.json is in MLflow, under a name that says what it is."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from artifacts import summary as summaries
from artifacts.registry import mlflow_facts, mlflow_log
from engineworks.codec import from_json, to_json
from tests.builders import example

#: What describes files, machines and the format: it stands in the artifacts.
LEFT_OUT = {"manifest", "host", "environment", "schema", "budget", "spec"}


def counted(value, fresh):
    """The same with a number of its own in every place."""
    if isinstance(value, dict):
        return {k: v if k in LEFT_OUT else counted(v, fresh) for k, v in value.items()}
    if isinstance(value, list):
        return [counted(item, fresh) for item in value]
    return next(fresh) if isinstance(value, int | float) and type(value) is not bool else value


def numbers(value):
    if isinstance(value, dict):
        return [n for key, item in value.items() if key not in LEFT_OUT for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, int | float) and type(value) is not bool else []


@pytest.fixture
def summary():
    plain = json.loads(json.dumps(to_json(example(summaries.Summary))))
    for number, variant in enumerate(plain["variants"]):
        variant["name"] = f"target/fp{number}"
    return from_json(summaries.Summary, counted(plain, itertools.count(1000)))


def test_every_number_is_there_once_for_each_place(summary):
    wanted = numbers(json.loads(json.dumps(to_json(summary))))
    assert len(wanted) > 250 and len(set(wanted)) == len(wanted)
    found = mlflow_facts.numbers(summary)
    assert set(wanted) <= {value for _, value, _ in found}
    places = [(name, step) for name, _, step in found]
    assert len(set(places)) == len(places), "one would hide another"
    assert all("//" not in name and len(name) <= 250 for name, _, _ in found)


def test_a_list_without_names_is_a_curve_and_one_with_names_is_not(summary):
    found = mlflow_facts.numbers(summary)
    variant = summary.variants[0]
    trials = [v for n, v, _ in found if n.endswith("/quantized/trials/agreement")][:2]
    assert trials == [trial.agreement for trial in variant.quantized.trials]
    row = variant.benchmark[0]
    at = f"/benchmark/{row.height}x{row.width}/batch{row.batch}/"
    named = {n.partition("/")[2]: v for n, v, _ in found if at in f"/{n}"}
    assert named[f"{at[1:]}p99_ms"] == row.p99_ms
    assert named[f"{at[1:]}ci95_ms/high"] == row.ci95_ms[1]


def test_strange_names_and_numbers_are_taken(summary):
    first = summary.variants[0]
    accuracy = dataclasses.replace(
        first.accuracy, detail={"IoU caf\u00e9 (1)": 0.5, "..": 0.25, "nan": float("nan")}
    )
    odd = dataclasses.replace(
        summary, variants=(dataclasses.replace(first, accuracy=accuracy), *summary.variants[1:])
    )
    found = {name: value for name, value, _ in mlflow_facts.numbers(odd)}
    assert 0.5 in found.values() and 0.25 in found.values()
    assert all(name.isascii() and ".." not in name.split("/") for name in found)


def test_mlflow_takes_them_all(summary, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow = mlflow_log.client(tmp_path)
    run_id = mlflow.create_run(mlflow.create_experiment("all")).info.run_id
    resolved = tmp_path / "resolved.json"
    recipe = {"name": "x", "targets": [{"target": "a", "options": {"b": 1}}], "n": [1, 2], "l": []}
    resolved.write_text(json.dumps(recipe))
    mlflow_log._log_facts(mlflow, run_id, summary, resolved)
    run = mlflow.get_run(run_id)
    wanted = mlflow_facts.numbers(summary)
    last = {name: value for name, value, _ in wanted}
    assert run.data.metrics == pytest.approx(last)
    name = next(name for name, _, step in wanted if step == 1)
    history = [(point.value, point.step) for point in mlflow.get_metric_history(run_id, name)]
    assert history == [(value, step) for one, value, step in wanted if one == name]
    assert run.data.params["recipe.targets.0.options.b"] == "1"
    assert run.data.params["recipe.n"] == "[1, 2]" and run.data.params["recipe.l"] == "[]"
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.digest == summary.data.sha256[:36]
    assert json.loads(used.dataset.source)["images"] == summary.data.spec.images
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "evaluation")]
