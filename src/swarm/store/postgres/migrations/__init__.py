"""Numbered SQL files, ``NNNN_name.sql``: each takes a database from version N-1 to N."""
