"""A try whose answer was cut off is charged at its worst case, on disk, before the next try."""

import json
import threading

import pytest

from agents.conftest import PROMPT
from agents.provider_server import QUICK, answer, model_on, raw, silent, status
from agents.scripted import NOWHERE, spent
from harness.agents.calls import Calls
from harness.agents.clients import make_client
from harness.base.errors import Cancelled, ProviderError
from harness.core.budget import Budget, BudgetLimits
from harness.core.model import BudgetSpent, Endpoint
from harness.store.call_totals import CallFollower
from harness.store.tape import Tape

PRICES = [{"input": 1.0, "output": 10.0}]


@pytest.fixture
def calls(provider, protocol, tmp_path):
    """A function that returns the ``Calls`` of one run; calling it again resumes the run."""
    entry = model_on(provider, protocol, prices=PRICES)
    client = make_client(entry, patience=QUICK)
    endpoint = Endpoint(client, entry.price, entry.worst_price, entry.fits)

    def make(**limits) -> Calls:
        budget = Budget(BudgetLimits(**limits))
        return Calls(tmp_path, budget=budget, endpoint=endpoint, say=lambda _: None)

    make.worst = client.worst_tokens(PROMPT)
    make.worst_dollars = entry.worst_price(*make.worst)
    return make


def test_lost_tries_stand_in_the_budget_on_disk_and_after_a_resume(provider, calls, tmp_path):
    provider.script(
        answer("half", cut_after=2), status(429), silent(0), status(503), answer("whole")
    )
    first = calls()
    assert first.bind(0).complete(PROMPT, purpose="draft").text == "whole"
    for each in (first, calls()):
        lost, paid = spent(each)["lost"], spent(each)["model"]
        assert lost["calls"] == 2  # refusals cost nothing
        assert (lost["input_tokens"], lost["output_tokens"]) == tuple(2 * n for n in calls.worst)
        assert lost["dollars"] == pytest.approx(2 * calls.worst_dollars)
        assert (paid["calls"], paid["output_tokens"]) == (1, 5)
        assert each.budget.left(NOWHERE) == {}
    (record,) = Tape(tmp_path)
    assert (record.status, len(record.lost), record.reply.lost_tries) == ("answered", 2, 2)
    # The follower of a run that is under way counts the same calls.
    assert CallFollower(tmp_path).look([0]).calls == 3


def test_a_try_for_which_the_lost_ones_leave_no_room_is_not_sent(provider, calls, tmp_path):
    provider.otherwise = answer("half", cut_after=2)
    limit = 2 * calls.worst[1] + 100
    first = calls(output_tokens=limit)
    with pytest.raises(BudgetSpent, match="100 of 8,100 are left"):
        first.bind(0).complete(PROMPT, purpose="draft")
    assert len(provider.requests) == 2
    again = calls(output_tokens=limit)
    for each in (first, again):
        assert spent(each)["lost"]["calls"] == 2
        assert each.budget.left(NOWHERE) == {"output_tokens": 100}
    with pytest.raises(BudgetSpent):
        again.bind(0).complete(PROMPT, purpose="draft")
    assert len(provider.requests) == 2
    assert json.loads((tmp_path / "nodes/0000/calls/000.json").read_text())["status"] == "failed"


def test_a_call_that_fails_for_good_keeps_its_lost_tries(provider, calls):
    provider.script(answer("half", cut_after=2), status(402, "billing_error"))
    first = calls()
    with pytest.raises(ProviderError, match="no money"):
        first.bind(0).complete(PROMPT, purpose="draft")
    assert [spent(each)["lost"]["calls"] for each in (first, calls())] == [1, 1]


def test_an_answer_over_its_bound_is_charged_once_at_its_worst(provider, calls):
    provider.script(raw(b"data: " + b"x" * 7_000_000))
    first = calls()
    with pytest.raises(ProviderError, match="the server sent more than"):
        first.bind(0).complete(PROMPT, purpose="draft")
    assert [spent(each)["lost"]["calls"] for each in (first, calls())] == [1, 1]


def test_a_stop_while_a_lost_try_is_waited_for_loses_nothing_of_it(provider, calls):
    stop = threading.Event()
    first = calls()
    first._say = lambda _: stop.set()
    provider.script(answer("half", cut_after=2))
    with pytest.raises(Cancelled):
        first.bind(0, stop).complete(PROMPT, purpose="draft")
    used = [spent(each)["lost"]["calls"] for each in (first, calls())]
    assert used[0] == used[1] >= 1
    assert len(provider.requests) == 1


def test_estimated_tokens_are_marked_in_the_record_and_in_the_sums(provider, calls, tmp_path):
    provider.script(answer("twelve bytes", usage=False))
    first = calls()
    first.bind(0).complete(PROMPT, purpose="draft")
    for each in (first, calls()):
        assert spent(each)["model"]["estimated_calls"] == 1
    usage = json.loads((tmp_path / "nodes/0000/calls/000.json").read_text())["reply"]["usage"]
    assert (usage["estimated"], usage["output_tokens"]) == (True, 12)
