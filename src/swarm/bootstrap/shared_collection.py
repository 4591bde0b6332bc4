"""What machines share and nothing refers to any more is removed, by one machine at a time.

Marks are read from the database, as for a home. Then each file that no mark names is doomed by one
statement of the database, which spares what any machine has touched meanwhile: whoever is about to
refer to a file publishes it, which touches it or finds it gone and sends it anew. So the clock that
counts is the database's, and nothing depends on when a machine does something.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

from swarm.bootstrap.marks import marked, marked_outside_runs
from swarm.bootstrap.retention import SECONDS_PER_DAY
from swarm.engine.trees import LISTING, entries_of
from swarm.kernel.errors import InputError, NotFoundError
from swarm.store.artifacts import ALGORITHM
from swarm.store.ports import Store
from swarm.store.shared.files import SharedFiles
from swarm.store.shared.ports import Kind

_PAGE: Final = 1_000
"""Keys and files gone through at a time."""
_UNFINISHED_SECONDS: Final = 2.0 * SECONDS_PER_DAY
"""How long an upload may take; one that began earlier is taken for given up."""


async def collect_shared(
    store: Store, shared: SharedFiles, age_seconds: float, interval_seconds: float | None = None
) -> tuple[int, int]:
    """Remove what no machine has touched for so long and no record refers to.

    Args:
        store: says what is referred to.
        shared: what is gone through.
        age_seconds: longer than any call may take.
        interval_seconds: to do nothing if a machine has collected within so long.

    Returns:
        How many artifacts were removed, and their bytes; nothing if another machine is at it.

    Raises:
        DatabaseError: the database cannot be read or written.
        UnavailableError: the bucket cannot be changed; what is to be deleted there is noted.
    """
    index = shared.index
    with ExitStack() as holding:
        is_alone = await shared.do(holding.enter_context, index.alone())
        if not is_alone:
            return 0, 0
        if interval_seconds and await shared.do(index.was_collected, interval_seconds):
            return 0, 0
        in_use = await _artifacts_in_use(store, shared)
        removed = await _doom(shared, "artifact", in_use, age_seconds)
        packages, _ = await store.digests_in_use()
        await _doom(shared, "package", packages, age_seconds)
        await _doom(shared, "lock", packages, age_seconds)
        await shared.do(index.doom_unfinished, max(age_seconds, _UNFINISHED_SECONDS))
        while await shared.do(shared.sweep, _PAGE) == _PAGE:
            pass
        await shared.do(index.note_collection)
    return removed


async def _artifacts_in_use(store: Store, shared: SharedFiles) -> set[str]:
    """The digests of all artifacts that records name, and of the files of directories among
    them."""
    named, newest = await marked(store, "")
    named |= await marked_outside_runs(store)
    # Runs that were created meanwhile may name artifacts that only they know.
    more, _ = await marked(store, newest)
    in_use = {reference.removeprefix(f"{ALGORITHM}:") for reference in named | more}
    last, page = "", _PAGE
    while page == _PAGE:
        listings = await shared.do(shared.index.keys_beginning, "artifact", LISTING, last, _PAGE)
        page = len(listings)
        for listing in listings:
            last = listing
            if listing in in_use:
                in_use |= await shared.do(_parts, shared, listing)
    return in_use


def _parts(shared: SharedFiles, listing: str) -> set[str]:
    """The digests of the files in the listing of a directory; none if it is something else."""

    def take(pieces: Iterator[bytes]) -> bytes:
        return b"".join(pieces)

    try:
        data = shared.fetch("artifact", listing, take)
        entries = entries_of(data, f"{ALGORITHM}:{listing}")
    except (NotFoundError, InputError):
        return set()  # nobody can use it as a directory either
    return {entry.reference.removeprefix(f"{ALGORITHM}:") for entry in entries}


async def _doom(
    shared: SharedFiles, kind: Kind, in_use: frozenset[str] | set[str], age_seconds: float
) -> tuple[int, int]:
    """Doom what is old and not in use; a lock is in use with its package, which its name begins
    with. Returns how many there were, and their bytes."""
    count = size = 0
    last, page = "", _PAGE
    while page == _PAGE:
        keys = await shared.do(shared.index.old_keys, kind, age_seconds, last, _PAGE)
        page = len(keys)
        last = keys[-1] if keys else last
        unused = [key for key in keys if key.partition("-")[0] not in in_use]
        if unused:
            doom = partial(shared.index.doom_unused, kind, unused, age_seconds)
            removed = await shared.do(doom)
            count, size = count + removed[0], size + removed[1]
    return count, size
