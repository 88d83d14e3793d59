"""Turns pydantic's errors into sentences: where in a file, what was found, what is wanted."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from harness.base.text import one_line

MOST = 5
"""The most problems that a message lists; one mistake seldom causes more."""
LONGEST = 60
"""The most characters of a wrong value that a message repeats."""

_MEMBER = re.compile(r"^(int|float|str|bool|constrained-\w+|\w+\[.*\])$")
"""The parts that pydantic adds to the location of a value that may be of several types."""
_SUBJECT = re.compile(r"^\w+ should (be |have )?")

LARGEST = 1e12
"""Every number in a run is smaller: node numbers, scores, seconds, tokens."""

FieldPath = tuple[int | str, ...]
LineInText = tuple[str, int]
"""The name of a text, and the number of a line in it."""

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_KEY = re.compile(rf"^\s*((?:{_PART.pattern})(?:\s*\.\s*(?:{_PART.pattern}))*)\s*=")


def sensible(value: object) -> bool:
    """Return whether ``value`` is a number small enough to plot; infinity and NaN are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def problems(
    error: ValidationError,
    model: type[BaseModel] | None = None,
    *,
    toml: str | Mapping[str, str] = "",
    secret: bool = False,
) -> str:
    """Return what is wrong with the values in a file, one problem a line.

    ``model``: what they should be, to suggest the nearest known key; ``toml``: the file's text, to
    give line numbers, or the texts of ``line_of``. ``secret``: no value is repeated, because it may
    be a secret key.
    """
    lines = _lines({"": toml} if isinstance(toml, str) else toml)
    by_place: dict[FieldPath, list[Any]] = {}
    for one in error.errors(include_url=False):
        place = one["loc"]
        if len(place) > 1:  # each member of a union gives its own error
            place = (place[0], *(p for p in place[1:] if not _MEMBER.match(str(p))))
        by_place.setdefault(place, []).append(one)
    for place, faults in list(by_place.items()):
        # Without its wrong items a list may be too short: that error says nothing new.
        inside = any(other[: len(place)] == place != other for other in by_place)
        if inside and all(fault["type"] == "too_short" for fault in faults):
            del by_place[place]
    # Unknown keys come first: an unknown key may be the missing one, misspelt.
    ordered = sorted(
        by_place.items(), key=lambda i: (_line(lines, i[0]), i[1][0]["type"] != "extra_forbidden")
    )
    said = [_sentence(place, faults, model, lines, secret=secret) for place, faults in ordered]
    more = [f"and {len(said) - MOST} more"] if len(said) > MOST else []
    return "\n".join(said[:MOST] + more)


def line_numbers(toml: str) -> dict[FieldPath, int]:
    """Return the line number of each table and key that begins a line of a TOML text."""
    found: dict[FieldPath, int] = {}
    counts: dict[FieldPath, int] = {}
    table: FieldPath = ()
    for number, line in enumerate(toml.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _parts(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault((*table, *_parts(key[1])), number)
    return found


def line_of(texts: Mapping[str, str], place: FieldPath) -> str:
    """Return where a table or key stands, else the nearest table around it: ``line 7``.

    ``texts``: TOML texts by name. What stands in several is that of the last; the name goes before
    the line, unless it is empty.
    """
    return _where(_lines(texts), place) or "line 1"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a remedy that names the nearest known name and lists them all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    listing = "one of: " + ", ".join(names)
    return f"{near[0]!r} ({listing})" if near else listing


def _sentence(
    place: FieldPath,
    faults: Sequence[Any],
    model: type[BaseModel] | None,
    lines: Mapping[FieldPath, LineInText],
    *,
    secret: bool,
) -> str:
    first = faults[0]
    where = _where(lines, place)
    where += ", " if where else ""
    # Anybody may have written the keys of an archive or a record: no escapes, no long texts.
    name = one_line(".".join(map(str, place)), 120) or "the whole"
    if first["type"] == "missing":
        return f"{where}{name} is missing"
    if first["type"] == "extra_forbidden":
        known = _model_at(model, place[:-1]) if model else None
        near = f"; did you mean {did_you_mean(str(place[-1]), known.model_fields)}" if known else ""
        return f"{where}{name} is unknown{near}"
    wanted = [_SUBJECT.sub("", str(f["msg"])).replace("valid tuple", "list") for f in faults]
    if first["type"] in ("value_error", "assertion_error"):
        return f"{where}{name}: {wanted[0].partition(', ')[2]}"
    found = repr(first["input"])
    if len(found) > LONGEST:
        found = found[:LONGEST] + "…"
    is_ = "is wrong" if secret else f"is {found}"
    return f"{where}{name} {is_}; wanted: {' or '.join(dict.fromkeys(wanted))}"


def _lines(texts: Mapping[str, str]) -> dict[FieldPath, LineInText]:
    return {
        place: (name, number)
        for name, text in texts.items()
        for place, number in line_numbers(text).items()
    }


def _line(lines: Mapping[FieldPath, LineInText], place: FieldPath) -> LineInText:
    """Return the line of ``place``, else of the nearest table around it, else line 0."""
    return next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), ("", 0))


def _where(lines: Mapping[FieldPath, LineInText], place: FieldPath) -> str:
    name, number = _line(lines, place)
    return (f"{name}, " if name else "") + f"line {number}" if number else ""


def _parts(dotted: str) -> FieldPath:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _model_at(model: type[BaseModel], place: FieldPath) -> type[BaseModel]:
    for part in place:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = next(_models(field.annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 (any annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inside in get_args(annotation):
        yield from _models(inside)
