"""Hosts on many machines, which find each other through one PostgreSQL; see ``fleet.peers``."""
