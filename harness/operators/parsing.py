"""Reads files from a model's answer: tolerant of how it is written, strict about file names.

An answer may hold prose, several blocks, wrong, missing or nested fences. The result holds only
files of the task's list, within limits, and sentences on what is wrong. Edits: see edits.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.base.text import printable
from harness.operators import syntax
from harness.operators.blocks import FENCE_RULES, Block, find_blocks, is_name, outside
from harness.operators.text import fence, one_line

MAX_ANSWER = 2 << 20
"""Characters of an answer that are read; four times the largest output of any model listed."""

MAX_NAMES = 5
"""How many names that are not files of the task are reported."""

NOTE = 300
"""Most characters of a note."""

_CODE = re.compile(r"^(import \w|from [\w.]+ import |class \w|def \w|#!|\"\"\"|@\w)", re.M)
_SUBSTANCE = re.compile(r"^(import |from |class |def )", re.M)
_FINAL = "<|channel|>final<|message|>"


@dataclass(frozen=True, slots=True)
class ParsedFiles:
    """The files of an answer. They can be used as they are if there are no ``problems``."""

    files: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    note: str = ""


def tidy(reply: str) -> str:
    """Return a reply with Unix line ends, without control characters, of bounded length."""
    return printable(reply[:MAX_ANSWER])


def without_thinking(text: str) -> str:
    """Return an answer without the reasoning that a model wrote before it.

    If the reasoning is unfinished, nothing is left. A closing mark without an opening mark (some
    chat templates hold the opening mark) counts if it stands outside of blocks.
    """
    if text.lstrip().startswith("<think>"):
        return text.partition("</think>")[2].lstrip("\n")
    lines, start = text.split("\n"), 0
    for number, free in enumerate(outside(lines)):
        for mark in ("</think>", _FINAL):
            if free and mark in lines[number]:
                lines[number] = lines[number].rpartition(mark)[2]
                start = number
    return "\n".join(lines[start:])


def plan(text: str) -> str:
    """Return what an answer says before its first block, as one line."""
    code = re.search(r"^[ \t]*(?:`{3,}|~{3,}|<{7,})", text, re.M) or _CODE.search(text)
    before = text[: min(code.start(), 2000)] if code else text[:2000]
    lines = [line for line in before.split("\n") if not is_name(line)]
    return one_line(re.sub(r"^[#>*\s]+|\*\*", "", "\n".join(lines), flags=re.M), NOTE)


def show_files(files: Mapping[str, str]) -> str:
    """Return files in the form in which answers must give them."""
    shown = []
    for name, text in files.items():
        language = "python " if name.endswith(".py") else ""
        shown.append(fence(text, f"{language}{name}"))
    return "\n\n".join(shown)


def parse_files(
    text: str,
    wanted: Sequence[str],
    *,
    max_bytes: int,
    cut: bool = False,
    named_only: bool = False,
    kept: Mapping[str, str] | None = None,
    holds: Sequence[str] = (),
) -> ParsedFiles:
    """Return the files of an answer.

    ``cut``: the answer ended at a limit of length. ``named_only``: a block without a name is not
    used, even if only one file is wanted. ``kept``: files that stay if the answer does not give
    them. ``holds``: names that tell a submission from other code (``Definition.holds``).
    """
    best: ParsedFiles | None = None
    tried: list[list[Block]] = []
    for reading in FENCE_RULES:
        blocks = list(find_blocks(text, wanted, reading))
        if blocks in tried:
            continue
        tried.append(blocks)
        if not blocks and not named_only:
            blocks = _bare(text, cut=cut)
        given = _choose(blocks, wanted, holds, max_bytes, cut=cut, named_only=named_only)
        strangers = [b.name for b in blocks if b.name and _plain(b.name) not in wanted]
        parsed = _check(given, strangers, wanted, kept or {}, holds, max_bytes, cut=cut)
        if not parsed.problems:
            return parsed
        if best is None or len(parsed.files) > len(best.files):
            best = parsed
    return best or ParsedFiles()


def _bare(text: str, *, cut: bool) -> list[Block]:
    """Return a text without fences as one block, from where code seems to begin."""
    begin = _CODE.search(text)
    if begin is None or not _SUBSTANCE.search(text, begin.start()):
        return []
    code = text[begin.start() :].rstrip()
    for end in ("'''", "``", "</code>", "</pre>"):  # probably meant as a fence
        code = code.removesuffix(f"\n{end}")
    return [Block(code + "\n", "python", None, closed=not cut)]


def _choose(
    blocks: list[Block],
    wanted: Sequence[str],
    holds: Sequence[str],
    max_bytes: int,
    *,
    cut: bool,
    named_only: bool,
) -> dict[str, Block]:
    """Return the block that is used for each file."""
    named: dict[str, list[Block]] = {}
    for block in blocks:
        if block.name is not None and (name := _plain(block.name)) in wanted:
            named.setdefault(name, []).append(block)
    chosen = {name: _last(name, found, cut=cut) for name, found in named.items()}
    if len(wanted) != 1 or any(cut and not block.closed for block in chosen.values()):
        return chosen
    (only,) = wanted
    unnamed = [] if named_only else [b for b in blocks if b.name is None]
    holding, meant = _holding(only, [*named.get(only, ()), *unnamed], holds, max_bytes)
    if holding:
        return {only: ([b for b in holding if b.name] or holding)[-1]}
    unnamed = meant or [b for b in unnamed if _may_be(b.language, only)]
    if not chosen and unnamed:
        chosen = {only: max(reversed(unnamed), key=lambda b: len(b.text))}
    return chosen


def _last(name: str, blocks: list[Block], *, cut: bool) -> Block:
    """Return the last block whose language fits the file; the last of all if none fits."""
    if cut and not blocks[-1].closed:  # where the answer ended
        return blocks[-1]
    return ([b for b in blocks if _may_be(b.language, name)] or blocks)[-1]


def _holding(
    name: str, blocks: list[Block], holds: Sequence[str], max_bytes: int
) -> tuple[list[Block], list[Block]]:
    """Return the blocks that hold a name of ``holds``, and broken blocks that mention one."""
    if not holds or len(blocks) < 2:
        return [], []
    looks = syntax.check_sources({str(i): b.text[:max_bytes] for i, b in enumerate(blocks)})
    both = list(zip(blocks, looks.values(), strict=True))
    holding = [b for b, look in both if look.holds & set(holds)]
    words = [word.removesuffix("()") for word in holds]
    wrong = [b for b, look in both if look.error and _may_be(b.language, name)]
    return holding, [b for b in wrong if any(word in b.text for word in words)]


def _check(
    given: Mapping[str, Block],
    strangers: Sequence[str],
    wanted: Sequence[str],
    kept: Mapping[str, str],
    holds: Sequence[str],
    max_bytes: int,
    *,
    cut: bool,
) -> ParsedFiles:
    """Return the files that the blocks give, and what is wrong with them."""
    problems: list[str] = []
    if not given and kept:
        return ParsedFiles({}, ("It holds no file.", *_named(strangers)))
    files: dict[str, str] = {}
    room = max_bytes - sum(len(kept[n].encode()) for n in wanted if n in kept and n not in given)
    for name in wanted:
        if name not in given:
            if name in kept:
                files[name] = kept[name]
            else:
                problems.append(f"{name} is missing: there is no block of that name.")
            continue
        block = given[name]
        size = len(block.text.encode())
        if not block.text.strip():
            problems.append(f"{name} is empty.")
        elif size > room:
            problems.append(f"{name} has {size:,} bytes; the files may have {max_bytes:,} in all.")
        elif cut and not block.closed:
            problems.append(f"{name} is not whole: the answer was cut off at its limit of length.")
        else:
            room -= size
            files[name] = block.text
    problems += syntax.find_problems(files, list(given), () if problems else holds)
    if problems:
        problems += _named(strangers)
    return ParsedFiles(files, tuple(problems))


def _named(strangers: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(map(_plain, strangers)))[:MAX_NAMES]
    listed = ", ".join(one_line(name, 80) for name in names)
    return [f"Not among the files to write: {listed}."] if listed else []


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _may_be(language: str, name: str) -> bool:
    """Return whether a block of that language may be the file."""
    suffix = name.rpartition(".")[2]
    python = suffix == "py" and re.fullmatch(r"py(thon)?[\d.]*", language)
    return language in ("", suffix) or bool(python)
