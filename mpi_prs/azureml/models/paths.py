"""Where a model is: for ten thousand processes that ask at once.

What a job's environment says of a model (``MPI_PRS_MODELS``) leads to its file or folder without any listing; only
what is not there is looked up. Standard library only: user processes import this module.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_prs.child.context.script_context import ScriptContext, script_context
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import ModelNotFoundException, WorkspaceError
from mpi_prs.core.records import check_name, latest_version, names_of, names_with_versions, read_json, versions
from mpi_prs.core.words import near

LOCAL = "azureml-models"
"""A folder in the working directory that may hold models as ``NAME/VERSION/…``, as Azure's SDK leaves them."""

_MOST = 500
_MOST_BYTES = 32 << 10  # Linux takes 128 KiB for one environment variable


def version_number(version: object) -> int:
    """A version as users give it, a number or its text. Raises WorkspaceError."""
    number = int(version) if isinstance(version, str) and version.isdecimal() else version
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise WorkspaceError(f"the version of a model is a whole number, at least 1, but got {version!r}")
    return number


def models_for_job(layout: WorkspaceFolder) -> dict[str, int | str]:
    """What :class:`ScriptContext` tells a job of the workspace's models: the latest version of each, and its path.

    Of very many, only those registered last; the others are looked up by whoever wants them.
    """
    try:
        changed = {name: os.stat(layout.model(name)).st_mtime for name in names_of(layout.models)}
    except (OSError, WorkspaceError):  # there are none
        return {}
    found: dict[str, int | str] = {}
    length = 2
    for name in sorted(changed, key=lambda name: (-changed[name], name))[:_MOST]:
        version = latest_version(layout.model(name))
        record = read_record(layout, name, version) if version else None
        if record is None:
            continue
        where = f"{version}/content/{record['entry']}"
        length += len(json.dumps({name: where}))
        if length > _MOST_BYTES:
            break
        found[name] = where
    return dict(sorted(found.items()))


def find(name: str, version: int | None) -> Path:
    """The path of a model's file or folder, from the environment of the process or the folder that it is in.

    Raises:
        ModelNotFoundException: there is none; names the near ones.
        WorkspaceError: the workspace cannot be found or read.
    """
    context = script_context()
    if context is not None:
        layout = WorkspaceFolder(Path(context.workspace))
        found = _pinned(layout, name, version, context)
        if found is not None:
            return found
        try:
            return registered(layout, name, version)
        except ModelNotFoundException:
            local = _local(name, version)
            if local is None:
                raise
            return local
    local = _local(name, version)
    if local is not None:
        return local
    from mpi_prs.azureml.workspace import Workspace

    try:
        workspace = Workspace.from_config()
    except WorkspaceError as error:
        raise ModelNotFoundException(
            f"the model {name!r} is not in {Path(LOCAL).absolute()}, and there is no workspace to look in: {error}"
        ) from None
    return registered(workspace.layout, name, version)


def registered(layout: WorkspaceFolder, name: str, version: int | None) -> Path:
    """The path of a registered model's file or folder.

    Raises:
        ModelNotFoundException: there is none; names the near ones.
        WorkspaceError: it cannot be read.
    """
    number = latest_version(layout.model(name)) if version is None else version
    record = None if number is None else read_record(layout, name, number)
    if record is None or number is None:
        raise no_model(layout, name, version)
    return layout.model_content(name, number) / str(record["entry"])


def read_record(layout: WorkspaceFolder, name: str, version: int) -> dict[str, Any] | None:
    """What is known of a version; ``None``: there is none. Raises WorkspaceError when it is broken."""
    path = layout.model_description(name, version)
    try:
        record = read_json(path, f"the model '{name}:{version}'")
    except FileNotFoundError:
        return None
    entry = record.get("entry")
    if not isinstance(entry, str) or entry in ("", ".", "..") or "/" in entry:
        raise WorkspaceError(f"{path}: entry: expected the name of what is in content/, got {entry!r}. Mend this file")
    return record


def no_model(layout: WorkspaceFolder, name: str, version: object) -> ModelNotFoundException:
    """The error for a model or a version that there is not; names the near ones."""
    known = versions(layout.model(name))
    if known and version is not None:
        shown = ", ".join(map(str, known[-8:]))
        return ModelNotFoundException(
            f"there is no version {version} of the model {name!r} in the workspace {layout.root}; there is {shown}"
        )
    others = names_with_versions(layout.models)
    return ModelNotFoundException(f"there is no model {name!r} in the workspace {layout.root}{near(name, others)}")


def _pinned(layout: WorkspaceFolder, name: str, version: int | None, context: ScriptContext) -> Path | None:
    """What the environment says, if it is there."""
    said = _said(context.models, name)
    if said is None or version not in (None, said[0]):
        return None
    number, entry = said
    if entry is None:
        record = read_record(layout, name, number)
        return None if record is None else layout.model_content(name, number) / str(record["entry"])
    path = layout.model_content(name, number) / entry
    return path if path.exists() else None


def _said(models: Mapping[str, int | str], name: str) -> tuple[int, str | None] | None:
    """Version and entry of a model, as ``3`` or ``3/content/mnist`` says them."""
    value = models.get(name)
    if value is None:
        return None
    if isinstance(value, int):
        return value, None
    version, content, entry = [*value.split("/", 2), "", ""][:3]
    if not version.isdecimal() or (content and (content != "content" or not entry or "/" in entry)):
        raise WorkspaceError(f"the environment says {value!r} of the model {name!r}, and should say a version")
    return int(version), entry or None


def _local(name: str, version: int | None) -> Path | None:
    """A model in the folder that Azure's SDK downloads to; what is alone in its version's folder stands for it."""
    folder = Path(LOCAL).absolute() / check_name(name, "a model")
    number = latest_version(folder) if version is None else version
    if number is None or not (folder / str(number)).is_dir():
        return None
    entries = os.listdir(folder / str(number))
    return folder / str(number) / entries[0] if len(entries) == 1 else folder / str(number)
