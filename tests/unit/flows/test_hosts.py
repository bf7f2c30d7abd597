"""The list of machines, as a person and a program read it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from artifacts import fleet
from artifacts.store import s3
from engineworks import hosts as cards
from engineworks.facts.host import RegisteredHost
from engineworks.plan import SILENT_S
from flows import hosts
from tasks._cache import checkout_sha256


@pytest.fixture
def bucket(s3_prefix, monkeypatch):
    monkeypatch.setenv("ENGINEWORKS_STORE", s3_prefix)
    monkeypatch.delenv("ENGINEWORKS_STORE_PATIENCE_S", raising=False)
    return s3.Bucket(s3.parse(s3_prefix))


@pytest.fixture
def machines(bucket):
    card = cards.probe()
    for name, code in (("rack-1", checkout_sha256()), ("rack-2", "another")):
        host = RegisteredHost(
            card=dataclasses.replace(card, name=name), pool="cpu", code_sha256=code, instance="i"
        )
        fleet.register(bucket, host)


def test_every_machine_is_a_line_with_its_state(machines, capsys):
    assert hosts.main([]) == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["machine", "pool", "state"]
    assert first.split()[:3] == ["rack-1", "cpu", "ready"] and "onnxruntime-cpu" in first
    assert second.split()[:4] == ["rack-2", "cpu", "other", "version"]


def test_json_is_for_programs(machines, capsys, monkeypatch):
    monkeypatch.setattr(hosts, "SILENT_S", -1.0)
    assert hosts.main(["--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["card"]["name"] == "rack-1" and second["pool"] == "cpu"
    assert first["state"] == second["state"] == "silent"
    assert "onnxruntime-cpu" in first["builds"] and first["age_s"] < SILENT_S


def test_no_machine_is_no_error_and_says_how_one_joins(bucket, capsys):
    assert hosts.main([]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "no machine is registered" in err and "flows.worker" in err
    assert hosts.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_without_a_store_it_says_which_variable(monkeypatch, capsys):
    monkeypatch.delenv("ENGINEWORKS_STORE", raising=False)
    assert hosts.main([]) == 3
    out, err = capsys.readouterr()
    assert out == "" and "ENGINEWORKS_STORE is not set" in err and "next: set" in err


def test_a_server_that_is_away_is_not_waited_for_as_long_as_by_a_run(bucket, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(hosts, "PATIENCE_S", 1.0)
    assert hosts.main(["--json"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and "did not answer within 1 s" in err


def test_a_bucket_that_is_not_there_is_named(bucket, capsys, monkeypatch):
    monkeypatch.setenv("ENGINEWORKS_STORE", "s3://nowhere/x")
    assert hosts.main([]) == 3
    assert "there is no bucket 'nowhere'" in capsys.readouterr().err


def test_a_machine_that_is_gone_is_forgotten_and_one_that_is_not_is_named(
    machines, capsys, monkeypatch
):
    assert hosts.main(["--forget", "rack-9"]) == 3
    assert "no machine is registered as 'rack-9'" in capsys.readouterr().err
    monkeypatch.setattr(fleet, "SILENT_S", -1.0)
    assert hosts.main(["--forget", "rack-1"]) == 0
    out = capsys.readouterr().out
    assert "rack-1" not in out and "rack-2" in out


def test_help_says_what_states_and_exit_codes_mean(capsys):
    with pytest.raises(SystemExit) as caught:
        hosts.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "Exit codes: 0" in out and "silent" in out
