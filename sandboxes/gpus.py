"""Which NVIDIA GPUs this machine has, by UUID: an index means another GPU after every restart.

Read from the driver's own files, so that nothing has to be installed; ``sandboxes.nvml`` knows
more where NVML is. Whose turn it is to use one is decided in ``sandboxes.gpu_pool``.
"""

from dataclasses import dataclass
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device. ``minor`` is the number of its node, ``/dev/nvidia<minor>``."""

    uuid: str
    minor: int
    name: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The devices, lowest number first; ``reason`` says what is missing and ``remedy`` mends it."""

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
    """Return the UUIDs of the GPUs whose device node is here; empty without a driver."""
    here = [u for u, minor in gpu_minors().items() if Path(f"/dev/nvidia{minor}").exists()]
    return tuple(here)


def driver_gpus() -> tuple[Gpu, ...]:
    """Return what the driver's files tell of the GPUs whose device node is here."""
    minors, models = gpu_minors(), gpu_models()
    found = [Gpu(uuid, int(minors[uuid]), models[uuid]) for uuid in gpu_uuids()]
    return tuple(sorted(found, key=lambda gpu: gpu.minor))


def _gpus() -> list[dict[str, str]]:
    found = []
    for path in sorted(_DRIVER.glob("*/information")):
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        found.append({key.strip(): value.strip() for key, _, value in lines})
    return found
