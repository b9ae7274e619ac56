"""What entry scripts import from ``azureml_user.parallel_run``: EntryScript and ParallelRunException.

Both work in every job, and in a script that is tried out by hand. Standard library only: user processes import this
module, in an interpreter that may be another one than ours.
"""

from __future__ import annotations

import enum
import logging
import numbers
import os
import threading
from io import TextIOWrapper
from typing import Any

from mpi_prs.core.azure_names import Surface, SurfaceType
from mpi_prs.core.environ import LOG_FOLDER, LOGGING_LEVEL, OUTPUT, PROCESS_NAME, SOURCE_DIRECTORY

LONGEST_PAUSE = 3600.0
"""Seconds: a longer ``Sleep`` is cut to this."""

_DEFAULT_PAUSE = 30.0
_LOGGER = "ParallelRunStep"


class _Singleton(SurfaceType):
    """Makes one object of a class in a process, and gives it out again and again."""

    _made: dict[type, Any] = {}  # noqa: RUF012 (of all classes that have this type)
    _lock = threading.Lock()

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        with _Singleton._lock:
            if cls not in _Singleton._made:
                _Singleton._made[cls] = super().__call__(*args, **kwargs)
        return _Singleton._made[cls]


class EntryScript(Surface, metaclass=_Singleton):
    """Where an entry script is, and a logger for it: ``EntryScript()`` gives the same object in a whole process.

    Outside a job the folders are those of the working directory, and the logger writes to stderr.
    """

    def __init__(self, logging_level: int | str | None = None) -> None:
        """
        Args:
            logging_level: of :attr:`logger`; default: the job's ``logging_level``, outside a job INFO.
        """
        self._level = logging_level
        self._logger: logging.Logger | None = None

    def __reduce__(self) -> tuple[type[EntryScript], tuple[()]]:
        return type(self), ()

    @property
    def logger(self) -> logging.Logger:
        """Its messages go to ``log_dir/<agent_name>.log.txt`` and, like those of all loggers, to the stderr log.

        In a job both are in ``_run/logs/user``. Where the file cannot be written, stderr alone has the messages.
        """
        if self._logger is None:
            self._logger = self._configured()
        return self._logger

    def _configured(self) -> logging.Logger:
        logger = logging.getLogger(_LOGGER)
        logger.setLevel(self._level or LOGGING_LEVEL.of() or logging.INFO)
        layout = logging.Formatter("%(asctime)s|%(name)s|%(funcName)s()|%(levelname)s|%(message)s")
        handler: logging.Handler | None = None
        if LOG_FOLDER.of() is not None:
            try:
                os.makedirs(self.log_dir, exist_ok=True)
                path = os.path.join(self.log_dir, f"{self.agent_name}.log.txt")
                handler = _LogFile(path, encoding="utf-8")
            except OSError as error:
                logging.getLogger("mpi_prs").warning("EntryScript's log cannot be written: %s", error)
        elif not logging.getLogger().handlers:
            handler = logging.StreamHandler()
        if handler is not None and not logger.handlers:
            handler.setFormatter(layout)
            logger.addHandler(handler)
        return logger

    @property
    def log_dir(self) -> str:
        """A folder for log files, the same for all processes of a node: ``_run/logs/user/entry_script_log/<node>``.

        It may have to be made. Name files there after :attr:`agent_name`, so that processes do not meet.
        """
        return LOG_FOLDER.of() or "logs"

    @property
    def output_dir(self) -> str:
        """The job's output folder, which is there; the file of ``append_row`` comes to lie in it."""
        return OUTPUT.of() or "output"

    @property
    def working_dir(self) -> str:
        """The folder with the user's code (``source_directory``).

        It is shared by all processes, so do not write here: the process's own folder is the current directory.
        """
        return SOURCE_DIRECTORY.of() or "."

    @property
    def agent_name(self) -> str:
        """The process's name on its node, such as ``process003``."""
        return PROCESS_NAME.of() or "process000"


class _LogFile(logging.FileHandler):
    """Takes names of files that are no text, too; Python 3.8 has no parameter for that."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace")


class ParallelRunExceptionCode(str, enum.Enum):
    """What is to happen after a ParallelRunException, besides that the try of the mini-batch has failed."""

    NoRetry = "NoRetry"
    """The mini-batch is given up without further tries."""
    RestartProcess = "RestartProcess"
    """The process calls ``shutdown()``, ends, and is replaced by a fresh one."""
    StopProcess = "StopProcess"
    """The process calls ``shutdown()`` and ends, and is not replaced. When it was the job's last one, the job fails."""
    Sleep = "Sleep"
    """The process gets no work for some seconds."""

    def __str__(self) -> str:
        return self.value


class ParallelRunException(Exception):
    """Raised by ``run()``, it fails the try of the mini-batch as any exception does, and says what is to happen then.

    >>> raise ParallelRunException("the picture is empty", code="NoRetry")
    >>> raise ParallelRunException("the service is busy", code="Sleep", seconds=60)
    >>> raise ParallelRunException(ParallelRunException.RestartProcess, "out of GPU memory")

    Without a code it is an exception like any other. A pause is no progress, as far as ``progress_update_timeout`` is
    concerned; a stop signal does not wait for its end. Raised by ``init()``: ``NoRetry`` and ``StopProcess`` give the
    process up without further tries; ``Sleep`` waits before the next one.

    Attributes:
        message: what went wrong.
        code: see :class:`ParallelRunExceptionCode`, whose names are attributes of this class too; ``None``: none.
        seconds: of a ``Sleep``; default 30. More than an hour is cut to an hour.
    """

    NoRetry = ParallelRunExceptionCode.NoRetry
    RestartProcess = ParallelRunExceptionCode.RestartProcess
    StopProcess = ParallelRunExceptionCode.StopProcess
    Sleep = ParallelRunExceptionCode.Sleep

    code: ParallelRunExceptionCode | None = None  # also in a subclass that forgets super().__init__()
    seconds: float = _DEFAULT_PAUSE

    def __init__(
        self,
        message: object = "",
        code: object = None,
        seconds: float = _DEFAULT_PAUSE,
    ) -> None:
        """Message and code may change places when the code is a :class:`ParallelRunExceptionCode`.

        Raises:
            ValueError: no such code, or no number of seconds that can be waited.
        """
        if isinstance(message, ParallelRunExceptionCode) and not isinstance(code, ParallelRunExceptionCode):
            message, code = "" if code is None else code, message
        self.message = str(message)
        self.code = None if code is None else _code(code)
        if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real) or not seconds >= 0:
            raise ValueError(f"ParallelRunException: seconds is a number from 0, but got {seconds!r}")
        self.seconds = min(float(seconds), LONGEST_PAUSE)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type[ParallelRunException], tuple[str, ParallelRunExceptionCode | None, float]]:
        return type(self), (self.message, self.code, self.seconds)

    def __str__(self) -> str:
        words = [self.message] if self.message else []
        if self.code is ParallelRunExceptionCode.Sleep:
            words.append(f"({self.code} {self.seconds:g} s)")
        elif self.code is not None:
            words.append(f"({self.code})")
        return " ".join(words)


def _code(value: object) -> ParallelRunExceptionCode:
    if isinstance(value, ParallelRunExceptionCode):
        return value
    found = {code.value.lower(): code for code in ParallelRunExceptionCode}.get(str(value).lower())
    if found is None:
        known = ", ".join(ParallelRunExceptionCode)
        raise ValueError(f"ParallelRunException: the code is one of {known}, but got {value!r}")
    return found
