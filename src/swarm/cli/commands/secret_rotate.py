"""``swarm secret rotate``"""

from __future__ import annotations

from dataclasses import asdict

import click

from swarm.bootstrap.vaults import open_vault
from swarm.cli.context import asynchronous, read_settings
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines


@click.command("rotate", cls=SwarmCommand)
@click.option(
    "--retire",
    is_flag=True,
    help="Then remove older master keys. Backups of the database made before need them.",
)
@pass_globals
@asynchronous
async def rotate(options: Globals, retire: bool) -> None:
    """Encrypt every secret's key anew, under a new master key.

    Runs go on meanwhile: older keys stay readable. It can be stopped at any moment; the next
    `swarm secret rotate` carries on, and makes no further key. A key in SWARM_MASTER_KEY is changed
    by putting the new one, and a comma, in front of the old one; rotate then does the rest.
    """

    settings = read_settings(options)

    def told(count: int) -> None:
        if count >= settings.secret_rotation_batch:
            note(f"{count:,} secrets encrypted anew")

    async with open_vault(settings) as opened:
        done = await opened.vault.rotate(retire=retire, on_batch=told)
    if options.json:
        print_json(asdict(done))
        return
    made = "made the master key" if done.made_key else "carried on with the master key"
    print_lines([f"{made} {done.key_id}; {done.rewrapped:,} secrets were encrypted under it"])
    if done.retired:
        print_lines([f"removed {done.retired} older keys"])
