# -*- test-case-name: tests.net.discovery.test_nameservers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Ask DNS servers.

L{twisted.names.client.Resolver} is not used for this: a lookup there cannot be cancelled, its TCP connections and a
timer stay, the C{search} domains of C{resolv.conf} are ignored, and a truncated message counts as a shorter answer. Its
messages and its errors are used.
"""

from __future__ import annotations

import secrets
import struct
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError
from twisted.names.hosts import searchFileForAll
from twisted.python.filepath import FilePath

from txconnpool.net.discovery.exchanges import overTCP, overUDP
from txconnpool.net.discovery.records import canonical
from txconnpool.net.discovery.resolvconf import ResolvConf, parseResolvConf

#: Answers, authority and additional records, as all resolvers of Twisted return them.
Records = tuple[list[Any], list[Any], list[Any]]

#: The TTL of what is not from DNS, in seconds.
_LOCAL_TTL = 86400


class NameServers(ResolverBase):
    """
    A resolver that reads C{/etc/hosts} and C{/etc/resolv.conf} for each lookup, and asks the DNS servers by UDP, or by
    TCP if the answer is long.

    It is an L{IResolver<twisted.internet.interfaces.IResolver>}. Cancelling the Deferred of a lookup ends it at once,
    with its socket and its timer.
    """

    def __init__(
        self,
        reactor: Any,
        servers: tuple[tuple[str, int], ...] = (),
        resolvConf: str = "/etc/resolv.conf",
        hosts: str = "/etc/hosts",
    ) -> None:
        """
        @param reactor: the reactor of the sockets and timers.
        @param servers: the IP addresses and ports of the DNS servers. The two files are not read then.
        @param resolvConf: the path of the configuration of the system's resolver.
        @param hosts: the path of the file of known hosts.
        """
        super().__init__()
        self._reactor = reactor
        self._servers = servers
        self._resolvConf = Path(resolvConf)
        self._hosts = FilePath(hosts)

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Deferred[Records]:
        """
        All lookups of the base class end here.
        """
        known = self._known(name, type) if type in (dns.A, dns.AAAA) and not self._servers else None
        if known is not None:
            return succeed((known, [], []))
        return Deferred.fromCoroutine(self._search(name, cls, type))

    def _known(self, name: bytes, type: int) -> list[Any] | None:
        addresses = searchFileForAll(self._hosts, canonical(name))
        if not addresses:
            return None
        payloads = [dns.Record_AAAA(each) if ":" in each else dns.Record_A(each) for each in addresses]
        return [dns.RRHeader(name, type, dns.IN, _LOCAL_TTL, each) for each in payloads if type == each.TYPE]

    def _configuration(self) -> ResolvConf:
        if self._servers:
            return ResolvConf(self._servers)
        try:
            return parseResolvConf(self._resolvConf.read_text("utf-8", "replace"))
        except FileNotFoundError:
            return ResolvConf()

    async def _search(self, name: bytes, cls: int, type: int) -> Records:
        """
        Look up the full names that a name can stand for, until there is one with records.
        """
        configuration = self._configuration()
        missing: DNSNameError | None = None
        empty: Records | None = None
        for candidate in configuration.candidates(name):
            try:
                message = await self._ask(dns.Query(candidate, type, cls), configuration)
            except DNSNameError as error:
                missing = missing or error
                continue
            records = (message.answers, message.authority, message.additional)
            if not message.answers:
                empty = empty or records
            elif candidate == canonical(name):
                return records
            else:
                # The name is an alias of this one, so callers find the records under the name that they know.
                alias = dns.RRHeader(name, dns.CNAME, cls, _LOCAL_TTL, dns.Record_CNAME(candidate))
                return ([alias, *message.answers], *records[1:])
        if empty is None and missing is not None:
            raise missing
        return empty or ([], [], [])

    async def _ask(self, query: dns.Query, configuration: ResolvConf) -> dns.Message:
        """
        Ask one server after the other, until one knows.

        @raise DNSNameError: there is no such name.
        @raise Exception: the last server failed with this.
        """
        failure: Exception = TimeoutError("no DNS server")
        for server in configuration.servers * configuration.attempts:
            try:
                message = await self._exchange(server, query, configuration.timeout)
                if message.rCode in (dns.OK, dns.ENAME):
                    break
                failure = self.exceptionForCode(message.rCode)(message)
            except CancelledError:
                raise
            except Exception as error:
                failure = error
        else:
            raise failure
        if message.rCode == dns.ENAME:
            raise DNSNameError(message)
        return message

    async def _exchange(self, server: tuple[str, int], query: dns.Query, timeout: float) -> dns.Message:
        request = dns.Message(secrets.randbelow(1 << 16), recDes=1)
        request.queries = [query]
        data = request.toStr()
        overDatagrams = overUDP(self._reactor, server, data, lambda reply: decode(reply, request))
        message: dns.Message = await overDatagrams.addTimeout(timeout, self._reactor)
        if not message.trunc:
            return message
        endpoint = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        overStream = overTCP(
            endpoint(self._reactor, *server, timeout=timeout),
            struct.pack("!H", len(data)) + data,
            lambda received: _decodeStream(received, request),
            limit=2 + 0xFFFF,
        )
        complete: dns.Message = await overStream.addTimeout(timeout, self._reactor)
        return complete


def decode(data: bytes, request: dns.Message) -> dns.Message | None:
    """
    Decode a message from a DNS server.

    @return: the message, or C{None} if it is not the answer to C{request}: another one that comes late, or a forged
        one.

    @raise ValueError: it is malformed.
    """
    if len(data) < 12 or data[:2] != struct.pack("!H", request.id):
        return None
    message = dns.Message()
    try:
        message.fromStr(data)
    except Exception as error:
        # Records of some types raise other exceptions than ValueError if their content is malformed.
        raise ValueError(f"malformed answer of the DNS server: {type(error).__name__}") from error
    # An incomplete message is no error of Twisted's.
    if not message.trunc and len(message.answers) != struct.unpack_from("!H", data, 6)[0]:
        raise ValueError("incomplete answer of the DNS server")
    return message if message.answer and _question(message) == _question(request) else None


def _question(message: dns.Message) -> list[tuple[bytes, int, int]]:
    return [(canonical(query.name.name), query.type, query.cls) for query in message.queries]


def _decodeStream(received: bytes, request: dns.Message) -> dns.Message | None:
    """
    Decode the first message of a connection, after its length in two bytes.
    """
    if len(received) < 2:
        return None
    end = 2 + int(struct.unpack_from("!H", received)[0])
    if len(received) < end:
        return None
    message = decode(received[2:end], request)
    if message is None or message.trunc:
        raise ValueError("the DNS server answered something else by TCP")
    return message
