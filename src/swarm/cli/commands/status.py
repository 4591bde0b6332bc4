"""``swarm status``"""

from __future__ import annotations

import click

from swarm.bootstrap.database import database_name
from swarm.cli.context import asynchronous, reading
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines
from swarm.cli.render.values import duration, plural
from swarm.dispatch.ports import HostInfo, QueueInfo
from swarm.kernel.errors import ExitCode
from swarm.kernel.json import JsonObject


@click.command("status", cls=SwarmCommand)
@pass_globals
@asynchronous
async def status(options: Globals) -> int:
    """Show the processes that drive runs, and the runs that wait for one.

    With a PostgreSQL database these are the workers of all machines, and the queues that they take
    runs from; the lag is how long the run that has waited longest has done so.
    """
    async with reading(options) as records:
        hosts = await records.peers.living()
        queues = await records.peers.queues()
        database = database_name(records.home, records.settings)
    document: JsonObject = {
        "database": database,
        "hosts": [_host_document(host) for host in hosts],
        "queues": [_queue_document(queue) for queue in queues],
        "lag_seconds": max((queue.oldest_seconds for queue in queues), default=0.0),
        "versions": sorted({host.version for host in hosts if host.version}),
    }
    if options.json:
        print_json(document)
        return ExitCode.OK
    lines = [f"{plural(len(hosts), 'host')} of {database}"]
    lines += [f"  {_host_line(host)}" for host in hosts]
    lines += [_queue_line(queue) for queue in queues]
    if len(document["versions"]) > 1:
        lines.append("versions differ: " + ", ".join(document["versions"]))
    print_lines(lines)
    return ExitCode.OK


def _host_document(host: HostInfo) -> JsonObject:
    return {
        "id": host.id,
        "role": host.role,
        "machine": host.machine or None,
        "pid": host.pid,
        "version": host.version or None,
        "labels": list(host.labels),
    }


def _queue_document(queue: QueueInfo) -> JsonObject:
    return {
        "queue": queue.name,
        "waiting": queue.waiting,
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
    return f"queue {queue.name}: {plural(queue.waiting, 'run')} waiting, the oldest for {waited}"
