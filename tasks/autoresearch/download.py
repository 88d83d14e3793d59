"""Downloads shards of the public climbmix dataset: in parallel, resumed, checked.

A shard in the making is ``NAME.part``, beside ``NAME.part.json`` that says which version of the
file it is a beginning of. A download that was cut off goes on where it ended, by a Range request
that the server may answer with the whole file if it cannot do better or has a newer one. A shard
gets its name only once it is whole: the length that the server gave, its SHA-256 where the server
gives one (Hugging Face does), and a readable parquet footer.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, InfrastructureError
from tasks.spec import Progress

if TYPE_CHECKING:
    import httpx

DATASET = "datasets/karpathy/climbmix-400b-shuffle/resolve/main"
"""The dataset of the public task (karpathy/autoresearch, prepare.py, commit 228791f)."""

LAST_SHARD = 6542
"""Shards are numbered from 0. The last one is the public task's validation shard."""

WORKERS = 8
ATTEMPTS = 6
"""Failures in a row, without a byte gained, after which a shard is given up."""
MAX_WAIT_S = 120.0
TIMEOUT_S = 30.0
REPORT_S = 0.5
HOPELESS = frozenset((400, 401, 403, 404, 410, 451))
"""Answers that another try will not change."""

REMEDY = "run the same command again: what was downloaded is kept and goes on where it ended"


class _TryAgain(Exception):
    """One attempt failed; another may do better, after ``wait_s`` if the server said so."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait_s = wait_s


class _Damaged(Exception):
    """A whole download is not what it should be."""


@dataclass
class _Shard:
    """What is known of one shard while it is downloaded."""

    name: str
    folder: Path
    size: int | None = None
    etag: str = ""
    sha256: str = ""
    done: int = 0

    @property
    def path(self) -> Path:
        return self.folder / self.name

    @property
    def part(self) -> Path:
        return self.folder / f"{self.name}.part"

    @property
    def note(self) -> Path:
        return self.folder / f"{self.name}.part.json"

    def recall(self) -> None:
        """Take up what an earlier process left unfinished, if it says what it is part of."""
        try:
            note = json.loads(self.note.read_text())
            self.size, self.etag, self.sha256 = note["size"], note["etag"], note["sha256"]
            self.done = self.part.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            self.forget()

    def remember(self) -> None:
        """Note which version of the file the part belongs to."""
        note = {"size": self.size, "etag": self.etag, "sha256": self.sha256}
        self.note.write_text(json.dumps(note))

    def forget(self) -> None:
        """Drop the part: the next attempt starts anew."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.size, self.etag, self.sha256, self.done = None, "", "", 0


def address() -> str:
    """Return where the shards are. ``$HF_ENDPOINT`` names a mirror of Hugging Face."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/") + "/" + DATASET


def shard_name(number: int) -> str:
    """Return the file name of shard ``number``."""
    return f"shard_{number:05d}.parquet"


def fetch(
    numbers: Sequence[int], folder: Path, progress: Progress, *, first_wait_s: float = 1.0
) -> list[Path]:
    """Return the paths of the shards, in that order, after downloading those that are missing.

    ``first_wait_s`` is waited after a first failure and doubled after each further one.

    Raises ConfigError where there is no such shard, InfrastructureError where the network or the
    server fails for good or a shard arrives damaged twice; each names the shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = [_Shard(shard_name(number), folder) for number in numbers]
    missing = []
    for shard in shards:
        fault = damage(shard.path) if shard.path.exists() else "it is not there"
        if shard.path.exists() and fault:
            progress(f"{shard.name} is damaged and was removed: {fault}", 0, 1)
            shard.path.unlink()
        if fault:
            shard.recall()
            missing.append(shard)
    if missing:
        _download(missing, progress, first_wait_s)
    return [shard.path for shard in shards]


def damage(path: Path) -> str:
    """Return why ``path`` is no readable parquet file with a column of text, or ""."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with pq.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                return f"it has no column 'text', only {', '.join(file.schema_arrow.names)}"
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        return str(error)
    return ""


def _download(shards: list[_Shard], progress: Progress, first_wait_s: float) -> None:
    import httpx

    stop = threading.Event()
    limits = httpx.Limits(max_connections=WORKERS)
    with (
        httpx.Client(follow_redirects=True, timeout=TIMEOUT_S, limits=limits) as client,
        ThreadPoolExecutor(WORKERS) as pool,
    ):
        futures = {pool.submit(_persist, client, s, stop, first_wait_s) for s in shards}
        try:
            pending = futures
            while pending:
                done, pending = wait(pending, REPORT_S, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                _report(shards, progress)
        finally:
            stop.set()  # the others keep their parts
            for future in futures:
                future.cancel()


def _report(shards: list[_Shard], progress: Progress) -> None:
    known = [s.size for s in shards if s.size]
    total = sum(known) + (len(shards) - len(known)) * (sum(known) // max(1, len(known)))
    done = sum(s.done for s in shards)
    progress(f"downloading {len(shards)} shards, MB", done // 10**6, max(total, done) // 10**6 or 1)


def _persist(client: "httpx.Client", shard: _Shard, stop: threading.Event, wait_s: float) -> None:
    """Try until the shard is whole, no byte comes any more, or somebody says stop."""
    failures = damaged = 0
    while not stop.is_set():
        before = shard.done
        try:
            _attempt(client, shard, stop)
        except _Damaged as error:
            damaged += 1
            if damaged == 2:
                raise InfrastructureError(
                    f"{shard.name} arrived damaged twice and was removed.",
                    cause=str(error),
                    remedy=f"is {address()} the dataset? Otherwise try again later",
                ) from error
        except _TryAgain as error:
            failures = 0 if shard.done > before else failures + 1
            if failures == ATTEMPTS:
                raise InfrastructureError(
                    f"{shard.name} could not be downloaded from {address()}.",
                    cause=f"{error.why}, {ATTEMPTS} times in a row",
                    remedy=REMEDY,
                ) from error
            backoff = wait_s * 2 ** max(0, failures - 1)
            stop.wait(min(error.wait_s if error.wait_s is not None else backoff, MAX_WAIT_S))
        else:
            return


def _attempt(client: "httpx.Client", shard: _Shard, stop: threading.Event) -> None:
    """Ask once for what is missing, write it, and name the shard if it is whole and sound."""
    import httpx

    if shard.done and shard.done == shard.size:
        _finish(shard)
        return
    headers = {"Accept-Encoding": "identity"}
    if shard.done:
        headers["Range"] = f"bytes={shard.done}-"
        if shard.etag and not shard.etag.startswith("W/"):
            headers["If-Range"] = shard.etag
    try:
        with client.stream("GET", f"{address()}/{shard.name}", headers=headers) as response:
            _accept(shard, response)
            with shard.part.open("ab" if shard.done else "wb") as out:
                for chunk in response.iter_raw():
                    out.write(chunk)
                    shard.done += len(chunk)
                    if stop.is_set():
                        return
    except httpx.InvalidURL as error:
        raise ConfigError(f"{address()} is no address.", cause=str(error)) from error
    except httpx.HTTPError as error:
        raise _TryAgain(f"{type(error).__name__}: {error}") from error
    if shard.size is not None and shard.done != shard.size:
        if shard.done > shard.size:
            shard.forget()
        raise _TryAgain(f"only {shard.done:,} of {shard.size:,} bytes came")
    _finish(shard)


def _accept(shard: _Shard, response: "httpx.Response") -> None:
    """Look at the answer's head; set what is known of the shard and where its body belongs."""
    status = response.status_code
    if status in HOPELESS:
        raise ConfigError(
            f"{shard.name} cannot be had: the server answers {status} {response.reason_phrase}.",
            cause=f"asked for {address()}/{shard.name}",
            remedy="check $HF_ENDPOINT, or give a folder of your own with --data DIR",
        )
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        if match and int(match[1]) == shard.done and shard.size in (None, int(match[2])):
            shard.size = int(match[2])
            shard.remember()
            return
        shard.forget()
        raise _TryAgain("the server sent another range, or the file has changed")
    if status == 416:
        shard.forget()
        raise _TryAgain("the server has fewer bytes than were downloaded")
    if status != 200:
        wait_s = _retry_after(response.headers.get("retry-after"))
        raise _TryAgain(f"the server answers {status} {response.reason_phrase}", wait_s)
    shard.forget()
    length = response.headers.get("content-length", "")
    shard.size = int(length) if length.isdigit() else None
    shard.etag = response.headers.get("etag", "")
    shard.sha256 = _sha256(response)
    shard.remember()


def _sha256(response: "httpx.Response") -> str:
    """Return the SHA-256 that the server, or one that it redirected from, says the file has."""
    for answer in (*response.history, response):
        # A plain ETag may look alike and be the hash of something else.
        value = answer.headers.get("x-linked-etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", value):
            return str(value)
    return ""


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _finish(shard: _Shard) -> None:
    fault = ""
    if shard.sha256:
        with shard.part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != shard.sha256:
            fault = f"its SHA-256 is {found}, the server says {shard.sha256}"
    fault = fault or damage(shard.part)
    if fault:
        shard.forget()
        raise _Damaged(fault)
    shard.part.rename(shard.path)
    shard.note.unlink(missing_ok=True)
