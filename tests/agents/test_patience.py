"""How long to wait: what a provider's headers ask for, and the back-off without them."""

from datetime import UTC, datetime
from random import Random

import pytest

from harness.agents.clients.patience import RetryTimes, advised_wait_s

NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Thu, 26 Nov 2026 12:01:30 GMT"}, 90),
        ({"retry-after": "Thu, 26 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, None),
        # Anthropic: only a limit that has nothing left counts.
        (
            {
                "anthropic-ratelimit-requests-remaining": "40",
                "anthropic-ratelimit-requests-reset": "2026-11-26T12:09:00Z",
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": "2026-11-26T12:00:20Z",
            },
            20,
        ),
        # OpenAI: durations.
        (
            {
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "120ms",
            },
            360,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5s"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": ""}, None),
    ],
)
def test_advice_is_read(headers, seconds):
    assert advised_wait_s(headers, NOW) == seconds


def test_waits_grow_to_their_longest_with_jitter():
    patience = RetryTimes(first_s=1, longest_s=60)
    waits = [patience.delay_s(n, None, Random(n)) for n in range(1, 2000)]
    assert 0.5 <= waits[0] <= 1
    assert 4 <= waits[3] <= 8
    assert all(30 <= w <= 60 for w in waits[6:])
    assert len({round(w, 3) for w in waits[6:]}) > 100


def test_advice_is_never_undercut():
    assert all(12 <= RetryTimes().delay_s(1, 12.0, Random(n)) <= 13.2 for n in range(50))
