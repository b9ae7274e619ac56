"""How a step takes a dataset: under a name, where it is or brought to the node."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError

MODES = ("direct", "mount", "download")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class DatasetConsumptionConfig(Surface):
    """A dataset as an input of a step, under a name.

    Attributes:
        name: by which the script knows it; letters, digits and underscores.
        dataset: a dataset, a PipelineParameter that stands for one, or the output of an earlier step.
        mode: ``mount``: files where they are, or fetched when ``run()`` wants them; ``download``: files brought to the
            node first; ``direct``: rows, and of files the same as ``mount``, as on Azure.
        path_on_compute: kept, and means nothing here: ``run()`` is told the paths.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {"as_hdfs": "use as_mount()"}

    name: str
    dataset: Any
    mode: str = "direct"
    path_on_compute: str | None = None

    def __post_init__(self) -> None:
        """Raises WorkspaceError: the name is none, it is no dataset, or of a kind that has not this mode."""
        check_input_name(self.name)
        if self.mode not in MODES:
            raise WorkspaceError(f"the mode of the input {self.name!r} is one of {', '.join(MODES)}, got {self.mode!r}")
        self._check(self.dataset)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The same with files where they are, or fetched when ``run()`` wants them."""
        return dataclasses.replace(self, mode="mount", path_on_compute=path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The same with files brought to the node first."""
        return dataclasses.replace(self, mode="download", path_on_compute=path_on_compute)

    def as_direct(self) -> DatasetConsumptionConfig:
        """The same as it is without any of these."""
        return dataclasses.replace(self, mode="direct", path_on_compute=None)

    def to_input(self, dataset: Any = None) -> dict[str, Any]:
        """It as an entry of a job config's ``inputs``. Not one of Azure's names.

        Args:
            dataset: what a PipelineParameter stands for in this submission.

        Raises:
            WorkspaceError: it is no dataset yet, or of a kind that has not this mode; or see
                :meth:`~mpi_prs.azureml.datasets.dataset.AbstractDataset.to_input`.
        """
        dataset = self.dataset if dataset is None else dataset
        if not hasattr(dataset, "to_input"):
            raise WorkspaceError(f"the input {self.name!r} is no dataset yet, but {_described(dataset)}")
        self._check(dataset)
        section: dict[str, Any] = dataset.to_input()
        return {**section, "mode": self.mode} if self.mode == "download" else section

    def _check(self, dataset: Any) -> None:
        stands_for = dataset
        if hasattr(dataset, "default_value"):
            stands_for = dataset.default_value  # of a PipelineParameter
        are_rows = getattr(stands_for, "are_rows", None)
        if are_rows:
            if self.mode != "direct":
                raise WorkspaceError(
                    f"the input {self.name!r} is rows, which are always read where they are; leave as_{self.mode}() out"
                )
        elif are_rows is None:
            raise WorkspaceError(
                f"the input {self.name!r} is a dataset, such as Dataset.File.from_files(…), or a PipelineParameter "
                f"whose default value is one, but got {_described(dataset)}"
            )

    def __repr__(self) -> str:
        return f"DatasetConsumptionConfig(name={self.name!r}, dataset={self.dataset!r}, mode={self.mode!r})"


def check_input_name(name: Any, what: str = "input") -> str:
    """``name``, if an input or output can be called so. Raises WorkspaceError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise WorkspaceError(
            f"the name of an {what} is made of letters, digits and underscores, no digit first, but got {name!r}"
        )
    return name


def _described(value: Any) -> str:
    return f"{value!r} of type {type(value).__name__}"
