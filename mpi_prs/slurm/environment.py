"""What Slurm told this process by its environment, read once.

Nothing here is trusted to be there: a site's own wrapper may have taken variables away, so each is optional or has the
value that does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mpi_prs.core.environ import HERE, LATER_STEP, SIGNAL_LEAD, SLURM_JOB_ID, SLURM_RESTART_COUNT


@dataclass(frozen=True)
class SlurmEnvironment:
    """A process of a Slurm job.

    Attributes:
        job_id: of this job; that of the element where it belongs to an array.
        is_restart: the job has been requeued, or its batch script has started this for want of the step before.
        signal_lead: seconds from SIGUSR2 to the time limit, as the batch script says; ``None``: it does not say.
    """

    job_id: str
    is_restart: bool
    signal_lead: float | None

    @property
    def by_batch_script(self) -> bool:
        """Whether a batch script of ours started this, which gives the same command at each start of the job."""
        return self.signal_lead is not None

    @classmethod
    def of(cls, environ: Mapping[str, str] = HERE) -> SlurmEnvironment | None:
        """From the environment of a process; ``None`` outside Slurm.

        Raises:
            LaunchError: what the batch script says of itself is wrong.
        """
        job_id = SLURM_JOB_ID.of(environ)
        if job_id is None:
            return None
        return cls(
            job_id=str(job_id),
            is_restart=SLURM_RESTART_COUNT.of(environ) not in (None, "0") or LATER_STEP.of(environ) is True,
            signal_lead=SIGNAL_LEAD.of(environ),
        )
