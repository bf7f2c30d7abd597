"""Programs of this machine that talk to one another do not go through a company's proxy.

Every client (urllib, httpx, requests, botocore, FFmpeg) looks into NO_PROXY; who sets a proxy
seldom thinks of 127.0.0.1, and a proxy elsewhere cannot reach it. Knows the variables alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import socket
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

from engineworks.errors import MissingDependency

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_HOSTS = ("127.0.0.1", "localhost", "::1")

#: Where a fleet's servers are named.
_SERVERS = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
            "MLFLOW_S3_ENDPOINT_URL")  # fmt: skip


def spare(environment: MutableMapping[str, str]) -> None:
    """Add this machine to NO_PROXY where the environment names a proxy; else change nothing."""
    names = {name.lower() for name, value in environment.items() if value}
    if not names.intersection(_PROXIES):
        return
    given = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = [_plain(host) for text in given for host in text.split(",")]
    hosts = [host for host in hosts if host]
    if "*" in hosts:  # beside others only some clients know it
        if hosts != ["*"]:
            environment["no_proxy"] = environment["NO_PROXY"] = "*"
        return
    both = ",".join(dict.fromkeys([*hosts, *_HOSTS, *_own(environment)]))
    # Some clients read one, some the other; where both are there the first that is found counts.
    environment["no_proxy"] = environment["NO_PROXY"] = both


def _plain(host: str) -> str:
    """An entry of NO_PROXY in the one form that every client reads: no scheme, bracket or port.

    Of a network of IPv6, which none of them reads, its first address is left.
    """
    host = host.strip().rpartition("://")[2]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if ":" in host:
        return host.partition("/")[0]
    with contextlib.suppress(UnicodeError):
        return host if host.isascii() else host.encode("idna").decode("ascii")
    return ""


def _own(environment: Mapping[str, str]) -> list[str]:
    """Other names of this machine that servers are asked by."""
    names = []
    for server in _SERVERS:
        with contextlib.suppress(ValueError):
            host = urlsplit(environment.get(server, "")).hostname or ""
            if host and host not in _HOSTS and _is_here(host):
                names.append(host)
    return names


def _is_here(host: str) -> bool:
    """Whether a name stands for this machine: loopback, no address at all, or one of its own."""
    if host.rstrip(".").lower().endswith((".localhost", "localhost.localdomain")):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # only the proxy may know it
    addresses = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}
    return bool(addresses) and all(_is_own(address) for address in addresses)


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback or mapped.is_unspecified:
        return True
    family = socket.AF_INET if mapped.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(mapped), 0))  # nobody else's can be bound to
    except OSError:
        return False
    return True


def without_socks(environment: MutableMapping[str, str]) -> None:
    """Take SOCKS proxies away where only servers of this machine are spoken to.

    httpx wants the package for such a proxy as soon as one is named, whatever it is asked for.

    Raises:
        MissingDependency: A server elsewhere is named, and the package is not installed.
    """
    named = [
        name
        for name, value in environment.items()
        if name.lower() in _PROXIES and value.lower().startswith("socks")
    ]
    if not named or importlib.util.find_spec("socksio") is not None:
        return
    for server in _SERVERS:
        address = urlsplit(environment.get(server, ""))
        host = address.hostname or ""
        if address.scheme.startswith("http") and host not in _HOSTS and not _is_here(host):
            raise MissingDependency(
                f"{named[0]} is {environment[named[0]]}, and SOCKS needs the package 'socksio'",
                hint="pip install 'httpx[socks]' pysocks, or unset it where the servers are "
                "reached without",
            )
    for name in named:
        del environment[name]
