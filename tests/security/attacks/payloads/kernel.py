"""Attacks on the kernel: calls that ordinary programs do not need, and doors to the machine."""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct

from system import call, in_child, past_permission

_NEWNS, _NEWUSER, _NEWNET, _NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000
_REMOUNT_WRITABLE = 0x20 | 0x1000  # MS_REMOUNT | MS_BIND, without MS_RDONLY


def _opened(path, flags):
    os.close(os.open(path, flags | os.O_CLOEXEC))
    return f"opened {path}"


# --- namespaces and mounts


def unshare_user(targets):
    return in_child(lambda: call("unshare", _NEWUSER))


def unshare_mounts(targets):
    return in_child(lambda: call("unshare", _NEWNS))


def unshare_network(targets):
    return in_child(lambda: call("unshare", _NEWNET))


def clone_user(targets):
    child = call("clone", _NEWUSER | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made a process in a new user namespace"


def clone3_user(targets):
    arguments = struct.pack("8Q", _NEWUSER, 0, 0, 0, 17, 0, 0, 0)
    child = call("clone3", arguments, len(arguments))
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made a process in a new user namespace"


def mount_in_own_namespaces(targets):
    """The way of every container escape of late: a user namespace, and all powers in it."""

    def attack():
        call("unshare", _NEWUSER | _NEWNS)
        return call("mount", b"none", b"/tmp", b"tmpfs", 0, b"")

    return in_child(attack)


def mount_root(targets):
    call("mount", b"none", b"/tmp", b"tmpfs", 0, b"")
    return "mounted a file system"


def mount_proc(targets):
    """A fresh /proc, in which nothing is covered and which can be written."""
    os.makedirs("/tmp/proc", exist_ok=True)
    call("mount", b"proc", b"/tmp/proc", b"proc", 0, b"")
    return "mounted /proc anew"


def remount_writable(targets):
    call("mount", b"none", b"/package", b"none", _REMOUNT_WRITABLE, b"")
    return "made the package writable"


def unmount(targets):
    call("umount2", b"/proc", 2)
    return "unmounted /proc"


def new_mount_api(targets):
    return call("fsopen", b"tmpfs", 0)


def open_tree(targets):
    return call("open_tree", -100, b"/tmp", 1)


def mount_attributes(targets):
    """Take read-only off the package."""
    call("mount_setattr", -100, b"/package", 0, struct.pack("4Q", 0, 1, 0, 0), 32)
    return "made the package writable"


def list_mounts(targets):
    request = struct.pack("IIQQQ", 32, 0, 0xFFFFFFFFFFFFFFFF, 0, 0)
    found = (ctypes.c_uint64 * 64)()
    return call("listmount", request, found, 64, 0)


def pivot_root(targets):
    os.makedirs("/tmp/new", exist_ok=True)
    errors = {errno.EBUSY, errno.EINVAL}
    return past_permission(errors, "pivot_root", b"/tmp/new", b"/tmp/new")


def chroot(targets):
    return in_child(lambda: call("chroot", b"/tmp"))


def set_namespace(targets):
    descriptor = os.open("/proc/self/ns/uts", os.O_RDONLY)
    call("setns", descriptor, 0)
    return "joined a namespace"


# --- subsystems


def add_key(targets):
    return call("add_key", b"user", b"attack", b"x", 1, -3)


def keyring(targets):
    return call("keyctl", 0, -3, 1)


def request_key(targets):
    errors = {errno.ENOKEY}
    return past_permission(errors, "request_key", b"user", b"attack", None, 0)


def io_uring(targets):
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120))


def userfaultfd(targets):
    user_mode_only = 1
    return call("userfaultfd", user_mode_only | os.O_CLOEXEC)


def bpf_map(targets):
    attributes = struct.pack("IIII", 2, 4, 8, 1) + bytes(100)
    return call("bpf", 0, attributes, len(attributes))


def perf(targets):
    # A software clock of this process, without the kernel's part: the least that can be asked.
    attributes = struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 0b1100000) + bytes(72)
    return call("perf_event_open", attributes, 0, -1, -1, 0)


def file_handle(targets):
    handle, mount = ctypes.create_string_buffer(struct.pack("I", 128), 256), ctypes.c_int()
    call("name_to_handle_at", -100, b"/tmp", handle, ctypes.byref(mount), 0)
    return "made a handle of a file"


def open_by_handle(targets):
    """Any file of a file system, by its inode's number (the escape called shocker)."""
    folder = os.open("/tmp", os.O_RDONLY)
    # A handle that leads nowhere: ESTALE comes after the check of the right to ask.
    handle = ctypes.create_string_buffer(struct.pack("II", 8, 1) + bytes(8), 64)
    return past_permission({errno.ESTALE}, "open_by_handle_at", folder, handle, os.O_RDONLY)


def seccomp_filter(targets):
    """A filter of its own could notify a supervisor, or make checks of others lie."""
    return call("seccomp", 2, 0, struct.pack("I", 0x7FFF0000)) or "may use seccomp"


def modify_ldt(targets):
    return call("modify_ldt", 0, ctypes.create_string_buffer(64), 64) or "may read its LDT"


def readable_implies_executable(targets):
    call("personality", 0x0400000)
    return "changed its personality"


def no_random_addresses(targets):
    call("personality", 0x0040000)
    return "changed its personality"


def shared_memory(targets):
    return f"segment {call('shmget', 0, 4096, 0o1600)}"


def semaphores(targets):
    return f"set {call('semget', 0, 1, 0o1600)}"


def message_queue(targets):
    return f"queue {call('msgget', 0, 0o1600)}"


def posix_queue(targets):
    return call("mq_open", b"attack", os.O_CREAT | os.O_RDWR, 0o600, None)


def fanotify(targets):
    report_file_handles = 0x200
    return call("fanotify_init", report_file_handles, 0)


def move_pages(targets):
    return call("move_pages", 0, 0, None, None, None, 0) or "may move pages"


def migrate_pages(targets):
    return past_permission({errno.EINVAL}, "migrate_pages", 0, 0, None, None)


def secret_memory(targets):
    """Memory that not even the host's tools can look into."""
    return call("memfd_secret", 0)


def adjust_clock(targets):
    return call("adjtimex", ctypes.create_string_buffer(256)) or "may ask for clock adjustment"


def kernel_log(targets):
    return f"{call('syslog', 10, None, 0)} bytes of the kernel's log"


def odd_ioctl(targets):
    """Flags of a file by ioctl: one of the thousands of codes that are not needed."""
    descriptor = os.open("/tmp", os.O_RDONLY)
    flags = ctypes.c_long()
    call("ioctl", descriptor, 0x80086601, ctypes.byref(flags))
    return f"flags {flags.value}"


# --- calls that change the machine: made so that they cannot do anything


def reboot(targets):
    return past_permission({errno.EINVAL}, "reboot", 0, 0, 0, None)


def load_module(targets):
    errors = {errno.EFAULT, errno.ENOEXEC, errno.ENOMEM}
    return past_permission(errors, "init_module", None, 0, None)


def load_module_file(targets):
    return past_permission({errno.EBADF, errno.EINVAL}, "finit_module", -1, None, 0)


def swap_on(targets):
    return past_permission({errno.EFAULT, errno.ENOENT}, "swapon", None, 0)


def account(targets):
    return past_permission({errno.EFAULT}, "acct", ctypes.c_void_p(1))


def kexec(targets):
    return past_permission({errno.EBADF, errno.EINVAL}, "kexec_file_load", -1, -1, 0, None, 0)


def set_host_name(targets):
    return past_permission({errno.EINVAL}, "sethostname", b"", -1)


def io_ports(targets):
    # Turning port 0 off, which is off.
    call("ioperm", 0, 1, 0)
    return "may ask for ports" if in_child(lambda: call("ioperm", 0, 1, 1) or "yes") else None


def sysrq(targets):
    return _opened("/proc/sysrq-trigger", os.O_WRONLY)


def core_pattern(targets):
    return _opened("/proc/sys/kernel/core_pattern", os.O_WRONLY)


def release_agent(targets):
    """The escape by control groups of version 1."""
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        if "release_agent" in names:
            return _opened(f"{folder}/release_agent", os.O_WRONLY)
    raise FileNotFoundError(errno.ENOENT, "no control group is to be seen")


def module_path(targets):
    return _opened("/proc/sys/kernel/modprobe", os.O_WRONLY)


def own_oom_score(targets):
    """Let the kernel kill others first."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-900")
    return "is killed last"


def kmsg(targets):
    return _opened("/dev/kmsg", os.O_RDONLY)


def kvm(targets):
    return _opened("/dev/kvm", os.O_RDONLY)


def fuse(targets):
    return _opened("/dev/fuse", os.O_RDONLY)


def tun(targets):
    return _opened("/dev/net/tun", os.O_RDONLY)


def vsock_device(targets):
    return _opened("/dev/vsock", os.O_RDONLY)


def userfaultfd_device(targets):
    return _opened("/dev/userfaultfd", os.O_RDONLY)


def device_node(targets):
    """A device made on the spot: 1:9 is urandom, and 8:0 would be a disk."""
    os.mknod("/tmp/device", 0o600 | 0o020000, os.makedev(1, 9))
    with open("/tmp/device", "rb", buffering=0) as file:
        return f"read {len(file.read(4))} bytes from a device of its own"


# --- options of ordinary sockets and files that reach far into the kernel


def socket_filter(targets):
    """A program of its own in the kernel, compiled there."""
    let_all_through = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0xFFFF))
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(let_all_through))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, 26, program)
    return "put a program into the kernel"


def tls_in_kernel(targets):
    """TLS by the kernel, the source of many an exploit. It wants a connection, but asks later."""
    with socket.socket() as made:
        try:
            made.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ENOENT):
                raise
            return f"may ask for TLS: {error}"
    return "has TLS in the kernel"


def sync_file_system(targets):
    """Have all that anybody wrote to a file system go to the disk, now."""
    descriptor = os.open("/tmp", os.O_RDONLY)
    call("syncfs", descriptor)
    return "synced a file system"


def memory_policy(targets):
    call("get_mempolicy", None, None, 0, 0, 0)
    return "asked where memory lies"


def lease(targets):
    """Who opens a leased file waits for whoever has the lease, up to 45 seconds."""
    descriptor = os.open("/package/main.py", os.O_RDONLY)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return "leased a file of the package"


# --- sockets of odd kinds


def vsock(targets):
    socket.socket(40, socket.SOCK_STREAM).close()
    return "made a socket to the machine that runs this one"


def netlink(targets):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.send(struct.pack("IHHII", 20, 18, 0x301, 1, 0) + bytes(4))
        return f"{len(link.recv(65536))} bytes about the network"


def netlink_filter(targets):
    """nf_tables, the source of many a kernel exploit."""
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).close()
    return "made a socket to the kernel's packet filter"


def packet(targets):
    socket.socket(17, socket.SOCK_RAW, 0).close()
    return "made a packet socket"


def raw_socket(targets):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "made a raw socket"


def crypto_socket(targets):
    socket.socket(38, socket.SOCK_SEQPACKET).close()
    return "made a socket to the kernel's cryptography"


def odd_families(targets):
    made = []
    for family in set(range(3, 46)) - {socket.AF_INET6}:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
            except OSError as error:
                refused = error
            else:
                made.append(family)
    if not made:
        raise refused
    return made


def odd_protocols(targets):
    made = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (33, 132, 136, 143, 262):  # DCCP, SCTP, UDP-Lite, Ethernet, MPTCP
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, 6):
                try:
                    socket.socket(family, kind, protocol).close()
                except OSError as error:
                    refused = error
                else:
                    made.append(protocol)
    if not made:
        raise refused
    return made


# --- system calls of other architectures, which a filter by number alone would misread


def _machine_code(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))


def i386_call(targets):
    """getpid as the 32-bit kernel interface knows it: mov eax, 20; int 0x80; ret."""

    def attack():
        found = _machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")()
        if found == -errno.ENOSYS:
            raise OSError(errno.ENOSYS, "no 32-bit calls in this kernel")
        return f"pid {found}"

    return in_child(attack)


def x32_call(targets):
    """getpid with the bit that marks x32."""
    return in_child(lambda: call(0x40000000 + 39))


def unknown_call(targets):
    """What came to the kernel after the list was made must be refused unseen."""
    for number in range(463, 500):
        try:
            call(number, 0, 0, 0, 0, 0, 0)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                return f"call {number} was let through: {error}"
        else:
            return f"call {number} was let through"
    raise OSError(errno.ENOSYS, "all are refused")
