"""Which NVIDIA GPUs this machine has, by UUID: an index means another GPU after every restart.

Read from the driver's own files, so that nothing has to be installed. Whose turn it is to use
one is not decided here.
"""

from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")


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


def _gpus() -> list[dict[str, str]]:
    found = []
    for path in sorted(_DRIVER.glob("*/information")):
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        found.append({key.strip(): value.strip() for key, _, value in lines})
    return found
