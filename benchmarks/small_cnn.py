"""Does a small convolutional network learn a task on pixels? A check of the data, not of a design.

    python benchmarks/small_cnn.py [--task lra/pathfinder-gen] [--profile smoke] [--epochs 10]
                                   [--data DIR] [--width 32] [--limit 8m]

Long Range Arena's archive holds a copy of Path-X that no network learns beyond its training images
(google-research/long-range-arena, issue 38). Check first that this gets above chance on your copy.
Prints accuracy on the training, search and test rows after each epoch.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# The numbers in docs/ are for the rows as published, without a hidden key.
os.environ.setdefault("HARNESS_HIDDEN_KEY", "public")

from harness.base.durations import parse_duration
from harness.base.paths import data_root
from tasks.spec import find_task


class Block(nn.Module):
    """Two convolutions with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class SmallCNN(nn.Module):
    """Grey images (B, 1, S, S) to logits (B, classes)."""

    def __init__(self, width: int, classes: int, *, blocks: int) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
        stages += [Block(width) for _ in range(blocks)]
        for before in (width, 2 * width):
            stages.append(nn.Conv2d(before, 2 * width, 3, stride=2, padding=1))
            stages += [Block(2 * width) for _ in range(blocks)]
        self.body = nn.Sequential(*stages)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x)
        return self.head(torch.cat((features.mean((2, 3)), features.amax((2, 3))), dim=1))


class Spreading(nn.Module):
    """One gated convolution, applied ``rounds`` times: information spreads along the curves."""

    def __init__(self, width: int, classes: int, *, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.read = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )  # fmt: skip
        self.spread = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.read(x)
        state = torch.relu(seen)
        for _ in range(self.rounds):
            gate, new = self.spread(state).chunk(2, 1)
            gate = torch.sigmoid(gate)
            state = gate * state + (1 - gate) * torch.relu(new + seen)
        return self.head(torch.cat((state.mean((2, 3)), state.amax((2, 3))), dim=1))


def learn(
    data: Path,
    model: nn.Module,
    *,
    epochs: int,
    batch: int = 64,
    rate: float = 2e-3,
    until: float = float("inf"),
) -> Iterator[dict[str, float]]:
    """Train on a prepared folder; yield the accuracy of each split after each epoch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = {}, {}
    for split in ("train", "search", "test"):
        tokens = np.load(data / split / "tokens.npy")
        side = round(tokens.shape[1] ** 0.5)
        images[split] = torch.from_numpy(tokens.reshape(-1, 1, side, side)).to(device)
        labels[split] = torch.from_numpy(np.load(data / split / "labels.npy")).long().to(device)
    model.to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    steps = epochs * -(-len(labels["train"]) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)

    def logits(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return model(rows.float() / 255 - 0.1).float()

    for _ in range(epochs):
        model.train()
        for index in torch.randperm(len(labels["train"])).to(device).split(batch):
            # Mirroring and rotation do not change the label.
            rows = images["train"][index]
            turns = int(torch.randint(8, ()))
            rows = torch.rot90(rows, turns % 4, (2, 3))
            rows = rows.flip(2) if turns > 3 else rows
            loss = nn.functional.cross_entropy(logits(rows), labels["train"][index])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if time.monotonic() > until:
                break
        model.eval()
        found = {}
        with torch.inference_mode():
            for split, rows in images.items():
                size = min(len(rows), 20_000)
                right = [
                    (logits(part).argmax(1) == target).sum()
                    for part, target in zip(
                        rows[:size].split(500), labels[split][:size].split(500), strict=True
                    )
                ]
                found[split] = int(sum(right)) / size
        yield found
        if time.monotonic() > until:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="lra/pathfinder-gen")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--data", help="a folder with the published files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=2, help="of residual blocks a stage")
    parser.add_argument("--rounds", type=int, default=0, help="a spreading network, so many rounds")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument(
        "--limit", type=parse_duration, default="10m", help="wall clock of the training"
    )
    arguments = parser.parse_args()
    overrides = {"source": arguments.data} if arguments.data else {}
    data, manifest = find_task(arguments.task).prepare(
        arguments.profile, data_root(), lambda *_: None, overrides
    )
    began = time.monotonic()
    print(f"{arguments.task} {arguments.profile}, {manifest.rows}, {manifest.baselines}")
    torch.manual_seed(0)
    classes = manifest.shape["classes"]
    if arguments.rounds:
        model: nn.Module = Spreading(arguments.width, classes, rounds=arguments.rounds)
    else:
        model = SmallCNN(arguments.width, classes, blocks=arguments.blocks)
    epochs = learn(
        data, model, epochs=arguments.epochs, batch=arguments.batch, rate=arguments.rate,
        until=began + arguments.limit,
    )  # fmt: skip
    for number, found in enumerate(epochs, start=1):
        scores = ", ".join(f"{split} {value:.4f}" for split, value in found.items())
        print(f"epoch {number}: {scores}, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
