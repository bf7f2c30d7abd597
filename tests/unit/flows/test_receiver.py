"""MLflow's webhooks, sent by MLflow's own code to the real receiver."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
from mlflow.entities.webhook import Webhook, WebhookEvent, WebhookStatus
from mlflow.webhooks import delivery as mlflow_delivery

from artifacts.registry import webhook
from artifacts.registry.webhook import Inbox, RegistryEvent
from engineworks.errors import StoreError
from flows import receiver

SECRET = "a secret of the tests"  # noqa: S105
NOW = 1_800_000_000


@contextlib.contextmanager
def running(passes_on, secret=SECRET):
    server = receiver.Receiver(("127.0.0.1", 0), Inbox([secret]), passes_on)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def mlflow_sends(monkeypatch):
    """MLflow's own sender, without its pauses."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    session = mlflow_delivery._create_webhook_session()
    for adapter in session.adapters.values():
        adapter.max_retries.backoff_factor = adapter.max_retries.backoff_jitter = 0

    def send(server, name, payload, secret=SECRET):
        url = f"http://127.0.0.1:{server.server_port}/mlflow"
        event = WebhookEvent.from_str(name)
        hook = Webhook(
            "id", "name", url, [event], NOW, NOW, status=WebhookStatus.ACTIVE, secret=secret
        )
        return mlflow_delivery._send_webhook_request(hook, payload, event, session).status_code

    return send


def tag(value, key="engineworks.request", **other):
    return {"name": "tiny", "version": "3", "key": key, "value": value, **other}


def test_what_mlflow_sends_is_passed_on_if_it_is_known(mlflow_sends):
    told = []
    version = {"name": "tiny", "version": "4", "source": "s3://a/b", "run_id": None,
               "tags": {"engineworks.request": "ship r.yaml"}, "description": None}  # fmt: skip
    alias = {"name": "tiny", "alias": "champion-openvino-int8", "version": "3"}
    with running(told.append) as server:
        for name, payload in (
            ("model_version_tag.set", tag("promote")),
            ("model_version_tag.set", tag("delete everything")),
            ("model_version_tag.set", tag("promote", key="engineworks.answer")),
            ("model_version_tag.deleted", tag("promote")),
            ("model_version.created", version),
            ("model_version.created", {**version, "tags": {}}),
            ("model_version_alias.created", alias),
            ("model_version_alias.created", alias),  # as every promotion moves two
            ("model_version_alias.created", {**alias, "alias": "candidate-openvino-int8"}),
            ("registered_model.created", {"name": "tiny", "tags": {}, "description": None}),
        ):
            assert mlflow_sends(server, name, payload) == 200, name
        assert (
            mlflow_sends(server, "model_version_tag.set", tag("promote"), "another secret") == 401
        )
        assert mlflow_sends(server, "model_version_tag.set", tag("promote"), None) == 401
    assert told == [
        RegistryEvent(kind="promote", model="tiny", version="3"),
        RegistryEvent(kind="ship", model="tiny", version="4", recipe="r.yaml"),
        RegistryEvent(kind="moved", model="tiny"),
    ]


def test_while_prefect_is_away_mlflow_comes_again(mlflow_sends):
    told, away = [], [1, 1]

    def passes_on(event):
        if away:
            away.pop()
            raise ConnectionError("Prefect is away")
        told.append(event)

    with running(passes_on) as server:
        assert mlflow_sends(server, "model_version_tag.set", tag("promote")) == 200
    assert [event.kind for event in told] == ["promote"] and not away


def signed(body, delivery="d-1", stamp=NOW, secret=SECRET):
    signature = mlflow_delivery._generate_hmac_signature(secret, delivery, str(stamp), body)
    return {webhook.ID: delivery, webhook.TIMESTAMP: str(stamp), webhook.SIGNATURE: signature}


def said(data, about="model_version_tag.set"):
    entity, _, action = about.partition(".")
    return json.dumps({"entity": entity, "action": action, "timestamp": "x", "data": data})


def test_replays_forgeries_and_old_ones_are_refused():
    inbox, body = Inbox([SECRET], lambda: NOW), said(tag("promote"))
    headers = signed(body)
    assert inbox.judge(headers, body.encode()).event is not None
    again = inbox.judge(headers, body.encode())
    assert (again.status, again.event, again.reason) == (200, None, "it was delivered before")
    inbox.forget("d-1")
    assert inbox.judge(headers, body.encode()).event is not None
    for wrong in (
        {**headers, webhook.ID: "d-2"}, {**headers, webhook.TIMESTAMP: str(NOW + 1)},
        {**headers, webhook.SIGNATURE: ""}, {**headers, webhook.SIGNATURE: "v1,"},
        {**headers, webhook.SIGNATURE: headers[webhook.SIGNATURE].replace("v1,", "v2,")},
        {**headers, webhook.SIGNATURE: "é " + "x" * 5000}, {**headers, webhook.TIMESTAMP: "²"},
        {webhook.SIGNATURE: headers[webhook.SIGNATURE]}, {},
        *(signed(body, stamp=stamp) for stamp in (NOW - 301, NOW + 301, "9" * 4000)),
    ):  # fmt: skip
        judged = inbox.judge(wrong, body.encode())
        assert (judged.status, judged.event) == (401, None), wrong
    assert inbox.judge(headers, body.encode() + b" ").status == 401
    assert inbox.judge(signed(body, "d-3", secret="the old one"), body.encode()).status == 401
    changing = Inbox([SECRET, "the old one"], lambda: NOW)
    assert changing.judge(signed(body, "d-3", secret="the old one"), body.encode()).event


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"data": 3}', "[" * 100_000, '{"entity": "model_version_tag", "data": []}',
     said(tag("promote", name=None)), said(tag("promote", name="x" * 301)),
     said(tag("promote", version={})),
     said({"alias": "champion-x", "name": ["a"]}, "model_version_alias.created")],
)  # fmt: skip
def test_what_cannot_be_read_is_said(body):
    judged = Inbox([SECRET], lambda: NOW).judge(signed(body), body.encode())
    assert (judged.status, judged.event) == (400, None)


def test_hostile_callers_get_an_answer_and_cost_little(monkeypatch):
    monkeypatch.setattr(receiver, "WAIT_S", 0.3)
    monkeypatch.setattr(receiver._Handler, "timeout", 0.3)
    with running(lambda event: None) as server:

        def ask(method, path, headers=(), body=None):
            with contextlib.closing(
                http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
            ) as one:
                one.putrequest(method, path)
                for name, value in headers:
                    one.putheader(name, value)
                one.endheaders(body)
                return one.getresponse().status

        assert ask("GET", "/health") == 200 and ask("GET", "/mlflow") == 404
        assert ask("POST", "/other", [("Content-Length", "0")]) == 404
        assert ask("POST", "/mlflow") == 411
        assert ask("POST", "/mlflow", [("Content-Length", "-1")]) == 411
        assert (
            ask("POST", "/mlflow", [("Transfer-Encoding", "chunked"), ("Content-Length", "3")])
            == 411
        )
        assert ask("POST", "/mlflow", [("Content-Length", str(2**18 + 1))]) == 413
        assert ask("POST", "/mlflow", [("Content-Length", "9" * 4000)]) == 413
        assert ask("POST", "/mlflow", [("Content-Length", "2")], b"{}") == 401
        idle = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(40)]
        begun = time.monotonic()
        while True:  # those who say nothing are let go
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask("GET", "/health") == 200:
                    break
            assert time.monotonic() - begun < 5
        for one in idle:
            one.close()


def test_a_secret_is_needed(monkeypatch):
    for value in ("", "short", f"{SECRET.replace(' ', '')} short"):
        monkeypatch.setenv(receiver.SECRET, value)
        with pytest.raises(StoreError, match="is not set, or has fewer"):
            receiver.secrets()
    monkeypatch.setenv(receiver.SECRET, "x" * 16 + " " + "y" * 16)
    assert receiver.secrets() == ["x" * 16, "y" * 16]
