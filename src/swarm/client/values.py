"""Values as programs have them: files in the place of references, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from swarm.client.local_files import DEFAULT_MEDIA_TYPE, copy_file, safe_name, take_path
from swarm.definitions.fields import FieldDefinition
from swarm.definitions.files import FileValue, is_file_value
from swarm.engine.trees import DIRECTORY_MEDIA_TYPE, materialise_tree
from swarm.kernel.errors import InputError, NotFoundError, UnavailableError
from swarm.kernel.home import Home
from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.ports import ArtifactStore


@dataclass(frozen=True, slots=True)
class FileRoom:
    """Where the contents of files lie."""

    artifacts: ArtifactStore
    home: Home
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Absolute paths of the live directories that a run may refer to."""


@dataclass(frozen=True, slots=True)
class File:
    """A file or directory among the outputs of a run or of an agent.

    It may be given as an input in its turn. Its content is read when it is asked for, and stays
    readable when the client is closed, until it is purged.
    """

    name: str
    """As the agent called it."""
    size: int | None
    """In bytes; None for a directory."""
    media_type: str | None
    reference: str
    """``sha256:<hex>`` of the content; of a directory, of its listing."""
    _room: FileRoom = field(repr=False, compare=False)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.media_type == DIRECTORY_MEDIA_TYPE

    @property
    def path(self) -> Path:
        """Where the content lies, to be read and never to be changed: others may share it.

        Raises:
            NotFoundError: the content is gone.
        """
        if self.reference in self._room.mounts:
            return Path(self._room.mounts[self.reference])
        if self.reference.startswith("live:"):
            raise NotFoundError(f"the directory {self.name} is not known any more")
        if self.is_directory:
            return materialise_tree(self._room.artifacts, self._room.home.cache, self.reference)
        return self._room.artifacts.path(self.reference)

    def read_bytes(self) -> bytes:
        """The whole content.

        Raises:
            NotFoundError: the content is gone.
            InputError: it is a directory.
        """
        if self.is_directory:
            raise InputError(f"{self.name} is a directory", remedy="read the files below its path")
        with self._room.artifacts.held([self.reference]):
            return self.path.read_bytes()

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole content as text.

        Raises:
            NotFoundError: the content is gone.
            InputError: it is a directory, or no such text.
        """
        try:
            return self.read_bytes().decode(encoding)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name} is not text: {error}", remedy="read_bytes()") from None

    def save(self, to: str | PathLike[str]) -> Path:
        """Copy it, and return the copy's path.

        Args:
            to: an existing folder, which gets it under its own name, or the path of the copy; what
                is there is replaced.

        Raises:
            NotFoundError: the content is gone.
            UnavailableError: the copy cannot be written.
        """
        target = Path(to)
        if target.is_dir():
            target = target / safe_name(self.name)
        value = FileValue(self.reference, self.name, self.size, self.media_type)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(value, self._room.artifacts, self._room.home, target)
        except OSError as error:
            raise UnavailableError(
                f"{self.name} cannot be copied: {error.strerror or error}",
                where=str(error.filename or target),
                remedy="free space, or choose another place",
            ) from None
        return target

    def as_json(self) -> JsonObject:
        """The file value that stands for it in inputs and outputs."""
        return FileValue(self.reference, self.name, self.size, self.media_type).as_json()


def with_files(value: JsonValue, room: FileRoom) -> Any:
    """``value`` with a :class:`File` for each file value in it."""
    if is_file_value(value):
        found = FileValue.from_json(value)
        return File(found.name, found.size, found.media_type, found.reference, room)
    if isinstance(value, dict):
        return {key: with_files(item, room) for key, item in value.items()}
    if isinstance(value, list):
        return [with_files(item, room) for item in value]
    return value


@dataclass(slots=True)
class Taking:
    """Turns what a program gives into JSON; collects the directories that it refers to."""

    artifacts: ArtifactStore
    mounts: dict[str, str] = field(default_factory=dict)

    async def inputs(
        self, given: Mapping[str, object], declared: Iterable[FieldDefinition]
    ) -> JsonObject:
        """Inputs as JSON, files taken in.

        Raises:
            NotFoundError: there is nothing at a path.
            InputError: text where a path or a file is wanted, or the other way round.
        """
        kinds = {one.name: one.type for one in declared if one.type in ("file", "directory")}
        return {
            name: await self._value(value, f"input {name}", name, kinds.get(name))
            for name, value in given.items()
        }

    async def _value(self, value: object, where: str, name: str, kind: str | None = None) -> Any:
        if isinstance(value, File):
            mounts = value._room.mounts
            if value.reference in mounts:
                self.mounts[value.reference] = mounts[value.reference]
            return value.as_json()
        if isinstance(value, PathLike):
            taken = await take_path(str(fspath(value)), self.artifacts, kind=kind, where=where)
            if taken.mount is not None:
                self.mounts[taken.value.reference] = taken.mount
            return taken.value.as_json()
        if isinstance(value, bytes | bytearray | memoryview):
            reference = await self.artifacts.put_bytes(bytes(value))
            return FileValue(reference, name, len(value), DEFAULT_MEDIA_TYPE).as_json()
        if isinstance(value, str) and kind is not None:
            raise InputError(
                f"text is never taken for the path of a {kind}",
                where=where,
                remedy=f"give pathlib.Path({value[:80]!r}), or bytes for the content of a file",
            )
        if isinstance(value, Mapping):
            return {
                key: await self._value(item, f"{where}.{key}", str(key))
                for key, item in value.items()
            }
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [
                await self._value(item, f"{where}[{index}]", f"{name}-{index}")
                for index, item in enumerate(value)
            ]
        return value
