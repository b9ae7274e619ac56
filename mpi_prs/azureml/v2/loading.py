"""The way in: a v2 YAML on the disk becomes the job config of one of its parallel steps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.azureml.v2.assets import WorkspaceAssets
from mpi_prs.azureml.v2.bindings import expressions_in
from mpi_prs.azureml.v2.nodes import OURS, read_nodes
from mpi_prs.azureml.v2.other_steps import check_upstream
from mpi_prs.azureml.v2.parse import PARALLEL_KEYS, PIPELINE_KEYS, PipelineSpec, StepSpec, parse_pipeline
from mpi_prs.azureml.v2.resolving import Resolver
from mpi_prs.azureml.v2.translate import translate
from mpi_prs.core.errors import ConfigError
from mpi_prs.core.words import near
from mpi_prs.core.yaml import Document, read_document
from mpi_prs.job.config.model import JobConfig, make_config
from mpi_prs.job.config.types import absolute


@dataclass(frozen=True)
class LoadedStep:
    """A step of a v2 YAML.

    Attributes:
        config: its job config.
        folders: to be made before it starts: its script writes into them.
        notes: what a person should know.
    """

    config: JobConfig
    folders: Sequence[Path] = field(default_factory=list)
    notes: Sequence[str] = field(default_factory=list)


def load(
    path: Path,
    overrides: Sequence[str] = (),
    output: str | None = None,
    step: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> LoadedStep:
    """The job config of a parallel step.

    Args:
        path: the YAML.
        overrides: ``key=value`` each, with dotted keys as of ``az ml job create --set``
            (``jobs.score.resources.instance_count=3``), or of our job config (``slurm.partition=gpu``).
        output: the step's output folder, relative to the working directory; default:
            ``outputs/<pipeline>/<step>`` beside the YAML.
        step: which, if there are several.
        say: is told at once what takes long.

    Raises:
        ConfigError: with file, line and key.
        ScriptError: the entry script is not there.
        PipelineError: its ``parallel_run_step.settings.json`` cannot be used.
    """
    if output is not None and not output.strip():
        raise ConfigError("--output: expected the path of the output folder, got nothing")
    pipeline = parse_pipeline(read_nodes(path, _addressed(path, overrides)))
    chosen = _chosen(pipeline, step)
    if chosen.problem is not None:
        raise chosen.problem
    folder = Path(absolute(Path.cwd(), output)) if output is not None else _default_output(path, pipeline, chosen)
    assets = WorkspaceAssets(path.absolute().parent)
    resolver = Resolver(pipeline, chosen, folder, assets)
    for name in chosen.inputs:
        resolver.input(name)
    check_upstream(resolver, f"mpi-prs run {shlex.quote(str(path))}")
    made = translate(resolver, assets, say)
    config = make_config(made.data, path, Document(made.data, made.places()))
    return LoadedStep(config, list(dict.fromkeys(made.folders)), made.notes)


def _addressed(path: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides, with those of keys that only our job config has below the key of our own settings."""
    known = PIPELINE_KEYS if "jobs" in read_document(path, (), ()).data else PARALLEL_KEYS
    ours = set(JobConfig.model_fields) - set(known)
    return [
        f"{OURS}.{override}" if re.split(r"[.=]", override.strip(), maxsplit=1)[0].strip() in ours else override
        for override in overrides
    ]


def _chosen(pipeline: PipelineSpec, name: str | None) -> StepSpec:
    """The step to run. Raises ConfigError: none is named, or there is none of this name."""
    parallel = {each.name: each for each in _in_order(pipeline) if each.is_parallel}
    root = pipeline.node
    if name is not None:
        if name not in parallel:
            found = pipeline.steps.get(name)
            problem = f"the step {name} is of type {found.type}" if found else f"there is no step {name!r}"
            raise root.wrong(f"--step: {problem}; mpi-prs runs parallel steps{near(name, parallel)}")
        return parallel[name]
    if not parallel:
        raise root.wrong("there is no step with `type: parallel`, and mpi-prs runs no others")
    if len(parallel) > 1:
        raise root.wrong(
            f"there are {len(parallel)} parallel steps; run them one after the other, in this order: "
            f"{', '.join(f'--step {each}' for each in parallel)}"
        )
    return next(iter(parallel.values()))


def _in_order(pipeline: PipelineSpec) -> Iterator[StepSpec]:
    """The steps, each after those whose outputs it takes; else in the order of the file."""
    done: set[str] = set()

    def visit(step: StepSpec) -> Iterator[StepSpec]:
        if step.name in done:
            return
        done.add(step.name)
        for name in _needed(step):
            if name in pipeline.steps:
                yield from visit(pipeline.steps[name])
        yield step

    for step in pipeline.steps.values():
        yield from visit(step)


def _needed(step: StepSpec) -> Iterator[str]:
    """The steps that the inputs of a step name."""
    for each in step.inputs.values():
        value: Any = None if each.value is None else each.value.value
        for parts in expressions_in(value) if isinstance(value, str) else ():
            if len(parts) == 5 and parts[:2] == ("parent", "jobs"):
                yield parts[2]


def _default_output(path: Path, pipeline: PipelineSpec, step: StepSpec) -> Path:
    name = re.sub(r"[^\w.-]+", "-", pipeline.name, flags=re.ASCII).strip("-.") or path.stem
    folder = path.absolute().parent / "outputs" / name
    return folder if pipeline.is_single else folder / step.name
