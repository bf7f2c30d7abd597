"""Programs of this machine that talk to one another do not go through a company's proxy.

Every client (urllib, httpx, requests, botocore, FFmpeg) looks into NO_PROXY; who sets a proxy
seldom thinks of 127.0.0.1, and a proxy elsewhere cannot reach it. Knows the variables alone.
"""

from __future__ import annotations

from collections.abc import MutableMapping

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_HOSTS = ("127.0.0.1", "localhost", "::1")


def spare(environment: MutableMapping[str, str]) -> None:
    """Add this machine to NO_PROXY where the environment names a proxy; else change nothing."""
    names = {name.lower() for name, value in environment.items() if value}
    if not names.intersection(_PROXIES):
        return
    given = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = [host.strip() for text in given for host in text.split(",") if host.strip()]
    if "*" in hosts:
        return
    both = ",".join(dict.fromkeys([*hosts, *_HOSTS]))
    # Some clients read one, some the other; where both are there the first that is found counts.
    environment["no_proxy"] = environment["NO_PROXY"] = both
