# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What is done about a request that a node of a cluster has not executed: it is sent to another node, or again later.
"""

from __future__ import annotations

from typing import Any, Final

from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.pool.containment import DROPPED
from txconnpool.wire.topology import Redirect

#: How often a request is sent on at once. Further redirects are those of nodes that do not agree yet, so each is
#: followed later.
HOPS: Final = 4

#: The seconds until a request is sent again: each time twice as many, up to the last number.
DELAY: Final = 0.05
DELAY_MAX: Final = 0.2


class Course:
    """
    What has happened to one request. The times are arguments.
    """

    __slots__ = ("_delays", "_hops", "_since")

    def __init__(self, now: float) -> None:
        """
        @param now: the time of its first redirect.
        """
        self._since = now
        self._hops = 0
        self._delays = 0

    def follow(self, router: Any, redirect: Redirect, key: bytes, server: Any, now: float) -> tuple[Any, float] | None:
        """
        Decide what is done about a redirect.

        @param router: the L{ClusterRouter<txconnpool.routing.clusterrouters.ClusterRouter>} of the request.
        @param key: a key of the request.
        @param server: the server that has sent the redirect.

        @return: the pool that gets the request the next time, and only then, or C{None} for the pool of its key; and
            the seconds until then. C{None}: the time of the request is over, and what the node says is the reply.

        @raise ServerUnavailable: the redirect is wrong, or the time is over and the reply would be a redirect.
        """
        cluster = router.cluster
        if redirect.node is None:
            cluster.postponed()
            if _isReplica(router, key, server):
                return None, 0.0  # the primary gets it
        else:
            pool = router.redirected(redirect, key, server)
            self._hops += 1
            if pool is not None and self._hops <= HOPS:
                return pool if redirect.once else None, 0.0
        delay = self.delay(cluster, now)
        if delay is not None:
            return None, delay
        if redirect.node is None:
            return None
        # A caller can do nothing with a redirect.
        slot = router.slotOf(key)
        raise ServerUnavailable(f"upstream unavailable: no node of the cluster serves slot {slot} now")

    def delay(self, cluster: Any, now: float) -> float | None:
        """
        @return: the seconds until the request is sent again; C{None}: its time is over.
        """
        delay = min(DELAY * 2**self._delays, DELAY_MAX)
        self._delays += 1
        return None if now + delay > self._since + cluster.patience else delay


def _isReplica(router: Any, key: bytes, server: Any) -> bool:
    """
    @return: whether a server is not that of the primary of a key.
    """
    try:
        return bool(server.name != router.choose(key).servers[0].name)
    except PoolError:
        return False


#: The sink of the request that lets a node execute the next one: what the node replies to that counts.
PRELUDE: Final = DROPPED
