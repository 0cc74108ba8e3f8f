# -*- test-case-name: tests.net.test_syntax -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Check endpoint strings without opening, reading or looking up what they name.

Twisted's own parsers read keys and certificates while they parse, and look for the sockets of systemd. The checks here
do not, so settings can be constructed in any process. A string whose type is not built into Twisted makes Twisted
import its plugins.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.endpoints import clientFromString, serverFromString

from txconnpool.net.reactorproxy import ReactorProxy

T = TypeVar("T")

#: A pattern for one argument of an endpoint string, with C{%} for its name. Colons and backslashes in the value have a
#: backslash before them.
ARGUMENT = r":%s=((?:[^:\\]|\\.)*)"


def checkClient(description: str) -> None:
    """
    Check the syntax of a client endpoint string.

    @raise Exception: the string is wrong: a C{ValueError}, C{TypeError} or whatever else Twisted's parsers raise.
    """
    kind = description.partition(":")[0].lower()
    if kind == "tls":
        _check(_tlsClient, description)
        return
    if kind == "ssl":
        raise ValueError("ssl: does not verify servers; expected tls:HOST:PORT, with trustRoots=DIRECTORY if needed")
    clientFromString(ReactorProxy(), description)


def checkServer(description: str) -> None:
    """
    Check the syntax of a server endpoint string, as L{txconnpool.net.listening.Listener} takes it.

    @raise Exception: the string is wrong: a C{ValueError}, C{TypeError} or whatever else Twisted's parsers raise.
    """
    kind, _, rest = description.partition(":")
    if kind == "ssl":
        _check(_sslServer, description)
    elif kind.lower() == "tls":
        _check(_tlsServer, description)
    elif kind.lower() == "haproxy":
        checkServer(rest)
    else:
        try:
            serverFromString(ReactorProxy(), description)
        except (IndexError, KeyError):
            # systemd passed no such socket to this process. The string may still be correct.
            if kind.lower() != "systemd":
                raise


def hostOf(description: str) -> str:
    """
    @param description: a C{tls:} client endpoint string.

    @return: the host for which the certificate of the server must be.
    """
    return _check(_tlsClient, description)


def argumentsOf(description: str) -> tuple[list[str], dict[str, str]]:
    """
    Split an endpoint string, as Twisted does.

    @return: the type and the other arguments without a name, and the arguments with a name.

    @raise ValueError: a backslash is at the end.
    """
    if not re.fullmatch(r"(?:[^\\]|\\.)*", description, re.DOTALL):
        raise ValueError("a backslash at the end")
    positional: list[str] = []
    named: dict[str, str] = {}
    for piece in re.findall(r"(?:^|:)((?:[^:\\]|\\.)*)", description, re.DOTALL):
        first, equals, value = re.findall(r"^((?:[^=\\]|\\.)*)(=?)(.*)", piece, re.DOTALL)[0]
        if equals:
            named[_unescaped(first)] = _unescaped(value)
        else:
            positional.append(_unescaped(first))
    return positional, named


def _check(parser: Callable[..., T], description: str) -> T:
    """
    Call a function with the arguments of an endpoint string, as Twisted calls its parsers.
    """
    positional, named = argumentsOf(description)
    return parser(*positional[1:], **named)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


# Replacements for the parsers of Twisted that read files. They have the same parameters, in the same order, as
# _parseSSL, _parseClientTLS and _TLSServerEndpointParser in twisted.internet.endpoints.


def _sslServer(
    port: str,
    privateKey: str = "",
    certKey: str = "",
    sslmethod: str = "",
    interface: str = "",
    backlog: str = "50",
    extraCertChain: str = "",
    dhParameters: str = "",
    *,
    caCertsDir: str = "",
    endpoint: str = "",
) -> None:
    """
    The last two parameters are those that L{txconnpool.net.listening.Listener} adds.
    """
    int(port)
    int(backlog)
    if endpoint:
        checkServer(endpoint)


def _tlsServer(path: str, port: str = "443", backlog: str = "50", interface: str = "::") -> None:
    int(port)
    int(backlog)


def _tlsClient(
    host: str,
    port: str,
    timeout: str = "30",
    bindAddress: str = "",
    certificate: str = "",
    privateKey: str = "",
    trustRoots: str = "",
    endpoint: str = "",
) -> str:
    int(port)
    int(timeout)
    if endpoint:
        checkClient(endpoint)
    return host
