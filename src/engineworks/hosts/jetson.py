"""The Jetson's part of the host card, read from the files that NVIDIA's image leaves.

Knows the files of L4T 32 (JetPack 4) to 38 (JetPack 7). Never raises: what is absent stays empty.
Source: https://docs.nvidia.com/jetson/archives/ "nvpmodel", "Configuring power".
"""

from __future__ import annotations

import re
from pathlib import Path

from engineworks.facts.host import Jetson


def probe(root: Path = Path("/"), jetpack: str = "") -> Jetson | None:
    """What this Jetson is; None elsewhere.

    Args:
        root: Where the system's files lie.
        jetpack: Version of the Debian package nvidia-jetpack, if it is installed.
    """
    release = parse_release(_read(root / "etc/nv_tegra_release"))
    if not release:
        return None
    clock, limit = _clocks(root)
    modes = parse_power_modes(_read(root / "etc/nvpmodel.conf"))
    current = parse_power_mode(_read(root / "var/lib/nvpmodel/status"))
    return Jetson(
        module=_read(root / "proc/device-tree/model").strip("\0 \n"),
        l4t=release,
        jetpack=jetpack,
        dla_cores=_dla_cores(root),
        power_mode=modes.get(current, str(current) if current >= 0 else ""),
        gpu_clock_mhz=clock,
        gpu_max_clock_mhz=limit,
    )


def parse_release(text: str) -> str:
    """`/etc/nv_tegra_release` -> "36.4.3"; "" when it is something else."""
    release = re.search(r"^# R(\d{1,4}) \(\w+\), REVISION: (\d{1,4}(?:\.\d{1,4})*)", text, re.M)
    return f"{release[1]}.{release[2]}" if release else ""


def parse_power_modes(text: str) -> dict[int, str]:
    """`/etc/nvpmodel.conf` -> number of a power mode -> its name."""
    pairs = re.findall(r"^<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=([^\s>]+)\s*>", text, re.M)
    return {int(number): name for number, name in pairs}


def parse_power_mode(text: str) -> int:
    """`/var/lib/nvpmodel/status` -> number of the mode in force; -1 when it does not tell."""
    mode = re.search(r"pmode:(\d{1,6})", text)
    return int(mode[1]) if mode else -1


def _dla_cores(root: Path) -> int:
    """Accelerators in the device tree that are not switched off."""
    tree = root / "proc/device-tree"
    nodes = {
        path.name: path
        for pattern in ("host1x*/nvdla*", "bus@*/host1x*/nvdla*")
        for path in tree.glob(pattern)
        if path.is_dir()
    }
    return sum(_read(node / "status").strip("\0 \n") in ("", "okay", "ok")
               for node in nodes.values())  # fmt: skip


def _clocks(root: Path) -> tuple[int, int]:
    """(now, most) MHz of the integrated GPU; 0 where the kernel does not tell."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if re.search(r"\.(gpu|gv11b|ga10b|gp10b|gm20b|gb10b)$|^gpu", folder.name):
            now, most = (_read(folder / name).strip() for name in ("cur_freq", "max_freq"))
            return tuple(int(hz) // 10**6 if hz.isdecimal() else 0 for hz in (now, most))  # type: ignore[return-value]
    return 0, 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
