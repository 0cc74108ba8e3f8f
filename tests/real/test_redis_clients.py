# Copyright txconnpool contributors. See LICENSE.
"""
Tests for clients that are made for a Redis Cluster, which take the proxy for the nodes.
"""

from __future__ import annotations

import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.rediscluster import Cluster
from tests.real.resp import Client
from tests.real.servers import HOST, Proxy, Redis, freePort, missing, missingForNode, which

redis: Any = import_module("redis") if find_spec("redis") else None

#: Calls methods of ioredis' client for clusters. The arguments are the host and port of the first node, and the number
#: of nodes.
IOREDIS = """
const assert = require('assert');
const { Cluster } = require('ioredis');
const [host, port, nodes] = process.argv.slice(2);
const cluster = new Cluster([{host, port: Number(port)}], {slotsRefreshTimeout: 20000, clusterRetryStrategy: null});
(async () => {
    await new Promise((resolve, reject) => { cluster.once('ready', resolve); cluster.once('error', reject); });
    assert.equal(cluster.nodes('master').length, Number(nodes));
    const names = [...Array(100).keys()].map(number => `io:${number}`);
    await Promise.all(names.map(name => cluster.set(name, name)));
    assert.deepEqual(await Promise.all(names.map(name => cluster.get(name))), names);
    await cluster.mset('{io}a', 1, '{io}b', 2);
    assert.deepEqual(await cluster.mget('{io}a', '{io}b', '{io}c'), ['1', '2', null]);
    const replies = await cluster.pipeline().set('{io}p', 1).incr('{io}p').get('{io}p').exec();
    assert.deepEqual(replies, [[null, 'OK'], [null, 2], [null, '2']]);
    assert.deepEqual(await cluster.multi().set('{io}t', 1).incr('{io}t').exec(), [[null, 'OK'], [null, 2]]);
    assert.equal(await cluster.eval('return redis.call("get", KEYS[1])', 1, '{io}t'), '2');
    const subscriber = cluster.duplicate();
    const message = new Promise(resolve => subscriber.once('message', (channel, text) => resolve(text)));
    await subscriber.subscribe('io:news');
    await cluster.publish('io:news', 'hello');
    assert.equal(await message, 'hello');
    await cluster.rpush('io:list', 'x');
    assert.deepEqual(await cluster.blpop('io:list', 1), ['io:list', 'x']);
    await assert.rejects(cluster.incr('{io}a{b', () => {}).then(() => cluster.hget('{io}a', 'x')), /WRONGTYPE/);
    await Promise.all([cluster.quit(), subscriber.quit()]);
})().catch(error => { console.error(error.stack); process.exit(1); });
"""


class ClientCase(SynchronousTestCase):
    """
    Base class of tests with redis-py.
    """

    skip = missing("redis-server")

    def calls(self, client: Any) -> None:
        """
        Call methods of redis-py's client.
        """
        for number in range(50):
            client.set(f"k{number}", number)
        self.assertEqual([client.get(f"k{number}") for number in range(50)], [b"%d" % number for number in range(50)])
        self.assertTrue(client.mset_nonatomic({"a": 1, "b": 2}))
        self.assertEqual(client.mget_nonatomic(["a", "b", "c"]), [b"1", b"2", None])
        pipeline = client.pipeline()
        for number in range(50):
            pipeline.incr(f"k{number}")
        self.assertEqual(pipeline.execute(), list(range(1, 51)))
        self.assertEqual(client.eval("return redis.call('get', KEYS[1])", 1, "a"), b"1")
        self.assertEqual(client.rpush("list", "x"), 1)
        self.assertEqual(list(client.blpop(["list"], timeout=30)), [b"list", b"x"])
        self.assertEqual(client.keyslot("foo"), client.cluster_keyslot("foo"))
        channel = client.pubsub()
        channel.subscribe("news")
        self.assertEqual(channel.get_message(timeout=30)["type"], "subscribe")
        client.publish("news", "hello")
        self.assertEqual(channel.get_message(timeout=30)["data"], b"hello")
        channel.close()


class RealClusterTests(ClientCase):
    """
    Tests with a cluster behind the proxy.
    """

    def test_redisPy(self) -> None:
        """
        redis-py's client for clusters takes the proxy for the only node, without a setting.
        """
        if redis is None:
            self.skipTest("redis-py is not installed")
        with Cluster(3) as cluster, Proxy("--protocol", "redis", upstream=[f"cluster:{cluster.seeds}"]) as proxy:
            assert not isinstance(proxy.address, str)
            host, port = proxy.address
            with redis.RedisCluster(host=host, port=port) as client:
                self.assertEqual([node.port for node in client.get_nodes()], [port])
                self.calls(client)
                self.assertEqual(client.dbsize(), sum(node.ask("DBSIZE") for node in cluster.nodes))


class ClusterClientTests(ClientCase):
    """
    Tests with one Redis, which is no cluster, behind one proxy or two.
    """

    def setUp(self) -> None:
        """
        Start a server and three proxies: one that is alone, and two that are for the same clients.
        """
        self.server = Redis().start()
        self.addCleanup(self.server.stop)
        self.places = [(HOST, freePort()) for _ in range(3)]
        several = ("--announce", " ".join(f"{host}:{port}" for host, port in self.places[1:]))
        for place, announced in zip(self.places, (("--announce", "self"), several, several), strict=True):
            options = ("--protocol", "redis", *announced)
            self.addCleanup(Proxy(*options, upstream=[self.server.address], address=place).start().stop)

    def replies(self) -> None:
        """
        The node is the address that the client has connected to.
        """
        with Client(self.places[0]) as client:
            ((first, last, node),) = client.ask("CLUSTER", "SLOTS")
            self.assertEqual((first, last, node[0].decode(), node[1]), (0, 16383, *self.places[0]))
            self.assertEqual([client.ask(word) for word in ("READONLY", "READWRITE", "ASKING")], [b"OK"] * 3)
            self.assertEqual(client.ask("HELLO", 3)[b"mode"], b"cluster")
            ((_, _, again),) = client.ask("CLUSTER", "SLOTS")
            self.assertEqual(again, [*node[:3], {}])
        with Client(self.places[1]) as client:
            self.assertEqual({(node[0].decode(), node[1]) for _, _, node in client.ask("CLUSTER", "SLOTS")},
                             set(self.places[1:]))  # fmt: skip

    def test_redisPy(self) -> None:
        """
        redis-py's client, with both versions of the protocol.
        """
        self.replies()
        if redis is None:
            self.skipTest("redis-py is not installed")
        for (host, port), nodes in zip(self.places[:2], (1, 2), strict=True):
            for protocol in (2, 3):
                with redis.RedisCluster(host=host, port=port, protocol=protocol) as client:
                    self.assertEqual(len(client.get_primaries()), nodes)
                    self.calls(client)
                with Client(self.server.address) as direct:
                    direct.ask("FLUSHALL")

    def test_ioredis(self) -> None:
        """
        ioredis' client for clusters.
        """
        if (why := missingForNode("ioredis")) is not None:
            self.skipTest(why)
        script = Path(self.mktemp())
        script.write_text(IOREDIS)
        for (host, port), nodes in zip(self.places[:2], (1, 2), strict=True):
            command = [str(which("node")), str(script), host, str(port), str(nodes)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
