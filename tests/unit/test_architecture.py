"""The listing is the architecture: what docs/architecture.md says of folders is so."""

from __future__ import annotations

import dataclasses
import importlib

import pytest

from engineworks.stages import STAGES
from tasks._cache import stage_key
from tasks._stage import StageTask
from tests.builders import ROOT, example


def names(folder):
    return {path.stem for path in (ROOT / folder).glob("[!_]*.py")}


def test_every_stage_has_its_task_of_the_same_name():
    assert names("tasks") - {"log"} == names("src/engineworks/stages")


@pytest.mark.parametrize("name", sorted(names("src/engineworks/stages")))
def test_a_stages_file_declares_it_and_its_task_calls_it(name):
    stage = importlib.import_module(f"engineworks.stages.{name}").STAGE
    assert STAGES[name] is stage and stage.request.__module__ == stage.run.__module__
    task = importlib.import_module(f"tasks.{name}").TASK
    assert isinstance(task, StageTask)
    assert (task.task.name, task.value) == (name, stage.value)


def test_flows_lists_flows_and_their_commands_only():
    # processes that stay, and a look at all machines
    flows = names("flows") - {"worker", "receiver", "hosts"}
    for name in flows:
        module = importlib.import_module(f"flows.{name}")
        assert hasattr(getattr(module, name), "deploy"), f"flows/{name}.py holds no flow {name}"


def test_two_recipes_for_one_model_share_every_stage_but_those_that_make_engines():
    asked = {name: example(stage.request) for name, stage in STAGES.items()}
    shared = [name for name, request in asked.items() if hasattr(request, "shared")]
    for name in shared:
        request = asked[name]
        named = dataclasses.replace(request.shared, name="other")
        changed = dataclasses.replace(request, shared=named)
        assert stage_key(name, changed) == stage_key(name, request), name
    build = asked["build"]
    assert stage_key("build", dataclasses.replace(build, name="b")) != stage_key("build", build)
