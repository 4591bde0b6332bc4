"""Attacks on whoever takes the output files out."""

import os
import socket


def link(targets):
    os.symlink(targets["secret"], "/outputs/out")
    return "left a link to a file of the host"


def linked_folder(targets):
    os.symlink(os.path.dirname(targets["secret"]), "/outputs/folder")
    return "left a link to a folder of the host"


def link_in_tree(targets):
    os.mkdir("/outputs/tree")
    with open("/outputs/tree/honest.txt", "w") as file:
        file.write("honest")
    os.symlink(targets["secret"], "/outputs/tree/out")
    os.symlink(os.path.dirname(targets["secret"]), "/outputs/tree/folder")
    return "left links in a folder"


def absolute(targets):
    return "names a path of the host"


def fifo(targets):
    """Who opens it for reading waits for ever."""
    os.mkfifo("/outputs/out")
    return "left a FIFO"


def fifo_in_tree(targets):
    os.mkdir("/outputs/tree")
    os.mkfifo("/outputs/tree/out")
    return "left a FIFO in a folder"


def unix_socket(targets):
    socket.socket(socket.AF_UNIX).bind("/outputs/out")
    return "left a socket"


def package_file(targets):
    """A hard link would hand out a file of the package, or let its mode be changed."""
    os.link("/package/main.py", "/outputs/out")
    return "linked a file of the package"


def input_file(targets):
    os.link("/inputs/data/file.txt", "/outputs/out")
    return "linked a file of an input"


def device(targets):
    os.mknod("/outputs/out", 0o020666, os.makedev(1, 5))
    return "left a device without end"


def odd_names(targets):
    """Names that are not text, hold line ends, or mean something to a shell."""
    os.mkdir("/outputs/tree")
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"$(id)", b"..."):
        with open(b"/outputs/tree/" + name, "wb") as file:
            file.write(b"odd")
    return "left odd names"


def deep_tree(targets):
    """Deeper than a recursion goes, with more folders than a program may open at once."""
    os.mkdir("/outputs/tree")
    os.chdir("/outputs/tree")
    for _ in range(1000):
        os.mkdir("d")
        os.chdir("d")
    return "left a deep tree"


def many_files(targets):
    os.mkdir("/outputs/tree")
    for number in range(targets["count"]):
        os.close(os.open(f"/outputs/tree/{number}", os.O_CREAT | os.O_WRONLY))
    return "left many files"


def written(targets):
    """Files with the content that is asked for."""
    for name, text in targets["files"].items():
        with open(f"/outputs/{name}", "w") as file:
            file.write(text)
    return "left files"


def sparse_files(targets):
    """Files that take no room, until somebody copies them."""
    os.mkdir("/outputs/tree")
    for number in range(targets["count"]):
        with open(f"/outputs/tree/{number}", "wb") as file:
            file.truncate(targets["bytes"])
            file.write(str(number).encode())
    return f"left {targets['count']} files of {targets['bytes']} bytes"
