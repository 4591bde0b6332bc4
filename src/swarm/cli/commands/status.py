"""``swarm status``"""

from __future__ import annotations

from collections.abc import Sequence

import click

from swarm import __version__
from swarm.bootstrap.database import database_status
from swarm.cli.context import asynchronous, reading
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.values import duration, plural
from swarm.cli.terminal import clean
from swarm.dispatch.ports import HostInfo, QueueInfo
from swarm.kernel.errors import ExitCode
from swarm.kernel.json import JsonObject
from swarm.store.sql.schema import SchemaStatus


@click.command("status", cls=SwarmCommand)
@pass_globals
@asynchronous
async def status(options: Globals) -> int:
    """Show the processes that drive runs, and the runs that wait for one.

    With a PostgreSQL database these are the workers of all machines, and the queues that they take
    runs from; the lag is how long the run that has waited longest has done so. While machines are
    upgraded, it tells which versions are at work, and what waits for a newer one.
    """
    async with reading(options) as records:
        hosts = await records.peers.living()
        queues = await records.peers.queues()
        database = await database_status(records.home, records.settings)
    schema = database.schema
    document: JsonObject = {
        "database": database.place,
        "schema": {"version": schema.version, "known": schema.known, "oldest": schema.oldest},
        "hosts": [_host_document(host) for host in hosts],
        "queues": [_queue_document(queue) for queue in queues],
        "lag_seconds": max((queue.oldest_seconds for queue in queues), default=0.0),
        "versions": sorted({host.version for host in hosts if host.version}),
    }
    if options.json:
        print_json(document)
        return ExitCode.OK
    lines = [f"{plural(len(hosts), 'host')} of {database.place}"]
    lines += [f"  {_host_line(host)}" for host in hosts]
    lines += [_queue_line(queue) for queue in queues]
    print_lines([clean(line) for line in (*lines, *_mixed(hosts, schema))])
    return ExitCode.OK


def _mixed(hosts: Sequence[HostInfo], schema: SchemaStatus) -> list[str]:
    """What is to be known while several versions are at work."""
    lines = []
    versions = sorted({host.version for host in hosts if host.version})
    if len(versions) > 1:
        lines.append("versions differ: " + ", ".join(versions))
    if len({host.format_version for host in hosts}) > 1:
        lines.append("runs that the newer ones have taken up do not go back to the older ones")
    if schema.fitness == "newer":
        lines.append(
            f"the database is of version {schema.version}, newer than this Swarm {__version__} "
            f"(which knows {schema.known}, and may go on using it)"
        )
    return lines


def _host_document(host: HostInfo) -> JsonObject:
    return {
        "id": host.id,
        "role": host.role,
        "machine": host.machine or None,
        "pid": host.pid,
        "version": host.version or None,
        "labels": list(host.labels),
        "format": host.format_version,
    }


def _queue_document(queue: QueueInfo) -> JsonObject:
    return {
        "queue": queue.name,
        "waiting": queue.waiting,
        "served": queue.is_served,
        "oldest_seconds": round(queue.oldest_seconds, 3),
    }


def _host_line(host: HostInfo) -> str:
    words = [host.role, f"pid {host.pid}"]
    if host.machine:
        words.append(f"on {host.machine}")
    if host.labels:
        words.append(f"with {', '.join(host.labels)}")
    if host.version:
        words.append(f"version {host.version}")
    return ", ".join(words)


def _queue_line(queue: QueueInfo) -> str:
    waited = duration(int(queue.oldest_seconds * 1000))
    line = f"queue {queue.name}: {plural(queue.waiting, 'run')} waiting, the oldest for {waited}"
    return line if queue.is_served else f"{line}; no worker takes from it"
