"""The files of a run, as users put them there and get them. Standard library only at the top, Python 3.7."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Mapping, Sequence  # noqa: UP035  # Python 3.7

from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.run_files import all_files, checked_name, copy_files, put_file, put_folder
from mpi_prs.child.context.run_record import RunFolder
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError

if TYPE_CHECKING:
    from mpi_prs.azureml.experiment import Experiment
    from mpi_prs.azureml.models.model import Model


class RunArtifacts(Surface):
    """Of every run: its files."""

    experiment: Experiment
    id: str
    _folder: RunFolder

    def get_details(self) -> dict[str, Any]:
        """See ``Run``."""
        raise NotImplementedError

    def upload_file(
        self, name: str, path_or_stream: str | os.PathLike[str] | IO[Any], datastore_name: object = None
    ) -> Path:
        """Keep a file with the run, in place of one of the same name; returns where it is.

        Args:
            name: relative path, such as ``outputs/model.pkl``.
            path_or_stream: the file, or something to read.
            datastore_name: means nothing here.

        Raises:
            WorkspaceError: the file cannot be read, or the name leads elsewhere.
        """
        del datastore_name
        return put_file(self._folder.artifacts, name, path_or_stream)

    def upload_files(self, names: Sequence[str], paths: Sequence[str], *_: object, **__: object) -> list[Path]:
        """Keep files with the run; see :meth:`upload_file`. Raises WorkspaceError: not as many names as paths."""
        if len(names) != len(paths):
            raise WorkspaceError(
                f"upload_files: got {len(names)} names and {len(paths)} paths; give a name for each path"
            )
        return [self.upload_file(name, path) for name, path in zip(names, paths)]  # noqa: B905

    def upload_folder(self, name: str, path: str | os.PathLike[str], datastore_name: object = None) -> Path:
        """Keep all files of a folder with the run, below ``name``; returns where they are. Raises WorkspaceError."""
        del datastore_name
        return put_folder(self._folder.artifacts, name, given_path("path", path))

    def _logs(self) -> dict[str, Path]:
        """Name → file, of what was logged by the program."""
        return all_files(self._folder.logs, "logs")

    def _files(self) -> dict[str, Path]:
        return {**self._logs(), **all_files(self._folder.artifacts, "")}

    def get_file_names(self) -> list[str]:
        """The names of its logs, and of the files that were uploaded."""
        return sorted(self._files())

    def download_file(self, name: str, output_file_path: str | None = None, **azure: object) -> None:
        """Copy one of its files here.

        Args:
            name: as of :meth:`get_file_names`.
            output_file_path: a file, or an existing folder; default: a file of the same name in the working directory.
            azure: ignored.

        Raises:
            WorkspaceError: there is no such file (names near ones), or it cannot be written.
        """
        del azure
        name = checked_name(name)
        target = given_path("output_file_path", output_file_path) if output_file_path else Path(os.path.basename(name))
        copy_files(self._files(), {name: target / os.path.basename(name) if target.is_dir() else target}, self.id)

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | None = None,
        output_paths: Sequence[str] | None = None,
        batch_size: object = 100,
        append_prefix: bool = True,
        timeout_seconds: object = None,
    ) -> None:
        """Copy its files here.

        Args:
            prefix: those whose names begin with it; default: all.
            output_directory: the folder; default: the working directory.
            output_paths: a path for each, in the order of the names.
            append_prefix: whether their paths here begin with the prefix, too.
            batch_size, timeout_seconds: mean nothing here.

        Raises:
            WorkspaceError: not as many paths as files, or something cannot be written.
        """
        del batch_size, timeout_seconds
        files = self._files()
        names = sorted(name for name in files if name.startswith(prefix or ""))
        if output_paths is not None and len(output_paths) != len(names):
            raise WorkspaceError(
                f"download_files: got {len(output_paths)} output_paths for {len(names)} files: {names}"
            )
        paths = output_paths or [name if append_prefix else name[len(prefix or "") :].lstrip("/") for name in names]
        base = given_path("output_directory", output_directory) if output_directory else Path()
        copy_files(files, {name: base / path for name, path in zip(names, paths)}, self.id)  # noqa: B905

    def get_all_logs(self, destination: str | None = None) -> list[str]:
        """Copy all logs to a folder (default: the working directory); returns their paths there."""
        logs = self._logs()
        base = given_path("destination", destination) if destination else Path()
        copy_files(logs, {name: base / name for name in logs}, self.id)
        return [str(base / name) for name in sorted(logs)]

    def get_details_with_logs(self) -> dict[str, Any]:
        """:meth:`get_details`, with the content of each log instead of its path."""
        details = self.get_details()
        details["logFiles"] = {name: path.read_text("utf-8", "replace") for name, path in self._logs().items()}
        return details

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        **azure: object,
    ) -> Model:
        """Register a file or folder of the run as a model.

        Args:
            model_name: name of the model.
            model_path: as it was uploaded; default: the name of the model.
            tags, properties, description: of the model.
            azure: what Azure's service would deploy it by; ignored.

        Raises:
            WorkspaceError: there is no such file.
        """
        del azure
        from mpi_prs.azureml.models.model import Model

        path = self._folder.artifacts / (model_path or model_name)
        if not path.exists():
            raise WorkspaceError(f"the run {self.id} has no file {model_path or model_name!r}; upload_file() it first")
        return Model.register(
            self.experiment.workspace, str(path), model_name, tags=tags, properties=properties, description=description
        )
