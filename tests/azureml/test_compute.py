"""Compute targets: names, limits, and the status of a Slurm partition."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mpi_prs.azureml.compute.status import AmlComputeNodeStateCounts, counts_of_partition
from mpi_prs.azureml.compute.target import AmlCompute, ComputeTarget
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.core.errors import ComputeTargetException, SlurmError, WorkspaceError
from mpi_prs.slurm.control import PartitionNodes, parse_nodes
from tests.support.slurm_cluster import SlurmCluster
from tests.support.together import together

SINFO = """\
cpu*|idle|10
cpu*|mixed|4
cpu*|allocated|2
cpu*|completing|1
cpu*|down*|1
cpu*|idle*|1
cpu*|drained|2
cpu*|draining|1
cpu*|idle~|100
cpu*|idle#|3
cpu*|idle%|1
cpu*|planned|1
gpu|idle|2
"""


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    made = Workspace.create("mnist", folder=tmp_path / "ws", show_output=False)
    made.update_settings(backend="local")
    return made


def make(ws: Workspace, name: str = "cpucluster", **configuration: object) -> AmlCompute:
    config = AmlCompute.provisioning_configuration(**{"vm_size": "STANDARD_D2_V2", "max_nodes": 4, **configuration})
    return ComputeTarget.create(ws, name, config)


def answering(monkeypatch: pytest.MonkeyPatch, *answers: str | SlurmError) -> list[str | SlurmError]:
    """Slurm answers so, one answer after the other, and then with the last one again; returns those that are left."""
    left = list(answers)

    def partition_nodes() -> list[PartitionNodes]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, SlurmError):
            raise answer
        return parse_nodes(answer)

    monkeypatch.setattr("mpi_prs.azureml.compute.target.partition_nodes", partition_nodes)
    return left


# Names


def test_what_was_made_is_found_as_the_tutorial_does(ws: Workspace) -> None:
    assert "cpucluster" not in ws.compute_targets
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", min_nodes="0", max_nodes="4")
    made = ComputeTarget.create(ws, "cpucluster", config)
    assert "cpucluster" in ws.compute_targets
    found = ws.compute_targets["cpucluster"]
    assert type(found) is type(made) is type(ComputeTarget(workspace=ws, name="cpucluster")) is AmlCompute
    assert (found.name, found.vm_size, found.min_nodes, found.max_nodes) == ("cpucluster", "STANDARD_D2_V2", 0, 4)
    assert found.type == "AmlCompute" and found.provisioning_state == "Succeeded" and found.provisioning_errors is None
    assert found.scale_settings.maximum_node_count == 4
    assert [target.name for target in ComputeTarget.list(ws)] == ["cpucluster"]
    assert found.serialize()["vmSize"] == "STANDARD_D2_V2"


@pytest.mark.parametrize("look_up", [ComputeTarget, AmlCompute, lambda ws, name: ws.compute_targets[name]])
def test_an_unknown_name_is_told_with_the_near_ones(ws: Workspace, look_up: object) -> None:
    make(ws)
    assert callable(look_up)
    with pytest.raises(ComputeTargetException, match=r"no compute target 'cpu-cluster'; did you mean 'cpucluster'\?"):
        look_up(ws, "cpu-cluster")
    with pytest.raises(KeyError):
        ws.compute_targets["cpu-cluster"]


def test_a_name_is_given_once(ws: Workspace) -> None:
    made = make(ws)
    assert make(ws).created_on == made.created_on
    with pytest.raises(ComputeTargetException, match=r"a compute target 'cpucluster' already, .* 0 to 4 nodes"):
        make(ws, max_nodes=8)
    made.update(max_nodes="8")
    assert (make(ws, max_nodes=8).max_nodes, made.max_nodes) == (8, 8)
    made.delete()
    assert dict(ws.compute_targets) == {}
    for gone in (made.delete, made.refresh_state, lambda: made.update(max_nodes=2), made.get_status):
        with pytest.raises(ComputeTargetException, match="there is no compute target 'cpucluster'"):
            gone()


CREATING = """
import sys
from mpi_prs.core.errors import ComputeTargetException
from mpi_prs.azureml.compute.target import AmlCompute, ComputeTarget
from mpi_prs.azureml.workspace import Workspace
config = AmlCompute.provisioning_configuration(max_nodes=int(sys.argv[2]) + 1)
try:
    print(ComputeTarget.create(Workspace.at(sys.argv[1]), "cpucluster", config).max_nodes)
except ComputeTargetException as error:
    print("already" in str(error))
"""


def test_of_several_that_make_the_same_name_one_wins(ws: Workspace) -> None:
    said = [line.strip() for line in together(4, CREATING, ws.folder)]
    won = ComputeTarget(ws, "cpucluster").max_nodes
    assert sorted(said) == sorted([str(won), "True", "True", "True"])


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"max_nodes": 0}, "max_nodes: got 0; expected a whole number of at least 1"),
        ({"max_nodes": "four"}, "max_nodes: got 'four'; expected a whole number of at least 1"),
        ({"min_nodes": -1}, "min_nodes: got -1; expected a whole number of at least 0"),
        ({"min_nodes": 5}, "max_nodes is at least min_nodes, but got 4 and 5"),
        ({"min_nodes": True}, "min_nodes: got True; expected a whole number of at least 0"),
        ({"vm_priority": "cheap"}, "vm_priority: got 'cheap'; expected one of dedicated, lowpriority"),
        ({"vm_size": 2}, "vm_size: got 2; expected text such as 'STANDARD_D2_V2'"),
        ({"tags": ["a"]}, r"tags: got \[.a.\]; expected a dict of texts"),
        ({"idle_seconds_before_scaledown": 1.5}, "idle_seconds_before_scaledown: got 1.5; expected a whole number"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(configuration: dict[str, object], message: str) -> None:
    with pytest.raises(ComputeTargetException, match=message):
        AmlCompute.provisioning_configuration(**{"vm_size": "STANDARD_D2_V2", "max_nodes": 4, **configuration})


def test_what_is_azures_business_is_ignored_and_what_is_unknown_told() -> None:
    config = AmlCompute.provisioning_configuration("STANDARD_NC6", vnet_name="net", admin_username="me")
    assert (config.vm_size, config.max_nodes, config.idle_seconds_before_scaledown) == ("STANDARD_NC6", 4, 1800)
    with pytest.raises(TypeError, match=r"no parameter 'vnet_nam'; did you mean 'vnet_name'"):
        AmlCompute.provisioning_configuration("STANDARD_NC6", vnet_nam="net")


@pytest.mark.parametrize(("name", "config"), [("../x", None), ("cpucluster", {"vm_size": "x"})])
def test_wrong_types_are_told(ws: Workspace, name: str, config: object) -> None:
    with pytest.raises(WorkspaceError, match=r"the name of a compute target|expected a provisioning configuration"):
        ComputeTarget.create(ws, name, config or AmlCompute.provisioning_configuration())
    with pytest.raises(WorkspaceError, match="expected a Workspace"):
        ComputeTarget.create("ws", "cpucluster", AmlCompute.provisioning_configuration())


def test_a_broken_file_is_named(ws: Workspace) -> None:
    make(ws)
    ws.layout.compute("cpucluster").write_text('{"max_nodes": "many"}')
    for look_up in (lambda: ComputeTarget(ws, "cpucluster"), lambda: ws.compute_targets["cpucluster"]):
        with pytest.raises(
            ComputeTargetException, match=r"cpucluster\.json: max_nodes: got 'many'; expected a whole number"
        ):
            look_up()
    ws.layout.compute("cpucluster").write_text("{")
    with pytest.raises(WorkspaceError, match=r"cpucluster\.json, line 1, column 2: not JSON"):
        ComputeTarget(ws, "cpucluster")


def test_what_the_sdk_has_and_we_have_not_is_told(ws: Workspace) -> None:
    with pytest.raises(AttributeError, match=r"ComputeTarget has no 'attach'; nodes are Slurm's"):
        ComputeTarget.attach  # noqa: B018
    with pytest.raises(AttributeError, match=r"AmlCompute has no 'attach'; nodes are Slurm's"):
        make(ws).attach  # noqa: B018


# Where it runs


def test_the_backend_is_slurm_where_its_commands_know_of_a_cluster(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make(ws)
    assert target.backend() == "local"
    ws.update_settings(backend="slurm")
    assert target.backend() == "slurm"
    ws.update_settings(backend="auto")
    says = "#!/bin/sh\necho 'Slurmctld(primary) at head is DOWN'\nexit 1\n"
    fails = "#!/bin/sh\necho 'fatal: Could not establish a configuration source' >&2\nexit 1\n"
    for programs, expected in (
        ({}, "local"),
        ({"sbatch": "", "scontrol": fails}, "local"),  # Debian's slurm-client, and nothing else
        ({"scontrol": says}, "local"),
        ({"sbatch": "", "scontrol": says}, "slurm"),  # a controller that is down comes back
    ):
        folder = tmp_path / f"bin{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name, text in programs.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        assert target.backend() == expected, programs


def test_its_slurm_section_is_that_of_its_vm_size_and_priority(ws: Workspace) -> None:
    ws.update_settings(vm_sizes={"*": {"partition": "cpu", "cpus": 8, "lowpriority": {"qos": "scavenge"}}})
    assert make(ws).slurm_section(ws.settings, 2) == {"partition": "cpu", "cpus_per_process": 4}
    cheap = make(ws, "cheap", vm_priority="LowPriority")
    assert cheap.slurm_section(ws.settings) == {"partition": "cpu", "qos": "scavenge"}
    assert cheap.get_status().vm_priority == "LowPriority"
    assert AmlCompute.supported_vmsizes(ws) == [{"name": "*", "vCPUs": 8, "gpus": 0}]


def test_a_vm_size_that_the_settings_do_not_know_is_refused_under_slurm_alone(ws: Workspace) -> None:
    ws.update_settings(vm_sizes={"STANDARD_NC6": {"partition": "gpu"}})
    make(ws)
    ws.update_settings(backend="slurm")
    with pytest.raises(ComputeTargetException, match=r"nothing about 'STANDARD_NC12'.*STANDARD_NC6"):
        make(ws, "gpucluster", vm_size="STANDARD_NC12")
    assert list(ws.compute_targets) == ["cpucluster"]


# Status


def test_without_slurm_it_is_this_machine(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    target = make(ws)
    target.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    assert "1 nodes of at most 4 can be used" in capsys.readouterr().out
    status = target.get_status().serialize()
    assert set(status) == {
        "allocationState",
        "allocationStateTransitionTime",
        "creationTime",
        "currentNodeCount",
        "errors",
        "modifiedTime",
        "nodeStateCounts",
        "provisioningState",
        "provisioningStateTransitionTime",
        "scaleSettings",
        "targetNodeCount",
        "vmPriority",
        "vmSize",
    }
    assert status["currentNodeCount"] == status["nodeStateCounts"]["idleNodeCount"] == 1
    assert status["scaleSettings"] == {
        "minNodeCount": 0,
        "maxNodeCount": 4,
        "nodeIdleTimeBeforeScaleDown": "PT1800S",
    }
    assert (status["provisioningState"], status["allocationState"], status["errors"]) == ("Succeeded", "Steady", None)


def test_the_nodes_of_a_partition_are_counted_by_state() -> None:
    counts, errors = counts_of_partition(parse_nodes(SINFO), None)
    assert errors == []
    assert counts == AmlComputeNodeStateCounts(
        preparing_node_count=3, running_node_count=7, idle_node_count=11, unusable_node_count=4, leaving_node_count=2
    )
    counts, errors = counts_of_partition(parse_nodes(SINFO), "gpu")
    assert (counts, errors) == (AmlComputeNodeStateCounts(idle_node_count=2), [])


@pytest.mark.parametrize(
    ("partition", "text", "message"),
    [
        ("gpus", SINFO, "Slurm has no partition 'gpus'; did you mean 'gpu'?"),
        ("cpu,fat", SINFO, "Slurm has no partition 'fat'"),
        (None, "gpu|idle|2\n", "this cluster has no default partition"),
        (
            "cpu",
            "slurm_load_partitions: Unable to contact\nfoo|bar\n",
            "Slurm has no partition 'cpu'; there is none yet",
        ),
    ],
)
def test_a_partition_that_is_not_there_is_told(partition: str | None, text: str, message: str) -> None:
    counts, errors = counts_of_partition(parse_nodes(text), partition)
    assert counts == AmlComputeNodeStateCounts()
    assert [error["code"] for error in errors] == ["NoPartition"]
    assert message in errors[0]["message"]


def test_the_status_under_slurm_counts_at_most_the_maximum(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make(ws)
    ws.update_settings(backend="slurm")
    answering(monkeypatch, SINFO)
    status = target.get_status()
    assert (status.current_node_count, status.target_node_count, status.allocation_state) == (4, 4, "Resizing")
    target.update(max_nodes=100)
    status = target.get_status()
    assert (status.current_node_count, status.target_node_count) == (18, 21)


def test_slurm_that_does_not_answer_is_an_error_in_the_status(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make(ws)
    ws.update_settings(backend="slurm")
    answering(monkeypatch, SlurmError("the controller is down"))
    status = target.status
    assert status.errors == [{"code": "SlurmUnavailable", "message": "the controller is down"}]
    target.wait_for_completion()  # wants no node: what is submitted will tell


def test_it_waits_for_nodes(ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    target = make(ws, min_nodes=2)
    ws.update_settings(backend="slurm")
    left = answering(
        monkeypatch, SlurmError("busy"), "cpu*|idle#|2\n", "cpu*|idle|1\n", "cpu*|idle|2\n", "cpu*|down|2\n"
    )
    pauses: list[float] = []
    target.wait_for_completion(show_output=True, pause=pauses.append)
    assert left == ["cpu*|down|2\n"] and len(pauses) == 3
    assert capsys.readouterr().out.splitlines() == [
        "cpucluster: registered, waiting for 2 nodes of Slurm",
        "cpucluster: 2 nodes of at most 4 can be used",
    ]


def test_it_waits_for_no_further_machine_than_this_one(ws: Workspace) -> None:
    target = make(ws, min_nodes=3)
    target.wait_for_completion(min_node_count=4, pause=lambda _: pytest.fail("it has waited"))
    with pytest.raises(ComputeTargetException, match="timeout_in_minutes is a number, but got 'long'"):
        target.wait_for_completion(timeout_in_minutes="long")  # type: ignore[arg-type]


def test_it_does_not_wait_longer_than_it_may(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = make(ws)
    ws.update_settings(backend="slurm")
    answering(monkeypatch, "cpu*|idle|1\n")
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    target.wait_for_completion(True, "2", 0.5, pause=lambda seconds: clock.append(clock.pop() + seconds))
    assert "1 nodes of at most 4 can be used; 0.5 min are over" in capsys.readouterr().out
    assert clock == [30.0]


@pytest.mark.parametrize("settings", [{"*": {"partition": "gpus"}}, {"STANDARD_D3": {}}])
def test_it_waits_for_no_partition_that_is_not_there(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    target = make(ws)
    ws.update_settings(backend="slurm", vm_sizes=settings)
    answering(monkeypatch, SINFO)
    with pytest.raises(ComputeTargetException, match=r"did you mean ('gpu'|'STANDARD_D3')"):
        target.wait_for_completion(min_node_count=1)


def test_a_real_slurm_tells_its_nodes(ws: Workspace, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    ws.update_settings(backend="auto", vm_sizes={"*": {"partition": "batch"}})
    target = make(ws, max_nodes=3)
    target.wait_for_completion(min_node_count=2)
    status = target.get_status()
    assert (status.current_node_count, status.node_state_counts.idle_node_count) == (3, len(slurm.nodes))
    assert status.errors is None
    slurm.scontrol("update", f"NodeName={slurm.nodes[0]}", "State=DRAIN", "Reason=test")
    try:
        assert target.get_status().node_state_counts.unusable_node_count == 1
    finally:
        slurm.scontrol("update", f"NodeName={slurm.nodes[0]}", "State=RESUME")
    ws.update_settings(vm_sizes={"*": {"partition": "bath"}})
    with pytest.raises(ComputeTargetException, match=r"Slurm has no partition 'bath'; did you mean 'batch'\?"):
        target.wait_for_completion()
