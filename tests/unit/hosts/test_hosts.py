"""The host card tells what this machine is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from engineworks import hosts
from engineworks.codec import digest


def test_the_card_is_this_machines():
    card = hosts.probe()
    assert card.arch == platform.machine()
    assert card.packages["numpy"] == np.__version__
    assert card.memory_mib > 0
    assert card.cpu
    assert set(card.cpu_flags) <= set(hosts.CPU_FLAGS)


def test_two_probes_mean_the_same():
    assert digest(hosts.probe()) == digest(hosts.probe())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_only_the_cores_that_this_process_may_use_count():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from engineworks import hosts; print(hosts.cores())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_absent_packages_are_left_out():
    assert list(hosts.versions("numpy", "no-such-distribution")) == ["numpy"]
