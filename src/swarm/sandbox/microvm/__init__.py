"""Isolation level ``microvm``: each invocation in a virtual machine of its own."""
