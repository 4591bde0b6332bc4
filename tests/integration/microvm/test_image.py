"""The image: built reproducibly, by the command too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from swarm.kernel.json import loads
from swarm.kernel.settings import Settings
from tests.conftest import Scale
from tests.integration.microvm import machines


def test_the_same_packages_give_the_same_bytes(
    settings: Settings, tmp_path: Path, scale: Scale
) -> None:
    """Built by the command, in another folder, at another time."""
    built = settings.microvm_image
    assert built is not None
    for number in range(scale(small=1, full=2)):
        folder = tmp_path / f"image-{number}"
        arguments = ["--into", str(folder), "--downloads", str(machines.CACHE / "downloads")]
        code = "import sys; from swarm.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, "--json", "sandbox", "build-image", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        manifest = loads((built / "manifest.json").read_bytes())
        assert loads((folder / "manifest.json").read_bytes()) == manifest
        assert (folder / "root.squashfs").read_bytes() == (built / "root.squashfs").read_bytes()
        assert json.loads(done.stdout)["folder"] == str(folder)


def test_the_manifest_names_what_went_in(settings: Settings) -> None:
    assert settings.microvm_image is not None
    manifest = loads((settings.microvm_image / "manifest.json").read_bytes())
    assert isinstance(manifest, dict)
    names = {package["name"] for package in manifest["packages"]}
    assert {"python3", "nodejs", "git", "ca-certificates", "busybox-static"} <= names
    assert all(len(package["sha256"]) == 64 for package in manifest["packages"])
    assert set(manifest["files"]) == {"kernel", "vmlinux", "initramfs", "root.squashfs"}
