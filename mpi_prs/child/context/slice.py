"""The SDK in two halves: a small one that entry scripts have in every Python, and the whole of it in our own.

::

    azureml.core.Model, in a user process ─► mpi_prs.child.context.model.Model     reads the workspace's JSON
        .get_model_path(…)                        what scripts need of it is here
        .register(…)                              the rest ─► mpi_prs.azureml.models.model.Model, imported when it is
                                                  asked for; where this Python cannot have it, an error says what to do
    azureml.core.Model, elsewhere         ─► mpi_prs.azureml.models.model.Model

A class of the small half is a *slice* of the public class of the same name. An object of a slice that is asked for
something that it has not becomes one of the whole class, in place: so nobody sees two objects of one thing, and
``isinstance`` holds in both directions.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from typing import Any

from mpi_prs.child.shims import names
from mpi_prs.core.azure_names import Surface, SurfaceType
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.own_python import OLDEST, PACKAGES

_HERE = "mpi_prs.child.context."
_WHOLE = "mpi_prs.azureml."

_whole_classes: dict[str, type] = {}  # public name → the class of the whole SDK that extends a slice, once it is there


class NeedsOwnPython(WorkspaceError, AttributeError):
    """Something that only mpi_prs's own Python has. To ``hasattr`` it is not there."""


def whole(name: str, what: str) -> Any:
    """The public class of a name, of the whole SDK.

    Args:
        what: what is asked for, for the message.

    Raises:
        NeedsOwnPython: this Python is too old, or lacks a package of ours: what entry scripts can do instead.
    """
    if sys.version_info[:2] < OLDEST:
        raise NeedsOwnPython(_message(what, f"Python {_dotted(OLDEST)} or later"))
    missing = _missing_package()
    if missing:
        raise NeedsOwnPython(_message(what, f"the package {missing}"))
    module, _, attribute = names.PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


@functools.lru_cache(maxsize=1)
def _missing_package() -> str:
    return next((each for each in PACKAGES if importlib.util.find_spec(each) is None), "")


def at_hand(kind: Any) -> Any:
    """The class to make an object of: the whole one if somebody has imported it, else the slice itself."""
    return _whole_classes.get(kind.__name__, kind)


def or_stand_in(target: str) -> Any:
    """What a target is; where this Python cannot have it, a class that says so whatever is done with it."""
    name = target.rpartition(":")[2]
    try:
        return whole(name, name)
    except NeedsOwnPython:
        return SliceType(name, (Slice,), {"__module__": f"{_HERE}slice", "__new__": _refuse})


def _refuse(kind: type, *_: object, **__: object) -> Any:
    return whole(kind.__name__, kind.__name__)


class SliceType(SurfaceType):
    """The type of slices, and of what extends them."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_") or not _is_slice(cls) or cls._instead(name):
            return super().__getattr__(name)  # type: ignore[misc]  # it is hidden from the type checker
        return getattr(whole(cls.__name__, f"{cls.__name__}.{name}"), name)

    def __instancecheck__(cls, instance: Any) -> bool:
        if super().__instancecheck__(instance):
            return True
        public = names.PUBLIC.get(cls.__name__) if _is_slice(cls) else None
        return public in {f"{kind.__module__}:{kind.__qualname__}" for kind in type(instance).__mro__}


class Slice(Surface, metaclass=SliceType):
    """What of a public class entry scripts have in every Python."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(_WHOLE) and not cls.__name__.startswith("_"):
            _whole_classes[cls.__name__] = cls

    def __getattr__(self, name: str) -> Any:
        kind = type(self)
        if name.startswith("__") or not _is_slice(kind) or kind._instead(name):
            return super().__getattr__(name)  # type: ignore[misc]  # it is hidden from the type checker
        self._become_whole(f"{kind.__name__}.{name}")
        return getattr(self, name)

    def _become_whole(self, what: str) -> None:
        """Become an object of the whole class, which extends this one. Raises NeedsOwnPython."""
        self.__class__ = whole(type(self).__name__, what)

    def _become(self, other: Any) -> None:
        """Become what another object is, of a whole class that does not."""
        vars(self).clear()
        vars(self).update(vars(other))
        self.__class__ = type(other)

    def _becomes(self, kind: type) -> bool:
        """Whether it is one of a class of the whole SDK, and thereby one."""
        mine = type(self)
        if not _is_slice(mine) or not kind.__module__.startswith(_WHOLE):
            return False
        if not issubclass(whole(mine.__name__, mine.__name__), kind):
            return False
        self._become_whole(mine.__name__)
        return True


def _is_slice(kind: type) -> bool:
    return kind.__module__.startswith(_HERE)


def _message(what: str, needed: str) -> str:
    return (
        f"{what} needs {needed}, as where mpi_prs is installed, but this is Python {_dotted(sys.version_info[:3])} "
        f"({sys.executable}). Do it there, before the pipeline is submitted; an entry script gets its data in every "
        "Python by run(mini_batch), and as side inputs, see Run.input_datasets"
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
