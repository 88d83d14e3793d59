"""Suites: the runs they expand to, in which order, under which names, and what is refused."""

from collections import Counter
from pathlib import Path

import pytest

from harness.agents import AGENTS
from harness.base.errors import ConfigError
from harness.core.asked import Asked
from harness.core.writing import Writing
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
    runs = [
        (r.asked.seed, r.asked.agent, r.asked.policy) for r in expand(suite(tmp_path), tmp_path)
    ]
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
    names = [run.name for run in expand(suite(tmp_path), tmp_path)]
    assert len(set(names)) == len(names)
    longer = suite(tmp_path, SMALL.replace("seeds = 2", "seeds = 3").replace('"random"', '"cwm"'))
    kept = set(names) & {run.name for run in expand(longer, tmp_path)}
    assert kept == {name for name in names if "_random_" not in name}
    changed = suite(tmp_path, SMALL.replace('profile = "test"', 'profile = "test"\nsteps = 2'))
    assert not set(names) & {run.name for run in expand(changed, tmp_path)}


def test_a_run_of_a_suite_is_the_request_that_harness_run_would_make_of_it(tmp_path):
    text = SMALL.replace('profile = "test"', 'profile = "test"\nhours = 0.5\ndollars = 2.5')
    text = text.replace("seeds = 2", 'seeds = 2\nliterature = "notes"\noptions = ["--x=1"]')
    text += '[servers]\nreference = { base_url = "http://127.0.0.1:8000/v1" }\n'
    one = next(expand(suite(tmp_path, text), tmp_path))
    assert one.asked == Asked(
        task="toy", agent="reference", policy="greedy", profile="test", seed=0, time_s=1800.0,
        dollars=2.5,
        writing=Writing(literature=tmp_path / "notes", base_url="http://127.0.0.1:8000/v1"),
    )  # fmt: skip
    assert one.options == ("--x=1",)
    tpe = [r.asked for r in expand(suite(tmp_path), tmp_path) if r.asked.agent == "tpe"]
    assert [asked.settings for asked in tpe[:2]] == [(), ("greedy.num_drafts=2",)]


def test_the_names_of_runs_outlive_versions_of_the_harness(tmp_path):
    # If names changed, continuing a sweep of last month would start all its runs again.
    first = next(expand(load(SUITES / "smoke.toml"), SUITES))
    assert first.name == "lra-listops_smoke_reference_greedy_s0_a55ca419"
    served = SMALL + '[servers]\ntpe = { base_url = "http://127.0.0.1:8000/v1" }\n'
    names = [run.name for run in expand(suite(tmp_path), tmp_path)]
    assert names == [run.name for run in expand(suite(tmp_path, served), tmp_path)]


BAD = {
    "unknown key": (SMALL.replace("seeds = 2", "sedes = 2"), "groups.0.sedes is unknown"),
    "no group": ("format = 1\nname = 'x'\n", "groups is []"),
    "no agent": (SMALL.replace('["tpe"]', "[]"), "groups.1.agents is []"),
    "newer": (SMALL.replace("format = 1", "format = 9"), "format is 9; wanted: 1"),
    "a name that leaves the folder": (SMALL.replace('"small"', '"../x"'), "name is '../x'"),
    "negative seed": (SMALL.replace("[1, 7]", "[-1]"), "groups.1.seeds.0 is -1"),
    "no TOML": ("groups = [", "is not valid TOML"),
    "groups are no tables": ("format = 1\nname = 'x'\ngroups = [3]", "groups.0 is 3"),
    "a setting for nobody": (
        SMALL.replace("greedy.num", "greedi.num"),
        "is for none of its policies",
    ),
    "no sandbox": (
        SMALL.replace('profile = "test"', 'profile = "test"\nsandbox = "dokcer"'),
        "there is no sandbox 'dokcer'; wanted: 'docker' or",
    ),
    "the same twice": (SMALL.replace('["tpe"]', '["tpe", "tpe"]'), "plans a run more than once"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_suite_is_refused_and_what_is_wrong_is_named(tmp_path, name):
    text, words = BAD[name]
    with pytest.raises(ConfigError) as caught:
        suite(tmp_path, text)
    assert words in str(caught.value)


def test_the_papers_campaign_is_1680_runs_of_20_agents():
    runs = list(expand(load(SUITES / "aira-design-lra.toml"), SUITES))
    assert Counter(r.asked.policy for r in runs) == {"greedy": 720, "one_shot": 960}
    assert len({(r.asked.agent, r.asked.policy) for r in runs}) == 20
    assert len({r.asked.task for r in runs}) == 6
    literature = list(expand(load(SUITES / "aira-design-autoresearch.toml"), SUITES))
    assert Counter(bool(r.asked.writing.literature) for r in literature) == {False: 70, True: 30}


def test_the_compose_campaign_has_the_papers_agents_and_seeds_and_controls_of_equal_budget():
    runs = list(expand(load(SUITES / "aira-compose.toml"), SUITES))
    paper = [r.asked for r in runs if r.asked.agent not in AGENTS]
    assert Counter(a.task for a in paper) == {"compose/mad": 170, "compose/mad-hybrid": 170}
    seeds = Counter((a.agent, a.policy) for a in paper if a.task == "compose/mad")
    assert len(seeds) == 11
    assert seeds.pop(("gpt-5", "greedy")) == 20
    assert {policy: n for (_, policy), n in seeds.items()} == {"greedy": 10, "one_shot": 20}
    greedy = {(a.steps, a.time_s) for a in paper if a.policy == "greedy"}
    controls = [r.asked for r in runs if r.asked.agent in AGENTS]
    assert {(a.steps, a.time_s) for a in controls} == greedy == {(500, 86_400.0)}
    assert Counter(a.agent for a in controls) == dict.fromkeys(
        ("random", "evolution", "local", "gp", "prior"), 20
    )


def test_every_shipped_suite_is_valid():
    files = list(SUITES.glob("*.toml"))
    assert len(files) >= 4
    for file in files:
        assert len(list(expand(load(file), file.parent))) > 0


def test_a_group_may_be_blind_and_all_others_keep_their_names(tmp_path):
    first = next(expand(suite(tmp_path), tmp_path))
    assert first.name == "toy_test_reference_greedy_s0_2147e8a8"  # from before there was the key
    assert not first.asked.writing.blind
    blind = suite(tmp_path, SMALL.replace("seeds = 2", "seeds = 2\nblind = true"))
    runs = list(expand(blind, tmp_path))
    assert runs[0].asked.writing == Writing(blind=True)
    assert runs[0].name != first.name
    assert {r.asked.agent for r in runs if r.asked.writing.blind} == {"reference", "random"}
