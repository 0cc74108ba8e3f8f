# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with a real Redis cluster whose nodes have TLS, and change the addresses that they report.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS
from tests.real.operated import rows
from tests.real.rediscluster import Cluster, Node, keyOf
from tests.real.resp import Client
from tests.real.servers import HOST, PATIENT_OPTIONS, Twistd, freePort, missing, refuses, until

#: An address at which nobody is reached.
INNER = "192.0.2.1"


class SecureNode(Node):
    """
    A node that listens at both loopback addresses, and has a port for TLS, which the bus of the cluster uses too.

    @ivar tlsPort: that port.
    """

    def __init__(self, *options: str, certificate: Certificate, **values: Any) -> None:
        super().__init__(*options, **values)
        self.tlsPort = freePort()
        self._certificate = certificate

    def command(self) -> list[str]:
        """
        Add the options for TLS and for the second address.
        """
        files = self._certificate
        return [
            *super().command(), "--bind", HOST, "::1", "--tls-port", str(self.tlsPort), "--tls-cluster", "yes",
            "--tls-auth-clients", "no", "--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key),
            "--tls-ca-cert-file", str(files.certificate),
        ]  # fmt: skip

    def line(self, flags: str, primary: str = "-", epoch: int = 0, slots: str = "") -> str:
        """
        @return: the line in a configuration file, which has the port for TLS.
        """
        return super().line(flags, primary, epoch, slots).replace(f":{self.port}@", f":{self.tlsPort}@")


class SecureCluster(Cluster):
    """
    A cluster of such nodes.
    """

    def __init__(self, primaries: int, certificate: Certificate) -> None:
        super().__init__(primaries, nodeTimeout=60000)
        self.kind = partial(SecureNode, certificate=certificate)

    @property
    def secureSeeds(self) -> str:
        """
        The addresses of all nodes for TLS.
        """
        return ",".join(f"localhost:{node.tlsPort}" for node in self.nodes if isinstance(node, SecureNode))


class AddressTests(SynchronousTestCase):
    """
    Tests for C{cluster-announce-ip}, C{cluster-announce-hostname} and C{cluster-preferred-endpoint-type}.
    """

    skip = missing("redis-server") or missingTLS

    def setUp(self) -> None:
        """
        Start a cluster, and a proxy with a pool for each of its ports. The nodes report host names.
        """
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        directory = Path(temporary.name)
        self.cluster = SecureCluster(2, Certificate(directory, "localhost", authority=True))
        self.addCleanup(self.cluster.stop)
        self.cluster.start()
        self.configure("cluster-announce-hostname", "localhost")
        self.configure("cluster-preferred-endpoint-type", "hostname")
        self.admin = str(directory / "admin.sock")
        ports = {"plain": freePort(), "tls": freePort()}
        addresses = ",".join(f"{INNER}:{node.port}>{HOST}:{node.port}" for node in self.cluster.nodes)
        roots = directory / "roots"
        roots.mkdir()
        (directory / "localhost.pem").rename(roots / "localhost.pem")
        upstream = {
            "plain": f"cluster:{self.cluster.seeds} map={addresses}",
            "tls": f"cluster:{self.cluster.secureSeeds} trustRoots={roots}",
        }
        ini = [f"[connpool]\nadmin = unix:{self.admin}"]
        for name, line in upstream.items():
            ini.append(f"[pool:{name}]\nprotocol = redis\nupstream = {line}")
            ini.append(f"listen = tcp:{ports[name]}:interface={HOST}")
        path = directory / "connpool.ini"
        path.write_text("\n".join(ini) + "\n")
        proxy = Twistd("--config", str(path), *PATIENT_OPTIONS, plugin="connpool", address=(HOST, ports["plain"]))
        self.addCleanup(proxy.stop)
        proxy.start()
        until(lambda: not any(refuses((HOST, port)) for port in ports.values()), what="both pools listen")
        self.clients = {name: Client((HOST, port), 60.0) for name, port in ports.items()}
        for client in self.clients.values():
            self.addCleanup(client.close)
        self.unused = list(reversed(self.cluster.slots(self.cluster.nodes[0])))

    def configure(self, *words: object) -> None:
        """
        Change a setting of all nodes.
        """
        for node in self.cluster.nodes:
            node.ask("CONFIG", "SET", *words)

    def untilReported(self, test: Callable[[str, int], bool]) -> None:
        """
        Wait until each node reports certain endpoints of all, with certain ports.
        """

        def reported() -> bool:
            return all(
                test((server[0] or b"").decode(), server[1])
                for node in self.cluster.nodes
                for shard in node.ask("CLUSTER", "SLOTS")
                for server in shard[2:]
            )

        until(reported, what="the new addresses")

    def move(self, *pools: str) -> list[str]:
        """
        Move a slot without keys, and use it.

        @return: the names of the nodes that the pools know then.
        """
        slot, target = self.unused.pop(), self.cluster.nodes[1]
        source = self.cluster.beginMigration([slot], target)
        self.cluster.finishMigration([slot], source, target)
        for name in pools:
            key = keyOf(slot, name)
            self.assertEqual(self.clients[name].ask("SET", key, name), b"OK")
            self.assertEqual(target.ask("GET", key), name.encode())
        return sorted(row["node"] for row in rows(self.admin, "slots") if row["pool"] in pools)

    def untilNames(self, expected: list[str], *pools: str) -> None:
        """
        Move slots until the pools know nodes of certain names.
        """
        found: list[str] = []

        def known() -> bool:
            found[:] = self.move(*pools)
            return found == sorted(expected)

        until(known, what=f"{expected}")

    def test_addresses(self) -> None:
        """
        The nodes are reached at all the addresses that they report.
        """
        nodes: list[Any] = self.cluster.nodes
        self.untilReported(lambda endpoint, port: endpoint == "localhost")
        names = [f"tcp:localhost:{node.port}" for node in nodes]
        self.untilNames([*names, *(f"tls:localhost:{node.tlsPort}" for node in nodes)], "plain", "tls")
        self.configure("cluster-preferred-endpoint-type", "unknown-endpoint")
        self.untilReported(lambda endpoint, port: not endpoint)
        self.move("plain")
        self.configure("cluster-announce-ip", "::1")
        self.configure("cluster-preferred-endpoint-type", "ip")
        self.untilReported(lambda endpoint, port: endpoint == "::1")
        self.untilNames([rf"tcp:\:\:1:{node.port}" for node in nodes], "plain")
        # Of both, one might not learn the address of the other one: it is not reached there by the other nodes either.
        nodes[1].ask("CONFIG", "SET", "cluster-announce-ip", INNER)
        self.untilReported(lambda endpoint, port: endpoint == (INNER if port == nodes[1].port else "::1"))
        self.untilNames([rf"tcp:\:\:1:{nodes[0].port}", f"tcp:{HOST}:{nodes[1].port}"], "plain")
