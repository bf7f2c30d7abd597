"""Sealed tests: what an engine must answer, so that anyone can see whether it still does.

A sealed test is an artifact of its own whose parent is the engine: pictures, expected answers,
tolerances. A bundle names both and may be signed. Needs the runtime alone (and `cryptography` for
signatures); knows no recipe, no training and no exporter.
"""

from engineworks.sealed.bundle import BundleProof, Statement, prove
from engineworks.sealed.bundle import write as write_bundle
from engineworks.sealed.contents import KIND, Sealed, load, parent_of
from engineworks.sealed.replaying import Expectation, Replay, replay

__all__ = [
    "KIND",
    "BundleProof",
    "Expectation",
    "Replay",
    "Sealed",
    "Statement",
    "load",
    "parent_of",
    "prove",
    "replay",
    "write_bundle",
]
