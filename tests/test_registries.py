"""What packages add to registries: found without an import, and refused if it is invalid.

A broken addition does not affect the others.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calling import call

from harness.agents import AGENTS
from harness.agents.catalogue import load_agents
from harness.agents.providers import PROVIDERS
from harness.base.errors import ConfigError, JudgeError
from harness.base.registry import Registry, errors_of_packages, installed, load
from harness.cli import verify
from harness.core.asked import Asked
from harness.core.writing import Writing
from harness.launch.agents import make_agent
from harness.launch.run import _Parts
from harness.policies import POLICIES
from harness.search.executors import EXECUTORS
from harness.search.leftovers import collect
from harness.sweeps.agent_info import offer
from sandboxes import registry
from sandboxes.registry import BACKENDS
from scorers import conditions
from tasks.kinds import KINDS
from tasks.metrics import METRICS
from tasks.spec import discover, find_task
from tasks.submissions import SUBMISSIONS

Add = Callable[..., None]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Return a function that installs a package: a module of its name, entry points of a group."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def add(package: str, group: str, source: str, version: str = "1.0", **points: str) -> None:
        (tmp_path / f"{package}.py").write_text(source)
        told = tmp_path / f"{package}-{version}.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (told / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
        installed.cache_clear()

    yield add
    installed.cache_clear()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.fixture
def numbers() -> Registry[int]:
    def fault(_name: str, value: object) -> str:
        return "" if isinstance(value, int) else f"it is a {type(value).__name__}; wanted: an int"

    return Registry("number", "harness.numbers", {"one": 1, "two": 2}, fault)


def refused(numbers: Registry[int], name: str) -> str:
    with pytest.raises(ConfigError) as error:
        numbers.find(name)
    assert numbers.broken()[name].message == error.value.message
    assert name not in numbers.usable()
    return f"{error.value.message} {error.value.cause} {error.value.remedy}"


def test_a_package_adds_and_is_imported_when_it_is_asked_for(
    add: Add, numbers: Registry[int]
) -> None:
    add("counting_pack", "harness.numbers", "THREE = 3\n", three="counting_pack:THREE")
    assert numbers.names() == ["one", "two", "three"]
    assert "three" in numbers
    assert numbers.known("three") == "three"
    assert numbers.added() == {"three": "counting_pack 1.0"}
    assert "counting_pack" not in sys.modules
    assert numbers.find("three") == 3
    assert numbers.usable() == {"one": 1, "two": 2, "three": 3}
    assert numbers.broken() == {}


def test_an_unknown_name_is_told_with_the_nearest(add: Add, numbers: Registry[int]) -> None:
    add("counting_pack", "harness.numbers", "THREE = 3\n", three="counting_pack:THREE")
    with pytest.raises(ConfigError) as error:
        numbers.find("thre")
    assert error.value.message == "There is no number 'thre'."
    assert "'three'" in error.value.remedy
    with pytest.raises(ValueError, match=r"no number 'thre'; wanted: 'one' or 'two' or 'three'"):
        numbers.known("thre")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("FOUR = 4", "has no attribute 'THREE'"),
        ("THREE = 'three'", "it is a str; wanted: an int"),
        ("THREE =", "SyntaxError"),
    ],
)
def test_what_cannot_be_used_says_whose_it_is_and_stops_nothing_else(
    add: Add, numbers: Registry[int], source: str, said: str
) -> None:
    add("counting_pack", "harness.numbers", source + "\n", "0.3", three="counting_pack:THREE")
    told = refused(numbers, "three")
    assert "The number 'three' of counting_pack 0.3 cannot be used." in told
    assert said in told
    assert "pip uninstall counting_pack" in told
    assert numbers.find("one") == 1
    assert set(numbers.usable()) == {"one", "two"}


def test_nobody_takes_a_name_that_is_taken(add: Add, numbers: Registry[int]) -> None:
    add("counting_pack", "harness.numbers", "ONE = 7\n", one="counting_pack:ONE")
    told = refused(numbers, "one")
    assert "Two packages have a number 'one': harness and counting_pack 1.0." in told
    assert numbers.find("two") == 2
    add("more_counting", "harness.numbers", "NINE = 9\n", nine="more_counting:NINE")
    assert numbers.find("nine") == 9
    add("rival_pack", "harness.numbers", "NINE = 99\n", "2.0", nine="rival_pack:NINE")
    assert "more_counting 1.0 and rival_pack 2.0" in refused(numbers, "nine")


def test_a_name_must_do_in_a_command_and_in_a_folder(add: Add, numbers: Registry[int]) -> None:
    add("counting_pack", "harness.numbers", "X = 9\n", **{"a/b": "counting_pack:X"})
    assert "a name is letters, digits" in refused(numbers, "a/b")


WRONG = [
    (POLICIES, "class X: name = 'x'", "harness.policies.base.BasePolicy"),
    (
        POLICIES,
        "from harness.policies.greedy import Greedy as X",
        "it calls itself 'greedy'; wanted: 'x'",
    ),
    (
        POLICIES,
        "from harness.policies.base import BasePolicy\nclass X(BasePolicy): name = 'x'",
        "it has no method choose",
    ),
    (AGENTS, "X = 3", "wanted: a class whose instances are agents"),
    (AGENTS, "class X: name = 'x'", "it has no method write"),
    (AGENTS, "class X:\n    name = 'y'\n    def write(self, ask): ...", "it calls itself 'y'"),
    (PROVIDERS, "X = 'openai'", "it is a str; wanted: a harness.agents.providers.Provider"),
    (
        PROVIDERS,
        "from harness.agents.providers import Provider\nX = Provider('x:Y', near=('{host}',))",
        "KeyError: 'host'",
    ),
    (EXECUTORS, "X = 3", "harness.search.evaluator.Evaluator"),
    (EXECUTORS, "class X:\n def submit(self): ...", "it has no method get_ready, close"),
    (BACKENDS, "class X: name = 'x'", "it has no isolates, image, probe, unenforced, open, sweep"),
    (METRICS, "X = 1.0", "it is a float; wanted: a tasks.metrics.Metric"),
    (
        METRICS,
        "from tasks.metrics import Metric\nX = Metric('maximize', floor=2, optimum=1, most=1)",
        "its floor, 2, is not from -inf to 1",
    ),
    (
        METRICS,
        "from tasks.metrics import Metric\nX = Metric('minimize', floor=1, optimum=float('nan'))",
        "are to be finite",
    ),
    (KINDS, "X = 1", "wanted: a tasks.kinds.Kind"),
    (KINDS, "from tasks.kinds import Kind\nX = Kind('beauty', 'x:Y')", "its metric, 'beauty'"),
    (SUBMISSIONS, "X = 1", "wanted: a tasks.submissions.Submission"),
]


@pytest.mark.parametrize(("seam", "source", "said"), WRONG)
def test_each_seam_says_what_it_wants(
    add: Add, seam: Registry[object], source: str, said: str
) -> None:
    add("pack_of_x", seam.group, source + "\n", x="pack_of_x:X")
    assert said in refused(seam, "x")  # type: ignore[arg-type]


def test_what_goes_wrong_in_a_package_is_told_as_its_own(add: Add) -> None:
    source = "def early(x):\n    return {}[x]\ndef late(f):\n    return f()\n"
    add("pack_of_x", "harness.agents", source, x="pack_of_x:early")
    pack = importlib.import_module("pack_of_x")

    @errors_of_packages()
    def call(work: Callable[[], object]) -> None:
        work()

    with pytest.raises(ConfigError) as error:
        call(lambda: pack.early("no"))
    assert error.value.message == "The package pack_of_x 1.0 failed: KeyError: 'no'"
    assert "pack_of_x.py, line 2: return {}[x]" in error.value.cause
    # Also an error in our code that the package called: it may have called us wrongly.
    with pytest.raises(ConfigError, match="The package pack_of_x 1.0 failed: ZeroDivisionError"):
        call(lambda: pack.late(lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 / 0)
    with pytest.raises(JudgeError):
        call(lambda: pack.late(fail))


def fail() -> None:
    raise JudgeError("ours")


def test_no_package_passes_for_a_model_of_the_table(add: Add) -> None:
    source = "class X:\n    name = 'opus-4.5'\n    def write(self, ask): ...\n"
    add("pack_of_x", "harness.agents", source, **{"opus-4.5": "pack_of_x:X"})
    with pytest.raises(ConfigError, match=r"Two agents are called 'opus-4\.5'"):
        make_agent("opus-4.5")
    assert "opus-4.6" in load_agents(None)


def test_a_broken_table_of_models_is_nothing_to_an_agent_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agents.toml").write_text("format = 'broken'\n")
    monkeypatch.setenv("HARNESS_AGENTS", str(tmp_path / "agents.toml"))
    assert make_agent("reference").name == "reference"
    with pytest.raises(ConfigError, match=r"agents\.toml"):
        make_agent("opus-4.6")


@pytest.mark.parametrize("address", ["math:nothing", "math"])
def test_an_address_that_leads_nowhere_is_told(address: str) -> None:
    with pytest.raises(ConfigError, match=f"There is no {address}, which a package names"):
        load(address)


OF_X = """
[agents.own]
title = "Mine"
provider = "x"
model = "m"
base_url = "http://127.0.0.1:1"
context_tokens = 9_000
max_output_tokens = 1_000
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "The provider 'x' of pack_of_x 1.0 cannot be used."),
        ("{}\nX = Provider('pack_of_x:Gone')", "There is no pack_of_x:Gone"),
        ("{}\nX = Provider('sdk_of_x:Y')", "needs the package sdk_of_x, which is not installed"),
    ],
)
def test_a_provider_that_cannot_be_used_stops_no_other_model(
    add: Add, tmp_path: Path, source: str, said: str
) -> None:
    source = source.format("from harness.agents.providers import Provider")
    add("pack_of_x", "harness.providers", f"{source}\n", x="pack_of_x:X")
    (tmp_path / "own.toml").write_text(f"format = 1\n{OF_X}")
    with pytest.raises(ConfigError) as error:
        make_agent("own", Writing(agents_file=tmp_path / "own.toml"))
    assert said in error.value.message
    assert "opus-4.6" in load_agents(None)
    # What a name of the table must be is told with the names there are.
    (tmp_path / "own.toml").write_text(f"format = 1\n{OF_X}".replace('"x"', '"opnai"'))
    with pytest.raises(ConfigError) as error:
        make_agent("own", Writing(agents_file=tmp_path / "own.toml"))
    assert "no such provider; wanted: 'anthropic' or 'openai' or 'x'" in error.value.cause


def test_a_sandbox_whose_package_is_gone_has_no_walls_to_show(add: Add) -> None:
    assert registry.isolates("bubblewrap")
    assert not registry.isolates("process")
    assert not registry.isolates("gone")
    add("pack_of_x", "harness.sandboxes", "1 / 0\n", x="pack_of_x:X")
    assert not registry.isolates("x")


def test_auto_chooses_among_ours(add: Add, isolating: object) -> None:
    add(
        "pack_of_x",
        "harness.sandboxes",
        "from sandboxes.bubblewrap import Bubblewrap\n"
        "class Mine(Bubblewrap):\n    name = 'x'\nX = Mine()\n",
        x="pack_of_x:X",
    )
    assert registry.choose("x", trusted=False)[0].name == "x"
    assert registry.choose("auto", trusted=False)[0].name in BACKENDS.ours


def test_tasks_of_a_package_are_found_unimported(add: Add, tmp_path: Path) -> None:
    add("pack_of_tasks", "harness.tasks", "1 / 0\n", mine="pack_of_tasks.inside")
    (tmp_path / "pack_of_tasks.py").unlink()
    folder = tmp_path / "pack_of_tasks" / "inside" / "one"
    folder.mkdir(parents=True)
    (tmp_path / "pack_of_tasks" / "__init__.py").write_text("1 / 0\n")
    toy = find_task("toy")
    text = (toy.folder / "task.toml").read_text().replace('name = "toy"', 'name = "theirs"')
    (folder / "task.toml").write_text(text)
    assert find_task("theirs").folder == folder
    assert "pack_of_tasks" not in sys.modules
    (folder / "task.toml").write_text(text.replace('"theirs"', '"toy"'))
    with pytest.raises(ConfigError, match="Two tasks are called toy"):
        find_task("toy")


def test_a_package_without_the_folder_that_it_promises_is_listed_as_broken(add: Add) -> None:
    add("pack_of_tasks", "harness.tasks", "", mine="pack_of_tasks.inside")
    tasks, broken = discover()
    assert "toy" in tasks
    assert any("pack_of_tasks 1.0 says that tasks lie in" in b.error.message for b in broken)


def test_an_earlier_judge_that_judged_alike_compares_with_a_package_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conditions, "AS_BEFORE", frozenset({"4+then"}))
    now = conditions.scorer()
    assert conditions.as_today("4+then") == now
    assert conditions.as_today("4+then by pack 1.0 abc") == f"{now} by pack 1.0 abc"
    assert conditions.as_today("4+else by pack 1.0 abc") == "4+else by pack 1.0 abc"
    same = {"scorer": f"{now} by pack 1.0 abc"}
    assert conditions.differing({"scorer": "4+then by pack 1.0 abc"}, same) == ()
    assert conditions.differing({"scorer": "4+then by pack 1.0 abd"}, same) == ("scorer",)
    assert conditions.differing({"scorer": now}, same) == ("scorer",)


def test_who_measures_is_named_with_a_hash_of_all_its_source(add: Add, tmp_path: Path) -> None:
    source = "from tasks.kinds import Kind\nMINE = Kind('accuracy', 'pack_of_kinds:Mine')\n"
    add("pack_of_kinds", "harness.kinds", source, mine="pack_of_kinds:MINE")
    toy = find_task("toy").definition
    assert conditions.judge_of(toy) == conditions.scorer()
    mine = toy.model_copy(update={"kind": "mine"})
    first = conditions.judge_of(mine)
    assert first.startswith(f"{conditions.scorer()} by pack_of_kinds 1.0 ")
    (tmp_path / "pack_of_kinds.py").write_text(source + "# judges otherwise\n")
    conditions._source_of.cache_clear()
    assert conditions.judge_of(mine) not in (first, conditions.scorer())


def test_who_trains_candidates_together_is_named_too(add: Add) -> None:
    source = (
        "from tasks.kinds import Kind\n"
        "MINE = Kind('accuracy', 'scorers.x:X', together='trainer_of:f')\n"
    )
    add("pack_of_kinds", "harness.kinds", source, mine="pack_of_kinds:MINE")
    add("trainer_of", "harness.nothing", "def f(trials): ...\n")
    mine = find_task("toy").definition.model_copy(update={"kind": "mine"})
    judge = conditions.judge_of(mine)
    assert judge.startswith(f"{conditions.scorer()} by ")
    assert conditions._source_of("trainer_of") in judge


def test_a_sweep_leaves_out_an_agent_that_cannot_be_used(add: Add) -> None:
    add("pack_of_x", "harness.agents", "1 / 0\n", x="pack_of_x:X", y="pack_of_x:Y")
    assert "The agent 'x' of pack_of_x 1.0 cannot be used" in offer("x").obstacle
    assert offer("reference").obstacle == ""


def test_what_a_packages_sandbox_left_is_swept(add: Add) -> None:
    source = """
class X:
    name, isolates, image = "x", True, ""
    probe = unenforced = open = None
    def sweep(self):
        return ("a box of x",)
X = X()
"""
    add("pack_of_x", "harness.sandboxes", source, x="pack_of_x:X", broken="pack_of_x:Nothing")
    assert "a box of x" in collect()


def test_a_strangers_bundle_may_run_behind_walls_alone() -> None:
    assert {"auto", "bubblewrap"} <= set(verify.ISOLATING)
    assert "process" not in verify.ISOLATING
    said = call("verify", "x.tar", "--sandbox", "process", code=2).said
    assert "'process' is not one of 'auto'" in " ".join(said.split())


@pytest.mark.parametrize(("policy", "steps"), [("one_shot", 1), ("greedy", 3)])
def test_a_policy_says_how_many_nodes_it_ever_makes(policy: str, steps: int) -> None:
    asked = Asked(task="toy", profile="test", policy=policy)
    assert _Parts.of(asked).filled().asked.steps == steps
