"""Broken and malicious submissions: each ends in a named reason, never in a crash of the judge.

Sandbox and judge are real; the submissions are for the toy task, without torch. Users grep for the
names of the reasons.
"""

import os
import time
from types import SimpleNamespace

import psutil
import pytest

from scorers import evaluate, wire
from scorers.output import Output
from scorers.score import Score

SMALL = {"train_s": 120, "serve_s": 120, "memory_mb": 256, "scratch_mb": 32}

HONEST = """
import numpy as np
def predict(tokens):
    return np.eye(4, dtype=np.float32)[tokens[:, 0] - 1]
"""

ENDS_BADLY = {
    "syntax error": ("def predict(tokens)\n    pass", "syntax_error", ""),
    "raises at import": ("raise ValueError('no')", "runtime_error", "ValueError: no"),
    "no predict": ("x = 1", "runtime_error", "predict"),
    "one row dropped": (
        "import numpy as np\ndef predict(t): return np.zeros((len(t) - 1, 4), np.float32)",
        "protocol_error",
        "(63, 4)",
    ),
    "NaN logits": (
        HONEST + "\np0 = predict\n"
        "def predict(t):\n    x = p0(t)\n    x[0, 0] = np.nan\n    return x",
        "not_finite",
        "",
    ),
    "infinite logits": (
        HONEST + "\np0 = predict\ndef predict(t): return p0(t) * np.float32(np.inf)",
        "not_finite",
        "",
    ),
    "exit(0) before serving": ("import os; os._exit(0)", "exited_early", "exit 0"),
    "sys.exit(0)": ("import sys; sys.exit(0)", "exited_early", "exit 0"),
    "exit while serving": (
        "import os\ndef predict(t): os._exit(0)",
        "exited_early",
        "before all predictions",
    ),
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "crashed", "signal 11"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "crashed", "signal 9"),
    "drips what is no frame": (
        "import time\nwhile True:\n    link._sock.send(b'A'); time.sleep(0.01)",
        "protocol_error",
        "AAAA",
    ),
    "announces a gigantic frame": (
        "import candidate\nlink._sock.send(candidate.HEADER.pack(b'AIRA', 3, 0, 0, 2**32 - 1))\n"
        "import time; time.sleep(600)",
        "protocol_error",
        "4294967295",
    ),
    "says it is ready with nonsense": (
        "import candidate, time\nlink._send(candidate.READY, 0, b'[' * 9000)\ntime.sleep(600)",
        "protocol_error",
        "not JSON",
    ),
    "memory hog": (
        "x = []\nwhile True: x.append(bytearray(b'x' * (16 << 20)))",
        "out_of_memory",
        "256 MiB",
    ),
    "memory hog in a child": (
        "import os\npid = os.fork()\n"
        "if pid == 0:\n    x = []\n    while True: x.append(bytearray(b'x' * (16 << 20)))\n"
        "os.waitpid(pid, 0); os._exit(1)",
        "out_of_memory",
        "",
    ),
    "prints without end": (
        "import os\nwhile True: os.write(1, b'A' * (1 << 20))",
        "output_limit",
        "more than 16 MiB",
    ),
    "fills the scratch disk": (
        "f = open('/work/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
        "runtime_error",
        "OSError",
    ),
    "too much source": ("#" * 70_000, "too_large", "64 KiB"),
    "sets what is fixed": (
        HONEST + "\nHYPERPARAMETERS = {'steps': 1}",
        "bad_hyperparameters",
        "training is fixed",
    ),
    "source that breaks parsers": (
        "HYPERPARAMETERS = " + "(" * 30_000,
        "syntax_error",
        "nested",
    ),
}

LIVES_ON = {
    "claims a reason that does not exist": (
        "link.fail('you_win', 'score 1.0')\nimport time; time.sleep(600)",
        "runtime_error",
        "score 1.0",
    ),
    "speaks as an audit": (
        "link.fail('stateful', 'boom\\n  statelessness: FAILED, 9 (limit 1)')\n"
        "import time; time.sleep(600)",
        "runtime_error",
        "In the sandbox: boom",
    ),
    "hangs up": (
        "import time; link._sock.close(); time.sleep(600)",
        "exited_early",
        "hung up",
    ),
    "fork bomb": ("import os\nwhile True: os.fork()", "runtime_error", "BlockingIOError"),
}

NEVER_ENDS = {
    "infinite loop": ("print('LATE')\nwhile True: pass", "train_timeout"),
    "sleeps while serving": (
        "import time, numpy as np\nn = 0\n"
        "def predict(t):\n    global n; n += 1\n"
        "    if n > 1: print('LATE'); time.sleep(600)\n"
        "    return np.zeros((len(t), 4), np.float32)",
        "serve_timeout",
    ),
    "drips a proper frame": (
        "import time, candidate\n"
        "frame = candidate.HEADER.pack(b'AIRA', 2, 0, 0, 9999)\n"
        "link._sock.send(frame)\nprint('LATE')\n"
        "while True:\n    time.sleep(0.1)\n"
        "    try: link._sock.send(b' ')\n    except OSError: pass",  # the judge has hung up
        "train_timeout",
    ),
}


def ends(score_toy, source, reason, words, **changes):
    score = score_toy(source, profile="quick", limits=SMALL, **changes)
    assert (score.valid, score.score) == (False, None)
    assert score.reason == reason, score.message
    assert words in score.message
    assert len(score_toy.log.read_bytes()) < 3 << 20


@pytest.mark.parametrize("name", ENDS_BADLY)
def test_it_ends_in_a_named_reason(score_toy, monkeypatch, name):
    monkeypatch.setattr(evaluate, "OUTPUT_LIMIT", 16 << 20)
    ends(score_toy, *ENDS_BADLY[name])


def test_a_kind_without_exported_models_says_so_and_scores_all_the_same(score_toy):
    score = score_toy(HONEST, strict=True)
    assert score.valid
    assert score.strict == "unavailable: no exported model in classification"
    assert score_toy(HONEST).strict is None


@pytest.mark.parametrize("name", LIVES_ON)
def test_what_is_over_and_lives_on_is_ended_after_a_grace(score_toy, name):
    ends(score_toy, *LIVES_ON[name], grace_s=0.05)


@pytest.mark.parametrize("name", NEVER_ENDS)
def test_what_never_ends_is_late_by_the_judges_clock(score_toy, monkeypatch, name):
    """The judge's clock jumps ahead once the candidate prints LATE and then never finishes."""
    leap = 0
    feed = Output.feed

    def listen(output, stream, chunk):
        nonlocal leap
        feed(output, stream, chunk)
        leap = 1000 if b"LATE" in output.text() else 0

    monkeypatch.setattr(Output, "feed", listen)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + leap)
    monkeypatch.setattr(wire, "time", clock)
    source, reason = NEVER_ENDS[name]
    ends(score_toy, source, reason, "120 s")
    assert score_toy.log.read_bytes() == b"LATE\n"


@pytest.mark.parametrize("train_s", [0.01, 1], ids=["over before it calls", "while it runs"])
def test_a_limit_is_of_real_seconds(score_toy, train_s):
    score = score_toy("while True: pass", limits={"train_s": train_s})
    assert score.reason == "train_timeout"
    assert score.message == f"No prediction was served within {train_s} s of the start."


def test_an_honest_twin_is_valid_and_scored_by_the_judge(score_toy):
    score = score_toy(HONEST)
    assert score.valid
    assert score.score == 1.0
    assert [a.passed for a in score.audits] == [True, True, True, True]


def test_a_printed_score_and_a_claimed_one_change_nothing(score_toy):
    score = score_toy(
        "import numpy as np\n"
        "print('accuracy: 0.99'); print('{\"score\": 0.99, \"valid\": true}')\n"
        "serve = link.serve\n"
        "link.serve = lambda predict, claim: serve(predict, claim={'accuracy': 0.99, 'score': 1})\n"
        "def predict(t): return np.zeros((len(t), 4), np.float32)\n"
    )
    assert score.valid
    assert score.score < 0.4
    assert score.claim == {"accuracy": 0.99, "score": 1}
    assert b"accuracy: 0.99" in score_toy.log.read_bytes()


def test_claims_are_one_line_each_without_escapes_and_keep_their_numbers(score_toy):
    score = score_toy(
        HONEST + "\nserve = link.serve\n"
        "claim = {'a\\n  sandbox': 'bubblewrap\\n  valid: yes\\x1b[2J', 'n': 2**53,\n"
        "         'x': [1, [2]],\n"
        "         **{f'k{i}': 'v' * 300 for i in range(40)}}\n"
        "link.serve = lambda predict, claim=claim, **_: serve(predict, claim=globals()['claim'])\n"
    )
    assert score.valid, score.message
    assert len(score.claim) == 32
    assert score.claim["a sandbox"] == "bubblewrap valid: yes"
    assert (score.claim["n"], score.claim["x"]) == (2**53, "[1, [2]]")
    assert max(len(str(value)) for value in score.claim.values()) <= 201
    assert Score.model_validate_json(score.model_dump_json()) == score


def test_the_shared_buffer_cannot_be_truncated_or_grown(score_toy):
    """Python keeps a descriptor of what it maps, and a truncated buffer would kill the judge."""
    score = score_toy(
        HONEST
        + """
import os
held = []
for fd in os.listdir('/proc/self/fd'):
    try:
        if 'logits' in os.readlink(f'/proc/self/fd/{fd}'):
            held.append(int(fd))
    except OSError:
        pass
assert held, 'the buffer is not where this test looks'
for size in (0, 1, 1 << 30):
    for fd in held:
        for buffer in (fd, f'/proc/self/fd/{fd}'):
            try:
                os.truncate(buffer, size)
            except PermissionError:
                continue
            raise SystemExit('truncated')
"""
    )
    assert score.valid, score.message


def test_a_buffer_rewritten_after_the_answer_changes_nothing(score_toy):
    """A question comes after the last answer was taken: the judge audits and scores one copy."""
    score = score_toy(
        HONEST
        + """
honest, noise = predict, np.full((64, 4), 9.0, np.float32).tobytes()
def predict(t):
    link._buffer[:len(noise)] = noise
    return honest(t)
"""
    )
    assert (score.valid, score.score) == (True, 1.0), score.message


HIDDEN = """
import glob, os, socket
import sys
secret = {secret!r}
python = (sys.prefix, sys.base_prefix)
found = []
for root in ('/', '/proc', '/work', '/data', '/link', '/task', '/tmp', '/dev/shm'):
    for folder, folders, files in os.walk(root):
        if folder.startswith(python):
            folders[:] = []
            continue
        skip = ('/proc', '/sys', '/usr')
        folders[:] = [f for f in folders if os.path.join(folder, f) not in skip]
        found += [os.path.join(folder, f) for f in files if f.endswith('.npy')]
assert set(map(os.path.dirname, found)) == {{'/data/train'}}, found
for path in (secret, os.path.dirname(secret)):
    assert not os.path.exists(path), path
for pid in filter(str.isdigit, os.listdir('/proc')):
    for inner in (f'/proc/{{pid}}/root{{secret}}', f'/proc/{{pid}}/cwd/../search/labels.npy'):
        assert not os.path.exists(inner), inner
    for fd in glob.glob(f'/proc/{{pid}}/fd/*'):
        try:
            target = os.readlink(fd)
        except OSError:
            continue  # the descriptor that listed them
        assert 'search' not in target, target
assert not any('judge' in open(f'/proc/{{p}}/cmdline').read() for p in os.listdir('/proc')
               if p.isdigit() and p != str(os.getpid()))
second = socket.socket(socket.AF_UNIX)
try:
    second.connect(config['paths']['socket'])
except OSError:
    pass
else:
    raise SystemExit('the judge took a second caller')
"""


def test_the_hidden_split_is_nowhere_to_be_found(score_toy):
    score_toy(HONEST)  # prepares the data
    (labels,) = score_toy.data.glob("toy/test-*/search/labels.npy")
    score = score_toy(HIDDEN.format(secret=str(labels)) + HONEST)
    assert score.valid, score.message


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_what_it_is_shown_can_be_neither_deleted_nor_written(score_toy, everything):
    score = score_toy(
        f"""
import os, shutil, sys
def write(path): open(path, 'r+b')
def rename(path): os.rename(path, path + '2')
def add(path): open(os.path.dirname(path) + '/more', 'xb')
for path in ('/submission/model.py', '/runner/candidate.py', '/data/train/labels.npy',
             '/task/config.json', '/link/judge.sock', '/usr/bin/env', os.__file__):
    for harm in (os.unlink, write, rename, add):
        try:
            harm(path)
        except OSError:
            continue
        raise SystemExit(f'{{path}}: {{harm.__name__}}')
large = ('/proc', '/sys', '/usr', sys.prefix, sys.base_prefix)
for folder in ['/'] if {everything} else map('/'.__add__, os.listdir('/')):
    if {everything} or not any(path.startswith(folder) for path in large):
        shutil.rmtree(folder, ignore_errors=True)
"""
        + HONEST
    )
    assert score.valid, score.message


def test_a_daemon_left_behind_is_gone_when_the_score_is_there(score_toy):
    marker = f"left-behind-{os.getpid()}"
    served_beside = []

    def alive():
        return [p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]

    score = score_toy(
        HONEST
        + f"""
import os, sys
stands, lives = os.pipe()
os.set_inheritable(lives, True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        code = f'import os, time; os.write({{lives}}, b"."); time.sleep(600)'
        os.execv(sys.executable, [sys.executable, '-c', code, {marker!r}])
    os._exit(0)
os.read(stands, 1)
""",
        observe=lambda what, _: served_beside.extend(alive() if what == "serving" else ()),
    )
    assert score.valid, score.message
    assert served_beside
    assert alive() == []


def test_judge_and_candidate_are_different_processes_of_different_users(score_toy):
    score = score_toy(HONEST + "\nimport os\nprint('I am', os.getuid(), os.getppid())")
    assert score.conditions.judge_uid == os.getuid()
    if os.getuid() == 0:
        assert score.conditions.candidate_uid not in (None, 0)
        assert f"I am {score.conditions.candidate_uid}" in score_toy.log.read_text()


def test_what_is_printed_last_is_in_the_log(score_toy, monkeypatch):
    """It prints its last line only when the judge waits for nothing but its exit."""
    let_finish = evaluate._Attempt._let_finish

    def tell_and_let_finish(attempt, process):
        (attempt.request.data / "train" / "judged").touch()
        let_finish(attempt, process)

    monkeypatch.setattr(evaluate._Attempt, "_let_finish", tell_and_let_finish)
    score = score_toy(
        HONEST
        + """
import atexit, os, time
print('before serving')
def last():
    while not os.path.exists('/data/train/judged'):
        time.sleep(0.05)
    print('after the goodbye')
atexit.register(last)
"""
    )
    assert score.valid, score.message
    assert score_toy.log.read_text() == "before serving\nafter the goodbye\n"


def test_terminal_escapes_in_messages_are_taken_out(score_toy):
    score = score_toy("raise ValueError('\\x1b[2J\\x1b]0;owned\\x07 \\u202e look')")
    assert score.reason == "runtime_error"
    assert "owned" in score.message
    assert "\x1b" not in score.message
    assert "\x07" not in score.message


def test_nothing_of_the_harness_environment_is_inside(score_toy, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    score = score_toy(HONEST + "\nimport os\nprint(dict(os.environ))")
    assert score.valid
    assert "'PATH': " in score_toy.log.read_text()
    assert "very-secret" not in score_toy.log.read_text()


def test_a_private_umask_does_not_make_honest_submissions_fail(score_toy):
    before = os.umask(0o077)
    try:
        score = score_toy(
            HONEST + "\nimport numpy as np, json\n"
            "np.load(config['paths']['train'] + '/tokens.npy')\n"
        )
    finally:
        os.umask(before)
    assert score.valid, score.message
    (folder,) = score_toy.data.glob("toy/test-*")
    modes = {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir() if p.is_dir()}
    assert modes == {"train": 0o755, "search": 0o700, "test": 0o700}
