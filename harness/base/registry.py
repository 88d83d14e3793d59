"""Registries of things that users select by name, such as agents, policies and sandboxes.

A registry holds our own table and what installed packages add. A package adds to a registry by an
entry point of its group (docs/guides/extending.md). Looking up names imports nothing; an addition
is imported when it is asked for, and a broken addition does not affect the others.
"""

import importlib
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.base.errors import ConfigError, HarnessError
from harness.base.validation import did_you_mean

T = TypeVar("T")

GROUPS = "harness."
"""What the name of every group begins with."""

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
"""A valid name: it is used in commands, in tables and in names of folders."""


class Registry(Generic[T]):
    """Things of one kind by name: ``ours``, and those that packages add to ``group``.

    ``word`` names the kind in messages. ``fault`` takes a name and an addition, and returns why
    the addition is invalid, or "".
    """

    def __init__(
        self, word: str, group: str, ours: Mapping[str, T], fault: Callable[[str, Any], str]
    ) -> None:
        self.word, self.group = word, group
        self.ours = dict(ours)
        self._fault = fault

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def known(self, name: str, *, secret: bool = False) -> str:
        """Return the name if it is known. Raises ValueError, as a field's validator does.

        ``secret``: the message does not repeat the name, because it may be a secret key.
        """
        if name not in self:
            which = f"such {self.word}" if secret else f"{self.word} {name!r}"
            wanted = " or ".join(map(repr, self.names()))
            raise ValueError(f"there is no {which}; wanted: {wanted}")
        return name

    def names(self) -> list[str]:
        """Return all names, ours first. Nothing is imported."""
        return list(dict.fromkeys([*self.ours, *(point.name for point in installed(self.group))]))

    def find(self, name: str) -> T:
        """Return the thing with that name.

        Raises ConfigError naming the nearest name, or why an addition cannot be used: it cannot
        be imported, it is invalid, or its name is taken.
        """
        points = [point for point in installed(self.group) if point.name == name]
        if not points:
            if name not in self.ours:
                raise ConfigError(
                    f"There is no {self.word} {name!r}.", remedy=did_you_mean(name, self.names())
                )
            return self.ours[name]
        if name in self.ours or len(points) > 1:
            owners = [*(["harness"] if name in self.ours else []), *map(package, points)]
            raise ConfigError(
                f"Two packages have a {self.word} {name!r}: {' and '.join(owners)}.",
                remedy=f"pip uninstall {owners[-1].split()[0]}, or have it use another name",
            )
        added: T = self._load(points[0])
        return added

    def usable(self) -> dict[str, T]:
        """Return all things that can be used, by name; ``broken`` has the others."""
        found = {}
        for name in self.names():
            with suppress(ConfigError):
                found[name] = self.find(name)
        return found

    def broken(self) -> dict[str, ConfigError]:
        """Return the names that cannot be used, each with the reason."""
        found = {}
        for name in self.names():
            try:
                self.find(name)
            except ConfigError as error:
                found[name] = error
        return found

    def added(self) -> dict[str, str]:
        """Return each name that a package adds, with the package and its version."""
        return {point.name: package(point) for point in installed(self.group)}

    def _load(self, point: EntryPoint) -> Any:  # noqa: ANN401 (any type of thing)
        wrong = f"The {self.word} {point.name!r} of {package(point)} cannot be used."
        remedy = f"mend it, or pip uninstall {package(point).split()[0]}; docs/guides/extending.md"
        if not NAME.fullmatch(point.name):
            cause = "a name is letters, digits, '.', '_' and '-', 64 at most"
            raise ConfigError(wrong, cause=cause, remedy=remedy)
        try:
            added = point.load()
        except (Exception, SystemExit) as error:  # third-party code may raise anything
            cause = f"{point.value}: {type(error).__name__}: {error}"
            raise ConfigError(wrong, cause=cause, remedy=remedy) from error
        if fault := self._fault(point.name, added):
            raise ConfigError(wrong, cause=f"{point.value}: {fault}", remedy=remedy)
        return added


def load(address: str) -> Any:  # noqa: ANN401 (any object)
    """Return the object at an address, ``module:name``.

    Raises what importing the module raises, and ConfigError if it has no such name.
    """
    module, _, name = address.partition(":")
    found = importlib.import_module(module)
    if not hasattr(found, name):
        raise ConfigError(f"There is no {address}, which a package names as its own.")
    return getattr(found, name)


@contextmanager
def errors_of_packages() -> Iterator[None]:
    """Turn an exception from the code of an added package into a ConfigError naming the package.

    A HarnessError, and an exception from any other code, is raised unchanged.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if whose := _whose(Path(frame.filename)):
                raise ConfigError(
                    f"The package {whose} failed: {type(error).__name__}: {error}",
                    cause=f"{frame.filename}, line {frame.lineno}: {frame.line}",
                    remedy="mend it, or tell its author; what was finished is kept: harness ls",
                ) from error
        raise


def _whose(file: Path) -> str:
    """Return the package that a file belongs to, if it adds to one of our registries, or ""."""
    points = (p for group in entry_points().groups for p in entry_points(group=group))
    for point in points:
        if point.group.startswith(GROUPS) and any(map(file.is_relative_to, places(point.module))):
            return package(point)
    return ""


def places(module: str) -> list[Path]:
    """Return the folders of the top-level package of a module, or its only file."""
    spec = find_spec(module.partition(".")[0])
    found = (spec.submodule_search_locations or [spec.origin or ""]) if spec else ()
    return sorted(Path(place) for place in found if place)


def name_fault(name: str, added: object) -> str:
    """Return what is wrong if an addition's ``name`` is not that of its entry point, or ""."""
    called = getattr(added, "name", None)
    return "" if called == name else f"it calls itself {called!r}; wanted: {name!r}"


def type_fault(wanted: type, added: object) -> str:
    """Return what is wrong if an addition is not an instance of ``wanted``, or ""."""
    if isinstance(added, wanted):
        return ""
    return f"it is a {type(added).__name__}; wanted: a {wanted.__module__}.{wanted.__name__}"


@cache
def installed(group: str) -> tuple[EntryPoint, ...]:
    """Return a group's entry points, sorted by name: the same order in every process."""
    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name, package(point))))


def package(point: EntryPoint) -> str:
    """Return the package that provides an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package"
