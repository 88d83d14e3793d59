"""Write ``result.json``: one object that scripts, leaderboards and papers read.

``harness.store.outcome`` reads it.
"""

import json
from typing import Any

from harness.base.files import write_whole
from harness.core.asked import FORMAT
from harness.store.rundir import Run
from harness.store.state import RunState
from scorers.score import Score


def write_result(
    run: Run,
    state: RunState,
    final: Score | None,
    *,
    metric: str,
    elapsed_s: float,
    ended: str,
    spent: dict[str, Any],
    replay: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write a run's result and return it.

    ``score`` is the test split's; it is null when the run is invalid. ``search_score`` is the
    chosen node's score on the search split, by which it was chosen.
    ``ended`` says why the search ended, ``spent`` what it used (``Budget.to_json``).
    """
    asked = run.asked
    best = state.tree.best()
    nodes, ungraded = state.tree.scored(), len(state.tree.ungraded())
    reason: str | None
    if final is not None:
        reason, message = final.reason, final.message
    else:
        reason = "no_valid_node"
        message = f"None of {len(nodes)} submissions was valid."
    result = {
        "format": FORMAT,
        "run": str(run.path),
        "task": asked.task,
        "profile": asked.profile,
        "agent": asked.agent,
        "policy": asked.policy,
        "seed": asked.seed,
        "lock": run.lock_digest,
        "valid": final is not None and final.valid,
        "metric": metric,
        "score": final.score if final else None,
        "standard_error": final.standard_error if final else None,
        "search_score": best.score if best else None,
        "reason": reason,
        "message": message,
        "node": best.number if best else None,
        "nodes": {
            "scored": len(nodes),
            "valid": sum(n.valid for n in nodes),
            **({"ungraded": ungraded} if ungraded else {}),
        },
        "resolution": final.resolution if final else None,
        "audits": [a.model_dump() for a in final.audits] if final else [],
        "claim": final.claim if final else {},
        "measures": final.measures if final else {},
        "ended": ended,
        "spent": spent,
        "replay": replay,
        "conditions": final.conditions.model_dump(mode="json") if final else None,
        "key": final.conditions.key if final else None,
        "seconds": {
            "total": round(elapsed_s, 3),
            "nodes": round(sum(n.seconds for n in nodes), 3),
            **({"final": final.seconds["total"]} if final else {}),
        },
    }
    write_whole(run.path / "result.json", json.dumps(result, indent=2) + "\n")
    return result
