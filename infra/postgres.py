"""A PostgreSQL of the stack's own, where this machine has the programs of one.

A data folder, a port on 127.0.0.1 and a password of its own: it touches no PostgreSQL that runs
here already. PostgreSQL refuses to run as root; then it runs as the user `postgres`, which its
packages make. Knows no Prefect.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

USER = "stack"
#: Where Debian's and Red Hat's packages leave the programs, beside PATH.
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")


def programs() -> Path | None:
    """Folder of `initdb` and `postgres`, the newest; None when there is none."""
    found = shutil.which("initdb")
    if found and (Path(found).resolve().parent / "postgres").is_file():
        return Path(found).resolve().parent
    folders = [path for place in PLACES for path in Path("/").glob(place[1:])]
    return max(folders, key=_version, default=None)


def _version(folder: Path) -> float:
    digits = "".join(c for c in folder.parent.name if c.isdigit() or c == ".").strip(".")
    return float(digits or 0)


def account() -> dict[str, Any]:
    """Arguments of `subprocess` for the user that it must run as; none for this process's own.

    Raises:
        OSError: This is root, and there is no user `postgres`.
    """
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError as error:
        raise OSError("PostgreSQL does not run as root, and there is no user postgres") from error
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": [], "cwd": "/"}


def create(data: Path, password: str) -> None:
    """Make the data folder, whole or not at all.

    Raises:
        OSError: There are no programs, or `initdb` failed; with its last words.
    """
    folder = programs()
    if folder is None:
        raise OSError("there is no PostgreSQL on this machine")
    if not _has_trigrams(folder):
        raise OSError("PostgreSQL lacks the extension pg_trgm (package postgresql-contrib)")
    who = account()
    partial = data.with_name(f"{data.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    # In a folder that everybody reaches: the account need not see the stack's own.
    with tempfile.NamedTemporaryFile("w", prefix="stack-") as secret:
        secret.write(password)
        secret.flush()
        if who:
            os.chown(partial, who["user"], who["group"])
            os.chown(secret.name, who["user"], who["group"])
        done = subprocess.run(
            [
                str(folder / "initdb"), "-D", str(partial), "-U", USER, "-E", "UTF8", "--no-locale",
                "--auth=scram-sha-256", f"--pwfile={secret.name}",
            ],
            capture_output=True, text=True, errors="replace", **who,
        )  # fmt: skip
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        lines = (done.stderr or done.stdout).strip().splitlines() or [""]
        raise OSError(f"initdb failed: {lines[-1]}")
    partial.rename(data)


def _has_trigrams(folder: Path) -> bool:
    """Whether the extension is there that Prefect's tables want."""
    told = subprocess.run(
        [str(folder / "pg_config"), "--sharedir"], capture_output=True, text=True, errors="replace"
    ) if (folder / "pg_config").is_file() else None  # fmt: skip
    places = [Path(told.stdout.strip())] if told is not None and told.returncode == 0 else []
    # Debian leaves pg_config to its development package.
    places += [Path("/usr/share/postgresql") / folder.parent.name, folder.parent / "share"]
    return any((place / "extension" / "pg_trgm.control").is_file() for place in places)


def _program(name: str) -> str:
    folder = programs()
    if folder is None:
        raise RuntimeError(
            "the stack keeps its data in PostgreSQL, whose programs are gone: install them again, "
            "or begin anew with another folder"
        )
    return str(folder / name)


def dump(port: int, password: str) -> bytes:
    """The database as SQL, uncompressed."""
    done = subprocess.run(
        [_program("pg_dump"), "--inserts", "-h", "127.0.0.1", "-p", str(port), "-U", USER,
         "postgres"],
        env={**os.environ, "PGPASSWORD": password}, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout


def command(data: Path, port: int) -> list[str]:
    """The words that run it in the foreground; SIGINT ends it at once and cleanly.

    Raises:
        RuntimeError: Its programs are gone.
    """
    return [
        _program("postgres"), "-D", str(data), "-p", str(port),
        "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
    ]  # fmt: skip


def url(port: int, password: str) -> str:
    """What Prefect's server connects to."""
    return f"postgresql+asyncpg://{USER}:{password}@127.0.0.1:{port}/postgres"
