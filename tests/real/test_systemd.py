# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy under systemd: sockets that outlive the process, and notifications. The tests take the role of
systemd, as C{sd_listen_fds(3)} and C{sd_notify(3)} describe it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.load import Load
from tests.real.processes import dieWithParent
from tests.real.servers import (
    HOST,
    PATIENCE,
    PATIENT_OPTIONS,
    SOURCE,
    Address,
    Memcached,
    ask,
    connect,
    missing,
    until,
)

#: LISTEN_PID must be the id of the process itself. The shell knows it, and keeps it across exec.
BECOME = 'export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$@"'


class Systemd:
    """
    A service with its socket.

    @ivar notifications: the notifications of the service, in order, with C{|} between their lines.
    """

    def __init__(
        self, case: SynchronousTestCase, upstream: str, *options: str, unix: bool = False, tls: bool = False
    ) -> None:
        self.notifications: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        directory = tempfile.TemporaryDirectory()
        case.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        case.addCleanup(self.end)
        if unix:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(self.directory / "clients"))
        else:
            self.socket = socket.create_server((HOST, 0))
        case.addCleanup(self.socket.close)
        self.socket.listen(1024)
        self.address: Address = self.socket.getsockname()
        self.notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self.notes.close)
        self.notes.bind(str(self.directory / "notify"))
        self.notes.setblocking(False)
        listen = f"systemd:domain={'UNIX' if unix else 'INET'}:name=clients"
        if tls:
            self.host = Certificate(self.directory, HOST)
            files = f"privateKey={quoted(self.host.key)}:certKey={quoted(self.host.certificate)}"
            under = listen.replace(":", r"\:")
            listen = f"ssl:0:{files}:endpoint={under}"
        self.command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="]
        self.command += ["connpool", "--upstream", upstream, "--listen", listen, *PATIENT_OPTIONS, *options]

    def start(self) -> None:
        """
        Start the service, and wait until it is ready.
        """
        environment = {
            **os.environ, "PYTHONPATH": str(SOURCE), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "clients",
            "NOTIFY_SOCKET": str(self.directory / "notify"), "WATCHDOG_USEC": "600000",
        }  # fmt: skip

        def become() -> None:
            dieWithParent()
            os.dup2(self.socket.fileno(), 3)

        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", BECOME, "sh", *self.command], env=environment, pass_fds=(3,), preexec_fn=become,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
            )  # fmt: skip
        self.untilNotified("READY=1")

    def stop(self) -> int:
        """
        Stop the service.

        @return: its exit status.
        """
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        self.listen()
        return status

    def end(self) -> None:
        """
        Kill the service if it still runs.
        """
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    @property
    def log(self) -> str:
        """
        The log of the service.
        """
        return (self.directory / "log").read_text("utf-8")

    def listen(self) -> None:
        """
        Receive notifications of the service.
        """
        try:
            while True:
                self.notifications.append(self.notes.recv(1000).decode().replace("\n", "|"))
        except BlockingIOError:
            pass

    def untilNotified(self, state: str) -> str:
        """
        Wait for a new notification.

        @param state: the beginning of the notification.
        @return: the notification.
        """
        before = len(self.notifications)

        def notified() -> bool:
            self.listen()
            return any(each.startswith(state) for each in self.notifications[before:])

        until(notified, PATIENCE, f"{state}, notifications were {self.notifications}, and the log is {self.log}")
        return next(each for each in self.notifications[before:] if each.startswith(state))


class SystemdTests(SynchronousTestCase):
    """
    Tests for the service.
    """

    skip = missing("memcached")

    def systemd(self, *options: str, unix: bool = False, tls: bool = False) -> Systemd:
        """
        @return: a service in front of a memcached.
        """
        self.memcached = Memcached().start()
        self.addCleanup(self.memcached.stop)
        return Systemd(self, self.memcached.endpoint, *options, unix=unix, tls=tls)

    def test_restart(self) -> None:
        """
        While the service is restarted several times, no client is refused, and no reply is wrong.
        """
        for options in ((), ("--workers", "2")):
            systemd = self.systemd("--pool-size", "4", *options)
            systemd.start()
            load = Load(systemd.address, clients=100, seconds=600.0, timeout=PATIENCE).start()
            self.addCleanup(load.kill)
            for _ in range(2):
                # Workers need more time until they serve than their parent until it listens.
                self.assertEqual(ask(systemd.address, b"get a\r\n", timeout=PATIENCE), b"END\r\n")
                load.untilServed(500)
                systemd.stop()
                systemd.start()
            load.untilServed(500)
            report = load.finish()
            self.assertEqual((report["refused"], report["wrong"], report["stuck"]), (0, [], 0), systemd.log)
            self.assertEqual((report["errors"], report["halved"]), ({}, 0), systemd.log)
            systemd.stop()

    def test_unix(self) -> None:
        """
        A UNIX socket and its file outlive the service, and the file keeps its mode.
        """
        systemd = self.systemd(unix=True)
        path = systemd.directory / "clients"
        path.chmod(0o640)
        for _ in range(2):
            systemd.start()
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o640)
            self.assertEqual(ask(systemd.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
            systemd.stop()

    def test_tls(self) -> None:
        """
        A TLS listener can use a socket of systemd, also with workers. A reload reads certificates again.
        """
        if missingTLS:
            self.skipTest(missingTLS)
        for options in ((), ("--workers", "2")):
            systemd = self.systemd(*options, tls=True)
            systemd.start()
            for _ in range(2):
                context = ssl.create_default_context(cafile=str(systemd.host.certificate))

                def served(context: ssl.SSLContext = context, systemd: Systemd = systemd) -> bool:
                    with connect(systemd.address, PATIENCE) as plain:
                        try:
                            with context.wrap_socket(plain, server_hostname=HOST) as client:
                                client.sendall(b"get a\r\n")
                                return client.recv(10) == b"END\r\n"
                        except ssl.SSLCertVerificationError:
                            return False

                until(served, PATIENCE, "an answer with the right certificate")
                systemd.host = Certificate(systemd.directory, HOST)
                assert systemd.process is not None
                systemd.process.send_signal(signal.SIGHUP)
            systemd.stop()

    def test_notifications(self) -> None:
        """
        The service notifies systemd when it is ready, reloads and stops. It sends watchdog notifications and its
        status.
        """
        ini = Path(self.mktemp()).absolute()
        ini.write_text("[connpool]\npool-size = 2\n", "ascii")
        systemd = self.systemd("--config", str(ini))
        systemd.start()
        self.assertRegex(systemd.notifications[-1], r"^READY=1\|STATUS=clients: 0, ")
        self.assertRegex(systemd.untilNotified("WATCHDOG=1"), r"STATUS=clients: 0, connections: 1, servers up: 1 of 1$")
        assert systemd.process is not None
        systemd.process.send_signal(signal.SIGHUP)
        systemd.untilNotified("READY=1")
        states = [each.split("|")[0] for each in systemd.notifications if not each.startswith("WATCHDOG=1")]
        self.assertEqual(states, ["READY=1", "RELOADING=1", "READY=1"])
        systemd.stop()
        self.assertRegex(systemd.notifications[-1], r"^STOPPING=1\|")

    def test_tool(self) -> None:
        """
        The service starts under C{systemd-socket-activate}.
        """
        tool = shutil.which("systemd-socket-activate")
        if tool is None:
            self.skipTest("systemd-socket-activate is not installed")
        systemd = self.systemd()
        port = systemd.socket.getsockname()[1]
        systemd.socket.close()
        command = [tool, "--listen", f"{HOST}:{port}", "--fdname=clients", f"--setenv=PYTHONPATH={SOURCE}"]
        with open(systemd.directory / "log", "ab") as log:
            systemd.process = subprocess.Popen(
                [*command, *systemd.command], preexec_fn=dieWithParent, stdout=log, stderr=log, cwd=systemd.directory
            )

        def answered() -> bool:
            try:
                return ask((HOST, port), b"get a\r\n") == b"END\r\n"
            except ConnectionRefusedError:
                return False

        until(answered, PATIENCE, "an answer")
