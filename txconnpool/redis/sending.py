# -*- test-case-name: tests.redis.test_pool -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Sends requests of a pool to the servers of their keys: one server, or several that share the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txconnpool.errors import PoolError
from txconnpool.pool.calls import SingleRequest
from txconnpool.pool.connection import Connection
from txconnpool.redis.arguments import applyNamespace, mayBlock
from txconnpool.redis.base import Convert, Meanings
from txconnpool.redis.errors import CrossSlot, InvalidArgument, Loading, ReadOnly, ResponseError, UndecodableReply
from txconnpool.redis.splitting import (
    EVERYWHERE,
    divide,
    isDivisible,
    join,
    nextCursor,
    requestFor,
    serverOfCursor,
)
from txconnpool.redis.units import Step, Undone, Unit, askLeased, discard
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.framing import encode


class Journey:
    """
    The way of a request, or of several that belong together, to a server that executes it.
    """

    def __init__(self, pool: Any) -> None:
        """
        @param pool: the pool of the server.
        """
        self._pool = pool
        self._isAgain = False

    async def lease(self) -> tuple[Any, Connection]:
        """
        Lease a connection to the server.

        @return: its pool, and the connection.
        """
        return self._pool, await self._pool.acquire()

    async def send(self, steps: list[Step]) -> None:
        """
        Send requests together on a connection with others.
        """
        Unit(self._pool, steps).send()

    async def follow(self, error: ResponseError) -> bool:
        """
        Decide what is done about an error that says that the server has not executed the request. It is not that of a
        script.

        @return: whether the request is to be sent again now: once, because the pool looks for another server.
        """
        again = not self._isAgain and isinstance(error, Loading | ReadOnly)
        self._isAgain = True
        return again


class Sender:
    """
    Sends the requests of a pool. A I{target} is what gets a request: here it is the pool of a server.
    """

    def __init__(self, face: Any, meanings: Meanings, namespace: bytes) -> None:
        """
        @param face: the pool, a L{PoolFace<txconnpool.routing.library.PoolFace>}.
        @param namespace: is put before all keys.
        """
        self._face = face
        self._only = face._only
        self._router = face._router
        self._meanings = meanings
        self._namespace = namespace

    def send(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Deferred[Any]:
        """
        Send a request.

        @param words: its words, without the namespace. The list may be changed.

        @return: fires with the result; fails with a L{PoolError}.
        """
        try:
            if self._only is None:
                divided = self.divide(command, words)
                if divided:
                    return Deferred.fromCoroutine(self._sendDivided(command, words, divided, convert))
                if command.name in EVERYWHERE:
                    self.nameKeys(command, words)
                    return Deferred.fromCoroutine(self._sendEverywhere(command, words, convert))
                if command.name == "scan":
                    return Deferred.fromCoroutine(self._scan(command, words, convert))
            target = self.route(command, words)
        except PoolError as error:
            return fail(error)
        meaning = self._meanings.of(convert, command)
        if command.mayBlock and mayBlock(words, command):
            return Deferred.fromCoroutine(self._blocked(target, command, words, meaning))
        return self._request(target, command, encode(words), meaning)

    def _request(self, target: Any, command: RedisCommand, data: bytes, meaning: Any) -> Deferred[Any]:
        """
        Send one request to one target.
        """
        request = SingleRequest(target, command, data, meaning)
        target.send(request)
        return request.result

    # -- Several servers

    async def _sendDivided(
        self, command: RedisCommand, words: list[bytes], divided: dict[Any, list[int]], convert: Convert
    ) -> Any:
        """
        Send one request to each of several targets.

        @raise PoolError: the first error. All requests have ended then.
        """
        data = {target: requestFor(command, words, places) for target, places in divided.items()}
        value = join(command, list(divided.values()), await self._sendAll(command, data))
        return value if convert is None else convert(value)

    async def _sendEverywhere(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Any:
        """
        Send the same request to all servers.
        """
        values = await self._sendAll(command, dict.fromkeys(await self._everyTarget(), encode(words)))
        value = EVERYWHERE[command.name](values)
        return value if convert is None else convert(value)

    async def _sendAll(self, command: RedisCommand, data: dict[Any, bytes]) -> list[Any]:
        """
        Send one request to each of several targets.

        @return: the values of their replies.

        @raise PoolError: the first error. All requests have ended then.
        """
        meaning = self._meanings.of(None, command)
        return await settle([self._request(target, command, each, meaning) for target, each in data.items()])

    async def _everyTarget(self) -> tuple[Any, ...]:
        """
        @return: the targets of requests that concern all servers, always in the same order.
        """
        return tuple(self._router.pools)

    async def _scan(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Any:
        """
        Scan one server after the other.
        """
        targets = await self._everyTarget()
        number, words[1] = serverOfCursor(words[1], len(targets))
        self.nameKeys(command, words)
        ((at, keys),) = await self._sendAll(command, {targets[number]: encode(words)})
        value = [nextCursor(at, number, len(targets)), keys]
        return value if convert is None else convert(value)

    def divide(self, command: RedisCommand, words: list[bytes]) -> dict[Any, list[int]]:
        """
        @param words: get the namespace before their keys, if the request is divided.

        @return: the positions of the keys of a request, by target; empty if it need not, or must not, be divided.

        @raise PoolError: a key has no server at the moment.
        """
        if self._only is not None or not isDivisible(command, words):
            return {}
        named = list(words)
        self.nameKeys(command, named)
        divided = self._divided(command, named)
        if len(divided) < 2:
            return {}
        words[:] = named
        return divided

    def _divided(self, command: RedisCommand, words: list[bytes]) -> dict[Any, list[int]]:
        return divide(command, words, self._router.choose)

    def nameKeys(self, command: RedisCommand, words: list[bytes]) -> None:
        """
        Put the namespace before the keys of a request.
        """
        if self._namespace:
            applyNamespace(words, command, self._namespace)

    def route(self, command: RedisCommand, words: list[bytes]) -> Any:
        """
        Put the namespace before the keys of a request.

        @return: the target of the keys.

        @raise PoolError: there is none.
        """
        self.nameKeys(command, words)
        return self._only or self._targetOf(command, words)

    def _targetOf(self, command: RedisCommand, words: list[bytes]) -> Any:
        keys = command.keysOf(words) or (words[1:2] if command.name in ("publish", "eval", "evalsha") else [])
        if not keys:
            name = command.name.replace("|", " ").upper()
            raise InvalidArgument(
                f"{name} has no key, and the servers of {self._face.name} share the keys: use forKey(key).connection()"
            )
        pools = {id(pool): pool for pool in map(self._router.choose, keys)}
        if len(pools) > 1:
            raise CrossSlot("CROSSSLOT Keys in request don't hash to the same slot: several servers have them")
        return pools.popitem()[1]

    def keysOf(self, command: RedisCommand, words: list[bytes]) -> frozenset[bytes]:
        """
        @return: the keys of a request of a pipeline, if the order of its requests depends on them.
        """
        return frozenset()

    def together(self, first: Any, second: Any) -> bool:
        """
        @return: whether a transaction may have requests for two targets.
        """
        return first is second

    def channelTarget(self, channels: list[bytes], patterns: list[bytes], sharded: bool) -> Any:
        """
        @param sharded: whether the messages are those of a slot, if there is a cluster.

        @return: the target of a subscription.

        @raise InvalidArgument: the channels and patterns are not those of one server.
        """
        if self._only is not None:
            return self._only
        pools = {id(pool): pool for pool in map(self._router.choose, channels)}
        if patterns or len(pools) > 1:
            raise InvalidArgument(
                f"the servers of {self._face.name} share the channels: subscribe to each by itself, and to no patterns"
            )
        return pools.popitem()[1]

    # -- Requests that need a connection of their own, and several together

    def journey(self, target: Any) -> Any:
        """
        @return: a L{Journey} to a target.
        """
        return Journey(target)

    async def _blocked(self, target: Any, command: RedisCommand, words: list[bytes], meaning: Any) -> Any:
        """
        Send a request that may block on a leased connection. If it is cancelled, the connection is closed: a reply that
        nobody receives may take an element of a list away.
        """
        journey, since, data = self.journey(target), self._face.reactor.seconds(), encode(words)
        sent = data
        while True:
            pool, connection = await journey.lease()
            try:
                result = await askLeased(connection, command, sent, meaning)
            except (ResponseError, UndecodableReply) as error:
                pool.release(connection)
                if not (isinstance(error, ResponseError) and await journey.follow(error)):
                    raise
                sent = command.shortened(data, self._face.reactor.seconds() - since)
            except BaseException:
                discard(pool, connection)
                raise
            else:
                pool.release(connection)
                return result

    def sendSteps(self, queued: list[tuple[Any, Step]]) -> None:
        """
        Send the requests of a pipeline.
        """
        byPool: dict[Any, list[Step]] = {}
        for pool, step in queued:
            byPool.setdefault(pool, []).append(step)
        for pool, steps in byPool.items():
            Unit(pool, steps, lambda undone, pool=pool: self._sendAgain(pool, undone)).send()  # type: ignore[misc]

    def _sendAgain(self, pool: Any, undone: list[Undone]) -> None:
        """
        Send requests once more that the server has declined.
        """
        pool.counters.retries += len(undone)
        Unit(pool, [each.step for each in undone]).send()


def _observed(result: Deferred[Any]) -> Deferred[Any]:
    """
    @return: fires as C{result} does, which keeps its value for the caller of the command. An error is not reported as
        unhandled then.
    """
    seen: Deferred[Any] = Deferred()

    def got(value: Any) -> Any:
        seen.callback(value)
        return value

    result.addCallbacks(got, seen.errback)
    return seen


async def settle(waiting: Sequence[Deferred[Any]]) -> list[Any]:
    """
    Wait for the results of requests that were sent.

    @return: the results, in order.

    @raise PoolError: the first of the errors. All requests have ended then.
    """
    results: list[Any] = []
    error: Failure | None = None
    for result in waiting:
        try:
            results.append(await _observed(result))
        except Exception:
            error = error or Failure()
    if error is not None:
        error.raiseException()
    return results
