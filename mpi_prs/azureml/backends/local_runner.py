"""``python -m mpi_prs.azureml.backends.local_runner FOLDER``: runs a pipeline run's steps on this machine, in order.

::

    notebook ──► runner (a session of its own) ──► mpirun ─► rank 0, workers ─► user processes      step by step
       ends: no matter    │ killed: mpirun gets SIGTERM, and the step ends in good order
                          ├── looks for the mark `cancelled` of the step's folder twice a second
                          └── writes runner.json: what each step came to

Started again on the same folder it goes on: a step that has completed says so at once, one that was stopped resumes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mpi_prs.azureml.backends.runner_record import UPDATE_SECONDS, RunnerRecord, StepProgress
from mpi_prs.child.context.run_record import RunFolder, RunRecord, read_record
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.environ import EXIT_CODE, HERE, LATER_STEP, SIGNAL_LEAD
from mpi_prs.core.errors import (
    EXIT_COMPLETE,
    EXIT_FAILED,
    EXIT_RESUMABLE,
    EXIT_USAGE,
    MpiPrsError,
    OutputError,
    PipelineError,
)
from mpi_prs.core.prctl import die_with_parent
from mpi_prs.core.process_mark import ProcessMark
from mpi_prs.core.records import write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.job.batch import processes_per_rank, program
from mpi_prs.job.config.model import JobConfig, load_config
from mpi_prs.job.run.run_lock import RunLock

_LOOK_SECONDS = 0.5
_DRAIN_SECONDS = 2.0
"""So long running mini-batches may go on when the run is cancelled; then they are cut off, which costs them no try."""
_END_SECONDS = 30.0
"""After that everything is killed; what is on record holds."""
_LOCK_SECONDS = 60.0
_STARTS = 3  # of a step whose MPI is lost
_NEVER_BEGUN = (1, 2, 126, 127)
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAITED_FOR = (*_STOP, signal.SIGCHLD)
_FOREIGN = (
    "SLURM_",
    "SLURMD_",
    "SBATCH_",
    "SRUN_",
    "PMI_",
    "PMIX_",
    "OMPI_COMM_",
    SIGNAL_LEAD.name,
    LATER_STEP.name,
)
"""Variables of a job that the notebook may be in: they are not for the steps, which are this machine's alone."""


class Runner:
    """Runs the steps of one pipeline run.

    Args:
        root: the folder of the pipeline run.
    """

    def __init__(self, root: Path) -> None:
        layout = WorkspaceFolder(root.parents[2])
        pipeline = read_record(layout, root.parent.name, root.name)
        if pipeline.pipeline is None:
            raise PipelineError(f"{root} is not the folder of a pipeline run")
        self._folder = RunFolder(root)
        self._steps = [read_record(layout, pipeline.experiment, step) for step in pipeline.pipeline.steps]
        self._stopped = False
        self._record = RunnerRecord(ProcessMark.of_this_process(), time.time())

    def claim(self) -> None:
        """Say that this process is at work, and keep others away. Raises PipelineError: another one is at work."""
        try:
            self._lock = RunLock(self._folder.runner_lock)
        except OutputError as error:
            raise PipelineError(f"another process runs the pipeline run {self._folder.root.name}: {error}") from None
        self._record = RunnerRecord(ProcessMark.of_this_process(), time.time())
        self._write()

    def run(self) -> int:
        """Run what is left; returns the exit code: 0 when every step has completed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        for record in self._steps:
            assert record.step is not None
            if record.step.reused is None:
                progress = self._why_not(record) or self._run_step(record)
                self._note(record, progress)
        self._record = dataclasses.replace(self._record, finished=True)
        self._write()
        return EXIT_COMPLETE if all(each.exit_code == 0 for each in self._record.steps.values()) else EXIT_FAILED

    def _why_not(self, record: RunRecord) -> StepProgress | None:
        """What becomes of a step that is not to be run; ``None``: it is."""
        assert record.step is not None
        by_id = {step.id: step for step in self._steps}
        for need in record.step.needs:
            progress = self._record.steps.get(need)
            if progress is not None and progress.exit_code != EXIT_COMPLETE:
                name = by_id[need].name
                return StepProgress(EXIT_FAILED, f"not run, since it needs the step {name}, which has not completed")
        if self._stopped:
            return StepProgress(EXIT_RESUMABLE, "not run, since the process that ran the pipeline was told to stop")
        if self._folder_of(record).cancelled.exists():
            return StepProgress(EXIT_RESUMABLE, "canceled before it began")
        return None

    def _run_step(self, record: RunRecord) -> StepProgress:
        folder = self._folder_of(record)
        self._note(record, StepProgress(began=time.time()))
        try:
            config = load_config(folder.job)
            command = step_command(config, folder.job)
        except MpiPrsError as error:
            _say(f"step {record.name}: {error}")
            return StepProgress(error.exit_code)
        self._wait_for_the_one_before(config)
        for start in range(1, _STARTS + 1):
            _say(f"step {record.name}: {' '.join(command)}")
            exit_code, has_left_word = self._start(record, command)
            _say(f"step {record.name}: exit code {exit_code}")
            if has_left_word or self._stopped or folder.cancelled.exists() or exit_code in _NEVER_BEGUN:
                break
            if start < _STARTS:
                _say(f"step {record.name}: rank 0 has left no word, so MPI was lost: starting it again")
        return StepProgress(exit_code)

    def _wait_for_the_one_before(self, config: JobConfig) -> None:
        """A step that is resumed may have processes left of a runner that was killed: they end in good order first."""
        run = RunDirectory(config.output)
        if run.lock.exists():
            with contextlib.suppress(OutputError, OSError):  # the step itself will say it
                RunLock(run.lock, _LOCK_SECONDS).release()

    def _start(self, record: RunRecord, command: Sequence[str]) -> tuple[int, bool]:
        """Start a step once and wait for its end; returns the exit code, and whether it is rank 0's own word."""
        folder = self._folder_of(record)
        folder.logs.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="mpi_prs-exit-code-") as word, open(folder.console_log, "ab") as log:
            environment = {name: value for name, value in HERE.items() if not name.startswith(_FOREIGN)}
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder.root,
                env={**environment, EXIT_CODE.name: word.name},
                start_new_session=True,
                preexec_fn=_in_child(os.getpid()),  # noqa: PLW1509  # this process has one thread
            )
            self._wait(process, folder)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever it may have left
            text = word.read().decode("ascii", "replace").strip()
        if text.isdecimal():
            return int(text), True
        code = process.returncode
        return (128 - code if code < 0 else code or EXIT_RESUMABLE), False

    def _wait(self, process: subprocess.Popen[bytes], folder: RunFolder) -> None:
        """Until it has ended; where that is wanted, it is told to drain, then to stop, then killed."""
        never = float("inf")
        hurry = kill = never
        while process.poll() is None:
            received = signal.sigtimedwait(_WAITED_FOR, _LOOK_SECONDS)
            self._stopped |= received is not None and received.si_signo in _STOP
            now = time.monotonic()
            if kill == never and (self._stopped or folder.cancelled.exists()):
                _say("stopping the step")
                hurry, kill = now + _DRAIN_SECONDS, now + _END_SECONDS
                process.terminate()
            if now >= hurry:  # again and again: a launcher that is just starting may lose a signal
                hurry = now + _DRAIN_SECONDS
                process.terminate()
            if now >= kill:
                _say("the step does not end: killing it")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if time.time() - self._record.updated > UPDATE_SECONDS:
                self._write()

    def _folder_of(self, record: RunRecord) -> RunFolder:
        return RunFolder(self._folder.root.with_name(record.id))

    def _note(self, record: RunRecord, progress: StepProgress) -> None:
        self._record = dataclasses.replace(self._record, steps={**self._record.steps, record.id: progress})
        self._write()

    def _write(self) -> None:
        self._record = dataclasses.replace(self._record, updated=time.time())
        try:
            write_dataclass(self._folder.runner, self._record)
        except OSError as error:  # a full disk is no reason to end the step
            _say(f"cannot write {self._folder.runner}: {error.strerror}")


def step_command(config: JobConfig, job: Path) -> list[str]:
    """What runs a step here: under ``mpirun`` where there is one, else in one process.

    This machine is one node, whatever ``node_count`` says.
    """
    command = [*program(), "run", str(job)]
    mpirun = find_mpirun()
    if mpirun is None:
        return [*command, "--local", str(config.process_count_per_node)]
    per_rank = processes_per_rank(config)
    if per_rank != config.processes_per_rank:
        command += ["--set", f"processes_per_rank={per_rank}"]
    ranks = config.process_count_per_node // per_rank + 1
    return [mpirun, *_options_of(mpirun), "-n", str(ranks), *command]


def find_mpirun() -> str | None:
    """That of pip's MPI, which is beside Python and not always in the PATH; else the machine's, if it has one."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun")


def _options_of(mpirun: str) -> list[str]:
    """Open MPI's wants to be told that there may be more ranks than cores, and that root may start it."""
    try:
        version = subprocess.run([mpirun, "--version"], capture_output=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    if b"Open MPI" not in version:
        return []
    as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["--map-by", "slot:OVERSUBSCRIBE", "--bind-to", "none", *as_root]


class _in_child:
    """Run between fork and exec: the signals that the runner waits for come through again, and SIGTERM comes when the
    runner dies."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
        die_with_parent(signal.SIGTERM)
        if os.getppid() != self._parent:
            os._exit(EXIT_RESUMABLE)


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run a pipeline run; with ``--detach``, in a process that goes on when this one has ended."""
    folders = [argument for argument in arguments if argument != "--detach"]
    if len(folders) != 1:
        _say("expected one argument, the folder of a pipeline run")
        return EXIT_USAGE
    detached = "--detach" in arguments
    try:
        runner = Runner(Path(os.path.abspath(folders[0])))
        at_work, word = os.pipe()
        if detached and os.fork():
            os.close(word)
            return EXIT_COMPLETE if os.read(at_work, 1) else EXIT_USAGE
        os.close(at_work)
        runner.claim()
    except (MpiPrsError, OSError) as error:
        _say(f"error: {error}")
        return EXIT_USAGE
    if detached:
        os.write(word, b"1")
    os.close(word)
    return runner.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
