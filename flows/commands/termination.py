"""SIGTERM while a flow runs: the command ends with it, whoever else has a handler.

While a flow runs Prefect's own handler raises an exception and tells its server of the end. What
stops a whole group of processes (systemd, a container, `timeout`) has ended an embedded server
before, and Prefect would ask it for minutes and end with a refused connection. So the number of
every signal goes to a pipe, too, and a thread that reads it ends the command. Knows no Prefect.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def ended_by_sigterm(end: Callable[[int], None], patience_s: float) -> Iterator[None]:
    """Within it a SIGTERM ends the process so many seconds later, unless it has ended by itself.

    Main thread only. A SIGTERM that is ignored (`SIG_IGN`) stays so.

    Args:
        end: Ends the process; called on another thread with the signal's number.
        patience_s: Seconds that whoever has the signal's handler may take before.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGTERM in numbers:
                time.sleep(patience_s)
                end(signal.SIGTERM)
        os.close(reading)

    threading.Thread(target=listen, name="sigterm", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
