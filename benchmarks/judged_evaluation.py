"""Measures what the judge costs a language model, against evaluation in the model's own process.

    python benchmarks/judged_evaluation.py [--rows 1024] [--batch 64] [--compile]

A small GPT with random weights evaluates synthetic rows in its own process, as the public task
does: the summed loss of all targets, over their bytes. The same process then serves its logits to
the real judge over the real socket, from GPU memory. Model and rows are the same, so bits-per-byte
must agree up to the rounding of float16. Judged evaluation also serves audited rows, twins and
repeats. "for as many rows" compares its time with the same number of rows evaluated in the process
(goal: 1.05), "in all" with the scored rows alone. "resolution" is the smallest average gain by
looking ahead, in bits-per-byte, that the audit detects with 95 % probability; here it is that of a
model with random weights.

Times are medians of RUNS judged evaluations. As in a real evaluation, the judges are made before
the candidate works, so their reader processes have started by then: "start s" is the wait that is
left. Without a GPU the sizes are small, and the logits go through the host.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Audit = tuple[int, int, int, int]
"""Audited rows, tokens between audited places, twins, repeats: ``scorers.language.AuditSizes``."""

ON_GPU: list[Audit] = [(64, 32, 16, 16), (256, 32, 64, 64), (256, 8, 64, 64), (1024, 8, 64, 64)]
ON_CPU: list[Audit] = [(8, 8, 4, 4), (64, 8, 16, 16), (64, 2, 16, 16)]
RUNS = 3
SETTLE_S = 8.0
"""Wait after the judges are made, until all their readers have started and disturb nothing."""

SPECIALS = 4


@dataclass(frozen=True)
class Case:
    """Sizes of the data and of the model (``depth``, ``width``; its heads are at most 128 wide)."""

    device: str
    rows: int
    batch: int
    length: int
    vocabulary: int
    depth: int
    width: int
    compiled: bool

    @property
    def bos(self) -> int:
        return self.vocabulary - SPECIALS

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.batch, self.length, self.vocabulary


def make_data(folder: Path, case: Case, audited: int) -> Path:
    """Write a split in the Autoresearch format: tokens by Zipf's law in documents of about 400.

    The cost of making a judge grows with the audit text, so there is just enough for ``audited``
    rows.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, case.bos + 1)
    chance /= chance.sum()
    logs = np.append(np.log(chance), np.full(SPECIALS, np.log(1 / 400))).astype(np.float32)

    def text(n: int) -> np.ndarray:
        tokens = np.searchsorted(chance.cumsum(), rng.random(n)).clip(0, case.bos - 1)
        tokens[rng.random(n) < 1 / 400] = case.bos
        tokens[0] = case.bos
        return tokens.astype(np.uint16)

    rows = text(case.rows * (case.length + 1)).reshape(case.rows, -1)
    sizes = rng.integers(1, 9, case.vocabulary).astype(np.int32)
    sizes[case.bos :] = 0
    audit = text(2 * audited * case.length)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "rows_reference.npy", logs[rows[:, 1:]])
    np.save(folder / "audit_tokens.npy", audit)
    np.save(folder / "audit_starts.npy", np.append(np.flatnonzero(audit == case.bos), len(audit)))
    np.save(folder / "audit_reference.npy", np.tile(logs[audit], (4, 1)))
    np.save(folder / "token_bytes.npy", sizes)
    return folder


def make_model(case: Case):  # torch is not imported yet
    """Return model(x) -> logits, and model(x, y) -> loss of each target, in float32."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(case.width, 3 * case.width, bias=False)
            self.out = nn.Linear(case.width, case.width, bias=False)
            self.up = nn.Linear(case.width, 4 * case.width, bias=False)
            self.down = nn.Linear(4 * case.width, case.width, bias=False)
            self.heads = max(1, case.width // 128)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = self.mix(F.rms_norm(x, x.shape[-1:])).chunk(3, dim=-1)
            q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            return x + self.down(F.relu(self.up(F.rms_norm(x, x.shape[-1:]))).square())

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(case.vocabulary, case.width)
            self.places = nn.Embedding(case.length, case.width)
            self.blocks = nn.ModuleList(Block() for _ in range(case.depth))
            self.head = nn.Linear(case.width, case.vocabulary, bias=False)
            nn.init.normal_(self.head.weight, std=0.05)

        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            h = self.words(x) + self.places.weight
            for block in self.blocks:
                h = block(h)
            logits = 15 * torch.tanh(self.head(F.rms_norm(h, h.shape[-1:])).float() / 15)
            if y is None:
                return logits
            return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")

    torch.manual_seed(0)
    model = Model().to(case.device).eval()
    return torch.compile(model, dynamic=False) if case.compiled else model


def candidate(folder: Path, case: Case) -> None:
    """After a line on stdin, evaluate and print the result; then serve each socket named there."""
    import torch

    from scorers.candidate import device_buffer
    from scorers.candidate.candidate import Link

    torch.set_float32_matmul_precision("high")
    model = make_model(case)
    rows = np.load(folder / "rows.npy").astype(np.int64)
    sizes = torch.from_numpy(np.load(folder / "token_bytes.npy")).to(case.device)
    context = torch.autocast(case.device, torch.bfloat16)

    def evaluate() -> float:
        nats = torch.zeros((), dtype=torch.float64, device=case.device)
        total = torch.zeros((), dtype=torch.int64, device=case.device)
        for first in range(0, case.rows, case.batch):
            batch = torch.from_numpy(rows[first : first + case.batch]).to(case.device)
            counted = sizes[batch[:, 1:].flatten()]
            loss = model(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
            nats += (loss * (counted > 0)).sum(dtype=torch.float64)
            total += counted.sum()
        return float(nats / total / np.log(2))

    with torch.no_grad(), context:
        sink = device_buffer.sink(case.device, case.shape)

        def predict(tokens: np.ndarray):  # an array, or a shape
            return sink(model(torch.from_numpy(tokens).to(case.device).long()))

        evaluate()
        predict(rows[: case.batch, :-1].astype(np.int32))
        sys.stdin.readline()
        times = []
        for _ in range(RUNS):
            began = time.perf_counter()
            score = evaluate()
            times.append(time.perf_counter() - began)
        print(json.dumps({"seconds": statistics.median(times), "score": score}), flush=True)
        for path in sys.stdin:
            link = Link.connect(path.strip())
            link.serve(predict, claim={"batch_size": case.batch, **sink.claim})


def make_judge(folder: Path, case: Case, audit: Audit, gpu: str | None):
    from scorers.language import AuditSizes, Language

    shape = {"length": case.length, "vocabulary": case.vocabulary, "bos": case.bos}
    sizes = AuditSizes(*audit)
    return Language(
        folder, shape, sizes, max_batch=case.batch, audit_seed="benchmark", tell=True, gpu=gpu
    )


def judge(language, case: Case, process: subprocess.Popen) -> dict:
    """Return a judged evaluation's verdict, rows served, and seconds: to start, and to serve."""
    from scorers.judge import Times
    from scorers.wire import Listener, LogitsBuffer

    at: dict[str, float] = {}
    served: list[int] = []

    def observe(what: str, details: dict) -> None:
        at.setdefault(what, time.perf_counter())
        if what == "serving":
            served.append(details["batches"] * case.batch)

    def alive() -> bool:
        return process.poll() is None

    with (
        tempfile.TemporaryDirectory() as place,
        closing(language),
        closing(LogitsBuffer(language.buffer_bytes)) as buffer,
        closing(Listener(Path(place) / "judge.sock")) as door,
    ):
        process.stdin.write(f"{place}/judge.sock\n")
        process.stdin.flush()
        began = time.perf_counter()
        limit = time.monotonic() + 120
        with closing(door.accept(alive, threading.Event(), limit)) as wire:
            wire.greet(buffer)
            times = Times(time.monotonic(), 120.0, 120.0)
            verdict = language.examine(wire, buffer, times=times, observe=observe)
        ended = time.perf_counter()
    return {
        "rows": served[0],
        "start": at["serving"] - began,
        "seconds": ended - at["serving"],
        "verdict": verdict,
    }


def show(audit: Audit, found: list[dict], case: Case, own: dict) -> None:
    """Print the line of one audit; ``own``: what the candidate measured in its process."""
    verdict, rows = found[0]["verdict"], found[0]["rows"]
    seconds = statistics.median(f["seconds"] for f in found)
    judge_s = statistics.median(f["verdict"].judge_s for f in found)
    start = statistics.median(f["start"] for f in found)
    resolution = float("nan") if verdict.resolution is None else verdict.resolution
    print(
        f"{audit[0]:7} {audit[1]:3} {audit[2]:5} {audit[3]:7} {resolution:11.5f} {rows:6}"
        f" {seconds:9.3f} {seconds / own['seconds'] * case.rows / rows:17.3f}"
        f" {seconds / own['seconds']:7.3f} {judge_s:14.3f} {start:8.2f}"
        f" {verdict.score - own['score']:12.2e}  {verdict.failed or ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024, help="scored rows")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--candidate", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.candidate:
        candidate(Path(args.candidate[0]), Case(**json.loads(args.candidate[1])))
        return
    from sandboxes.gpus import gpu_uuids

    gpu = next(iter(gpu_uuids()), None)
    on_gpu = Case("cuda", args.rows, args.batch, 2048, 8192, 8, 512, args.compile)
    case = on_gpu if gpu else Case("cpu", 96, 8, 64, 512, 2, 64, args.compile)
    audits = ON_GPU if gpu else ON_CPU
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as judges:
        folders = {n: make_data(Path(temporary) / str(n), case, n) for n in {a[0] for a in audits}}
        rows = str(folders[audits[0][0]])  # all folders hold the same rows
        argv = [sys.executable, __file__, "--candidate", rows, json.dumps(vars(case))]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu or ""}
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        with process:
            try:
                runs: list[tuple[Audit, list]] = [(audit, []) for audit in audits]
                for audit, made in runs:
                    for _ in range(RUNS):
                        language = make_judge(folders[audit[0]], case, audit, gpu)
                        made.append(judges.enter_context(closing(language)))
                time.sleep(SETTLE_S if gpu else 0)
                process.stdin.write("measure\n")
                process.stdin.flush()
                said = process.stdout.readline()
                while said and not said.startswith("{"):
                    print(said, end="")
                    said = process.stdout.readline()
                if not said:
                    sys.exit("the candidate died")
                own = json.loads(said)
                print(
                    f"{case.rows} rows of {case.length}, vocabulary {case.vocabulary}, batches of"
                    f" {case.batch}, {'compiled' if case.compiled else 'eager'}, {case.device}."
                    f" In the process: {own['seconds']:.3f} s, {own['score']:.6f} bits per byte"
                )
                print(
                    "audited gap twins repeats  resolution   rows  judged s  for as many rows"
                    "  in all  judge's own s  start s  difference in bits per byte"
                )
                for audit, made in runs:
                    show(audit, [judge(language, case, process) for language in made], case, own)
            finally:
                process.kill()


if __name__ == "__main__":
    main()
