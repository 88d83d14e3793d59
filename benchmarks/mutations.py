"""Breaks the code that decides scores, one place at a time, and lists what no test notices.

Each mutant is one small change to one file: a comparison turned round, a condition never met, a
number changed, a call or an error left out. The tests of that file run against it, in a copy of the
checkout; if they pass, the mutant survives. Mutants are taken in a random order with a fixed seed,
so that a run cut short is a fair sample. survivors.txt lists the survivors that somebody has
reviewed, with the reason why they cannot change a verdict; the other survivors are printed. The
exit code is 1 if any are printed, or if the tests of a file fail without a mutant.

    python benchmarks/mutations.py [--minutes 30] [--jobs N] [--only scorers/wire.py] [--seed 0]

We tried a library (mutmut 3). It calls every function through a wrapper, and our tests of Ctrl-C at
any line, and of what is imported, notice that.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Event

ROOT = Path(__file__).parents[1]
JUDGED = Path(__file__).with_name("survivors.txt")
FRAMES = ["tests/scorers/test_frames.py", "tests/scorers/test_times.py"]
AUDITS = ["tests/scorers/test_audits.py", "tests/scorers/test_stateful.py"]
LANGUAGE = ["tests/scorers/test_language.py", "tests/scorers/test_frozen.py"]
HOSTILE = "tests/scorers/test_hostile.py"
TESTS = {
    "scorers/wire.py": [*FRAMES, *AUDITS, HOSTILE],
    "scorers/judge.py": [*FRAMES, *AUDITS, HOSTILE, *LANGUAGE],
    "scorers/candidate/candidate.py": [*FRAMES, HOSTILE, *LANGUAGE],
    "scorers/evaluate.py": [HOSTILE, "tests/scorers", "tests/search/test_ungraded.py"],
    "scorers/output.py": ["tests/scorers/test_printed.py", HOSTILE, *LANGUAGE],
    "scorers/claims.py": ["tests/scorers"],
    "scorers/score.py": ["tests/scorers", "tests/report/test_leaderboard.py"],
    "scorers/audits.py": [*AUDITS, *LANGUAGE, HOSTILE],
    "scorers/classification.py": [*AUDITS, *FRAMES, HOSTILE],
    "scorers/language.py": [*LANGUAGE, *AUDITS, *FRAMES],
    "scorers/language_audits.py": [*AUDITS, *LANGUAGE],
    "scorers/splice.py": [*AUDITS, *LANGUAGE],
    "scorers/serving_order.py": [*AUDITS, *LANGUAGE],
    "harness/store/journal.py": ["tests/store/test_journal.py", "tests/search/test_kill.py"],
}
"""File → its tests, the quick ones first."""

TURNED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
SECONDS = 200
"""Time limit for the tests of one mutant; a mutant that makes them hang counts as noticed."""
INTERRUPTED = Event()
"""Set by Ctrl-C: tests that are running are killed, and no more outcomes are recorded."""


@dataclass(frozen=True)
class Mutant:
    """One change: ``text`` replaces the bytes from ``start`` to ``end`` of the file."""

    path: str
    line: int
    start: int
    end: int
    text: str
    was: str

    def change(self) -> str:
        """Return one line of source with the change marked; it stays the same when lines move."""
        source = (ROOT / self.path).read_bytes()
        before = source[: self.start].rpartition(b"\n")[2].decode().lstrip()
        after = source[self.end :].partition(b"\n")[0].decode()
        was = " ".join(self.was.split())
        return f"{self.path}: {before}[{was} => {self.text.strip()}]{after}"

    def __str__(self) -> str:
        return self.change().replace(":", f":{self.line}:", 1)


def mutants(path: str) -> Iterator[Mutant]:
    """Yield the mutants of a file."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def at(node: ast.expr | ast.stmt) -> tuple[int, int]:
        return (
            starts[node.lineno - 1] + node.col_offset,
            starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0),
        )

    def instead(start: int, end: int, text: str) -> Mutant:
        line = source.count(b"\n", 0, start) + 1
        return Mutant(path, line, start, end, text, source[start:end].decode())

    tree = ast.parse(source)
    words = {  # messages, errors and class decorators: they decide no score
        id(inside)
        for node in ast.walk(tree)
        for part in _indifferent(node)
        for inside in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in words:
            continue
        match node:
            case ast.Compare(left=left, ops=ops, comparators=others):
                for before, op, after in zip([left, *others], ops, others, strict=False):
                    yield instead(at(before)[1], at(after)[0], f" {TURNED[type(op)]} ")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in TURNED:
                between = source[at(left)[1] : at(right)[0]].decode()
                if "(" not in between and ")" not in between and "#" not in between:
                    yield instead(at(left)[1], at(right)[0], f" {TURNED[type(op)]} ")
            case ast.BoolOp(op=op, values=values):
                for before, after in zip(values, values[1:], strict=False):
                    yield instead(at(before)[1], at(after)[0], f" {TURNED[type(op)]} ")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield instead(at(node)[0], at(operand)[0], "")
            case ast.Constant(value=bool(value)):
                yield instead(*at(node), str(not value))
            case ast.Constant(value=int(value)):
                yield instead(*at(node), str(value + 1))
            case ast.Constant(value=float(value)):
                yield instead(*at(node), repr(value * 2 + 0.25))
            case ast.If(test=test):
                yield instead(*at(test), "False")
            case ast.Raise() | ast.Expr(value=ast.Call()) | ast.Continue() | ast.Break():
                yield instead(*at(node), "pass")


def _indifferent(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.JoinedStr() | ast.Raise():
            yield from ast.iter_child_nodes(node)
        case ast.ClassDef(decorator_list=decorators):
            yield from decorators


def parses(mutant: Mutant) -> bool:
    try:
        ast.parse(mutated(mutant))
    except SyntaxError:
        return False
    return True


def mutated(mutant: Mutant) -> bytes:
    source = (ROOT / mutant.path).read_bytes()
    return source[: mutant.start] + mutant.text.encode() + source[mutant.end :]


def copies(folder: Path, count: int) -> Queue[Path]:
    """Make ``count`` copies of the checkout, without the files that git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    places: Queue[Path] = Queue()
    for number in range(count):
        place = folder / str(number)
        for name in filter(None, listed.stdout.decode().split("\n")):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place / name)
        places.put(place)
    return places


@contextmanager
def lent(places: Queue[Path]) -> Iterator[Path]:
    """Lend a copy that no other thread works in."""
    place = places.get()
    try:
        yield place
    finally:
        places.put(place)


def tested(place: Path, tests: list[str]) -> str:
    """Run tests in a copy: "killed", "hung" or "survived"."""
    argv = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:randomly"]
    argv += ["-p", "no:cacheprovider", f"--basetemp={place}.tmp", *dict.fromkeys(tests)]
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    run = subprocess.Popen(
        argv, cwd=place, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + SECONDS
    while (status := run.poll()) is None:
        if INTERRUPTED.wait(0.1) or time.monotonic() > until:
            os.killpg(run.pid, 9)
            run.wait()
            return "hung"
    return {0: "survived", 1: "killed", 2: "killed"}.get(status, f"pytest: {status}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", action="append", choices=TESTS, help="may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a line of JSON a mutant")
    chosen = parser.parse_args()
    until = time.monotonic() + 60 * chosen.minutes
    judged = JUDGED.read_text("utf-8").splitlines()
    found: dict[Mutant, str] = {}
    unjudged: list[Mutant] = []

    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(chosen.jobs) as pool,
    ):
        places = copies(Path(folder), chosen.jobs)

        def sound(path: str) -> bool:
            with lent(places) as place:
                return tested(place, TESTS[path]) == "survived"

        def run(mutant: Mutant) -> None:
            if time.monotonic() > until or INTERRUPTED.is_set():
                return
            with lent(places) as place:
                file = place / mutant.path
                file.write_bytes(mutated(mutant))
                outcome = tested(place, TESTS[mutant.path])
                file.write_bytes((ROOT / mutant.path).read_bytes())
            if INTERRUPTED.is_set():
                return
            found[mutant] = outcome
            if chosen.out:
                with chosen.out.open("a") as lines:
                    lines.write(json.dumps([str(mutant), outcome]) + "\n")
            if outcome == "survived" and mutant.change() not in judged:
                unjudged.append(mutant)
                print(mutant, flush=True)

        every: list[Mutant] = []
        left_out = False
        wanted = chosen.only or list(TESTS)
        try:
            for path, well in zip(wanted, pool.map(sound, wanted), strict=True):
                if well:
                    every += [m for m in mutants(path) if parses(m)]
                else:  # they would kill every mutant
                    print(f"left out: the tests of {path} fail without a mutant", file=sys.stderr)
                    left_out = True
            random.Random(chosen.seed).shuffle(every)  # an order, not a secret
            list(pool.map(run, every))
        except KeyboardInterrupt:
            INTERRUPTED.set()
    print(f"{len(found)} of {len(every)} mutants: {dict(Counter(found.values()))}")
    print(f"{len(unjudged)} of the survivors are not in {JUDGED.name}")
    if INTERRUPTED.is_set():
        return 130
    return 1 if unjudged or left_out else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # a second time
        sys.exit(130)
