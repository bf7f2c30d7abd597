"""The circumstances of a measurement, recorded beside its figures."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from engineworks import hosts


def record(*packages: str) -> dict[str, Any]:
    """CPU, frequency governor, virtualisation, load and versions; absent facts are left out."""
    facts: dict[str, Any] = {
        "cpu": hosts.probe().cpu,
        "cores": hosts.cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **hosts.versions(*packages),
    }
    if hasattr(os, "getloadavg"):
        facts["load_average_1min"] = round(os.getloadavg()[0], 2)
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor:
        facts["governor"] = governor
    if " hypervisor " in _read("/proc/cpuinfo"):
        facts["virtual_machine"] = True
    return facts


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
