"""``swarm completion``"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import print_json, print_lines

PROGRAMS = ("swarm", "swarm-agent", "swarm-workflow", "swarm-run")
SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=SwarmCommand)
@click.argument("shell", type=click.Choice(SHELLS))
@pass_globals
def completion(options: Globals, shell: str) -> None:
    """Print a shell's completion script, for all of Swarm's commands.

    \b
    bash  swarm completion bash > ~/.local/share/bash-completion/completions/swarm
    zsh   swarm completion zsh > a file `_swarm` in a folder of your $fpath
    fish  swarm completion fish > ~/.config/fish/completions/swarm.fish
    """
    script = "\n".join(completion_script(shell, program) for program in PROGRAMS)
    if shell == "zsh":
        script = "#compdef " + " ".join(PROGRAMS) + "\n" + script.replace("#compdef ", "# ")
    if options.json:
        print_json({"shell": shell, "script": script})
    else:
        print_lines([script])


def completion_script(shell: str, program: str) -> str:
    """The script that makes ``shell`` ask ``program`` for completions."""
    kind = get_completion_class(shell)
    if kind is None:
        raise LookupError(f"click does not know the shell {shell}")
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    # Not through `source()`: for bash that starts a shell only to check its version.
    instance = kind(click.Command(program), {}, program, variable)
    return instance.source_template % instance.source_vars()
