"""Every error that a user can meet, as a tree.

::

    MpiPrsError                     exit code 1
    ├── UserMistake                 exit code 2: nothing has run; the message says what to change
    │   ├── ConfigError             the job config
    │   ├── InputError              the inputs
    │   ├── OutputError             the output folder or the run directory
    │   ├── ScriptError             the entry script
    │   ├── LaunchError             how the program was started (ranks, launcher, MPI)
    │   ├── SlurmError              Slurm is not here, refuses, or does not answer
    │   ├── WorkspaceError          the workspace, or what is registered in it
    │   │   ├── ComputeTargetException
    │   │   ├── ModelNotFoundException
    │   │   └── EnvironmentProblem  an environment that cannot be had
    │   └── PipelineError           the definition of a pipeline, a step or a parameter
    ├── RunFailed                   exit code 1: a run of a pipeline, or of a step, that was waited for
    └── JobStopped                  exit code 75 (EX_TEMPFAIL of sysexits.h): the same command resumes

A message is written for the person who reads it: it names the file, key or value, what was expected and what to do.
The command line prints the message alone; a traceback of ours means a bug.

Standard library only: the user process imports this module too.
"""

from __future__ import annotations

from typing import Any, TypeVar

EXIT_COMPLETE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RESUMABLE = 75


_Error = TypeVar("_Error", bound="MpiPrsError")


class MpiPrsError(Exception):
    """The root of the tree; its text is the whole message for the user.

    Args:
        problem: what is wrong, and what to do; it may be left out where ``expected`` says it.
        path, line, key, node: where; see :meth:`at`.
        got: what was given, as it may be shown.
        expected: the sentence that says what would do.

    Attributes:
        path, line, key, node: the nearest place of each kind to what is wrong; ``None``: it is not known.
    """

    exit_code: int = EXIT_FAILED

    def __init__(
        self,
        problem: str = "",
        *,
        path: object = None,
        line: int | None = None,
        key: object = None,
        node: object = None,
        got: str | None = None,
        expected: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.got = got
        self.expected = expected
        self.path: str | None = None
        self.line: int | None = None
        self.key: str | None = None
        self.node: str | None = None
        self._where: list[str] = []
        self.at(path=path, line=line, key=key, node=node)

    def at(
        self: _Error, *, path: object = None, line: int | None = None, key: object = None, node: object = None
    ) -> _Error:
        """Say further out where it is; returns the error itself: ``raise error.at(path=file)``.

        Args:
            path: of the file or folder.
            line: in that file, from 1.
            key: of a setting, or the name of what has it.
            node: the host.
        """
        file = None if path is None else str(path) + (f", line {line}" if line is not None else "")
        places = [file, None if node is None else f"node {node}", None if key is None else str(key)]
        self._where[:0] = [place for place in places if place is not None]
        self.path = self.path or (None if path is None else str(path))
        self.line = line if self.line is None else self.line
        self.key = self.key or (None if key is None else str(key))
        self.node = self.node or (None if node is None else str(node))
        return self

    def __str__(self) -> str:
        got = f"got {self.got}" if self.got is not None else None
        said: list[Any] = [each for each in (self.problem, got, self.expected) if each]
        return ": ".join([*self._where, "; ".join(said)])


class UserMistake(MpiPrsError):
    """Something the user can mend before anything runs."""

    exit_code = EXIT_USAGE


class ConfigError(UserMistake):
    """The job config cannot be used: a missing file, a YAML error, an unknown key, a bad value."""


class InputError(UserMistake):
    """The inputs cannot be used: nothing matches, or a file or folder cannot be read."""


class OutputError(UserMistake):
    """The output cannot be used: not writable, taken by something else, or in use by another run."""


class ScriptError(UserMistake):
    """The entry script cannot be used: missing, a syntax error, or without ``run``."""


class LaunchError(UserMistake):
    """The program was started in a way that cannot work: too few ranks, or another launcher than this MPI's."""


class SlurmError(UserMistake):
    """One of Slurm's commands could not do what it was asked: not installed, refused, or no answer."""


class WorkspaceError(UserMistake):
    """The workspace or something registered in it cannot be used: not there, broken, or of the wrong kind."""


class ComputeTargetException(WorkspaceError):
    """A compute target that does not exist or cannot be made."""


class ModelNotFoundException(WorkspaceError):
    """No model of this name or version is registered."""


class EnvironmentProblem(WorkspaceError):
    """An environment cannot be had: a package that cannot be installed, or a program that is not here."""


class PipelineError(UserMistake):
    """A pipeline, a step or a parameter is not defined as it should be."""


class RunFailed(MpiPrsError):
    """A run that was waited for has failed; the text has the user's own traceback where there is one."""


class JobStopped(MpiPrsError):
    """The job stopped early with everything finished so far on record; the same command resumes it."""

    exit_code = EXIT_RESUMABLE
