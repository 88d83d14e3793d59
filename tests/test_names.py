"""Names in the sources: no two types share one, and what a comment refers to exists."""

import ast
import importlib
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from test_arrows import OURS, ROOT, SOURCES

from tasks.spec import all_tasks

BY_PACKAGE = [
    pytest.param([file for file in SOURCES if file.is_relative_to(ROOT / top)], id=top)
    for top in OURS
]
GUESTS = {file for task in all_tasks().values() for file in task.runner_files().values()}
"""Files that enter the sandbox. They cannot import the harness, so they may reuse its names."""


def is_guest(file: Path) -> bool:
    return file in GUESTS or bool({"designs", "candidate", "runtime"} & set(file.parts))


def types_in(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each public class and type alias of a module, with a text for its meaning.

    Two aliases for the same type mean the same; no two classes do.
    """
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=name, lineno=line) if not name.startswith("_"):
                yield name, f"class, line {line}"
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if (
                name[0].isupper() and not name.isupper()
            ):
                yield name, ast.unparse(value)


def shared(sources: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that have several meanings, each with its modules."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for module, source in sources:
        for name, what in types_in(source):
            found[name][module] = f"{module}: {what}" if what.startswith("class") else what
    return {name: list(where) for name, where in found.items() if len(set(where.values())) > 1}


def test_no_two_types_have_one_name() -> None:
    assert not shared(
        (str(file.relative_to(ROOT)), file.read_text()) for file in SOURCES if not is_guest(file)
    )


def test_what_shares_a_name_is_found() -> None:
    two = shared([("a", "class Limits: pass"), ("b", "Limits = dict[str, int]")])
    assert two == {"Limits": ["a", "b"]}
    assert shared([("a", "class Limits: pass"), ("b", "class Limits: pass")])
    assert not shared([("a", "Ints = list[int]"), ("b", "Ints = list[int]\nclass _Limits: pass")])


@pytest.mark.parametrize("sources", BY_PACKAGE)
def test_each_module_says_what_it_does(sources: list[Path]) -> None:
    silent = [
        file.relative_to(ROOT)
        for file in sources
        if file.read_text().strip()
        and len((ast.get_docstring(ast.parse(file.read_text())) or "").split()) < 3
    ]
    assert not silent


REFERENCE = re.compile(r"``((?:harness|sandboxes|scorers|tasks)(?:\.\w+)+)(?:\(\))?``")


def is_there(dotted: str) -> bool:
    """Return whether a dotted name is that of a module, or of something in a module."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            fields = getattr(found, "__annotations__", {})
            if not hasattr(found, part) and part not in fields:
                return False
            found = getattr(found, part, fields.get(part))
        return True
    return False


@pytest.mark.parametrize("sources", BY_PACKAGE)
def test_what_a_comment_refers_to_is_there(sources: list[Path]) -> None:
    gone = [
        f"{file.relative_to(ROOT)}: {dotted}"
        for file in sources
        for dotted in REFERENCE.findall(file.read_text())
        if dotted.split(".")[1] != "toml" and not is_there(dotted)
    ]
    assert not gone


@pytest.mark.parametrize("sources", BY_PACKAGE)
def test_each_page_that_is_named_is_there(sources: list[Path]) -> None:
    gone = [
        f"{file.relative_to(ROOT)}: {page}"
        for file in sources
        for page in re.findall(r"\bdocs/[\w/.-]+\.md", file.read_text())
        if not (ROOT / page).is_file()
    ]
    assert not gone


FILE = re.compile(r"(?<![\w./])((?:\w+/)*\w+\.py)\b")
ELSEWHERE = {"train.py", "model.py", "inspect_ai/log/_log.py"}
"""Files of submissions and of a package that comments may name."""


def prose(file: Path) -> Iterator[str]:
    """Yield the comments and docstrings of a file."""
    with tokenize.open(file) as source:
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.COMMENT or token.string.startswith('"""'):
                yield token.string


@pytest.mark.parametrize("sources", BY_PACKAGE)
def test_each_file_that_a_comment_names_is_there(sources: list[Path]) -> None:
    known = {f"/{file.relative_to(ROOT)}" for file in SOURCES}
    gone = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sources
        if not is_guest(file)
        for text in prose(file)
        for name in FILE.findall(text)
        if name not in ELSEWHERE and not any(one.endswith(f"/{name}") for one in known)
    ]
    assert not gone
