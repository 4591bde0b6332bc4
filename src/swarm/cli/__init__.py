"""The command line: parses, calls a service, renders. Commands are loaded when they are used."""
