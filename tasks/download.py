"""Downloads files: in parallel, resumed, checked. The tasks' modules say which files.

An unfinished file is ``NAME.part``, beside ``NAME.part.json``, which says which version of the
file it belongs to. An interrupted download continues where it ended, by a Range request; the
server may answer with the whole file if it does not support ranges or has a newer version. A file
gets its final name only once it is complete and checked: its length and SHA-256, if known in
advance or given by the server (Hugging Face gives the hash), and what ``Remote.damage`` checks.
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
from tasks.shared import inherit_group, make_folder

if TYPE_CHECKING:
    import httpx2

WORKERS = 8
ATTEMPTS = 6
"""After this many failures in a row, without a new byte, a file is given up."""
MAX_WAIT_S = 120.0
TIMEOUT_S = 30.0
REPORT_S = 0.5
HOPELESS = frozenset((400, 401, 403, 404, 410, 451))
"""HTTP status codes that a retry will not change."""

REMEDY = (
    "run the same command again: what was downloaded is kept and goes on where it ended; or give a "
    "copy of your own with --data DIR"
)


class _TryAgain(Exception):
    """One attempt failed, but a retry may succeed. ``wait_s``: how long the server says to wait."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait_s = wait_s


class _Damaged(Exception):
    """A complete download is not the expected file."""


@dataclass(frozen=True)
class Remote:
    """A file to download. ``size`` (bytes) and ``sha256`` are checked if given.

    ``damage`` returns what is wrong with a complete file of the right hash, or "".
    """

    url: str
    name: str
    size: int | None = None
    sha256: str = ""
    damage: Callable[[Path], str] = lambda path: ""


@dataclass
class _Part:
    """The state of one file's download. ``done``: bytes in the part."""

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
        """Continue an earlier process's part, if its note says which version it belongs to."""
        try:
            note = json.loads(self.note.read_text())
            self.size, self.etag, self.sha256 = note["size"], note["etag"], note["sha256"]
            with self.part.open("ab") as part:  # fails for another user's part
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
    """Download the files that are missing or damaged; return all paths, in the order given.

    ``what`` names them in progress lines, ``remedy`` is for files that the server does not have;
    ``first_wait_s`` is the wait after a first failure, doubled after each further one.

    Raises ConfigError if the server has no such file or the disk no room, InfrastructureError if
    network or server keep failing or a file arrives damaged twice; each names the file.
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
    """Return a text: what is downloaded, how much (if known), and from where."""
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
        import httpx2
    except ImportError as error:
        raise ConfigError(
            f"{what} must be downloaded, and httpx2 is not installed.",
            remedy="pip install 'aira-harness[data]', or give a copy with --data DIR",
        ) from error

    stop = threading.Event()
    limits = httpx2.Limits(max_connections=WORKERS)
    with (
        httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S, limits=limits) as client,
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
    client: "httpx2.Client", part: _Part, stop: threading.Event, remedy: str, wait_s: float
) -> None:
    """Try until the file is complete, retries are used up, or ``stop`` is set."""
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


def _attempt(client: "httpx2.Client", part: _Part, stop: threading.Event, remedy: str) -> None:
    """Request the missing bytes once and write them; if the file is complete, finish it."""
    import httpx2

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
    except httpx2.InvalidURL as error:
        raise ConfigError(f"{part.remote.url} is no address.", cause=str(error)) from error
    except httpx2.HTTPError as error:
        raise _TryAgain(f"{type(error).__name__}: {error}") from error
    if part.size is not None and part.done != part.size:
        if part.done > part.size:
            part.forget()
        raise _TryAgain(f"only {part.done:,} of {part.size:,} bytes came")
    _finish(part)


def _accept(part: _Part, response: "httpx2.Response", remedy: str) -> None:
    """Check a response's status and headers; note the file's version and where the body goes.

    Raises ConfigError, _TryAgain.
    """
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


def _sha256(response: "httpx2.Response") -> str:
    """Return the file's SHA-256 as the server, or one that redirected to it, gives it; or ""."""
    for answer in (*response.history, response):
        # A plain ETag may look the same, but be the hash of something else.
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
    inherit_group(part.path)
    part.note.unlink(missing_ok=True)
