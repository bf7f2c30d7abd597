"""What a plant takes for its own server."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading

import pytest

from infra.plant import Plant


@pytest.fixture
def page():
    """A page that this process serves: its port."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_server_is_up_when_it_answers_itself(tmp_path, page):
    plant = Plant(tmp_path)
    plant._note("mlflow", os.getpid())
    plant._wait("mlflow", page, "/", limit_s=10)


def test_the_page_of_another_program_is_not_taken_for_it(tmp_path, page):
    plant = Plant(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])
    plant._note("mlflow", other.pid)
    with pytest.raises(RuntimeError, match="mlflow did not start: see"):
        plant._wait("mlflow", page, "/", limit_s=30)
    other.wait()
