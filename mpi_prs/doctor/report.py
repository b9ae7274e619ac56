"""From what was found to what a person reads: pure functions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mpi_prs.doctor.findings import Launch, RankFindings, Survey
from mpi_prs.engine.mpi import WITH_PMIX
from mpi_prs.engine.node import ranges

_FAMILIES = {
    # name: (how a library or an mpirun calls itself, the PMI of srun that it takes)
    "Open MPI": (("open mpi", "openmpi", "open-mpi", "openrte", "prrte"), "pmix"),
    "Intel MPI": (("intel",), "pmi2"),
    "MVAPICH": (("mvapich",), "pmi2"),
    "MPICH": (("mpich", "hydra"), "pmi2"),
}
_MOST_NODES = 20
_MOST_NAMES = 8
_LITTLE_SPACE = 1 << 30
_CLOCK_SECONDS = 1.0


def family(text: str) -> str:
    """Which MPI a library or an ``mpirun --version`` is of; empty: none that is known here."""
    lower = text.lower()
    return next((name for name, (words, _) in _FAMILIES.items() if any(word in lower for word in words)), "")


def _pmi_of(library: str) -> str:
    return "pmix" if library.endswith(WITH_PMIX) else _FAMILIES[family(library)][1]


def _version(library: str) -> int:
    """The first number in a library's name; 0: there is none."""
    found = re.search(r"\d+", library)
    return int(found[0]) if found else 0


def fitting_launchers(launch: Launch) -> list[str]:
    """What starts ranks that this MPI understands, best first."""
    ours = family(launch.library)
    fitting = []
    if ours and launch.srun_types:
        wanted = _pmi_of(launch.library)
        fitting += [f"srun --mpi={wanted}"] if any(word.startswith(wanted) for word in launch.srun_types) else []
    return fitting + [mpirun.path for mpirun in launch.mpiruns if ours and family(mpirun.version) == ours]


def launch_lines(launch: Launch) -> list[str]:
    """The part of the report that is known before MPI starts."""
    through = f"mpi4py {launch.mpi4py}" if launch.mpi4py else "no mpi4py"
    lines = [
        f"MPI library      {launch.library or 'none'}, through {through}",
        f"Python           {launch.python}",
        f"started by       {f'{launch.launcher}, {launch.ranks} ranks' if launch.launcher else 'hand, alone'}",
    ]
    if launch.library:
        lines.append(f"launchers        {' or '.join(fitting_launchers(launch)) or 'none found that fits this MPI'}")
    if launch.srun_types is not None:
        lines.append(f"srun --mpi=list  {', '.join(launch.srun_types) or 'no answer'}")
    if launch.warning:
        lines.append(f"warning          {launch.warning}")
    return lines


def survey_lines(survey: Survey) -> list[str]:
    """What was found on the ranks and nodes."""
    nodes = _by_node(survey.found)
    lines = []
    if survey.size > 1:
        lines.append(f"ranks            {survey.size} on {_nodes(len(nodes))}; {_speed(survey, nodes)}")
    lines += [f"node {node}: {_node_line(survey, ranks)}" for node, ranks in list(nodes.items())[:_MOST_NODES]]
    if len(nodes) > _MOST_NODES:
        lines.append(f"and {len(nodes) - _MOST_NODES} nodes more")
    versions = survey.found[0].versions
    lines.append(f"software         {', '.join(f'{name} {version}' for name, version in versions.items())}")
    return lines


def to_change(survey: Survey) -> list[str]:
    """What keeps a job from running as it should, and what to do about it."""
    return [*_launching(survey), *_filesystems(survey), *_differences(survey), *_cores(survey)]


def worth_knowing(survey: Survey) -> list[str]:
    """What may be meant as it is."""
    hints = []
    launch = survey.launch
    ours = family(launch.library)
    fitting = fitting_launchers(launch)
    if survey.size == 1 and not survey.launch_problem and fitting:
        hints.append(f"one rank alone was looked at; to see all nodes: {fitting[0]} -n RANKS {_command(launch)} doctor")
    for mpirun in launch.mpiruns:
        theirs = family(mpirun.version)
        if ours and theirs and theirs != ours:
            hints.append(f"{mpirun.path} belongs to {theirs}, and mpi4py uses {ours}: do not start jobs with it")
    if ours and launch.srun_types and not any(name.startswith("srun") for name in fitting):
        wanted = _pmi_of(launch.library)
        hints.append(f"srun does not offer the {wanted} that {ours} needs: use mpirun in the allocation")
    if ours == "MPICH" and _pmi_of(launch.library) == "pmi2" and launch.srun_types and _version(launch.library) >= 5:
        hints.append(
            "PMI-2, which srun --mpi=pmi2 speaks, is deprecated from MPICH 5 on: an MPICH that is built with PMIx "
            "(--with-pmix; pip's is not) takes srun --mpi=pmix"
        )
    little = [found.node for found in survey.found if found.scratch and found.scratch_free < _LITTLE_SPACE]
    if little:
        hints.append(f"less than 1 GB of scratch is free on {_named(little)}: set scratch in the job config")
    for problem, names in _grouped((found.gpu_problem, found.node) for found in survey.found):
        hints.append(f"nvidia-smi fails on {_named(names)}: {problem}")
    unasked = [found.node for found in survey.found if found.gpus and found.in_slurm and not found.gpu_variables]
    if unasked:
        hints.append(
            f"{_named(unasked)}: there are GPUs, but Slurm gave none to this job: set slurm.gpus_per_process in the "
            "job config, or --gpus-per-node"
        )
    return hints


def _launching(survey: Survey) -> list[str]:
    advice = []
    if survey.launch_problem:
        fitting = fitting_launchers(survey.launch)
        here = f". Here that is: {' or '.join(fitting)}" if fitting and survey.launch.launcher else ""
        advice.append(f"{survey.launch_problem}{here}")
    for what, ranks in _grouped((what, str(rank)) for rank, what in sorted(survey.silent.items())):
        advice.append(f"rank {', '.join(ranks)} {what}: look at that node, or leave it out")
    return advice


def _filesystems(survey: Survey) -> list[str]:
    advice = []
    if survey.shared_problem:
        advice.append(f"rank 0 {survey.shared_problem}: give a folder that all nodes share with --shared")
    blind = [found.node for found in survey.found if found.shared_problem]
    if blind:
        first = next(found for found in survey.found if found.shared_problem)
        advice.append(
            f"{_named(blind)} does not see {survey.shared} as rank 0 does ({first.shared_problem}): keep inputs, "
            "outputs and the environment on a filesystem that all nodes share"
        )
    for problem, names in _grouped((found.scratch_problem, found.node) for found in survey.found):
        advice.append(f"{_named(names)}: no scratch folder ({problem}): set scratch in the job config, or TMPDIR")
    return advice


def _differences(survey: Survey) -> list[str]:
    """Versions and clocks that are not those of rank 0."""
    advice = []
    ours = survey.found[0].versions
    for what, names in _grouped((_difference(ours, found.versions), found.node) for found in survey.found[1:]):
        advice.append(f"{_named(names)}: {what}: use the same environment on all nodes")
    node_of = {found.rank: found.node for found in survey.found}
    clocks = {node_of[rank]: journey.clock for rank, journey in survey.journeys.items()}
    wrong = [(node, clock) for node, clock in clocks.items() if abs(clock) > _CLOCK_SECONDS]
    if wrong:
        described = ", ".join(f"{node} by {clock:+.1f} s" for node, clock in wrong[:_MOST_NAMES])
        advice.append(f"clocks differ ({described}), so the times in logs do too: ask the administrator for NTP")
    return advice


def _difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    return ", ".join(
        f"{name} {theirs.get(name, 'none')} instead of {ours.get(name, 'none')}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    )


def _cores(survey: Survey) -> list[str]:
    """Ranks that are bound to fewer cores than there are ranks, while the machine has more."""
    advice = []
    crowded: defaultdict[str, list[str]] = defaultdict(list)
    for node, ranks in _by_node(survey.found).items():
        cores = {core for found in ranks for core in found.cores}
        machine = ranks[0].machine_cores
        if len(cores) < min(len(ranks), machine):
            crowded[f"{len(ranks)} ranks are bound to {len(cores)} of {machine} cores"].append(node)
    for what, names in crowded.items():
        advice.append(
            f"{_named(names)}: {what}, and the user processes with them: mpirun --bind-to none, or more "
            "--cpus-per-task for srun"
        )
    return advice


# Words


def _node_line(survey: Survey, ranks: Sequence[RankFindings]) -> str:
    first = ranks[0]
    cores = {core for found in ranks for core in found.cores}
    words = [f"rank{'s' * (len(ranks) > 1)} {ranges(found.rank for found in ranks)}"]
    if first.host != first.node:
        words.append(f"host {first.host}")
    words.append(f"cores {ranges(cores)} of {first.machine_cores}{_binding(ranks)}")
    words += _gpu_words(first)
    free = f"{first.scratch_free / 1e9:.1f} GB free in {first.scratch}"
    words.append("no scratch" if first.scratch_problem else free)
    if not survey.shared_problem:
        sees = not any(found.shared_problem for found in ranks)
        words.append(f"{'sees' if sees else 'does not see'} {survey.shared}")
    journeys = [survey.journeys[found.rank] for found in ranks if found.rank in survey.journeys]
    if journeys:
        words.append(f"clock {min((journey.clock for journey in journeys), key=abs) * 1e3:+.1f} ms")
    return ", ".join(words)


def _binding(ranks: Sequence[RankFindings]) -> str:
    if len(ranks) < 2:
        return ""
    return " (shared)" if len({found.cores for found in ranks}) == 1 else " (each rank bound to its own)"


def _gpu_words(found: RankFindings) -> list[str]:
    words = [] if found.gpus is None else [f"{len(found.gpus)} GPU{'s' * (len(found.gpus) != 1)}"]
    first = {value: name for name, value in reversed(list(found.gpu_variables.items()))}
    return words + [f"{name}={value}" for name, value in found.gpu_variables.items() if first[value] == name]


def _speed(survey: Survey, nodes: dict[str, list[RankFindings]]) -> str:
    if not survey.journeys:
        return "no messages"
    words = [f"first message {survey.first_message:.2f} s after the start, last {survey.last_message:.2f} s"]
    home = {found.rank for found in next(iter(nodes.values()))}
    inside = [journey.round_trip for rank, journey in survey.journeys.items() if rank in home]
    outside = [journey.round_trip for rank, journey in survey.journeys.items() if rank not in home]
    ways = [f"{_microseconds(inside)} within the node"] if inside else []
    ways += [f"{_microseconds(outside)} between nodes"] if outside else []
    return f"{', '.join(words)}, round trip {', '.join(ways)}"


def _microseconds(times: Sequence[float]) -> str:
    least, most = f"{min(times) * 1e6:.0f}", f"{max(times) * 1e6:.0f}"
    return f"{least} µs" if least == most else f"{least}–{most} µs"


def _by_node(found: Iterable[RankFindings]) -> dict[str, list[RankFindings]]:
    nodes: defaultdict[str, list[RankFindings]] = defaultdict(list)
    for one in found:
        nodes[one.node].append(one)
    return dict(nodes)


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Names by what is said of them; nothing said, nothing grouped."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for what, name in pairs:
        if what:
            groups[what].append(name)
    return list(groups.items())


def _named(nodes: Iterable[str]) -> str:
    names = list(Counter(nodes))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def _command(launch: Launch) -> str:
    return f"{launch.python} -m mpi_prs"
