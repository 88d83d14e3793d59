"""Tests the download of climbmix: real parquet shards from a local server that can misbehave."""

import hashlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_autoresearch_data import silent

from harness.base.errors import ConfigError, InfrastructureError
from tasks.autoresearch import data, download, sources, tokenizer
from tasks.download import ATTEMPTS, WORKERS

PATH = "/" + download.DATASET + "/"
SMALL = {
    "source": "climbmix", "shards": 2, "vocabulary": 300, "length": 32, "rows": 20,
    "audit_tokens": 1500,
}  # fmt: skip


def shard(number: int) -> bytes:
    """Return a parquet file like climbmix's: zstd, row groups, a column of text."""
    rng = np.random.default_rng(number)
    texts = [
        f"shard {number} document {i}: " + " ".join(map(str, rng.integers(0, 99_999, 40)))
        for i in range(60)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=16, compression="zstd")
    return sink.getvalue().to_pybytes()


@dataclass
class Server:
    """State of the test server: its files, how it fails, and the requests that it got."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    linked: bool = False
    """Redirect to another path, and give the SHA-256 on the way, as Hugging Face does."""
    cut_at: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    refuse: dict[str, list[tuple[int, str] | None]] = field(
        default_factory=lambda: defaultdict(list)
    )
    gate: threading.Barrier | None = None
    """If set, requests wait here until as many as the barrier counts have arrived."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, *numbers: int) -> None:
        for number in numbers:
            self.files[download.shard_name(number)] = shard(number)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state, name = self.state, self.path.removeprefix(PATH)
        if state.linked and self.path.startswith(PATH):
            body = state.files.get(name, b"")
            sha256 = hashlib.sha256(body).hexdigest()
            self.head(302, {"Location": f"/cdn/{name}", "X-Linked-ETag": f'"{sha256}"'}, 0)
            return
        name = name.removeprefix("/cdn/")
        wanted = self.headers.get("Range", "")
        with state.lock:
            state.asked.append((name, wanted))
            state.open_now += 1
            state.open_most = max(state.open_most, state.open_now)
        if state.gate:
            state.gate.wait(60)
        with state.lock:
            state.open_now -= 1
        self.answer(name, wanted)

    def answer(self, name: str, wanted: str) -> None:
        state = self.state
        refusal = state.refuse[name].pop(0) if state.refuse[name] else None
        if refusal is not None:
            status, retry_after = refusal
            self.head(status, {"Retry-After": retry_after} if retry_after else {}, 0)
            return
        body = state.files.get(name)
        if body is None:
            self.head(404, {}, 0)
            return
        headers = {}
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        if state.etags:
            headers["ETag"] = etag
        start, status = 0, 200
        fresh = self.headers.get("If-Range") in (None, etag)
        if wanted and state.ranges and fresh:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(body):
                self.head(416, {}, 0)
                return
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.head(status, headers, len(body) - start)
        end = state.cut_at[name].pop(0) if state.cut_at[name] else len(body)
        self.wfile.write(body[start:end])
        self.wfile.flush()
        if end < len(body):
            self.close_connection = True

    def head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()


@pytest.fixture
def server(monkeypatch):
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"state": state}))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{http.server_port}/")
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def fetch(numbers: list[int], folder: Path, progress=silent) -> list[Path]:
    return download.fetch(numbers, folder, progress, first_wait_s=0.01)


def is_whole(server: Server, folder: Path) -> bool:
    here = {path.name: path.read_bytes() for path in folder.iterdir()}
    return here == server.files


def test_shards_come_whole_and_are_asked_for_once(server, tmp_path):
    server.hold(0, 1, 2)
    said = []
    paths = fetch([2, 0, 1], tmp_path, lambda what, done, total: said.append((what, done, total)))
    assert [path.name for path in paths] == [download.shard_name(n) for n in (2, 0, 1)]
    assert is_whole(server, tmp_path)
    assert said[-1][0] == "downloading 3 shards, MB"
    assert all(0 <= done <= total for _, done, total in said)
    fetch([2, 0, 1], tmp_path)
    assert len(server.asked) == 3


def test_a_connection_cut_in_mid_file_goes_on_where_it_ended(server, tmp_path):
    server.hold(0)
    (name,) = server.files
    server.cut_at[name] = [3000, 9000]
    fetch([0], tmp_path)
    assert is_whole(server, tmp_path)
    assert server.asked == [(name, ""), (name, "bytes=3000-"), (name, "bytes=9000-")]


def test_a_later_process_goes_on_where_an_earlier_one_ended(server, tmp_path):
    server.hold(0)
    (name,) = server.files
    server.cut_at[name] = [5000]
    server.refuse[name] = [None, *[(500, "")] * ATTEMPTS]
    with pytest.raises(InfrastructureError) as caught:
        fetch([0], tmp_path)
    assert name in caught.value.message
    assert "what was downloaded is kept" in caught.value.remedy
    fetch([0], tmp_path)
    assert is_whole(server, tmp_path)
    assert server.asked[-1] == (name, "bytes=5000-")


def test_a_server_without_ranges_sends_the_file_again(server, tmp_path):
    server.hold(0)
    (name,) = server.files
    server.ranges = False
    server.cut_at[name] = [4000]
    fetch([0], tmp_path)
    assert is_whole(server, tmp_path)
    assert [wanted for _, wanted in server.asked] == ["", "bytes=4000-"]


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changed_meanwhile_is_not_patched_together(server, tmp_path, etags):
    server.hold(0)
    server.etags = etags
    ((name, body),) = server.files.items()
    (tmp_path / f"{name}.part").write_bytes(shard(77)[:2000])
    # With an ETag the server notices the change; without one only another length shows it.
    note = {"size": len(body) + (not etags), "etag": '"old"' if etags else "", "sha256": ""}
    (tmp_path / f"{name}.part.json").write_text(json.dumps(note))
    fetch([0], tmp_path)
    assert is_whole(server, tmp_path)


@pytest.mark.parametrize("note", [None, "{}", "no json", '{"size": 1, "etag": "", "sha256": ""}'])
def test_a_part_of_unknown_origin_is_dropped(server, tmp_path, note):
    server.hold(0)
    (tmp_path / "shard_00000.parquet.part").write_bytes(b"of another world" * 9)
    if note is not None:
        (tmp_path / "shard_00000.parquet.part.json").write_text(note)
    fetch([0], tmp_path)
    assert is_whole(server, tmp_path)


def test_a_busy_server_is_given_the_time_it_asks_for(server, tmp_path, monkeypatch):
    waited = []

    class Unhurried(threading.Event):
        def wait(self, timeout=None):
            waited.append(timeout)
            return self.is_set()

    monkeypatch.setattr("tasks.download.threading", SimpleNamespace(Event=Unhurried))
    server.hold(0)
    (name,) = server.files
    server.refuse[name] = [(503, "1"), (429, "0"), (500, "")]
    fetch([0], tmp_path)
    assert is_whole(server, tmp_path)
    assert waited == [1.0, 0.0, 0.04]  # the third wait is our own: 0.01 s, doubled twice


def test_a_server_that_stays_broken_is_given_up_and_named(server, tmp_path):
    server.hold(0)
    (name,) = server.files
    server.refuse[name] = [(502, "")] * 99
    with pytest.raises(InfrastructureError) as caught:
        fetch([0], tmp_path)
    assert name in caught.value.message
    assert "502" in caught.value.cause
    assert len(server.asked) == ATTEMPTS


def test_a_shard_that_does_not_exist_is_not_tried_again(server, tmp_path):
    server.hold(0)
    with pytest.raises(ConfigError, match="shard_00004.parquet cannot be had") as caught:
        fetch([0, 4], tmp_path)
    assert "404" in caught.value.message
    assert [name for name, _ in server.asked].count("shard_00004.parquet") == 1


@pytest.mark.parametrize("fault", ["footer", "column", "no parquet"])
def test_a_shard_that_arrives_damaged_is_removed_and_named(server, tmp_path, fault):
    server.hold(0, 1)
    sound = server.files["shard_00001.parquet"]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"body": ["a"]}), sink)
    server.files["shard_00001.parquet"] = {
        "footer": sound[:-40] + b"x" * 40,
        "column": sink.getvalue().to_pybytes(),
        "no parquet": b"<html>please log in</html>",
    }[fault]
    with pytest.raises(InfrastructureError) as caught:
        fetch([0, 1], tmp_path)
    assert "shard_00001.parquet arrived damaged twice and was removed" in caught.value.message
    assert caught.value.cause
    assert not list(tmp_path.glob("shard_00001*"))


def test_a_shard_with_a_wrong_sha256_is_downloaded_anew(server, tmp_path):
    server.hold(0)
    server.linked = True
    (name, body) = server.files.copy().popitem()
    # By its ETag this is part of the right file, but its bytes are wrong, and no footer shows it.
    (tmp_path / f"{name}.part").write_bytes(b"\0" * 500)
    note = {
        "size": len(body),
        "etag": f'"{hashlib.md5(body).hexdigest()}"',
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    (tmp_path / f"{name}.part.json").write_text(json.dumps(note))
    fetch([0], tmp_path)
    assert [wanted for _, wanted in server.asked] == ["bytes=500-", ""]
    assert is_whole(server, tmp_path)


def test_a_damaged_shard_on_disk_is_removed_named_and_replaced(server, tmp_path):
    server.hold(0, 1)
    fetch([0, 1], tmp_path)
    path = tmp_path / "shard_00001.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    said = []
    fetch([0, 1], tmp_path, lambda what, done, total: said.append(what))
    assert "shard_00001.parquet is damaged and was removed" in said[0]
    assert is_whole(server, tmp_path)


def test_shards_are_downloaded_at_the_same_time(server, tmp_path):
    server.hold(*range(2 * WORKERS))
    server.gate = threading.Barrier(WORKERS)
    fetch(list(range(2 * WORKERS)), tmp_path)
    assert server.open_most == WORKERS
    assert is_whole(server, tmp_path)


# From the shards to the data


def texts_in(folder: Path, split: str, name: str) -> list[str]:
    read = tokenizer.Tokenizer.from_json((folder / "train" / "tokenizer.json").read_text())
    tokens = np.load(folder / split / f"{name}.npy").reshape(-1).tolist()
    return read.encoding.decode(tokens).split("<|reserved_0|>")[1:]


def test_every_split_comes_from_its_own_shards(server, tmp_path):
    server.hold(0, 1, 6540, 6541, 6542)
    folder = data.prepare("smoke", SMALL, tmp_path, silent)
    assert {name for name, _ in server.asked} == set(server.files)
    where = {
        ("train", "tokens"): (0, 1),
        ("train", "val_tokens"): (6542,),
        ("search", "audit_tokens"): (6540,),
        ("search", "rows"): (6540,),
        ("test", "audit_tokens"): (6541,),
        ("test", "rows"): (6541,),
    }
    for (split, name), numbers in where.items():
        texts = texts_in(folder, split, name)
        whole = [text for text in texts if len(text) > 14]
        assert len(whole) > 2
        assert all(text.startswith(tuple(f"shard {n} " for n in numbers)) for text in whole)
    assert len(texts_in(folder, "train", "tokens")) == 120
    server.asked.clear()
    assert data.prepare("smoke", SMALL, tmp_path, silent) == folder
    data.prepare("smoke", {**SMALL, "seed": 4}, tmp_path, silent)
    assert server.asked == []  # the shards are shared by all data made of them


def test_a_document_of_the_hidden_shards_is_not_trained_on(server, tmp_path):
    server.hold(0, 6540, 6541, 6542)
    table = pq.read_table(pa.BufferReader(server.files["shard_06541.parquet"]))
    copied = table["text"].to_pylist()
    sink = pa.BufferOutputStream()
    own = pq.read_table(pa.BufferReader(server.files["shard_00000.parquet"]))["text"].to_pylist()
    pq.write_table(pa.table({"text": [*own, *copied, *own]}), sink)
    server.files["shard_00000.parquet"] = sink.getvalue().to_pybytes()
    folder = data.prepare("smoke", {**SMALL, "shards": 1}, tmp_path, silent)
    trained = texts_in(folder, "train", "tokens")
    assert set(own) <= set(trained)
    assert len(set(trained)) == len(trained)
    assert not {text for text in texts_in(folder, "test", "audit_tokens")} & set(trained)


def test_a_shard_damaged_within_is_removed_and_named_when_it_is_read(server, tmp_path):
    server.hold(0, 1, 6540, 6541, 6542)
    body = bytearray(server.files["shard_00001.parquet"])
    body[200:1200] = b"\0" * 1000  # the footer stays readable
    server.files["shard_00001.parquet"] = bytes(body)
    with pytest.raises(
        InfrastructureError, match=r"shard_00001.parquet is damaged and was removed"
    ):
        data.prepare("smoke", SMALL, tmp_path, silent)
    assert not (tmp_path / "climbmix" / "shard_00001.parquet").exists()
    server.hold(1)
    data.prepare("smoke", SMALL, tmp_path, silent)


def test_the_public_validation_shard_is_never_a_hidden_one():
    hidden = {*sources.SEARCH_SHARDS, *sources.TEST_SHARDS}
    assert 6542 not in hidden
    assert max(range(sources.MAX_TRAIN_SHARDS)) < min(hidden)
    assert not set(sources.SEARCH_SHARDS) & set(sources.TEST_SHARDS)


@pytest.mark.parametrize("changes", [{"shards": 6543}, {"shards": 0}, {"audit_tokens": 10**9}])
def test_more_than_climbmix_has_is_refused_before_any_download(server, tmp_path, changes):
    with pytest.raises(ConfigError, match="climbmix"):
        data.prepare("smoke", {**SMALL, **changes}, tmp_path, silent)
    assert server.asked == []
