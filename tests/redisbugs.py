# -*- test-case-name: tests.test_bugs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Known bugs of proxies, pools and clients of Redis, for L{tests.bugs}.
"""

from __future__ import annotations

from typing import Final

#: The number of each bug, the programs and their failure, and why there is no test, or no test for a part of it.
REDIS_BUGS: Final[list[tuple[str, str, str]]] = [
    # Replies to the wrong request, and in the wrong order
    ("R1", "twemproxy: parts of a late reply to a script reach other clients", ""),
    ("R2", "redis-py, aredis, coredis: the reply to a cancelled call is read by the next user of its connection", ""),
    ("R3", "jedis, vertx: a connection returns to the pool still subscribed; messages are taken for replies", ""),
    ("R4", "twemproxy: two requests of one client travel on two connections, and are executed in another order", ""),
    (
        "R5",
        "Dragonfly: HELLO and CLIENT TRACKING in one packet are executed in another order",
        "streams with such packets are compared with those of a server by tests.real.test_redis",
    ),
    ("R6", "Dragonfly: the confirmation of a subscription is overtaken by later replies", ""),
    ("R7", "Dragonfly, Envoy: redis-cli --pipe fails, which ends with an ECHO of any bytes, line ends among them", ""),
    ("R8", "Dragonfly: the same reply has another form after a wait, in a transaction, or as a message", ""),
    ("R9", "txredisapi: another command clears what it knows of a transaction", ""),
    # Closing, hiding and guessing
    ("R10", "twemproxy: a request without its keys closes the client", ""),
    ("R11", "twemproxy: a DEL of several keys hides the error of the server", ""),
    ("R12", "predixy: an MGET has nulls for the keys of a server that is down", ""),
    ("R13", "Envoy: the error for an unknown command is not that of Redis, so clients do not fall back", ""),
    ("R14", "StackExchange.Redis, Envoy: UNWATCH is unknown; a DISCARD leaves the keys watched", ""),
    ("R15", "Envoy: transactions that are empty, or without any key, crash it", ""),
    ("R16", "predixy: an inline request is matched with its line end", ""),
    ("R17", "predixy: MULTI is refused for several servers, and many programs need it", ""),
    ("R18", "twemproxy: the pipelines of redis-py fail, because they are transactions", ""),
    ("R19", "twemproxy: the first request after the server has closed an idle connection fails", ""),
    ("R20", "twemproxy: a server that still loads its data is used again", ""),
    # Stuck, and crashed
    ("R21", "predixy: a connection to a host that is gone hangs", ""),
    ("R22", "predixy: idle connections that the server closes count as failures; a name is looked up only once", ""),
    ("R23", "predixy: it freezes, or aborts when a request is answered whose client has gone", ""),
    ("R24", "redis-cluster-proxy: it hangs after a blocking command was refused", ""),
    ("R25", "redis-cluster-proxy: it crashes when a node dies, and at the second change of the nodes", ""),
    ("R26", "redis-cluster-proxy: a new connection for each transaction", ""),
    ("R27", "Envoy: the timeout for requests ends blocking commands", ""),
    ("R28", "OpenCTI, predixy: a connection whose peer is dead is used for a quarter of an hour", ""),
    ("R29", "txredisapi: calls hang while the server is down", ""),
    (
        "R30",
        "txRedis: after QUIT all calls that wait fail",
        "no pool sends QUIT: close() lets requests in flight end, and closes connections that carry nothing",
    ),
    # Clusters
    ("R31", "Envoy, Istio: keys are hashed for plain servers, and every second reply of a cluster is a redirect",
     "the servers of a pool are no cluster unless its settings say so"),
    ("R32", "Envoy: a redirect with the name of a host, or without one, is not understood", ""),
    ("R33", "ioredis: redirects name addresses that cannot be reached from outside", ""),
    ("R34", "ioredis: a redirect to a node without slots fails", ""),
    ("R35", "ioredis: one redirect repeats all requests of a pipeline, also writes that were executed", ""),
    ("R36", "rueidis, redis-py: all clients ask the same node for the map, again and again", ""),
    ("R37", "redis-py-cluster: the map is asked for too late, so that requests run out of redirects", ""),
    ("R38", "redis-py-cluster: it computes another slot than the server", ""),
    ("R39", "ioredis: a replica is read without READONLY after its connection was made again", ""),
    ("R40", "redis-py-cluster, jedis: a node that has left the cluster is asked again and again", ""),
    ("R41", "StackExchange.Redis: what a proxy answers to CLUSTER makes clients believe in a cluster", ""),
    (
        "R42",
        "corvus, twemproxy: KEYS and SCAN, which tools need, are missing",
        "they are compared with those of a server by tests.real.test_redis",
    ),
    ("R43", "corvus: a node that was removed costs an error", ""),
    ("R44", "Codis: proxies stop serving when they lose those who tell them about servers", ""),
    ("R45", "node-redis, StackExchange.Redis: no messages of sharded channels come any more after their slot has moved",
     ""),
    ("R46", "Valkey: SUNSUBSCRIBE gets an error too if the slot moves meanwhile, which is taken for a later reply", ""),
]  # fmt: skip
