"""With a company's proxy in the environment, this machine's own servers are asked directly."""

from __future__ import annotations

import http.server
import importlib.util
import os
import socket
import threading
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import requests
from botocore.utils import get_environ_proxies

from artifacts.registry import mlflow_wait
from artifacts.store import s3
from engineworks import loopback
from engineworks.errors import MissingDependency
from flows.commands.settings import UI_FILE, running_server

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def behind_a_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intern.example")
    # urllib keeps the proxies of its first call in a process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    return monkeypatch


@pytest.fixture
def server():
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_every_client_asks_this_machine_itself(behind_a_proxy, server):
    with pytest.raises(httpx.ConnectError):
        httpx.get(server)
    environment = dict(os.environ)
    loopback.spare(environment)
    for name in ("no_proxy", "NO_PROXY"):
        behind_a_proxy.setenv(name, environment[name])
    assert httpx.get(server).status_code == 200
    assert requests.get(server, timeout=60).status_code == 200
    assert urllib.request.urlopen(server, timeout=60).status == 200
    assert get_environ_proxies("https://127.0.0.1:9000") == {}
    assert get_environ_proxies("https://localhost:9000") == {}
    # Others still go through it, and what was spared before still is.
    assert get_environ_proxies("https://example.com")["https"] == NOWHERE
    assert get_environ_proxies("https://intern.example") == {}


def test_prefect_s_and_mlflow_s_servers_are_found(behind_a_proxy, server, tmp_path):

    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / UI_FILE).write_text(server)
    assert running_server(tmp_path) is None
    assert mlflow_wait.away(server)
    environment = dict(os.environ)
    loopback.spare(environment)
    behind_a_proxy.setenv("no_proxy", environment["no_proxy"])
    assert running_server(tmp_path) == f"{server}/api"
    assert not mlflow_wait.away(server)


def test_the_store_on_this_machine_is_reached(s3_prefix, behind_a_proxy):
    # `setenv` first, so that what the store changes is undone after the test.
    behind_a_proxy.setenv("no_proxy", "")
    bucket = s3.Bucket(s3.parse(s3_prefix), patience_s=5)
    assert bucket.write("a", b"1", only_new=True)


def test_without_a_proxy_nothing_is_changed():
    environment = {"PATH": "/bin", "HTTP_PROXY": ""}
    loopback.spare(environment)
    assert environment == {"PATH": "/bin", "HTTP_PROXY": ""}
    environment = {"http_proxy": NOWHERE, "NO_PROXY": "*"}
    loopback.spare(environment)
    assert environment == {"http_proxy": NOWHERE, "NO_PROXY": "*"}


def test_every_command_spares_this_machine_first():
    """Whoever opens a connection does it after one of these."""
    top = Path(__file__).parents[2]
    for name in (
        "flows/commands/settings.py",
        "artifacts/store/s3.py",
        "infra/deploy.py",
        "infra/stack.py",
        "src/engineworks/cli/_command.py",
    ):
        assert "loopback.spare(os.environ)" in (top / name).read_text(), name


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("127.0.0.0/8,::1/128", "127.0.0.0/8,::1"),
        ("[::1]:4200", "::1"),
        ("localhost,[::1]:8080", "localhost,::1"),
        ("http://[::1]", "::1"),
        ("[fd00::]/8", "fd00::"),
        ("\u00fc.corp", "xn--tda.corp"),
        ("corp:4200", "corp"),
    ],
)
def test_every_client_reads_what_is_left_of_no_proxy(behind_a_proxy, given, read):
    environment = {"HTTP_PROXY": NOWHERE, "NO_PROXY": given}
    loopback.spare(environment)
    assert environment["NO_PROXY"].startswith(read)
    behind_a_proxy.setenv("NO_PROXY", environment["NO_PROXY"])
    behind_a_proxy.setenv("no_proxy", environment["NO_PROXY"])
    httpx.Client().close()


def test_everything_spared_stays_so_for_every_client():
    environment = {"HTTP_PROXY": NOWHERE, "NO_PROXY": "*, corp"}
    loopback.spare(environment)
    assert environment["NO_PROXY"] == environment["no_proxy"] == "*"


def test_brackets_of_an_address_are_taken_off(behind_a_proxy):
    environment = {"HTTP_PROXY": NOWHERE, "NO_PROXY": "localhost,[::1], .corp"}
    loopback.spare(environment)
    assert environment["NO_PROXY"] == "localhost,::1,.corp,127.0.0.1"
    behind_a_proxy.setenv("NO_PROXY", environment["NO_PROXY"])
    behind_a_proxy.setenv("no_proxy", environment["NO_PROXY"])
    httpx.Client().close()  # it would refuse brackets


SOCKS = "socks5h://127.0.0.1:9"


def test_a_socks_proxy_is_in_nobodys_way_where_all_servers_are_here(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    own = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000", "PREFECT_API_URL": "http://[::1]:4200"}
    environment = {"ALL_PROXY": SOCKS, "https_proxy": SOCKS, "http_proxy": NOWHERE, **own}
    loopback.without_socks(environment)
    assert environment == {"http_proxy": NOWHERE, **own}


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"])
def test_a_socks_proxy_to_servers_elsewhere_needs_its_package(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    environment = {"ALL_PROXY": SOCKS, name: "https://server.corp:4200"}
    with pytest.raises(MissingDependency, match="ALL_PROXY is socks5h") as caught:
        loopback.without_socks(environment)
    assert "httpx[socks]" in str(caught.value.hint)


def test_with_the_package_a_socks_proxy_stays(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    environment = {"ALL_PROXY": SOCKS}
    loopback.without_socks(environment)
    assert environment == {"ALL_PROXY": SOCKS}


EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - asked, not listened on


@pytest.mark.parametrize(
    "name",
    [EVERY_ADDRESS, "127.0.1.1", "127.1", "[::ffff:127.0.0.1]", "foo.localhost",
     socket.gethostname()],
)  # fmt: skip
def test_other_names_of_this_machine_are_spared_where_a_server_has_one(name):
    environment = {"HTTP_PROXY": NOWHERE, "MLFLOW_TRACKING_URI": f"http://{name}:5000"}
    loopback.spare(environment)
    host = urlsplit(environment["MLFLOW_TRACKING_URI"]).hostname
    assert host in environment["NO_PROXY"].split(",")


@pytest.mark.parametrize("name", ["192.0.2.7", "server.invalid"])
def test_servers_elsewhere_are_asked_through_the_proxy(name):
    environment = {"HTTP_PROXY": NOWHERE, "PREFECT_API_URL": f"http://{name}:4200/api"}
    loopback.spare(environment)
    assert environment["NO_PROXY"] == "127.0.0.1,localhost,::1"
