"""Environments as definitions: sections, packages, files, versions in a workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.environments import packages
from mpi_prs.azureml.environments.environment import DockerConfiguration, Environment, RunConfiguration, environments_of
from mpi_prs.azureml.environments.packages import CondaDependencies, Differences, differences
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.data import DEFAULT_CPU_IMAGE, DEFAULT_GPU_IMAGE
from mpi_prs.core.errors import EnvironmentProblem, UserMistake, WorkspaceError
from tests.support import stand_ins
from tests.support.together import together


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.create("mnist", folder=tmp_path / "workspace", show_output=False)


def seed() -> Environment:
    """As the seeds have it."""
    environment = Environment(name="batch_environment")
    environment.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["tensorflow==1.15.2", "pillow", "azureml-core", "azureml-dataset-runtime[pandas, fuse]"]
    )
    environment.docker.enabled = True
    environment.docker.base_image = DEFAULT_GPU_IMAGE
    environment.spark.precache_packages = False
    return environment


# Sections


def test_the_seeds_environment_is_what_they_say() -> None:
    environment = seed()
    assert environment.name == "batch_environment" and environment.version is None and environment.policy is None
    assert environment.python.conda_dependencies.pip_packages == [
        "tensorflow==1.15.2",
        "pillow",
        "azureml-core",
        "azureml-dataset-runtime[pandas, fuse]",
    ]
    assert environment.docker.enabled is True and environment.docker.base_image == DEFAULT_GPU_IMAGE
    assert environment.spark.precache_packages is False


def test_what_is_not_set_has_azures_defaults() -> None:
    environment = Environment("plain")
    python, docker = environment.python, environment.docker
    assert (python.user_managed_dependencies, python.interpreter_path) == (False, "python")
    assert python.conda_dependencies.pip_packages == [] and python.conda_dependencies_file is None
    assert (docker.enabled, docker.base_image, docker.base_dockerfile) == (False, DEFAULT_CPU_IMAGE, None)
    assert (docker.arguments, docker.shared_volumes) == ([], True)
    assert environment.spark.precache_packages is True
    assert environment.environment_variables == {}


def test_sections_of_two_environments_are_two() -> None:
    one, other = Environment("one"), Environment("other")
    one.docker.arguments.append("--rm")
    one.environment_variables["A"] = "b"
    one.python.conda_dependencies.add_pip_package("numpy")
    assert other.docker.arguments == [] and other.environment_variables == {}
    assert other.python.conda_dependencies.pip_packages == []
    assert one.definition()["docker"]["arguments"] == ["--rm"]


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (lambda e: setattr(e.docker, "base_imgae", "x"), "DockerSection has no 'base_imgae'; did you mean base_image?"),
        (lambda e: setattr(e, "dokcer", None), "Environment has no 'dokcer'; did you mean docker?"),
        (lambda e: setattr(e.python, "conda_dependency", None), "did you mean conda_dependencies"),
        (lambda e: setattr(e.spark, "precache_package", False), "did you mean precache_packages"),
        (lambda e: e.docker.base_image_registry, "write the registry before the image"),
        (lambda e: e.python.base_conda_environment, "from_existing_conda_environment"),
        (lambda e: e.r, "mpi_prs runs Python"),
        (lambda e: e.add_private_pip_wheel, "its path into the pip packages"),
        (lambda _: Environment.from_docker_build_context, "build the image elsewhere"),
        (lambda _: CondaDependencies.sdk_origin_url, "stands for Azure's SDK"),
    ],
)
def test_an_attribute_that_does_not_exist_says_what_to_use(slip: Callable[[Environment], Any], said: str) -> None:
    with pytest.raises(AttributeError) as caught:
        slip(Environment("plain"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("docker.enabled", "yes", "DockerSection.enabled: got a text; expected True or False"),
        ("docker.base_image", 3, "DockerSection.base_image: got a number; expected a text"),
        ("docker.arguments", "-v /a:/b", "DockerSection.arguments: got a text; expected a list of texts"),
        ("docker.arguments", ["-v", 3], r"DockerSection.arguments\[1\]: got a number; expected a text"),
        ("python.conda_dependencies", ["numpy"], "CondaDependencies.create"),
        (
            "python.interpreter_path",
            "",
            "PythonSection.interpreter_path: got an empty text; expected a text that is not empty",
        ),
        ("python", {}, "expected a PythonSection"),
        ("environment_variables", ["A=b"], "Environment.environment_variables: got a list; expected a dict"),
        ("environment_variables", {"A": None}, r"environment_variables\['A'\]: got None; expected text"),
        ("environment_variables", {"A=B": "c"}, "'A=B' is no name of an environment variable"),
        ("environment_variables", {"A": "b\0"}, "NUL"),
        ("policy", "vnev", "did you mean 'venv'"),
        ("policy", "docker", "'docker' is no policy"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_where_it_is_set(place: str, value: Any, said: str) -> None:
    section: Any = Environment("plain")
    *path, name = place.split(".")
    for step in path:
        section = getattr(section, step)
    with pytest.raises(EnvironmentProblem, match=said):
        setattr(section, name, value)


def test_a_list_that_goes_wrong_later_is_refused_when_it_counts(ws: Workspace) -> None:
    environment = Environment("plain")
    environment.environment_variables["A"] = ["hunter2"]  # type: ignore[assignment]
    with pytest.raises(EnvironmentProblem, match=r"environment_variables\['A'\]") as caught:
        environment.register(ws)
    assert "hunter2" not in str(caught.value)


def test_numbers_become_texts_and_values_are_not_shown() -> None:
    environment = Environment("plain")
    environment.environment_variables = {"LEVEL": 3, "TOKEN": "hunter2"}  # type: ignore[dict-item]
    assert environment.environment_variables == {"LEVEL": "3", "TOKEN": "hunter2"}
    assert "hunter2" not in repr(environment) and "plain" in repr(environment)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", 3])
def test_a_name_must_be_one(name: Any) -> None:
    with pytest.raises(WorkspaceError, match="the name of an environment"):
        Environment(name)


# Definitions and files


def everything(tmp_path: Path) -> Environment:
    environment = seed()
    environment.environment_variables = {"LEVEL": "3"}
    environment.policy = "venv"
    environment.docker.arguments = ["-v", f"{tmp_path}:/data"]
    environment.docker.base_dockerfile = "FROM scratch"
    environment.python.conda_dependencies.add_conda_package("numpy=1.24")
    environment.python.conda_dependencies.set_pip_option("--pre")
    environment.python.interpreter_path = "/opt/python"
    return environment


def test_a_definition_is_json_and_comes_back_as_it_was(tmp_path: Path) -> None:
    environment = everything(tmp_path)
    definition = environment.definition()
    again = Environment.from_definition(json.loads(json.dumps(definition)))
    assert again.definition() == definition
    assert again.python.conda_dependencies.pip_options == ["--pre"]
    assert again.policy == "venv"


def test_a_clone_is_another_one(ws: Workspace, tmp_path: Path) -> None:
    environment = everything(tmp_path).register(ws)
    clone = environment.clone("clone")
    assert (clone.name, clone.version) == ("clone", None)
    assert {**clone.definition(), "name": environment.name} == environment.definition()
    clone.python.conda_dependencies.add_pip_package("h5py")
    clone.docker.arguments.append("--rm")
    assert "h5py" not in environment.python.conda_dependencies.pip_packages
    assert "--rm" not in environment.docker.arguments


def test_a_folder_holds_an_environment(tmp_path: Path) -> None:
    environment, folder = everything(tmp_path), tmp_path / "saved" / "here"
    environment.save_to_directory(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["azureml_environment.json", "conda_dependencies.yml"]
    assert Environment.load_from_directory(folder).definition() == environment.definition()
    with pytest.raises(EnvironmentProblem, match=r"exists.*overwrite=True"):
        environment.save_to_directory(folder)
    environment.docker.enabled = False
    environment.save_to_directory(folder, overwrite=True)
    assert Environment.load_from_directory(folder).docker.enabled is False
    with pytest.raises(EnvironmentProblem, match=r"there is no environment in .*azureml_environment\.json"):
        Environment.load_from_directory(tmp_path)


AZURES = {
    "databricks": {"eggLibraries": [], "jarLibraries": []},
    "docker": {
        "arguments": [],
        "baseDockerfile": None,
        "baseImage": "mcr.microsoft.com/azureml/intelmpi2018.3-ubuntu16.04:20200821.v1",
        "baseImageRegistry": {"address": None, "password": None, "registryIdentity": None, "username": None},
        "enabled": False,
        "platform": {"architecture": "amd64", "os": "Linux"},
        "sharedVolumes": True,
        "shmSize": None,
    },
    "environmentVariables": {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"},
    "inferencingStackVersion": None,
    "name": "from-azure",
    "python": {
        "baseCondaEnvironment": None,
        "condaDependencies": {
            "channels": ["anaconda", "conda-forge"],
            "dependencies": ["python=3.6.2", {"pip": ["azureml-defaults", "numpy==1.18"]}, "scikit-learn=0.22"],
            "name": "azureml_0123456789",
        },
        "condaDependenciesFile": None,
        "interpreterPath": "python",
        "userManagedDependencies": False,
    },
    "r": None,
    "spark": {"packages": [], "precachePackages": True, "repositories": []},
    "version": "Autosave_2020-10-14T00:00:00Z_00000000",
}
"""The form of the file that Azure's save_to_directory writes."""


def test_what_azure_has_saved_can_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "azureml_environment.json").write_text(json.dumps(AZURES))
    environment = Environment.load_from_directory(tmp_path)
    packages = environment.python.conda_dependencies
    assert (environment.name, environment.version) == ("from-azure", None)
    assert packages.python_version == "3.6.2"
    assert packages.conda_packages == ["python=3.6.2", "scikit-learn=0.22"]
    assert packages.pip_packages == ["azureml-defaults", "numpy==1.18"]
    assert packages.conda_channels == ["anaconda", "conda-forge"]
    assert environment.environment_variables == {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "expected a JSON object with a name"),
        ({"dokcer": {}}, r"dokcer: mpi_prs has no such setting; did you mean 'docker'\?"),
        ({"docker": {"baseImgae": "x"}}, r"docker\.baseImgae: mpi_prs has no such setting; did you mean 'baseImage'"),
        ({"docker": []}, None),
        ({"docker": ["x"]}, "docker: expected a JSON object"),
        ({"docker": {"enabled": 1}}, "DockerSection.enabled: got a number; expected True or False"),
        ({"python": {"condaDependencies": {"dependencies": [{"pip": "numpy"}]}}}, "pip: expected a list"),
    ],
)
def test_a_definition_that_says_what_we_do_not_have_is_refused(change: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert Environment.from_definition({**AZURES, **change}).docker.enabled is False
        return
    with pytest.raises(EnvironmentProblem, match=said):
        Environment.from_definition({**AZURES, **change})


# In a workspace


def test_a_new_version_only_when_the_definition_has_changed(ws: Workspace) -> None:
    assert seed().register(ws).version == "1"
    assert seed().register(ws).version == "1"
    changed = seed()
    changed.docker.enabled = False
    assert changed.register(ws).version == "2"
    assert seed().register(ws).version == "3"  # the latest is what `get` gives
    assert Environment.get(ws, "batch_environment").docker.enabled is True
    assert Environment.get(ws, "batch_environment", "2").docker.enabled is False
    assert Environment.get(ws, "batch_environment", version=2).version == "2"
    assert Environment.get(ws, "batch_environment", label="Latest").version == "3"


def test_what_is_registered_is_listed(ws: Workspace) -> None:
    assert Environment.list(ws) == {} and len(environments_of(ws)) == 0
    seed().register(ws)
    Environment("other").register(ws)
    assert sorted(Environment.list(ws)) == ["batch_environment", "other"] == list(ws.environments)
    assert ws.environments["other"].version == "1"
    assert "batch_environment" in environments_of(ws)


def test_what_is_not_registered_is_said_with_what_is_near(ws: Workspace) -> None:
    seed().register(ws)
    with pytest.raises(WorkspaceError, match="there is no environment 'batch_enviroment'; did you mean 'batch_env"):
        Environment.get(ws, "batch_enviroment")
    with pytest.raises(WorkspaceError, match=r"there is no version '7' of the environment 'batch_environment'; .* 1"):
        Environment.get(ws, "batch_environment", "7")
    with pytest.raises(WorkspaceError, match="Azure's curated environments"):
        Environment.get(ws, "AzureML-Minimal")
    with pytest.raises(WorkspaceError, match="no label 'newest'"):
        Environment.get(ws, "batch_environment", label="newest")
    with pytest.raises(KeyError, match="batch_enviroment"):
        ws.environments["batch_enviroment"]


REGISTER = """
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.workspace import Workspace
import sys
environment = Environment("shared")
environment.environment_variables = {"NUMBER": sys.argv[2]}
print(environment.register(Workspace.at(sys.argv[1])).version)
"""


def test_processes_that_register_at_once_all_get_a_version(ws: Workspace) -> None:
    said = together(4, REGISTER, ws.folder)
    assert sorted(said) == ["1\n", "2\n", "3\n", "4\n"]
    for number, version in enumerate(said):
        found = Environment.get(ws, "shared", version.strip())
        assert found.environment_variables == {"NUMBER": str(number)}


# Packages


def test_packages_are_added_replaced_and_removed() -> None:
    packages = CondaDependencies.create(
        pip_packages=["Pillow>=9", "--pre", "numpy"],
        conda_packages=["scikit-learn=1.4", "ffmpeg"],
        python_version="3.10",
        pip_indexurl="https://example.org/simple",
        pin_sdk_version=False,
    )
    assert packages.python_version == "3.10" == packages.get_python_version()
    assert packages.conda_packages == ["python=3.10", "scikit-learn=1.4", "ffmpeg"]
    assert packages.pip_packages == ["Pillow>=9", "numpy"]
    assert packages.pip_options == ["--index-url https://example.org/simple", "--pre"]
    packages.add_pip_package("pillow==10")
    packages.add_conda_package("FFMPEG=6")
    packages.set_python_version("3.11.2")
    packages.set_pip_index_url("--index-url https://other.example.org/simple")
    assert packages.pip_packages == ["pillow==10", "numpy"]
    assert packages.conda_packages == ["python=3.11.2", "scikit-learn=1.4", "FFMPEG=6"]
    assert packages.pip_options == ["--index-url https://other.example.org/simple", "--pre"]
    packages.remove_pip_package("Pillow")
    packages.remove_pip_option("--pre")
    packages.remove_pip_index_url()
    packages.remove_conda_package("ffmpeg")
    assert packages.pip_lines() == ["numpy"] and packages.conda_packages == ["python=3.11.2", "scikit-learn=1.4"]
    packages.set_pip_requirements(["h5py", "./wheels/x.whl"])
    assert packages.pip_packages == ["h5py", "./wheels/x.whl"]
    packages.add_channel("nvidia")
    packages.add_channel("nvidia")
    packages.remove_channel("conda-forge")
    assert packages.conda_channels == ["nvidia"]
    packages.pip_packages.append("lost")  # a copy
    assert "lost" not in packages.pip_packages
    assert CondaDependencies.merge_requirements(["numpy", "h5py", "numpy==2"]) == ["numpy==2", "h5py"]


@pytest.mark.parametrize(
    ("version", "told"),
    [("python=3.8", "3.8"), ("python==3.8.1=x", "3.8.1"), ("python>=3.8,<4", ">=3.8,<4"), ("", None)],
)
def test_the_version_of_python_is_read_from_condas_package(version: str, told: str | None) -> None:
    assert CondaDependencies.create(conda_packages=[version] if version else []).python_version == told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"pip_packages": "numpy"}, r"pip_packages: expected a list such as \[\"numpy\"\], got str"),
        ({"pip_packages": ["numpy=1.2"]}, r"'numpy=1.2' is no requirement .*did you mean numpy==1.2\?"),
        ({"pip_packages": ["numpy 1.2"]}, "'numpy 1.2' is no requirement"),
        ({"pip_packages": ["numpy\nh5py"]}, "expected one requirement"),
        ({"pip_packages": [3]}, "expected a text"),
        ({"conda_packages": {"numpy": "1"}}, "conda_packages: expected a list"),
        ({"conda_packages": ["=1"]}, "expected a package of conda's"),
        ({"conda_packages": [None]}, "expected a text"),
        ({"python_version": 3.1}, 'expected a text such as "3.10", got 3.1'),
        ({"python_version": "three"}, "python_version"),
    ],
)
def test_what_is_no_package_is_refused_when_it_is_asked_for(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(EnvironmentProblem, match=said):
        CondaDependencies.create(**arguments)


def test_an_environment_file_comes_back_as_it_was(tmp_path: Path) -> None:
    packages = CondaDependencies.create(
        pip_packages=["numpy", "azureml-core"], conda_packages=["ffmpeg=6"], python_version="3.10"
    )
    assert packages.save_to_file(tmp_path) == "conda_dependencies.yml"
    assert packages.save_to_file(tmp_path, "other.yml") == "other.yml"
    assert packages.save(tmp_path) == str(tmp_path / "conda_dependencies.yml")
    for name in ("conda_dependencies.yml", "other.yml"):
        assert CondaDependencies(tmp_path / name).as_dict() == packages.as_dict()
    assert packages.serialize_to_string() == (tmp_path / "other.yml").read_text()
    environment = Environment.from_conda_specification("batch", str(tmp_path / "other.yml"))
    assert environment.python.conda_dependencies.as_dict() == packages.as_dict()
    other = Environment("other")
    other.python.conda_dependencies_file = str(tmp_path / "other.yml")
    assert other.python.conda_dependencies.as_dict() == packages.as_dict()
    assert other.python.conda_dependencies_file == str(tmp_path / "other.yml")


def test_what_is_no_path_is_named() -> None:
    for read in (Environment.from_pip_requirements, Environment.from_conda_specification):
        with pytest.raises(WorkspaceError, match=r"file_path is the path of a file .* but got 5"):
            read("batch", 5)  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match=r"path is the path of a file .* but got 5"):
        CondaDependencies().save(5)  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match=r"expected a Workspace, such as .*, but got 'ws'"):
        Environment.get("ws", "batch")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no conda environment file"),
        (b"\xff\xfe\0", "not UTF-8 text"),
        ("dependencies: [", "line 1.*not valid YAML"),
        ("- numpy", "expected a conda environment file"),
        ("dependencies: numpy", "dependencies: expected a list"),
        ("dependencies: [{pip: numpy}]", "pip: expected a list"),
        ("dependencies: [{npm: [x]}]", "expected texts and one `pip:` list"),
        ("dependencies: [{pip: ['numpy=1']}]", "environment.yml: pip_package: 'numpy=1'"),
        ("variables: {A: b}", "Environment.environment_variables"),
        ("dependnecies: []", "'dependnecies' is no key"),
    ],
)
def test_a_broken_environment_file_is_refused(tmp_path: Path, content: str | bytes | None, said: str) -> None:
    path = tmp_path / "environment.yml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EnvironmentProblem, match=said) as caught:
        CondaDependencies(path)
    assert str(path) in str(caught.value)


def test_a_requirements_file_is_read_with_what_it_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "project"
    (folder / "lib").mkdir(parents=True)
    (folder / "base.txt").write_text("numpy>=1.24  # arrays\n")
    (folder / "limits.txt").write_text("pandas<4\n")
    (folder / "requirements.txt").write_text(
        "# what we need\n-r base.txt\n\n-c limits.txt\n--extra-index-url https://example.org/simple\n"
        'pandas[parquet] \\\n  >=2 ; python_version >= "3.8"\n./lib\n-e ./elsewhere\ngit+https://example.org/x.git#egg=x\n'
    )
    environment = Environment.from_pip_requirements("batch", "project/requirements.txt", pip_version="20.2")
    assert environment.python.conda_dependencies.pip_lines() == [
        "numpy>=1.24",
        f"-c {folder}/limits.txt",
        "--extra-index-url https://example.org/simple",
        'pandas[parquet]    >=2 ; python_version >= "3.8"',
        f"{folder}/lib",
        f"-e {tmp_path}/elsewhere",
        "git+https://example.org/x.git#egg=x",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no requirements file"),
        ("numpy\n\npandas=2", r"line 3: 'pandas=2' is no requirement .*did you mean pandas==2\?"),
        ("-r requirements.txt", "includes itself"),
        ("-r missing.txt", "there is no requirements file .*missing.txt"),
    ],
)
def test_a_broken_requirements_file_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "requirements.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EnvironmentProblem, match=said):
        Environment.from_pip_requirements("batch", path)


def test_an_image_may_come_with_packages(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy\n")
    environment = Environment.from_docker_image(
        "batch", "example.org/x:1", pip_requirements=tmp_path / "requirements.txt"
    )
    assert environment.docker.base_image == "example.org/x:1"
    assert environment.python.conda_dependencies.pip_packages == ["numpy"]
    assert Environment.from_docker_image("batch", "x").python.user_managed_dependencies is True
    with pytest.raises(EnvironmentProblem, match="not both"):
        Environment.from_docker_image("batch", "x", conda_specification="a.yml", pip_requirements="b.txt")
    with pytest.raises(EnvironmentProblem, match="write the registry before the image"):
        Environment.from_docker_image("batch", "x", container_registry=object())


def test_an_environment_that_conda_has_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONDA_EXE", raising=False)
    monkeypatch.delenv("MAMBA_EXE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="none of mamba, micromamba, conda in PATH"):
        Environment.from_existing_conda_environment("batch", "there")
    stand_ins.conda(tmp_path / "conda")
    environment = Environment.from_existing_conda_environment("batch", "there")
    packages = environment.python.conda_dependencies
    assert (packages.python_version, packages.pip_packages) == ("3.10.4", ["iniconfig==2.0.0"])
    assert packages.conda_packages == ["python=3.10.4", "numpy=1.23"]
    with pytest.raises(EnvironmentProblem, match="Not a conda environment: elsewhere"):
        Environment.from_existing_conda_environment("batch", "elsewhere")


# Comparing


@pytest.mark.parametrize(
    ("package", "requirement"),
    [
        ("numpy", "numpy"),
        ("numpy=1.19", "numpy==1.19.*"),
        ("numpy==1.19.2=py38_0", "numpy==1.19.2"),
        ("conda-forge::numpy 1.19.*", "numpy==1.19.*"),
        ("numpy>=1.19,<2", "numpy>=1.19,<2"),
        ("numpy=1.19|1.20", "numpy"),
        ("numpy[version='>=1']", "numpy"),
    ],
)
def test_a_package_of_condas_as_a_requirement(package: str, requirement: str) -> None:
    assert packages.conda_requirement(package) == requirement
    assert packages.conda_name(package) == "numpy"


def test_what_differs_is_found() -> None:
    lines = [
        "Pillow>=9",
        "numpy==1.19",
        "h5py",
        'dataclasses; python_version < "3.7"',
        "opencv-python",
        "tensorflow==1.15.2",
        "torch>=2 ; python_version >= '3.8'",
        "x @ https://user:hunter2@example.org/x.whl",
        "https://user:hunter2@example.org/y.whl",
        "--pre",
        "-e ./lib",
    ]
    installed = {"pillow": "10.1", "numpy": "2.0.1", "opencv-python-headless": "4.8", "tensorflow-cpu": "2.16.1"}
    found = differences(lines, {**installed, "x": "1"}, "3.11.7")
    assert found == Differences(
        missing=("h5py", "torch>=2"),
        other=(("numpy==1.19", "2.0.1"), ("tensorflow==1.15.2", "2.16.1")),
        unknown=("https://user:hunter2@example.org/y.whl", "-e ./lib"),
    )
    said = "; ".join(found.sentences())
    assert "2.0.1 for numpy==1.19" in said and "h5py, torch>=2" in said and "example.org/y.whl" in said
    assert "hunter2" not in said
    assert differences(["numpy==2.1.0rc1"], {"numpy": "2.1.0rc1"}, "3.11.7") == Differences()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("tensorflow==1.15.2", True),
        ("tensorflow-gpu==1.13.1", True),
        ("TensorFlow==1.*", True),
        ("tensorflow~=1.15", True),
        ("tensorflow<2", True),
        ("tensorflow>=1.10,<2.0", True),
        ("tensorflow<=1.15", True),
        ("tensorflow>=1.13", False),
        ("tensorflow<2.5", False),
        ("tensorflow==2.3", False),
        ("tensorflow", False),
        ("tensorflow-hub==0.7", False),
        ("tensorflow!=1.15", False),
    ],
)
def test_who_asks_for_tensorflow_1(line: str, wanted: bool) -> None:
    assert packages.tensorflow1(["numpy", line]) == (line if wanted else None)
    replaced = packages.for_tensorflow2([line], (3, 11))
    assert (replaced != [line]) == wanted
    assert packages.tensorflow1(replaced) is None
    assert packages.for_tensorflow2([line], (3, 7)) == [line]


def test_the_gpus_of_tensorflow_1_are_those_of_2() -> None:
    assert packages.for_tensorflow2(["tensorflow-gpu==1.15"], (3, 8)) == ["tensorflow[and-cuda]>=2"]


def test_azures_packages_are_left_out_and_what_they_bring_is_kept() -> None:
    lines = [
        "azureml-core==1.16",
        "numpy==1.24",
        "azureml-dataset-runtime[pandas, fuse]~=1.16",
        "azureml_defaults",
        "h5py",
    ]
    assert packages.without_azure(lines) == ["numpy==1.24", "pyarrow", "pandas", "h5py"]
    assert packages.without_azure(["azureml-dataset-runtime"]) == ["numpy", "pyarrow"]


# Run configurations


def test_a_run_configuration_carries_an_environment() -> None:
    packages = CondaDependencies.create(pip_packages=["numpy"])
    configuration = RunConfiguration(framework="Python", conda_dependencies=packages)
    configuration.target = "cpucluster"
    configuration.environment.docker.enabled = True
    configuration.environment.docker.base_image = DEFAULT_CPU_IMAGE
    configuration.environment_variables = {"A": "b"}
    configuration.docker = DockerConfiguration(use_docker=True, arguments=["--rm"])
    assert configuration.environment.python.conda_dependencies is packages
    assert configuration.environment.environment_variables == {"A": "b"}
    assert (configuration.target, configuration.framework) == ("cpucluster", "Python")
    environment = Environment("own")
    configuration.environment = environment
    assert configuration.environment is environment


def test_a_run_configuration_refuses_what_would_not_be_done() -> None:
    with pytest.raises(UserMistake, match="mpi_prs runs Python, not PySpark"):
        RunConfiguration(framework="PySpark")
    with pytest.raises(UserMistake, match="not ParameterServer"):
        RunConfiguration(communicator="ParameterServer")
    with pytest.raises(AttributeError, match=r"node_count.*ParallelRunConfig"):
        RunConfiguration().node_count = 3  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentProblem, match="expected an Environment"):
        RunConfiguration().environment = "name"  # type: ignore[assignment]
