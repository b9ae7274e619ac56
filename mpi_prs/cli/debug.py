"""``debug``: the entry script in this very process, on this very terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mpi_prs.child.mini_batch import LoadedItems, MiniBatchContext, maker_of
from mpi_prs.child.rows.encoding import WrongReturnType, as_fields, encode_rows, prepare_to_encode
from mpi_prs.child.rows.row_format import encoding
from mpi_prs.child.script import ScriptFunctions, complete, import_script, prepare_interpreter, user_traceback
from mpi_prs.child.shims.preparation import prepare_imports
from mpi_prs.cli.job_file import load_job
from mpi_prs.cli.options import step_option
from mpi_prs.core.environ import AZUREML, LOGGING_LEVEL, OUTPUT, SERVICE_RUN_ID, SOURCE_DIRECTORY
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_FAILED
from mpi_prs.core.units import many
from mpi_prs.inputs.columns import shown_columns
from mpi_prs.inputs.listing import FileInput
from mpi_prs.inputs.loading import FileLoader
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.near.side_inputs import provide, substitute, substitute_values
from mpi_prs.inputs.reader.row_files import RowFileLoader
from mpi_prs.inputs.reader.survey import plan_apart
from mpi_prs.inputs.reader.tables import TableLoader
from mpi_prs.job.config.model import JobConfig, check_entry_script, hints

_MOST_ROWS = 20
_MOST_KINDS = 3


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("items", nargs=-1, metavar="[ITEM]...")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key (dotted) of the config.")
@step_option
def debug(config: Path, items: tuple[str, ...], overrides: tuple[str, ...], step: str | None) -> int:
    """Call init() and one run() in this very process: print and breakpoint() work as usual.

    The mini-batch is made of the ITEMs, or is the first one of the job.
    """
    return debug_script(load_job(config, overrides, step=step, makes_folders=True), items)


def debug_script(config: JobConfig, items: Sequence[str]) -> int:
    """Import the script, call ``init()``, ``run()`` and ``shutdown()``, and show what came back.

    Nothing is written; timeouts do not hold. A failure shows the user's own traceback.
    """
    check_entry_script(config)
    for hint in hints(config):
        click.echo(hint, err=True)
    datasets = config.datasets()
    if items:
        datasets = (replace(datasets[0], input=FileInput(tuple(items), base=Path.cwd())),)
    context = MiniBatchContext(0, 0)
    with tempfile.TemporaryDirectory(prefix="mpi_prs-") as folder:
        path = Path(folder, "manifest.arrow")
        write_manifest(path, plan_apart(datasets, config.batch_size(), config.partition_keys))
        manifest = Manifest.open(path)
        for line in shown_columns(manifest):
            click.echo(line, err=True)
        storages = [dataset.storage for dataset in datasets]
        loader: TableLoader | RowFileLoader | FileLoader
        if manifest.of_tables or config.inputs[0].file_column:
            loader = TableLoader(manifest, Path(folder), storages, 1, config.task_overhead_timeout)
            if not manifest.of_tables:
                loader = RowFileLoader(loader, manifest, Path(folder, "staged"), config.scratch_limit)
        else:
            loader = FileLoader(manifest, Path(folder, "staged"), config.scratch_limit, storages)
        side_inputs = provide(config.side_input_list(), Path(folder), "debug")
        with contextlib.closing(loader), contextlib.closing(side_inputs):
            count, payload = manifest.items_of(0), manifest.payload(0)
            if manifest.needs_loading:
                prepared = loader.load(0)
                count, payload = prepared.items, prepared.payload
            mini_batch = maker_of(manifest.kind).make(memoryview(payload), context, 0)
            os.environ.update(substitute_values(config.environment_variables, side_inputs.paths))
            arguments = substitute(config.arguments, side_inputs.paths)
            with _working_folder(Path(folder, "process000")):
                return _run_script(config, arguments, mini_batch, context, count)


@contextlib.contextmanager
def _working_folder(folder: Path) -> Iterator[None]:
    """A script that opens a file of its own without its path should fail here as it fails in a job."""
    folder.mkdir()
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _run_script(
    config: JobConfig, arguments: Sequence[str], mini_batch: Any, context: MiniBatchContext, items: int
) -> int:
    own = {name: value for name, value in _variables(config).items() if name not in config.environment_variables}
    os.environ.update(own)
    if getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, "")  # to be replaced
    prepare_interpreter(str(config.entry_script), str(config.source_directory), arguments)
    click.echo(f"init() of {config.entry_script}", err=True)
    try:
        began = time.monotonic()
        prepare_imports()
        script = import_script(str(config.entry_script), loads=config.loaders is not None)
        complete(script.init())
        click.echo(f"init() took {time.monotonic() - began:.3g} s; run() with {many(items, 'item')}", err=True)
        mini_batch = _loaded(script, mini_batch)
        began = time.monotonic()
        result = complete(script.run(mini_batch, context) if script.takes_context else script.run(mini_batch))
        took = time.monotonic() - began
        returned, rows = _rows(result, config)
        complete(script.shutdown())
    except WrongReturnType as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_FAILED
    except Exception as error:
        sys.stdout.flush()
        click.echo(user_traceback(error), err=True, nl=False)
        return EXIT_FAILED
    click.echo(f"run() took {took:.3g} s and returned {many(returned, 'row')} for {many(items, 'item')}", err=True)
    lines = rows.decode("utf-8", "replace").splitlines()
    for line in lines[:_MOST_ROWS]:
        click.echo(line)
    if len(lines) > _MOST_ROWS:
        click.echo(f"… and {len(lines) - _MOST_ROWS} more", err=True)
    return EXIT_COMPLETE


def _loaded(script: ScriptFunctions, paths: Any) -> Any:
    """What ``load()`` returns for these paths, one after the other in this thread, where ``breakpoint()`` works."""
    if script.load is None:
        return paths
    began = time.monotonic()
    loaded = LoadedItems([script.load(path) for path in paths], list(paths), paths.task_id)
    each = (time.monotonic() - began) / len(paths)
    kinds = list(dict.fromkeys(map(_kind, loaded)))
    shown = ", ".join(kinds[:_MOST_KINDS]) + (", …" if len(kinds) > _MOST_KINDS else "")
    click.echo(f"load() took {each:.3g} s an item and returned {shown}", err=True)
    return loaded


def _kind(value: Any) -> str:
    """Type, and what tells how large it is: ``ndarray (28, 28) uint8``."""
    words = [type(value).__name__]
    for name in ("shape", "size", "dtype", "mode"):
        found = getattr(value, name, None)
        if found is not None and not callable(found) and not (name == "size" and len(words) > 1):
            words.append(str(tuple(found)) if name in ("shape", "size") and not isinstance(found, int) else str(found))
    if len(words) == 1 and hasattr(value, "__len__"):
        words.append(f"of length {len(value)}")
    return " ".join(words)


def _variables(config: JobConfig) -> dict[str, str]:
    """What a user process is told by us; EntryScript's logger writes to the terminal here."""
    return {
        OUTPUT.name: str(config.output),
        SOURCE_DIRECTORY.name: str(config.source_directory),
        LOGGING_LEVEL.name: config.logging_level,
        AZUREML.name: config.azureml,
        **({} if config.azureml == "never" else {SERVICE_RUN_ID.name: config.name}),
    }


def _rows(result: Any, config: JobConfig) -> tuple[int, bytes]:
    """As a job encodes them; those of a typed output to look at: as lines of text."""
    form = encoding(config.append_row_file_name, config.to_csv.model_dump())
    prepare_to_encode(form)
    returned, rows = encode_rows(as_fields(result) if form["header"] else result, form)
    if form["form"] == "arrow":
        _, rows = encode_rows(result, {"form": "text", **config.to_csv.model_dump()})
    return returned, rows
