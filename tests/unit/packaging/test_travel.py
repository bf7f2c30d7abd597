"""The runtime travels inside a package and needs nothing of this project beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy

from engineworks.packaging import _travel

SITE = Path(numpy.__file__).parents[1]


def test_what_travels_imports_where_only_numpy_is(tmp_path):
    roots = ("engineworks.runtime.elsewhere", "engineworks.runtime.engines.onnxruntime")
    files = _travel.runtime("onnxruntime")
    for inside, path in files.items():
        target = tmp_path / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "numpy").symlink_to(SITE / "numpy")
    (tmp_path / "numpy.libs").symlink_to(SITE / "numpy.libs")
    code = f"""
import sys
sys.path[:] = [{str(tmp_path)!r}] + [p for p in sys.path if "site-packages" not in p]
import {", ".join(roots)}
print(engineworks.__file__)
print(sorted(name for name in sys.modules if name.startswith("engineworks.")))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path))
    assert not [
        inside
        for inside in files
        if inside.startswith(("engineworks/targets", "engineworks/stages"))
    ]


def test_a_name_that_is_no_module_is_left_out():
    assert _travel.modules("engineworks.not_there", "numpy") == {}
    assert "engineworks/errors.py" in _travel.modules("engineworks.errors")
