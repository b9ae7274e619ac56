"""Every path of a workspace, in one class.

A workspace is a folder on a filesystem that all nodes see. What is registered in it are plain JSON files, each replaced
as a whole or claimed by a name that must not exist yet; a name with a leading dot is nobody's but its writer's, or an
empty mark (see ``records.py``). Standard library only: user processes import this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpi_prs.child.context.slice import Slice
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import check_name

BLOB_STORE = "workspaceblobstore"
FILE_STORE = "workspacefilestore"


@dataclass(frozen=True)
class WorkspaceFolder:
    """The paths of one workspace.

    A method that takes the name of something that users name raises WorkspaceError for one that is no file name.

    Attributes:
        root: the workspace's folder, absolute.
    """

    root: Path

    @property
    def description(self) -> Path:
        """JSON: the workspace's name, id, subscription, group, location, default datastore and settings."""
        return self.root / "workspace.json"

    @property
    def is_workspace(self) -> bool:
        """Whether there is a workspace here."""
        return self.description.is_file()

    # Compute

    @property
    def computes(self) -> Path:
        return self.root / "compute"

    def compute(self, name: str) -> Path:
        """JSON: a compute target."""
        return self.computes / f"{check_name(name, 'a compute target')}.json"

    # Datastores

    @property
    def datastores(self) -> Path:
        return self.root / "datastores"

    def datastore(self, name: str) -> Path:
        """JSON: a datastore, without its secrets."""
        return self.datastores / f"{check_name(name, 'a datastore')}.json"

    @property
    def secrets(self) -> Path:
        """The folder of all secrets, for its owner alone (mode 0700); whoever makes it sees to that."""
        return self.root / "secrets"

    def secret(self, datastore: str, kind: str) -> Path:
        """Text, one line, mode 0600: a datastore's secret; ``kind`` is ``account_key`` or ``sas_token``."""
        return self.secrets / f"{check_name(datastore, 'a datastore')}.{kind}"

    @property
    def blob_store(self) -> Path:
        """The folder of the default datastore."""
        return self.root / BLOB_STORE

    @property
    def file_store(self) -> Path:
        """The folder of the other datastore that every workspace has."""
        return self.root / FILE_STORE

    # Datasets, models, environments: versions 1, 2, …

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    def dataset(self, name: str) -> Path:
        """The folder of a dataset's versions."""
        return self.datasets / check_name(name, "a dataset")

    def dataset_version(self, name: str, version: int) -> Path:
        """JSON: the definition of one version."""
        return self.dataset(name) / f"{version}.json"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def model(self, name: str) -> Path:
        """The folder of a model's versions."""
        return self.models / check_name(name, "a model")

    def model_version(self, name: str, version: int) -> Path:
        """The folder of one version."""
        return self.model(name) / str(version)

    def model_description(self, name: str, version: int) -> Path:
        """JSON: what is known of one version, and the name of its file or folder."""
        return self.model_version(name, version) / "model.json"

    def model_content(self, name: str, version: int) -> Path:
        """The folder that holds one entry: the file or folder that was registered."""
        return self.model_version(name, version) / "content"

    @property
    def incoming(self) -> Path:
        """Where models are copied to before they get their version; nobody reads here."""
        return self.models / ".incoming"

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    def environment(self, name: str) -> Path:
        """The folder of an environment's versions."""
        return self.environments / check_name(name, "an environment")

    def environment_version(self, name: str, version: int) -> Path:
        """JSON: the definition of one version."""
        return self.environment(name) / f"{version}.json"

    @property
    def built(self) -> Path:
        """Virtual environments and the like, by the digest of what they are made of."""
        return self.environments / ".built"

    # Runs

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    def snapshot(self, digest: str) -> Path:
        """A copy of a source directory, named by its content."""
        return self.snapshots / digest

    @property
    def experiments(self) -> Path:
        return self.root / "experiments"

    def experiment(self, name: str) -> Path:
        """The folder of an experiment's runs: those of pipelines and of their steps, side by side."""
        return self.experiments / check_name(name, "an experiment")

    def run(self, experiment: str, run_id: str) -> Path:
        """Everything of one run."""
        return self.experiment(experiment) / check_name(run_id, "a run")

    def run_description(self, experiment: str, run_id: str) -> Path:
        """JSON: what a run is; where it stands is derived from other files."""
        return self.run(experiment, run_id) / "run.json"

    @property
    def reuse(self) -> Path:
        return self.root / "reuse"

    def reusable(self, digest: str) -> Path:
        """JSON: the step run that has done what this digest stands for."""
        return self.reuse / f"{digest}.json"


class AnyWorkspace(Slice):
    """A workspace, as what is in it knows it.

    Attributes:
        layout: every path in it.
    """

    layout: WorkspaceFolder

    @property
    def folder(self) -> Path:
        """The workspace's folder, absolute. Not one of Azure's names."""
        return self.layout.root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyWorkspace) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)


def layout_of(workspace: object) -> WorkspaceFolder:
    """The paths of a Workspace. Raises WorkspaceError for something else, which users pass by mistake."""
    layout = getattr(workspace, "layout", None)
    if not isinstance(layout, WorkspaceFolder):
        raise WorkspaceError(f"expected a Workspace, such as Workspace.from_config(), but got {workspace!r}")
    return layout
