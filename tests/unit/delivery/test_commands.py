"""`engineworks deliver` and `engineworks agent`, as two people and a device use them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engineworks.cli import main
from engineworks.delivery import keyring, trial
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
        return trial.DeviceTrial(ok=False, reason="it crashes", check="trial")

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


def test_every_key_is_replaced_as_the_page_says(run, engines, tmp_path, monkeypatch):
    monkeypatch.setattr("engineworks.delivery.agent.trial.run", passes)
    run("deliver init repo --keys keys --root-keys 3 --root-threshold 2")
    run("deliver key keys/yolox.pem")
    run("deliver delegate repo yolox --public keys/yolox.pub --keys keys")
    run(f"deliver add repo {engines[0]} --model yolox --keys keys --percent 50")
    run("deliver widen repo yolox onnxruntime/fp32 --percent 100 --keys keys")
    run("deliver widen repo yolox onnxruntime/fp32 --percent 60 --keys keys", 2)
    run(f"deliver invite repo --address {tmp_path}/repo -o box.invite")
    run("agent enrol box.invite --home box --run main=yolox:onnxruntime/fp32")
    run("agent --once --home box")
    for role in ("timestamp", "snapshot", "targets", "root"):
        folder = "online" if role in ("timestamp", "snapshot") else "offline"
        old = keyring.public_json(keyring.load(Path(f"keys/{folder}/{role}-1.pem")).public_key)
        run(f"deliver key new/{role}.pem")
        # The old key is lost, one of three for root.
        Path(f"keys/{folder}/{role}-1.pem").unlink()
        rotated = f"--add new/{role}.pub --remove {old['keyid'][:16]}"
        run(f"deliver rotate repo {role} {rotated} --keys keys --keys new")
    run("deliver key new/yolox.pem")
    Path("keys/yolox.pem").unlink()
    run("deliver delegate repo yolox --public new/yolox.pub --keys keys --keys new")
    run(f"deliver add repo {engines[1]} --model yolox --keys keys --keys new")
    assert "[" not in run("agent --once --home box")
    found = run("agent status --home box --json")
    assert (found["slots"][0]["running"], found["versions"]["root"]) == (engines[1].name, 5)
    run("deliver drop repo yolox onnxruntime/fp32 --keys keys --keys new")
    assert "nothing named" in run("agent --once --home box")


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
