"""Copies of the database by ``pg_dump``, and whether the database is sound."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from swarm.kernel.errors import ConflictError, DatabaseError, UnavailableError
from swarm.kernel.settings import Settings
from swarm.store.postgres.failures import Failures
from swarm.store.postgres.readers import Readers
from swarm.store.sql.connection import Connection

MAX_FAULTS: Final = 100
"""Faults of a damaged database that are told."""
_TABLES: Final = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = "
    "(SELECT oid FROM pg_namespace WHERE nspname = current_schema()) ORDER BY relname"
)
_REFERENCES: Final = (
    "SELECT child.relname, column_of_child.attname, parent.relname, column_of_parent.attname "
    "FROM pg_constraint AS reference JOIN pg_class AS child ON child.oid = reference.conrelid "
    "JOIN pg_class AS parent ON parent.oid = reference.confrelid "
    "JOIN pg_attribute AS column_of_child ON column_of_child.attrelid = child.oid "
    "AND column_of_child.attnum = reference.conkey[1] "
    "JOIN pg_attribute AS column_of_parent ON column_of_parent.attrelid = parent.oid "
    "AND column_of_parent.attnum = reference.confkey[1] WHERE reference.contype = 'f' "
    "AND child.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) "
    "AND cardinality(reference.conkey) = 1 ORDER BY 1, 2"
)
_UNUSABLE_INDEXES: Final = (
    "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = pg_index.indexrelid "
    "WHERE NOT (indisvalid AND indisready) AND relnamespace = "
    "(SELECT oid FROM pg_namespace WHERE nspname = current_schema()) ORDER BY relname"
)


class DatabaseBackups:
    """Makes copies of one database, and checks it."""

    def __init__(self, url: str, settings: Settings, failures: Failures, readers: Readers) -> None:
        self._url = url
        self._settings = settings
        self._failures = failures
        self._readers = readers

    async def check(self) -> list[str]:
        """See :meth:`swarm.store.ports.Backups.check`.

        Every row of every table is read, each reference is looked up, and no index may be unusable.
        """
        return await self._readers.run(faults)

    async def make(self, target: Path, *, replace: bool) -> int:
        """See :meth:`swarm.store.ports.Backups.back_up`: an archive for ``pg_restore``.

        Raises:
            UnavailableError: ``pg_dump`` is not installed.
        """
        program = shutil.which("pg_dump")
        if program is None:
            raise UnavailableError(
                "pg_dump is not installed; it makes the copies of a PostgreSQL database",
                remedy="install PostgreSQL's client programs (Debian, Ubuntu: apt-get install "
                "postgresql-client), of the server's version or newer",
            )
        if os.path.lexists(target) and not replace:
            raise _occupied(target)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            await self._dump(program, unfinished)
            size = unfinished.stat().st_size
            _put_in_place(unfinished, target, replace=replace)
        except OSError as error:
            raise DatabaseError(
                f"the backup cannot be written: {error.strerror or error}",
                where=str(target),
                remedy="check that its folder is there, that you may write it and that its disk "
                "has space",
            ) from None
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()
        return size

    async def _dump(self, program: str, unfinished: Path) -> None:
        # Through a descriptor, so that the file is its owner's alone from the start.
        descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            address, environment = _without_password(self._url)
            process = await asyncio.create_subprocess_exec(
                program,
                "--format=custom",
                "--no-owner",
                "--no-privileges",
                f"--dbname={address}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
            try:
                _, told = await process.communicate()
            except BaseException:
                process.kill()
                await process.wait()
                raise
            if process.returncode != 0:
                lines = told.decode(errors="replace").strip().splitlines()
                raise DatabaseError(
                    f"pg_dump failed: {lines[-1] if lines else process.returncode}",
                    where=self._failures.place,
                    remedy="check that it is of the server's version or newer (pg_dump --version)",
                )
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def faults(connection: Connection) -> list[str]:
    """What is wrong with the tables, their indexes and their references."""
    found = [
        f"the index {name} is not usable; REINDEX it"
        for (name,) in connection.execute(_UNUSABLE_INDEXES).fetchall()
    ]
    for (table,) in connection.execute(_TABLES).fetchall():
        # Reads each value of each row: a damaged page, or large value, is met here.
        connection.execute(f'SELECT sum(length("{table}"::text)) FROM "{table}"').fetchone()
    for child, column, parent, key in connection.execute(_REFERENCES).fetchall():
        rows = connection.execute(
            f'SELECT "{column}" FROM "{child}" AS child WHERE "{column}" IS NOT NULL '
            f'AND NOT EXISTS (SELECT 1 FROM "{parent}" AS parent '
            f'WHERE parent."{key}" = child."{column}") LIMIT ?',
            (MAX_FAULTS,),
        )
        found += [
            f"a row of {child} refers to {value} of {parent}, which is not there"
            for (value,) in rows
        ]
    return found[:MAX_FAULTS]


def _without_password(url: str) -> tuple[str, Mapping[str, str]]:
    """An address that every user of the machine may see, and an environment with the password."""
    given = conninfo_to_dict(url)
    environment = dict(os.environ)
    if (password := given.pop("password", None)) is not None:
        environment["PGPASSWORD"] = str(password)
    return make_conninfo("", **given), environment


def _put_in_place(unfinished: Path, target: Path, *, replace: bool) -> None:
    if replace:
        unfinished.replace(target)
    else:
        try:
            os.link(unfinished, target)  # a rename would replace what came meanwhile
        except FileExistsError:
            raise _occupied(target) from None
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _occupied(target: Path) -> ConflictError:
    return ConflictError(
        "there is such a file already",
        where=str(target),
        remedy="name another file, or say that it may be replaced",
    )
