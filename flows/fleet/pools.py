"""Kinds of machines: the work pools, as deployments/pools.yaml has them. Knows no Prefect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

FILE = Path(__file__).parents[2] / "deployments" / "pools.yaml"


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One kind of machine."""

    name: str
    description: str
    plans: bool = False
    """Whether its workers also carry out runs that plan and wait, and those that log to MLflow."""


@cache
def pools() -> tuple[Pool, ...]:
    """All of them, in the file's order."""
    described = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(Pool(name=name, **fields) for name, fields in described.items())


def names() -> tuple[str, ...]:
    """Their names."""
    return tuple(pool.name for pool in pools())


def plans(name: str) -> bool:
    """Whether the workers of a pool plan; those of a pool that is not in the file do not."""
    return any(pool.plans for pool in pools() if pool.name == name)


def planning() -> str:
    """The pool whose workers plan."""
    return next(pool.name for pool in pools() if pool.plans)
