# -*- test-case-name: tests.real.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Real servers for tests and benchmarks. Each is a process that listens on a free address.

C{start} and C{stop} block for a bounded time, for use in C{setUp} and C{addCleanup}::

    class SomeTests(SynchronousTestCase):
        skip = missing("memcached")

        def setUp(self) -> None:
            self.memcached = Memcached().start()
            self.addCleanup(self.memcached.stop)
            self.proxy = Proxy("--pool-size", "4", upstream=[self.memcached.address]).start()
            self.addCleanup(self.proxy.stop)

The kernel kills each process when the thread that started it ends, so an interrupted run leaves no process behind.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, Self, TypeVar

from tests.real.forkserver import Forked, forkServer
from tests.real.processes import dieWithParent

#: Host and port, or the path of a UNIX socket.
Address = tuple[str, int] | str

HOST = "127.0.0.1"

#: Ports for servers. They are below the range of ephemeral ports: otherwise a benchmark with ten thousand clients could
#: use the port of a server that is about to start.
PORTS = range(18000, 32000)

#: The number of ports that a process of tests has for itself. It takes one after another: a port that was found free,
#: and at which nothing listens yet, or not any more, is given to no other server soon.
BLOCK = 200

#: The checkout that contains these tests.
SOURCE = Path(__file__).resolve().parents[2]

#: Seconds to wait for what happens soon. The number does not matter unless a test fails: it is for a machine that is
#: very busy with other things.
PATIENCE = 60.0

#: The timeouts of a pool that do not expire while a test waits: no request is to fail because the machine is busy.
PATIENT: Final[dict[str, Any]] = {f"{name}Timeout": PATIENCE for name in ("connect", "wait", "request")}

#: The same as options of C{twistd connpool}.
PATIENT_OPTIONS: Final = tuple(f"--{name}-timeout={PATIENCE:g}" for name in ("connect", "wait", "request"))

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


class ServerFailed(Exception):
    """
    A server did not start or did not end in time. The text contains its log.
    """


def which(program: str) -> str | None:
    """
    Find a program in C{PATH}, or in the directories of daemons, which are not in the C{PATH} of ordinary users.

    @return: its path, or C{None}.
    """
    directories = [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"]
    return shutil.which(program, path=os.pathsep.join(directories))


def missing(*programs: str) -> str | None:
    """
    Check that programs are installed, for the C{skip} attribute of a test case.

    @return: the reason to skip, such as C{"memcached is not installed"}, or C{None}.
    """
    for program in programs:
        if which(program) is None:
            return f"{program} is not installed"
    return None


def missingForNode(module: str) -> str | None:
    """
    Check that Node.js and a module for it, which is found with C{NODE_PATH}, are installed.

    @return: the reason to skip, such as C{"memjs is not installed"}, or C{None}.
    """
    node = which("node")
    if node is None:
        return "node is not installed"
    found = subprocess.run([node, "-e", f"require('{module}')"], capture_output=True, timeout=240, check=False)
    return None if found.returncode == 0 else f"{module} is not installed"


@functools.cache
def _ports() -> Iterator[int]:
    """
    Choose a block of ports that no other process of tests has.

    @return: its ports, again and again.

    @raise ServerFailed: other processes have all blocks.
    """
    blocks = [PORTS[start : start + BLOCK] for start in range(0, len(PORTS), BLOCK)]
    random.shuffle(blocks)
    if sys.platform != "linux":
        return itertools.cycle(blocks[0])
    for block in blocks:
        # An abstract name, which exists while this process does, and is seen by those that share its ports.
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0txconnpool-tests-{block.start}")
        except OSError:
            lock.close()
            continue
        atexit.register(lock.close)
        return itertools.cycle(block)
    raise ServerFailed("other tests have all ports")


def freePort() -> int:
    """
    Find a free TCP port.

    @raise ServerFailed: all ports of this process are in use.
    """
    for port in itertools.islice(_ports(), BLOCK):
        with socket.socket() as probe:
            # Servers set this too. With it, connections in TIME_WAIT do not prevent the use of the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free port found")


def clientEndpoint(address: Address) -> str:
    """
    @return: the client endpoint string of an address.
    """
    return f"unix:{address}" if isinstance(address, str) else f"tcp:{address[0]}:{address[1]}"


def serverEndpoint(address: Address) -> str:
    """
    @return: the server endpoint string of an address.
    """
    return f"unix:{address}" if isinstance(address, str) else f"tcp:{address[1]}:interface={address[0]}"


def connect(address: Address, timeout: float = PATIENCE) -> socket.socket:
    """
    Connect a blocking socket.

    @param timeout: seconds, for connecting and for each later call on the socket.
    @raise OSError: the connection failed.
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


def ask(address: Address, request: bytes, end: bytes = b"\r\n", timeout: float = PATIENCE) -> bytes:
    """
    Send one request on a new connection, and read until the reply ends with C{end} or the peer closes the connection.

    @raise OSError: the connection failed, or nothing was received for C{timeout} seconds.
    """
    with connect(address, timeout) as client:
        return exchange(client, request, end)


def exchange(client: socket.socket, request: bytes, end: bytes) -> bytes:
    """
    Send one request, and read until the reply ends with C{end} or the peer closes the connection.
    """
    client.sendall(request)
    answer = b""
    try:
        while not answer.endswith(end) and (data := client.recv(1 << 16)):
            answer += data
    except TimeoutError as e:
        raise TimeoutError(f"{client.gettimeout()} s without a byte after {answer[-1000:]!r}") from e
    return answer


def everything(client: socket.socket) -> bytes:
    """
    Read until the peer closes the connection.
    """
    answer = b""
    while data := client.recv(1 << 16):
        answer += data
    return answer


def refuses(address: Address) -> bool:
    """
    @return: whether connections to an address are refused.
    """
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was accepted by the kernel, and then the listening socket was closed
        pass
    return False


def withPorts(text: str, ports: Mapping[str, object]) -> str:
    """
    Replace ports in a text of a document, all at once: the digits of one may be among those of another.

    @param ports: the ports of this test, by those of the document.
    """
    return re.sub(rf"(?<![0-9])(?:{'|'.join(ports)})(?![0-9])", lambda found: str(ports[found[0]]), text)


def until(condition: Callable[[], object], timeout: float = PATIENCE, what: str = "the condition") -> None:
    """
    Wait until C{condition()} is true.

    @param what: a description of the condition, for the error.
    @raise ServerFailed: it is not true after C{timeout} seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what}: not within {timeout} s")
        time.sleep(0.005)


def raiseFileLimit() -> int:
    """
    Raise the limit for open files of this process, and of those that it starts, to the hard limit.

    @return: that limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def freeze(pid: int) -> None:
    """
    Suspend a process (SIGSTOP), and wait until all of its threads have stopped: some of them may still answer after the
    signal was sent.
    """
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _threadStates(pid) <= {"T", "t"}, what=f"the stop of all threads of process {pid}")


def _threadStates(pid: int) -> set[str]:
    """
    @return: the states of the threads of a process, as in C{proc_pid_stat(5)}.
    """
    states = set()
    for each in Path(f"/proc/{pid}/task").iterdir():
        try:
            states.add((each / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass  # the thread has ended meanwhile
    return states


Shared = TypeVar("Shared")

_shared: dict[type, tuple[ExitStack, Any]] = {}


def shared(case: object, make: Callable[[], AbstractContextManager[Shared]]) -> Shared:
    """
    Start servers once for all tests of a class, since trial has no C{setUpClass}. They end when a test of another class
    calls this, or with the process.

    @param case: the test.
    @param make: makes the context manager that starts and ends them, for the first test of the class.

    @return: what the context manager of the class has returned.
    """
    if type(case) not in _shared:
        endShared()
        stack = ExitStack()
        made = stack.enter_context(make())
        _shared[type(case)] = stack, made
    found: Shared = _shared[type(case)][1]
    return found


def endShared() -> None:
    """
    End the servers of L{shared}.
    """
    while _shared:
        _, (stack, _) = _shared.popitem()
        stack.close()


atexit.register(endShared)


class Server:
    """
    A process that listens on one address. The constructor does not start it.

    @ivar options: the additional options of the command line.
    @ivar pid: the process id, or 0 while the process does not run.
    """

    program: ClassVar[str] = ""
    ending: ClassVar[signal.Signals] = signal.SIGTERM
    #: File descriptors of this process that the server inherits.
    inherited: Sequence[int] = ()

    def __init__(self, *options: str, address: Address | None = None) -> None:
        """
        @param options: additional options of the command line.
        @param address: the address to listen on; a free port of 127.0.0.1 by default. A string is the path of a UNIX
            socket; without a slash, it is in the server's temporary directory.
        """
        self.options = options
        self.pid = 0
        self._given = address
        self._address: Address | None = None
        self._process: subprocess.Popen[bytes] | Forked | None = None
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
        The address that the server listens on. It is known after the first start.

        @raise ServerFailed: the server was never started.
        """
        if self._address is None:
            raise ServerFailed(f"{type(self).__name__} was not started")
        return self._address

    @property
    def endpoint(self) -> str:
        """
        The client endpoint string of the server.
        """
        return clientEndpoint(self.address)

    @property
    def directory(self) -> Path:
        """
        The working directory of the process: a temporary directory that is created at the first access.
        """
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="connpool-"))
            if (user := self._user()) is not None:
                os.chown(self._directory, pwd.getpwnam(user).pw_uid, -1)
        return self._directory

    @property
    def log(self) -> str:
        """
        The standard output and error output of the process, including those before restarts.
        """
        if self._directory is None:
            return self._lastLog
        path = self._directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def start(self) -> Self:
        """
        Start the process, and wait until it accepts connections.

        @raise ServerFailed: it ended, or did not accept connections in time.
        """
        if self._process is not None:
            raise ServerFailed(f"{self!r} runs already")
        if self._address is None:
            self._address = self._place()
        command = self.command()
        with open(self.directory / "log", "ab") as log:
            self._process = self._run(command, log)
        self.pid = self._process.pid
        try:
            self._untilAccepting(command)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """
        Send the signal C{ending} (usually SIGTERM) to the process, kill it if it has not ended after C{timeout}
        seconds, and remove its directory.

        @return: the exit status, negative for a signal: -9 if it had to be killed. 0 if it does not run.
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
        Kill the process (SIGKILL), and wait for its end. The directory and the log remain, for a L{restart}.

        @return: the exit status, -9.
        """
        self.signal(signal.SIGKILL)
        return self.wait(STOP_TIMEOUT)

    def restart(self) -> Self:
        """
        Kill the process if it runs, and start it again on the same address.
        """
        if self._process is not None:
            self.kill()
        return self.start()

    def freeze(self) -> None:
        """
        Suspend the process: the kernel still accepts connections for it, but it answers nothing.
        """
        if self._process is None:
            raise ServerFailed(f"{self!r} does not run")
        freeze(self._process.pid)

    def thaw(self) -> None:
        """
        Resume a suspended process (SIGCONT).
        """
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """
        Send a signal to the process.

        @raise ServerFailed: the process does not run.
        """
        if self._process is None:
            raise ServerFailed(f"{self!r} does not run")
        # Not Popen.send_signal, which would reap a process that has ended: see wait.
        os.kill(self._process.pid, number)

    def running(self) -> bool:
        """
        @return: whether the process runs.
        """
        return self._process is not None and self._ended() is None

    def wait(self, timeout: float = PATIENCE) -> int:
        """
        Wait for the end of the process, and kill the children that it left behind.

        @return: its exit status, negative for a signal.
        @raise ServerFailed: it still runs after C{timeout} seconds.
        """
        process = self._process
        if process is None:
            raise ServerFailed(f"{self!r} does not run")
        until(self._ended, timeout, f"the end of {self!r}")
        # The process is not reaped yet, so its id cannot belong to another process group.
        os.killpg(process.pid, signal.SIGKILL)
        self._process, self.pid = None, 0
        return process.wait()

    def command(self) -> list[str]:
        """
        @return: the command line to start the process with.
        """
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """
        @return: the environment of the process.
        """
        return dict(os.environ)

    def _run(self, command: Sequence[str], log: BinaryIO) -> subprocess.Popen[bytes] | Forked:
        """
        @return: the process of a command.
        """
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.directory,
            env=self.environment(),
            user=self._user(),
            pass_fds=self.inherited,
            # A process group of its own, so that the children of the process can be killed with it.
            start_new_session=True,
            preexec_fn=dieWithParent,
        )

    def _user(self) -> str | None:
        """
        @return: the user to run the process as, or C{None} for the current user.
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
    The real memcached.
    """

    program = "memcached"
    # memcached takes up to a second to end after SIGTERM, and has no data to save.
    ending = signal.SIGKILL

    def command(self) -> list[str]:
        """
        Add the options to listen on one address only, a TCP port or a UNIX socket.
        """
        if isinstance(self.address, str):
            where = ["-s", self.address, "-a", "0777"]
        else:
            where = ["-l", self.address[0], "-p", str(self.address[1]), "-U", "0"]
        return [self._program(), *where, *self.options]

    def stats(self, *arguments: str) -> dict[str, str]:
        """
        Send C{stats} on a new connection.

        @param arguments: the arguments of the command.
        @return: the values by name.
        """
        request = " ".join(["stats", *arguments]).encode("ascii") + b"\r\n"
        answer = ask(self.address, request, b"END\r\n").decode("ascii")
        return dict(line.split(" ", 2)[1:] for line in answer.splitlines() if line.startswith("STAT "))

    def _user(self) -> str | None:
        # memcached refuses to run as root. Its option -u is no alternative: the kernel does not kill a process that has
        # changed its user when the parent ends.
        return "nobody" if os.geteuid() == 0 else None


#: The path of another memcached to test with, a newer one than that of the distribution; empty if there is none.
NEWEST: Final = os.environ.get("TXCONNPOOL_NEWEST_MEMCACHED", "")


class NewestMemcached(Memcached):
    """
    The memcached at L{NEWEST}.
    """

    program = NEWEST


class Redis(Server):
    """
    The real Redis, without files.
    """

    program = "redis-server"
    # It would save its data, and has none that is worth it.
    ending = signal.SIGKILL

    def command(self) -> list[str]:
        """
        Add the options to listen on one address only.
        """
        assert not isinstance(self.address, str)
        host, port = self.address
        options = [
            "--bind",
            host,
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "no",
        ]
        return [self._program(), *options, "--dir", str(self.directory), *self.options]


class Sentinel(Server):
    """
    A sentinel of Redis, which alone decides about the master that it watches.

    @cvar downAfter: the milliseconds after which a server that does not answer has failed.
    """

    downAfter: ClassVar[int] = 20_000

    program = "redis-server"
    ending = signal.SIGKILL

    def __init__(self, name: str, master: Address, *lines: str) -> None:
        """
        @param name: the name of the master.
        @param lines: further lines of the configuration.
        """
        super().__init__()
        self._name = name
        self._master = master
        self._lines = lines

    def command(self) -> list[str]:
        """
        Write the configuration file, which the sentinel changes.
        """
        assert not isinstance(self.address, str)
        host, port = self.address
        lines = [
            f"bind {host}",
            f"port {port}",
            f"dir {self.directory}",
            f"sentinel monitor {self._name} {self._master[0]} {self._master[1]} 1",
            f"sentinel down-after-milliseconds {self._name} {self.downAfter}",
            f"sentinel failover-timeout {self._name} 5000",
            *self._lines,
        ]
        path = self.directory / "sentinel.conf"
        path.write_text("".join(f"{line}\n" for line in lines))
        return [self._program(), str(path), "--sentinel"]


class Nutcracker(Server):
    """
    twemproxy, a proxy in C, with which the benchmarks compare.
    """

    program = "nutcracker"

    def __init__(
        self,
        *options: str,
        upstream: Sequence[Address],
        connections: int = 1,
        timeout: float = PATIENCE,
        settings: Sequence[str] = (),
        address: Address | None = None,
    ) -> None:
        """
        @param upstream: the addresses of the servers.
        @param connections: the number of connections to each server (twemproxy's default is 1).
        @param timeout: seconds to wait for a server; by default longer than a test waits.
        @param settings: additional lines for the pool's configuration.
        """
        super().__init__(*options, address=address)
        self.upstream = upstream
        self.connections = connections
        self.timeout = timeout
        self.settings = settings

    def command(self) -> list[str]:
        """
        Write the configuration file, and add options that keep all files in the directory of the server.
        """
        configuration = self.directory / "nutcracker.yml"
        configuration.write_text(self._configuration(), "ascii")
        statistics = ["-a", HOST, "-s", str(freePort())]
        files = ["-o", str(self.directory / "nutcracker.log"), "-p", str(self.directory / "nutcracker.pid")]
        return [self._program(), "-c", str(configuration), *files, *statistics, *self.options]

    @property
    def log(self) -> str:
        """
        The output of the process, and its log file.
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


#: The program of C{twistd}'s command.
_TWISTD: Final = "from twisted.scripts.twistd import run; run()"


class Twistd(Server):
    """
    A C{twistd} process with any plugin, imported from a source tree.

    @cvar forks: whether the process may be forked from one that has imported the proxy, to save time.
    """

    forks: ClassVar[bool] = True

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
        @param options: options of the plugin.
        @param plugin: the name of the plugin.
        @param general: options of C{twistd}, before the name of the plugin.
        @param source: the source tree.
        @param python: the interpreter.
        """
        super().__init__(*options, address=address)
        self.plugin = plugin
        self.general = general
        self.source = source
        self.python = python

    def command(self) -> list[str]:
        """
        Run C{twistd} in the foreground.
        """
        return [self.python, "-c", _TWISTD, "-n", "--pidfile=", *self.general, self.plugin, *self.options]

    def environment(self) -> dict[str, str]:
        """
        Set C{PYTHONPATH} to the source tree.
        """
        return {**os.environ, "PYTHONPATH": str(self.source)}

    def _run(self, command: Sequence[str], log: BinaryIO) -> subprocess.Popen[bytes] | Forked:
        usual = [sys.executable, "-c", _TWISTD], SOURCE, (), None
        if sys.platform != "linux" or not self.forks:
            return super()._run(command, log)
        if (command[:3], self.source, tuple(self.inherited), self._user()) != usual:
            return super()._run(command, log)
        environment = self.environment()
        return forkServer(environment).twistd(command[3:], log, self.directory, environment)


class Proxy(Twistd):
    """
    The proxy under test: C{twistd -n connpool} from the source tree. Timeouts that are neither among its options nor in
    an ini file do not expire while a test waits: no request is to fail because the machine is busy.
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
        @param options: options of C{connpool}, in addition to C{--upstream} and C{--listen}.
        @param upstream: the servers: addresses, or endpoint strings (which contain a colon).
        """
        super().__init__(*options, plugin="connpool", general=general, source=source, python=python, address=address)
        self.upstream = upstream

    def command(self) -> list[str]:
        """
        Add the options for the timeouts, for the servers and for the address to listen on.
        """
        command = super().command()
        for each in PATIENT_OPTIONS:
            if not any(option.startswith((each.partition("=")[0], "--config")) for option in self.options):
                command.append(each)
        for server in self.upstream:
            endpoint = server if isinstance(server, str) and ":" in server else clientEndpoint(server)
            command += ["--upstream", endpoint]
        return [*command, "--listen", serverEndpoint(self.address)]
