"""The command lines of the flows: arguments, progress, exit codes."""
