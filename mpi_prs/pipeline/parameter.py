"""PipelineParameter: a value of a pipeline that each submission may set anew."""

from __future__ import annotations

from typing import Any


class PipelineParameter:
    """A value with a name and a default, that ``pipeline_parameters={name: value}`` replaces at submission.

    Attributes:
        name: the key in ``pipeline_parameters``.
        default_value: text, a number, a truth value, a dataset or a ``DataPath``; it says what kind of value is taken.
    """

    def __init__(self, name: str, default_value: Any) -> None:
        self.name = name
        self.default_value = default_value
