"""The store over a PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from swarm.kernel.settings import Settings
from swarm.store.postgres import journal as locks
from swarm.store.postgres.backup import DatabaseBackups
from swarm.store.postgres.batches import Recorded, Session
from swarm.store.postgres.companion import Companion
from swarm.store.postgres.connection import place
from swarm.store.postgres.failures import Failures
from swarm.store.postgres.migration import MIGRATIONS, migrate
from swarm.store.postgres.readers import Readers
from swarm.store.postgres.writer import Writer
from swarm.store.records import (
    AnswerRecord,
    EventRecord,
    NewRun,
    RunChanges,
    RunRecord,
    SecretRecord,
    TakenRun,
)
from swarm.store.sql import creation, inbox, journal, secrets, waits
from swarm.store.sql.connection import Connection
from swarm.store.sql.rows import RUNS, SECRETS
from swarm.store.sql.schema import Migration
from swarm.store.sql.store import SqlStore, stamped_secrets


async def open_store(
    url: str,
    settings: Settings,
    *,
    companions: Sequence[Companion] = (),
    migrations: Sequence[Migration] = MIGRATIONS,
) -> PostgresStore:
    """Open the database at ``url``; the tables of an empty one are made.

    The store belongs to the running event loop.

    Args:
        url: ``postgresql://user:password@host:port/database``, or a connection string of libpq.
        settings: limits of time, and of connections.
        companions: what rides along in the transactions.
        migrations: the schema's history.

    Raises:
        DatabaseError: it cannot be reached, is of another version, or not Swarm's.
        InvalidError: ``url`` is no address.
    """
    await asyncio.to_thread(migrate, url, settings, upgrade=False, migrations=migrations)
    failures = Failures(place(url))
    sessions = [
        Session(url, settings, failures, companions, len(migrations))
        for _ in range(settings.database_writers)
    ]
    readers = Readers(url, settings, failures, len(migrations))
    copies = DatabaseBackups(url, settings, failures, readers)
    return PostgresStore(Writer(sessions, failures), readers, copies, companions)


class PostgresStore(SqlStore):
    """The store over a PostgreSQL database.

    What SQLite need not do because it has one writer at a time is here: the locks that keep
    transactions apart (see :mod:`swarm.store.postgres.journal`).
    """

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        copies: DatabaseBackups,
        companions: Sequence[Companion],
    ) -> None:
        super().__init__(writer, readers, copies)
        self._write = writer
        self._companions = companions

    async def create_run(self, new: NewRun) -> RunRecord:
        encoded = creation.encode(new)

        def create(connection: Connection) -> Any:
            stands = creation.create(connection, encoded)
            return Recorded(stands) if stands is encoded.record else stands

        created: RunRecord = await self._write.submit(create)
        return created

    async def claim_run(
        self, run_id: str, owner: str, expected_owner: str | None
    ) -> RunRecord | None:
        def claim(connection: Connection) -> Any:
            return locks.Claim(connection, run_id, owner, expected_owner)

        claimed: RunRecord | None = await self._write.submit(claim, run_id=run_id)
        return claimed

    async def take_runs(self, run_ids: Sequence[str], owner: str) -> list[TakenRun]:
        def take(connection: Connection) -> Any:
            return locks.Taking(connection, run_ids, owner)

        taken: list[TakenRun] = await self._write.submit(take, durable=False)
        return taken

    async def release_run(
        self, run_id: str, epoch: int, changes: RunChanges, *, owner: str | None = None
    ) -> bool:
        commit = journal.Commit(run_id, epoch, journal.encode_changes(changes), owner)
        fields = {name: RUNS.encode_field(name, value) for name, value in changes.run.items()}

        def release(connection: Connection) -> bool:
            released = waits.release(connection, commit, self._apply_undisturbed)
            if released:
                for companion in self._companions:
                    companion.released(connection, run_id, fields)
            return released

        return await self._write.submit(release, run_id=run_id)

    def _apply_undisturbed(
        self, connection: Connection, commits: Sequence[journal.Commit]
    ) -> list[Any]:
        outcomes = locks.commit_all(connection, commits, self._companions)
        for commit in commits:
            locks.lock_awaited(connection, commit.run_id)
        return outcomes

    async def request_cancel(self, run_id: str) -> RunRecord | None:
        def cancel(connection: Connection) -> RunRecord | None:
            run = journal.request_cancel(connection, run_id)
            if run is not None and not run.status.is_final:
                self._awaken(connection, [run_id])
            return run

        return await self._write.submit(cancel)

    async def answer_wait(self, answer: AnswerRecord) -> bool:
        row = waits.ANSWERS.encode(answer)

        def record(connection: Connection) -> bool:
            locks.lock_run(connection, answer.run_id)
            if not waits.answer(connection, answer, row):
                return False
            self._awaken(connection, [answer.run_id])
            return True

        return await self._write.submit(record)

    async def add_event(self, event: EventRecord) -> list[str]:
        row = inbox.EVENTS.encode(event)

        def add(connection: Connection) -> list[str]:
            locks.lock_event(connection, event)
            run_ids = inbox.add(connection, event, row)
            self._awaken(connection, run_ids)
            return run_ids

        return await self._write.submit(add)

    async def put_secrets(self, records: Sequence[SecretRecord], *, may_replace: bool) -> None:
        rows = [(one.identity, SECRETS.encode(one)) for one in stamped_secrets(records)]

        def put(connection: Connection) -> None:
            locks.lock_secrets(connection)
            secrets.put(connection, rows, may_replace=may_replace)

        await self._write.submit(put)

    def _awaken(self, connection: Connection, run_ids: Sequence[str]) -> None:
        if run_ids:
            for companion in self._companions:
                companion.awakened(connection, run_ids)
