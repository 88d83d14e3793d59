"""A Docker engine through the official SDK: the calls we make, with its errors turned into ours.

It chooses no restrictions: see ``docker_engine``. The SDK is imported late, because that takes
0.2 s, and ``harness --help`` does not need it.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from harness.base.errors import SandboxLostError, SandboxStartError

LABEL = "aira-harness.sandbox"
"""Label of every container with the sandbox's name; ``STATE_LABEL`` has its state folder."""
STATE_LABEL = "aira-harness.state"

_API = "1.41"
_OLDEST = "20.10"
"""The first engine with that API, for cgroup version 2 and private cgroup namespaces."""
_CALL_S = 60.0
_REMOVE_S = 20.0
_CONNECTIONS = 64
"""Connections kept open. With more sandboxes at once, further ones are opened for each call."""
_START_REMEDY = (
    "start Docker (systemctl start docker), or name its socket in DOCKER_HOST; "
    "where permission is denied, join the group docker"
)


class EngineGoneError(SandboxLostError):
    """The engine does not answer any more."""


class Engine:
    """One connection to an engine. May be used from several threads.

    Every method raises EngineGoneError if the engine does not answer. If the engine refuses, it
    raises SandboxLostError, or the error that the method names.
    """

    def __init__(self, *, patience_s: float = _CALL_S) -> None:
        """Connect by ``DOCKER_HOST``, else the default socket. Raises SandboxStartError.

        ``patience_s``: how long the engine may be silent during one call.
        """
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        _check_listening(where)
        try:
            import docker
        except ImportError as error:
            raise SandboxStartError(
                "the Python package docker is not installed",
                cause=str(error),
                remedy="pip install 'aira-harness[docker]'",
            ) from error
        try:
            options = docker.utils.kwargs_from_env()
            # First without an API version: an engine too old for ours refuses even /version.
            with contextlib.closing(docker.APIClient(**options, timeout=10)) as first:
                answer = first.version(api_version=False)
            self.version: str = answer["Version"]
            if _numbers(answer["ApiVersion"]) < _numbers(_API):
                raise SandboxStartError(
                    f"the Docker engine {self.version} is too old",
                    cause=f"it speaks API {answer['ApiVersion']}, and {_API} is needed",
                    remedy=f"install Docker {_OLDEST} or newer",
                )
            self.api = docker.APIClient(
                **options, version=_API, timeout=patience_s, max_pool_size=_CONNECTIONS
            )
            self.info: Mapping[str, Any] = self.api.info()
        except (docker.errors.DockerException, OSError, ValueError) as error:
            raise _no_engine(where, error) from error

    def close(self) -> None:
        """Close the connection. Containers continue to run."""
        self.api.close()

    @property
    def rootless(self) -> bool:
        """Whether the engine maps a uid inside a container to another one outside."""
        options = self.info.get("SecurityOptions") or []
        return any(o.startswith(("name=rootless", "name=userns")) for o in options)

    @property
    def drives_groups(self) -> bool:
        """Whether containers can be put below a control group that the harness made."""
        return bool(self.info.get("CgroupDriver") == "cgroupfs")

    def image(self, name: str) -> Mapping[str, Any] | None:
        """Return the engine's description of an image, or None if it has no such image."""
        import docker

        with errors_translated(f"look at the image {name}"):
            try:
                found: Mapping[str, Any] = self.api.inspect_image(name)
            except docker.errors.ImageNotFound:
                return None
            return found

    def host_config(self, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - the SDK's own
        """Return the SDK's host configuration for ``create``."""
        return dict(self.api.create_host_config(**options))

    def create(self, **options: Any) -> str:  # noqa: ANN401 - the SDK's own
        """Create a container; return its id. Raises SandboxStartError if refused."""
        with errors_translated("create the container", start=True):
            return str(self.api.create_container(**options)["Id"])

    def start(self, container: str) -> int:
        """Start it; return its first process's pid on the host. Raises SandboxStartError."""
        with errors_translated("start the container", start=True):
            self.api.start(container)
            return int(self.api.inspect_container(container)["State"]["Pid"])

    def run_inside(self, container: str, command: list[str], user: str) -> str:
        """Start a program in a running container; return a handle for ``inspect_program``.

        Raises SandboxStartError if refused.
        """
        with errors_translated("start the program", start=True):
            handle = self.api.exec_create(
                container, command, user=user, workdir="/", stdout=False, stderr=False
            )["Id"]
            self.api.exec_start(handle, detach=True)
            return str(handle)

    def inspect_program(self, handle: str) -> tuple[int, int | None]:
        """Return a program's pid on the host and, once it has ended, its exit code."""
        with errors_translated("look at the program"):
            answer = self.api.exec_inspect(handle)
        return int(answer["Pid"]), None if answer["Running"] else answer["ExitCode"]

    def exit_code(self, container: str, *, patience_s: float = _CALL_S) -> int:
        """Wait for a container's end; return its exit code."""
        with errors_translated("look at the container"):
            return int(self.api.wait(container, timeout=patience_s)["StatusCode"])

    def remove(self, container: str) -> None:
        """Kill and remove a container. It may be gone already, or on its way out."""
        import docker

        deadline = time.monotonic() + _REMOVE_S
        with errors_translated(f"remove the container {container[:12]}"):
            while True:
                try:
                    self.api.remove_container(container, force=True, v=True)
                except docker.errors.NotFound:
                    return
                except docker.errors.APIError:
                    # "removal is already in progress", or a mount that is busy for a moment
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)

    def labelled(self, key: str, value: str) -> dict[str, str]:
        """Return the containers with this label, running or not: id -> sandbox name."""
        with errors_translated("list containers"):
            found = self.api.containers(all=True, filters={"label": f"{key}={value}"})
        return {c["Id"]: c["Labels"].get(LABEL, "") for c in found}


def gpu_request(uuids: tuple[str, ...], info: Mapping[str, Any]) -> list[Any]:
    """Return the SDK's request for exactly these GPUs (a count would mean the first ones).

    Uses the container device interface if the engine (``info``) has it and no NVIDIA runtime.
    """
    import docker

    if info.get("CDISpecDirs") and "nvidia" not in (info.get("Runtimes") or {}):
        names = [f"nvidia.com/gpu={uuid}" for uuid in uuids]
        return [docker.types.DeviceRequest(driver="cdi", device_ids=names)]
    return [docker.types.DeviceRequest(device_ids=list(uuids), capabilities=[["gpu"]])]


def bind(source: str, target: str, *, writable: bool) -> Any:  # noqa: ANN401 - the SDK's own
    """Return the SDK's bind mount. Unlike ``-v`` it never creates a missing source folder."""
    import docker

    return docker.types.Mount(
        target, source, type="bind", read_only=not writable, propagation="rprivate"
    )


def ulimit(name: str, value: int) -> Any:  # noqa: ANN401 - the SDK's own
    """Return the SDK's limit, soft and hard alike."""
    import docker

    return docker.types.Ulimit(name=name, soft=value, hard=value)


@contextlib.contextmanager
def errors_translated(what: str, *, start: bool = False) -> Iterator[None]:
    """Turn the SDK's errors into ours. ``start``: a refusal is a SandboxStartError."""
    import docker
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        kind = SandboxStartError if start else SandboxLostError
        raise kind(
            f"The Docker engine could not {what}", cause=_words(error), remedy="harness doctor"
        ) from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise EngineGoneError(
            "The Docker engine went away", cause=_words(error), remedy=_START_REMEDY
        ) from error


def _check_listening(where: str) -> None:
    """Raise SandboxStartError if nothing listens at a ``unix://`` address.

    The SDK would then leak its socket. And without an engine, it need not be imported.
    """
    if where.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(10)
            try:
                knocking.connect(where.removeprefix("unix://"))
            except OSError as error:
                raise _no_engine(where, error) from error


def _no_engine(where: str, error: Exception) -> SandboxStartError:
    return SandboxStartError(
        f"no Docker engine answers at {where}", cause=_words(error), remedy=_START_REMEDY
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _words(error: BaseException) -> str:
    explanation = getattr(error, "explanation", None) or str(error)
    if isinstance(explanation, bytes):
        explanation = explanation.decode(errors="replace")
    return str(explanation)
