"""The zygote: a separate, single-threaded, stdlib-only program that forks sandboxes.

The host starts it by exec and talks to it over one ``SOCK_SEQPACKET`` socket. It never imports
Swarm, so it holds nothing of the host: no secret, no database, no thread. What one sandbox is told
goes over a channel of its own that the zygote never reads, so no sandbox inherits another's plan.

    host ── configure, spawn, kill ──────────────> zygote ──┬── clone ──> init (pid 1 inside)
         <── configured, spawned, ended, exited ──          └── fork ───> handler (pid 2 inside)
         ── plan ──> channel <── ready, failed ─────────────────────────────┘

Init keeps the namespaces and sleeps; the handler joins them, builds the rest and gives up its
power before it runs the package. When the handler ends, the zygote kills init, and so the kernel
all that is left inside. When the control socket closes, the zygote kills and reaps every sandbox,
then exits. When the zygote dies, the kernel kills every init (``PR_SET_PDEATHSIG``), and with it
all that is inside.
"""
