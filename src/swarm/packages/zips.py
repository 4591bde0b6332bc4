"""A zip read so strictly that it can mean one thing only.

``zipfile`` parses the central directory; what it forgives is refused here before any content is
used. The layout is that of PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16, and of it only:
plain files and folders, stored or deflated, one after another from the first byte, the central
directory, the end record without a comment, nothing else. So no bytes are hidden, shared between
entries, or seen differently by another reader.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swarm.kernel.errors import ArchiveError, NotFoundError, UnavailableError
from swarm.kernel.settings import MIB, Settings
from swarm.packages.paths import find_collisions, path_fault, printable

MAX_RATIO = 200
"""Most bytes that one packed byte may unpack to, over a whole archive ..."""
RATIO_FREE_BYTES = 16 * MIB
"""... once it unpacks to more than this many bytes: a small file of zeros is no bomb."""
MAX_OVERHEAD_BYTES = 4096
"""Most bytes of headers for each entry (names are short, see :mod:`paths`)."""
READ_BYTES = 64 * 1024

_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64_LOCATOR_BYTES = 20
_DESCRIPTOR_SIZES = (12, 16, 20, 24)
"""A data descriptor: with or without signature, with 32 or 64 bit sizes (section 4.3.9)."""
_ENCRYPTED_FLAGS = 0x0001 | 0x0040 | 0x2000
_PATCH_FLAG = 0x0020
_DESCRIPTOR_FLAG = 0x0008
_UTF8_FLAG = 0x0800


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file in an archive whose structure was checked."""

    path: str
    offset: int
    """Where its packed bytes start in the archive."""
    packed_size: int
    size: int
    crc: int
    deflated: bool
    executable: bool


@contextmanager
def open_archive(path: Path) -> Iterator[IO[bytes]]:
    """Open an archive file for reading.

    Raises:
        NotFoundError: there is none; ArchiveError: it is no plain file; UnavailableError: it
            cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(
            "there is no such archive", where=str(path), remedy="give the path of an .apkg file"
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"the archive cannot be read: {error.strerror}",
            where=str(path),
            remedy="make it readable",
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(path, "it is not a file", "give the path of an .apkg file")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def read_entries(stream: IO[bytes], archive: Path, settings: Settings) -> list[ZipEntry]:
    """Check the whole structure of an archive and return its files, in the archive's order.

    Raises:
        ArchiveError: anything but a plain, safe package archive within the limits.
    """
    size = stream.seek(0, io.SEEK_END)
    directory_offset, declared = _check_end(stream, archive, size, settings)
    try:
        with zipfile.ZipFile(stream) as parsed:
            members = parsed.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        OverflowError,
        EOFError,
        struct.error,
    ) as error:
        raise _damaged(archive, str(error)) from None
    if len(members) != declared:
        raise _damaged(archive, f"it has {len(members)} entries and declares {declared}")
    for member in members:
        _check_member(archive, member)
    _check_names(archive, members)
    _check_sizes(archive, members, settings)
    return _locate(stream, archive, members, directory_offset)


def unpack(stream: IO[bytes], archive: Path, entry: ZipEntry) -> Iterator[bytes]:
    """The content of ``entry`` in pieces, never more than it declares.

    Raises:
        ArchiveError: the packed bytes are damaged, or give more or less than declared.
    """
    left, crc = entry.size, 0
    shown = printable(entry.path)
    stream.seek(entry.offset)
    packed = _packed_bytes(stream, archive, entry)
    try:
        for data in _inflate(packed, archive, shown) if entry.deflated else packed:
            left -= len(data)
            if left < 0:
                declared = f"the {entry.size} bytes it declares"
                raise _damaged(archive, f"`{shown}` is larger than {declared}")
            crc = zlib.crc32(data, crc)
            yield data
    except zlib.error as error:
        raise _damaged(archive, f"`{shown}` cannot be unpacked: {error}") from None
    if left:
        raise _damaged(archive, f"`{shown}` is smaller than the {entry.size} bytes it declares")
    if crc != entry.crc:
        raise _damaged(archive, f"`{shown}` does not match its checksum")


def _packed_bytes(stream: IO[bytes], archive: Path, entry: ZipEntry) -> Iterator[bytes]:
    left = entry.packed_size
    while left:
        data = stream.read(min(READ_BYTES, left))
        if not data:
            raise _damaged(archive, f"`{printable(entry.path)}` is cut off")
        left -= len(data)
        yield data


def _inflate(packed: Iterator[bytes], archive: Path, shown: str) -> Iterator[bytes]:
    """Unpack deflated bytes in pieces of at most READ_BYTES, to the end of the last packed one."""
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in packed:
        if decoder.eof:
            raise _damaged(archive, f"`{shown}` has bytes behind its end")
        pending = piece
        while not decoder.eof:
            data = decoder.decompress(pending, READ_BYTES)
            pending = decoder.unconsumed_tail
            if data:
                yield data
            elif not pending:
                break
        if decoder.unused_data:
            raise _damaged(archive, f"`{shown}` has bytes behind its end")
    if not decoder.eof:
        raise _damaged(archive, f"`{shown}` is cut off")


def _check_end(stream: IO[bytes], archive: Path, size: int, settings: Settings) -> tuple[int, int]:
    """Check the end record before anything is read into memory on its word.

    Returns where the central directory starts, and how many entries it has.
    """
    most = settings.max_package_mb * MIB + _most_entries(settings) * MAX_OVERHEAD_BYTES
    if size > most:
        raise _refused(
            archive,
            f"it has {size} bytes; a package may have {settings.max_package_mb} MiB",
            "leave files out, or raise the setting max_package_mb",
        )
    if size < _END.size:
        raise _damaged(archive, "it is too short to be a zip archive")
    stream.seek(size - _END.size)
    signature, disk, first_disk, here, total, length, offset, comment = _END.unpack(
        stream.read(_END.size)
    )
    if signature != b"PK\5\6" or comment:
        raise _damaged(archive, "it does not end as a zip archive without a comment does")
    if disk or first_disk or here != total:
        raise _damaged(archive, "it is one part of an archive that is split")
    if offset + length != size - _END.size:
        raise _damaged(archive, "its directory does not lie where its end says")
    if total > _most_entries(settings):
        raise _refused(
            archive,
            f"it has {total} entries; a package may have {settings.max_package_files} files",
            "leave files out, or raise the setting max_package_files",
        )
    if length > total * MAX_OVERHEAD_BYTES:
        raise _damaged(archive, "its directory is larger than its entries can need")
    # A zip64 locator here would lie within the directory and make readers follow another one.
    stream.seek(max(0, size - _END.size - _ZIP64_LOCATOR_BYTES))
    if stream.read(4) == b"PK\6\7":
        raise _damaged(archive, "it has a zip64 directory, which no package needs")
    return int(offset), int(total)


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    """Check one entry by itself: its name, its kind, and how it is packed."""
    name = member.orig_filename
    shown = printable(name)
    if not name.isascii() and not member.flag_bits & _UTF8_FLAG:
        raise _refused(archive, f"`{shown}` has a name that is not UTF-8", "pack it again")
    if (fault := path_fault(name.removesuffix("/"))) is not None:
        raise _refused(archive, f"`{shown}` {fault}", "rename the file and pack it again")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _refused(archive, f"`{shown}` is a link", "pack the file that it leads to")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(archive, f"`{shown}` is a device, socket or FIFO", "pack plain files only")
    if (kind == stat.S_IFDIR) != name.endswith("/") and kind != 0:
        raise _damaged(archive, f"`{shown}` is called a file and a folder at once")
    # Some tools deflate even the nothing that a folder holds, to two bytes.
    if name.endswith("/") and (member.file_size or member.compress_size not in (0, 2)):
        raise _damaged(archive, f"the folder `{shown}` has content")
    if member.flag_bits & _ENCRYPTED_FLAGS:
        raise _refused(archive, f"`{shown}` is encrypted", "pack it again without a password")
    if member.flag_bits & _PATCH_FLAG or member.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        raise _refused(
            archive,
            f"`{shown}` is packed by a method other than store or deflate",
            "pack it again with `swarm agent pack`",
        )
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise _damaged(archive, f"`{shown}` is stored with two different sizes")


def _check_names(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        if name in seen:
            raise _refused(
                archive, f"`{printable(name)}` is there twice", "pack it again with one of them"
            )
        seen.add(name)
    # A folder's own entry takes part as a file in it that no archive can have.
    paths = (name + "\0" if name.endswith("/") else name for name in sorted(seen))
    for one, other in find_collisions(paths):
        raise _refused(
            archive,
            f"`{printable(other)}` collides with `{printable(one)}` where case or normalisation"
            " of names is ignored",
            "rename one of them and pack it again",
        )


def _check_sizes(archive: Path, members: list[zipfile.ZipInfo], settings: Settings) -> None:
    files = sum(not member.orig_filename.endswith("/") for member in members)
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if files > settings.max_package_files:
        raise _refused(
            archive,
            f"it has {files} files; a package may have {settings.max_package_files}",
            "leave files out, or raise the setting max_package_files",
        )
    if unpacked > settings.max_package_mb * MIB:
        raise _refused(
            archive,
            f"it unpacks to {unpacked} bytes; a package may have {settings.max_package_mb} MiB",
            "leave files out, or raise the setting max_package_mb",
        )
    if unpacked > RATIO_FREE_BYTES and unpacked > MAX_RATIO * packed:
        raise _refused(
            archive,
            f"it unpacks to more than {MAX_RATIO} times its size, as a bomb does",
            "pack it again with `swarm agent pack`, which does not compress",
        )


def _locate(
    stream: IO[bytes], archive: Path, members: list[zipfile.ZipInfo], directory_offset: int
) -> list[ZipEntry]:
    """Find each entry's bytes, making sure that the entries tile the archive without a gap."""
    entries: list[ZipEntry] = []
    position = 0
    ordered = sorted(members, key=lambda member: member.header_offset)
    for index, member in enumerate(ordered):
        shown = printable(member.orig_filename)
        if member.header_offset != position:
            raise _damaged(archive, f"there are stray or shared bytes before `{shown}`")
        offset = _check_local(stream, archive, member)
        end = offset + member.compress_size
        follows = index + 1 < len(ordered)
        position = ordered[index + 1].header_offset if follows else directory_offset
        gap = position - end
        allowed = _DESCRIPTOR_SIZES if member.flag_bits & _DESCRIPTOR_FLAG else (0,)
        if gap not in allowed:
            raise _damaged(archive, f"there are stray or shared bytes after `{shown}`")
        if not member.orig_filename.endswith("/"):
            entries.append(
                ZipEntry(
                    path=member.orig_filename,
                    offset=offset,
                    packed_size=member.compress_size,
                    size=member.file_size,
                    crc=member.CRC,
                    deflated=member.compress_type == zipfile.ZIP_DEFLATED,
                    executable=bool(member.external_attr >> 16 & stat.S_IXUSR),
                )
            )
    if position != directory_offset:
        raise _damaged(archive, "there are stray bytes before its directory")
    return entries


def _check_local(stream: IO[bytes], archive: Path, member: zipfile.ZipInfo) -> int:
    """Check that the entry's own header says what the directory says; return where data starts."""
    shown = printable(member.orig_filename)
    stream.seek(member.header_offset)
    header = stream.read(_LOCAL.size)
    if len(header) < _LOCAL.size:
        raise _damaged(archive, f"`{shown}` is cut off")
    signature, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(header)
    encoding = "utf-8" if member.flag_bits & _UTF8_FLAG else "ascii"
    if (
        signature != b"PK\3\4"
        or flags != member.flag_bits
        or method != member.compress_type
        or stream.read(name_length) != member.orig_filename.encode(encoding)
    ):
        raise _damaged(archive, f"`{shown}` has a header that contradicts the directory")
    return int(member.header_offset + _LOCAL.size + name_length + extra_length)


def _most_entries(settings: Settings) -> int:
    # Folders may have entries of their own; a package has no more of them than files.
    return min(2 * settings.max_package_files, 0xFFFE)


def _damaged(archive: Path, message: str) -> ArchiveError:
    return ArchiveError(
        f"the archive is damaged or not an .apkg: {message}",
        where=str(archive),
        remedy="fetch or pack it again",
    )


def _refused(archive: Path, message: str, remedy: str) -> ArchiveError:
    return ArchiveError(f"the archive is refused: {message}", where=str(archive), remedy=remedy)
