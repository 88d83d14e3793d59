"""Downloads files: in parallel, resumed, checked.

A file in the making is ``NAME.part``, beside ``NAME.part.json`` that says which version of the
file it is a beginning of. A download that was cut off goes on where it ended, by a Range request
that the server may answer with the whole file if it cannot do better or has a newer one. A file
gets its name only once it is whole: the length that is known or that the server gave, the SHA-256
that is known or that the server gives (Hugging Face does), and whatever else its user looks at.
"""

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.base.errors import ConfigError, InfrastructureError
from tasks.definition import Progress
from tasks.shared import hand_on, make_folder

if TYPE_CHECKING:
    import httpx

WORKERS = 8
ATTEMPTS = 6
"""Failures in a row, without a byte gained, after which a file is given up."""
MAX_WAIT_S = 120.0
TIMEOUT_S = 30.0
REPORT_S = 0.5
HOPELESS = frozenset((400, 401, 403, 404, 410, 451))
"""Answers that another try will not change."""

REMEDY = (
    "run the same command again: what was downloaded is kept and goes on where it ended; or give a "
    "copy of your own with --data DIR"
)


class _TryAgain(Exception):
    """One attempt failed; another may do better, after ``wait_s`` if the server said so."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait_s = wait_s


class _Damaged(Exception):
    """A whole download is not what it should be."""


@dataclass(frozen=True)
class Remote:
    """A file to download. ``size`` (bytes) and ``sha256`` hold, where they are known in advance.

    ``damage`` returns what is wrong with a whole file of the right hash, or "".
    """

    url: str
    name: str
    size: int | None = None
    sha256: str = ""
    damage: Callable[[Path], str] = lambda path: ""


@dataclass
class _Part:
    """What is known of one file while it is downloaded."""

    remote: Remote
    folder: Path
    size: int | None = None
    etag: str = ""
    sha256: str = ""
    done: int = 0

    @property
    def name(self) -> str:
        return self.remote.name

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
            with self.part.open("ab") as part:  # not where it is another user's
                self.done = part.tell()
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


def fetch(
    remotes: Sequence[Remote],
    folder: Path,
    progress: Progress,
    *,
    what: str = "",
    remedy: str = "give a copy of your own with --data DIR",
    first_wait_s: float = 1.0,
) -> list[Path]:
    """Return the paths of the files, in that order, after downloading those that are missing.

    ``what`` names them in the progress, ``remedy`` is for files that the server does not have;
    ``first_wait_s`` is waited after a first failure and doubled after each further one.

    Raises ConfigError where there is no such file or no room for it, InfrastructureError where
    the network or the server fails for good or a file arrives damaged twice; each names the file.
    """
    make_folder(folder)
    parts = [_Part(remote, folder) for remote in remotes]
    missing = []
    for part in parts:
        fault = damage(part.path, part.remote) if part.path.exists() else "it is not there"
        if part.path.exists() and fault:
            progress(f"{part.name} is damaged and was removed: {fault}", 0, 1)
            part.path.unlink()
        if fault:
            part.recall()
            missing.append(part)
    if missing:
        _refuse_without_room(missing, folder)
        _download(missing, progress, what or describe(remotes), remedy, first_wait_s)
    return [part.path for part in parts]


def describe(remotes: Sequence[Remote]) -> str:
    """Return what is downloaded, how much where that is known, and from where."""
    hosts = ", ".join(sorted({urlsplit(remote.url).netloc for remote in remotes}))
    names = remotes[0].name if len(remotes) == 1 else f"{len(remotes)} files"
    size = sum(remote.size or 0 for remote in remotes)
    return f"{names} ({size / 1e6:,.0f} MB) from {hosts}" if size else f"{names} from {hosts}"


def damage(path: Path, remote: Remote) -> str:
    """Return why the file at ``path`` is not ``remote``, or ""."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"it has {size:,} bytes instead of {remote.size:,}"
    return _wrong_hash(path, remote.sha256, "it should be") or remote.damage(path)


def _wrong_hash(path: Path, wanted: str, whose: str) -> str:
    if wanted:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            return f"its SHA-256 is {found}, {whose} {wanted}"
    return ""


def _refuse_without_room(parts: list[_Part], folder: Path) -> None:
    wanted = sum(max(0, (part.remote.size or 0) - part.done) for part in parts)
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise ConfigError(
            f"There is no room for {', '.join(part.name for part in parts)} in {folder}.",
            cause=f"{wanted / 1e6:,.0f} MB are to be downloaded, {free / 1e6:,.0f} MB are free",
            remedy="free some space, or set HARNESS_DATA to a folder on another disk",
        )


def _download(
    parts: list[_Part], progress: Progress, what: str, remedy: str, first_wait_s: float
) -> None:
    try:
        import httpx
    except ImportError as error:
        raise ConfigError(
            f"{what} must be downloaded, and httpx is not installed.",
            remedy="pip install 'aira-harness[data]', or give a copy with --data DIR",
        ) from error

    stop = threading.Event()
    limits = httpx.Limits(max_connections=WORKERS)
    with (
        httpx.Client(follow_redirects=True, timeout=TIMEOUT_S, limits=limits) as client,
        ThreadPoolExecutor(WORKERS) as pool,
    ):
        futures = {
            pool.submit(_persist, client, part, stop, remedy, first_wait_s) for part in parts
        }
        try:
            pending = futures
            while pending:
                done, pending = wait(pending, REPORT_S, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                _report(parts, progress, what)
        finally:
            stop.set()  # the others keep their parts
            for future in futures:
                future.cancel()


def _report(parts: list[_Part], progress: Progress, what: str) -> None:
    known = [p.size for p in parts if p.size]
    total = sum(known) + (len(parts) - len(known)) * (sum(known) // max(1, len(known)))
    done = sum(p.done for p in parts)
    progress(f"downloading {what}, MB", done // 10**6, max(total, done) // 10**6 or 1)


def _persist(
    client: "httpx.Client", part: _Part, stop: threading.Event, remedy: str, wait_s: float
) -> None:
    """Try until the file is whole, no byte comes any more, or somebody says stop."""
    failures = damaged = 0
    while not stop.is_set():
        before = part.done
        try:
            _attempt(client, part, stop, remedy)
        except _Damaged as error:
            damaged += 1
            if damaged == 2:
                raise InfrastructureError(
                    f"{part.name} arrived damaged twice and was removed.",
                    cause=str(error),
                    remedy=f"is {part.remote.url} what you want? Otherwise try again later",
                ) from error
        except _TryAgain as error:
            failures = 0 if part.done > before else failures + 1
            if failures == ATTEMPTS:
                raise InfrastructureError(
                    f"{part.name} could not be downloaded from {part.remote.url}.",
                    cause=f"{error.why}, {ATTEMPTS} times in a row",
                    remedy=REMEDY,
                ) from error
            backoff = wait_s * 2 ** max(0, failures - 1)
            stop.wait(min(error.wait_s if error.wait_s is not None else backoff, MAX_WAIT_S))
        else:
            return


def _attempt(client: "httpx.Client", part: _Part, stop: threading.Event, remedy: str) -> None:
    """Ask once for what is missing, write it, and name the file if it is whole and sound."""
    import httpx

    if part.done and part.done == part.size:
        _finish(part)
        return
    headers = {"Accept-Encoding": "identity"}
    if part.done:
        headers["Range"] = f"bytes={part.done}-"
        if part.etag and not part.etag.startswith("W/"):
            headers["If-Range"] = part.etag
    try:
        with client.stream("GET", part.remote.url, headers=headers) as response:
            _accept(part, response, remedy)
            with part.part.open("ab" if part.done else "wb") as out:
                for chunk in response.iter_raw():
                    out.write(chunk)
                    part.done += len(chunk)
                    if stop.is_set():
                        return
    except httpx.InvalidURL as error:
        raise ConfigError(f"{part.remote.url} is no address.", cause=str(error)) from error
    except httpx.HTTPError as error:
        raise _TryAgain(f"{type(error).__name__}: {error}") from error
    if part.size is not None and part.done != part.size:
        if part.done > part.size:
            part.forget()
        raise _TryAgain(f"only {part.done:,} of {part.size:,} bytes came")
    _finish(part)


def _accept(part: _Part, response: "httpx.Response", remedy: str) -> None:
    """Look at the answer's head; set what is known of the file and where its body belongs."""
    status = response.status_code
    if status in HOPELESS:
        raise ConfigError(
            f"{part.name} cannot be had: the server answers {status} {response.reason_phrase}.",
            cause=f"asked for {part.remote.url}",
            remedy=remedy,
        )
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        if match and int(match[1]) == part.done and part.size in (None, int(match[2])):
            part.size = int(match[2])
            part.remember()
            return
        part.forget()
        raise _TryAgain("the server sent another range, or the file has changed")
    if status == 416:
        part.forget()
        raise _TryAgain("the server has fewer bytes than were downloaded")
    if status != 200:
        wait_s = _retry_after(response.headers.get("retry-after"))
        raise _TryAgain(f"the server answers {status} {response.reason_phrase}", wait_s)
    part.forget()
    length = response.headers.get("content-length", "")
    part.size = int(length) if length.isdigit() else None
    part.etag = response.headers.get("etag", "")
    part.sha256 = _sha256(response)
    part.remember()


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


def _finish(part: _Part) -> None:
    fault = _wrong_hash(part.part, part.sha256, "the server says") or damage(part.part, part.remote)
    if fault:
        part.forget()
        raise _Damaged(fault)
    part.part.rename(part.path)
    hand_on(part.path)
    part.note.unlink(missing_ok=True)
