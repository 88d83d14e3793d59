"""The table of models: what it holds, what a user may change, what is refused."""

import re
import sys
from datetime import date

import pytest

from harness.agents.catalogue import ModelEntry, find_agent, load_agents
from harness.agents.clients import make_client
from harness.base.errors import ConfigError
from harness.core.model import Usage
from harness.core.writing import Writing

M = 1_000_000
OPEN = date(2026, 1, 1)
"""A day on which no provider had shut a model of the table."""


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for provider in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{provider}_API_KEY", "sk-x")


def table(path, text):
    path.write_text("format = 1\n" + text)
    return path


def test_the_paper_has_twelve_models_and_every_successor_can_be_used():
    known = load_agents()
    assert sum(e.paper for e in known.values()) == 12
    for entry in known.values():
        if entry.successor:
            successor = known[entry.successor]
            assert not successor.paper or successor.retires is None
        if entry.prices:
            assert entry.price_date
            assert entry.price_source


def test_a_name_that_is_unknown_gets_the_nearest():
    with pytest.raises(ConfigError) as caught:
        find_agent("opus-45")
    assert caught.value.remedy.startswith("'opus-4.5'")


def test_prices_follow_the_size_of_the_prompt_and_the_kind_of_token():
    gemini = find_agent("gemini-3.1-pro")
    assert gemini.price(Usage(200_000, 0, 0, 1000)) == pytest.approx(0.4 + 0.012)
    assert gemini.price(Usage(200_001, 0, 0, 1000)) == pytest.approx(0.800004 + 0.018)
    # Cached tokens count towards the prompt's size.
    assert gemini.price(Usage(1, 200_000, 0, 0)) == pytest.approx(0.080004)
    opus = find_agent("opus-4.5")
    assert opus.price(Usage(M, M, M, M)) == pytest.approx(5 + 0.5 + 6.25 + 25)


def test_what_is_unknown_costs_an_unknown_sum_never_nothing():
    assert find_agent("gpt-oss-20b").price(Usage(10, 0, 0, 10)) is None
    # GPT-4o has no price for cache writes; a call without any has a price.
    assert find_agent("gpt-4o").price(Usage(10, 0, 1, 10)) is None
    assert find_agent("gpt-4o").price(Usage(M, 0, 0, 0)) == 2.5
    assert find_agent("gpt-oss-20b").worst_price(10, 10) is None


def test_the_worst_price_bounds_every_way_of_charging_a_call():
    for entry in load_agents().values():
        if not entry.prices:
            continue
        for size in (1, 99_999, 150_000, 272_001, 900_000):
            worst = entry.worst_price(size, 500)
            for usage in (
                Usage(size, 0, 0, 500),
                Usage(0, size, 0, 500),
                Usage(0, 0, size, 500),
                Usage(size // 3, 0, 0, 1),
            ):
                price = entry.price(usage)
                assert price is None or price <= worst


def test_limits_count_prompt_and_answer_together():
    gpt5 = find_agent("gpt-5")
    assert gpt5.fits(272_000, 128_000)
    assert not gpt5.fits(272_001, 1)
    assert not find_agent("opus-4.5").fits(150_000, 50_001)


def test_a_users_table_changes_prices_and_adds_models(tmp_path, monkeypatch):
    file = table(
        tmp_path / "mine.toml",
        """
        [agents."opus-4.5"]
        prices = [{ input = 1.0, output = 2.0 }]
        [agents.mine]
        title = "Mine"
        provider = "openai"
        model = "mine-1"
        base_url = "http://127.0.0.1:9/v1"
        context_tokens = 1000
        max_output_tokens = 500
        """,
    )
    monkeypatch.setenv("HARNESS_AGENTS", str(file))
    opus = find_agent("opus-4.5")
    assert opus.price(Usage(M, 0, 0, M)) == 3.0
    assert (opus.model, opus.price_source) == ("claude-opus-4-5-20251101", str(file))
    # Our price date must not stand beside a user's own price.
    assert opus.price_date is None
    assert find_agent("mine").title == "Mine"
    monkeypatch.delenv("HARNESS_AGENTS")
    assert find_agent("opus-4.5").price(Usage(M, 0, 0, M)) == 30.0
    assert "mine" in load_agents(file)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[agents.x]\ntitle = 'X'", "provider"),
        ("[agents.gpt-4o]\ncolour = 'red'", "colour"),
        ("[agents.gpt-4o]\nprices = [{ input = -1, output = 2 }]", "prices.0.input"),
        ("[agents.gpt-4o]\nprices = [{ above_prompt_tokens = 5, input = 1, output = 2 }]", "rise"),
        ("[agents.'Big Model']\ntitle = 'X'", "name"),
        ("[agents.gpt-4o]\nkey = 'sk-abcdef-this-is-a-key'", "key"),
        ("[agents.gpt-4o]\nextra_headers = { Authorization = 'sk-abcdef' }", "environment"),
        ("[agents.gpt-4o]\nextra_body = { api_key = 'sk-abcdef' }", "environment"),
        ("[agents.gpt-4o]\nextra_body = { to = [{ by = { password = 'x' } }] }", "environment"),
        ("[agents.gpt-4o]\nbase_url = 'https://me:sk-abcdef@host/v1'", "password"),
        ("[agents.gpt-4o]\nbase_url = 'ftp://host'", "http"),
        ("[agents]\ngpt-4o = 3", "table"),
        ("agent = 3", "agent"),
        ("[agents", "cannot be read"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_name_and_not_repeated(tmp_path, text, named):
    with pytest.raises(ConfigError) as caught:
        load_agents(table(tmp_path / "mine.toml", text))
    assert named in str(caught.value)
    assert "mine.toml" in str(caught.value)
    assert "sk-abcdef" not in str(caught.value)


def test_a_table_that_is_absent_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_agents(tmp_path / "none.toml")


def test_a_model_that_was_shut_names_the_day_the_successor_and_replay():
    with pytest.raises(ConfigError) as caught:
        make_client(find_agent("o3-mini"), on=date(2026, 10, 23))
    text = str(caught.value)
    assert "2026-10-23" in text
    assert "gpt-6.1-sol" in text
    assert "replay:RUN" in text


def test_retirement_is_judged_by_the_day_and_only_a_shut_model_is_refused():
    assert make_client(find_agent("gpt-5"), on=date(2026, 12, 10))
    with pytest.raises(ConfigError, match="2026-12-11"):
        make_client(find_agent("gpt-5"), on=date(2026, 12, 11))
    # The provider promised it until an earlier date, and has named no end.
    assert make_client(find_agent("opus-4.5"), on=date(2027, 6, 1))
    # Another server may still serve the model.
    elsewhere = Writing(base_url="http://127.0.0.1:1/v1")
    assert make_client(find_agent("gpt-5"), elsewhere, on=date(2027, 6, 1))


@pytest.mark.parametrize(
    ("agent", "settings", "named"),
    [
        ("gpt-oss-20b", Writing(), "--base-url"),
        ("gpt-oss-20b", Writing(base_url="127.0.0.1:8000"), "http://"),
        ("opus-4.5", Writing(temperature=0.6), "no temperature"),
        ("gpt-4o", Writing(temperature=3.0), "outside 0 to 2"),
        ("gpt-4o", Writing(effort="high"), "no effort"),
        ("opus-4.5", Writing(effort="hihg"), "'high'"),
        ("gpt-4o", Writing(max_answer_tokens=16_385), "16,384"),
        ("gpt-4o", Writing(max_answer_tokens=0), "16,384"),
    ],
)
def test_a_setting_that_the_model_does_not_take_is_refused(agent, settings, named):
    with pytest.raises(ConfigError) as caught:
        make_client(find_agent(agent), settings)
    assert named in str(caught.value)


def test_a_key_is_needed_at_the_provider_and_not_on_ones_own_server(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set"):
        make_client(find_agent("opus-4.5"))
    own = Writing(base_url="http://127.0.0.1:1")
    assert make_client(find_agent("opus-4.5"), own)
    assert make_client(find_agent("gpt-oss-20b"), own)


@pytest.mark.parametrize("key", ["sk-abc\ndef", "sk-abc def", "sk-äbc", "'sk abc'"])
def test_a_mangled_key_is_refused_without_printing_it(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds characters") as caught:
        make_client(find_agent("gpt-4o"), on=OPEN)
    assert not [part for part in re.findall("[a-z]+", key) if part in str(caught.value)]


def test_entries_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        find_agent("gpt-4o").model = "other"
    assert isinstance(find_agent("gpt-4o"), ModelEntry)


def test_a_missing_sdk_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError) as caught:
        make_client(find_agent("gpt-4o"), on=OPEN)
    assert "aira-harness[models]" in caught.value.remedy
