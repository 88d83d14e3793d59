"""A toy task whose designs train until a test lets them go, so that evaluations stay under way."""

import json
import re
import shutil
import uuid
from pathlib import Path

from observing import until
from toy_task import copy_toy

from harness.base.paths import data_root
from harness.store.journal import read
from tasks.spec import find_task

DESIGN = '''"""Always right, once nobody holds it any more."""

import time
from pathlib import Path

import numpy as np

while Path(config["paths"]["train"], "{hold}").exists():
    time.sleep(0.01)


def predict(tokens):
    return np.eye(4, dtype=np.float32)[tokens[:, 0] - 1]
'''


class Held:
    """The task ``held``: the toy's own designs, and designs that train while a test holds them."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        # Long limits: no test here is about them.
        limits = ("train_s = 20, serve_s = 20,", "train_s = 600, serve_s = 600,")
        task = copy_toy(folder / "held", ('name = "toy"', 'name = "held"'), limits)
        shutil.copy(task / "designs/whole.py", task / "designs/self_test.py")
        self._toml = task / "task.toml"
        monkeypatch.setenv("HARNESS_TASKS_DIR", str(folder))
        data, _ = find_task("held").prepare("test", data_root(), lambda *_: None)
        # Sandboxes mount this folder, and see files come and go in it while they run.
        self._train, self._own = data / "train", f"hold-{uuid.uuid4().hex}-"

    def offer(self, *designs: str, held: str = "") -> None:
        """Set the designs, in the order in which they are tried; hold those named in ``held``."""
        text = re.sub(r"designs = .*", f"designs = {json.dumps(designs)}", self._toml.read_text())
        self._toml.write_text(text)
        for name in held.split():
            source = DESIGN.format(hold=self._own + name)
            (self._toml.parent / f"designs/{name}.py").write_text(source)
            self.hold(name)

    def hold(self, name: str) -> None:
        (self._train / (self._own + name)).touch()

    def let_go(self, name: str = "*") -> None:
        for file in self._train.glob(self._own + name):
            file.unlink()


def kinds(run: Path) -> list[str]:
    journal = run / "events.jsonl"
    return [e.kind for e in read(journal)] if journal.exists() else []


def under_way(run: Path, count: int) -> None:
    """Wait until ``count`` evaluations of the run have begun."""
    until(lambda: kinds(run).count("evaluating") >= count, f"evaluation {count} of {run}")
