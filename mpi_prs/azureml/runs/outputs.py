"""Outputs of step runs: where they lie, and how to get them. Standard library only at the top, Python 3.7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Mapping  # noqa: UP035  # Python 3.7

from mpi_prs.core.azure_names import Surface

if TYPE_CHECKING:
    from mpi_prs.azureml.datastores.datastore import Datastore
    from mpi_prs.azureml.runs.step_run import StepRun
    from mpi_prs.child.context.run_record import Output


class PortDataReference(Surface):
    """The data of an output.

    Attributes:
        name: of the output.
        path_on_datastore: its folder in the datastore.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "as_input": "make a dataset: Dataset.File.from_files(output.datastore.path(output.path_on_datastore))",
        "as_mount": "make a dataset: Dataset.File.from_files(output.datastore.path(output.path_on_datastore))",
        "as_download": "make a dataset: Dataset.File.from_files(output.datastore.path(output.path_on_datastore))",
        "create_input_binding": "make a dataset of datastore.path(path_on_datastore)",
        "data_type": "it is a folder",
    }

    def __init__(self, step_run: StepRun, name: str, output: Output) -> None:
        """See ``StepRun.get_output_data``."""
        self.name = name
        self.path_on_datastore = output.path
        self._step_run = step_run
        self._output = output

    @property
    def datastore(self) -> Datastore:
        """Where it lies. Raises WorkspaceError: the datastore is not registered any more."""
        from mpi_prs.azureml.datastores.datastore import Datastore

        return Datastore.get(self._step_run.experiment.workspace, self._output.datastore)

    @property
    def datastore_name(self) -> str:
        """The name of the datastore."""
        return self._output.datastore

    @property
    def url(self) -> str:
        """The path or URL of its folder. Not one of Azure's names."""
        return self._output.url

    @property
    def pipeline_run_id(self) -> str | None:
        """The id of the pipeline run that made it."""
        return self._step_run._record.parent

    def download(self, local_path: str, overwrite: bool | None = None, show_progress: bool | None = None) -> int:
        """Copy its files to ``local_path/path_on_datastore/…``; what the job knows about itself (``_run``) stays.

        Args:
            local_path: a folder; it is made.
            overwrite: also what is there already (default: that is left as it is).
            show_progress: whether to print how far it is (default: yes).

        Returns:
            how many files were copied.

        Raises:
            WorkspaceError: there is nothing, or it cannot be written here.
            InputError: it cannot be read.
        """
        return self.datastore.download(
            local_path,
            prefix=f"{self.path_on_datastore.rstrip('/')}/",
            overwrite=bool(overwrite),
            show_progress=True if show_progress is None else show_progress,
        )

    def __repr__(self) -> str:
        return (
            f"PortDataReference(name={self.name!r}, datastore={self.datastore_name!r}, "
            f"path_on_datastore={self.path_on_datastore!r})"
        )


class StepRunOutput(Surface):
    """An output of a step run.

    Attributes:
        name: of the output.
        step_run: of which it is.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {"get_destination": "use get_port_data_reference().path_on_datastore"}

    def __init__(self, step_run: StepRun, name: str, output: Output) -> None:
        """See ``StepRun.get_outputs``."""
        self.name = name
        self.step_run = step_run
        self._output = output

    def get_port_data_reference(self) -> PortDataReference:
        """Its data."""
        return PortDataReference(self.step_run, self.name, self._output)

    def __repr__(self) -> str:
        return f"StepRunOutput(name={self.name!r}, step_run={self.step_run.id!r})"


def output_of(outputs: Mapping[str, Output], name: Any) -> tuple[str, Output] | None:
    """The output of a name, which is that of the PipelineData, or the ``output_name`` that it was given."""
    by_name = next(((key, each) for key, each in outputs.items() if key == name), None)
    return by_name or next(((key, each) for key, each in outputs.items() if each.path.rpartition("/")[2] == name), None)
