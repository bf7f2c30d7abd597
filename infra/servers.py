"""Installs the servers that packages are proven with: `make servers`, or `NAMES=triton`.

Each lies in an environment of its own under ENGINEWORKS_HOME/servers and is made from its lock
file. Nothing else installs one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from engineworks import packaging
from engineworks.errors import EngineworksError


def main(arguments: list[str] | None = None) -> int:
    """Install what is missing; gives the exit code."""
    kinds = packaging.names()
    environments = {
        each.name: each for each in (packaging.load(kind).environment for kind in kinds)
    }
    parser = argparse.ArgumentParser(prog="python -m infra.servers", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(environments)}; none: all")
    parser.add_argument(
        "--home", type=Path, default=Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks")
    )
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(environments))
    if unknown:
        parser.error(f"there is no server {unknown[0]!r}; there are {', '.join(environments)}")
    home = options.home.absolute()
    failures = 0
    for name in options.names or environments:
        environment = environments[name]
        if not environment.missing(home):
            sys.stdout.write(f"{name}: ready in {environment.folder(home)}\n")
            continue
        sys.stdout.write(f"{name}: installing ({environment.size_mib} MiB) ...\n")
        sys.stdout.flush()
        try:
            environment.install(home)
        except EngineworksError as error:
            failures += 1
            sys.stderr.write(f"{name}: {error}\n")
            continue
        missing = environment.missing(home)
        sys.stdout.write(f"{name}: {missing or 'ready'}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
