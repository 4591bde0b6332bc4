"""A refusal by the kernel names its layer and a way out."""

from __future__ import annotations

import errno

import pytest

from swarm.sandbox.linux.remedies import remedy, unavailable


@pytest.mark.parametrize(
    ("values", "code", "told"),
    [
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, errno.EACCES, "apparmor_restrict"),
        ({"kernel/unprivileged_userns_clone": "0"}, errno.EPERM, "unprivileged_userns_clone=1"),
        ({"user/max_user_namespaces": "0"}, errno.ENOSPC, "max_user_namespaces"),
        ({}, errno.EPERM, "--security-opt"),
    ],
)
def test_user_namespaces(values: dict[str, str], code: int, told: str) -> None:
    text = remedy("user-namespace", code, values.get)
    assert told in text
    assert "--isolation none" in text


@pytest.mark.parametrize("layer", ["proc", "root", "pivot-root", "cgroup", "seccomp", "zygote"])
def test_every_layer_has_one(layer: str) -> None:
    assert "--isolation none" in remedy(layer, errno.EPERM)


@pytest.mark.parametrize("layer", ["package", "inputs", "idmapped-mount"])
def test_files_are_the_users_to_mend(layer: str) -> None:
    assert "--isolation none" not in remedy(layer, errno.ENOENT)


def test_an_old_kernel_is_named() -> None:
    assert "5.12" in remedy("root", errno.ENOSYS)


def test_limits_on_namespaces_are_told_by_name() -> None:
    values = {"user/max_pid_namespaces": "0", "user/max_user_namespaces": "100"}
    told = remedy("pid-namespace", errno.ENOSPC, values.get)
    assert "sudo sysctl user.max_pid_namespaces=15000`" in told


def test_the_error_tells_all() -> None:
    error = unavailable("proc", errno.EPERM, "Operation not permitted")
    assert error.where == "proc"
    assert "Operation not permitted" in str(error)
    assert error.exit_code == 5
