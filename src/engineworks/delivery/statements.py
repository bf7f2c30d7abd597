"""Small signed JSON: a device's request to be accepted, and its reports. Knows no files.

The bytes that are signed are those that travel; nothing is written anew before it is checked.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from engineworks.delivery.refusal import Refused

#: So that a signature of one kind is never taken for one of another.
_PREFIX = "engineworks statement 1 "


def sign(kind: str, body: dict[str, Any], private: Any) -> str:
    """A statement as text.

    Args:
        kind: What it is, e.g. `report`.
        body: What it says.
        private: An Ed25519 private key of `cryptography`.
    """
    text = json.dumps(body, sort_keys=True)
    signature = private.sign((_PREFIX + kind + "\n" + text).encode())
    data = {"kind": kind, "body": text, "signature": base64.b64encode(signature).decode()}
    return json.dumps(data, indent=1) + "\n"


def claimed(text: str, kind: str) -> dict[str, Any]:
    """What a statement says, before it is known who signed it.

    Raises:
        Refused: It is no statement of this kind.
    """
    try:
        data = json.loads(text)
        body = json.loads(data["body"]) if data["kind"] == kind else None
    except (ValueError, KeyError, TypeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(f"this is no signed {kind}", hint="ask the device for it again")
    return body


def hold(text: str, kind: str, public: str) -> None:
    """Refuse a statement that a key has not signed.

    Args:
        text: As it came.
        kind: What it must be.
        public: The key, 64 hexadecimal digits.

    Raises:
        Refused: By the check `signature`.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    claimed(text, kind)
    data = json.loads(text)
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        signature = base64.b64decode(data["signature"], validate=True)
        key.verify(signature, (_PREFIX + kind + "\n" + data["body"]).encode())
    except (InvalidSignature, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"the {kind} is not signed by the key of the device that it names",
            hint="somebody speaks for another device: find out who may write there",
            check="signature",
        ) from error
