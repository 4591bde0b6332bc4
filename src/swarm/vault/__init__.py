"""Secrets at rest: envelope encryption, master keys, and masking of values that come back."""
