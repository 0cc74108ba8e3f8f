# -*- test-case-name: tests.real.test_pymemcache -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that pymemcache, an independent client library, works through the proxy like without it.
"""

from __future__ import annotations

import random
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import PATIENCE, Address, Memcached, Proxy, missing

THREADS = 8
STEPS = 200
KEYS = 12


def client(address: Address) -> Any:
    """
    Create a client of the library. It does not use C{noreply} by default.
    """
    return import_module("pymemcache.client.base").Client(
        address, default_noreply=False, timeout=PATIENCE, connect_timeout=PATIENCE
    )


class Worker(threading.Thread):
    """
    Calls all methods of the library, in random order, with keys of its own, and compares each result with a dictionary.

    @ivar failure: the first wrong result, or the first exception.
    """

    def __init__(self, number: int, address: Address) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.failure: object = None
        self._address = address
        self._chance = random.Random(number)
        self._held: dict[str, bytes] = {}

    def run(self) -> None:
        """
        Work until a result is wrong, or the work is done.
        """
        memcached = client(self._address)
        kinds = [getattr(self, name) for name in sorted(vars(Worker)) if name.startswith("do")]
        try:
            for step in range(STEPS):
                kind = self._chance.choice(kinds)
                expected, answer = kind(memcached, self._key())
                if answer != expected:
                    self.failure = f"step {step}, {kind.__name__}: {answer!r} and not {expected!r}"
                    break
        except Exception as error:
            self.failure = error
        finally:
            memcached.close()

    def _key(self) -> str:
        return f"worker:{self.number}:{self._chance.randrange(KEYS)}"

    def _value(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.3:
            return b"%d" % chance.randrange(10**9, 10**10)
        return chance.randbytes(chance.choice((0, 1, 30, 1000, 20000, 300000)))

    # Each method returns the expected result and the actual one.

    def doSet(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Store a value.
        """
        self._held[key] = value = self._value()
        return True, memcached.set(key, value)

    def doSetQuietly(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Store a value with C{noreply}.
        """
        self._held[key] = value = self._value()
        memcached.set(key, value, noreply=True)
        return value, memcached.get(key)

    def doSetMany(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Store several values, pipelined.
        """
        values = {self._key(): self._value() for _ in range(5)}
        self._held.update(values)
        return [], memcached.set_many(values)

    def doSetTooLarge(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Try to store a value that is too large. The old item is deleted.
        """
        self._held.pop(key, None)
        try:
            memcached.set(key, bytes(1100000))
        except import_module("pymemcache.exceptions").MemcacheServerError as error:
            return b"object too large for cache", error.args[0]
        return "an error", None

    def doGet(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Get a value.
        """
        return self._held.get(key), memcached.get(key)

    def doGetMany(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Get several values, sometimes very many.
        """
        keys = [f"worker:{self.number}:{number}" for number in range(KEYS)]
        keys += [f"none{number}" for number in range(self._chance.choice((0, 1, 100, 500)))]
        self._chance.shuffle(keys)
        return self._held, memcached.get_many(keys)

    def doAdd(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Store a value if the key does not exist.
        """
        new = key not in self._held
        value = self._value()
        if new:
            self._held[key] = value
        return new, memcached.add(key, value)

    def doReplace(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Store a value if the key exists.
        """
        old = key in self._held
        value = self._value()
        if old:
            self._held[key] = value
        return old, memcached.replace(key, value)

    def doAppend(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Append to a value.
        """
        if key not in self._held:
            return False, memcached.append(key, b"end")
        self._held[key] += b"end"
        return True, memcached.append(key, b"end")

    def doPrepend(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Prepend to a value.
        """
        if key not in self._held:
            return False, memcached.prepend(key, b"start")
        self._held[key] = b"start" + self._held[key]
        return True, memcached.prepend(key, b"start")

    def doDelete(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Delete a key.
        """
        return self._held.pop(key, None) is not None, memcached.delete(key)

    def doDeleteMany(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Delete several keys with C{noreply}.
        """
        keys = [self._key() for _ in range(3)]
        for each in keys:
            self._held.pop(each, None)
        memcached.delete_many(keys, noreply=True)
        return {}, memcached.get_many(keys)

    def doIncrement(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Increment a number.
        """
        if not self._held.get(key, b"").isdigit():
            self._held[key] = b"1000000000"
            memcached.set(key, self._held[key])
        self._held[key] = b"%d" % (int(self._held[key]) + 7)
        return int(self._held[key]), memcached.incr(key, 7)

    def doTouch(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Change the time to live of a key.
        """
        return key in self._held, memcached.touch(key, 1000)

    def doCompareAndSwap(self, memcached: Any, key: str) -> tuple[object, object]:
        """
        Store a value if the item has not changed since it was read.
        """
        old, unique = memcached.gets(key)
        if key not in self._held:
            return (None, None), (old, unique)
        before, value = self._held[key], self._value()
        self._held[key] = value
        right = memcached.cas(key, value, unique)
        return (before, True, False), (old, right, memcached.cas(key, b"x", unique))


class PymemcacheTests(SynchronousTestCase):
    """
    Tests with concurrent threads, each with a client of its own.
    """

    skip = missing("memcached") or (None if find_spec("pymemcache") else "pymemcache is not installed")

    def work(self, address: Address) -> None:
        """
        Run all workers.
        """
        workers = [Worker(number, address) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(4 * PATIENCE)
            self.assertFalse(worker.is_alive(), "stuck")
        self.assertEqual([worker.failure for worker in workers], [None] * THREADS)

    def test_direct(self) -> None:
        """
        The workers expect what memcached does.
        """
        with Memcached() as memcached:
            self.work(memcached.address)

    def test_proxy(self) -> None:
        """
        The proxy gives the same results.
        """
        with Memcached() as memcached, Proxy(upstream=[memcached.address]) as proxy:
            self.work(proxy.address)
            self.assertEqual(client(proxy.address).version(), client(memcached.address).version())

    def test_narrow(self) -> None:
        """
        So does a proxy with small limits, over UNIX sockets.
        """
        options = ("--pool-size=1", "--pipeline-depth=2", "--max-in-flight=3")
        with (
            Memcached(address="memcached") as memcached,
            Proxy(*options, upstream=[memcached.address], address="proxy") as proxy,
        ):
            self.work(proxy.address)
