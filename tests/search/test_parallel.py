"""Several nodes of one run at once: what overlaps, what agents see, and how it ends."""

import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import wait
from pathlib import Path

import pytest
from observing import PATIENCE_S, quiet
from quick_judge import QuickJudge
from slow_agents import Scripted, digest
from test_kill import check_journal, drive

from harness.agents import AGENTS
from harness.base.errors import Cancelled, ConfigError, ProviderError
from harness.base.seeds import stream
from harness.core.agent import Exhausted
from harness.core.asked import Asked
from harness.core.model import BudgetSpent
from harness.launch.run import resume, start
from harness.policies import POLICIES, make_policy
from harness.search import local, loop
from harness.store.journal import read
from harness.store.rundir import Run
from harness.store.state import rebuild

SLOTS = 3


class World:
    """Runs the toy task in unisolated processes with a scripted agent, and records events."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.agent: Scripted | None = None
        self.seen: list[tuple[str, str, float]] = []
        self.on: dict[tuple[str, str], threading.Event] = {}

    def event(self, what: str, label: str) -> threading.Event:
        """Return an event that is set when ``what`` is observed for ``label``."""
        return self.on.setdefault((what, label), threading.Event())

    def observe(self, what: str, label: str, details: dict) -> None:
        self.seen.append((what, label, time.monotonic()))
        self.event(what, label).set()

    def use(self, script) -> Scripted:
        self.agent = Scripted(script)
        self._patch.setitem(AGENTS.ours, "scripted", lambda: self.agent)
        return self.agent

    def start(self, script=lambda ask: None, *, slots=SLOTS, steps=7, policy="greedy", **more):
        self.use(script)
        asked = Asked(
            task="toy", agent="scripted", policy=policy, profile="test",
            steps=steps, seed=3, workers=slots, sandbox="process", **more,
        )  # fmt: skip
        return start(asked, self.folder / "runs", progress=quiet, observe=self.observe)

    def resume(self, script=lambda ask: None):
        self.use(script)
        return resume(self.run.path, progress=quiet, observe=self.observe)

    @property
    def run(self) -> Run:
        (path,) = (self.folder / "runs").iterdir()
        return Run.open(path)

    @property
    def events(self):
        return read(self.run.path / "events.jsonl")

    def numbers(self, kind: str) -> list[int]:
        return [e.data["node"] for e in self.events if e.kind == kind]


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


@pytest.fixture
def judge(monkeypatch):
    quick = QuickJudge()
    monkeypatch.setattr(local, "judge", quick)
    return quick


def most_at_once(spans) -> int:
    """Return the largest number of (begin, end) spans that share an instant."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def check_shown(run: Run) -> None:
    """Assert that each choice follows from the tree before it; its agent saw the tree after it."""
    events = read(run.path / "events.jsonl")
    policy = make_policy(run.asked.policy, list(run.asked.settings))
    written = {e.data["node"] for e in events if e.kind == "written"}
    for place, event in enumerate(events):
        if event.kind != "chosen":
            continue
        number = event.data["node"]
        before = rebuild(events[:place], run.path / "nodes", maximize=True).tree
        decision = policy.choose(before, stream(run.asked.seed, "choose", number))
        assert decision is not None
        assert decision.operator == event.data["operator"]
        assert list(decision.parents) == event.data["parents"]
        after = rebuild(events[: place + 1], run.path / "nodes", maximize=True).tree
        if number in written:
            assert (run.node_dir(number) / "prompt.md").read_text() == digest(after)


def test_writings_overlap_each_other_and_evaluations(world):
    together = threading.Barrier(SLOTS)

    def script(ask):
        if ask.node < SLOTS:
            together.wait(PATIENCE_S)  # all three are being written at once, or the barrier breaks
        if ask.node in (1, 2):
            assert world.event("training", "0").wait(PATIENCE_S)

    result = world.start(script, steps=6)
    assert result["nodes"] == {"scored": 6, "valid": 6}
    writings = [(asked, answered) for _, asked, answered in world.agent.spans]
    assert most_at_once(writings) == SLOTS
    at = {(what, label): when for what, label, when in world.seen}
    (training,) = [when for what, label, when in world.seen if (what, label) == ("training", "0")]
    for node, asked, answered in world.agent.spans:
        if node in (1, 2):
            assert asked < training < answered
    # A node has its slot from its choice to its score: there are never more nodes than slots.
    assert most_at_once([(at["writing", f"{n}"], at["scored", f"{n}"]) for n in range(6)]) == SLOTS
    check_shown(world.run)
    check_journal(world.run.path)


def test_one_slot_does_one_thing_after_the_other(world, judge):
    world.start(slots=1, steps=4)
    kinds = [(e.kind, e.data["node"]) for e in world.events if "node" in e.data][:-2]
    each = ("chosen", "written", "evaluating", "scored")
    assert kinds == [(kind, node) for node in range(4) for kind in each]
    check_shown(world.run)


@pytest.mark.parametrize("name", sorted(set(POLICIES.ours) - {"one_shot"}))
def test_the_journal_replays_every_choice_of_a_search_with_slots(world, judge, name):
    small = "num_children" if name == "mcts" else "num_drafts"
    world.start(policy=name, steps=12, settings=(f"{name}.{small}=3",))
    check_shown(world.run)


@pytest.mark.parametrize("ending", [Exhausted("no more"), BudgetSpent("no more")])
def test_an_agent_without_more_to_offer_ends_the_run_once_the_others_are_done(world, judge, ending):
    def script(ask):
        if ask.node == 3:
            raise ending
        if ask.node in (4, 5):
            assert world.event("exhausted", "3").wait(PATIENCE_S)

    result = world.start(script, steps=40)
    assert result["valid"]
    chosen = set(world.numbers("chosen"))
    assert set(world.numbers("scored")) == chosen - {3}
    assert len(chosen) <= 3 + SLOTS
    last = [e.kind for e in world.events][-3:]
    assert last == ["finalizing", "final", "closed"]


@pytest.mark.parametrize("error", [ProviderError("gone"), ConfigError("no key"), KeyError("bug")])
def test_a_failure_ends_the_run_after_the_others_are_done_and_it_resumes(world, judge, error):
    def script(ask):
        if ask.node == 3:
            assert world.event("writing", "4").wait(PATIENCE_S)
            raise error
        if ask.node in (4, 5):  # else more nodes could begin before the failure is noticed
            assert world.event("failing", "3").wait(PATIENCE_S)

    with pytest.raises(type(error)):
        world.start(script, steps=8)
    begun = set(world.numbers("chosen"))
    assert len(begun) <= 3 + SLOTS
    assert set(world.numbers("scored")) >= {0, 1, 2}
    # Evaluations under way were scored, writings under way were finished, and no node was begun.
    assert set(world.numbers("written")) == begun - {3}
    assert sorted(world.numbers("evaluating")) == sorted(world.numbers("scored"))
    assert 4 not in world.numbers("evaluating")
    assert world.resume()["nodes"] == {"scored": 8, "valid": 8}
    assert sorted(world.numbers("chosen")) == list(range(8))
    check_shown(world.run)
    check_journal(world.run.path)


@pytest.fixture
def ctrl_c(monkeypatch):
    """An event: once it is set, the loop gets a KeyboardInterrupt when it waits for its steps."""
    pressed = threading.Event()

    def waiting(steps, **how):
        if pressed.is_set() and "return_when" in how:
            raise KeyboardInterrupt
        return wait(steps, **how)

    monkeypatch.setattr(loop, "wait", waiting)
    monkeypatch.setattr(loop, "POLL_S", 0.01)
    yield pressed
    pressed.clear()


def test_ctrl_c_stops_writers_that_listen_and_evaluations(world, judge, ctrl_c, monkeypatch):
    monkeypatch.setattr(loop, "GRACE_S", PATIENCE_S)
    heard = []
    judge.held = {"0"}

    def script(ask):
        if ask.node == 2:
            assert world.event("training", "0").wait(PATIENCE_S)
            ctrl_c.set()
        if ask.node > 0:
            heard.append(ask.cancel.wait(PATIENCE_S))
            raise Cancelled("stopped")

    with pytest.raises(Cancelled, match="everything that was finished is kept"):
        world.start(script)
    assert heard == [True, True]
    assert judge.cancelled == ["0"]
    assert world.events[-1].data["status"] == "interrupted"
    ctrl_c.clear()
    judge.held.clear()
    assert world.resume()["nodes"]["scored"] == 7
    check_shown(world.run)


def test_ctrl_c_leaves_a_writer_behind_that_does_not_listen(world, judge, ctrl_c, monkeypatch):
    monkeypatch.setattr(loop, "GRACE_S", 0.05)
    waits, waiting, release = [], loop.wait, threading.Event()
    monkeypatch.setattr(loop, "wait", lambda on, **how: waits.append(how) or waiting(on, **how))

    def script(ask):
        if ask.node == 2:
            ctrl_c.set()
        release.wait(PATIENCE_S)

    with pytest.raises(Cancelled):
        world.start(script)
    assert waits.count({"timeout": 0.05}) == 1
    deaf = [t for t in threading.enumerate() if t.name.startswith("write-")]
    assert len(deaf) == SLOTS
    assert all(t.daemon for t in deaf)  # or the process could not end
    release.set()
    for thread in deaf:
        thread.join(PATIENCE_S)
    assert world.numbers("written") == []
    ctrl_c.clear()
    assert world.resume()["nodes"]["scored"] == 7


def test_no_more_slots_than_steps(world, judge):
    world.start(slots=64, steps=2)
    assert world.run.asked.workers == 2


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.nightly)]
)
def test_kills_with_three_slots_lose_nothing_and_do_nothing_twice(tmp_path, kills):
    """The tree depends on what finished first, so it is compared with its own journal."""
    rng = random.Random(2027)
    where = tmp_path / "where"
    landed: Counter = Counter()
    for runs in range(kills):  # if these are too few, nearly every kill missed
        place = tmp_path / f"runs{runs}"
        how, target = "new", place
        finished: dict[int, int] = {}  # node → length of the journal when its score was first seen
        for _ in range(60):
            phase = rng.choice(["writing", "training", "serving", "journal"])
            if sum(landed.values()) >= kills:
                phase = "never"
            delay = float(rng.randint(2, 16)) if phase == "journal" else rng.uniform(0, 0.3)
            where.unlink(missing_ok=True)
            code = drive(where, how, target, phase, delay, SLOTS)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            landed[where.read_text()] += 1
            (target,) = place.iterdir()
            how = "resume"
            length = len(read(target / "events.jsonl"))
            for file in target.glob("nodes/*/score.json"):
                finished.setdefault(int(file.parent.name), length)
        else:
            pytest.fail("the run never finished")
        run = Run.open(target)
        events = read(target / "events.jsonl")
        count = Counter(e.kind for e in events)
        assert (count["chosen"], count["written"], count["scored"]) == (8, 8, 8)
        assert {e.data["node"] for e in events if e.kind == "scored"} == set(range(8))
        for place_in_journal, event in enumerate(events):
            if event.kind == "evaluating":
                assert place_in_journal < finished.get(event.data["node"], len(events))
        check_journal(target)
        check_shown(run)
        if sum(landed.values()) >= kills:
            break
    print(f"\n{sum(landed.values())} kills in {runs + 1} runs: {dict(landed)}")
    assert sum(landed.values()) >= kills
    assert len(landed) >= kills // 3
