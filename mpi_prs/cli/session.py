"""What the commands of one process share: the ranks, if there are any, and whether the workers know how it ends."""

from __future__ import annotations

from dataclasses import dataclass

from mpi_prs.core.errors import LaunchError
from mpi_prs.engine.master.shutdown import dismiss, farewell
from mpi_prs.engine.mpi import connect
from mpi_prs.engine.transport import Transport


@dataclass
class Session:
    """The ranks of this process, as far as a command needs them."""

    transport: Transport | None
    workers_told: bool = False

    def ranks(self) -> Transport:
        """The MPI ranks.

        Raises:
            LaunchError: there is no MPI, or there are no workers.
        """
        transport = self.transport = self.transport or connect()
        if transport.rank == 0 and transport.size < 2:
            raise LaunchError(
                "one rank is the master, so at least two are needed: mpirun -n 8 python -m mpi_prs run CONFIG. "
                "Without MPI, on this machine alone: python -m mpi_prs run CONFIG --local 4"
            )
        return transport

    def master_takes_over(self) -> None:
        """From here on the master tells the workers how it ends."""
        self.workers_told = True

    def release(self, exit_code: int) -> None:
        """Let workers that were never started go, and finish MPI."""
        if self.transport is None:
            return
        if self.transport.rank == 0 and not self.workers_told:
            dismiss(self.transport, exit_code)
        if self.transport.rank == 0:
            farewell(self.transport)
        self.transport.close(exit_code)
