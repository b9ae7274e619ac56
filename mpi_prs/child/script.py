"""The user's entry script: importing it, and what it offers.

Standard library only: the user process imports this module. ``debug`` and ``--dry-run`` use it as well, so a script is
loaded in one way everywhere.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpi_prs.child.shims.finder import resolve

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STEPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "in_flight.py")


_names: list[str] = []  # of the entry script's module; the module itself would be kept from its end


class NoRunFunction(Exception):
    """The entry script has no function ``run``."""


class NoLoadFunction(Exception):
    """``loaders`` are asked for, and the entry script has no function ``load`` that threads can call."""


@dataclass(frozen=True)
class ScriptFunctions:
    """The functions of an entry script; ``init`` and ``shutdown`` do nothing where the script has none.

    ``is_async`` tells that ``run`` is an ``async def``; the other two may be as well. ``load`` is ``None`` where no
    ``loaders`` are asked for.
    """

    init: Callable[[], Any]
    run: Callable[..., Any]
    shutdown: Callable[[], Any]
    takes_context: bool
    is_async: bool = False
    load: Callable[[str], Any] | None = None


def prepare_interpreter(path: str, source_directory: str, arguments: Sequence[str]) -> None:
    """Make ``sys.argv`` and ``sys.path`` what they are when the script is run from its folder."""
    sys.argv = [path, *arguments]
    folder = os.path.dirname(path)
    sys.path[0:1] = [folder] if source_directory in ("", folder) else [folder, source_directory]


def import_script(path: str, *, loads: bool = False, at_once: int = 1) -> ScriptFunctions:
    """Run the script's top level, as an import does (``__name__`` is the file's name, not ``__main__``).

    Args:
        path: of the script.
        loads: whether ``load`` is wanted as well.
        at_once: mini-batches that may be in flight at once.

    Raises:
        NoRunFunction: it has no callable ``run``.
        NoLoadFunction: it has no ``load`` that is wanted.
        Exception: whatever the script's top level raises.
    """
    name = os.path.splitext(os.path.basename(path))[0]
    if name in sys.modules or name in getattr(sys, "stdlib_module_names", ()):
        name = f"entry_script_{name}"  # the script must not hide a module that others import
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _names[:] = [name]
    spec.loader.exec_module(module)
    run, shutdown = getattr(module, "run", None), getattr(module, "shutdown", None) or _nothing
    if _is_streaming(sys.argv):
        # Not for the many scripts that are not: it imports asyncio
        functions = _streaming_functions(module, path)
        enqueued = resolve("mpi_prs.child.enqueue:Enqueued")(*functions, shutdown, at_once)
        run, shutdown = enqueued.run, enqueued.shutdown
    if not callable(run):
        raise NoRunFunction(f"{path} has no function run(mini_batch); define it at the top level of the script")
    return ScriptFunctions(
        init=getattr(module, "init", None) or _nothing,
        run=run,
        shutdown=shutdown,
        takes_context=_takes_second_positional(run),
        is_async=_is_async(run),
        load=_load_of(module, path) if loads else None,
    )


def _is_streaming(arguments: Sequence[str]) -> bool:
    """Whether Azure's preview protocol is asked for."""
    words = " ".join(arguments[1:]).replace("=", " ").split()
    return any(
        word == "--amlbi_async_mode" and words[place + 1].lower() == "true" for place, word in enumerate(words[:-1])
    )


def _streaming_functions(module: types.ModuleType, path: str) -> list[Any]:
    functions = {name: getattr(module, name, None) for name in (*_MUST_STREAM, *_MAY_STREAM)}
    missing = [f"{name}()" for name in _MUST_STREAM if not callable(functions[name])]
    if missing:
        raise NoRunFunction(
            f"{path} has no {' and no '.join(missing)}, which --amlbi_async_mode True in its arguments asks for; "
            "define them at the top level of the script, or leave that argument out"
        )
    return list(functions.values())


_MUST_STREAM = ("enqueue", "get_finished_batch_result")
_MAY_STREAM = ("get_processing_batch_number", "check_all_tasks_processed")


def _load_of(module: types.ModuleType, path: str) -> Callable[[str], Any]:
    load = getattr(module, "load", None)
    if not callable(load):
        raise NoLoadFunction(
            f"{path} has no function load(item), which `loaders` in the job config is for; define it at the top level "
            "of the script, or leave `loaders` out"
        )
    if inspect.iscoroutinefunction(load):
        raise NoLoadFunction(f"{path}: load is an async function, and threads call it; write `def load(item):`")
    return load  # type: ignore[no-any-return]


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


_loops: list[Any] = []  # the one event loop of the script


def event_loop() -> Any:
    """The event loop in which all ``async`` functions of the script run."""
    import asyncio  # takes as long as all that is ours, and few scripts need it

    if not _loops:
        _loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(_loops[0])
    return _loops[0]


def complete(result: Any) -> Any:
    """What a function of the script has returned; if it is ``async``, what it returns at its end."""
    return event_loop().run_until_complete(result) if inspect.iscoroutine(result) else result


async def complete_here(result: Any) -> Any:
    """As :func:`complete`, where the event loop runs."""
    return await result if inspect.iscoroutine(result) else result


def entry_script() -> types.ModuleType | None:
    """The module of the entry script; ``None`` before it is imported."""
    return sys.modules.get(_names[0]) if _names else None


def _nothing() -> None:
    pass


def _takes_second_positional(function: Callable[..., Any]) -> bool:
    """Whether a second positional argument can be given: then ``run`` wants the mini-batch's context."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a callable of an extension module
        return False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) >= 2


def user_traceback(error: BaseException) -> str:
    """The traceback of ``error`` as Python prints it, from the user's first frame on."""
    frames: types.TracebackType | None = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    said = argparse_says(error)
    shown = traceback.TracebackException(type(error), error, frames)
    _leave_out_steps(shown)
    return "".join(shown.format()) + (f"argparse says: {said}\n" if said else "")


def _leave_out_steps(shown: traceback.TracebackException | None) -> None:
    """Those of ours that lie between two tasks of the script."""
    while shown is not None:
        steps = [frame for frame in shown.stack if frame.filename == _STEPS]
        for frame in steps:
            shown.stack.remove(frame)
        shown = shown.__cause__ or shown.__context__


def argparse_says(error: BaseException) -> str:
    """What argparse has printed before it ended the script, which the exception does not tell; empty: it has not."""
    frames = error.__traceback__ if isinstance(error, SystemExit) else None
    while frames is not None:
        code = frames.tb_frame.f_code
        if code.co_name == "error" and code.co_filename.endswith("/argparse.py"):
            return str(frames.tb_frame.f_locals.get("message", ""))
        frames = frames.tb_next
    return ""


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) or file.startswith("<frozen importlib")
