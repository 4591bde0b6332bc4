"""What Firecracker is asked: its API calls as data, pure.

Source: Firecracker's API description, ``src/firecracker/swagger/firecracker.yaml`` (1.17); the
tests check each call against it. Paths are relative to the machine's folder, where Firecracker
runs: a snapshot records them, and each machine has files of its own under the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from swarm.kernel.json import JsonObject
from swarm.sandbox.microvm.agent.port import VSOCK_PORT

API_SOCKET: Final = "api.sock"
VSOCK_SOCKET: Final = "vsock.sock"
KERNEL: Final = "kernel"
INITRAMFS: Final = "initramfs"
MEMORY: Final = "memory"
STATE: Final = "state"
DRIVES: Final = ("root", "agent", "package", "inputs")
"""In the order in which the guest names them: vda, vdb, vdc, vdd."""
_GUEST_CID: Final = 3
_BOOT_WORDS: Final = (
    "quiet loglevel=3 panic=-1 reboot=k console=ttyS0 8250.nr_uarts=1 mitigations=off "
    "cryptomgr.notests random.trust_cpu=on audit=0 apparmor=0 ima=off rdinit=/init"
)


@dataclass(frozen=True, slots=True)
class ApiCall:
    method: str
    path: str
    body: JsonObject


def boot_calls(memory_mib: int) -> list[ApiCall]:
    """Configure a machine and start it."""
    drives = [
        ApiCall(
            "PUT",
            f"/drives/{name}",
            {
                "drive_id": name,
                "path_on_host": name,
                "is_root_device": False,
                "is_read_only": True,
            },
        )
        for name in DRIVES
    ]
    return [
        ApiCall("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": memory_mib}),
        ApiCall(
            "PUT",
            "/boot-source",
            {"kernel_image_path": KERNEL, "initrd_path": INITRAMFS, "boot_args": _BOOT_WORDS},
        ),
        *drives,
        ApiCall("PUT", "/vsock", {"guest_cid": _GUEST_CID, "uds_path": VSOCK_SOCKET}),
        ApiCall("PUT", "/actions", {"action_type": "InstanceStart"}),
    ]


def snapshot_calls() -> list[ApiCall]:
    """Stop a machine and write its state and memory."""
    files: JsonObject = {"snapshot_type": "Full", "snapshot_path": STATE, "mem_file_path": MEMORY}
    return [
        ApiCall("PATCH", "/vm", {"state": "Paused"}),
        ApiCall("PUT", "/snapshot/create", files),
    ]


def restore_calls() -> list[ApiCall]:
    """Load a snapshot and let it run; its memory is mapped privately."""
    backend = {"backend_type": "File", "backend_path": MEMORY}
    body: JsonObject = {"snapshot_path": STATE, "mem_backend": backend, "resume_vm": True}
    return [ApiCall("PUT", "/snapshot/load", body)]


def vsock_greeting() -> bytes:
    """What asks Firecracker's socket for a connection to the agent; ``OK <port>`` answers."""
    return f"CONNECT {VSOCK_PORT}\n".encode()
