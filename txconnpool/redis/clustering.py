# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Sends the requests of a program to the nodes of a cluster.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from txconnpool.redis.clusterrequests import ClusterJourney, ClusterRequest
from txconnpool.redis.clusterunits import Pipelined
from txconnpool.redis.errors import CrossSlot, InvalidArgument, Loading, ReadOnly
from txconnpool.redis.sending import Sender, settle
from txconnpool.redis.splitting import EVERYWHERE, WIDTHS
from txconnpool.redis.units import Step
from txconnpool.routing.clientnodes import ClientNodes
from txconnpool.routing.courses import Course
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.framing import encode

#: Commands that are sent to the node of their first argument, which is no key.
_BY_CHANNEL = ("publish",)

#: The number of layouts of a cluster that cursors of scans distinguish.
_ERAS = 1 << 20


class ClusterSender(Sender):
    """
    Sends the requests of a pool to the nodes of a cluster. A target is one of the keys of a request, which are all in
    one slot; C{None}: any primary may get the request. A target of a request that all nodes get is the pool of a node.
    """

    def __init__(self, face: Any, meanings: Any, namespace: bytes) -> None:
        super().__init__(face, meanings, namespace)
        self._cluster: ClientNodes = face.nodes
        self._layout: tuple[Any, ...] = ()
        self._era = 0

    def _request(self, target: Any, command: RedisCommand, data: bytes, meaning: Any) -> Deferred[Any]:
        isKey = target is None or isinstance(target, bytes)
        key, node = (target, None) if isKey else (None, target)
        request = ClusterRequest(self._cluster, key, command, data, meaning, node)
        request.send()
        return request.result

    # -- Targets

    def _targetOf(self, command: RedisCommand, words: list[bytes]) -> Any:
        name = command.name
        keys = command.keysOf(words) or (words[1:2] if name in _BY_CHANNEL else [])
        if not keys and self._router.divides and (name in EVERYWHERE or name == "scan"):
            name = name.replace("|", " ").upper()
            raise InvalidArgument(f"{name} concerns all nodes of the cluster: call it by itself")
        if not self._router.together(keys):
            raise CrossSlot("CROSSSLOT Keys in request don't hash to the same slot")
        return keys[0] if keys else None

    def keysOf(self, command: RedisCommand, words: list[bytes]) -> frozenset[bytes]:
        """
        @return: the keys of a request of a pipeline.
        """
        return frozenset(command.keysOf(words))

    def _divided(self, command: RedisCommand, words: list[bytes]) -> dict[Any, list[int]]:
        found: dict[int, list[int]] = {}
        for at in range(1, len(words), WIDTHS[command.name]):
            found.setdefault(self._router.shareOf(words[at]), []).append(at)
        return {words[places[0]]: places for places in found.values()}

    def together(self, first: Any, second: Any) -> bool:
        """
        @return: whether a transaction may have requests for two keys.
        """
        return bool(self._router.together([first, second]))

    def channelTarget(self, channels: list[bytes], patterns: list[bytes], sharded: bool) -> Any:
        """
        @return: the target of a subscription: messages are sent to all nodes, unless they are those of a slot.

        @raise CrossSlot: the channels are those of several slots.
        """
        if sharded and not self._router.together(channels):
            raise CrossSlot("CROSSSLOT Channels in request don't hash to the same slot")
        return channels[0] if channels else None

    async def _everyTarget(self) -> tuple[Any, ...]:
        if not self._cluster.isKnown:
            await self._cluster.whenKnown()
        primaries = self._cluster.primaries
        if not primaries:
            raise self._cluster.unserved
        return tuple(sorted(primaries, key=lambda pool: pool.servers[0].name))

    async def _sendEverywhere(self, command: RedisCommand, words: list[bytes], convert: Any) -> Any:
        """
        Send the same request to all primaries.
        """
        targets, data = list(await self._everyTarget()), encode(words)
        sent = [Deferred.fromCoroutine(self._sendToPrimary(targets, at, command, data)) for at in range(len(targets))]
        value = EVERYWHERE[command.name](await settle(sent))
        return value if convert is None else convert(value)

    async def _sendToPrimary(self, targets: list[Any], at: int, command: RedisCommand, data: bytes) -> Any:
        """
        Send a request to one of all primaries. If that has become a replica meanwhile, the primary in its place gets
        it.

        @param targets: the pools of all primaries. The one at C{at} is replaced if another one gets the request.
        """
        cluster, meaning = self._cluster, self._meanings.of(None, command)
        course = None
        while True:
            try:
                return await self._request(targets[at], command, data, meaning)
            except (Loading, ReadOnly):
                now = cluster.reactor.seconds()
                course = course or Course(now)
                cluster.postponed()
                delay = course.delay(cluster, now)
                if delay is None:
                    raise
                await cluster.wait(delay)
            primaries = cluster.primaries
            if targets[at] not in primaries:
                targets[at] = next((pool for pool in primaries if pool not in targets), targets[at])

    async def _scan(self, command: RedisCommand, words: list[bytes], convert: Any) -> Any:
        """
        Scan one primary after the other. A cursor is valid only while they are the same nodes.
        """
        layout = await self._everyTarget()
        if layout != self._layout:
            self._layout = layout
            self._era += 1
        if words[1].isdigit() and words[1] != b"0":
            cursor, era = divmod(int(words[1]), _ERAS)
            if era != self._era % _ERAS:
                raise InvalidArgument("the cluster has other primaries than when the scan began: begin it again")
            words[1] = b"%d" % cursor
        at, keys = await super()._scan(command, words, None)
        value = [at and at * _ERAS + self._era % _ERAS, keys]
        return value if convert is None else convert(value)

    # -- Requests that need a connection of their own, and several together

    def journey(self, target: Any) -> ClusterJourney:
        """
        @return: the way to the node of a key.
        """
        return ClusterJourney(self._cluster, target)

    def sendSteps(self, queued: list[tuple[Any, Step]]) -> None:
        """
        Send the requests of a pipeline: those for one node together, in order.
        """
        known = succeed(None) if self._cluster.isKnown else self._cluster.whenKnown()
        Pipelined(self._cluster, queued).sendAfter(known)
