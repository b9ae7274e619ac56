"""What stands before a parallel step in its pipeline: other parallel steps, which have to be complete, and steps of
other types, which mpi-prs does not run but shows how to."""

from __future__ import annotations

import shlex
from pathlib import Path

from mpi_prs.azureml.v2.bindings import Parts, replaced, shown
from mpi_prs.azureml.v2.nodes import YamlNode
from mpi_prs.azureml.v2.parse import StepSpec
from mpi_prs.azureml.v2.resolving import Data, Resolver
from mpi_prs.core.errors import ConfigError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.output.ledger import read_ledger


def check_upstream(resolver: Resolver, program: str) -> None:
    """Whether what other steps were to leave is there.

    Args:
        resolver: with the places that the step needs.
        program: the command line up to the name of a step, for messages.

    Raises:
        ConfigError: it is not; the message says how to get it.
    """
    for place, (step, node) in resolver.upstream.items():
        if step.is_parallel:
            if not _is_complete(resolver.folder_of(step)) or not place.exists():
                raise node.wrong(
                    f"the step {step.name} has not completed in {resolver.folder_of(step)}; run it first: "
                    f"{program} --step {step.name}"
                )
        elif not place.exists():
            raise _not_run(resolver, step, place, node)


def _is_complete(output: Path) -> bool:
    journal = RunDirectory(output).journal
    return journal.exists() and read_ledger(journal, None).complete


def _not_run(resolver: Resolver, step: StepSpec, place: Path, node: YamlNode) -> ConfigError:
    key = node.shown_key.removesuffix(".path")
    message = (
        f"there is no {place}, an output of the step {step.name}, which is of type {step.type}: mpi-prs runs parallel "
        f"steps alone. Put the data there, or name it with --set {key}.path=DATA"
    )
    command = command_of(resolver, step)
    return node.wrong(message if command is None else f"{message}; or run that step:\n    {command}")


def command_of(resolver: Resolver, step: StepSpec) -> str | None:
    """A command step as a line for a shell, as far as its expressions can be resolved; ``None``: it has no command."""
    node = step.keys.get("command")
    if node is None or not isinstance(node.value, str):
        return None
    folders = []
    for name in step.outputs:
        output = resolver.output_of(step, name)
        place = resolver.place_of(step, output)
        folders.append(place.parent if output.is_file else place)

    def value_of(parts: Parts) -> str:
        try:
            if len(parts) == 2 and parts[0] == "outputs" and parts[1] in step.outputs:
                return shlex.quote(str(resolver.place_of(step, resolver.output_of(step, parts[1]))))
            if len(parts) == 2 and parts[0] == "inputs" and parts[1] in step.inputs:
                value = resolver.input(parts[1], step)
                return shlex.quote(value.location if isinstance(value, Data) else value or "")
        except ConfigError:
            pass
        return shown(parts)

    code = step.keys.get("code")
    folder = code.local_path() if code is not None else Path(node.source.folder)
    words = [f"cd {shlex.quote(str(folder))}"]
    if folders:
        words.append("mkdir -p " + " ".join(shlex.quote(str(each)) for each in dict.fromkeys(folders)))
    lines = " ".join(replaced(node.value, value_of).split())
    return f"({' && '.join([*words, lines.rstrip('; ')])})"
