"""Environment variables: what their values are, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from mpi_prs.core import environ
from mpi_prs.core.environ import Variable, without_rank
from mpi_prs.core.errors import LaunchError

ALL = [each for each in vars(environ).values() if isinstance(each, Variable)]


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        (environ.CONFIG, "a.yaml", "a.yaml"),
        (environ.CONFIG, "", None),
        (environ.SIGNAL_LEAD, "90", 90),
        (environ.SIGNAL_LEAD, "0", 0),
        (environ.LATER_STEP, "1", True),
        (environ.TENSORFLOW1, "0", False),
        (environ.AZUREML, "Always", "always"),
        (environ.LOGGING_LEVEL, "error", "ERROR"),
        (environ.SLURM_JOB_ID, "12", 12),
        (environ.SLURM_JOB_ID, "12_3", None),
        (environ.PMI_RANK, "-1", None),
        (environ.EXIT_CODE, " ", " "),  # whoever ends does not fail over it
    ],
)
def test_a_variable_has_a_value_or_none(variable: Variable[object], text: str, value: object) -> None:
    assert variable.of({variable.name: text}) == value
    assert variable.of({}) is None


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        (
            environ.START_TIMEOUT,
            "soon",
            "got 'soon'; expected a number of seconds, more than 0",
        ),
        (environ.SIGNAL_LEAD, "90s", "got '90s'; expected a number of seconds, at least 0"),
        (environ.TABLES_IN_FILES, "yes", "got 'yes'; expected a whole number from 0 to 1"),
        (environ.AZUREML, "sometimes", "got 'sometimes'; expected one of auto, always, never"),
        (environ.HOME, "abfs://x", "expected a path"),
    ],
)
def test_a_wrong_value_of_ours_is_one_message(variable: Variable[object], text: str, words: str) -> None:
    with pytest.raises(LaunchError) as wrong:
        variable.of({variable.name: text})
    assert str(wrong.value).startswith(f"the environment variable {variable.name}, {variable.meaning}: ")
    assert words in str(wrong.value)


def test_each_is_named_once() -> None:
    names = [each.name for each in ALL]
    assert len(names) == len(set(names))


def test_what_a_rank_starts_does_not_take_itself_for_a_rank() -> None:
    kept = {
        "PATH": "/bin",
        "SLURM_JOB_ID": "7",
        "SLURMD_NODENAME": "n17",
        "CUDA_VISIBLE_DEVICES": "0",
        "MPI_HOME": "/mpi",
    }
    of_a_rank = [
        "PMI_RANK",
        "PMI_FD",
        "PMIX_RANK",
        "OMPI_COMM_WORLD_RANK",
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "MPI_LOCALRANKID",
    ]
    assert without_rank({**kept, **dict.fromkeys(of_a_rank, "1")}) == kept
