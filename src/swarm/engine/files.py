"""File values on their way into a sandbox and out of it.

In: a declared input of type ``file`` or ``directory`` becomes a read-only mount, and the handler
gets its path. Out: what the handler names below ``$SWARM_OUTPUTS`` is opened without following
links, copied into the artifact store and replaced by a file value. An agent passes on only file
values that it was given or has just made, so a forged reference gets it nothing; and a file stays a
file, so that it cannot pass for the listing of a directory.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

from msgspec import Struct

from swarm.definitions.fields import FieldDefinition
from swarm.definitions.files import FileValue
from swarm.engine.trees import (
    DIRECTORY_MEDIA_TYPE,
    Collector,
    file_references,
    is_materialised,
    listed_artifacts,
    materialise_tree,
)
from swarm.kernel.errors import InputError, OutputError, RefusedError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.sandbox.ports import InputMount
from swarm.store.ports import ArtifactStore

OUTPUT_KEY = "$file"
"""The key by which a handler names a file that it wrote below ``$SWARM_OUTPUTS``."""

_PARTS_AT_ONCE = 64
_PATH_TYPES = frozenset({"file", "directory"})


class FileAccess(Struct, frozen=True):
    """What file values can refer to in one run."""

    artifacts: ArtifactStore
    cache: Path
    """Folder for directories put together from artifacts."""
    mounts: Mapping[str, str]
    """The run's grants of local directories: ``{reference: absolute path}``."""

    async def mount_inputs(
        self, fields: Sequence[FieldDefinition], values: JsonObject
    ) -> tuple[InputMount, ...]:
        """The mounts for the declared file and directory inputs among ``values``.

        Raises:
            InputError: a value does not refer to anything that this run may read.
        """
        mounts = []
        for field in fields:
            value = values.get(field.name)
            if field.type in _PATH_TYPES and value is not None:
                mounts.append(InputMount(field.name, await self._source(field, value)))
        return tuple(mounts)

    async def _source(self, field: FieldDefinition, value: JsonValue) -> Path:
        file_value = FileValue.from_json(value)
        is_directory = file_value.media_type == DIRECTORY_MEDIA_TYPE
        if is_directory != (field.type == "directory"):
            raise InputError(
                f"input `{field.name}` must be a {field.type}, got `{file_value.name}`, "
                f"a {'directory' if is_directory else 'file'}"
            )
        if file_value.is_live:
            return self._live(field.name, file_value)
        if is_directory:
            if self.artifacts.directories is not None:
                await self._fetch_tree(file_value.reference)
            return await asyncio.to_thread(
                materialise_tree, self.artifacts, self.cache, file_value.reference
            )
        return await self.artifacts.fetch(file_value.reference)

    async def _fetch_tree(self, reference: str) -> None:
        """Have the files of a directory come here, several at a time, if it is not here whole."""
        await self.artifacts.fetch(reference)
        if not is_materialised(self.cache, reference):
            parts = await asyncio.to_thread(listed_artifacts, self.artifacts, reference)
            for start in range(0, len(parts), _PARTS_AT_ONCE):
                some = set(parts[start : start + _PARTS_AT_ONCE])
                await asyncio.gather(*(self.artifacts.fetch(part) for part in some))

    def held(
        self, fields: Sequence[FieldDefinition], values: JsonObject
    ) -> AbstractContextManager[None]:
        """Keep the files among ``values`` where :meth:`mount_inputs` finds them, until the end."""
        declared = [values.get(field.name) for field in fields if field.type in _PATH_TYPES]
        return self.artifacts.held(reference for reference, _ in file_references(declared))

    def _live(self, name: str, file_value: FileValue) -> Path:
        granted = self.mounts.get(file_value.reference)
        if granted is None:
            raise InputError(
                f"input `{name}` refers to a local directory that this run was not given",
                remedy="pass the directory's path to `swarm run`",
            )
        source = Path(granted)
        if not source.is_dir():
            raise InputError(
                f"input `{name}`: the directory {source} is no longer there",
                remedy="put it back and resume, or start a new run with another path",
            )
        return source


def handler_inputs(values: JsonObject, mounts: Iterable[InputMount], isolated: bool) -> JsonObject:
    """``values`` with each mounted file value replaced by the path that the handler opens."""
    paths = {
        mount.name: f"/inputs/{mount.name}" if isolated else str(mount.source) for mount in mounts
    }
    return {**values, **paths} if paths else values


async def collect_outputs(
    fields: Sequence[FieldDefinition],
    outputs: JsonObject,
    descriptor: Callable[[], Awaitable[int]],
    artifacts: ArtifactStore,
    given: JsonObject,
    max_files: int,
    max_bytes: int,
    masked: Callable[[str], str] = lambda path: path,
) -> JsonObject:
    """Take the files that ``outputs`` name out of the open directory ``descriptor``.

    Args:
        fields: the declared outputs; only those of type file or directory are looked at.
        outputs: what the handler returned.
        descriptor: gives the open outputs directory of the sandbox; asked only when needed.
        artifacts: where the files go.
        given: the invocation's inputs, whose file values may be passed on.
        max_files: most files that one invocation may hand out.
        max_bytes: most bytes that they may have, all together.
        masked: blots secrets out of a text; a file in a directory whose path has one is refused.

    Raises:
        OutputError: a named file is missing, leaves the directory, is not regular, or its path
            has a secret in it.
        RefusedError: a file value that this agent was never given.
    """
    collector = Collector(artifacts, max_files, max_bytes, masked)
    replaced = dict(outputs)
    made: set[tuple[str, bool]] = set()
    for field in fields:
        value = outputs.get(field.name)
        if field.type not in _PATH_TYPES or not isinstance(value, dict) or OUTPUT_KEY not in value:
            continue
        try:
            file_value = await _collect_one(field, value, await descriptor(), collector)
        except OSError as error:
            raise OutputError(
                f"output `{field.name}`: the file {value[OUTPUT_KEY]!r} cannot be taken: "
                f"{error.strerror or error}",
                remedy="write it below $SWARM_OUTPUTS, as a regular file, before returning",
            ) from None
        made.add((file_value.reference, field.type == "directory"))
        replaced[field.name] = file_value.as_json()
    returned = set(file_references(replaced)) - made
    if returned:
        _refuse_foreign(returned, made.union(file_references(given)))
    return replaced


def _refuse_foreign(returned: set[tuple[str, bool]], known: set[tuple[str, bool]]) -> None:
    """A directory may be passed on as the file that lists it, a file never as a directory."""
    files = {reference for reference, _ in known}
    for reference, is_directory in sorted(returned):
        if reference not in files:
            raise RefusedError(
                f"the agent returned a file it was not given: {reference}",
                remedy="an agent may pass on only files from its inputs or its own outputs",
            )
        if is_directory and (reference, True) not in known:
            raise RefusedError(
                f"the agent returned a file as a directory: {reference}",
                remedy="hand a directory out by its path below $SWARM_OUTPUTS",
            )


async def _collect_one(
    field: FieldDefinition, value: JsonObject, descriptor: int, collector: Collector
) -> FileValue:
    parts = _relative_parts(field.name, value[OUTPUT_KEY])
    opened = open_below(descriptor, parts)
    try:
        status = os.fstat(opened)
        if field.type == "directory":
            if not stat.S_ISDIR(status.st_mode):
                raise OutputError(f"output `{field.name}` must be a directory")
            reference = await collector.put_tree(opened)
            return FileValue(reference, parts[-1], None, DIRECTORY_MEDIA_TYPE)
        reference, size = await collector.put_file(opened)
    finally:
        os.close(opened)
    media_type = value.get("media_type") or mimetypes.guess_type(parts[-1])[0]
    return FileValue(reference, parts[-1], size, str(media_type or "application/octet-stream"))


def _relative_parts(name: str, path: JsonValue) -> tuple[str, ...]:
    if not isinstance(path, str) or not path or "\0" in path:
        raise OutputError(f"output `{name}` must name a file by a path, got {path!r}")
    for root in ("/outputs/", "./"):
        path = path.removeprefix(root)
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise OutputError(
            f"output `{name}` names {path!r}, which does not lie below $SWARM_OUTPUTS"
        )
    return parts


def open_below(descriptor: int, parts: Sequence[str]) -> int:
    """Open a file or directory below an open directory, following no link on the way.

    Returns a descriptor that the caller closes. Raises OSError.
    """
    current = os.dup(descriptor)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            opened = os.open(part, flags | (0 if is_last else os.O_DIRECTORY), dir_fd=current)
            os.close(current)
            current = opened
    except OSError:
        os.close(current)
        raise
    return current
