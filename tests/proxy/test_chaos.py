# Copyright txconnpool contributors. See LICENSE.
"""
Random stories of clients whose keys are on several servers: servers fail, are added, removed, ejected and restored, and
limits change, while replies arrive in pieces of any size.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from unittest import mock

from tests.memcached import Line, QueuedLine, Upstream, answer
from tests.pipes import Pipe
from tests.proxy.test_sharding import ShardedTestCase, anyRequest
from tests.stage import ByNumber, ShardedStage
from txconnpool.proxy.flow import SessionLimits
from txconnpool.routing.distribution import ServerSpec
from txconnpool.routing.maps import Ejection, Shard
from txconnpool.routing.standin import StandIn

#: The number of stories.
STORIES = 40

#: The maximum number of servers of a story.
SERVERS_MAX = 6


class Story:
    """
    One random story.
    """

    def __init__(self, case: ShardedTestCase, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.stage = case.sharded(
            sessionLimits=SessionLimits(
                maxInFlight=rng.choice((1, 3, 200)),
                backlog=rng.choice((100, 65536)),
                unreadSoft=rng.choice((1000, 1 << 18)),
            ),
            depth=rng.choice((1, 2, 128)),
            ejection=Ejection(rng.random() < 0.6, rng.choice((0, 1, 2))),
            maxWaiting=rng.choice((2, 10000)),
            line=rng.choice((Line, QueuedLine)),
            merges=rng.random() < 0.7,
            unites=rng.random() < 0.7,
        )
        self.stages: list[ShardedStage] = [self.stage]
        if rng.random() < 0.5:
            self.stages.append(case.sharded(depth=rng.choice((1, 128))))
            self.stage.pool.standIn = StandIn(mock.Mock(router=self.stages[1].pool), 60)
        self.clients = [self.stage.client() for _ in range(4)]
        self.expected: list[list[tuple[bytes, bytes]]] = [[] for _ in self.clients]

    def step(self) -> None:
        """
        Let some clients send something in the same turn, and let something else happen.
        """
        rng = self.rng
        for at in rng.sample(range(len(self.clients)), rng.choice((1, 1, 2, 4))):
            if self.clients[at].connected:
                self.send(self.clients[at], b"wxyz"[at : at + 1], self.expected[at])
        actions = (self.lose, self.refuse, self.wait, self.change, self.eject, *[self.deliver] * 5)
        rng.choice(actions)()
        for _ in range(10):
            self.advance(0)
        for stage in self.stages:
            stage.pool.selfCheck()

    def send(self, client: Pipe, letter: bytes, expected: list[tuple[bytes, bytes]]) -> None:
        """
        Send requests for keys of this client alone.
        """
        rng = self.rng
        for _ in range(rng.choice((1, 2, 20))):
            request, reply = anyRequest(rng, letter)
            if rng.random() < 0.1:
                keys = b" ".join(b"%b%b%d" % (rng.choice((b"a", b"miss")), letter, n % 12) for n in range(130))
                request = b"gets %b\r\n" % keys
                reply = answer(request)[0]
            expected.append((request, reply))
            client.send(request)

    def advance(self, seconds: float) -> None:
        """
        Let time pass.
        """
        for stage in self.stages:
            stage.clock.advance(seconds)

    def lose(self) -> None:
        """
        Let a connection be lost.
        """
        lines = [line for stage in self.stages for line in stage.lines if line.connected]
        if lines:
            self.rng.choice(lines).lose()

    def refuse(self) -> None:
        """
        Let a server refuse connections, or accept them again.
        """
        servers = [server for stage in self.stages for server in stage.servers]
        self.rng.choice(servers).mode = self.rng.choice(("refuse", "accept", "accept"))

    def wait(self) -> None:
        """
        Let some or all replies be late.
        """
        self.advance(self.rng.choice((0.1, 1.0, 3.0)))

    def change(self) -> None:
        """
        Change the servers, their order, and the limits.
        """
        rng, stage = self.rng, self.stage
        servers = rng.sample(stage.servers, rng.randint(1, len(stage.servers)))
        if len(stage.servers) < SERVERS_MAX and rng.random() < 0.3:
            stage.servers.append(Upstream(stage.clock, f"server{len(stage.servers)}"))
            stage.servers[-1].kind = stage.servers[0].kind
            servers.append(stage.servers[-1])
        shards = [Shard(server, ServerSpec(server.name, 1)) for server in servers]
        limits = replace(stage.pool.limits, depth=rng.choice((1, 3, 128)))
        stage.pool.change(shards, ByNumber(), limits, Ejection(rng.random() < 0.6, 1))

    def eject(self) -> None:
        """
        Eject or restore a server, if that is possible.
        """
        pool = self.stage.pool
        name = self.rng.choice([shard.servers[0].name for shard in pool.pools])
        with contextlib.suppress(ValueError):  # no other server is left
            self.rng.choice((pool.eject, pool.restore))(name)

    def deliver(self) -> None:
        """
        Let bytes of replies arrive on one connection.
        """
        lines = [line for stage in self.stages for line in stage.lines if line.connected]
        if lines:
            self.rng.choice(lines).deliver(self.rng.choice((1, 50, 5000)))


class ChaosTests(ShardedTestCase):
    """
    Tests with random stories.
    """

    def test_stories(self) -> None:
        """
        Each request gets its own reply or an error, in the order of the requests, and nothing is left.
        """
        for seed in range(STORIES):
            story = Story(self, seed)
            for _ in range(story.rng.randint(5, 40)):
                story.step()
            for stage in story.stages:
                for server in stage.servers:
                    server.mode = "accept"
            for _ in range(12):
                for stage in story.stages:
                    self.deliverAny(stage, story.rng)
                story.advance(1)
            for client, exchanges in zip(story.clients, story.expected, strict=True):
                if client.connected:
                    self.assertReplies(client.take(), exchanges, seed)
            stage = story.stage
            self.assertEqual([session.inFlight for session in stage.sessions.sessions if session.inFlight], [])
            self.assertEqual(stage.pool.waiting, 0)
