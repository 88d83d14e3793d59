"""A minimal agent whose model is behind real HTTP: server, client, agent, judge.

The server's answer depends on the request alone, so that a repeated run can be compared. The server
counts requests and answers. It can fail at random or always, and can hold its answers back.
Real providers' protocols are in provider_server.py, not here.
"""

import contextlib
import http.client
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from judging import answering

from agents.loopback import Loopback
from harness.agents.calls import Calls
from harness.base.errors import Cancelled, ProviderError
from harness.core.agent import Answer
from harness.core.budget import RunProgress
from harness.core.jobs import Evaluation
from harness.core.model import Endpoint, Prompt, Reply, Turn, Usage
from scorers.request import Evaluated
from scorers.score import Score
from scorers.submission import hash_files

KEY = "sk-a-key-that-must-never-be-written"
WORST_OUT = 100
TOKENS_OUT = 10
NOWHERE = RunProgress(steps=0, active_s=0.0, evaluated_s=0.0)
PATIENCE_S = 120
"""Seconds after which a wait has failed."""

DRAFT = """# {name}
import numpy as np


def predict(tokens):
    first = tokens[:, 0]
    return np.eye(4, dtype=np.float32)[np.where(first <= {known}, first - 1, 0)]
"""


def endpoint(client, price, fits) -> Endpoint:
    """Return an endpoint; its worst price is that of plain, uncached input tokens."""
    return Endpoint(client, price, lambda i, o: price(Usage(i, output_tokens=o)), fits)


class _Server(Loopback, HTTPServer):
    pass


class Server:
    """A provider on 127.0.0.1. ``asked`` and ``answered`` count requests by their hash.

    Once it has sent as many responses as ``allow`` permits, it holds further ones back.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.fail_rate = 0.0
        self.dead = False
        self._allowed = math.inf
        self.reply: dict = {}
        self._rng = random.Random(7)
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with contextlib.suppress(OSError):  # a client that was killed reads no more
                    outer._answer(self)

            def log_message(self, *args) -> None:
                pass

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self._http.begin()

    def close(self) -> None:
        self.allow(math.inf)
        self._http.end()

    def allow(self, answers: float) -> None:
        """Permit this many responses from now on."""
        with self._changed:
            self._allowed = answers
            self._changed.notify_all()

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until ``true()`` holds; it is checked each time a count changes."""
        with self._changed:
            assert self._changed.wait_for(true, PATIENCE_S), "what is waited for never came"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        name = sha256(body).hexdigest()
        with self._changed:
            self.asked[name] += 1
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            failing = self.dead or self._rng.random() < self.fail_rate
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._allowed > 0, PATIENCE_S)
            self._allowed -= 1
            self.under_way -= 1
            if not failing:
                self.answered[name] += 1
            self._changed.notify_all()
        known = 1 + int(name, 16) % 4
        value = {
            "text": DRAFT.format(name=name, known=known),
            "input_tokens": len(body) // 4,
            "output_tokens": TOKENS_OUT,
            **self.reply,
        }
        request.send_response(500 if failing else 200)
        request.end_headers()
        request.wfile.write(json.dumps({} if failing else value).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    yield served
    served.close()


class HttpClient:
    """Tries eight times; the waits add up to an eighth of a second."""

    def __init__(self, port: int, model: str = "tiny") -> None:
        self.port = port
        self.model = model

    def describe(self) -> dict[str, object]:
        return {"model": self.model, "temperature": 0.5}

    def worst_tokens(self, prompt: Prompt) -> tuple[int, int]:
        return len(json.dumps(_body(prompt, self.model))) // 2, WORST_OUT

    def check(self) -> None:
        pass

    def send(self, prompt: Prompt, *, say, cancel: threading.Event, lost=None) -> Reply:
        began, waited = time.monotonic(), 0.0
        for attempt in range(8):
            if cancel.is_set():
                raise Cancelled("stopped")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
            with contextlib.closing(connection):
                text = json.dumps(_body(prompt, self.model))
                connection.request("POST", "/", text, {"authorization": f"Bearer {KEY}"})
                response = connection.getresponse()
                value = json.loads(response.read())
            if response.status == 200:
                usage = Usage(value["input_tokens"], output_tokens=value["output_tokens"])
                seconds = time.monotonic() - began - waited
                return Reply(value["text"], "end", usage, self.model, seconds, waited)
            say(f"status {response.status}, trying again")
            time.sleep(0.0005 * 2**attempt)
            waited += 0.0005 * 2**attempt
        raise ProviderError(f"The provider failed 8 times (authorization: Bearer {KEY[:4]}…).")


def _body(prompt: Prompt, model: str) -> dict:
    turns = [[turn.role, turn.text] for turn in prompt.turns]
    return {"model": model, "system": prompt.system, "turns": turns}


def price(usage: Usage) -> float:
    """Return dollars: a cent per input token, two per output token, so that sums are easy."""
    return (usage.prompt_tokens + 2 * usage.output_tokens) / 100


def unknown(usage: Usage) -> None:
    return None


def spent(calls: Calls) -> dict:
    """Return what calls have used of the budget of a run that has only just begun."""
    return calls.budget.to_json(NOWHERE)


class Scripted:
    """Makes one call per node, two for every third. Prompts hold parents, scores, budget left."""

    name = "scripted"
    trusted = True
    port = 0
    price = staticmethod(price)
    extra = ""
    """Text added to the prompt, as a later version of the prompts could add it."""
    stops_between_calls = False
    """Whether Ctrl-C comes between the first and the second call of a node."""

    def __init__(self) -> None:
        self.endpoint = endpoint(
            HttpClient(type(self).port), type(self).price, lambda i, o: i + o <= 100_000
        )

    def write(self, ask) -> Answer:
        lines = [f"node {ask.node}: {ask.operator} of {[p.number for p in ask.parents]}"]
        lines += [f"{node.number} scored {node.score}" for node in ask.tree.scored()]
        lines += [f"left: {dict(ask.left)}", type(self).extra]
        prompt = Prompt("You write predict(tokens).", (Turn("user", "\n".join(lines)),))
        assert ask.model.fits(prompt)
        reply = ask.model.complete(prompt, purpose=ask.operator)
        if ask.node % 3 == 2:
            if type(self).stops_between_calls:
                raise KeyboardInterrupt
            turns = (*prompt.turns, Turn("assistant", reply.text), Turn("user", "Once more."))
            reply = ask.model.complete(Prompt(prompt.system, turns), purpose="again")
        return Answer({"model.py": reply.text}, note=f"node {ask.node}")


def judge(evaluation: Evaluation, request: object) -> Evaluated:
    """Replace ``harness.search.local.judge``: score at once, by the files' hash alone."""
    job = evaluation.job
    score = int(hash_files(job.files)[:4], 16) / 0xFFFF
    return answering(job, _judged(), valid=True, score=score, reason=None)


@cache
def _judged() -> Score:
    file = Path(__file__).with_name("recorded_run") / "nodes/0000/score.json"
    return Score.model_validate_json(file.read_text())
