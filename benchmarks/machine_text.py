"""Makes a corpus without any download, from the source text that is already on this machine.

    python benchmarks/machine_text.py OUT [--characters 500000000]

Writes OUT/part-*.jsonl, in the order of a hash of each file's content, so that the part kept by
``--characters`` is a fair sample. Exact copies are dropped here; ``harness prepare --data OUT``
drops near-duplicates and reports the overlap. Source code is easy to predict: compare only scripts
that ran on the same corpus.
"""

import argparse
import hashlib
import json
import sys
import sysconfig
from pathlib import Path

KINDS = "py pyi pyx h hh hpp c cc cpp cu cuh txt md rst pl pm sh"
SUFFIXES = {f".{kind}" for kind in KINDS.split()}
LARGEST = 2_000_000
"""Bytes. A longer file is taken to be a table, not text."""
DOCUMENT = 10_000
PART = 50_000_000


def files(folders: list[Path]) -> list[Path]:
    """Return the text files below ``folders``, each once, in the order of their content's hash."""
    found: dict[bytes, Path] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                if path.suffix in SUFFIXES and path.is_file() and not path.is_symlink():
                    raw = path.read_bytes()
                    if 200 < len(raw) < LARGEST:
                        found.setdefault(hashlib.sha256(raw).digest(), path)
            except OSError:
                continue
    return [found[key] for key in sorted(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--characters", type=int, default=500_000_000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    library = Path(sysconfig.get_path("purelib"))
    total, part, out = 0, 0, None
    for path in files([library, Path(sysconfig.get_path("stdlib")), Path("/usr")]):
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        if total >= part * PART:
            out = (args.out / f"part-{part:03}.jsonl").open("w")
            part += 1
        for start in range(0, len(text), DOCUMENT):
            out.write(json.dumps({"text": text[start : start + DOCUMENT]}) + "\n")
        total += len(text)
        if total >= args.characters:
            break
    if out is None:
        sys.exit("no text found")
    out.close()
    print(f"{total / 1e6:,.0f} M characters in {part} files under {args.out}")


if __name__ == "__main__":
    main()
