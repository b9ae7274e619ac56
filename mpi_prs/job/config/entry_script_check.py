"""What can be known about an entry script without running it."""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpi_prs.core.errors import ScriptError


def read_script(script: Path) -> bytes:
    """The bytes of the entry script. Raises ScriptError when it cannot be read."""
    try:
        return script.read_bytes()
    except FileNotFoundError:
        raise ScriptError(
            f"{script}: the entry script does not exist; correct entry_script or source_directory"
        ) from None
    except IsADirectoryError:
        raise ScriptError(f"{script}: this is a folder; entry_script is the Python file with run() in it") from None
    except OSError as error:
        raise ScriptError(
            f"{script}: the entry script cannot be read: {error.strerror}; check its permissions"
        ) from None


def check_source(script: Path, source: bytes) -> None:
    """Check that ``source``, the text of ``script``, compiles and defines ``run``.

    Raises ScriptError otherwise; a syntax error is shown as Python itself would show it.
    """
    if b"\0" in source:
        raise ScriptError(
            f"{script}: the entry script holds NUL bytes, so it is not Python source; save it as plain text"
        )
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        source.decode(encoding)
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise ScriptError(
            f"{script}, line {line}: the entry script is not {error.encoding} text (byte 0x{source[error.start]:02x}); "
            "save it as UTF-8, or name its encoding in the first line: # -*- coding: latin-1 -*-"
        ) from None
    except SyntaxError as error:  # a coding line that names no encoding, or a first line that is not UTF-8
        raise ScriptError(f"{script}: the entry script's encoding: {error.msg}; save it as UTF-8") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "invalid escape sequence": the user process shows them
            compile(source, str(script), "exec", dont_inherit=True)
            tree = ast.parse(source, str(script))
    except SyntaxError as error:
        shown = "".join(traceback.format_exception_only(error))
        raise ScriptError(f"{script}: the entry script has a syntax error:\n{shown.rstrip()}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise ScriptError(f"{script}: Python cannot compile the entry script: {error}") from None
    _check_run(script, tree)


def has_unused_load(source: bytes) -> bool:
    """Whether a script defines ``load(item)``, for ``loaders``, and calls it nowhere itself."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # another interpreter may understand it
        return False
    if any(isinstance(node, ast.Name) and node.id == "load" for node in ast.walk(tree)):
        return False
    defined = (node for node in _top_level(tree.body) if isinstance(node, ast.FunctionDef) and node.name == "load")
    return any(len(node.args.posonlyargs + node.args.args) == 1 for node in defined)


def _check_run(script: Path, tree: ast.Module) -> None:
    names: set[str] = set()
    unsuitable = None
    for statement in _top_level(tree.body):
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name="run"):
                unsuitable = (statement.lineno, "run is a class; it must be a function: `def run(mini_batch):`")
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name for alias in aliases)
            case ast.Assign() | ast.AnnAssign(value=ast.expr()):
                stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
                names.update(node.id for node in stored if isinstance(node.ctx, ast.Store))
    # What a star-import brings is known only by running it.
    if names & {"run", "*", "enqueue"}:  # the last of Azure's streaming scripts
        return
    if unsuitable is not None:
        line, problem = unsuitable
        raise ScriptError(f"{script}, line {line}: {problem}")
    near = [name for name in names if name.lower() == "run"] or difflib.get_close_matches("run", names, n=1)
    hint = f" (there is {near[0]})" if near else ""
    raise ScriptError(
        f"{script}: the entry script has no function run{hint}; "
        "add `def run(mini_batch):` at its top level, returning a list with a result for each item"
    )


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, those inside if, try, with, for, while and match included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _top_level(getattr(statement, name, []))
        for name in ("handlers", "cases"):
            for branch in getattr(statement, name, []):
                yield from _top_level(branch.body)
