# -*- test-case-name: tests.net.discovery.test_descriptions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Server lines that name a source of servers, and the servers that are found there. There is no I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from txconnpool.net.tlswords import PLAIN, TLS_WORDS, TLSWords, readTLS

#: The placeholders that a label may contain. With none of the last ones all servers would have the same label.
_PLACEHOLDERS = {
    "dns": (("{host}", "{ip}", "{port}"), ("{ip}",)),
    "srv": (("{host}", "{port}"), ("{host}",)),
    "elasticache": (("{host}", "{ip}", "{port}"), ("{host}", "{ip}")),
}

_FORMS = {
    "dns": "dns:HOST:PORT",
    "srv": "srv:NAME",
    "elasticache": "elasticache:HOST:PORT",
    "sentinel": "sentinel:NAME@HOST:PORT,HOST:PORT",
}

#: The default ports of DNS servers, and of the sentinels of Redis.
_DNS_PORT = 53
_SENTINEL_PORT = 26379


#: The label of the replicas of a server.
REPLICA = "replica"


@dataclass(frozen=True, slots=True)
class Discovered:
    """
    A server that was found.

    @ivar endpoint: its client endpoint string.
    @ivar label: its label, or C{None} for the one that the distribution makes from host and port; L{REPLICA} for the
        replica of a master.
    @ivar weight: its weight, or C{None} for the default.
    """

    endpoint: str
    label: str | None = None
    weight: float | None = None

    def __str__(self) -> str:
        """
        @return: the server line that stands for this server.
        """
        weight = "" if self.weight is None else f" weight={self.weight:g}"
        label = "" if self.label is None else f" label={self.label}"
        return self.endpoint + weight + label


@dataclass(frozen=True, slots=True)
class Description:
    """
    A server line that names a source of servers, see L{parse}.

    @ivar kind: C{dns}, C{srv}, C{elasticache} or C{sentinel}.
    @ivar name: the name to look up, or the host to ask; for C{sentinel} the name of the master. It is ASCII.
    @ivar port: the port of the servers, or the one to ask; 0 for C{srv} and C{sentinel}.
    @ivar label: the label of each server, with placeholders, or C{None} for the default of the source.
    @ivar weight: the weight of each server, or C{None}.
    @ivar resolver: IP addresses and ports of the DNS servers to ask; none for those of the system.
    @ivar sentinels: hosts and ports of the sentinels to ask.
    @ivar tls: the words for TLS, of the sentinels and of the servers that they name.
    """

    kind: str
    name: str
    port: int = 0
    label: str | None = None
    weight: float | None = None
    resolver: tuple[tuple[str, int], ...] = ()
    sentinels: tuple[tuple[str, int], ...] = ()
    tls: TLSWords = PLAIN

    def labelOf(self, host: str, ip: str, port: int, default: str | None) -> str | None:
        """
        Make the label of a server.

        @param default: the label if the server line has none.
        """
        if self.label is None:
            return default
        values = {"{host}": host, "{ip}": ip, "{port}": str(port)}
        return re.sub("{(host|ip|port)}", lambda found: values[found[0]], self.label)


def isDiscovery(description: str) -> bool:
    """
    @param description: a server line.

    @return: whether it names a source of servers, and not one server.
    """
    return re.match(r"\s*(dns|srv|elasticache|sentinel):", description, re.IGNORECASE) is not None


def isSentinel(description: str) -> bool:
    """
    @param description: a server line.

    @return: whether it names the sentinels of a Redis.
    """
    return re.match(r"\s*sentinel:", description, re.IGNORECASE) is not None


def checkDiscovery(description: str) -> None:
    """
    Check the syntax of a server line for which L{isDiscovery} is true. Nothing is looked up.

    @raise ValueError: the line is wrong. The text says what would be right.
    """
    parse(description)


def parse(description: str) -> Description:
    """
    Parse a server line that names a source of servers. Words may follow: C{label=} with C{{ip}}, C{{host}} or
    C{{port}} in it, C{weight=} for the weight of each server, and C{resolver=} with the IP addresses of the DNS servers
    to ask instead of those of the system (C{resolver=127.0.0.1:8600,[::1]:8600}).

    @raise ValueError: the line is wrong. The text says what would be right.
    """
    source, *words = description.split() or [""]
    kind, _, rest = source.partition(":")
    kind = kind.lower()
    if kind not in _FORMS:
        raise ValueError(f"unknown source of servers {kind!r}; expected dns, srv, elasticache or sentinel")
    if kind == "sentinel":
        return _sentinels(rest, words)
    pieces = [re.sub(r"\\(.)", r"\1", piece) for piece in re.split(r"(?<!\\):", rest)]
    if len(pieces) != _FORMS[kind].count(":") or not all(pieces):
        raise ValueError(f"expected {_FORMS[kind]}")
    name = _host(pieces[0], kind)
    port = 0 if kind == "srv" else parsePort(pieces[1])
    label, weight, resolver = None, None, ""
    for word in words:
        option, _, value = word.partition("=")
        if option == "label" and value:
            label = _label(value, kind)
        elif option == "weight" and value:
            weight = _weight(value)
        elif option == "resolver" and value and kind != "elasticache":
            resolver = value
        else:
            known = "label= or weight=" if kind == "elasticache" else "label=, weight= or resolver="
            raise ValueError(f"unexpected {word!r}; expected {known} with a value")
    return Description(kind, name, port, label, weight, tuple(_resolvers(resolver)))


def located(description: str, directory: str) -> str:
    """
    @param description: a server line for which L{isDiscovery} is true.
    @param directory: the directory that relative paths are relative to.

    @return: the same line with absolute paths.
    """
    tls = parse(description).tls
    return description if not tls.files else " ".join([description.split(maxsplit=1)[0], *tls.located(directory).words])


def endpointsOf(description: str) -> list[str]:
    """
    @param description: a server line for which L{isDiscovery} is true.

    @return: the endpoint strings of the sentinels in it, which have the same files as the servers that these name.
    """
    found = parse(description)
    return [found.tls.endpoint(host, port) for host, port in found.sentinels]


def asAddress(text: str) -> str | None:
    """
    @return: an IP address in its usual form, or C{None} if C{text} is not one.
    """
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def endpointString(host: str, port: int) -> str:
    """
    @param host: a name or an IP address.

    @return: a client endpoint string for TCP.
    """
    # Twisted has no tcp6: for clients; tcp: takes IPv6 addresses, with a backslash before each colon.
    return f"tcp:{host}:{port}" if ":" not in host else "tcp:{}:{}".format(host.replace(":", r"\:"), port)


def parsePort(text: str) -> int:
    """
    @return: the number of a TCP or UDP port.

    @raise ValueError: it is not one.
    """
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 1 << 16:
        raise ValueError(f"wrong port {text!r}; expected a number from 1 to 65535")
    return int(text)


def isHostName(text: str) -> bool:
    """
    @return: whether a text in ASCII can be the name of a host or service in DNS, where underscores are usual too.
    """
    return len(text) < 255 and re.fullmatch(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?", text, re.ASCII) is not None


def _sentinels(text: str, words: list[str]) -> Description:
    tls, others = readTLS(words)
    if others:
        raise ValueError(f"unexpected {others[0]!r} after sentinel:; expected {TLS_WORDS} or nothing, each only once")
    name, found, places = text.partition("@")
    if not found or not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name):
        raise ValueError(f"expected {_FORMS['sentinel']}, with the name of the master that the sentinels watch")
    sentinels = []
    for each in places.split(","):
        match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::(.*))?", each)
        host = match and (match[1] or match[2] or "")
        if not match or not host or not (asAddress(host) or isHostName(host)) or (match[1] and not asAddress(host)):
            raise ValueError(f"wrong sentinel {each!r}; expected HOST:PORT, as in 10.0.0.1:26379 or [::1]:26379")
        sentinels.append((asAddress(host) or host, _SENTINEL_PORT if match[3] is None else parsePort(match[3])))
    if len(set(sentinels)) < len(sentinels):
        raise ValueError("a sentinel is there twice; expected each only once")
    return Description("sentinel", name, sentinels=tuple(sentinels), tls=tls)


def _host(text: str, kind: str) -> str:
    address = asAddress(text)
    if address is not None and kind == "elasticache":
        return address
    if address is not None:
        raise ValueError(f"{kind}: looks up a name, and {text} is an address; expected tcp:HOST:PORT for one server")
    try:
        name = text if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not isHostName(name):
        raise ValueError(f"wrong name {text!r}; expected one such as cache.example.org")
    return name


def _label(text: str, kind: str) -> str:
    known, distinct = _PLACEHOLDERS[kind]
    for found in re.findall("{[^}]*}?|}", text):
        if found not in known:
            raise ValueError(f"wrong {found} in label={text}; expected {_either(known)}")
    if not any(each in text for each in distinct):
        raise ValueError(
            f"label={text} is the same for all servers; expected {_either(distinct)} in it, as in "
            f"label=cache-{distinct[0]}"
        )
    return text


def _either(words: Iterable[str]) -> str:
    return " or ".join(words)


def _weight(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError(f"wrong weight {text!r}; expected a number such as 2")
    return float(text)


def _resolvers(text: str) -> Iterable[tuple[str, int]]:
    for each in filter(None, text.split(",")):
        found = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\[\]]*))(?::(?P<port>.*))?", each)
        address = found and asAddress(found["v6"] or found["v4"] or "")
        if not found or not address:
            raise ValueError(f"wrong resolver {each!r}; expected the IP address of a DNS server, as in 127.0.0.1:8600")
        yield address, _DNS_PORT if found["port"] is None else parsePort(found["port"])
