"""The environments that servers run in: apart from the product's, and only where asked for.

A server brings versions that the product does not run with (an older numpy, for example), and
hundreds of megabytes. Each has a lock file here and lies in `ENGINEWORKS_HOME/servers/NAME`.
Knows no server.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from engineworks.errors import MissingDependency, said

_LOCKS = Path(__file__).parent / "locks"

#: Holds the digest of the lock file that an environment was installed from.
_STAMP = "engineworks-lock.sha256"


@dataclass(frozen=True, kw_only=True)
class ServerEnvironment:
    """What one server needs, and where it lies."""

    name: str
    size_mib: int
    """What it takes on the disk."""
    programs: tuple[str, ...] = ()
    """Programs that must be on the PATH, with how they are had: `java (apt install ...)`."""
    index: str = ""
    """An index beside PyPI that has what the lock file names; empty: PyPI has it all."""
    pythons: tuple[str, ...] = ("3.11",)
    """Versions of Python that the lock file was installed with."""

    @property
    def lock(self) -> Path:
        """Pinned requirements, one a line; they are complete: pip resolves nothing."""
        return _LOCKS / f"{self.name}.txt"

    def folder(self, home: Path) -> Path:
        """Where it is installed, under the state folder."""
        return home / "servers" / self.name

    @property
    def command(self) -> str:
        """How a person installs it."""
        index = f"PIP_EXTRA_INDEX_URL={self.index} " if self.index else ""
        return f"{index}make servers NAMES={self.name}"

    def missing(self, home: Path) -> str:
        """What keeps it from being used, with the command; "" where it is ready."""
        missing = [each for each in self.programs if shutil.which(each.split()[0]) is None]
        if missing:
            return f"needs {', '.join(missing)}"
        stamp = self.folder(home) / _STAMP
        if not stamp.is_file():
            return f"its server is not installed here ({self.size_mib} MiB): {self.command}"
        if stamp.read_text(encoding="utf-8").strip() != self.lock_sha256:
            return f"its server was installed from another lock file: {self.command}"
        return ""

    @property
    def lock_sha256(self) -> str:
        """Of the lock file's bytes."""
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()

    def install(self, home: Path) -> Path:
        """Make it anew from its lock file.

        Raises:
            MissingDependency: This Python, the index or the disk does not allow it.
        """
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        if here not in self.pythons:
            raise MissingDependency(
                f"the server environment {self.name} is locked for Python "
                f"{', '.join(self.pythons)}, this is {here}",
                hint=f"run it with that Python: make servers PYTHON=python{self.pythons[-1]}",
            )
        folder = self.folder(home)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        command = [
            str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet",
            "--disable-pip-version-check", "--no-deps", "-r", str(self.lock),
        ]  # fmt: skip
        # A PYTHONPATH of the product would hide what the environment lacks.
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
        if done.returncode:
            raise MissingDependency(
                f"the server environment {self.name} cannot be installed: {said(done.stderr)}",
                hint=f"repeat it with: {' '.join(command)}",
            )
        (folder / _STAMP).write_text(self.lock_sha256 + "\n", encoding="utf-8")
        return folder
