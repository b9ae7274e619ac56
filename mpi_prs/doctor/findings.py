"""What the doctor finds, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Mpirun(NamedTuple):
    """A launcher on this machine: where it is, and how it names itself."""

    path: str
    version: str


@dataclass(frozen=True)
class Launch:
    """How the first rank was started, and how ranks can be started from here; known before MPI starts.

    Attributes:
        python: the interpreter.
        library: MPI's own name and version; empty where mpi4py cannot load one.
        mpi4py: its version; empty where there is none.
        launcher: what started the ranks; empty where nothing did.
        ranks: how many the launcher says that it started.
        mpiruns: beside the interpreter, and the first one in the PATH.
        srun_types: what ``srun --mpi=list`` names; ``None``: there is no srun.
        warning: what may keep MPI from starting; empty: nothing is known.
    """

    python: str
    library: str
    mpi4py: str
    launcher: str
    ranks: int
    mpiruns: tuple[Mpirun, ...]
    srun_types: tuple[str, ...] | None
    warning: str = ""


@dataclass(frozen=True)
class RankFindings:
    """What one rank sees.

    Attributes:
        rank, node: its number, and the name of its node.
        host: the machine's own name.
        versions: of Python and of packages; a package that is not there is left out.
        cores: that it may run on, as numbers; of all cores that the machine has, ``machine_cores``.
        gpu_variables: the environment's words about GPUs, name → value.
        gpus: what ``nvidia-smi -L`` lists, a line each; ``None``: not asked, or no nvidia-smi.
        gpu_problem: why nvidia-smi failed; empty: it did not.
        in_slurm: whether it runs in a Slurm job.
        scratch: the folder for what is only of this node; empty with ``scratch_problem``.
        scratch_free: bytes.
        shared_problem: why it does not see what rank 0 wrote into the shared folder; empty: it sees it.
    """

    rank: int
    node: str
    host: str
    versions: Mapping[str, str]
    cores: tuple[int, ...]
    machine_cores: int
    gpu_variables: Mapping[str, str]
    gpus: tuple[str, ...] | None
    gpu_problem: str
    in_slurm: bool
    scratch: str
    scratch_problem: str
    scratch_free: int
    shared_problem: str

    def to_json(self) -> bytes:
        """For a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, body: bytes) -> RankFindings:
        """The inverse of :meth:`to_json`."""
        fields: dict[str, Any] = json.loads(body)
        fields["cores"] = tuple(fields["cores"])
        fields["gpus"] = None if fields["gpus"] is None else tuple(fields["gpus"])
        return cls(**fields)


@dataclass(frozen=True)
class Journey:
    """What messages between rank 0 and another rank cost.

    Attributes:
        round_trip: seconds there and back, the best of some.
        clock: seconds that its clock is ahead of rank 0's.
    """

    round_trip: float
    clock: float


@dataclass(frozen=True)
class Survey:
    """All that was found.

    Attributes:
        launch: see :class:`Launch`.
        launch_problem: why the ranks do not find each other; empty: they do.
        shared: the folder that all nodes should see.
        shared_problem: why rank 0 cannot write into it; empty: it can.
        size: ranks that MPI knows of.
        found: by those ranks that answered.
        silent: rank → what it did not do, of the others.
        journeys: rank → what its messages cost, for one rank of each node.
        first_message, last_message: seconds from rank 0's start until one rank, all ranks had reported.
    """

    launch: Launch
    launch_problem: str
    shared: str
    shared_problem: str
    size: int
    found: tuple[RankFindings, ...]
    silent: Mapping[int, str]
    journeys: Mapping[int, Journey]
    first_message: float
    last_message: float
