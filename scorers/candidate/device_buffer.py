"""Where served logits are put: on a GPU, device memory that the judge opens by its handle.

Logits of one batch of the full size are gigabytes. On a GPU they stay where they are: cast to
float16 into one buffer, of which the judge takes its own copy. The buffer is made by cudaMalloc
itself, because what torch's allocator gives out cannot be exported when it works with expandable
segments. Where CUDA refuses to export memory, and on a CPU, logits are handed over as float32
arrays on the host.

It is mounted into the sandbox beside ``prepare`` and imports nothing of ours. The judge's own
worker uses ``Runtime`` and ``wrap`` from here as well.
"""

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

HANDLE_BYTES = 64
"""CUDA_IPC_HANDLE_SIZE of the CUDA runtime's header."""

ALIGNMENT = 2 << 20
"""CUDA cuts smaller allocations from blocks of this size, and exports whole blocks."""

STAGING_BYTES = 256 << 20
LAZY_PEER_ACCESS = 1
"""cudaIpcMemLazyEnablePeerAccess, the only flag that cudaIpcOpenMemHandle knows."""

Shape = tuple[int, int, int]


class CudaError(Exception):
    """A call of the CUDA runtime failed, or the runtime was not found."""


class Handle(ctypes.Structure):
    """cudaIpcMemHandle_t: 64 bytes that stand for an allocation, passed by value."""

    _fields_ = [("reserved", ctypes.c_ubyte * HANDLE_BYTES)]


_POINTER, _SIZE, _FLAGS = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint
_CALLS: dict[str, list[Any]] = {
    "cudaMalloc": [ctypes.POINTER(_POINTER), _SIZE],
    "cudaFree": [_POINTER],
    "cudaIpcGetMemHandle": [ctypes.POINTER(Handle), _POINTER],
    "cudaIpcOpenMemHandle": [ctypes.POINTER(_POINTER), Handle, _FLAGS],
    "cudaIpcCloseMemHandle": [_POINTER],
    "cudaHostRegister": [_POINTER, _SIZE, _FLAGS],
    "cudaHostUnregister": [_POINTER],
}


class Runtime:
    """The calls of the CUDA runtime that torch does not offer, on the current device.

    They go to the library that torch has loaded, so that both speak of one context. Every
    method raises CudaError.
    """

    def __init__(self) -> None:
        import torch

        torch.zeros(1, device="cuda")  # makes the context
        self._library = _library()
        for name, types in _CALLS.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = types, ctypes.c_int
        self._library.cudaGetErrorName.argtypes = [ctypes.c_int]
        self._library.cudaGetErrorName.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401  # ctypes' own types
        if code := getattr(self._library, name)(*arguments):
            # Else torch finds the error after its next kernel, and takes it for its own.
            self._library.cudaGetLastError()
            said = self._library.cudaGetErrorName(code) or b"unknown"
            raise CudaError(f"{name}: {said.decode()} ({code})")

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` new bytes of device memory."""
        pointer = _POINTER()
        self._call("cudaMalloc", ctypes.byref(pointer), size)
        return int(pointer.value or 0)

    def free(self, pointer: int) -> None:
        """Free what ``allocate`` returned."""
        self._call("cudaFree", pointer)

    def export(self, pointer: int) -> bytes:
        """Return the handle, 64 bytes, by which another process opens an allocation."""
        handle = Handle()
        self._call("cudaIpcGetMemHandle", ctypes.byref(handle), pointer)
        return bytes(handle)

    def open(self, handle: bytes) -> int:
        """Map an allocation of another process; return its address here."""
        pointer = _POINTER()
        value = Handle.from_buffer_copy(handle)
        self._call("cudaIpcOpenMemHandle", ctypes.byref(pointer), value, LAZY_PEER_ACCESS)
        return int(pointer.value or 0)

    def pin(self, address: int, size: int) -> None:
        """Lock pages of host memory, so that the device copies to them directly."""
        self._call("cudaHostRegister", address, size, 0)

    def unpin(self, address: int) -> None:
        """Undo ``pin``; before the memory is unmapped."""
        self._call("cudaHostUnregister", address)


def _library() -> ctypes.CDLL:
    """Return the libcudart that is loaded already. Raises CudaError."""
    import torch

    major = str(torch.version.cuda).partition(".")[0]
    names: list[str | None] = [f"libcudart.so.{major}", None]  # None: whatever is loaded
    maps = Path("/proc/self/maps")
    if maps.exists():
        fields = [line.split(maxsplit=5) for line in maps.read_text().splitlines()]
        paths = {field[5] for field in fields if len(field) == 6}
        names = [*sorted(p for p in paths if Path(p).name.startswith("libcudart")), *names]
    for name in names:
        try:
            library = ctypes.CDLL(name)
            library.cudaIpcGetMemHandle  # noqa: B018  # AttributeError where it is no runtime
        except (OSError, AttributeError):
            continue
        return library
    raise CudaError("torch has loaded no libcudart")


def wrap(pointer: int, count: int) -> "torch.Tensor":
    """Return ``count`` float16 values at a device address as a flat tensor, without a copy."""
    import torch

    interface = {
        "shape": (count,),
        "typestr": "<f2",
        "data": (pointer, False),
        "strides": None,
        "version": 3,
    }
    tensor = torch.as_tensor(
        SimpleNamespace(**{"__cuda_array_interface__": interface}), device="cuda"
    )
    if tensor.data_ptr() != pointer:
        raise CudaError("torch copied the memory that it was to wrap")
    return tensor


class Sink(Protocol):
    """Takes the logits of one batch. ``claim``: what the judge is told of where they lie."""

    claim: dict[str, Any]

    def __call__(self, logits: "torch.Tensor") -> NDArray[np.float32] | Shape:
        """Return what ``Link.serve`` takes: an array, or the shape of what the judge can read."""
        ...


class DeviceBuffer:
    """Puts logits of ``shape`` into device memory that the judge can open. Raises CudaError."""

    def __init__(self, shape: Shape) -> None:
        import torch

        self._shape = shape
        count = shape[0] * shape[1] * shape[2]
        size = -(-2 * count // ALIGNMENT) * ALIGNMENT
        runtime = Runtime()
        try:
            pointer = runtime.allocate(size)
        except CudaError:
            torch.cuda.empty_cache()  # what training has left to torch's allocator
            pointer = runtime.allocate(size)
        try:
            handle = runtime.export(pointer)
            self._logits = wrap(pointer, count).view(shape)
        except BaseException:
            runtime.free(pointer)
            raise
        told = {"handle": handle.hex(), "bytes": size, "dtype": "float16"}
        self.claim: dict[str, Any] = {"device_buffer": told}

    def __call__(self, logits: "torch.Tensor") -> Shape:
        """Write a batch; return its shape when the device is done."""
        import torch

        self._logits.copy_(logits.detach())
        torch.cuda.synchronize()
        return self._shape


class HostArray:
    """Brings logits of ``shape`` to the host as float32, through pinned memory from a GPU."""

    def __init__(self, device: str, shape: Shape) -> None:
        import torch

        self.claim: dict[str, Any] = {}
        self._on_gpu = torch.device(device).type == "cuda"
        if self._on_gpu:
            self._host = torch.empty(shape, dtype=torch.float32, device="cpu")
            row = shape[1] * shape[2]
            rows = max(1, min(shape[0], STAGING_BYTES // (4 * row)))
            self._staging = torch.empty(
                (rows, *shape[1:]), dtype=torch.float32, device="cpu", pin_memory=True
            )

    def __call__(self, logits: "torch.Tensor") -> NDArray[np.float32]:
        """Return a batch, float32 (rows, positions, vocabulary); the next one overwrites it."""
        if not self._on_gpu:
            array: NDArray[np.float32] = logits.detach().float().cpu().numpy()
            return array
        import torch

        step = len(self._staging)
        parts = torch.split(logits.detach(), step), torch.split(self._host, step)
        for part, room in zip(*parts, strict=True):
            staged = self._staging[: len(part)]
            staged.copy_(part.float())
            room.copy_(staged)
        return self._host.numpy()


def sink(device: str, shape: Shape) -> Sink:
    """Return where logits of ``shape`` go: a DeviceBuffer if CUDA exports one, else a HostArray."""
    if device.startswith("cuda"):
        try:
            return DeviceBuffer(shape)
        except CudaError as error:
            print(f"Logits go through the host: {error}.", flush=True)
    return HostArray(device, shape)
