"""What MPI is told before it starts."""

from __future__ import annotations

import pytest

from mpi_prs.engine.mpi import safe_start, start_seconds
from mpi_prs.errors import LaunchError

BOTH = "MPICH Version:      5.0.2\nMPICH Device:       ch4:ucx ofi\nMPICH configure:    --with-device=ch4:ucx,ofi"
IN_A_STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "PMI_JOBID": "7.0", "PMI_RANK": "1"}


def test_an_mpich_with_both_modules_takes_the_one_whose_addresses_fit_into_a_line_of_slurms_pmi() -> None:
    assert safe_start(BOTH, IN_A_STEP) == {"MPIR_CVAR_CH4_NETMOD": "ofi"}


@pytest.mark.parametrize(
    ("library", "environ"),
    [
        pytest.param(BOTH, {"PMI_RANK": "1"}, id="mpirun"),
        pytest.param(BOTH, IN_A_STEP | {"PMI_JOBID": "kvs_1"}, id="mpirun in an allocation"),
        pytest.param(BOTH.replace("ch4:ucx ofi", "ch4:ucx"), IN_A_STEP, id="UCX alone"),
        pytest.param(BOTH.replace("ch4:ucx ofi", "ch4:ofi"), IN_A_STEP, id="OFI alone"),
        pytest.param(BOTH, IN_A_STEP | {"MPICH_CH4_NETMOD": "ucx"}, id="somebody has chosen"),
        pytest.param("Open MPI v5.0.11, package: Open MPI", IN_A_STEP, id="Open MPI"),
    ],
)
def test_all_others_start_as_they_are(library: str, environ: dict[str, str]) -> None:
    assert safe_start(library, environ) == {}


def test_the_start_may_take_ten_minutes_or_what_the_variable_says() -> None:
    assert start_seconds({}) == start_seconds({"MPI_PRS_START_TIMEOUT": ""}) == 600
    assert start_seconds({"MPI_PRS_START_TIMEOUT": "2.5"}) == 2.5
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(LaunchError, match=r"MPI_PRS_START_TIMEOUT: got .* expected seconds"):
            start_seconds({"MPI_PRS_START_TIMEOUT": wrong})
