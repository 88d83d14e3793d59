"""Leases and the monitor on real GPUs, with real NVML and real processes that compute.

Another process on the same GPU disturbs these tests as it disturbs a measurement. A disturbed test
is skipped, and the reason says what disturbed it.
"""

import os
import subprocess
import sys
from collections import Counter

import pytest
from hostview import PATIENCE_S, until

from harness.base.errors import GpuUnavailableError
from sandboxes import gpu_locks, nvml
from sandboxes.gpu_pool import GpuPool, is_visible
from scorers.gpu_monitor import GpuMonitor

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

COMPUTE = """
import os, sys, time, torch
if sys.argv[2] == "stranger" and os.fork():
    os._exit(0)  # the child is nobody's of ours: init adopts it
x = torch.ones(2048, 2048, device="cuda")
x @ x
open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
until = time.monotonic() + 200
while os.path.exists(sys.argv[1]) and time.monotonic() < until:
    (x @ x).sum().item()
"""


@pytest.fixture(autouse=True)
def locks(monkeypatch, tmp_path):
    monkeypatch.setenv(gpu_locks.ENVIRONMENT, str(tmp_path / "locks"))


@pytest.fixture
def uuid():
    """The UUID of the first GPU. The test is skipped if that GPU is in use."""
    pool = GpuPool()
    # A process of an earlier test may still be dying there.
    if not until(lambda: pool.usage()[0].free, 10):
        pytest.skip(f"a neighbour disturbs this test: GPU 0 is {pool.usage()[0].by}")
    return pool.gpus[0].uuid


@pytest.fixture
def compute(tmp_path, uuid):
    """A function that starts a process on the first GPU; returns its pid once NVML lists one."""
    word, started = tmp_path / "pid", []

    def start(kind):
        environ = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
        started.append(
            subprocess.Popen([sys.executable, "-c", COMPUTE, str(word), kind], env=environ)
        )
        assert until(word.exists, 150)  # it imports torch, perhaps from a cold disk
        if not until(lambda: nvml.compute_pids(uuid), 10):
            pytest.skip("NVML tells of no process here, though one computes")
        return int(word.read_text())

    yield start
    word.unlink(missing_ok=True)  # the process then ends
    for process in started:
        process.wait(PATIENCE_S)


def test_nvml_lists_the_gpus_with_clocks_and_power():
    listing = nvml.list_gpus()
    assert listing.gpus, listing.reason
    assert listing.reason == ""
    for facts in nvml.snapshot(gpu.uuid for gpu in listing.gpus):
        print(facts)
        assert facts.sm_mhz
        assert facts.power_cap_w
        assert facts.throttle is not None


def test_a_gpu_that_a_stranger_computes_on_is_not_leased(uuid, compute):
    pool = GpuPool()
    pid = compute("stranger")
    said, uses = [], pool.usage()
    print([use.by for use in uses], pid, nvml.compute_pids(uuid))
    assert uses[0].by.startswith("used by a stranger's")
    if free := [use.gpu.uuid for use in uses if use.free]:
        with pool.lease(1, wait=PATIENCE_S, on_wait=said.append) as lease:
            assert lease.uuids == (free[0],)
        assert "used by a stranger's" in said[0]
    with pytest.raises(GpuUnavailableError, match="could not be leased") as caught:
        pool.lease(len(pool.gpus), wait=False, on_wait=said.append)
    assert "used by a stranger's" in caught.value.cause


@pytest.mark.parametrize("kind", ["child", "stranger"])
def test_the_monitor_tells_our_own_process_from_a_strangers(uuid, compute, kind, monkeypatch):
    monkeypatch.setattr("scorers.gpu_monitor.EVERY_S", 0.1)
    samples = []

    def sample(uuids):
        found = nvml.snapshot(uuids)
        samples.extend(found)
        return found

    with GpuMonitor((uuid,), sample) as monitor:
        pid = compute(kind)
        before = len(samples)
        assert until(lambda: len(samples) >= before + 5)
    (record,) = monitor.records
    print(kind, pid, record)
    assert record.sm_mhz
    assert record.power_w
    seen = Counter(number for facts in samples for number in facts.pids or ())
    assert (pid in record.neighbours) == (kind == "stranger" and pid in seen)
    if neighbours := set(record.neighbours) - {pid}:
        pytest.skip(f"a neighbour disturbs this test: pids {sorted(neighbours)}: {record.verdict}")
    if pid in record.neighbours:
        assert record.verdict.startswith(f"disturbed: pid {pid} computed there in ")
    elif record.verdict.startswith("disturbed: "):
        pytest.skip(f"the GPU itself disturbs this test: {record.verdict}")
    elif hidden := [number for number in seen if seen[number] > 1 and not is_visible(number)]:
        assert record.verdict.startswith("cannot tell: NVML names processes by numbers")
        pytest.skip(f"NVML names processes that cannot be seen from here, as {hidden[0]}")
    else:
        assert record.verdict == "undisturbed"
        assert pid in seen
