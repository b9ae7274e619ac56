"""Folders that are walked, files that are copied, and names that files get when they are whole: each in one way.

::

    walk                what is below a folder: linked folders too, once
    own_file            opened where a file of ours is or will be, never through a link; empty_folder: nor emptied
    copy_atomically     a copy that has its name when it is complete
    beside              a place for a finished file, removed at the end unless it was moved ─► move, claim, claim_folder
    arriving            the same, and it takes its name when the block ends well; replacing: opened for writing

Link and rename are atomic on local filesystems and on NFS, even when the server's answer is lost: then the file itself
tells whether it was done.

Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Container, Iterator
from io import FileIO
from pathlib import Path
from typing import AnyStr, BinaryIO

from mpi_prs.core.free_space import FULL

_PIECE = 1 << 20
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


def _nothing(*_: object) -> None:
    pass


# Walking


def walk(
    folder: str | os.PathLike[str], skip: Callable[[str], object] = _nothing, *, folders: bool = False
) -> Iterator[str]:
    """The relative path of everything below a folder that is no folder itself, sorted; each folder is scanned once.

    Hidden names and broken links, pipes, sockets and devices are there too. Links to folders are followed, wherever
    they lead, but for those that lead back to a folder which they lie in.

    Args:
        folder: where to begin; it may be a link.
        skip: whether to leave something out; gets its relative path, which ends with a slash if it is a folder.
        folders: the folders too, each before what is in it; their paths end with a slash.

    Raises:
        OSError: a folder cannot be read, ``folder`` among them if there is none; one below that has gone meanwhile is
            left out.
    """
    root = os.fspath(folder)
    stack = [("", _names_in(root, "", skip))]
    while stack:
        above, names = stack[-1]
        if not names:
            stack.pop()
            continue
        name = above + names.pop()
        is_folder = name.endswith("/")
        if folders or not is_folder:
            yield name
        if is_folder:
            with contextlib.suppress(FileNotFoundError):
                stack.append((name, _names_in(root, name, skip)))


def _names_in(root: str, above: str, skip: Callable[[str], object]) -> list[str]:
    """The names in a folder, the first one last. That of a folder ends with a slash: so sorted, they come in the order
    of the full paths below them."""
    names = []
    with os.scandir(os.path.join(root, above[:-1]) if above else root) as entries:
        for entry in entries:
            is_folder = is_folder_entry(entry)
            name = entry.name + "/" if is_folder else entry.name
            if not skip(above + name) and not (is_folder and entry.is_symlink() and leads_back(entry.path)):
                names.append(name)
    names.sort(reverse=True)
    return names


def is_folder_entry(entry: os.DirEntry[AnyStr]) -> bool:
    """Whether an entry of a folder is a folder, or leads to one. Raises OSError: that cannot be seen."""
    return stat.S_ISDIR(mode_of(entry.path)) if entry.is_symlink() else entry.is_dir()


def is_file_entry(entry: os.DirEntry[AnyStr]) -> bool:
    """Whether an entry of a folder is a regular file, or leads to one. Raises OSError: that cannot be seen."""
    return stat.S_ISREG(mode_of(entry.path)) if entry.is_symlink() else entry.is_file()


def mode_of(path: str | bytes) -> int:
    """The mode of what a path leads to; 0 if it leads nowhere. Raises OSError."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in _NOWHERE:
            return 0
        raise


def leads_back(link: AnyStr) -> bool:
    """Whether a link leads to a folder that it lies in: who followed it would go round for ever. Raises OSError."""
    target = os.stat(link)
    above = os.path.dirname(os.path.abspath(link))
    while not os.path.samestat(target, os.stat(above)):
        if os.path.dirname(above) == above:
            return False
        above = os.path.dirname(above)
    return True


# Where strangers may have been


class NoRegularFile(OSError):
    """Something that is no regular file stands where one of ours should: a link, a folder, a pipe."""

    def __str__(self) -> str:
        return f"{self.filename} is {self.strerror}: expected a file. Remove it"


RUN_FOLDER = "_run"
"""A run directory's name in the output folder."""


def own_file(path: str, flags: int, mode: int = 0o666) -> int:
    """An ``opener`` for :func:`open` and for files of ours: through no link in their place, and waiting for no pipe.

    In a run directory it goes through no link on the way either, whoever puts one there at whatever moment.

    Raises:
        NoRegularFile: something else is there.
        OSError: it cannot be opened.
    """
    above, mark, below = path.rpartition(f"/{RUN_FOLDER}/")
    if not mark:
        return regular_file(path, flags | os.O_NOFOLLOW, mode)
    *folders, name = below.split("/")
    at = [os.open(f"{above}/{RUN_FOLDER}", _FOLDER)]
    try:
        for folder in filter(None, folders):
            at.append(_own_folder(folder, at[-1], path))
        return regular_file(path, flags | os.O_NOFOLLOW, mode, place=(name, at[-1]))
    finally:
        for descriptor in at:
            os.close(descriptor)


def _own_folder(name: str, at: int, path: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise NoRegularFile(errno.ELOOP, f"reached through a link, {name}", path) from None
        raise


def regular_file(path: str, flags: int, mode: int = 0o666, *, place: tuple[str, int] | None = None) -> int:
    """The same through links, for files that users name; ``place``: its name in an open folder."""
    name, at = place or (path, None)
    try:
        descriptor = os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=at)
    except OSError as error:
        error.filename = os.fspath(path)
        what = _STRANGE.get(error.errno or 0)
        raise NoRegularFile(error.errno, what, os.fspath(path)) if what else error from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoRegularFile(errno.EINVAL, "no regular file", os.fspath(path))
    os.set_blocking(descriptor, True)
    return descriptor


_STRANGE = {errno.ELOOP: "a link", errno.EISDIR: "a folder", errno.ENXIO: "a pipe or a socket"}


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file, of no pipe or device, and of none that is larger than :data:`LARGEST`.

    Raises:
        NoRegularFile: something else is there.
        OSError: it cannot be read, or is larger.
    """
    descriptor = regular_file(os.fspath(path), os.O_RDONLY)
    try:
        data = b""
        while len(data) <= LARGEST:
            piece = os.read(descriptor, max(_PIECE, len(data)))
            if not piece:
                return data
            data += piece
    finally:
        os.close(descriptor)
    raise OSError(errno.EFBIG, "it is larger than any that is meant", os.fspath(path))


LARGEST = 1 << 28
"""Bytes of a file that is read as a whole."""


def end_of_text(path: str | os.PathLike[str], most: int) -> str:
    """The last bytes of a text, ``most`` of them; empty where it cannot be read."""
    try:
        with open(regular_file(os.fspath(path), os.O_RDONLY), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def empty_folder(folder: Path, keep: Container[str] = ()) -> None:
    """Remove all that is in a folder, but for some names. Links are removed and not followed, ``folder`` neither.

    Raises:
        OSError: something cannot be removed, or ``folder`` is a link or no folder.
    """
    _empty(os.open(folder, _FOLDER), keep)


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _empty(descriptor: int, keep: Container[str]) -> None:
    try:
        for name in os.listdir(descriptor):
            if name in keep:
                continue
            if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                _empty(os.open(name, _FOLDER, dir_fd=descriptor), ())
                os.rmdir(name, dir_fd=descriptor)
            else:
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)


# Copying


def copy_atomically(
    source: str | os.PathLike[str],
    target: Path,
    *,
    keep_mode: bool = True,
    lasting: bool = False,
    check: Callable[[], object] = _nothing,
    span: tuple[int, int] | None = None,
) -> int:
    """Copy a file, or a span of it; the copy has its name when it is complete, whoever else copies to the same name.

    Its folder is made.

    Args:
        source: a regular file, or a link to one.
        target: what is there is replaced.
        keep_mode: the copy gets the permissions of the source, and its owner may write; otherwise those of a new file,
            and whoever may read it may run it if the source's owner may.
        lasting: put it on disk before it takes its name: it survives a power failure.
        check: called now and then; what it raises ends the copy.
        span: bytes from an offset on, and how many.

    Returns:
        the size of the copy in bytes; less than a span has where the source ends in it.

    Raises:
        OSError: the source cannot be read, which then is the error's ``filename``; or the copy cannot be written.
    """
    size = 0
    with arriving(target) as partial, _reading(source) as reader, open(partial, "xb") as writer:
        found = os.fstat(reader.fileno())
        left = found.st_size if span is None else span[1]
        if span is not None:
            reader.seek(span[0])
        while span is None or left:
            check()
            try:
                piece = reader.read(_PIECE if span is None else min(_PIECE, left))
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(source)) from None
            if not piece:
                break
            size += writer.write(piece)
            left -= len(piece)
        mode = stat.S_IMODE(found.st_mode) & 0o777 | stat.S_IWUSR
        if not keep_mode:
            mode = stat.S_IMODE(os.fstat(writer.fileno()).st_mode)
            mode |= (mode & 0o444) >> 2 if found.st_mode & stat.S_IXUSR else 0
        os.fchmod(writer.fileno(), mode)
        if lasting:
            writer.flush()
            os.fsync(writer.fileno())
    return size


@contextlib.contextmanager
def _reading(source: str | os.PathLike[str]) -> Iterator[FileIO]:
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait for the writer of a pipe
    with open(descriptor, "rb", buffering=0) as reader:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is neither a file nor a folder", os.fspath(source))
        yield reader


def reason(error: OSError) -> str:
    """What an error of a disk says, with advice for one that is full."""
    advice = ": free some space, or raise the quota" if error.errno in FULL else ""
    return f"{error.strerror or error}{advice}"


# Names for what is whole


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place in the folder of ``path`` for the block to make a file at, whoever else makes one for the same name; it
    is removed in the end if it is still there.

    The folder is made where it is missing. The place has a name of its own, ``.….part``, which listings of ours skip:
    not made from the name, which may be as long as a name can be.

    Raises:
        OSError: it cannot be done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def arriving(path: Path) -> Iterator[Path]:
    """The same, and when the block ends well, the file takes the name ``path``. Raises OSError."""
    with beside(path) as partial:
        yield partial
        os.replace(partial, path)


@contextlib.contextmanager
def replacing(path: Path, *, lasting: bool = False, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file to write into; it takes the name ``path`` when the block ends well, and is removed when it does not: a
    reader sees the old one or the new one, never a part.

    Args:
        path: the file; its folder is made where it is missing.
        lasting: put it on disk before it takes its name, and its name after that: it survives a power failure.
        mode: its permissions, whatever the umask says, and at no moment more; default: those of a new file.

    Raises:
        OSError: it cannot be written.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if mode is None else mode)

    with arriving(path) as partial, open(partial, "xb", opener=opener) as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        yield file
        if lasting:
            file.flush()
            os.fsync(file.fileno())
    if lasting:
        sync_folder(path.parent)


def move(made: str | os.PathLike[str], path: Path, *, lasting: bool = False) -> None:
    """Give a finished file or folder its name, in place of a file of that name.

    Args:
        made: where it is, on the same filesystem.
        lasting: the name survives a power failure; what is in the file is the caller's affair.

    Raises:
        OSError: it cannot be done.
    """
    os.replace(made, path)
    if lasting:
        sync_folder(path.parent)


def claim(made: Path, path: Path) -> bool:
    """Give a finished file a second name that must not exist; whether it has got it. Raises OSError."""
    try:
        os.link(made, path)
    except FileExistsError:
        # NFS repeats a call whose answer was lost, and then finds the name taken, by itself.
        return os.stat(made).st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _claim_without_links(made, path)
    return True


def _claim_without_links(made: Path, path: Path) -> bool:
    """The same where a filesystem has no hard links: a folder is the claim, and stays."""
    if path.exists():
        return False
    try:
        path.with_name(f".{path.name}.claimed").mkdir()
    except FileExistsError:
        return False
    os.rename(made, path)
    return True


def claim_folder(made: Path, path: Path) -> bool:
    """Give a folder that is not empty a name that must not exist; whether it has got it. Raises OSError."""
    ours = made.stat().st_ino
    try:
        os.rename(made, path)
    except FileNotFoundError:
        # NFS repeats a call whose answer was lost, and then finds nothing to rename.
        if path.stat().st_ino == ours:
            return True
        raise
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    return True


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder last. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
