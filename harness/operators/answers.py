"""Reads a submission from a model's reply: whole files, or edits of the parent's files.

The formats are parsed in parsing.py and edits.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.core.agent import Ask
from harness.operators import syntax
from harness.operators.edits import apply_edits, find_edits, has_edits
from harness.operators.parsing import ParsedFiles, parse_files, plan, without_thinking
from tasks.submissions import SUBMISSIONS


def kept_files(ask: Ask) -> dict[str, str]:
    """Return the parent's files if the operator changes one submission, else no files."""
    if ask.operator not in ("improve", "debug"):
        return {}
    return dict(ask.parents[0].files)


def read(ask: Ask, text: str, *, cut: bool = False, edits: bool = False) -> ParsedFiles:
    """Return the submission in a tidied answer. ``cut``: the answer ended at its limit of length.

    ``edits``: the prompt asked for edits. Whole files are accepted then too, if they are named.
    """
    text = without_thinking(text)
    note = plan(text)
    if not text.strip():
        return ParsedFiles({}, ("It is empty.",), note)
    wanted = ask.task.definition.files
    max_bytes = ask.task.profile(ask.profile).limits.source_kb * 1024
    holds = ask.task.definition.holds
    parse = SUBMISSIONS.find(ask.task.definition.writes).parse
    base = kept_files(ask)
    if parse is not None:
        try:
            return ParsedFiles(parse(text, wanted), note=note)
        except ValueError as error:
            return ParsedFiles({}, (str(error),), note)
    if edits and has_edits(text):
        parsed = _edited(text, base, holds, max_bytes, cut=cut)
    else:
        parsed = parse_files(
            text, wanted, max_bytes=max_bytes, cut=cut, named_only=edits, kept=base, holds=holds
        )
    return replace(parsed, note=note)


def _edited(
    text: str, base: Mapping[str, str], holds: Sequence[str], max_bytes: int, *, cut: bool
) -> ParsedFiles:
    edits, problems = find_edits(text, list(base))
    if cut:
        problems.append("The answer was cut off at its limit of length.")
    if problems:
        return ParsedFiles({}, tuple(problems))
    made = apply_edits(base, edits, max_bytes=max_bytes)
    if made.problems:
        return made
    changed = [name for name, text in made.files.items() if text != base[name]]
    return ParsedFiles(made.files, tuple(syntax.find_problems(made.files, changed, holds)))
