"""Values of any size: small ones stand in the journal, large ones are artifacts it refers to."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from swarm.definitions.files import ARTIFACT_KEY
from swarm.engine.trees import file_references
from swarm.kernel.json import JsonValue, dump_bytes, loads
from swarm.store.ports import ArtifactStore

MEDIA_TYPE: Final = "application/vnd.swarm.value+json"
"""Marks a reference as one that Swarm has put in the place of a value."""


class Values(Struct, frozen=True):
    """Puts large values away and gets them back."""

    artifacts: ArtifactStore
    inline_bytes: int
    """The largest value that stays where it is, as JSON."""

    async def stored(self, value: JsonValue) -> JsonValue:
        """The value as the journal holds it: itself, or a reference once the artifact is durable.

        Raises:
            UnavailableError: the artifact cannot be written.
        """
        if not value:
            return value
        data = dump_bytes(value, sort_keys=False)
        if len(data) <= self.inline_bytes:
            return value
        # The artifacts within are named, so that they are not taken for unused.
        return {
            ARTIFACT_KEY: await self.artifacts.put_bytes(data),
            "name": "value.json",
            "size": len(data),
            "media_type": MEDIA_TYPE,
            "refers": sorted({reference for reference, _ in file_references(value)}),
        }

    def size(self, value: JsonValue) -> int:
        """Bytes that a value, as the journal holds it, takes as JSON; a reference's own size."""
        return len(dump_bytes(value, sort_keys=False)) if value else 0

    async def loaded(self, value: JsonValue) -> JsonValue:
        """The value itself.

        Raises:
            NotFoundError: its artifact is gone; InvalidError, DamagedError: it is damaged.
            UnavailableError: it cannot be fetched.
        """
        if not is_stored(value):
            return value
        reference = value[ARTIFACT_KEY]
        with self.artifacts.held([reference]):
            path = await self.artifacts.fetch(reference)
            return loads(await asyncio.to_thread(path.read_bytes))


def is_stored(value: JsonValue) -> bool:
    """Whether this is a reference that stands in the place of a large value."""
    return isinstance(value, dict) and value.get("media_type") == MEDIA_TYPE and "refers" in value


__all__ = ["MEDIA_TYPE", "Values", "is_stored"]
