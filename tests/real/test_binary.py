# -*- test-case-name: tests.real.test_binary -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for clients of the binary protocol with a real memcached: the table of cases, memcached's conformance test, and
client libraries.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.real.fuzz import converse
from tests.real.servers import PATIENCE, Address, Memcached, Proxy, ask, missing, missingForNode, which
from tests.wire.memcache.binary.cases import CASES, NOOP
from tests.wire.memcache.binary.packets import normal, reply, request

#: The version that the table is about.
VERSION = "1.6.18"

THREADS = 4
STEPS = 150
KEYS = 10


class TableTests(SynchronousTestCase):
    """
    Tests with the table of requests and replies.
    """

    skip = missing("memcached")

    def check(self, servers: list[Address], address: Address, ours: bool) -> None:
        """
        Compare the replies at an address with the table.

        @param servers: the servers to empty before each case.
        @param ours: whether the proxy replies.
        """
        for case in CASES:
            if case.reason and not ours:
                self.assertNotEqual(normal(converse(address, [case.sent])), normal(case.expected), case.reason)
                continue
            for server in servers:
                ask(server, b"flush_all\r\n")
            self.assertEqual(normal(converse(address, [case.sent])), normal(case.expected), str(case)[:1000])
            # Bytes that arrive after the connection is closed could make the kernel drop the last reply.
            for size in (1, 7, 30):
                if len(case.sent) < 300 and not case.closes:
                    for server in servers:
                        ask(server, b"flush_all\r\n")
                    pieces = [case.sent[place : place + size] for place in range(0, len(case.sent), size)]
                    self.assertEqual(normal(converse(address, pieces)), normal(case.expected), str(case)[:1000])

    def test_memcached(self) -> None:
        """
        The table says what memcached replies. There is a reason for each row where it replies otherwise.
        """
        with Memcached("-t", "1") as memcached:
            version = memcached.stats()["version"]
            if version != VERSION:
                raise SkipTest(f"the table is about memcached {VERSION}, this is {version}")
            self.check([memcached.address], memcached.address, False)

    def test_proxy(self) -> None:
        """
        The proxy gives the same replies.
        """
        with Memcached("-t", "1") as memcached, Proxy(upstream=[memcached.address]) as proxy:
            self.check([memcached.address], proxy.address, True)

    def test_several(self) -> None:
        """
        So does a proxy with several servers.
        """
        with (
            Memcached("-t", "1") as first,
            Memcached("-t", "1") as second,
            Proxy(upstream=[first.address, second.address]) as proxy,
        ):
            self.check([first.address, second.address], proxy.address, True)

    def test_memory(self) -> None:
        """
        So does C{memory:}.
        """
        with Proxy("--upstream", "memory:size=64m", upstream=[]) as proxy:
            self.check([proxy.address], proxy.address, True)


class Library:
    """
    The methods of a client library that the workers call.

    @cvar swaps: whether C{gets} of the library can be used.
    """

    swaps = True

    def __init__(self, memcached: Any) -> None:
        self.memcached = memcached

    def close(self) -> None:
        """
        Close the connection.
        """
        self.memcached.disconnect_all()

    def getMany(self, keys: list[str]) -> dict[str, Any]:
        """
        @return: the values that exist.
        """
        found: dict[str, Any] = self.memcached.get_multi(keys)
        return found

    def setMany(self, values: dict[str, Any]) -> bool:
        """
        @return: whether all values were stored.
        """
        return not self.memcached.set_multi(values)

    def swap(self, key: str, value: Any) -> tuple[Any, bool, bool]:
        """
        Store a value if nobody else has.

        @return: the old value, whether it was replaced, and whether it was replaced again with the same cas.
        """
        old, unique = self.memcached.gets(key)
        if unique is None:
            return None, False, False
        return old, bool(self.memcached.cas(key, value, unique)), bool(self.memcached.cas(key, value, unique))

    def replace(self, key: str, value: Any) -> bool:
        """
        @return: whether there was a value.
        """
        return bool(self.memcached.replace(key, value))

    def count(self, key: str, delta: int) -> Any:
        """
        @return: the number, which exists.
        """
        return self.memcached.incr(key, delta) if delta > 0 else self.memcached.decr(key, -delta)


def bmemcached(address: Address) -> Library:
    """
    @return: a client of python-binary-memcached.
    """
    client = import_module("bmemcached").Client([f"{address[0]}:{address[1]}"], socket_timeout=PATIENCE)
    return Library(client)


class Pylibmc(Library):
    """
    pylibmc, a client library in C. It raises an error if there is no value. Its C{gets} sometimes returns the value of
    another request, without a proxy too.
    """

    swaps = False

    def replace(self, key: str, value: Any) -> bool:
        """
        @return: whether there was a value.
        """
        try:
            return super().replace(key, value)
        except import_module("pylibmc").NotFound:
            return False


def pylibmc(address: Address) -> Library:
    """
    @return: a client of pylibmc.
    """
    milliseconds = int(PATIENCE * 1000)
    behaviors = {"cas": True, "tcp_nodelay": True, "connect_timeout": milliseconds, "_poll_timeout": milliseconds}
    return Pylibmc(import_module("pylibmc").Client([f"{address[0]}:{address[1]}"], binary=True, behaviors=behaviors))


class Worker(threading.Thread):
    """
    Calls the methods of a library in random order, with keys of its own, and compares each result with a dictionary.

    @ivar failure: the first wrong result, or the first exception.
    """

    def __init__(self, number: int, make: Callable[[Address], Library], address: Address) -> None:
        super().__init__(daemon=True)
        self.failure: object = None
        self._number = number
        self._make = make
        self._address = address
        self._chance = random.Random(number)
        self._held: dict[str, Any] = {}

    def run(self) -> None:
        """
        Work until a result is wrong, or the work is done.
        """
        kinds = [getattr(self, name) for name in sorted(vars(Worker)) if name.startswith("do")]
        try:
            library = self._make(self._address)
            for step in range(STEPS):
                kind = self._chance.choice(kinds)
                expected, answer = kind(library, f"worker{self._number}:{self._chance.randrange(KEYS)}")
                if answer != expected:
                    self.failure = f"step {step}, {kind.__name__}: {answer!r:.300} and not {expected!r:.300}"
                    break
            library.close()
        except Exception as error:
            self.failure = error

    def _value(self) -> bytes:
        return self._chance.randbytes(self._chance.choice((0, 1, 30, 1000, 20000, 300000)))

    # Each method returns the expected result and the actual one.

    def doSet(self, library: Library, key: str) -> tuple[object, object]:
        """
        Store a value.
        """
        self._held[key] = value = self._value()
        return True, library.memcached.set(key, value)

    def doSetMany(self, library: Library, key: str) -> tuple[object, object]:
        """
        Store several values, which is done with quiet requests.
        """
        values = {f"worker{self._number}:{number}": self._value() for number in self._chance.sample(range(KEYS), 5)}
        self._held.update(values)
        return True, library.setMany(values)

    def doAdd(self, library: Library, key: str) -> tuple[object, object]:
        """
        Store a value if there is none.
        """
        isNew = key not in self._held
        value = self._held.setdefault(key, self._value())
        return isNew, bool(library.memcached.add(key, value))

    def doReplace(self, library: Library, key: str) -> tuple[object, object]:
        """
        Store a value if there is one.
        """
        value = self._value()
        if key in self._held:
            self._held[key] = value
        return key in self._held, library.replace(key, value)

    def doGet(self, library: Library, key: str) -> tuple[object, object]:
        """
        Get a value.
        """
        return self._held.get(key), library.memcached.get(key)

    def doGetMany(self, library: Library, key: str) -> tuple[object, object]:
        """
        Get several values, sometimes of very many keys.
        """
        keys = [f"worker{self._number}:{number}" for number in range(KEYS)]
        keys += [f"none{number}" for number in range(self._chance.choice((0, 1, 100, 500)))]
        self._chance.shuffle(keys)
        return self._held, library.getMany(keys)

    def doDelete(self, library: Library, key: str) -> tuple[object, object]:
        """
        Delete a value.
        """
        self._held.pop(key, None)
        library.memcached.delete(key)
        return None, library.memcached.get(key)

    def doCount(self, library: Library, key: str) -> tuple[object, object]:
        """
        Change a number.
        """
        number = f"{key}:number"
        library.memcached.set(number, 100)
        return (107, 57), (library.count(number, 7), library.count(number, -50))

    def doSwap(self, library: Library, key: str) -> tuple[object, object]:
        """
        Store a value if nobody else has.
        """
        if not library.swaps:
            return self.doGet(library, key)
        old, value = self._held.get(key), self._value()
        if old is not None:
            self._held[key] = value
        return (old, old is not None, False), library.swap(key, value)


class LibraryTests(SynchronousTestCase):
    """
    Tests with client libraries for Python, in concurrent threads.
    """

    skip = missing("memcached")

    def work(self, module: str, make: Callable[[Address], Library], *options: str, servers: int = 1) -> None:
        """
        Run workers at a memcached, and at a proxy.
        """
        if find_spec(module) is None:
            raise SkipTest(f"{module} is not installed")
        memcacheds = [Memcached() for _ in range(servers)]
        for memcached in memcacheds:
            memcached.start()
            self.addCleanup(memcached.stop)
        with Proxy(*options, upstream=[memcached.address for memcached in memcacheds]) as proxy:
            for address in (memcacheds[0].address, proxy.address):
                for memcached in memcacheds:
                    ask(memcached.address, b"flush_all\r\n")
                workers = [Worker(number, make, address) for number in range(THREADS)]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join(4 * PATIENCE)
                    self.assertFalse(worker.is_alive(), "stuck")
                self.assertEqual([worker.failure for worker in workers], [None] * THREADS)
            self.assertNotIn("Traceback", proxy.log)

    def test_bmemcached(self) -> None:
        """
        python-binary-memcached has the same results as with memcached.
        """
        self.work("bmemcached", bmemcached)

    def test_bmemcachedNarrow(self) -> None:
        """
        The same with small limits, and several servers.
        """
        options = ("--pool-size=2", "--pipeline-depth=2", "--max-in-flight=3")
        self.work("bmemcached", bmemcached, *options, servers=2)

    def test_pylibmc(self) -> None:
        """
        pylibmc has the same results as with memcached.
        """
        self.work("pylibmc", pylibmc)

    def test_pylibmcNarrow(self) -> None:
        """
        The same with small limits, and several servers.
        """
        options = ("--pool-size=2", "--pipeline-depth=2", "--max-in-flight=3")
        self.work("pylibmc", pylibmc, *options, servers=2)

    def test_login(self) -> None:
        """
        python-binary-memcached logs in with SASL, and a wrong password is an error.
        """
        if find_spec("bmemcached") is None:
            raise SkipTest("bmemcached is not installed")
        accounts = Path(self.mktemp())
        accounts.write_text("joe:secret\n")
        accounts.chmod(0o600)
        with (
            Memcached() as memcached,
            Proxy("--listen-auth", f"file:{accounts.resolve()}", upstream=[memcached.address]) as proxy,
        ):
            place = f"{proxy.address[0]}:{proxy.address[1]}"
            module = import_module("bmemcached")
            self.assertTrue(module.Client([place], "joe", "secret", socket_timeout=PATIENCE).set("a", "b"))
            with self.assertRaises(module.exceptions.MemcachedException):
                module.Client([place], "joe", "wrong", socket_timeout=PATIENCE).set("a", "c")
            self.assertEqual(ask(memcached.address, b"get a\r\n", b"END\r\n"), b"VALUE a 0 1\r\nb\r\nEND\r\n")


#: Calls the methods of memjs in an order that random numbers choose, and compares each result with a map. The arguments
#: are the address of the server and a seed.
MEMJS = """
const memjs = require('memjs');
const [address, seed] = process.argv.slice(2);
const client = memjs.Client.create(address, {timeout: 20, retries: 1});
let state = Number(seed);
const random = limit => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor(state / 65536) % limit;
};
const held = new Map();
const same = (name, actual, expected) => {
    if (String(actual) !== String(expected)) {
        throw new Error(`${name}: ${String(actual).slice(0, 80)} and not ${String(expected).slice(0, 80)}`);
    }
};
const value = () => String.fromCharCode(97 + random(26)).repeat([0, 1, 100, 100000][random(4)]);
const found = async key => { const {value} = await client.get(key); return value === null ? null : value.toString(); };
const kinds = {
    async set(key) { const data = value(); same('set', await client.set(key, data, {}), true); held.set(key, data); },
    async get(key) { same('get', await found(key), held.has(key) ? held.get(key) : null); },
    async add(key) {
        const data = value();
        same('add', await client.add(key, data, {}), !held.has(key));
        if (!held.has(key)) held.set(key, data);
    },
    async replace(key) {
        const data = value();
        same('replace', await client.replace(key, data, {}), held.has(key));
        if (held.has(key)) held.set(key, data);
    },
    async delete(key) { same('delete', await client.delete(key), held.delete(key)); },
    async touch(key) { same('touch', await client.touch(key, 1000), held.has(key)); },
    async several() {
        const keys = [...held.keys()];
        same('several', await Promise.all(keys.map(found)), keys.map(key => held.get(key)));
    },
    async count(key) {
        await client.delete(key + ':n');
        same('increment', (await client.increment(key + ':n', 5, {initial: 7})).value, 7);
        same('increment', (await client.increment(key + ':n', 5, {initial: 7})).value, 12);
        same('decrement', (await client.decrement(key + ':n', 2, {initial: 7})).value, 10);
    },
};
(async () => {
    const names = Object.keys(kinds);
    for (let step = 0; step < 400; step++) await kinds[names[random(names.length)]](seed + 'key ' + random(8));
    client.close();
})().catch(error => { console.error(error.message); process.exit(1); });
"""


class MemjsTests(SynchronousTestCase):
    """
    Tests with memjs, a client library for Node.js, which is found with C{NODE_PATH}.
    """

    skip = missing("memcached") or missingForNode("memjs")

    def test_mixed(self) -> None:
        """
        All methods have the same results as with memcached. The keys have a space, which text requests cannot carry.
        """
        node = which("node")
        assert node is not None
        script = Path(self.mktemp())
        script.write_text(MEMJS)
        with Memcached() as memcached, Proxy(upstream=[memcached.address]) as proxy:
            for address in (memcached.address, proxy.address):
                ask(memcached.address, b"flush_all\r\n")
                command = [node, str(script), f"{address[0]}:{address[1]}"]
                running = [
                    subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True, env=dict(os.environ))
                    for seed in (1, 2, 3)
                ]
                results = [(each.communicate(timeout=240)[1], each.returncode) for each in running]
                self.assertEqual(results, [("", 0)] * 3)
            self.assertEqual(converse(proxy.address, [request(NOOP)]), reply(NOOP))
