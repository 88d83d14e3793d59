"""Tests of how numbers are shown."""

import pytest

from harness.base.numbers import counted, money, number, short_count


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (12_345, "12.3k"), (999_499, "999k"), (999_500, "1M"),
     (1_048_576, "1.05M"), (2.5e9, "2.5G")],
)  # fmt: skip
def test_a_count_has_three_digits_and_never_an_exponent(count, text):
    assert short_count(count) == text


def test_what_is_unknown_is_a_dash_and_small_sums_are_not_shown_as_nothing():
    assert [number(v) for v in (None, 0.5)] == ["–", "0.5000"]
    assert [money(v) for v in (0.0, 0.0042, 0.01, 1234.5)] == ["0", "0.004", "0.01", "1,234.50"]
    assert [counted(n, "run") for n in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]
