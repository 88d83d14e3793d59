"""GPU leases and the GPU monitor: only the GPUs are fake; processes, kills, locks are real."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from calling import call
from hostview import PATIENCE_S
from observing import quiet

from harness.base.errors import Cancelled, ConfigError, GpuUnavailableError
from harness.core.asked import Asked
from harness.launch import run as launch
from harness.search import host
from harness.search.local import LocalEvaluator
from sandboxes import gpu_locks, gpu_pool, nvml
from sandboxes.base import SandboxSpec
from sandboxes.gpu_pool import GpuPool, is_ours
from sandboxes.gpus import Gpu, Listing, gpu_uuids
from sandboxes.process import ProcessBackend
from scorers.gpu_monitor import GpuMonitor

COMPETITOR = Path(__file__).parent / "gpu_competitor.py"
ROOT = Path(__file__).parents[2]
EIGHT = Listing(tuple(Gpu(f"GPU-fake-{i}", i, "Fake H100") for i in range(8)))
ALL = tuple(gpu.uuid for gpu in EIGHT.gpus)

no_gpu_here = pytest.mark.skipif(bool(gpu_uuids()), reason="there is a GPU here")


@pytest.fixture(autouse=True)
def locks(monkeypatch, tmp_path):
    place = tmp_path / "locks"
    monkeypatch.setenv(gpu_locks.ENVIRONMENT, str(place))
    return place


def pool(processes=lambda uuid: ()):
    return GpuPool(lambda: EIGHT, processes)


def start(*args, **options):
    argv = [sys.executable, str(COMPETITOR), *map(str, args)]
    return subprocess.Popen(argv, text=True, **options)


def holder(proofs, number):
    process = start(proofs, "hold", number, stdout=subprocess.PIPE)
    assert int(process.stdout.readline()) == process.pid
    return process


def end(process):
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def test_forty_processes_killed_at_random_never_share_a_gpu_and_leak_none(tmp_path):
    with start(tmp_path, "race", stdout=subprocess.PIPE) as race:
        leases = int(race.communicate()[0])
    assert race.returncode == 0
    dead_with_lease = sum((tmp_path / uuid).exists() for uuid in ALL)
    print(f"{leases} leases, {dead_with_lease} proofs of dead holders at the end")
    assert not (tmp_path / "double").exists(), (tmp_path / "double").read_text()
    with pool().lease(8, wait=False) as lease:
        assert lease.uuids == ALL


def test_the_lowest_free_gpu_is_taken_and_comes_back():
    with pool().lease(2) as first, pool().lease(1) as second:
        assert (first.uuids, second.uuids) == (ALL[:2], ALL[2:3])
        first.close()
        first.close()
        with pool().lease(1) as third:
            assert third.uuids == ALL[:1]
    with pool().lease(8, wait=False):
        pass


def test_all_or_nothing_leaves_the_rest_to_others():
    with pool().lease(5):
        with pytest.raises(GpuUnavailableError, match="4 of 8 GPUs could not be leased"):
            pool().lease(4, wait=False)
        with pool().lease(3, wait=False) as rest:
            assert rest.uuids == ALL[5:]


def test_two_who_want_more_than_half_both_get_it_in_turn():
    got = []

    def work():
        for _ in range(3):
            with pool().lease(5, wait=PATIENCE_S) as lease:
                got.append(len(lease.uuids))

    with ThreadPoolExecutor(3) as threads:
        for turn in [threads.submit(work) for _ in range(3)]:
            turn.result()
    assert got == [5] * 9


def test_who_came_first_is_first_and_who_wants_many_is_not_starved(monkeypatch):
    got, threads, came = [], [], threading.Semaphore(0)

    class Ticket(gpu_locks.Ticket):
        def __init__(self):
            super().__init__()
            came.release()

    def work(name, n):
        with pool().lease(n):
            got.append(name)

    monkeypatch.setattr(gpu_locks, "Ticket", Ticket)
    with pool().lease(1):
        came.acquire()
        # No two consecutive requests fit on eight GPUs, so ``got`` has the order of the leases.
        for name, n in (("all", 8), ("one", 1), ("most", 8), ("two", 2)):
            threads.append(threading.Thread(target=work, args=(name, n)))
            threads[-1].start()
            assert came.acquire(timeout=PATIENCE_S)
        with pytest.raises(GpuUnavailableError, match="others came first"):
            raise_cause(lambda: pool().lease(1, wait=False))
        assert got == []  # seven GPUs are free, but the first request wants eight
    for thread in threads:
        thread.join()
    assert got == ["all", "one", "most", "two"]


def test_who_waits_for_a_stranger_lets_others_pass(monkeypatch):
    monkeypatch.setattr(gpu_pool, "_STRANGER_PAUSE_S", 0.05)
    strangers, got, looked = {ALL[0]: (1,)}, [], threading.Event()

    def processes(uuid):
        looked.set()
        return strangers.get(uuid, ())

    mixed = pool(processes)
    waiter = threading.Thread(target=lambda: got.append(mixed.lease(8, wait=PATIENCE_S)))
    waiter.start()
    assert looked.wait(PATIENCE_S)
    with mixed.lease(2, wait=PATIENCE_S) as lease:
        assert lease.uuids == ALL[1:3]
        assert not got
    strangers.clear()
    waiter.join()
    got[0].close()


@pytest.mark.parametrize(
    ("granted", "count"),
    [("1", 1), ("GPU-fake-3,GPU-fake-0", 2), ("", 0), ("9", 0), ("GPU-fake", 8), ("NoDevFiles", 0)],
)
def test_what_a_scheduler_granted_is_all_that_is_leased(monkeypatch, granted, count):
    monkeypatch.setattr(nvml, "_all_gpus", lambda: EIGHT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", granted)
    listing = nvml.list_gpus()
    assert len(listing.gpus) == count
    assert bool(listing.gpus) != ("names none of the 8 GPUs here" in listing.reason)


def raise_cause(function):
    try:
        function()
    except GpuUnavailableError as error:
        raise GpuUnavailableError(error.cause) from None


def test_who_waits_is_told_once_for_whom_and_gets_it_when_the_holder_is_killed(
    tmp_path, monkeypatch
):
    process = holder(tmp_path, 8)
    said, named, looks = [], gpu_locks.recorded_owner, itertools.count(1)

    def look(uuid):
        if next(looks) == 5 * len(ALL):
            process.kill()
        return named(uuid)

    monkeypatch.setattr(gpu_locks, "recorded_owner", look)
    try:
        with pool().lease(1, wait=PATIENCE_S, on_wait=said.append):
            pass
    finally:
        end(process)
    (line,) = said
    assert line.startswith("waiting for 1 GPU: GPU 0 is leased by pid ")
    assert f"pid {process.pid} (gpu_competitor.py" in line


def test_when_the_time_is_up_the_error_names_the_holder_and_a_remedy():
    with pool().lease(8), pytest.raises(GpuUnavailableError, match="within 0.2 s") as caught:
        pool().lease(1, wait=0.2)
    assert "GPU 0 is leased by this process itself" in caught.value.cause
    assert "harness doctor" in caught.value.remedy


def test_more_than_there_are_is_refused_at_once_and_less_than_none_is_nonsense():
    with pytest.raises(GpuUnavailableError, match="9 GPUs wanted, and there are 8 here"):
        pool().lease(9)
    with pytest.raises(ConfigError, match="cannot be leased"):
        pool().lease(-1)
    assert pool().lease(0).uuids == ()


def test_a_child_of_the_holder_does_not_keep_the_lease():
    lease = pool().lease(8)
    child = subprocess.Popen(["sleep", "60"])
    pid = os.fork()  # without exec: the child has copies of all descriptors
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        lease.close()
        pool().lease(8, wait=False).close()
    finally:
        child.kill()
        child.wait()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_gpu_that_a_stranger_uses_is_skipped_and_said():
    stranger = os.getppid()
    assert not is_ours(stranger)
    said = []
    busy = pool(lambda uuid: (stranger,) if uuid == ALL[0] else (os.getpid(),))
    with busy.lease(1, on_wait=said.append) as lease:
        assert lease.uuids == ALL[1:2]
        words = {use.gpu.minor: use.by for use in busy.usage()}
    (line,) = said
    assert line.startswith(f"GPU 0 is used by a stranger's pid {stranger} (")
    assert line.endswith("skipped")
    assert words[0].startswith(f"used by a stranger's pid {stranger}")
    assert words[1].startswith(f"leased by pid {os.getpid()}")
    assert words[2] == "free"
    with pytest.raises(GpuUnavailableError, match="8 of 8") as caught:
        busy.lease(8, wait=False)
    assert "stranger" in caught.value.cause


@pytest.mark.parametrize("kind", ["link", "second name", "folder", "fifo"])
def test_a_hostile_lock_file_costs_its_gpu_and_harms_nothing(locks, tmp_path, kind):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    mode = victim.stat().st_mode
    pool().lease(8).close()
    assert locks.stat().st_mode & 0o7777 == 0o1777
    trap = locks / f"{ALL[0]}.lock"
    assert trap.stat().st_mode & 0o777 == 0o666
    trap.unlink()
    if kind == "link":
        trap.symlink_to(victim)
    elif kind == "second name":
        os.link(victim, trap)
    elif kind == "folder":
        trap.mkdir()
    else:
        os.mkfifo(trap)
    with pool().lease(1) as lease:
        assert lease.uuids == ALL[1:2]
        assert "cannot be read" in pool().usage()[0].by
    with pytest.raises(GpuUnavailableError, match="8 of 8 GPUs could not be leased") as caught:
        pool().lease(8, wait=False)
    assert trap.name in caught.value.cause
    assert (victim.read_text(), victim.stat().st_mode) == ("precious", mode)


def test_a_folder_that_is_a_link_is_refused_with_a_remedy(locks, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    locks.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GpuUnavailableError, match="cannot be used") as caught:
        pool().lease(1)
    assert gpu_locks.ENVIRONMENT in caught.value.remedy


def test_a_lock_file_that_is_removed_under_its_holder_breaks_no_later_lease(locks):
    first = pool().lease(8)
    first.close()
    for file in locks.iterdir():
        file.unlink()
    with pool().lease(8, wait=False), pytest.raises(GpuUnavailableError):
        pool().lease(1, wait=False)


@pytest.fixture
def shared():
    """A folder that every user may enter: pytest's own are 0700."""
    with tempfile.TemporaryDirectory(prefix="harness-test-") as name:
        Path(name).chmod(0o755)
        yield name


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_another_user_of_the_host_competes_for_the_same_locks(monkeypatch, shared):
    monkeypatch.setenv(gpu_locks.ENVIRONMENT, f"{shared}/locks")
    source = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sandboxes.gpu_pool import GpuPool; from sandboxes.gpus import Gpu, Listing\n"
        "eight = Listing(tuple(Gpu(f'GPU-fake-{i}', i, 'Fake') for i in range(8)))\n"
        "lease = GpuPool(lambda: eight, lambda u: ()).lease(int(sys.argv[2]), wait=False)\n"
        "print(*lease.uuids)\n"
    )

    def as_nobody(number):
        drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        argv = [*drop, sys.executable, "-c", source, str(ROOT), str(number)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)

    with pool().lease(2):
        done = as_nobody(1)
        if "No module named" in done.stderr:
            pytest.skip("another user cannot read this checkout")
        assert done.stdout.split() == [ALL[2]], done.stderr
        assert f"leased by pid {os.getpid()}" in as_nobody(7).stderr
    assert as_nobody(8).stdout.split() == list(ALL)
    pool().lease(8, wait=False).close()


@no_gpu_here
def test_without_a_gpu_the_pool_is_empty_and_says_why(monkeypatch):
    empty = GpuPool()
    assert empty.gpus == ()
    assert empty.reason
    assert empty.remedy
    with pytest.raises(GpuUnavailableError, match="1 GPU wanted, and there is none here") as caught:
        empty.lease(1)
    assert caught.value.cause == empty.reason
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed
    assert "binding is not installed" in GpuPool().reason
    assert "[gpu]" in GpuPool().remedy


@no_gpu_here
def test_a_profile_that_needs_a_gpu_ends_with_2_a_cause_and_a_remedy(tmp_path):
    told = ("--task", "autoresearch", "--profile", "short")
    said = call("run", *told, cwd=tmp_path, code=2).stderr
    assert "needs a GPU, and there is none here" in said
    assert "cause: NVML" in said
    assert "try:   --profile smoke" in said
    evaluator = LocalEvaluator(1)
    with pytest.raises(ConfigError):
        evaluator.get_ready(
            Asked(task="autoresearch", profile="short"),
            trusted=True, hardware=None, progress=print, observe=print,
        )  # fmt: skip


def test_a_plain_process_sees_the_leased_gpus_and_without_a_lease_none(run_python):
    source = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    for gpus, seen in (((), b"\n"), (ALL[:2], b"GPU-fake-0,GPU-fake-1\n")):
        with ProcessBackend().open(SandboxSpec(gpus=gpus)) as box:
            assert run_python(box, source).stdout == seen


def test_a_run_waits_for_a_gpu_when_it_has_something_to_evaluate_and_gives_it_back(
    tmp_path, changed_toy, monkeypatch
):
    changed_toy(('device = "cpu"', 'device = "any"'))
    # Fake what the pool would ask the hardware: the GPUs and the processes on them.
    monkeypatch.setattr(host, "GpuPool", pool)
    others, seen = [], []

    def observe(what, label, details):
        if what == "writing":  # the sandbox's test is over, and its GPU released
            others.append(holder(tmp_path, 8))
        if what == "waiting":
            others[0].kill()
            others[0].wait()  # a dying process releases its GPUs one by one
        seen.append((what, pool().usage()[0].by if what == "training" else details.get("message")))

    asked = Asked(task="toy", policy="one_shot", profile="test", sandbox="process")
    try:
        result = launch.start(asked, tmp_path / "runs", progress=quiet, observe=observe)
    finally:
        for other in others:
            end(other)
    said = [what for what, _ in seen]
    assert said.index("writing") < said.index("queued") < said.index("waiting")
    assert f"leased by pid {others[0].pid}" in dict(seen)["waiting"]
    during = [text for what, text in seen if what == "training"]
    assert [text.startswith(f"leased by pid {os.getpid()}") for text in during] == [True, True]
    assert result["valid"], result["message"]
    assert result["spent"]["queued_s"] > 0
    (record,) = result["conditions"]["gpus"]
    assert record["uuid"] == ALL[0]
    assert record["verdict"].startswith("cannot tell: ")
    assert "gpu_power_cap" not in result["conditions"]["hardware"]
    pool().lease(8, wait=False).close()


def test_a_pool_of_some_gpus_leases_those_alone():
    few = pool().only(ALL[2:4])
    with few.lease(2, wait=False) as lease, pool().lease(6, wait=False):
        assert lease.uuids == ALL[2:4]
        with pytest.raises(GpuUnavailableError, match="3 GPUs wanted, and there are 2 here"):
            few.lease(3)


def test_who_waits_can_be_stopped_and_leaves_the_queue():
    stop, said = threading.Event(), []
    with pool().lease(8):
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Cancelled):
            pool().lease(1, on_wait=said.append, stopped=stop.is_set)
    assert said == [], "one's own leases are nobody to wait for"
    pool().lease(8, wait=False).close()


def facts(**values):
    return lambda uuids: tuple(nvml.Facts(uuid, **values) for uuid in uuids)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"pids": (os.getpid(),), "throttle": ("sw_power_cap",)}, "undisturbed"),
        ({"pids": (1,)}, "disturbed: pid 1 computed there in "),
        ({"pids": (), "throttle": ("hw_thermal_slowdown",)}, "disturbed: hw_thermal_slowdown in "),
        ({"pids": (2**22 + 1,)}, "cannot tell: NVML names processes"),
        ({}, "cannot tell: "),
    ],
)
def test_the_monitor_says_who_or_what_disturbed_a_run(values, verdict):
    sample = facts(sm_mhz=1980, power_w=650.0, power_cap_w=700.0, **values)
    with GpuMonitor(ALL[:1], sample) as monitor:
        pass
    (record,) = monitor.records
    assert record.verdict.startswith(verdict)
    assert record.samples >= 2
    assert (record.sm_mhz, record.power_cap_w) == ((1980, 1980), 700.0)
    assert len(record.model_dump_json()) < 500


def test_throttle_bits_have_names_and_unknown_ones_a_number():
    assert nvml.throttle_names(0x4 | 0x40 | 0x200) == (
        "sw_power_cap", "hw_thermal_slowdown", "0x200",
    )  # fmt: skip
