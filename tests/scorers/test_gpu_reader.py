"""Logits in a candidate's device memory are read as on the host, and cannot harm the judge.

On a CPU, shared memory replaces the device buffer. The worker process, its pipes and its board are
real. So is its arithmetic, except in tests with the fixture ``quick``. Tests marked ``gpu`` use
CUDA's memory between processes.
"""

import contextlib
import functools
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import lm
import numpy as np
import pytest

from harness.base.errors import JudgeError
from sandboxes.gpus import gpu_uuids
from scorers import gpu_worker
from scorers.candidate import device_buffer as candidate_side
from scorers.candidate.candidate import Link
from scorers.gpu_reader import BOARD_STEP, LARGEST_BUFFER, GpuReader, device_buffer
from scorers.reading import HostReader, ReadRequest, ReadResult
from scorers.wire import LogitsBuffer, ProtocolError

ROWS, POSITIONS, VOCABULARY = 6, 40, 320
HANDLE = "ab" * 64


def claim(size: int, **changes) -> dict:
    return {"device_buffer": {"handle": HANDLE, "bytes": size, "dtype": "float16"} | changes}


class Memory:
    """Shared memory in place of the device buffer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.fd = os.memfd_create("device")
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)

    def write(self, logits: np.ndarray) -> None:
        raw = logits.astype(np.float16).tobytes()
        self.map[: len(raw)] = raw

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


def question(rng, rows, positions, vocabulary, columns=8, picks=30, sketched=None):
    limits = (rows, positions, vocabulary)
    asked = rng.integers(0, limits, (picks, 3))
    if sketched is None:
        sketched = rng.permutation(rows)[: (rows + 1) // 2]
    return ReadRequest(
        targets=rng.integers(0, vocabulary, (rows, positions)).astype(np.uint16),
        columns=rng.permutation(vocabulary)[:columns],
        sketched=np.sort(np.array(sketched, np.int64)),
        picks=asked[np.argsort(asked[:, 0], kind="stable")],
    )


def read(reader, asked):
    """Call a reader as the judge does; return a copy of its reading and how many logits are bad."""
    reader.begin(asked)
    bad = reader.copied()
    reading = reader.reading()
    return ReadResult(reading.nats.copy(), reading.sketch.copy(), reading.picks.copy()), bad


def opened(told, vocabulary, gpu, **options):
    """Return an open reader of the buffer that the claim ``told`` names."""
    reader = GpuReader(vocabulary, gpu, **options)
    try:
        reader.open(told)
    except BaseException:
        reader.close()
        raise
    return reader


def on_the_host(logits: np.ndarray, asked):
    """Return what the host's reader makes of the same values: a reading, the bad logits."""
    raw = logits.astype(np.float16).astype(np.float32).tobytes()
    with closing(LogitsBuffer(len(raw))) as buffer:
        with mmap.mmap(buffer.fileno(), len(raw)) as shared:
            shared[:] = raw
        return read(HostReader(buffer, logits.shape[2]), asked)


def assert_same(answer, of_the_host) -> None:
    (reading, bad), (host, bad_there) = answer, of_the_host
    assert bad == bad_there
    for name in ("nats", "sketch", "picks"):
        ours, theirs = getattr(reading, name), getattr(host, name)
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape
        # Float32 sums of a few hundred terms in another order differ by 1e-6 of values up to 30.
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-6)


def drawn(seed: int, **how):
    """Return random logits of the memory's size, and a question about them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (ROWS, POSITIONS, VOCABULARY))
    return logits, question(rng, ROWS, POSITIONS, VOCABULARY, **how)


@pytest.fixture(scope="module")
def memory():
    with closing(Memory(2 * ROWS * POSITIONS * VOCABULARY)) as made:
        yield made


@pytest.fixture(scope="module")
def shared_reader(memory):
    with closing(opened(claim(memory.size), VOCABULARY, "", stand_in=memory.fd)) as made:
        assert made.way == "eager"
        yield made


@pytest.fixture
def quick(monkeypatch):
    """Start workers without torch, for tests that end them; ``quick(False)`` starts real ones."""
    real = gpu_worker.__name__
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def switch(on=True):
        monkeypatch.setattr(gpu_worker, "__name__", "quick_worker" if on else real)

    switch()
    return switch


@pytest.fixture
def reader(memory, quick):
    """A reader of its own for a test that breaks it."""
    made = opened(claim(memory.size), VOCABULARY, "", stand_in=memory.fd)
    with closing(made):
        assert made.way == "quick"
        yield made


@pytest.fixture
def no_torch(tmp_path, monkeypatch, quick):
    """Return a function that makes real workers fail to start from now on."""

    def break_it():
        quick(False)
        (tmp_path / "torch.py").write_text("raise ImportError('no torch today')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return break_it


@pytest.mark.parametrize(("rows", "picks"), [(1, 0), (2, 7), (ROWS, 500_000), (ROWS, 30)])
def test_it_reads_what_the_host_reads(shared_reader, memory, rows, picks):
    """Among the cases: no picks, and so many that they nearly fill the board's first 16 MiB."""
    rng = np.random.default_rng(rows + picks)
    logits = rng.normal(0, 5, (rows, POSITIONS, VOCABULARY))
    asked = question(rng, rows, POSITIONS, VOCABULARY, picks=picks)
    memory.write(logits)
    assert_same(read(shared_reader, asked), on_the_host(logits, asked))


def test_the_board_grows_for_more_picks_than_it_can_hold(shared_reader, memory):
    more = BOARD_STEP // 24 + 1  # a pick is three numbers of eight bytes
    for picks in (30, more, 30):
        logits, asked = drawn(7, picks=picks)
        memory.write(logits)
        assert_same(read(shared_reader, asked), on_the_host(logits, asked))


@pytest.mark.parametrize("sketched", [[], [0], [1, 2, 5], range(ROWS)])
def test_columns_are_read_in_the_rows_that_are_named(shared_reader, memory, sketched):
    logits, asked = drawn(len(sketched), sketched=sketched)
    memory.write(logits)
    answer = read(shared_reader, asked)
    assert answer[0].sketch.shape == (len(sketched), POSITIONS, 8)
    assert_same(answer, on_the_host(logits, asked))


@pytest.mark.parametrize("rows_a_chunk", [1, 4, ROWS, 100])
def test_how_much_is_copied_at_a_time_changes_no_number(rows_a_chunk):
    """What is written to the source after ``copied`` was called changes no number, either."""
    import torch

    logits, asked = drawn(6)
    logits = logits.astype(np.float16)
    given = [getattr(asked, name) for name in ("targets", "columns", "sketched", "picks")]
    sizes = gpu_worker.ReadSizes(ROWS, POSITIONS, *map(len, given[1:]))
    board = bytearray(gpu_worker.board_bytes(sizes))
    there, answered = gpu_worker.flat(board, sizes)
    there[:] = np.concatenate([array.ravel() for array in given])
    source = torch.from_numpy(logits.ravel().copy())
    size = rows_a_chunk * POSITIONS * VOCABULARY * 2
    arithmetic = gpu_worker.Arithmetic("cpu", VOCABULARY, gpu_worker.eager, chunk_bytes=size)
    said = []

    def copied(bad):
        said.append(bad)
        assert not source.any()
        source.fill_(7)

    arithmetic.read(source, board, sizes, copied)
    assert said == [0]
    reading = ReadResult(*gpu_worker.cut(answered, sizes.answered))
    assert_same((reading, 0), on_the_host(logits, asked))


def test_an_answer_is_wiped_so_that_the_next_one_must_be_written(shared_reader, memory):
    logits, asked = drawn(1)
    memory.write(logits)
    read(shared_reader, asked)
    assert not any(memory.map[:])
    (reading, _) = read(shared_reader, asked)
    np.testing.assert_allclose(reading.nats, np.log(VOCABULARY), rtol=1e-6)


def test_logits_that_are_not_finite_are_counted_as_on_the_host(shared_reader, memory):
    logits, asked = drawn(2)
    logits[0, 0, :3] = np.nan, np.inf, -np.inf
    logits[2, 5, 7], logits[5, 39, 319] = 2e4, -2e4
    memory.write(logits)
    assert read(shared_reader, asked)[1] == 5 == on_the_host(logits, asked)[1]


def test_a_buffer_too_small_for_a_batch_is_refused(shared_reader):
    rng = np.random.default_rng(3)
    with pytest.raises(ProtocolError, match="the device buffer is of 153600 bytes, not of 179200"):
        shared_reader.begin(question(rng, ROWS + 1, POSITIONS, VOCABULARY))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"device_buffer": None},
        {"device_buffer": HANDLE},
        {"device_buffer": {"handle": HANDLE}},
        claim(1024, handle=HANDLE[:-1]),
        claim(1024, handle=HANDLE + "ab"),
        claim(1024, handle="zz" * 64),
        claim(1024, handle=" a" * 64),
        claim(1024, handle=7),
        claim(-1),
        claim(0),
        claim(True),
        claim(1024.0),
        claim("1024"),
        claim(LARGEST_BUFFER + 1),
        claim(10**400),
        claim(1024, dtype="float32"),
        claim(1024, dtype=["float16"]),
        claim(1024, more=1),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(told):
    with pytest.raises(ProtocolError, match="the device buffer"):
        device_buffer(told)


def test_what_the_candidate_says_of_its_buffer_is_what_the_judge_reads():
    handle = bytes(range(64))
    told = {"device_buffer": {"handle": handle.hex(), "bytes": 2 << 20, "dtype": "float16"}}
    assert device_buffer(json.loads(json.dumps(told))) == (handle, 2 << 20)


def test_a_buffer_smaller_than_it_was_said_to_be_is_the_submissions_fault(memory, quick):
    with pytest.raises(ProtocolError, match="the device buffer cannot be opened: ValueError: mmap"):
        opened(claim(memory.size + (1 << 20)), VOCABULARY, "", stand_in=memory.fd)


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_worker_that_dies_of_the_buffer_is_the_submissions_fault(memory, quick, real):
    quick(not real)
    _, asked = drawn(4)
    with closing(opened(claim(memory.size), VOCABULARY, "", stand_in=memory.fd)) as reader:
        os.kill(reader._worker.pid, signal.SIGSTOP)
        reader.begin(asked)
        os.kill(reader._worker.pid, signal.SIGKILL)
        with pytest.raises(ProtocolError, match=r"the device buffer cannot be read: .*died \(-9\)"):
            reader.copied()


def test_a_worker_that_hangs_is_ended_and_if_none_works_the_judge_is_at_fault(reader, no_torch):
    pid, reader._read_s = reader._worker.pid, 0.1
    os.kill(pid, signal.SIGSTOP)
    no_torch()
    with pytest.raises(JudgeError, match="The judge cannot compute on the GPU") as raised:
        read(reader, drawn(5)[1])
    assert "no torch today" in raised.value.cause
    assert not Path(f"/proc/{pid}").exists()


def await_start(reader) -> None:
    """Wait until the worker has reported that it is ready, or has died."""
    assert select.select([reader._worker._process.stdout], [], [], 120)[0]


def test_the_worker_starts_before_anything_is_claimed_and_goes_if_nothing_is(quick):
    with closing(GpuReader(VOCABULARY, "")) as reader:
        pid = reader._worker.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_the_worker_that_started_early_is_the_one_that_reads(memory, quick):
    with closing(GpuReader(VOCABULARY, "", stand_in=memory.fd)) as reader:
        pid = reader._worker.pid
        await_start(reader)
        reader.open(claim(memory.size))
        read(reader, drawn(7)[1])
        assert (reader._worker.pid, reader.way) == (pid, "quick")


@pytest.mark.parametrize("ready", [False, True])
def test_a_worker_killed_before_it_is_needed_is_started_again(memory, quick, ready):
    """Nobody is blamed: the worker has not touched the candidate's memory yet."""
    with closing(GpuReader(VOCABULARY, "", stand_in=memory.fd)) as reader:
        pid = reader._worker.pid
        if ready:
            await_start(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        reader.open(claim(memory.size))
        assert reader._worker.pid != pid
        read(reader, drawn(8)[1])


@pytest.mark.parametrize("again", [False, True])
def test_a_worker_that_cannot_start_is_tried_again_before_the_judge_is_at_fault(
    memory, quick, no_torch, monkeypatch, again
):
    path = os.environ["PYTHONPATH"]
    no_torch()
    with closing(GpuReader(VOCABULARY, "", stand_in=memory.fd)) as reader:
        pid = reader._worker.pid
        if not again:
            quick()
            monkeypatch.setenv("PYTHONPATH", path)
            reader.open(claim(memory.size))
            assert reader._worker.pid != pid
            return
        with pytest.raises(JudgeError) as raised:
            reader.open(claim(memory.size))
        assert "no torch today" in raised.value.cause


class DeviceLink(Link):
    """The link of a candidate that puts its logits into ``memory``."""

    memory: Memory

    def serve(self, predict, *, claim):
        def put(tokens):
            # Before the judge sent these rows, it copied and wiped the logits of the last ones.
            assert not any(self.memory.map[:])
            logits = predict(tokens)
            self.memory.write(logits)
            return logits.shape

        told = {"handle": HANDLE, "bytes": self.memory.size, "dtype": "float16"}
        return super().serve(put, claim=claim | {"device_buffer": told})


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A split, a model, and the verdict on the model if its logits are in the host's memory."""
    language = lm.Language2()
    folder = tmp_path_factory.mktemp("lm") / "search"
    lm.write_split(folder, language, 96, 30_000, seed=1)

    def predict(tokens):
        return language.logits(tokens).astype(np.float16).astype(np.float32)

    on_host, _ = lm.examine(folder, predict)
    return folder, predict, on_host


@pytest.mark.parametrize("link", [Link, DeviceLink])
def test_a_language_is_judged_alike_wherever_its_logits_lie(split, monkeypatch, quick, link):
    folder, predict, on_host = split
    quick(link is Link)  # with Link, the worker reads nothing
    made = []
    with closing(Memory(2 * 16 * lm.LENGTH * lm.VOCABULARY)) as memory:

        def early(*given):
            made.append(GpuReader(*given, stand_in=memory.fd))
            pids.append(made[0]._worker.pid)
            return made[0]

        pids = []
        monkeypatch.setattr("scorers.gpu_reader.GpuReader", early)
        monkeypatch.setattr(lm, "Language", functools.partial(lm.Language, gpu=""))
        monkeypatch.setattr(lm, "Link", link)
        monkeypatch.setattr(DeviceLink, "memory", memory, raising=False)
        verdict, told = lm.serve(lm.make_judge(folder), predict, {"batch_size": 16})
    assert verdict.failed is None, verdict.message
    assert verdict.score == pytest.approx(on_host.score, abs=1e-6)
    assert told == [{"score": round(verdict.score, 6)}]
    for ours, theirs in zip(verdict.audits, on_host.audits, strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=1e-3), ours.name
    assert made[0].way == ("eager" if link is DeviceLink else "")
    assert not Path(f"/proc/{pids[0]}").exists()


def test_closing_ends_the_worker_and_may_be_done_twice(reader):
    pid = reader._worker.pid
    reader.close()
    reader.close()
    assert not Path(f"/proc/{pid}").exists()
    assert reader._worker is None


def test_on_a_cpu_logits_are_handed_over_as_an_array():
    import torch

    sink = candidate_side.sink("cpu", (2, 3, 4))
    logits = torch.arange(24, dtype=torch.bfloat16).reshape(2, 3, 4)
    answer = sink(logits)
    assert sink.claim == {}
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, np.arange(24, dtype=np.float32).reshape(2, 3, 4))


# --- on a GPU ------------------------------------------------------------------------------------

CANDIDATE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import device_buffer, torch

shape = tuple(json.loads(sys.argv[2]))
kept = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")  # torch's allocator is at work too
sink = device_buffer.sink("cuda", shape)
print(json.dumps(sink.claim), flush=True)
for line in sys.stdin:
    seed = int(line)
    made = torch.Generator(device="cuda").manual_seed(seed)
    logits = 5 * torch.randn(shape, generator=made, device="cuda")
    answer = sink(logits)
    logits.half().cpu().numpy().tofile(sys.argv[3])
    print(json.dumps(answer), flush=True)
"""

GPU_SHAPE = (8, 256, 8192)


class Candidate:
    """A process with a device buffer, into which it writes random logits from a given seed."""

    def __init__(self, folder: Path, gpu: str, shape=GPU_SHAPE, **env: str) -> None:
        self.path, self.shape = folder / "logits", shape
        here = str(Path(candidate_side.__file__).parent)
        argv = [sys.executable, "-c", CANDIDATE, here, json.dumps(shape), str(self.path)]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu, **env}
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.claim = json.loads(self.process.stdout.readline())

    def write(self, seed: int) -> np.ndarray:
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()
        assert json.loads(self.process.stdout.readline()) == list(self.shape)
        return np.fromfile(self.path, np.float16).reshape(self.shape)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


@pytest.fixture
def gpu():
    found = gpu_uuids()
    if not found:
        pytest.skip("no GPU on this machine")
    return found[0]


def read_and_compare(reader, candidate, seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = question(rng, *candidate.shape, columns=32, picks=2000)
    logits = candidate.write(seed)
    reading, bad = read(reader, asked)
    exact = logits.astype(np.float64)
    peak = exact.max(axis=2, keepdims=True)
    exact -= peak + np.log(np.exp(exact - peak).sum(axis=2, keepdims=True))
    wanted = -np.take_along_axis(exact, asked.targets[:, :, None], axis=2)[:, :, 0]
    assert bad == 0
    for got, want in (
        (reading.nats, wanted),
        (reading.sketch, exact[asked.sketched][:, :, asked.columns]),
        (reading.picks, exact[tuple(asked.picks.T)]),
    ):
        # These normalisers are about 25, where float32 values are 2e-6 apart.
        np.testing.assert_allclose(got, want, atol=3e-5, rtol=2e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("expandable", [False, True])
def test_logits_in_another_process_memory_are_read_right(tmp_path, gpu, expandable):
    env = {}
    if expandable:
        env = dict.fromkeys(
            ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), "expandable_segments:True"
        )
    with closing(Candidate(tmp_path, gpu, **env)) as candidate:
        began = time.monotonic()
        with closing(opened(candidate.claim, GPU_SHAPE[2], gpu)) as reader:
            print("started in", round(time.monotonic() - began, 1), "s, reads", reader.way)
            for seed in range(3):
                read_and_compare(reader, candidate, seed)
            asked = question(np.random.default_rng(9), *GPU_SHAPE)
            reading, _ = read(reader, asked)  # the candidate has written nothing since
            np.testing.assert_allclose(reading.nats, np.log(GPU_SHAPE[2]), rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(3, 37, 1021), (2, 16, 50_257)])
def test_vocabularies_of_any_size_are_read_right(tmp_path, gpu, shape):
    """An odd size, whose rows lie at unaligned addresses, and one above the kernel's block size."""
    with (
        closing(Candidate(tmp_path, gpu, shape)) as candidate,
        closing(opened(candidate.claim, shape[2], gpu)) as reader,
    ):
        print("reads", reader.way)
        read_and_compare(reader, candidate, 1)


@pytest.mark.gpu
def test_a_candidate_that_dies_between_requests_harms_nobody(tmp_path, gpu):
    asked = question(np.random.default_rng(0), *GPU_SHAPE)
    with (
        closing(Candidate(tmp_path, gpu)) as candidate,
        closing(opened(candidate.claim, GPU_SHAPE[2], gpu)) as reader,
    ):
        read_and_compare(reader, candidate, 0)
        candidate.close()
        # CUDA does not define whether the memory outlives its owner; the judge accepts either.
        with contextlib.suppress(ProtocolError):
            read(reader, asked)
        pid = reader._worker.pid
    assert pid is None or not Path(f"/proc/{pid}").exists()
    with (
        closing(Candidate(tmp_path, gpu)) as candidate,
        closing(opened(candidate.claim, GPU_SHAPE[2], gpu)) as reader,
    ):
        read_and_compare(reader, candidate, 1)


@pytest.mark.gpu
def test_a_handle_of_nothing_and_a_size_that_lies_are_the_submissions_fault(tmp_path, gpu):
    with pytest.raises(ProtocolError, match="the device buffer cannot be opened"):
        opened(claim(2 << 20), 8192, gpu)
    with closing(Candidate(tmp_path, gpu)) as candidate:
        told = candidate.claim["device_buffer"]
        lie = {"device_buffer": told | {"bytes": 64 * told["bytes"]}}
        rows = 64 * GPU_SHAPE[0]
        asked = question(np.random.default_rng(0), rows, *GPU_SHAPE[1:])
        # It fails on opening if the driver knows the size, else when the worker reads past the end.
        with pytest.raises(ProtocolError, match="the device buffer cannot be") as caught:  # noqa: SIM117
            with closing(opened(lie, GPU_SHAPE[2], gpu)) as reader:
                read(reader, asked)
        print(caught.value)
