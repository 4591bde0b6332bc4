"""Isolation level ``sandbox``: namespaces, seccomp, Landlock and cgroups of the Linux kernel."""
