"""``swarm settings``"""

from __future__ import annotations

import click
import msgspec

from swarm.cli.context import read_settings
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.cli.render.tables import table
from swarm.cli.terminal import stdout
from swarm.kernel.configuration import misspelt_variables, setting_origins
from swarm.kernel.json import JsonValue
from swarm.kernel.settings import known_settings


@click.command("settings", cls=SwarmCommand)
@pass_globals
def settings(options: Globals) -> None:
    """Show every setting, its value and its origin.

    A setting comes from SWARM_<NAME> in the environment, else from config.toml in the home, else
    it has its default.
    """
    values = msgspec.to_builtins(read_settings(options), enc_hook=str)  # a secret as asterisks
    environment = options.environment()
    origins = setting_origins(environment)
    for variable, setting in misspelt_variables(environment).items():
        note(f"{variable} is no setting, and has no effect; did you mean {setting}?")
    if options.home is not None:
        origins["home"] = "--home"
    if options.json:
        rows = [
            {
                "name": name,
                "value": values[name],
                "origin": origins.get(name, "default"),
                "description": setting.meaning,
            }
            for name, setting in known_settings().items()
        ]
        print_json({"settings": rows})
        return
    lines = [
        [name, _text(values[name]), origins.get(name, "default"), setting.meaning]
        for name, setting in known_settings().items()
    ]
    print_lines(table(stdout(), ["SETTING", "VALUE", "ORIGIN", "MEANING"], lines))


def _text(value: JsonValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
