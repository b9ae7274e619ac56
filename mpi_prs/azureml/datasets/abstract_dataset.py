"""What datasets of both kinds have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from mpi_prs.azureml.datasets import registry
from mpi_prs.azureml.datasets.sources import Source, one_store
from mpi_prs.child.context.data import dataset_id
from mpi_prs.child.context.workspace_paths import layout_of
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError

if TYPE_CHECKING:
    from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
    from mpi_prs.azureml.datasets.registry import Registration
    from mpi_prs.child.context.workspace import Workspace

D = TypeVar("D", bound="AbstractDataset")


@dataclass(frozen=True)
class AbstractDataset(Surface):
    """What both kinds of dataset have. They are values: every method that changes something returns another one.

    Attributes:
        sources: where the files are.
        partition_format: how partition keys are read from the paths; ``None``: there are none.
        keys: the partition keys, where the format does not name them (``hive``).
        first, stop: of all items in their order, from which and up to which one they count; ``None``: up to the last.
        registration: under which name and version it was registered; it is no part of what the dataset is.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "take_sample": "take(n) and skip(n) give the items in their order; draw a sample in the script",
        "random_split": "draw the rows or files in the script",
        "filter": "leave rows out in run(mini_batch), or write a filtered copy",
        "as_hdfs": "use as_mount()",
        "add_tags": "register another version with these tags: register(…, create_new_version=True)",
        "remove_tags": "register another version without them: register(…, create_new_version=True)",
        "update": "register another version: register(…, create_new_version=True)",
    }

    sources: tuple[Source, ...]
    partition_format: str | None = None
    keys: tuple[str, ...] = ()
    first: int = 0
    stop: int | None = None
    registration: Registration | None = field(default=None, compare=False)

    # Azure's class methods stand on Dataset, and on the kinds of dataset too

    @staticmethod
    def get_by_name(workspace: Workspace, name: str, version: int | str = "latest") -> Any:
        """The dataset that is registered under a name.

        Args:
            workspace: where.
            name: the name.
            version: its version; default: the latest one.

        Raises:
            WorkspaceError: there is none; names the near ones, or the versions that there are.
        """
        return registry.by_name(workspace, name, version)

    @staticmethod
    def get_by_id(workspace: Workspace, id: str) -> Any:
        """The dataset that was registered, or saved, with an id. Raises WorkspaceError: there is none."""
        return registry.by_id(workspace, id)

    @staticmethod
    def get_all(workspace: Workspace) -> Mapping[str, Any]:
        """Name → latest version of each registered dataset."""
        return registry.all_of(workspace)

    # What it is

    @property
    def name(self) -> str | None:
        """The name that it is registered under; ``None``: it is not."""
        return None if self.registration is None else self.registration.name

    @property
    def version(self) -> int | None:
        """The version that it is registered as; ``None``: it is not."""
        return None if self.registration is None else self.registration.version

    @property
    def description(self) -> str | None:
        return None if self.registration is None else self.registration.description

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.registration.tags) if self.registration is not None else {}

    @property
    def id(self) -> str:
        """Says what the dataset is: equal ones have the same, registered or not."""
        return dataset_id(self.definition())

    @property
    def partition_keys(self) -> list[str]:
        """The keys that can be read from the paths."""
        if self.partition_format in (None, "hive") or self.keys:
            return list(self.keys)
        from mpi_prs.inputs.partition_format import PartitionFormat

        return list(PartitionFormat.parse(self.partition_format).keys)

    def get_partition_key_values(self, partition_keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The combinations of values that there are, each once; lists all files.

        Args:
            partition_keys: those that count; default: all.

        Raises:
            WorkspaceError: there is no such key.
            InputError: the files cannot be listed.
        """
        from mpi_prs.azureml.datasets.reading import partition_values

        return partition_values(self, partition_keys)

    def definition(self) -> dict[str, Any]:
        """All that the dataset is, as JSON; :func:`from_definition` makes it again. Not one of Azure's names."""
        found: dict[str, Any] = {"kind": self._kind(), "paths": [source.definition() for source in self.sources]}
        if self.partition_format is not None:
            found["partition_format"] = self.partition_format
        for key, value in (("partition_keys", list(self.keys)), ("first", self.first), ("stop", self.stop)):
            if value or (key == "stop" and value is not None):
                found[key] = value
        return found

    def to_input(self) -> dict[str, Any]:
        """It as an entry of a job config's ``inputs``. Not one of Azure's names.

        Raises:
            WorkspaceError: a datastore is not registered any more, or a job cannot have this.
            InputError: of a dataset that was cut with ``take`` or ``skip``: its files cannot be listed.
        """
        raise NotImplementedError

    def storage_section(self) -> dict[str, Any]:
        """How to get at the files: a job config's ``storage``; empty: they need none. Not one of Azure's names."""
        return one_store(self.sources)

    def _kind(self) -> str:
        raise NotImplementedError

    def common_section(self) -> dict[str, Any]:
        """What the entries of both kinds have. Not one of Azure's names."""
        section: dict[str, Any] = {}
        if self.partition_format is not None:
            section["partition_format"] = self.partition_format
        storage = self.storage_section()
        if storage:
            section["storage"] = storage
        return section

    # Registration

    def register(
        self: D,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> D:
        """Register the dataset, as version 1 or, with ``create_new_version``, as the next one.

        Args:
            workspace: where; it has to be that of its datastore.
            name: to get it by.
            description, tags: to be kept with it.
            create_new_version: if there is one of this name already.

        Returns:
            the registered dataset, which knows its name and version.

        Raises:
            WorkspaceError: the name is taken, or cannot be one.
        """
        layout_of(workspace)
        for source in self.sources:
            if source.workspace is not None and source.workspace != workspace:
                raise WorkspaceError(
                    f"the dataset is in the datastore {source.datastore_name!r} of another workspace, "
                    f"{source.workspace.folder}; register the datastore in this one too, and make the dataset of that"
                )
        made = registry.register(workspace, self, name, description, tags, create_new_version)
        return dataclasses.replace(self, registration=made)

    def unregister_all_versions(self) -> None:
        """Forget all versions of the name that it is registered under; the files stay.

        Raises:
            WorkspaceError: it is not registered, or the versions cannot be removed.
        """
        if self.registration is None:
            raise WorkspaceError("the dataset is not registered")
        registry.unregister(self.registration)

    def _ensure_saved(self, workspace: Workspace) -> str:
        """Keep an unregistered dataset in the workspace, for :meth:`get_by_id`; its id. Older tutorials call this."""
        registry.save(workspace, self)
        return self.id

    # Parts of it

    def take(self: D, count: int) -> D:
        """The first so many items.

        A step can take such a part of files (at most 10,000 of them); of rows it cannot.
        """
        wanted = self.first + _count("take", count)
        return self.changed(stop=wanted if self.stop is None else min(wanted, self.stop))

    def skip(self: D, count: int) -> D:
        """All but the first so many items; see :meth:`take`."""
        first = self.first + _count("skip", count)
        return self.changed(first=first if self.stop is None else min(first, self.stop))

    @property
    def is_cut(self) -> bool:
        """Whether only some of the items count. Not one of Azure's names."""
        return self.first > 0 or self.stop is not None

    def changed(self: D, **changes: Any) -> D:
        """The same but for these fields; it is not what was registered. Not one of Azure's names."""
        return dataclasses.replace(self, registration=None, **changes)

    # Use

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        """As an input of a step, under a name."""
        from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig

        return DatasetConsumptionConfig(name, self)

    def __str__(self) -> str:
        places = ", ".join(map(str, self.sources[:3])) + (", …" if len(self.sources) > 3 else "")
        return f"{self.name} (version {self.version})" if self.registration is not None else places

    def __repr__(self) -> str:
        named = f"name={self.name!r}, version={self.version}, " if self.registration is not None else ""
        return f"{type(self).__name__}({named}paths={[str(source) for source in self.sources]})"


def _count(method: str, count: Any) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise WorkspaceError(f"{method} takes a number of items, at least 0, but got {count!r}")
    return count
