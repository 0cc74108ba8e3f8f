# -*- test-case-name: tests.real.test_proxy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the main features of the proxy, as a process in front of a real memcached.
"""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.load import Load
from tests.real.relay import FREEZE, PASS, Relay
from tests.real.servers import (
    HOST,
    PATIENCE,
    PATIENT_OPTIONS,
    Memcached,
    Proxy,
    Server,
    Twistd,
    ask,
    connect,
    everything,
    freePort,
    missing,
    raiseFileLimit,
    refuses,
    serverEndpoint,
    until,
    which,
)

CLIENTS = 1000
POOL_SIZE = 4

#: The errors that clients may get while memcached is away.
AWAY = re.compile(
    r"upstream unavailable: connection (?:refused|lost|closed by the server) \(|upstream connection lost \("
    r"|timed out waiting "
)


class Observer(threading.Thread):
    """
    Reads memcached's number of connections repeatedly, over one connection of its own.

    @ivar most: the maximum number of other connections.
    """

    def __init__(self, memcached: Memcached) -> None:
        """
        Read the number for the first time, before any other connection exists.
        """
        super().__init__(daemon=True)
        self._connection = connect(memcached.address)
        self._over = threading.Event()
        self._own = self._count()
        self.most = 0

    def run(self) -> None:
        """
        Read the number until L{stop} is called.
        """
        while not self._over.wait(0.01):
            self.most = max(self.most, self._count() - self._own)

    def stop(self) -> None:
        """
        Stop reading.
        """
        self._over.set()
        self.join(PATIENCE)
        self._connection.close()

    def _count(self) -> int:
        self._connection.sendall(b"stats\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n"):
            answer += self._connection.recv(1 << 16)
        match = re.search(rb"STAT curr_connections (\d+)\r\n", answer)
        assert match is not None
        return int(match[1])


def quietly(log: str) -> list[str]:
    """
    @return: the lines of a log that would alarm an operator.
    """
    alarming = re.compile(r"#(?:warn|error|critical)\]|Traceback|Unhandled|Error|Exception")
    return [line for line in log.splitlines() if alarming.search(line)]


class ManyTests(SynchronousTestCase):
    """
    Tests for a thousand clients on four connections.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start memcached.
        """
        raiseFileLimit()
        self.memcached = Memcached("-t", "1", "-c", "64").start()
        self.addCleanup(self.memcached.stop)
        self.proxy = Proxy("--pool-size", str(POOL_SIZE), upstream=[self.memcached.address])
        self.addCleanup(self.proxy.stop)

    def test_everyAnswerRight(self) -> None:
        """
        Every reply of a mixed load is correct, and memcached never has more connections than C{pool-size}.
        """
        observer = Observer(self.memcached)
        self.addCleanup(observer.stop)
        self.proxy.start()
        observer.start()
        load = Load(self.proxy.address, clients=CLIENTS, seconds=600.0, sizes=(10, 100, 1000)).start()
        self.addCleanup(load.kill)
        load.untilServed(20 * CLIENTS)
        until(lambda: observer.most == POOL_SIZE, what="the use of all connections")
        report = load.finish()
        self.assertEqual((report["connected"], report["refused"], report["closed"]), (CLIENTS, 0, 0))
        self.assertEqual((report["wrong"], report["errors"], report["stuck"]), ([], {}, 0))
        self.assertEqual(observer.most, POOL_SIZE)
        self.assertEqual(quietly(self.proxy.log), [])

    def test_restart(self) -> None:
        """
        While memcached is away, every request is answered immediately with one error line, and no reply is wrong. Soon
        after it is back all clients are served.
        """
        self.proxy.start()
        settings = {"sizes": (10, 100, 1000), "misses": True, "pause": 0.2}
        load = Load(self.proxy.address, clients=CLIENTS, seconds=600.0, **settings).start()
        self.addCleanup(load.kill)
        load.untilServed(2 * CLIENTS)
        self.memcached.kill()
        until(lambda: load.count("errors") > 2 * CLIENTS, what="errors")
        self.memcached.start()
        until(lambda: ask(self.proxy.address, b"mn\r\n") == b"MN\r\n", what="service")
        load.untilServed(5 * CLIENTS)  # errors of before may still be on their way
        errors = load.count("errors")
        load.untilServed(5 * CLIENTS)
        report = load.finish()
        self.assertEqual((report["connected"], report["refused"], report["idle"]), (CLIENTS, 0, 0))
        self.assertEqual((report["wrong"], report["wrongs"], report["stuck"]), ([], 0, 0))
        self.assertEqual([error for error in report["errors"] if not AWAY.match(error)], [])
        self.assertEqual(sum(report["errors"].values()), errors)
        self.assertEqual(report["closed"], report["halved"])
        self.assertGreater(report["resumed"][1], 0)


class DrainTests(SynchronousTestCase):
    """
    Tests for SIGTERM while requests are in flight.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start memcached, a relay that delays, and the proxy.
        """
        self.memcached = Memcached("-t", "1").start()
        self.addCleanup(self.memcached.stop)
        self.relay = Relay(self.memcached.address).start()
        self.addCleanup(self.relay.stop)
        times = [f"--{name}-timeout={2 * PATIENCE:g}" for name in ("drain", "request", "wait")]
        options = (*times, "--pool-size", "1", "--pipeline-depth", "2000")
        self.proxy = Proxy(*options, upstream=[self.relay.address]).start()
        self.addCleanup(self.proxy.stop)

    def statistic(self, name: str) -> int:
        """
        @return: a statistic of the proxy.
        """
        match = re.search(rf"STAT {name} (\d+)\r\n", ask(self.proxy.address, b"stats proxy\r\n", b"END\r\n").decode())
        assert match is not None
        return int(match[1])

    def test_accepted(self) -> None:
        """
        Requests that were accepted before the signal are answered, whatever follows them. New connections are refused.
        The process ends normally, and its log has nothing alarming.
        """
        until(lambda: self.statistic("connections_idle") == 1, what="a connection to the server")
        self.relay.set(FREEZE)
        clients = [connect(self.proxy.address) for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(b"set k%d 0 0 1\r\nx\r\nget k%d\r\nnonsense\r\nincr k%d 1\r\n" % (number, number, number))
        idle = connect(self.proxy.address)
        # The others wait for their turn behind the error.
        until(lambda: self.statistic("in_flight") == 2 * len(clients), what="all requests")
        self.proxy.signal(signal.SIGTERM)
        self.assertEqual(idle.recv(1), b"")
        until(lambda: refuses(self.proxy.address), what="an end of listening")
        for client in clients[::2]:
            client.sendall(b"get never\r\n")
        self.relay.set(PASS)
        status = self.proxy.wait()
        for number, client in enumerate(clients):
            answer = b""
            try:
                while data := client.recv(1 << 16):
                    answer += data
            except ConnectionResetError:
                self.assertFalse(number % 2)  # the peer closed without reading everything
            expected = b"STORED\r\nVALUE k%d 0 1\r\nx\r\nEND\r\nERROR\r\n" % number
            self.assertEqual(answer, expected + b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n")
            client.close()
        idle.close()
        self.assertEqual(status, -signal.SIGTERM)
        self.assertEqual(quietly(self.proxy.log), [])
        self.assertIn("Server Shut Down", self.proxy.log)

    def test_underLoad(self) -> None:
        """
        Under a load no reply is incomplete, wrong or missing, and the process ends when all requests are answered.
        """
        load = Load(self.proxy.address, clients=200, seconds=600.0, reconnect=False).start()
        self.addCleanup(load.kill)
        load.untilServed(1000)
        self.proxy.signal(signal.SIGTERM)
        self.assertEqual(self.proxy.wait(), -signal.SIGTERM)
        report = load.finish()
        self.assertEqual((report["wrong"], report["stuck"], report["halved"], report["errors"]), ([], 0, 0, {}))
        self.assertEqual((report["connected"], report["closed"]), (200, 200))
        self.assertEqual(quietly(self.proxy.log), [])

    def test_deadline(self) -> None:
        """
        A server that does not answer delays the end until C{drain-timeout}, if the request does not time out before.
        """
        self.proxy.stop()
        self.proxy.options = (*self.proxy.options, "--drain-timeout", "0.5")
        self.proxy.start()
        until(lambda: self.statistic("connections_idle") == 1, what="a connection to the server")
        self.relay.set(FREEZE)
        client = connect(self.proxy.address)
        client.sendall(b"get k\r\n")
        until(lambda: self.statistic("in_flight") == 1, what="the request")
        begun = time.monotonic()
        self.proxy.signal(signal.SIGTERM)
        self.assertEqual(self.proxy.wait(), -signal.SIGTERM)
        self.assertGreater(time.monotonic() - begun, 0.4)
        self.assertNotIn("Traceback", self.proxy.log)
        self.relay.set(PASS)
        client.close()


class ToolTests(SynchronousTestCase):
    """
    Tests with memcached's conformance test for the text and the binary protocol.
    """

    skip = missing("memcached", "memccapable")

    def test_memccapable(self) -> None:
        """
        C{memccapable} passes through the proxy, with the same output as with memcached.
        """

        program = which("memccapable")
        assert program is not None
        running = []
        # It waits for seconds until items expire, so all run at the same time, each with a memcached of its own.
        for protocol in ("-a", "-b"):
            for proxied in (False, True):
                server: Server = Memcached("-t", "1").start()
                self.addCleanup(server.stop)
                if proxied:
                    server = Proxy(upstream=[server.address]).start()
                    self.addCleanup(server.stop)
                command = [program, "-h", HOST, "-p", str(server.address[1]), protocol]
                running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        outputs = [each.communicate(timeout=2 * PATIENCE)[0] for each in running]
        self.assertEqual([each.returncode for each in running], [0] * 4)
        for expected, found in (outputs[:2], outputs[2:]):
            self.assertEqual(found, expected)
            self.assertIn("All tests passed", expected)


class ConfiguredTests(SynchronousTestCase):
    """
    Tests for different configurations.
    """

    skip = missing("memcached")

    def test_twoPools(self) -> None:
        """
        Two pools of one ini, one of them on UNIX sockets, each serve their own memcached.
        """
        with Memcached("-t", "1") as first, Memcached("-t", "1", address="second.sock") as second:
            directory = Path(self.mktemp()).resolve()
            directory.mkdir()
            port, path = freePort(), str(directory / "pool.sock")
            ini = directory / "connpool.ini"
            ini.write_text(
                f"[pool:first]\nupstream = {first.endpoint}\nlisten = {serverEndpoint((HOST, port))}\n"
                f"[pool:second]\nupstream = {second.endpoint}\nlisten = {serverEndpoint(path)}\npool-size = 1\n"
            )
            with Twistd("--config", str(ini), *PATIENT_OPTIONS, plugin="connpool", address=(HOST, port)) as proxy:
                for address, word in (((HOST, port), b"one"), (path, b"two")):
                    self.assertEqual(ask(address, b"set k 0 0 3\r\n%s\r\n" % word), b"STORED\r\n")
                for address, word in (((HOST, port), b"one"), (path, b"two")):
                    hit = b"VALUE k 0 3\r\n%s\r\nEND\r\n" % word
                    self.assertEqual(ask(address, b"get k\r\n", b"END\r\n"), hit)
                for server, word in ((first, b"one"), (second, b"two")):
                    hit = b"VALUE k 0 3\r\n%s\r\nEND\r\n" % word
                    self.assertEqual(ask(server.address, b"get k\r\n", b"END\r\n"), hit)
                self.assertEqual(proxy.stop(), -signal.SIGTERM)
                self.assertFalse(Path(path).exists())

    def test_downAtStart(self) -> None:
        """
        The proxy starts even if its server is down: requests fail immediately, and succeed as soon as the server is up.
        """
        address = (HOST, freePort())
        with Proxy("--wait-timeout", f"{2 * PATIENCE:g}", upstream=[address]) as proxy:
            reply = ask(proxy.address, b"get k\r\n")
            self.assertEqual(reply, b"SERVER_ERROR upstream unavailable: connection refused (tcp:%s:%d)\r\n" % (
                HOST.encode(), address[1]))  # fmt: skip
            with Memcached("-t", "1", address=address):
                until(lambda: ask(proxy.address, b"get k\r\n") == b"END\r\n")

    def test_embedded(self) -> None:
        """
        Two proxies run in one application with another service, and end with it.
        """
        ports = freePort(), freePort()
        tac = Path(self.mktemp()).resolve()
        tac.write_text(_APPLICATION.format(host=HOST, ports=ports))
        with Twistd(plugin=str(tac), general=["-y"], address=(HOST, ports[0])) as process:
            until(lambda: not refuses((HOST, ports[1])))
            for port in ports:
                self.assertEqual(ask((HOST, port), b"set k 0 0 1\r\nx\r\n"), b"STORED\r\n")
            until(lambda: "the other service says STORED" in process.log)
            self.assertEqual(process.stop(), -signal.SIGTERM)
            self.assertEqual(quietly(process.log), [])


_APPLICATION = """
from twisted.application.internet import TimerService
from twisted.application.service import Application, MultiService
from twisted.internet import defer, reactor
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol

from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.service import ProxyService

application = Application("both")
together = MultiService()
together.setServiceParent(application)
for port in {ports}:
    pool = PoolSettings(upstream=("memory:",), listen=(f"tcp:{{port}}:interface={host}",))
    ProxyService(Settings(pools=(pool,))).setServiceParent(together)


class Ask(Protocol):
    def connectionMade(self):
        self.transport.write(b"set other 0 0 1\\r\\nx\\r\\n")

    def dataReceived(self, data):
        print("the other service says", data.decode())
        self.transport.loseConnection()


def ask():
    connectProtocol(clientFromString(reactor, "tcp:{host}:{ports[0]}"), Ask())


TimerService(0.2, ask).setServiceParent(together)
"""


class EncryptedTests(SynchronousTestCase):
    """
    Tests for TLS on both sides, with two proxies: one listens with TLS in front of memcached, and the other one
    connects to it with TLS.
    """

    skip = missing("memcached") or (None if find_spec("OpenSSL") else "pyOpenSSL is not installed")

    def setUp(self) -> None:
        """
        Start both proxies and memcached.
        """
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        pem = directory / "localhost.pem"
        pem.write_bytes(certificate("localhost"))
        pem.chmod(0o600)
        self.context = ssl.create_default_context(cafile=str(pem))
        self.memcached = Memcached("-t", "1").start()
        self.addCleanup(self.memcached.stop)
        port = freePort()
        listen = f"ssl:{port}:interface={HOST}:privateKey={pem}:certKey={pem}"
        options = ["--upstream", self.memcached.endpoint, "--listen", listen, *PATIENT_OPTIONS]
        self.inner = Twistd(*options, plugin="connpool", address=(HOST, port)).start()
        self.addCleanup(self.inner.stop)
        upstream = f"tls:localhost:{port}:trustRoots={directory}:endpoint=tcp\\:{HOST}\\:{port}"
        outer = ("--pool-size", "2", "--max-lifetime", "0.5", "--drain-timeout", f"{2 * PATIENCE:g}")
        self.outer = Proxy(*outer, upstream=[upstream]).start()
        self.addCleanup(self.outer.stop)

    def test_served(self) -> None:
        """
        Requests and replies of all sizes pass, also while connections reach their maximum lifetime and are replaced.
        """
        load = Load(self.outer.address, clients=50, seconds=600.0, sizes=(10, 1000, 100000), pause=0.01).start()
        self.addCleanup(load.kill)
        load.untilServed(1000)
        until(lambda: self.count(b"total_connections") > 8, what="other connections")
        report = load.finish()
        self.assertEqual((report["connected"], report["wrong"], report["errors"], report["closed"]), (50, [], {}, 0))
        until(lambda: self.count(b"curr_connections") <= 2 + 1 + 1)  # one is replaced, and one asks

    def count(self, name: bytes) -> int:
        """
        @return: a statistic of the inner proxy, read with TLS.
        """
        with self.context.wrap_socket(connect(self.inner.address), server_hostname="localhost") as client:
            client.sendall(b"stats proxy\r\nquit\r\nget late\r\n")
            answer = everything(client)
        self.assertTrue(answer.endswith(b"END\r\n"))
        match = re.search(rb"STAT %s (\d+)\r\n" % name, answer)
        assert match is not None
        return int(match[1])

    def test_end(self) -> None:
        """
        Both processes end normally, and their logs have nothing alarming.
        """
        self.assertEqual(ask(self.outer.address, b"set k 0 0 1\r\nx\r\n"), b"STORED\r\n")
        client = connect(self.outer.address)
        for proxy in (self.outer, self.inner):
            proxy.signal(signal.SIGTERM)
            self.assertEqual(proxy.wait(), -signal.SIGTERM)
            self.assertEqual(quietly(proxy.log), [])
        client.close()


def certificate(name: str) -> bytes:
    """
    @return: a private key and a self-signed certificate, in PEM.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + signed.public_bytes(serialization.Encoding.PEM)
