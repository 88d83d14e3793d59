"""What NVML reports of the GPUs: processes, clocks, power, throttling.

No failure of NVML raises here: a value that the card or driver does not provide is None, and
``unavailable`` says why NVML is missing. ``pynvml`` (nvidia-ml-py) is imported on first use.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sandboxes.gpus import Gpu, Listing, driver_gpus

GRANTED = "CUDA_VISIBLE_DEVICES"
REMEDY = "pip install 'aira-harness[gpu]'"

_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bits of nvml.h. Spelled out because pynvml renamed its constants between versions."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Measurements of one GPU at one moment. Clocks in MHz, power in watts."""

    uuid: str
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    power_w: float | None = None
    power_cap_w: float | None = None
    throttle: tuple[str, ...] | None = None
    pids: tuple[int, ...] | None = None


def _library() -> tuple[ModuleType | None, str, str]:
    """Return the module ``pynvml``, started, or None with the reason and the remedy."""
    try:
        module = import_module("pynvml")
    except ImportError:
        return None, "NVML's Python binding is not installed", REMEDY
    try:
        _start(module)
    except module.NVMLError as error:
        return None, f"NVML does not start: {error}", "a machine with an NVIDIA GPU and driver"
    return module, "", ""


@cache  # once per process: starting NVML for each sample would cost tens of ms
def _start(module: ModuleType) -> None:
    module.nvmlInit()


def list_gpus() -> Listing:
    """Return the GPUs that we may use: those of ``CUDA_VISIBLE_DEVICES`` if that is set.

    A scheduler (Slurm) grants a job its GPUs by that variable. Asks NVML; without NVML, reads
    the driver's files and gives the reason.
    """
    found, granted = _all_gpus(), os.environ.get(GRANTED)
    if granted is None or not found.gpus:
        return found
    words = [word.strip() for word in granted.split(",")]
    ours = tuple(gpu for gpu in found.gpus if any(_is_meant(gpu, word) for word in words))
    if ours:
        return Listing(ours, found.reason, found.remedy)
    return Listing(
        (),
        f"{GRANTED}={granted!r} names none of the {len(found.gpus)} GPUs here",
        f"unset {GRANTED}, or name them by index or UUID (nvidia-smi -L)",
    )


def _is_meant(gpu: Gpu, word: str) -> bool:
    if word.startswith("GPU-"):
        return gpu.uuid.startswith(word)
    return word.isascii() and word.isdigit() and int(word) == gpu.minor


def _all_gpus() -> Listing:
    nvml, reason, remedy = _library()
    if nvml is None:
        found = driver_gpus()
        if found:
            lost = "other processes, clocks and power are not seen"
            return Listing(found, f"{reason}; {lost}", remedy)
        return Listing((), f"{reason}; the NVIDIA driver lists no GPU", remedy)
    gpus = []
    for index in range(_ask(nvml, "nvmlDeviceGetCount") or 0):
        handle = _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        uuid = _ask(nvml, "nvmlDeviceGetUUID", handle)
        minor = _ask(nvml, "nvmlDeviceGetMinorNumber", handle)
        # A container may have only some device nodes: a GPU without one cannot be used here.
        if uuid is None or minor is None or not Path(f"/dev/nvidia{minor}").exists():
            continue
        name = _ask(nvml, "nvmlDeviceGetName", handle) or "unknown"
        memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
        total = None if memory is None else int(memory.total)
        gpus.append(Gpu(_text(uuid), int(minor), _text(name), total))
    reason = "" if gpus else "NVML runs and lists no GPU whose device node is here"
    remedy = "" if gpus else "a machine with a GPU, or a container that is given one"
    return Listing(tuple(sorted(gpus, key=lambda gpu: gpu.minor)), reason, remedy)


def compute_pids(uuid: str) -> tuple[int, ...]:
    """Return the pids of the processes that compute on a GPU; empty if NVML reports none.

    Inside a container these may be pids of the host, or be missing.
    """
    return _facts_of(uuid, pids_only=True).pids or ()


def snapshot(uuids: Iterable[str]) -> tuple[Facts, ...]:
    """Return NVML's current values for each of these GPUs; without NVML all are None."""
    return tuple(_facts_of(uuid) for uuid in uuids)


def unavailable() -> str:
    """Return why NVML cannot be used here; empty if it can."""
    return _library()[1]


def _facts_of(uuid: str, *, pids_only: bool = False) -> Facts:
    nvml, _, _ = _library()
    if nvml is None:
        return Facts(uuid)
    handle = _ask(nvml, "nvmlDeviceGetHandleByUUID", uuid)

    def ask(name: str, *more: Any) -> Any:  # noqa: ANN401 (NVML's own types)
        return _ask(nvml, name, handle, *more)

    processes = ask("nvmlDeviceGetComputeRunningProcesses")
    pids = None if processes is None else tuple(sorted(int(p.pid) for p in processes))
    if pids_only:
        return Facts(uuid, pids=pids)
    mask = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    return Facts(
        uuid,
        sm_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        memory_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        power_w=_watts(ask("nvmlDeviceGetPowerUsage")),
        power_cap_w=_watts(ask("nvmlDeviceGetEnforcedPowerLimit")),
        throttle=None if mask is None else throttle_names(int(mask)),
        pids=pids,
    )


def throttle_names(mask: int) -> tuple[str, ...]:
    """Return the names of the set bits; a bit that is not known is shown as a number."""
    bits = [1 << place for place in range(mask.bit_length()) if mask >> place & 1]
    return tuple(_REASONS.get(bit, f"{bit:#x}") for bit in bits)


def _ask(nvml: ModuleType, name: str, *args: Any) -> Any:  # noqa: ANN401 (NVML's own types)
    """Call a function of NVML; return None if it fails or an argument is None (a failed call)."""
    if None in args:
        return None
    # AttributeError: an older binding. All other failures of NVML are NVMLErrors.
    try:
        return getattr(nvml, name)(*args)
    except (nvml.NVMLError, AttributeError):
        return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
