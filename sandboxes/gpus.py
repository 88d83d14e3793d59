"""Which NVIDIA GPUs this machine has, by UUID: an index can mean another GPU after a restart.

Read from the driver's own files, so that nothing has to be installed; ``sandboxes.nvml`` knows
more if NVML is installed. ``sandboxes.gpu_pool`` leases GPUs to processes.
"""

from dataclasses import dataclass
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. ``minor`` is the number of its device node, ``/dev/nvidia<minor>``."""

    uuid: str
    minor: int
    name: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The GPUs, lowest number first. ``reason``: what is missing; ``remedy``: how to get it."""

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""
    remedy: str = ""


def driver_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs whose device node exists, as the driver's files describe them."""
    found = []
    for path in _DRIVER.glob("*/information"):
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        told = {key.strip(): value.strip() for key, _, value in lines}
        minor = told.get("Device Minor", "")
        if Path(f"/dev/nvidia{minor}").exists():
            found.append(Gpu(told.get("GPU UUID", ""), int(minor), told.get("Model", "unknown")))
    return tuple(sorted(found, key=lambda gpu: gpu.minor))


def gpu_models() -> dict[str, str]:
    """Return UUID → name of the model, of ``driver_gpus``."""
    return {gpu.uuid: gpu.name for gpu in driver_gpus()}


def gpu_uuids() -> tuple[str, ...]:
    """Return the UUIDs of ``driver_gpus``; empty without a driver."""
    return tuple(gpu.uuid for gpu in driver_gpus())
