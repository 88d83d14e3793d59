"""Tests of ``harness bench mechanisms`` as users call it, and of what its report computes."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from calling import HARNESS, call

from harness.base.errors import ConfigError
from harness.report.mechanisms import as_json, by_mechanism, exponent, plot, table
from tasks.lra.bench import BenchCell, Machine, measure, parse_lengths

MACHINE = Machine("cpu", "2 threads", "2.13", "float32")
BENCH = ["bench", "mechanisms", "--device", "cpu"]
COMMAND = [*HARNESS, *BENCH]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def power_law(name: str, power: float) -> list[BenchCell]:
    """Return cells: both passes take length^power µs a row, and 1 ms more if length < 256."""
    cells = []
    for length in (64, 128, 256, 512):
        rows = 1024 // length
        ms = rows * (length**power + 1000 * (length < 256)) / 1e3
        cells.append(BenchCell(name, length, rows, ms / 4, 3 * ms / 4, peak_mb=rows * length / 100))
    return cells


@pytest.mark.parametrize(
    ("text", "lengths"),
    [("512..4096", (512, 1024, 2048, 4096)), ("100..500", (100, 200, 400)), ("9..9", (9,)),
     ("64,32,64", (32, 64)), (" 7 ", (7,))],
)  # fmt: skip
def test_lengths_double_or_are_listed(text: str, lengths: tuple[int, ...]) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize("text", ["", "0..8", "8..4", "0", "-4", "4...8", "1,,2", "9" * 9, "1e3"])
def test_other_lengths_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_lengths(text)
    assert "512..16384" in error.value.remedy


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_exponent_is_that_of_the_longer_half(power: float) -> None:
    cells = power_law("softmax", power)
    assert exponent(cells, lambda c: c.ms) == pytest.approx(power)
    assert exponent(cells[::-1], lambda c: c.peak_mb) == pytest.approx(1)


def test_no_exponent_is_made_of_one_length_or_of_what_failed() -> None:
    assert exponent(power_law("softmax", 2)[:1], lambda c: c.ms) is None
    cells = [*power_law("softmax", 2), BenchCell("softmax", 1024, 1, failure="oom")]
    assert exponent(cells, lambda c: c.ms) == pytest.approx(2)


def test_the_report_shows_failures_and_is_as_wide_as_a_terminal() -> None:
    cells = [*power_law("softmax", 2), BenchCell("softmax", 1024, 1, failure="oom"),
             *power_law("gated_recurrence", 1)]  # fmt: skip
    text = table(MACHINE, cells)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"1024 +1  oom", text)
    assert re.search(r"gated_recurrence .* 1\.00 1\.00\n", text)
    found = as_json(MACHINE, cells, complete=True)
    assert found["exponents"]["softmax"]["time"] == pytest.approx(2)
    assert found["cells"][4]["tokens_per_s"] is None
    assert found["cells"][3]["tokens_per_s"] == pytest.approx(1e6 / 512)


def test_the_plot_holds_every_mechanism_and_loads_nothing() -> None:
    cells = [
        *power_law("softmax", 2),
        BenchCell("mega", 64, 16, failure="oom"),
        *power_law("s4d", 1),
    ]
    machine = Machine("cpu", "<script>&", "2.13", "float32")
    svg = plot(machine, cells)
    root = ElementTree.fromstring(svg)
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert texts.count("softmax") == texts.count("s4d") == 2
    assert "mega" not in texts
    assert svg.count("http") == 1  # the namespace
    assert "nothing was measured" in plot(machine, cells[4:5])


@pytest.mark.slow
def test_bench_measures_prints_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["softmax", "linear_attention"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = call(*BENCH, *names, "--lengths", "32,64", "--plot", "p.svg", "--json", cwd=tmp_path)
    found = done.json
    assert (found["format"], found["complete"], found["machine"]["device"]) == (1, True, "cpu")
    places = [(c["mechanism"], c["length"], c["rows"]) for c in found["cells"]]
    assert places == [(m, n, 4096 // n) for m in names for n in (32, 64)]
    for cell in found["cells"]:
        assert cell["failure"] == ""
        assert min(cell["forward_ms"], cell["backward_ms"], cell["tokens_per_s"]) > 0
        # At least the embedded tokens, 64 numbers each. No such model needs 500 MB.
        assert 1 < cell["peak_mb"] < 500
    assert "4/4  linear_attention at 64" in done.stderr
    ElementTree.fromstring((tmp_path / "p.svg").read_text())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["sofmax"], "'softmax'"), (["--lengths", "many"], "512..16384"),
     (["--plot", "no/such/p.svg"], "no/such/p.svg")],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_measured(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = call(*BENCH, *arguments, cwd=tmp_path, code=2)
    assert words in done.stderr
    assert done.stdout == ""


def collected(*arguments: Any, **options: Any) -> dict[str, list[BenchCell]]:
    found = measure(*arguments, lambda *_: None, **options)
    return by_mechanism([cell for cell in found if isinstance(cell, BenchCell)])


@pytest.mark.nightly
def test_what_takes_too_long_ends_alone() -> None:
    # Linear attention costs little; softmax compares all tokens: minutes at this length.
    names = ["softmax", "linear_attention"]
    cells = collected(names, (64, 131_072, 262_144), "cpu", longest_s=20)
    assert [c.failure for c in cells["softmax"]] == ["", "timeout", "not tried: timeout before"]
    assert cells["softmax"][0].ms is not None
    assert cells["linear_attention"][0].failure == ""


@pytest.mark.nightly
def test_want_of_memory_is_a_cell_and_not_the_end(tmp_path: Path) -> None:
    limited = (
        f"ulimit -v 4000000; exec {' '.join(COMMAND)} nystrom linear_attention --lengths 64,1048576"
    )
    done = subprocess.run(
        ["bash", "-c", limited], env=ONE_THREAD, cwd=tmp_path,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"nystrom +64 +64 +\d.*\n +1048576 +1  oom\n", done.stdout)
    assert re.search(r"linear_attention +64 +64 +\d", done.stdout)


@pytest.mark.slow
def test_ctrl_c_prints_what_is_there(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "softmax", "--lengths", "32,131072"],
        cwd=tmp_path, env=ONE_THREAD, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell that starts the tests in the background makes them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        hung = threading.Timer(200, process.kill)
        hung.start()
        try:
            assert process.stderr is not None
            while "2/2" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
        finally:
            hung.cancel()
            process.kill()
    assert process.returncode == 130, err
    assert re.search(r"softmax +32 +128 +\d", out)
    assert "not whole" in err
