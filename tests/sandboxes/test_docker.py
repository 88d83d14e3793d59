"""Tests of the Docker backend alone: escapes tried from inside, loss of the engine, the image.

What all backends share is in test_conformance.py.
"""

import gc
import os
import signal
import subprocess
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from calling import HARNESS, call, start
from hostview import PATIENCE_S, REPO, as_nobody, gone, living, python, sh, speaking, until, usable
from private_engine import PrivateEngine
from toy_task import TOY

from harness.base.errors import (
    ConfigError,
    GpuUnavailableError,
    InfrastructureError,
    SandboxLostError,
)
from sandboxes import engine as engine_module
from sandboxes import registry, state
from sandboxes.base import Mount, SandboxSpec
from sandboxes.docker_engine import Docker
from sandboxes.engine import LABEL, STATE_LABEL
from sandboxes.image import recipe

pytestmark = pytest.mark.docker

MIB = 1 << 20


@pytest.fixture(scope="module")
def backend():
    return usable("docker")


@pytest.fixture
def fresh():
    """A backend that has not connected to its engine yet."""
    made = Docker()
    yield made
    made.close()


def ours(backend, place):
    return backend._connect().labelled(STATE_LABEL, str(place))


def unwalled(backend, command, **host):
    """Run a command in a container with the engine's own defaults; return what it prints."""
    engine = backend._connect()
    config = engine.host_config(network_mode="none", **host)
    container = engine.create(image=recipe.name(), command=command, host_config=config)
    try:
        engine.start(container)
        engine.exit_code(container)
        return engine.api.logs(container).decode()
    finally:
        engine.remove(container)


# ---- the restrictions as the engine reports them


def test_the_engine_was_told_of_every_wall(backend, state_folder):
    spec = SandboxSpec(memory_bytes=300 * MIB, cpus=0.5, pids=40, shm_bytes=3 * MIB)
    with backend.open(spec) as box:
        box.start(["/bin/sleep", "9"])
        (container,) = ours(backend, state_folder)
        told = backend._connect().api.inspect_container(container)
    host = told["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"]
    assert host["Init"]
    assert (host["Memory"], host["MemorySwap"]) == (300 * MIB, 300 * MIB)
    assert (host["NanoCpus"], host["PidsLimit"], host["ShmSize"]) == (500_000_000, 43, 3 * MIB)
    assert {(u["Name"], u["Hard"]) for u in host["Ulimits"]} == {("nofile", 4096), ("core", 0)}
    assert (host["IpcMode"], host["CgroupnsMode"], host["PidMode"]) == ("private", "private", "")
    assert told["Config"]["User"] == "10003:10003"
    assert told["Config"]["Labels"][LABEL].startswith("harness-docker-")
    assert not any("docker.sock" in mount["Source"] for mount in told["Mounts"])


def test_shared_limits_hold_over_all_starts(backend, run_python):
    if not backend._connect().drives_groups or os.geteuid() != 0:
        pytest.skip("no common group on this machine")
    hog = "import time; x = b'x' * (50 << 20); print('have', flush=True); time.sleep({})"
    with backend.open(SandboxSpec(memory_bytes=80 * MIB)) as box:
        first = speaking(box, python(box, hog.format(300)))
        second = run_python(box, hog.format(0))
        first.kill()
        ends = {first.wait(PATIENCE_S).ended, second.ended}
    assert "oom" in ends or "lost" in ends


# ---- escapes, tried from inside

WAYS_OUT = """
    import ctypes, os, socket, subprocess
    libc = ctypes.CDLL(None, use_errno=True)

    def attempt(name, function):
        try:
            function()
            print("done", name)
        except (OSError, subprocess.SubprocessError):
            pass

    def call(function, *args):
        if function(*args) == -1:
            raise OSError(ctypes.get_errno())

    def opened(path):
        os.close(os.open(path, os.O_WRONLY))

    attempt("mknod", lambda: os.mknod("/dev/shm/sda", 0o60600, os.makedev(254, 0)))
    attempt("mount", lambda: call(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None))
    attempt("unshare", lambda: call(libc.unshare, 0x10000000))
    attempt("mount namespace", lambda: call(libc.unshare, 0x00020000))
    attempt("chroot", lambda: os.chroot("/"))
    attempt("setuid", lambda: os.setuid(0))
    attempt("setgroups", lambda: os.setgroups([0]))
    attempt("ptrace init", lambda: call(libc.ptrace, 16, 1, 0, 0))
    attempt("init's memory", lambda: os.close(os.open("/proc/1/mem", os.O_RDONLY)))
    attempt("init's environment", lambda: open("/proc/1/environ", "rb").read(1))
    attempt("init's root", lambda: os.listdir("/proc/1/root"))
    attempt("init's files", lambda: os.listdir("/proc/1/fd"))
    attempt("core pattern", lambda: opened("/proc/sys/kernel/core_pattern"))
    attempt("sysrq", lambda: opened("/proc/sysrq-trigger"))
    attempt("kernel log", lambda: open("/dev/kmsg", "rb").read(1))
    attempt("kernel memory", lambda: open("/proc/kcore", "rb").read(1))
    attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
    attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    attempt("hostname", lambda: socket.sethostname("x"))
    attempt("bpf", lambda: call(libc.syscall, 321, 0, 0, 0))
    attempt("keys", lambda: call(libc.syscall, 250, 0, -3, 1))
    attempt("handle", lambda: call(libc.syscall, 304, -100, b"0" * 64, 0))
    attempt("reboot", lambda: call(libc.reboot, 0))
    attempt("life", lambda: opened("/run/harness/life"))
    print("over")
"""


def test_no_way_out_is_open(box, run_python):
    result = run_python(box, WAYS_OUT)
    assert (result.stdout, result.stderr) == (b"over\n", b"")


def test_without_the_walls_there_are_ways_out(backend):
    """The attempts are real: with the engine's own defaults, some succeed as root."""
    script = [recipe.PYTHON, "-I", "-c", textwrap.dedent(WAYS_OUT)]
    done = set(unwalled(backend, script).splitlines())
    assert {"done mknod", "done chroot", "done setgroups", "done raw socket"} <= done
    assert "done init's memory" in done
    opened = {"cap_add": ["SYS_ADMIN"], "security_opt": ["seccomp=unconfined"]}
    admin = set(unwalled(backend, script, **opened).splitlines())
    assert {"done mount", "done unshare", "done mount namespace"} <= admin


def test_only_scratch_can_be_written(box, run_python):
    source = """
        import os
        skip = ("/proc/", "/sys/")
        for top, folders, names in os.walk("/"):
            folders[:] = [f for f in folders if not os.path.join(top, f).startswith(skip)]
            for path in [top, *(os.path.join(top, n) for n in names)]:
                if os.access(path, os.W_OK) and not os.path.islink(path):
                    print(path)
        for top in "/proc/sys", "/proc/irq", "/proc/bus", "/sys":
            for folder, _, names in os.walk(top):
                for path in (os.path.join(folder, name) for name in names):
                    if os.access(path, os.W_OK) and not os.path.islink(path):
                        print(path)
    """
    seen = set(run_python(box, source).stdout.decode().split())
    devices = {f"/dev/{n}" for n in ("null", "zero", "full", "random", "urandom", "tty", "ptmx")}
    # The engine mounts /dev/null over some files of /proc.
    devices |= {"/proc/keys", "/proc/timer_list", "/proc/kcore", "/proc/latency_stats"}
    devices |= {"/proc/sched_debug", "/proc/timer_stats"}
    allowed = {"/work", "/tmp", "/dev/shm", "/dev/mqueue", "/proc/sys/kernel/ns_last_pid"}
    assert {"/work", "/tmp"} <= seen
    left = {path for path in seen - allowed - devices if not path.startswith("/dev/pts/")}
    assert left == set()


def test_no_device_beyond_the_usual(box):
    listed = box.exec(["/bin/ls", "/dev"], timeout=PATIENCE_S).stdout.decode().split()
    usual = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr"}
    assert set(listed) <= usual | {"stdin", "stdout", "tty", "urandom", "zero"}


def test_no_socket_of_the_host_is_inside(box, run_python):
    source = """
        import os, stat
        for top, folders, names in os.walk("/"):
            folders[:] = [f for f in folders if os.path.join(top, f) not in ("/proc", "/sys")]
            for path in (os.path.join(top, name) for name in names):
                if stat.S_ISSOCK(os.lstat(path).st_mode) or stat.S_ISFIFO(os.lstat(path).st_mode):
                    print(path)
        print("done")
    """
    result = run_python(box, source)
    assert (result.exit_code, result.stdout) == (0, b"done\n")


def test_a_setuid_program_gains_without_the_wall(backend, tmp_path):
    tmp_path.chmod(0o755)
    program = tmp_path / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    mount = engine_module.bind(str(tmp_path), "/programs", writable=False)
    command = ["/usr/bin/setpriv", f"--reuid={state.USERS[0]}", "/programs/id", "-u"]
    assert unwalled(backend, command, mounts=[mount]) == "0\n"
    with backend.open(SandboxSpec(mounts=(Mount(tmp_path, "/programs"),))) as box:
        result = box.exec(["/programs/id", "-u"], timeout=PATIENCE_S)
    assert result.stdout == f"{box.state.user}\n".encode()


def test_everything_killed_by_the_code_leaves_the_sandbox_usable(box):
    killed = sh(box, "sleep 300 & kill -9 -1; echo alive")
    assert killed.ended == "exited"
    assert box.exec(["/bin/echo", "x"], timeout=PATIENCE_S).stdout == b"x\n"


def test_open_files_and_cores_are_bounded(box, run_python):
    source = """
        import os, resource
        print(resource.getrlimit(resource.RLIMIT_CORE))
        made = 0
        try:
            while True:
                os.dup(0)
                made += 1
        except OSError:
            print(made < 4096)
    """
    assert run_python(box, source).stdout == b"(0, 0)\nTrue\n"


def test_messages_and_shared_memory_end_with_the_start(box, run_python):
    make = """
        import ctypes
        libc = ctypes.CDLL(None)
        print(libc.shmget(4711, 4096, 0o1666) >= 0)
        open("/dev/shm/left", "w").write("x")
    """
    look = """
        import ctypes, os
        print(ctypes.CDLL(None).shmget(4711, 4096, 0o666) >= 0, os.path.exists("/dev/shm/left"))
    """
    assert run_python(box, make).stdout == b"True\n"
    assert run_python(box, look).stdout == b"False False\n"


@pytest.mark.parametrize("network", [True, False])
def test_two_sandboxes_cannot_talk(backend, run_python, network):
    """By a loopback port, an abstract socket, a file in /dev/shm, a shared memory segment."""
    word = uuid.uuid4().hex
    serve = f"""
        import ctypes, socket, time
        tcp = socket.create_server(("127.0.0.1", 0))
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind("\\x00{word}")
        abstract.listen()
        open("/dev/shm/{word}", "w").write("x")
        ctypes.CDLL(None).shmget(4712, 4096, 0o1666)
        print(tcp.getsockname()[1], flush=True)
        time.sleep(300)
    """
    call = f"""
        import ctypes, os, socket, sys
        for family, address in (2, ("127.0.0.1", int(sys.argv[1]))), (1, "\\x00{word}"):
            try:
                socket.socket(family).connect(address)
                print("connected")
            except OSError:
                print("refused")
        print(os.path.exists("/dev/shm/{word}"))
        print(ctypes.CDLL(None).shmget(4712, 4096, 0o666) >= 0)
    """
    spec = SandboxSpec(network=network)
    said = []
    with backend.open(spec) as one, backend.open(spec) as two:
        speaking(one, python(one, serve), hear=said.append)
        told = run_python(two, call, b"".join(said).decode().strip()).stdout.decode().split()
    # With the host's network both can connect; shared memory is separate all the same.
    assert told == [*(["connected"] * 2 if network else ["refused"] * 2), "False", "False"]


# ---- limits


def test_a_full_disk_of_memory_is_an_oom_not_a_loss(backend, run_python):
    source = """
        f = open("big", "wb", buffering=0)
        for _ in range(100):
            f.write(b"x" * (1 << 20))
    """
    with backend.open(SandboxSpec(memory_bytes=64 * MIB, disk_bytes=400 * MIB)) as box:
        assert run_python(box, source).ended == "oom"


def test_cpus_are_shared_out(backend):
    burn = "import time; end = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass\n"
    with backend.open(SandboxSpec(cpus=0.2)) as box:
        argv = [box.python, "-I", "-c", f"{burn}print(time.process_time())"]
        assert float(box.exec(argv, timeout=PATIENCE_S).stdout) < 0.25


def test_a_gpu_that_is_not_there_is_named(backend):
    with pytest.raises(GpuUnavailableError, match="GPU-nowhere"):
        backend.open(SandboxSpec(gpus=("GPU-nowhere",)))


# ---- start, end and loss of sandboxes


@pytest.mark.parametrize("many", [6, pytest.param(20, marks=pytest.mark.nightly)])
def test_sandboxes_at_once_leave_nothing(backend, state_folder, many):
    names = set()

    def one(_):
        with backend.open(SandboxSpec(memory_bytes=128 * MIB, pids=20)) as box:
            names.add(box.state.name)
            daemon = "setsid sleep 60 & echo $$"
            return box.exec(["/bin/sh", "-c", daemon], timeout=120).exit_code

    with ThreadPoolExecutor(many) as threads:
        assert list(threads.map(one, range(many))) == [0] * many
    assert ours(backend, state_folder) == {}
    assert [p.name for p in state_folder.iterdir()] == ["lock"]
    assert not names & {p.name for p in Path("/sys/fs/cgroup").glob("*/harness-docker-*")}


def test_a_container_killed_from_outside_is_lost(backend, box, state_folder):
    process = box.start(["/bin/sleep", "30"])
    (container,) = ours(backend, state_folder)
    backend._connect().api.kill(container)
    result = process.wait(PATIENCE_S)
    assert (result.ended, result.exit_code) == ("lost", None)
    assert box.exec(["/bin/true"], timeout=PATIENCE_S).exit_code == 0


def test_sweep_strikes_out_containers_without_a_folder(backend, state_folder):
    engine = backend._connect()
    labels = {LABEL: "harness-docker-dead", STATE_LABEL: str(state_folder)}
    engine.create(image=recipe.name(), command=["/bin/true"], labels=labels)
    with backend.open(SandboxSpec()) as box:
        process = box.start(["/bin/sleep", "30"])
        assert backend.sweep() == ("harness-docker-dead",)
        assert list(ours(backend, state_folder).values()) == [box.state.name]
        assert not process.poll()
    assert ours(backend, state_folder) == {}


# If a connection fails, the SDK leaves its socket open for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run an engine")
@pytest.mark.parametrize("how", ["KILL", pytest.param("TERM", marks=pytest.mark.nightly)])
def test_an_engine_that_dies_is_a_loss_and_leaves_nothing_alive(
    how, fresh, tmp_path, monkeypatch, state_folder
):
    """SIGKILL leaves the engine's containers running; SIGTERM ends them, too."""
    _lose_an_engine(how, fresh, tmp_path, monkeypatch)
    assert [p.name for p in state_folder.iterdir()] == ["lock"]
    fresh.close()
    gc.collect()  # now, while the warnings are ignored


def _lose_an_engine(how, fresh, tmp_path, monkeypatch):
    word = f"marker-{uuid.uuid4().hex}"
    go = tmp_path / "go"
    go.mkdir(mode=0o755)
    with PrivateEngine(tmp_path) as private:
        monkeypatch.setenv("DOCKER_HOST", private.host)
        monkeypatch.setenv("HARNESS_IMAGE", private.image())
        with fresh.open(SandboxSpec(mounts=(Mount(go, "/go"),))) as box:
            assert sh(box, "exit 3").exit_code == 3
            wait = "until [ -e /go/now ]; do sleep 0.1; done"
            short = box.start(["/bin/sh", "-c", f"{wait}; : {word}"])
            long = box.start(["/bin/sh", "-c", f"sleep 600; : {word}"])
            private.stop(how)
            (go / "now").touch()
            with pytest.raises(SandboxLostError, match="Docker engine"):
                short.wait(60)
            with pytest.raises(InfrastructureError):
                box.exec(["/bin/true"], timeout=PATIENCE_S)
            box.close()
        assert long.poll()
        assert gone(word)
        assert not living(word)


NOBODY = """
    import json, os, sys
    from pathlib import Path
    from sandboxes.base import SandboxSpec
    from sandboxes.docker_engine import Docker
    backend = Docker()
    told = {"probe": [backend.probe().available, backend.probe().detail]}
    spec = SandboxSpec(memory_bytes=200 << 20, pids=40, disk_bytes=8 << 20)
    told["unenforced"] = backend.unenforced(spec)
    if backend.probe().available:
        with backend.open(spec) as box:
            run = lambda source, t=60: box.exec([box.python, "-I", "-c", source], timeout=t)
            made = "open('f', 'w').write('hello'); os.makedirs('a/b'); os.chmod('a', 0)"
            told["uid"] = run(f"import os; print(os.getuid()); {made}").stdout.decode()
            shot = "kill -9 1; kill -9 -1; echo x 2>/dev/null >/run/harness/life; echo alive"
            told["init"] = box.exec(["/bin/sh", "-c", shot], timeout=60).stdout.decode()
            box.get("/work/f", Path(sys.argv[1], "f"), max_bytes=10)
            told["got"] = Path(sys.argv[1], "f").read_text()
            told["hog"] = run("x = b'x' * (300 << 20)").ended
            told["code"] = run("import os; os.kill(os.getpid(), 9)").exit_code
            told["late"] = run("import time; time.sleep(300)", 0.2).ended
    backend.close()
    told["left"] = [p.name for p in Path(os.environ["HARNESS_STATE"]).iterdir()]
    print(json.dumps(told))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the suite itself then runs without root")
def test_without_root_the_rest_still_holds(backend):
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    socket_file = Path(host.removeprefix("unix://"))
    if not host.startswith("unix://") or not socket_file.parent.exists():
        pytest.skip("needs a socket with a group")
    group = socket_file.stat().st_gid
    packages = ("docker", "requests", "urllib3", "idna", "certifi", "charset_normalizer")
    environ = {"HARNESS_IMAGE": recipe.name(), "DOCKER_HOST": host}
    told = as_nobody(NOBODY, *packages, group=group, **environ)
    assert told["probe"][0], told["probe"][1]
    assert told["unenforced"] == ["disk", "separate-user", "user-quotas"]
    assert (told["uid"], told["init"]) == ("65534\n", "alive\n")
    assert told["got"] == "hello"
    assert (told["hog"], told["code"], told["late"]) == ("oom", -9, "timeout")
    assert told["left"] == ["lock"]


# ---- a missing or unusable engine or image


RUN = ("run", *TOY, "--policy", "one_shot")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
            ("no Docker engine answers", "DOCKER_HOST"),
        ),
        ({"DOCKER_HOST": "nonsense://"}, ("no Docker engine answers", "DOCKER_HOST")),
        ({"HARNESS_IMAGE": "no-such:image"}, ("no-such:image is missing", "harness image build")),
    ],
)
def test_what_is_absent_is_named_with_a_remedy(backend, fresh, env, words, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.BACKENDS.ours, "docker", fresh)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    said = call(*RUN, "--sandbox", "docker", "--runs-dir", tmp_path, code=2).stderr
    for word in words:
        assert word in said
    probe = fresh.probe()
    assert not probe.available
    assert words[0] in probe.detail
    assert words[1] in probe.remedy


def test_doctor_tells_what_is_absent_and_the_remedy(backend, fresh, monkeypatch):
    monkeypatch.setattr(registry.BACKENDS, "ours", {"docker": fresh})
    monkeypatch.setenv("HARNESS_IMAGE", "no-such:image")
    told = call("doctor", "--json", code=None).json["findings"]
    (line,) = [f for f in told if f["what"] == "sandbox docker"]
    assert not line["good"]
    assert "no-such:image is missing" in line["detail"]
    assert "harness image build" in line["remedy"]


def test_an_engine_too_old_is_named(backend, fresh, monkeypatch):
    monkeypatch.setattr(engine_module, "_API", "9.99")  # every real engine is older
    probe = fresh.probe()
    assert not probe.available
    assert "too old" in probe.detail
    assert "install Docker" in probe.remedy


def test_an_image_of_other_versions_is_refused(backend, fresh, monkeypatch):
    if os.environ.get("HARNESS_IMAGE"):
        pytest.skip("an image of one's own is one's own business")
    monkeypatch.setattr(recipe, "EXTRA", ("einops==0.0.1",))
    probe = fresh.probe()
    assert "out of date" in probe.detail
    assert "einops==0.0.1" in probe.detail
    with pytest.raises(ConfigError):
        fresh.open(SandboxSpec())


def test_auto_prefers_docker(backend):
    assert registry.choose("auto", trusted=False) == (backend, None)


# ---- the image


def test_the_image_holds_what_submissions_import(box, run_python):
    source = """
        import einops, numpy, torch
        print((torch.ones(300, 300) @ torch.ones(300, 300)).sum().item())
        print(torch.__version__.partition("+")[0], numpy.__version__)
    """
    result = run_python(box, source, timeout=PATIENCE_S)
    from importlib.metadata import version

    torch = version("torch").partition("+")[0]
    assert result.stdout.decode() == f"27000000.0\n{torch} {version('numpy')}\n"
    assert result.stderr == b""


def test_triton_compiles_inside_as_the_unprivileged_user(backend):
    """Needs the image of ``harness image build --gpu``: 5.5 GB, not built in CI."""
    with backend.open(SandboxSpec(memory_bytes=2 << 30)) as box:
        if box.exec([box.python, "-c", "import triton"], timeout=PATIENCE_S).exit_code != 0:
            pytest.skip("the image has no Triton")
        box.put(Path(__file__).parent / "triton_inside.py", "/work/triton_inside.py")
        result = box.exec([box.python, "/work/triton_inside.py"], timeout=120)
    assert (result.stdout, result.exit_code) == (b"%d True\n" % box.state.user, 0), result.stderr


def test_the_engine_is_asked_for_gpus_by_uuid_in_the_way_that_it_offers():
    uuids = ("GPU-b", "GPU-a")
    for info in ({"Runtimes": {"nvidia": {}}, "CDISpecDirs": ["/etc/cdi"]}, {"Runtimes": {}}):
        (asked,) = engine_module.gpu_request(uuids, info)
        assert (asked["DeviceIDs"], asked["Capabilities"]) == (["GPU-b", "GPU-a"], [["gpu"]])
        assert asked["Count"] == 0
    (asked,) = engine_module.gpu_request(uuids, {"Runtimes": {"runc": {}}, "CDISpecDirs": ["/x"]})
    assert asked["Driver"] == "cdi"
    assert asked["DeviceIDs"] == ["nvidia.com/gpu=GPU-b", "nvidia.com/gpu=GPU-a"]


def test_an_image_that_is_there_is_not_built_again(backend):
    done = call("image", "build", "--json")
    assert "is there already" in done.stderr
    assert done.json["image"].startswith("aira-harness:")


@pytest.mark.usefixtures("backend")
def test_a_base_that_does_not_exist_is_refused():
    base = "no-such-base-anywhere:1"
    assert base in call("image", "build", "--base", base, code=2).stderr


# ---- whole runs


@pytest.mark.parametrize("many", [3, pytest.param(20, marks=pytest.mark.nightly)])
def test_agents_on_one_engine_leave_nothing_however_they_end(
    backend, state_folder, changed_toy, tmp_path, monkeypatch, many
):
    """A third of the runs end by themselves; the others are interrupted or killed in evaluation."""
    scratch, third = tmp_path / "tmp", many // 3
    scratch.mkdir(mode=0o777)
    design = changed_toy() / "designs" / "half.py"
    design.write_text(design.read_text().replace("STEP_S = 0.01", "STEP_S = 0.15"))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("HARNESS_GPU_LOCKS", str(tmp_path / "locks"))
    before = _on_engine(backend)
    ends = {n: signal.SIGINT if n < 2 * third else signal.SIGKILL for n in range(third, many)}
    runs = [
        _started(*RUN, "--sandbox", "docker", "--runs-dir", str(tmp_path / f"runs-{number}"))
        for number in range(many)
    ]

    def all_hit():
        for number in [n for n in ends if "evaluating" in _journal(tmp_path / f"runs-{n}")]:
            runs[number].send_signal(ends.pop(number))
        return not ends

    assert until(all_hit, 180)
    said = [run.communicate(timeout=200)[0] for run in runs]
    killed = [-signal.SIGKILL] * (many - 2 * third)
    assert [run.returncode for run in runs] == [0] * third + [130] * third + killed, said
    start("gc", "--json", cwd=REPO)
    # Other tests use the engine at the same time: wait until they remove what they made.
    left = _on_engine(backend) - before
    assert until(lambda: not left & _on_engine(backend))
    assert ours(backend, state_folder) == {}
    assert {p.name for p in state_folder.iterdir()} == {"lock", "self-tests"}
    assert list(scratch.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    # An interrupted run and a killed run can both be resumed to their end.
    again = [next((tmp_path / f"runs-{number}").iterdir()) for number in (third, 2 * third)]
    for run in [_started("resume", str(path), "--json") for path in again]:
        out, _ = run.communicate(timeout=200)
        assert '"valid": true' in out, out


def _started(*args):
    return subprocess.Popen(
        [*HARNESS, *args],
        cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=_hears_ctrl_c,
    )  # fmt: skip


def _hears_ctrl_c():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_engine(backend):
    api = backend._connect().api
    found = {c["Id"] for c in api.containers(all=True)}
    found |= {n["Id"] for n in api.networks()}
    found |= {v["Name"] for v in api.volumes()["Volumes"] or []}
    return found | {str(p) for p in Path("/sys/fs/cgroup").glob("*/harness-*")}


def _journal(runs):
    return "".join(p.read_text() for p in runs.glob("*/events.jsonl"))
