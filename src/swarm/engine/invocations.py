"""One invocation of an agent: checked inputs, a fresh sandbox, checked outputs.

Used by the steps of a run and by calls outside any run alike, so both obey the same rules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.files import ARTIFACT_KEY
from swarm.definitions.values import check_values, is_secret_reference
from swarm.engine.files import FileAccess, collect_outputs, handler_inputs
from swarm.engine.places import Places
from swarm.engine.secrets import InvocationSecrets, SecretLeaf, SecretReader, with_secrets
from swarm.kernel.clock import now_text
from swarm.kernel.errors import (
    InputError,
    InvalidError,
    RefusedError,
    SwarmError,
    UnavailableError,
)
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import MIB, Settings
from swarm.sandbox.egress.policy import narrow
from swarm.sandbox.log_lines import split_cut
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InputMount,
    InvocationResult,
    Isolation,
    Limits,
    Outcome,
    Program,
    ResourceUsage,
    Sandbox,
    SandboxBackend,
    SandboxRequest,
)
from swarm.store.records import NO_ITEM, AgentRecord, InvocationRecord

_MOST_TOKENS = 10**12
_MOST_USD = 10**9
"""What one message of an agent may claim; more is a mistake."""
_STRENGTH = {level: index for index, level in enumerate(Isolation)}


class PinnedAgent(Struct, frozen=True):
    """A registered agent, read once and used for many invocations."""

    record: AgentRecord
    definition: AgentDefinition
    prepare: Callable[[], Awaitable[Program]]
    """Gives what a sandbox needs to run it, fetched first where it is not on this machine."""
    granted: Mapping[str, tuple[str, ...]]
    """Permissions by kind: ``{"network": ("api.example.com",), ...}``."""

    @property
    def reference(self) -> str:
        return f"{self.record.name}@{self.record.version}"


class Call(Struct, frozen=True):
    """All that one invocation needs besides the agent."""

    inputs: JsonObject
    """Checked inputs, defaults applied (see :func:`checked_inputs`)."""
    context: CallContext
    files: FileAccess
    isolation: Isolation
    timeout_seconds: float | None = None
    network: tuple[str, ...] | None = None
    """Narrows the granted hosts; None leaves them as they are."""
    secrets: tuple[SecretLeaf, ...] = ()
    """Where ``inputs`` hold references to secrets."""
    priority: int = 0
    """Calls of a higher priority get a sandbox first."""


class Completed(Struct, frozen=True):
    """How an invocation ended, and what to record of it."""

    result: InvocationResult
    sandbox_id: str | None
    isolation: Isolation
    layers: tuple[str, ...]
    started_at: str
    """When it had a place and its sandbox was begun; before that it waited for others."""


def checked_inputs(
    agent: PinnedAgent, inputs: JsonObject, secrets: tuple[SecretLeaf, ...] = ()
) -> JsonObject:
    """The inputs with defaults applied; ``secrets`` says where references to secrets may stand.

    Raises:
        InputError: they do not fit what the agent declares.
    """
    values = check_values(
        agent.definition.inputs,
        inputs,
        subject=agent.reference,
        kind="input",
        secrets=bool(secrets),
        additional=agent.definition.additional_inputs,
    )
    if secrets:
        expected = {leaf.path for leaf in secrets}
        for name, value in values.items():
            if is_secret_reference(value) and (name,) not in expected:
                raise InputError(
                    f"input `{name}` of {agent.reference} holds a reference to a secret "
                    "that the step's definition does not have"
                )
    return values


def effective_isolation(agent: PinnedAgent, chosen: Isolation, step: str | None) -> Isolation:
    """The level to use: what the operator chose, raised to what the agent and step demand.

    ``none`` is an operator's explicit word and stands, except against a demanded ``microvm``.
    """
    demanded = max(
        Isolation(agent.definition.runtime.isolation),
        Isolation(step) if step else Isolation.NONE,
        key=_STRENGTH.__getitem__,
    )
    if chosen is Isolation.NONE and demanded is not Isolation.MICROVM:
        return chosen
    return max(chosen, demanded, key=_STRENGTH.__getitem__)


class Invoker:
    """Runs invocations in the sandboxes of this process, at most so many at once."""

    def __init__(
        self,
        backend: Callable[[Isolation], SandboxBackend],
        settings: Settings,
        stored: SecretReader | None = None,
    ) -> None:
        """``backend(level)`` gives a backend, or raises SandboxUnavailable; ``stored`` are the
        home's secrets."""
        self._backend = backend
        self._settings = settings
        self._stored = stored
        self._places = Places(settings.max_concurrent_invocations)

    def secrets(self, agent: PinnedAgent, workflow: str | None = None) -> InvocationSecrets:
        """What one invocation of the agent, in a run of ``workflow``, may read."""
        return InvocationSecrets(
            agent.granted.get("secrets", ()),
            self._stored,
            workflow=workflow,
            project_id=agent.record.project_id,
        )

    async def invoke(self, agent: PinnedAgent, call: Call, services: AgentServices) -> Completed:
        """Run the agent once. What the agent does wrong is in the result, never raised.

        Raises:
            UnavailableError: the sandbox cannot be built, or a file cannot be stored.
            NotFoundError, InputError: a file value refers to nothing that is there, or nobody has
                published the agent's package.
            DamagedError: what was fetched is not what it should be.
            DependencyError: the agent's dependencies cannot be installed here.
        """
        with call.files.held(agent.definition.inputs, call.inputs):
            return await self._invoke(agent, call, services)

    async def _invoke(self, agent: PinnedAgent, call: Call, services: AgentServices) -> Completed:
        backend = self._backend(call.isolation)
        mounts = await call.files.mount_inputs(agent.definition.inputs, call.inputs)
        request = self._request(agent, await agent.prepare(), call, mounts)
        async with self._places.taken(call.priority):
            started_at = now_text()
            sandbox = await backend.prepare(request)
            try:
                result = await self._call(agent, call, sandbox, mounts, services)
                return Completed(result, sandbox.id, sandbox.isolation, sandbox.layers, started_at)
            finally:
                await sandbox.destroy()

    def _request(
        self, agent: PinnedAgent, program: Program, call: Call, mounts: tuple[InputMount, ...]
    ) -> SandboxRequest:
        runtime = agent.definition.runtime
        timeout = call.timeout_seconds or runtime.timeout_seconds
        granted = agent.granted.get("network", ())
        network = granted if call.network is None else narrow(granted, call.network)
        return SandboxRequest(
            program=program,
            limits=Limits.of(self._settings, runtime.memory_mb, timeout),
            network=network,
            environment=agent.definition.environment,
            inputs=mounts,
        )

    async def _call(
        self,
        agent: PinnedAgent,
        call: Call,
        sandbox: Sandbox,
        mounts: tuple[InputMount, ...],
        services: AgentServices,
    ) -> InvocationResult:
        isolated = sandbox.isolation is not Isolation.NONE
        inputs = handler_inputs(call.inputs, mounts, isolated)
        inputs = await services.with_secrets(inputs, call.secrets)
        # Masked before it is checked: what is wrong with outputs is told with pieces of them.
        result = services.masked(await sandbox.call(inputs, call.context, services))
        if result.outcome is Outcome.OK:
            result = await self._checked_result(agent, call, sandbox, result, services.masked_text)
        return result

    async def _checked_result(
        self,
        agent: PinnedAgent,
        call: Call,
        sandbox: Sandbox,
        result: InvocationResult,
        masked: Callable[[str], str],
    ) -> InvocationResult:
        """The result with its files taken out and its outputs checked, or why it is refused."""
        outputs = {} if result.outputs is None else result.outputs
        if not isinstance(outputs, dict):
            return _bad_output(
                result,
                f"the handler must return an object of outputs, got {type(outputs).__name__}",
            )
        if ARTIFACT_KEY in outputs:
            # All outputs together would pass for a reference to a large value (engine.values).
            return _bad_output(result, f"an output cannot be called {ARTIFACT_KEY}")
        fields = agent.definition.outputs
        try:
            outputs = await collect_outputs(
                fields,
                outputs,
                sandbox.outputs_descriptor,
                call.files.artifacts,
                call.inputs,
                self._settings.max_output_files,
                self._settings.max_output_files_mb * MIB,
                masked,
            )
            outputs = check_values(
                fields,
                outputs,
                subject=agent.reference,
                kind="output",
                additional=agent.definition.additional_outputs,
            )
        except UnavailableError:
            raise
        except (InvalidError, RefusedError, SwarmError) as error:
            return _bad_output(result, masked(error.message))
        return replace(result, outputs=outputs)


class AgentServices(GuestServices):
    """The host's side of ``context``: answers secrets, and masks them in what comes back."""

    def __init__(
        self,
        secrets: InvocationSecrets,
        listener: GuestListener,
        charge: Callable[[int, int], None] = lambda tokens, cost_micros: None,
    ) -> None:
        """``charge`` counts tokens and millionths of a dollar that the agent says it used; it
        raises RefusedError once a budget is used up."""
        self._secrets = secrets
        self._listener = listener
        self._charge = charge

    def log(self, stream: str, level: str, message: str) -> None:
        self._listener.logged(stream, level, self.masked_text(message))

    def progress(self, fraction: float | None, message: str) -> None:
        self._listener.progressed(fraction, self.masked_text(message))

    def event(self, value: JsonValue) -> None:
        self._listener.streamed(self._secrets.mask_value(value))

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        if method == "secret":
            return await self._secrets.read(str(params.get("name", "")))
        if method == "usage":
            self._charge(*_checked_usage(params))
            return None
        raise RefusedError(f"the host does not offer {method!r} to agents")

    async def with_secrets(self, inputs: JsonObject, leaves: tuple[SecretLeaf, ...]) -> JsonObject:
        """See :func:`swarm.engine.secrets.with_secrets`."""
        return await with_secrets(inputs, leaves, self._secrets)

    def masked_record(self, record: InvocationRecord) -> InvocationRecord:
        """A failed invocation's record without the secrets that it was given."""
        return replace(record, error=self.masked_text(record.error)) if record.error else record

    def masked(self, result: InvocationResult) -> InvocationResult:
        """The result without the secrets that this invocation was given."""
        if not self._secrets.were_read:
            return result
        return replace(
            result,
            outputs=self._secrets.mask_value(result.outputs),
            error=self.masked_text(result.error) if result.error else result.error,
            # Guests cut long ones, without saying so: at the start in Python, at the end in Node.
            traceback=self._secrets.mask(result.traceback, cut_start=True, cut_end=True)
            if result.traceback
            else None,
        )

    def masked_text(self, text: str) -> str:
        """A text, perhaps cut, without the secrets that this invocation was given."""
        kept, note = split_cut(text)
        return self._secrets.mask(kept, cut_end=bool(note)) + note


def _checked_usage(params: JsonObject) -> tuple[int, int]:
    """Tokens and millionths of a dollar, as an agent told them.

    Raises:
        InputError: they are no amounts.
    """
    tokens, usd = params.get("tokens", 0), params.get("usd", 0)
    if (
        not isinstance(tokens, int)
        or not isinstance(usd, (int, float))
        or not 0 <= tokens <= _MOST_TOKENS
        or not 0 <= usd <= _MOST_USD
    ):
        raise InputError("usage is `tokens`, a whole number, and `usd`, a number; none below 0")
    return tokens, round(usd * 1_000_000)


class GuestListener:
    """Hears what an agent tells while it runs; the base hears nothing."""

    def logged(self, stream: str, level: str, message: str) -> None:
        """One line; ``stream`` is ``log``, ``stdout`` or ``stderr``."""

    def progressed(self, fraction: float | None, message: str) -> None:
        """How far it says it is, from 0 to 1."""

    def streamed(self, value: JsonValue) -> None:
        """A value that a generator handler yielded."""


def started_record(
    agent: PinnedAgent,
    context: CallContext,
    isolation: Isolation,
    *,
    item_index: int = NO_ITEM,
    started_at: str | None = None,
) -> InvocationRecord:
    """The invocation as it begins, now if ``started_at`` is None."""
    record = agent.record
    return InvocationRecord(
        id=context.invocation_id,
        agent_id=record.id,
        agent_name=record.name,
        agent_version=record.version,
        digest=record.digest,
        status="running",
        run_id=context.run_id,
        step_id=context.step_id,
        item_index=item_index,
        attempt=context.attempt,
        isolation=isolation,
        started_at=started_at or now_text(),
        project_id=record.project_id,
    )


def ended_record(
    started: InvocationRecord, completed: Completed, tokens: int = 0, cost_micros: int = 0
) -> InvocationRecord:
    """The invocation as it ended; what it used of models is what it said."""
    result = completed.result
    usage: ResourceUsage = result.usage
    return replace(
        started,
        status=str(result.outcome),
        sandbox_id=completed.sandbox_id,
        isolation=completed.isolation,
        layers=completed.layers,
        started_at=completed.started_at,
        completed_at=now_text(),
        wall_ms=usage.wall_ms,
        cpu_ms=usage.cpu_ms,
        peak_memory_bytes=usage.peak_memory_bytes,
        output_bytes=usage.output_bytes,
        log_bytes=usage.log_bytes,
        tokens=tokens,
        cost_micros=cost_micros,
        error=result.error,
        error_code=result.error_code,
    )


def failed_record(started: InvocationRecord, error: SwarmError) -> InvocationRecord:
    """The invocation when it could not even be started."""
    return replace(
        started,
        status="error",
        completed_at=now_text(),
        error=str(error),
        error_code=error.code,
    )


def killed_record(started: InvocationRecord) -> InvocationRecord:
    """The invocation when its caller gave it up."""
    return replace(
        started,
        status=str(Outcome.KILLED),
        completed_at=now_text(),
        error="the invocation was cancelled",
        error_code="cancelled",
    )


def _bad_output(result: InvocationResult, message: str) -> InvocationResult:
    return replace(
        result, outcome=Outcome.ERROR, outputs=None, error=message, error_code="bad_output"
    )
