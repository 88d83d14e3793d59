"""The client of one model behind one API, whatever its protocol: queue, try, wait, try again.

The adapter of a protocol (anthropic.py, openai.py) only sends one request and reads its stream.
A complete answer is kept, however the server marks its end. An incomplete answer is thrown away
and requested again. The tokens of such a lost try are unknown: ``send`` reports each one to its
``lost`` callback, so that the budget charges the worst case; a reply's usage is the last try's.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx2

from harness.agents.addresses import alternatives, server_of
from harness.agents.catalogue import ModelEntry
from harness.agents.clients.events import RawReply
from harness.agents.clients.failures import Failure, classify_error
from harness.agents.clients.gate import gate_of
from harness.agents.clients.patience import RetryTimes
from harness.agents.clients.proxy import proxy_of
from harness.agents.clients.wire import Attempt, open_http, timeouts
from harness.agents.providers import PROVIDERS
from harness.base.errors import Cancelled, ConfigError, ProviderError
from harness.base.text import encodable
from harness.core.model import Prompt, Reply, Turn, Usage
from harness.core.writing import Writing

# Upper bounds for worst_tokens, per request and per message. Chat templates add text of their
# own: some 70 tokens for gpt-oss (its system block), 4 to 8 around each message elsewhere.
REQUEST_TOKENS = 256
MESSAGE_TOKENS = 16

# llama.cpp sends a streamed token in 160 bytes (Anthropic's protocol) or 300 bytes (OpenAI's).
WIRE_BYTES_PER_TOKEN = 1024
OVERHEAD_BYTES = 1 << 20

NOT_FOUND = (404, 405)
"""Statuses that mean that nothing exists at an address."""

EMPTY_MESSAGE = "(empty)"
"""Sent in place of an empty message: providers refuse an empty one with status 400."""


MAX_UNCLEAR_TRIES = 5
"""Most tries of one call that may end in an invalid response or an unknown error: the provider
may charge for each of them."""

LONGEST_TOKEN_BYTES = 128
"""Longest token of any vocabulary, in bytes (cl100k's longest are 128 spaces)."""


class Adapter(ABC):
    """Sends single requests in one protocol, through the provider's SDK (``make`` its client).

    Raises the errors of its SDK and of httpx2, ServerError, Malformed, ResponseRefused.
    """

    models: ClassVar[str]
    """The path of the list of models, relative to the API's address."""
    answers: ClassVar[str]
    """The path of the endpoint that gives answers."""

    def __init__(
        self,
        entry: ModelEntry,
        writing: Writing,
        make: Callable[..., Any],
        *,
        key: str,
        idle_s: float,
    ) -> None:
        self._entry = entry
        self._writing = writing
        url = base_url(entry, writing)
        self._sdk = make(
            api_key=key,
            base_url=url,
            max_retries=0,
            timeout=timeouts(idle_s),
            http_client=open_http(url, idle_s),
        )

    @abstractmethod
    def complete(self, prompt: Prompt) -> RawReply:
        """Send the prompt and read the answer to its end."""

    def list_models(self, at: str = "") -> str:
        """Request the list of models, from here or ``at`` another address; return its content type.

        The request is free and needs the key. The list is ignored: servers differ in its form.
        """
        return _content_type(self._sdk.get(f"{at}{self.models}", cast_to=httpx2.Response))

    def probe(self) -> str:
        """Send an empty request, which an API refuses at no cost; return the content type."""
        return _content_type(self._sdk.post(self.answers, body={}, cast_to=httpx2.Response))


class ApiClient:
    """A ``Client``. The key is kept only to remove it from a provider's messages."""

    def __init__(
        self,
        entry: ModelEntry,
        writing: Writing,
        adapter: Adapter,
        *,
        key: str,
        patience: RetryTimes,
    ) -> None:
        self.entry = entry
        self.writing = writing
        self._url = base_url(entry, writing)
        self._most_tokens = answer_tokens(entry, writing)
        self._adapter = adapter
        self._secret = key
        self._patience = patience
        self._proxy = proxy_of(self._url)
        self._gate = gate_of(urlsplit(self._url).netloc)

    def __repr__(self) -> str:
        return f"ApiClient({self.entry.name})"

    def describe(self) -> dict[str, object]:
        """Return all settings that decide an answer besides the prompt; nothing secret."""
        return {
            "provider": self.entry.provider,
            "model": self.entry.model,
            "server": server_of(self._url),
            "max_output_tokens": self._most_tokens,
            "options": options(self.entry, self.writing),
            "headers": dict(self.entry.extra_headers),
            "system_role": self.entry.system_role,
            "system_prefix": self.entry.system_prefix,
        }

    def worst_tokens(self, prompt: Prompt) -> tuple[int, int]:
        """Return upper bounds of the prompt's and the answer's tokens; no network.

        A token of a byte-level vocabulary stands for at least one byte, so the number of bytes is
        an upper bound, about four times too high for English and code. (The bound fails for
        tokenizers that first rewrite text into Unicode's compatibility forms; no model in the
        table is known to do so. Anthropic's and Google's tokenizers are unpublished.)
        """
        texts = [system_text(self.entry, prompt), *(t.text for t in prompt.turns)]
        size = sum(len(encodable(text).encode()) for text in texts)
        overhead = REQUEST_TOKENS + MESSAGE_TOKENS * len(texts)
        return size + overhead, self._most_tokens

    def check(self) -> None:
        """Make a free call, so that a wrong key is found before anything is spent.

        A busy server passes, and so does an API without a list of models. Raises ConfigError for
        a refused key or an address without an API, ProviderError if no server answers.
        """
        failure = self._call_free(self._adapter.list_models)
        if failure is None:
            return
        if failure.status in (401, 403) or failure.by_intermediary:
            raise failure.final(self.entry.name, self.entry.key)
        if failure.unreachable:
            raise ProviderError(
                f"Agent {self.entry.name}: nothing answers at {self._url}.",
                cause=failure.sentence,
                remedy=failure.remedy or "start the server, or give its address: --base-url",
            )
        if failure.status in NOT_FOUND:
            self._refuse_address()

    def _call_free(self, call: Callable[[], str]) -> Failure | None:
        """Make a free call and return how it failed, if it did; a web page counts as status 404."""
        attempt = Attempt(threading.Event(), total_s=60, max_bytes=16 << 20)
        try:
            with attempt:
                kind = call()
        except Exception as error:
            failure = classify_error(error, self._secret, self._proxy)
            if failure is None:
                raise
            return failure
        return Failure("a web page", again=False, status=404) if "html" in kind else None

    def _refuse_address(self) -> None:
        """Raise ConfigError if there is no API at the address; suggest the likely address."""
        asked = self._url.rstrip("/")
        near = alternatives(asked, PROVIDERS.find(self.entry.provider))
        for there in near:
            failure = self._call_free(partial(self._adapter.list_models, there))
            if failure is None or failure.status in (401, 403):
                why, remedy = f"{there} is one", f"--base-url {there}"
                break
        else:
            failure = self._call_free(self._adapter.probe)
            # An API without a list of models, or one whose 404 says that we named no model.
            if (
                failure is None
                or failure.status not in NOT_FOUND
                or "model" in failure.said.lower()
            ):
                return
            why = "neither a list of models nor answers"
            perhaps = f", perhaps {near[0]}" if near else ""
            remedy = f"--base-url as the server says it at its start{perhaps}"
        raise ConfigError(
            f"Agent {self.entry.name}: there is no API at {asked}.",
            cause=f"{asked}{self._adapter.models} is not there; {why}",
            remedy=remedy,
        )

    def send(
        self,
        prompt: Prompt,
        *,
        say: Callable[[str], None],
        cancel: threading.Event,
        lost: Callable[[bool], None] = lambda _: None,
    ) -> Reply:
        """Return the answer, after retries. See ``Client.send``."""

        def tell(line: str) -> None:
            say(f"{self.entry.name}: {line}")

        began = time.monotonic()
        # Length of this outage, without the queue: the tries after the first, the waits between.
        outage_s = 0.0
        # Jitter only: nothing that is recorded depends on it.
        rng = Random()  # noqa: S311
        tries = losses = doubts = 0
        while True:
            with self._gate.inside(self.entry.concurrency, say=tell, cancel=cancel):
                tried = time.monotonic()
                raw = self._try(prompt, cancel)
            if isinstance(raw, RawReply):
                seconds, waited_s = time.monotonic() - tried, max(0.0, tried - began)
                return self._reply(prompt, raw, tell, seconds, waited_s, losses)
            failure = raw
            outage_s += time.monotonic() - tried if tries else 0.0
            tries += 1
            doubts += failure.unclear
            delay = self._patience.delay_s(tries, failure.advised_s, rng)
            patient = outage_s + delay <= self._patience.outage_s
            again = failure.again and patient and doubts < MAX_UNCLEAR_TRIES
            if failure.lost:
                losses += 1
                lost(again)
            if not again:
                if failure.again and not patient:
                    raise self._gave_up(failure, tries, delay)
                raise failure.final(self.entry.name, self.entry.key)
            outage_s += delay
            if failure.status == 429:
                self._gate.pause(min(delay, self._patience.longest_s))
            tell(f"{failure.sentence}, trying again in {_seconds(delay)} (attempt {tries + 1})")
            if cancel.wait(delay):
                raise Cancelled("Cancelled while waiting to try again.")

    def _gave_up(self, failure: Failure, tries: int, delay: float) -> ProviderError:
        return ProviderError(
            f"Agent {self.entry.name}: {failure.what}, and patience is at its end "
            f"({tries} tries; asked to wait {_seconds(delay)} more, "
            f"{_seconds(self._patience.outage_s)} allowed).",
            cause=failure.said,
            remedy=failure.remedy or "when the provider is back: harness resume RUN",
        )

    def _reply(
        self,
        prompt: Prompt,
        raw: RawReply,
        tell: Callable[[str], None],
        seconds: float,
        waited_s: float,
        losses: int,
    ) -> Reply:
        usage, stop = self._usage_of(prompt, raw, tell), raw.stop
        if not raw.finish_reason:
            tell("the server does not say why its answer ended; what came is kept")
            if not usage.estimated and usage.output_tokens >= self._most_tokens:
                stop = "length"
        if stop == "length" and not raw.text.strip():
            tell(
                f"nothing but reasoning came within {self._most_tokens:,} tokens; "
                "--max-answer-tokens raises that limit"
            )
        return Reply(
            text=encodable(raw.text),
            stop=stop,
            usage=usage,
            model_id=encodable(raw.model_id)[:200] or self.entry.model,
            seconds=seconds,
            waited_s=waited_s,
            lost_tries=losses,
        )

    def _try(self, prompt: Prompt, cancel: threading.Event) -> RawReply | Failure:
        """Ask once. Raises Cancelled."""
        if cancel.is_set():
            raise Cancelled("Cancelled before the call.")
        limit = self._most_tokens * WIRE_BYTES_PER_TOKEN + OVERHEAD_BYTES
        attempt = Attempt(cancel, total_s=self._patience.total_s, max_bytes=limit)
        failure: Failure | None = None
        try:
            with attempt:
                return self._adapter.complete(prompt)
        except Exception as error:
            failure = classify_error(error, self._secret, self._proxy)
            if failure is None and not cancel.is_set() and not attempt.expired:
                raise
        # Raised outside of "except": an SDK's error carries the request, and with it the key.
        if cancel.is_set():
            raise Cancelled("Cancelled during a call.")
        if failure is None or attempt.expired:
            limit_s = _seconds(self._patience.total_s)
            failure = Failure(f"no whole answer within {limit_s}", again=False, lost=True)
        return replace(failure, lost=failure.lost and attempt.asked)

    def _usage_of(self, prompt: Prompt, raw: RawReply, tell: Callable[[str], None]) -> Usage:
        """Return the usage; upper bounds in bytes replace missing or impossible counts."""
        came = len(encodable(raw.text).encode()) + raw.reasoning_bytes
        reported = raw.usage or Usage()
        fewest = -(-came // LONGEST_TOKEN_BYTES)
        if reported.prompt_tokens and reported.output_tokens >= fewest:
            return reported
        tell(
            "the server does not say, or not credibly, how many tokens were used; "
            "bytes are counted instead"
        )
        return replace(
            reported,
            input_tokens=reported.input_tokens
            if reported.prompt_tokens
            else self.worst_tokens(prompt)[0],
            output_tokens=reported.output_tokens
            if reported.output_tokens >= max(1, fewest)
            else came,
            estimated=True,
        )


def base_url(entry: ModelEntry, writing: Writing) -> str:
    """Return the address to call. ``check_settings`` has made sure that there is one."""
    return writing.base_url or entry.base_url or ""


def answer_tokens(entry: ModelEntry, writing: Writing) -> int:
    """Return how many tokens an answer may have."""
    return writing.max_answer_tokens or min(entry.answer_tokens, entry.max_output_tokens)


def options(entry: ModelEntry, writing: Writing) -> dict[str, Any]:
    """Return the parts of a request's body that the table and the settings decide."""
    body = deepcopy(entry.extra_body)
    if writing.temperature is not None:
        body["temperature"] = writing.temperature
    if writing.effort is not None and entry.effort is not None:
        *path, last = entry.effort.field.split(".")
        place = body
        for name in path:
            place = place.setdefault(name, {})
        place[last] = entry.effort.sent(writing.effort)
    return body


def system_text(entry: ModelEntry, prompt: Prompt) -> str:
    """Return the prompt's system text, after the prefix that the model needs, if any."""
    return encodable("\n\n".join(t for t in (entry.system_prefix, prompt.system) if t))


def turn_text(turn: Turn) -> str:
    """Return a message's text, never empty."""
    return encodable(turn.text) if turn.text.strip() else EMPTY_MESSAGE


def _content_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.2f} s"
