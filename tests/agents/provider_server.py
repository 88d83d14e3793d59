"""A fake provider on 127.0.0.1: real HTTP, both protocols, responses that a test scripts.

    from agents.provider_server import QUICK, answer, model_on, provider, status

    def test_something(provider, monkeypatch):
        monkeypatch.setenv("TEST_KEY", "sk-…")
        provider.script(status(429, headers={"retry-after": "1"}), answer("hello"))
        client = make_client(model_on(provider, "openai"), patience=QUICK)

A script is a list of responses; each request, from any thread, takes the next one. When none is
left, ``provider.otherwise`` is used: a response, or a function that returns one for a request.
A request to ``…/messages`` is answered in Anthropic's wire format, a request to
``…/chat/completions`` in OpenAI's. The formats are written by hand after the providers' published
streaming examples; ``recorded`` sends what a llama.cpp server sent, byte for byte (wire/).
No paid API was called.
"""

import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents.loopback import Loopback
from harness.agents.catalogue import ModelEntry
from harness.agents.clients.patience import RetryTimes

WIRE = Path(__file__).with_name("wire")
HANGS_S = 60.0
"""Seconds after which a step has failed. On the slowest machine none takes a tenth of this."""
QUICK = RetryTimes(
    outage_s=HANGS_S, first_s=0.01, longest_s=0.05, idle_s=2 * HANGS_S, total_s=2 * HANGS_S
)
"""Short waits after failures, and time-outs too long for a busy machine to reach."""


@pytest.fixture
def provider() -> Iterator["Provider"]:
    """A provider that answers "ok" unless the test sets other responses."""
    server = Provider()
    yield server
    server.close()


def model_on(provider: "Provider", protocol: str, **more: Any) -> ModelEntry:
    """Return a model on a fake provider; its key is in $TEST_KEY. ``more`` replaces values."""
    values = {
        "name": "test-model",
        "title": "A model for tests",
        "provider": protocol,
        "model": "the-model",
        "base_url": provider.base_url(protocol),
        "key": "TEST_KEY",
        "context_tokens": 100_000,
        "max_output_tokens": 4_000,
        "cache_control": protocol == "anthropic",
    }
    return ModelEntry(**{**values, **more})


def agents_file(place: Path, **agents: dict[str, Any]) -> Path:
    """Write a table of agents, each with its values, to ``place``; return that path."""
    tables = ["format = 1"]
    for name, values in agents.items():
        tables.append(f"[agents.{name}]")
        tables += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    place.write_text("\n".join(tables) + "\n")
    return place


@dataclass(frozen=True)
class Request:
    """One request that the provider received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def protocol(self) -> str:
        return "anthropic" if self.path.endswith("/messages") else "openai"

    @property
    def text(self) -> str:
        """The system text and the messages of the prompt, as JSON."""
        return json.dumps([self.body.get("system"), self.body.get("messages")])


@dataclass(frozen=True)
class Response:
    """A response; ``send`` writes it to an open connection."""

    send: Callable[["Handler", Request], None]


def answer(
    text: str = "ok",
    *,
    stop: str = "end",
    input_tokens: int = 10,
    cached: int = 0,
    cache_write: int = 0,
    output_tokens: int = 5,
    thinking: str = "",
    reasoning_tokens: int = 0,
    delay_s: float = 0.0,
    cut_after: int | None = None,
    usage: bool = True,
) -> Response:
    """Return a response that streams an answer.

    ``stop`` is end, length, refusal, or another reason, which is sent as it is. ``delay_s`` seconds
    pass before each event. After ``cut_after`` events the connection is closed.
    """

    def send(handler: "Handler", request: Request) -> None:
        make = _anthropic if request.protocol == "anthropic" else _openai
        counts = (input_tokens, cached, cache_write, output_tokens, reasoning_tokens)
        events = list(make(text, stop, counts, thinking, usage))
        handler.begin(200, {"content-type": "text/event-stream"})
        for number, event in enumerate(events):
            if number == cut_after:
                handler.break_off()
                return
            if delay_s:
                time.sleep(delay_s)
            if number == len(events) - 1:
                handler.done()
            handler.chunk(event)
        handler.end()

    return Response(send)


def status(
    code: int,
    kind: str = "",
    message: str = "no",
    *,
    headers: dict[str, str] | None = None,
    error_code: str | None = None,
) -> Response:
    """Return a response with this status and the protocol's own error body."""

    def send(handler: "Handler", request: Request) -> None:
        if request.protocol == "anthropic":
            inner: dict[str, Any] = {"type": kind or "api_error", "message": message}
            if error_code:
                inner["details"] = {"error_code": error_code}
            body: dict[str, Any] = {"type": "error", "error": inner, "request_id": "req_1"}
        else:
            body = {"error": {"message": message, "type": kind, "param": None, "code": error_code}}
        handler.whole(code, json.dumps(body).encode(), headers or {})

    return Response(send)


def raw(content: bytes, code: int = 200, content_type: str = "text/event-stream") -> Response:
    """Return a response whose body is exactly these bytes."""
    return Response(lambda h, _: h.whole(code, content, {"content-type": content_type}))


def recorded(protocol: str) -> Response:
    """Return what llama.cpp's server sent, from the status line to the end of the last chunk."""
    content = (WIRE / f"llamacpp-{protocol}.http").read_bytes()

    def send(handler: "Handler", _: Request) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return Response(send)


def error_in_stream(kind: str) -> Response:
    """Return a response with status 200 that is an error event, as overloaded providers send it."""
    inner = {"type": kind, "message": "no", "code": kind}
    data = json.dumps({"type": "error", "error": inner}).encode()
    return raw(b"event: error\ndata: " + data + b"\n\n")


def silent(seconds: float = 3600.0) -> Response:
    """Return a response that sends nothing for ``seconds``, then closes the connection."""

    def send(handler: "Handler", _: Request) -> None:
        handler.server.provider.stopping.wait(seconds)
        handler.break_off()

    return Response(send)


def after(event: threading.Event, response: Response) -> Response:
    """Return a response that waits for the event (HANGS_S at most), then sends ``response``."""

    def send(handler: "Handler", request: Request) -> None:
        event.wait(HANGS_S)
        response.send(handler, request)

    return Response(send)


def as_it_comes(event: threading.Event, response: Response) -> Response:
    """Return a response that sets the event when the request comes, then sends ``response``."""

    def send(handler: "Handler", request: Request) -> None:
        event.set()
        response.send(handler, request)

    return Response(send)


def endless(pause_s: float = 0.0) -> Response:
    """Return a response that streams text without end."""

    def send(handler: "Handler", request: Request) -> None:
        handler.begin(200, {"content-type": "text/event-stream"})
        make = _anthropic if request.protocol == "anthropic" else _openai
        first, *_ = make("x", "end", (1, 0, 0, 1, 0), "", True)
        handler.chunk(first)
        piece = _delta(request.protocol, "x" * (20 if pause_s else 4000))
        while not handler.server.provider.stopping.is_set():
            handler.chunk(piece)
            if pause_s:
                time.sleep(pause_s)

    return Response(send)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    now = 0
    """1 while a call of this connection is under way."""

    def done(self) -> None:
        """Count the call as ended. This comes before the client can see its end."""
        provider = self.server.provider
        with provider.lock:
            provider.now -= self.now
            self.now = 0

    def do_GET(self) -> None:
        self.server.provider.take(self, {})

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionError("the client went away")
        self.server.provider.take(self, json.loads(body))

    def begin(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "transfer-encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def whole(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.done()
        self.send_response(code)
        for name, value in {
            "content-type": "application/json",
            **headers,
            "content-length": str(len(data)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def break_off(self) -> None:
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class _Server(Loopback, HTTPServer):
    provider: "Provider"


@dataclass
class Provider:
    """The fake provider: the requests that it received, the responses that it sends."""

    otherwise: Response | Callable[[Request], Response] = field(default_factory=answer)
    requests: list[Request] = field(default_factory=list)
    """Requests for an answer, in the order in which they came."""
    looked: list[Request] = field(default_factory=list)
    """Requests for the list of models."""
    models: Response = field(
        default_factory=lambda: raw(b'{"data": [], "has_more": false}', 200, "application/json")
    )
    most_at_once: int = 0
    lost: int = 0
    """Responses that could not be sent because the client had closed the connection."""

    def __post_init__(self) -> None:
        self.stopping = threading.Event()
        self.lock = threading.Condition()
        self._script: deque[Response] = deque()
        self.now = 0
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.provider = self
        self._server.begin()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def base_url(self, protocol: str) -> str:
        """Return the address to give as a model's base URL."""
        return self.origin if protocol == "anthropic" else f"{self.origin}/v1"

    def script(self, *responses: Response) -> None:
        """Queue responses, one for each request."""
        with self.lock:
            self._script.extend(responses)

    def until(self, under_way: int) -> None:
        """Wait until exactly this many calls are under way."""
        with self.lock:
            assert self.lock.wait_for(lambda: self.now == under_way, HANGS_S), "they never came"

    def wrap(self, context: ssl.SSLContext) -> None:
        """Use TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def take(self, handler: Handler, body: dict[str, Any]) -> None:
        request = Request(handler.path, {k.lower(): v for k, v in handler.headers.items()}, body)
        if handler.path.split("?")[0].endswith("/models"):
            self.looked.append(request)
            self.models.send(handler, request)
            return
        with self.lock:
            self.requests.append(request)
            self.now += 1
            handler.now = 1
            self.most_at_once = max(self.most_at_once, self.now)
            self.lock.notify_all()
            response = self._script.popleft() if self._script else None
        if response is None:
            response = self.otherwise if isinstance(self.otherwise, Response) else None
        if response is None:
            assert not isinstance(self.otherwise, Response)
            response = self.otherwise(request)
        try:
            response.send(handler, request)
        except OSError:
            self.lost += 1
            handler.close_connection = True
        finally:
            handler.done()

    def close(self) -> None:
        self.stopping.set()
        self._server.end()


Counts = tuple[int, int, int, int, int]


def _anthropic(text: str, stop: str, counts: Counts, thinking: str, usage: bool) -> Iterator[bytes]:
    fresh, cached, written, output, thought = counts
    before = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": 1,
        "service_tier": "standard",
    }
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "model-that-answered",
        "stop_reason": None,
        "stop_sequence": None,
    } | ({"usage": before} if usage else {})
    yield event({"type": "message_start", "message": message})
    place = 0
    if thinking:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        yield event({"type": "content_block_start", "index": 0, "content_block": block})
        delta = {"type": "thinking_delta", "thinking": thinking}
        yield event({"type": "content_block_delta", "index": 0, "delta": delta})
        delta = {"type": "signature_delta", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}
        yield event({"type": "content_block_delta", "index": 0, "delta": delta})
        yield event({"type": "content_block_stop", "index": 0})
        place = 1
    yield event({"type": "ping"})
    if text:
        block = {"type": "text", "text": ""}
        yield event({"type": "content_block_start", "index": place, "content_block": block})
        for piece in _pieces(text):
            yield _delta("anthropic", piece, place)
        yield event({"type": "content_block_stop", "index": place})
    reason = {"end": "end_turn", "length": "max_tokens", "refusal": "refusal"}.get(stop, stop)
    delta = {"stop_reason": reason, "stop_sequence": None}
    after = {"output_tokens": output, "output_tokens_details": {"thinking_tokens": thought}}
    yield event({"type": "message_delta", "delta": delta} | ({"usage": after} if usage else {}))
    yield event({"type": "message_stop"})


def _openai(text: str, stop: str, counts: Counts, thinking: str, usage: bool) -> Iterator[bytes]:
    fresh, cached, written, output, thought = counts
    yield _chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}}])
    if thinking:
        yield _chunk([{"index": 0, "delta": {"reasoning_content": thinking}}])
        yield _chunk([{"index": 0, "delta": {"reasoning": thinking}}])
    for piece in _pieces(text):
        yield _delta("openai", piece)
    reason = {"end": "stop", "refusal": "content_filter"}.get(stop, stop)
    yield _chunk([{"index": 0, "delta": {}, "finish_reason": reason}])
    if usage:
        yield _chunk(
            [],
            usage={
                "prompt_tokens": fresh + cached + written,
                "completion_tokens": output,
                "total_tokens": fresh + cached + written + output,
                "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
                "completion_tokens_details": {"reasoning_tokens": thought},
            },
        )
    yield b"data: [DONE]\n\n"


def _delta(protocol: str, text: str, place: int = 0) -> bytes:
    if protocol == "anthropic":
        delta = {"type": "text_delta", "text": text}
        return event({"type": "content_block_delta", "index": place, "delta": delta})
    return _chunk([{"index": 0, "delta": {"content": text}}])


def _pieces(text: str) -> list[str]:
    return [text[i : i + 7] for i in range(0, len(text), 7)]


def event(data: dict[str, Any]) -> bytes:
    """Return an event of a stream in Anthropic's format."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "model-that-answered",
        "system_fingerprint": "fp_1",
        "choices": [{"finish_reason": None, "logprobs": None} | c for c in choices],
    }
    return f"data: {json.dumps(data | more)}\n\n".encode()
