# -*- test-case-name: tests.net.test_addresses -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Convert the addresses of servers that programs pass into endpoints.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint

from txconnpool.net.endpoints import clientEndpoint, nameOf
from txconnpool.net.named import byName, nameOrNone


def endpointOf(address: Any, reactor: Any) -> tuple[str, IStreamClientEndpoint]:
    """
    Make the endpoint for an address.

    @param address: an L{IPv4Address}, L{IPv6Address}, L{UNIXAddress}, C{(host, port)}, a client endpoint, or a client
        endpoint string.

    @return: the name of the address for logs and statistics, and the endpoint.

    @raise ValueError: C{address} is none of these.
    """
    if isinstance(address, str):
        try:
            return nameOf(address), clientEndpoint(reactor, address)
        except TypeError as reason:
            raise ValueError(f"{address}: {reason}") from reason
    if IStreamClientEndpoint.providedBy(address):
        return _describeEndpoint(address), address
    if isinstance(address, IPv4Address):
        return f"tcp:{address.host}:{address.port}", TCP4ClientEndpoint(reactor, address.host, address.port)
    if isinstance(address, IPv6Address):
        return f"tcp6:[{address.host}]:{address.port}", TCP6ClientEndpoint(reactor, address.host, address.port)
    if isinstance(address, UNIXAddress) and address.name is not None:
        path = os.fsdecode(address.name)
        return f"unix:{path}", UNIXClientEndpoint(reactor, path)
    if isinstance(address, tuple) and len(address) == 2 and isinstance(address[1], int):
        host, port = address
        endpoint = byName(reactor, nameOrNone(host), lambda each: TCP4ClientEndpoint(each, host, port))
        return f"tcp:{host}:{port}", endpoint
    raise ValueError(
        f"not a server: {address!r}; expected an IPv4Address, IPv6Address, UNIXAddress, (host, port), an endpoint or "
        "an endpoint string"
    )


def _describeEndpoint(endpoint: Any) -> str:
    # Endpoints have no public attributes, so the name comes from repr.
    text = repr(endpoint)
    return type(endpoint).__name__ if " object at 0x" in text else text
