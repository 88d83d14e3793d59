"""Sandboxes as containers of a Docker engine, with an image of their own.

Each started program has its own container; all programs of a sandbox share one scratch disk.
The differences from bubblewrap: the code sees the image's files and none of the host's
``/usr``, and the engine enforces the restrictions, not the harness. How a container starts and
ends is in ``contained``, the calls of the engine in ``engine``.

If the harness is root and the engine manages control groups of version 1 directly (cgroupfs),
all containers of a sandbox share one group with the limits, too. Otherwise each program has
the limits for itself; an evaluation starts one program.

Without root the scratch disk has no size limit, and the code runs under the harness's uid. Access
to the engine amounts to root, so any other uid would be possible, but then the harness could not
delete the files that the code makes.

Not covered: bugs in the kernel (all share one kernel) and in the engine, side channels, the
GPU's driver. With ``network=True`` the network is the host's, abstract sockets included.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from harness.base.errors import ConfigError, SandboxStartError
from sandboxes import cgroup, state
from sandboxes.base import Probe, SandboxSpec
from sandboxes.contained import HANDSHAKE, ContainerProcess
from sandboxes.engine import (
    LABEL,
    STATE_LABEL,
    Engine,
    EngineGoneError,
    bind,
    gpu_request,
    ulimit,
)
from sandboxes.image import recipe
from sandboxes.local import LocalBackend, LocalSandbox, check_spec, missing_without_root, shell
from sandboxes.tree import gpu_nodes

_KIND = "docker"
_BUILD = "harness image build"
_OPEN_FILES = 4096
_UNLIMITED = 1 << 50
_TRIAL_S = 60.0


class Docker(LocalBackend):
    """The Docker backend. All its sandboxes share one connection to the engine."""

    name = "docker"
    isolates = True
    _remedy = "see the engine's log (journalctl -u docker); or --sandbox bubblewrap"

    def __init__(self) -> None:
        super().__init__()
        self._engine: Engine | None = None

    def unenforced(self, spec: SandboxSpec) -> tuple[str, ...]:
        info = self._connect().info
        missing = missing_without_root(spec)
        held = {
            "memory": (spec.memory_bytes, info.get("MemoryLimit")),
            "pids": (spec.pids, info.get("PidsLimit")),
            "cpus": (spec.cpus, info.get("CpuCfsQuota")),
        }
        missing |= {wall for wall, (limit, can) in held.items() if limit is not None and not can}
        if not any(option.startswith("name=seccomp") for option in info["SecurityOptions"]):
            missing.add("seccomp")
        return tuple(sorted(missing))

    def open(self, spec: SandboxSpec) -> "DockerSandbox":
        check_spec(spec)
        engine = self._connect()
        return DockerSandbox(spec, engine, self.image or self._find_image(engine))

    def sweep(self) -> tuple[str, ...]:
        """Remove containers, disks and folders of dead owners.

        If no engine answers, its containers wait for the next sweep; no process in them lives.
        """
        place = state.root()
        removed = set(state.sweep(_KIND))
        try:
            engine = self._connect()
            for container, sandbox in engine.labelled(STATE_LABEL, str(place)).items():
                # A sandbox's folder is made before its first container, removed after its last.
                if not (place / sandbox).exists():
                    engine.remove(container)
                    removed.add(sandbox)
        except (SandboxStartError, EngineGoneError):
            pass
        return tuple(sorted(removed))

    def close(self) -> None:
        """Close the connection to the engine; the next use opens another."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _connect(self) -> Engine:
        if self._engine is None:
            self._engine = Engine()
        return self._engine

    def _find_image(self, engine: Engine) -> str:
        """Return the image's id: a run keeps its image even if the name moves to another one.

        Raises ConfigError.
        """
        name = recipe.name()
        image = engine.image(name)
        if image is None:
            raise ConfigError(f"the image {name} is missing", remedy=_BUILD)
        if wrong := recipe.stale(image):
            raise ConfigError(f"the image {name} is out of date", cause=wrong, remedy=_BUILD)
        self.image = str(image["Id"])
        return self.image

    def _try(self) -> Probe:
        if sys.platform != "linux":
            return Probe(False, "sandboxes need an engine on Linux itself", "use a Linux machine")
        engine = self._connect()
        if engine.rootless:
            return Probe(
                False,
                "the Docker engine maps user ids (rootless, or userns-remap)",
                "use an engine that does not, or --sandbox bubblewrap",
            )
        if os.geteuid() == 0 and not state.chooses_users():
            return Probe(
                False,
                "the harness is root of a user namespace, and somebody else to the engine",
                "run it outside of that, or --sandbox bubblewrap",
            )
        image = self._find_image(engine)
        with self.open(SandboxSpec()) as sandbox:
            result = sandbox.exec([sandbox.python, "-I", "-c", ""], timeout=_TRIAL_S)
        if result.exit_code != 0:
            said = result.stderr.decode(errors="replace").strip()
            return Probe(
                False, f"python in the image ended with {result.exit_code}: {said}", _BUILD
            )
        return Probe(True, f"engine {engine.version}, image {image.removeprefix('sha256:')[:12]}")


class DockerSandbox(LocalSandbox):
    """One Docker sandbox, made by ``Docker.open``."""

    def __init__(self, spec: SandboxSpec, engine: Engine, image: str) -> None:
        gpu_nodes(spec.gpus)  # raises for a missing GPU, with a clearer message than the engine's
        super().__init__(spec, state.StateDir(_KIND, own_user=True), recipe.PYTHON)
        user = self.state.user
        self._engine = engine
        self._image = image
        self._uid = os.geteuid() if user is None else user
        self._group: cgroup.ControlGroup | None = None
        self._later = ThreadPoolExecutor(1, thread_name_prefix="remove-container")
        with self._set_up():
            groups = cgroup.find()
            if user is not None and groups and groups.version == 1 and engine.drives_groups:
                self._group = cgroup.ControlGroup(self.state.name, spec, groups)

    def inside(self, target: str) -> str:
        return target

    def _release(self) -> None:
        self._later.shutdown(wait=True)
        if self._group is not None:
            self._group.remove()
            cgroup.remove_named(self.state.name)  # the engine made it in other hierarchies too
            self._group = None

    def _launch(
        self, number: int, argv: Sequence[str], cwd: str, env: Mapping[str, str]
    ) -> ContainerProcess:
        command = shell(argv, cwd, env, handshake=HANDSHAKE)
        # ``env -i`` removes the variables of the engine and of the image.
        return ContainerProcess(
            self._engine,
            self._options,
            self._host(),
            ["/usr/bin/env", "-i", *command],
            folder=self.state.path / f"start-{number}",
            uid=self._uid,
            later=self._later.submit,
        )

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {
            "image": self._image,
            "hostname": "sandbox",
            "entrypoint": [],
            "working_dir": "/",
            "healthcheck": {"test": ["NONE"]},
            "labels": {
                LABEL: self.state.name,
                STATE_LABEL: str(self.state.path.parent),
                "aira-harness.owner": str(os.getpid()),
            },
        }

    def _host(self) -> dict[str, Any]:
        """Return every restriction, under the SDK's names. The rest keeps the engine's default."""
        spec = self.spec
        mounts = [
            bind(str(self.state.disk / "work"), "/work", writable=True),
            bind(str(self.state.disk / "tmp"), "/tmp", writable=True),  # noqa: S108
        ]
        for mount in spec.mounts:
            if not mount.source.exists():
                raise SandboxStartError(f"Nothing to mount at {mount.target}: {mount.source}")
            source = str(mount.source.resolve())
            mounts.append(bind(source, mount.target, writable=mount.writable))
        host: dict[str, Any] = {
            "mounts": mounts,
            "init": True,
            "network_mode": "host" if spec.network else "none",
            "ipc_mode": "private",
            "cgroupns": "private",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "read_only": True,
            # Hides the container's control groups, which the engine shows and nobody needs.
            "tmpfs": {"/sys/fs/cgroup": "ro,size=4k,mode=0555"},
            "shm_size": spec.shm_bytes or _UNLIMITED,
            "ulimits": [ulimit("nofile", _OPEN_FILES), ulimit("core", 0)],
            "log_config": {"type": "none"},
            "restart_policy": {"Name": "no"},
        }
        if spec.pids is not None:
            host["pids_limit"] = spec.pids + cgroup.OWN_PIDS
        if spec.memory_bytes is not None:
            host |= {"mem_limit": spec.memory_bytes, "memswap_limit": spec.memory_bytes}
        if spec.cpus is not None:
            host["nano_cpus"] = max(10_000_000, round(spec.cpus * 1e9))
        if spec.gpus:
            host["device_requests"] = gpu_request(spec.gpus, self._engine.info)
        if self._group is not None:
            host["cgroup_parent"] = f"/{self.state.name}"
        return host
