# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.nameservers}.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IResolver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSQueryRefusedError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.net.discovery.resolvers import addresses, record
from tests.net.discovery.udpserver import PATIENCE, UDPServer, read
from txconnpool.net.discovery.nameservers import NameServers, decode
from txconnpool.net.discovery.records import follow


def answer(request: bytes, *records: dns.RRHeader, **options: Any) -> bytes:
    """
    @return: the message that answers another one.
    """
    asked = dns.Message()
    asked.fromStr(request)
    message = dns.Message(**{"id": asked.id, "answer": 1, "maxSize": 0, **options})
    message.queries = asked.queries
    message.answers = list(records)
    return message.toStr()


class NameServersCase(SynchronousTestCase):
    """
    Tests of a resolver with two DNS servers.
    """

    def setUp(self) -> None:
        """
        Create the servers and the resolver.
        """
        self.reactor = MemoryReactorClock()
        self.first, self.second = UDPServer(), UDPServer()
        for server in (self.first, self.second):
            self.addCleanup(server.close)
        self.resolver = NameServers(self.reactor, (self.first.address, self.second.address))

    def assertClean(self) -> None:
        """
        No socket and no timer is left.
        """
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))

    def ips(self, looking: Deferred[Any], name: bytes = b"cache.example") -> list[str]:
        answers, _, _ = self.successResultOf(looking)
        self.assertClean()
        return [payload.dottedQuad() for payload in follow(name, dns.A, answers).payloads]


class LookupTests(NameServersCase):
    """
    Tests for lookups.
    """

    def test_answer(self) -> None:
        """
        The records of the first server's answer are the result.
        """
        verifyObject(IResolver, self.resolver)
        looking = self.resolver.lookupAddress("cache.example")
        request = self.first.receive()
        message = dns.Message()
        message.fromStr(request)
        self.assertEqual((message.queries, message.recDes), ([dns.Query("cache.example", dns.A)], 1))
        self.first.send(self.reactor, answer(request, *addresses("cache.example", "10.0.0.1", "10.0.0.2")))
        self.assertEqual(self.ips(looking), ["10.0.0.1", "10.0.0.2"])

    def test_random(self) -> None:
        """
        Questions have random identifiers.
        """
        found = set()
        for _ in range(4):
            looking = self.resolver.lookupAddress("cache.example")
            found.add(self.first.receive()[:2])
            looking.addErrback(lambda failure: None).cancel()
        self.assertGreater(len(found), 1)

    def test_noSuchName(self) -> None:
        """
        "No such name" is final, whichever server says so.
        """
        looking = self.resolver.lookupAddress("cache.example")
        self.first.send(self.reactor, answer(self.first.receive(), rCode=dns.ENAME))
        self.failureResultOf(looking, DNSNameError)
        self.assertClean()

    def test_empty(self) -> None:
        """
        A name without records of this type is no error.
        """
        looking = self.resolver.lookupIPV6Address("cache.example")
        self.first.send(self.reactor, answer(self.first.receive()))
        self.assertEqual(self.successResultOf(looking), ([], [], []))

    def test_nextServer(self) -> None:
        """
        If a server hangs, answers with an error or garbage, or does not listen, the next one is asked.
        """
        for rCode, error in ((dns.ESERVER, DNSServerError), (dns.EREFUSED, DNSQueryRefusedError)):
            looking = self.resolver.lookupAddress("cache.example")
            self.first.send(self.reactor, answer(self.first.receive(), rCode=rCode))
            self.second.send(self.reactor, answer(self.second.receive(), *addresses("cache.example", "10.0.0.1")))
            self.assertEqual(self.ips(looking), ["10.0.0.1"])
            looking = self.resolver.lookupAddress("cache.example")
            for server in (self.first, self.second, self.first, self.second):
                self.assertNoResult(looking)
                server.send(self.reactor, answer(server.receive(), rCode=rCode))
            self.failureResultOf(looking, error)
            self.assertClean()

    def test_hang(self) -> None:
        """
        A server that hangs costs two seconds. If all hang twice, the lookup fails.
        """
        looking = self.resolver.lookupAddress("cache.example")
        for server in (self.first, self.second, self.first):
            server.receive()
            self.reactor.advance(1.9)
            self.assertEqual(len(self.reactor.readers), 1)
            self.reactor.advance(0.1)
        self.assertNoResult(looking)
        self.reactor.advance(2)
        self.failureResultOf(looking, TimeoutError)
        self.assertClean()

    def test_garbage(self) -> None:
        """
        What is no answer to the question is ignored. A malformed answer leads to the next server.
        """
        looking = self.resolver.lookupAddress("cache.example")
        request = self.first.receive()
        right = answer(request, *addresses("cache.example", "10.0.0.1"))
        other = dns.Message(struct.unpack("!H", request[:2])[0])
        other.addQuery("other.example", dns.A)
        for data in (b"", b"x", bytes(50), b"\0\0" + right[2:], request, answer(other.toStr())):
            self.first.send(self.reactor, data)
            self.assertEqual(len(self.reactor.readers), 1)
        self.first.send(self.reactor, right[:-3])
        self.second.send(self.reactor, answer(self.second.receive(), *addresses("cache.example", "10.0.0.2")))
        self.assertEqual(self.ips(looking), ["10.0.0.2"])

    def test_refused(self) -> None:
        """
        If no server listens, the lookup fails at once.
        """
        self.first.close()
        self.second.close()
        looking = self.resolver.lookupAddress("cache.example")
        for _ in range(4):
            read(self.reactor, PATIENCE)
        self.failureResultOf(looking, ConnectionRefusedError)
        self.assertClean()

    def test_cancel(self) -> None:
        """
        Cancelling a lookup ends it, and asks no other server.
        """
        looking = self.resolver.lookupAddress("cache.example")
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.assertClean()


class LongAnswerTests(NameServersCase):
    """
    Tests for answers that do not fit into a datagram.
    """

    def setUp(self) -> None:
        """
        Get a truncated answer, which is followed by a TCP connection.
        """
        super().setUp()
        self.looking = self.resolver.lookupAddress("cache.example")
        self.request = self.first.receive()
        self.first.send(self.reactor, answer(self.request, trunc=1))
        host, port, self.factory, *_ = self.reactor.tcpClients[0]
        self.assertEqual((host, port), self.first.address)
        self.aborted: list[None] = []

    def connect(self) -> Any:
        """
        Establish the connection.
        """
        protocol: Any = self.factory.buildProtocol(None)
        transport = StringTransport()
        self.patch(transport, "abortConnection", lambda: self.aborted.append(None))
        protocol.makeConnection(transport)
        self.assertEqual(transport.value(), struct.pack("!H", len(self.request)) + self.request)
        return protocol

    def test_answer(self) -> None:
        """
        The whole answer comes by TCP, and the connection is closed then.
        """
        ips = [f"10.0.{number}.1" for number in range(200)]
        message = answer(self.request, *addresses("cache.example", *ips))
        data = struct.pack("!H", len(message)) + message
        protocol = self.connect()
        for start in range(0, len(data), 7):
            self.assertNoResult(self.looking)
            protocol.dataReceived(data[start : start + 7])
        self.assertEqual((self.ips(self.looking), len(self.aborted)), (ips, 1))

    def test_wrong(self) -> None:
        """
        After anything else the next server is asked.
        """
        protocol = self.connect()
        protocol.dataReceived(b"\0\14" + bytes(12))
        self.second.send(self.reactor, answer(self.second.receive(), *addresses("cache.example", "10.0.0.1")))
        self.assertEqual((self.ips(self.looking), len(self.aborted)), (["10.0.0.1"], 1))

    def test_hang(self) -> None:
        """
        After two seconds the next server is asked.
        """
        self.reactor.advance(2)
        self.second.send(self.reactor, answer(self.second.receive(), *addresses("cache.example", "10.0.0.1")))
        self.assertEqual(self.ips(self.looking), ["10.0.0.1"])

    def test_cancel(self) -> None:
        """
        Cancelling the lookup ends it in any state of the connection.
        """
        self.looking.cancel()
        self.failureResultOf(self.looking, CancelledError)
        self.assertClean()
        self.setUp()
        self.connect()
        self.looking.cancel()
        self.failureResultOf(self.looking, CancelledError)
        self.assertClean()
        self.assertEqual(len(self.aborted), 1)


class SystemTests(NameServersCase):
    """
    Tests for the configuration of the system's resolver.
    """

    def setUp(self) -> None:
        """
        Create a resolver with files of its own.
        """
        super().setUp()
        self.resolvConf, self.hosts = Path(self.mktemp()), Path(self.mktemp())
        self.resolver = NameServers(self.reactor, (), str(self.resolvConf), str(self.hosts))

    def configure(self, **options: Any) -> None:
        """
        Ask the first server, with other options of the configuration.
        """
        configuration = self.resolver._configuration()
        fields = {name: getattr(configuration, name) for name in configuration.__slots__}
        changed = type(configuration)(**{**fields, "servers": (self.first.address,), **options})
        self.patch(self.resolver, "_configuration", lambda: changed)

    def test_hosts(self) -> None:
        """
        A name in the file of hosts has the addresses that are there, and no others.
        """
        self.hosts.write_text("10.0.0.1 a Cache.example # b\n10.0.0.2 cache.example\n::1 six\n")
        for name in ("cache.example", "CACHE.example."):
            self.assertEqual(self.ips(self.resolver.lookupAddress(name), name.encode()), ["10.0.0.1", "10.0.0.2"])
        answers, _, _ = self.successResultOf(self.resolver.lookupIPV6Address("six"))
        self.assertEqual([each.payload for each in answers], [dns.Record_AAAA("::1", answers[0].payload.ttl)])
        self.assertEqual(self.successResultOf(self.resolver.lookupAddress("six"))[0], [])

    def test_resolvConf(self) -> None:
        """
        The configuration is read for each lookup. Without a file the local server is asked.
        """
        self.assertEqual(self.resolver._configuration().servers, (("127.0.0.1", 53),))
        self.resolvConf.write_text("nameserver 10.0.0.53\n")
        self.assertEqual(self.resolver._configuration().servers, (("10.0.0.53", 53),))

    def test_search(self) -> None:
        """
        The search domains are tried one after the other. The name that has records becomes an alias.
        """
        self.configure(search=(b"a.example", b"example"))
        looking = self.resolver.lookupAddress("cache")
        self.first.send(self.reactor, answer(self.first.receive(), rCode=dns.ENAME))
        self.first.send(self.reactor, answer(self.first.receive(), *addresses("cache.example", "10.0.0.1", ttl=9)))
        answers, _, _ = self.successResultOf(looking)
        found = follow(b"cache", dns.A, answers)
        self.assertEqual((found.name, len(found.payloads), found.ttl), (b"cache.example", 1, 9))

    def test_searchFails(self) -> None:
        """
        If no name has records, the name does not exist, or has no records if one of them exists.
        """
        self.configure(search=(b"example",))
        for second, failed in ((dns.ENAME, True), (dns.OK, False)):
            looking = self.resolver.lookupAddress("cache")
            self.first.send(self.reactor, answer(self.first.receive(), rCode=dns.ENAME))
            self.first.send(self.reactor, answer(self.first.receive(), rCode=second))
            if failed:
                self.failureResultOf(looking, DNSNameError)
            else:
                self.assertEqual(self.successResultOf(looking), ([], [], []))


class DecodeTests(SynchronousTestCase):
    """
    Tests for L{decode}.
    """

    def setUp(self) -> None:
        """
        Create a question and its answer.
        """
        self.request = dns.Message(7, recDes=1)
        self.request.addQuery("cache.example", dns.A)
        self.answer = answer(
            self.request.toStr(),
            record("cache.example", dns.Record_CNAME("b")),
            *addresses("b", "10.0.0.1", "10.0.0.2"),
        )

    def test_right(self) -> None:
        """
        The answer to a question is decoded. The spelling of the name may differ.
        """
        for data in (self.answer, self.answer.replace(b"cache", b"cAcHe", 1)):
            message = decode(data, self.request)
            assert message is not None
            self.assertEqual(len(message.answers), 3)

    def test_cut(self) -> None:
        """
        A part of an answer is no shorter answer.
        """
        for end in range(len(self.answer)):
            try:
                self.assertIsNone(decode(self.answer[:end], self.request))
            except ValueError as error:
                self.assertIn("answer of the DNS server", str(error))

    def test_broken(self) -> None:
        """
        Whatever bytes come, there is a message, nothing, or a C{ValueError}.
        """
        for position in range(2, len(self.answer)):
            for byte in (0, 1, 0x3F, 0xC0, 0xFF):
                data = bytearray(self.answer)
                data[position] = byte
                try:
                    decode(bytes(data), self.request)
                except ValueError:
                    pass
