"""Agent packages: read, verified, packed, unpacked, copied, and their dependencies installed."""
