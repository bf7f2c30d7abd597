"""The command `engineworks` from its first moment: signals are cared for, then it is imported."""

import os

try:
    from engineworks import interrupts

    interrupts.watch()
except KeyboardInterrupt:  # between Python's own start and the line above
    os.write(2, b"stopped\n")
    os._exit(130)


def command() -> None:
    """Run the command line and end the process."""
    from engineworks.cli import main

    interrupts.run(main)
