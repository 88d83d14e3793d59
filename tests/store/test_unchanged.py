"""Edits of a run's files after it began: they are reported, and no result claims them."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
from observing import interrupting, quiet
from toy_task import TOYS

from harness.base.errors import Cancelled, ConfigError
from harness.core.asked import Asked, Lockfile
from harness.core.writing import Writing
from harness.launch.run import resume, start
from harness.report.bundle.pack import pack
from harness.report.gate import make_baseline
from harness.report.leaderboard import build
from harness.store import unchanged
from harness.store.index import entries
from harness.store.journal import Journal, read
from harness.store.loading import load
from harness.store.recording import Recording
from harness.store.rundir import Run
from sandboxes import registry
from scorers import conditions

DOCS = Path(__file__).parents[2] / "docs" / "concepts" / "runs.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a run that was interrupted after one node, and one that is finished."""
    folder = tmp_path_factory.mktemp("unchanged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_TASKS_DIR", str(TOYS))
        patch.setenv("HARNESS_DATA", str(folder / "data"))
        for name, observe in (("begun", interrupting("scored")), ("done", quiet)):
            asked = Asked(task="toy", profile="test", steps=2, sandbox="process")
            with contextlib.suppress(Cancelled):
                start(asked, folder, name=name, progress=quiet, observe=observe)
    return folder


@pytest.fixture
def runs(world, tmp_path, monkeypatch):
    for name in ("begun", "done"):
        shutil.copytree(world / name, tmp_path / "runs" / name)
    monkeypatch.setenv("HARNESS_DATA", str(world / "data"))
    return tmp_path / "runs"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert re.search(old, text, re.M), text
    file.write_text(re.sub(old, new, text, flags=re.M))


def aged(run: Path) -> None:
    """Make a run look as if written before locks held the request."""
    lock = json.loads((run / "lock.json").read_text())
    del lock["asked"]
    (run / "lock.json").write_text(json.dumps(lock))
    if (run / "result.json").exists():
        result = json.loads((run / "result.json").read_text())
        del result["lock"]
        (run / "result.json").write_text(json.dumps(result))


def unnamed(run: Path) -> None:
    """Make a journal look as if written before journals held the lock's digest."""
    events = read(run / "events.jsonl")
    (run / "events.jsonl").unlink()
    journal = Journal(run / "events.jsonl")
    for event in events:
        journal.append(event.kind, **{k: v for k, v in event.data.items() if k != "lock"})
    journal.close()


EDITS = {
    "policy": ('^policy = "greedy"', 'policy = "mcts"', "'greedy', now 'mcts'"),
    "seed": ("^seed = 0", "seed = 7", "then 0, now 7"),
    "settings": (r"^settings = \[\]", 'settings = ["greedy.num_drafts=1"]', "num_drafts"),
    "agent": ('^agent = "reference"', 'agent = "random"', "'reference', now 'random'"),
    "workers": ("^workers = 1", "workers = 2", "then 1, now 2"),
    "steps": ("^steps = 2", "steps = 1", "then 2, now 1 (it may only rise)"),
    "dollars": ("^steps = 2", "steps = 2\ndollars = 1.5", "then nothing, now 1.5"),
    "charge_waiting": ("^charge_waiting = false", "charge_waiting = true", "now True"),
    "writing.complexity": ("^complexity = false", "complexity = true", "then False, now True"),
}


@pytest.mark.parametrize("field", EDITS)
def test_a_run_whose_run_toml_was_edited_is_not_resumed_and_says_what_it_was(runs, field):
    old, new, told = EDITS[field]
    edit(runs / "begun" / "run.toml", old, new)
    before = (runs / "begun" / "events.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="run.toml was edited") as caught:
        resume(runs / "begun", progress=quiet, observe=quiet)
    assert f"{field}: then" in caught.value.cause
    assert told in caught.value.cause
    assert "put back" in caught.value.remedy
    assert (runs / "begun" / "events.jsonl").read_bytes() == before


def test_a_budget_may_grow_and_the_run_goes_on_to_the_new_one(runs):
    edit(runs / "begun" / "run.toml", "^steps = 2", "steps = 3")
    edit(runs / "begun" / "run.toml", "^time_s = .*", "time_s = 90000.0")
    result = resume(runs / "begun", progress=quiet, observe=quiet)
    assert result["nodes"]["scored"] == 3
    assert [entry.state for entry in entries([runs / "begun"])] == ["finished"]


def test_a_run_goes_on_in_the_sandbox_that_it_began_in(runs, monkeypatch):
    choose, wanted = registry.choose, []

    def here(name, **more):
        wanted.append(name)
        return choose("process" if name == "auto" else name, **more)

    monkeypatch.setattr(registry, "choose", here)
    asked = Asked(task="toy", profile="test", steps=2)
    with pytest.raises(Cancelled):
        start(asked, runs, name="any", progress=quiet, observe=interrupting("scored"))
    assert resume(runs / "any", progress=quiet, observe=quiet)["valid"]
    assert wanted == ["auto", "process"]
    assert Run.open(runs / "any").asked.sandbox == "auto"


def test_what_is_edited_while_a_run_works_is_not_in_its_result(runs):
    def observe(what: str, label: str, details: dict) -> None:
        if what == "scored":
            edit(runs / "begun" / "run.toml", '"greedy"|"mcts"', '"mcts"')

    result = resume(runs / "begun", progress=quiet, observe=observe)
    assert result["policy"] == "greedy"
    (entry,) = entries([runs / "begun"])
    assert "run.toml was edited" in entry.problem


@pytest.mark.parametrize("old", [False, True])
def test_a_finished_run_that_was_edited_stands_in_no_table(runs, old):
    if old:
        aged(runs / "done")
    assert build(entries([runs / "done"])).tables
    edit(runs / "done" / "run.toml", '^policy = "greedy"', 'policy = "mcts"')
    board = build(entries([runs / "done"]))
    assert board.tables == ()
    (why,) = board.skipped.values()
    assert "run.toml" in why
    with pytest.raises(ConfigError, match="no finished run"):
        make_baseline(entries([runs / "done"]), "0")


@pytest.mark.parametrize("use", [pack, Recording.open, load, resume])
def test_nothing_is_made_of_a_finished_run_that_was_edited(runs, tmp_path, use):
    edit(runs / "done" / "run.toml", "^seed = 0", "seed = 1")
    more = {pack: (tmp_path / "b.tar.gz",)}.get(use, ())
    options = {"progress": quiet, "observe": quiet} if use is resume else {}
    what = str(runs / "done") if use is Recording.open else runs / "done"
    with pytest.raises(ConfigError, match="edited") as caught:
        use(what, *more, **options)
    assert "seed: then 0, now 1" in caught.value.cause


def test_a_lock_that_was_edited_with_it_is_found_by_the_journal_and_by_the_result(runs):
    for name in ("begun", "done"):
        edit(runs / name / "run.toml", "^seed = 0", "seed = 1")
        edit(runs / name / "lock.json", '"seed": 0', '"seed": 1')
    with pytest.raises(ConfigError, match=r"lock\.json was edited"):
        resume(runs / "begun", progress=quiet, observe=quiet)
    with pytest.raises(ConfigError, match=r"lock\.json was edited"):
        load(runs / "done")
    edit(runs / "done" / "result.json", '"seed": 0', '"seed": 1')
    assert "lock.json was edited" in entries([runs / "done"])[0].problem


def test_an_edited_lock_is_told_as_edited_and_not_as_a_change_of_the_machine(runs):
    edit(runs / "begun" / "lock.json", r'"cores": \d+', '"cores": 999')
    with pytest.raises(ConfigError, match=r"lock\.json was edited after the run began"):
        resume(runs / "begun", progress=quiet, observe=quiet)


def test_a_lock_of_before_what_was_asked_was_kept_is_read_and_resumed(runs):
    aged(runs / "begun")
    unnamed(runs / "begun")
    assert Run.open(runs / "begun").lock.asked is None
    assert resume(runs / "begun", progress=quiet, observe=quiet)["nodes"]["scored"] == 2


def test_an_old_lock_still_knows_its_policy(runs):
    aged(runs / "begun")
    unnamed(runs / "begun")
    edit(runs / "begun" / "run.toml", '^policy = "greedy"', 'policy = "mcts"')
    with pytest.raises(ConfigError, match="another policy") as caught:
        resume(runs / "begun", progress=quiet, observe=quiet)
    assert "policy.num_drafts" in caught.value.cause


def test_an_old_lock_still_knows_its_seed_by_what_was_trained(runs):
    aged(runs / "begun")
    unnamed(runs / "begun")
    edit(runs / "begun" / "run.toml", "^seed = 0", "seed = 1")
    with pytest.raises(ConfigError, match="edited") as caught:
        resume(runs / "begun", progress=quiet, observe=quiet)
    assert "node 0 was trained with a seed that does not come of seed 1" in caught.value.cause


ASKED = Asked(task="toy", profile="test", agent="reference", policy="greedy", steps=2,
              time_s=60.0, seed=0, sandbox="auto", dollars=3.0, gpu_hours=2.0, input_tokens=9,
              output_tokens=9)  # fmt: skip
OTHER = {
    "format": 2, "task": "x", "profile": "x", "agent": "x", "policy": "x", "settings": ("x",),
    "steps": 1, "time_s": 59.0, "seed": 1, "sandbox": "process", "executor": "x",
    "workers": 2,
    "data": {"source": "x"}, "gpu_hours": 1.0, "input_tokens": 1, "output_tokens": 1,
    "dollars": 2.0, "charge_waiting": True, "on_divergence": "live", "writing.base_url": "x",
    "writing.effort": "x", "writing.temperature": 0.5, "writing.max_answer_tokens": 1,
    "writing.agents_file": Path("x"), "writing.prompts": Path("x"), "writing.literature": Path("x"),
    "writing.answer_format": "edits", "writing.analyze": True, "writing.complexity": True,
    "writing.blind": True,
}  # fmt: skip


@pytest.mark.parametrize("field", unchanged.ASKED)
def test_each_field_of_run_toml_is_held_to_its_rule(field):
    def changed(value: object) -> str:
        outer, _, inner = field.partition(".")
        if inner:
            outer, value = "writing", ASKED.writing.model_copy(update={inner: value})
        return unchanged.edited(ASKED.model_copy(update={outer: value}), lock)

    lock = Lockfile(asked=ASKED, **LOCK)
    told, rule = changed(OTHER[field]), unchanged.ASKED[field]
    assert bool(told) == (rule in ("fixed", "may rise"))
    assert not told or told.startswith(f"{field}: then ")
    if rule == "may rise":
        assert changed(None) == ""
        assert changed(10**9) == ""


LOCK = {
    "harness": "0", "task_hash": "t", "data_hash": "d", "data": "/x", "scorer": "s",
    "sandbox": "process", "policy": {"c": 1}, "agent": {"asks": {"model": "a", "server": "local"}},
    "versions": {"torch": "1"}, "hardware": {"cpu": "x"}, "audit_key": "k",
    "direction": "maximize", "image": "", "hidden_key": "",
}  # fmt: skip
NOW = {
    "format": 2, "task_hash": "u", "data_hash": "e", "hidden_key": "0" * 16, "scorer": "r",
    "image": "sha256:1", "policy": {"c": 2}, "versions": {"torch": "2"}, "hardware": {"cpu": "y"},
    "agent": {"asks": {"model": "b", "server": "local"}}, "direction": "minimize",
    "asked": ASKED, "harness": "1", "data": "/y", "sandbox": "docker", "prices": ({"input": 1},),
    "audit_key": "l",
}  # fmt: skip


@pytest.mark.parametrize("field", unchanged.LOCKED)
def test_each_field_of_the_lock_is_held_to_its_rule(field):
    before = Lockfile(**{"format": 1, **LOCK})
    now = before.model_copy(update={field: NOW[field]})
    if unchanged.LOCKED[field] == "fixed":
        with pytest.raises(ConfigError, match="This run began with (another|other)") as caught:
            unchanged.refuse_other(before, now)
        # Of a table, only the entries that differ are named.
        assert field == "hidden_key" or caught.value.cause.startswith(field)
        assert "server" not in caught.value.cause
    else:
        unchanged.refuse_other(before, now)


def test_a_run_goes_on_under_a_scorer_that_judges_as_its_own_did(runs, monkeypatch):
    now = Run.open(runs / "begun").lock
    before = now.model_copy(update={"scorer": "3+0123456789ab"})
    with pytest.raises(ConfigError, match="another scorer"):
        unchanged.refuse_other(before, now)
    monkeypatch.setattr(conditions, "AS_BEFORE", {"3+0123456789ab"})
    unchanged.refuse_other(before, now)
    with pytest.raises(ConfigError, match="another scorer"):  # never the other way round
        unchanged.refuse_other(now, before)


def test_every_field_has_a_rule_and_the_docs_say_the_same():
    writing = {f"writing.{name}" for name in Writing.model_fields}
    assert set(unchanged.ASKED) == (Asked.model_fields.keys() - {"writing"}) | writing
    assert set(unchanged.LOCKED) == set(Lockfile.model_fields)
    rows = re.findall(r"^\| (fixed|may rise|as resolved|free) \| (.*?) \| (.*?) \|$",
                      DOCS.read_text(), re.M)  # fmt: skip
    told = [{}, {}]
    for rule, *places in rows:
        for found, names in zip(told, places, strict=True):
            found |= dict.fromkeys(re.findall(r"`([\w.]+)`", names), rule)
    assert told == [dict(unchanged.ASKED), dict(unchanged.LOCKED)]
