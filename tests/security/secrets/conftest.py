"""The real ``swarm``, as the tests of the command line have it."""

from tests.functional.cli.conftest import cli as cli
