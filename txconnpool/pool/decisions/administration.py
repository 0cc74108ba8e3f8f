# -*- test-case-name: tests.pool.test_administration -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Changes to a running pool: its servers, its limits, pausing, and replacing connections.
"""

from __future__ import annotations

from txconnpool.metrics import Reason
from txconnpool.pool.decisions.actions import Action
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import DRAINED, NOT_READY, OUTDATED, REMOVED, SURPLUS
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.state import PoolState


class Administration:
    """
    The decisions that follow from changes. As with L{PoolState}, each returns actions for the caller to carry out.
    """

    def __init__(self, state: PoolState) -> None:
        self._state = state

    # -- Servers

    def addServer(self, server: Server, now: float) -> list[Action]:
        """
        Add a server.
        """
        self._state.balance.servers.append(server)
        return self._rebalance(now)

    def removeServer(self, server: Server, now: float) -> list[Action]:
        """
        Remove a server for good. Its connections are closed when they carry nothing.
        """
        self._state.balance.remove(server)
        return self._retire(server, REMOVED, now)

    def drain(self, server: Server, now: float) -> list[Action]:
        """
        Take a server out of service until it is restored: its connections are closed when they carry nothing, and it is
        not dialed.
        """
        server.drained = True
        return self._retire(server, DRAINED, now)

    def restore(self, server: Server, now: float) -> list[Action]:
        """
        Put a drained server back into service. If it is down, it is dialed without delay.
        """
        server.drained = False
        server.retryAt = now
        return self._rebalance(now)

    def markDown(self, server: Server, cause: BaseException, reason: str, now: float) -> list[Action]:
        """
        The caller knows that C{server} cannot be reached: do not dial it for a while, as after a failed dial.
        """
        return self._state.failed(server, server.failures + 1, cause, reason, now)

    def notReady(self, server: Server, cause: BaseException, reason: str, now: float) -> list[Action]:
        """
        C{server} has replied that it cannot execute requests now: close its connections when they carry nothing, and
        dial it as after a failed dial.
        """
        actions = self._state.connections.retire(self._established(server), NOT_READY)
        return actions + self.markDown(server, cause, reason, now)

    def outdated(self, server: Server, now: float) -> list[Action]:
        """
        C{server} turned out to be another one than is needed: close its connections when they carry nothing, and dial
        it again.
        """
        return self._state.connections.retire(self._established(server), OUTDATED) + self._state.grow(now)

    def _established(self, server: Server) -> list[Record]:
        return [each for each in self._state.records if each.server is server and each.connection is not None]

    # -- Requests

    def pause(self, now: float) -> None:
        """
        Let all requests wait, without limit. Requests in flight continue.
        """
        self._state.connections.pause(now)

    def resume(self, now: float) -> list[Action]:
        """
        End a pause. The time that waiters have waited during the pause does not count.
        """
        state = self._state
        since = state.connections.pausedAt
        if since is None:
            return []
        state.waiters.extendDeadlines(since, now)
        state.connections.resume(now)
        return state.refuseIfDown() + state.grow(now)

    # -- Connections

    def setLimits(self, limits: Limits, now: float) -> list[Action]:
        """
        Apply other limits, to existing connections and waiters too. Connections above the limits are closed when they
        carry nothing.
        """
        self._state.setLimits(limits, now)
        return self._rebalance(now)

    def expire(self, now: float) -> list[Action]:
        """
        Replace all existing connections one after another. Each stays in use until its successor is established, and is
        closed when it carries nothing.
        """
        return self._state.ageing.expire(now) + self._state.grow(now)

    def _retire(self, server: Server, reason: Reason, now: float) -> list[Action]:
        state = self._state
        actions = state.connections.retire([each for each in state.records if each.server is server], reason)
        return actions + state.refuseIfDown() + state.grow(now)

    def _rebalance(self, now: float) -> list[Action]:
        """
        Retire surplus connections, and dial servers that have less than their share instead.
        """
        state = self._state
        surplus = state.balance.surplus(state.records)
        actions = state.connections.retire(surplus, SURPLUS)
        return actions + state.grow(now)
