# -*- test-case-name: tests.net.test_suggestions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Find the endpoint string that was probably meant by one that is wrong.

People write addresses as other programs have them: C{11212}, C{10.0.0.1:11211}, C{[::1]:11211}, C{10.0.0.1:11211:1}
with a weight as in twemproxy's files, C{tcp://10.0.0.1:11211}, or several with commas. No suggestion listens on all
addresses of the machine, because that should be asked for in so many words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from twisted.internet.abstract import isIPAddress, isIPv6Address

from txconnpool.net.syntax import checkClient, checkServer

#: The port of memcached.
_PORT = "11211"

#: Hosts that stand for all addresses of the machine, or for no address at all.
_ANYWHERE = ("", "*", "0.0.0.0", "::")

#: Types of endpoints and other words that are no names of hosts.
_NO_HOSTS = frozenset((
    "adns", "dns", "elasticache", "env", "fd", "file", "haproxy", "http", "https", "memory", "sentinel", "srv", "ssl",
    "systemd", "tcp", "tls", "udp", "unix",
))  # fmt: skip

#: The beginnings of URLs and endpoint strings of TCP.
_TCP = r"(?:(?:tcp[46]?|memcached?|mc)(?::/{0,2})|//)?"

#: An address with a port, and perhaps a weight and a label as in twemproxy's files.
_ADDRESS = re.compile(
    rf"{_TCP}(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:]*::[0-9A-Fa-f:]*[0-9A-Fa-f]|[^\s:=\\\[\]/]*):)?"
    r"(?P<port>[0-9]{1,5})(?::(?P<weight>[0-9]{1,5})(?:\s+(?P<label>[^\s=:]+))?)?/?"
)

#: A URL of Redis.
_REDIS = re.compile(
    r"(?:redis|valkey)(?P<tls>s)?://(?:(?P<login>[^\s@/]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/(?P<database>[0-9]*))?(?:\?\S*)?",
    re.IGNORECASE,
)

#: A host without a port.
_HOST = re.compile(rf"{_TCP}(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):?/?")


def suggestClient(text: str, port: int | None = None) -> str | None:
    """
    @param text: a wrong client endpoint string.
    @param port: the port that servers of the protocol usually have; that of memcached if not given.

    @return: the end of an error message, which says what to write; C{None} if nobody knows.
    """
    return _suggest(text, checkClient, partial(_client, port=_PORT if port is None else str(port)))


def suggestServer(text: str) -> str | None:
    """
    @param text: a wrong server endpoint string.

    @return: the end of an error message, which says what to write; C{None} if nobody knows.
    """
    return _suggest(text, checkServer, _server)


def _suggest(text: str, check: Callable[[str], object], guess: Callable[[str], str | None]) -> str | None:
    """
    @param check: raises an exception for an endpoint string that is wrong.
    @param guess: returns what may have been meant by one address.
    """
    texts = [each for each in re.split(r"[,;\s]+", text) if each]
    if len(texts) > 1 and (":" in texts[1] or re.search("[,;]", text)):
        each = [guess(one) or (one if _isRight(one, check) else None) for one in texts]
        if None in each:
            return None
        return f"expected each by itself, on a line or in an option of its own: {' and '.join(map(str, each))}"
    found = guess(text.strip())
    if found is None or not _isRight(found.partition(" ")[0], check):
        return None
    return f"did you mean {found}?"


def _isRight(text: str, check: Callable[[str], object]) -> bool:
    try:
        check(text)
    except Exception:  # the parsers of plugins may raise any
        return False
    return True


def _address(text: str) -> re.Match[str] | None:
    found = _ADDRESS.fullmatch(text)
    return None if found is None or found["host"] in _NO_HOSTS else found


def _path(text: str) -> str | None:
    found = re.fullmatch(r"(?:unix:/{0,2}(?=/)|file://)?(/[^\s:]+)(?::0?[0-7]{3})?", text)
    return None if found is None else f"unix:{found[1]}"


def _client(text: str, port: str) -> str | None:
    url = _REDIS.fullmatch(text)
    if url is not None:
        apart = [word for word, given in (("the login", url["login"]), ("the database", url["database"])) if given]
        more = f" with an option for {' and one for '.join(apart)}" if apart else ""
        return f"{'tls' if url['tls'] else 'tcp'}:{_escapedHost(url['host'])}:{url['port'] or '6379'}{more}"
    found = _address(text)
    if found is not None:
        words = f" weight={found['weight']}" if found["weight"] else ""
        words += f" label={found['label']}" if found["label"] else ""
        return f"tcp:{_escapedHost(found['host'])}:{found['port']}{words}"
    tls = re.fullmatch(r"(?:ssl|tls):/{0,2}([^\s:=\\]+)(?::([0-9]+))?(?::hostname=.*)?", text, re.IGNORECASE)
    if tls is not None:
        return f"tls:{tls[1]}:{tls[2] or port}"
    host = _HOST.fullmatch(text)
    if host is not None and (":" in text or "." in text or text == "localhost") and host["host"] not in _NO_HOSTS:
        return f"tcp:{_escapedHost(host['host'])}:{port}"
    if isIPv6Address(text):
        return f"tcp:{_escapedHost(text)}:{port}"
    return _path(text)


def _server(text: str) -> str | None:
    found = _address(text)
    if found is not None:
        return _listening(found["host"] or "", found["port"])
    # An IPv6 address without the backslashes.
    found = re.fullmatch(r"tcp6?:([0-9]+):(?:interface=)?\[?([0-9A-Fa-f:]*:[0-9A-Fa-f:]*)\]?", text)
    if found is not None:
        return _listening(found[2], found[1])
    found = re.fullmatch(r"tls:([0-9]+)(:.*)?", text)
    if found is not None:
        return f"ssl:{found[1]}:privateKey=FILE:certKey=FILE:interface=127.0.0.1"
    return _path(text)


def _listening(host: str, port: str) -> str:
    host = host.strip("[]")
    if isIPv6Address(host) and host != "::":
        return rf"tcp6:{port}:interface={_escapedHost(host)}"
    if host in _ANYWHERE or host == "localhost":
        host = "127.0.0.1"
    return f"tcp:{port}:interface={host if isIPAddress(host) else 'ADDRESS'}"


def _escapedHost(host: str | None) -> str:
    host = (host or "").strip("[]")
    return "127.0.0.1" if host in _ANYWHERE else host.replace(":", r"\:")
