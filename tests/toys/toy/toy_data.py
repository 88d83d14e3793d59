"""Data of the toy task: 8 tokens from 1 to 4; the label is the first token minus one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tasks.definition import Manifest, Progress, Value


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    folder = root / "toy" / f"{profile}-{data['seed']}-{data['rows']}"
    if (folder / "manifest.json").exists():
        return folder
    rng = np.random.default_rng(int(data["seed"]))
    files = {}
    rows = int(data["rows"])
    for split in ("train", "search", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        tokens = rng.integers(1, 5, size=(rows, 8)).astype(np.uint8)
        for name, array in (("tokens", tokens), ("labels", tokens[:, 0] - 1)):
            file = folder / split / f"{name}.npy"
            np.save(file, array)
            files[f"{split}/{name}.npy"] = hashlib.sha256(file.read_bytes()).hexdigest()
        progress("toy", 1, 1)
    manifest = Manifest(
        task="toy",
        profile=profile,
        generator="1",
        parameters=dict(data),
        shape={"length": 8, "vocabulary": 5, "classes": 4},
        rows=dict.fromkeys(("train", "search", "test"), rows),
        files=files,
        baselines={"majority": 0.25, "majority_test": 0.25},
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.model_dump()))
    return folder
