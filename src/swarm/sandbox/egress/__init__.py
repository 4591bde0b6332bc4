"""The way out of a sandbox: a proxy that lets through what was granted, and nothing private."""
