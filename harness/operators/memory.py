"""What a prompt tells about earlier nodes: as in AIRA-dojo's operators, but within a limit.

draft and improve see the good nodes (plan, score, analysis; no code, but a short submission that is
no code), debug sees the failed attempts back to the last good node, crossover sees none. All of
them are scored and older than the requested node, so a prompt depends on the tree as it was when
the node was chosen.
"""

from collections import Counter
from collections.abc import Mapping

from harness.core.agent import Ask
from harness.core.tree import Node
from harness.operators.text import fence, one_line, tokens

ANALYSIS = 600
"""Most characters of an analysis."""

MESSAGE = 200
"""Most characters of the judge's message on one failed attempt."""

SHORT = 200
"""Most characters of a submission that the memory shows whole, if it is not code."""


def remembered(ask: Ask) -> list[Node]:
    """Return the nodes that the memory of this request is about, in order of their numbers."""
    if ask.operator == "crossover":
        return []
    if ask.operator == "debug":
        return _chain(ask)
    return [node for node in _earlier(ask) if node.valid]


def memory(ask: Ask, analyses: Mapping[int, str], limit: int) -> str:
    """Return the good nodes as a fenced list; beyond ``limit``, the worst are left out."""
    failed = Counter(node.reason or "unknown" for node in _earlier(ask) if node.buggy)
    failures = ", ".join(f"{count} x {reason}" for reason, count in sorted(failed.items()))
    last = f"Invalid so far: {failures}." if failures else ""
    return _list(ask.tree.ranked(before=ask.node), analyses, limit, "worse", last)


def attempts(ask: Ask, analyses: Mapping[int, str], limit: int) -> str:
    """Return the failed attempts as a fenced list; beyond ``limit``, the oldest are left out."""
    return _list(_chain(ask)[::-1], analyses, limit, "older", "")


def outcome(node: Node, *, message: int = MESSAGE) -> str:
    """Return the result of a node, in words."""
    if node.state != "scored":
        return "not scored yet"
    if node.score is not None:
        return f"score {node.score:.6g}"
    said = one_line(node.message, message) if message else ""
    return f"invalid ({node.reason})" + (f": {said}" if said else "")


def _earlier(ask: Ask) -> list[Node]:
    return [node for node in ask.tree.scored() if node.number < ask.node]


def _chain(ask: Ask) -> list[Node]:
    """Return the failed nodes that lead to the node to repair, which is the last of them."""
    chain: list[Node] = []
    node = ask.parents[0]
    while node.buggy:
        chain.append(node)
        if not node.parents:
            break
        node = ask.tree[node.parents[0]]
    return chain[::-1]


def _list(ranked: list[Node], analyses: Mapping[int, str], limit: int, gone: str, last: str) -> str:
    """Return the first nodes of ``ranked`` that fit, listed in order of their numbers."""
    room = limit - tokens(fence(f"(999999 {gone} ones are left out)\n{last}", "text"))
    if room < 0:
        return ""
    kept: dict[int, str] = {}
    for node in ranked:
        entry = _entry(node, analyses)
        room -= tokens(entry) + 1
        if room < 0:
            break
        kept[node.number] = entry
    lines = [kept[number] for number in sorted(kept)]
    if kept and len(kept) < len(ranked):
        lines.insert(0, f"({len(ranked) - len(kept)} {gone} ones are left out)")
    if last and (kept or not ranked):
        lines.append(last)
    return fence("\n".join(lines), "text") if lines else ""


def _entry(node: Node, analyses: Mapping[int, str]) -> str:
    come = f" of {', '.join(map(str, node.parents))}" if node.parents else ""
    note = one_line(node.note, 400) or "(no note)"
    learned = one_line(analyses.get(node.number) or node.analysis or "", ANALYSIS)
    entry = f"- node {node.number}, {node.operator}{come}: {outcome(node).rstrip('.')}. {note}"
    given = " ".join(" ".join(node.files.values()).split())
    if given and len(given) <= SHORT and not any(name.endswith(".py") for name in node.files):
        entry += f" Submitted: {given}"
    return entry + (f" Learned: {learned}" if learned else "")
