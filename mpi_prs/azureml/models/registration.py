"""From a file or folder to the next version of a model.

::

    model_path ─► models/.incoming/… (copied, on disk) ─► rename ─► models/NAME/VERSION/model.json
                                                                                        content/ENTRY
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpi_prs.azureml.store.import_files import copy_into, incoming_folder
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import add_version_folder, write_json
from mpi_prs.core.words import near


def source_of(model_path: str | os.PathLike[str]) -> Path:
    """The file or folder to be registered, absolute. Raises WorkspaceError: there is none."""
    if not isinstance(model_path, (str, os.PathLike)) or not os.fspath(model_path):
        raise WorkspaceError(f"model_path is the path of a file or folder, but got {model_path!r}")
    path = Path(os.path.abspath(model_path))
    if not path.exists():
        try:
            beside = os.listdir(path.parent)
        except OSError:
            beside = []
        raise WorkspaceError(f"model_path: there is no file and no folder {path}{near(path.name, beside)}")
    if not path.name:
        raise WorkspaceError("model_path: the root folder is no model")
    return path


def add_model(
    layout: WorkspaceFolder, name: str, source: Path, child_paths: Sequence[str] | None, record: dict[str, Any]
) -> int:
    """Copy it into the workspace, as the next version.

    Args:
        name: of the model.
        source: what :func:`source_of` found.
        child_paths: only these of a folder, relative to it; ``None``: all.
        record: what is known of the model; it gets the number of files, and their bytes in all.

    Returns:
        the version.

    Raises:
        WorkspaceError: something is not there, or cannot be copied; then nothing is registered.
    """
    with incoming_folder(layout.incoming) as folder:
        content = folder / "content"
        content.mkdir()
        if child_paths is None:
            parts = [copy_into(source, content / source.name, layout.root)]
        else:
            parts = [
                copy_into(source / child, _with_parents(content / source.name / child), layout.root)
                for child in _children(source, child_paths)
            ]
        record.update(files=sum(part.files for part in parts), size=sum(part.size for part in parts))
        write_json(folder / "model.json", record)
        return add_version_folder(layout.model(name), folder)


def _children(source: Path, child_paths: Sequence[str]) -> list[Path]:
    if isinstance(child_paths, str) or not child_paths:
        raise WorkspaceError(f"child_paths is a list of files in {source}, but got {child_paths!r}")
    if not source.is_dir():
        raise WorkspaceError(f"child_paths are files in the folder model_path, but {source} is a file")
    children = []
    for child in child_paths:
        relative = Path(os.path.relpath(source / child, source))
        if ".." in relative.parts or relative == Path("."):
            raise WorkspaceError(f"child_paths are files in {source}, but got {child!r}")
        if not (source / relative).exists():
            raise WorkspaceError(f"child_paths: there is no {source / relative}")
        children.append(relative)
    return children


def _with_parents(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
