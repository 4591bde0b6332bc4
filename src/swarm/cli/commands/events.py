"""``swarm events send``"""

from __future__ import annotations

import click

from swarm.cli.arguments import EVENT_NAME
from swarm.cli.context import asynchronous
from swarm.cli.inputs import read_json
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.values import plural
from swarm.cli.session import session


@click.command("send", cls=SwarmCommand)
@click.argument("name", type=EVENT_NAME)
@click.argument("payload", required=False, metavar="[JSON]")
@click.option("--key", metavar="KEY", help="Which order, customer or file the event is about.")
@click.option(
    "--id", "event_id", metavar="ID", help="The event's id; the same id counts once only."
)
@pass_globals
@asynchronous
async def send(
    options: Globals, name: str, payload: str | None, key: str | None, event_id: str | None
) -> None:
    """Send an event to the runs that wait for it, now or later.

    JSON is the payload: any JSON value, @FILE, or - for standard input. Every run that waits for
    NAME gets it, if it waits for this key or for any. The event is kept for runs that were created
    before it came and reach their waiting step later.
    """
    async with session(options) as swarm:
        value = read_json(payload, swarm.settings.max_input_bytes)[1] if payload else None
        sent, woken = await swarm.runs.send_event(name, key, value, event_id)
    if options.json:
        print_json({"id": sent, "name": name, "key": key, "runs": woken})
        return
    print_lines([sent])
    if woken:
        note(f"it woke {plural(len(woken), 'run')}: {', '.join(woken)}")
    else:
        note("no run waits for it now")
