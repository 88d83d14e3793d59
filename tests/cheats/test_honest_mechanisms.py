"""Mechanisms as researchers write them: read without accusation, trained, and scored valid.

They are the yardstick of every rule on the text: one that refuses any of them is too strict.
"""

import ast
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cheats.turns import by_turns
from scorers import source
from scorers.submission import CONSTANTS_LIMIT
from tasks.spec import find_task

HERE = Path(__file__).parent / "honest_mechanisms"
FILES = sorted(HERE.glob("*.py"))
IN_CI = {"hyena"}
"""Of those scored by the real judge: one that rounds across the row, one that looks at hashes."""
TASK = find_task("lra/listops")
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_there_are_enough_of_them_and_no_two_are_alike():
    assert len(FILES) >= 30
    texts = [{line.strip() for line in file.read_text().splitlines()} for file in FILES]
    for i, one in enumerate(texts):
        for other in texts[:i]:
            assert len(one & other) < len(one | other) / 4


@each
def test_its_text_is_not_accused(file):
    tree = ast.parse(file.read_text())
    assert source.reaches(tree) == []
    assert source.constant_bytes(tree) < CONSTANTS_LIMIT / 2


@pytest.fixture(scope="module")
def shell():
    """The real shell, with what lies beside it in a sandbox."""
    torch = pytest.importorskip("torch")
    before, threads = list(sys.path), torch.get_num_threads()
    torch.set_num_threads(1)  # where the cores are busy, threads wait for each other by spinning
    sys.path[:0] = {str(path.parent) for path in TASK.runner_files().values()}
    spec = importlib.util.spec_from_file_location("shell", TASK.runner_files()["shell.py"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)
    sys.path[:] = before
    sys.modules.pop("model", None)
    sys.modules.pop("schedule", None)


@each
def test_the_shell_builds_trains_and_asks_it(file, shell, tmp_path):
    import torch

    profile, (length, classes) = TASK.profile("test"), (16, 10)
    config = {
        "seed": 1, "device": "cpu", "settings": {**profile.settings, "steps": 1, "batch_size": 4},
        "shape": {"length": length, "vocabulary": 16, "classes": classes},
        "paths": {"submission": str(tmp_path)},
    }  # fmt: skip
    (tmp_path / "model.py").write_text(file.read_text())
    torch.manual_seed(0)
    rows = torch.randint(1, 16, (8, length)) * (torch.arange(length) < torch.arange(8, 16)[:, None])
    torch.use_deterministic_algorithms(True)  # as prepare_torch does
    try:
        model = shell.load_model(config)
        shell.probe(model, shell.Reader(config), rows[:4], classes)
        shell.count_parameters(model, profile.limits.max_parameters)
        before = [p.detach().clone() for p in model.parameters()]
        loss = shell.train_model(model, rows, torch.arange(8) % classes, config)
    finally:
        torch.use_deterministic_algorithms(False)
    assert np.isfinite(loss)
    assert any((p != q).any() for p, q in zip(model.parameters(), before, strict=True))
    model.eval()
    with torch.inference_mode():
        ask = shell.Reader(config).arguments
        together, alone = model(*ask(rows)), torch.cat([model(*ask(row[None])) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", by_turns([file.stem for file in FILES], IN_CI))
def test_it_is_scored_valid(name, mechanisms, isolating):
    score = mechanisms(isolating).score((HERE / f"{name}.py").read_text())
    assert score.valid, (score.reason, score.message)
    assert all(audit.passed for audit in score.audits)
