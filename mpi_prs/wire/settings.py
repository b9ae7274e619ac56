"""What of a job every worker must know, and what of that every user process: once, from the master to the script.

::

    job config ─► WorkerSettings ──START──► worker ─► .process ──SETTINGS──► user process

Plain types, so that nobody needs a config library to read them. Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """Where a rank stands among the ranks of its node; all figures count user processes.

    Attributes:
        first_process: the number of its first one on the node.
        node_processes: how many the node has.
        first_on_gpus: the number of its first one among those that see the same GPUs.
        core_processes: how many run on the same set of cores.
    """

    first_process: int
    node_processes: int
    first_on_gpus: int
    core_processes: int

    @classmethod
    def alone(cls, processes: int) -> Share:
        """The share of a rank that has the node to itself."""
        return cls(0, processes, 0, processes)


@dataclass(frozen=True)
class ProcessSettings:
    """What a user process, and whoever supervises it, must know.

    Attributes:
        interpreter: path of the Python that runs the script.
        entry_script, source_directory, arguments: see the job config.
        row_form: how rows are encoded, see :func:`~mpi_prs.child.rows.encoding.encode_rows`; ``None``: they are only
            counted.
        run_invocation_timeout, task_overhead_timeout, init_timeout: seconds.
        logging_level: of the root logger of the script.
        payloads, tables: what the mini-batches are made from, see :class:`~mpi_prs.inputs.manifest.Manifest`.
        columns: the file by which the processes of a run agree on the order of the columns of DataFrames.
        run: names the run, for that file.
        spill: folder for rows that are too large for a message.
        loaders: threads that call the script's ``load``; 0: none, -1: as many as the process has cores, which the
            worker fills in.
        load_tries: how often ``load`` is called for an item that it raises for.
        loaders_ahead, loaders_memory, mini_batches_in_flight: see the job config.
        node: the name of its node, and
        process: its number there, and
        patience: failures in a row after which it ends, to be replaced; the worker fills these in.
    """

    interpreter: str
    entry_script: str
    source_directory: str
    arguments: Sequence[str]
    row_form: dict[str, Any] | None
    run_invocation_timeout: float
    task_overhead_timeout: float
    init_timeout: float
    logging_level: str
    payloads: str
    tables: bool
    columns: str
    run: str
    spill: str
    loaders: int = 0
    load_tries: int = 1
    loaders_ahead: int = 0
    loaders_memory: int = 0
    mini_batches_in_flight: int = 1
    node: str = ""
    process: int = -1
    patience: int = 0

    def pack(self) -> bytes:
        """The body of SETTINGS."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, body: bytes) -> ProcessSettings:
        """The inverse of :meth:`pack`."""
        return cls(**json.loads(body))


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker must know of the job.

    Attributes:
        last_try: the attempt whose failure is final.
        bisect_on_failure: see the job config.
        run_root: the output folder, absolute, on the shared filesystem.
        run: names the run; its manifest has the name, too.
        token: names this start of the run; workers prove with it that they see the run directory.
        processes: user processes of this worker.
        share: where it stands among the workers of its node.
        gpus_per_process: GPUs of a user process; ``None``: one, if there are any.
        environment_variables: of the user processes, see the job config.
        checks_code: whether processes with other code than the run was begun with are refused.
        azureml: when user processes take ``azureml`` from us: auto, always or never.
        heartbeat_interval: seconds between two signs of life, of workers and master.
        master_timeout: seconds of silence after which the master counts as lost.
        window: seconds of work that a user process may have waiting.
        stop_grace: seconds that running mini-batches may go on after a stop signal.
        scratch: folder for what is only of this node; ``None``: where the node's environment says.
        scratch_limit: bytes of it that fetched files may take.
        storages: how to get at the store of each input, secrets included: they travel in memory alone.
        side_inputs: see :meth:`mpi_prs.inputs.near.side_inputs.SideInput.secret`: they, too, hold secrets.
        process: of its user processes.
    """

    last_try: int
    bisect_on_failure: bool
    run_root: str
    run: str
    token: str
    processes: int
    share: Share
    gpus_per_process: int | None
    environment_variables: dict[str, str]
    checks_code: bool
    azureml: str
    heartbeat_interval: float
    master_timeout: float
    window: float
    stop_grace: float
    scratch: str | None
    scratch_limit: int
    storages: Sequence[dict[str, Any]]
    side_inputs: Sequence[dict[str, Any]]
    process: ProcessSettings

    def pack(self) -> bytes:
        """The body of START."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, body: bytes) -> WorkerSettings:
        """The inverse of :meth:`pack`."""
        fields = json.loads(body)
        share, process = Share(**fields.pop("share")), ProcessSettings(**fields.pop("process"))
        return cls(share=share, process=process, **fields)
