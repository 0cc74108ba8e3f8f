# -*- test-case-name: tests.config.test_notes -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What settings amount to where their values alone do not show it.
"""

from __future__ import annotations

from collections.abc import Iterator

from txconnpool.config.settings import Fault, PoolSettings, Settings
from txconnpool.routing.distribution import ROUND_ROBIN, Distribution


def notesOf(settings: Settings) -> list[str]:
    """
    Describe how each pool with several servers uses them.

    @return: a line for each of these pools, for the log.
    """
    return [
        str(Fault(_distribution(pool), pool=pool.name))
        for pool in settings.pools
        if len(pool.servers) > 1 or pool.sources or pool.cluster is not None
    ]


def spreadOf(settings: Settings) -> Iterator[str]:
    """
    Find how the keys of each pool spread over its servers. The maps of keys are built for that.

    @return: a line for each pool that distributes keys, unless its servers are still to be found.
    """
    for pool in settings.pools:
        distribution = pool.distributionByKey
        if distribution is not None and not pool.sources:
            shares = distribution.build([server.spec() for server in pool.servers]).shares()
            least, most = (shares.index(share) for share in (min(shares), max(shares)))
            text = (
                f"each of the {len(shares)} servers has {shares[0]:.1%} of the keys"
                if shares[least] == shares[most]
                else f"{shares[least]:.1%} of the keys belong to {pool.servers[least].name}, which has the fewest, and "
                f"{shares[most]:.1%} to {pool.servers[most].name}, which has the most"
            )
            yield str(Fault(text, pool=pool.name))


def _distribution(pool: PoolSettings) -> str:
    if pool.cluster is not None:
        return "the nodes of the cluster report which of them has which keys"
    if pool.readsReplicas:
        reads = "that read" if pool.readFrom == "replica" else "that read while one of them is up"
        return f"the sentinels name the master, and its replicas, which get the requests {reads}"
    if pool.hasSentinels:
        return "the sentinels name the master, which gets all requests"
    distribution = pool.distributionByKey or Distribution(ROUND_ROBIN)
    default = " by default" if pool.distribution is None else ""
    servers = "the servers that are found" if pool.sources else f"{len(pool.servers)} servers"
    return f"the distribution of {servers} is{default} {distribution.describe()}"
