"""Attacks on files: what is not the sandbox's to read, and what it may not write."""

import contextlib
import errno
import os
import socket

from system import Stopped


def _read(path):
    with open(path) as file:
        return file.read(200)


def _secret(path):
    text = _read(path)
    if "the-hosts-secret" not in text:
        raise Stopped("other-file", text)
    return text


def _write(path):
    with open(path, "w") as file:
        file.write("attacked")
    return f"wrote {path}"


def host_secret(targets):
    return _secret(targets["secret"])


def host_home(targets):
    return _secret(targets["home_secret"])


def dotdot(targets):
    return _secret("/package/" + "../" * 40 + targets["secret"].lstrip("/"))


def dotdot_from_input(targets):
    return _secret("/inputs/data/" + "../" * 40 + targets["secret"].lstrip("/"))


def symlink_to_secret(targets):
    os.symlink(targets["secret"], "/tmp/link")
    return _secret("/tmp/link")


def symlink_in_package(targets):
    """A package that brings a link to a file of the host."""
    return _secret("/package/link-to-secret")


def magic_links(targets):
    """Around the root by the links of /proc."""
    tried = ["/proc/self/root", "/proc/1/root", "/proc/self/task/../../1/cwd"]
    for prefix in tried:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return _secret(prefix + targets["secret"])
    raise FileNotFoundError(errno.ENOENT, "none of the magic links led out")


def inherited_directory(targets):
    """Out by a directory that a descriptor still holds."""
    for number in range(256):
        for way in (targets["secret"].lstrip("/"), "shown/secret.txt"):
            for up in ("", "../" * 40):
                with contextlib.suppress(OSError):
                    return _secret(f"/proc/self/fd/{number}/{up}{way}")
    raise FileNotFoundError(errno.ENOENT, "no descriptor led out")


def other_package(targets):
    return _secret(targets["other_package"])


def sysfs(targets):
    return os.listdir("/sys/kernel")


def host_etc(targets):
    """An account of the host that the made-up /etc does not name."""
    return _secret(targets["etc_secret"])


def write_root(targets):
    return _write("/attacked")


def write_etc(targets):
    return _write("/etc/attacked")


def write_passwd(targets):
    with open("/etc/passwd", "r+") as file:
        return f"opened {file.name} for writing"


def write_usr(targets):
    return _write(targets["usr"] + "/attacked")


def write_package(targets):
    return _write("/package/attacked.py")


def rewrite_package(targets):
    with open("/package/main.py", "r+") as file:
        return f"opened {file.name} for writing"


def write_environment(targets):
    return _write("/environment/site-packages/attacked.py")


def write_input(targets):
    return _write("/inputs/data/attacked")


def rename_input(targets):
    os.rename("/inputs/data/file.txt", "/inputs/data/renamed.txt")
    os.rename("/inputs/data/renamed.txt", "/inputs/data/file.txt")
    return "renamed a file of an input"


def chmod_package(targets):
    os.chmod("/package/main.py", 0o644)
    return "changed the mode of a file of the package"


def touch_package(targets):
    os.utime("/package/main.py", (1, 1))
    return "changed the times of a file of the package"


def touch_device(targets):
    """A device is the host's: nothing about it is to be changed, whatever is written to it."""
    os.utime("/dev/null")
    return "changed the times of a device"


def attribute_on_package(targets):
    os.setxattr("/package/main.py", "user.attacked", b"1")
    return "set an attribute on a file of the package"


def input_fifo(targets):
    """Data out by a FIFO in a live input, which a read-only mount does not stop."""
    descriptor = os.open("/inputs/data/fifo", os.O_WRONLY | os.O_NONBLOCK)
    return f"wrote {os.write(descriptor, b'attacked')} bytes into the host's FIFO"


def input_socket(targets):
    """Data out by a socket in a live input."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(targets["input_socket"])
        return client.recv(100)


def input_socket_datagram(targets):
    """The same by a datagram socket pair, which is no call of socket()."""
    left, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.sendto(b"attacked", targets["input_datagrams"])
    return "sent a datagram to a socket of the host"


def device_of_disk(targets):
    """Any disk, whole."""
    refused = FileNotFoundError(errno.ENOENT, "there is no device of a disk")
    for name in ("vda", "sda", "nvme0n1", "loop0"):
        try:
            os.close(os.open(f"/dev/{name}", os.O_RDONLY))
        except FileNotFoundError:
            continue
        except OSError as error:
            refused = error
        else:
            return f"opened /dev/{name}"
    raise refused
