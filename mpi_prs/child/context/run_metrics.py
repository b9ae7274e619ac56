"""What users say about a run: metrics, tags, properties. Standard library only at the top, Python 3.7."""

from __future__ import annotations

import time
from typing import Any, Iterator, Mapping, Sequence  # noqa: UP035  # Python 3.7

from mpi_prs.child.context import script_facts as facts_of_run
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.run_files import put_file
from mpi_prs.child.context.run_record import RunFolder
from mpi_prs.child.context.tags import text_pairs
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import PipelineError, WorkspaceError


class RunMetrics(Surface):
    """Of every run: what is said about it."""

    _folder: RunFolder

    def _facts(self) -> facts_of_run.Facts:
        raise NotImplementedError

    def get_children(self, recursive: bool = False, *, type: str | None = None) -> Iterator[Any]:
        """See ``Run``."""
        raise NotImplementedError

    @property
    def tags(self) -> dict[str, str]:
        return self._facts().tags

    @property
    def properties(self) -> dict[str, str]:
        return self._facts().properties

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """One more value of a metric: a number or a text."""
        del description
        self._log(facts_of_run.scalar(name, value, step))

    def log_list(self, name: str, value: Sequence[Any], description: str = "") -> None:
        """A list of values of a metric."""
        del description
        self._log(facts_of_run.values(name, value))

    def log_row(self, name: str, description: str = "", **columns: Any) -> None:
        """One more row of a table of this name: a value for each column."""
        del description
        self._log(facts_of_run.row(name, columns))

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        """A table: for each column a value, or a list of them."""
        del description
        self._log(facts_of_run.table(name, value))

    def log_image(self, name: str, path: str | None = None, plot: Any = None, description: str = "") -> None:
        """Keep an image with the run, from a file or as a matplotlib figure (or ``pyplot``); the metric is its path.

        Raises:
            PipelineError: neither or both are given.
        """
        del description
        if (path is None) == (plot is None):
            raise PipelineError(f"log_image({name!r}): give the path of an image or a plot, one of them")
        suffix = ".png" if path is None else given_path("log_image: path", path).suffix
        stored = f"{name}_{time.time_ns()}{suffix}"
        if path is None:
            target = self._folder.artifacts / stored
            target.parent.mkdir(parents=True, exist_ok=True)
            plot.savefig(str(target))
        else:
            put_file(self._folder.artifacts, stored, path)
        self._log(facts_of_run.scalar(name, str(self._folder.artifacts / stored)))

    def _log(self, metric: Mapping[str, Any]) -> None:
        facts_of_run.add(self._folder.facts, facts_of_run.METRIC, **metric)

    def get_metrics(
        self,
        name: str | None = None,
        recursive: bool = False,
        run_type: str | None = None,
        populate: object = False,
    ) -> dict[str, Any]:
        """Name → value: a number or text; a list of all values where there are several; of tables a dict of columns.

        Args:
            name: of the metric; default: all.
            recursive: also those of the runs that are a part of it.
            run_type: of those, the ones of this type.
            populate: means nothing here.
        """
        del populate
        found = self._facts().metrics
        if recursive:
            for child in self.get_children(recursive=True, type=run_type):
                for key, value in child._facts().metrics.items():
                    found.setdefault(key, value)
        return {key: value for key, value in found.items() if name in (None, key)}

    def tag(self, key: str, value: Any = None) -> None:
        """Set one tag."""
        self.set_tags({key: "" if value is None else value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; others stay."""
        facts_of_run.add(self._folder.facts, facts_of_run.TAGS, set=text_pairs("tags", tags))

    def remove_tags(self, tags: Any) -> dict[str, str]:
        """Take tags away, by their keys; returns those that are left.

        Raises:
            WorkspaceError: it is neither a key nor a list of keys.
        """
        keys = [tags] if isinstance(tags, str) else tags
        if not isinstance(keys, (list, tuple, set, dict)) or not all(isinstance(key, str) for key in keys):
            raise WorkspaceError(f"remove_tags: expected a key or a list of keys, but got {tags!r}")
        keys = list(keys)
        facts_of_run.add(self._folder.facts, facts_of_run.TAGS, removed=keys)
        return self.tags

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Set properties, which cannot be changed afterwards.

        Raises:
            WorkspaceError: one is there already, with another value.
        """
        given, known = text_pairs("properties", properties), self.properties
        for key, value in given.items():
            if known.get(key, value) != value:
                raise WorkspaceError(
                    f"the property {key!r} is {known[key]!r}, and properties cannot be changed; use tags"
                )
        facts_of_run.add(self._folder.facts, facts_of_run.PROPERTIES, set=given)

    def flush(self, timeout_seconds: object = 300) -> None:
        """Nothing waits: what was logged is in the run's files already."""
        del timeout_seconds
