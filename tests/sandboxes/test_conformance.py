"""One set of tests for every backend. ``UNHELD`` lists the tests that ``process`` must fail.

Where that is cheap, a test also removes the restriction, to show that the attempt then succeeds.
"""

import ast
import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostview import PATIENCE_S, REPO, gone, living, python, sh, speaking, until, usable

from harness.base.errors import ConfigError, SandboxStartError, TransferError
from sandboxes import running
from sandboxes.base import Mount, SandboxSpec
from sandboxes.registry import BACKENDS

MIB = 1 << 20
ROOT = os.geteuid() == 0

NO_WALLS = "a plain process has no walls"
UNHELD = {
    ("process", "test_a_daemon_dies_with_its_start"): "a daemon leaves the session",
    ("process", "test_kill_reaches_a_daemon"): "a daemon leaves the session",
    ("process", "test_a_fork_bomb_is_bounded"): "a count would hit all of the user's processes",
    ("process", "test_only_a_child_out_of_memory_is_seen"): "the watchdog kills the whole tree",
    ("process", "test_the_network_is_absent"): NO_WALLS,
    ("process", "test_abstract_sockets_of_the_host_are_unreachable"): NO_WALLS,
    ("process", "test_the_root_is_read_only"): NO_WALLS,
    ("process", "test_host_files_are_invisible"): NO_WALLS,
    ("process", "test_a_read_only_mount_cannot_be_written"): "a mount is a link",
    ("process", "test_the_disk_is_bounded_with_tmp"): "only each file is",
    ("process", "test_shared_memory_is_bounded"): NO_WALLS,
    ("process", "test_code_has_no_privilege"): NO_WALLS,
    ("process", "test_a_setuid_program_gains_nothing"): NO_WALLS,
    ("process", "test_host_processes_are_invisible"): NO_WALLS,
    ("process", "test_the_parent_cannot_be_signalled"): NO_WALLS,
    ("process", "test_peer_credentials_name_the_candidate"): NO_WALLS,
    ("process", "test_peak_memory_is_reported"): "there is no counter",
}
"""(backend, test) -> why it must fail. Strict: if it passes one day, its line must go."""


NEEDS = {"docker": [pytest.mark.docker]}
elsewhere = pytest.mark.elsewhere


@pytest.fixture(params=[pytest.param(name, marks=NEEDS.get(name, [])) for name in BACKENDS.names()])
def backend(request):
    found = usable(request.param)
    wall = request.node.get_closest_marker("wall")
    if wall and found.isolates and set(wall.args) & set(found.unenforced(SandboxSpec())):
        pytest.skip(f"{found.name} cannot hold {wall.args} for this user")
    reason = UNHELD.get((found.name, request.node.originalname))
    if reason:
        request.applymarker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))
    return found


@pytest.fixture
def small(backend):
    """A sandbox with less memory than ``HOG`` takes."""
    with backend.open(SandboxSpec(memory_bytes=64 * MIB)) as opened:
        yield opened


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(running, "_GRACE_S", 0.1)


@pytest.fixture
def patience(backend, request):
    """Seconds to wait for a process to die: few where the backend cannot kill it."""
    return 0.2 if (backend.name, request.node.originalname) in UNHELD else PATIENCE_S


@pytest.fixture
def marker():
    """A word for command lines. Processes that still have it after the test are killed."""
    word = f"marker-{uuid.uuid4().hex}"
    yield word
    for pid in living(word):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


DAEMON = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep-" + sys.argv[1], "300"])
        os._exit(0)
    os.wait()
    time.sleep(float(sys.argv[2]))
"""


TAKE_ALL = {
    "inotify": """
        taken = 0
        while libc.inotify_init1(0) >= 0:
            taken += 1
        said = ctypes.get_errno() == errno.EMFILE
    """,
    "pipes": """
        ends, said = [], False
        while not said:
            ends += os.pipe()
            try:
                fcntl.fcntl(ends[-1], fcntl.F_SETPIPE_SZ, 1 << 20)
            except PermissionError:
                said = True
    """,
    "signals": """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
        said = not any(libc.sigqueue(os.getpid(), signal.SIGRTMIN, 0) for _ in range(1000))
    """,
    "processes": """
        for _ in range(40):
            if os.fork() == 0:
                time.sleep(60)
        said = True
    """,
}
"""What the kernel counts by user -> code that takes all, or more than ``TAKE_SOME`` allows."""

TAKE_SOME = {
    "inotify": "said = libc.inotify_init1(0) >= 0",
    "pipes": "said = fcntl.fcntl(os.pipe()[1], fcntl.F_SETPIPE_SZ, 1 << 20) == 1 << 20",
    "signals": """
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (500, 500))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
        said = libc.sigqueue(os.getpid(), signal.SIGRTMIN, 0) == 0
    """,
    "processes": """
        resource.setrlimit(resource.RLIMIT_NPROC, (30, 30))
        if os.fork() == 0:
            os._exit(0)
        said = os.wait()[1] == 0
    """,
}

_QUOTA = """
import ctypes, errno, fcntl, os, resource, signal, time
libc = ctypes.CDLL(None, use_errno=True)
{}
print(said, flush=True)
time.sleep({})
"""


class TestConformance:
    # ---- results

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            pytest.param("exit 0", 0, marks=elsewhere),
            ("exit 3", 3),
            ("exit 255", 255),
            ("kill -9 $$", -9),
            pytest.param("kill -15 $$", -15, marks=elsewhere),
            pytest.param("kill -11 $$", -11, marks=elsewhere),
        ],
    )
    def test_exit_codes_and_signals(self, box, script, code):
        result = sh(box, script)
        assert (result.exit_code, result.ended) == (code, "exited")

    def test_a_missing_program_is_a_result(self, box):
        result = box.exec(["no-such-program"], timeout=PATIENCE_S)
        assert (result.exit_code, result.ended) == (127, "exited")
        assert b"no-such-program" in result.stderr

    @elsewhere
    def test_a_missing_folder_is_a_result(self, box):
        result = box.exec(["/bin/true"], timeout=PATIENCE_S, cwd=box.inside("/work/none"))
        assert (result.exit_code, result.ended) == (126, "exited")

    def test_stdout_and_stderr_are_apart(self, box):
        result = sh(box, "echo out; echo err >&2")
        assert (result.stdout, result.stderr, result.dropped_bytes) == (b"out\n", b"err\n", 0)

    @elsewhere
    def test_bytes_come_out_as_they_are(self, box, run_python):
        source = "import os; os.write(1, bytes(range(256)))"
        assert run_python(box, source).stdout == bytes(range(256))

    def test_a_flood_of_output_costs_no_memory(self, box, run_python):
        total, kept = 100 * MIB, 100_000
        source = f"""
            import os
            block = b"x" * {MIB}
            for i in range(100):
                view = memoryview(block)
                while view:
                    view = view[os.write(1, view):]
            os.write(1, b"the end")
            os.write(2, b"e" * {kept + 1})
        """
        # Reset the peak: that of the process's whole life would hide what is used here.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_kib("VmHWM")
        result = run_python(box, source, max_output=kept)
        grown = _status_kib("VmHWM") - before
        assert result.exit_code == 0
        assert len(result.stdout) == len(result.stderr) == kept
        assert result.stdout.endswith(b"xthe end")
        assert result.dropped_bytes == total + len(b"the end") - kept + 1
        assert grown < 32 * 1024

    @elsewhere
    def test_a_listener_hears_everything(self, box, run_python):
        heard = {"stdout": 0, "stderr": 0}

        def listen(stream, chunk):
            heard[stream] += len(chunk)

        source = "import os; os.write(1, b'a' * 50_000); os.write(2, b'b' * 30_000)"
        result = run_python(box, source, on_output=listen, max_output=10)
        assert heard == {"stdout": 50_000, "stderr": 30_000}
        assert result.dropped_bytes == 79_980

    @elsewhere
    def test_a_failing_listener_is_the_callers_and_stops_nothing(self, box, run_python):
        def listen(stream, chunk):
            raise ValueError("mine")

        # Much more than fits in a pipe. It ends once nothing is left in the pipe.
        source = """
            import fcntl, os, termios, time
            for _ in range(99):
                os.write(1, b"a" * 65536)
            while fcntl.ioctl(1, termios.FIONREAD, bytes(4)) != bytes(4):
                time.sleep(0.01)
            open("drained", "w").close()
        """
        with pytest.raises(ValueError, match="mine"):
            run_python(box, source, on_output=listen)
        assert box.exec(["/bin/cat", "drained"], timeout=PATIENCE_S).exit_code == 0

    def test_stdin_is_empty_and_nothing_else_is_open(self, box, run_python):
        source = """
            import os, sys
            assert sys.stdin.read() == ""
            fds = set(map(int, os.listdir("/proc/self/fd")))
            print(sorted(fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")))
        """
        assert run_python(box, source).stdout == b"[0, 1, 2]\n"

    def test_the_terminal_is_not_shared(self, box, run_python):
        result = run_python(
            box, "import os; print(os.getsid(0) == os.getpgid(0)); os.open('/dev/tty', 2)"
        )
        assert result.stdout == b"True\n"
        assert b"OSError" in result.stderr

    # ---- how a process ends

    def test_a_timeout_kills(self, box):
        process = speaking(box, ["/bin/sh", "-c", "echo said; sleep 300"])
        result = process.wait(0.1)
        assert (result.ended, result.exit_code, result.stdout) == ("timeout", None, b"said\n")

    @elsewhere
    def test_ignoring_signals_does_not_help(self, box):
        source = """
            import signal, time
            for number in set(signal.valid_signals()) - {9, 19}:
                signal.signal(number, signal.SIG_IGN)
            print("deaf", flush=True)
            time.sleep(300)
        """
        assert speaking(box, python(box, source)).wait(0.1).ended == "timeout"

    def test_kill_is_a_cancel_and_idempotent(self, box):
        process = box.start(["/bin/sleep", "300"])
        assert not process.poll()
        process.kill()
        process.kill()
        result = process.wait(PATIENCE_S)
        assert (result.ended, result.exit_code) == ("cancelled", None)
        assert process.poll()
        process.kill()
        assert process.wait() == result

    def test_the_lifetime_ends_what_nobody_waits_for(self, backend):
        with backend.open(SandboxSpec(lifetime_s=0.2)) as box:
            process = box.start(["/bin/sleep", "300"])
            assert until(process.poll)
            assert process.wait().ended == "timeout"

    @elsewhere
    def test_a_process_outlives_the_thread_that_started_it(self, box):
        started = []
        thread = threading.Thread(
            target=lambda: started.append(box.start(["/bin/sh", "-c", "sleep 0.2; exit 7"]))
        )
        thread.start()
        thread.join()
        assert started[0].wait(PATIENCE_S).exit_code == 7

    def test_children_die_with_a_timeout(self, box, marker):
        child = f'sh -c "echo up; sleep 300; : {marker}" &'
        process = speaking(box, ["/bin/sh", "-c", f"{child} {child} wait"], lines=2)
        assert process.wait(0.1).ended == "timeout"
        assert gone(marker)

    def test_kill_reaches_a_daemon(self, box, marker, patience, short_grace):
        process = box.start(python(box, DAEMON, marker, "300"))
        assert until(lambda: living(f"sleep-{marker}"))
        process.kill()
        process.wait(PATIENCE_S)
        assert gone(marker, patience)

    def test_a_daemon_dies_with_its_start(self, box, run_python, marker, patience, short_grace):
        assert run_python(box, DAEMON, marker, "0").exit_code == 0
        assert gone(marker, patience)

    @elsewhere
    def test_a_daemon_that_holds_the_pipes_holds_nothing_up(
        self, backend, box, run_python, marker, short_grace
    ):
        result = run_python(box, DAEMON, marker, "0")
        assert (result.ended, result.exit_code) == ("exited", 0)
        if not backend.isolates:
            assert living(f"sleep-{marker}")  # the daemon still holds the pipes

    # ---- limits

    def test_a_fork_bomb_is_bounded(self, box, run_python):
        source = """
            import os, time
            made = 0
            try:
                for _ in range(100):
                    if os.fork() == 0:
                        time.sleep(300); os._exit(0)
                    made += 1
            except OSError as error:
                print(type(error).__name__)
            print(made)
        """
        result = run_python(box, source)
        assert result.stdout.split()[0] == b"BlockingIOError"
        assert int(result.stdout.split()[1]) <= 64

    def test_a_real_fork_bomb_ends_with_its_time(self, backend, marker):
        if not backend.isolates:
            pytest.skip("not on a machine that others use")
        with backend.open(SandboxSpec(pids=50)) as box:
            source = """
                import os
                while True:
                    try:
                        os.fork()
                    except OSError:
                        print("full", flush=True)
            """
            process = speaking(box, python(box, source, marker))
            assert process.wait(0.2).ended == "timeout"
            assert gone(marker)
            assert box.exec(["/bin/true"], timeout=PATIENCE_S).exit_code == 0

    HOG = """
        import sys, time
        block = b"x" * (100 << 20)
        print(len(block), flush=True)
        time.sleep(float(sys.argv[1]))
    """

    def test_too_much_memory_is_an_oom(self, small, run_python):
        assert run_python(small, self.HOG, "300").ended == "oom"

    @elsewhere
    def test_enough_memory_is_enough(self, box, run_python, monkeypatch):
        monkeypatch.setattr(running, "_WATCH_S", 0.01)  # if there is a watchdog, it looks often
        result = run_python(box, self.HOG, "0.1")
        assert (result.ended, result.exit_code) == ("exited", 0)

    @pytest.mark.wall("memory:watchdog")
    def test_only_a_child_out_of_memory_is_seen(self, small, run_python):
        source = """
            import subprocess, sys
            hog = [sys.executable, "-I", "-c", sys.argv[1], "300"]
            print(subprocess.run(hog, stdout=subprocess.DEVNULL).returncode)
        """
        result = run_python(small, source, textwrap.dedent(self.HOG))
        assert (result.ended, result.exit_code, result.stdout) == ("oom", 0, b"-9\n")
        assert small.exec(["/bin/true"], timeout=PATIENCE_S).ended == "exited"

    @pytest.mark.wall("memory:watchdog")
    def test_peak_memory_is_reported(self, box, run_python):
        peak = run_python(box, self.HOG, "0").peak_memory_bytes
        assert peak is not None
        assert 100 * MIB < peak < 200 * MIB

    @pytest.mark.wall("disk")
    def test_the_disk_is_bounded_with_tmp(self, box, run_python):
        source = """
            import os, sys
            for folder, blocks in (sys.argv[1], 40), (sys.argv[2], 40):
                with open(folder + "/big", "wb", buffering=0) as file:
                    for _ in range(blocks):
                        file.write(b"x" * (1 << 20))
        """
        result = run_python(box, source, box.inside("/work"), box.inside("/tmp"))
        assert b"No space left on device" in result.stderr

    def test_shared_memory_is_bounded(self, backend, run_python, marker):
        source = f"""
            import os
            path = "/dev/shm/{marker}"
            try:
                with open(path, "wb", buffering=0) as file:
                    for _ in range(4):
                        file.write(b"x" * (1 << 20))
            finally:
                os.unlink(path)
        """
        with backend.open(SandboxSpec(shm_bytes=2 * MIB)) as box:
            assert b"No space left on device" in run_python(box, source).stderr
        with backend.open(SandboxSpec(shm_bytes=8 * MIB)) as box:
            assert run_python(box, source).exit_code == 0

    # ---- what can be reached

    def test_the_network_is_absent(self, box, run_python):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            source = f"""
                import socket
                try:
                    socket.create_connection(("127.0.0.1", {port}), 2)
                    print("connected")
                except OSError:
                    print("refused")
                try:
                    print(socket.getaddrinfo("pypi.org", 443))
                except OSError:
                    print("no names")
                print([name for _, name in socket.if_nameindex()])
            """
            assert run_python(box, source).stdout == b"refused\nno names\n['lo']\n"

    def test_abstract_sockets_of_the_host_are_unreachable(self, backend, run_python):
        name = f"\0harness-test-{uuid.uuid4().hex}"
        source = f"""
            import socket
            with socket.socket(socket.AF_UNIX) as s:
                s.connect({name!r})
        """
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
            server.listen()
            with backend.open(SandboxSpec(network=True)) as box:
                assert run_python(box, source).exit_code == 0  # no restriction: it connects
            with backend.open(SandboxSpec()) as box:
                assert b"ConnectionRefusedError" in run_python(box, source).stderr

    def test_the_root_is_read_only(self, box, run_python):
        source = """
            import os
            for folder in "/", "/usr", "/etc", "/dev", "/venv", "/root", "/var", "/sys", "/proc":
                path = folder.rstrip("/") + "/harness-test"
                try:
                    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
                    os.unlink(path)
                    print("written", path)
                except OSError:
                    pass
        """
        result = run_python(box, source)
        assert (result.exit_code, result.stdout) == (0, b"")

    def test_host_files_are_invisible(self, box, run_python, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text("secret")
        secret.chmod(0o644)
        here = [
            str(secret),
            str(REPO / "pyproject.toml"),
            "/etc/shadow",
            "/etc/hostname",
            os.environ["HARNESS_STATE"],
            str(Path("~/.bashrc").expanduser()),
            "/sys/fs/cgroup",
        ]
        # An image has some of these paths, too, but the contents must not be the host's.
        source = """
            import os, sys
            for path in sys.argv[1:]:
                try:
                    print(os.listdir(path) if os.path.isdir(path) else [open(path).read()])
                except OSError:
                    print(None)
        """
        told = run_python(box, source, *here).stdout.decode().splitlines()
        for path, seen in zip(here, map(ast.literal_eval, told), strict=True):
            if Path(path).is_dir():
                assert not set(seen or ()) & {p.name for p in Path(path).iterdir()}, path
            elif os.access(path, os.R_OK):  # only root may read /etc/shadow
                assert seen != [Path(path).read_text()], path

    def test_the_environment_is_only_what_was_given(self, box, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-harness-secret")
        result = box.exec(["/usr/bin/env"], timeout=PATIENCE_S, env={"GIVEN": "a b='c'\n$(id)"})
        assert b"sk-harness" not in result.stdout
        assert b"GIVEN=a b='c'\n$(id)\n" in result.stdout
        names = {line.partition("=")[0] for line in result.stdout.decode().splitlines()}
        names.discard("CUDA_VISIBLE_DEVICES")  # ``process`` sets it: it cannot hide GPUs' nodes
        assert names <= {"PATH", "HOME", "TMPDIR", "USER", "LANG", "PWD", "GIVEN", "$(id)"}
        look = "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c sk-harness"
        if box.inside("/work") == "/work":
            assert sh(box, look).stdout == b"0\n"

    @pytest.mark.parametrize("env", [{"A=B": "c"}, {"": "x"}, {"-i": "x"}, {"A": "x\0y"}])
    def test_a_broken_environment_is_refused(self, box, env):
        with pytest.raises(ConfigError):
            box.start(["/bin/true"], env=env)

    def test_mounts_are_seen(self, backend, tmp_path):
        tmp_path.chmod(0o755)  # pytest makes it 0700, but the candidate is another user
        (tmp_path / "file").write_text("hello")
        out = tmp_path / "out"
        out.mkdir()
        out.chmod(0o777)
        mounts = (
            Mount(tmp_path, "/submission/deep"),
            Mount(tmp_path / "file", "/one/file"),
            Mount(out, "/out", writable=True),
        )
        with backend.open(SandboxSpec(mounts=mounts)) as box:
            paths = [box.inside(p) for p in ("/submission/deep/file", "/one/file")]
            assert box.exec(["/bin/cat", *paths], timeout=PATIENCE_S).stdout == b"hellohello"
            script = f"echo from inside > {box.inside('/out')}/told"
            assert sh(box, script).exit_code == 0
        assert (out / "told").read_text() == "from inside\n"

    def test_a_read_only_mount_cannot_be_written(self, backend, tmp_path):
        tmp_path.chmod(0o777)
        with backend.open(SandboxSpec(mounts=(Mount(tmp_path, "/submission"),))) as box:
            script = f"echo x > {box.inside('/submission')}/new"
            assert sh(box, script).exit_code != 0
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        "target", ["/work/x", "/tmp/x", "/", "x", "/a/../work", "/etc", "/usr/x", "/proc/x", "/a/"]
    )
    def test_a_mount_in_a_bad_place_is_refused(self, backend, tmp_path, target):
        with pytest.raises(ConfigError):
            backend.open(SandboxSpec(mounts=(Mount(tmp_path, target),)))

    def test_a_mount_inside_a_mount_or_of_nothing_is_refused(self, backend, tmp_path):
        nested = (Mount(tmp_path, "/a", writable=True), Mount(tmp_path, "/a/b"))
        for mounts in (nested, (Mount(tmp_path / "none", "/a"),)):
            with pytest.raises(ConfigError):
                backend.open(SandboxSpec(mounts=mounts))

    @pytest.mark.wall("separate-user")
    def test_code_has_no_privilege(self, backend, box):
        result = box.exec(["/bin/cat", "/proc/self/status"], timeout=PATIENCE_S)
        status = dict(line.split(":\t") for line in result.stdout.decode().splitlines())
        users = {*status["Uid"].split(), *status["Gid"].split()}
        assert [_is_its_own(backend, box, int(user)) for user in users] == [True]
        assert status["Groups"].strip() in ("", *users)
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    @pytest.mark.wall("separate-user")
    def test_code_has_another_uid_outside(self, backend, marker):
        if not backend.isolates:
            pytest.skip(NO_WALLS)
        with backend.open(SandboxSpec()) as box:
            speaking(box, ["/bin/sh", "-c", f"echo up; sleep 300; : {marker}"])
            uids = {Path(f"/proc/{pid}").stat().st_uid for pid in _shells(marker)}
            assert uids == {box.state.user} != {os.getuid()}

    @pytest.mark.wall("user-quotas")
    @pytest.mark.parametrize(
        "quota",
        [pytest.param(q, marks=[elsewhere] if q != "processes" else []) for q in TAKE_ALL],
    )
    def test_a_sandbox_cannot_take_what_the_kernel_gives_a_user_from_another(
        self, backend, run_python, quota
    ):
        if not backend.isolates:
            pytest.skip("it would take it from the user who runs the tests")
        spec = SandboxSpec(memory_bytes=512 * MIB, pids=64)
        heard = threading.Event()

        def hear(_stream, chunk):
            if b"True" in chunk:
                heard.set()

        with backend.open(spec) as greedy, backend.open(spec) as other:
            source = _QUOTA.format(textwrap.dedent(TAKE_ALL[quota]), 60)
            process = greedy.start([greedy.python, "-I", "-c", source], on_output=hear)
            assert heard.wait(PATIENCE_S), process.wait(1).stderr
            source = _QUOTA.format(textwrap.dedent(TAKE_SOME[quota]), 0)
            result = run_python(other, source)
            assert not process.poll()
        assert result.stdout == b"True\n", result.stderr

    @elsewhere
    @pytest.mark.skipif(not ROOT, reason="only root can make a program setuid root")
    def test_a_setuid_program_gains_nothing(self, backend, tmp_path):
        tmp_path.chmod(0o755)
        program = tmp_path / "id"
        program.write_bytes(Path("/usr/bin/id").read_bytes())
        program.chmod(0o4755)
        with backend.open(SandboxSpec(mounts=(Mount(tmp_path, "/programs"),))) as box:
            result = box.exec([box.inside("/programs/id"), "-u"], timeout=PATIENCE_S)
        assert _is_its_own(backend, box, int(result.stdout))

    def test_host_processes_are_invisible(self, box, run_python):
        source = "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))"
        assert int(run_python(box, source).stdout) <= 3

    @elsewhere
    def test_the_parent_cannot_be_signalled(self, box, run_python):
        source = """
            import os
            for pid in {1, os.getppid(), %d} - {0}:
                try:
                    os.kill(pid, 0)
                    print("can signal", pid)
                except OSError:
                    pass
            print("done")
        """
        result = run_python(box, source % os.getpid())
        assert (result.exit_code, result.stdout) == (0, b"done\n")

    # ---- the judge's socket

    @elsewhere
    def test_a_socket_in_a_mount_works_both_ways(self, backend, run_python, tmp_path):
        assert self._talk(backend, run_python, tmp_path)[0] == (b"question", b"answer")

    @pytest.mark.wall("separate-user")
    def test_peer_credentials_name_the_candidate(self, backend, run_python, tmp_path):
        _, told, box = self._talk(backend, run_python, tmp_path)
        assert _is_its_own(backend, box, told)

    @staticmethod
    def _talk(backend, run_python, tmp_path):
        place = tmp_path / "s"
        place.mkdir()
        with (
            socket.socket(socket.AF_UNIX) as server,
            backend.open(SandboxSpec(mounts=(Mount(place, "/judge", writable=True),))) as box,
        ):
            # Bound by a short path: a socket's path is limited to 108 bytes.
            fd = os.open(place, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{fd}/socket")
            os.close(fd)
            (place / "socket").chmod(0o666)
            server.listen()
            server.settimeout(PATIENCE_S)
            source = """
                import os, socket, sys
                os.chdir(os.path.dirname(sys.argv[1]))
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect("socket")
                    s.sendall(b"answer" if s.recv(100) == b"question" else b"what?")
            """
            argv = [box.python, "-I", "-c", textwrap.dedent(source), box.inside("/judge/socket")]
            process = box.start(argv)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                connection.sendall(b"question")
                answer = connection.recv(100)
                raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert process.wait(PATIENCE_S).exit_code == 0
        told = int.from_bytes(raw[4:8], sys.byteorder)
        return (b"question", answer), told, box

    # ---- transfers

    def test_files_go_in_and_out(self, box, tmp_path):
        tree = tmp_path / "in"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "a").write_bytes(b"\0" * 3 * MIB)
        (tree / "run").write_text("#!/bin/sh\necho ran > made\n")
        (tree / "run").chmod(0o755)
        box.put(tree, "/work/tree")
        box.put(tree / "run", "/work/other/place/run")
        where = box.inside("/work/tree")
        assert box.exec(["./run"], timeout=PATIENCE_S, cwd=where).exit_code == 0
        box.get("/work/tree", tmp_path / "out", max_bytes=4 * MIB)
        assert (tmp_path / "out/sub/a").read_bytes() == b"\0" * 3 * MIB
        assert (tmp_path / "out/made").read_text() == "ran\n"
        assert stat.S_IMODE((tmp_path / "out/run").stat().st_mode) & 0o111 == 0
        box.get("/work/tree/made", tmp_path / "made", max_bytes=4)
        box.get("/work/tree/made", tmp_path / "made", max_bytes=4)  # replaces
        box.get("/work", tmp_path / "all", max_bytes=8 * MIB)
        assert (tmp_path / "all/other/place/run").exists()
        box.put(tree / "run", "/work/tree/made")  # replaces too
        assert box.exec(["/bin/cat", "made"], timeout=PATIENCE_S, cwd=where).stdout.startswith(
            b"#!"
        )

    @pytest.mark.parametrize("path", ["/etc/passwd", "/work/../etc", "work/a", "/workx", "/tmp/a"])
    def test_transfers_stay_under_work(self, box, tmp_path, path):
        (tmp_path / "a").write_text("a")
        with pytest.raises(TransferError):
            box.get(path, tmp_path / "x", max_bytes=100)
        with pytest.raises(TransferError):
            box.put(tmp_path / "a", path)

    @pytest.mark.parametrize(
        ("script", "why"),
        [
            ("ln -s /etc/passwd x", "a link or a file stands"),
            pytest.param("ln -s . x", "a link or a file stands", marks=elsewhere),
            pytest.param("mkfifo x", "'x' is not a plain file", marks=elsewhere),
            pytest.param("mkdir x; ln -s /etc x/y", "a link or a file stands", marks=elsewhere),
            pytest.param("mkdir x; mkfifo x/y", "'y' is not a plain file", marks=elsewhere),
            pytest.param("head -c 2000000 /dev/zero > x", "larger than", marks=elsewhere),
            pytest.param("truncate -s 900G x || truncate -s 2M x", "larger than", marks=elsewhere),
            pytest.param(
                "mkdir x; head -c 600000 /dev/zero > x/a; ln x/a x/b",
                "larger than",
                marks=elsewhere,
            ),
            pytest.param(
                "mkdir x; cd x; for i in $(seq 80); do mkdir d; cd d; done",
                "more than 64 folders deep",
                marks=elsewhere,
            ),
            pytest.param(": nothing", "No such file", marks=elsewhere),
        ],
    )
    def test_what_must_not_come_out_does_not(self, box, tmp_path, script, why):
        made = box.exec(["/bin/sh", "-ec", script], timeout=PATIENCE_S)
        assert made.exit_code == 0, made.stderr
        with pytest.raises(TransferError, match=why):
            box.get("/work/x", tmp_path / "x", max_bytes=MIB)
        assert list(tmp_path.iterdir()) == []

    @elsewhere
    def test_a_link_on_the_way_is_not_followed(self, box, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").write_text("host")
        script = f"ln -s {outside} way; ln -s {outside}/file file"
        sh(box, script)
        with pytest.raises(TransferError):
            box.get("/work/way/file", tmp_path / "x", max_bytes=100)
        (tmp_path / "new").write_text("new")
        with pytest.raises(TransferError):
            box.put(tmp_path / "new", "/work/way/file")
        box.put(tmp_path / "new", "/work/file")  # replaces the link, not what it names
        assert (outside / "file").read_text() == "host"

    def test_links_do_not_go_in_either(self, box, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "link").symlink_to("/etc/passwd")
        with pytest.raises(TransferError):
            box.put(tmp_path / "in", "/work/in")
        with pytest.raises(TransferError):
            box.put(tmp_path / "none", "/work/none")

    @elsewhere
    def test_a_racing_process_cannot_redirect_a_transfer(self, box, tmp_path):
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "f").write_text("secret")
        # x always exists, as a folder or a link: if it were missing at times, put would make it.
        source = f"""
            import ctypes, os
            os.mkdir("x"); open("x/f", "w").write("mine")
            os.symlink({str(secret)!r}, "y")
            print("ready", flush=True)
            swap = ctypes.CDLL(None).renameat2
            while swap(-100, b"x", -100, b"y", 2) == 0:  # RENAME_EXCHANGE
                pass
        """
        process = speaking(box, python(box, source))
        (tmp_path / "put").write_text("put")
        tried = Counter()

        def attempt(what, transfer):
            try:
                transfer()
                tried[what, "done"] += 1
            except TransferError:
                tried[what, "refused"] += 1

        def get():
            box.get("/work/x/f", tmp_path / "out", max_bytes=100)
            assert (tmp_path / "out").read_text() == "mine"

        def often():
            attempt("get", get)
            attempt("put", lambda: box.put(tmp_path / "put", "/work/x/g"))
            return len(tried) == 4 and min(tried.values()) >= 20

        assert until(often), tried
        assert not process.poll()
        assert [p.name for p in secret.iterdir()] == ["f"]

    # ---- start and end of sandboxes

    def test_starts_share_work_and_sandboxes_do_not(self, backend, box):
        assert sh(box, "echo one > f").exit_code == 0
        assert box.exec(["/bin/cat", "f"], timeout=PATIENCE_S).stdout == b"one\n"
        with backend.open(SandboxSpec()) as other:
            assert other.exec(["/bin/cat", "f"], timeout=PATIENCE_S).exit_code == 1

    def test_close_leaves_nothing(self, backend, marker, state_folder):
        box = backend.open(SandboxSpec())
        process = box.start(["/bin/sh", "-c", f"sleep 300; : {marker}"])
        sh(box, "mkdir -p a/b; chmod 0 a; echo x > b")
        box.close()
        box.close()
        assert process.wait(1).ended == "cancelled"
        assert not living(marker)
        assert [p.name for p in state_folder.iterdir()] == ["lock"]
        assert _groups(box.state.name) == []
        assert box.state.name not in Path("/proc/mounts").read_text()
        with pytest.raises(SandboxStartError):
            box.start(["/bin/true"])

    @elsewhere
    def test_folders_nested_without_end_do_not_stop_close(self, backend, run_python, state_folder):
        source = """
            import os
            for _ in range(1500):
                os.mkdir("d"); os.chdir("d")
            os.chmod(".", 0)
        """
        with backend.open(SandboxSpec()) as box:
            assert run_python(box, source).exit_code == 0
        assert [p.name for p in state_folder.iterdir()] == ["lock"]

    def test_a_killed_owner_leaves_nothing_alive_and_sweep_the_rest(
        self, backend, marker, state_folder
    ):
        source = """
            import sys, time
            from sandboxes.base import SandboxSpec
            from sandboxes.registry import BACKENDS
            box = BACKENDS.find(sys.argv[1]).open(SandboxSpec())
            box.start(["/bin/sh", "-c", "sleep 60 & sleep 60; : " + sys.argv[2]])
            print(box.state.name, flush=True)
            time.sleep(60)
        """
        argv = [sys.executable, "-c", textwrap.dedent(source), backend.name, marker]
        with subprocess.Popen(argv, cwd=REPO, stdout=subprocess.PIPE, text=True) as owner:
            name = owner.stdout.readline().strip()
            assert until(lambda: _shells(marker))
            assert backend.sweep() == ()  # the owner lives
            assert _shells(marker)
            owner.kill()
        assert gone(marker)
        assert name in {p.name for p in state_folder.iterdir()}
        assert backend.sweep() == (name,)
        assert [p.name for p in state_folder.iterdir()] == ["lock"]
        assert _groups(name) == []
        assert name not in Path("/proc/mounts").read_text()
        assert backend.sweep() == ()

    @elsewhere
    def test_eight_at_once(self, backend, run_python):
        def one(number):
            with backend.open(SandboxSpec(memory_bytes=256 * MIB, pids=32)) as box:
                first = box.start(["/bin/sh", "-c", f"echo {number} > mine; sleep 0.2; cat mine"])
                second = run_python(box, "print('x' * 100_000)")
                return first.wait(PATIENCE_S).stdout, len(second.stdout)

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(one, range(8)))
        assert found == [(f"{i}\n".encode(), 100_001) for i in range(8)]

    def test_no_descriptors_are_lost(self, backend):
        def descriptors():
            return len(list(Path("/proc/self/fd").iterdir()))

        def once():
            with backend.open(SandboxSpec()) as box:
                box.exec(["/bin/true"], timeout=PATIENCE_S)
                assert box.exec(["/bin/sleep", "300"], timeout=0.05).ended == "timeout"

        once()
        before = descriptors()
        once()
        assert descriptors() == before

    @pytest.mark.parametrize("argv", [[], ["a=b"], ["x", "\0"]])
    def test_a_broken_command_is_refused(self, box, argv):
        with pytest.raises(ConfigError):
            box.start(argv)

    @pytest.mark.parametrize("limit", ["memory_bytes", "pids", "disk_bytes", "lifetime_s", "cpus"])
    def test_a_limit_must_be_positive(self, backend, limit):
        with pytest.raises(ConfigError, match=limit):
            backend.open(SandboxSpec(**{limit: 0}))


def _status_kib(field):
    (line,) = re.findall(rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(line)


def _shells(marker):
    """Return the pids of the shells that have ``marker``, not of the programs that watch them."""
    return [p for p in living(marker) if Path(f"/proc/{p}/comm").read_text() == "sh\n"]


def _is_its_own(backend, box, user):
    """Return whether a uid is the sandbox's own. A backend without walls claims no user."""
    return user == box.state.user if backend.isolates else user != os.getuid()


def _groups(name):
    return list(Path("/sys/fs/cgroup").glob(f"**/{name}"))
