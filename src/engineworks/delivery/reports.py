"""What a device says of each look, signed by its own key, to whoever runs the fleet.

A report that cannot be sent is not kept for later: the next one says all that is so then. Knows no
book of devices.
"""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from engineworks.codec import to_json
from engineworks.delivery import statements
from engineworks.delivery.disk import Disk
from engineworks.delivery.enrolment import Enrolled
from engineworks.delivery.home import Home
from engineworks.delivery.status import Status
from engineworks.delivery.transport import WAIT_S
from engineworks.errors import EngineworksError

_log = logging.getLogger(__name__)


def say(home: Home, enrolled: Enrolled, status: Status, address: str) -> str:
    """Sign what came of a look, and send it.

    Args:
        home: The device's folder, which holds its key.
        enrolled: Who it is.
        status: What came of the look.
        address: A folder, or the address of one that takes `PUT`.

    Returns:
        Why it was not sent, in words; empty: it was.
    """
    from engineworks.delivery import keyring

    try:
        private = keyring.private_of(home.key)
        body = {"device": enrolled.device, "sequence": status.sequence, "status": to_json(status)}
        text = statements.sign("report", body, private).encode()
        name = f"{enrolled.device}.json"
        if urlsplit(address).scheme in ("http", "https"):
            return _put(f"{address.rstrip('/')}/{name}", text, enrolled.headers)
        place = Path(urlsplit(address).path if address.startswith("file:") else address)
        Disk().write(Disk().folder(place) / name, text)
    except (EngineworksError, OSError) as error:
        return str(error)
    return ""


def _put(url: str, text: bytes, headers: dict[str, str]) -> str:
    import urllib3
    from urllib3.exceptions import HTTPError

    try:
        answer = urllib3.request(
            "PUT", url, body=text, timeout=WAIT_S, retries=False,
            headers={**headers, "Content-Type": "application/json"},
        )  # fmt: skip
    except (HTTPError, OSError) as error:
        return f"{url} does not take it ({error})"
    return "" if answer.status < 300 else f"{url} answers {answer.status}"
