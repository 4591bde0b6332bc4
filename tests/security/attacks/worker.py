"""Runs attacks, as whoever it was started as: a JSON line in, a JSON line out.

One attack: a fresh sandbox, one call, its end. The sandbox is the product's own, or one whose
zygote lacks some layers (``weak_zygote``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace
from weak_zygote.weakening import SHARED, VARIABLE

from swarm.definitions.fields import FieldDefinition
from swarm.engine.files import collect_outputs
from swarm.engine.trees import materialise_tree
from swarm.kernel.errors import SwarmError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import Settings
from swarm.sandbox import session
from swarm.sandbox.interpreters import python_program
from swarm.sandbox.linux import plan, zygote_client
from swarm.sandbox.linux.backend import NamespaceBackend
from swarm.sandbox.linux.plan import HostFacts
from swarm.sandbox.linux.zygote_client import Zygote
from swarm.sandbox.pool import PooledBackend
from swarm.sandbox.ports import (
    CallContext,
    InputMount,
    Limits,
    Program,
    Sandbox,
    SandboxBackend,
    SandboxRequest,
)
from swarm.store.artifacts import LocalArtifacts

_SUITE: Final = Path(__file__).parent
_CONFIGURATION: Final = plan.configuration
_PRODUCT_ZYGOTE: Final = zygote_client._PROGRAM
_CONTEXT: Final = CallContext("inv_attack", "key_attack", "attacker", "1.0.0")
_PRODUCT: Final = "product"
_MEBIBYTE: Final = 1024 * 1024
_LIMITS: Final = Limits(memory_bytes=256 * _MEBIBYTE, timeout_seconds=20)
_WEAK_MEMORY: Final = 1 << 50
"""No limit: the watchdog cannot tell the stage's process ids, nor a shared folder from a tmpfs."""
_DEVICES: Final = ("kmsg", "kvm", "fuse", "net/tun", "vsock", "userfaultfd", "vda", "sda", "loop0")


class Services:
    """The host's side of a call: counts what is logged."""

    def __init__(self) -> None:
        self.log_bytes = 0
        self.longest_line = 0

    def log(self, stream: str, level: str, message: str) -> None:
        self.log_bytes += len(message.encode())
        self.longest_line = max(self.longest_line, len(message.encode()))

    def progress(self, fraction: float | None, message: str) -> None:
        pass

    def event(self, value: JsonValue) -> None:
        pass

    async def request(self, method: str, params: JsonObject) -> JsonValue:
        raise SwarmError("nothing is offered", where=method)


class WeakBackend(NamespaceBackend):
    """The product's backend over a zygote that lacks layers."""

    def __init__(self, settings: Settings, without: frozenset[str], stage: JsonObject) -> None:
        super().__init__(settings)
        self._without = without
        self._stage = stage

    def _find_facts(self) -> HostFacts:
        facts = super()._find_facts()
        if "cgroup" in self._without and self._tree is not None:
            self._tree.close()
            self._tree = None
        return facts

    async def _start(self, facts: HostFacts) -> Zygote:
        def weakened(*arguments: Any, **named: Any) -> JsonObject:
            return self._weaken(_CONFIGURATION(*arguments, **named))

        plan.configuration = weakened
        zygote_client._PROGRAM = _SUITE / "weak_zygote"
        try:
            return await super()._start(facts)
        finally:
            plan.configuration = _CONFIGURATION
            zygote_client._PROGRAM = _PRODUCT_ZYGOTE

    def _weaken(self, configuration: JsonObject) -> JsonObject:
        more: dict[str, list[Any]] = {}
        if "private-root" in self._without:
            more["binds"] = [["/sys", "/sys"]]
            more["copies"] = [[f"{self._stage['shown']}/machine-id", "/etc/machine-id"]]
        if "chosen-devices" in self._without:
            found = [f"/dev/{name}" for name in _DEVICES if Path("/dev", name).exists()]
            more["devices"] = found
        return {
            **configuration,
            **{name: [*configuration[name], *values] for name, values in more.items()},
            "without": sorted(self._without),
            "stage": self._stage,
            "preload": [],
        }


class Worker:
    """Keeps the product's backend, and one for each set of layers that a zygote lacks."""

    def __init__(self, folder: Path, usr: str) -> None:
        self._folder = folder
        self._usr = usr
        self._settings = Settings(home=folder / "home", max_output_files_mb=16)
        self._backends: dict[str, NamespaceBackend] = {}
        self._targets: dict[str, JsonObject] = {}
        self._stages = 0
        self._artifacts = LocalArtifacts(folder / "artifacts")

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            answer = await self.run(json.loads(line))
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        for backend in self._backends.values():
            await backend.close()

    async def run_many(self, order: dict[str, Any]) -> JsonObject:
        """Do many attacks at once, from a package of some runtime, and tell what came of them."""
        python = str(python_program().program)
        backend: SandboxBackend = self._backend(_PRODUCT, frozenset())
        if order["from"] == "pool":
            backend = PooledBackend(NamespaceBackend(self._settings), self._settings)
        request = self._request(order, frozenset())
        # Started once, so that its decoys are known.
        attacks = {"many": order["many"], "targets": self._targets_of(_PRODUCT)}
        programs = {
            "command": replace(request.program, runtime="command", entry=(python, "batch.py")),
            "node": replace(request.program, runtime="node", entry=("native.mjs",)),
            "pool": replace(request.program, entry=("early.py",)),
        }
        request = replace(request, program=programs[order["from"]])
        if order["from"] == "pool":
            request = replace(request, environment={"ATTACKS": json.dumps(attacks)})
        inputs = {**attacks, "python": python}
        answers = []
        try:
            for _ in range(order["calls"]):
                sandbox = await backend.prepare(request)
                try:
                    result = await sandbox.call(inputs, _CONTEXT, Services())
                finally:
                    await sandbox.destroy()
                answers.append({"outputs": result.outputs, "error": result.error})
        except SwarmError as error:
            return {"unavailable": str(error)}
        finally:
            if isinstance(backend, PooledBackend):
                await backend.close()
        return {"answers": answers}

    async def run(self, order: dict[str, Any]) -> JsonObject:
        """Do one attack and tell what came of it."""
        if "many" in order:
            return await self.run_many(order)
        without = frozenset(order["without"])
        try:
            name = _zygote_name(without)
            backend = self._backend(name, without)
            with _host_without(without):
                sandbox = await backend.prepare(self._request(order, without))
        except SwarmError as error:
            return {"unavailable": str(error)}
        targets = {**self._targets_of(name), **order["targets"]}
        services = Services()
        try:
            inputs = {"attack": order["attack"], "targets": targets}
            result = await sandbox.call(inputs, _CONTEXT, services)
            collected = await self._collect(sandbox, order.get("collect"))
        finally:
            await sandbox.destroy()
        mark = str(targets.get("mark", ""))
        survivors = processes_named(mark) if mark else []
        if survivors:
            await self._strike(name)
        return {
            "outcome": str(result.outcome),
            "error": result.error,
            "error_code": result.error_code,
            "outputs": result.outputs,
            "traceback": result.traceback,
            "wall_ms": result.usage.wall_ms,
            "log_bytes": services.log_bytes,
            "longest_line": services.longest_line,
            "survivors": len(survivors),
            "collected": collected,
            "layers": list(sandbox.layers),
        }

    async def _strike(self, name: str) -> None:
        """End a stage, and with it what is left there."""
        await self._backends.pop(name).close()

    def _backend(self, name: str, without: frozenset[str]) -> NamespaceBackend:
        if name not in self._backends:
            if without:
                self._stages += 1
                unique = f"stage-{self._stages}"
                folder = self._folder / "staged"
                stage = {
                    "folder": str(folder),
                    "shown": str(folder / "shown"),
                    "suite": str(_SUITE),
                    "usr": self._usr,
                    "name": unique,
                }
                backend: NamespaceBackend = WeakBackend(self._settings, without & SHARED, stage)
            else:
                unique, folder = "host", self._folder / "real"
                backend = NamespaceBackend(self._settings)
            self._backends[name] = backend
            self._targets[name] = {"told": f"{folder}/{unique}.json", "folder": str(folder)}
        return self._backends[name]

    def _targets_of(self, name: str) -> JsonObject:
        known = self._targets[name]
        if "tcp" not in known:
            shown = f"{known['folder']}/shown"
            interpreter = str(python_program().program) if name == _PRODUCT else ""
            known |= {
                **json.loads(Path(known["told"]).read_text()),
                "secret": f"{shown}/secret.txt",
                "home_secret": f"{shown}/home/registry/secrets/key",
                "other_package": f"{shown}/home/packages/other/main.py",
                "etc_secret": f"{shown}/etc/shadow",
                "usr": self._usr,
                "program": interpreter or f"{self._usr}/program",
            }
        return known

    def _request(self, order: dict[str, Any], without: frozenset[str]) -> SandboxRequest:
        limits = replace(_LIMITS, **({"memory_bytes": _WEAK_MEMORY} if without else {}))
        folder = self._folder / ("staged" if without else "real")
        program = Program(
            "python", ("main.py",), folder / "package", "attack", folder / "environment"
        )
        return SandboxRequest(
            program,
            replace(limits, **order.get("limits", {})),
            network=("nowhere.invalid",) if order.get("network") else (),
            inputs=(InputMount("data", folder / "data"),) if order.get("live_input") else (),
            environment={VARIABLE: " ".join(sorted(without - SHARED))} if without else {},
        )

    async def _collect(self, sandbox: Sandbox, wanted: JsonValue) -> JsonValue:
        """Take an output file out, by the engine's collector or by a naive one."""
        if wanted is None:
            return None
        if "outputs" in wanted:
            return await self._hand_out(sandbox, wanted["outputs"], naive=wanted["naive"])
        kind = wanted["type"]
        path = wanted["path"].format(shown=self._folder / "real/shown")
        if wanted["naive"]:
            return _collect_naively(await sandbox.outputs_descriptor(), path)
        fields = [FieldDefinition(name="out", type=kind)]
        try:
            async with asyncio.timeout(60):
                outputs = await self._take_out(sandbox, fields, {"out": {"$file": path}})
        except SwarmError as error:
            return {"refused": error.message}
        except TimeoutError:
            return {"refused": "hung"}
        reference = outputs["out"]["$artifact"]
        return {"content": self._artifacts.path(reference).read_bytes()[:200].decode("latin-1")}

    async def _take_out(
        self, sandbox: Sandbox, fields: list[FieldDefinition], outputs: JsonObject
    ) -> JsonObject:
        return await collect_outputs(
            fields,
            outputs,
            sandbox.outputs_descriptor,
            self._artifacts,
            {},
            self._settings.max_output_files,
            self._settings.max_output_files_mb * _MEBIBYTE,
        )

    async def _hand_out(self, sandbox: Sandbox, outputs: JsonObject, *, naive: bool) -> JsonObject:
        """Take out all that ``outputs`` name, and put ``tree``, a directory, together again."""
        files = {name: value for name, value in outputs.items() if "$file" in value}
        fields = [FieldDefinition(name=name, type="file") for name in files]
        try:
            if naive:
                await self._take_out(sandbox, fields, files)
                return _put_together_naively(self._artifacts, outputs["tree"]["$artifact"])
            fields.append(FieldDefinition(name="tree", type="directory"))
            taken = await self._take_out(sandbox, fields, outputs)
            reference = taken["tree"]["$artifact"]
            return {"content": str(materialise_tree(self._artifacts, self._folder, reference))}
        except SwarmError as error:
            return {"refused": error.message}


@contextlib.contextmanager
def _host_without(layers: frozenset[str]) -> Iterator[None]:
    """Take out what is the host's part."""
    refuse = session.refuse_descriptors
    if "refused-descriptors" in layers:
        session.refuse_descriptors = lambda host: None
    try:
        yield
    finally:
        session.refuse_descriptors = refuse


def _zygote_name(without: frozenset[str]) -> str:
    return f"without {sorted(without & SHARED)}" if without else _PRODUCT


def _collect_naively(outputs: int, path: str) -> JsonObject:
    """What a collector does that nobody thought about."""
    place = Path(f"/proc/self/fd/{outputs}", path)
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    content = [file.read_text() for file in files if file.is_file()]
    return {"content": "".join(content)}


def _put_together_naively(artifacts: LocalArtifacts, reference: str) -> JsonObject:
    """A directory from its listing, by who trusts listings."""
    written = []
    for entry in json.loads(artifacts.path(reference).read_bytes())["files"]:
        place = Path("/nowhere", entry["path"])
        shutil.copyfile(artifacts.path(f"sha256:{entry['sha256']}"), place)
        written.append(place.read_text())
        place.unlink()
    return {"content": "".join(written)}


def processes_named(mark: str) -> Sequence[int]:
    """Processes of this machine that call themselves ``mark``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == mark:
                found.append(int(folder.name))
        except OSError:
            continue  # It has ended meanwhile.
    return found


if __name__ == "__main__":
    asyncio.run(Worker(Path(sys.argv[1]), sys.argv[2]).serve())
