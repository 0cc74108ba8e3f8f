# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.twemproxy}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.migrate import inis
from txconnpool.migrate.document import Document, MigrationError
from txconnpool.migrate.endpoints import Offset
from txconnpool.migrate.sections import Migration
from txconnpool.migrate.twemproxy import convert, parseServer
from txconnpool.routing.distribution import Distribution, ServerSpec

LISTEN = "listen: 127.0.0.1:22121"
TIMEOUT = "timeout: 400"
SERVERS = ("servers:", " - 10.0.0.1:11211:1", " - 10.0.0.2:11212:2 two")


def migrate(*lines: str, name: str = "alpha", offset: int = 0) -> Migration:
    """
    Convert a configuration with one pool.
    """
    text = f"{name}:\n" + "".join(f"  {line}\n" for line in lines)
    return convert(Document("n.yml", text), Offset(offset))


def settings(migration: Migration) -> dict[str, str]:
    """
    @return: the settings of the only pool; several values have a comma between them.
    """
    ((_, found),) = inis.settings(migration).items()
    return {**found, "upstream": ", ".join(found["upstream"])}


class KeyTests(SynchronousTestCase):
    """
    Tests for each key.
    """

    def test_smallest(self) -> None:
        """
        The defaults of twemproxy that are not those of txconnpool are written.
        """
        migration = migrate(LISTEN, *SERVERS)
        self.assertEqual(
            settings(migration),
            {
                "listen": "tcp:22121:interface=127.0.0.1",
                "upstream": "tcp:10.0.0.1:11211, tcp:10.0.0.2:11212 weight=2 label=two",
                "distribution": "twemproxy",
                "hash": "fnv1a_64",
            },
        )
        (note,) = migration.notes
        self.assertRegex(note, r"^n\.yml:1: alpha: timeout: without one, twemproxy waits for ever\.")

    def test_comments(self) -> None:
        """
        Each line that is taken over is a comment above its settings.
        """
        lines = migrate(LISTEN, "hash: md5", TIMEOUT, *SERVERS).sections[0].lines()
        self.assertEqual(lines[:6], ["# alpha:", "[pool:alpha]", f"# {LISTEN}", lines[3], "# hash: md5", "hash = md5"])
        self.assertIn("    # - 10.0.0.2:11212:2 two", lines)

    def test_all(self) -> None:
        """
        All keys have an effect or a comment.
        """
        migration = migrate(
            *("listen: 0.0.0.0:22121", "hash: murmur", 'hash_tag: "{}"', "distribution: modula", "timeout: 1500"),
            *("backlog: 2048", "client_connections: 5", "redis: false", "preconnect: true", "tcpkeepalive: true"),
            *("reuseport: false", "auto_eject_hosts: true", "server_connections: 3", "server_retry_timeout: 30000"),
            *("server_failure_limit: 0", *SERVERS),
        )
        self.assertEqual(
            settings(migration),
            {
                "listen": "tcp:22121:interface=0.0.0.0:backlog=2048",
                "hash": "murmur",
                "hash-tag": "{}",
                "distribution": "twemproxy-modula",
                "connect-timeout": "1500ms",
                "wait-timeout": "1500ms",
                "request-timeout": "1500ms",
                "protocol": "memcache",
                "min-pool-size": "2",
                "on-failure": "rehash",
                "eject-after": "1",
                "pool-size": "6",
                "upstream": "tcp:10.0.0.1:11211, tcp:10.0.0.2:11212 weight=2 label=two",
            },
        )
        self.assertEqual(
            [note.split(":")[:4] for note in migration.notes], [["n.yml", "15", " alpha", " server_retry_timeout"]]
        )

    def test_withoutEffect(self) -> None:
        """
        Keys that have no effect in twemproxy have none here.
        """
        migration = migrate(
            *(LISTEN, TIMEOUT, "backlog: 0", "auto_eject_hosts: false", "preconnect: false", "tcpkeepalive: false"),
            *("server_retry_timeout: 1", "server_failure_limit: 9", *SERVERS),
        )
        self.assertEqual(migration.notes, [])
        self.assertEqual(
            set(settings(migration)),
            {"listen", "connect-timeout", "wait-timeout", "request-timeout", "upstream", "distribution", "hash"},
        )

    def test_ejectAfter(self) -> None:
        """
        The limit of failures is the one of the configuration, or the default of twemproxy.
        """
        for lines, expected in (([], "2"), (["server_failure_limit: 5"], "5")):
            found = settings(migrate(LISTEN, TIMEOUT, "auto_eject_hosts: true", *lines, *SERVERS))
            self.assertEqual((found["on-failure"], found["eject-after"]), ("rehash", expected))

    def test_noTimeout(self) -> None:
        """
        A timeout of 0 is none.
        """
        migration = migrate(LISTEN, "timeout: 0", *SERVERS)
        self.assertRegex(migration.notes[0], r"^n\.yml:3: alpha: timeout: without one")
        self.assertNotIn("request-timeout", settings(migration))

    def test_random(self) -> None:
        """
        The distribution random has equal servers, and no hash.
        """
        migration = migrate(
            LISTEN, TIMEOUT, "distribution: random", "hash: md5", 'hash_tag: "{}"', "auto_eject_hosts: true", *SERVERS
        )
        found = settings(migration)
        self.assertEqual(found["distribution"], "round-robin")
        self.assertEqual(found["upstream"], "tcp:10.0.0.1:11211, tcp:10.0.0.2:11212")
        self.assertFalse({"hash", "hash-tag", "on-failure"} & found.keys())
        self.assertRegex(migration.notes[0], "distribution: random sends each request to any server")
        self.assertIn("distribution = round-robin", migrate(LISTEN, "distribution: random", *SERVERS).ini([]))

    def test_hashes(self) -> None:
        """
        All hashes of twemproxy exist here.
        """
        for name in (
            *("one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32"),
            *("hsieh", "murmur", "jenkins"),
        ):
            self.assertEqual(settings(migrate(LISTEN, TIMEOUT, f"hash: {name}", *SERVERS))["hash"], name)

    def test_tag(self) -> None:
        """
        A hash tag that is not possible here is noted.
        """
        migration = migrate(LISTEN, TIMEOUT, 'hash_tag: " |"', *SERVERS)
        self.assertTrue(migration.sections[0].off)
        self.assertRegex(migration.notes[0], "hash_tag: here it must be two printable ASCII characters")

    def test_loads(self) -> None:
        """
        The settings can be used.
        """
        for lines in (
            ["auto_eject_hosts: true", "preconnect: true", "server_connections: 1", "hash: murmur", 'hash_tag: "{}"'],
            ["distribution: modula", "backlog: 100", "server_failure_limit: 3"],
            ["distribution: random", "hash: md5", "auto_eject_hosts: true"],
            ["redis: false", "timeout: 100000000"],
        ):
            servers = [*SERVERS, " - ::1:11212:1", " - /tmp/a b.sock:3 ab", " - /tmp/c=d.sock:1 c"]
            for listen in (LISTEN, "listen: /tmp/a b:c.sock 0666", "listen: ::1:1234"):
                (pool,) = inis.load(migrate(listen, *lines, *servers))
                self.assertEqual((pool.name, len(pool.servers)), ("alpha", 5))
                if pool.distribution != "round-robin":
                    expected = [parseServer(each.removeprefix(" - ")) for each in servers[1:]]
                    self.assertEqual([each.spec() for each in pool.servers], expected)

    def test_warnings(self) -> None:
        """
        What is allowed and probably not intended is noted.
        """
        (note,) = migrate(LISTEN, TIMEOUT, "hash: crc32", *SERVERS).notes
        self.assertRegex(note, r"^n\.yml:5: alpha: servers: as with twemproxy, all keys go to ")

    def test_sameAddress(self) -> None:
        """
        twemproxy allows two servers with one address and two names.
        """
        (note,) = migrate(LISTEN, TIMEOUT, "servers:", " - a:1:1 x", " - a:1:1 y").notes
        self.assertRegex(note, "a:1 is listed 2 times")

    def test_reusePort(self) -> None:
        """
        Several processes are several workers here.
        """
        (note,) = migrate(LISTEN, TIMEOUT, "reuseport: true", *SERVERS).notes
        self.assertRegex(note, r"`workers = N` in \[connpool\]")

    def test_redis(self) -> None:
        """
        A pool for Redis has the same settings as one for memcached.
        """
        servers = ("servers:", " - 10.0.0.1:6379:1", " - 10.0.0.2:6379:2 second")
        settings = ("redis: true", "hash: md5", 'hash_tag: "{}"', "redis_db: 0", "auto_eject_hosts: true")
        migration = migrate(LISTEN, TIMEOUT, *settings, *servers)
        self.assertEqual(migration.notes, [])
        (pool,) = inis.load(migration)
        self.assertEqual((pool.protocol, pool.hash, pool.hashTag, pool.onFailure), ("redis", "md5", "{}", "rehash"))
        self.assertEqual((pool.upstreamAuth, pool.listenAuth), (None, None))

    def test_redisAuth(self) -> None:
        """
        The password is not copied: a note says where to write it. It is for servers and clients, as with twemproxy.
        """
        migration = migrate(LISTEN, TIMEOUT, "redis: true", "redis_auth: secret", *SERVERS, name="a/b")
        text = migration.ini([])
        self.assertNotIn("secret", text)
        self.assertIn(
            "\nupstream-auth = file:/etc/connpool/a_b.auth\nlisten-auth = file:/etc/connpool/a_b.auth\n", text
        )
        (note,) = migration.notes
        self.assertRegex(note, r"^n\.yml:5: a/b: redis_auth: .*`default:PASSWORD` into /etc/connpool/a_b\.auth")

    def test_redisDatabase(self) -> None:
        """
        The database of a pool is taken over. A pool with one that is too large is commented out, with one note.
        """
        migration = migrate(LISTEN, TIMEOUT, "redis: true", "redis_db: 3", *SERVERS)
        self.assertIn("database = 3", migration.ini([]))
        self.assertEqual(migration.notes, [])
        self.assertNotIn("database =", migrate(LISTEN, "redis: true", "redis_db: 0", *SERVERS).ini([]))
        migration = migrate(LISTEN, "redis: true", "redis_auth: secret", "redis_db: 16", *SERVERS)
        text = migration.ini([])
        self.assertNotIn("secret", text)
        self.assertEqual({line.lstrip()[:1] for line in text.splitlines() if line}, {"#", ";"})
        self.assertEqual(len(migration.notes), 1)
        self.assertRegex(migration.notes[0], r"^n\.yml:5: alpha: redis_db: the greatest database is 15 here")
        self.assertIn("# For Redis only.", migrate(LISTEN, TIMEOUT, "redis_db: 3", *SERVERS).ini([]))

    def test_name(self) -> None:
        """
        A name with characters that are not allowed is changed, and a comment says so.
        """
        text = migrate(LISTEN, *SERVERS, name="a/b").ini([])
        self.assertIn("[pool:a_b]\n", text)
        self.assertIn("# The name is a_b here", text)


class ListenTests(SynchronousTestCase):
    """
    Tests for the addresses for clients.
    """

    def test_unix(self) -> None:
        """
        A UNIX socket has its permissions, or else those of the user only.
        """
        for value, expected in (
            ("/run/a.sock 0660", "unix:/run/a.sock:mode=660"),
            ("/run/a:b.sock 666", r"unix:/run/a\:b.sock:mode=666"),
            ("/run/a.sock", "unix:/run/a.sock:mode=600"),
        ):
            migration = migrate(f"listen: {value}", TIMEOUT, "backlog: 5", *SERVERS)
            self.assertEqual(settings(migration)["listen"], expected)
            self.assertEqual(len(migration.notes), not value.endswith("6") and not value.endswith("0"))

    def test_hosts(self) -> None:
        """
        A host may be a name, or an IPv6 address.
        """
        for value, expected in (("localhost:1", "tcp:1:interface=localhost"), ("::1:2", r"tcp:2:interface=\:\:1")):
            self.assertEqual(settings(migrate(f"listen: {value}", *SERVERS))["listen"], expected)

    def test_offset(self) -> None:
        """
        Listeners may be moved.
        """
        self.assertEqual(settings(migrate(LISTEN, *SERVERS, offset=1000))["listen"], "tcp:23121:interface=127.0.0.1")
        self.assertEqual(settings(migrate("listen: /a 600", *SERVERS, offset=1))["listen"], "unix:/a.new:mode=600")
        error = self.assertRaises(MigrationError, migrate, LISTEN, *SERVERS, offset=60000)
        self.assertEqual(
            str(error), "n.yml:2: alpha: listen: port 22121 plus 60000 is 82121; expected a port from 1 to 65535"
        )


class ServerTests(SynchronousTestCase):
    """
    Tests for the elements of C{servers}.
    """

    def test_right(self) -> None:
        """
        A server has a label only if the one that twemproxy chooses is not the one of the distribution.
        """
        for text, expected in (
            ("10.0.0.1:11211:1", ServerSpec("10.0.0.1", 11211)),
            ("10.0.0.1:11212:3", ServerSpec("10.0.0.1", 11212, weight=3)),
            ("a.example:11212:01 x", ServerSpec("a.example", 11212, label="x")),
            ("a:1:2 x:11211", ServerSpec("a", 1, weight=2, label="x:11211")),
            ("a:1:1 a:1", ServerSpec("a", 1)),
            ("a:011212:1", ServerSpec("a", 11212, label="a:011212")),
            ("a:011211:1", ServerSpec("a", 11211)),
            ("::1:11212:1", ServerSpec("::1", 11212)),
            ("/tmp/a.sock:1", ServerSpec(path="/tmp/a.sock")),
            ("/tmp/a b.sock:2 x", ServerSpec(path="/tmp/a b.sock", weight=2, label="x")),
        ):
            self.assertEqual(parseServer(text), expected, text)

    def test_labels(self) -> None:
        """
        The labels of the distribution are the names that twemproxy hashes.
        """
        texts = ("a:11211:9", "a:11212:1", "a:1:1 name", "/tmp/a:1", "/tmp/b:1 b")
        self.assertEqual(
            Distribution("twemproxy").labels(map(parseServer, texts)), ["a", "a:11212", "name", "/tmp/a:", "b"]
        )

    def test_wrong(self) -> None:
        """
        twemproxy refuses all of these.
        """
        for text in (
            *("a", "a:1", ":1:1", "a:x:1", "a:0:1", "a:65536:1", "a:1:0", "a:1:x", "a:1:-1", "a:1:", "a:1:1  x"),
            *("/tmp/a", "/tmp/a:0", "/tmp/a:b:1", "a:1:2147483648", "a:1:1 "),
        ):
            self.assertRaises(ValueError, parseServer, text)


class ErrorTests(SynchronousTestCase):
    """
    Tests for configurations that twemproxy refuses.
    """

    def refuse(self, expected: str, *lines: str) -> None:
        """
        Check the error of a pool: a pattern for all of its lines.
        """
        error = self.assertRaises(MigrationError, migrate, *lines)
        self.assertRegex(str(error), rf"^n\.yml:{expected}$")

    def test_values(self) -> None:
        """
        An error has the file, the line, the value, and what would be right.
        """
        for line, expected in (
            ("hash: fnv2", "hash: fnv2: expected one of one_at_a_time, .*jenkins"),
            ("distribution: ring", "distribution: ring: expected one of ketama, modula, random"),
            ("timeout: 2s", "timeout: 2s: expected a whole number from 0"),
            ("backlog: -1", "backlog: -1: expected a whole number from 0"),
            ("preconnect: yes", "preconnect: yes: expected true or false"),
            ("hash_tag: {}", "hash_tag: {}: expected a text"),
            ('hash_tag: "{"', 'hash_tag: "{": expected two characters in quotation marks, such as "{}"'),
            ("server_connections: 0", "server_connections: 0: expected a whole number from 1"),
            ("redis_auth: x", "redis_auth: is for pools with `redis: true` only"),
            ("timout: 1", r"timout: twemproxy has no such key; did you mean timeout\?"),
            ("qqq: 1", "qqq: twemproxy has no such key; expected one of listen, .*servers"),
        ):
            self.refuse(f"3: alpha: {expected}", LISTEN, line, *SERVERS)

    def test_listen(self) -> None:
        """
        An address for clients is HOST:PORT or a path.
        """
        for value, expected in (
            ("22121", "22121: expected HOST:PORT or /PATH"),
            (":22121", ":22121: expected HOST:PORT or /PATH"),
            ("a:0", "a:0: port 0: expected a number from 1 to 65535"),
            ("/a 0999", "/a 0999: expected /PATH, or /PATH and permissions in octal, such as .*"),
        ):
            self.refuse(f"2: alpha: listen: {expected}", f"listen: {value}", *SERVERS)

    def test_servers(self) -> None:
        """
        Each server that is wrong is one line.
        """
        self.refuse(
            r"4: alpha: servers: a:1: expected HOST:PORT:WEIGHT, .*\n"
            r"n\.yml:5: alpha: servers: b:1:x: weight x: expected a whole number from 1; .*",
            *(LISTEN, "servers:", " - a:1", " - b:1:x", " - c:1:1"),
        )
        self.refuse(
            "3: alpha: servers: 2 servers have the label 'x': each must have its own",
            *(LISTEN, "servers:", " - a:1:1 x", " - b:1:1 x"),
        )
        self.refuse("3: alpha: servers: is empty; expected HOST:PORT:WEIGHT.*", LISTEN, "servers:")

    def test_missing(self) -> None:
        """
        Each pool needs an address and servers.
        """
        self.refuse("1: alpha: has no listen; .*\nn.yml:1: alpha: has no servers; .*", TIMEOUT)

    def test_pools(self) -> None:
        """
        There must be pools, each with another address.
        """
        error = self.assertRaises(MigrationError, convert, Document("n.yml", "alpha"), Offset())
        self.assertRegex(str(error), r"^n\.yml:1: expected a name of a pool, such as `alpha:`")
        pools = "".join(f"{name}:\n  listen: a:1\n  servers:\n  - a:2:1\n" for name in ("x", "y"))
        error = self.assertRaises(MigrationError, convert, Document("n.yml", pools), Offset())
        self.assertEqual(str(error), "n.yml:5: y: has the listen address a:1 of x; expected another one")

    def test_notYaml(self) -> None:
        """
        A pool must have keys.
        """
        error = self.assertRaises(MigrationError, convert, Document("n.yml", "alpha: [1]\n"), Offset())
        self.assertRegex(str(error), r"^n\.yml:1: alpha: has no listen")
