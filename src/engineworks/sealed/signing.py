"""Ed25519 signatures over a bundle's statement, and the keys that make them.

Source: RFC 8032, by the package `cryptography` (extra `signed`). Keys are PEM files: PKCS#8 and
SubjectPublicKeyInfo, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.
Knows bytes only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks.errors import ArtifactError, MissingDependency

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

#: Signed before the statement: a signature of a bundle is one of nothing else.
CONTEXT = b"engineworks bundle 1\n"

ALGORITHM = "ed25519"


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"signatures need the package {(error.name or 'cryptography').partition('.')[0]!r}",
            hint="pip install 'engineworks[signed]'",
        ) from error
    return ed25519


def new_key(path: Path) -> str:
    """Write a private key, readable by its owner alone, and beside it `.pub`; its fingerprint.

    Raises:
        ArtifactError: There is a file of that name: a key is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization

    key = _ed25519().Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = path.with_name(f"{path.name}.pub")
    for target in (path, public):
        if target.exists():
            raise ArtifactError(
                f"{target} is there already, and a key is not overwritten",
                hint="give another name; what was signed with a lost key must be signed anew",
            )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(private)
    public.write_bytes(_pem(key.public_key()))
    return fingerprint(raw(key.public_key()))


def _pem(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes_raw()


def fingerprint(public: bytes) -> str:
    """A public key in a form to compare by eye: `SHA256:` and base64, as ssh-keygen writes it."""
    digest = base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def load_private(path: Path) -> Ed25519PrivateKey:
    """A private key from its PEM file.

    Raises:
        ArtifactError: It cannot be read, or is no unencrypted Ed25519 key.
    """
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_key(path, "private", error) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _no_key(path, "private", None)
    private: Ed25519PrivateKey = key
    return private


def load_public(path: Path) -> bytes:
    """The 32 bytes of a public key from its PEM file.

    Raises:
        ArtifactError: It cannot be read, or is no Ed25519 key.
    """
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise _no_key(path, "public", error) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _no_key(path, "public", None)
    return raw(key)


def _no_key(path: Path, half: str, error: Exception | None) -> ArtifactError:
    reason = getattr(error, "strerror", "") or f"it is no {half} Ed25519 key in PEM"
    return ArtifactError(
        f"{path} cannot be used as a {half} key ({reason})",
        hint="make one with `engineworks bundle --new-key FILE`: FILE signs, FILE.pub is given to "
        "those who prove",
    )


def sign(key: Ed25519PrivateKey, statement: bytes) -> dict[str, str]:
    """The signature of a statement, as it is written beside it."""
    public = raw(key.public_key())
    return {
        "algorithm": ALGORITHM,
        "public_key": base64.b64encode(public).decode(),
        "fingerprint": fingerprint(public),
        "signature": base64.b64encode(key.sign(CONTEXT + statement)).decode(),
    }


def signed_by(statement: bytes, signature: Any) -> bytes:
    """The 32 bytes of the public key whose owner has signed a statement.

    Raises:
        ArtifactError: Nobody has: the signature is none, or of other bytes.
    """
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature

    try:
        if signature["algorithm"] != ALGORITHM:
            raise ValueError(f"the algorithm {signature['algorithm']!r:.40} is not known")
        public = base64.b64decode(signature["public_key"], validate=True)
        value = base64.b64decode(signature["signature"], validate=True)
        key = ed25519.Ed25519PublicKey.from_public_bytes(public)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ArtifactError(
            f"the signature cannot be read ({type(error).__name__}: {error})",
            hint="do not use the bundle: fetch it again, or ask whoever signed it",
        ) from error
    try:
        key.verify(value, CONTEXT + statement)
    except InvalidSignature as error:
        raise ArtifactError(
            f"the signature of {fingerprint(public)} is not of this statement: one of both was "
            "altered",
            hint="do not use the bundle: fetch it again, or ask whoever signed it",
        ) from error
    return public
