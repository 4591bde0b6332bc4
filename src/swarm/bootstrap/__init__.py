"""Wiring: opens one home's store, sandboxes and services and connects them."""
