"""Recorded calls: on disk before an answer is used, never over budget, never paid twice."""

import json
import math
import random
import threading
import time
from pathlib import Path

import pytest

from agents.lives import Lives
from agents.scripted import (
    KEY,
    NOWHERE,
    TOKENS_OUT,
    WORST_OUT,
    HttpClient,
    Server,
    endpoint,
    price,
    spent,
    unknown,
)
from harness.agents.calls import Calls
from harness.base.errors import Cancelled, ConfigError, ProviderError
from harness.core.budget import Budget, BudgetLimits
from harness.core.model import BudgetSpent, Prompt, Turn
from harness.store.tape import Tape


def ask(text: str, system: str = "You write code.") -> Prompt:
    return Prompt(system, (Turn("user", text),))


def calls_of(run: Path, server: Server, *, price=price, say=lambda _: None, **limits) -> Calls:
    client = HttpClient(server.port)
    known = endpoint(client, price, lambda tokens_in, _: tokens_in < 1000)
    return Calls(run, budget=Budget(BudgetLimits(**limits)), endpoint=known, say=say)


def test_an_answer_is_recorded_whole_and_a_resumed_run_neither_sends_nor_pays_it_again(
    tmp_path, server
):
    first = calls_of(tmp_path, server)
    model = first.bind(7)
    replies = [model.complete(ask(t), purpose="draft") for t in ("one", "two")]
    assert server.asked.total() == 2
    again = calls_of(tmp_path, server)
    model = again.bind(7)
    assert [model.complete(ask(t), purpose="draft") for t in ("one", "two")] == replies
    assert server.asked.total() == 2
    assert spent(again) == spent(first)
    assert spent(again)["model"]["output_tokens"] == 2 * TOKENS_OUT
    record = json.loads((tmp_path / "nodes/0007/calls/001.json").read_text())
    assert record["turns"] == [{"role": "user", "text": "two"}]
    assert (record["purpose"], record["status"], record["reply"]["stop"]) == (
        "draft", "answered", "end",
    )  # fmt: skip
    assert record["dollars"] == pytest.approx(price(replies[1].usage))
    (system,) = (tmp_path / "prompts").iterdir()
    assert system.read_text() == "You write code."


def test_no_key_and_no_header_is_in_any_file_not_even_after_a_failure(tmp_path, server):
    calls = calls_of(tmp_path, server)
    calls.bind(0).complete(ask("one"), purpose="draft")
    server.dead = True
    with pytest.raises(ProviderError):
        calls.bind(1).complete(ask("two"), purpose="draft")
    texts = [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    assert len(texts) == 3
    for text in texts:
        assert KEY[:4] not in text
        assert "uthorization" not in text
        assert "Bearer" not in text


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"dollars": 2.01}, "dollars"),
        ({"input_tokens": 10}, "input tokens"),
        ({"output_tokens": WORST_OUT - 1}, "output tokens"),
    ],
)
def test_a_call_that_could_exceed_a_budget_is_never_sent(tmp_path, server, limit, words):
    calls = calls_of(tmp_path, server, **limit)
    with pytest.raises(BudgetSpent, match=rf"node 3, call 0 \(draft\).*could use .*{words}"):
        calls.bind(3).complete(ask("one"), purpose="draft")
    assert server.asked.total() == 0
    assert not (tmp_path / "nodes").exists()


def test_calls_go_on_as_long_as_the_worst_case_fits_and_not_one_longer(tmp_path, server):
    calls = calls_of(tmp_path, server, output_tokens=WORST_OUT + 3 * TOKENS_OUT)
    model = calls.bind(0)
    for number in range(4):
        model.complete(ask(str(number)), purpose="draft")
    with pytest.raises(BudgetSpent, match="100 output tokens, and 90 of 130 are left"):
        model.complete(ask("4"), purpose="draft")
    assert server.asked.total() == 4


def test_calls_at_once_wait_for_each_others_worst_case_and_never_pass_the_budget(tmp_path, server):
    server.allow(0)
    # Two worst cases fit at once. After ten answers one more worst case fits, after eleven none.
    limit = 2 * WORST_OUT
    calls = calls_of(tmp_path, server, output_tokens=limit)
    outcomes: list[str] = []

    def one(node: int) -> None:
        try:
            calls.bind(node).complete(ask(str(node)), purpose="draft")
            outcomes.append("answered")
        except BudgetSpent:
            outcomes.append("refused")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    server.until(lambda: server.under_way == 2)
    server.allow(math.inf)
    for thread in threads:
        thread.join()
    used = spent(calls)["model"]["output_tokens"]
    assert server.most_under_way == 2
    assert outcomes.count("answered") == server.asked.total() == 11
    assert outcomes.count("refused") == 5
    assert used == 11 * TOKENS_OUT <= limit


def test_a_call_that_waits_for_room_can_be_cancelled(tmp_path, server):
    server.allow(0)
    calls = calls_of(tmp_path, server, output_tokens=WORST_OUT)
    first = threading.Thread(target=lambda: calls.bind(0).complete(ask("a"), purpose="draft"))
    first.start()
    server.until(lambda: server.under_way == 1)
    cancel = threading.Event()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        calls.bind(1, cancel).complete(ask("b"), purpose="draft")
    server.allow(math.inf)
    first.join()
    assert server.asked.total() == 1


def test_another_question_in_an_answered_place_is_refused_with_its_first_difference(
    tmp_path, server
):
    text = "same\n" + "x" * 300 + "a\x1b[31m"
    calls_of(tmp_path, server).bind(2).complete(ask(text), purpose="debug")
    changed = ask(text.replace("a\x1b", "b\x1b"))
    with pytest.raises(ConfigError, match=r"node 2, call 0 \(debug\)") as caught:
        calls_of(tmp_path, server).bind(2).complete(changed, purpose="debug")
    assert "xa\ufffd[31m" in caught.value.cause
    assert "xb\ufffd[31m" in caught.value.cause
    assert "\x1b" not in str(caught.value)
    assert len(caught.value.cause) < 1000
    assert server.asked.total() == 1


def test_other_settings_of_the_model_are_another_question(tmp_path, server):
    calls_of(tmp_path, server).bind(0).complete(ask("one"), purpose="draft")
    calls = calls_of(tmp_path, server)
    calls._endpoint.client.model = "other"
    with pytest.raises(ConfigError) as caught:
        calls.bind(0).complete(ask("one"), purpose="draft")
    assert '- "model": "tiny"' in caught.value.cause.replace("-  ", "- ")
    assert '"model": "other"' in caught.value.cause


def test_a_refused_call_is_free_again_recorded_and_sent_when_the_run_goes_on(tmp_path, server):
    calls = calls_of(tmp_path, server, output_tokens=WORST_OUT)
    server.dead = True
    lines: list[str] = []
    calls._say = lines.append
    with pytest.raises(ProviderError):
        calls.bind(0).complete(ask("one"), purpose="draft")
    assert "node 0, call 0 (draft): status 500" in lines[0]
    assert spent(calls)["model"]["calls"] == spent(calls)["lost"]["calls"] == 0
    assert calls.budget.waited_s() > 0.1  # all time of a failed call counts as waiting
    server.dead = False
    again = calls_of(tmp_path, server, output_tokens=WORST_OUT)
    assert again.budget.waited_s() == pytest.approx(calls.budget.waited_s())
    again.bind(0).complete(ask("one"), purpose="draft")
    (record,) = Tape(tmp_path)
    assert [f.error for f in record.failures] == ["ProviderError"]
    assert spent(again)["model"]["calls"] == 1


def test_a_call_with_unknown_end_is_charged_at_its_worst_and_sent_again(tmp_path, server):
    calls = calls_of(tmp_path, server)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        calls.bind(0, cancel).complete(ask("one"), purpose="draft")
    worst = calls._endpoint.client.worst_tokens(ask("one"))
    again = calls_of(tmp_path, server, output_tokens=3 * WORST_OUT)
    for used in (spent(calls), spent(again)):
        assert used["lost"]["calls"] == 1
        assert (used["lost"]["input_tokens"], used["lost"]["output_tokens"]) == worst
    assert again.budget.left(NOWHERE)["output_tokens"] == 2 * WORST_OUT
    again.bind(0).complete(ask("one"), purpose="draft")
    third = calls_of(tmp_path, server)
    assert (spent(third)["lost"]["calls"], spent(third)["model"]["calls"]) == (1, 1)


def test_an_unknown_price_stays_unknown_in_every_sum(tmp_path, server):
    calls_of(tmp_path, server).bind(0).complete(ask("one"), purpose="draft")
    calls = calls_of(tmp_path, server, price=unknown)
    calls.bind(1).complete(ask("two"), purpose="draft")
    used = spent(calls_of(tmp_path, server))["model"]
    assert used["dollars"] is None
    assert used["unpriced_calls"] == 1
    assert used["dollars_known"] > 0


def test_what_fits_said_is_said_again_whatever_the_limits_are_now(tmp_path, server):
    long = ask("x" * 5000)
    model = calls_of(tmp_path, server).bind(0)
    assert [model.fits(long), model.fits(ask("one"))] == [False, True]
    model.complete(ask("one"), purpose="draft")
    calls = calls_of(tmp_path, server)
    calls._endpoint = endpoint(calls._endpoint.client, price, lambda *_: True)
    model = calls.bind(0)
    assert [model.fits(long), model.fits(ask("one"))] == [False, True]
    model.complete(ask("one"), purpose="draft")
    assert model.fits(long)


@pytest.mark.parametrize("tokens", [-5, 10**15])
def test_what_a_server_claims_neither_gives_budget_back_nor_breaks_a_file(tmp_path, server, tokens):
    server.reply = {"input_tokens": tokens, "text": "half a pair: \ud83d, a pair: \ud83d\ude00\0"}
    calls = calls_of(tmp_path, server, input_tokens=10**6)
    reply = calls.bind(0).complete(ask("one"), purpose="draft")
    assert reply.text == "half a pair: \ufffd, a pair: \U0001f600\0"
    assert calls.budget.left(NOWHERE)["input_tokens"] == (10**6 if tokens < 0 else 0)
    again = calls_of(tmp_path, server)
    assert again.bind(0).complete(ask("one"), purpose="draft") == reply


def damage(what: str, run: Path) -> Path:
    file = run / "nodes/0000/calls/000.json"
    text = file.read_text()
    if what == "cut":
        file.write_text(text[: len(text) // 2])
    elif what == "edited":
        file.write_text(text.replace("import numpy", "import os"))
    elif what == "retyped":
        file.write_text(text.replace('"dollars": ', '"dollars": "many", "x": '))
    elif what == "moved":
        other = run / "nodes/0001/calls/000.json"
        other.parent.mkdir(parents=True)
        return file.rename(other)
    elif what == "empty":
        file.write_text("")
    elif what == "newer":
        file.write_text(text.replace('"format": 1', '"format": 9'))
    return file


@pytest.mark.parametrize("what", ["cut", "edited", "retyped", "moved", "empty", "newer"])
def test_a_damaged_call_is_refused_by_name_before_anything_is_sent(tmp_path, server, what):
    calls_of(tmp_path, server).bind(0).complete(ask("one"), purpose="draft")
    file = damage(what, tmp_path)
    with pytest.raises(ConfigError, match=file.name) as caught:
        calls_of(tmp_path, server)
    assert str(file) in str(caught.value)
    assert server.asked.total() == 1


def test_half_written_files_of_a_kill_are_no_calls(tmp_path, server):
    calls_of(tmp_path, server).bind(0).complete(ask("one"), purpose="draft")
    (tmp_path / "nodes/0000/calls/.001.json.a1b2c3d4").write_text("{")
    assert spent(calls_of(tmp_path, server))["model"]["calls"] == 1


def test_kills_at_random_moments_pay_nothing_twice(tmp_path, server):
    """A child makes 30 calls, three at a time; it is killed ten times, and then finishes."""
    rng = random.Random(11)
    nodes, kills = 30, 10
    with Lives("calls_driver.py", tmp_path, server.port, nodes) as lives:
        for _ in range(kills):
            answers, asked = rng.randrange(3), server.asked.total()
            server.allow(answers)
            lives.begin()
            asked += rng.randrange(1, answers + 2)
            server.until(lambda asked=asked: server.asked.total() >= asked)
            time.sleep(rng.uniform(0, 0.01))
            lives.kill()
            server.allow(math.inf)
            server.until(lambda: server.under_way == 0)
        lives.begin()
        assert lives.end() == 0
    records = list(Tape(tmp_path))
    assert [(r.node, r.status) for r in records] == [(n, "answered") for n in range(nodes)]
    lost = sum(len(r.lost) for r in records)
    paid_for_nothing = server.answered.total() - nodes
    print(f"{kills} kills, {lost} lost, {paid_for_nothing} answered to nobody")
    assert 0 < paid_for_nothing <= lost <= 3 * kills
    used = spent(calls_of(tmp_path, server))
    assert used["model"]["calls"] == nodes
    assert used["model"]["dollars"] == pytest.approx(sum(r.dollars for r in records))
    assert used["lost"]["dollars"] == pytest.approx(
        sum(x.worst_dollars for r in records for x in r.lost)
    )
    # The tokens that the server sent never exceed those that are counted.
    assert server.answered.total() * TOKENS_OUT <= (
        used["model"]["output_tokens"] + used["lost"]["output_tokens"]
    )
