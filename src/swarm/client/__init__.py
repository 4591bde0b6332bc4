"""The public Python API. Its names are imported from ``swarm``; see ``swarm/__init__.py``."""
