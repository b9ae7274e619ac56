"""Settings in sections, as Azure's classes have them: ``environment.docker.enabled = True``.

A field that does not exist cannot be set, so that a slip of the pen (``docker.base_imgae``) is not silent; a value of
the wrong kind is refused where it is set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

from mpi_prs.core import values
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import EnvironmentProblem

T = TypeVar("T")


class Field(Generic[T]):
    """One field of a section.

    Args:
        make: makes the value that it has until another is set.
        check: gets the field's name, such as ``DockerSection.enabled``, and a value; returns what is kept.
    """

    def __init__(self, make: Callable[[], T], check: Callable[[str, Any], T]) -> None:
        self._make = make
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._label = f"{owner.__name__}.{name}"

    @property
    def key(self) -> str:
        """Its name in JSON, as Azure writes it: ``base_image`` is ``baseImage``."""
        return re.sub(r"_([a-z])", lambda found: found[1].upper(), self._name)

    @overload
    def __get__(self, section: None, owner: type) -> Field[T]: ...

    @overload
    def __get__(self, section: Section, owner: type) -> T: ...

    def __get__(self, section: Section | None, owner: type) -> T | Field[T]:
        if section is None:
            return self
        found: T = section.__dict__.setdefault(self._name, self._make())
        return found

    def __set__(self, section: Section, value: Any) -> None:
        section.__dict__[self._name] = self._check(self._label, value)

    def current(self, section: Section) -> T:
        """The value, checked again: lists and dicts may have been changed since they were set."""
        return self._check(self._label, self.__get__(section, type(section)))


class Section(Surface):
    """A group of fields."""

    def __init__(self, **given: Any) -> None:
        for name, value in given.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            getattr(type(self), name)  # AttributeError with what to use: there is no such field
        object.__setattr__(self, name, value)

    @classmethod
    def fields(cls) -> dict[str, Field[Any]]:
        """Name → field, in the order of their definition."""
        return {
            name: field
            for kind in reversed(cls.__mro__)
            for name, field in vars(kind).items()
            if isinstance(field, Field)
        }

    def definition(self) -> dict[str, Any]:
        """As JSON, with Azure's names.

        Raises:
            EnvironmentProblem: a list or a dict now holds what does not belong there.
        """
        return {field.key: field.current(self) for field in type(self).fields().values()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in type(self).fields())})"


def wrong(label: str, expected: str, value: object) -> EnvironmentProblem:
    """The error for a value of the wrong kind; it does not show the value, which may be secret."""
    return EnvironmentProblem(key=label, got=values.kind(value), expected=f"expected {expected}")


def checked(check: Callable[[Any], T]) -> Callable[[str, Any], T]:
    """A check of ``core.values`` for a field: None is refused. Raises EnvironmentProblem."""

    def check_field(label: str, value: Any) -> T:
        try:
            return check(value)
        except values.WrongValue as error:
            raise EnvironmentProblem(**error.fields(label, secret=True)) from None

    return check_field


truth = checked(values.truth)
text = checked(values.name)


def optional_text(label: str, value: Any) -> str | None:
    """A text or None; an empty text is None. Raises EnvironmentProblem."""
    return None if value is None or value == "" else text(label, value)


def texts(label: str, value: Any) -> list[str]:
    """A list of texts; None is an empty one. Raises EnvironmentProblem; a single text is a slip, too."""
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise wrong(label, 'a list of texts, such as ["numpy"]', value)
    return [text(f"{label}[{index}]", each) for index, each in enumerate(value)]


def variables(label: str, value: Any) -> dict[str, str]:
    """Environment variables; None is none. Raises EnvironmentProblem."""
    return {} if value is None else checked(values.variables)(label, value)
