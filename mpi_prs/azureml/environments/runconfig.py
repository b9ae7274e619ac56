"""``azureml.core.runconfig``: the names of Azure's images, and run configurations as far as they mean anything here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mpi_prs.azureml.environments.conda_dependencies import CondaDependencies
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.environments.sections import (
    EnvironmentSection,
    Field,
    optional_text,
    texts,
    truth,
    variables,
    wrong,
)
from mpi_prs.core.errors import EnvironmentProblem

__all__ = ["DockerConfiguration", "RunConfiguration"]


class DockerConfiguration(EnvironmentSection):
    """Whether a job runs in a container. Accepted and ignored: the environment's policy decides.

    Args:
        use_docker, shared_volumes, arguments, shm_size: kept, and not looked at.
    """

    use_docker = Field(lambda: False, truth)
    shared_volumes = Field(lambda: True, truth)
    arguments: Field[list[str]] = Field(list, texts)
    shm_size: Field[str | None] = Field(lambda: None, optional_text)

    def __init__(
        self,
        use_docker: bool = False,
        shared_volumes: bool = True,
        arguments: Sequence[str] | None = None,
        shm_size: str | None = None,
    ) -> None:
        super().__init__(use_docker=use_docker, shared_volumes=shared_volumes, arguments=arguments, shm_size=shm_size)


def _environment(label: str, value: Any) -> Environment:
    if not isinstance(value, Environment):
        raise wrong(label, "an Environment", value)
    return value


def _docker(label: str, value: Any) -> DockerConfiguration:
    if not isinstance(value, DockerConfiguration):
        raise wrong(label, "a DockerConfiguration", value)
    return value


def _target(label: str, value: Any) -> str | None:
    """Azure takes the compute target or its name, and keeps the name."""
    return optional_text(label, getattr(value, "name", value))


class RunConfiguration(EnvironmentSection):
    """Carries an environment and a compute target from where a script defines them to where it uses them.

    mpi_prs runs pipelines of ParallelRunSteps, which take ``environment=`` and ``compute_target=`` of a
    ParallelRunConfig; nothing submits a run configuration by itself.

    Args:
        script, arguments: kept, and not looked at.
        framework: ``Python``; there is no other.
        conda_dependencies: the packages of its environment.

    Attributes:
        target: the name of a compute target; the target itself may be set.
        environment: the environment.
        docker: accepted and ignored.
        environment_variables: of the environment.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "load": "load an environment by Environment.load_from_directory, or get it from the workspace",
        "save": "save its environment by environment.save_to_directory, or register it",
        "delete": "nothing of it is kept in files",
        "amlcompute": "set target to a compute target, and ParallelRunConfig's node_count",
        "mpi": "the job's MPI is Slurm's or this machine's: see the workspace's setting slurm",
        "node_count": "use ParallelRunConfig's node_count",
        "data": "use the inputs and side_inputs of ParallelRunStep",
        "data_references": "use the inputs and side_inputs of ParallelRunStep",
        "output_data": "use the output of ParallelRunStep",
        "source_directory_data_store": "the source directory is copied into the workspace",
        "spark": "mpi_prs has no Spark",
        "hdi": "mpi_prs has no Spark",
        "tensorflow": "a job has as many processes as ParallelRunConfig's node_count and process_count_per_node say",
        "communicator": "the job's MPI is Slurm's or this machine's: see the workspace's setting slurm",
        "history": "everything of a run is kept in the workspace's folder",
        "auto_prepare_environment": "the environment is always prepared",
    }

    target: Field[str | None] = Field(lambda: None, _target)
    environment = Field(lambda: Environment("default-environment"), _environment)
    docker = Field(DockerConfiguration, _docker)
    script: Field[str | None] = Field(lambda: None, optional_text)
    arguments: Field[list[str]] = Field(list, texts)

    def __init__(
        self,
        script: str | None = None,
        arguments: Sequence[str] | None = None,
        framework: str | None = None,
        communicator: str | None = None,
        conda_dependencies: CondaDependencies | None = None,
    ) -> None:
        if framework not in (None, "Python", "python"):
            raise EnvironmentProblem(f"RunConfiguration: mpi_prs runs Python, not {framework}; leave framework out")
        if communicator not in (None, "None"):
            raise EnvironmentProblem(
                f"RunConfiguration: a job's MPI is Slurm's or this machine's, not {communicator}; leave it out"
            )
        super().__init__(script=script, arguments=arguments)
        if conda_dependencies is not None:
            self.environment.python.conda_dependencies = conda_dependencies

    @property
    def framework(self) -> str:
        return "Python"

    @property
    def environment_variables(self) -> dict[str, str]:
        """Those of the environment."""
        return self.environment.environment_variables

    @environment_variables.setter
    def environment_variables(self, value: Mapping[str, str]) -> None:
        self.environment.environment_variables = variables("RunConfiguration.environment_variables", value)
