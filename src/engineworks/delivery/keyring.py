"""Private keys in files, and signing with those that a role wants.

A key is a PEM file (Ed25519, PKCS 8), readable by its owner alone; with a password in
ENGINEWORKS_KEY_PASSWORD it is encrypted. Which key belongs to which role stands in the metadata, so
a folder of keys needs no names: whatever lies there is tried. Knows no repository.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks.errors import DeliveryError, MissingDependency

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

#: Environment variable of the password; never an option, which every user of a machine can read.
PASSWORD = "ENGINEWORKS_KEY_PASSWORD"  # noqa: S105 - the variable's name


def needed() -> None:
    """Refuse where the packages for signing and checking are not installed.

    Raises:
        MissingDependency: Says how to get them.
    """
    try:
        import cryptography  # noqa: F401
        import tuf.api.metadata  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"delivery needs the package {error.name!r}", hint="pip install 'engineworks[deliver]'"
        ) from error


def make(path: Path) -> SSlibKey:
    """Make a key, and return its public half.

    Raises:
        DeliveryError: The file exists, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    private = Ed25519PrivateKey.generate()
    password = os.environ.get(PASSWORD, "").encode()
    encryption: Any = pem.BestAvailableEncryption(password) if password else pem.NoEncryption()
    data = private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        raise DeliveryError(
            f"{path} exists: a key is never written over",
            hint="give another name; remove the old one only when nothing is signed by it any more",
        ) from None
    except OSError as error:
        raise DeliveryError(
            f"{path} cannot be written ({error.strerror})", hint="choose a folder you own"
        ) from error
    return _public(CryptoSigner(private))


def load(path: Path) -> CryptoSigner:
    """A key from its file.

    Raises:
        DeliveryError: It is none, or the password is wrong.
    """
    from securesystemslib.signer import CryptoSigner

    return CryptoSigner(private_of(path))


def private_of(path: Path) -> Any:
    """A private key of `cryptography` from its file.

    Raises:
        DeliveryError: It is none, or the password is wrong.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    password = os.environ.get(PASSWORD, "").encode() or None
    try:
        data = path.read_bytes()
        encrypted = b"ENCRYPTED" in data.partition(b"\n")[0]
        private = load_pem_private_key(data, password if encrypted else None)
        if not isinstance(private, Ed25519PrivateKey):
            raise TypeError("no Ed25519 key")
    except OSError as error:
        raise DeliveryError(
            f"{path} cannot be read ({error.strerror})", hint="name a folder of keys, or a PEM file"
        ) from error
    except Exception as error:  # of many kinds, by what the file holds
        raise DeliveryError(
            f"{path} is no private key that can be used ({type(error).__name__})",
            hint=f"an encrypted one needs its password in {PASSWORD}",
        ) from error
    return private


def _public(signer: CryptoSigner) -> SSlibKey:
    key: SSlibKey = signer.public_key
    return key


def public_json(key: SSlibKey) -> dict[str, Any]:
    """A public key as plain JSON."""
    return {"keyid": key.keyid, **key.to_dict()}


def read_public(path: Path) -> SSlibKey:
    """A public key from its file.

    Raises:
        DeliveryError: It is none, or not the one that its id says.
    """
    from securesystemslib.signer import SSlibKey

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        key_id = data.pop("keyid")
        key = SSlibKey.from_dict(key_id, dict(data))
        raw = base64.b16decode(key.keyval["public"].upper())
        if key.keytype != "ed25519" or len(raw) != 32:
            raise ValueError("no Ed25519 key")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeliveryError(
            f"{path} is no public key ({error})", hint="engineworks deliver key writes one"
        ) from error
    return key


class Keyring:
    """The keys of some folders or files.

    Args:
        places: Folders with `*.pem` at any depth, or PEM files.

    Raises:
        DeliveryError: A place does not exist, or holds a file that is no key.
    """

    def __init__(self, places: Iterable[Path]) -> None:
        self.signers: dict[str, CryptoSigner] = {}
        """Key id -> what signs."""
        for place in places:
            if not place.exists():
                raise DeliveryError(
                    f"{place}: there are no keys", hint="is the medium with the keys connected?"
                )
            for path in sorted(place.rglob("*.pem")) if place.is_dir() else [place]:
                signer = load(path)
                self.signers[_public(signer).keyid] = signer

    def of(self, key_ids: Sequence[str]) -> list[CryptoSigner]:
        """Those of some keys that are here."""
        return [self.signers[key_id] for key_id in key_ids if key_id in self.signers]


def sign(metadata: Any, keyring: Keyring, role: str, key_ids: Sequence[str], least: int) -> None:
    """Sign with every key that is here and wanted.

    Args:
        metadata: `tuf`'s Metadata; its signatures are replaced.
        keyring: The keys at hand.
        role: For messages.
        key_ids: Keys of the role.
        least: How many must sign.

    Raises:
        DeliveryError: Fewer than `least` are here; nothing is signed.
    """
    signers = keyring.of(key_ids)
    if len(signers) < least:
        raise DeliveryError(
            f"{role} needs {least} of its {len(key_ids)} keys, here are {len(signers)}",
            hint=f"give --keys for the folders that hold them (key ids: "
            f"{', '.join(key_id[:12] for key_id in key_ids)})",
        )
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
