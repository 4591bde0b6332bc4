"""Exporting runs to a file, and importing them from one; see ``store.exchange`` for the format.

Both go through a file of any size with bounded memory: an export reads a run page by page, and an
import keeps the lines of a run in a temporary file until it is whole and may be recorded at once.

An import believes nothing that could make this machine do something. It records ended runs only.
Where their packages lie, which local directories they were granted and who owned them is left out,
and they cannot be taken up again; what they refer to is found here by its digest, or recorded as
inactive.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from msgspec import Struct
from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.kernel.errors import ConflictError, InvalidError, NotFoundError
from swarm.kernel.settings import MIB
from swarm.store.exchange import (
    FORMAT,
    MAX_LINE_BYTES,
    VERSION,
    Header,
    Line,
    RunEnd,
    check_header,
    read_line,
    write_line,
)
from swarm.store.ports import AgentRegistry, RunArchive, RunJournal, WorkflowRegistry
from swarm.store.records import (
    DEFAULT_PROJECT,
    NOT_HERE,
    AgentRecord,
    AnswerRecord,
    ArchiveEntry,
    InvocationRecord,
    RunAttribute,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
    WorkflowRecord,
)

_CHUNK_BYTES = MIB
_SPOOLED_BYTES = MIB
"""Lines of one run that are kept in memory; more go to a temporary file."""
_ENTRIES_AT_ONCE = 100
_RUNS_AT_ONCE = 32
"""Runs handed to the database together: they share the wait for the disk."""
_ENDED = tuple(state for state in RunState if state.is_final)


class ExportSource(AgentRegistry, WorkflowRegistry, RunJournal, RunArchive, Protocol):
    """What an export reads from."""


class Exported(Struct, frozen=True):
    """What was written."""

    runs: int = 0
    left_out: int = 0
    """Runs that changed while they were being written."""


class Imported(Struct, frozen=True):
    """What was recorded."""

    runs: int = 0
    existing: int = 0
    """Runs that were there already, and were left alone."""
    left_out: int = 0
    """Runs that the export left out."""


async def export_runs(
    source: ExportSource,
    run_filter: RunFilter,
    target: BinaryIO,
    run_ids: Sequence[str] | None = None,
) -> Exported:
    """Write the ended runs that pass ``run_filter`` to ``target``, newest first, each with the
    runs that it called. ``run_filter.limit`` and ``called`` do not count.

    Args:
        source: the database.
        run_filter: which runs.
        target: where the lines go.
        run_ids: these runs, in this order, instead of those that pass the filter.

    Raises:
        DatabaseError: the database cannot be read.
        OSError: ``target`` cannot be written.
    """
    export = _Export(source, target)
    await export.write(Header(FORMAT, VERSION, now_text()))
    if run_ids is None:
        chosen = _ended_runs(source, replace(run_filter, called=False))
    else:
        chosen = _named_runs(source, run_ids, run_filter.project_id)
    async for run_id in chosen:
        await export.run(run_id)
    await export.flush()
    return Exported(export.runs, export.left_out)


async def _ended_runs(source: RunJournal, run_filter: RunFilter) -> AsyncIterator[str]:
    """The ids of those runs, each followed by those of the runs that it called."""
    states = tuple(state for state in run_filter.states or _ENDED if state.is_final)
    page = replace(run_filter, states=states, documents=False, limit=100)
    while states and (runs := await source.list_runs(page)):
        for run in runs:
            yield run.id
            called = RunFilter(parent_run_id=run.id, project_id=run.project_id)
            async for run_id in _ended_runs(source, called):
                yield run_id
        page = replace(page, before_id=runs[-1].id)


async def _named_runs(
    source: RunJournal, run_ids: Sequence[str], project_id: str
) -> AsyncIterator[str]:
    """These ids, each followed by those of the runs that it called; none of them twice."""
    seen: set[str] = set()
    for run_id in run_ids:
        called = _ended_runs(source, RunFilter(parent_run_id=run_id, project_id=project_id))
        for found in (run_id, *[each async for each in called]):
            if found not in seen:
                seen.add(found)
                yield found


class _Export:
    """Writes runs, and before each what it refers to."""

    def __init__(self, source: ExportSource, target: BinaryIO) -> None:
        self._source = source
        self._target = target
        self._written: set[str] = set()
        self._chunk: list[bytes] = []
        self._chunk_bytes = 0
        self.runs = 0
        self.left_out = 0

    async def run(self, run_id: str) -> None:
        run = await self._source.get_run(run_id)
        if run is None or not run.status.is_final:
            return
        await self._workflow(run.workflow_id)
        for workflow_id in run.workflows.values():
            await self._workflow(workflow_id)
        for agent_id in run.agents.values():
            await self._agent(agent_id)
        await self.write(run)
        count, place, is_last = 0, "", False
        while not is_last:
            entries, place = await self._source.archived_page(run_id, place, _ENTRIES_AT_ONCE)
            for entry in entries:
                if isinstance(entry, (StepRecord, InvocationRecord)):
                    await self._agent(entry.agent_id)
                await self.write(entry)
            count += len(entries)
            is_last = not place
        again = await self._source.get_run(run_id)
        is_complete = again is not None and (again.epoch, again.status) == (run.epoch, run.status)
        await self.write(RunEnd(run_id, count, is_complete))
        self.runs += is_complete
        self.left_out += not is_complete

    async def write(self, line: Line) -> None:
        text = write_line(line)
        self._chunk.append(text)
        self._chunk_bytes += len(text)
        if self._chunk_bytes >= _CHUNK_BYTES:
            await self.flush()

    async def flush(self) -> None:
        chunk = b"".join(self._chunk)
        self._chunk, self._chunk_bytes = [], 0
        await asyncio.to_thread(self._target.write, chunk)

    async def _workflow(self, workflow_id: str) -> None:
        if workflow_id not in self._written:
            self._written.add(workflow_id)
            if (record := await self._source.get_workflow(workflow_id)) is not None:
                await self.write(record)

    async def _agent(self, agent_id: str | None) -> None:
        if agent_id is not None and agent_id not in self._written:
            self._written.add(agent_id)
            if (record := await self._source.get_agent(agent_id)) is not None:
                await self.write(record)


async def import_runs(
    archive: RunArchive, source: BinaryIO, project_id: str = DEFAULT_PROJECT
) -> Imported:
    """Record the runs in ``source`` as runs of ``project_id``. Runs that are there, by their id,
    are left alone: after an error, the same file can be imported again.

    Raises:
        InvalidError: a line is wrong, which is told by its number. Runs that ended before it may
            have been recorded; of the others there is nothing.
        DatabaseError: the database cannot be written.
        OSError: ``source`` cannot be read.
    """
    importing = _Import(archive, project_id)
    try:
        async for number, text in _numbered_lines(source):
            try:
                await importing.line(number, text)
            except (InvalidError, NotFoundError, ConflictError) as error:
                raise _at_line(number, error) from None
        return await importing.end()
    finally:
        importing.close()


async def _numbered_lines(source: BinaryIO) -> AsyncIterator[tuple[int, bytes]]:
    def read() -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        while size < _CHUNK_BYTES and (line := source.readline(MAX_LINE_BYTES + 1)):
            lines.append(line)
            size += len(line)
        return lines

    number = 0
    while lines := await asyncio.to_thread(read):
        for text in lines:
            number += 1
            yield number, text


def _at_line(number: int, error: InvalidError | NotFoundError | ConflictError) -> InvalidError:
    return InvalidError(
        error.message,
        where=error.where if str(error.where).startswith("line ") else f"line {number}",
        remedy=error.remedy or "export the runs anew; what came before that line was imported",
    )


class _Spool:
    """The lines of one run; each iteration reads them anew, in whatever thread."""

    def __init__(self, run: RunRecord, line: int) -> None:
        self.run = run
        self.line = line
        self.count = 0
        self._file = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115 (see close)

    def add(self, entry: ArchiveEntry) -> None:
        self._file.write(write_line(entry))
        self.count += 1

    def __iter__(self) -> Iterator[ArchiveEntry]:
        yield self.run
        self._file.seek(0)
        for text in self._file:
            entry = read_line(text)
            assert isinstance(entry, (StepRecord, InvocationRecord, AnswerRecord, RunAttribute))
            yield entry

    def close(self) -> None:
        self._file.close()


@dataclass
class _Import:
    """Takes lines one by one."""

    archive: RunArchive
    project_id: str
    imported: Imported = field(default_factory=Imported)
    _workflows: dict[str, str] = field(default_factory=dict)
    """Ids in the file, and those of the records that stand for them here."""
    _agents: dict[str, str] = field(default_factory=dict)
    _current: _Spool | None = None
    _whole: list[_Spool] = field(default_factory=list)
    _has_header: bool = False

    async def line(self, number: int, text: bytes) -> None:
        line = read_line(text)
        if not self._has_header:
            check_header(line)
            self._has_header = True
            return
        match line:
            case Header():
                raise InvalidError("there is a second header")
            case WorkflowRecord():
                record = replace(line, path=NOT_HERE, project_id=self.project_id)
                self._workflows[line.id] = await self.archive.adopt_workflow(record)
            case AgentRecord():
                agent = replace(line, path=NOT_HERE, source=NOT_HERE, project_id=self.project_id)
                self._agents[line.id] = await self.archive.adopt_agent(agent)
            case RunRecord():
                if self._current is not None:
                    raise InvalidError("a run begins before the one before it has ended")
                self._current = _Spool(self._adapted(line), number)
            case RunEnd():
                await self._end_run(line)
            case _:
                self._belonging_to(line).add(self._entry(line))

    async def end(self) -> Imported:
        """Record what is left; raises InvalidError if the file ends too early."""
        if not self._has_header:
            raise InvalidError("the file is empty: not even a header is there")
        if self._current is not None:
            raise InvalidError(
                "the file ends in the middle of a run",
                where=f"line {self._current.line}",
                remedy="export the runs anew; those before it were imported",
            )
        await self._record()
        return self.imported

    def close(self) -> None:
        for spool in (*self._whole, *([self._current] if self._current else [])):
            spool.close()

    def _adapted(self, run: RunRecord) -> RunRecord:
        """The run as it is recorded here."""
        return replace(
            run,
            workflow_id=_found(self._workflows, run.workflow_id, "workflow"),
            agents=_renamed(self._agents, run.agents),
            workflows=_renamed(self._workflows, run.workflows),
            mounts={},
            owner=None,
            wake_at=None,
            imported_at=now_text(),
            project_id=self.project_id,
        )

    def _belonging_to(self, entry: ArchiveEntry) -> _Spool:
        current = self._current
        run_id = None if isinstance(entry, (RunAttribute, RunRecord)) else entry.run_id
        if current is None or run_id not in (None, current.run.id):
            raise InvalidError("the line does not belong to the run that was begun before it")
        return current

    def _entry(self, entry: ArchiveEntry) -> ArchiveEntry:
        match entry:
            case StepRecord() if entry.agent_id is None:
                return replace(entry, project_id=self.project_id)
            case StepRecord():
                agent_id = _found(self._agents, entry.agent_id, "agent")
                return replace(entry, agent_id=agent_id, project_id=self.project_id)
            case InvocationRecord():
                agent_id = _found(self._agents, entry.agent_id, "agent")
                return replace(entry, agent_id=agent_id, project_id=self.project_id)
            case AnswerRecord():
                return replace(entry, project_id=self.project_id)
            case _:
                return entry

    async def _end_run(self, end: RunEnd) -> None:
        current = self._current
        if current is None or current.run.id != end.run_id:
            raise InvalidError("the run that ends here was not begun")
        if not end.complete:
            self._current = None
            current.close()
            self.imported = replace(self.imported, left_out=self.imported.left_out + 1)
            return
        if current.count != end.entries:
            raise InvalidError(f"the run has {current.count} lines, not {end.entries} as it says")
        self._current = None
        self._whole.append(current)
        if len(self._whole) == _RUNS_AT_ONCE:
            await self._record()

    async def _record(self) -> None:
        """Record the runs that are whole; raises InvalidError for the first that cannot be."""
        spools, self._whole = self._whole, []
        results = await asyncio.gather(
            *(self.archive.restore_run(spool) for spool in spools), return_exceptions=True
        )
        for spool in spools:
            spool.close()
        for spool, result in zip(spools, results, strict=True):
            if isinstance(result, (InvalidError, NotFoundError, ConflictError)):
                raise _at_line(spool.line, result)
            if isinstance(result, BaseException):
                raise result
            counts = self.imported
            self.imported = replace(
                counts, runs=counts.runs + result, existing=counts.existing + (not result)
            )


def _found(ids: Mapping[str, str], wanted: str | None, kind: str) -> str:
    if wanted is None or wanted not in ids:
        raise InvalidError(f"the {kind} {wanted} does not come before the line")
    return ids[wanted]


def _renamed(ids: Mapping[str, str], pins: Mapping[str, str]) -> dict[str, str]:
    """Pins of records that are not in the file are left out: they mean nothing here."""
    return {reference: ids[pin] for reference, pin in pins.items() if pin in ids}
