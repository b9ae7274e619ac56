"""``Model``: files that entry scripts load, kept in the workspace under a name and a version.

::

    Model.register ─► models/NAME/VERSION/content/ENTRY   see registration.py
    Model.get_model_path ─► the path of ENTRY: on a node that sees the workspace, nothing is copied or downloaded
"""

# ruff: noqa: ARG002, ARG003  # parameters of Azure's that mean nothing here

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mpi_prs.azureml.models.registration import add_model, source_of
from mpi_prs.azureml.store.import_files import copy_into
from mpi_prs.child.context import model as context
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.tags import text_pairs
from mpi_prs.child.context.workspace_paths import AnyWorkspace, WorkspaceFolder, layout_of
from mpi_prs.core.errors import ModelNotFoundException, WorkspaceError
from mpi_prs.core.records import check_name, delete_version, latest_version, names_of, update_json

_MOST = 500
_MOST_BYTES = 32 << 10  # Linux takes 128 KiB for one environment variable


class Model(context.Model):
    """One version of a registered model.

    Attributes:
        workspace: where it is registered.
        name: its name.
        version: 1, 2, …
    """

    class Framework:
        """Azure's names for what made a model; they are only kept."""

        CUSTOM = context.CUSTOM
        KERAS = "Keras"
        ONNX = "Onnx"
        PYTORCH = "PyTorch"
        SCIKITLEARN = "ScikitLearn"
        TENSORFLOW = "TensorFlow"
        TFKERAS = "TfKeras"

    @classmethod
    def register(
        cls,
        workspace: AnyWorkspace,
        model_path: str | os.PathLike[str],
        model_name: str,
        tags: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        description: str | None = None,
        datasets: object = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        child_paths: Sequence[str] | None = None,
        sample_input_dataset: object = None,
        sample_output_dataset: object = None,
        resource_configuration: object = None,
        *,
        run_id: str | None = None,
        experiment_name: str | None = None,
    ) -> Model:
        """Copy a file or folder into the workspace, as the next version of a model.

        Args:
            model_path: the file or folder; links in it are followed.
            model_name: letters, digits, ``-``, ``_`` and ``.``, for example.
            tags: can be changed later.
            properties: can be added to later.
            description: for people.
            model_framework, model_framework_version: only kept; see :class:`Model.Framework`.
            child_paths: only these files and folders of the folder ``model_path``, relative to it.
            datasets, sample_input_dataset, sample_output_dataset, resource_configuration: for serving, and ignored.
            run_id, experiment_name: of the run that has made it. Not among Azure's parameters.

        Raises:
            WorkspaceError: there is nothing there, or it cannot be copied; then nothing is registered.
        """
        layout = layout_of(workspace)
        check_name(model_name, "a model")
        source = source_of(model_path)
        record: dict[str, Any] = {
            "entry": source.name,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "tags": text_pairs("tags", tags),
            "properties": text_pairs("properties", properties),
            "description": description or "",
            "framework": model_framework or cls.Framework.CUSTOM,
            "framework_version": model_framework_version or "",
            "run_id": run_id or "",
            "experiment_name": experiment_name or "",
        }
        version = add_model(layout, model_name, source, child_paths, record)
        found = cls.__new__(cls)
        found._take(workspace, model_name, version, record)
        return found

    # What can be done with it

    def download(
        self, target_dir: str | os.PathLike[str] = ".", exist_ok: bool = False, exists_ok: object = None
    ) -> str:
        """Copy it into a folder, which is made if need be.

        Args:
            exist_ok: replace what is there of the same name; else that is an error.
            exists_ok: Azure's old name for it.

        Returns:
            the path of the copy.

        Raises:
            WorkspaceError: there is something of that name, or it cannot be copied.
        """
        if not self.path.exists():
            raise self._gone()
        target = given_path("target_dir", target_dir) / self.path.name
        if os.path.lexists(target) and not (exist_ok or exists_ok):
            raise WorkspaceError(f"there is {target} already; give exist_ok=True to replace it, or another target_dir")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot make {target.parent}: {error.strerror}") from error
        copy_into(self.path, target)
        return str(target)

    def delete(self) -> None:
        """Remove this version, files and all; its number is not used again.

        Raises:
            ModelNotFoundException: it is gone already.
            WorkspaceError: it cannot be removed.
        """
        if not delete_version(self._layout.model(self.name), self.version):
            raise self._gone()

    def update(
        self,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
        sample_input_dataset: object = None,
        sample_output_dataset: object = None,
        resource_configuration: object = None,
    ) -> None:
        """Replace all tags, or the description; what is not given stays, and the rest is ignored.

        Raises:
            ModelNotFoundException: it is gone.
            WorkspaceError: it cannot be written.
        """
        changes: dict[str, Any] = {}
        if tags is not None:
            changes["tags"] = text_pairs("tags", tags)
        if description is not None:
            changes["description"] = description
        self._change(lambda record: {**record, **changes})

    def add_tags(self, tags: Mapping[str, Any]) -> None:
        """Add tags, or change their values. Raises ModelNotFoundException, WorkspaceError."""
        self.update_tags_properties(add_tags=tags)

    def remove_tags(self, tags: Sequence[str]) -> None:
        """Remove tags by their keys. Raises ModelNotFoundException, WorkspaceError."""
        self.update_tags_properties(remove_tags=tags)

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Add properties. Raises ModelNotFoundException; WorkspaceError: one has another value already."""
        self.update_tags_properties(add_properties=properties)

    def update_tags_properties(
        self,
        add_tags: Mapping[str, Any] | None = None,
        remove_tags: Sequence[str] | None = None,
        add_properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Change tags, and add properties, which never change.

        Raises:
            ModelNotFoundException: it is gone.
            WorkspaceError: a property has another value already, or it cannot be written.
        """
        more, new = text_pairs("tags", add_tags), text_pairs("properties", add_properties)
        gone = set(remove_tags or ())

        def change(record: dict[str, Any]) -> dict[str, Any]:
            before = record.get("properties", {})
            for key in new.keys() & before.keys():
                if new[key] != before[key]:
                    raise WorkspaceError(
                        f"the property {key!r} of the model {self.id} is {before[key]!r} and stays so; use a tag for "
                        "what changes"
                    )
            tags = {key: value for key, value in record.get("tags", {}).items() if key not in gone}
            return {**record, "tags": {**tags, **more}, "properties": {**before, **new}}

        self._change(change)

    def _change(self, change: Any) -> None:
        path = self._layout.model_description(self.name, self.version)
        try:
            self._record = update_json(path, f"the model {self.id}", change)
        except FileNotFoundError:
            raise self._gone() from None

    def _gone(self) -> ModelNotFoundException:
        return context.no_model(self._layout, self.name, self.version)


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
        record = context.read_record(layout, name, version) if version else None
        if record is None:
            continue
        where = f"{version}/content/{record['entry']}"
        length += len(json.dumps({name: where}))
        if length > _MOST_BYTES:
            break
        found[name] = where
    return dict(sorted(found.items()))


def models_of(workspace: AnyWorkspace) -> Mapping[str, Model]:
    """All models of a workspace by name, each in its latest version."""
    return context.models_of(workspace)
