# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.sentinels}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.net.discovery.resolvers import FakeResolver
from txconnpool.net.discovery import Discovery, sentinels
from txconnpool.net.discovery.descriptions import REPLICA, Discovered, endpointsOf, parse
from txconnpool.net.discovery.results import Answer, explain
from txconnpool.net.discovery.sentinels import (
    AGAIN,
    REPLY_MAX,
    UNREADABLE,
    Sentinels,
    parseGroup,
    parseMaster,
    readReply,
    request,
)

ASKED = request(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"cache")
GROUP = request(b"SENTINEL", b"MASTER", b"cache") + request(b"SENTINEL", b"REPLICAS", b"cache")
SUBSCRIBED = request(
    b"SUBSCRIBE", b"+switch-master", b"+sdown", b"-sdown", b"+slave", b"+slave-reconf-done", b"+reboot"
)


def found(host: bytes, port: bytes = b"6379") -> bytes:
    """
    @return: the reply with a master.
    """
    return b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(host), host, len(port), port)


def message(name: bytes) -> bytes:
    """
    @return: the message that a master has changed.
    """
    text = name + b" 10.0.0.1 6379 10.0.0.2 6379"
    return b"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$%d\r\n%b\r\n" % (len(text), text)


def bulks(*texts: bytes) -> bytes:
    """
    @return: the reply with some texts.
    """
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)


def group(host: bytes, *replicas: bytes, flags: bytes = b"master") -> bytes:
    """
    @return: the replies with a master and its replicas.
    """
    described = bulks(b"name", b"cache", b"ip", host, b"port", b"6379", b"flags", flags)
    return found(host) + described + b"*%d\r\n" % len(replicas) + b"".join(replicas)


def replica(ip: bytes, flags: bytes = b"slave", link: bytes = b"ok", *more: bytes) -> bytes:
    """
    @return: the description of a replica.
    """
    return bulks(b"name", b"x", b"ip", ip, b"port", b"6379", b"flags", flags, b"master-link-status", link, *more)


class ReplyTests(SynchronousTestCase):
    """
    Tests for the parsers.
    """

    def test_pieces(self) -> None:
        """
        A reply is found when it is complete, and not before.
        """
        for reply, value in (
            (b"+OK\r\n", "OK"),
            (b":1\r\n", "1"),
            (b"$-1\r\n", None),
            (b"*-1\r\n", None),
            (b"$3\r\na\r\n\r\n", "a\r\n"),
            (found(b"a"), ["a", "6379"]),
            (b"*0\r\n", []),
        ):
            for size in range(len(reply)):
                self.assertIsNone(readReply(b"x" + reply[:size], 1), reply[:size])
            self.assertEqual(readReply(b"x" + reply + b"+y", 1), (value, 1 + len(reply)))

    def test_broken(self) -> None:
        """
        Other bytes are no reply.
        """
        for data in (b"x", b"VALUE\r\n", b"*x\r\n", b"$-2\r\n", b"\r\n", b"*1\r\nx", b"%1\r\n", b"*999999\r\n"):
            self.assertRaises(ValueError, readReply, data, 0)

    def test_nested(self) -> None:
        """
        Arrays in arrays are wrong, and need no stack of their depth.
        """
        self.assertRaises(ValueError, readReply, b"*1\r\n" * (REPLY_MAX // 4), 0)
        self.assertRaises(ValueError, readReply, b"*1\r\n" * (REPLY_MAX // 4), 0, 2)
        self.assertEqual(readReply(b"*1\r\n*1\r\n+a\r\n", 0, 2), ([["a"]], 12))

    def test_master(self) -> None:
        """
        The address of a master is read, after the reply to a login.
        """
        for reply, address in (
            (found(b"10.0.0.1"), ("10.0.0.1", 6379)),
            (found(b"a.example.org", b"1"), ("a.example.org", 1)),
            (found(b"::1"), ("::1", 6379)),
        ):
            self.assertEqual(parseMaster(reply, 1), address)
            self.assertEqual(parseMaster(b"+OK\r\n" + reply, 2), address)
            self.assertIsNone(parseMaster(reply, 2))

    def test_noMaster(self) -> None:
        """
        The error says what the sentinel has answered.
        """
        for reply, text in (
            (b"*-1\r\n", "it knows no master of this name"),
            (b"-NOAUTH Authentication required.\r\n", "it answers NOAUTH Authentication required."),
            (b"-ERR unknown command\r\n", "it answers ERR unknown command"),
            (b"+OK\r\n", "not a reply of a sentinel"),
            (b"*1\r\n+a\r\n", "not a reply of a sentinel"),
            (b"*2\r\n+a\r\n*-1\r\n", "not a reply of a sentinel"),
            (found(b"a b"), "the master has the wrong address 'a b'"),
            (found(b"a", b"0"), "wrong port '0'; expected a number from 1 to 65535"),
        ):
            error = self.assertRaises(ValueError, parseMaster, reply, 1)
            self.assertEqual(str(error), text)
        self.assertRaises(ValueError, parseMaster, b"-WRONGPASS x\r\n" + found(b"a"), 2)

    def test_group(self) -> None:
        """
        Only replicas are read that are up, have a link to their master, and may be named to clients.
        """
        good = replica(b"10.0.0.3"), replica(b"10.0.0.2", b"slave", b"ok", b"replica-announced", b"1")
        bad = (
            replica(b"10.0.0.4", b"s_down,slave"),
            replica(b"10.0.0.5", b"slave,disconnected"),
            replica(b"10.0.0.6", b"slave", b"err"),
            replica(b"10.0.0.7", b"slave", b"ok", b"replica-announced", b"0"),
            bulks(b"ip", b"10.0.0.8"),
        )
        addresses = [("10.0.0.2", 6379), ("10.0.0.3", 6379)]
        for entries, result in (
            (good, (addresses, False)),
            ((*good, *bad), (addresses, True)),
            (bad, ([], True)),
            ((), ([], False)),
            ((replica(b"10.0.0.1"),), ([], False)),
        ):
            reply = group(b"10.0.0.1", *entries)
            self.assertEqual(parseGroup(b"+OK\r\n" + reply, 4), (("10.0.0.1", 6379), *result))
            for size in range(len(reply)):
                self.assertIsNone(parseGroup(reply[:size], 3))

    def test_masterDown(self) -> None:
        """
        While the master is down, its replicas have no link to it, and are read all the same.
        """
        for flags in (b"s_down,master", b"s_down,o_down,master,failover_in_progress", b"master,disconnected"):
            entries = replica(b"10.0.0.2", b"slave", b"err"), replica(b"10.0.0.3", b"slave,s_down", b"err")
            reply = group(b"10.0.0.1", *entries, flags=flags)
            self.assertEqual(parseGroup(reply, 3), (("10.0.0.1", 6379), [("10.0.0.2", 6379)], True))

    def test_noGroup(self) -> None:
        """
        The error says what the sentinel has answered.
        """
        for reply, text in (
            (b"*-1\r\n-ERR No such master with that name\r\n" * 2, "it answers ERR No such master with that name"),
            (found(b"a") + b"+OK\r\n*0\r\n", "not a reply of a sentinel"),
            (found(b"a") + b"*0\r\n+OK\r\n", "not a reply of a sentinel"),
            (found(b"a") + b"*0\r\n*1\r\n+OK\r\n", "not a reply of a sentinel"),
            (found(b"a") + b"*0\r\n*1\r\n*1\r\n+OK\r\n", "not a reply of a sentinel"),
            (group(b"a", replica(b"a b")), "a replica has the wrong address 'a b'"),
        ):
            error = self.assertRaises(ValueError, parseGroup, reply, 3)
            self.assertEqual(str(error), text)


class SentinelsTests(SynchronousTestCase):
    """
    Tests for L{Sentinels}, with two of them.
    """

    def setUp(self) -> None:
        """
        Make the source.
        """
        self.reactor = MemoryReactorClock()
        self.sentinels = Sentinels(parse("sentinel:cache@10.0.0.8:1,10.0.0.9:2"), self.reactor, 10.0)
        self.seen = 0

    def accept(self) -> tuple[Any, StringTransport, tuple[str, int]]:
        """
        Accept the next connection.

        @return: the protocol, its transport, and the address.
        """
        host, port, factory, *_ = self.reactor.tcpClients[self.seen]
        self.seen += 1
        protocol: Any = factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport, (host, port)

    def refuse(self) -> None:
        """
        Refuse the next connection.
        """
        factory: Any = self.reactor.tcpClients[self.seen][2]
        self.seen += 1
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def test_first(self) -> None:
        """
        The sentinel that answers is the first that is asked the next time.
        """
        looking = self.sentinels.lookUp()
        self.refuse()
        protocol, transport, address = self.accept()
        self.assertEqual((transport.value(), address), (ASKED, ("10.0.0.9", 2)))
        protocol.dataReceived(found(b"10.0.0.1"))
        self.assertEqual(self.successResultOf(looking), Answer((Discovered("tcp:10.0.0.1:6379"),)))
        self.assertTrue(transport.disconnected or transport.disconnecting)
        looking = self.sentinels.lookUp()
        protocol, _, address = self.accept()
        self.assertEqual(address, ("10.0.0.9", 2))
        protocol.dataReceived(found(b"10.0.0.2"))
        self.assertEqual(self.successResultOf(looking).servers[0].endpoint, "tcp:10.0.0.2:6379")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_login(self) -> None:
        """
        A login comes before the request.
        """
        self.sentinels.login = b"user", b"secret"
        looking = self.sentinels.lookUp()
        protocol, transport, _ = self.accept()
        self.assertEqual(transport.value(), request(b"AUTH", b"user", b"secret") + ASKED)
        protocol.dataReceived(b"+OK\r\n" + found(b"10.0.0.1"))
        self.successResultOf(looking)

    def test_secure(self) -> None:
        """
        With the words for TLS, the sentinels and the master have it, with the files of this moment.
        """
        made: list[str] = []

        def endpoint(reactor: Any, description: str) -> Any:
            made.append(description)
            return TCP4ClientEndpoint(reactor, "10.0.0.9", 2)

        self.patch(sentinels, "clientEndpoint", endpoint)
        line = "sentinel:cache@10.0.0.9:2 trustRoots=/ca"
        self.assertEqual(endpointsOf(line), ["tls:10.0.0.9:2:trustRoots=/ca"])
        source = Sentinels(parse(line), self.reactor, 10.0)
        for _ in range(2):
            looking = source.lookUp()
            self.accept()[0].dataReceived(found(b"10.0.0.1"))
            master = self.successResultOf(looking).servers[0]
            self.assertEqual(master.endpoint, "tls:10.0.0.1:6379:trustRoots=/ca")
        self.assertEqual(made, endpointsOf(line) * 2)

    def test_none(self) -> None:
        """
        If no sentinel names a master, the error has what happened at each.
        """
        looking = self.sentinels.lookUp()
        self.refuse()
        self.accept()[0].dataReceived(b"*-1\r\n")
        failure = self.failureResultOf(looking)
        self.assertEqual(
            explain(failure.value), "10.0.0.8:1: connection refused; 10.0.0.9:2: it knows no master of this name"
        )

    def test_silent(self) -> None:
        """
        A sentinel that does not answer leaves time for the others.
        """
        looking = self.sentinels.lookUp()
        self.accept()
        self.reactor.advance(5.0)
        self.accept()[0].dataReceived(found(b"10.0.0.1"))
        self.successResultOf(looking)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """
        A lookup can be cancelled. No timer is left.
        """
        looking = self.sentinels.lookUp()
        self.accept()
        looking.addErrback(lambda failure: None).cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_events(self) -> None:
        """
        The change of the master is reported, that of others is not, whatever pieces the bytes come in.
        """
        events: list[int] = []
        self.sentinels.watch(lambda: events.append(1))
        protocol, transport, _ = self.accept()
        self.assertEqual(transport.value(), SUBSCRIBED)
        data = b"*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n" + message(b"other") + message(b"cache")
        for byte in data[:-1]:
            protocol.dataReceived(bytes([byte]))
        self.assertEqual(events, [])
        protocol.dataReceived(data[-1:] + message(b"cache2"))
        self.assertEqual(events, [1])
        self.sentinels.unwatch()

    def test_replicas(self) -> None:
        """
        If replicas are wanted, they are asked for, too. They are asked for again soon while one cannot be read from.
        """
        self.sentinels.replicas = True
        self.sentinels.login = b"user", b"secret"
        for others in (False, True):
            looking = self.sentinels.lookUp()
            protocol, transport, _ = self.accept()
            self.assertEqual(transport.value(), request(b"AUTH", b"user", b"secret") + ASKED + GROUP)
            replicas = replica(b"10.0.0.2"), replica(b"10.0.0.3", b"slave,s_down")
            protocol.dataReceived(b"+OK\r\n" + group(b"10.0.0.1", *replicas[: 1 + others]))
            answer = self.successResultOf(looking)
            master, other = Discovered("tcp:10.0.0.1:6379"), Discovered("tcp:10.0.0.2:6379", REPLICA)
            self.assertEqual(answer, Answer((master, other), UNREADABLE) if others else Answer((master, other)))

    def test_replicaEvents(self) -> None:
        """
        If replicas are wanted, their events are reported, and those of other masters are not.
        """
        events: list[int] = []
        self.sentinels.watch(lambda: events.append(1))
        protocol, _, _ = self.accept()
        seen = []
        for wanted in (False, True):
            self.sentinels.replicas = wanted
            for event, text in (
                (b"+sdown", b"slave 10.0.0.2:6379 10.0.0.2 6379 @ cache 10.0.0.1 6379"),
                (b"-sdown", b"slave 10.0.0.2:6379 10.0.0.2 6379 @ cache 10.0.0.1 6379"),
                (b"+slave", b"slave 10.0.0.2:6379 10.0.0.2 6379 @ other 10.0.0.1 6379"),
                (b"+sdown", b"master cache 10.0.0.1 6379"),
                (b"+sdown", b"slave"),
            ):
                protocol.dataReceived(bulks(b"message", event, text))
            seen.append(len(events))
        self.assertEqual(seen, [0, 2])
        self.sentinels.unwatch()

    def test_again(self) -> None:
        """
        A subscription that could not be made, was refused or was lost is made again, until the end.
        """
        self.sentinels.watch(lambda: None)
        self.refuse()
        protocol, _, _ = self.accept()
        protocol.connectionLost(Failure(ConnectionRefusedError()))
        self.assertEqual(len(self.reactor.getDelayedCalls()), 2)
        self.reactor.advance(AGAIN)
        for answer in (b"-NOAUTH x\r\n", b"$%d\r\n%b" % (REPLY_MAX, bytes(REPLY_MAX + 9))):
            protocol, _, _ = self.accept()
            protocol.dataReceived(answer)
            protocol.connectionLost(Failure(ConnectionRefusedError()))
        self.assertEqual(len(self.reactor.getDelayedCalls()), 2)
        self.sentinels.unwatch()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_end(self) -> None:
        """
        The end closes connections and ends dials.
        """
        self.sentinels.watch(lambda: None)
        protocol, transport, _ = self.accept()
        self.sentinels.unwatch()
        self.assertTrue(transport.disconnected or transport.disconnecting)
        protocol.connectionLost(Failure(ConnectionRefusedError()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class DiscoveryTests(SynchronousTestCase):
    """
    Tests for L{Discovery} with sentinels.
    """

    def test_hurry(self) -> None:
        """
        After an event the sentinels are asked at once, but not more often than once in a second.
        """
        reactor = MemoryReactorClock()
        discovery = Discovery("sentinel:cache@10.0.0.8:1", reactor, FakeResolver(), interval=30.0)  # type: ignore[arg-type]
        changes: list[Any] = []

        def answer(host: bytes) -> None:
            """
            Answer the last request.
            """
            protocol: Any = reactor.tcpClients[-1][2].buildProtocol(None)
            protocol.makeConnection(StringTransport())
            protocol.dataReceived(found(host))

        reactor.advance(100.0)
        discovery.start(changes.append)
        self.assertEqual(len(reactor.tcpClients), 2)
        answer(b"10.0.0.1")
        self.assertEqual(changes, [(Discovered("tcp:10.0.0.1:6379"),)])
        for _ in range(3):
            discovery.hurry()
        self.assertEqual(len(reactor.tcpClients), 2)
        reactor.advance(1.0)
        self.assertEqual(len(reactor.tcpClients), 3)
        answer(b"10.0.0.2")
        self.assertEqual(changes[1:], [(Discovered("tcp:10.0.0.2:6379"),)])
        reactor.advance(29.0)
        self.assertEqual(len(reactor.tcpClients), 3)
        discovery.hurry()
        reactor.advance(0.0)
        self.assertEqual(len(reactor.tcpClients), 4)
        answer(b"10.0.0.2")
        reactor.advance(2.0)
        discovery.replicas = True
        reactor.advance(0.0)
        self.assertEqual(len(reactor.tcpClients), 5)
        discovery.stop()
        discovery.hurry()
        self.assertEqual(reactor.getDelayedCalls(), [])
