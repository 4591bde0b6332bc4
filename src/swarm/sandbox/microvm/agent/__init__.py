"""What runs first in a virtual machine: the standard library only, nothing of Swarm.

It prepares the handler's process, waits while the machine is put into a snapshot, and then serves
one invocation. Imports here are relative, since in a guest this package is just ``agent``.
"""
