"""A real Triton is asked the protocol suite; its answers are kept as a file beside it.

RENEW_ANSWERS=1 writes the file anew.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from engineworks import packaging
from engineworks.packaging import PackageInput
from engineworks.packaging._base import Site
from engineworks.store import LocalStore, verify
from tests import builders
from tests.protocol import ask, models
from tests.protocol.cases import CASES

pytestmark = pytest.mark.servers

KEPT = Path(__file__).parents[1] / "protocol" / "triton.json"


NAMES = {"floats": "floats.engine", "bytes": "bytes.engine", "version": "1"}


@pytest.fixture(scope="module")
def site(home, tmp_path_factory):
    """A package with both models, and where a Triton is started on it."""
    package = packaging.load("triton")
    missing = package.environment.missing(home)
    if missing:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("protocol")
    files: dict[str, Path] = {}
    for name, engine in models.engines(folder).items():
        (folder / name).mkdir()
        output = package.write(
            PackageInput(
                engine=engine,
                manifest=verify(engine),
                rows=(),
                cores=1,
                options={},
                work=folder / name,
            )
        )
        files.update(output.files)
    made = LocalStore(folder / "packages").put(
        files, kind="package", name="both", entry=output.entry, details=output.details,
        provenance=builders.MADE_HERE,
    )  # fmt: skip
    return Site(
        package=Path(made.uri), manifest=verify(Path(made.uri)), engine=verify(engine),
        environment=package.environment.folder(home), work=folder / "work", limit_s=60,
    )  # fmt: skip


def all_answers(site, cases):
    """Triton's answers; one that ends it is kept as such, and it is started again."""
    found: dict[str, Any] = {}
    waiting = list(cases)
    while waiting:
        site.work.mkdir(exist_ok=True)
        with packaging.load("triton").serve(site) as served:
            port = int(served.address.rpartition(":")[2])
            while waiting:
                case = waiting.pop(0)
                found[case.name] = ask.answer(port, case, NAMES)
                if found[case.name]["status"] == 0:
                    break
        shutil.rmtree(site.work)
    return found


def test_triton_answers_as_it_is_kept(site):
    found = all_answers(site, CASES)
    if os.environ.get("RENEW_ANSWERS"):
        KEPT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert {name: found[name] for name in found if found[name] != kept.get(name)} == {}
    assert set(found) == set(kept)
