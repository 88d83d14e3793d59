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


def gpu_minors() -> dict[str, str]:
    """Return UUID → number of its device node (``/dev/nvidia<number>``)."""
    return {gpu.get("GPU UUID", ""): gpu.get("Device Minor", "") for gpu in _gpus()}


def gpu_models() -> dict[str, str]:
    """Return UUID → name of the model."""
    return {gpu.get("GPU UUID", ""): gpu.get("Model", "unknown") for gpu in _gpus()}


def gpu_uuids() -> tuple[str, ...]:
    """Return the UUIDs of the GPUs whose device node exists; empty without a driver."""
    here = [u for u, minor in gpu_minors().items() if Path(f"/dev/nvidia{minor}").exists()]
    return tuple(here)


def driver_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs whose device node exists, as the driver's files describe them."""
    minors, models = gpu_minors(), gpu_models()
    found = [Gpu(uuid, int(minors[uuid]), models[uuid]) for uuid in gpu_uuids()]
    return tuple(sorted(found, key=lambda gpu: gpu.minor))


def _gpus() -> list[dict[str, str]]:
    found = []
    for path in sorted(_DRIVER.glob("*/information")):
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        found.append({key.strip(): value.strip() for key, _, value in lines})
    return found
