"""Before a command begins: its outputs are no inputs, are all different and can be written.

Knows which files a command reads; what a name means to the disk is `runtime/outputs.py`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engineworks.cli._engines import locate
from engineworks.errors import DataError
from engineworks.runtime import sources
from engineworks.runtime.outputs import identities, identity, refuse_clashes, refuse_unwritable
from engineworks.runtime.session import local_folder


def check(
    options: argparse.Namespace,
    outputs: Sequence[Path],
    read: Iterable[Path | int],
    *,
    goes_on: Sequence[Path] = (),
) -> None:
    """Refuse outputs that would destroy an input or one another, or cannot be written.

    Args:
        options: With the engine, --decoder-from and --log.
        outputs: Every file that the command makes or replaces.
        read: Every file that it reads besides the engine and the decoder.
        goes_on: Those of the outputs in which an earlier run is continued.

    Raises:
        DataError: Names the output, and the input that it is.
        StoreError: It cannot be written.
    """
    log = Path(options.log) if options.log not in (None, "-") else None
    engine = local_folder(locate(options.engine))
    written = [*outputs, *([log] if log else [])]
    inputs = identities([*_of_engine(options, engine), *read])
    refuse_clashes(written, inputs)
    for stream, place in ((sys.stdout, "standard output"), (sys.stderr, "standard error")):
        number = _descriptor(stream)
        there = identity(number) if number is not None else None
        if there in inputs:
            raise DataError(
                f"{place} goes into an input ({inputs[there]}): it would be destroyed",
                hint="lead it elsewhere",
            )
    for path in written:
        if path.resolve().is_relative_to(engine.resolve()):
            raise DataError(
                f"the output {path} is inside the engine {engine}, which nothing may change",
                hint="give the output another place",
            )
    for path in outputs:
        refuse_unwritable(path, goes_on=path in goes_on)


def files_of(addresses: Iterable[str]) -> Iterator[Path | int]:
    """The files on this machine that sources are read from."""
    for address in addresses:
        yield from sources.files(address)


def _of_engine(options: argparse.Namespace, engine: Path) -> Iterator[Path]:
    yield from engine.rglob("*")
    if options.decoder_from is not None:
        yield from options.decoder_from.glob("*.py")


def _descriptor(stream: object) -> int | None:
    """Number of an open stream; None for one that a test or a notebook has put there."""
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None
