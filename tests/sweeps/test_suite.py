"""Suites: what they expand to, in which order, under which names, and what is refused."""

from collections import Counter
from pathlib import Path

import pytest

from harness.base.errors import ConfigError
from harness.sweeps.suite import expand, load

SUITES = Path(__file__).parents[2] / "suites"

SMALL = """
format = 1
name = "small"
[defaults]
tasks = ["toy"]
profile = "test"
[[groups]]
agents = ["reference", "random"]
seeds = 2
[[groups]]
agents = ["tpe"]
policies = ["one_shot", "greedy"]
seeds = [1, 7]
settings = ["greedy.num_drafts=2"]
"""


def suite(tmp_path, text=SMALL):
    file = tmp_path / "small.toml"
    file.write_text(text)
    return load(file)


def test_runs_come_seed_by_seed_so_that_a_cut_sweep_has_compared_every_agent(tmp_path):
    runs = [(r.seed, r.agent, r.policy) for r in expand(suite(tmp_path))]
    assert runs == [
        (0, "reference", "greedy"),
        (0, "random", "greedy"),
        (1, "reference", "greedy"),
        (1, "random", "greedy"),
        (1, "tpe", "one_shot"),
        (1, "tpe", "greedy"),
        (7, "tpe", "one_shot"),
        (7, "tpe", "greedy"),
    ]


def test_a_name_stays_the_same_until_something_that_decides_the_run_changes(tmp_path):
    names = [run.name for run in expand(suite(tmp_path))]
    assert len(set(names)) == len(names)
    longer = suite(tmp_path, SMALL.replace("seeds = 2", "seeds = 3").replace('"random"', '"cwm"'))
    kept = set(names) & {run.name for run in expand(longer)}
    assert kept == {name for name in names if "_random_" not in name}
    changed = suite(tmp_path, SMALL.replace('profile = "test"', 'profile = "test"\nsteps = 2'))
    assert not set(names) & {run.name for run in expand(changed)}


def test_the_arguments_are_those_of_harness_run(tmp_path):
    text = SMALL.replace('profile = "test"', 'profile = "test"\nhours = 0.5\ndollars = 2.5')
    text = text.replace("seeds = 2", 'seeds = 2\nliterature = "notes"\noptions = ["--x=1"]')
    one = next(expand(suite(tmp_path, text)))
    given = one.arguments(Path("runs/small"), beside=tmp_path, dollars=2.5, server=None)
    assert given == [
        "--task=toy", "--agent=reference", "--policy=greedy", "--profile=test", "--seed=0",
        "--time=1800s", "--sandbox=auto", f"--literature={tmp_path}/notes",
        "--max-dollars=2.500000", "--runs-dir=runs/small", f"--name={one.name}", "--x=1",
    ]  # fmt: skip
    tpe = [r for r in expand(suite(tmp_path)) if r.agent == "tpe"]
    assert [r.settings for r in tpe[:2]] == [[], ["greedy.num_drafts=2"]]


BAD = {
    "unknown key": (SMALL.replace("seeds = 2", "sedes = 2"), "sedes"),
    "no group": ("format = 1\nname = 'x'\n", "groups"),
    "no agent": (SMALL.replace('["tpe"]', "[]"), "agents"),
    "newer": (SMALL.replace("format = 1", "format = 9"), "format"),
    "a name that leaves the folder": (SMALL.replace('"small"', '"../x"'), "name"),
    "negative seed": (SMALL.replace("[1, 7]", "[-1]"), "seeds"),
    "no TOML": ("groups = [", "TOML"),
    "groups are no tables": ("format = 1\nname = 'x'\ngroups = [3]", "groups.0"),
    "a setting for nobody": (SMALL.replace("greedy.num", "greedi.num"), "greedi"),
    "the same twice": (SMALL.replace('["tpe"]', '["tpe", "tpe"]'), "more than once"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_suite_is_refused_and_what_is_wrong_is_named(tmp_path, name):
    text, words = BAD[name]
    with pytest.raises(ConfigError) as caught:
        suite(tmp_path, text)
    assert words in str(caught.value)


def test_the_papers_campaign_is_1680_runs_of_20_agents():
    runs = list(expand(load(SUITES / "aira-design-lra.toml")))
    assert Counter(r.policy for r in runs) == {"greedy": 720, "one_shot": 960}
    assert len({(r.agent, r.policy) for r in runs}) == 20
    assert len({r.task for r in runs}) == 6
    literature = list(expand(load(SUITES / "aira-design-autoresearch.toml")))
    assert Counter(bool(r.group.literature) for r in literature) == {False: 70, True: 30}


def test_every_shipped_suite_is_valid():
    files = list(SUITES.glob("*.toml"))
    assert len(files) >= 3
    for file in files:
        assert len(list(expand(load(file)))) > 0
