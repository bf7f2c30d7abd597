"""Our server against schemathesis, which makes requests of all kinds from our OpenAPI.

`python -m benchmarks.serving_fuzz PROGRAM [EXAMPLES]`: the program `schemathesis`, and how many
requests for each route and phase. Nothing but 503 may be a server's error, a good photo is answered
right before and after, by the same process, whose memory is looked at. Exit code 1 where not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._serving_trials import resident_mib
from tests import servers

#: MiB that the server may have grown by.
GROWTH_MIB = 50.0

#: Only one engine may be unloaded or swapped: the other is still to answer afterwards.
_CONFIG = """
[[operations]]
include-path-regex = "^/(v2/models|detect)"
parameters = { model = "oracle" }

[[operations]]
include-path-regex = "^/(v2/repository|admin)"
parameters = { model = "total", name = "total" }

[checks]
enabled = false

[checks.not_a_server_error]
enabled = true
expected-statuses = ["2xx", "3xx", "4xx", 503]
"""


def main(arguments: list[str]) -> int:
    """Start the server, send, look at it afterwards."""
    program, examples = (
        str(Path(arguments[0]).absolute()),
        arguments[1] if len(arguments) > 1 else "100",
    )
    with tempfile.TemporaryDirectory(prefix="serving-fuzz-") as name:
        folder = Path(name)
        (folder / "schemathesis.toml").write_text(_CONFIG, encoding="utf-8")
        engines = (servers.oracle_engine(folder / "oracle"), servers.total_engine(folder / "total"))
        with (
            servers.serving(folder, *map(str, engines), "--max-body", "1048576") as running,
            running.client() as client,
        ):
            photo, workers = servers.picture(), running.workers()
            wanted = client.post("/detect", content=photo).json()["detections"]
            for _ in range(200):
                client.post("/detect", content=photo)
            before = resident_mib(running)
            done = subprocess.run(
                [program, "--config-file", str(folder / "schemathesis.toml"), "run",
                 f"{running.url}/openapi.json", "--max-examples", examples],
                check=False, cwd=folder,  # it leaves its notes where it runs
            )  # fmt: skip
            same = client.post("/detect", content=photo).json().get("detections") == wanted
            lives = running.workers() == workers and "Traceback" not in running.said()
            growth = resident_mib(running) - before
    sys.stdout.write(
        f"a good photo answered as before: {same}; the same process, no traceback: {lives}; "
        f"grown by {growth:.1f} MiB (at most {GROWTH_MIB:g})\n"
    )
    return int(done.returncode != 0 or not same or not lives or growth > GROWTH_MIB)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
