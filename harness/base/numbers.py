"""Shows numbers to people: scores, counts, dollars."""


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with a fixed number of decimals, a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def short_count(count: float) -> str:
    """Return a count in three digits: 999, 12.3k, 1.5M, 2G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:  # less would round to 999 of the next smaller letter
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def money(dollars: float) -> str:
    """Return dollars with two decimals, below 0.01 with one significant digit."""
    return f"{dollars:,.2f}" if dollars >= 0.01 else f"{dollars:.1g}"


def counted(count: int, what: str) -> str:
    """Return how many of something there are: 1 run, 2,000 runs."""
    return f"{count:,} {what}{'s' * (count != 1)}"
