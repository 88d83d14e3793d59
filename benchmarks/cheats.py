"""Prints a table of the Autoresearch cheats: what each would gain, and what stopped it.

    python benchmarks/cheats.py [--profile test] [--honest [--gpu] [--strict]] [--workers 2]
        [NAME ...]

The gain is in bits-per-byte below the honest twin, for a reader who believes the script. The column
"gain shows" says where it is read from: "measured" is what the judge measured, whatever its audits
say; "claim" is what the script printed; "unisolated" and "unlimited" are measured without a
sandbox, or without the script's own limits; "retries" is the best of several training seeds. With
``--honest``: scores of the honest models over 3 seeds, and the largest values of their audits.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cheats.corpus import Bench, failed, scripts  # noqa: E402

from sandboxes.gpus import gpu_uuids  # noqa: E402
from sandboxes.registry import BACKENDS, choose  # noqa: E402

SEEDS = ((3, "a1b2"), (4, "c3d4"), (5, "e5f6"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--profile", default="test")
    parser.add_argument("--honest", action="store_true")
    parser.add_argument("--gpu", action="store_true", help="train and judge on the first GPU")
    parser.add_argument("--strict", action="store_true", help="judge exported models too")
    parser.add_argument("--seeds", type=int, choices=(1, 2, 3), default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path.home() / ".cache/aira-harness/cheats")
    args = parser.parse_args()
    gpus = gpu_uuids()[:1] if args.gpu else ()
    if args.gpu and not gpus:
        sys.exit("--gpu: this machine has none")
    backend = choose("auto", trusted=False)[0]
    bench = Bench(args.data, backend, profile=args.profile, gpus=gpus, strict=args.strict)
    began = time.monotonic()
    if args.honest:
        wrong = honest(bench, set(args.names), args.workers, SEEDS[: args.seeds])
    else:
        wrong = cheats(bench, set(args.names), args.workers)
    print(f"{wrong} wrong; {time.monotonic() - began:.0f} s with {args.workers} workers")
    return wrong > 0


def cheats(bench: Bench, names: set[str], workers: int) -> int:
    """Print a line for each cheat; return how many were not stopped or gain too little to count."""
    print(
        f"{'cheat':<26}{'twin':>8}{'got':>8}{'gain':>8}  {'gain shows':<12}{'resolution':>11}"
        "  stopped by"
    )
    chosen = [s for s in scripts("autoresearch") if not names or s.name in names]
    wrong = 0
    for o in over(workers, lambda s: bench.judge(s, unisolated=BACKENDS.ours["process"]), chosen):
        bad = not (o.held and o.worth_it)
        wrong += bad
        numbers = "".join(
            f"{'-' if x is None else format(x, '.4f'):>8}" for x in (o.twin.measured, o.got, o.gain)
        )
        resolution = "-" if o.score.resolution is None else f"{o.score.resolution:.3f}"
        stopped = ", ".join(o.stopped_by) or "NOTHING STOPPED IT"
        print(
            f"{o.script.name:<26}{numbers}  {o.script.gain_shows:<12}{resolution:>11}  {stopped}"
            f"{'   <-- WRONG' if bad else ''}",
            flush=True,
        )
    return wrong


def honest(bench: Bench, names: set[str], workers: int, every_seed) -> int:
    """Print a line for each honest model; return how many evaluations failed."""
    chosen = [s for s in scripts("honest") if not names or s.name in names]
    jobs = [(s, *seeds) for s in chosen for seeds in every_seed]

    def score(job):
        return bench.score(job[0].source(), training_seed=job[1], audit_seed=job[2])

    largest: dict[str, tuple[float, str]] = {}
    wrong = 0
    for (script, _, seed), s in zip(jobs, over(workers, score, jobs), strict=True):
        wrong += not s.valid
        values = "  ".join(f"{a.name} {a.value:.3g}" for a in s.audits)
        what = "" if s.valid else f"   <-- {s.reason} {failed(s)}: {s.message[-300:]}"
        bpb = "-" if s.measured is None else f"{s.measured:.4f}"
        strict = f"  strict: {s.strict}, resolution {s.resolution}" if s.strict else ""
        print(f"{script.name:<22}{seed}{bpb:>9}  {values}{strict}{what}", flush=True)
        for a in s.audits:
            here = (a.value, f"{script.name}, limit {a.threshold:.3g}")
            largest[a.name] = max(largest.get(a.name, here), here)
    for name, (value, where) in largest.items():
        print(f"largest {name:<16}{value:>10.4g}  {where}")
    return wrong


def over(workers, work, jobs):
    """Yield work(job) of all jobs, in their order."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(work, jobs)


if __name__ == "__main__":
    sys.exit(main())
