# -*- test-case-name: tests.operate.workers.test_shares -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The settings of each worker: its share of the bounds of the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from txconnpool.config.settings import PoolSettings, Settings


def shares(settings: Settings, workers: int) -> Iterator[Settings]:
    """
    Divide the bounds of a process among workers, so that the shares add up. C{maxClients} is not divided, because the
    parent counts the clients. Statistics and the console are the parent's.

    @param workers: how many workers there are.

    @return: the settings of each worker.
    """
    for index in range(workers):
        yield replace(
            settings,
            pools=tuple(_share(pool, workers, index) for pool in settings.pools),
            workers=1,
            maxUnreadBytes=max(settings.maxUnreadBytes // workers, 1 << 20),
            stats=None,
            admin=None,
            adminPasswordFile=None,
        )


def _share(pool: PoolSettings, workers: int, index: int) -> PoolSettings:
    def divided(total: int) -> int:
        return total // workers + (index < total % workers)

    size = divided(pool.poolSize)
    return replace(
        pool, poolSize=size, minPoolSize=min(size, divided(pool.minPoolSize)), maxWaiting=divided(pool.maxWaiting)
    )
