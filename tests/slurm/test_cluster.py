"""The tests' own Slurm cluster does what the tests lean on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.jobs import REPOSITORY, wait_until
from tests.support.slurm_cluster import SlurmCluster


def processes_naming(folder: Path) -> list[str]:
    """Processes that run in the folder, or have it in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if os.readlink(process / "cwd").startswith(str(folder)) or str(folder) in command:
                found.append(command)
        except OSError:
            continue
    return found


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.slurm_cluster", *map(str, arguments)],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_a_job_runs_on_all_four_nodes(slurm: SlurmCluster, tmp_path: Path) -> None:
    command = "srun --ntasks-per-node=1 sh -c 'echo $SLURMD_NODENAME'"
    job = slurm.sbatch("--nodes=4", "--output=log", f"--wrap={command}", cwd=tmp_path)
    assert slurm.wait_end(job) == "COMPLETED"
    assert sorted((tmp_path / "log").read_text().split()) == slurm.nodes


def test_a_killed_node_has_no_process_and_its_job_is_requeued(slurm: SlurmCluster, tmp_path: Path) -> None:
    script = "echo $SLURMD_NODENAME >> $SLURM_RESTART_COUNT.started; sleep 1000"
    started, again = tmp_path / ".started", tmp_path / "1.started"
    job = slurm.sbatch("--nodes=2", "--requeue", f"--wrap=srun sh -c '{script}'", cwd=tmp_path)
    wait_until(lambda: started.exists() and len(started.read_text().split()) == 2)
    slurm.kill_node("n2", noticed=True)
    assert slurm.processes_of("n2") == []
    assert slurm.node_state("n2") == "DOWN"
    slurm.start_node("n2")
    slurm.hurry(job)
    wait_until(lambda: again.exists() and len(again.read_text().split()) == 2)


def test_the_cluster_is_clean_after_a_reset(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = slurm.sbatch("--nodes=4", "--wrap=srun sleep 1000", cwd=tmp_path)
    slurm.wait(job, "RUNNING")
    slurm.kill_node("n1")
    slurm.stop_controller()
    slurm.reset()
    assert slurm.state(job) == "CANCELLED"
    assert [slurm.node_state(node) for node in slurm.nodes] == ["IDLE"] * 4


def test_up_and_down_leave_nothing() -> None:
    folder = Path("/tmp", f"prs-slurm-test-{os.getpid()}")
    try:
        up = cli("up", folder, "--nodes=1")
        assert f"SLURM_CONF={folder}" in up.stdout
        assert "n1" in cli("status", folder).stdout
    finally:
        cli("down", folder)
    assert not folder.exists()
    assert not processes_naming(folder)


def test_nothing_outlives_the_process_that_started_the_cluster() -> None:
    code = "\n".join(
        (
            "import time",
            "from tests.support.slurm_cluster import running_cluster",
            "with running_cluster(1) as cluster:",
            "    print(cluster.folder, flush=True)",
            "    time.sleep(1000)",
        )
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        folder = Path(starter.stdout.readline().strip())
        assert processes_naming(folder)
        starter.send_signal(signal.SIGKILL)
    wait_until(lambda: not folder.exists() and not processes_naming(folder))
