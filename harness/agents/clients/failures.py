"""What went wrong with a try, in our words: whether to try again, and what to tell the user.

Both SDKs generate the same shape of error, so one reading serves both. Of what a provider
wrote, only its message is kept, cleaned: bodies and headers can repeat a key.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from harness.agents.clients.patience import advised_wait_s
from harness.agents.clients.wire import Refused
from harness.agents.redaction import without_key
from harness.errors import ConfigError, HarnessError, ProviderError

_AGAIN = {408, 409, 425, 429}
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

# Errors inside a stream come with status 200: only their type says what they are.
_TYPES = {
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "api_error": 500,
    "server_error": 500,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "billing_error": 402,
    "insufficient_quota": 402,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
}
_OUT_OF_MONEY = re.compile(r"insufficient_quota|billing|spend_limit|credit_balance|hard_limit")


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try."""

    what: str
    again: bool
    status: int | None = None
    """None where the server did not say."""
    advised_s: float | None = None
    said: str = ""
    out_of_money: bool = False
    unreachable: bool = False
    lost: bool = False
    """Whether the request was sent and no answer, not even a refusal, came whole."""

    def final(self, agent: str, key: str | None) -> HarnessError:
        """Return what to raise where it is not tried again."""
        if self.status in (401, 403):
            return ConfigError(
                f"Agent {agent}: the provider refused the key ({self.status}).",
                remedy=f"set {key} to a key that may use this model"
                if key
                else "name the variable of its key in your own table (docs/models.md)",
            )
        if self.out_of_money:
            return ProviderError(
                f"Agent {agent}: the account has no money or quota left.",
                cause=self.said,
                remedy="raise the limit with the provider, then: harness resume RUN",
            )
        if self.status is not None and 300 <= self.status < 500 and not self.again:
            return ConfigError(
                f"Agent {agent}: the provider refused the request ({self.status}).",
                cause=self.said,
                remedy="harness agents shows the model's id, address and limits; "
                "your own table can change them (docs/models.md)",
            )
        return ProviderError(f"Agent {agent}: {self.what}.", cause=self.said)


def judge(error: Exception, secret: str) -> Failure | None:
    """Return what an exception from an SDK means; None where it is not a provider's failure."""
    if isinstance(error, Refused):
        return Failure(str(error), again=False)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | Malformed):
        return Failure("the server sent what is no answer", again=True)
    names = {c.__name__ for c in type(error).__mro__}
    # OpenAI's SDK wraps what the transport raises, Anthropic's does so only before the stream.
    cause = error.__cause__ if "APIConnectionError" in names else error
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return Failure("no connection", again=True, unreachable=True)
    if isinstance(cause, httpx2.TimeoutException) or "APITimeoutError" in names:
        return Failure("the server went silent", again=True)
    if isinstance(cause, httpx2.TransportError | httpx2.StreamError) or cause is not error:
        return Failure("the connection was lost", again=True)
    if "APIError" in names or "APIResponseValidationError" in names:
        return _judge_status(error, secret)
    return None


class Malformed(Exception):  # noqa: N818 (never shown: judge turns it into words)
    """A stream that parses but makes no sense, or ends before its end."""


def _judge_status(error: Any, secret: str) -> Failure:  # noqa: ANN401 (either SDK's)
    body = error.body if isinstance(error.body, Mapping) else {}
    inner = body.get("error", body)
    inner = inner if isinstance(inner, Mapping) else {}
    details = inner.get("details")
    deeper = details.get("error_code") if isinstance(details, Mapping) else None
    kinds = [k for k in (deeper, inner.get("code"), inner.get("type")) if isinstance(k, str)]
    status = getattr(error, "status_code", None)
    if status is None or status < 300:
        status = next((_TYPES[k] for k in kinds if k in _TYPES), 500)
    response = getattr(error, "response", None)
    headers = response.headers if response is not None else {}
    out_of_money = status == 402 or any(_OUT_OF_MONEY.search(k) for k in kinds)
    again = (status in _AGAIN or (status >= 500 and status != 501)) and not out_of_money
    if headers.get("x-should-retry", "").lower() == "false":
        again = False
    # Not every server wraps its words as its protocol says.
    words = (inner.get("message"), body.get("error"), body.get("detail"), error.body)
    message = next((w for w in words if isinstance(w, str)), "")
    return Failure(
        f"{_NAMES.get(status, 'refused' if status < 500 else 'server error')} ({status})",
        again=again,
        status=status,
        advised_s=advised_wait_s(headers) if again else None,
        said=cleaned(message, secret),
        out_of_money=out_of_money,
    )


def cleaned(text: str, secret: str, most: int = 300) -> str:
    """Return what a provider said, fit for a screen: one line, no escapes, no key."""
    text = without_key(text, secret)
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"
