# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.checks}, with the pools that call them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool import RedisPool
from txconnpool.config import ConfigError, PoolSettings
from txconnpool.memcache import JSONSerializer, MemCachePool, Server
from txconnpool.pool import Backoff, Pool
from txconnpool.pool.service import PoolService

SERVER = ("127.0.0.1", 7)

SECONDS = "must be a number of seconds from 0, or None"
ABOVE = "must be a number of seconds above 0, or None"

#: Parameters that all pools have, and what the error says.
WRONG: tuple[tuple[str, Any, type[Exception], str], ...] = (
    *((name, "5", TypeError, SECONDS) for name in ("waitTimeout", "idleTimeout", "maxLifetime", "checkIfIdleFor")),
    *((name, -1, ValueError, SECONDS) for name in ("waitTimeout", "idleTimeout", "maxLifetime", "keepAlive")),
    *((name, "5", TypeError, ABOVE) for name in ("connectTimeout", "leakThreshold", "requestTimeout")),
    *((name, 0, ValueError, ABOVE) for name in ("connectTimeout", "leakThreshold", "requestTimeout")),
    ("waitTimeout", True, TypeError, SECONDS),
    ("waitTimeout", float("nan"), ValueError, SECONDS),
    ("maxClients", "5", TypeError, "must be a whole number of at least 1"),
    ("maxClients", 0, ValueError, "must be a whole number of at least 1"),
    ("minClients", 9, ValueError, "must be at most maxClients, 5"),
    ("minClients", -1, ValueError, "must be a whole number of at least 0"),
    ("pipelineDepth", 1.5, TypeError, "must be a whole number of at least 1"),
    ("pipelineDepth", 0, ValueError, "must be a whole number of at least 1"),
    ("maxWaiting", 0, ValueError, "must be a whole number of at least 1, or None"),
    ("whenDown", "3", TypeError, "must be a whole number of at least 1, or None"),
    *((name, 1, TypeError, "must be a function, or None") for name in ("configure", "check", "reset")),
    ("lifetimeJitter", "x", TypeError, "must be a number from 0 to less than 1"),
    ("lifetimeJitter", 1, ValueError, "must be a number from 0 to less than 1"),
    ("backoff", 1, TypeError, "must be a Backoff, such as Backoff(initial=0.1, maximum=5), or None"),
    ("observer", 1, TypeError, "must be an IPoolObserver, such as an instance of a subclass of PoolObserver, or None"),
    ("name", 5, TypeError, "must be a text, or None"),
    ("reactor", 5, TypeError, "must be a reactor, or None for the global one"),
    ("allowedCommands", "get", TypeError, "must be a set of names, such as {'get'}, or None"),
    ("reuse", "newest", ValueError, "must be 'lifo', 'fifo' or 'least-loaded'"),
    ("ejectAfter", "2", TypeError, "must be a whole number of at least 1"),
    ("minLiveServers", 2, ValueError, "must be a whole number from 1 to 1"),
    ("hashTag", 5, TypeError, "must be a text, or None"),
)


def makePool(**options: Any) -> Any:
    defaults = {"reactor": MemoryReactorClock(), "clientFactory": Factory.forProtocol(Protocol)}
    return Pool(SERVER, **defaults | options)


def makeMemCachePool(**options: Any) -> Any:
    return MemCachePool(SERVER, **{"reactor": MemoryReactorClock()} | options)


class CheckTests(SynchronousTestCase):
    """
    Tests that wrong parameters are refused at once, by the name that the caller wrote.
    """

    def refuses(self, kind: type[Exception], text: str, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """
        Check the error of a call.
        """
        self.assertEqual(str(self.assertRaises(kind, f, *args, **kwargs)), text)

    def test_parameters(self) -> None:
        """
        The error for a parameter names it, what is expected, and what was given.
        """
        for make in (makePool, makeMemCachePool):
            for name, value, kind, text in WRONG:
                self.refuses(kind, f"{name} {text}, not {value!r}", make, **{name: value})

    def test_own(self) -> None:
        """
        So does that of parameters that one class of pools has.
        """
        self.refuses(TypeError, f"cancelGrace {SECONDS}, not '5'", makePool, cancelGrace="5")
        self.refuses(TypeError, f"replyTimeout {ABOVE}, not '5'", makeMemCachePool, replyTimeout="5")
        for name in ("batchSize", "maxItemSize"):
            self.refuses(ValueError, f"{name} must be a whole number of at least 1, not 0", makeMemCachePool,
                         **{name: 0})  # fmt: skip
        self.refuses(
            TypeError,
            "clientFactory must be a subclass of PooledClientFactory, or another factory such as "
            "Factory.forProtocol(MyProtocol), not <class 'twisted.internet.protocol.Protocol'>",
            makePool,
            clientFactory=Protocol,
        )

    def test_unknown(self) -> None:
        """
        The error for a parameter that does not exist names the one that was meant, also if it is one of the proxy's
        settings.
        """
        for make, pool in ((makePool, "Pool"), (makeMemCachePool, "MemCachePool")):
            for name, meant in (("acquireTimeout", "waitTimeout"), ("upstream", "serverAddresses"),
                                ("poolSize", "maxClients")):  # fmt: skip
                self.refuses(TypeError, f"{pool} has no parameter {name!r}; its name is {meant!r}", make, **{name: -1})
            self.refuses(TypeError, f"{pool} has no parameter 'waittimeout'; is it 'waitTimeout'?", make, waittimeout=1)
            self.refuses(TypeError, f"{pool} has no parameter 'max_clients'; is it 'maxClients'?", make, max_clients=1)
            self.refuses(TypeError, f"{pool} has no parameter 'ssl'", make, ssl=1)
        self.refuses(TypeError, "Pool has no parameter 'db'", makePool, db=1)
        for name, meant in (("db", "database"), ("password", "login"), ("username", "login"),
                            ("decode_responses", "decode"), ("max_connections", "maxClients")):  # fmt: skip
            self.refuses(TypeError, f"RedisPool has no parameter {name!r}; its name is {meant!r}", RedisPool, SERVER,
                         **{name: 1})  # fmt: skip

    def test_addresses(self) -> None:
        """
        The errors for addresses name the one that is wrong.
        """
        right = "expected an IPv4Address, IPv6Address, UNIXAddress, (host, port), an endpoint or an endpoint string"
        self.refuses(ValueError, f"not a server: 5; {right}", MemCachePool, ["tcp:a:1", 5])
        self.refuses(ValueError, "the port of an address is a number: ('a', 1), not ('a', '1')", MemCachePool,
                     ("a", "1"))  # fmt: skip
        self.refuses(ValueError, "serverAddresses must have the address of at least one server", MemCachePool, [])
        self.refuses(TypeError, "weight of a Server must be a number, or None, not '2'", Server, "tcp:a:1", "2")
        self.refuses(TypeError, "label of a Server must be a text, or None, not 2", Server, "tcp:a:1", 2, 2)

    def test_addressesOfOthers(self) -> None:
        """
        An address as other programs write it is refused with what to write; the port is that of the protocol. The words
        that only the proxy or another class of pools knows are refused as such.
        """
        for pool, port in ((MemCachePool, 11211), (RedisPool, 6379)):
            self.refuses(ValueError, f"Unknown endpoint type: '127.0.0.1'; did you mean tcp:127.0.0.1:{port}?", pool,
                         "127.0.0.1", port)  # fmt: skip
            self.refuses(ValueError, "dns: is a source of servers, which only the proxy has: give the pool the servers",
                         pool, "dns:cache:11211")  # fmt: skip
        self.refuses(
            ValueError,
            "Unknown endpoint type: 'redis'; did you mean tcp:h:6379 with an option for the database?",
            RedisPool,
            "redis://h:6379/0",
        )
        for kind in ("cluster", "sentinel"):
            self.refuses(ValueError, f"{kind}: is for Redis: only RedisPool and the proxy have it", MemCachePool,
                         f"{kind}:h:1")  # fmt: skip

    def test_hooks(self) -> None:
        """
        A serializer and a compressor must have their methods, and be no classes.
        """
        for name, wrong, right in (
            ("serializer", "json", "an object with serialize and deserialize, such as JSONSerializer()"),
            ("serializer", JSONSerializer, "an object with serialize and deserialize, such as JSONSerializer()"),
            ("compressor", 5, "an object with compress and decompress, such as ZlibCompressor()"),
        ):
            self.refuses(
                TypeError, f"{name} must be {right}, or None, not {wrong!r}", makeMemCachePool, **{name: wrong}
            )

    def test_backoff(self) -> None:
        """
        The error for a back-off names its part.
        """
        self.refuses(TypeError, "initial of a Backoff must be a number, not '1'", Backoff, "1")
        self.refuses(ValueError, "initial of a Backoff must be a number above 0, not -1", Backoff, -1)
        self.refuses(ValueError, "factor of a Backoff must be a number of at least 1, not 0", Backoff, factor=0)

    def test_methods(self) -> None:
        """
        Parameters of methods are checked too, before anything happens.
        """
        pool = makePool()
        self.refuses(TypeError, "maxClients must be a whole number of at least 1, not '3'", pool.resize, 1, "3")
        self.refuses(ValueError, "minClients must be at most maxClients, 3, not 5", pool.resize, 5, 3)
        self.refuses(TypeError, "count must be a whole number of at least 0, or None, not '3'", pool.ready, "3")
        self.refuses(TypeError, f"timeout {SECONDS}, not '3'", pool.ready, 1, "3")
        self.refuses(TypeError, f"timeout {SECONDS}, not '3'", pool.close, "3")
        self.assertEqual(pool.reactor.getDelayedCalls(), [])

    def test_method(self) -> None:
        """
        A method in place of its name is a C{TypeError}.
        """
        for pool, method in ((makePool(), Protocol.makeConnection), (makeMemCachePool(), MemCachePool.get)):
            for made in (pool, pool.forKey("k")) if isinstance(pool, Pool) else (pool,):
                self.refuses(
                    TypeError,
                    f"method must be the name of a method, not {method!r}; is it {method.__name__!r}?",
                    made.performRequest,
                    method,
                )
                self.refuses(TypeError, "method must be the name of a method, not None", made.performRequest, None)

    def test_call(self) -> None:
        """
        So is something in place of the function for a lease.
        """
        for pool in (makePool(), makeMemCachePool(), makePool().forKey("k")):
            self.refuses(TypeError, "f must be a function that is called with a client, not 'ask'",
                         pool.withConnection, "ask")  # fmt: skip

    def test_services(self) -> None:
        """
        So are those of services and settings.
        """
        self.refuses(
            TypeError,
            "pool must be a pool, such as Pool(...), MemCachePool(...) or RedisPool(...), not 5",
            PoolService,
            5,
        )
        self.refuses(TypeError, f"drainTimeout {SECONDS}, not '5'", PoolService, makePool(), "5")
        for upstream in (["tcp:a:1"], "tcp:a:1"):
            right = "expected a tuple of one or more, such as ('tcp:a:1',)"
            self.refuses(ConfigError, f"pool 'default': upstream = {upstream!r}: {right}", PoolSettings,
                         upstream=upstream)  # fmt: skip
