"""Compares the public training script, alone and under the harness, with others on real GPUs.

    python benchmarks/public_script.py PUBLIC --data DIR [--seconds 60] [--seeds 2] [--alone]
        [--script best --script my/train.py] [--sandbox process] [--parallel] [--strict]
        [--out FILE]

PUBLIC is a checkout of karpathy/autoresearch (or its train.py and prepare.py alone); it is only
read. DIR is a folder of any text (benchmarks/machine_text.py makes one). Every script trains on the
same prepared tokens for the same counted seconds and is judged on the same hidden rows; ``--alone``
also runs the public script in a process of its own, with its own loader and evaluation, on the same
training documents. ``--parallel`` uses all GPUs at once, and swaps them between seeds.
"""

import argparse
import json
import os
import pickle
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.base.errors import HarnessError
from harness.base.paths import data_root
from harness.report.stats.intervals import t_interval
from sandboxes.gpus import gpu_models, gpu_uuids
from sandboxes.registry import choose
from scorers.evaluate import evaluate
from scorers.request import Request
from tasks.autoresearch.tokenizer import Tokenizer
from tasks.definition import Manifest
from tasks.spec import Task, find_task

PROFILE = "short"
ALONE = """
import runpy, sys, time
import prepare
prepare.TIME_BUDGET, prepare.EVAL_TOKENS = float(sys.argv[1]), int(sys.argv[2])
own = prepare.evaluate_bpb
def timed(*arguments):
    began = time.time()
    score = own(*arguments)
    print(f"eval_seconds: {time.time() - began:.2f}")
    return score
prepare.evaluate_bpb = timed
sys.argv = ["train.py"]
runpy.run_path("train.py", run_name="__main__")
"""


@dataclass
class Row:
    """The result of one run. ``claim`` is what the script printed, with its counted seconds."""

    script: str
    seed: int
    gpu: int
    score: float | None = None
    resolution: float | None = None
    claim: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    audits: dict = field(default_factory=dict)
    note: str = ""

    def tokens_per_second(self) -> float:
        try:
            said = self.claim
            return 1e6 * float(said["total_tokens_M"]) / float(said["training_seconds"])
        except (KeyError, ValueError, ZeroDivisionError):
            return float("nan")

    def line(self) -> str:
        value = "-" if self.score is None else f"{self.score:.6f}"
        seconds = " ".join(f"{k} {v:.1f}" for k, v in self.seconds.items())
        return (
            f"{self.script:22} seed {self.seed} gpu {self.gpu}  {value:>9} bits per byte "
            f"{self.tokens_per_second() / 1e3:8.0f} k tokens/s, {self.claim.get('num_steps', '?')}"
            f" steps, {self.claim.get('num_params_M', '?')} M parameters,"
            f" {self.claim.get('peak_vram_mb', '?')} MB; {seconds} {self.note}"
        )


class Bench:
    """Runs scripts on one corpus for one number of seconds, on the GPUs of this machine."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.gpus = args, gpu_uuids()
        if not self.gpus:
            sys.exit("public_script.py needs a GPU")
        self.task = timed_task(args.seconds)
        self.backend, _ = choose(args.sandbox, trusted=True)
        began = time.time()
        source = {"source": str(args.data.resolve())}
        self.data, self.manifest = self.task.prepare(PROFILE, data_root(), lambda *_: None, source)
        names = ("train_documents", "duplicates_dropped", "overlap_search", "tokenizer", "corpus")
        facts = {name: self.manifest.parameters[name] for name in names}
        print(f"data in {time.time() - began:.0f} s: {self.manifest.rows}, {facts}")
        print(f"n-gram reference: {self.manifest.baselines}")
        print(f"{len(self.gpus)} GPUs: {gpu_models()[self.gpus[0]]}; sandbox {self.backend.name}")

    def judged(self, name: str, text: str, seed: int, gpu: int) -> Row:
        """Train and judge one script."""
        row = Row(name, seed, gpu)
        request = Request(
            task=self.task,
            profile=PROFILE,
            split="search",
            files={"train.py": text},
            data=self.data,
            manifest=self.manifest,
            training_seed=seed,
            audit_seed=secrets.token_hex(8),
            backend=self.backend,
            gpus=(self.gpus[gpu],),
            strict=self.args.strict,
        )
        log = Path(self.args.logs) / f"{name}-{seed}.log"
        try:
            evaluated = evaluate(request)
        except HarnessError as error:
            row.note = f"{error} {error.cause}"
            return row
        log.write_bytes(evaluated.log)
        score = evaluated.score
        row.score = score.score
        row.resolution, row.claim, row.seconds = score.resolution, score.claim, score.seconds
        row.audits = {a.name: [a.value, a.threshold] for a in score.audits}
        resolution = f"{score.resolution:.5f}" if score.resolution else "-"
        row.note = f"resolution {resolution} {score.reason or ''} {score.message[-600:]}"
        return row

    def alone(self, place: Path, seed: int, gpu: int) -> Row:
        """Run the public script with the public loader and evaluation."""
        row = Row("public, alone", seed, gpu)
        here = place / f"alone-{seed}"
        here.mkdir()
        for file in ("train.py", "prepare.py"):
            shutil.copy(self.args.public / file, here)
        shutil.copy(self.task.folder / "runtime" / "kernels.py", here)
        (here / "alone.py").write_text(ALONE)
        rows = int(self.task.profile(PROFILE).data["rows"])
        argv = [sys.executable, "alone.py", str(self.args.seconds), str(rows * 2048)]
        env = {**os.environ, "HOME": str(place), "CUDA_VISIBLE_DEVICES": self.gpus[gpu]}
        env["TORCHINDUCTOR_CACHE_DIR"] = str(here / "inductor")
        env["TRITON_CACHE_DIR"] = str(here / "triton")
        began = time.time()
        done = subprocess.run(argv, cwd=here, env=env, capture_output=True, text=True, check=False)
        row.seconds = {"total": time.time() - began}
        (Path(self.args.logs) / f"alone-{seed}.log").write_text(done.stdout + done.stderr)
        for text in done.stdout.replace("\r", "\n").splitlines():
            key, colon, value = text.partition(":")
            if colon and " " not in key:
                row.claim[key] = value.strip()
        if "val_bpb" in row.claim:
            row.score = float(row.claim["val_bpb"])
            row.seconds["eval"] = float(row.claim["eval_seconds"])
        else:
            row.note = done.stderr[-600:]
        return row


def timed_task(seconds: float) -> Task:
    """Return the task with ``seconds`` counted training seconds in its profile."""
    task = find_task("autoresearch")
    profile = task.profile(PROFILE)
    settings = {**profile.settings, "time_budget": seconds}
    limits = profile.limits.model_copy(update={"train_s": seconds + 240})
    profile = profile.model_copy(update={"settings": settings, "limits": limits})
    profiles = {**task.definition.profiles, PROFILE: profile}
    return Task(task.folder, task.definition.model_copy(update={"profiles": profiles}), "fixed")


def public_layout(home: Path, data: Path, manifest: Manifest) -> None:
    """Write the prepared documents as the public task keeps them, below ``home``."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    cache = home / ".cache" / "autoresearch"
    (cache / "data").mkdir(parents=True)
    (cache / "tokenizer").mkdir()
    own = Tokenizer.from_json((data / "train" / "tokenizer.json").read_text())
    (cache / "tokenizer" / "tokenizer.pkl").write_bytes(pickle.dumps(own.encoding))
    sizes = np.load(data / "train" / "token_bytes.npy")
    torch.save(torch.from_numpy(sizes), cache / "tokenizer" / "token_bytes.pt")
    table = [own.encoding.decode_single_token_bytes(i) for i in range(own.vocabulary)]
    for prefix, names in (("", [f"shard_{i:05}" for i in range(8)]), ("val_", ["shard_06542"])):
        tokens = np.load(data / "train" / f"{prefix}tokens.npy", mmap_mode="r")
        starts = np.load(data / "train" / f"{prefix}starts.npy")
        for part, documents in enumerate(np.array_split(np.arange(len(starts) - 1), len(names))):
            texts = [
                b"".join(table[t] for t in tokens[starts[i] + 1 : starts[i + 1]].tolist()).decode()
                for i in documents
            ]
            path = cache / "data" / f"{names[part]}.parquet"
            pq.write_table(pa.table({"text": texts}), path, row_group_size=1024)


def run_all(bench: Bench, place: Path) -> list[Row]:
    """Run every script once per seed; print each result as it comes."""
    args = bench.args
    scripts = {"public": (args.public / "train.py").read_text()}
    for name in args.script:
        file = bench.task.folder / "designs" / f"{name}.py"
        file = file if file.exists() else Path(name)
        scripts[file.stem] = file.read_text()
    if args.alone:
        public_layout(place, bench.data, bench.manifest)
    count = len(bench.gpus) if args.parallel else 1
    jobs: list[list[tuple[str, int]]] = [[] for _ in range(count)]
    for seed in range(1, args.seeds + 1):
        names = [*scripts, *(["alone"] if args.alone else [])]
        for turn, name in enumerate(names[:: 1 if seed % 2 else -1]):
            jobs[turn % count].append((name, seed))

    def work(gpu: int) -> list[Row]:
        rows = []
        for name, seed in jobs[gpu]:
            if name == "alone":
                row = bench.alone(place, seed, gpu)
            else:
                row = bench.judged(name, scripts[name], seed, gpu)
            print(row.line(), flush=True)
            rows.append(row)
        return rows

    with ThreadPoolExecutor(count) as pool:
        return [row for rows in pool.map(work, range(count)) for row in rows]


def compare(rows: list[Row]) -> None:
    """Print what each script gains over the public one, paired by seed."""
    found = {(row.script, row.seed): row for row in rows}
    public = {seed: row for (name, seed), row in found.items() if name == "public"}
    for name in dict.fromkeys(row.script for row in rows if row.script != "public"):
        pairs = [(row, public[s]) for (n, s), row in found.items() if n == name and s in public]
        fast = [a.tokens_per_second() / b.tokens_per_second() for a, b in pairs]
        print(f"{name}: tokens/s against public: {', '.join(f'{x:.3f}' for x in fast)}")
        gains = [100 * (1 - a.score / b.score) for a, b in pairs if a.score and b.score]
        if name.startswith("public"):
            judged = [
                float(b.claim["judged_seconds"]) / a.seconds["eval"]
                for a, b in pairs
                if "judged_seconds" in b.claim and "eval" in a.seconds
            ]
            text = ", ".join(f"{x:.3f}" for x in judged)
            print(f"judged evaluation with its audits / the public one, wall clock: {text}")
        if name.startswith("public") or not gains:
            continue  # alone is evaluated on other rows
        text = ", ".join(f"{gain:.2f}" for gain in gains)
        if interval := t_interval(gains):
            text += f"; 95 % interval {interval.low:.2f} to {interval.high:.2f}"
        middle = statistics.mean(gains)
        print(f"{name}: {middle:.2f} % fewer bits per byte than public ({text})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("public", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="counted training seconds")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--script", action="append", default=[], help="a design, or a file")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--parallel", action="store_true")
    parser.add_argument("--strict", action="store_true", help="judge exported models")
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--logs", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, help="keep the rows as JSON lines")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = run_all(Bench(args), Path(place))
    if args.out:
        args.out.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    compare(rows)


if __name__ == "__main__":
    main()
