"""Trains reference designs on LRA tasks and prints what they score on the test split.

    python benchmarks/lra_accuracy.py --tasks lra/listops lra/text --profile short --seeds 3 \\
        --data lra/text=/data/imdb --limit 25m --out accuracy.jsonl

The training code (shell), the data and the splits are those of a real score. The sandbox and the
judge are left out, because the designs are ours: no result here is evidence about a submission that
somebody else wrote. Every training is its own process; ``--at-once`` of them share a GPU. Each
finished training is written at once as a line of the file ``--out``; the same command again runs
only what is missing. ``--table`` prints the results in the file. Choose designs by the search
split, because the test split is the one that is reported.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# The numbers in docs/ are for the rows as published, without a hidden key.
os.environ.setdefault("HARNESS_HIDDEN_KEY", "public")

from harness.base.digests import digest
from harness.base.durations import parse_duration
from harness.base.paths import data_root
from harness.report.stats.intervals import t_interval
from scorers.submission import Rejected, read
from tasks.definition import TASKS_DIR, Reference, Shortcut
from tasks.spec import Task, find_task

ROWS_AT_ONCE = 64
"""Rows per batch, as many as the judge asks for at a time."""


@dataclass(frozen=True)
class Job:
    """One training. ``changed`` are settings that differ from the profile's."""

    task: str
    profile: str
    design: str
    seed: int
    changed: dict[str, Any]
    data: str
    data_hash: str
    task_hash: str
    source_hash: str

    @property
    def key(self) -> str:
        """JSON that is equal for equal trainings: all fields except the folder of the data."""
        values = asdict(self)
        del values["data"]
        return json.dumps(values, sort_keys=True)


def train_one(job: Job, device: str) -> dict[str, Any]:
    """Train and score in this process; return the fields of its line in the output file."""
    import numpy as np
    import torch

    from tasks.lra import shell

    task = find_task(job.task)
    profile = task.profile(job.profile)
    data = Path(job.data)
    manifest = json.loads((data / "manifest.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        source = design_of(task, job.design)
        (Path(folder) / "model.py").write_text(source)
        chosen = read(task, job.profile, {"model.py": source}).settings
        config: shell.Config = {
            "seed": job.seed,
            "settings": {**chosen, **job.changed},
            "shape": manifest["shape"],
            "cpus": profile.limits.cpus,
            "device": device,
            "max_parameters": profile.limits.max_parameters,
            "paths": {"train": str(data / "train"), "submission": folder},
        }
        began = time.monotonic()
        try:
            predict, claim = shell.trained(config)
        except Exception as error:  # noqa: BLE001  # the error goes into the line
            kind, text = shell.explain(error, Path(folder))
            return {"failed": kind, "text": text[-1000:]}
        trained_s = time.monotonic() - began

        def accuracy(split: str) -> float:
            tokens = np.load(data / split / "tokens.npy", mmap_mode="r")
            labels = np.load(data / split / "labels.npy")
            right = 0
            for start in range(0, len(labels), ROWS_AT_ONCE):
                rows = tokens[start : start + ROWS_AT_ONCE].astype(np.int32)
                right += int((predict(rows).argmax(1) == labels[start : start + len(rows)]).sum())
            return right / len(labels)

        search, test = accuracy("search"), accuracy("test")
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {
        "accuracy": test,
        "search_accuracy": search,
        **claim,
        "rows": manifest["rows"],
        "seconds": round(time.monotonic() - began, 1),
        "to_first_answer_s": round(trained_s, 1),
        "device": name,
        "torch": torch.__version__,
    }


def design_of(task: Task, name: str) -> str:
    """Return the source of a design: the task's or the gallery's by name, or a file."""
    if name.endswith(".py"):
        return Path(name).read_text()
    found = {d.name: d.files["model.py"] for d in task.designs()}
    shared = TASKS_DIR / "lra" / "designs" / f"{name}.py"
    if name not in found and shared.is_file():
        return shared.read_text()
    if name not in found:
        sys.exit(f"{task.name} has no design {name}; it has {', '.join(found)}")
    return found[name]


def plan(arguments: argparse.Namespace) -> list[Job]:
    """Prepare the data and return every training asked for, first seeds first."""
    folders = dict(pair.split("=", 1) for pair in arguments.data)
    changed = {k: json.loads(v) for k, v in (pair.split("=", 1) for pair in arguments.set)}
    found: list[list[Job]] = []
    for name in arguments.tasks:
        task = find_task(name)
        base = name.removesuffix("-configurable")
        source = folders.get(name, folders.get(base))
        overrides = {} if source is None else {"source": source}
        began = time.monotonic()
        path, manifest = task.prepare(arguments.profile, arguments.root, lambda *_: None, overrides)
        say(
            f"{name} {arguments.profile}: data in {time.monotonic() - began:.0f} s, {manifest.rows}"
        )
        names = arguments.designs or [d.name for d in task.designs()]
        refuse_settings(task, arguments.profile, changed)
        for design in names:
            text = design_of(task, design)
            try:
                read(task, arguments.profile, {"model.py": text})
            except Rejected as rejected:
                sys.exit(f"{design}: {rejected.message}")
            row = [
                Job(
                    name, arguments.profile, design, seed, changed, str(path), manifest.hash,
                    task.hash(arguments.profile), digest(text),
                )
                for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
            ]  # fmt: skip
            found.append(row)
    return [job for seed in zip(*found, strict=True) for job in seed]


def refuse_settings(task: Task, profile: str, changed: dict[str, Any]) -> None:
    """Exit if --set names an unknown setting, or a value that the configurable variant forbids."""
    for name, value in changed.items():
        if name not in task.profile(profile).settings:
            sys.exit(f"{task.name} has no setting {name}")
        bound = task.definition.bounds.get(name)
        if task.configurable and not (bound and bound.allows(value)):
            sys.exit(f"{task.name} does not allow {name} = {value!r}: {bound or 'it is fixed'}")


def known(out: Path) -> dict[str, dict[str, Any]]:
    """Return key → line of the finished trainings, without damaged lines."""
    found = {}
    for line in out.read_text().splitlines() if out.exists() else []:
        try:
            row = json.loads(line)
            found[Job(**row["job"]).key] = row
        except (ValueError, TypeError, KeyError):
            say(f"left out a damaged line of {out}")
    return found


class Slot:
    """Runs one training at a time, on a GPU or a share of it, or on the CPU if ``gpu`` is None."""

    def __init__(self, gpu: str | None) -> None:
        self.gpu = gpu
        self.job: Job | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, job: Job, seconds: float) -> None:
        """Start the training; it may take ``seconds`` seconds."""
        self.job, self._until = job, time.monotonic() + seconds
        environment = dict(os.environ)
        device = "cpu"
        if self.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"], device = self.gpu, "cuda"
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it is read
        command = [sys.executable, __file__, "--one", json.dumps(asdict(job)), "--device", device]
        self._process = subprocess.Popen(
            command, stdout=self._answer, stdin=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip

    def finished(self) -> dict[str, Any] | None:
        """Return the training's line if it has ended, else None; stop it if its time is up."""
        assert self._process is not None
        if self._process.poll() is None:
            if time.monotonic() < self._until:
                return None
            self.stop()
            return {"failed": "time", "text": "it did not end within its time"}
        self._answer.seek(0)
        lines = self._answer.read().decode(errors="replace").strip().splitlines()
        self._answer.close()
        try:
            answer: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, ValueError):
            return {"failed": "crashed", "text": f"exit {self._process.returncode}"}
        return answer

    def stop(self) -> None:
        """End the training and whatever it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def work(jobs: list[Job], slots: list[Slot], out: Path, until: float, each_s: float) -> int:
    """Run the jobs until all are done or time is up; return how many were left."""
    waiting = list(jobs)
    with out.open("a") as file:
        try:
            while (waiting or any(s.job for s in slots)) and time.monotonic() < until:
                for slot in slots:
                    if slot.job is not None and (row := slot.finished()) is not None:
                        file.write(json.dumps({**row, "job": asdict(slot.job)}) + "\n")
                        file.flush()
                        os.fsync(file.fileno())
                        say(f"{words(slot.job)}: {outcome(row)}")
                        slot.job = None
                    if slot.job is None and waiting:
                        slot.start(waiting.pop(0), each_s)
                time.sleep(0.05)
        finally:
            for slot in slots:
                slot.stop()
    return len(waiting) + sum(slot.job is not None for slot in slots)


def words(job: Job) -> str:
    return f"{job.task} {job.profile} {Path(job.design).stem} seed {job.seed}"


def outcome(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['failed']}: {row['text'].splitlines()[-1] if row['text'] else ''}"
    return f"test {row['accuracy']:.4f}, search {row['search_accuracy']:.4f}, {row['seconds']} s"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield Markdown tables, one per task, profile, settings and data, the best mean first."""
    groups: dict[tuple[str, str, str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        job = row["job"]
        changed = json.dumps(job["changed"], sort_keys=True)
        key = (job["task"], job["profile"], changed, job["data_hash"])
        groups.setdefault(key, {}).setdefault(job["design"], []).append(row)
    for (name, profile, changed, data), designs in sorted(groups.items()):
        task = find_task(name)
        devices = sorted({r["device"] for rs in designs.values() for r in rs if "device" in r})
        said = "" if changed == "{}" else f", {changed}"
        yield f"\n### {name}, {profile}{said} ({', '.join(devices)}; data {data})\n"
        yield "| design | test accuracy | search | seeds | parameters | training, s |"
        yield "|---|---|---|---|---|---|"
        lines = []
        for design, found in designs.items():
            good = [r for r in found if "failed" not in r]
            if not good:
                kinds = ", ".join(sorted({r["failed"] for r in found}))
                lines.append((-1.0, f"| {Path(design).stem} | {kinds} | | 0 of {len(found)} | | |"))
                continue
            scores = [r["accuracy"] for r in good]
            mean = statistics.mean(scores)
            search = statistics.mean(r["search_accuracy"] for r in good)
            seconds = statistics.median(r["train_seconds"] for r in good)
            lines.append(
                (
                    mean,
                    f"| {Path(design).stem} | {mean:.4f} ± {interval(scores, good):.4f} "
                    f"| {search:.4f} | {len(good)} of {len(found)} "
                    f"| {good[0]['parameters']:,} | {seconds:.1f} |",
                )
            )
        yield from (line for _, line in sorted(lines, key=lambda pair: -pair[0]))
        d = task.definition
        if d.chance is not None:
            yield f"| *chance* | {d.chance:.4f} | | | | |"
        published: tuple[Shortcut | Reference, ...] = (*d.shortcuts, *d.references)
        for known_value in published:
            if known_value.profile == profile:
                yield f"| *{known_value.name}* | {known_value.value:.4f} | | | | |"


def interval(scores: list[float], rows: list[dict[str, Any]]) -> float:
    """Return half a 95 % interval: Student's t over seeds, or with one seed over the test rows."""
    if over_seeds := t_interval(scores):
        return (over_seeds.high - over_seeds.low) / 2
    p, n = scores[0], rows[0]["rows"]["test"]
    return 1.96 * math.sqrt(p * (1 - p) / n)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["lra/listops"], metavar="NAME")
    parser.add_argument(
        "--designs", nargs="+", default=[], help="names or files (default: the task's)"
    )
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings")
    parser.add_argument("--data", nargs="*", default=[], metavar="TASK=DIR")
    parser.add_argument(
        "--root", type=Path, default=data_root(), help="where prepared data are kept"
    )
    parser.add_argument("--out", type=Path, default=Path("lra_accuracy.jsonl"))
    parser.add_argument(
        "--limit", type=parse_duration, default="2h", help="wall clock for the whole, e.g. 25m"
    )
    parser.add_argument(
        "--each", type=parse_duration, default="2h", help="wall clock for one training"
    )
    parser.add_argument("--at-once", type=int, default=1, help="trainings on each GPU, or the CPU")
    parser.add_argument("--retry", action="store_true", help="do what failed again")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    return parser.parse_args()


def gpus() -> list[str]:
    """Return the visible GPUs, without making a CUDA context in this process."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu for gpu in listed.split(",") if gpu]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(train_one(Job(**json.loads(arguments.one)), arguments.device)))
        return
    until = time.monotonic() + arguments.limit
    # Treat SIGTERM like Ctrl-C: the trainings must not outlive this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not arguments.table:
        jobs = plan(arguments)
        done = known(arguments.out)
        if arguments.retry:
            done = {key: row for key, row in done.items() if "failed" not in row}
        missing = [job for job in jobs if job.key not in done]
        slots = [Slot(gpu) for gpu in gpus() or [None] for _ in range(arguments.at_once)]
        say(f"{len(missing)} of {len(jobs)} trainings to do, {len(slots)} at once")
        try:
            left = work(missing, slots, arguments.out, until, arguments.each)
        except KeyboardInterrupt:
            left = -1
        if left:
            say("not all was done: the same command again goes on")
    sys.stdout.write("\n".join(table(list(known(arguments.out).values()))) + "\n")


if __name__ == "__main__":
    main()
