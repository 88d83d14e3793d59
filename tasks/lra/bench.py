"""Measures what a mechanism costs: time and memory of training passes by the length of the row.

``measure`` sends requests to a worker process, which runs this file as a program. Only the worker
imports torch: a mechanism that takes all memory ends the worker and nothing else. This is for
mechanisms of the gallery only; a submission is run in a sandbox, which this file does not do.
"""

import contextlib
import ctypes
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from harness.base.errors import ConfigError, InfrastructureError
from tasks.lra.gallery import load

ROOT = Path(__file__).parents[2]
VOCABULARY, CLASSES = 257, 10  # ids of bytes; the tree mechanism then uses its even tree

# One block: on a GPU as wide as lra/listops at the paper profile, on a CPU what takes seconds.
SIZES: dict[str, dict[str, int]] = {
    "cuda": {"dim": 512, "heads": 8, "mlp_dim": 1024, "depth": 1, "tokens": 32_768},
    "cpu": {"dim": 64, "heads": 4, "mlp_dim": 128, "depth": 1, "tokens": 4096},
}
LENGTHS = {"cuda": (512, 1024, 2048, 4096, 8192, 16_384), "cpu": (256, 512, 1024, 2048)}
SECONDS = {"cuda": 0.3, "cpu": 0.5}  # of repetitions per cell, after the warm-up
REPEATS = 3, 50  # at least and at most
LONGEST_S = 300.0
MAX_LENGTH = 1 << 20
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True, slots=True)
class BenchCell:
    """One mechanism at one length: a training step's passes over ``rows`` rows, or ``failure``.

    Milliseconds are medians; ``peak_mb`` is the most memory held at once beyond model and input.
    """

    mechanism: str
    length: int
    rows: int
    forward_ms: float | None = None
    backward_ms: float | None = None
    peak_mb: float | None = None
    failure: str = ""

    @property
    def ms(self) -> float | None:
        """Milliseconds of both passes."""
        if self.forward_ms is None or self.backward_ms is None:
            return None
        return self.forward_ms + self.backward_ms

    @property
    def tokens_per_s(self) -> float | None:
        return self.rows * self.length / self.ms * 1e3 if self.ms else None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the cells were measured, as the worker reports."""

    device: str
    name: str
    torch: str
    precision: str


def parse_lengths(text: str) -> tuple[int, ...]:
    """Return the lengths of ``512..16384`` (doubling) or ``512,1000``. Raises ConfigError."""
    remedy = "for example 512..16384, which doubles, or 512,1000,4096"
    spread = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text.strip())
    if spread:
        low, high = int(spread[1]), int(spread[2])
        found = []
        while 0 < low <= high:
            found.append(low)
            low *= 2
    elif re.fullmatch(r"\d{1,9}(,\d{1,9})*", text.strip()):
        found = sorted({int(part) for part in text.split(",")})
    else:
        raise ConfigError(f"{text!r} gives no lengths.", remedy=remedy)
    if not found or found[0] < 1 or found[-1] > MAX_LENGTH:
        raise ConfigError(
            f"{text!r} gives no lengths.", cause=f"they go from 1 to {MAX_LENGTH:,}", remedy=remedy
        )
    return tuple(found)


def measure(
    names: list[str],
    lengths: tuple[int, ...] | None,
    device: str | None,
    progress: Callable[[int, int, BenchCell], None],
    longest_s: float = LONGEST_S,
) -> Iterator[Machine | BenchCell]:
    """Yield the machine, then every cell as it is measured, shorter rows first.

    ``lengths`` and ``device`` default to what fits the machine. ``progress`` is called with the
    number of cells done, the number in all, and the cell that begins. A cell that takes longer than
    ``longest_s`` ends as "timeout"; after "oom" or "timeout", longer rows of that mechanism are not
    tried. Raises ConfigError if the device is missing, InfrastructureError without torch.
    """
    worker = BenchWorker(device)
    try:
        machine = worker.machine
        yield machine
        lengths = lengths or LENGTHS[machine.device]
        cells = [
            BenchCell(name, length, max(1, SIZES[machine.device]["tokens"] // length))
            for name in names
            for length in lengths
        ]
        given_up: dict[str, str] = {}
        for done, cell in enumerate(cells):
            progress(done, len(cells), cell)
            if cell.mechanism in given_up:
                yield replace(cell, failure=f"not tried: {given_up[cell.mechanism]} before")
                continue
            if not worker.alive:
                worker.close()
                worker = BenchWorker(machine.device)
            result = worker.ask(cell, longest_s)
            if result.failure in ("oom", "timeout"):
                given_up[cell.mechanism] = result.failure
            yield result
    finally:
        worker.close()


class BenchWorker:
    """The process that measures; it handles one request at a time."""

    def __init__(self, device: str | None) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in close()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tasks.lra.bench"], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            start_new_session=True,  # only the parent handles Ctrl-C
        )  # fmt: skip
        hello = self._exchange({"device": device})
        if hello is None:
            cause = self._last_words()
            self.close()
            raise InfrastructureError(
                "The process that measures mechanisms did not start.",
                cause=cause, remedy="pip install 'aira-harness[torch]'",
            )  # fmt: skip
        if "problem" in hello:
            self.close()
            raise ConfigError(hello["problem"], remedy="--device cpu")
        self.machine = Machine(**hello)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, cell: BenchCell, longest_s: float) -> BenchCell:
        """Return the cell with its measurements, or with ``failure``."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(longest_s, stop)
        timer.daemon = True  # Ctrl-C may come before the try; a daemon does not delay exit
        try:
            timer.start()
            reply = self._exchange(asdict(cell))
        finally:
            timer.cancel()
        if reply is not None:
            return replace(cell, **reply)
        code = self.process.wait()
        # A kill that is not ours comes from the kernel, because memory ran out.
        failure = "timeout" if late.is_set() else "oom" if code == -9 else self._last_words()
        return replace(cell, failure=failure)

    def close(self) -> None:
        """End the process; idempotent."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Send one line and return the reply, or None if there is none."""
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            return None
        reply: dict[str, Any] | None = json.loads(line) if line else None
        return reply

    def _last_words(self) -> str:
        self.log.seek(0)
        lines = self.log.read()[-4000:].strip().splitlines()
        return lines[-1][:200] if lines else f"it ended with {self.process.poll()}"


def answer(replies: TextIO) -> None:
    """Run as the worker: read a request per line, write a reply per line, until the input ends."""
    import torch

    with contextlib.suppress(AttributeError, OSError):
        # If the parent is killed, end too: nobody wants the rest of minutes of work.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    device = json.loads(sys.stdin.readline())["device"]
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"problem": "torch sees no CUDA device."}), file=replies, flush=True)
        return
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    precision = "bfloat16 autocast" if device == "cuda" else "float32"
    hello = {"device": device, "name": name, "torch": torch.__version__, "precision": precision}
    print(json.dumps(hello), file=replies, flush=True)
    for line in sys.stdin:
        cell = json.loads(line)
        try:
            found: dict[str, Any] = passes(cell["mechanism"], cell["length"], cell["rows"], device)
        except (torch.OutOfMemoryError, MemoryError):
            found = {"failure": "oom"}
        except Exception as error:  # noqa: BLE001  # the other cells go on
            words = str(error).strip().splitlines() or [""]
            no_memory = "can't allocate memory" in words[0] or "not enough memory" in words[0]
            failure = f"{type(error).__name__}: {words[0][:160]}"
            found = {"failure": "oom" if no_memory else failure}
        if device == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(found), file=replies, flush=True)


def passes(name: str, length: int, rows: int, device: str) -> dict[str, float]:
    """Measure an encoder of one block: return the medians of its passes, and the peak memory."""
    import torch

    torch.manual_seed(0)
    sizes = {k: v for k, v in SIZES[device].items() if k != "tokens"}
    model = load(name).CustomEncoder(
        vocabulary=VOCABULARY, classes=CLASSES, length=length, dropout=0.0, **sizes
    )
    model.to(device).train()
    tokens = torch.randint(1, VOCABULARY, (rows, length), device=device)
    mask = tokens != 0
    labels = torch.randint(CLASSES, (rows,), device=device)

    def forward() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(tokens, mask)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    def once() -> tuple[float, float]:
        model.zero_grad(set_to_none=True)
        start = mark()
        loss = forward()
        middle = mark()
        loss.backward()  # type: ignore[no-untyped-call]
        end = mark()
        return between(start, middle), between(middle, end)

    mark, between = clock(device)
    for _ in range(3 if device == "cuda" else 1):
        once()
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(times) < REPEATS[0] or (
        len(times) < REPEATS[1] and time.perf_counter() - began < SECONDS[device]
    ):
        times.append(once())
    model.zero_grad(set_to_none=True)
    before = held(device, reset=True)
    once()
    found = {
        "forward_ms": statistics.median(t for t, _ in times),
        "backward_ms": statistics.median(t for _, t in times),
    }
    if before is not None:
        found["peak_mb"] = max(0.0, (held(device) or 0) - before) / 1e6
    return found


def clock(device: str) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """Return a function that marks a moment, and one for the milliseconds between two marks.

    On a GPU the marks are CUDA events: marking does not wait for the device, reading them does.
    """
    if device == "cpu":
        return time.perf_counter, lambda start, end: float(end - start) * 1e3
    import torch

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return float(start.elapsed_time(end))

    return mark, between


def held(device: str, reset: bool = False) -> int | None:
    """Return the most bytes held since the last reset; after ``reset``, what is held now.

    On a CPU this is the process's resident memory, which only Linux reports; None elsewhere.
    """
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    try:
        if reset:
            # Memory that the allocator keeps for reuse would hide what the next pass takes.
            with contextlib.suppress(AttributeError, OSError):
                ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(peak[1]) * 1024 if peak else None


if __name__ == "__main__":
    # stdout is for replies only, and a mechanism or the compiler may print.
    replies, sys.stdout = sys.stdout, sys.stderr
    answer(replies)
