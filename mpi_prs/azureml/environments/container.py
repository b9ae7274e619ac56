"""The policy ``container``: Python in an image, run by Apptainer (or Singularity) on each node.

::

    docker.base_image ── apptainer pull ──► image.sif ─┐
    docker.arguments ── translated ────────────────────┴─► a wrapper: a shell script that is used as the interpreter

The worker starts the wrapper as it would start a Python: with two open descriptors, in a process group of its own, and
with a mark in the environment. All three have to reach the Python inside. Apptainer keeps descriptors that are open
when it starts, stays in the process group, passes the environment on, and passes signals on where there is no terminal:
that is what its source (of August 2026) says. It was read, and not tried: no Apptainer could be had where this was
written. The wrapper was tried with a stand-in that checks its options and runs the rest.

Inside the container the node's filesystems are where they are outside: all top-level folders that an image does not
bring itself are bound, and our package, the workspace and the scratch folder wherever they are. What an image has under
such a name, ``/workspace`` say, is hidden where the node has it, too.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from mpi_prs.azureml.environments.build_cache import Say, built, digest_of, run_builder
from mpi_prs.azureml.environments.interpreter import Interpreter, ask
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import EnvironmentProblem
from mpi_prs.core.urls import is_url

_PROGRAMS = ("apptainer", "singularity")
_PULLED = ("docker://", "oras://", "library://", "shub://", "https://", "http://")
_PROGRESS = re.compile(r"(INFO:\s+.*)")
_PACKAGE = Path(__file__).parents[2]

_OF_THE_IMAGE = "bin boot dev etc lib lib32 lib64 libx32 lost+found opt proc root run sbin snap sys tmp usr var"
"""Top-level folders that an image brings, or that Apptainer sees to."""

_UNSET = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_PRELOAD")
"""Variables that speak of the programs outside."""

_NO_USE = ("--shm-size", "--ipc", "--gpus", "--net", "--network", "--runtime")
"""Options of ``docker run`` that ask for what is always so: the node's memory, GPUs and network."""


def container_program(setting: str | None, path: str | None = None) -> str:
    """Apptainer, or Singularity: the workspace's, or one in PATH.

    Raises:
        EnvironmentProblem: there is none.
    """
    if setting is not None:
        if found := shutil.which(setting, path=path):
            return found
        raise EnvironmentProblem(f"the workspace's setting apptainer names {setting}, which is no program here")
    for name in _PROGRAMS:
        if found := shutil.which(name, path=path):
            return found
    raise EnvironmentProblem(
        "there is neither apptainer nor singularity in PATH, and the policy container needs one. Load a module that "
        'has it, name it by ws.update_settings(apptainer="/path/of/apptainer"), or use the policy venv or conda'
    )


def image_source(image: str | None, dockerfile: str | None, who: str) -> tuple[str, bool]:
    """What Apptainer is to run, and whether it must be pulled first.

    Args:
        image: ``docker.base_image``.
        dockerfile: ``docker.base_dockerfile``.
        who: for messages, such as ``the environment 'batch'``.

    Returns:
        an absolute path, or an URL such as ``docker://registry.example.org/name:tag`` that is to be pulled.

    Raises:
        EnvironmentProblem: there is no image, or it is to be built, or the file is not there.
    """
    if image is None and dockerfile is not None:
        raise EnvironmentProblem(
            f"{who} has a docker.base_dockerfile, and Apptainer builds nothing from it. Build the image elsewhere "
            "(docker build), and give docker.base_image its name in a registry, or the path of a .sif file"
        )
    if image is None:
        raise EnvironmentProblem(f"{who} has no docker.base_image, which the policy container runs")
    if image.startswith(_PULLED):
        return image, True
    if is_url(image) or image.startswith(("docker-archive:", "docker-daemon:", "oci:", "oci-archive:")):
        raise EnvironmentProblem(
            f"{who}: docker.base_image {image!r} is nothing that can be pulled; make a file of it with "
            f"`apptainer build image.sif {shlex.quote(image)}`, and give its path"
        )
    if image.startswith(("/", "./", "../", "~")) or image.endswith((".sif", ".img")):
        path = Path(image).expanduser().absolute()
        if not path.exists():
            raise EnvironmentProblem(f"{who}: docker.base_image: there is no {path}; correct the path")
        return str(path), False
    return f"docker://{image}", True


def apptainer_options(arguments: Sequence[str]) -> list[str]:
    """The options of ``docker run`` as Apptainer's.

    Raises:
        EnvironmentProblem: one of them has no translation.
    """
    options: list[str] = []
    rest = [part for argument in arguments for part in _words(argument)]
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in ("-v", "--volume", "-B", "--bind", "-e", "--env", *_NO_USE):
            if not equals:
                if not rest:
                    raise EnvironmentProblem(f"docker.arguments: {name} lacks its value")
                value = rest.pop(0)
            if name in ("-v", "--volume", "-B", "--bind"):
                options += ["--bind", value]
            elif name in ("-e", "--env"):
                if "," in value or "=" not in value:
                    raise EnvironmentProblem(
                        f"docker.arguments: {name} {value.partition('=')[0]}…: use Environment.environment_variables"
                    )
                options += ["--env", value]
        elif name not in ("--rm", "--init"):
            raise EnvironmentProblem(
                f"docker.arguments: {name} has no counterpart in Apptainer; there are -v (--volume), -e (--env), "
                "and --bind"
            )
    return options


def _words(argument: str) -> list[str]:
    """``-v /a:/b`` may be one argument, too."""
    return shlex.split(argument) if argument.startswith("-") and " " in argument.strip() else [argument]


def wrapper(
    program: str, image: str, python: str, options: Sequence[str], binds: Sequence[Path], kept: Collection[str] = ()
) -> str:
    """The shell script that stands for the interpreter.

    Args:
        program: Apptainer's path on this machine; on a node that has it elsewhere, the one in PATH.
        image: what it runs.
        python: the interpreter inside.
        options: further ones of ``apptainer exec``.
        binds: folders that must be seen inside, at the same place.
        kept: names of variables that the environment sets.
    """
    bound = " ".join(shlex.quote(str(path)) for path in binds)
    return f"""#!/bin/sh
# Made by mpi_prs: Python in a container, started as if it were a Python.
wanted={shlex.quote(program)}
program=$wanted
[ -x "$program" ] || program=$(command -v apptainer || command -v singularity) || {{
    echo "mpi_prs: this node has no $wanted, and neither apptainer nor singularity in PATH" >&2
    exit 127
}}
unset {" ".join(name for name in _UNSET if name not in kept)}
export PYTHONNOUSERSITE=1
set -- {shlex.quote(image)} {shlex.quote(python)} "$@"
[ -e /dev/nvidiactl ] && set -- --nv "$@"
[ -e /dev/kfd ] && set -- --rocm "$@"
bind() {{
    case $1 in
        '' | / | *[,:]*) return 1 ;;
    esac
    [ -d "$1" ]
}}
scratch=${{MPI_PRS_PROCESS_FOLDER%/*/}}
for folder in {bound} "$scratch" "${{scratch%/*}}"; do
    bind "$folder" && set -- --bind "$folder" "$@"
done
others=" {_OF_THE_IMAGE} "
for folder in /*; do
    case $others in
        *" ${{folder#/}} "*) ;;
        *) bind "$folder" && set -- --bind "$folder" "$@" ;;
    esac
done
exec "$program" --quiet exec {" ".join(map(shlex.quote, options))} "$@"
"""


def container(
    folder: Path,
    program: str,
    source: tuple[str, bool],
    python: str,
    options: Sequence[str],
    seen: Sequence[Path],
    kept: Collection[str],
    who: str,
    say: Say,
) -> tuple[Path, Interpreter]:
    """The wrapper for an image; the image is pulled if it is not here yet.

    Args:
        folder: the workspace's folder of what is built.
        program: Apptainer.
        source: see :func:`image_source`.
        python: the interpreter inside.
        options: see :func:`apptainer_options`.
        seen: folders that must be seen inside.
        kept: names of variables that the environment sets.
        who: for messages, such as ``the environment 'batch'``.

    Returns:
        the wrapper, and what its Python has.

    Raises:
        EnvironmentProblem: the image cannot be had, or has no such Python, or Apptainer cannot run it here.
    """
    image, pulled = source
    if pulled:
        image = str(_pulled(folder, program, image, say) / "image.sif")
    script = wrapper(program, image, python, options, [_PACKAGE, *seen], kept)
    found: list[Interpreter] = []

    def make(target: Path, _: Path) -> None:
        path = target / "python"
        path.write_text(script, encoding="utf-8")
        path.chmod(path.stat().st_mode | 0o111)

    def check(target: Path) -> None:
        found.append(ask(target / "python"))

    parts = {"policy": "container", "wrapper": script}
    target = built(folder / digest_of(parts), f"the container of {who}", say, make, check)
    return target / "python", found[-1]


def _pulled(folder: Path, program: str, url: str, say: Say) -> Path:
    def make(target: Path, log: Path) -> None:
        command = [program, "pull", str(target / "image.sif"), url]
        run_builder(command, f"{Path(program).name} pull {url}", log, say, environ=HERE, telling=_telling)

    def check(target: Path) -> None:
        if not (target / "image.sif").exists():
            raise EnvironmentProblem(f"{program} pull has made no {target / 'image.sif'}")

    return built(folder / digest_of({"policy": "container", "image": url}), f"the image {url}", say, make, check)


def _telling(line: str) -> str:
    found = _PROGRESS.match(line)
    return found[1] if found else ""
