"""The gate's verdicts as plain text, and as JUnit XML for CI servers. gate.py makes their JSON."""

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from harness.base.numbers import counted
from harness.base.text import clean
from harness.report.comparison import bounded, by_seed
from harness.report.gate import AllowedDrop, GateResult, exit_code
from harness.report.stats.intervals import FEWEST
from harness.report.stats.paired import Difference

WORDS = {0: "no regression", 1: "REGRESSION", 5: "cannot tell"}


def text_of(checked: Iterable[GateResult], drop: AllowedDrop, level: float) -> str:
    """Return all verdicts as text."""
    found = list(checked)
    lines = [line for one in found for line in _lines(one)]
    code = exit_code(found)
    lines.append(
        f"{WORDS[code]} (exit {code}): allowed to drop {drop}; {100 * (1 - level):g}% intervals of "
        f"the paired difference, alarms over {len(found)} together by Holm"
    )
    return clean("\n".join(lines), 1 << 20)


def _lines(one: GateResult) -> Iterator[str]:
    yield f"{one.verdict}: {one.pairing.task}, {one.who}"
    test, call = one.test, one.call
    if test is None:
        yield "  no pair of the same task and seed"
    elif test.identical:
        yield f"  {test.n} pairs, every score identical to the last digit"
    elif test.low is None or test.high is None:
        yield f"  1 pair, difference {test.mean:+.4f}: one pair has no spread to judge it by"
    else:
        yield (
            f"  {test.n} pairs, difference {test.mean:+.4f}{_spread(one, test)}, "
            f"better is positive; allowed -{one.margin:.4g}"
        )
    if test is not None and call.power is not None and not test.identical:
        yield (
            f"  p of no regression {call.p:.3g}; power: {test.n} such pairs pass a change that "
            f"changes nothing in {100 * call.power:.0f} of 100 cases"
        )
    if one.verdict == "cannot tell":
        yield f"  {_further(one)}"
    yield from (f"  {note}" for note in one.notes)


def _spread(one: GateResult, test: Difference) -> str:
    """Return the interval, cut to the largest possible difference; of 2 pairs, both differences."""
    a, b = one.pairing.a, one.pairing.b
    if a is None or b is None:
        return ""
    if test.paired and test.n < FEWEST:
        return f" ({', '.join(f'{d:+.4f}' for d in by_seed(a, b).values())})"
    low, high = bounded(test, a.metric)
    return f" [{low:+.4f}, {high:+.4f}]"


def _further(one: GateResult) -> str:
    if one.pairing.reason:
        return "more seeds will not settle it"
    if one.call.further_seeds is None:
        return "more seeds will hardly settle it: the difference is at the limit"
    further = counted(one.call.further_seeds, "further seed")
    return f"{further} would settle it, if they are like these"


def junit(checked: Iterable[GateResult], drop: AllowedDrop, level: float) -> str:
    """Return JUnit XML: "regression" is a failure, "cannot tell" is an error."""
    found = list(checked)
    verdicts = [one.verdict for one in found]
    suite = ET.Element(
        "testsuite",
        name="harness check",
        tests=str(len(found)),
        failures=str(verdicts.count("regression")),
        errors=str(verdicts.count("cannot tell")),
    )
    for one in found:
        case = ET.SubElement(
            suite, "testcase", classname=clean(one.pairing.task), name=clean(str(one.who))
        )
        text = clean("\n".join(_lines(one)))
        if one.verdict != "no regression":
            kind = "failure" if one.verdict == "regression" else "error"
            problem = ET.SubElement(case, kind, message=text.splitlines()[0], type=one.verdict)
            problem.text = text
        else:
            ET.SubElement(case, "system-out").text = text
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, "unicode") + "\n"
