"""``azureml.core.environment`` and ``runconfig``: what the user processes of a job run in.

::

    Environment ── definition() ──► environments/NAME/VERSION.json
        │
        └─ building.prepare() ──► an interpreter, environment variables, and notes for the log

What is made of a definition depends on its policy; see :mod:`mpi_prs.azureml.environments.building`. A definition in
JSON has Azure's names, so that what Azure's ``save_to_directory`` has written can be loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mpi_prs.azureml.environments.building import prepare
from mpi_prs.azureml.environments.installing import exported
from mpi_prs.azureml.environments.packages import CondaDependencies, from_requirements_file
from mpi_prs.azureml.environments.sections import (
    IMAGE_ADVICE,
    REGISTRY_ADVICE,
    DockerSection,
    EnvironmentSection,
    Field,
    PythonSection,
    SparkSection,
    check_policy,
    optional_text,
    texts,
    truth,
    variables,
    wrong,
)
from mpi_prs.child.context.data import environment_record
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.child.context.workspace_paths import layout_of
from mpi_prs.core.azure_names import Registered, Surface
from mpi_prs.core.errors import EnvironmentProblem, WorkspaceError
from mpi_prs.core.records import (
    add_version,
    check_name,
    latest_version,
    names_with_versions,
    read_json,
    time_stamp,
    write_json,
)
from mpi_prs.core.words import near

_FILE = "azureml_environment.json"
_CONDA_FILE = "conda_dependencies.yml"


def _section(kind: type[EnvironmentSection]) -> Callable[[str, Any], Any]:
    def check(label: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise wrong(label, f"a {kind.__name__}", value)
        return value

    return check


class Environment(EnvironmentSection):
    """What user processes run in: interpreter, packages, environment variables.

    Args:
        name: for registering it, and for messages.

    Attributes:
        python, docker, spark: see their classes.
        environment_variables: of the user processes. They are kept in the workspace as they are: no place for secrets.
        version: the registered version, such as ``"2"``; ``None``: not registered.
        policy: how it is had: ``current``, ``venv``, ``conda``, ``container`` or the path of an interpreter; ``None``:
            as the workspace says. Not one of Azure's names.
        inferencing_stack_version, asset_id: accepted and ignored.

    Raises:
        WorkspaceError: nothing can have such a name.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "databricks": "there is no Databricks behind mpi_prs; name packages in python.conda_dependencies",
        "r": "mpi_prs runs Python; call R from your script, in an environment that has it",
        "add_private_pip_wheel": "put the wheel on a filesystem that all nodes see, and its path into the pip packages",
        "get_image_details": "no image is built: see Environment.build",
        "label": "use versions: Environment.get(workspace, name, version)",
        "from_docker_build_context": IMAGE_ADVICE,
    }

    name = Field(str, lambda _, value: check_name(value, "an environment"))
    version: Field[str | None] = Field(lambda: None, optional_text)
    asset_id: Field[str | None] = Field(lambda: None, optional_text)
    python = Field(PythonSection, _section(PythonSection))
    docker = Field(DockerSection, _section(DockerSection))
    spark = Field(SparkSection, _section(SparkSection))
    environment_variables: Field[dict[str, str]] = Field(dict, variables)
    policy: Field[str | None] = Field(lambda: None, check_policy)
    inferencing_stack_version: Field[str | None] = Field(lambda: None, optional_text)

    def __init__(self, name: str) -> None:
        super().__init__(name=name)

    def __repr__(self) -> str:  # without the environment variables, whose values may be nobody's business
        return f"Environment(name={self.name!r}, version={self.version!r}, policy={self.policy!r})"

    # Making one from what there is

    @staticmethod
    def from_pip_requirements(name: str, file_path: str | Path, pip_version: str | None = None) -> Environment:
        """From a requirements file.

        Args:
            pip_version: accepted and ignored: packages are installed by the pip that comes with the interpreter.

        Raises:
            EnvironmentProblem: the file cannot be read, or has a line that pip would not understand.
        """
        del pip_version
        made = Environment(name)
        made.python.conda_dependencies = from_requirements_file(file_path)
        return made

    @staticmethod
    def from_conda_specification(name: str, file_path: str | Path) -> Environment:
        """From a conda environment file. Raises EnvironmentProblem."""
        made = Environment(name)
        made.python.conda_dependencies = CondaDependencies(file_path)
        return made

    @staticmethod
    def from_existing_conda_environment(name: str, conda_environment_name: str) -> Environment:
        """With the packages of a conda environment on this machine, as ``conda env export`` says them.

        Raises:
            EnvironmentProblem: there is no conda here, or no such environment.
        """
        made = Environment(name)
        made.python.conda_dependencies = exported(conda_environment_name)
        return made

    @staticmethod
    def from_docker_image(
        name: str,
        image: str,
        container_registry: object = None,
        conda_specification: str | Path | None = None,
        pip_requirements: str | Path | None = None,
    ) -> Environment:
        """With an image, and the packages that a file names.

        Args:
            container_registry: refused; write the registry before the image.

        Raises:
            EnvironmentProblem: both files are given, or one of them cannot be read.
        """
        if container_registry is not None:
            raise EnvironmentProblem(f"container_registry: {REGISTRY_ADVICE}")
        if conda_specification is not None and pip_requirements is not None:
            raise EnvironmentProblem("give conda_specification or pip_requirements, not both")
        made = Environment(name)
        made.docker.enabled = True
        made.docker.base_image = image
        if conda_specification is not None:
            made.python.conda_dependencies = CondaDependencies(conda_specification)
        elif pip_requirements is not None:
            made.python.conda_dependencies = from_requirements_file(pip_requirements)
        else:
            made.python.user_managed_dependencies = True
        return made

    def clone(self, new_name: str) -> Environment:
        """The same definition under another name, not registered."""
        return Environment.from_definition({**copy.deepcopy(self.definition()), "name": new_name})

    # In a workspace

    def register(self, workspace: Workspace) -> Environment:
        """Keep the definition in a workspace: a new version, unless the latest one says the same.

        Returns:
            this object, which has the version now.

        Raises:
            WorkspaceError: the workspace cannot be written.
        """
        definition = self.definition()
        folder = workspace.layout.environment(self.name)
        latest = latest_version(folder)
        if latest is None or environment_record(workspace, self.name, latest)[1] != definition:
            latest = add_version(folder, {"registered": time_stamp(), "definition": definition})
        self.version = str(latest)
        return self

    @staticmethod
    def get(workspace: Workspace, name: str, version: str | int | None = None, label: str | None = None) -> Environment:
        """A registered environment.

        Args:
            version: such as ``"2"``; default: the latest.
            label: ``Latest`` or None; there are no other labels.

        Raises:
            WorkspaceError: there is none of this name and version.
        """
        if label not in (None, "Latest", "latest"):
            raise WorkspaceError(f"there is no label {label!r}: the only one is Latest; give a version")
        wanted, definition = environment_record(workspace, name, version)
        found = Environment.from_definition(definition)
        found.version = wanted
        return found

    @staticmethod
    def list(workspace: Workspace) -> dict[str, Environment]:
        """The latest version of every registered environment, by name."""
        return dict(environments_of(workspace))

    def build(self, workspace: Workspace, image_build_compute: object = None) -> EnvironmentBuild:
        """Do now, here, what the submission of a job would do: make the virtual environment, fetch the image, ….

        Args:
            image_build_compute: accepted and ignored.

        Raises:
            EnvironmentProblem: it cannot be had.
        """
        del image_build_compute

        prepared = prepare(self, workspace, print)
        return EnvironmentBuild(prepared.interpreter, tuple(prepared.notes))

    def build_local(self, workspace: Workspace, platform: object = None, **ignored: object) -> EnvironmentBuild:
        """The same as :meth:`build`."""
        del platform, ignored
        return self.build(workspace)

    # As JSON

    def definition(self) -> dict[str, Any]:
        """As JSON, without the version. Raises EnvironmentProblem where a list or a dict holds what it must not."""
        found = {
            **super().definition(),
            "python": self.python.definition(),
            "docker": self.docker.definition(),
            "spark": self.spark.definition(),
        }
        return {key: value for key, value in found.items() if key not in ("version", "assetId")}

    @staticmethod
    def from_definition(definition: Mapping[str, Any]) -> Environment:
        """The inverse of :meth:`definition`; also of what Azure's ``save_to_directory`` writes.

        Raises:
            EnvironmentProblem: it says what mpi_prs does not have, or a value of the wrong kind.
        """
        return _from_definition(definition, "the definition of an environment")

    def save_to_directory(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the definition into a folder, which is made.

        Raises:
            EnvironmentProblem: it exists and ``overwrite`` is not given, or it cannot be written.
        """
        folder = Path(path)
        if folder.exists() and not overwrite:
            raise EnvironmentProblem(f"{folder} exists; choose another folder, or give overwrite=True")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(f"{folder} cannot be made: {error.strerror}") from None
        self.python.conda_dependencies.save_to_file(folder, _CONDA_FILE)
        write_json(folder / _FILE, self.definition())

    @staticmethod
    def load_from_directory(path: str | Path) -> Environment:
        """The environment that :meth:`save_to_directory`, ours or Azure's, has written. Raises EnvironmentProblem."""
        file = Path(path) / _FILE
        try:
            definition = read_json(file, "the environment")
        except FileNotFoundError:
            raise EnvironmentProblem(f"there is no environment in {path}: it has no {_FILE}") from None
        return _from_definition(definition, str(file))


@dataclass(frozen=True)
class EnvironmentBuild(Surface):
    """What :meth:`Environment.build` has made; it is complete at once.

    Attributes:
        interpreter: the Python that user processes will run in; ``None``: the one that runs mpi_prs.
        notes: what the log of a job will say.
        status: ``Succeeded``.
    """

    interpreter: str | None
    notes: tuple[str, ...]
    status: str = "Succeeded"

    def wait_for_completion(self, show_output: bool = True) -> None:
        """Nothing to wait for; prints the notes."""
        if show_output:
            print("\n".join(self.notes) or "nothing to be built: the Python at hand has what is asked for")


def environments_of(workspace: Workspace) -> Registered[Environment]:
    """The registered environments of a workspace, by name: the latest version of each."""
    folder = layout_of(workspace).environments

    def find(name: str) -> Environment | None:
        return Environment.get(workspace, name) if name in names_with_versions(folder) else None

    return Registered("environment", lambda: names_with_versions(folder), find)


_NOT_OURS: Mapping[str, tuple[str, ...]] = {
    "": ("databricks", "r", "version", "assetId"),
    "python": ("condaDependenciesFile", "baseCondaEnvironment", "cacheEnvironment", "extraProperties"),
    "docker": ("baseImageRegistry", "platform", "buildContext", "sharedVolumesV2"),
    "spark": (),
}
"""Keys of Azure's files that are left out: they are empty there, or say how a service caches."""


def _from_definition(definition: Mapping[str, Any], source: str) -> Environment:
    if not isinstance(definition, Mapping) or not isinstance(definition.get("name"), str):
        raise EnvironmentProblem(f"{source}: expected a JSON object with a name")
    made = Environment(definition["name"])
    rest: dict[str, Any] = {key: value for key, value in definition.items() if key not in _NOT_OURS[""]}
    for name in ("python", "docker", "spark"):
        section = rest.pop(name, None) or {}
        if not isinstance(section, Mapping):
            raise EnvironmentProblem(f"{source}: {name}: expected a JSON object")
        if name == "python" and section.get("condaDependencies") is not None:
            packages = CondaDependencies.from_definition(section["condaDependencies"], source)
            section = {**section, "condaDependencies": packages}
        _fill(getattr(made, name), section, _NOT_OURS[name], f"{source}: {name}.")
    _fill(made, rest, (), f"{source}: ")
    return made


def _fill(section: EnvironmentSection, values: Mapping[str, Any], left_out: tuple[str, ...], where: str) -> None:
    names = {field.key: name for name, field in type(section).fields().items()}
    for key, value in values.items():
        if key in left_out:
            continue
        if key not in names:
            raise EnvironmentProblem(f"{where}{key}: mpi_prs has no such setting{near(key, names)}")
        setattr(section, names[key], value)


# ``azureml.core.runconfig``: the names of Azure's images, and run configurations as far as they mean anything here


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
