# -*- test-case-name: tests.real.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Real servers for tests and benchmarks: each is a process on a free address, stopped by its process id.

Starting and stopping block for a bounded time, so they fit C{setUp} and C{addCleanup}::

    class SomeTests(SynchronousTestCase):
        skip = missing("memcached")

        def setUp(self) -> None:
            self.memcached = Memcached().start()
            self.addCleanup(self.memcached.stop)
            self.proxy = Proxy("--pool-size", "4", upstream=[self.memcached.address]).start()
            self.addCleanup(self.proxy.stop)

A process started here dies with the thread that started it, so an interrupted run leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import random
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

#: Host and port, or the path of a UNIX socket.
Address = tuple[str, int] | str

HOST = "127.0.0.1"

#: Below the range from which systems take the ports of outgoing connections: a benchmark with ten thousand
#: clients would otherwise sit on the port that a server is about to be started on.
PORTS = range(18000, 32000)

#: The checkout which these tests belong to.
SOURCE = Path(__file__).resolve().parents[2]

START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerFailed(Exception):
    """
    A server did not start, or did not end, in time; the text carries its log.
    """


def which(program: str) -> str | None:
    """
    Find a program, also where daemons are installed and the path of an ordinary user does not lead.

    @return: its path, or C{None}.
    """
    directories = [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"]
    return shutil.which(program, path=os.pathsep.join(directories))


def missing(*programs: str) -> str | None:
    """
    Say why a test cannot run: meant for the C{skip} attribute of a test case.

    @return: C{"memcached is not installed"}, for the first program that is not there, or C{None}.
    """
    for program in programs:
        if which(program) is None:
            return f"{program} is not installed"
    return None


def freePort() -> int:
    """
    Find a TCP port on which nothing listens.

    @raise ServerFailed: when a hundred ports in a row are taken.
    """
    for _ in range(100):
        port = random.choice(PORTS)
        with socket.socket() as probe:
            # As servers do, so that connections in TIME_WAIT on this port do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free port found")


def clientEndpoint(address: Address) -> str:
    """
    Spell an address as an endpoint string for clients.
    """
    return f"unix:{address}" if isinstance(address, str) else f"tcp:{address[0]}:{address[1]}"


def serverEndpoint(address: Address) -> str:
    """
    Spell an address as an endpoint string for listeners.
    """
    return f"unix:{address}" if isinstance(address, str) else f"tcp:{address[1]}:interface={address[0]}"


def connect(address: Address, timeout: float = 5.0) -> socket.socket:
    """
    Connect a blocking socket.

    @param timeout: seconds, for connecting and for each call on the socket later.
    @raise OSError: as the system says it.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    try:
        client.settimeout(timeout)
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def ask(address: Address, request: bytes, end: bytes = b"\r\n", timeout: float = 5.0) -> bytes:
    """
    Send one request on a connection of its own and read until the answer ends with C{end}, or the peer closes.

    @raise OSError: when the connection fails or nothing comes for C{timeout} seconds.
    """
    with connect(address, timeout) as client:
        return exchange(client, request, end)


def exchange(client: socket.socket, request: bytes, end: bytes) -> bytes:
    """
    Send one request and read until the answer ends with C{end}, or the peer closes.
    """
    client.sendall(request)
    answer = b""
    while not answer.endswith(end) and (data := client.recv(1 << 16)):
        answer += data
    return answer


def everything(client: socket.socket) -> bytes:
    """
    Read until the peer closes.
    """
    answer = b""
    while data := client.recv(1 << 16):
        answer += data
    return answer


def refuses(address: Address) -> bool:
    """
    Does nothing listen there?
    """
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    return False


def until(condition: Callable[[], object], timeout: float = 10.0, what: str = "the condition") -> None:
    """
    Wait until C{condition()} is true.

    @raise ServerFailed: when it is not after C{timeout} seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what}: not so within {timeout} s")
        time.sleep(0.005)


def raiseFileLimit() -> int:
    """
    Let this process, and those it starts from now on, open as many files as the system allows it.

    @return: that number.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def dieWithParent() -> None:
    """
    For C{preexec_fn}: have the system kill this process when the thread that started it has ended.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """
    A process that listens on one address. Constructing does nothing.

    @ivar pid: the process id, or 0 while it does not run.
    """

    program: ClassVar[str] = ""
    ending: ClassVar[signal.Signals] = signal.SIGTERM
    #: Our own file descriptors that the process is to have too.
    inherited: Sequence[int] = ()

    def __init__(self, *options: str, address: Address | None = None) -> None:
        """
        @param options: added to the command line.
        @param address: where to listen, a free port of 127.0.0.1 when not given. A path without a slash is meant
            in the server's own temporary directory.
        """
        self.options = options
        self.pid = 0
        self._given = address
        self._address: Address | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._lastLog = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address or self._given} pid={self.pid}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> Address:
        """
        Where the server listens, known from its first start.

        @raise ServerFailed: before that.
        """
        if self._address is None:
            raise ServerFailed(f"{type(self).__name__} was not started")
        return self._address

    @property
    def endpoint(self) -> str:
        """
        The endpoint string with which a client reaches the server.
        """
        return clientEndpoint(self.address)

    @property
    def directory(self) -> Path:
        """
        The working directory of the process, made when first asked for.
        """
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="connpool-"))
            if (user := self._user()) is not None:
                os.chown(self._directory, pwd.getpwnam(user).pw_uid, -1)
        return self._directory

    @property
    def log(self) -> str:
        """
        All that the process wrote to its standard output and error, over restarts too.
        """
        if self._directory is None:
            return self._lastLog
        path = self._directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def start(self) -> Self:
        """
        Start the process and wait until it accepts connections.

        @raise ServerFailed: when it ends or does not accept in time.
        """
        if self._process is not None:
            raise ServerFailed(f"{self!r} runs already")
        if self._address is None:
            self._address = self._place()
        command = self.command()
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                user=self._user(),
                pass_fds=self.inherited,
                # A group of its own: what the process itself started can be ended with it.
                start_new_session=True,
                preexec_fn=dieWithParent,
            )
        self.pid = self._process.pid
        try:
            self._untilAccepting(command)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """
        Ask the process to end (by the signal C{ending}, SIGTERM as a rule), kill it when it has not after C{timeout}
        seconds, and remove its directory.

        @return: the exit status, negative for a signal: -9 when it had to be killed. 0 when it does not run.
        """
        status = 0
        if self._process is not None:
            self.signal(self.ending)
            self.thaw()
            try:
                status = self.wait(timeout)
            except ServerFailed:
                status = self.kill()
        self._lastLog = self.log
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        return status

    def kill(self) -> int:
        """
        Kill the process (SIGKILL) and wait for its end; its directory and log stay for a L{restart}.

        @return: the exit status, -9.
        """
        self.signal(signal.SIGKILL)
        return self.wait(STOP_TIMEOUT)

    def restart(self) -> Self:
        """
        Start again on the same address, after killing the process if it still runs.
        """
        if self._process is not None:
            self.kill()
        return self.start()

    def freeze(self) -> None:
        """
        Stop the process in its tracks (SIGSTOP): the system still accepts connections for it, it answers nothing.
        """
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """
        Let a frozen process go on (SIGCONT).
        """
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """
        Send a signal to the process.

        @raise ServerFailed: when it does not run.
        """
        if self._process is None:
            raise ServerFailed(f"{self!r} does not run")
        # Not through Popen.send_signal, which would reap the process if it has ended: see wait.
        os.kill(self._process.pid, number)

    def running(self) -> bool:
        """
        Is the process there still?
        """
        return self._process is not None and self._ended() is None

    def wait(self, timeout: float) -> int:
        """
        Wait for the end of the process, and end what it started itself and left behind.

        @return: its exit status, negative for a signal.
        @raise ServerFailed: when it runs on after C{timeout} seconds.
        """
        process = self._process
        if process is None:
            raise ServerFailed(f"{self!r} does not run")
        until(self._ended, timeout, f"the end of {self!r}")
        # The process is not reaped yet, so its id cannot belong to another group by now.
        os.killpg(process.pid, signal.SIGKILL)
        self._process, self.pid = None, 0
        return process.wait()

    def command(self) -> list[str]:
        """
        The command line, for L{address}.
        """
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """
        The environment of the process.
        """
        return dict(os.environ)

    def _user(self) -> str | None:
        """
        The user to run as, or C{None} to stay who we are.
        """
        return None

    def _program(self) -> str:
        path = which(self.program)
        if path is None:
            raise ServerFailed(f"{self.program} is not installed")
        return path

    def _place(self) -> Address:
        if self._given is None:
            return (HOST, freePort())
        if isinstance(self._given, str) and "/" not in self._given:
            return str(self.directory / self._given)
        return self._given

    def _ended(self) -> os.waitid_result | None:
        assert self._process is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def _untilAccepting(self, command: Sequence[str]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if not self.running():
                raise ServerFailed(f"{shlex.join(command)}: ended before it accepted:\n{self.log}")
            try:
                connect(self.address, 1.0).close()
            except OSError as e:
                if time.monotonic() > deadline:
                    raise ServerFailed(f"{shlex.join(command)}: does not accept: {e}\n{self.log}") from e
                time.sleep(0.01)
            else:
                return


class Memcached(Server):
    """
    The real memcached. A request of its own for statistics is at hand: L{stats}.
    """

    program = "memcached"
    # It would take a second to end by itself, and has nothing to lose.
    ending = signal.SIGKILL

    def command(self) -> list[str]:
        """
        Listen on one address only, by TCP or UNIX socket.
        """
        if isinstance(self.address, str):
            where = ["-s", self.address, "-a", "0777"]
        else:
            where = ["-l", self.address[0], "-p", str(self.address[1]), "-U", "0"]
        return [self._program(), *where, *self.options]

    def stats(self, *arguments: str) -> dict[str, str]:
        """
        Ask for statistics, on a connection of its own.
        """
        request = " ".join(["stats", *arguments]).encode("ascii") + b"\r\n"
        answer = ask(self.address, request, b"END\r\n").decode("ascii")
        return dict(line.split(" ", 2)[1:] for line in answer.splitlines() if line.startswith("STAT "))

    def _user(self) -> str | None:
        # memcached refuses to run as root. It is not left to its own option -u: a process that changes its user
        # itself is no longer killed when its parent dies.
        return "nobody" if os.geteuid() == 0 else None


class Nutcracker(Server):
    """
    twemproxy, the C proxy which the benchmarks take as their yardstick.
    """

    program = "nutcracker"

    def __init__(
        self,
        *options: str,
        upstream: Sequence[Address],
        connections: int = 1,
        timeout: float = 2.0,
        settings: Sequence[str] = (),
        address: Address | None = None,
    ) -> None:
        """
        @param upstream: the servers.
        @param connections: connections to each server; 1 is its default.
        @param timeout: seconds to wait for a server.
        @param settings: more lines for the pool in its configuration.
        """
        super().__init__(*options, address=address)
        self.upstream = upstream
        self.connections = connections
        self.timeout = timeout
        self.settings = settings

    def command(self) -> list[str]:
        """
        Write the configuration and name it, and keep every file and port out of the system's own places.
        """
        configuration = self.directory / "nutcracker.yml"
        configuration.write_text(self._configuration(), "ascii")
        statistics = ["-a", HOST, "-s", str(freePort())]
        files = ["-o", str(self.directory / "nutcracker.log"), "-p", str(self.directory / "nutcracker.pid")]
        return [self._program(), "-c", str(configuration), *files, *statistics, *self.options]

    @property
    def log(self) -> str:
        """
        What it wrote to its own log file too.
        """
        path = None if self._directory is None else self._directory / "nutcracker.log"
        return super().log + (path.read_text("utf-8", "replace") if path is not None and path.exists() else "")

    def _configuration(self) -> str:
        lines = [
            f"listen: {self._spell(self.address)}",
            "preconnect: true",
            "auto_eject_hosts: false",
            f"timeout: {int(self.timeout * 1000)}",
            f"server_connections: {self.connections}",
            *self.settings,
            "servers:",
            *(f"- {self._spell(server)}:1 server{number}" for number, server in enumerate(self.upstream)),
        ]
        return "pool:\n" + "".join(f"  {line}\n" for line in lines)

    @staticmethod
    def _spell(address: Address) -> str:
        return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


class Twistd(Server):
    """
    Any plugin of C{twistd}, found in a source tree and run by this Python.
    """

    def __init__(
        self,
        *options: str,
        plugin: str,
        general: Sequence[str] = (),
        source: Path = SOURCE,
        python: str = sys.executable,
        address: Address | None = None,
    ) -> None:
        """
        @param options: of the plugin.
        @param plugin: its name.
        @param general: options of C{twistd} itself, before the plugin's name.
        @param source: where to import from.
        """
        super().__init__(*options, address=address)
        self.plugin = plugin
        self.general = general
        self.source = source
        self.python = python

    def command(self) -> list[str]:
        """
        Run in the foreground.
        """
        twistd = [self.python, "-c", "from twisted.scripts.twistd import run; run()"]
        return [*twistd, "-n", "--pidfile=", *self.general, self.plugin, *self.options]

    def environment(self) -> dict[str, str]:
        """
        Import from the source tree, wherever this Python would look otherwise.
        """
        return {**os.environ, "PYTHONPATH": str(self.source)}


class Proxy(Twistd):
    """
    The proxy under test: C{twistd -n connpool} from the source tree.
    """

    def __init__(
        self,
        *options: str,
        upstream: Sequence[Address | str] = (),
        general: Sequence[str] = (),
        source: Path = SOURCE,
        python: str = sys.executable,
        address: Address | None = None,
    ) -> None:
        """
        @param options: of C{connpool}, besides C{--upstream} and C{--listen}.
        @param upstream: addresses, or endpoint strings (these have a colon).
        """
        super().__init__(*options, plugin="connpool", general=general, source=source, python=python, address=address)
        self.upstream = upstream

    def command(self) -> list[str]:
        """
        Name the servers and the address to listen on by endpoint strings.
        """
        command = super().command()
        for server in self.upstream:
            endpoint = server if isinstance(server, str) and ":" in server else clientEndpoint(server)
            command += ["--upstream", endpoint]
        return [*command, "--listen", serverEndpoint(self.address)]
