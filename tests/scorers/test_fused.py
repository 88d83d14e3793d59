"""Our own kernels compute what torch computes, and what is beside a candidate changes no bit."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from fused_cases import CPU_SHAPES, GPU_SHAPES, SMALL

from scorers.proxies.worker import _short_of_memory

CASES = Path(__file__).with_name("fused_cases.py")
WEIGHTS = 3 * 4 + 3 * 3 + 4 * 3 + 2 * 9
"""Gradients compared: of three candidates' ends, and of three A, four M and two Mb."""


def compared(device, shapes, **env):
    done = subprocess.run(
        [sys.executable, str(CASES), device, str(len(shapes))],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=230,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["length"] for row in rows] == [shape[0] for shape in shapes]
    return rows


def interpreter_works():
    """Return whether Triton is 3.9 or later: older interpreters fail with numpy 2.4."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        return False
    return tuple(map(int, found.split(".")[:2])) >= (3, 9)


@pytest.mark.skipif(not interpreter_works(), reason="needs triton 3.9 or later")
@pytest.mark.parametrize("shapes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_kernels_agree_with_torch_in_the_interpreter(shapes):
    for row in compared("cpu", CPU_SHAPES[:shapes], TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES=""):
        assert row["logits"] < 1e-6, row
        assert row["worst"] < 1e-4, row
        assert row["gradients"] >= WEIGHTS, row
        assert row["differing"] == [], row


@pytest.mark.gpu
@pytest.mark.timeout(240)
def test_kernels_agree_with_torch_on_a_gpu():
    """Within what bfloat16 rounds: torch's own products differ from float32 about as much."""
    for row in compared("cuda", GPU_SHAPES):
        assert row["logits"] < 0.01, row
        assert row["worst"] < 2 * row["torch"] < 0.4, row
        assert row["gradients"] >= WEIGHTS, row
        assert row["differing"] == [], row


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"kernels": "cuda"}, "'cuda' are none of torch, triton"),
        ({"dim": 48, "kernels": "triton"}, "powers of two"),
        ({"dim": 8, "kernels": "triton"}, "width 16 to 256"),
        ({"dim": 512, "head_dim": 64, "kernels": "triton"}, "width 16 to 256"),
        ({"state": 3, "kernels": "triton"}, "powers of two"),
    ],
)
def test_sizes_that_the_kernels_cannot_compute_are_refused(sizes, said):
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **sizes)


def test_too_little_memory_is_seen_behind_the_error_of_a_recording():
    memory = torch.cuda.OutOfMemoryError("CUDA out of memory")
    hidden = RuntimeError("operation failed due to a previous error during capture")
    hidden.__context__ = memory
    assert _short_of_memory(memory)
    assert _short_of_memory(hidden)
    assert not _short_of_memory(RuntimeError("anything else"))
