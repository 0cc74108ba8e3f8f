# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.pool} with several servers that share the keys.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher

from tests.memcache.cases import MemCacheTestCase
from txconnpool.errors import PoolClosed, PoolError, ServerUnavailable
from txconnpool.memcache import InvalidArgument, MemCachePool, Server
from txconnpool.pool.service import PoolService
from txconnpool.routing.distribution import Distribution, ServerSpec
from txconnpool.testing import FakeServer, finish

LABELS = ("a", "b", "c")
KEYS = [f"key:{number}" for number in range(60)]


def ownerOf(key: str) -> int:
    """
    @return: the index of the server of a key.
    """
    return Distribution("ketama").build([ServerSpec(label=label) for label in LABELS]).locate(key.encode())


class ServersTestCase(MemCacheTestCase):
    """
    Base class of these tests.
    """

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.servers = [FakeServer(self.clock) for _ in LABELS]
        self.log: list[Any] = []
        observer: Any = self.log.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.pool = self.makePool()

    def makePool(self, **settings: Any) -> MemCachePool:
        """
        @return: a pool of all servers.
        """
        servers = [Server(server, label=label) for server, label in zip(self.servers, LABELS, strict=True)]
        pool = MemCachePool(servers, reactor=self.clock, **settings)
        self.addCleanup(finish, pool)
        return pool

    def result(self, answer: Deferred[Any]) -> Any:
        """
        @return: the result after all events that are due.
        """
        self.clock.advance(0)
        return self.successResultOf(answer)

    def fill(self, pool: MemCachePool | None = None) -> None:
        """
        Store all keys, and forget the requests.
        """
        answers = [(pool or self.pool).set(key, key.encode()) for key in KEYS]
        self.clock.advance(0)
        self.assertEqual(self.results(answers), [True] * len(KEYS))
        for server in self.servers:
            for connection in server.connections:
                connection.received = b""

    def received(self) -> list[bytes]:
        """
        @return: what each server has received.
        """
        return [b"".join(each.received for each in server.connections) for server in self.servers]

    def lose(self, index: int, pool: MemCachePool | None = None) -> None:
        """
        A server goes down, and is found to be when it is used.
        """
        self.clock.advance(2)
        self.servers[index].refuse()
        self.servers[index].reset()
        self.clock.advance(0)
        answer = (pool or self.pool).delete(next(key for key in KEYS if ownerOf(key) == index))
        self.clock.pump([0.1] * 10)
        self.failureResultOf(answer, PoolError)

    def logged(self, text: str) -> list[Any]:
        """
        @return: the log events with a text.
        """
        return [event for event in self.log if text in (event.get("log_format") or "")]


class KeyTests(ServersTestCase):
    """
    Each request goes to the server of its key.
    """

    def test_sameAsDistribution(self) -> None:
        """
        Keys are stored on the servers on which the distribution has them, and are found there.
        """
        self.fill()
        for key in KEYS:
            stored = [server.store.peek(key.encode()) is not None for server in self.servers]
            self.assertEqual(stored, [index == ownerOf(key) for index in range(3)], key)
        answers = [self.pool.get(key) for key in KEYS]
        self.clock.advance(0)
        self.assertEqual(self.results(answers), [(0, key.encode()) for key in KEYS])

    def test_commands(self) -> None:
        """
        Every command with a key is sent to the server of the key only.
        """
        self.fill()
        for name, arguments in (
            ("get", ()),
            ("gets", ()),
            ("getAndTouch", (0,)),
            ("set", (b"1",)),
            ("add", (b"1",)),
            ("replace", (b"1",)),
            ("append", (b"1",)),
            ("prepend", (b"1",)),
            ("checkAndSet", (b"1", b"1")),
            ("increment", ()),
            ("decrement", ()),
            ("touch", (0,)),
            ("delete", ()),
        ):
            self.result(self.pool.performRequest(name, KEYS[0], *arguments))
            self.assertEqual([bool(each) for each in self.received()], [i == ownerOf(KEYS[0]) for i in range(3)], name)
        self.failureResultOf(self.pool.get("a b"), InvalidArgument)

    def test_batches(self) -> None:
        """
        Gets of one turn are one request to each server.
        """
        self.fill()
        answers = [self.pool.get(key) for key in KEYS]
        self.clock.advance(0)
        self.results(answers)
        expected = [
            b"get %b\r\n" % " ".join(key for key in KEYS if ownerOf(key) == index).encode() for index in range(3)
        ]
        self.assertEqual(self.received(), expected)

    def test_words(self) -> None:
        """
        Endpoint strings may have words; the label is the one of the distribution.
        """
        pool = MemCachePool(["memory: label=a", "memory:name=x label=b weight=2"], reactor=self.clock)
        self.assertEqual([server.name for server in pool.servers], ["memory:", "memory:name=x"])
        event = self.logged("the keys are distributed")[-1]
        self.assertEqual((event["count"], event["distribution"]), (2, "ketama"))

    def test_forKey(self) -> None:
        """
        C{forKey} leases connections to the server of the key.
        """
        for key in KEYS[:10]:
            for each in (self.pool.forKey(key), self.pool.forKey(key.encode())):
                client = self.result(each.acquire())
                self.assertIs(client.record.server, self.pool.servers[ownerOf(key)])
                self.pool.release(client)


class SeveralKeysTests(ServersTestCase):
    """
    C{getMultiple} with keys of several servers.
    """

    def test_split(self) -> None:
        """
        Each server gets one request for its keys, at the same time. The result has the order of the keys.
        """
        self.fill()
        for server in self.servers:
            server.hold()
        answer = self.pool.getMultiple([*KEYS, "missing"])
        self.clock.advance(0)
        self.assertEqual([each.count(b"get ") for each in self.received()], [1, 1, 1])
        for server in reversed(self.servers):
            server.release()
        found = self.result(answer)
        self.assertEqual(list(found), [*KEYS, "missing"])
        self.assertEqual(found, {**{key: (0, key.encode()) for key in KEYS}, "missing": (0, None)})

    def test_misses(self) -> None:
        """
        The keys of a server that has failed are misses. This is counted, and logged once.
        """
        self.fill()
        self.lose(1)
        for withIdentifier, miss in ((False, (0, None)), (True, (0, b"", None))):
            found = self.result(self.pool.getMultiple(KEYS, withIdentifier))
            self.assertEqual([key for key in KEYS if found[key] == miss], [key for key in KEYS if ownerOf(key) == 1])
            self.assertEqual(list(found), KEYS)
        self.assertEqual(self.pool.stats.partial, 2)
        self.assertEqual([event["what"] for event in self.logged("getMultiple gets")], ["misses for its keys"])

    def test_lostInFlight(self) -> None:
        """
        A server that fails while it has the request costs its own keys too.
        """
        self.fill()
        self.clock.advance(2)
        self.servers[0].hold()
        answer = self.pool.getMultiple(KEYS)
        self.clock.advance(0)
        self.servers[0].refuse()
        self.servers[0].reset()
        self.clock.pump([0.1] * 10)
        found = self.successResultOf(answer)
        self.assertEqual([key for key in KEYS if found[key][1] is None], [key for key in KEYS if ownerOf(key) == 0])

    def test_error(self) -> None:
        """
        With C{partialGets="error"} the call fails. It is counted and logged too.
        """
        pool = self.makePool(partialGets="error")
        self.fill(pool)
        self.lose(1, pool)
        answer = pool.getMultiple(KEYS)
        self.clock.advance(0)
        self.failureResultOf(answer, ServerUnavailable)
        self.assertEqual(pool.stats.partial, 1)
        self.assertEqual([event["what"] for event in self.logged("getMultiple gets")], ["an error"])

    def test_single(self) -> None:
        """
        A C{get} of a key whose server has failed fails; others do not.
        """
        self.fill()
        self.lose(1)
        answers = [self.pool.get(key) for key in KEYS]
        self.clock.advance(0)
        for key, answer in zip(KEYS, answers, strict=True):
            if ownerOf(key) == 1:
                self.failureResultOf(answer, ServerUnavailable)
            else:
                self.assertEqual(self.successResultOf(answer), (0, key.encode()))

    def test_cancel(self) -> None:
        """
        A cancelled call is not sent.
        """
        self.fill()
        answer = self.pool.getMultiple(KEYS)
        answer.addErrback(lambda failure: None)
        answer.cancel()
        self.clock.advance(0)
        self.assertEqual(self.received(), [b"", b"", b""])

    def test_closed(self) -> None:
        """
        A closed pool has errors, not misses.
        """
        self.fill()
        self.result(self.pool.close())
        answers: list[Deferred[Any]] = [self.pool.getMultiple(KEYS), self.pool.get("a"), self.pool.version()]
        answers += [self.pool.flushAll(), self.pool.getAndTouch("a", 1), self.pool.set("a", b"")]
        for answer in answers:
            self.failureResultOf(answer, PoolClosed)

    def test_nothing(self) -> None:
        """
        No keys have no values, and a wrong key is an error.
        """
        self.assertEqual(self.successResultOf(self.pool.getMultiple([])), {})
        self.failureResultOf(self.pool.getMultiple(["a", "b c"]), InvalidArgument)


class RehashTests(ServersTestCase):
    """
    The option C{onFailure}.
    """

    def test_rehash(self) -> None:
        """
        With C{"rehash"} the keys of a server that is down go to the others, and back to it when it is up.
        """
        pool = self.makePool(onFailure="rehash")
        self.fill(pool)
        self.lose(1, pool)
        self.assertEqual([event["server"] for event in self.logged("of the keys have another")][-1:],
                         [pool.servers[1].name])  # fmt: skip
        answers = [pool.set(key, b"new") for key in KEYS]
        self.clock.advance(0)
        self.assertEqual(self.results(answers), [True] * len(KEYS))
        self.assertEqual(set(self.result(pool.getMultiple(KEYS)).values()), {(0, b"new")})
        self.servers[1].accept()
        self.clock.pump([0.5] * 4)
        self.assertEqual(self.result(pool.get(next(key for key in KEYS if ownerOf(key) == 1)))[1][:3], b"key")

    def test_least(self) -> None:
        """
        C{minLiveServers} keep their keys in any case.
        """
        pool = self.makePool(onFailure="rehash", minLiveServers=3)
        self.fill(pool)
        self.lose(1, pool)
        self.assertEqual(self.logged("of the keys have another"), [])


class AllServersTests(ServersTestCase):
    """
    Requests that concern all servers.
    """

    def test_flushAll(self) -> None:
        """
        C{flushAll} deletes the keys of every server.
        """
        self.fill()
        self.assertIs(self.result(self.pool.flushAll()), True)
        self.assertEqual(self.received(), [b"flush_all\r\n"] * 3)

    def test_flushAllWithoutOne(self) -> None:
        """
        If one of the servers has failed, C{flushAll} fails, and the others have deleted their keys.
        """
        self.fill()
        self.lose(1)
        answer = self.pool.flushAll()
        self.clock.advance(0)
        self.failureResultOf(answer, PoolError)
        self.assertEqual([b"flush_all\r\n" in each for each in self.received()], [True, False, True])

    def test_version(self) -> None:
        """
        A server that is up is asked for its version.
        """
        self.fill()
        self.lose(0)
        self.assertTrue(self.result(self.pool.version()))

    def test_statistics(self) -> None:
        """
        The statistics of all servers have the numbers of the servers in their names.
        """
        self.fill()
        found = self.result(self.pool.serverStats())
        counts = [int(found[b"%d:curr_items" % number]) for number in (1, 2, 3)]
        self.assertEqual(counts, [sum(ownerOf(key) == index for key in KEYS) for index in range(3)])
        self.lose(1)
        found = self.result(self.pool.serverStats())
        self.assertIn(b"upstream unavailable", found[b"2:error"])
        self.failureResultOf(self.pool.serverStats("a\0"), InvalidArgument)


class LifeTests(ServersTestCase):
    """
    How a pool of several servers starts and closes.
    """

    def test_onDemand(self) -> None:
        """
        Connections are opened where there is work.
        """
        self.pool.start()
        self.clock.advance(0)
        self.assertEqual([server.dials for server in self.servers], [0, 0, 0])
        self.result(self.pool.get(KEYS[0]))
        self.assertEqual([server.dials for server in self.servers], [int(i == ownerOf(KEYS[0])) for i in range(3)])

    def test_ready(self) -> None:
        """
        C{ready} waits for a connection to each server.
        """
        self.result(self.pool.ready())
        self.assertEqual(self.pool.stats.connections, 3)
        self.result(self.pool.ready(5))
        self.assertEqual(self.pool.stats.connections, 5)
        self.failureResultOf(self.pool.ready(6), ValueError)

    def test_notReady(self) -> None:
        """
        C{ready} fails if a server is down, which the error names.
        """
        self.servers[2].refuse()
        answer = self.pool.ready(timeout=3)
        self.clock.pump([0.1] * 40)
        self.assertIn("not ready within 3 s", str(self.failureResultOf(answer, PoolError).value))

    def test_maximum(self) -> None:
        """
        C{maxClients} bounds the connections to all servers together; each may have one.
        """
        for maximum, expected in ((2, [1, 1, 1]), (4, [2, 1, 1]), (9, [3, 3, 3])):
            pool = self.makePool(maxClients=maximum)
            self.assertEqual([each.limits.maximum for each in pool._router.pools], expected)
            self.assertEqual((pool.stats.maximum, pool.limits.maximum), (maximum, maximum))
            pool.suggestMaxClients(3)
            self.assertEqual([each.limits.maximum for each in pool._router.pools], [1, 1, 1])

    def test_service(self) -> None:
        """
        The pool may be a service.
        """
        service = PoolService(self.makePool(minClients=3))
        service.startService()
        self.clock.advance(0)
        self.assertEqual([len(server.connections) for server in self.servers], [1, 1, 1])
        stopped = service.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual([len(server.connections) for server in self.servers], [0, 0, 0])

    def test_waiters(self) -> None:
        """
        Waiters of all servers count together.
        """
        pool = self.makePool(maxWaiting=2, batchSize=1)
        for server in self.servers:
            server.hang()
        answers = [pool.get(key) for key in KEYS[:3]]
        self.clock.advance(0)
        self.assertEqual((pool.waiting, pool.stats.waiting, pool.stats.rejected), (2, 2, 1))
        for server in self.servers:
            server.accept()
        self.clock.advance(0)
        self.assertEqual(self.results(answers[:2]), [(0, None)] * 2)
        self.failureResultOf(answers[2], PoolError)

    def test_wrong(self) -> None:
        """
        Options that are wrong are errors of the constructor.
        """
        for servers, options, text in (
            (["tcp:a:1", "tcp:a:1"], {}, "tcp:a:1 is given twice"),
            (["tcp:a:1 wait=2"], {}, "unknown word 'wait=2'"),
            (["tcp:a:1", "tcp:b:1"], {"distribution": "magic"}, "unknown distribution 'magic'"),
            (["tcp:a:1", "tcp:b:1"], {"hash": "magic"}, "wrong hash 'magic'"),
            (["tcp:a:1", "tcp:b:1"], {"hashTag": "{"}, "wrong hash tag"),
            (["tcp:a:1", "tcp:b:1"], {"onFailure": "ignore"}, "onFailure must be 'fail' or 'rehash'"),
            (["tcp:a:1", "tcp:b:1"], {"partialGets": "some"}, "partialGets must be 'misses' or 'error'"),
            (["tcp:a:1", "tcp:b:1"], {"minLiveServers": 3}, "minLiveServers must be a whole number from 1 to"),
            (["tcp:a:1", "tcp:b:1"], {"ejectAfter": 0}, "ejectAfter must be a whole number of at least 1"),
            (["tcp:a:1", "tcp:b:1 weight=2"], {"distribution": "round-robin"}, "tcp:b:1 has a weight"),
            (["tcp:a:1", "nonsense"], {}, "nonsense"),
            ([self.servers[0], self.servers[1]], {}, "needs a label"),
        ):
            error = self.assertRaises(ValueError, MemCachePool, servers, reactor=self.clock, **options)
            self.assertIn(text, str(error))
        error = self.assertRaises(TypeError, MemCachePool, ["tcp:a:1"], reactor=self.clock, pipelinedepth=1)
        self.assertIn("MemCachePool has no parameter 'pipelinedepth'", str(error))


class ChangeTests(ServersTestCase):
    """
    Changes of the servers.
    """

    def test_addAndRemove(self) -> None:
        """
        A server may be added and removed, and gets its part of the keys.
        """
        pool = MemCachePool(
            [Server(self.servers[0], label="a"), Server(self.servers[1], label="b")], reactor=self.clock
        )
        self.addCleanup(finish, pool)
        pool.addServer(Server(self.servers[2], label="c"))
        self.fill(pool)
        self.assertEqual(
            [server.store.peek(KEYS[0].encode()) is not None for server in self.servers],
            [index == ownerOf(KEYS[0]) for index in range(3)],
        )
        pool.removeServer(self.servers[2])
        self.clock.advance(0)
        self.assertEqual(len(pool.servers), 2)
        self.assertEqual(self.servers[2].connections, [])

    def test_one(self) -> None:
        """
        A pool that was made for one server gets no second one, which would get none of its keys.
        """
        pool = MemCachePool(self.servers[0], reactor=self.clock)
        self.addCleanup(finish, pool)
        error = self.assertRaises(ValueError, pool.addServer, self.servers[1])
        self.assertIn("cannot get another", str(error))

    def test_drain(self) -> None:
        """
        The keys of a server that is drained fail until it is restored. All servers may be paused.
        """
        self.fill()
        key = next(key for key in KEYS if ownerOf(key) == 2)
        for address in (self.servers[2], self.pool.servers[2].address):
            self.pool.drain(address)
            self.clock.advance(0)
            self.failureResultOf(self.pool.set(key, b""), ServerUnavailable)
            self.pool.restore(address)
            self.assertIs(self.result(self.pool.set(key, b"")), True)
        self.pool.pause()
        self.assertTrue(self.pool.paused)
        answer = self.pool.set(key, b"")
        self.assertGreaterEqual(self.pool.longestWait, 0.0)
        self.clock.advance(1)
        self.assertNoResult(answer)
        self.pool.resume()
        self.assertIs(self.result(answer), True)
        self.pool.markDown(self.servers[0], ConnectionError())
        self.assertEqual([server.failures for server in self.pool.servers], [1, 0, 0])
        closed, old = self.pool.stats.closed, self.pool.connections
        self.pool.expire()
        self.clock.pump([0.1] * 20)
        self.assertEqual(self.pool.counters.closed, closed + len(old))
        self.assertEqual(len(self.pool.records), len(self.pool.connections))
        self.pool.setConnectTimeout(1)
        self.pool.selfCheck()
        self.assertRaises(ValueError, self.pool.drain, "tcp:nowhere:1")
