"""How long to wait: back-off, a provider's own advice, time-outs. The waiting is in client.py."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random


@dataclass(frozen=True, slots=True)
class RetryTimes:
    """Limits in seconds. An outage lasts from the first failed try to the next successful one."""

    outage_s: float = 1800.0
    """How long one outage may last before the call fails for good."""
    first_s: float = 1.0
    longest_s: float = 60.0
    """Waits double from ``first_s`` to ``longest_s`` if the provider advises none."""
    idle_s: float = 600.0
    """How long a server may send nothing; models that reason without output take minutes."""
    total_s: float = 3600.0
    """How long one answer may take."""

    def delay_s(self, tries: int, advised_s: float | None, rng: Random) -> float:
        """Return how many seconds to wait after so many failed tries.

        Never less than advised; the jitter keeps many callers from retrying at the same time.
        """
        if advised_s is not None:
            return advised_s * (1 + 0.1 * rng.random())
        # The exponent is bounded before the power is taken: tries can be many.
        longest = min(self.longest_s, self.first_s * 2.0 ** min(tries - 1, 30))
        return longest * (0.5 + 0.5 * rng.random())


def advised_wait_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return how many seconds a refusal's headers ask to wait, or None.

    ``retry-after-ms``, ``retry-after`` in seconds or as a date; else the latest reset among the
    rate limits that have nothing left: RFC 3339 dates (Anthropic), durations (OpenAI: "6m0s").
    """
    now = now or datetime.now(UTC)
    ms = _number(headers.get("retry-after-ms", ""))
    if ms is not None:
        return ms / 1000
    after = headers.get("retry-after", "")
    if after:
        return _first(_number(after), _until(after, now))
    resets = [
        _first(_duration(value), _until(value, now))
        for name, value in headers.items()
        if (left := _twin(name.lower())) and headers.get(left, "").strip() == "0"
    ]
    return max((r for r in resets if r is not None), default=None)


def _twin(name: str) -> str | None:
    """Return the header with what is left of a rate limit, given the header with its reset."""
    if name.startswith("anthropic-ratelimit-") and name.endswith("-reset"):
        return name.removesuffix("reset") + "remaining"
    if name.startswith("x-ratelimit-reset-"):
        return name.replace("-reset-", "-remaining-")
    return None


def _first(*values: float | None) -> float | None:
    return next((v for v in values if v is not None), None)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*\d{1,9}(\.\d{0,9})?\s*", text) else None


def _until(text: str, now: datetime) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            when = read(text)
        except (ValueError, TypeError, OverflowError):
            continue
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - now).total_seconds())
    return None


def _duration(text: str) -> float | None:
    match = re.fullmatch(
        r"\s*(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?"
        r"(?:(\d{1,9})ms)?\s*",
        text,
    )
    if not match or not any(match.groups()):
        return None
    days, hours, minutes, seconds, ms = (float(g or 0) for g in match.groups())
    return timedelta(
        days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=ms
    ).total_seconds()
