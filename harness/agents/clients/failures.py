"""Turns the error of one try into a ``Failure``: whether to try again, what to tell the user.

The same code reads errors of both SDKs, of every status, and those sent with status 200. Only a
provider's message is kept, and it is cleaned: bodies and headers can repeat a key. The waiting
and the retries are in client.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx2

from harness.agents.clients.events import Malformed, ServerError, json_or_words
from harness.agents.clients.fields import as_object, get_list, get_object, get_text
from harness.agents.clients.patience import advised_wait_s
from harness.agents.clients.proxy import Proxy
from harness.agents.clients.wire import ResponseRefused
from harness.agents.redaction import without_key
from harness.base.errors import ConfigError, HarnessError, ProviderError
from harness.base.text import one_line

LONGEST = 300
"""The most characters that are kept of a provider's message."""

_AGAIN = {408, 409, 425, 429}
_PROXIES = {403, 502, 503, 504}
"""Statuses that a proxy which forwards a call may itself answer with, besides 407."""
_NAMES = {
    408: "time-out",
    409: "conflict",
    429: "rate limit",
    500: "server error",
    502: "bad gateway",
    503: "unavailable",
    504: "gateway time-out",
    529: "overloaded",
}

# The names of errors at OpenAI, Anthropic, Google (gRPC), vLLM, llama.cpp, LiteLLM, in snake
# case and without "_error" or "_exception" at the end.
_KINDS = {
    name: status
    for status, names in {
        400: "invalid_request bad_request invalid_argument failed_precondition out_of_range value "
        "invalid_prompt context_length_exceeded context_window_exceeded exceed_context_size "
        "content_policy_violation unsupported not_supported unsupported_parameter "
        "unsupported_value",
        401: "authentication unauthenticated unauthorized invalid_api_key",
        402: "billing insufficient_quota payment_required insufficient_funds",
        403: "permission permission_denied forbidden",
        404: "not_found model_not_found",
        408: "request_timeout",
        413: "request_too_large payload_too_large",
        422: "unprocessable_entity validation request_validation",
        429: "rate_limit rate_limit_exceeded too_many_requests resource_exhausted throttling",
        500: "api server internal internal_server",
        502: "bad_gateway",
        503: "service_unavailable unavailable engine_overloaded",
        504: "timeout gateway_timeout deadline_exceeded",
        529: "overloaded",
    }.items()
    for name in names.split()
}
_OUT_OF_MONEY = re.compile(r"insufficient_quota|billing|spend_limit|credit_balance|hard_limit")
_TOO_LONG = re.compile(r"context (length|window|size)|maximum context|too (long|large)", re.I)
_WRONG = re.compile(
    r"not found|no such|does not exist|unknown model|unsupported|not supported|invalid|bad request|"
    r"field required",
    re.I,
)
"""Words that show, in an error without a code, that the request will never be accepted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try."""

    what: str
    again: bool
    status: int | None = None
    """None if the server did not say."""
    advised_s: float | None = None
    said: str = ""
    remedy: str = ""
    out_of_money: bool = False
    unreachable: bool = False
    by_intermediary: bool = False
    """Whether a proxy or login page before the provider refused the call; ``what`` names it."""
    unclear: bool = False
    """Whether a retry may not succeed either: ``client.MAX_UNCLEAR_TRIES`` limits such tries."""
    lost: bool = False
    """Whether an answer was lost, if the whole request was sent: the provider may charge for it."""

    @property
    def sentence(self) -> str:
        """What happened, with the server's message, for one line on the screen."""
        if not self.said:
            return self.what
        return f'{self.what}: "{self.said if len(self.said) <= 160 else self.said[:159] + "…"}"'

    def final(self, agent: str, key: str | None) -> HarnessError:
        """Return the error to raise if there is no further try."""
        if self.by_intermediary:
            return ConfigError(f"Agent {agent}: {self.what}.", cause=self.said, remedy=self.remedy)
        if self.status in (401, 403):
            return ConfigError(
                f"Agent {agent}: the provider refused the key ({self.status}).",
                cause=self.said,
                remedy=f"set {key} to a key that may use this model"
                if key
                else "name the variable of its key in your own table (docs/guides/models.md)",
            )
        if self.out_of_money:
            return ProviderError(
                f"Agent {agent}: the account has no money or quota left.",
                cause=self.said,
                remedy="raise the limit with the provider, then: harness resume RUN",
            )
        refused = self.status is not None and 300 <= self.status < 500 and not self.again
        if refused and self.status not in _AGAIN:  # a rate limit that is not to be asked again
            return ConfigError(
                f"Agent {agent}: the provider refused the request ({self.status}).",
                cause=self.said,
                remedy="harness agents shows the model's id, address and limits; "
                "your own table can change them (docs/guides/models.md)",
            )
        return ProviderError(f"Agent {agent}: {self.what}.", cause=self.said, remedy=self.remedy)


def classify_error(error: Exception, secret: str, proxy: Proxy | None) -> Failure | None:
    """Return the failure that an exception from an SDK means; None if it is another error.

    ``proxy`` is the proxy that the call went through, if any.
    """
    if isinstance(error, ResponseRefused):
        return Failure(str(error), again=False, lost=True)
    if isinstance(error, Malformed):
        return Failure(str(error), again=True, unclear=True, lost=True)
    if isinstance(error, ServerError):
        return _classify_response(error.response, error.body, secret, proxy, begun=error.begun)
    names = {c.__name__ for c in type(error).__mro__}
    # The SDKs wrap errors that the transport raises before the answer begins.
    cause = error.__cause__ if "APIConnectionError" in names else error
    if isinstance(cause, httpx2.ProxyError) and proxy is not None:
        return _refused_by(proxy, str(cause), secret)
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return _unconnected(str(cause), secret, proxy)
    through = f", through {proxy}" if proxy else ""
    if isinstance(cause, httpx2.TimeoutException) or "APITimeoutError" in names:
        return Failure(f"the server went silent{through}", again=True, lost=True)
    if isinstance(cause, httpx2.TransportError | httpx2.StreamError) or cause is not error:
        return Failure(f"the connection was lost{through}", again=True, lost=True)
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response):
        body = json_or_words(response.content)  # which the SDK has already read
        return _classify_response(response, body, secret, proxy, begun=False)
    return None


def _unconnected(why: str, secret: str, proxy: Proxy | None) -> Failure:
    said = cleaned(why, secret)
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return Failure(
            f"the server's certificate is not trusted{f', through {proxy}' if proxy else ''}",
            again=False,
            said=said,
            remedy="name a file with the certificate that signed it: export SSL_CERT_FILE=FILE",
            unreachable=True,
        )
    if proxy is None:
        return Failure("no connection", again=True, said=said, unreachable=True)
    return Failure(
        f"no connection through {proxy}",
        again=True,
        said=said,
        remedy=f"start the proxy, or unset {proxy.variable}, or name the server in NO_PROXY",
        unreachable=True,
    )


def _refused_by(proxy: Proxy, said: str, secret: str, advised_s: float | None = None) -> Failure:
    """Return the failure for a proxy's refusal; ``said`` begins with its status, if any."""
    status = int(said[:3]) if said[:3].isdigit() else None
    busy = status is not None and _passes(status)
    remedy = f"ask whoever runs it, or name the server in NO_PROXY, or unset {proxy.variable}"
    if status == 407:
        remedy = f"give it a name and a password: {proxy.variable}=http://NAME:PASSWORD@HOST:PORT"
    return Failure(
        f"{proxy} refused the connection ({status or 'no reason given'})",
        again=busy,
        advised_s=advised_s,
        said=cleaned(said, secret),
        remedy=remedy,
        unreachable=busy,
        by_intermediary=not busy,
    )


def _classify_response(
    response: httpx2.Response, body: object, secret: str, proxy: Proxy | None, *, begun: bool
) -> Failure:
    """Return the failure for a response that is an error or does not come from an API."""
    status: int | None = response.status_code
    said = cleaned(_sentence(body) or _pointed(response), secret)
    advised_s = advised_wait_s(response.headers)
    # An API refuses in JSON; a proxy sends text.
    by_proxy = proxy and proxy.forwards and isinstance(body, str) and status in _PROXIES
    if proxy and (status == 407 or by_proxy):
        return _refused_by(proxy, f"{status} {said}", secret, advised_s=advised_s)
    if _is_markup(body) and status in (200, 401, 403, 511):
        through = f", through {proxy}" if proxy else ""
        return Failure(
            f"a web page came instead of an answer ({status}){through}",
            again=False,
            said=said,
            remedy="look whether the address is an API's (--base-url), and whether a login page "
            "or a proxy stands before it",
            by_intermediary=True,
        )
    kinds = list(_kinds(body))
    status = _meant(response.status_code, kinds, "" if _is_markup(body) else said)
    out_of_money = status == 402 or any(_OUT_OF_MONEY.search(kind) for kind in kinds)
    again = status is None or _passes(status)
    if out_of_money or response.headers.get("x-should-retry", "").lower() == "false":
        again = False
    what = "an error instead of an answer"
    if status is not None:
        name = _NAMES.get(status, "refused" if status < 500 else "server error")
        what = f"{name} ({status})"
    return Failure(
        what,
        again=again,
        status=status,
        advised_s=advised_s if again else None,
        said=said,
        out_of_money=out_of_money,
        unclear=status is None,
        lost=begun,
    )


def _passes(status: int) -> bool:
    """Return whether a later try may get another answer."""
    return status in _AGAIN or (status >= 500 and status != 501)


def _meant(status: int, kinds: list[str], said: str) -> int | None:
    """Return the status that an error means; None if neither its codes nor its words show it."""
    meant = next((s for s in map(_status_of, kinds) if s is not None), None)
    unknown = meant is None and status < 300
    if meant in (None, 500) and (_TOO_LONG.search(said) or (unknown and _WRONG.search(said))):
        meant = 400
    if status < 300:
        return meant
    # Some servers report a wrong request as a server error (500).
    wrong = status == 500 and meant is not None and meant < 500 and meant not in _AGAIN
    return meant if wrong else status


def _layers(body: object) -> Iterator[Mapping[str, object]]:
    """Yield the objects of a body that may describe the error, the most specific first."""
    body = body[0] if isinstance(body, list) and body else body
    inner = get_object(body, "error")
    yield from (get_object(inner, "details"), get_object(body, "details"), inner)
    for name in ("detail", "errors"):
        yield from (get_object(body, name), *map(as_object, get_list(body, name)[:1]))
    yield as_object(body)


def _kinds(body: object) -> Iterator[str]:
    for layer in _layers(body):
        for name in ("error_code", "code", "status_code", "status", "type", "reason"):
            value = layer.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool):
                yield str(value)[:100]


def _status_of(kind: str) -> int | None:
    if re.fullmatch(r"[45]\d\d", kind):
        return int(kind)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower().replace("-", "_").replace(" ", "_")
    return _KINDS.get(re.sub(r"_(error|exception)$", "", name))


def _sentence(body: object) -> str:
    """Return the server's message; not every server puts it where its protocol says."""
    if isinstance(body, str):
        title = re.search(r"<title[^>]*>(.{1,400}?)</title", body, re.IGNORECASE | re.DOTALL)
        return title[1] if title else re.sub(r"<[^<>]{0,400}>", " ", body[:4000])
    layers = list(_layers(body))
    for name in ("message", "msg", "error", "detail"):
        if said := next((text for layer in layers if (text := get_text(layer, name))), ""):
            return said
    return ""


def _pointed(response: httpx2.Response) -> str:
    where = response.headers.get("location", "")
    return f"it points to {where}" if where and 300 <= response.status_code < 400 else ""


def _is_markup(body: object) -> bool:
    return isinstance(body, str) and body.lstrip("\ufeff \t\r\n").startswith("<")


def cleaned(text: str, secret: str) -> str:
    """Return a provider's message, fit for a screen: one line, no escape sequences, no key."""
    return one_line(without_key(text, secret)[: 4 * LONGEST], LONGEST)
