# Copyright txconnpool contributors. See LICENSE.
"""
Tests for Redis' own tools, and for ioredis, in front of one server and of several.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.resp import Client
from tests.real.servers import HOST, Proxy, Redis, missing, missingForNode, which

#: Calls methods of ioredis. The arguments are the host and port of the proxy.
IOREDIS = """
const assert = require('assert');
const Redis = require('ioredis');
const [host, port] = process.argv.slice(2);
const client = new Redis(Number(port), host);
const other = client.duplicate();
(async () => {
    const names = [...Array(60).keys()].map(number => `io:${number}`);
    await Promise.all(names.map(name => client.set(name, name)));
    assert.deepEqual(await client.mget(names), names);
    assert.equal(await client.dbsize(), 60);
    const scanned = new Set();
    for await (const keys of client.scanStream({match: 'io:*', count: 7})) keys.forEach(key => scanned.add(key));
    assert.deepEqual([...scanned].sort(), [...names].sort());
    assert.equal(await client.del(names), 60);
    const replies = await client.pipeline().set('{p}a', 1).incr('{p}a').hget('{p}a', 'x').get('{p}a').exec();
    assert.deepEqual(replies.map(([, value]) => value), ['OK', 2, undefined, '2']);
    assert.match(replies[2][0].message, /WRONGTYPE/);
    await client.watch('{t}a');
    assert.deepEqual(await client.multi().set('{t}a', 1).incr('{t}a').exec(), [[null, 'OK'], [null, 2]]);
    client.defineCommand('twice', {numberOfKeys: 1, lua: 'return redis.call("get", KEYS[1]) * 2'});
    assert.equal(await client.twice('{t}a'), 4);
    const popped = other.blpop('list', 30);
    await client.rpush('list', 'x');
    assert.deepEqual(await popped, ['list', 'x']);
    const messages = [];
    const both = new Promise(resolve => {
        const take = text => { if (messages.push(text) === 3) resolve(); };
        other.on('message', (channel, text) => take(text));
        other.on('pmessage', (pattern, channel, text) => take(text));
    });
    await other.subscribe('news', 'more');
    await other.psubscribe('n*');
    await client.publish('news', 'hello');
    await client.publish('more', 'again');
    await both;
    assert.deepEqual(messages.sort(), ['again', 'hello', 'hello']);
    await Promise.all([client.quit(), other.quit()]);
})().catch(error => { console.error(error.stack); process.exit(1); });
"""


class ToolTests(SynchronousTestCase):
    """
    Tests with one server behind a proxy, and with three that share the keys.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the servers and the proxies.
        """
        self.servers = [Redis().start() for _ in range(3)]
        for server in self.servers:
            self.addCleanup(server.stop)
        self.proxies = []
        for servers in (self.servers[:1], self.servers):
            addresses = [server.address for server in servers]
            proxy = Proxy("--protocol", "redis", "--hash-tag", "{}", upstream=addresses).start()
            self.addCleanup(proxy.stop)
            self.proxies.append(proxy)

    def run_(self, program: str, *arguments: str, stdin: str = "") -> str:
        """
        Run a program that has to succeed.

        @return: its output.
        """
        done = subprocess.run(
            [str(which(program)), *arguments], input=stdin, capture_output=True, text=True, timeout=240, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def tool(self, program: str, proxy: Proxy, *arguments: str, stdin: str = "") -> str:
        """
        Run a tool of Redis.

        @return: its output.
        """
        assert not isinstance(proxy.address, str)
        return self.run_(program, "-h", HOST, "-p", str(proxy.address[1]), *arguments, stdin=stdin)

    def test_benchmark(self) -> None:
        """
        redis-benchmark runs its requests, also in pipelines and with RESP3.
        """
        if which("redis-benchmark") is None:
            self.skipTest("redis-benchmark is not installed")
        names = ("SET", "GET", "INCR", "LPUSH", "RPOP", "SADD", "HSET", "ZADD", "LRANGE_100", "MSET")
        for proxy in self.proxies:
            for options in ((), ("-P", "8"), ("-3",)):
                tests = ",".join(names).lower()
                found = self.tool(
                    "redis-benchmark", proxy, "-n", "40", "-c", "5", "-r", "20", "--csv", "-t", tests, *options
                )
                self.assertNotIn("Error", found)
                done = {line.split('"')[1].split(" ")[0] for line in found.splitlines() if line.startswith('"')}
                self.assertLessEqual(set(names) - {"LRANGE_100"}, done)

    def test_cli(self) -> None:
        """
        redis-cli sends requests, scans all keys, loads many requests, and looks for large keys.
        """
        if which("redis-cli") is None:
            self.skipTest("redis-cli is not installed")
        for proxy in self.proxies:
            loaded = "".join(f"SET cli:{number} {number}\n" for number in range(50))
            self.assertIn("replies: 50", self.tool("redis-cli", proxy, "--pipe", stdin=loaded))
            scanned = self.tool("redis-cli", proxy, "--scan", "--pattern", "cli:*").split()
            self.assertEqual(sorted(scanned), sorted(f"cli:{number}" for number in range(50)))
            self.assertEqual(self.tool("redis-cli", proxy, "-3", "get", "cli:7"), "7\n")
            self.assertEqual(self.tool("redis-cli", proxy, "-n", "2", "dbsize"), "0\n")
            lines = self.tool("redis-cli", proxy, stdin="multi\nset {c}a 1\nincr {c}a\nexec\n").split()
            self.assertEqual(lines, ["OK", "QUEUED", "QUEUED", "OK", "2"])
            self.assertIn("Sampled 51 keys", self.tool("redis-cli", proxy, "--bigkeys"))
            with Client(proxy.address) as client:
                client.ask("FLUSHALL")

    def test_ioredis(self) -> None:
        """
        ioredis: many keys, pipelines, transactions, scripts, blocking commands, channels and patterns.
        """
        if (why := missingForNode("ioredis")) is not None:
            self.skipTest(why)
        script = Path(self.mktemp())
        script.write_text(IOREDIS)
        for proxy in self.proxies:
            assert not isinstance(proxy.address, str)
            self.run_("node", str(script), HOST, str(proxy.address[1]))
            with Client(proxy.address) as client:
                client.ask("FLUSHALL")
