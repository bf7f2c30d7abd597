"""A recipe's folder from a git repository: one commit, checked out once, and nothing of it run.

The address is `git+https://host/repository@COMMIT#folder/recipe.yaml`, with the whole commit, so
that it means the same for ever. Knows git's command, no recipe. Credentials are those of the
machine's own git.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from engineworks.errors import MissingDependency, RecipeError, StoreError, said
from engineworks.store import explain_os_error

SCHEME = "git+"

#: Git's own word for what it may use: neither files of this machine nor programs.
PROTOCOLS = "https"

#: Of one commit and its files.
_LIMIT_S = 900.0

_ADDRESS = re.compile(r"git\+(?P<url>https://[^@#\s]+)@(?P<commit>[^@#\s]+)#(?P<path>[^#\s]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_HINT = "write git+https://host/repository@COMMIT#folder/recipe.yaml, with all digits of the commit"


@dataclass(frozen=True, kw_only=True)
class GitAddress:
    """One file of one commit."""

    url: str
    commit: str
    path: PurePosixPath


def parse(text: str) -> GitAddress:
    """Read an address.

    Raises:
        RecipeError: It is none, or one that could mean something else tomorrow.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise RecipeError(f"{text[:200]!r} names no recipe in a git repository", hint=_HINT)
    url, commit, path = match["url"], match["commit"], PurePosixPath(match["path"])
    parts = urlsplit(url)
    plain = not (parts.username or parts.password or parts.query) and "%" not in url
    if not plain or not parts.hostname or any(p in ("", ".", "..") for p in _steps(parts.path)):
        raise RecipeError(
            f"{url!r} is no plain address of a repository: no user, password, query, % or ..",
            hint="credentials belong to the git of the machine: its credential helper",
        )
    if _COMMIT.fullmatch(commit) is None:
        raise RecipeError(
            f"{commit!r} is no commit: a branch or tag means something else tomorrow",
            hint=f"{_HINT} (git rev-parse {commit if commit.isalnum() else 'HEAD'})",
        )
    if path.is_absolute() or ".." in path.parts:
        raise RecipeError(f"{match['path']!r} is no path inside the repository", hint=_HINT)
    return GitAddress(url=url, commit=commit, path=path)


def _steps(path: str) -> list[str]:
    return path.removesuffix("/").split("/")[1:]


def fetch(address: GitAddress, home: Path) -> Path:
    """Check a commit out into the state folder, unless it is there; gives the recipe's file.

    Raises:
        RecipeError: The repository has no such commit, or the commit no such file.
        StoreError: The disk is full.
        MissingDependency: There is no git.
    """
    name = hashlib.sha256(f"{address.url} {address.commit}".encode()).hexdigest()[:32]
    folder = home / "recipes" / f"git-{name}"
    if not folder.is_dir():
        work = folder.with_name(f".{uuid.uuid4().hex}")
        try:
            work.mkdir(parents=True)
            _check_out(address, work)
            shutil.rmtree(work / ".git")
            work.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was quicker with the same commit
                raise explain_os_error(error, folder) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    os.utime(folder)  # used now: `prune` lets go of what is old
    file = folder / address.path
    if not file.is_file():
        raise RecipeError(
            f"commit {address.commit[:12]} of {address.url} has no file {address.path}",
            hint="give the recipe's path from the top of the repository",
        )
    return file


def _check_out(address: GitAddress, work: Path) -> None:
    _git(work, address, "init", "--quiet")
    _git(work, address, "fetch", "--quiet", "--depth", "1", "--no-tags", address.url,
         address.commit)  # fmt: skip
    _git(work, address, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    there = _git(work, address, "rev-parse", "HEAD").strip()
    if there != address.commit:
        raise RecipeError(
            f"{address.url} gave commit {there[:12]} for {address.commit[:12]}",
            hint="do not use this server",
        )


def _git(work: Path, address: GitAddress, *words: str) -> str:
    """One git command: asks nobody, follows no link, runs no hook."""
    command = [
        "git", "-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=false",
        "-c", "protocol.allow=never",
        *(part for name in PROTOCOLS.split(":")
          for part in ("-c", f"protocol.{name}.allow=always")),
        *words,
    ]  # fmt: skip
    environment = {
        **os.environ, "GIT_ALLOW_PROTOCOL": PROTOCOLS, "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "", "SSH_ASKPASS": "", "LC_ALL": "C",
    }  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise MissingDependency(
            "a recipe from a repository needs git, which is not on this machine",
            hint="install git, or give the recipe as a file or as text",
        ) from None
    except subprocess.TimeoutExpired:
        raise StoreError(
            f"{address.url} gave no commit within {_LIMIT_S:g} s", hint="try again later"
        ) from None
    if done.returncode:
        raise RecipeError(
            f"{address.url} at {address.commit[:12]} cannot be fetched: {said(done.stderr)}",
            hint="check address and commit, and that this machine's git may read the repository",
        )
    return done.stdout
