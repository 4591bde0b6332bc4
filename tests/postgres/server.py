"""The private PostgreSQL of the tests: the one that the benchmarks start, too."""

from benchmarks.private_postgres import (
    ACCOUNTS,
    PREFIX,
    SUPERUSER,
    PostgresServer,
    find_binaries,
    running_server,
)

__all__ = [
    "ACCOUNTS",
    "PREFIX",
    "SUPERUSER",
    "PostgresServer",
    "find_binaries",
    "running_server",
]
