"""Compares the designs' Triton kernels with float64, in Triton's interpreter or on a GPU.

kernel_cases.py defines what is compared, for which shapes. It is a separate program because the
interpreter must be chosen before Triton is first imported.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

# Relative errors by the 2-norm. Rounding to bfloat16 loses 2^-9 of each factor, to float16 2^-12;
# a sum of many products has about the same relative error. The decay's gradient is a difference of
# such sums, so it has limits of its own.
ALLOWED = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.5e-2}
ALLOWED_FOR_DECAY = {"float32": 2e-4, "float16": 4e-3, "bfloat16": 3e-2}
CASES = {"sliding_window": 7, "linear_attention": 4, "gated_recurrence": 5}


def judge(device: str, env: dict[str, str]) -> None:
    """Run the cases, one process per design, and assert that every error is small enough."""
    script = Path(__file__).with_name("kernel_cases.py")

    def run(design: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, str(script), device, design],
            env={**os.environ, **env}, capture_output=True, text=True, timeout=570,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor() as side_by_side:  # most of the time goes into compiling
        found = dict(zip(CASES, side_by_side.map(run, CASES), strict=True))
    for design, count in CASES.items():
        assert len(found[design]) > count
        assert {row["design"] for row in found[design]} == {design}
    rows = [row for part in found.values() for row in part]
    for row in rows:
        value, *gradients = row["errors"]
        decay = [gradients.pop()] if row["design"] == "gated_recurrence" else []
        assert all(x < ALLOWED[row["dtype"]] for x in (value, *gradients)), row
        assert all(x < ALLOWED_FOR_DECAY[row["dtype"]] for x in decay), row


def interpreter_works() -> bool:
    """Return whether Triton is 3.9 or later.

    Torch's CUDA builds bring older ones, such as 3.6, whose interpreter fails with numpy 2.4.
    """
    try:
        found = version("triton")
    except PackageNotFoundError:
        return False
    return tuple(map(int, found.split(".")[:2])) >= (3, 9)


@pytest.mark.slow
@pytest.mark.skipif(not interpreter_works(), reason="needs triton 3.9 or later")
def test_kernels_agree_with_the_references_in_the_interpreter() -> None:
    judge("cpu", {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""})


@pytest.mark.gpu
@pytest.mark.timeout(590)
def test_kernels_agree_with_the_references_on_a_gpu() -> None:
    assert torch.cuda.is_available()
    judge("cuda", {})
