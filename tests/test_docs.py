"""The documentation: nothing in it is stale, links to nothing, or cannot be found."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from calling import call
from pages import DOCS, ROOT, blocks, prose
from test_arrows import OURS, SOURCES
from toy_task import TOY, TOYS

from harness import __version__
from harness.cli import app
from scorers.score import REPORTED, Reason

KINDS = ("tutorial", "guides", "concepts", "reference")
PAGES = sorted(DOCS.rglob("*.md"))
AT_THE_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCRIPTING = DOCS / "reference" / "scripting.md"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(page: Path) -> list[str]:
    return LINK.findall(prose(page.read_text()))


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize(
    "page", [*PAGES, *AT_THE_ROOT], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not broken_links(page)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A: `b`, and C\n\n```\n# no heading\n[no](link.md)\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Mine\n[a](there.md) [b](there.md#a-b-and-c) [c](#mine) [d](https://host/x.md)\n"
        "[e](gone.md) [f](there.md#no-heading) [g](#yours)\n"
    )
    assert broken_links(page) == ["gone.md", "there.md#no-heading", "#yours"]


def test_every_page_is_of_one_kind_and_in_the_index() -> None:
    index = DOCS / "README.md"
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in PAGES if page not in listed} == {index}
    assert {page.relative_to(DOCS).parts[0] for page in PAGES if page != index} == set(KINDS)


def calls(page: Path) -> set[tuple[str, str]]:
    """Return each command of ours that a page's code calls, with each option of its call."""
    text = page.read_text().replace("\\\n", " ")
    code = "\n".join([*blocks(text), *re.findall(r"`(harness [^`]+)`", text)])
    found = set()
    for line in code.splitlines():
        for part in re.split(r"; |&&| \| ", re.split(r"(?:^|\s)# ", line)[0]):
            if said := re.match(r"\s*(?:[$] )?(?:[A-Z_]+=\S+ )*harness ([a-z]+)\b(.*)", part):
                given = re.findall(r"(?<=[\s\[])--?[a-z][\w-]*", said[2])
                found |= {(said[1], option) for option in (*given, "--help")}
    return found


def options(command: str) -> set[str]:
    """Return the options of a command and of its parts; none if there is no such command."""
    if command not in app.COMMANDS:
        return set()
    whole = app.load(command)
    parts = [whole, *getattr(whole, "commands", {}).values()]
    params = [param for part in parts for param in part.params]
    return {"--help", *(name for param in params for name in (*param.opts, *param.secondary_opts))}


def test_each_command_on_a_page_has_the_options_it_is_called_with() -> None:
    pages = {*PAGES, *AT_THE_ROOT} - {DOCS / "reference" / "commands.md"}
    named = {(page, *said) for page in pages for said in calls(page)}
    assert {command for _, command, _ in named} >= set(app.COMMANDS)
    wrong = {
        f"{page.relative_to(ROOT)}: harness {command} {option}"
        for page, command, option in named
        if option not in options(command)
    }
    assert not wrong


def test_a_call_on_a_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`harness gone` and `harness ls --json`\n```console\n$ A=1 harness run \\\n  --task a -o b"
        " [--x y]\nharness check --z > f; harness bundle\n# harness show --comment\n```\n"
    )
    expected = {
        ("gone", "--help"), ("ls", "--json"), ("run", "--task"), ("run", "-o"), ("run", "--x"),
        ("check", "--z"), ("bundle", "--help"),
    }  # fmt: skip
    assert expected <= calls(page)
    assert {command for command, _ in calls(page)} == {command for command, _ in expected}
    assert not options("gone")


def test_the_made_pages_are_up_to_date_and_a_stale_one_is_named(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", *OURS):
        (copy / name).symlink_to(ROOT / name)
    shutil.copytree(DOCS, copy / "docs")
    commands, picture = copy / "docs/reference/commands.md", copy / "docs/concepts/floors.svg"

    def generate(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, copy / "docs/generate.py", *arguments],
            capture_output=True, text=True, env={**os.environ, "COLUMNS": "60"}, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr

    assert generate("--check") == ""
    fresh = commands.read_text()
    commands.write_text(fresh.replace("--max-dollars", "--max-euros"))
    picture.unlink()
    said = generate("--check", code=1)
    assert "docs/reference/commands.md is not up to date: make docs" in said
    assert "docs/concepts/floors.svg is not up to date" in said
    generate()
    assert commands.read_text() == fresh
    assert picture.read_text() == (DOCS / "concepts/floors.svg").read_text()


def test_the_reference_has_every_variable_that_the_code_reads() -> None:
    read = {
        name
        for file in SOURCES
        if file.relative_to(ROOT).parts[0] in OURS
        for name in re.findall(r"\bHARNESS_[A-Z_]+", file.read_text())
    }
    listed = set(re.findall(r"^\| `(HARNESS_\w+)`", SCRIPTING.read_text(), re.MULTILINE))
    assert len(read) > 5
    assert listed == read


def test_the_reference_has_every_reason() -> None:
    page = SCRIPTING.read_text()
    table = page[page.index("## Reasons") : page.index("## Environment")]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert listed == [*Reason, "no_valid_node"]
    assert "The first eight may be reported from inside" in table
    assert set(listed[:8]) == REPORTED


def test_the_reference_has_every_field_of_a_run_and_of_a_score(tmp_path: Path) -> None:
    page = SCRIPTING.read_text()
    table = page[page.index("## JSON") : page.index("## Exit codes")]
    fields = "".join(re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE))
    listed = set(re.findall(r"`(\w+)`", fields))
    design = TOYS / "toy" / "designs" / "half.py"
    run = call("run", *TOY, "--steps", 1, "--json", cwd=tmp_path).json
    score = call("score", design, *TOY, "--repeat", 2, "--baseline", "--json", cwd=tmp_path).json
    assert run["key"] == score["key"]
    assert {*run, *score} - {"format"} == listed


def test_the_files_at_the_root_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    assert citation["license"] in project["license"]
    texts = [ROOT / file for file in project["license-files"]]
    assert [file.read_text().split()[:2] for file in texts] == [
        ["Apache", "License"],
        ["corpus.jsonl.xz", "is"],
    ]
