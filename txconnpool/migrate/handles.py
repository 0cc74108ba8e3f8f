# -*- test-case-name: tests.migrate.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What of mcrouter's configuration has no equivalent, what that means, and what to do instead.

The names are those of C{McRouteHandleProvider.cpp}, C{HashRouteFactory.h} and C{PoolRouteUtils.h} of mcrouter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wrapper:
    """
    A route handle of which one part is taken over.

    @ivar main: the keys of which the first that is there has the part that is taken over.
    @ivar others: the keys with further parts. Each of them becomes a pool with a listener of its own.
    @ivar meaning: what is lost.
    """

    main: Sequence[str]
    meaning: str
    others: Sequence[str] = ()


_COPIES = (
    "sends each request to all of its pools. Here a request goes to one server. The first pool is taken over; every "
    "other one gets a listener of its own, and a client that wants copies writes to each of them."
)

#: Route handles with several parts, by type.
WRAPPERS = {
    "AllSyncRoute": Wrapper(["children"], f"{_COPIES} Its reads wait for all pools too.", ["children"]),
    "AllAsyncRoute": Wrapper(["children"], _COPIES, ["children"]),
    "AllInitialRoute": Wrapper(["children"], _COPIES, ["children"]),
    "AllFastestRoute": Wrapper(["children"], _COPIES, ["children"]),
    "AllMajorityRoute": Wrapper(["children"], _COPIES, ["children"]),
    "MissFailoverRoute": Wrapper(
        ["children"],
        "asks the next pool after a miss. Here a miss is a miss. The first pool is taken over; every other one gets a "
        "listener of its own, and a client may ask there after a miss.",
        ["children"],
    ),
    "RandomRoute": Wrapper(
        ["children"],
        "sends each request to any of its pools. The first pool is taken over. For interchangeable servers, list all "
        "of them in one pool with `distribution = round-robin`.",
        ["children"],
    ),
    "LatestRoute": Wrapper(
        ["children"],
        "uses the first pool that works. The first pool is taken over; use `on-failure = failover` for the next one.",
        ["children"],
    ),
    "LoadBalancerRoute": Wrapper(
        ["children"],
        "sends each request to the pool with the least load. The first pool is taken over. For interchangeable "
        "servers, list all of them in one pool with `distribution = round-robin`.",
        ["children"],
    ),
    "HostIdRoute": Wrapper(
        ["children"],
        "chooses a pool by the host that mcrouter runs on. The first pool is taken over: choose the right one for each "
        "host.",
        ["children"],
    ),
    "OriginalClientHashRoute": Wrapper(
        ["children"], "chooses a pool by the client. The first pool is taken over.", ["children"]
    ),
    "L1L2CacheRoute": Wrapper(
        ["l1"],
        "asks l2 after a miss in l1, and fills l1 from it. l1 is taken over; l2 gets a listener of its own, and a "
        "client may ask there after a miss.",
        ["l2"],
    ),
    "L1L2SizeSplitRoute": Wrapper(
        ["l1"], "keeps large values in l2. l1 is taken over, for values of any size; set max-item-size.", ["l2"]
    ),
    "WarmUpRoute": Wrapper(
        ["cold"],
        "fills the pool cold from the pool warm after a miss. cold is taken over; warm gets a listener of its own, and "
        "a client may ask there after a miss.",
        ["warm"],
    ),
    "StagingRoute": Wrapper(
        ["warm"], "copies requests to the pool staging. warm is taken over; staging gets a listener.", ["staging"]
    ),
    "MigrateRoute": Wrapper(
        ["to"],
        "moves from one pool to another at a certain time. `to` is taken over; `from` gets a listener of its own. To "
        "change the servers of a pool while it runs, reload its ini file.",
        ["from"],
    ),
    "LoggingRoute": Wrapper(
        ["target"], "logs requests. `slow-request` logs slow ones; the statistics count all of them by command."
    ),
    "ModifyExptimeRoute": Wrapper(
        ["target"], "changes expiry times. Here they are passed on as they are: set them in the clients."
    ),
    "ModifyKeyRoute": Wrapper(
        ["target"],
        "changes keys. Here they are passed on as they are: values that are stored under changed keys are not found "
        "until the clients use these keys.",
    ),
    "KeyParseRoute": Wrapper(["target"], "reads routing information from keys. Here keys are passed on as they are."),
    "HashStopAllowListRoute": Wrapper(
        ["target"], "allows |#| in some keys only. Here all keys are hashed up to |#|; see hash-stop."
    ),
    "RateLimitRoute": Wrapper(
        ["target"],
        "limits the rate of requests. Here numbers are limited instead: max-clients, max-in-flight, max-waiting.",
        ["fallback"],
    ),
    "BigValueRoute": Wrapper(
        ["target", "destination"],
        "splits large values into several. Here they are passed on as they are: see max-item-size. Values that were "
        "stored in pieces are not found.",
    ),
    "KeySplitRoute": Wrapper(
        ["destination"], "keeps copies of a key under several names. Here a key is passed on as it is."
    ),
    "LatencyInjectionRoute": Wrapper(["child"], "delays requests, for tests. There is no delay here."),
    "CarbonLookasideRoute": Wrapper(["child"], "caches replies of other services. Here requests are passed on."),
    "DistributionRoute": Wrapper(
        ["target", "child"], "broadcasts changes to other regions. Here requests go to the pool only."
    ),
    "SetDistributionTargetRoute": Wrapper(
        ["child"], "broadcasts changes to other regions. Here requests go to the pool only."
    ),
    "ShadowRoute": Wrapper(
        ["target", "destination"], "copies a part of the requests to other servers. There are no copies here."
    ),
    "RoutingGroupRoute": Wrapper(["target", "child"], "chooses routes by groups. Here the pool gets all requests."),
}

#: Route handles that have no servers.
WITHOUT_SERVERS = {
    "NullRoute": "answers each request with a miss",
    "DevNullRoute": "answers each request with a miss",
    "BlackholeRoute": "never answers",
    "ErrorRoute": "answers each request with an error",
}

#: Hash functions without an equivalent.
HASHES_WITHOUT = {
    "ConstShard": "takes the number of a server from the key",
    "WeightedCh3Rv": "reads its weights while it runs",
    "Latest": "uses the first servers that work",
    "LoadBalancer": "sends each request to the server with the least load",
}

_NO_STATISTICS = "has no meaning here."

#: Keys of a pool that have no equivalent, or need none.
POOL_KEYS = {
    "qos": "sets the class of service of packets. Use the packet filter of the system.",
    "enable_compression": "compresses values. Here they are passed on as they are: compress them in the clients. "
    "Values that mcrouter has compressed are not readable.",
    "keep_routing_prefix": "leaves /REGION/CLUSTER/ in keys that are sent. It always stays here.",
    "tko_tracker": "keeps most servers in use however they fail. Here a server is down after 3 failed dials; see "
    "min-live-servers.",
    "additional_fanout": "opens more connections to each server. See pool-size.",
    "failure_domains": "chooses servers of another failure domain for failover. See `on-failure` and `failover`.",
    "port_override": "replaces the ports of the servers: write the right ports into `upstream`.",
    "port_override_within_dc": "replaces the ports of the servers: write the right ports into `upstream`.",
    "port_override_cross_dc": "replaces the ports of the servers: write the right ports into `upstream`.",
    "security_mech_within_dc": "encrypts some connections: write tls: before the addresses of these servers.",
    "security_mech_cross_dc": "encrypts some connections: write tls: before the addresses of these servers.",
    "region": f"is for statistics and timeouts, and {_NO_STATISTICS}",
    "cluster": f"is for statistics and timeouts, and {_NO_STATISTICS}",
    "hostnames": f"is for messages only, and {_NO_STATISTICS}",
    "services": _NO_STATISTICS,
    "service_id_override": _NO_STATISTICS,
    "error_on_empty": _NO_STATISTICS,
    "disable_request_deadline_check": _NO_STATISTICS,
}

#: Keys of a route that have no equivalent.
ROUTE_KEYS = {
    "shadows": "copies a part of the requests to other servers. There are no copies here.",
    "shadow_policy": "copies a part of the requests to other servers. There are no copies here.",
    "rates": "limits the rate of requests. Here numbers are limited instead: max-clients, max-in-flight, max-waiting.",
    "max_outstanding": "limits the requests in flight. See pipeline-depth and pool-size.",
    "slow_warmup": "sends few requests to a server that is back. It gets all of its keys at once here.",
    "shard_splits": "keeps copies of a part of the keys under several names. Here a key is passed on as it is.",
    "split_shard_fanout": "keeps copies of a part of the keys. Here a key is passed on as it is.",
    "asynclog": "keeps failed deletes in a file. A client gets an error here, and may delete again.",
    "asynclog_name": "is the name of a file of failed deletes. A client gets an error here, and may delete again.",
    "axonlog": "logs deletes for another service. There is no such log here.",
    "bucketize": "adds the number of a bucket to requests. memcached does not use it.",
    "failover_errors": "says which errors lead to failover. Here a server that is down does, no error of a request.",
    "failover_limit": "limits the rate of failover. There is no such limit here.",
    "failover_policy": "chooses another order of the pools. Here it is the order of the file.",
    "failover_tag": "marks keys in the failover pool. They are not changed here: both pools must not have servers in "
    "common.",
    "enable_lease_pairing": "is for leases, which memcached does not have.",
    "distribution_enabled": "broadcasts changes to other regions. Here requests go to the pool only.",
}
