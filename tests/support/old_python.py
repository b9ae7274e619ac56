"""What user processes can import, found by reading the source; and what in it an older Python would not take.

Their Python may be as old as 3.7 and has none of our packages. So all that is reached there is written for it, but for
the functions that are marked with ``own_python``: those say what they need before they do anything.
"""

from __future__ import annotations

import ast
import builtins
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path

from mpi_prs.child.shims import names
from tests.support.jobs import REPOSITORY

ENTRANCES = {
    "mpi_prs",
    "mpi_prs.child.host",
    "mpi_prs.child.check",
    "mpi_prs.child.shims.extension",
    *(target.partition(":")[0] for target in names.PUBLIC.values()),
}
"""The modules that user processes import by name."""

KEYWORDS = {
    *("kw_only", "slots", "match_args", "strict", "missing_ok", "dirs_exist_ok", "root_dir", "usedforsecurity"),
    *("ignore_cleanup_errors", "onexc", "eval_str", "walk_up", "pipesize", "process_group"),
}
"""Parameters of the standard library that Python 3.7 has not."""

METHODS = {
    *("removeprefix", "removesuffix", "bit_count", "is_relative_to", "readlink", "hardlink_to", "link_to", "with_stem"),
    *("with_segments", "add_note", "toreadonly", "madvise"),
}
"""Methods of the standard library's types that Python 3.7 has not."""

_NAMES = {
    "asyncio": "Runner TaskGroup timeout to_thread",
    "ast": "get_source_segment unparse",
    "contextlib": "aclosing chdir",
    "dataclasses": "KW_ONLY",
    "datetime": "UTC",
    "enum": "StrEnum ReprEnum member nonmember verify",
    "functools": "cache cached_property singledispatchmethod",
    "hashlib": "file_digest",
    "importlib": "metadata",
    "inspect": "get_annotations",
    "itertools": "batched pairwise",
    "math": "cbrt comb dist exp2 isqrt lcm nextafter perm prod sumprod ulp",
    "multiprocessing": "parent_process shared_memory",
    "os": "eventfd memfd_create pidfd_open process_cpu_count splice waitstatus_to_exitcode",
    "pickle": "PickleBuffer",
    "random": "randbytes",
    "shlex": "join",
    "signal": "pidfd_send_signal raise_signal strsignal valid_signals",
    "socket": "create_server recv_fds send_fds",
    "statistics": "NormalDist fmean geometric_mean multimode quantiles",
    "sys": "exception orig_argv stdlib_module_names unraisablehook",
    "threading": "excepthook get_native_id",
    "types": "GenericAlias NoneType UnionType",
    "typing": "Annotated Concatenate Final Literal LiteralString Never NotRequired ParamSpec Protocol Required Self "
    "SupportsIndex TypeAlias TypeGuard TypedDict Unpack assert_never final get_args get_origin override "
    "get_type_hints runtime_checkable",
}
NAMES = {(module, name) for module, names_ in _NAMES.items() for name in names_.split()}
"""Modules of the standard library, and what Python 3.7 has not of them (``get_type_hints`` not for our types)."""

MODULES = {"graphlib", "importlib.metadata", "multiprocessing.shared_memory", "tomllib", "zoneinfo"}
BUILTINS = {"BaseExceptionGroup", "EncodingWarning", "ExceptionGroup", "aiter", "anext"}
GENERIC = {"ChainMap", "Counter", "OrderedDict", "defaultdict", "deque", "dict", "frozenset", "list", "set", "tuple"}
GENERIC |= {"type"}
OF_THE_EXCEPTION = {"format_exception", "print_exception"}
GENERIC_ATTRIBUTES = {"Match", "Pattern", "PathLike", "Popen", "Queue", "partial", "ref"}
"""Classes that take ``[…]`` since Python 3.9, beside those of ``collections.abc``."""


class Source:
    """A module's source, without what is there for the type checker alone, and without the functions that are marked.

    Args:
        text: the source.
        path: where it is from, for messages.
    """

    def __init__(self, text: str, path: str = "<text>") -> None:
        self.text = text
        self.path = path

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Everything that can run when the module is imported, or one of its functions is called."""
        return list(_running(ast.parse(self.text, self.path)))

    def imports(self) -> Iterator[tuple[str, str]]:
        """Module, and the name from it, or ``""``."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                yield from ((node.module, alias.name) for alias in node.names)

    def standard_names(self) -> set[tuple[str, str]]:
        """Module of the standard library, and a name that is taken from it."""
        modules = {module for module, name in self.imports() if not name}
        taken = {(module, name) for module, name in self.imports() if name}
        taken |= {pair for pair in map(_attribute, self.nodes) if pair[0] in modules}
        return {(module, name) for module, name in taken if module.partition(".")[0] in sys.stdlib_module_names}

    def traps(self, version: tuple[int, int] = (3, 7)) -> list[str]:
        """What this version of Python would not take: the syntax; and what fails only when it runs, of 3.7."""
        try:
            ast.parse(self.text, self.path, feature_version=version)
        except SyntaxError as error:
            return [f"{self.path}:{error.lineno}: {error.msg}"]
        found = [(line, text) for node in self.nodes for line, text in self._traps_of(node)]
        return [f"{self.path}:{line}: {text}" for line, text in found]

    def _traps_of(self, node: ast.AST) -> Iterator[tuple[int, str]]:
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            yield line, f"{node.arg}="
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield line, f".{node.attr}"
        if isinstance(node, ast.Name) and node.id in BUILTINS:
            yield line, node.id
        if isinstance(node, ast.Subscript) and self._takes_no_types(node.value):
            yield line, f"{ast.unparse(node)} when it runs"
        if isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.BitOr) and _is_new_or(node):
            yield line, ast.unparse(node)
        if isinstance(node, ast.Call) and len(node.args) == 1 and _last_name(node.func) in OF_THE_EXCEPTION:
            yield line, f"{ast.unparse(node)}: of the exception alone"
        if isinstance(node, (ast.Return, ast.Yield)) and _has_bare_star(node.value):
            yield line, "a star without parentheses"
        if isinstance(node, ast.Import) and MODULES & {alias.name for alias in node.names}:
            yield line, ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and (
            node.module in MODULES or NAMES & {(str(node.module), alias.name) for alias in node.names}
        ):
            yield line, ast.unparse(node)
        if _attribute(node) in NAMES:
            yield line, ast.unparse(node)

    def _takes_no_types(self, value: ast.expr) -> bool:
        if isinstance(value, ast.Name):
            return value.id in GENERIC or ("collections.abc", value.id) in self._imported
        return isinstance(value, ast.Attribute) and value.attr in GENERIC_ATTRIBUTES

    @cached_property
    def _imported(self) -> set[tuple[str, str]]:
        return set(self.imports())


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it, but for annotations, which ``from __future__ import annotations`` leaves as text."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") and not isinstance(node, ast.Call):
            continue
        for below in value if isinstance(value, list) else [value]:
            if isinstance(below, ast.AST) and not _is_left_out(below):
                yield from _running(below)


def _is_left_out(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test) and not node.orelse
    marks = getattr(node, "decorator_list", [])
    return any(isinstance(mark, ast.Call) and _last_name(mark.func) == "own_python" for mark in marks)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _attribute(node: ast.AST) -> tuple[str, str]:
    """Of ``module.name``; of anything else, nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id, node.attr
    return "", ""


def _is_new_or(node: ast.BinOp | ast.AugAssign) -> bool:
    """Whether it joins types or dicts."""
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(map(_is_type_or_dict, sides))


def _is_type_or_dict(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        is_class = node.id[:1].isupper() and not node.id.isupper()
        return is_class or isinstance(getattr(builtins, node.id, None), type)
    if isinstance(node, ast.Call):
        return _last_name(node.func) == "dict"
    return isinstance(node, (ast.Dict, ast.DictComp)) or (isinstance(node, ast.Constant) and node.value is None)


def _has_bare_star(value: ast.expr | None) -> bool:
    if not isinstance(value, ast.Tuple) or not value.elts:
        return False
    bare = value.elts[0].col_offset == value.col_offset
    return bare and any(isinstance(each, ast.Starred) for each in value.elts)


# Modules


def file_of(module: str) -> Path | None:
    """The file of a module of ours; ``None``: there is no such module."""
    path = REPOSITORY.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@cache
def source_of(module: str) -> Source:
    """The source of a module of ours."""
    file = file_of(module)
    assert file is not None, module
    return Source(file.read_text(), str(file.relative_to(REPOSITORY)))


def reached(entrances: Iterable[str] = frozenset(ENTRANCES)) -> dict[str, Source]:
    """All modules of ours that come with these, at once or when one of their functions is called; sorted."""
    found: dict[str, Source] = {}
    left = list(entrances)
    while left:
        module = left.pop()
        if module in found or file_of(module) is None:
            continue
        found[module] = source_of(module)
        left.append(module.rpartition(".")[0] or module)
        for other, name in found[module].imports():
            if other.partition(".")[0] == "mpi_prs":
                left += [other, f"{other}.{name}"] if name else [other]
    return dict(sorted(found.items()))


# Interpreters


def _answers(python: str) -> bool:
    return subprocess.run([python, "-V"], capture_output=True, check=False).returncode == 0


@cache
def old_pythons() -> tuple[str, ...]:
    """Those older than ours that are on this machine."""
    found = (shutil.which(f"python3.{minor}") for minor in (7, 8, 9))
    return tuple(python for python in found if python and _answers(python))
