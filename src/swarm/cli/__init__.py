"""Commands: parse, call a service, render."""
