"""The command `engineworks`: one module per group of subcommands.

A group has `register(subparsers)`, which adds its subcommands and sets `run` on each: a function
from the parsed options to the exit code. 0 is success, 1 says that some of the work failed, 2 is
a refusal with its reason on stderr, 130 an interruption, 143 a SIGTERM. Knows the library only;
whole runs are started by `python -m flows.ship` in a checkout. A group imports nothing beyond numpy
until it runs, and this package nothing at all: a signal may come before it is there.
"""

import sys

if sys.argv[:1] == ["-m"] and "engineworks.cli" in sys.orig_argv:
    # Python looks for the module of `python -m engineworks.cli`: the command begins.
    try:
        from engineworks import interrupts as watching

        watching.watch()
    except KeyboardInterrupt:  # between Python's own start and the line above
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None

TYPE_CHECKING = False  # that of `typing`, without importing it
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command and return its exit code."""
    from engineworks import interrupts, streams

    try:
        with interrupts.watched():
            streams.tolerate()
            from engineworks.cli._command import run

            return run(arguments)
    except KeyboardInterrupt as asked:
        return interrupts.told(asked)
