# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Creates the limits of a dialect, a pool and its sessions from the settings of the pool.
"""

from __future__ import annotations

from typing import Final

from txconnpool.config.settings import PoolSettings
from txconnpool.pool.decisions.limits import Limits
from txconnpool.proxy.flow import SessionLimits
from txconnpool.routing.maps import Ejection

#: The number of dials in progress to one server where each client needs a connection that is made for it.
DIALS: Final = 16


def dialectLimits(settings: PoolSettings) -> tuple[int, frozenset[bytes], frozenset[bytes] | None]:
    """
    @return: the arguments of a dialect: the maximum size of a value in bytes, the commands and effects that are
        refused, and the only ones that are accepted (C{None}: all).
    """
    denied, allowed = settings.denyCommands, settings.allowCommands
    return (
        settings.maxItemSize,
        frozenset(word.encode() for word in denied),
        None if allowed is None else frozenset(word.encode() for word in allowed),
    )


def poolLimits(settings: PoolSettings) -> Limits:
    """
    @return: the limits of the pool of connections.
    """
    # Interchangeable servers are used in turn, so each needs a connection. A pool by key gives each server one itself.
    unlike = settings.distributionByKey is not None or settings.cluster is not None or settings.readsReplicas
    equal = 1 if unlike else len(settings.servers)
    # More servers may have been found than the configuration could know.
    maximum = max(settings.poolSize, len(settings.servers))
    opaque = settings.isOpaque
    # A connection for one client only is made for it: a server may close one on which nobody logs in.
    single = opaque and settings.reset == "close"
    return Limits(
        maximum=maximum,
        minimum=0 if single else min(maximum, max(settings.minPoolSize, equal if equal > 1 else 0)),
        depth=1 if opaque else settings.pipelineDepth,
        maxWaiting=settings.maxWaiting,
        waitTimeout=settings.waitTimeout,
        idleTimeout=settings.idleTimeout,
        maxLifetime=0.0 if single else settings.maxLifetime,
        keepAlive=settings.keepAlive,
        reuse="lifo" if equal == 1 else "fifo",
        whenDown=1,
        dials=DIALS if opaque else 1,
    )


def ejection(settings: PoolSettings) -> Ejection:
    """
    @return: what happens to the keys of a server that is down.
    """
    return Ejection(settings.onFailure == "rehash", settings.ejectAfter, settings.minLive(len(settings.servers)))


def sessionLimits(settings: PoolSettings) -> SessionLimits:
    """
    @return: the limits of the sessions.
    """
    return SessionLimits(
        maxClients=settings.maxClients,
        maxPerAddress=settings.maxClientsPerAddress,
        loginTimeout=settings.loginTimeout,
        idleTimeout=settings.clientIdleTimeout,
        statsAddresses=settings.statsAddresses == "yes",
        keyDumps=settings.keyDumps == "yes",
        partialError=settings.partialGets == "error",
        maxInFlight=settings.maxInFlight,
        backlog=settings.sessionBacklog,
        unreadSoft=settings.sessionUnreadSoft,
        unreadHard=settings.sessionUnreadHard,
        leaseAtFirstByte=settings.leaseAt == "first-byte",
        reuse=settings.reset == "none",
    )
