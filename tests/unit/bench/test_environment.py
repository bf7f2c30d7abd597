"""The circumstances that are recorded are those of this machine."""

from __future__ import annotations

import json
import platform

import numpy as np

from engineworks import hosts
from engineworks.bench import environment


def test_the_circumstances_are_recorded_as_json():
    facts = environment.record("numpy", "no-such-distribution")
    assert facts["numpy"] == np.__version__
    assert "no-such-distribution" not in facts
    assert facts["python"] == platform.python_version()
    assert facts["cores"] == hosts.cores() >= 1
    assert json.loads(json.dumps(facts)) == facts
