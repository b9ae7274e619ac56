"""An HDF5 file: opened, and what it has for us, its datasets as columns or arrays, all with the same number of rows.

Whatever is wrong with it is told by InputError. It lies on a filesystem or in a remote store. A file on a filesystem is
opened by its path, with a shared lock: a file that is being written elsewhere is noticed. Filesystems without locks are
none the worse for it. ``HDF5_USE_FILE_LOCKING=FALSE`` switches the locks off.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import logging
import math
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import DamagedFile, Files, quoted
from mpi_prs.inputs.formats.hdf5.columns import COLUMN_ATTRIBUTE, NULLS, TYPE_ATTRIBUTE, arrow_type, plain_type

_log = logging.getLogger("mpi_prs.inputs")
_OF_H5PY = (OSError, RuntimeError, ValueError, KeyError)


class Hdf5File:
    """One open file; use it within :meth:`asking`.

    Attributes:
        path: as it was given.
        root: the ``h5py.File``.
    """

    def __init__(self, path: str, store: Files, cache: Mapping[str, int] | None = None) -> None:
        """Open it, with these settings of the chunk cache (``rdcc_…`` of ``h5py.File``). Raises InputError."""
        self.path = path
        source = store.open(path)  # also of a local file, which h5py opens once more: here what is missing is told
        self._remote = None if os.path.isabs(path) else _Remote(source)
        try:
            with self.asking():
                if self._remote is None:
                    source.close()
                    self.root = _open_locked(path, cache or {})
                else:
                    self._remote.read_head()
                    atexit.register(self.close)  # HDF5 ends in a segmentation fault with a file object still open
                    self.root = h5py.File(self._remote, "r", **(cache or {}))
        except BaseException:
            source.close()
            atexit.unregister(self.close)
            raise

    @contextlib.contextmanager
    def asking(self) -> Iterator[Any]:
        """Everything that h5py raises in the block becomes an InputError that says what is wrong with the file."""
        try:
            yield self.root if hasattr(self, "root") else None
        except InputError:
            raise
        except Exception as error:
            store_failed = self._remote is not None and self._remote.error is not None
            if store_failed or isinstance(error, _OF_H5PY):
                raise self._explained(error) from error
            raise

    def _explained(self, error: Exception) -> InputError:
        if self._remote is not None and self._remote.error is not None:
            error = self._remote.error
            return error if isinstance(error, InputError) else DamagedFile(f"cannot read {self.path}: {error}")
        text = str(error)
        if "unable to lock file" in text:
            return InputError(
                f"{self.path} is open for writing elsewhere; wait until it is closed there, or set the environment "
                "variable HDF5_USE_FILE_LOCKING=FALSE if you know that nothing changes in it"
            )
        if "already open for write" in text:
            return InputError(
                f"{self.path} was not closed by the program that wrote it; check it, and mend it with h5clear -s"
            )
        if "signature not found" in text:
            return DamagedFile(f"{self.path} is not an HDF5 file; check the format of this input")
        if "filter" in text and ("not registered" in text or "plugin" in text):
            return InputError(
                f"{self.path} is compressed with a filter that this HDF5 lacks ({text}); install its plugin and set "
                "HDF5_PLUGIN_PATH"
            )
        return DamagedFile(f"{self.path} is damaged or cannot be read: {' '.join(text.split())}")

    def close(self) -> None:
        """Close it; errors no longer matter."""
        with contextlib.suppress(Exception):
            self.root.close()
        if self._remote is not None:
            self._remote.close()
            atexit.unregister(self.close)


def _open_locked(path: str, cache: Mapping[str, int]) -> Any:
    try:
        return h5py.File(path, "r", locking="best-effort", **cache)
    except OSError as error:
        if "unable to lock file" in str(error) and error.errno not in (errno.EAGAIN, errno.EACCES):
            return h5py.File(path, "r", locking=False, **cache)  # the filesystem has no locks, in its own words
        if "already open for write" in str(error):
            with contextlib.suppress(OSError):  # it is not open as one that others may read meanwhile
                file = h5py.File(path, "r", swmr=True, locking="best-effort", **cache)
                _log.info("%s is being written (SWMR): the rows that are in it now are read", path)
                return file
        raise


_HEAD = 1 << 16
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class _Remote:
    """A file object as HDF5 wants it; :attr:`error` keeps what went wrong, since HDF5 tells it in words of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Exception | None = None
        self._head = b""

    def read_head(self) -> None:
        """Have the beginning here before HDF5 asks for it: a file that it cannot open makes it crash at the exit."""
        try:
            self._head = self._file.read(_HEAD)
            self._file.seek(0)
        except Exception as error:
            self.error = error
            raise
        if not any(self._head[at : at + 8] == _SIGNATURE for at in (0, 512, 1024, 2048, 4096, 8192)):
            raise OSError("signature not found")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """All of it: what HDF5 takes for granted."""
        view = memoryview(buffer).cast("B")
        done = 0
        place = self._file.tell()
        if place + len(view) <= len(self._head):
            view[:] = self._head[place : place + len(view)]
            self._file.seek(place + len(view))
            return len(view)
        try:
            while done < len(view):
                piece = self._file.read(len(view) - done)
                if not piece:
                    raise EOFError("the file ends too early")
                view[done : done + len(piece)] = piece
                done += len(piece)
        except Exception as error:
            self.error = self.error or error
            raise
        return done

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


# What it has for us

_FILL = ("_FillValue", "missing_value")
_SCALE = ("scale_factor", "add_offset")
_MATLAB = "MATLAB_class"
_CONVENTIONS = (*_FILL, *_SCALE, _MATLAB)
_SAMPLE = 1000  # rows, of which the size of text is guessed


@dataclass(frozen=True)
class ColumnSource:
    """One column or array: a dataset, or a field of a compound dataset.

    Attributes:
        problem: why it cannot be read, in words; then nothing else is known of it.
    """

    name: str
    dataset: Any
    dtype: Any
    field: str | None = None
    attribute: object = None
    problem: str = ""

    @property
    def rows(self) -> int:
        return int(self.dataset.shape[0])

    @property
    def trailing(self) -> tuple[int, ...]:
        return tuple(self.dataset.shape[1:])

    @property
    def convention(self) -> str:
        """What netCDF's or MATLAB's conventions say of the values, which are read as they are stored; empty: nothing.

        https://cfconventions.org, sections 2.5.1 and 8.1; "MATLAB_class" marks what MATLAB 7.3 has written.
        """
        if self.dataset is None:
            return ""
        found = {name: _attribute(self.dataset, name) for name in _CONVENTIONS}
        there = {name: value for name, value in found.items() if value is not None and str(value) != "nan"}
        parts = [f"{name} is {there[name]}, and such values are not missing here" for name in _FILL if name in there]
        if scaled := [f"{name} {there[name]}" for name in _SCALE if name in there]:
            parts.append(f"with {' and '.join(scaled)} to be applied: value * scale_factor + add_offset")
        if (kind := there.get(_MATLAB)) is not None:
            of_text = ", and its text is the numbers of UTF-16 units" if kind == "char" else ""
            parts.append(f"MATLAB wrote this {kind} with its dimensions in reverse{of_text}")
        return "; ".join(parts)

    @property
    def null_marks(self) -> Any:
        """The bool dataset that says where a column of our own HDF5 output has no value; ``None``: it has all."""
        group = self.dataset.parent.get(NULLS) if self.field is None else None
        name = posixpath.basename(self.dataset.name)
        return group[name] if isinstance(group, h5py.Group) and name in group else None

    @property
    def chunk_rows(self) -> int:
        """Rows that have to be decoded together."""
        dataset = self.dataset
        filtered = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters()
        return int(dataset.chunks[0]) if filtered else 1


def _attribute(dataset: Any, name: str) -> complex | str | None:
    """The first value of an attribute; ``None``: there is none that is a number or text."""
    try:
        values = np.asarray(dataset.attrs[name]).ravel()
    except (KeyError, OSError, TypeError, ValueError, RuntimeError):
        return None
    value = values[0] if len(values) else None
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, (int, float, complex, str)) else None


@dataclass(frozen=True)
class Layout:
    """What a file has for us.

    Attributes:
        is_table: a table, else arrays.
        rows: of every source.
        sources: the columns or arrays, while the file is open.
        types: names of their Arrow types, or numpy types and shapes of arrays.
        nulls: columns of a table that may lack values, by the word of our own output.
    """

    is_table: bool
    rows: int
    sources: list[ColumnSource]
    types: list[str]
    nulls: frozenset[str] = frozenset()

    @classmethod
    def of(cls, path: str, sources: list[ColumnSource]) -> Layout:
        for source in sources:
            if source.problem:
                raise InputError(
                    f"{path}: {source.name!r} {source.problem}, or leave it out by naming the others with `columns`"
                )
        for source in sources[1:]:
            if source.rows != sources[0].rows:
                raise InputError(
                    f"{path}: the datasets {sources[0].name!r} and {source.name!r} have {sources[0].rows} and "
                    f"{source.rows} rows; name those that belong together with `dataset` or `columns`"
                )
        is_table = not any(source.trailing for source in sources)
        types = []
        for source in sources:
            type = arrow_type(source.dtype, source.attribute) if is_table else plain_type(source.dtype)
            if type is None:
                what = "a table" if is_table else "arrays"
                raise InputError(
                    f"{path}: {source.name!r} is of type {_described(source.dtype)}, which {what} cannot hold; "
                    "leave it out by naming the others with `columns`"
                )
            shape = "".join(f" × {length}" for length in source.trailing)
            types.append(f"{type}{shape}")
        nulls = frozenset(source.name for source in sources if is_table and source.null_marks is not None)
        return cls(is_table, sources[0].rows, sources, types, nulls)

    def to_json(self) -> dict[str, Any]:
        return {"table": self.is_table, "columns": [source.name for source in self.sources], "types": self.types}


def difference(first: Layout, other: Layout) -> str | None:
    """What makes two files no parts of one table, in words; ``None``: nothing."""
    mine, theirs = ({s.name: t for s, t in zip(each.sources, each.types, strict=True)} for each in (first, other))
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            return f"{name!r} is {mine.get(name, 'missing')} there and {theirs.get(name, 'missing')} here"
    return None


def check_unchanged(path: str, layout: Layout, survey: dict[str, Any]) -> None:
    """Raises InputError: the file is not as it was when the run was begun."""
    found = layout.to_json()
    if sorted(zip(found["columns"], found["types"], strict=True)) != sorted(
        zip(survey["columns"], survey["types"], strict=True)
    ):
        raise InputError(f"{path} has changed since the run was begun: {found}, and it was {survey}")


def _described(dtype: Any) -> str:
    if dtype.fields is not None:
        return "compound (records)"
    if h5py.check_ref_dtype(dtype) is not None:
        return "reference"
    if (element := h5py.check_vlen_dtype(dtype)) is not None:
        return f"sequence of {element}"
    return str(dtype)


def find_sources(path: str, root: Any, wanted: str | Sequence[str] | None) -> list[ColumnSource]:
    """The columns or arrays that ``wanted`` names."""
    if wanted is None:
        datasets = _members(root) or _the_only_one(path, root)
        dangling = _dangling(root)
    elif isinstance(wanted, str):
        found = _found(path, root, wanted)
        datasets = _members(found) if isinstance(found, h5py.Group) else [found]
        dangling = _dangling(found) if isinstance(found, h5py.Group) else []
        if not datasets and not dangling:
            raise InputError(f"dataset: the group {wanted!r} of {path} holds no datasets with rows;{_others(root)}")
    else:
        datasets = [_found(path, root, name) for name in wanted]
        dangling = []
    for dataset in datasets:
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
            raise InputError(f"dataset: {dataset.name!r} of {path} is not a dataset with rows;{_others(root)}")
    if len(datasets) == 1 and len(datasets[0].shape) == 1 and (fields := getattr(_dtype(datasets[0]), "fields", None)):
        problem = _filter_problem(datasets[0])
        return [
            ColumnSource(name, datasets[0], field[0], field=name, problem=problem) for name, field in fields.items()
        ]
    names = [dataset.attrs.get(COLUMN_ATTRIBUTE) or posixpath.basename(dataset.name) for dataset in datasets]
    if len(set(names)) < len(names):
        names = [dataset.name for dataset in datasets]
    return [*map(_source, names, datasets), *dangling]


def _source(name: str, dataset: Any) -> ColumnSource:
    dtype = _dtype(dataset)
    problem = _filter_problem(dataset) if dtype is not None else f"is {_type_problem(dataset)}"
    return ColumnSource(name, dataset, dtype, attribute=dataset.attrs.get(TYPE_ATTRIBUTE), problem=problem)


def _dtype(dataset: Any) -> Any | None:
    """``None``: numpy has no such type."""
    try:
        return dataset.dtype
    except TypeError:
        return None


def _type_problem(dataset: Any) -> str:
    """What h5py cannot read of a type: it has no words for it, and of records it reads none then."""
    type = dataset.id.get_type()
    fields = range(type.get_nmembers()) if isinstance(type, h5py.h5t.TypeCompoundID) else ()
    times = [type.get_member_name(number).decode() for number in fields if _is_time(type.get_member_type(number))]
    if times:
        found = f"made of records with fields of HDF5's type for times ({quoted(times)})"
    elif _is_time(type):
        found = "of HDF5's type for times (as of PyTables' Time32Col and Time64Col)"
    else:
        found = "of a type that numpy does not have"
    return f"{found}, which h5py does not read; write it as numbers"


def _is_time(type: Any) -> bool:
    return isinstance(type, h5py.h5t.TypeTimeID)


def _filter_problem(dataset: Any) -> str:
    """Why its values cannot be decompressed; empty: they can."""
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, given = properties.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # it brings the common filters, where it is installed
            if h5py.h5z.filter_avail(code):
                continue
        name = given.decode("utf-8", "replace").partition(";")[0] or _FILTERS.get(code, "unknown")
        return (
            f"is compressed with the filter {code} ({name}), which this HDF5 lacks; install hdf5plugin, or the "
            "filter's own plugin and set HDF5_PLUGIN_PATH"
        )
    return ""


_FILTERS = {305: "LZO", 307: "BZip2", 32001: "Blosc", 32004: "LZ4", 32008: "Bitshuffle", 32013: "ZFP"} | {
    **{32015: "Zstandard", 32017: "SZ", 32024: "SZ3", 32026: "Blosc2"}
}


def _members(group: Any) -> list[Any]:
    """The datasets in a group that have rows, in the order in which they were made where the file knows it."""
    names = [name for name in group if not _is_dangling(group, name)]
    members = [group[name] for name in names if group.get(name, getclass=True) is h5py.Dataset]
    return [dataset for dataset in members if dataset.shape]


def _dangling(group: Any) -> list[ColumnSource]:
    """The links in a group that lead nowhere: there should be columns."""
    return [
        ColumnSource(name, None, None, problem=f"{_dangling_link(group, name)}; mend the link")
        for name in group
        if _is_dangling(group, name)
    ]


def _is_dangling(group: Any, name: str) -> bool:
    link = group.get(name, getlink=True)
    return isinstance(link, (h5py.SoftLink, h5py.ExternalLink)) and group.get(name) is None


def _dangling_link(group: Any, name: str) -> str:
    link = group.get(name, getlink=True)
    where = f"{link.filename}: {link.path}" if isinstance(link, h5py.ExternalLink) else link.path
    return f"is a link to {where}, which is not there"


def _found(path: str, root: Any, name: str) -> Any:
    found = root.get(name)
    if found is None:
        if _is_dangling(root, name):
            raise InputError(f"dataset: {name!r} of {path} {_dangling_link(root, name)};{_others(root)}")
        raise InputError(f"dataset: {path} has no {name!r};{_others(root)}")
    _refuse_frames_of_pandas(path, found)
    return found


def _refuse_frames_of_pandas(path: str, found: Any) -> None:
    """``to_hdf`` spreads a frame over blocks and pickled axes, which only pandas puts together again."""
    while "pandas_type" not in found.attrs:
        if found.name == "/":
            return
        found = found.parent
    target = posixpath.splitext(posixpath.basename(path))[0] + ".parquet"
    raise InputError(
        f"{path}: {found.name!r} was written by pandas' to_hdf, in a layout of its own; convert it with these two "
        f"lines:\n    frame = pandas.read_hdf({path!r}, {found.name!r})\n    frame.to_parquet({target!r})"
    )


def _the_only_one(path: str, root: Any) -> list[Any]:
    names = _all_names(root)
    for name in names:
        _refuse_frames_of_pandas(path, root[name])
    if len(names) != 1:
        raise InputError(f"{path} has no datasets with rows at its root; name one with `dataset`:{_others(root)}")
    return [root[names[0]]]


def _others(root: Any) -> str:
    names = _all_names(root)
    return f" there are {quoted(names)}" if names else " there are none in the file"


def _all_names(root: Any) -> list[str]:
    names: list[str] = []

    def note(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and found.shape:
            names.append(name)

    root.visititems(note)
    return names


def bytes_a_row(source: ColumnSource) -> float:
    """Of the values in memory; text and bytes of variable length by a sample."""
    if h5py.check_vlen_dtype(source.dtype) is None and source.dtype.kind != "O":
        return float(source.dtype.itemsize * math.prod(source.trailing))
    sample = read_values(source, 0, min(_SAMPLE, source.rows)).reshape(-1)
    if not len(sample):
        return 8.0
    return math.prod(source.trailing) * (8 + sum(map(len, sample)) / len(sample))


def read_values(source: ColumnSource, start: int, stop: int) -> Any:
    """A numpy array of these rows, as h5py reads them."""
    if source.field is not None:
        return source.dataset.fields([source.field])[start:stop][source.field]
    return source.dataset[start:stop]


def cache_for(sources: Sequence[ColumnSource]) -> dict[str, int]:
    """How to open the file so that each dataset keeps all chunks of the same rows, and none is decoded twice.

    Empty where HDF5's own 1 MiB will do.
    """
    most_chunks = most_bytes = 0
    for source in sources:
        if source.chunk_rows > 1:
            shape, chunk, size = source.trailing, source.dataset.chunks, source.dataset.dtype.itemsize
            chunks = math.prod(math.ceil(length / part) for length, part in zip(shape, chunk[1:], strict=True))
            most_chunks = max(most_chunks, chunks)
            most_bytes = max(most_bytes, chunks * math.prod(chunk) * size)
    if most_bytes <= 1 << 20:
        return {}
    return {"rdcc_nbytes": most_bytes, "rdcc_nslots": max(521, min(20 * most_chunks + 1, 1_000_003))}
