"""Tests of commands with closed pipes, full disks, other users, other encodings, odd names."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from calling import call
from test_faults import AGENTS
from toy_task import TOY, TOYS

from harness.base import commands
from harness.base.errors import ConfigError
from harness.cli.app import COMMANDS, app, load
from harness.cli.edge import run_and_report

UNWALLED = (*TOY, "--sandbox", "process")
NOBODY = 12_345

DRIVER = """
import os, shlex, sys
from harness.cli import main
for line in sys.argv[1:]:
    if line.startswith("become "):
        who = int(line.split()[1])
        os.setgroups([]), os.setresgid(who, who, who), os.setresuid(who, who, who)
        continue
    if line.startswith("unset "):
        del os.environ[line[6:]]
        continue
    if line.startswith("! "):
        os.system(line[2:])
        continue
    try:
        main(shlex.split(line))
    except SystemExit as error:
        sys.stdout.flush()
        print("code", error.code, line, flush=True)
"""
"""Runs many commands in one real process, each from the entry point on.

"! LINE" is a line for the shell; "become N" makes the process user N; "unset NAME" removes an
environment variable."""

FORKING = """
import contextlib, io, json, os, shlex, sys, tempfile
from harness.cli import main
asked = json.loads(sys.argv[1])
for line in dict.fromkeys(line for _, line in asked):  # each child has read all modules by then
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main(shlex.split(line))
for stream, line in asked:
    errors = tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        if stream == "gone":
            reading, writing = os.pipe()
            os.close(reading)
        else:
            writing = os.open("/dev/full", os.O_WRONLY)
        os.dup2(writing, 1)
        os.dup2(writing if stream == "full, both" else errors.fileno(), 2)
        main(shlex.split(line))  # and ends as a process does
        os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    errors.seek(0)
    print(json.dumps([code, errors.read().decode()]))
"""
"""Forks a process for each command, after all modules are imported.

Its stdout is a pipe without a reader ("gone") or a full disk; with "full, both", stderr is, too."""


def drive(*lines: str, first: str = "", **options: object) -> tuple[dict[str, int], str]:
    """Run DRIVER, after the Python code ``first``; return exit codes by line, and all output."""
    done = subprocess.run(
        [sys.executable, "-c", first + DRIVER, *lines],
        capture_output=True, timeout=200, check=False, **options,
    )  # fmt: skip
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    said = [line.split(" ", 2) for line in out.splitlines() if line.startswith("code ")]
    codes = {line: int(code) for _, code, line in said}
    asked = [line for line in lines if not line.startswith(("become ", "unset "))]
    assert len(codes) == len(asked), out + err
    unharmed(err)
    return codes, out + err


def unharmed(said: str) -> None:
    for crash in ("most recent call last", "Exception ignored", "unforeseen"):
        assert crash not in said, said


@pytest.fixture
def somebody_else():
    """Skip the test if it cannot become another user who can read this checkout.

    That user must read it, because commands import more modules later.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    reads = ["setpriv", "--reuid", str(NOBODY), "--clear-groups", "test", "-r"]
    if any(subprocess.run([*reads, file]).returncode for file in (__file__, pytest.__file__)):
        pytest.skip("another user cannot read this checkout")


@pytest.fixture(scope="module")
def made():
    """A folder that every user may read, with a finished run (a) and an unfinished one (u)."""
    with tempfile.TemporaryDirectory(prefix="harness-borders-") as name:
        here = Path(name)
        here.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HARNESS_TASKS_DIR", str(TOYS))
            patch.setenv("HARNESS_DATA", str(here / "data"))
            call("run", *UNWALLED, "--steps", "2", "--runs-dir", here / "runs", "--name", "a")
        shutil.copytree(here / "runs/a", here / "runs/u")
        (here / "runs/u/result.json").unlink()
        yield here


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_DATA", str(made / "data"))
    return Path(shutil.copytree(made / "runs", tmp_path / "runs"))


def outside(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount; skip the test where this machine forbids mounting."""
    argv = ["unshare", "--mount", "sh", "-c"]
    if os.geteuid() != 0 or subprocess.run([*argv, "true"], check=False).returncode:
        pytest.skip("mounting needs root")
    drives = {"PYTHON": sys.executable, "DRIVER": DRIVER}
    done = subprocess.run(
        [*argv, script], capture_output=True, text=True, env={**os.environ, **drives},
        timeout=200, check=False,
    )  # fmt: skip
    unharmed(done.stderr)
    return done


def test_a_reader_that_leaves_early_is_no_failure_and_a_full_disk_is_one(runs):
    lines = ["run --help", "ls --json", "show runs/a --node 0"]
    asked = [(stream, line) for line in lines for stream in ("gone", "full")]
    asked.append(("full, both", lines[1]))
    done = subprocess.run(
        [sys.executable, "-c", FORKING, json.dumps(asked)],
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    *found, (code, _) = map(json.loads, done.stdout.splitlines())
    assert code == 3
    assert found[::2] == [[0, ""]] * len(lines)
    assert len(found[1::2]) == len(lines)
    for code, said in found[1::2]:
        assert code == 3
        assert "No space left on device" in said
        assert "df -h" in said
        unharmed(said)


def test_streams_that_are_closed_are_done_without(runs):
    listing = f"{sys.executable} -m harness ls --json"
    assert subprocess.run(f"{listing} <&- >&- 2>&-", shell=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONIOENCODING": "cp1252:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_what_a_terminal_cannot_show_is_shown_escaped(runs, environ):
    (runs / "a").rename(runs / os.fsdecode("pré ✓ ".encode() + b"\xff"))
    lines = ("ls runs", "show runs/u --node 0", "leaderboard runs --format md", "run --help")
    codes, said = drive(*lines, env={**os.environ, **environ})
    assert set(codes.values()) == {0}
    assert "2 valid of 2" in said


def test_files_are_utf8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    drive("new idea --task lra/listops", env={**here, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})
    call("new", "same", "--task", "lra/listops")
    assert not Path("same/TASK.md").read_bytes().isascii()
    assert Path("idea/TASK.md").read_bytes() == Path("same/TASK.md").read_bytes()


def test_a_user_without_a_home_is_told_what_to_set(runs, made, somebody_else):
    environ = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    lines = ("doctor", "ls runs", "leaderboard runs", "prepare toy --profile test")
    numpy = "from harness.report import diagnosis; diagnosis.PACKAGES = ('numpy',)"  # no torch
    # Root has a home even without HOME: keep HARNESS_DATA as long as the process is root's.
    again = (f"become {NOBODY}", "unset HARNESS_DATA", *(f"{line} --json" for line in lines))
    codes, said = drive(*lines, *again, first=numpy, env=environ, cwd=made)
    assert said.count("HARNESS_DATA=DIR") >= 2  # by doctor and by prepare
    assert [codes[line] for line in lines[1:]] == [0] * 3  # doctor's depends on the machine
    assert codes["prepare toy --profile test --json"] == 2
    assert codes["leaderboard runs --json"] == codes["ls runs --json"] == 0


def test_somebody_elses_run_is_refused_before_any_work(made, somebody_else):
    refused = ("stop runs/u", "stop runs/a runs/u", "resume runs/u", "rescore runs/a")
    warm = ("stop runs/a", "resume runs/a", "rescore runs/none", "bundle runs/a -o a.tar.gz")
    packed = "bundle runs/a -o b.tar.gz"
    codes, said = drive(*warm, f"become {NOBODY}", *refused, packed, cwd=made)
    (made / "a.tar.gz").unlink()
    assert [codes[line] for line in (*refused, packed)] == [2] * 5
    assert said.count("somebody else's") == 4
    assert "cp -r runs/u" in said
    assert "b.tar.gz cannot be read or written" in said
    assert ".b.tar.gz." not in said
    assert not (made / "runs/u/stop").exists()


@pytest.mark.slow
def test_a_run_on_a_read_only_disk_is_refused_before_any_work(runs):
    done = outside("""
        mkdir m && mount --bind runs m && mount -o remount,bind,ro m || exit 99
        $PYTHON -c "$DRIVER" "stop m/u" "resume m/u" "rescore m/a" "stop m/a" "show m/a" \\
            "gc --runs-dir m --runs-beyond 1KB --yes" "bundle m/a -o b.tar.gz" \\
            "run --task toy --profile test --runs-dir m"
    """)
    assert codes_of(done) == [*"22200202"], done.stdout + done.stderr
    assert "Read-only file system" in done.stderr
    assert "training" not in done.stderr


def codes_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("code ")]


def test_a_run_that_a_full_disk_refuses_leaves_no_folder_or_one_that_resumes(runs):
    done = outside("""
        mkdir m && mount -t tmpfs -o size=64k none m || exit 99
        run="run --task toy --profile test --sandbox process --runs-dir m --name a --steps 1"
        # The second time there is room for the folder and for its first lines, not for a node.
        $PYTHON -c "$DRIVER" "! dd if=/dev/zero of=m/fill bs=1k 2>/dev/null" "$run" \
            "! ls -A m; truncate -s 56k m/fill" "$run" "! rm m/fill" "resume m/a" "$run"
    """)
    first, second, *again = codes_of(done)
    assert (first, second) == ("3", "3"), done.stdout + done.stderr
    assert again in (["0", "2"], ["2", "0"]), done.stdout + done.stderr
    left = done.stdout.splitlines()[1:3]
    assert [line.split()[0] for line in left] == ["fill", "code"], done.stdout
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(32, marks=pytest.mark.slow),
        *(pytest.param(n, marks=pytest.mark.nightly) for n in (28, 36)),
    ],
)
def test_a_disk_that_fills_in_the_middle_of_a_run_ends_it_and_resume_goes_on(runs, size):
    done = outside(f"""
        mkdir -p m && mount -t tmpfs -o size={size}k none m || exit 99
        $PYTHON -c "$DRIVER" \
            "run --task toy --profile test --sandbox process --runs-dir m --name a --steps 3" \
            "! cp m/a/events.jsonl before.jsonl; mount -o remount,size=1m m" \
            "resume m/a" "! cp m/a/events.jsonl after.jsonl"
    """)
    assert codes_of(done) == ["3", "0"], done.stdout + done.stderr
    assert "No space left on device" in done.stderr
    assert "harness resume m/a" in done.stderr
    before = Path("before.jsonl").read_bytes()
    assert b'"scored"' in before
    assert Path("after.jsonl").read_bytes().startswith(before[: before.rindex(b"\n") + 1])


@pytest.mark.parametrize("name", ["v1 (copy)", "café + 2", "-x", "...", "a\nb"])
def test_a_run_of_any_name_is_bundled_shown_and_verified(runs, name):
    (runs / "a").rename(runs / name)
    packed = call("bundle", f"runs/{name}", "-o", "my run.tar.gz").said
    line = packed.splitlines()[-1].partition(": ")[2]
    assert line == "harness verify 'my run.tar.gz'"
    assert "2 nodes" in call("verify", "my run.tar.gz", "--no-rescore").said
    call("show", f"runs/{name}")
    call("stop", f"runs/{name}")


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("nodes", "nodes/0000/model.py is recorded in the journal but cannot be read"),
        ("nodes/0001/model.py", "nodes/0001/model.py"),
        ("final", "lacks final/score.json"),
        ("events.jsonl", "contradicts itself: events.jsonl"),
    ],
)
def test_a_run_that_nobody_could_verify_is_not_bundled(runs, lost, told):
    path = runs / "a" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert told in call("bundle", "runs/a", "-o", "b.tar.gz", code=2).stderr
    assert not list(Path().glob("*b.tar*"))


def test_a_result_that_is_damaged_is_told_by_name(runs):
    file = runs / "a/result.json"
    for odd in ({"score": "much"}, {"score": float("inf")}, {}):
        file.write_text(json.dumps(odd))
        assert "runs/a" in call("bundle", "runs/a", "-o", "b.tar.gz", code=2).stderr


@pytest.mark.slow
def test_gc_asks_only_at_a_terminal_and_spares_what_is_unfinished(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    every = ("gc", "--runs-beyond", "1KB")
    stdin = io.StringIO("n\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    told = call(*every, code=2).stderr
    assert "--yes" in told
    assert "--dry-run" in told
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    assert "Delete these" in call(*every).said
    listed = call(*every, "--dry-run", "--json").json
    assert listed["would_remove"] == ["runs/a"]
    both = call(*every, "--dry-run", "--unfinished").said
    assert "would remove runs/u" in both
    assert sorted(p.name for p in runs.iterdir()) == ["a", "u"]
    removed = call(*every, "--yes", "--json").json["removed"]
    assert "runs/a" in removed
    assert [p.name for p in runs.iterdir()] == ["u"]
    call(*every, "--yes", "--unfinished")
    assert not list(runs.iterdir())


def test_what_others_put_into_the_folder_for_scratch_stops_no_command(tmp_path, monkeypatch):
    from harness.base.paths import STAGE_PREFIX

    odd = [tmp_path / f"{STAGE_PREFIX}{owner}-x" for owner in ("9" * 30, "²", "1e3", "")]
    for path in odd:
        path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    call("gc")
    assert all(path.exists() for path in odd)


@pytest.mark.parametrize(
    "text",
    [
        'task = "toy"\nprofile = "test"\nagent = "replay:a\\u0000b"\n',
        'task = "toy"\nprofile = "test"\n[writing]\nagents_file = "a\\u0000b"\n',
        'task = "toy"\nprofile = "test"\n[writing]\nprompts = "a\\u0000b"\n',
        'task = "lra/listops"\nprofile = "test"\n[data]\nsource = "a\\u0000b"\n',
    ],
)
def test_a_path_in_a_file_that_no_system_call_takes_is_bad_input(runs, tmp_path, monkeypatch, text):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the details of an error go there
    Path("asked.toml").write_text("format = 1\n" + text)
    done = call("run", "--asked", "asked.toml", code=2)
    assert "A path holds a NUL character." in done.stderr
    assert "unforeseen" not in done.stderr + done.stdout


@pytest.mark.parametrize("task", ["lra/text", "autoresearch"])
def test_a_folder_whose_links_lead_in_a_circle_is_bad_input(tmp_path, monkeypatch, task):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the details of an error go there
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    done = call("prepare", task, "--profile", "test", "--data", tmp_path / "a", code=2)
    assert str(tmp_path / "a") in done.said
    assert "unforeseen" not in done.said


def test_a_text_that_is_not_utf_8_is_bad_input(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the details of an error go there
    assert run_and_report(lambda: len(b"\xff".decode())) == 2
    said = capfd.readouterr().err
    assert "A name or a text that was read is not UTF-8." in said
    assert "unforeseen" not in said


def test_paths_that_lead_nowhere_are_told(runs):
    Path("loop").symlink_to("loop")
    long = "x" * 5000
    for line in (
        ("run", *UNWALLED, "--agent", "replay:loop"), 
        ("run", *UNWALLED, "--runs-dir", "loop"), ("run", *UNWALLED, "--name", long),
        ("agents", "--agents-file", "~nobody-here/x"), ("show", long), ("ls", "loop"),
        ("show", "runs/a/result.json/x"), ("gc", "--runs-beyond", "9" * 400 + "TB"),
    ):  # fmt: skip
        assert "error" in call(*line, code=2).stderr.lower(), line
    assert sorted(p.name for p in runs.iterdir()) == ["a", "u"]


def test_every_command_that_is_printed_can_be_pasted(runs, tmp_path, monkeypatch):
    shutil.copytree(TOYS, "my tasks")
    monkeypatch.delenv("HARNESS_TASKS_DIR")
    line = ("run", *UNWALLED, "--steps", "1", "--runs-dir", "my runs", "--tasks-dir", "my tasks")
    said = call(*line).stdout
    told = [found.strip() for found in said.splitlines() if found.startswith("  harness ")]
    assert [line.split()[1] for line in told] == ["show", "leaderboard", "rescore", "new"]
    assert told[2].endswith("--tasks-dir 'my tasks'")
    for pasted in (told[0], told[1], told[3]):
        call(*shlex.split(pasted)[1:])
    assert Path("my-idea/model.py").exists()


def test_a_printed_command_repeats_the_folder_of_tasks_and_takes_any_path():
    assert commands.command("resume", "runs/a") == "harness resume runs/a"
    odd = commands.command("show", "-x", node=3, files=True, json=False, out=None)
    assert odd == "harness show ./-x --node 3 --files"
    commands.remember_tasks_dir("it's")
    try:
        told = commands.command("resume", "a b")
        assert shlex.split(told) == ["harness", "resume", "a b", "--tasks-dir", "it's"]
        assert commands.command("show", "a") == "harness show a"
        assert commands.command("new", "x", tasks_dir="y").count("--tasks-dir") == 1
    finally:
        commands.remember_tasks_dir(None)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_stands_for_a_command_in_the_list_is_its_own_first_sentence(name):
    command = load(name)
    assert COMMANDS[name] == " ".join((command.help or "").partition("\n\n")[0].split())


HURRIED = """
import importlib, os, signal, sys
from harness.cli import app, edge

def interrupted(name, package=None, really=importlib.import_module):
    if name != "harness.cli.policies":
        return really(name, package)
    os.kill(os.getpid(), signal.SIGINT)
    module = really(name)
    print("whole", flush=True)
    return module

importlib.import_module = interrupted
sys.exit(edge.run_and_report(lambda: app.app(["policies"])))
"""


def test_ctrl_c_while_a_command_is_imported_is_answered_as_soon_as_it_is():
    done = subprocess.run([sys.executable, "-c", HURRIED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "whole\n")
    assert done.stderr.split() == ["Interrupted."]


def test_the_commands_that_repeat_it_are_those_that_take_it():
    taking = {
        name for name in COMMANDS
        if any("--tasks-dir" in option.opts for option in load(name).params)
    }  # fmt: skip
    assert taking == commands.WITH_TASKS


def test_a_suite_takes_the_users_own_agents(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HARNESS_AGENTS", raising=False)
    Path("own.toml").write_text(AGENTS)
    Path("suite.toml").write_text(
        'format = 1\nname = "s"\n[[groups]]\nagents = ["mine"]\ntasks = ["toy"]\nprofile = "test"\n'
    )
    line = ("sweep", "suite.toml", "--dry-run")
    assert "agent mine is not known" in call(*line).said
    try:
        assert run_and_report(lambda: app([*line, "--agents-file", "own.toml"])) == 0
        assert os.environ["HARNESS_AGENTS"] == str(tmp_path / "own.toml")  # its runs inherit this
    finally:
        os.environ.pop("HARNESS_AGENTS", None)
    assert "not known" not in "".join(capsys.readouterr())


def test_a_run_that_is_refused_before_its_first_node_leaves_no_folder(runs, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("no")

    monkeypatch.setattr("harness.launch.run.Budget", refuse)
    call("run", *UNWALLED, "--runs-dir", "new", "--name", "x", code=2)
    assert not list(Path("new").iterdir())


def test_a_log_that_cannot_be_written_is_told_before_the_training(runs):
    line = ("score", "runs/a/nodes/0000/model.py", *UNWALLED, "--log", "none/x.log")
    told = call(*line, code=2).said
    assert "none/x.log cannot be read or written" in told
    assert "training" not in told
