"""What runs inside a sandbox: the standard library only, nothing of Swarm.

Forked from the zygote, or executed as a program of its own. Imports here are relative, since in a
sandbox this package is just ``guest``.
"""
