"""Reads CIFAR-10 (Krizhevsky 2009): the published archives or their folders, as grey images."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.errors import ConfigError
from tasks.definition import Progress
from tasks.download import Remote
from tasks.lra import sources
from tasks.stream import Bytes

ARCHIVE = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
"""The hash is that of TensorFlow Datasets. The binary form needs no unpickling."""
PYTHON_ARCHIVE = "cifar-10-python.tar.gz"

SIDE, CLASSES = 32, 10
RECORD = 1 + 3 * SIDE * SIDE
BATCH = 10_000
WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)
"""TensorFlow's weights of red, green and blue in ``rgb_to_grayscale``."""

BINARY = tuple(f"data_batch_{n}.bin" for n in range(1, 6)) + ("test_batch.bin",)
PYTHON = tuple(f"data_batch_{n}" for n in range(1, 6)) + ("test_batch",)
WANTED = (
    f"it must hold {ARCHIVE.name}, {PYTHON_ARCHIVE}, or the files of one of them: "
    f"{BINARY[0]} … {BINARY[-1]}, or {PYTHON[0]} … {PYTHON[-1]}"
)


def files(folder: Path) -> list[Path]:
    """Return the six files, or the archive, in a folder. Raises ConfigError."""
    places = (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py")
    for place in places:
        for names in (BINARY, PYTHON):
            if all((place / name).is_file() for name in names):
                return [place / name for name in names]
    names = (ARCHIVE.name, PYTHON_ARCHIVE)
    return [sources.first_that_is(folder, names, "CIFAR-10 whole", WANTED)]


def read(paths: list[Path], progress: Progress) -> tuple[Bytes, Bytes]:
    """Return all 60,000 grey images (n, 32, 32) and labels, the last 10,000 the test batch.

    In the order of the files. Raises ConfigError naming a bad file.
    """
    batches: dict[str, tuple[Bytes, Bytes]] = {}
    for name, content in _contents(paths, progress):
        progress("turning CIFAR-10 grey, batches", len(batches), len(BINARY))
        batches[name.removesuffix(".bin")] = _batch(name, content)
    missing = [name for name in PYTHON if name not in batches]
    if missing:
        raise ConfigError(f"{paths[0]} lacks {', '.join(missing)}.", remedy=WANTED)
    images, labels = zip(*(batches[name] for name in PYTHON), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def grey(colours: Bytes) -> Bytes:
    """Return grey values of (n, 3, …) as TensorFlow computes them for bytes.

    ``rgb_to_grayscale`` weighs values in [0, 1] and turns them back with x 255.5, cut to whole.
    """
    weighed = np.tensordot(colours.astype(np.float32) / 255, WEIGHTS, axes=([1], [0]))
    return (weighed * 255.5).astype(np.uint8)


def _contents(paths: list[Path], progress: Progress) -> Iterator[tuple[str, bytes]]:
    if len(paths) == 1:
        for member, content in sources.members(paths[0], _is_batch, progress, len(BINARY)):
            yield member.rpartition("/")[2], content
        return
    for path in paths:
        with sources.naming(path):
            content = path.read_bytes()
        yield path.name, content


def _is_batch(member: str) -> bool:
    return member.rpartition("/")[2] in (*BINARY, *PYTHON)


def _batch(name: str, content: bytes) -> tuple[Bytes, Bytes]:
    if name.endswith(".bin"):
        if len(content) != BATCH * RECORD:
            raise ConfigError(
                f"{name} is not whole.",
                cause=f"it has {len(content):,} bytes instead of {BATCH * RECORD:,}",
                remedy="replace it by a whole copy",
            )
        records = np.frombuffer(content, np.uint8).reshape(BATCH, RECORD)
        labels, colours = records[:, 0], records[:, 1:]
    else:
        labels, colours = _unpickle(name, content)
    if labels.shape != (BATCH,) or colours.shape != (BATCH, RECORD - 1) or labels.max() >= CLASSES:
        raise ConfigError(
            f"{name} is no batch of CIFAR-10.",
            cause=f"labels {labels.shape} up to {labels.max(initial=0)}, images {colours.shape}",
            remedy="replace it by a whole copy",
        )
    return grey(colours.reshape(BATCH, 3, SIDE, SIDE)), labels.copy()


class _ArraysOnly(pickle.Unpickler):
    """A pickle can run code: only what builds an array out of the pickle's own bytes is let in."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  # pickle's own type
        match module, name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return lambda *_: np.empty(0, np.uint8)  # its state follows
            case "numpy", "ndarray":
                return None  # an argument of the former; nobody has to call it
            case "numpy", "dtype":
                return np.dtype
            case "_codecs", "encode":  # how Python 3 writes bytes in protocol 2
                return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}")


def _unpickle(name: str, content: bytes) -> tuple[Bytes, Bytes]:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        return np.asarray(batch[b"labels"], np.uint8), np.asarray(batch[b"data"], np.uint8)
    except Exception as error:  # hostile bytes can make pickle raise anything
        raise ConfigError(
            f"{name} is no batch of CIFAR-10.",
            cause=f"{type(error).__name__}: {error}",
            remedy="replace it by a whole copy, or take the binary form",
        ) from error
