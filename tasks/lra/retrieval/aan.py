"""Reads the pairs of the ACL Anthology Network as Long Range Arena released them.

Radev et al. 2013, "The ACL Anthology Network Corpus". Three files ``new_aan_pairs.*.tsv``,
tab-separated, without header or quoting: label ("0.0" or "1.0"), two ids, two texts.
"""

from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import ConfigError
from tasks.lra import sources
from tasks.lra.retrieval.made import DocumentPair

FILES = {
    "train": "new_aan_pairs.train.tsv",
    "search": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
"""Our split → the release's file. Its sizes are given as 147,086, 18,090 and 17,437 pairs."""
FOLDER = "tsv_data"
LABELS = {b"0": 0, b"0.0": 0, b"1": 1, b"1.0": 1}
WANTED = f"it must hold {', '.join(FILES.values())}, in itself or in {FOLDER}"


def find(folder: Path) -> dict[str, Path]:
    """Return split → file in a folder. Raises ConfigError."""
    places = [f"{place}/{FOLDER}" for place in sources.RELEASE_FOLDERS] + ["."]
    return {
        split: sources.first_that_is(
            folder, [f"{place}/{name}" for place in places], f"the pairs of {split}", WANTED
        )
        for split, name in FILES.items()
    }


def count(path: Path) -> int:
    """Return how many lines a file has. Raises ConfigError."""
    with sources.naming(path), path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def read(path: Path) -> Iterator[DocumentPair]:
    """Yield the pairs of one file. Raises ConfigError naming file and line."""
    with sources.naming(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            fields = line.rstrip(b"\r\n").split(b"\t")
            label = LABELS.get(fields[0].strip())
            if len(fields) != 5 or label is None:
                raise ConfigError(
                    f"{path}, line {number}, is no pair.",
                    cause=f"it has {len(fields)} fields and begins with {line[:20]!r}",
                    remedy="a line is: label 0.0 or 1.0, two ids, two texts, tabs between them",
                )
            first, second = (field.decode("utf-8", "replace") for field in fields[1:3])
            yield DocumentPair(label, first, second, (fields[3], fields[4]))
