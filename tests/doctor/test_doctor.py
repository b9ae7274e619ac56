"""``mpi-prs doctor``: what it finds and what it advises, from made-up nodes to real launchers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.doctor import exchange, look
from mpi_prs.doctor.exchange import ProbeTag, answer, dismiss, survey_all, survey_alone
from mpi_prs.doctor.findings import Journey, Launch, Mpirun, RankFindings, Survey
from mpi_prs.doctor.look import Note, look_at_launch, look_at_rank, shared_note
from mpi_prs.doctor.report import family, fitting_launchers, launch_lines, survey_lines, to_change, worth_knowing
from mpi_prs.engine.transport import LocalTransport, local_world
from tests.support.jobs import REPOSITORY, Mpi, wait_until
from tests.support.slurm_cluster import SlurmCluster

HYDRA = Mpirun("/venv/bin/mpirun", "HYDRA build details:\n Version: 5.0.2")
OPENMPI = Mpirun("/usr/bin/mpirun", "mpirun (Open MPI) 4.1.4")
LAUNCH = Launch("/venv/bin/python", "MPICH Version: 4.3.2", "4.1.2", "srun", 4, (HYDRA,), ("none", "pmi2"))
VERSIONS = {"Python": "3.11.7", "numpy": "2.1.0"}


def found(rank: int, node: str, **changes: Any) -> RankFindings:
    fields: dict[str, Any] = {
        "rank": rank,
        "node": node,
        "host": node,
        "versions": VERSIONS,
        "cores": tuple(range(8)),
        "machine_cores": 8,
        "gpu_variables": {},
        "gpus": None,
        "gpu_problem": "",
        "in_slurm": True,
        "scratch": "/tmp",
        "scratch_problem": "",
        "scratch_free": 70 * 10**9,
        "shared_problem": "",
    }
    return RankFindings(**{**fields, **changes})


def survey(*ranks: RankFindings, **changes: Any) -> Survey:
    """Two healthy nodes of two ranks, with one or another rank as given."""
    healthy = {rank: found(rank, f"n{1 + rank // 2}") for rank in range(4)}
    everything = {**healthy, **{one.rank: one for one in ranks}}
    base = Survey(LAUNCH, "", "/shared", "", 4, tuple(everything.values()), {}, {2: Journey(2e-5, 0.001)}, 0.8, 0.9)
    return replace(base, **changes)


# What to change


def test_nothing_is_to_be_changed_where_all_is_well() -> None:
    assert to_change(survey()) == []
    assert worth_knowing(survey()) == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (survey(silent={3: "has not reported within 60 s"}), ["rank 3 has not reported within 60 s"]),
        (survey(found(2, "n2", shared_problem="no such file")), ["n2 does not see /shared", "no such file"]),
        (survey(shared_problem="cannot write into /shared: read-only"), ["cannot write into /shared", "--shared"]),
        (survey(found(1, "n1", scratch_problem="/tmp is full")), ["n1: no scratch folder (/tmp is full)", "TMPDIR"]),
        (survey(found(2, "n2", versions={**VERSIONS, "numpy": "1.0"})), ["n2: numpy 1.0 instead of 2.1.0"]),
        (
            survey(*(found(rank, "n2", versions={"Python": "3.9", "numpy": "1.0"}) for rank in (2, 3))),
            ["n2: Python 3.9 instead of 3.11.7, numpy 1.0 instead of 2.1.0: use the same environment"],
        ),
        (survey(found(2, "n2", versions={"Python": "3.11.7"})), ["n2: numpy none instead of 2.1.0"]),
        (survey(journeys={2: Journey(2e-5, -7.5)}), ["n2 by -7.5 s", "NTP"]),
        (
            survey(found(0, "n1", cores=(0,)), found(1, "n1", cores=(0,))),
            ["n1: 2 ranks are bound to 1 of 8 cores", "--bind-to none"],
        ),
        (survey(launch_problem="each of them is alone"), ["each of them is alone", "srun --mpi=pmi2", HYDRA.path]),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(seen: Survey, words: list[str]) -> None:
    (advice,) = to_change(seen)
    assert [word for word in words if word not in advice] == [], advice


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (survey(found(1, "n1", scratch_free=10**6)), ["less than 1 GB", "n1"]),
        (survey(found(2, "n2", gpu_problem="no driver")), ["nvidia-smi fails on n2: no driver"]),
        (survey(found(2, "n2", gpus=("GPU 0: A100",))), ["n2", "Slurm gave none", "gpus_per_process"]),
        (survey(launch=replace(LAUNCH, mpiruns=(HYDRA, OPENMPI))), [OPENMPI.path, "Open MPI", "MPICH"]),
        (survey(launch=replace(LAUNCH, srun_types=("none", "pmix_v4"))), ["does not offer the pmi2", "use mpirun"]),
        (survey(launch=replace(LAUNCH, library="MPICH Version: 5.0.2")), ["deprecated from MPICH 5 on", "--mpi=pmix"]),
    ],
)
def test_what_may_be_meant_is_only_worth_knowing(seen: Survey, words: list[str]) -> None:
    assert to_change(seen) == []
    (hint,) = worth_knowing(seen)
    assert [word for word in words if word not in hint] == [], hint


def test_gpus_that_slurm_gave_are_no_reason_to_speak() -> None:
    given = found(2, "n2", gpus=("GPU 0: A100",), gpu_variables={"CUDA_VISIBLE_DEVICES": "0"})
    assert worth_knowing(survey(given)) == []


def test_one_advice_stands_for_many_nodes() -> None:
    many = [found(rank, f"n{rank:03d}", shared_problem="no such file") for rank in range(1, 500)]
    seen = survey(*many, size=500)
    (advice,) = to_change(seen)
    assert "and 491 more" in advice
    assert len(advice) < 400
    assert len(survey_lines(seen)) < 30


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MPICH Version: 5.0.2", "MPICH"),
        ("HYDRA build details:", "MPICH"),
        ("Open MPI v5.0.11", "Open MPI"),
        ("mpirun (Open MPI) 4.1.4", "Open MPI"),
        ("Intel(R) MPI Library 2021.11", "Intel MPI"),
        ("Intel(R) MPI Library for Linux* OS, HYDRA", "Intel MPI"),
        ("MVAPICH Version : 3.0", "MVAPICH"),
        ("LAM 7.1", ""),
    ],
)
def test_libraries_and_launchers_are_told_apart(text: str, name: str) -> None:
    assert family(text) == name


def test_the_launcher_that_fits_is_of_the_same_mpi() -> None:
    assert fitting_launchers(LAUNCH) == ["srun --mpi=pmi2", HYDRA.path]
    openmpi = replace(LAUNCH, library="Open MPI v5.0.11", mpiruns=(HYDRA, OPENMPI), srun_types=("pmi2", "pmix_v4"))
    assert fitting_launchers(openmpi) == ["srun --mpi=pmix", OPENMPI.path]
    assert fitting_launchers(replace(openmpi, library="")) == []
    with_pmix = replace(LAUNCH, library="MPICH Version: 5.0.2 built with PMIx", srun_types=("pmi2", "pmix_v4"))
    assert fitting_launchers(with_pmix) == ["srun --mpi=pmix", HYDRA.path]
    assert worth_knowing(survey(launch=with_pmix)) == []
    assert "none found that fits" in "\n".join(launch_lines(replace(LAUNCH, mpiruns=(), srun_types=None)))


def test_a_node_is_one_line() -> None:
    gpus = {"CUDA_VISIBLE_DEVICES": "0,1"}
    seen = survey(found(2, "n2", host="h7", gpus=("a", "b"), gpu_variables=gpus, shared_problem="no such file"))
    (line,) = [line for line in survey_lines(seen) if line.startswith("node n2")]
    assert line == (
        "node n2: ranks 2-3, host h7, cores 0-7 of 8 (shared), 2 GPUs, CUDA_VISIBLE_DEVICES=0,1, 70.0 GB free in /tmp, "
        "does not see /shared, clock +1.0 ms"
    )


# Looking


def test_findings_survive_json() -> None:
    for one in (found(1, "n1"), found(2, "n2", gpus=("GPU 0",), gpu_variables={"CUDA_VISIBLE_DEVICES": "0"})):
        assert RankFindings.from_json(one.to_json()) == one


def tool(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_tools_are_asked_where_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: A100 (UUID: GPU-1)'; echo 'GPU 1: A100 (UUID: GPU-2)'")
    tool(tmp_path / "bin", "srun", "echo 'MPI plugin types are...' >&2; echo 'none' >&2; echo 'pmi2,pmix_v4' >&2")
    tool(tmp_path / "bin", "mpirun", "echo 'mpirun (Open MPI) 4.1.4'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    launch = look_at_launch(os.environ)
    assert launch.srun_types == ("none", "pmi2", "pmix_v4")
    assert Mpirun(str(tmp_path / "bin" / "mpirun"), "mpirun (Open MPI) 4.1.4") in launch.mpiruns
    with shared_note(tmp_path) as note:
        seen = look_at_rank(0, {}, note, for_node=True)
        other = look_at_rank(1, {}, note, for_node=False)
    assert seen.gpus == ("GPU 0: A100 (UUID: GPU-1)", "GPU 1: A100 (UUID: GPU-2)")
    assert other.gpus is None
    assert seen.shared_problem == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"], "the note is gone"


def test_missing_broken_and_hanging_tools_are_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_TOOL_SECONDS", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    note = Note(tmp_path, "", "cannot be written")
    assert look_at_launch(os.environ).srun_types is None
    seen = look_at_rank(0, {}, note, for_node=True)
    assert (seen.gpus, seen.gpu_problem) == (None, "")
    tool(tmp_path / "bin", "nvidia-smi", "echo no driver; exit 9")
    tool(tmp_path / "bin", "srun", "read forever < /dev/zero")
    assert look_at_launch(os.environ).srun_types == ()
    assert look_at_rank(0, {}, note, for_node=True).gpu_problem == "no driver"
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/no/such/shell\n")
    assert look_at_rank(0, {}, note, for_node=True).gpu_problem


@pytest.mark.parametrize(
    ("told", "started", "warns"),
    [("2", "3,2", True), ("2", "2(x4)", False), ("2", "2,3(x12)", True), ("", "3", False), ("2", "", False)],
)
def test_more_tasks_on_a_node_than_sbatch_was_told_are_warned_of(told: str, started: str, warns: bool) -> None:
    environ = {"SLURM_NTASKS_PER_NODE": told, "SLURM_STEP_TASKS_PER_NODE": started}
    warning = look.tasks_per_node_warning(environ)
    assert bool(warning) == warns
    lines = "\n".join(launch_lines(replace(LAUNCH, warning=warning)))
    assert ("unset SLURM_NTASKS_PER_NODE before srun" in lines) == warns


def test_a_folder_that_cannot_be_written_or_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_PATIENCE", 0.3)
    alone = survey_alone(LAUNCH, tmp_path / "nowhere", "")
    assert "cannot write" in alone.shared_problem
    missing = look_at_rank(1, {}, Note(tmp_path / "missing", "token", ""), for_node=False)
    assert "No such file" in missing.shared_problem
    (tmp_path / "other").write_text("of another node")
    other = look_at_rank(1, {}, Note(tmp_path / "other", "token", ""), for_node=False)
    assert "another content" in other.shared_problem
    file = look_at_rank(1, {"TMPDIR": str(tmp_path / "other")}, Note(tmp_path, "", "x"), for_node=False)
    assert file.scratch or file.scratch_problem


# Asking


@pytest.fixture
def world() -> Iterator[list[LocalTransport]]:
    ranks = local_world(4)
    yield ranks
    for rank in ranks:
        rank.close()


def test_every_rank_is_asked_and_leaves_with_the_exit_code_of_the_first(
    world: list[LocalTransport], tmp_path: Path
) -> None:
    codes: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda rank=rank: codes.update({rank: answer(world[rank])})) for rank in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    seen = survey_all(world[0], LAUNCH, tmp_path)
    dismiss(world[0], seen, 7)
    for thread in threads:
        thread.join(30)
    assert codes == {1: 7, 2: 7, 3: 7}
    assert [one.rank for one in seen.found] == [0, 1, 2, 3]
    assert seen.silent == {}
    assert to_change(seen) == []
    (journey,) = seen.journeys.values()  # one a node
    assert 0 < journey.round_trip < 1
    assert abs(journey.clock) < 1
    assert 0 < seen.first_message <= seen.last_message


def test_ranks_that_do_not_answer_are_named(
    world: list[LocalTransport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 stays silent, rank 2 says hello and hangs, rank 3 looks around and hangs."""
    monkeypatch.setattr(exchange, "_PONG_SECONDS", 0.2)

    def look_and_hang() -> None:
        wait_until(lambda: world[3].receive() is not None)
        world[3].send(0, ProbeTag.FOUND, found(3, "n3", versions=look._versions()).to_json())

    world[2].send(0, ProbeTag.HELLO, b"n2")
    world[3].send(0, ProbeTag.HELLO, b"n3")
    thread = threading.Thread(target=look_and_hang)
    thread.start()
    seen = survey_all(world[0], LAUNCH, tmp_path, seconds=1)
    thread.join()
    assert set(seen.silent) == {1, 2, 3}
    assert "has not reported" in seen.silent[1]
    assert seen.silent[2].startswith("on n2 has reported, but not looked around")
    assert seen.silent[3] == "on n3 has stopped answering"
    assert len(to_change(seen)) == 3


# Really


def doctor(*command: str, folder: Path, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [*command, "doctor"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
    )
    return done.returncode, done.stdout


def test_one_rank_alone_is_well_and_told_how_to_see_the_others(tmp_path: Path, mpich: Mpi) -> None:
    code, said = doctor(str(mpich.python), "-m", "mpi_prs", folder=tmp_path)
    assert code == 0, said
    assert "all is well" in said
    assert "one rank alone was looked at" in said
    assert f"sees {tmp_path}" in said


@pytest.mark.mpi
def test_under_mpirun_every_rank_is_looked_at(tmp_path: Path, mpi: Mpi) -> None:
    code, said = doctor(*mpi.command(3), folder=tmp_path)
    assert code == 0, said
    assert said.count("all is well") == 1, "one rank alone speaks"
    assert "3 on 1 node" in said
    assert "ranks 0-2" in said
    assert "round trip" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.mpi
@pytest.mark.parametrize("strange", [False, True])
def test_an_mpirun_of_another_mpi_is_the_diagnosis(tmp_path: Path, mpich: Mpi, openmpi: Mpi, strange: bool) -> None:
    launcher, library = (mpich, openmpi) if strange else (openmpi, mpich)
    command = [*launcher.mpirun, "-n", "2", str(library.python), "-m", "mpi_prs"]
    code, said = doctor(*command, folder=tmp_path)
    assert code == 1, said
    assert "to change:" in said
    assert said.count("all is well") == 0
    assert f"Here that is: {library.python.parent / 'mpirun'}" in said


@pytest.mark.mpi
def test_a_wrong_option_is_said_once(mpich: Mpi) -> None:
    command = [*mpich.command(3), "doctor", "--nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY)
    assert done.returncode == 2
    assert done.stderr.count("No such option") == 1


def test_without_an_mpi_library_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    code, said = doctor(
        sys.executable, "-m", "mpi_prs", folder=tmp_path, environment={"MPI4PY_LIBMPI": "/no/libmpi.so"}
    )
    assert code == 1, said
    assert "could not load an MPI library" in said
    assert f"sees {tmp_path}" in said


@pytest.mark.mpi
def test_under_srun_the_ranks_of_all_nodes_are_looked_at(slurm: SlurmCluster, tmp_path: Path, mpich: Mpi) -> None:
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\nunset SLURM_NTASKS_PER_NODE\n"
        f"srun --mpi=pmi2 --overcommit --ntasks=5 {mpich.python} -m mpi_prs doctor\n"
    )
    options = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", f"--output={tmp_path / 'log'}"]
    job = slurm.sbatch(*options, script, cwd=tmp_path)
    state = slurm.wait_end(job)
    said = (tmp_path / "log").read_text()
    assert state == "COMPLETED", said
    assert "5 on 2 nodes" in said
    assert "between nodes" in said
    assert said.count("CUDA_VISIBLE_DEVICES=0,1") == 2
    assert "srun --mpi=pmi2" in said
    assert "all is well" in said


@pytest.mark.mpi
def test_under_srun_without_a_pmi_the_right_one_is_named(slurm: SlurmCluster, tmp_path: Path, mpich: Mpi) -> None:
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\nsrun --mpi=none --ntasks=2 {mpich.python} -m mpi_prs doctor\n")
    job = slurm.sbatch("--nodes=2", f"--output={tmp_path / 'log'}", script, cwd=tmp_path)
    assert slurm.wait_end(job) == "FAILED"
    said = (tmp_path / "log").read_text()
    assert "sees each of them alone" in said
    assert "Here that is: srun --mpi=pmi2" in said
