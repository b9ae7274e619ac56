"""``mpi-prs runs``: the runs of a workspace's experiments."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from mpi_prs.azureml.experiment import Experiment
from mpi_prs.azureml.runs.run import Run
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.run import made
from mpi_prs.child.context.run_record import OWN, PIPELINE, STEP, RunRecord, read_record, run_ids
from mpi_prs.cli.registry.common import (
    json_option,
    open_workspace,
    show_fields,
    show_json,
    show_table,
    when,
    workspace_option,
)
from mpi_prs.core.errors import WorkspaceError


@click.group()
def runs() -> None:
    """The workspace's runs of pipelines, and of their steps."""


@runs.command("list")
@click.option("--experiment", metavar="NAME", help="Only its runs.")
@click.option("--last", type=click.IntRange(min=1), default=20, metavar="N", help="So many at most; default 20.")
@click.option("--steps", is_flag=True, help="The runs of steps as well.")
@json_option
@workspace_option
def list_runs(experiment: str | None, last: int, steps: bool, as_json: bool, place: Path | None) -> None:
    """The latest runs, the last one first."""
    workspace = open_workspace(place)
    found = [_about(workspace, record) for record in islice(_records(workspace, experiment, steps), last)]
    if as_json:
        show_json(found)
        return
    show_table(
        ["RUN", "EXPERIMENT", "KIND", "NAME", "STATUS", "CREATED"],
        (
            (run["id"], run["experiment"], run["kind"], run["name"], run["status"], _when(run["created"]))
            for run in found
        ),
        f"no run in {workspace.folder} yet",
    )


@runs.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@json_option
@workspace_option
def show(run_id: str | None, as_json: bool, place: Path | None) -> None:
    """One run: where it and its steps stand, and why it failed; by default the latest."""
    workspace = open_workspace(place)
    run = _run(workspace, run_id)
    details = run.get_details()
    steps = [_about(workspace, _record(child)) for child in reversed(list(run.get_children()))]
    if as_json:
        show_json({**_about(workspace, _record(run)), "details": details, "metrics": run.get_metrics(), "steps": steps})
        return
    about = _about(workspace, _record(run), details["status"])
    show_fields(
        {
            "run": about["id"],
            "experiment": about["experiment"],
            "kind": about["kind"],
            "name": None if about["name"] == about["id"] else about["name"],
            "status": about["status"],
            "created": _when(about["created"]),
            "ended": _when(details.get("endTimeUtc")),
            "part of": about["parent"],
            "tags": details["tags"],
            "metrics": run.get_metrics(),
            "output": about["output"],
            "folder": run.folder,
        }
    )
    if steps:
        click.echo()
        show_table(
            ["STEP", "STATUS", "RUN", "OUTPUT"],
            ((step["name"], step["status"], step["id"], step["output"]) for step in steps),
            "",
        )
    error = details.get("error")
    if error:
        click.echo(f"\n{error['error']['message']}")


@runs.command()
@click.argument("run_id", metavar="RUN")
@workspace_option
def cancel(run_id: str, place: Path | None) -> None:
    """Stop a run of a pipeline or a step; what is finished stays."""
    run = _run(open_workspace(place), run_id)
    run.cancel()
    click.echo(f"{run.id}: {run.status}")


@runs.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@workspace_option
def wait(run_id: str | None, place: Path | None) -> None:
    """Show the progress of a run until it is over, by default of the latest; fails when it has failed."""
    _run(open_workspace(place), run_id).wait_for_completion(show_output=True)


def _records(workspace: Workspace, experiment: str | None, steps: bool) -> Iterator[RunRecord]:
    """What runs are, the latest first. Raises WorkspaceError: there is no such experiment."""
    experiments = workspace.experiments
    names = list(experiments) if experiment is None else [experiments[experiment].name]
    ids = sorted(((run_id, name) for name in names for run_id in run_ids(workspace.layout, name)), reverse=True)
    for run_id, name in ids:
        record = read_record(workspace.layout, name, run_id)
        if record.parent is None or (steps and record.kind == STEP):
            yield record


def _run(workspace: Workspace, run_id: str | None) -> Any:
    if run_id is None:
        latest = next(_records(workspace, None, steps=False), None)
        if latest is None:
            raise WorkspaceError(f"there is no run in {workspace.folder} yet")
        run_id = latest.id
    return Run.get(workspace, run_id)


def _record(run: Any) -> RunRecord:
    return read_record(run.experiment.workspace.layout, run.experiment.name, run.id)


def _about(workspace: Workspace, record: RunRecord, status: str | None = None) -> dict[str, Any]:
    kinds = {PIPELINE: "pipeline", STEP: "step", OWN: "own"}
    run = made(Experiment(workspace, record.experiment), record.id)
    outputs = record.step.outputs.values() if record.step is not None else ()
    return {
        "id": record.id,
        "experiment": record.experiment,
        "kind": kinds.get(record.kind, record.kind),
        "name": run.display_name,
        "status": status or run.status,
        "created": record.created,
        "parent": record.parent,
        "output": [output.url for output in outputs],
    }


def _when(text: str | None) -> str:
    """A time of a run, ISO 8601, as people read it; empty: it has none."""
    return when(datetime.datetime.fromisoformat(text)) if text else ""
