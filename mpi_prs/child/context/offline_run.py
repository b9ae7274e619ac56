"""``OfflineRun``: what ``Run.get_context()`` gives outside a run, so that entry scripts can be tried by hand.

Standard library only, Python 3.7.
"""

from __future__ import annotations

import os
import uuid
from typing import Any, ClassVar, Mapping, Sequence  # noqa: UP035  # Python 3.7

from mpi_prs.child.context import script_facts as facts_of_run
from mpi_prs.child.context.tags import text_pairs
from mpi_prs.core.azure_names import Surface


class OfflineRun(Surface):
    """A run that is kept nowhere: it prints what it is told, and forgets it with the process.

    Attributes:
        id: ``OfflineRun_`` and a UUID.
        tags, properties: those that were set.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "experiment": "this process belongs to no run: Run.get_context() gave an OfflineRun",
        "get_details": "this process belongs to no run: Run.get_context() gave an OfflineRun",
        "input_datasets": "this process belongs to no run: Run.get_context() gave an OfflineRun",
    }

    parent = None
    number = None
    type = "OfflineRun"

    def __init__(self, name: str = "") -> None:
        self.id = f"OfflineRun_{uuid.uuid4()}"
        self.display_name = name or self.id
        self.tags: dict[str, str] = {}
        self.properties: dict[str, str] = {}
        self._logged: dict[str, list[tuple[str, Any]]] = {}

    @property
    def name(self) -> str:
        """Its display name."""
        return self.display_name

    @property
    def status(self) -> str:
        """``Running``."""
        return self.get_status()

    def get_status(self) -> str:
        """``Running``."""
        return "Running"

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """As of ``Run``, and so are all below."""
        del description
        self._log("scalar", facts_of_run.scalar(name, value, step))

    def log_list(self, name: str, value: Sequence[Any], description: str = "") -> None:
        del description
        self._log("list", facts_of_run.values(name, value))

    def log_row(self, name: str, description: str = "", **columns: Any) -> None:
        del description
        self._log("row", facts_of_run.row(name, columns))

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        del description
        self._log("table", facts_of_run.table(name, value))

    def log_image(self, name: str, path: str | None = None, plot: Any = None, description: str = "") -> None:
        del description
        print(f"Attempted to log image {name}:\n{path or plot}")

    def _log(self, what: str, metric: Mapping[str, Any]) -> None:
        print(f"Attempted to log {what} metric {metric['name']}:\n{metric['value']}")
        self._logged.setdefault(metric["name"], []).append((metric["form"], metric["value"]))

    def get_metrics(self, name: str | None = None, **_: object) -> dict[str, Any]:
        return {key: facts_of_run.put_together(logged) for key, logged in self._logged.items() if name in (None, key)}

    def tag(self, key: str, value: Any = None) -> None:
        self.set_tags({key: "" if value is None else value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self.tags.update(text_pairs("tags", tags))

    def get_tags(self) -> dict[str, str]:
        return dict(self.tags)

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        self.properties.update(text_pairs("properties", properties))

    def get_properties(self) -> dict[str, str]:
        return dict(self.properties)

    def upload_file(
        self, name: str, path_or_stream: str | os.PathLike[str] | Any, datastore_name: object = None
    ) -> None:
        del datastore_name
        print(f"Attempted to upload {path_or_stream} as {name}")

    def upload_folder(self, name: str, path: str | os.PathLike[str], datastore_name: object = None) -> None:
        del datastore_name
        print(f"Attempted to upload the folder {path} as {name}")

    def child_run(self, name: str | None = None, run_id: object = None, outputs: object = None) -> OfflineRun:
        del run_id, outputs
        return OfflineRun(name or "")

    def start(self) -> None:
        """Nothing, and so are all below."""

    def complete(self, _set_status: object = True) -> None: ...

    def fail(self, error_details: Any = None, error_code: Any = None, _set_status: object = True) -> None:
        del error_code
        print(f"Attempted to fail the run: {error_details}")

    def cancel(self) -> None: ...

    def flush(self, timeout_seconds: object = 300) -> None: ...

    def __enter__(self) -> OfflineRun:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"OfflineRun(id={self.id!r})"
