"""``harness stop``: ends live runs early. ``harness.launch.stopping`` does the work."""

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.common import AsJson, guarded, print_json, run_path
from harness.cli.edge import each
from harness.launch.stopping import ask, await_end


@guarded
def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run directories.")],
    now: Annotated[
        bool, typer.Option("--now", help="Do not finish the evaluations under way.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when the runs have ended.")
    ] = True,
    json: AsJson = False,
) -> int:
    """End live runs well: no new node, the best so far is graded, the result is written."""
    # All runs are asked before any wait; a run that cannot be asked does not stop the others.
    results, failures = each([run_path(r) for r in runs], lambda p: ask(p, now=now))
    if wait:
        live = [path for path, result in results.items() if result is None]
        ended, more = each(live, lambda p: await_end(p, lambda s: typer.echo(s, err=True)))
        results, failures = {**results, **ended}, failures + more
    if json:
        rows = [{"run": str(path), "result": result} for path, result in results.items()]
        print_json({"format": 1, "runs": rows})
    else:
        for path, result in results.items():
            typer.echo(f"{path}: {_outcome(result)}")
    invalid = any(result is not None and not result["valid"] for result in results.values())
    return max((*failures, 1 if invalid else 0))


def _outcome(result: dict[str, Any] | None) -> str:
    if result is None:
        return "asked to stop"
    if not result["valid"]:
        return f"ended, invalid: {result['reason']}"
    return (
        f"ended, node {result['node']}: {result['metric']} {result['score']:.4f} on the test split"
    )
