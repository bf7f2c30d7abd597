"""`engineworks deliver` and `engineworks agent`, as two people and a device use them."""

from __future__ import annotations

import json
import shutil

import pytest

from engineworks.cli import main
from engineworks.delivery import trial
from tests.deliveries import World, passes


@pytest.fixture()
def engines(tmp_path):
    world = World(tmp_path / "elsewhere", models=())
    return world.engine(2.0), world.engine(3.0)


@pytest.fixture()
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def command(line, code=0):
        assert main(line.split()) == code, capsys.readouterr().err
        captured = capsys.readouterr()
        command.err = captured.err
        return json.loads(captured.out) if "--json" in line else captured.out

    return command


def test_from_nothing_to_a_device_that_runs_an_engine_and_goes_back(
    run, engines, tmp_path, monkeypatch
):
    monkeypatch.setattr("engineworks.delivery.agent.trial.run", passes)
    run("deliver init repo --keys keys --root-keys 2 --root-threshold 1")
    run("deliver key worker/yolox.pem")
    out = run("deliver delegate repo yolox --public worker/yolox.pub --keys keys/offline")
    assert "waits for keys that are not here" in out
    shutil.move("keys/offline", "stick")
    run("deliver status repo --json", 1)
    assert "model-yolox waits for its own key" in run.err
    online = "--keys keys/online --keys worker"
    for engine in engines:
        run(f"deliver add repo {engine} --model yolox --version 7 --p50-ms 4.25 {online}")
    run(f"deliver invite repo --address {tmp_path}/repo -o box.invite")
    run("agent enrol box.invite --home box --run main=yolox:onnxruntime/fp32")

    found = run("agent --once --home box --json")

    assert found["slots"][0]["running"] == engines[1].name
    assert run("agent status --home box --json") == found
    rollback = f"deliver add repo {engines[0]} --model yolox --withdraw --version 6 {online}"
    assert run(f"{rollback} --json")["allowed"] == []
    assert "version 6" in run("agent --once --home box")
    status = run("deliver status repo --json")
    assert [one["generation"] for one in status["targets"]] == [3]
    assert status["warnings"] == []


def test_a_failure_has_a_code_and_may_be_tried_again(run, engines, tmp_path, monkeypatch):
    def fails(*_args, **_options):
        return trial.Trial(ok=False, reason="it crashes", check="trial")

    run("deliver init repo --keys keys")
    run("deliver key keys/yolox.pem")
    run("deliver delegate repo yolox --public keys/yolox.pub --keys keys")
    run(f"deliver add repo {engines[0]} --model yolox --keys keys")
    run(f"deliver invite repo --address {tmp_path}/repo -o box.invite")
    run("agent enrol box.invite --home box --run main=yolox:onnxruntime/fp32")
    monkeypatch.setattr("engineworks.delivery.agent.trial.run", fails)
    assert "it crashes" in run("agent --once --home box", 1)
    monkeypatch.setattr("engineworks.delivery.agent.trial.run", passes)
    assert "[failed here]" in run("agent --once --home box", 1)
    assert "generation 1 is tried again" in run("agent retry main --home box")
    assert "switched" in run("agent --once --home box")
    shutil.move("repo", "gone")
    run("agent --once --home box", 3)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("deliver status nowhere", "cannot be read"),
        ("deliver init repo --keys keys --root-keys 1", "2 of 1 keys cannot sign"),
        ("agent --once --home nowhere", "is no device's folder"),
        ("agent enrol nothing --home box", "is no invitation"),
        ("deliver resign nowhere --keys nokeys", "there are no keys"),
    ],
)
def test_refusals_say_why(run, line, says):
    run(line, 2)
    assert says in run.err
