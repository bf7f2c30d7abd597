"""A Jetson's card, from trees of files as JetPack 4, 5 and 6 leave them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engineworks.facts.host import Jetson
from engineworks.hosts import jetson
from tests.builders import write

R32 = (
    "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, "
    "DATE: Sat Feb 19 17:05:08 UTC 2022\n"
)
R36 = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
    "TARGET_USERSPACE_LIB_DIR=nvidia\nTARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n"
)
MODES = """\
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online

###########################
# POWER_MODEL DEFINITIONS #
###########################
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MODE_30W >
CPU_ONLINE CORE_0 1
< PM_CONFIG DEFAULT=2 >
"""


def orin(root):
    write(root / "etc/nv_tegra_release", R36)
    write(root / "etc/nvpmodel.conf", MODES)
    write(root / "var/lib/nvpmodel/status", "pmode:0002 fmode:quiet")
    tree = root / "proc/device-tree"
    write(tree / "model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    write(tree / "bus@0/host1x@13e00000/nvdla0@15880000/status", "okay\0")
    write(tree / "bus@0/host1x@13e00000/nvdla1@158c0000/status", "disabled\0")
    gpu = root / "sys/class/devfreq/17000000.gpu"
    write(gpu / "cur_freq", "306000000\n")
    write(gpu / "max_freq", "1300500000\n")


def test_an_orin(tmp_path):
    orin(tmp_path)
    assert jetson.probe(tmp_path, jetpack="6.2") == Jetson(
        module="NVIDIA Jetson AGX Orin Developer Kit", l4t="36.4.3", jetpack="6.2", dla_cores=1,
        power_mode="MODE_30W", gpu_clock_mhz=306, gpu_max_clock_mhz=1300,
    )  # fmt: skip


def test_a_bare_nano_has_its_release_and_nothing_invented(tmp_path):
    write(tmp_path / "etc/nv_tegra_release", R32)
    assert jetson.probe(tmp_path) == Jetson(module="", l4t="32.7.1")


def test_a_power_mode_without_a_name_is_its_number(tmp_path):
    orin(tmp_path)
    write(tmp_path / "var/lib/nvpmodel/status", "pmode:0007")
    found = jetson.probe(tmp_path)
    assert found is not None
    assert found.power_mode == "7"


def test_another_machine_is_no_jetson(tmp_path):
    assert jetson.probe(tmp_path) is None
    write(tmp_path / "etc/nv_tegra_release", "something else\n")
    assert jetson.probe(tmp_path) is None


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    assert isinstance(jetson.parse_release(text), str)
    assert isinstance(jetson.parse_power_modes(text), dict)
    assert jetson.parse_power_mode(text) >= -1


@given(st.integers(21, 60), st.integers(0, 9), st.integers(0, 9))
def test_every_release_is_read(major, minor, patch):
    text = R32.replace("R32", f"R{major}").replace("7.1", f"{minor}.{patch}")
    assert jetson.parse_release(text) == f"{major}.{minor}.{patch}"
