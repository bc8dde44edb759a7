"""The files to hash, and the channel that each belongs to."""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_NESTED = frozenset({"site-packages", "dist-packages"})  # in the standard library's folder, but not of it
_MIB = 1 << 20


class File(NamedTuple):
    """One file of the job. A NamedTuple, so that a list of them is JSON on its way to the producers."""

    channel: str
    path: str
    size: int  # bytes


def find_files(root: Path | None, without: Path) -> list[File]:
    """Every readable file under root; of the running Python, standard library and site-packages, if None.

    without: a folder to leave out, that of the demo's own data. So are __pycache__, whose files come and go
    as Python runs, and symbolic links to folders, which could lead in circles.
    """
    roots = [root] if root else [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]
    nested = frozenset[str]() if root else _NESTED
    found: dict[Path, File] = {}  # purelib and platlib are mostly one folder
    for top in (each.absolute() for each in roots):
        for path in _walk(top, nested, without.resolve()):
            if (size := _size(path)) is not None:
                found.setdefault(path, File(channel_name(path.relative_to(top)), str(path), size))
    return list(found.values())


def channel_name(relative: Path) -> str:
    """The top-level package of a file, given its path below the root: json/tool.py and json.py are of json.

    What pip wrote about a package (rich-15.0.0.dist-info/RECORD) is of that package.
    """
    top = shown(relative.parts[0])
    if len(relative.parts) == 1:
        return top.partition(".")[0] or top
    return top.partition("-")[0] if top.endswith((".dist-info", ".egg-info")) else top


def shown(path: str) -> str:
    """A path as text that PostgreSQL and a terminal can take, whatever bytes its names are made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def sha256(path: Path, between: Callable[[], None]) -> bytes:
    """A file's SHA-256. Calls `between` once for each MiB read: time to say that one is alive.

    Raises OSError.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_MIB):
            digest.update(chunk)
            between()
    return digest.digest()


def _walk(top: Path, nested: frozenset[str], without: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(top):
        folder = Path(name)
        left_out = {"__pycache__", *(nested if folder == top else ())}
        folders[:] = [
            each for each in folders if each not in left_out and (folder / each).resolve() != without
        ]
        yield from (folder / each for each in files)


def _size(path: Path) -> int | None:
    """Its bytes; None for what is not a readable file: a socket, a broken link, another user's secret."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK) else None
