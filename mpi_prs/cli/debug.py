"""``debug``: the entry script in this very process, on this very terminal."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from mpi_prs.data.files import FileInput
from mpi_prs.data.manifest import Manifest, write_manifest
from mpi_prs.entry_script.mini_batch import MiniBatchContext, file_mini_batch
from mpi_prs.entry_script.script import import_script, prepare_interpreter, user_traceback
from mpi_prs.errors import EXIT_COMPLETE, EXIT_FAILED
from mpi_prs.job.config import JobConfig, check_entry_script
from mpi_prs.output.rows import WrongReturnType, encode_rows

_MOST_ROWS = 20


def debug_script(config: JobConfig, items: Sequence[str]) -> int:
    """Import the script, call ``init()``, ``run()`` and ``shutdown()``, and show what came back.

    Nothing is written; timeouts do not hold. A failure shows the user's own traceback.
    """
    check_entry_script(config)
    inputs = (FileInput(files=tuple(items), base=Path.cwd()),) if items else config.file_inputs()
    with tempfile.TemporaryDirectory(prefix="mpi_prs-") as folder:
        path = Path(folder, "manifest.arrow")
        write_manifest(path, inputs, config.mini_batch_size)
        loaded = Manifest.open(path).load(0, 1)
    mini_batch = file_mini_batch(memoryview(loaded.payload), 0)
    os.environ.update(config.environment_variables)
    os.environ.setdefault("AZUREML_BI_OUTPUT_PATH", str(config.output))
    prepare_interpreter(str(config.entry_script), str(config.source_directory), config.arguments)
    click.echo(f"init() of {config.entry_script}", err=True)
    try:
        began = time.monotonic()
        script = import_script(str(config.entry_script))
        script.init()
        click.echo(f"init() took {time.monotonic() - began:.3g} s; run() with {len(mini_batch)} items", err=True)
        began = time.monotonic()
        result = script.run(mini_batch, MiniBatchContext(0, 0)) if script.takes_context else script.run(mini_batch)
        took = time.monotonic() - began
        returned, rows = encode_rows(result, config.to_csv.model_dump())
        script.shutdown()
    except WrongReturnType as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_FAILED
    except Exception as error:
        sys.stdout.flush()
        click.echo(user_traceback(error), err=True, nl=False)
        return EXIT_FAILED
    click.echo(f"run() took {took:.3g} s and returned {returned} rows for {len(mini_batch)} items", err=True)
    lines = rows.decode("utf-8", "replace").splitlines()
    for line in lines[:_MOST_ROWS]:
        click.echo(line)
    if len(lines) > _MOST_ROWS:
        click.echo(f"… and {len(lines) - _MOST_ROWS} more", err=True)
    return EXIT_COMPLETE
