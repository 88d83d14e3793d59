"""Features of code: the rules, on pairs of sources written by hand, and how steps are classed."""

from pathlib import Path

import pytest
from calling import call
from hypothesis import given
from hypothesis import strategies as st

from harness.report.features.reading import changed, features_of
from harness.report.features.report import table
from harness.report.features.rules import CODE, features
from harness.report.features.steps import SearchStep, TaskSteps, steps_of
from report.made import BASE, Made

PAIRS = [
    ("MATRIX_LR = 0.04", "MATRIX_LR = 0.02", {"learning rates: matrix_lr"}),
    ("MATRIX_RATE, DROPOUT_RATE = 0.1, 0.2", "MATRIX_RATE, DROPOUT_RATE = 0.2, 0.3",
     {"learning rates: matrix_rate", "regularisation: dropout_rate"}),
    ("LR = 3e-4  # old", "LR = 0.0003", set()),
    ("opt = torch.optim.AdamW(p)", "opt = torch.optim.SGD(p)",
     {"optimiser: AdamW()", "optimiser: SGD()"}),
    ("opt = AdamW(p, weight_decay=0.1)", "opt = AdamW(p, weight_decay=0.2)",
     {"regularisation: weight_decay"}),
    ("opt = AdamW(p, betas=(0.9, 0.95))", "opt = AdamW(p, betas=(0.8, 0.95))",
     {"optimiser: betas"}),
    ("n = nn.LayerNorm(64)", "n = nn.RMSNorm(64)",
     {"normalisation: LayerNorm()", "normalisation: RMSNorm()"}),
    ("y = F.relu(x)", "y = F.silu(x) * x",
     {"MLP and activation: relu()", "MLP and activation: silu()"}),
    ("WINDOW_PATTERN = 'SSSL'", "WINDOW_PATTERN = 'SL'", {"attention pattern: window_pattern"}),
    ("y = F.scaled_dot_product_attention(q, k, v)", "y = torch.fft.rfft(x)",
     {"attention pattern: scaled_dot_product_attention()", "attention pattern: rfft()"}),
    ("DEPTH = 8\nWIDTH: int = 512", "DEPTH = 10\nWIDTH: int = 384",
     {"depth and width: depth", "depth and width: width"}),
    ("batch = 2 ** 19", "batch = 2 ** 18", {"batch and curriculum: batch"}),
    ("WARMUP_RATIO = 0.0", "WARMUP_RATIO = 0.1", {"schedule: warmup_ratio"}),
    ("s = CosineAnnealingLR(o, 10)", "s = OneCycleLR(o, 10)",
     {"schedule: CosineAnnealingLR()", "schedule: OneCycleLR()"}),
    ("def f(x, dropout=0.0): return x", "def f(x, dropout=0.1): return x",
     {"regularisation: dropout"}),
    ("def f(x, *, heads=4): return x", "def f(x, *, heads=8): return x",
     {"embeddings and heads: heads"}),
    ("loss = F.cross_entropy(a, b)", "loss = F.cross_entropy(a, b, label_smoothing=0.1)",
     {"regularisation: label_smoothing"}),
    ("KNOBS = {'mixer': 'linear', 'norm': 'rms'}", "KNOBS = {'mixer': 'softmax', 'norm': 'rms'}",
     {"attention pattern: mixer"}),
    ("a = nn.LayerNorm(8)", "a = nn.LayerNorm(8)\nb = nn.LayerNorm(8)",
     {"normalisation: LayerNorm()"}),
    ("LR, DEPTH = 0.1, 2", "LR, DEPTH = 0.2, 2", {"learning rates: lr"}),
    ("EMA_DECAY = 0.99", "x = 1", {"averaging: ema_decay"}),
    ("trunc_normal_(w, std=0.02)", "xavier_uniform_(w)",
     {"initialisation: trunc_normal_()", "initialisation: xavier_uniform_()"}),
    ("x = a + b", "x = a - b", {CODE}),
    ('"""Old words."""\nx = 1', '"""New words."""\n# and a comment\nx = 1', set()),
    ("def f():\n    'old'\n    return 1", "def f():\n    return 1", set()),
    ("x = foo(1)", "x = foo( 1 , )", set()),
    ("DEPTH = 2\ny = a + b", "DEPTH = 3\ny = a - b", {"depth and width: depth"}),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), PAIRS)
def test_a_change_is_named(before, after, expected):
    assert changed(features(before), features(after)) == expected
    assert changed(features(after), features(before)) == expected


def test_a_source_that_breaks_a_parser_harms_nobody():
    hostile = ["(" * 100_000, "-" * 200_000 + "1", "x = " + "[" * 5000, "a+" * 300_000 + "a", "\0",
               "x = 9" + "9" * 6000, "lambda: " * 5000 + "1", "def", "\ud800 = 1"]  # fmt: skip
    found = features_of(["LR = 1", *hostile, "LR = 2"])
    assert found["LR = 1"]["learning rates: lr"] == "1"
    assert found["LR = 2"]["learning rates: lr"] == "2"
    assert found["def"] is None


SOURCES = [source for pair in PAIRS for source in pair[:2]]


@given(st.lists(st.sampled_from(SOURCES), max_size=8).map("\n".join))
def test_a_source_differs_in_nothing_from_itself_and_from_what_says_more_beside_the_code(text):
    found = features(text)
    assert changed(found, features(text)) == frozenset()
    assert changed(found, features(f"# first\n\n{text}\n\n# last")) == frozenset()


def test_the_process_agrees_with_the_function():
    assert features_of([BASE])[BASE] == features(BASE)


def step(gain, *names, kind="step"):
    return SearchStep(1, frozenset(names), gain, kind)


LR, WARM, NORM = "learning rates: lr", "schedule: warmup", "normalisation: norm"


def test_lone_and_compound_changes_are_told_apart_and_recoveries_stand_in_no_median():
    steps = [
        step(0.10, LR), step(0.20, LR), step(0.60, LR, WARM), step(-0.1, LR, "learning rates: x"),
        step(5.0, LR, kind="recovery"), step(None, LR, NORM, kind="invalid"),
    ]  # fmt: skip
    built = table(TaskSteps("toy test", tuple(steps), {"drafts": 3}))
    rows = {row.feature: row for row in built.rows}
    rates = rows["learning rates"]
    assert (rates.steps, rates.alone, rates.invalid, rates.recoveries) == (4, 3, 1, 1)
    assert rates.median == pytest.approx(0.15)
    assert rates.median_alone == pytest.approx(0.10)
    assert rates.best == 0.60
    assert rates.interval.of == "mean"
    assert rows["schedule"].alone == 0
    assert rows["normalisation"].steps == 0
    by_name = {row.feature: row for row in built.features}
    assert by_name[LR].alone == 2
    assert (built.steps, built.lone, built.recoveries, built.invalid) == (4, 3, 1, 1)
    assert "3 drafts" in built.words


def scripted(folder: Path, outcomes):
    """Write a run; ``outcomes`` has (parent, source, score) for each node."""
    made = Made(folder, agent="x", seed=1, nodes=len(outcomes), words="", calls=False, name="run")
    for number, (parent, source, score) in enumerate(outcomes):
        made.write(number, "draft" if parent is None else "improve", parent, source, score)
    return made.finish()


def test_steps_of_a_run_are_classified(tmp_path):
    run = scripted(tmp_path, [
        (None, "LR = 1", 1.020),
        (0, "LR = 2", 1.010),       # a step: lower is better
        (1, "LR = 2", 1.010),       # the same source
        (1, "LR = 3", None),        # became invalid
        (3, "LR = 4", 1.000),       # a repair
        (None, "LR = 9", 1.850),    # a poor start
        (5, "LR = 5", 1.005),       # a recovery
        (1, "def", 1.015),          # does not parse
        (4, "DEPTH = 2", 1.008),    # worse
    ])  # fmt: skip
    (found,), skipped = steps_of([run, tmp_path / "nowhere"])
    assert [(s.node, s.kind) for s in found.steps] == [
        (1, "step"), (3, "invalid"), (6, "recovery"), (8, "step"),
    ]  # fmt: skip
    assert found.steps[0].gain == pytest.approx(0.010)
    assert found.steps[3].gain == pytest.approx(-0.008)
    assert found.steps[3].features == {"learning rates: lr", "depth and width: depth"}
    assert found.apart == {
        "drafts": 2,
        "no change": 1,
        "repairs of an invalid parent": 1,
        "sources that do not parse": 1,
    }
    assert list(skipped) == [str(tmp_path / "nowhere")]
    assert "learning rates" in call("features", run).stdout
    said = call("features", run, "--json").json
    assert said["tables"][0]["task"] == "autoresearch paper"
    assert said["tables"][0]["recoveries"] == 1
