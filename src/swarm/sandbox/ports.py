"""What the engine asks of a sandbox, and what a sandbox asks of its host.

One sandbox serves one invocation: ``prepare`` builds it, ``call`` runs the handler once,
``destroy`` leaves nothing of it. All methods are async; a backend serves many at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct, field

from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings


class Isolation(StrEnum):
    """How strong the wall is, weakest first."""

    NONE = "none"
    SANDBOX = "sandbox"
    MICROVM = "microvm"


class Outcome(StrEnum):
    """How an invocation ended."""

    OK = "ok"
    ERROR = "error"
    """The handler raised, exited, or answered with something that is not JSON."""
    TIMEOUT = "timeout"
    OOM = "oom"
    KILLED = "killed"
    """The host cancelled it, or something outside killed it."""


class Program(Struct, frozen=True):
    """The code to run: a pinned package copy and, if it has dependencies, its environment."""

    runtime: Literal["python", "node", "command"]
    entry: tuple[str, ...]
    """Python: ``("main.py",)`` or ``("module:function",)``; Node: the file; command: arguments."""
    package: Path
    digest: str
    environment: Path | None = None
    """Python: a folder whose ``site-packages`` is put on the path; Node: one with
    ``node_modules``."""


class InputMount(Struct, frozen=True):
    """A host file or directory that appears read-only at ``/inputs/<name>``."""

    name: str
    source: Path


class Limits(Struct, frozen=True):
    """What one invocation may use. Bytes, seconds and counts."""

    memory_bytes: int
    timeout_seconds: float
    processes: int = 64
    work_bytes: int = 256 * 1024 * 1024
    """Size of ``/tmp``."""
    work_files: int = 65_536
    output_files_bytes: int = 256 * 1024 * 1024
    """Size of ``$SWARM_OUTPUTS``."""
    output_files: int = 1_000
    output_bytes: int = 4 * 1024 * 1024
    """The largest message that the handler may send (its JSON output included)."""
    stream_bytes: int = 64 * 1024 * 1024
    """All events and progress that the handler may stream."""
    log_bytes: int = 1024 * 1024
    log_line_bytes: int = 16 * 1024

    @classmethod
    def of(cls, settings: Settings, memory_mb: int, timeout_seconds: float) -> Limits:
        """The limits that ``settings`` allow for a manifest's wishes."""
        mebibyte = 1024 * 1024
        return cls(
            memory_bytes=min(memory_mb, settings.max_memory_mb) * mebibyte,
            timeout_seconds=min(timeout_seconds, settings.max_timeout_seconds),
            processes=settings.max_processes,
            work_bytes=settings.max_work_mb * mebibyte,
            work_files=settings.max_work_files,
            output_files_bytes=settings.max_output_files_mb * mebibyte,
            output_files=settings.max_output_files,
            output_bytes=settings.max_output_bytes,
            log_bytes=settings.max_log_bytes,
            log_line_bytes=settings.max_log_line_bytes,
        )


class SandboxRequest(Struct, frozen=True):
    """All that is needed to build a sandbox for one invocation."""

    program: Program
    limits: Limits
    network: tuple[str, ...] = ()
    """Hosts granted, as in the manifest; empty means no network at all."""
    environment: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[InputMount, ...] = ()


class CallContext(Struct, frozen=True):
    """What the handler may know about its invocation (``context`` inside)."""

    invocation_id: str
    idempotency_key: str
    agent: str
    agent_version: str
    attempt: int = 1
    run_id: str | None = None
    step_id: str | None = None

    def as_json(self) -> JsonObject:
        return {name: getattr(self, name) for name in self.__struct_fields__}


class GuestServices(Protocol):
    """The host's side of ``context``: answers what the guest may ask, under its grants."""

    def log(self, stream: str, level: str, message: str) -> None:
        """One line logged by the agent. ``stream``: ``log``, ``stdout`` or ``stderr``."""
        ...

    def progress(self, fraction: float | None, message: str) -> None: ...

    def event(self, value: JsonValue) -> None:
        """A value that a generator handler yielded."""
        ...

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        """Answer a request such as ``secret``; raises SwarmError to refuse."""
        ...


class ResourceUsage(Struct, frozen=True):
    wall_ms: int = 0
    cpu_ms: int = 0
    peak_memory_bytes: int = 0
    output_bytes: int = 0
    log_bytes: int = 0


class InvocationResult(Struct, frozen=True):
    outcome: Outcome
    outputs: JsonValue = None
    """What the handler returned, not yet checked against the manifest."""
    error: str | None = None
    """One line that says what went wrong."""
    error_code: str | None = None
    """``timeout``, ``oom``, ``killed``, ``error``, ``bad_output``, ``output_too_large``, ..."""
    traceback: str | None = None
    usage: ResourceUsage = field(default_factory=ResourceUsage)


class Sandbox(Protocol):
    """A built sandbox, good for one call."""

    @property
    def id(self) -> str: ...

    @property
    def isolation(self) -> Isolation: ...

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that hold, such as ``user-namespace``, ``seccomp``, ``cgroup-v1``."""
        ...

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        """Run the handler once. Never raises for what the agent does; cancelling it kills.

        Nothing that the agent does after its answer is heard of.
        """
        ...

    async def outputs_descriptor(self) -> int:
        """An open directory: what the agent wrote to ``$SWARM_OUTPUTS``. Valid until destroy.

        Nothing of the agent runs any more when this returns, so that nothing changes it.
        """
        ...

    async def destroy(self) -> None:
        """Kill and remove everything; safe to call twice."""
        ...


class SandboxBackend(Protocol):
    """Makes sandboxes of one isolation level."""

    async def prepare(self, request: SandboxRequest) -> Sandbox:
        """Build a sandbox.

        Raises:
            SandboxUnavailable: the kernel refuses a required layer; the remedy says what to do.
        """
        ...

    async def close(self) -> None:
        """Destroy every sandbox and stop helpers."""
        ...


class IdleSandbox(Sandbox, Protocol):
    """A sandbox built before anyone asked for it."""

    @property
    def is_alive(self) -> bool:
        """Whether it can still serve its call: its processes live, by the kernel's word of now."""
        ...

    def memory_bytes(self) -> int:
        """What it occupies now."""
        ...

    def wake(self) -> None:
        """Give it ordinary priority; a call follows."""
        ...


class Blanks(Protocol):
    """Sandboxes that no package is bound to. ``prepare`` uses one where it can."""

    @property
    def ready(self) -> int:
        """How many there are."""
        ...

    def memory_bytes(self) -> int:
        """What they occupy now."""
        ...

    async def make(self) -> None:
        """Make one more, if there was a ``prepare`` already to make it like."""
        ...

    def drop(self) -> None:
        """Destroy one, behind the caller's back."""
        ...


class AheadBackend(SandboxBackend, Protocol):
    """A backend whose sandboxes can be built ahead of need."""

    @property
    def blanks(self) -> Blanks | None:
        """None where there is nothing that can be done before the package is known."""
        ...

    async def prepare_ahead(self, request: SandboxRequest) -> IdleSandbox:
        """Like ``prepare``, at a lower priority where the kernel lets it be raised again."""
        ...


class LayerReport(Struct, frozen=True):
    """What ``swarm doctor`` says of one layer."""

    name: str
    required: bool
    available: bool
    detail: str
    remedy: str | None = None
