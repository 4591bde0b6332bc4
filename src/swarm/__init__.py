"""Swarm: a self-hosted runtime for AI agents.

The public Python API is what ``__all__`` names. A name is imported when it is first used, so that
``import swarm`` costs nothing; ``__init__.pyi`` tells type checkers and editors what each one is.
"""

from importlib import import_module

__version__ = "0.1.0"

_ERRORS = "swarm.kernel.errors"
_RECORDS = "swarm.store.records"
_MODULES = {
    "AgentRecord": _RECORDS,
    "ArchiveError": _ERRORS,
    "Client": "swarm.client.client",
    "ConflictError": _ERRORS,
    "DamagedError": _ERRORS,
    "DatabaseError": _ERRORS,
    "DefinitionError": _ERRORS,
    "DependencyError": _ERRORS,
    "ExpressionError": _ERRORS,
    "File": "swarm.client.values",
    "GuestListener": "swarm.engine.invocations",
    "InputError": _ERRORS,
    "InvalidError": _ERRORS,
    "InvocationFailed": _ERRORS,
    "InvocationRecord": _RECORDS,
    "Isolation": "swarm.sandbox.ports",
    "LogLine": "swarm.client.handle",
    "MasterKeyError": _ERRORS,
    "NotFoundError": _ERRORS,
    "OutputError": _ERRORS,
    "Problem": _ERRORS,
    "RefusedError": _ERRORS,
    "Reply": "swarm.client.client",
    "RunEvent": "swarm.engine.events",
    "RunFailed": _ERRORS,
    "RunHandle": "swarm.client.handle",
    "RunInterrupted": _ERRORS,
    "RunRecord": _RECORDS,
    "RunState": _RECORDS,
    "SandboxUnavailable": _ERRORS,
    "SentEvent": "swarm.client.client",
    "Settings": "swarm.kernel.settings",
    "StepRecord": _RECORDS,
    "StepState": _RECORDS,
    "SwarmError": _ERRORS,
    "SyncClient": "swarm.client.sync",
    "SyncRunHandle": "swarm.client.sync",
    "UnavailableError": _ERRORS,
    "WorkflowRecord": _RECORDS,
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
