"""What each public name of ``swarm`` is; the names are imported late, by ``__init__.py``."""

from swarm.client.client import Client, Reply, SentEvent
from swarm.client.handle import LogLine, RunHandle
from swarm.client.sync import SyncClient, SyncRunHandle
from swarm.client.values import File
from swarm.engine.events import RunEvent
from swarm.engine.invocations import GuestListener
from swarm.kernel.errors import (
    ArchiveError,
    ConflictError,
    DamagedError,
    DatabaseError,
    DefinitionError,
    DependencyError,
    ExpressionError,
    InputError,
    InvalidError,
    InvocationFailed,
    MasterKeyError,
    NotFoundError,
    OutputError,
    Problem,
    RefusedError,
    RunFailed,
    RunInterrupted,
    SandboxUnavailable,
    SwarmError,
    UnavailableError,
)
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import (
    AgentRecord,
    InvocationRecord,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    WorkflowRecord,
)

__version__: str
__all__ = [
    "AgentRecord",
    "ArchiveError",
    "Client",
    "ConflictError",
    "DamagedError",
    "DatabaseError",
    "DefinitionError",
    "DependencyError",
    "ExpressionError",
    "File",
    "GuestListener",
    "InputError",
    "InvalidError",
    "InvocationFailed",
    "InvocationRecord",
    "Isolation",
    "LogLine",
    "MasterKeyError",
    "NotFoundError",
    "OutputError",
    "Problem",
    "RefusedError",
    "Reply",
    "RunEvent",
    "RunFailed",
    "RunHandle",
    "RunInterrupted",
    "RunRecord",
    "RunState",
    "SandboxUnavailable",
    "SentEvent",
    "Settings",
    "StepRecord",
    "StepState",
    "SwarmError",
    "SyncClient",
    "SyncRunHandle",
    "UnavailableError",
    "WorkflowRecord",
    "__version__",
]
