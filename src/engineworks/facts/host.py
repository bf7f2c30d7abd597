"""What one machine is, and what it can build and run."""

from __future__ import annotations

from dataclasses import dataclass

from engineworks.codec import place


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One discrete NVIDIA GPU."""

    name: str
    compute_capability: str
    """For example "8.9"."""
    memory_mib: int
    driver: str
    power_limit_w: float = 0.0
    """0 where the board does not tell."""
    max_clock_mhz: int = 0


@dataclass(frozen=True, kw_only=True)
class Jetson:
    """What one Jetson is, and in which power mode it runs."""

    module: str
    l4t: str
    """For example "36.4.3"."""
    jetpack: str = ""
    """Version of the package nvidia-jetpack; empty when only parts of it are installed."""
    dla_cores: int = 0
    power_mode: str = ""
    gpu_clock_mhz: int = place(default=0)
    gpu_max_clock_mhz: int = 0


@dataclass(frozen=True, kw_only=True)
class HostCard:
    """What one machine can build and run."""

    name: str = place()
    os: str
    arch: str
    python: str
    cpu: str
    cores: int
    cpu_flags: tuple[str, ...]
    memory_mib: int = place()
    packages: dict[str, str] = place()
    """Installed runtimes by distribution name; a stage's key holds those that matter to it."""
    gpus: tuple[Gpu, ...] = ()
    jetson: Jetson | None = None
    cuda: str = ""
    """Newest CUDA that the driver serves."""
    tensorrt: str = ""
    """Of the system's own TensorRT; that of a Python environment is in `packages`."""
    cudnn: str = ""


@dataclass(frozen=True, kw_only=True)
class RegisteredHost:
    """A machine of the fleet, as its worker last described it."""

    card: HostCard
    pool: str
    """Work pool that its worker serves."""
    code_sha256: str
    """Of the library that it runs."""
    instance: str
    """Tells two machines of one name apart."""
    age_s: float = place(default=0.0)
    """Seconds since it was last heard of, by the store's clock."""
