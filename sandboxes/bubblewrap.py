"""Sandboxes from Linux namespaces, by bubblewrap: no container engine and no image.

Each started program has its own ``bwrap`` (see ``wrapped``); all programs of a sandbox share
its scratch disk, limits and mounts. The chain of programs, and the purpose of each:

    sh         enters the control group, so that everything after it is counted
    bwrap      namespaces, the file tree, no network, the seccomp filter, no new privileges
    setpriv    (as root) changes to the sandbox's own user, without any capability, not even
               in the bounding set
    sh         reports that all of the above worked and waits for our answer; then sets
               the folder, the environment, and limits where there is no control group
    command

If the harness is root, there is no user namespace: with one, and another ``--uid``, the process
is still uid 0 outside (seen in ``ps``). Changing the user *before* bwrap does not work either:
bwrap then cannot bind an interpreter under a 0700 ``/root``. Without root there must be a user
namespace, and outside it the code has the harness's uid. ``separate-user`` and ``user-quotas``
are then not enforced: all that the harness starts shares what the kernel counts by user.

Not covered: bugs in the kernel (all share one kernel), side channels, the GPU's driver.
Host files under ``/usr`` can be read. With ``network=True`` the network is the host's,
abstract sockets included.
"""

import platform
import shutil
import sys
from collections.abc import Mapping, Sequence

from sandboxes import cgroup, seccomp, state
from sandboxes.base import Probe, SandboxSpec
from sandboxes.local import LocalBackend, LocalSandbox, check_spec, missing_without_root, shell
from sandboxes.tree import CANDIDATE_UID, gpu_nodes, interpreter, tree_arguments, write_etc
from sandboxes.wrapped import HANDSHAKE, BwrapProcess

_KIND = "bwrap"
_TOOLS = ("bwrap", "setpriv")
_START_S = 30.0


class Bubblewrap(LocalBackend):
    """The bubblewrap backend."""

    name = "bubblewrap"
    isolates = True
    _remedy = "apt-get install bubblewrap; where user namespaces are forbidden, run as root"

    def unenforced(self, spec: SandboxSpec) -> tuple[str, ...]:
        groups = cgroup.find()
        held = groups.bases if groups else {}
        missing = missing_without_root(spec)
        if spec.memory_bytes is not None and "memory" not in held:
            missing.add("memory:watchdog")
        if spec.pids is not None and "pids" not in held:
            missing.add("pids")
        if spec.cpus is not None and "cpu" not in held:
            missing.add("cpus")
        if not seccomp.supported():
            missing.add("seccomp")
        return tuple(sorted(missing))

    def open(self, spec: SandboxSpec) -> "BubblewrapSandbox":
        check_spec(spec)
        return BubblewrapSandbox(spec)

    def sweep(self) -> tuple[str, ...]:
        return state.sweep(_KIND)

    def _try(self) -> Probe:
        if sys.platform != "linux":
            return Probe(False, "bubblewrap needs Linux", "use a Linux machine")
        for tool in _TOOLS:
            if shutil.which(tool) is None:
                return Probe(False, f"{tool} is not installed", self._remedy)
        with self.open(SandboxSpec(memory_bytes=None, pids=None)) as sandbox:
            result = sandbox.exec(["/bin/true"], timeout=_START_S)
        if result.exit_code != 0:
            detail = result.stderr.decode(errors="replace").strip()
            return Probe(False, f"/bin/true ended with {result.exit_code}: {detail}", self._remedy)
        return Probe(True, "bubblewrap, namespaces work")


class BubblewrapSandbox(LocalSandbox):
    """One bubblewrap sandbox, made by ``Bubblewrap.open``."""

    def __init__(self, spec: SandboxSpec) -> None:
        nodes = gpu_nodes(spec.gpus)
        python, binds = interpreter()
        super().__init__(spec, state.StateDir(_KIND, own_user=True), python)
        user = self.state.user
        self._group: cgroup.ControlGroup | None = None
        with self._set_up():
            uid = CANDIDATE_UID if user is None else user
            write_etc(self.state.path / "etc", uid, network=spec.network)
            groups = cgroup.find()
            if groups is not None:
                self._group = cgroup.ControlGroup(self.state.name, spec, groups)
            self._held = groups.bases if groups else {}
            # If no control group limits processes, ``ulimit -u`` does: better than no limit.
            self._processes = None
            if "pids" not in self._held and (user or _counts_processes_by_namespace()):
                self._processes = spec.pids
            self._tree = tree_arguments(spec, self.state, binds=binds, nodes=nodes)

    def inside(self, target: str) -> str:
        return target

    def _release(self) -> None:
        if self._group is not None:
            self._group.remove()
            self._group = None

    def _launch(
        self, number: int, argv: Sequence[str], cwd: str, env: Mapping[str, str]
    ) -> BwrapProcess:
        leaf = cgroup.Leaf(self._group, number) if self._group is not None else None
        try:
            return BwrapProcess(
                self._tree,
                shell(
                    argv,
                    cwd,
                    env,
                    handshake=HANDSHAKE,
                    file_bytes=self.spec.disk_bytes if self.state.user is None else None,
                    processes=self._processes,
                ),
                leaf=leaf,
                user=self.state.user,
                watched_bytes=None if "memory" in self._held else self.spec.memory_bytes,
            )
        except BaseException:
            if leaf is not None:
                leaf.remove()
            raise


def _counts_processes_by_namespace() -> bool:
    """Since Linux 5.14 RLIMIT_NPROC counts by user *and* user namespace: this sandbox alone."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(minor.partition("-")[0])) >= (5, 14)
