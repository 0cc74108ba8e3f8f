# -*- test-case-name: tests.real.test_redis_evening -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A load for Redis clusters: clients that write unique values, and know which replies can be correct.

The same clients use the proxy with a plain connection, or the cluster with a native client (redis-py). So the writes
that the cluster itself loses in a failover can be distinguished from those that the proxy loses.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

from tests.real.rediscluster import PATIENCE
from tests.real.resp import Client, ReplyError
from tests.real.servers import Address

#: The numbers of keys of each client: those that may be in any slot, and those of its own hash tag.
KEYS = 4

#: Seconds that a subscriber waits for its message.
MESSAGE_TIMEOUT = 5.0


class Failed(Exception):
    """
    A request got an error, or its connection was lost. It is not known whether it was executed.
    """


class Stuck(Exception):
    """
    No reply came.
    """


class PlainStore:
    """
    Redis for one client, through a plain connection.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client: Client | None = None

    def close(self) -> None:
        """
        Close the connection. The next request makes another.
        """
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, *words: object) -> Any:
        """
        Send one request.

        @raise Failed: it got an error.
        @raise Stuck: it got no reply.
        """
        return self._do(lambda client: client.ask(*words))

    def transaction(self, *requests: tuple[object, ...]) -> Any:
        """
        Send a transaction.
        """

        def do(client: Client) -> Any:
            for words in (("MULTI",), *requests):
                client.ask(*words)
            return client.ask("EXEC")

        return self._do(do, True)

    def mset(self, values: dict[str, str]) -> None:
        """
        Set keys of any slots.
        """
        self.ask("MSET", *(word for pair in values.items() for word in pair))

    def mget(self, keys: list[str]) -> list[Any]:
        """
        Get keys of any slots.
        """
        values: list[Any] = self.ask("MGET", *keys)
        return values

    def subscribed(self, channel: str, message: str) -> Any:
        """
        Subscribe, and let another client publish a message.

        @return: what the subscriber receives; C{None} if nothing.
        """

        def do(client: Client) -> Any:
            with Client(self._address, MESSAGE_TIMEOUT) as subscriber:
                try:
                    if subscriber.ask("SUBSCRIBE", channel) != [b"subscribe", channel.encode(), 1]:
                        return b"not subscribed"
                    client.ask("PUBLISH", channel, message)
                    kind, where, data = subscriber.read()
                except TimeoutError:
                    return None
                return data if (kind, where) == (b"message", channel.encode()) else (kind, where, data)

        return self._do(do)

    def _do(self, do: Callable[[Client], Any], closes: bool = False) -> Any:
        try:
            if self._client is None:
                self._client = Client(self._address, PATIENCE)
            return do(self._client)
        except ReplyError as error:
            if closes:
                self.close()
            raise Failed(str(error)) from None
        except TimeoutError:
            self.close()
            raise Stuck from None
        except (EOFError, OSError) as error:
            self.close()
            raise Failed(f"closed: {error!r}") from None


class NativeStore:
    """
    Redis for one client, through redis-py's client for clusters.
    """

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._redis: Any = import_module("redis")
        self._client: Any = None

    def close(self) -> None:
        """
        Close all connections.
        """
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, *words: object) -> Any:
        """
        Send one request.

        @raise Failed: it got an error.
        """
        return self._do(lambda client: client.execute_command(*words))

    def transaction(self, *requests: tuple[object, ...]) -> Any:
        """
        Send a transaction.
        """

        def do(client: Any) -> Any:
            with client.pipeline(transaction=True) as pipeline:
                for words in requests:
                    pipeline.execute_command(*words)
                return [b"OK" if each is True else each for each in pipeline.execute()]

        return self._do(do)

    def mset(self, values: dict[str, str]) -> None:
        """
        Set keys of any slots.
        """
        self._do(lambda client: client.mset_nonatomic(values))

    def mget(self, keys: list[str]) -> list[Any]:
        """
        Get keys of any slots.
        """
        values: list[Any] = self._do(lambda client: client.mget_nonatomic(keys))
        return values

    def subscribed(self, channel: str, message: str) -> Any:
        """
        Subscribe, and publish a message.

        @return: what the subscriber receives; C{None} if nothing.
        """

        def do(client: Any) -> Any:
            with client.pubsub() as subscriber:
                subscriber.subscribe(channel)
                subscriber.get_message(timeout=MESSAGE_TIMEOUT)
                client.publish(channel, message)
                received = subscriber.get_message(timeout=MESSAGE_TIMEOUT)
                return received and received["data"]

        return self._do(do)

    def _do(self, do: Callable[[Any], Any]) -> Any:
        host, port = self._place
        try:
            if self._client is None:
                self._client = self._redis.RedisCluster(host=host, port=port, protocol=2, socket_timeout=2.0)
            return do(self._client)
        except Exception as error:
            # When a node leaves, its own tables make it raise AttributeError, KeyError and others too.
            raise Failed(repr(error)) from None


class Worker(threading.Thread):
    """
    One client. Nobody else writes its keys.

    @ivar wrong: what cannot be correct.
    @ivar stuck: the number of requests without a reply.
    @ivar lost: for each confirmed write that is lost, the time when it was confirmed.
    @ivar errors: the number of errors, by the name of the step and the text.
    @ivar answered: the number of steps whose replies were correct.
    """

    def __init__(self, number: int, store: Any, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.store = store
        self.wrong: list[str] = []
        self.stuck = self.answered = 0
        self.lost: list[float] = []
        self.errors: Counter[tuple[str, str]] = Counter()
        self._end = end
        self._number = number
        self._chance = random.Random(number)
        self._values = 0
        self.keys = [f"key:{number}:{each}" for each in range(KEYS)]
        self.tagged = [f"{{tag:{number}}}:{each}" for each in range(KEYS)]
        #: For each key the confirmed value with the time, and values whose requests failed.
        self._certain: dict[str, tuple[str | None, float]] = dict.fromkeys(self.keys + self.tagged, (None, 0.0))
        self._doubtful: dict[str, set[str]] = {key: set() for key in self._certain}
        self._count, self._countTime, self._uncounted = 0, 0.0, 0
        #: The highest number that a failover has undone, and how many requests have failed in all.
        self._undone = self._failures = 0
        self._pushed: set[str] = set()
        self._popped: dict[str, float] = {}
        self._steps = [self._set, self._get, self._mset, self._mget, self._incr, self._multi, self._pop, self._listen]

    def run(self) -> None:
        """
        Work until the end.
        """
        while not self._end.is_set():
            self.step()
        self._try(self._mget)
        self._try(self._incr)
        self.store.close()

    def step(self) -> None:
        """
        Send a request, or a few that belong together, and check the replies.
        """
        self._try(self._chance.choices(self._steps, (6, 6, 3, 3, 6, 3, 2, 1))[0])

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Failed as error:
            self.errors[step.__name__[1:], str(error)[:150]] += 1
            time.sleep(0.005)  # a server that is down answers at once
        except Stuck:
            self.stuck += 1
        else:
            self.answered += 1

    def _value(self) -> str:
        self._values += 1
        return f"<{self._number}.{self._values}>"

    # -- Values

    def _write(self, values: dict[str, str], do: Callable[[], Any]) -> Any:
        """
        Do what writes values.
        """
        try:
            result = do()
        except (Failed, Stuck):
            for key, value in values.items():
                self._doubtful[key].add(value)
            raise
        now = time.monotonic()
        for key, value in values.items():
            self._certain[key] = value, now
        return result

    def _read(self, key: str, data: Any) -> None:
        """
        Check a value that was read.
        """
        value = data.decode() if isinstance(data, bytes) else data
        certain, when = self._certain[key]
        if value == certain or value in self._doubtful[key]:
            self._certain[key] = value, when if value == certain else time.monotonic()
        elif value is None or value.startswith(f"<{self._number}."):
            # An older value is what remains when a replica that had not received the write becomes the primary.
            self.lost.append(when)
            self._certain[key] = value, time.monotonic()
        else:
            self.wrong.append(f"{key} is {value}")

    def _check(self, what: str, reply: Any, expected: Any) -> None:
        if reply != expected:
            self.wrong.append(f"{what}: {reply!r} and not {expected!r}")

    def _set(self) -> None:
        key, value = self._chance.choice(self.keys), self._value()
        self._write({key: value}, lambda: self.store.ask("SET", key, value))

    def _get(self) -> None:
        key = self._chance.choice(self.keys + self.tagged)
        self._read(key, self.store.ask("GET", key))

    def _mset(self) -> None:
        keys = self._chance.choice((self.keys, self.tagged))
        values = {key: self._value() for key in self._chance.sample(keys, 3)}
        self._write(values, lambda: self.store.mset(values))

    def _mget(self) -> None:
        keys = self._chance.sample(self.keys + self.tagged, 5)
        for key, value in zip(keys, self.store.mget(keys), strict=True):
            self._read(key, value)

    def _multi(self) -> None:
        key, other = self._chance.sample(self.tagged, 2)
        value = self._value()
        reply = self._write({key: value}, lambda: self.store.transaction(
            ("SET", key, value), ("GET", key), ("GET", other)))  # fmt: skip
        self._check("EXEC", reply[:2], [b"OK", value.encode()])
        self._read(other, reply[2])

    # -- Others

    def _incr(self) -> None:
        try:
            number = self.store.ask("INCR", f"count:{self._number}")
        except (Failed, Stuck):
            self._uncounted += 1
            self._failures += 1
            raise
        if number > self._count + self._uncounted + 1:
            if self._undone < number <= self._undone + self._failures + 1:
                self.lost.append(self._countTime)  # a former master is the master again, with the numbers it had
            else:
                self.wrong.append(f"INCR is {number} after {self._count} and {self._uncounted} failed ones")
        elif number <= self._count:
            self.lost.append(self._countTime)
            self._undone = max(self._undone, self._count)
        self._uncounted -= min(max(0, number - self._count - 1), self._uncounted)
        self._count, self._countTime = number, time.monotonic()

    def _pop(self) -> None:
        key, value = f"list:{self._number}", self._value()
        self._pushed.add(value)
        self.store.ask("RPUSH", key, value)
        when = time.monotonic()
        reply = self.store.ask("BLPOP", key, 0.2)
        if not reply:
            self.lost.append(when)
        elif reply[0] != key.encode() or reply[1].decode() not in self._pushed:
            self.wrong.append(f"BLPOP: {reply!r} and not {value}")
        else:
            # Those that were pushed or popped by failed requests may be there or not.
            popped = reply[1].decode()
            if popped in self._popped:
                self.lost.append(self._popped[popped])  # the confirmed write is the first removal of the element
            self._popped[popped] = time.monotonic()

    def _listen(self) -> None:
        value = self._value()
        received = self.store.subscribed(f"news:{self._number}", value)
        if received is None:
            raise Failed("no message")
        self._check("message", received, value.encode())
