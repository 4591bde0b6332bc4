"""A disk that forgets what it was not told to keep.

The model is that of POSIX, with no favour of a particular file system: what was written to a file
is sure to be there once an fsync that began later has ended; an entry of a folder, once the folder
was synced. Of what is not sure, a loss of power leaves any part:

* each write is there or not, whatever became of those before it, and one that is there may be torn
  between sectors of 512 bytes; a sector holds what it held at some moment (never a mixture of an
  old and a new write that did not exist together);
* the file's length is that of some moment; where it grew over sectors that were never written, they
  hold zeros or rubbish;
* each entry that was made, removed or renamed is so or not. Only a rename is whole: the old name or
  the new one, as every journalling file system has it.

Fed with events in order, ``Disk`` knows at any moment what is there, and what may be left of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
RUBBISH_SHARE = 0.1
"""Of the states, those whose unwritten sectors hold rubbish."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change: what the letter stands for, and its numbers, is said at :meth:`Disk.apply`."""

    operation: str
    a: int
    b: int = 0
    c: int = 0
    first: bytes = b""
    second: bytes = b""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is below a folder, or in a file, at the start."""

    inode: int
    name: str
    content: bytes | None = None
    entries: tuple[Tree, ...] = ()

    @classmethod
    def of(cls, path: Path) -> Tree:
        inode = path.stat().st_ino
        if path.is_dir():
            return cls(inode, path.name, None, tuple(map(cls.of, path.iterdir())))
        return cls(inode, path.name, path.read_bytes())


@dataclass(slots=True)
class _Change:
    """To a file: data at an offset, or (None) a length."""

    number: int
    offset: int
    data: bytes | None

    @property
    def end(self) -> int:
        return self.offset + len(self.data or b"")

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
        else:
            content.extend(bytes(max(0, self.offset - len(content))))
            content[self.offset : self.end] = self.data


@dataclass(slots=True)
class _File:
    sure: bytearray = field(default_factory=bytearray)
    now: bytearray = field(default_factory=bytearray)
    unsure: list[_Change] = field(default_factory=list)

    def add(self, change: _Change) -> None:
        self.unsure.append(change)
        change.apply(self.now)

    def sync(self, before: int) -> None:
        for change in self.unsure:
            if change.number < before:
                change.apply(self.sure)
        self.unsure = [change for change in self.unsure if change.number >= before]


@dataclass(eq=False, slots=True)
class _Entry:
    """A change of folders: names removed and names added, all at once."""

    number: int
    removed: list[tuple[int, str]]
    added: list[tuple[int, str, int]]


@dataclass(slots=True)
class _Folder:
    sure: dict[str, int] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)
    unsure: list[_Entry] = field(default_factory=list)


class Disk:
    """The files below one folder."""

    def __init__(self, start: Tree, forgets: Container[str] = ()) -> None:
        """
        Args:
            start: what is there before the first event, all of it sure.
            forgets: file names, and ``/`` for folders, whose syncs do nothing: a broken disk, for
                which the checks must find losses.
        """
        self._number = 0
        self._forgets = forgets
        self._files: dict[int, _File] = {}
        self._folders: dict[int, _Folder] = {}
        self._names: dict[int, str] = {}
        self._syncs: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._root = self._read(start)

    def _read(self, tree: Tree) -> int:
        own = self._new(tree.inode, tree.name)
        if tree.content is None:
            entries = {below.name: self._read(below) for below in tree.entries}
            self._folders[own] = _Folder(dict(entries), dict(entries))
        else:
            self._files[own] = _File(bytearray(tree.content), bytearray(tree.content))
        return own

    def _new(self, inode: int, name: str) -> int:
        """An id that is never used again, as inode numbers are once their file is gone."""
        own = self._ids[inode] = len(self._names)
        self._names[own] = name
        return own

    def apply(self, event: Event) -> None:
        """Let one change happen. ``a``, ``b`` and ``c`` of the event are, by its operation:

        C (a file was made), D (a folder), L (a further name): folder, inode. T (a file without a
        name): inode. R (renamed): old folder, new folder, inode. U (a name removed): folder.
        W (written): inode, offset. Z (cut or lengthened): inode, length. S (a sync begins) and E
        (it has ended): inode, a number that joins both.
        """
        self._number += 1
        ids = self._ids
        name = event.first.decode() if event.operation in "CDLRU" else ""
        match event.operation:
            case "C":
                self._files[self._new(event.b, name)] = _File()
                self._enter([], [(ids[event.a], name, ids[event.b])])
            case "D":
                self._folders[self._new(event.b, name)] = _Folder()
                self._enter([], [(ids[event.a], name, ids[event.b])])
            case "L":
                self._names[ids[event.b]] = name
                self._enter([], [(ids[event.a], name, ids[event.b])])
            case "T":
                self._files[self._new(event.a, "")] = _File()
            case "R":
                new = event.second.decode()
                self._names[ids[event.c]] = new
                self._enter([(ids[event.a], name)], [(ids[event.b], new, ids[event.c])])
            case "U":
                self._enter([(ids[event.a], name)], [])
            case "W":
                self._files[ids[event.a]].add(_Change(self._number, event.b, event.first))
            case "Z":
                self._files[ids[event.a]].add(_Change(self._number, event.b, None))
            case "S":
                self._syncs[event.b] = self._number
            case "E":
                self._sync(ids[event.a], self._syncs.pop(event.b))

    def now(self, path: str) -> bytes:
        """What a program would read from a file now."""
        *folders, name = path.split("/")
        own = self._root
        for folder in folders:
            own = self._folders[own].now[folder]
        return bytes(self._files[self._folders[own].now[name]].now)

    def _enter(self, removed: list[tuple[int, str]], added: list[tuple[int, str, int]]) -> None:
        entry = _Entry(self._number, removed, added)
        for folder, name in removed:
            self._folders[folder].now.pop(name, None)
        for folder, name, inode in added:
            self._folders[folder].now[name] = inode
        for folder in {folder for folder, *_ in [*removed, *added]}:
            self._folders[folder].unsure.append(entry)

    def _sync(self, own: int, before: int) -> None:
        if own in self._files:
            if self._names[own] not in self._forgets:
                self._files[own].sync(before)
        elif "/" not in self._forgets:
            for entry in [entry for entry in self._folders[own].unsure if entry.number < before]:
                self._make_sure(entry)

    def _make_sure(self, entry: _Entry) -> None:
        for folder, name in entry.removed:
            self._folders[folder].sure.pop(name, None)
        for folder, name, inode in entry.added:
            self._folders[folder].sure[name] = inode
        for folder in {folder for folder, *_ in [*entry.removed, *entry.added]}:
            self._folders[folder].unsure.remove(entry)

    # -- what may be left ------------------------------------------------------------------------

    def write(self, target: Path) -> None:
        """Write what is there now, as if the power stayed on, to the new folder ``target``."""
        self._write(
            self._root, target, lambda own: self._folders[own].now, lambda file: bytes(file.now)
        )

    def lose_power(self, target: Path, chance: random.Random) -> None:
        """Write one of the states that a loss of power may leave to the new folder ``target``."""
        keep = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        rubbish = chance.random() < RUBBISH_SHARE
        kept = {
            number: chance.random() < keep
            for number in sorted(
                {entry.number for folder in self._folders.values() for entry in folder.unsure}
            )
        }

        def entries(own: int) -> dict[str, int]:
            found = dict(self._folders[own].sure)
            for entry in self._folders[own].unsure:
                if kept[entry.number]:
                    for folder, name in entry.removed:
                        if folder == own:
                            found.pop(name, None)
                    found |= {name: other for folder, name, other in entry.added if folder == own}
            return found

        self._write(self._root, target, entries, lambda file: _left(file, chance, keep, rubbish))

    def _write(
        self,
        own: int,
        target: Path,
        entries: Callable[[int], dict[str, int]],
        content: Callable[[_File], bytes],
    ) -> None:
        target.mkdir()
        for name, other in entries(own).items():
            if other in self._folders:
                self._write(other, target / name, entries, content)
            else:
                (target / name).write_bytes(content(self._files[other]))


def _left(file: _File, chance: random.Random, keep: float, rubbish: bool) -> bytes:
    """One content that a loss of power may leave of a file."""
    if not file.unsure or keep == 1.0:
        return bytes(file.now)
    versions: dict[int, int] = {}
    kept: set[int] = set()
    for index, change in enumerate(file.unsure):
        if chance.random() >= keep:
            continue
        kept.add(index)
        torn = chance.random() < 0.5
        if change.data is not None:
            for sector in range(change.offset // SECTOR, -(-change.end // SECTOR)):
                if not torn or chance.random() < 0.5:
                    versions[sector] = index
    content = bytearray(file.sure)
    for index, change in enumerate(file.unsure):
        if change.data is None:
            if index in kept:
                change.apply(content)
            continue
        for sector in range(change.offset // SECTOR, -(-change.end // SECTOR)):
            if index <= versions.get(sector, -1):
                start = max(sector * SECTOR, change.offset)
                end = min((sector + 1) * SECTOR, change.end)
                part = change.data[start - change.offset : end - change.offset]
                _Change(0, start, part).apply(content)
    return bytes(_of_some_length(file, content, kept, chance, rubbish))


def _of_some_length(
    file: _File, content: bytearray, kept: set[int], chance: random.Random, rubbish: bool
) -> bytearray:
    """The length goes with the data that is there, or is that of some other moment."""
    lengths = [len(file.sure)]
    wanted = len(file.sure)
    for index, change in enumerate(file.unsure):
        lengths.append(change.offset if change.data is None else max(lengths[-1], change.end))
        if index in kept:
            wanted = change.offset if change.data is None else max(wanted, change.end)
    length = wanted if chance.random() < 0.7 else chance.choice(lengths)
    missing = length - len(content)
    if missing > 0:
        content.extend(chance.randbytes(missing) if rubbish else bytes(missing))
    del content[length:]
    return content
