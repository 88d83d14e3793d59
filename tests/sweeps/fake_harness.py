"""Stands in for ``harness run`` where a real run cannot be made to fail on purpose.

    python fake_harness.py PLAYS run --asked=FILE --runs-dir=D --name=NAME …

PLAYS is a JSON file that maps each agent to a list of what its runs do, one after another; further
runs do what the last entry says. An entry is an exit code (0: done, with a result that cost $0.25,
or nothing for the agent "free"), "invalid" for a result without a score, "kill" for a SIGKILL, or
"hang" to ignore Ctrl-C for 600 s and append its process id to PLAYS.deaf. Every call is appended
to PLAYS.calls with its arguments and the request in FILE.
"""

import fcntl
import json
import os
import signal
import sys
import time
import tomllib
from pathlib import Path


def main() -> int:
    plays = Path(sys.argv[1])
    options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[3:])
    options |= tomllib.loads(Path(options["asked"]).read_text())
    with Path(f"{plays}.calls").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = [json.loads(line) for line in file]
        mine = [c for c in before if c["agent"] == options["agent"]]
        file.write(json.dumps({**options, "pid": os.getpid()}) + "\n")
    acts = json.loads(plays.read_text())[options["agent"]]
    act = acts[min(len(mine), len(acts) - 1)]
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Path(f"{plays}.deaf").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(600)
    if act and act != "invalid":
        print(f"error: it was exit {act}\n  try:   {chr(27)}[31mnothing", file=sys.stderr)
        return act
    folder = Path(options["runs-dir"]) / options["name"]
    folder.mkdir()
    model = dict.fromkeys(
        ("calls", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"), 1
    )
    dollars = 0.0 if options["agent"] == "free" else 0.25
    model |= {"dollars_known": dollars, "unpriced_calls": 0}
    lost = dict.fromkeys(model, 0)
    result = {
        "format": 1,
        "metric": "accuracy",
        "valid": not act,
        "search_score": 0.5,
        "score": None if act else 0.4,
    }
    result["spent"] = {"gpu_hours": 0.0, "model": model, "lost": lost}
    (folder / "result.json").write_text(json.dumps(result))
    return 1 if act else 0


sys.exit(main())
