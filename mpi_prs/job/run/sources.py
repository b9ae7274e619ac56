"""The files that decide the output, by content: code, models, side inputs. Rows of two versions of them do not mix.

::

    source_directory ── .amlignore, inputs, outputs, logs left out ──┐
    arguments, environment_variables ── paths that are there ────────┼─► contents ─► _run/sources.json
    side_inputs ── files and folders; of a store: names, versions ───┘                    │
                                                        another start, each worker: what has changed since?

Small files are read, by threads while the inputs are listed; large ones are known by size and time. What the script may
itself write is no part of it: outputs, logs, hidden files, and what is new and no code.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from mpi_prs.core.contents import Content, Sources, content_of, has_changed, is_built
from mpi_prs.core.errors import InputError, ScriptError
from mpi_prs.core.files import RUN_FOLDER, walk
from mpi_prs.core.secrecy import looks_secret
from mpi_prs.core.units import count
from mpi_prs.core.urls import Names, is_glob, is_url, literal, of_texts
from mpi_prs.job.config.model import JobConfig
from mpi_prs.job.source_files import identity, source_files
from mpi_prs.storage.remote import list_versions

_log = logging.getLogger("mpi_prs.job")

LARGEST_READ = 16 << 20
"""Bytes up to which a file is read."""
MOST_BYTES = 256 << 20
"""Bytes that are read in all: some seconds on a slow filesystem, and as a rule less than the listing takes."""
MOST_FILES = 10_000
"""Of a source directory. One with more is a home folder or holds data."""
_MOST_BELOW = 1_000
"""In a folder that an argument names: one with more holds data."""
_THREADS = 8
_SHOWN = 3

_CODE = (".py", ".pyc", ".pyx", ".pyd", ".so", ".pth", ".sh", ".r", ".R", ".jl", ".lua", ".cu", ".c", ".cpp", ".h")
_NO_MATTER = re.compile(
    r".*(\.(log|out|err|lock|pid|tmp|part|swp|bak|prof|md|rst)|~)|core(\.\d+)?|#.*#|README.*|LICENSE.*"
)
"""Names of files that programs write beside code, and that people read."""
_LOG_FOLDERS = ("wandb", "mlruns", "lightning_logs")
"""What loggers of experiments call their folders: with each run there are copies of code, and links to the latest."""
_OUTPUT_NAME = re.compile(
    r"(?i)(?<![a-z])(?!saved.?model|state.?dict|templat|outlier|logit|workflow)"
    r"(out|result|predictions|metrics|plots|figures|progress|log|save|write|dest"
    r"|tmp|temp|cache|scratch|work|state|dump|export|report)|HOME\b"
)
"""Options and variables whose value is where a script writes, or what is no business of this job; not TensorFlow's
saved models and the like, which are read."""
_JOB_CONFIG = re.compile(
    rb"""^[ \t]*["']?(entry_script["']?[ \t]*:|type["']?[ \t]*:[ \t]*["']?(parallel|pipeline)\b)""", re.MULTILINE
)
_OF_SOURCE, _OF_ARGUMENTS = "source_directory", "arguments"
_OF_VARIABLES, _OF_SIDE_INPUTS = "environment_variables", "side_inputs"
_OF_DATA = "data in source_directory"
"""What lies beside the code and is none. A script may write it itself: so no process is refused for it, and what
changed while the run was at work is only told."""
_TOLERANCE = 5 * 10**9
"""Nanoseconds in which a script may still write when its run has left the last mark: ``status.json`` is some seconds
old at the worst, and two times of a file server may lie in another order."""


def gather(config: JobConfig, run: str) -> Sources:
    """All that decides the output of a job, as it is now. What cannot be read or is too much is said in the log."""
    return with_stores(gather_here(config, run), config)


def with_stores(sources: Sources, config: JobConfig) -> Sources:
    """The same with what lies in stores. One that does not answer is waited for, so this is for the main thread alone,
    which a signal can interrupt."""
    for path, content in _in_stores(config):
        sources.files.setdefault(_OF_SIDE_INPUTS, {})[path] = content
    return sources


def gather_here(config: JobConfig, run: str) -> Sources:
    """What of it is on this machine's filesystems."""
    named = sorted(_named(config), key=lambda found: not _is_code(found[0]))  # code is read whatever else there is
    left = MOST_BYTES

    def look(path: str) -> Content | None:
        nonlocal left
        try:
            found = content_of(path, min(LARGEST_READ, max(left, 0)))
        except OSError as error:
            _log.warning("%s is not compared when the run is resumed: %s", path, error.strerror)
            return None
        left -= found.size if found.sha256 else 0  # of several threads one may be lost, which does not matter
        return found

    files: dict[str, dict[str, Content]] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sources") as pool:
        looks = pool.map(look, [path for path, _ in named])
        for (path, key), content in zip(named, looks, strict=True):
            if content is not None:
                files.setdefault(key, {})[path] = content
    return Sources(run, files)


def changes(then: Sources, config: JobConfig, written_until: int = 0) -> list[str]:
    """What has changed since, a readable line for each key, such as ``source_directory: helper.py has changed``.

    The entry script is left out: the fingerprint tells. So is what the config names no more, what ``.amlignore`` names
    by now, and new files that are no module, or lie in folders that had none. Data in the source directory, or what a
    compiler has made there, that has changed while the run was at work is said in the log.

    Args:
        written_until: when the run was at work last, in nanoseconds since 1970.
    """
    named = dict(_named(config))
    remote = dict(_in_stores(config))
    known = {path: content for files in then.files.values() for path, content in files.items()}
    writable = {*then.files.get(_OF_DATA, {}), *filter(is_built, then.files.get(_OF_SOURCE, {}))}
    folders = {os.path.dirname(path) for path in known}
    script = str(config.entry_script)
    known.pop(script, None)

    def state(path: str) -> str:
        if is_url(path):
            return "changed" if path in remote and remote[path] != known[path] else ""
        if path not in named:
            return "gone" if _is_code(path) and not os.path.lexists(path) else ""
        try:
            if not has_changed(path, known[path]):
                return ""
            is_theirs = path not in writable or os.stat(path).st_mtime_ns > written_until + _TOLERANCE
            return "changed" if is_theirs else "written"
        except OSError as error:
            _log.warning("%s cannot be compared with what it was when the run was begun: %s", path, error.strerror)
            return ""

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sources") as pool:
        states = dict(zip(known, pool.map(state, known), strict=True))
    new = [path for path in named if path not in known and path != script and os.path.dirname(path) in folders]
    lines = []
    if written := [path for path, state in states.items() if state == "written"]:
        _log.warning(
            "%s while the run was at work: that counts as written by the script. If it is read there, rows of two "
            "versions mix, and --overwrite starts anew; else name it in .amlignore",
            _said(written, "has changed", "have changed", config),
        )
    for key in (_OF_SOURCE, _OF_DATA, _OF_ARGUMENTS, _OF_VARIABLES, _OF_SIDE_INPUTS):
        files = then.files.get(key, {})
        said = [
            _said([path for path in files if states.get(path) == "changed"], "has changed", "have changed", config),
            _said([path for path in files if states.get(path) == "gone"], "is gone", "are gone", config),
            _said([path for path in new if named[path] == key and path.endswith(".py")], "is new", "are new", config),
        ]
        if any(said):
            hint = " (if the script writes that itself, name it in .amlignore)" if key == _OF_DATA else ""
            lines.append(f"{key}: {'; '.join(filter(None, said))}{hint}")
    return lines


def _said(paths: list[str], one: str, many: str, config: JobConfig) -> str:
    if not paths:
        return ""
    above = f"{config.source_directory}/"
    shown = [path.removeprefix(above) for path in paths[:_SHOWN]]
    if len(paths) > _SHOWN:
        shown.append(f"{len(paths) - _SHOWN} more")
    names = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"{names} {one if len(paths) == 1 else many}"


# Which files


def _named(config: JobConfig) -> Iterator[tuple[str, str]]:
    """Absolute paths, each with the key by which it is found first."""
    found: dict[str, str] = {}
    places = _Places(config)
    everything = chain(
        ((path, _OF_SIDE_INPUTS) for path in _of_side_inputs(config)),
        ((path, _OF_ARGUMENTS) for path in _of_arguments(config, places)),
        ((path, _OF_VARIABLES) for path in _of_variables(config, places)),
        ((path, _OF_SOURCE) for path in _of_source(config, places)),
    )
    script = str(config.entry_script)
    for path, key in everything:
        is_beside = key == _OF_SOURCE and path != script and not _is_code(path)
        found.setdefault(path, _OF_DATA if is_beside else key)
    yield from found.items()


class _Places:
    """Where the data of a job is, its output goes, and its credentials are, which get others: that is no code."""

    def __init__(self, config: JobConfig) -> None:
        self._folders = [str(config.output)]
        self._globs: list[tuple[str, Callable[[str], object]]] = []
        for pattern in chain.from_iterable([*section.files, *section.table] for section in config.inputs):
            if is_url(pattern):
                continue
            if is_glob(pattern) and not os.path.lexists(pattern):
                folder, last = literal(pattern).rstrip("/"), pattern.rpartition("/")[2]
                self._globs.append((folder, of_texts(last, Names.SEEN)))
                if folder != str(config.source_directory) and not _is_below(str(config.source_directory), folder):
                    self._folders.append(folder)
            else:
                self._folders.append(os.path.normpath(pattern))
        self._folders += [str(section.files_from) for section in config.inputs if section.files_from is not None]
        sections = [config.storage, *(each.storage for each in config.inputs)]
        sections += [each.storage for each in config.side_inputs.values()]
        keys = [(each.account_key_file, each.sas_token_file) for each in sections if each is not None]
        self._folders += [str(path) for path in chain.from_iterable(keys) if path is not None]

    def have(self, path: str) -> bool:
        """Whether a file or folder is one of them, or lies in one."""
        if any(path == each or _is_below(path, each) for each in self._folders):
            return True
        name = path.rpartition("/")[2]
        return any(_is_below(path, folder) and matches(name) for folder, matches in self._globs)

    def touch(self, folder: str) -> bool:
        """The same, or one of them lies in this folder."""
        return self.have(folder) or any(
            _is_below(each, folder) for each in [*self._folders, *(each for each, _ in self._globs)]
        )


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")


def _of_source(config: JobConfig, places: _Places) -> Iterator[str]:
    folder = config.source_directory
    yield str(config.entry_script)

    def skip(name: str) -> bool:
        path, last = f"{folder}/{name.rstrip('/')}", name.rstrip("/").rpartition("/")[2]
        if last.startswith("."):
            return True
        if name.endswith("/"):
            marks = (RUN_FOLDER, "pyvenv.cfg", "conda-meta")  # an output, an environment
            return last in _LOG_FOLDERS or places.have(path) or any(os.path.lexists(f"{path}/{mark}") for mark in marks)
        return not _is_code(last) and (_NO_MATTER.fullmatch(last) is not None or places.have(path))

    found: list[str] = []
    try:
        for file in source_files(folder, _printed_to(), skip):
            found.append(file.path)
            if len(found) > MOST_FILES:
                problem = f"it has more than {count(MOST_FILES)} files"
                break
        else:
            yield from (path for path in found if not _is_job_config(path))
            return
    except ScriptError as error:
        problem = str(error)
    _log.warning(
        "of the source directory %s, only code directly in it is compared when the run is resumed: %s. Give a folder "
        "with the code alone as source_directory, or name what is no code in .amlignore",
        folder,
        problem,
    )
    with_code = walk(folder, lambda name: name.endswith("/") or name.startswith(".") or not _is_code(name))
    yield from (f"{folder}/{name}" for name in with_code)


def _printed_to() -> frozenset[tuple[int, int]]:
    """The files that this process and those above it print to, such as the shell's in ``mpirun … >> run.txt``."""
    found = set()
    pid = os.getpid()
    with contextlib.suppress(OSError):  # it is gone by now
        while pid:
            for stream in (1, 2):
                with contextlib.suppress(OSError):  # closed, or of another user's process
                    found.add(identity(Path(f"/proc/{pid}/fd/{stream}")))
            pid = int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    return frozenset(found)


def _of_arguments(config: JobConfig, places: _Places) -> Iterator[str]:
    option = ""
    for argument in config.arguments:
        name, equals, value = argument.partition("=")
        is_option = argument.startswith("-")
        if not _is_no_input(name if is_option else option):
            yield from _files_at(value if is_option else argument, config, places)
        option = name if is_option and not equals else ""


def _of_variables(config: JobConfig, places: _Places) -> Iterator[str]:
    for name, value in config.environment_variables.items():
        if name == "PYTHONPATH":
            for folder in value.split(os.pathsep):
                yield from (path for path in _files_at(folder, config, places) if _is_code(path))
        elif not _is_no_input(name):
            yield from _files_at(value, config, places)


def _is_no_input(name: str) -> bool:
    """Whether an option or variable says by its name that the script writes there, or finds its credentials."""
    is_secret = looks_secret(name) and "tokeniz" not in name.lower()
    return is_secret or _OUTPUT_NAME.search(name) is not None


def _files_at(value: str, config: JobConfig, places: _Places) -> Iterator[str]:
    """The files that a text may name: itself, or what is in it if it is a folder."""
    if not value or "\0" in value or "${" in value or is_url(value):
        return
    path = os.path.normpath(os.path.join(config.source_directory, value))
    if os.path.isfile(path):
        if not places.have(path):
            yield path
    elif os.path.isdir(path) and not places.touch(path) and not _is_below(f"{config.source_directory}/", path):
        yield from _below(path)


def _below(folder: str) -> Iterator[str]:
    """The files in a folder of models or the like; none, with a word, if it is too large for one."""
    found = []
    try:
        for name in walk(folder, _does_not_matter):
            if os.path.isfile(path := f"{folder}/{name}"):
                found.append(path)
            if len(found) > _MOST_BELOW:
                _log.warning(
                    "the files in %s are not compared when the run is resumed: more than %s", folder, count(_MOST_BELOW)
                )
                return
    except OSError as error:
        _log.warning("the files in %s are not compared when the run is resumed: %s", folder, error.strerror)
        return
    yield from found


def _of_side_inputs(config: JobConfig) -> Iterator[str]:
    for side in config.side_inputs.values():
        if is_url(side.path):
            continue
        path = os.path.normpath(side.path)
        if os.path.isdir(path):
            yield from _below(path)
        elif os.path.isfile(path):
            yield path


def _in_stores(config: JobConfig) -> Iterator[tuple[str, Content]]:
    """Each side input of a store, by what it lists."""
    for side in config.side_input_list():
        if is_url(side.path):
            found, total = hashlib.sha256(), 0
            try:
                for name, length, version in list_versions(side.path, side.storage, Names.ALL):
                    total += length
                    found.update(f"{name}\0{length}\0{version}\n".encode("utf-8", "surrogateescape"))
            except InputError as error:  # who fetches it will say so
                _log.warning("side_inputs.%s is not compared when the run is resumed: %s", side.name, error)
                continue
            yield side.path, Content(total, 0, 0, found.hexdigest())


def _is_code(path: str) -> bool:
    return path.endswith(_CODE)


def _does_not_matter(name: str) -> bool:
    last = name.rstrip("/").rpartition("/")[2]
    return last.startswith(".") or last in (RUN_FOLDER, "__pycache__") or _NO_MATTER.fullmatch(last) is not None


def _is_job_config(path: str) -> bool:
    """Job configs lie beside the code; what of ours decides the output is in the fingerprint, by its value."""
    if not path.endswith((".yaml", ".yml")):
        return False
    try:
        with open(path, "rb") as file:
            return _JOB_CONFIG.search(file.read(LARGEST_READ)) is not None
    except OSError:
        return False
