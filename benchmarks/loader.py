"""Measures the tokens per second of three loaders, and how long each makes a training step wait.

    python benchmarks/loader.py [--profile smoke] [--rows 8] [--length 256] [--step-ms 40] [--gpu]

(a) plain: reads texts, tokenises 128 documents at a time and packs them inside the step, by the
rule of the public loader; (b) ours, packed in the step; (c) ours, packed ahead by a thread. This
program checks that (b) and (c) yield the same batches; the tests check that both follow the rule. A
step is a sleep of ``--step-ms``, as a CPU waits for a GPU; "kept waiting" is the share of the time
in which no step was running.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.spec import find_task

BUFFER = 1000
REFILL = 128


def plain(texts: list[str], tokenizer: Any, rows: int, length: int) -> Iterator[Any]:
    """Tokenise and pack in the step, searching the whole buffer at every placement."""
    buffer: list[list[int]] = []
    at, bos = 0, tokenizer.get_bos_token_id()
    while True:
        batch = torch.empty(rows, length + 1, dtype=torch.long)
        for row in batch:
            filled = 0
            while filled <= length:
                while len(buffer) < BUFFER:
                    some = [texts[(at + i) % len(texts)] for i in range(REFILL)]
                    at += REFILL
                    buffer += tokenizer.encode(some, prepend=bos)
                left = length + 1 - filled
                best, size = -1, 0
                for i, document in enumerate(buffer):
                    if size < len(document) <= left:
                        best, size = i, len(document)
                if best < 0:
                    best = min(range(len(buffer)), key=lambda i: len(buffer[i]))
                taken = buffer.pop(best)[:left]
                row[filled : filled + len(taken)] = torch.tensor(taken)
                filled += len(taken)
        yield batch[:, :-1].clone(), batch[:, 1:].clone(), 0


def in_step(loader: Any, documents: Any, rows: int, length: int) -> Iterator[Any]:
    """Yield the batches of our loader, packed in the step, without the thread."""
    for batch, epoch in loader.packed(documents, rows, length + 1, BUFFER):
        tokens = torch.from_numpy(batch.astype(np.int64))
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), epoch


def measure(batches: Iterator[Any], rows: int, length: int, seconds: float, step: float) -> Any:
    """Return tokens a second, and the share of the time that no step ran."""
    next(batches)  # fills buffers
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        next(batches)
        if step:
            time.sleep(step)
        count += 1
    return count * rows * length / spent, 1 - count * step / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "autoresearch")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int)
    parser.add_argument("--step-ms", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()

    task = find_task("autoresearch")
    folder, manifest = task.prepare(arguments.profile, arguments.data, lambda *_: None)
    rows, length = arguments.rows, arguments.length or manifest.shape["length"]
    with tempfile.TemporaryDirectory() as runner:
        for name, path in task.runner_files().items():
            shutil.copyfile(path, Path(runner) / name)
        sys.path.insert(0, runner)
        loader, prepare = import_module("loader"), import_module("prepare")
    device = "cuda" if arguments.gpu else "cpu"
    config = {
        "settings": dict(task.profile(arguments.profile).settings), "shape": manifest.shape,
        "device": device, "paths": {"train": str(folder / "train")},
    }  # fmt: skip
    prepare.connect(json.loads(json.dumps(config)), None)
    tokenizer = prepare.Tokenizer.from_directory()
    documents = loader.Documents.load(folder / "train", "train")
    edges = documents.starts
    texts = [
        tokenizer.decode(documents.tokens[a + 1 : b].tolist())
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    kinds = {
        "plain: tokenised and packed in the step": lambda: plain(texts, tokenizer, rows, length),
        "ours, packed in the step": lambda: in_step(loader, documents, rows, length),
        "ours, packed ahead": lambda: prepare.make_dataloader(tokenizer, rows, length, "train"),
    }
    ahead = [(x.cpu().clone(), e) for x, _, e in islice(kinds["ours, packed ahead"](), 20)]
    for (x, epoch), (y, _, other) in zip(ahead, kinds["ours, packed in the step"](), strict=False):
        assert torch.equal(x, y)
        assert epoch == other
    print(f"{arguments.profile}: {rows} rows of {length} tokens, {device}, {len(texts)} documents")
    print(f"{'':42}{'tokens/s':>14}{'with a step':>14}{'kept waiting':>14}")
    for name, make in kinds.items():
        free, _ = measure(make(), rows, length, arguments.seconds, 0.0)
        step = arguments.step_ms / 1000
        slowed, waiting = measure(make(), rows, length, arguments.seconds, step)
        print(f"{name:42}{free:>14,.0f}{slowed:>14,.0f}{waiting:>14.1%}", flush=True)


if __name__ == "__main__":
    main()
