# -*- test-case-name: tests.config.test_warnings -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Settings that are valid, but do less than they seem to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from txconnpool.config.files import exposedSecrets, outdatedCertificates
from txconnpool.config.settings import Fault, PoolSettings, Settings
from txconnpool.routing.distribution import Distribution, ServerSpec
from txconnpool.wire.dialects import DIALECTS
from txconnpool.wire.effects import leftOpen


def warningsOf(settings: Settings) -> list[str]:
    """
    Find mistakes that do not prevent a start. This looks at the permissions of the files that settings name, and at the
    dates of certificates.

    @return: a line for each setting that probably does not do what was meant. The same one has the same line until the
        mistake is another one.
    """
    faults = [
        Fault(text, pool=pool.name)
        for pool in settings.pools
        for text in (*_commandsLeftOpen(pool), *_keysBadlyDistributed(pool))
    ]
    return [str(fault) for fault in (*faults, *exposedSecrets(settings), *outdatedCertificates(settings))]


def _commandsLeftOpen(pool: PoolSettings) -> list[str]:
    """
    @return: warnings about denied commands whose effects other commands still have, or whose denial has no use.
    """
    dialect = DIALECTS[pool.protocol]
    denied, allowed = pool.denyCommands, pool.allowCommands
    useless = [
        f"deny-commands: {word} only closes the connection of its client, who can do that without it; clients that "
        "send it get an error, and stay"
        for word in denied
        if word.encode() in dialect.closing
    ]
    return useless + list(
        leftOpen(
            dialect.ordinary,
            dialect.possible,
            frozenset(word.encode() for word in denied),
            None if allowed is None else frozenset(word.encode() for word in allowed),
        )
    )


def _keysBadlyDistributed(pool: PoolSettings) -> Iterator[str]:
    """
    @return: warnings about the servers of a pool and about what happens if they fail.
    """
    distribution, count = pool.distributionByKey, len(pool.servers)
    if distribution is not None and distribution.positional and pool.sources:
        yield (
            f"with the distribution {distribution.name}, a server is its position in the list: most keys move when "
            f"{pool.sources[0].split()[0]} has other servers"
        )
    if distribution is not None and not pool.sources:
        yield from _serversMisused(distribution, tuple(server.spec() for server in pool.servers))
    if pool.onFailure == "rehash" and (count > 1 or pool.sources):
        if distribution is None or not distribution.redistributes:
            name = pool.distribution if distribution is None else distribution.name
            yield f"on-failure = rehash has no effect: with the distribution {name}, no server gets the keys of another"
        elif pool.minLive(count) == count and not pool.sources:
            yield f"on-failure = rehash has no effect: min-live-servers is as many as there are servers, {count}"


@lru_cache(maxsize=8)
def _serversMisused(distribution: Distribution, servers: tuple[ServerSpec, ...]) -> list[str]:
    """
    This builds the map of keys, so a reload must not do it several times for the same servers.
    """
    return distribution.warnings(servers)
