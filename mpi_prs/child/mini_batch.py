"""The objects that ``run()`` receives, made from a mini-batch's payload.

Standard library only, until a mini-batch is a table: then pandas and pyarrow of the user's interpreter. ::

    plain payload       paths separated by NUL
    described payload   u32 length of a JSON header │ header │ paths separated by NUL, or nothing

    header   input       number of the dataset
             partition   values of the partition keys
             segment     of tables: the path of shared memory that holds an Arrow stream, or arrays
             arrays      of arrays: name, dtype, shape, offset and size in bytes of each
             paths       of tables: the files that the rows are from
             row_index   of tables: number of the first row over all inputs, where it is known
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import struct
import sys
import weakref
from collections import deque
from typing import Any

from mpi_prs.child.output_folder import OutputFolder
from mpi_prs.core.partition_values import partition_values
from mpi_prs.wire.parts import is_part, mini_batch_of

_ENCODING = sys.getfilesystemencoding()
_LENGTH = struct.Struct("<I")


class MiniBatch(list):  # type: ignore[type-arg]  # the user's Python may be older than ours
    """A list of file paths (``str``); ``task_id`` names the mini-batch in the logs."""

    task_id: str = ""

    def __reduce__(self) -> Any:
        """For another process it is a plain list: its Python may not have this module."""
        return list, (list(self),)


class LoadedItems(MiniBatch):
    """What ``load()`` returned, in order; ``items`` has the paths of that."""

    def __init__(self, loaded: list[Any], items: list[str], task_id: str) -> None:
        super().__init__(loaded)
        self.items = items
        self.task_id = task_id


class MiniBatchDataset:
    """Where a mini-batch comes from: ``context.dataset``.

    Attributes:
        input: number of the dataset among the job's inputs, from 0.
        paths: the files of the mini-batch, as the dataset names them; of a table those that its rows are from.
    """

    def __init__(self, input: int, paths: list[str]) -> None:
        self.input = input
        self.paths = paths

    def __repr__(self) -> str:
        return f"MiniBatchDataset(input={self.input}, {len(self.paths)} files)"


class MiniBatchContext:
    """The second argument of ``run(mini_batch, mini_batch_context)``.

    Attributes:
        minibatch_index: the mini-batch's number, from 0.
        partition_key_value: the values of the partition keys, or ``None``.
        dataset: where the mini-batch comes from, a :class:`MiniBatchDataset`.
        global_row_index_lower_bound: number of the first row over all inputs, or ``None`` where it is not known: rows
            of text files are not counted beforehand.
        retry_count: 0 at the first try.
        is_part: whether these are only some items of the mini-batch, which has failed as a whole
            (``bisect_on_failure``), or of which only these have (``--only-failed``).
    """

    def __init__(self, number: int, retry_count: int, files: OutputFolder | None = None) -> None:
        self.minibatch_index = mini_batch_of(number)
        self.is_part = is_part(number)
        self.partition_key_value: dict[str, Any] | None = None
        self.dataset: MiniBatchDataset | None = None
        self.global_row_index_lower_bound: int | None = None
        self.retry_count = retry_count
        self._files = files

    @property
    def output_dir(self) -> str:
        """A folder for files of this mini-batch: they appear below ``files`` in the output folder if its answer is
        accepted, and else they are removed. Raises OSError: it cannot be made."""
        if self._files is None:
            import tempfile

            self._files = OutputFolder(tempfile.mkdtemp(prefix="output_dir-", dir="."))
        return self._files.make()

    def __repr__(self) -> str:
        return f"MiniBatchContext(minibatch_index={self.minibatch_index}, retry_count={self.retry_count})"


def file_mini_batch(payload: memoryview, number: int) -> MiniBatch:
    """The paths in ``payload`` (separated by NUL). About 1 µs, and 0.05 µs a path.

    Paths are decoded as ``os.fsdecode`` does, so a name that is not valid text still opens the file.
    """
    batch = MiniBatch(str(payload, _ENCODING, "surrogateescape").split("\0"))
    batch.task_id = str(mini_batch_of(number))
    return batch


def data_frame(table: Any) -> Any:
    """A ``pandas.DataFrame`` of a ``pyarrow.Table``, with the types that its schema tells pandas.

    Whole numbers in lists and structs stay whole beside missing ones.
    """
    import pyarrow

    # A pool of one thread would only cost the way there and back
    return table.to_pandas(use_threads=pyarrow.cpu_count() > 1, integer_object_nulls=True)


class PlainMiniBatches:
    """Makes mini-batches of plain payloads."""

    def paths(self, payload: memoryview) -> list[str]:
        """The paths alone."""
        return file_mini_batch(payload, 0)

    def make(self, payload: memoryview, context: MiniBatchContext | None, number: int) -> MiniBatch:
        """The mini-batch; the context, if one is wanted, is completed."""
        batch = file_mini_batch(payload, number)
        if context is not None:
            context.dataset = MiniBatchDataset(0, list(batch))
        return batch

    def let_go(self) -> None:
        """The mini-batch made last is done with."""


class DescribedMiniBatches:
    """Makes mini-batches of described payloads: paths, a ``pandas.DataFrame``, or a dict of numpy arrays."""

    def __init__(self) -> None:
        self._segment = ""
        self._memory: _Memory | None = None
        self._mapped: deque[_Memory] = deque()  # small segments, to be used again; mapping one costs as much as reading

    def paths(self, payload: memoryview) -> list[str]:
        """The paths alone, of a mini-batch of files."""
        (length,) = _LENGTH.unpack_from(payload)
        return file_mini_batch(payload[_LENGTH.size + length :], 0)

    def make(self, payload: memoryview, context: MiniBatchContext | None, number: int) -> Any:
        """The mini-batch; the context, if one is wanted, is completed.

        About 10 µs; for a table also what pandas takes to make a DataFrame of Arrow's columns: a copy of its bytes.

        Raises:
            OSError: the shared memory is gone.
        """
        (length,) = _LENGTH.unpack_from(payload)
        start = _LENGTH.size
        header = json.loads(bytes(payload[start : start + length]))
        batch: Any
        if "segment" not in header:
            batch = file_mini_batch(payload[start + length :], number)
        else:
            self._segment = header["segment"]
            try:
                batch = self._arrays(header["arrays"]) if "arrays" in header else self._table()
            except PermissionError as error:
                raise PermissionError(f"{error}{_NAMESPACE}") from None
        if context is not None:
            context.dataset = MiniBatchDataset(header["input"], header["paths"] if "paths" in header else list(batch))
            if header.get("partition") is not None:
                context.partition_key_value = partition_values(header["partition"])
            context.global_row_index_lower_bound = header.get("row_index")
        return batch

    def _table(self) -> Any:
        import pyarrow

        identity = (self._segment, os.stat(self._segment).st_ino)  # of each alone there may be another one later
        for memory in self._mapped:
            if memory.identity == identity:
                self._mapped.remove(memory)
                break
        else:
            memory = _Memory(self._segment, identity, mmap.MAP_SHARED | _POPULATE, mmap.PROT_READ)
        self._memory = memory
        with pyarrow.ipc.open_stream(pyarrow.py_buffer(memory.content)) as reader:
            return data_frame(reader.read_all())

    def _arrays(self, places: list[list[Any]]) -> dict[str, Any]:
        """On a private mapping: the script may write into them, and nobody else sees it."""
        memory = self._memory = _Memory(self._segment, None, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        return {
            name: memory.content[offset - _CONTENT : offset - _CONTENT + size].view(dtype).reshape(shape)
            for name, dtype, shape, offset, size in places
        }

    def let_go(self) -> None:
        """The mini-batch made last is done with; if the script refers to nothing of it, tell the worker so."""
        memory, self._memory = self._memory, None
        if memory is None or memory.is_referred_to:
            return
        if memory.identity and len(memory.content) <= _SMALL:
            self._mapped.append(memory)
            if len(self._mapped) > _MOST_MAPPED:
                self._mapped.popleft()
        # Opened anew: between then and now the script may have closed the descriptor and got its number for a file.
        with contextlib.suppress(OSError), open(self._segment, "r+b", buffering=0) as segment:
            segment.write(b"\1")


def maker_of(payloads: str) -> PlainMiniBatches | DescribedMiniBatches:
    """What makes mini-batches of such payloads, one after the other: ``plain`` or ``described``."""
    return PlainMiniBatches() if payloads == "plain" else DescribedMiniBatches()


_NAMESPACE = (
    " (the worker's memory: this process is in another user namespace, as in a container; "
    "set MPI_PRS_TABLES_IN_FILES to 1 in environment_variables)"
)
_CONTENT = 64  # see mpi_prs.inputs.segment
_SMALL = 16 << 20
_MOST_MAPPED = 4
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)  # Python 3.10; without it pages are mapped one by one


def _mapped(path: str, flags: int, protection: int) -> Any:
    """A file in memory, as bytes of ctypes. Unlike ``mmap.mmap`` it takes no descriptor: a script may keep thousands.

    Raises:
        OSError: it is gone, or there is no memory.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        address = _mmap(None, size, protection, flags, file.fileno(), 0)
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    memory = (ctypes.c_ubyte * size).from_address(address)
    # Not at exit: the script's threads may still read it then.
    weakref.finalize(memory, _munmap, address, size).atexit = False
    return memory


_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Memory:
    """A mapped segment.

    Attributes:
        identity: of the segment; ``None``: the memory is not to be used again.
        content: a numpy array of bytes; everything that is made of the segment refers to it.
    """

    def __init__(self, path: str, identity: tuple[str, int] | None, flags: int, protection: int) -> None:
        import numpy

        self.identity = identity
        self._whole = numpy.frombuffer(_mapped(path, flags, protection), numpy.uint8)
        self._whole.flags.writeable = bool(protection & mmap.PROT_WRITE)
        self.content = self._whole[_CONTENT:]
        self._own_references = self._references()

    def _references(self) -> int:
        # Arrow's buffers refer to the content; arrays made of it refer, as numpy has it, to what it is a view of.
        return sys.getrefcount(self.content) + sys.getrefcount(self._whole)

    @property
    def is_referred_to(self) -> bool:
        """Whether anybody else refers to the content, or to a part of it."""
        return self._references() > self._own_references


def has_no_rows(batch: Any) -> bool:
    """Whether a table or arrays have no rows: a part of a file may turn out to, and ``run()`` is not called for it."""
    return not len(next(iter(batch.values()))) if isinstance(batch, dict) else not len(batch)


def import_table_libraries() -> None:
    """Import what tables need, before ``init()``: what is missing is told at once, and no ``run()`` pays for it.

    Raises:
        ImportError: it says what the user's interpreter lacks.
    """
    try:
        import numpy  # noqa: F401
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the inputs are tables, and for a DataFrame the script's interpreter {sys.executable} needs pandas and "
            f"pyarrow: {error}. Install them there, or give an `environment` that has them"
        ) from error
