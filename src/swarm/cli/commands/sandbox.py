"""``swarm sandbox``"""

from __future__ import annotations

from pathlib import Path

import click

from swarm.cli.context import read_settings
from swarm.cli.options import Globals, SwarmCommand, pass_globals
from swarm.cli.output import note, print_json, print_lines
from swarm.kernel.home import Home
from swarm.sandbox.microvm.image import build_image, image_folder


@click.command("build-image", cls=SwarmCommand)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="Folder of the image [default: the setting microvm_image].",
)
@click.option(
    "--downloads",
    type=click.Path(path_type=Path),
    help="Folder that keeps the Debian packages [default: in the home's cache].",
)
@pass_globals
def build(options: Globals, into: Path | None, downloads: Path | None) -> None:
    """Build the image of virtual machines (level microvm).

    A kernel and a root file system are made of Debian packages; the same packages give the same
    bytes, and manifest.json in the image's folder says which they were. Needs apt, but not root.
    """
    settings = read_settings(options)
    cache = Home(settings.home.expanduser().absolute()).cache / "microvm"
    folder = image_folder(settings) if into is None else into.absolute()
    image = build_image(folder, downloads or cache / "downloads", note)
    if options.json:
        print_json(
            {
                "folder": image.folder,
                "digest": image.digest,
                "kernel": image.kernel_version,
                "python": image.python_version,
            }
        )
        return
    print_lines([f"{image.folder}: Linux {image.kernel_version}, Python {image.python_version}"])
