"""The database of many machines: PostgreSQL, through psycopg; needs the extra ``postgres``."""

from swarm.store.postgres.store import PostgresStore, open_store

__all__ = ["PostgresStore", "open_store"]
