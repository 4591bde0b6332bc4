"""The folders of one Swarm home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swarm.kernel.durability import make_folder
from swarm.kernel.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything of one home lies; :meth:`create` makes the folders."""

    root: Path

    @property
    def agents(self) -> Path:
        """Sources of agents, which ``register --all`` looks through."""
        return self.root / "agents"

    @property
    def workflows(self) -> Path:
        return self.root / "workflows"

    @property
    def packages(self) -> Path:
        """``<digest>/``: the copy of a package made when it was registered."""
        return self.root / "packages"

    @property
    def environments(self) -> Path:
        """``<digest>/``: installed dependencies, keyed by lock, interpreter and platform."""
        return self.root / "environments"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def database(self) -> Path:
        return self.registry / "registry.db"

    @property
    def secrets(self) -> Path:
        return self.registry / "secrets"

    @property
    def run_logs(self) -> Path:
        """``<run id>.jsonl``: what the run's agents logged."""
        return self.registry / "logs" / "workflow-runs"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def hosts(self) -> Path:
        """``<host id>.lock`` and ``<host id>.sock`` of each process that drives runs."""
        return self.root / "run" / "hosts"

    def create(self) -> None:
        """Make the folders that are missing; safe to call from many processes at once.

        Raises:
            UnavailableError: a folder cannot be made.
        """
        try:
            for folder in (
                self.agents,
                self.workflows,
                self.packages,
                self.environments,
                self.run_logs,
                self.artifacts,
                self.cache,
                self.hosts,
            ):
                make_folder(folder)
            self.secrets.mkdir(mode=0o700, exist_ok=True)
            self.hosts.parent.chmod(0o700)
        except OSError as error:
            raise UnavailableError(
                f"the home cannot be set up: {error.strerror}",
                where=str(error.filename or self.root),
                remedy="set SWARM_HOME to a folder that you may write",
            ) from None
