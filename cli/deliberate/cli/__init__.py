"""The command line: `deliberate COMMAND`, one file a command."""
