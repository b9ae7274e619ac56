"""What Slurm told this process by its environment, read once.

Nothing here is trusted to be there: a site's own wrapper may have taken variables away, so each is optional or has the
value that does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SIGNAL_LEAD = "MPI_PRS_SIGNAL_LEAD"
"""Exported by the batch script: the seconds before the time limit at which Slurm sends SIGUSR2."""

_LATER_STEP = "MPI_PRS_LATER_STEP"


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
    def of(cls, environ: Mapping[str, str]) -> SlurmEnvironment | None:
        """From the environment of a process; ``None`` outside Slurm."""
        job_id = environ.get("SLURM_JOB_ID", "")
        if not job_id.isdecimal():
            return None
        lead = environ.get(SIGNAL_LEAD, "")
        return cls(
            job_id=job_id,
            is_restart=any(environ.get(name, "0") != "0" for name in ("SLURM_RESTART_COUNT", _LATER_STEP)),
            signal_lead=float(lead) if lead.isdecimal() else None,
        )
