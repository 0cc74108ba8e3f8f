# -*- test-case-name: tests.pool.test_ageing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The ageing of connections: when a connection is idle for too long or too old, and when an idle one is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from txconnpool.pool.decisions.actions import Action
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.picking import Records
from txconnpool.pool.decisions.reasons import EXPIRED, IDLE, NONE, TOO_OLD
from txconnpool.pool.decisions.records import DIALING, GONE, RETIRING, Record

#: Seconds until a connection that is too old is retired even if it has no successor, because it has always been leased.
LEASED: Final = 60.0


class Ageing:
    """
    The lifetimes of the connections of a pool. L{Records.ageAt} is the time at which to call L{age} next.

    A connection that is too old stays in use until another one to its server is established. So a server that accepts
    no new connections, but serves those that it has, stays in use too.

    @ivar overdue: the connections that are too old and not replaced yet. Some of them may be gone already.
    """

    def __init__(self, records: Records, limits: Limits, vary: Callable[[float, float], float]) -> None:
        """
        @param vary: C{random.uniform} or a stand-in.
        """
        self._records = records
        self._limits = limits
        self._vary = vary
        self.overdue: list[Record] = []

    def setLimits(self, limits: Limits, now: float) -> None:
        """
        Apply other limits, to existing connections too.
        """
        old, self._limits = self._limits, limits
        if limits.maxLifetime != old.maxLifetime:
            for record in self._records.all:
                if record.phase is not DIALING:
                    self._setLifetime(record)
        self._records.ageAt = now

    def established(self, record: Record, now: float) -> None:
        """
        The lifetime of a connection begins.
        """
        record.born = record.freeSince = now
        self._setLifetime(record)

    def _setLifetime(self, record: Record) -> None:
        lifetime = self._limits.maxLifetime
        jitter = self._limits.lifetimeJitter
        record.expires = record.born + lifetime * self._vary(1 - jitter, 1) if lifetime else inf

    def age(self, now: float) -> list[Action]:
        """
        Retire connections that are idle for too long, check those that are to be kept alive, and find those that are
        too old.
        """
        records, limits = self._records, self._limits
        old = [record for record in records.all if record.expires <= now and record.phase is not RETIRING]
        actions: list[Action] = []
        for record in old:
            if record.reason is NONE:
                record.reason = TOO_OLD
            if record.lent and record.expires + LEASED <= now:
                actions += records.discard(record, record.reason)
        self.overdue = [record for record in old if record.phase is not RETIRING]
        times = [record.expires for record in records.all if record.expires > now and record.phase is not RETIRING]
        times += [record.expires + LEASED for record in self.overdue if record.lent]
        if limits.idleTimeout:
            free = sorted([*records.idle, *records.doubtful], key=lambda record: record.freeSince)
            spare = len(records.open) + len(records.doubtful) + records.checking - limits.minimum
            stale = [record for record in free if record.freeSince + limits.idleTimeout <= now][: max(0, spare)]
            actions += records.retire(stale, IDLE)
            if spare > len(stale):
                times.append(min((record.freeSince for record in free[len(stale) :]), default=now) + limits.idleTimeout)
        if limits.keepAlive:
            for record in [*records.idle, *records.doubtful]:
                if record.seenAt + limits.keepAlive <= now:
                    actions.append(records.check(record))
            seen = [record.seenAt for record in [*records.idle, *records.doubtful]]
            times.append(min(seen, default=now) + limits.keepAlive)
        records.ageAt = min(times, default=inf)
        return actions

    def expire(self, now: float) -> list[Action]:
        """
        Let all connections be too old from now on. What is being dialed is dialed again.
        """
        records = self._records
        established = [record for record in records.all if record.phase not in (DIALING, RETIRING)]
        for record in established:
            record.expires = min(record.expires, now)
            record.reason = EXPIRED
        dialing = [record for record in records.all if record.phase is DIALING]
        return records.retire(dialing, EXPIRED) + self.age(now)

    def nextOverdue(self) -> list[Record]:
        """
        @return: the connections that are too old and can be replaced, those with the least load first: they can be
            closed first. Leased ones are replaced after their lease.
        """
        self.overdue = [record for record in self.overdue if record.phase not in (RETIRING, GONE)]
        return sorted((record for record in self.overdue if not record.lent), key=lambda record: record.load)
