"""Ctrl-C and SIGTERM while a command starts: nothing has begun, so it ends at once, in a word.

Imported by this package before anything else when one of its modules is run as a command, and by
nothing that a worker runs. An exception would come out of whatever is being imported as a trace, or
not at all. Commands that have begun something put handlers of their own in place of these.
"""

import os
import sys

try:
    import signal

    def end(code: int) -> None:
        """End the command with this code; a signal that comes now comes too late to change it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        sys.exit(code)

    def _leave(number: int, frame: object) -> None:
        try:
            os.write(2, b"stopped\n")
        finally:
            os._exit(128 + number)

    for _number in (signal.SIGINT, signal.SIGTERM):
        # What is ignored (`nohup`) stays so.
        if signal.getsignal(_number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(_number, _leave)
except KeyboardInterrupt:  # between Python's own start and the lines above
    os.write(2, b"stopped\n")
    os._exit(130)
