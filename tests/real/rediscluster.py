# -*- test-case-name: tests.real.test_rediscluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Real Redis clusters for tests.

The nodes begin with configuration files that name all of them, so no node has to be introduced to another. Redis still
refuses requests for its first 2 s (C{CLUSTER_WRITABLE_DELAY}): start one cluster for all tests of a class.

On a machine under load, a node may get no processor for seconds. By default such nodes are not replaced
(C{nodeTimeout}): what fails over is what a test fails over.
"""

from __future__ import annotations

import time
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from tests.real.resp import Client, ReplyError, request
from tests.real.servers import HOST, Redis, ServerFailed, freePort, until

SLOTS: Final = 16384

#: Seconds that a change of the cluster may take on a machine under load.
PATIENCE: Final = 60.0

#: The number of times that the start is tried with other ports, should one of them be taken meanwhile.
_STARTS: Final = 3

_DOWN: Final = frozenset(("fail", "fail?", "handshake", "noaddr"))


def slotOf(key: bytes) -> int:
    """
    @return: the slot of a key, see C{keyHashSlot} of Redis.
    """
    begin = key.find(b"{")
    end = key.find(b"}", begin + 1) if begin >= 0 else -1
    return crc_hqx(key[begin + 1 : end] if end > begin + 1 else key, 0) % SLOTS


def keyOf(slot: int, name: str = "key") -> str:
    """
    @return: a key of a slot.
    """
    number = 0
    while slotOf(b"%d" % number) != slot:
        number += 1
    return f"{{{number}}}{name}"


@dataclass(frozen=True)
class Known:
    """
    What one node knows of another: a line of C{CLUSTER NODES}.

    @ivar primary: the identifier of its primary, or an empty string.
    @ivar epoch: the number that decides which of two primaries owns a slot that both claim: the greater one wins.
    @ivar slots: the slots that it owns.
    """

    id: str
    flags: frozenset[str]
    primary: str
    epoch: int
    slots: frozenset[int]

    @classmethod
    def parse(cls, line: str) -> Self:
        """
        Read a line.
        """
        id, _, flags, primary, _, _, epoch, _, *owned = line.split()
        slots: set[int] = set()
        for text in owned:
            if not text.startswith("["):  # a slot that moves
                first, _, last = text.partition("-")
                slots.update(range(int(first), int(last or first) + 1))
        return cls(
            id, frozenset(flags.split(",")), "" if primary == "-" else primary, int(epoch), frozenset(slots)
        )  # fmt: skip


class Node(Redis):
    """
    A node of a cluster.

    @ivar busPort: the port for the other nodes.
    @ivar id: the identifier of the node: 40 hexadecimal digits.
    @ivar frozen: whether it is suspended.
    """

    def __init__(self, *options: str, number: int, port: int, busPort: int, password: str = "") -> None:
        login = ("--requirepass", password, "--masterauth", password) if password else ()
        super().__init__(*options, *login, address=(HOST, port))
        self.port = port
        self.busPort = busPort
        self.id = f"{number:040x}"
        self.frozen = False
        self._password = password

    def command(self) -> list[str]:
        """
        Add the options of a node.
        """
        node = ["--cluster-enabled", "yes", "--cluster-port", str(self.busPort)]
        return [*super().command(), *node, "--cluster-config-file", "nodes.conf"]

    def start(self) -> Self:
        """
        Start the process. A new node without a configuration knows no other.
        """
        if not (path := self.directory / "nodes.conf").exists():
            path.write_text(f"{self.line('myself,master')}\nvars currentEpoch 0 lastVoteEpoch 0\n", "ascii")
        self.frozen = False
        super().start()
        return self

    def freeze(self) -> None:
        """
        Suspend the node.
        """
        super().freeze()
        self.frozen = True

    def thaw(self) -> None:
        """
        Resume the node.
        """
        super().thaw()
        self.frozen = False

    def configure(self, shards: Sequence[tuple[Node, Sequence[Node]]]) -> None:
        """
        Write the configuration of a new cluster.
        """
        lines = []
        for number, (primary, replicas) in enumerate(shards):
            first, last = (SLOTS * each // len(shards) for each in (number, number + 1))
            me = "myself," if primary is self else ""
            lines.append(primary.line(f"{me}master", epoch=number + 1, slots=f" {first}-{last - 1}"))
            for replica in replicas:
                me = "myself," if replica is self else ""
                lines.append(replica.line(f"{me}slave", primary.id, epoch=number + 1))
        lines.append(f"vars currentEpoch {len(shards)} lastVoteEpoch 0")
        (self.directory / "nodes.conf").write_text("\n".join(lines) + "\n", "ascii")

    def line(self, flags: str, primary: str = "-", epoch: int = 0, slots: str = "") -> str:
        """
        @return: the line of this node in a configuration file.
        """
        return f"{self.id} {HOST}:{self.port}@{self.busPort} {flags} {primary} 0 0 {epoch} connected{slots}"

    def answers(self) -> bool:
        """
        @return: whether the node runs and is not suspended.
        """
        return not self.frozen and self.running()

    def client(self) -> Client:
        """
        @return: a connection to this node.
        """
        client = Client(self.address, PATIENCE)
        if self._password:
            client.ask("AUTH", self._password)
        return client

    def ask(self, *words: object) -> Any:
        """
        Send one request on a connection of its own.
        """
        with self.client() as client:
            return client.ask(*words)

    def askAll(self, requests: Iterable[Sequence[object]]) -> list[Any]:
        """
        Send requests together.

        @return: the replies.
        @raise ReplyError: one of them is an error.
        """
        data = [request(*words) for words in requests]
        with self.client() as client:
            client.socket.sendall(b"".join(data))
            return [client.read() for _ in data]

    def knows(self) -> dict[str, Known]:
        """
        @return: what the node knows of all nodes, by identifier.
        """
        known = map(Known.parse, self.ask("CLUSTER", "NODES").decode().splitlines())
        return {each.id: each for each in known}

    def shows(self) -> set[str]:
        """
        @return: the identifiers of the nodes that it names to clients.
        """
        return {server[2].decode() for shard in self.ask("CLUSTER", "SLOTS") for server in shard[2:]}

    def info(self, section: str) -> dict[str, str]:
        """
        @return: a section of C{INFO}, or C{CLUSTER INFO} for C{"cluster"}.
        """
        text = self.ask("CLUSTER", "INFO") if section == "cluster" else self.ask("INFO", section)
        pairs = (line.partition(":") for line in text.decode().splitlines() if ":" in line)
        return {name: value for name, _, value in pairs}


class Cluster:
    """
    A cluster of real nodes on loopback. The constructor does not start it.

    @ivar nodes: all nodes that have not left: first the primaries of the beginning, then their replicas.
    @ivar kind: makes a node.
    """

    kind: Callable[..., Node] = Node

    def __init__(
        self, primaries: int = 3, replicas: int = 0, *options: str, nodeTimeout: int = 15000, password: str = ""
    ) -> None:
        """
        @param replicas: the number of replicas of each primary.
        @param options: further options of all nodes.
        @param nodeTimeout: the milliseconds after which a node that does not answer has failed. The default is longer
            than any test: a node is replaced by L{failover} only.
        """
        self.nodes: list[Node] = []
        self._primaries = primaries
        self._replicas = replicas
        self._options = options
        self._nodeTimeout = nodeTimeout
        self._password = password
        self._count = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """
        Start all nodes, and wait until they serve all slots and all replicas have the data of their primaries.

        @raise ServerFailed: they do not in time.
        """
        for attempt in range(1, _STARTS + 1):
            try:
                self._start()
                self.untilConsistent()
            except BaseException as error:
                self.stop()
                if attempt == _STARTS or not isinstance(error, ServerFailed):
                    raise
            else:
                break
        return self

    def _start(self) -> None:
        made = [self._make() for _ in range(self._primaries * (self._replicas + 1))]
        shards = [(each, made[self._primaries + number :: self._primaries]) for number, each in
                  enumerate(made[: self._primaries])]  # fmt: skip
        for node in made:
            node.configure(shards)
            node.start()

    def _make(self) -> Node:
        ports = {each for node in self.nodes for each in (node.port, node.busPort)}
        new: list[int] = []
        while len(new) < 2:
            if (port := freePort()) not in ports:
                ports.add(port)
                new.append(port)
        self._count += 1
        options = [
            "--cluster-node-timeout", str(self._nodeTimeout),
            # No replica goes to another primary that has none.
            "--cluster-migration-barrier", "100",
            # A replica may follow its primary however long it was cut off.
            "--cluster-replica-validity-factor", "0",
            "--repl-diskless-sync-delay", "0",
            # CLUSTER SLOTS shows no replica before it has received something after the copy of the data.
            "--repl-ping-replica-period", "1",
        ]  # fmt: skip
        node = self.kind(
            *options, *self._options, number=self._count, port=new[0], busPort=new[1], password=self._password
        )
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        """
        Stop all nodes.
        """
        for node in self.nodes:
            node.stop()
        self.nodes.clear()

    # -- The state of the cluster

    @property
    def seeds(self) -> str:
        """
        The addresses of all nodes, with commas between them.
        """
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def node(self, id: str) -> Node:
        """
        @return: the node with an identifier.
        """
        return next(node for node in self.nodes if node.id == id)

    def primaries(self) -> list[Node]:
        """
        @return: the nodes that own slots, in the order of their first slots.
        """
        owners = [each for each in self._view().values() if each.slots]
        return [self.node(each.id) for each in sorted(owners, key=lambda each: min(each.slots))]

    def replicas(self, primary: Node) -> list[Node]:
        """
        @return: the replicas of a primary that answer.
        """
        known = self._view()
        return [node for node in self.nodes if node.answers() and known[node.id].primary == primary.id]

    def owner(self, slot: int) -> Node:
        """
        @return: the node that owns a slot, in its own view: the others may learn it later.
        """
        answering = (node for node in self.nodes if node.answers())
        return next(node for node in answering if slot in node.knows()[node.id].slots)

    def slots(self, node: Node) -> list[int]:
        """
        @return: the slots that a node owns.
        """
        return sorted(self._view()[node.id].slots)

    def consistent(self) -> bool:
        """
        @return: whether all nodes that answer serve requests, agree on all owners and roles, and all replicas among
            them have the data of their primaries and are shown to clients.
        """
        asked = [node for node in self.nodes if node.answers()]
        ids = {node.id for node in asked}
        views = []
        for node in asked:
            try:
                known, shown = node.knows(), node.shows()
                if node.info("cluster")["cluster_state"] != "ok":
                    return False
                if known[node.id].primary and node.info("replication").get("master_link_status") != "up":
                    return False
            except (ReplyError, OSError, EOFError):
                return False
            if not ids <= known.keys():
                return False
            serving = {id for id in ids if known[known[id].primary or id].slots}
            if not serving <= shown:
                return False
            views.append(known)
        return all(view.keys() == views[0].keys() for view in views) and not any(
            view[id].flags & _DOWN or (view[id].primary, view[id].slots) != (views[0][id].primary, views[0][id].slots)
            for view in views
            for id in ids
        )

    def untilConsistent(self, timeout: float = PATIENCE) -> None:
        """
        Wait until the cluster is L{consistent}.

        @raise ServerFailed: it is not after C{timeout} seconds.
        """
        introduction = time.monotonic() + 0.2

        def consistent() -> bool:
            nonlocal introduction
            if time.monotonic() > introduction:
                self._introduce()
                introduction = time.monotonic() + 1.0
            return self.consistent()

        try:
            until(consistent, timeout, "a consistent cluster")
        except ServerFailed as error:
            logs = "\n".join(f"{node!r}\n{node.log[-1000:]}" for node in self.nodes)
            raise ServerFailed(f"{error}\n{logs}") from None

    def _introduce(self) -> None:
        """
        Make each node send its state to all others. They do so by themselves, but only one other in a second.
        """
        for node in self.nodes:
            others = [each for each in self.nodes if each.answers() and each is not node]
            if node.answers():
                node.askAll(("CLUSTER", "MEET", HOST, each.port, each.busPort) for each in others)

    def _view(self) -> dict[str, Known]:
        return next(node for node in self.nodes if node.answers()).knows()

    def untilReplicated(self, primary: Node) -> None:
        """
        Wait until all replicas of a primary have what has been written to it until now.
        """
        offset = int(primary.info("replication")["master_repl_offset"])
        replicas = self.replicas(primary)

        def received() -> bool:
            return all(int(each.info("replication")["slave_repl_offset"]) >= offset for each in replicas)

        until(received, PATIENCE, f"the replicas of {primary!r} have its data")

    # -- Moving slots

    def beginMigration(self, slots: Iterable[int], target: Node) -> Node:
        """
        Begin to move slots of one owner, and leave all keys there. Requests for keys that the owner does not have get
        C{ASK} from now on.

        @return: the owner.
        """
        slots = list(slots)
        self._untilDistinct()
        source = self.owner(slots[0])
        target.askAll(("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id) for slot in slots)
        source.askAll(("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id) for slot in slots)
        return source

    def _untilDistinct(self) -> None:
        """
        Wait until the primaries have different epochs, and all nodes know the greatest one. The target of a slot takes
        the next epoch without asking the others. If it did so before it knows that of the last target, both would have
        the same epoch; the source could get a greater one then, claim the slot again and yield it to the target, which
        has yielded it to the source: no node would own it.
        """

        def distinct() -> bool:
            asked = [node for node in self.nodes if node.answers()]
            primaries = [own for node in asked if not (own := node.knows()[node.id]).primary]
            epochs = [own.epoch for own in primaries if own.epoch]
            newest = {node.info("cluster")["cluster_current_epoch"] for node in asked}
            return len(newest) == 1 and len(epochs) == len(set(epochs))

        until(distinct, PATIENCE, "primaries with different epochs")

    def moveKeys(self, slots: Iterable[int], source: Node, target: Node, most: int = 0) -> int:
        """
        Move keys of slots whose migration has begun. If some keys of a slot have moved and others have not, requests
        for both get C{TRYAGAIN}.

        @param most: the greatest number of keys of each slot; 0 for all.
        @return: the number of keys that were moved.
        """
        moved = 0
        login = ("AUTH", self._password) if self._password else ()
        with source.client() as client:
            for slot in slots:
                while keys := client.ask("CLUSTER", "GETKEYSINSLOT", slot, most or 100):
                    # NOKEY: all of them have expired or were deleted meanwhile.
                    client.ask("MIGRATE", HOST, target.port, "", 0, 10000, *login, "KEYS", *keys)
                    moved += len(keys)
                    if most:
                        break
        return moved

    def finishMigration(self, slots: Iterable[int], source: Node, target: Node) -> None:
        """
        Move the rest of the keys, and make C{target} the owner.
        """
        slots = list(slots)
        self.moveKeys(slots, source, target)
        # The target has to know first: until then nobody would own the slots.
        others = [node for node in self.primaries() if node not in (source, target)]
        target.askAll(("CLUSTER", "SETSLOT", slot, "NODE", target.id) for slot in slots)
        for node in (source, *others):
            # A source that has lost its last slot has become a replica.
            with suppress(ReplyError):
                node.askAll(("CLUSTER", "SETSLOT", slot, "NODE", target.id) for slot in slots)

    def migrate(self, slots: Iterable[int], target: Node) -> None:
        """
        Move slots of one owner with their keys.
        """
        slots = list(slots)
        source = self.beginMigration(slots, target)
        self.finishMigration(slots, source, target)

    # -- Nodes that fail, join and leave

    def failover(self, replica: Node, timeout: float = PATIENCE) -> None:
        """
        Make a replica the primary. If its primary does not answer, it takes over alone; otherwise without the loss of
        a write.
        """
        primary = self.node(self._view()[replica.id].primary)
        # The others do not vote twice for a replica of one primary within two node timeouts. TAKEOVER needs no votes.
        gentle = time.monotonic() + 2.0

        def promoted() -> bool:
            if replica.info("replication")["role"] == "master":
                return True
            how = () if primary.answers() and time.monotonic() < gentle else ("TAKEOVER",)
            with suppress(ReplyError):  # a failover is in progress
                replica.ask("CLUSTER", "FAILOVER", *how)
            time.sleep(0.1)
            return False

        until(promoted, timeout, f"the promotion of {replica!r}")

    def setNodeTimeout(self, milliseconds: int) -> None:
        """
        Change C{nodeTimeout} of all nodes that answer.
        """
        for node in self.nodes:
            if node.answers():
                node.ask("CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def untilReplaced(self, primary: Node, timeout: float = PATIENCE) -> None:
        """
        Wait until another node owns the slots of a primary that failed. Only with a short C{nodeTimeout}.
        """
        until(lambda: not self._view()[primary.id].slots, timeout, f"the failover of {primary!r}")

    def addNode(self, primary: Node | None = None) -> Node:
        """
        Add a primary without slots, or a replica of C{primary}. A primary that loses its last slot becomes a replica.
        """
        node = self._make()
        node.start()
        self._introduce()
        if primary is not None:

            def follows() -> bool:
                with suppress(ReplyError):  # it does not know the primary yet
                    node.ask("CLUSTER", "REPLICATE", primary.id)
                    return True
                return False

            until(follows, PATIENCE, f"{node!r} follows {primary!r}")
        self.untilConsistent()
        return node

    def removeNode(self, node: Node) -> None:
        """
        Remove a replica, or a primary that owns no slots and has no replicas, and stop it.
        """
        self.nodes.remove(node)
        try:
            for each in self.nodes:
                if each.answers():
                    each.ask("CLUSTER", "FORGET", node.id)
        finally:
            node.stop()
        self.untilConsistent()
