"""A real Docker engine for one test, which may kill it: with its own socket and a tiny image."""

import contextlib
import io
import os
import re
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import docker
from hostview import living

PROGRAMS = ("/bin/sh", "/usr/bin/env", "/bin/sleep", "/bin/true")


class PrivateEngine:
    """A ``dockerd`` with its data in ``folder``. It runs while the ``with`` block does."""

    def __init__(self, folder):
        self._folder = folder
        # A socket's path is limited to 108 bytes, and the paths of pytest's folders are long.
        self._short = Path(tempfile.mkdtemp(prefix="hd-"))
        self.host = f"unix://{self._short}/d.sock"

    def __enter__(self):
        self._log = (self._folder / "log").open("wb")
        options = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"]
        options += [f"--data-root={self._folder}/data", f"--exec-root={self._short}/x"]
        options += [f"--pidfile={self._short}/pid", f"--host={self.host}"]
        self._daemon = subprocess.Popen(
            ["dockerd", *options],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        self._client = docker.APIClient(base_url=self.host, version="1.41", timeout=60)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                self._client.version()
                return self
            if time.monotonic() > deadline or self._daemon.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text()[-3000:])
            time.sleep(0.1)

    def image(self):
        """Import four programs of this machine and their libraries; return the image's name."""
        wanted = {os.path.realpath(p): p for p in PROGRAMS}
        files = {inside: real for real, inside in wanted.items()}
        for program in wanted:
            told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
            for path in re.findall(r"(/\S+) \(0x", told.stdout):
                files[path] = os.path.realpath(path)
        buffer = io.BytesIO()
        # Every folder is in the archive: if the engine makes one, only root may enter it.
        folders = {str(parent) for inside in files for parent in Path(inside).parents}
        folders |= {f"/{name}" for name in ("work", "tmp", "run", "proc", "dev", "sys", "etc")}
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in sorted(folders - {"/"}):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            for inside, real in files.items():
                tar.add(real, inside)
        self._client.import_image_from_data(buffer.getvalue(), repository="tiny", tag="1")
        return "tiny:1"

    def stop(self, how):
        """Send a signal (``KILL`` or ``TERM``) to the daemon and wait until it has ended."""
        self._daemon.send_signal(getattr(signal, f"SIG{how}"))
        self._daemon.wait(60)

    def __exit__(self, *_):
        self._client.close()
        if self._daemon.poll() is None:
            self.stop("TERM")
        self._log.close()
        # A killed daemon leaves its containerd and that one's helper processes. Their command lines
        # contain the folder.
        for pid in living(str(self._short)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            point = line.split()[1]
            if point.startswith((str(self._short), str(self._folder))):
                subprocess.run(["umount", "-l", point], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", self._short, self._folder / "data"], check=True)
