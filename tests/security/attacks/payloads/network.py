"""Attacks on the network: everything that is not the proxy."""

import socket

from system import Stopped

# Longer than any busy machine takes; what is walled off is refused at once.
_SECONDS = 15


def _banner(address, family=socket.AF_INET):
    with socket.socket(family) as client:
        client.settimeout(_SECONDS)
        client.connect(address)
        return client.recv(100)


def loopback(targets):
    return _banner(("127.0.0.1", targets["tcp"]))


def loopback_v6(targets):
    return _banner(("::1", targets["tcp"]), socket.AF_INET6)


def loopback_by_zero(targets):
    return _banner(("0.0.0.0", targets["tcp"]))


def metadata(targets):
    return _banner(("169.254.169.254", 80))


def private(targets):
    return _banner(("10.0.0.1", 80))


def public(targets):
    return _banner(("203.0.113.10", 443))


def public_v6(targets):
    return _banner(("2001:db8::10", 443), socket.AF_INET6)


def mapped_v6(targets):
    return _banner(("::ffff:203.0.113.10", 443), socket.AF_INET6)


def _datagram(address, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(_SECONDS)
        client.sendto(data, address)
        return client.recv(512)


def udp(targets):
    return _datagram(("203.0.113.10", 5000), b"ping")


def dns(targets):
    question = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x06secret\x07example\x00\x00\x01\x00\x01"
    return _datagram(("9.9.9.9", 53), question)


def fast_open(targets):
    """Data without connect(): a send that connects."""
    with socket.socket() as client:
        client.sendto(b"x", 0x20000000, ("203.0.113.10", 443))
        return client.recv(100)


def unix_path(targets):
    return _banner(targets["socket"], socket.AF_UNIX)


def unix_abstract(targets):
    return _banner("\0" + targets["abstract"], socket.AF_UNIX)


def unix_abstract_datagram(targets):
    left, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.sendto(b"attacked", "\0" + targets["abstract_datagrams"])
    return "sent a datagram to a socket of the host"


def sockets_of_host(targets):
    """Who listens on the host, and who talks to whom."""
    with open("/proc/net/tcp") as file:
        found = file.readlines()[1:]
    if not found:
        raise Stopped("nothing", "no socket is to be seen")
    return f"{len(found)} sockets"
