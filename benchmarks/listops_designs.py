"""Trains the reference designs of lra/listops and prints what they score on the test split.

    python benchmarks/listops_designs.py [--profile smoke] [--seeds 3] [--steps N] [design …]

It calls the shell's own functions in this process: no sandbox, no judge. For looking at the
designs while they are tuned; scores that count come from the harness.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.lra import shell
from tasks.spec import Task, find_task

ROWS_AT_ONCE = 250


def measure(task: Task, files: dict[str, str], data: Path, config: shell.Config) -> float:
    """Train one submission and return its accuracy on the test split."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.py").write_text(files["model.py"])
        device = torch.device(config["device"])
        shell.prepare_torch(config["seed"], config["cpus"], device)
        model = shell.build(shell.load_class(Path(folder)), config).to(device)

    def split(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        arrays = [np.load(data / name / f"{what}.npy") for what in ("tokens", "labels")]
        return torch.from_numpy(arrays[0]).to(device), torch.from_numpy(arrays[1]).to(device)

    shell.train_model(model, *split("train"), config)
    model.eval()
    tokens, labels = split("test")
    with torch.inference_mode():
        found = torch.cat([shell.forward(model, t).argmax(1) for t in tokens.split(ROWS_AT_ONCE)])
    return float((found == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("designs", nargs="*")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "listops")
    arguments = parser.parse_args()

    task = find_task("lra/listops")
    profile = task.profile(arguments.profile)
    data, manifest = task.prepare(arguments.profile, arguments.data, lambda *_: None)
    settings: dict[str, Any] = dict(profile.settings)
    for pair in arguments.set:
        name, value = pair.split("=")
        settings[name] = type(settings[name])(value)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{arguments.profile} on {device}; {manifest.baselines}")
    for design in task.designs():
        if arguments.designs and design.name not in arguments.designs:
            continue
        scores, times = [], []
        for seed in range(arguments.seeds):
            config = {"seed": seed, "settings": settings, "shape": manifest.shape,
                      "cpus": profile.limits.cpus, "device": device}  # fmt: skip
            began = time.monotonic()
            scores.append(measure(task, design.files, data, config))
            times.append(time.monotonic() - began)
        listed = " ".join(f"{score:.3f}" for score in scores)
        seconds = " ".join(f"{t:.0f}" for t in times)
        mean = statistics.mean(scores)
        print(f"{design.name:18} {listed}  mean {mean:.3f}  seconds {seconds}", flush=True)


if __name__ == "__main__":
    main()
