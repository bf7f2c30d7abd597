"""GPUs and libraries, from texts as the real tools write them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engineworks.facts.host import Gpu
from engineworks.hosts import nvidia

SMI = (
    "NVIDIA H200, 9.0, 143771, 580.65.06, 700.00, 1980\n"
    "NVIDIA GeForce RTX 4090, 8.9, 24564, 580.65.06, [N/A], 3105\n"
)
DPKG = """\
Package: libnvinfer10
Status: install ok installed
Priority: optional
Version: 10.3.0.30-1+cuda12.5
Description: TensorRT runtime libraries
 .
 Version: 1.0 of nothing

Package: libnvinfer-dev
Status: install ok installed
Version: 8.5.2-1+cuda11.4

Package: libcudnn9-cuda-12
Status: install ok installed
Version: 9.3.0.75-1

Package: nvidia-jetpack
Status: deinstall ok config-files
Version: 6.1+b123
"""


def test_every_line_of_nvidia_smi_is_a_gpu():
    first, second = nvidia.parse_smi(SMI)
    assert first == Gpu(
        name="NVIDIA H200", compute_capability="9.0", memory_mib=143771,
        driver="580.65.06", power_limit_w=700.0, max_clock_mhz=1980,
    )  # fmt: skip
    assert (second.power_limit_w, second.compute_capability) == (0.0, "8.9")


def test_an_error_message_is_no_gpu():
    assert nvidia.parse_smi("NVIDIA-SMI has failed because it couldn't communicate\n") == ()


def test_installed_libraries_are_read_and_removed_ones_are_not():
    assert nvidia.parse_dpkg(DPKG) == {"tensorrt": "10.3.0.30", "cudnn": "9.3.0.75"}


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    assert all(isinstance(gpu, Gpu) for gpu in nvidia.parse_smi(text))
    assert set(nvidia.parse_dpkg(text)) <= {"tensorrt", "cudnn", "jetpack"}


WORD = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='",['), min_size=1)


@given(
    name=WORD, capability=st.tuples(st.integers(1, 99), st.integers(0, 9)),
    memory=st.integers(0, 10**9), driver=WORD, power=st.integers(0, 99999),
    clock=st.integers(0, 99999),
)  # fmt: skip
def test_what_a_gpu_is_survives_the_text(name, capability, memory, driver, power, clock):
    cells = [name, "{}.{}".format(*capability), memory, driver, f"{power / 100:.2f}", clock]
    (found,) = nvidia.parse_smi(", ".join(map(str, cells)) + "\n")
    assert (found.name, found.driver) == (name, driver)
    assert found.compute_capability == "{}.{}".format(*capability)
    assert (found.memory_mib, found.max_clock_mhz) == (memory, clock)
    assert found.power_limit_w == power / 100


def test_a_machine_without_a_driver_has_no_gpus_and_is_not_asked(tmp_path):
    assert not nvidia.present(tmp_path)
    assert nvidia.libraries(tmp_path) == {}
    if not nvidia.present():
        assert (nvidia.gpus(), nvidia.cuda_version()) == ((), "")
