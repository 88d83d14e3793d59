"""Tests of bubblewrap alone: seccomp filter, failed starts, no root, no control groups.

Also of how ``auto`` chooses a backend. What all backends share is in test_conformance.py.
"""

import os
import platform
import signal
import subprocess
import uuid

import psutil
import pytest
from hostview import PATIENCE_S, REPO, as_nobody, gone, living, sh, usable

from harness.base.errors import ConfigError, GpuUnavailableError, SandboxStartError
from sandboxes import cgroup, registry, running, seccomp
from sandboxes.base import Mount, Probe, SandboxSpec
from sandboxes.bubblewrap import Bubblewrap
from sandboxes.process import ProcessBackend

MIB = 1 << 20


@pytest.fixture(scope="module")
def backend():
    return usable("bubblewrap")


# Each printed line ends in "done" or an errno's name. Without the filter, most of the calls would
# succeed with these arguments, or fail with another errno.
CALLS = """
    import ctypes, errno, os, platform, socket
    libc = ctypes.CDLL(None, use_errno=True)
    x86 = platform.machine() == "x86_64"
    def call(name, *args):
        ctypes.set_errno(0)
        done = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
        print(name, "done" if done >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
    buf = ctypes.create_string_buffer(4096)
    call("personality", 135 if x86 else 92, 0x0040000)
    call("io_uring_setup", 425, 4, buf)
    call("keyctl", 250 if x86 else 219, 0, -3, 1)
    call("ptrace", 101 if x86 else 117, 16, 999999, 0, 0)
    call("process_vm_readv", 310 if x86 else 270, 999999, 0, 0, 0, 0, 0)
    call("userfaultfd", 323 if x86 else 282, 1)
    call("name_to_handle_at", 303 if x86 else 264, -100, b"/usr", buf, buf, 0)
    call("bpf", 321 if x86 else 280, 99, buf, 128)
    call("perf_event_open", 298 if x86 else 241, buf, 0, -1, -1, 0)
    call("kcmp", 312 if x86 else 272, os.getpid(), os.getpid(), 0, 0, 0)
    call("tiocsti", 16 if x86 else 29, 0, 0x5412, b"x")
    call("mount", 165 if x86 else 40, b"none", b"/tmp", b"nofs", 0, 0)
    call("memfd_secret", 447, 1 << 30)
    call("unknown", 500)
    for name, args in {
        "AF_ALG": (38, 5, 0), "AF_PACKET": (17, 3, 0), "AF_VSOCK": (40, 1, 0),
        "NETLINK_KOBJECT_UEVENT": (16, 3, 15),
    }.items():
        try:
            socket.socket(*args).close()
            print(name, "done")
        except OSError as error:
            print(name, errno.errorcode[error.errno])
    for name, args in {
        "unix": (1, 1, 0), "inet": (2, 1, 0), "inet6": (10, 1, 0), "route": (16, 3, 0)
    }.items():
        socket.socket(*args).close()
    [one.close() for one in socket.socketpair()]
    call("unshare", 272 if x86 else 97, 0x10000000)
    call("clone3", 435, buf, 64)
"""


def _calls(box, run_python):
    result = run_python(box, CALLS)
    assert result.exit_code == 0, result.stderr
    return dict(line.split() for line in result.stdout.decode().splitlines())


def test_the_filter_refuses_what_passes_without_it(backend, run_python, monkeypatch):
    with backend.open(SandboxSpec()) as box:
        walled = _calls(box, run_python)
    assert walled.pop("clone3") == "ENOSYS"
    assert walled.pop("unknown") == "ENOSYS"
    assert set(walled.values()) == {"EPERM"}, walled
    monkeypatch.setattr(seccomp, "supported", lambda machine=None: False)
    assert "seccomp" in backend.unenforced(SandboxSpec())
    with backend.open(SandboxSpec()) as box:
        bare = _calls(box, run_python)
    assert bare["clone3"] != "ENOSYS"
    # A call that is EPERM even without the filter needs a capability that no sandbox has, or a
    # setting of this host forbids it.
    same = {name for name in walled if bare[name] == "EPERM"}
    assert same <= {"mount", "AF_PACKET", "bpf", "perf_event_open", "userfaultfd"}, bare
    assert {bare["personality"], bare["ptrace"]} == {"done", "ESRCH"}


def test_new_namespaces_are_refused_by_clone_too(box, run_python, monkeypatch, backend):
    # Like fork, but with CLONE_NEWUSER.
    source = """
        import ctypes, os, platform
        libc = ctypes.CDLL(None, use_errno=True)
        clone = 56 if platform.machine() == "x86_64" else 220
        pid = libc.syscall(clone, 0x10000000 | 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        print(pid > 0, ctypes.get_errno())
    """
    assert run_python(box, source).stdout == b"False 1\n"
    monkeypatch.setattr(seccomp, "supported", lambda machine=None: False)
    with backend.open(SandboxSpec()) as open_box:
        assert run_python(open_box, source).stdout == b"True 0\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 has three ABIs")
def test_other_abis_are_no_way_round(box, run_python):
    # The bytes are ``mov eax, 20; int 0x80; ret``: getpid by its 32-bit number. Then getpid in x32.
    source = """
        import ctypes, mmap
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(bytes.fromhex("b814000000cd80c3"))
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        print(call())
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.syscall(0x40000000 | 39), ctypes.get_errno())
    """
    assert run_python(box, source).stdout == b"-1\n-1 1\n"


def test_the_filter_has_no_jump_too_far():
    for machine in ("x86_64", "aarch64"):
        code = seccomp.program(machine)
        count = len(code) // 8
        assert count < 4096  # BPF_MAXINSNS
        for at in range(count):
            opcode, true, false = code[8 * at], code[8 * at + 2], code[8 * at + 3]
            if opcode & 0x07 == 0x05:
                assert at + 1 + max(true, false) < count


def test_ordinary_work_passes_the_filter(box, run_python):
    source = """
        import concurrent.futures, multiprocessing, os, sqlite3, subprocess, tempfile, threading
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(abs, range(-99, 0)))
        assert subprocess.run(["/bin/echo", "x"], capture_output=True).stdout == b"x\\n"
        with multiprocessing.get_context("fork").Pool(2) as pool:  # needs /dev/shm
            assert pool.map(abs, [-1]) == [1]
        with tempfile.NamedTemporaryFile() as file:
            assert file.name.startswith("/tmp/")
        import numpy
        assert (numpy.ones((200, 200)) @ numpy.ones((200, 200))).sum() == 200**3
        import pwd
        assert pwd.getpwuid(os.getuid()).pw_dir == "/work"
        print("fine", os.cpu_count() > 0)
    """
    result = run_python(box, source)
    assert (result.stdout, result.stderr) == (b"fine True\n", b"")


def test_nothing_of_init_is_readable(box, run_python):
    if os.geteuid() != 0:
        pytest.skip("needs a user of its own")
    source = """
        import os
        for name in "environ", "mem", "maps", "root", "cwd", "fd":
            try:
                path = f"/proc/1/{name}"
                os.listdir(path) if name in ("root", "cwd", "fd") else open(path, "rb").read(1)
                print("read", name)
            except OSError:
                pass
        print("done")
    """
    result = run_python(box, source)
    assert (result.exit_code, result.stdout) == (0, b"done\n")


def test_the_command_line_of_init_tells_no_host_path(box, tmp_path):
    said = box.exec(["/bin/cat", "/proc/1/cmdline"], timeout=PATIENCE_S).stdout
    assert b"bwrap" in said
    assert str(REPO).encode() not in said
    assert os.environ["HARNESS_STATE"].encode() not in said


def test_nothing_under_proc_or_sys_can_be_written(box, run_python):
    source = """
        import os
        for top in "/proc/sys", "/proc/irq", "/proc/bus", "/sys", "/proc/fs":
            for folder, _, names in os.walk(top):
                for name in names:
                    path = os.path.join(folder, name)
                    if os.access(path, os.W_OK) and not os.path.islink(path):
                        print(path)
        for name in os.listdir("/proc"):
            path = "/proc/" + name
            if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.W_OK):
                print(path)
        print("done")
    """
    result = run_python(box, source)
    # Everybody may open ns_last_pid, but writing to it needs a capability.
    assert result.stdout in (b"done\n", b"/proc/sys/kernel/ns_last_pid\ndone\n")
    assert result.exit_code == 0, result.stderr


def test_killing_everybody_reaches_nobody_else(box, marker_process):
    sh(box, "sleep 300 & kill -9 -1")
    assert marker_process.poll() is None


@pytest.fixture
def marker_process():
    with subprocess.Popen(["/bin/sleep", "300"]) as process:
        yield process
        process.kill()


def test_a_monitor_killed_from_outside_is_lost(backend):
    word = f"marker-{uuid.uuid4().hex}"
    with backend.open(SandboxSpec()) as box:
        process = box.start(["/bin/sh", "-c", f"sleep 300; : {word}"])
        (monitor,) = (pid for pid in living(word) if psutil.Process(pid).ppid() == os.getpid())
        os.kill(monitor, signal.SIGKILL)
        result = process.wait(PATIENCE_S)
        assert (result.ended, result.exit_code) == ("lost", None)
        assert gone(word)


def test_a_sandbox_that_cannot_stand_says_why(backend, tmp_path):
    source = tmp_path / "gone"
    source.mkdir()
    with backend.open(SandboxSpec(mounts=(Mount(source, "/gone"),))) as box:
        source.rmdir()
        with pytest.raises(SandboxStartError) as caught:
            box.start(["/bin/true"])
        assert "gone" in caught.value.cause
        assert caught.value.remedy
        source.mkdir()
        assert box.exec(["/bin/true"], timeout=PATIENCE_S).exit_code == 0


def test_too_little_memory_to_stand_is_no_result(backend):
    with backend.open(SandboxSpec(memory_bytes=64 << 10)) as box:
        if "memory:watchdog" in backend.unenforced(box.spec):
            pytest.skip("a watchdog is too slow for that")
        with pytest.raises(SandboxStartError):
            box.start(["/bin/true"])


def test_a_gpu_that_is_not_there_is_named(backend):
    with pytest.raises(GpuUnavailableError, match="GPU-nowhere"):
        backend.open(SandboxSpec(gpus=("GPU-nowhere",)))


def test_without_groups_a_watchdog_holds_memory(backend, run_python, monkeypatch):
    monkeypatch.setattr(cgroup, "find", lambda: None)
    spec = SandboxSpec(memory_bytes=64 * MIB, cpus=1.0)
    assert {"cpus", "memory:watchdog", "pids"} <= set(backend.unenforced(spec))
    source = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            x = b"x" * (100 << 20)
        time.sleep(300)
    """
    with backend.open(spec) as box:
        result = run_python(box, source)
    assert (result.ended, result.exit_code) == ("oom", None)


def test_pages_shared_by_workers_are_counted_once(backend, run_python, monkeypatch):
    monkeypatch.setattr(cgroup, "find", lambda: None)
    monkeypatch.setattr(running, "_WATCH_S", 0.01)
    source = """
        import os, time
        x = b"x" * (50 << 20)
        for _ in range(4):
            if os.fork() == 0:
                time.sleep(0.2)
                os._exit(0)
        for _ in range(4):
            os.wait()
    """
    with backend.open(SandboxSpec(memory_bytes=100 * MIB)) as box:
        assert run_python(box, source).ended == "exited"


def test_scratch_files_stay_counted_as_memory(backend, run_python):
    spec = SandboxSpec(memory_bytes=100 * MIB, disk_bytes=200 * MIB)
    if "memory:watchdog" in backend.unenforced(spec) or "disk" in backend.unenforced(spec):
        pytest.skip("needs groups and a disk of its own")
    source = "f = open('big', 'wb')\nfor _ in range(60): f.write(b'x' * (1 << 20))"
    hog = "x = b'x' * (60 << 20)"
    with backend.open(spec) as box:
        assert run_python(box, hog).ended == "exited"
        assert run_python(box, source).ended == "exited"
        assert run_python(box, hog).ended == "oom"


def test_cpus_are_shared_out(backend):
    spec = SandboxSpec(cpus=0.2)
    if "cpus" in backend.unenforced(spec):
        pytest.skip("no groups")
    with backend.open(spec) as box:
        script = "import time\nwhile time.monotonic() < END: pass\nprint(time.process_time())"
        argv = [box.python, "-I", "-c", f"import time; END = time.monotonic() + 0.5\n{script}"]
        used = float(box.exec(argv, timeout=PATIENCE_S).stdout)
    assert used < 0.25


def test_a_planted_link_cannot_move_a_mount(backend, tmp_path):
    (tmp_path / "file").write_text("x")
    tmp_path.chmod(0o755)
    with backend.open(SandboxSpec(mounts=(Mount(tmp_path, "/submission"),))) as box:
        script = "cd /; rm -rf /work /tmp; rmdir work tmp; ln -s /etc /work/x; mv /work /elsewhere"
        sh(box, script)
        result = sh(box, "readlink /work/x; ls -d /work /tmp")
        assert result.stdout == b"/etc\n/tmp\n/work\n"


@pytest.mark.slow
def test_torch_runs(backend, run_python):
    pytest.importorskip("torch")
    source = "import torch; print((torch.ones(300, 300) @ torch.ones(300, 300)).sum().item())"
    with backend.open(SandboxSpec()) as roomy:
        result = run_python(roomy, source)
    assert (result.stdout, result.stderr) == (b"27000000.0\n", b"")


NOBODY = """
    import json, os, sys, time
    from pathlib import Path
    from sandboxes.base import SandboxSpec, Mount
    from sandboxes.bubblewrap import Bubblewrap
    b = Bubblewrap()
    told = {"probe": list(map(str, (b.probe().available, b.probe().detail)))}
    spec = SandboxSpec(memory_bytes=200 << 20, pids=40, disk_bytes=8 << 20)
    told["unenforced"] = b.unenforced(spec)
    if b.probe().available:
        with b.open(spec) as box:
            run = lambda source, t=60: box.exec([box.python, "-I", "-c", source], timeout=t)
            status = run("print(open('/proc/self/status').read())").stdout.decode()
            told["status"] = dict(line.split(":\\t", 1) for line in status.splitlines() if line)
            told["root"] = run("open('/x', 'w')").exit_code
            told["dev"] = run("open('/dev/x', 'w')").exit_code
            told["host"] = run("import os; print(os.path.exists('/etc/shadow'))").stdout.decode()
            told["work"] = run("open('f', 'w').write('hello')").exit_code
            box.get("/work/f", Path(sys.argv[1], "f"), max_bytes=10)
            told["got"] = Path(sys.argv[1], "f").read_text()
            told["file"] = run("open('g', 'wb').write(b'x' * (9 << 20))").exit_code
            told["hog"] = run("x = b'x' * (300 << 20); import time; time.sleep(300)").ended
            bomb = "import os, time\\nfor i in range(100):\\n  if not os.fork(): time.sleep(300)\\n"
            told["bomb"] = run(bomb).stderr.decode()[-60:]
            told["code"] = run("import os; os.kill(os.getpid(), 9)").exit_code
            told["late"] = run("import time; time.sleep(300)", 0.1).ended
            look = "cat /proc/1/environ | tr '\\\\0' ' '; ls -l /proc/1/fd | grep -c socket"
            told["init"] = box.exec(["/bin/sh", "-c", look], timeout=60).stdout.decode()
            run("import os; os.makedirs('a/b'); os.chmod('a', 0)")
        told["left"] = [p.name for p in Path(os.environ["HARNESS_STATE"]).iterdir()]
    print(json.dumps(told))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the suite itself then runs without root")
def test_without_root_the_rest_still_holds(backend):
    told = as_nobody(NOBODY, "psutil", API_KEY="sk-harness-secret")
    if told["probe"][0] != "True":
        pytest.skip(f"this kernel forbids it to users: {told['probe'][1]}")
    assert told["unenforced"] == ["disk", "memory:watchdog", "pids", "separate-user", "user-quotas"]
    status = told["status"]
    assert {status[f"Cap{k}"] for k in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert (told["root"], told["dev"], told["host"]) == (1, 1, "False\n")
    assert (told["work"], told["got"]) == (0, "hello")
    assert told["file"] != 0
    assert (told["hog"], told["code"], told["late"]) == ("oom", -9, "timeout")
    assert "Resource temporarily unavailable" in told["bomb"]
    assert "sk-harness" not in told["init"]
    assert told["left"] == ["lock"]


# ---- choosing a backend


class _Absent(Bubblewrap):
    def _try(self):
        return Probe(False, "bwrap is not installed", "apt-get install bubblewrap")


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setattr(
        registry.BACKENDS, "ours", {"bubblewrap": _Absent(), "process": ProcessBackend()}
    )


def test_auto_takes_what_isolates(backend, monkeypatch):
    # Leave out docker: where it works, ``auto`` would choose it first.
    others = {name: one for name, one in registry.BACKENDS.ours.items() if name != "docker"}
    monkeypatch.setattr(registry.BACKENDS, "ours", others)
    assert registry.choose("auto", trusted=False) == (backend, None)


def test_auto_runs_only_our_own_code_without_isolation(without):
    chosen, warning = registry.choose("auto", trusted=True)
    assert chosen.name == "process"
    assert "\n" not in warning
    assert "no isolation" in warning
    with pytest.raises(ConfigError) as caught:
        registry.choose("auto", trusted=False)
    assert "apt-get install bubblewrap" in caught.value.remedy
    assert "--sandbox process" in caught.value.remedy


def test_a_name_is_taken_at_its_word_or_refused(without):
    chosen, warning = registry.choose("process", trusted=False)
    assert chosen.name == "process"
    assert warning
    with pytest.raises(ConfigError) as caught:
        registry.choose("bubblewrap", trusted=True)
    assert "apt-get install" in caught.value.remedy
    with pytest.raises(ConfigError, match="nonsense"):
        registry.choose("nonsense", trusted=True)


def test_a_state_folder_that_others_can_write_is_refused(backend, monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("HARNESS_STATE", str(shared))
    with pytest.raises(SandboxStartError, match="not ours alone"):
        backend.open(SandboxSpec())
