"""Measures how fast the LRA shell trains, against a plain DataLoader loop, and how busy the GPU is.

    python benchmarks/shell_throughput.py [--profile paper] [--seconds 4] [TASK …]

Both loops have the same design, data, batch size, precision and optimizer, and take turns in this
process. They differ in where the data lie: the shell keeps them on the device; the plain loop has a
Dataset of single rows, shuffled, collated and pinned by two worker processes. ``GPU busy`` is the
time per step in which a kernel ran, by torch's profiler, as a share of a step's time without the
profiler, because profiling slows the host. ``shell alone`` is a step with almost no model, a mean
of embeddings: the cost of the shell itself. The rows are generated, with the lengths, vocabulary
and classes of the profile.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.lra import shell
from tasks.spec import find_task

TASKS = ("lra/listops", "lra/text", "lra/retrieval", "lra/image", "lra/pathfinder", "lra/pathx")
ROWS, ROWS_PATHX = 2048, 256
"""Rows of the data: enough for whole batches; more would not change a step."""
ROUNDS = 3


class Rows(Dataset):
    """The Dataset of a plain loop: one row at a time, as int64."""

    def __init__(self, tokens: np.ndarray, labels: np.ndarray) -> None:
        self.tokens, self.labels = tokens, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = torch.from_numpy(self.tokens[index].astype(np.int64))
        return row, int(self.labels[index])


MEAN = """
from torch import nn

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, **_):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 4)
        self.head = nn.Linear(4, classes)

    def forward(self, tokens, mask):
        return self.head(self.embed(tokens[:, :64]).mean(1))
"""
"""The smallest model that the shell accepts; it costs the device almost nothing."""


class Case:
    """One task at one profile, with a design."""

    def __init__(self, name: str, profile: str, design: str, device: str, folder: Path) -> None:
        task = find_task(name)
        chosen = task.profile(profile)
        rows = ROWS_PATHX if name == "lra/pathx" else ROWS
        rows = max(rows, 2 * int(chosen.settings["batch_size"]))
        overrides: dict[str, Any] = {"train": rows, "search": 64, "test": 64}
        if "source" in chosen.data:
            overrides["source"] = "generated"
        data, manifest = task.prepare(profile, folder, lambda *_: None, overrides)
        (source,) = (d.files["model.py"] for d in task.designs() if d.name == design)
        self.source, self.file = source, folder / "model.py"
        self.tokens = np.load(data / "train" / "tokens.npy")
        self.labels = np.load(data / "train" / "labels.npy")
        self.device = torch.device(device)
        self.config: shell.Config = {
            "seed": 0, "settings": dict(chosen.settings), "shape": manifest.shape,
            "cpus": chosen.limits.cpus, "device": device,
            "max_parameters": chosen.limits.max_parameters,
            "paths": {"submission": str(folder)},
        }  # fmt: skip
        shell.prepare_torch(0, chosen.limits.cpus, self.device)

    def model(self, source: str) -> torch.nn.Module:
        self.file.write_text(source)
        return shell.load_model(self.config).to(self.device)

    def by_shell(self, steps: int, source: str = "") -> float:
        """Return the seconds of ``steps`` steps of the shell's own loop."""
        model = self.model(source or self.source)
        tokens = torch.from_numpy(self.tokens).to(self.device)
        labels = torch.from_numpy(self.labels).to(self.device)
        config = {**self.config, "settings": {**self.config["settings"], "steps": steps}}
        began = time.perf_counter()
        shell.train_model(model, tokens, labels, config)  # ends by reading the loss
        return time.perf_counter() - began

    def by_plain_loop(self, steps: int) -> float:
        """Return the seconds of ``steps`` steps of the plain loop that most people write first."""
        settings, cuda = self.config["settings"], self.device.type == "cuda"
        model = self.model(self.source)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings["learning_rate"], betas=(0.9, settings["beta2"]),
            weight_decay=settings["weight_decay"], fused=cuda,
        )  # fmt: skip
        loader = DataLoader(
            Rows(self.tokens, self.labels), settings["batch_size"], shuffle=True, drop_last=True,
            num_workers=2 if cuda else 0, pin_memory=cuda, persistent_workers=cuda,
        )  # fmt: skip
        reader = shell.Reader(self.config)
        batches = forever(loader)
        first = next(batches)  # the workers' start is not counted
        model.train()
        began = time.perf_counter()
        for step in range(steps):
            rows, target = first if step == 0 else next(batches)
            rows = rows.to(self.device, non_blocking=True)
            target = target.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=cuda):
                logits = model(*reader.arguments(rows))
            loss = torch.nn.functional.cross_entropy(logits.float(), target)
            loss.backward()
            if settings["grad_clip"] > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings["grad_clip"])
            optimizer.step()
            optimizer.zero_grad()
        loss.item()
        return time.perf_counter() - began

    def computing(self, steps: int) -> float:
        """Return the mean seconds per step in which the GPU computed, in the shell's loop."""
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
            self.by_shell(steps)
        spans = [
            (event.time_range.start, event.time_range.end)
            for event in seen.events() or ()
            if event.device_type == DeviceType.CUDA and not event.name.startswith("Memcpy HtoD")
        ]
        return covered(spans) / 1e6 / steps


def covered(spans: list[tuple[float, float]]) -> float:
    """Return how much time the spans cover together; NaN where there are none."""
    if not spans:
        return float("nan")
    total, reach = 0.0, -float("inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reach))
        reach = max(reach, end)
    return total


def forever(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from loader


def rate(run: Callable[[int], float], seconds: float) -> Callable[[], float]:
    """Return a function that measures steps per second over about ``seconds`` seconds."""
    run(3)  # libraries, kernels, allocator
    steps = max(3, int(seconds / (run(5) / 5)))
    return lambda: steps / run(steps)


def measure(name: str, arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(name, arguments.profile, arguments.design, device, Path(folder))
        each = arguments.seconds / (2 * ROUNDS)
        ours, plain = rate(case.by_shell, each), rate(case.by_plain_loop, each)
        pairs = [(ours(), plain()) for _ in range(ROUNDS)]
        row: dict[str, Any] = {
            "shell_steps_a_second": statistics.median(a for a, _ in pairs),
            "plain_steps_a_second": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(a / b for a, b in pairs),
            "alone_ms": 1e3 / rate(partial(case.by_shell, source=MEAN), arguments.seconds / 6)(),
            "busy": None,
            "peak_gpu_mib": None,
        }
        if device == "cuda":
            row["peak_gpu_mib"] = torch.cuda.max_memory_allocated() >> 20
            torch.cuda.reset_peak_memory_stats()
            steps = min(60, max(10, int(2 * row["shell_steps_a_second"])))
            try:
                row["busy"] = case.computing(steps) * row["shell_steps_a_second"]
            except RuntimeError as error:  # no CUPTI, or no permission to use it
                print(f"no busy share of {name}: {error}", file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--design", default="softmax")
    parser.add_argument("--seconds", type=float, default=6.0, help="of measuring, a task")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"{arguments.profile}, {arguments.design}, on {where}, torch {torch.__version__}")
    print("| task | shell, steps/s | plain loop, steps/s | ratio | shell alone, ms a step "
          "| GPU busy | peak, MiB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.tasks:
        try:
            row = measure(name, arguments, device)
        except Exception as error:  # noqa: BLE001  # the other tasks are still measured
            print(f"| {name} | {type(error).__name__}: {str(error)[:200]} | | | | | |", flush=True)
            continue
        finally:
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()
        busy = "–" if row["busy"] is None else f"{100 * row['busy']:.1f} %"
        peak = row["peak_gpu_mib"] or "–"
        print(
            f"| {name} | {row['shell_steps_a_second']:.2f} | {row['plain_steps_a_second']:.2f} "
            f"| {row['ratio']:.2f} | {row['alone_ms']:.2f} | {busy} | {peak} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
