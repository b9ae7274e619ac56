"""What the SDK's classes have in common: they say what they don't have, and behave like Azure's dicts.

Standard library only: user processes import this module.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.words import did_you_mean, near

T = TypeVar("T")


class SurfaceType(type):
    """The type of the SDK's classes: ``Model.deploy`` says what mpi_prs does not have."""

    def _instead(cls, name: str) -> str:
        """What to use instead of something that Azure's class has and ours does not; empty: nothing is known."""
        tables: list[Mapping[str, str]] = [vars(kind).get("_INSTEAD", {}) for kind in cls.__mro__]
        return next((table[name] for table in tables if name in table), "")

    def _missing(cls, name: str) -> AttributeError:
        """The error for an attribute that there is not: what to use instead, or what is near."""
        advice = cls._instead(name)
        if not advice:
            public = [known for known in dir(cls) if not known.startswith("_")]
            advice = did_you_mean(name, public, "see docs/azureml.md for what there is", most=2)
        return AttributeError(f"mpi_prs's {cls.__name__} has no {name!r}; {advice}")

    def __instancecheck__(cls, instance: Any) -> bool:
        """Also for an object of a slice, see :mod:`mpi_prs.child.context.slice`."""
        return type.__instancecheck__(cls, instance) or getattr(type(instance), "_becomes", _never)(instance, cls)

    if not TYPE_CHECKING:  # the type checker knows what there is

        def __getattr__(cls, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            raise cls._missing(name)


def _never(_instance: object, _kind: type) -> bool:
    return False


class Surface(metaclass=SurfaceType):
    """A class of the SDK. An unknown public attribute fails with a message that says what to use.

    Attributes:
        _INSTEAD: names that Azure's class has and ours does not → a sentence that says what to use.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # protocols of Python and Jupyter that ask whether there is one
                raise AttributeError(name)
            raise type(self)._missing(name)


class NotRegistered(WorkspaceError, KeyError):
    """A name that is not in the workspace; also a KeyError, as Azure's dicts raise."""


class Registered(typing.Mapping[str, T]):  # that of collections.abc takes no [ ] in Python 3.8
    """What is registered under names, read when it is asked for, never earlier and never from memory.

    An unknown name raises :class:`NotRegistered`, which names the near ones.
    """

    def __init__(
        self,
        what: str,
        names: Callable[[], list[str]],
        find: Callable[[str], T | None],
        error: type[NotRegistered] = NotRegistered,
    ) -> None:
        """
        Args:
            what: such as ``datastore``, for messages.
            names: all names, sorted.
            find: what has this name; ``None``: nothing.
            error: what an unknown name raises.
        """
        self._error = error
        self._what = what
        self._names = names
        self._find = find

    def __getitem__(self, name: str) -> T:
        found = self._find(name) if isinstance(name, str) else None
        if found is None:
            raise self._error(f"there is no {self._what} {name!r}{near(str(name), self._names())}")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return repr(dict(self))
