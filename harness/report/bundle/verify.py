"""Verifies a bundle: its hashes, its consistency, and its score by scoring it again.

Hashes show that nothing changed since the run was packed. They do not show that the run was
honest, because the person who packs a run also writes the manifest. Only the last check, which
trains the final submission again under the judge of this machine, shows that the score is true.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import ConfigError
from harness.base.paths import data_root
from harness.report.bundle.manifest import BundleManifest, check_consistency
from harness.report.bundle.unpack import unpack
from harness.store.rundir import Run
from scorers.conditions import differing
from scorers.score import Score
from tasks import hidden
from tasks.spec import find_task

BundleVerdict = Literal["agrees", "differs", "cannot tell", "not scored again"]

WIDE = 1.96
"""The new score agrees within this many standard errors of the recorded score (95 %)."""


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """The outcome of a verification.

    ``then`` is the recorded score, ``now`` the new one, ``within`` the largest difference at which
    they agree. ``other_conditions`` names the conditions in which the two differ.
    """

    manifest: BundleManifest
    nodes: int
    verdict: BundleVerdict
    then: float | None
    now: float | None = None
    within: float | None = None
    reason: str = ""
    other_conditions: tuple[str, ...] = ()


Rescore = Callable[[Path], tuple[Score, Score]]
"""A function that scores the final node of a run again; it returns the old and the new score."""


def verify(
    archive: Path, folder: Path, *, rescore: Rescore | None, tolerance: float | None = None
) -> BundleCheck:
    """Unpack a bundle into ``folder``, check it, and score its final node again.

    ``rescore`` None: do not score again. Raises ConfigError where the bundle is damaged,
    malicious, or contradicts itself.
    """
    manifest = unpack(archive, folder)
    run, state, old = check_consistency(archive, folder, manifest)
    nodes = len(state.tree)
    source = run.asked.data.get("source")
    reason = ""
    if old is None:
        reason = "the run ended without a submission to score"
    elif source is not None and not _is_known(run.asked.task, source):
        reason = f"its data are a folder of whoever made it: {source[:200]!r}"
    if rescore is None or reason:
        return BundleCheck(manifest, nodes, "not scored again", manifest.score, reason=reason)
    then, now = rescore(folder)
    check = _compared(manifest, nodes, then, now, tolerance)
    if "data" not in check.other_conditions:
        return check
    return replace(check, reason=" ".join(filter(None, (check.reason, _keys(run)))))


def _is_known(task: str, source: str) -> bool:
    """Return whether a task lists this data source: a path in a bundle must not be opened here."""
    try:
        return source in find_task(task).sources
    except ConfigError:
        return False


def _keys(run: Run) -> str:
    """Say how the hidden keys here and in the run differ, and how to fix it; "" if they agree."""
    asked, there = run.asked, run.lock.hidden_key
    task = find_task(asked.task)
    _, manifest = task.prepare(asked.profile, data_root(), lambda *_: None, asked.data)
    here = str(manifest.parameters.get(hidden.PARAMETER, ""))
    if here == there:
        return ""
    return (
        f"Other hidden rows: {hidden.named(there)} there, {hidden.named(here)} here. "
        f"For the same: {hidden.remedy(there)}."
    )


def _compared(
    manifest: BundleManifest, nodes: int, then: Score, now: Score, tolerance: float | None
) -> BundleCheck:
    """Compare by the old score's standard error over its rows, or by ``tolerance`` if given."""
    others = differing(then.conditions.key, now.conditions.key)
    within = WIDE * (then.standard_error or 0.0) if tolerance is None else tolerance
    if then.score is None or now.score is None:
        same = then.score is None and now.score is None
    else:
        same = abs(then.score - now.score) <= within
    verdict: BundleVerdict = "agrees" if same else "cannot tell" if others else "differs"
    reason = "" if now.score is not None else f"invalid now: {now.reason}. {now.message}".strip()
    return BundleCheck(manifest, nodes, verdict, then.score, now.score, within, reason, others)


def as_json(check: BundleCheck) -> dict[str, Any]:
    """Return a check as JSON values."""
    return {
        "format": 1,
        "run": check.manifest.run,
        "task": check.manifest.task,
        "profile": check.manifest.profile,
        "metric": check.manifest.metric,
        "files": len(check.manifest.files),
        "nodes": check.nodes,
        "hashes": "agree",
        "verdict": check.verdict,
        "then": check.then,
        "now": check.now,
        "within": check.within,
        "reason": check.reason,
        "other_conditions": list(check.other_conditions),
    }


def describe(check: BundleCheck) -> str:
    """Return a check as text for the terminal."""
    said = check.manifest
    count = sum(member.bytes for member in said.files)
    lines = [
        f"{said.run}: {len(said.files):,} files, {count:,} bytes: every SHA-256 agrees; "
        f"the journal's chain is whole, {check.nodes} nodes",
        f"{said.task} {said.profile}: the manifest, result.json, the journal and the final score "
        f"all say {_number(check.then)}",
    ]
    if check.verdict == "not scored again":
        lines.append(f"not scored again{': ' + check.reason if check.reason else ''}")
        return "\n".join(lines)
    gap = "" if check.then is None or check.now is None else f", {check.now - check.then:+.4f}"
    lines.append(
        f"scored again here: {said.metric} {_number(check.now)}{gap}: {check.verdict} "
        f"(within {check.within:.4g})"
    )
    if check.reason:
        lines.append(check.reason)
    if check.other_conditions:
        lines.append(f"other here than there: {', '.join(check.other_conditions)}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "invalid" if value is None else f"{value:.4f}"
