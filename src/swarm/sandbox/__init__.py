"""Where agent code runs: single-use sandboxes behind one port, one file per technology."""
