"""Every path of a run, in one class.

A run writes into two places: the output folder that the user named, and the run directory ``_run`` inside it. (A name
with a leading underscore keeps readers of whole folders, such as pandas, pyarrow and Spark, from taking it for data.)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import RUN_FOLDER
from mpi_prs.core.records import read_json


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run.

    Attributes:
        output: the output folder, absolute; readers find the job's result here.
    """

    output: Path

    @property
    def root(self) -> Path:
        """The run directory: everything the run knows about itself."""
        return self.output / RUN_FOLDER

    def links(self) -> Iterator[Path]:
        """The links in it, where none of ours is: somebody would have us write elsewhere. In the folders that scripts
        fill there may be some, and none of ours writes there. Raises OSError: a folder cannot be read."""
        user, system = self.logs / "user", self.logs / "sys"
        streams = [user / name for name in ("stdout", "stderr", "error")]
        for folder in (self.root, self.slurm, self.logs, user, *streams, system, system / "node"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                yield from sorted(Path(entry.path) for entry in entries if entry.is_symlink())

    def run_id(self) -> str:
        """What names the run, in all of its files; empty where nothing tells."""
        try:
            return str(read_json(self.description, "the run").get("id", ""))
        except (OSError, WorkspaceError):
            return ""

    # What decides what is left to do

    @property
    def description(self) -> Path:
        """JSON: the settings the run was started with, and their fingerprint."""
        return self.root / "run.json"

    @property
    def sources(self) -> Path:
        """JSON: code, models and the like that decide the output, as they were when the run was begun."""
        return self.root / "sources.json"

    @property
    def manifest(self) -> Path:
        """Arrow: the frozen list of items and mini-batches."""
        return self.root / "manifest.arrow"

    @property
    def journal(self) -> Path:
        """The append-only ledger of finished mini-batches."""
        return self.root / "journal"

    @property
    def token(self) -> Path:
        """Text: names the start that is under way; a worker that reads the right one sees this folder."""
        return self.root / "token"

    @property
    def lock(self) -> Path:
        """Held by the one master that may write here."""
        return self.root / "lock"

    @property
    def uploaded(self) -> Path:
        """JSON: which output file has been uploaded, and where to."""
        return self.root / "uploaded.json"

    @property
    def cancelled(self) -> Path:
        """There as long as somebody wants the run to stop for good: nothing puts its job back into the queue."""
        return self.root / "cancelled"

    # What `submit` leaves; it outlives --overwrite

    @property
    def slurm(self) -> Path:
        """Whatever concerns the run's Slurm job."""
        return self.root / "slurm"

    @property
    def slurm_script(self) -> Path:
        """The batch script as it was submitted."""
        return self.slurm / "submit.sh"

    @property
    def slurm_job(self) -> Path:
        """JSON: the id of the job that was submitted last."""
        return self.slurm / "job.json"

    def slurm_log(self, job_id: str) -> Path:
        """Text: what the batch script and the launcher said, of all the starts of a job."""
        return self.slurm / f"job-{job_id}.log"

    # What people and tools read

    @property
    def status(self) -> Path:
        """JSON, replaced atomically: where the run stands."""
        return self.root / "status.json"

    @property
    def provenance(self) -> Path:
        """JSON: what made the output: settings, digests, packages, and who worked in each start."""
        return self.root / "provenance.json"

    @property
    def failed_items(self) -> Path:
        """JSON lines: every failed item with the reason."""
        return self.root / "failed_items.jsonl"

    @property
    def logs(self) -> Path:
        """ParallelRunStep's tree of logs."""
        return self.root / "logs"

    @property
    def progress_overview(self) -> Path:
        """Text: the progress lines of all starts of this run."""
        return self.logs / "job_progress_overview.txt"

    @property
    def job_result(self) -> Path:
        """Text: the summary of the latest start."""
        return self.logs / "job_result.txt"

    def earlier_job_result(self, start: int) -> Path:
        """The summary of an earlier start, which the next one puts aside; the first is 1."""
        return self.logs / f"job_result.{start}.txt"

    @property
    def processed_mini_batches(self) -> Path:
        """CSV: one line for each finished mini-batch."""
        return self.logs / "sys" / "job_report" / "processed_mini-batches.csv"

    def node_log(self, node: str, name: str) -> Path:
        """The program's own log of one rank, such as ``logs/sys/node/n1/master.txt``."""
        return self.logs / "sys" / "node" / node / f"{name}.txt"

    def user_log(self, stream: str, node: str, process: int) -> Path:
        """A user process's log; ``stream`` is ``stdout``, ``stderr`` or ``error`` (tracebacks and the like)."""
        return self.logs / "user" / stream / node / f"process{process:03d}.{stream}.txt"

    def entry_script_logs(self, node: str) -> Path:
        """The folder for what entry scripts log of their own on a node; see ``EntryScript.log_dir``."""
        return self.logs / "user" / "entry_script_log" / node

    # What passes through

    @property
    def spill(self) -> Path:
        """Rows of a mini-batch that are too large for a message wait here until the master has appended them."""
        return self.root / "spill"

    @property
    def columns(self) -> Path:
        """The order of the columns of DataFrames that all user processes have agreed on."""
        return self.root / "columns.json"

    @property
    def kept_rows(self) -> Path:
        """The growing file, where another one was made of it at the end: kept while failed mini-batches are left."""
        return self.root / "kept_rows"

    @property
    def script_files(self) -> Path:
        """What scripts have written below ``context.output_dir``, a folder for each mini-batch."""
        return self.output / "files"

    def output_file(self, name: str) -> Path:
        """The ``append_row`` file; it has this name only once it is complete."""
        return self.output / name

    def partial_output_file(self, name: str) -> Path:
        """The ``append_row`` file while it grows."""
        return self.output / f"{name}.part"
