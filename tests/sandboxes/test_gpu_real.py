"""Leases and the sentinel on real GPUs, with real NVML and real processes that compute."""

import os
import subprocess
import sys
import time

import pytest

from harness.errors import GpuUnavailableError
from sandboxes import gpu_locks, nvml
from sandboxes.gpu_pool import GpuPool
from scorers.sentinel import Sentinel

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

COMPUTE = """
import os, sys, time, torch
if sys.argv[2] == "stranger" and os.fork():
    os._exit(0)  # the child is nobody's of ours: init adopts it
x = torch.ones(2048, 2048, device="cuda")
open(sys.argv[1], "w").write(str(os.getpid()))
until = time.monotonic() + 20
while time.monotonic() < until:
    (x @ x).sum().item()
"""


@pytest.fixture(autouse=True)
def locks(monkeypatch, tmp_path):
    monkeypatch.setenv(gpu_locks.ENVIRONMENT, str(tmp_path / "locks"))


@pytest.fixture
def compute(tmp_path):
    """Start a process that computes on a GPU, and return when it does."""
    started = []

    def start(uuid, kind):
        word = tmp_path / f"pid-{len(started)}"
        argv = [sys.executable, "-c", COMPUTE, str(word), kind]
        environ = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
        process = subprocess.Popen(argv, env=environ)
        if kind == "stranger":
            process.wait()
        deadline = time.monotonic() + 60
        while not (word.exists() and word.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started.append((process, int(word.read_text())))
        time.sleep(1.0)  # NVML lists it a moment later
        return started[-1][1]

    yield start
    for process, pid in started:
        os.kill(pid, 9)
        if process.returncode is None:
            process.wait()
    while any(pid in nvml.compute_pids(gpu.uuid) for gpu in GpuPool().gpus for _, pid in started):
        time.sleep(0.05)


def test_nvml_lists_the_gpus_with_clocks_and_power():
    listing = nvml.list_gpus()
    assert listing.gpus, listing.reason
    assert listing.reason == ""
    for facts in nvml.snapshot(gpu.uuid for gpu in listing.gpus):
        print(facts)
        assert facts.sm_mhz
        assert facts.power_cap_w
        assert facts.throttle is not None


def test_a_gpu_that_a_stranger_computes_on_is_not_leased(compute):
    pool = GpuPool()
    pid = compute(pool.gpus[0].uuid, "stranger")
    said = []
    print([use.by for use in pool.usage()], pid, nvml.compute_pids(pool.gpus[0].uuid))
    if len(pool.gpus) > 1:
        with pool.lease(1, on_wait=said.append) as lease:
            assert lease.uuids == (pool.gpus[1].uuid,)
        assert "used by a stranger's" in said[0]
    with pytest.raises(GpuUnavailableError, match="could not be leased") as caught:
        pool.lease(len(pool.gpus), wait=1.0, on_wait=said.append)
    assert "used by a stranger's" in caught.value.cause


@pytest.mark.parametrize("kind", ["child", "stranger"])
def test_the_sentinel_tells_our_own_process_from_a_strangers(compute, kind):
    uuid = GpuPool().gpus[0].uuid
    with Sentinel((uuid,)) as sentinel:
        pid = compute(uuid, kind)
        time.sleep(2.5)
    (record,) = sentinel.records
    print(kind, pid, record)
    hidden = "cannot tell: NVML names processes by numbers that mean nothing here"
    seen = {"child": "undisturbed", "stranger": f"disturbed: pid {pid} computed there"}[kind]
    assert record.verdict == hidden or record.verdict.startswith(seen)
    assert record.sm_mhz
    assert record.power_w
