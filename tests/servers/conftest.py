"""Servers of other projects, each started once; skipped where it is not installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engineworks import packaging
from engineworks.packaging import PackageInput
from engineworks.store import LocalStore, verify
from tests import builders


@pytest.fixture(scope="session")
def home() -> Path:
    return Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks").absolute()


@pytest.fixture
def proven(home, tmp_path):
    """Package an engine and prove it: `proven("triton", engine, rows, option=...)`."""

    def make(kind: str, engine: Path, rows: Any = (), photos: int = 6, **options: Any) -> Any:
        package = packaging.load(kind)
        missing = package.environment.missing(home)
        if missing:
            pytest.skip(missing)
        manifest = verify(engine)
        assert package.fits(manifest, options) == ""
        (tmp_path / "work").mkdir()
        output = package.write(
            PackageInput(
                engine=engine,
                manifest=manifest,
                rows=tuple(rows),
                cores=2,
                options=options,
                work=tmp_path / "work",
            )
        )
        made = LocalStore(tmp_path / "packages").put(
            output.files, kind="package", name=manifest.name, entry=output.entry,
            details=output.details, provenance=builders.MADE_HERE,
        )  # fmt: skip
        return packaging.prove(
            kind, package, Path(made.uri), engine, builders.photos()[:photos], home=home,
            work=tmp_path / "proof",
        )  # fmt: skip

    return make
