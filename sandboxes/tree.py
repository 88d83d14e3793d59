"""The file tree that code in a bubblewrap sandbox sees, as arguments of ``bwrap``.

Built from nothing: a path that is not named here does not exist inside. There is no home
folder, no repository, no ``/etc`` of the host and none of its sockets.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from harness.base.errors import GpuUnavailableError, SandboxStartError
from sandboxes.base import SandboxSpec
from sandboxes.gpus import driver_gpus
from sandboxes.state import StateDir

CANDIDATE_UID = 10002
"""The uid and gid of code inside a sandbox that has no user of its own (see ``state``)."""

_VENV = "/venv"
"""Where the harness's own virtual environment appears: its path on the host may lie under
``/work`` or ``/tmp``, where nothing may be mounted, and code inside need not know that path."""

_NVIDIA_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")


def tree_arguments(
    spec: SandboxSpec,
    state: StateDir,
    *,
    binds: Iterable[tuple[str, str]],
    nodes: Sequence[str],
) -> list[str]:
    """Return the arguments for namespaces (without ``state.user``: also users) and mounts."""
    args = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    args += ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv"]
    args += [] if spec.network else ["--unshare-net"]
    args += ["--cap-drop", "ALL"]
    if state.user is not None:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # setpriv drops them
            args += ["--cap-add", capability]
    else:
        args += ["--unshare-user", "--uid", str(CANDIDATE_UID), "--gid", str(CANDIDATE_UID)]
    args += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():  # as on every system since the merge of /usr
            args += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            args += ["--ro-bind", str(path), str(path)]
    args += ["--ro-bind", str(state.path / "etc"), "/etc"]
    if Path("/etc/alternatives").is_dir():  # /usr/bin/cc leads through it; Triton calls cc
        args += ["--ro-bind", "/etc/alternatives", "/etc/alternatives"]
    args += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777"]
    args += [] if spec.shm_bytes is None else ["--size", str(spec.shm_bytes)]
    args += ["--tmpfs", "/dev/shm"]  # noqa: S108
    for node in nodes:
        args += ["--dev-bind", node, node]
    # torch counts cores in /sys/devices, or warns on stderr; a GPU needs the other folders.
    shown = ["/sys/devices", "/sys/bus/pci", "/sys/class", "/sys/module"]
    for name in shown if nodes else ["/sys/devices/system"]:
        args += [*_parents(name), "--ro-bind-try", name, name]
    args += ["--bind", str(state.disk / "work"), "/work"]
    args += ["--bind", str(state.disk / "tmp"), "/tmp"]  # noqa: S108
    args += ["--perms", "0755", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    for source, target in binds:
        args += [*_parents(target), "--ro-bind", source, target]
    for mount in sorted(spec.mounts, key=lambda m: m.target):
        bind = "--bind" if mount.writable else "--ro-bind"
        args += [*_parents(mount.target), bind, str(mount.source.absolute()), mount.target]
    # Both are tmpfs without a size: if writable, they would be memory without a limit.
    return [*args, "--remount-ro", "/dev", "--remount-ro", "/"]


def write_etc(folder: Path, uid: int, *, network: bool) -> None:
    """Make the sandbox's ``/etc``: a user name, hosts, library paths; for a network also DNS."""
    folder.mkdir()
    texts = {
        "passwd": f"root:x:0:0::/:/bin/sh\ncandidate:x:{uid}:{uid}::/work:/bin/sh\n",
        "group": f"root:x:0:\ncandidate:x:{uid}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "alternatives").mkdir()  # a mount point: bwrap cannot make one in a read-only bind
    copied = ["ld.so.cache", *(["resolv.conf", "ssl/certs/ca-certificates.crt"] if network else [])]
    for name in copied:
        source = Path("/etc", name)
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    for path in (folder, *folder.rglob("*")):  # whatever the harness's umask
        path.chmod(0o755 if path.is_dir() else 0o644)


def interpreter() -> tuple[str, list[tuple[str, str]]]:
    """Return the interpreter's path inside, and the binds that it needs: (source, target).

    The base installation keeps its path, because a virtual environment links to it by its
    absolute path. Raises SandboxStartError.
    """
    binds = []
    bases = {Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parent.parent}
    for base in sorted(bases):
        if base.is_relative_to("/usr"):
            continue
        if any(base.is_relative_to(taken) for taken in ("/work", "/tmp", "/dev", "/proc")):  # noqa: S108
            raise SandboxStartError(
                f"Python is installed in {base}, which the sandbox uses for something else",
                remedy="run the harness with an interpreter outside /work and /tmp",
            )
        binds.append((str(base), str(base)))
    if sys.prefix != sys.base_prefix:
        binds.append((sys.prefix, _VENV))
        return f"{_VENV}/bin/{Path(sys.executable).name}", binds
    return sys.executable, binds


def gpu_nodes(uuids: Sequence[str]) -> list[str]:
    """Return the device nodes of these GPUs and of no other. Raises GpuUnavailableError."""
    if not uuids:
        return []
    minors = {gpu.uuid: gpu.minor for gpu in driver_gpus()}
    nodes = [f"/dev/{name}" for name in _NVIDIA_SHARED if Path("/dev", name).exists()]
    for uuid in uuids:
        if uuid not in minors:
            raise GpuUnavailableError(
                f"GPU {uuid} is not on this machine",
                cause=f"found: {', '.join(minors) or 'no NVIDIA GPU'}",
                remedy="nvidia-smi -L lists them",
            )
        nodes.append(f"/dev/nvidia{minors[uuid]}")
    return nodes


def _parents(target: str) -> list[str]:
    # bwrap makes missing folders 0700, of its own uid: "/root/.pyenv/…/python: Permission
    # denied" was the symptom.
    args = []
    for parent in reversed(PurePosixPath(target).parents[:-1]):
        args += ["--perms", "0755", "--dir", str(parent)]
    return args
