"""The environment variables that we read: each named once, with what it holds and who sets it.

::

    people, sites        CONFIG, HOME, START_TIMEOUT, ENVIRONMENT_POLICY
    the batch script     EXIT_CODE, SIGNAL_LEAD, LATER_STEP ──► the first rank
    Slurm, launchers     SLURM_…, OMPI_…, PMI_…, PMIX_… ──► every rank
    ranks, the SDK       AZUREML … NAMED_INPUTS ──► user processes, and what these start

A wrong value in a variable of ours is told as the mistake that it is. Those of Slurm and of launchers are not trusted
to be there, since a site's own wrapper may have taken them away or changed them: a wrong one counts as none.

Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Generic, Optional, TypeVar  # noqa: UP035  # Python 3.7

from mpi_prs.core import values
from mpi_prs.core.errors import LaunchError

T = TypeVar("T")

HERE: Mapping[str, str] = os.environ
"""The environment of this process, to be read, or to make a child's of."""


@dataclass(frozen=True)
class Variable(Generic[T]):
    """An environment variable.

    Attributes:
        name: of it.
        check: makes its value of the text; raises WrongValue.
        meaning: what it says, in a line.
    """

    name: str
    check: Callable[[Any], T]
    meaning: str

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("MPI_PRS_")

    def of(self, environ: Mapping[str, str] = HERE) -> Optional[T]:  # noqa: UP045  # Python 3.7
        """Its value; ``None``: it is not set, or empty.

        Raises:
            LaunchError: it is one of ours, and its value is none.
        """
        text = environ.get(self.name)
        if not text:
            return None
        try:
            return self.check(text)
        except values.WrongValue as wrong:
            if not self.is_ours:
                return None
            fields = wrong.fields(f"the environment variable {self.name}, {self.meaning}")
            raise LaunchError(**fields) from None


def _decimal(value: Any) -> int:
    if not value.isdecimal():
        raise values.WrongValue("expected a number", value)
    return int(value)


def _flag(value: Any) -> bool:
    return bool(values.whole_number(0, 1)(value))


_LEVEL = values.one_of("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", upper=True)

# Set by people and sites

CONFIG = Variable("MPI_PRS_CONFIG", values.path, "the job config of the command line that names none")
HOME = Variable("MPI_PRS_HOME", values.path, "the folder of workspaces that are given none")
START_TIMEOUT = Variable("MPI_PRS_START_TIMEOUT", values.seconds, "the time that MPI has for its start")
ENVIRONMENT_POLICY = Variable("MPI_PRS_ENVIRONMENT_POLICY", values.name, "where the environments of steps come from")

# Set by the batch script for the first rank

EXIT_CODE = Variable("MPI_PRS_EXIT_CODE", str, "the file for the exit code, which the launcher may not tell")
SIGNAL_LEAD = Variable("MPI_PRS_SIGNAL_LEAD", values.seconds_from_zero, "the time between SIGUSR2 and the time limit")
LATER_STEP = Variable("MPI_PRS_LATER_STEP", _flag, "whether the batch script has begun a step before")

# Set for user processes by their worker

AZUREML = Variable("MPI_PRS_AZUREML", values.one_of("auto", "always", "never"), "when the names azureml are ours")
TENSORFLOW1 = Variable("MPI_PRS_TENSORFLOW1", _flag, "whether tensorflow is TensorFlow 2's interface of version 1")
TABLES_IN_FILES = Variable(
    "MPI_PRS_TABLES_IN_FILES",
    _flag,
    "whether tables come by files, as containers need it",
)
PROCESS_FOLDER = Variable("MPI_PRS_PROCESS_FOLDER", values.path, "the own folder of a user process")
OUTPUT = Variable("AZUREML_BI_OUTPUT_PATH", values.path, "the output folder")
LOG_FOLDER = Variable("MPI_PRS_LOG_DIR", values.path, "the folder for logs of EntryScript")
SOURCE_DIRECTORY = Variable("MPI_PRS_SOURCE_DIRECTORY", values.path, "the folder of the user's code")
PROCESS_NAME = Variable("MPI_PRS_PROCESS_NAME", values.name, "the name of a user process on its node")
LOGGING_LEVEL = Variable("MPI_PRS_LOGGING_LEVEL", _LEVEL, "the level of EntryScript's logger")
SERVICE_RUN_ID = Variable(
    "AZUREML_RUN_ID", values.name, "the step run, or a name: the sign that the service runs a script"
)

# Set for user processes by the SDK

WORKSPACE = Variable("MPI_PRS_WORKSPACE", values.path, "the folder of the workspace")
EXPERIMENT = Variable("MPI_PRS_EXPERIMENT", values.name, "the name of the experiment")
RUN_ID = Variable("MPI_PRS_RUN_ID", values.name, "the id of the step run")
MODELS = Variable("MPI_PRS_MODELS", values.name, "the latest versions of models, as JSON")
NAMED_INPUTS = Variable("MPI_PRS_NAMED_INPUTS", values.name, "what is told of named inputs, as JSON")

# Set by Slurm

SLURM_CONF = Variable("SLURM_CONF", values.path, "the configuration of the cluster")
SLURM_JOB_ID = Variable("SLURM_JOB_ID", _decimal, "the job; that of the element, where it belongs to an array")
SLURM_RESTART_COUNT = Variable("SLURM_RESTART_COUNT", values.name, "how often the job was requeued")
SLURM_TMPDIR = Variable("SLURM_TMPDIR", values.path, "a folder on the node's own disk, for the job")
SLURM_NODE_NAME = Variable("SLURMD_NODENAME", values.name, "the node; several may share a host")
SLURM_PROCID = Variable("SLURM_PROCID", _decimal, "the number of a task in its step")
SLURM_LOCALID = Variable("SLURM_LOCALID", _decimal, "the number of a task on its node")
SLURM_NTASKS = Variable("SLURM_NTASKS", _decimal, "tasks of the job or step")
SLURM_STEP_NUM_TASKS = Variable("SLURM_STEP_NUM_TASKS", _decimal, "tasks of the step")
SLURM_NTASKS_PER_NODE = Variable("SLURM_NTASKS_PER_NODE", _decimal, "tasks of a node, as sbatch was told")
SLURM_STEP_TASKS_PER_NODE = Variable("SLURM_STEP_TASKS_PER_NODE", values.name, "tasks of each node, such as 2(x3),1")
SLURM_CPUS_ON_NODE = Variable("SLURM_CPUS_ON_NODE", _decimal, "cores that the job has of the node")
SLURM_CPUS_PER_TASK = Variable("SLURM_CPUS_PER_TASK", _decimal, "cores that a task has")
SLURM_STEP_GPUS = Variable("SLURM_STEP_GPUS", values.name, "GPUs that the step has of the node, such as 0-2,5")
SLURM_JOB_GPUS = Variable("SLURM_JOB_GPUS", values.name, "GPUs that the job has of the node")
SLURM_GPUS_PER_TASK = Variable("SLURM_GPUS_PER_TASK", values.name, "GPUs of a task: a number, perhaps after a type")

# Set by launchers of MPI

OMPI_RANK = Variable("OMPI_COMM_WORLD_RANK", _decimal, "the rank, as Open MPI's mpirun says")
OMPI_SIZE = Variable("OMPI_COMM_WORLD_SIZE", _decimal, "the number of ranks")
PMI_RANK = Variable("PMI_RANK", _decimal, "the rank, as a launcher of MPICH's kind says")
PMI_SIZE = Variable("PMI_SIZE", _decimal, "the number of ranks")
PMIX_RANK = Variable("PMIX_RANK", _decimal, "the rank, as a launcher that speaks PMIx says")


OF_USER_PROCESSES: Mapping[str, Variable[Any]] = {
    variable.name: variable for variable in (AZUREML, TENSORFLOW1, TABLES_IN_FILES, LOGGING_LEVEL)
}
"""What a job may set for its user processes, by name."""


_OF_A_RANK = (
    *("PMI_", "PMIX_", "PMI2_", "OMPI_", "PRTE_", "HYDI_", "HYDRA_", "MPI_LOCAL"),
    *(variable.name for variable in (SLURM_PROCID, SLURM_LOCALID, SLURM_NTASKS, SLURM_STEP_NUM_TASKS)),
)


def without_rank(environ: Mapping[str, str]) -> dict[str, str]:
    """A rank's environment without what makes a process a rank: for what it starts.

    A script that imports mpi4py or asks for its rank (as training frameworks do) would else take itself for the worker,
    and disturb it.
    """
    return {name: value for name, value in environ.items() if not name.startswith(_OF_A_RANK)}
