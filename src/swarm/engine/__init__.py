"""Plans and drives runs: pure planning, and the driver that journals what happens."""
