# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.announced}.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.redis.clients import Reading, request
from txconnpool.wire import ADDRESSED, ANSWER
from txconnpool.wire.redis.announced import Nodes
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.topology import SLOTS, slotOf

ONE, TWO, THREE = ("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379)

DISABLED = b"-ERR This instance has cluster support disabled\r\n"


class AnnouncedCase(SynchronousTestCase):
    """
    Base class of tests with a client.
    """

    places: tuple[tuple[str, int], ...] | None = ()

    def setUp(self) -> None:
        """
        Create the client.
        """
        self.dialect = Redis()
        self.dialect.announce(self.places)
        self.reading = Reading(self.dialect)

    def reply(self, text: str, here: tuple[str, int] | None = ONE) -> Any:
        """
        @return: the reply to a request.
        """
        what, _, _, payload = self.reading.reader.read(request(text), 0, 1)
        self.assertIn(what, (ADDRESSED, ANSWER))
        return payload(here) if what is ADDRESSED else payload


class OneTests(AnnouncedCase):
    """
    Tests with one proxy, which does not know its address.
    """

    def test_slots(self) -> None:
        """
        All slots are where the client has connected to.
        """
        id = Nodes((), ONE).id(0)
        head = b"*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$8\r\n10.0.0.1\r\n:6379\r\n$40\r\n" + id + b"\r\n"
        self.assertEqual(self.reply("cluster slots"), head + b"*0\r\n")
        self.reading.reader.switched((3, 0))
        self.assertEqual(self.reply("CLUSTER SLOTS"), head + b"%0\r\n")
        self.assertIn(b"\r\n$3\r\n::1\r\n:7000\r\n", self.reply("CLUSTER SLOTS", ("::1", 7000)))

    def test_shards(self) -> None:
        """
        The same, as newer clients ask.
        """
        node = (
            b"$2\r\nid\r\n$40\r\n%b\r\n$4\r\nport\r\n:6379\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n"
            b"$8\r\nendpoint\r\n$8\r\n10.0.0.1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$18\r\nreplication-offset\r\n:0\r\n"
            b"$6\r\nhealth\r\n$6\r\nonline\r\n" % Nodes((), ONE).id(0)
        )
        slots = b"$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n"
        self.assertEqual(self.reply("cluster shards"), b"*1\r\n*4\r\n" + slots + b"*14\r\n" + node)
        self.reading.reader.switched((3, 0))
        self.assertEqual(self.reply("cluster shards"), b"*1\r\n%2\r\n" + slots + b"%7\r\n" + node)

    def test_nodes(self) -> None:
        """
        The node has no replicas, and calls itself the node of the client.
        """
        id = Nodes((), ONE).id(0)
        line = b"%b 10.0.0.1:6379@0 myself,master - 0 0 1 connected 0-16383\n" % id
        self.assertEqual(self.reply("cluster nodes"), b"$%d\r\n%b\r\n" % (len(line), line))
        self.assertEqual(self.reply("cluster myid"), b"$40\r\n" + id + b"\r\n")
        self.assertEqual(self.reply(f"cluster replicas {id.decode()}"), b"*0\r\n")
        self.assertEqual(self.reply(f"cluster slaves {id.decode().upper()}"), b"*0\r\n")
        self.assertEqual(self.reply("cluster replicas x"), b"-ERR Unknown node x\r\n")
        self.reading.reader.switched((3, 0))
        self.assertEqual(self.reply("cluster nodes"), b"=%d\r\ntxt:%b\r\n" % (len(line) + 4, line))

    def test_info(self) -> None:
        """
        The cluster has no faults.
        """
        reply = self.reply("cluster info").splitlines()[1:]
        for line in (b"cluster_state:ok", b"cluster_slots_assigned:16384", b"cluster_known_nodes:1", b"cluster_size:1"):
            self.assertIn(line, reply)

    def test_keySlot(self) -> None:
        """
        The slots of keys are those of Redis.
        """
        for key, slot in (
            ("123456789", 0x31C3), ("foo", 12182), ("{foo}bar", 12182), ("a{}b", 13694), ("{}a", 10875), ("a{b", 13340),
            ("{a}{b}", 15495), ("{{a}}", 10276), ("b", 3300),
        ):  # fmt: skip
            self.assertEqual(self.reply(f"cluster keyslot {key}"), b":%d\r\n" % slot)
            self.assertEqual(slotOf(key.encode()), slot)
        self.assertEqual(self.reading.ask("cluster keyslot"),
                         ["< -ERR wrong number of arguments for 'cluster|keyslot' command"])  # fmt: skip

    def test_state(self) -> None:
        """
        A client may say what it would say to a node, and is greeted by one.
        """
        self.assertEqual(self.reading.ask("asking", "readonly", "READWRITE", "get k"), ["< +OK"] * 3 + ["> get k"])
        self.assertIn("$4 mode $7 cluster", self.reading.ask("hello")[0])

    def test_refused(self) -> None:
        """
        Nobody changes the cluster through the proxy, nor in a transaction.
        """
        for text in ("reset", "addslots 1", "countkeysinslot 1", "meet 127.0.0.1 1"):
            (reply,) = self.reading.ask(f"cluster {text}")
            self.assertIn(f"-ERR unknown command 'cluster|{text.split()[0]}': the proxy does not forward it", reply)
        self.assertEqual(self.reading.ask("cluster foo"), ["< -ERR unknown subcommand 'foo'. Try CLUSTER HELP."])
        self.reading.ask("multi")
        for text in ("cluster reset", "cluster slots", "asking"):
            self.assertIn("the proxy cannot make it a part of a transaction", self.reading.ask(text)[0])
        self.assertEqual(self.reading.ask("exec")[-1],
                         "< -EXECABORT Transaction discarded because of previous errors.")  # fmt: skip

    def test_silent(self) -> None:
        """
        A client that has turned replies off gets none.
        """
        self.reading.ask("client reply off")
        self.assertEqual(self.reply("cluster slots"), b"")

    def test_noAddress(self) -> None:
        """
        A UNIX socket is no address for other clients.
        """
        self.assertEqual(self.reply("cluster slots", None), DISABLED)


class SeveralTests(AnnouncedCase):
    """
    Tests with several proxies.
    """

    places = (THREE, ONE, TWO)

    def test_shared(self) -> None:
        """
        The proxies share all slots. Whatever the order in the settings, all report the same.
        """
        other = Redis()
        other.announce((ONE, TWO, THREE))
        replies = {self.reply("cluster slots", here) for here in (ONE, TWO, THREE, None)}
        self.reading = Reading(other)
        replies.add(self.reply("cluster slots"))
        self.assertEqual(len(replies), 1)
        nodes = Nodes(self.places, ONE)
        ranges = [nodes.slots(index) for index in range(3)]
        self.assertEqual([slot for first, last in ranges for slot in range(first, last + 1)], list(range(SLOTS)))
        self.assertEqual(len({nodes.id(index) for index in range(3)}), 3)

    def test_myself(self) -> None:
        """
        Each proxy knows which of the nodes it is; one with another address takes the first.
        """
        for here, index in ((ONE, 0), (TWO, 1), (THREE, 2), (("10.9.9.9", 1), 0), (None, 0)):
            nodes = Nodes(self.places, here)
            self.assertIn(nodes.id(index), self.reply("cluster myid", here))
            lines = self.reply("cluster nodes", here).splitlines()[1:-1]
            self.assertEqual([b"myself" in line for line in lines], [number == index for number in range(3)])


class NoneTests(AnnouncedCase):
    """
    Tests without a cluster for clients.
    """

    places = None

    def test_disabled(self) -> None:
        """
        Clients get the replies of a server that is no node of a cluster.
        """
        for text in ("cluster slots", "cluster reset", "asking", "readonly", "readwrite"):
            self.assertEqual(self.reply(text), DISABLED)
        self.assertIn("$4 mode $10 standalone", self.reading.ask("hello")[0])
        self.reading.ask("multi")
        self.assertIn("the proxy cannot make it a part of a transaction", self.reading.ask("cluster reset")[0])
