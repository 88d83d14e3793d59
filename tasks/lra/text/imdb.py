"""Reads the Large Movie Review Dataset: the published archive, its folders, or parquet files.

Maas et al. 2011, "Learning Word Vectors for Sentiment Analysis" (ACL). 25,000 reviews to train
on and as many to test, half of them positive.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import ConfigError
from tasks.definition import Progress
from tasks.download import Remote
from tasks.lra import sources

ARCHIVE = Remote(
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "aclImdb_v1.tar.gz",
    size=84_125_825,
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
"""The hash is that of TensorFlow Datasets and of several other projects' loaders."""

Review = tuple[bytes, int]
HALVES = ("train", "test")
SIZE = 25_000
WANTED = (
    "it must hold aclImdb_v1.tar.gz, the unpacked folders train/pos, train/neg, test/pos and "
    "test/neg, or train.parquet and test.parquet with columns text and label"
)
_MEMBER = re.compile(r"(?:.*/)?(train|test)/(pos|neg)/\d+_\d+\.txt")


def files(folder: Path) -> list[Path]:
    """Return the files or folders of the first known layout in ``folder``. Raises ConfigError."""
    for names in (
        ("train.parquet", "test.parquet"),
        ("train/pos", "train/neg", "test/pos", "test/neg"),
        ("aclImdb/train/pos", "aclImdb/train/neg", "aclImdb/test/pos", "aclImdb/test/neg"),
        (ARCHIVE.name,),
    ):
        if all((folder / name).exists() for name in names):
            return [folder / name for name in names]
    names = ("train.parquet", "train/pos", "aclImdb/train/pos", ARCHIVE.name)
    return [sources.first_that_is(folder, names, "IMDb's reviews whole", WANTED)]


def read(paths: list[Path], progress: Progress) -> dict[str, list[Review]]:
    """Return half → reviews of what ``files`` found. Raises ConfigError naming a bad file."""
    found: dict[str, list[Review]] = {half: [] for half in HALVES}
    if paths[0].suffix == ".parquet":
        for half, path in zip(HALVES, paths, strict=True):
            progress(f"reading {path.name}", 0, 1)
            found[half] = list(_parquet(path))
    elif paths[0].is_dir():
        for done, path in enumerate(paths):
            progress(f"reading {path.parent.name}/{path.name}", done, len(paths))
            label = int(path.name == "pos")
            found[path.parent.name] += [(text, label) for text in _texts(path)]
    else:
        for name, text in sources.members(paths[0], _is_review, progress, 2 * SIZE):
            if match := _MEMBER.fullmatch(name):
                found[match[1]].append((text, int(match[2] == "pos")))
    for half in HALVES:
        if {label for _, label in found[half]} != {0, 1}:
            raise ConfigError(
                f"{paths[0]} does not hold positive and negative reviews of {half}.",
                cause=f"{len(found[half]):,} reviews were found",
                remedy=WANTED,
            )
    return found


def _is_review(name: str) -> bool:
    return _MEMBER.fullmatch(name) is not None


def _texts(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.txt")):
        with sources.naming(path):
            yield path.read_bytes()


def _parquet(path: Path) -> Iterator[Review]:
    try:
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"{path} is a parquet file, and pyarrow is not installed.",
            remedy="pip install 'aira-harness[data]'",
        ) from error
    with sources.naming(path), pq.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        if not {"text", "label"} <= set(columns):
            raise ConfigError(
                f"{path} has no columns text and label.",
                cause=f"it has {', '.join(columns)}",
                remedy=WANTED,
            )
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["text", "label"])
            texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
            for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
                if not isinstance(text, str) or label not in (0, 1):
                    raise ConfigError(
                        f"{path}, row {number} of row group {group}, is no review.",
                        cause=f"text is a {type(text).__name__}, label is {label!r}",
                        remedy="text must be a string and label 0 or 1",
                    )
                yield text.encode("utf-8", "replace"), int(label)
