# -*- test-case-name: tests.net.test_endpoints -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Endpoint strings of Twisted, with what operators need beyond them: words for what is wrong with one, client certificates
for C{ssl:} listeners, certificates that are read again while the port stays open, and UNIX sockets whose last owner
crashed.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.syntax import ARGUMENT, NoReactor, checkClient, checkServer

T = TypeVar("T")


def usesTLS(description: str) -> bool:
    """
    Whether an endpoint string names, or may name, keys and certificates.
    """
    return bool(re.match("(ssl|tls):", description, re.IGNORECASE))


class CannotUse(ValueError):
    """
    An endpoint string is right, but what it names is not there or is of no use.
    """


@contextmanager
def _inWords(description: str) -> Iterator[None]:
    """
    Make what Twisted raises for what an endpoint string names a L{CannotUse} with words for people.
    """
    if usesTLS(description):
        try:
            import OpenSSL  # noqa: F401
        except ImportError:
            raise CannotUse("TLS needs packages that are not here: pip install 'txconnpool[tls]'") from None
    try:
        yield
    except OSError as error:
        reason = getattr(error, "originalException", error)  # FilePath wraps those of directories
        raise CannotUse(f"{reason.filename}: {reason.strerror}") from error
    except (IndexError, KeyError) as error:
        if not description.startswith("systemd:"):
            raise
        raise CannotUse("systemd gave this process no such socket; see connpool.socket") from error
    except Exception as error:
        if not type(error).__module__.startswith("OpenSSL"):
            raise
        raise CannotUse(f"certificate or key: {opensslReason(error)}") from error


def opensslReason(error: BaseException) -> str:
    """
    What OpenSSL says, without the names of its routines.
    """
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(reasons[-1][-1]) if reasons else str(error) or type(error).__name__


def tlsProblem(error: BaseException) -> str | None:
    """
    Say in a few words what went wrong between two sides of TLS.

    @return: C{None} if it is something else.
    """
    package = type(error).__module__.partition(".")[0]
    if package == "service_identity":
        return "TLS: the certificate is for another host"
    return f"TLS: {opensslReason(error)}" if package == "OpenSSL" else None


_FILES = "privateKey|certKey|certificate|extraCertChain|dhParameters"
_DIRECTORIES = "caCertsDir|trustRoots"


def nameOf(description: str) -> str:
    """
    What an endpoint is called: its string without what does not say where it is, such as paths of certificates.
    """
    return re.sub(ARGUMENT % f"(?:timeout|bindAddress|backlog|{_FILES}|{_DIRECTORIES})", "", description)


def withoutUnder(description: str) -> str:
    """
    The endpoint string of a listener with TLS, without where it listens instead of its port.
    """
    return re.sub(ARGUMENT % "endpoint", "", description) if usesTLS(description) else description


def digest(description: str) -> bytes:
    """
    Tell apart what an endpoint string names: another one means that a key or a certificate has changed.

    @raise OSError: a file or directory cannot be read.
    """
    found = sha256()
    for name, value in re.findall(rf":({_FILES}|{_DIRECTORIES})=((?:[^:\\]|\\.)*)", description):
        path = Path(re.sub(r"\\(.)", r"\1", value))
        for file in sorted(filter(Path.is_file, path.iterdir())) if re.fullmatch(_DIRECTORIES, name) else [path]:
            found.update(file.read_bytes())
    return found.digest()


def clientEndpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    """
    Make the endpoint of a server. Nothing is read: an endpoint with TLS is a L{TLSClientEndpoint}.

    @raise ValueError: the description is wrong; Twisted raises C{TypeError} and others too.
    """
    if usesTLS(description):
        return TLSClientEndpoint(reactor, description)
    endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
    return endpoint


@implementer(IStreamClientEndpoint)
class TLSClientEndpoint:
    """
    The endpoint of a server with TLS. Its keys and certificates are read by L{read}, or else when it first connects.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        """
        @param reactor: the reactor of the connections.
        @param description: a client endpoint string for which L{usesTLS} is true.

        @raise ValueError: the description is wrong; Twisted raises C{TypeError} and others too.
        """
        checkClient(description)
        self._reactor = reactor
        self._description = description
        self._endpoint: IStreamClientEndpoint | None = None

    def read(self) -> IStreamClientEndpoint:
        """
        Read the keys and certificates, and use them for connections from now on.

        @return: Twisted's endpoint with these keys and certificates.

        @raise CannotUse: they cannot be read, or do not fit together.
        """
        with _inWords(self._description):
            for name in ("trustRoots", "caCertsDir"):
                _authorities(self._description, name)
            self._endpoint = clientFromString(self._reactor, self._description)
            return self._endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to the server.

        @return: fires with the protocol; fails with L{CannotUse} too.
        """
        try:
            endpoint = self.read() if self._endpoint is None else self._endpoint
        except Exception:
            return fail()
        connecting: Deferred[IProtocol] = endpoint.connect(protocolFactory)
        return connecting


def checkClientFiles(description: str) -> None:
    """
    Read the keys and certificates that a client endpoint string names, if it names any.

    @raise CannotUse: they cannot be read, or do not fit together.
    """
    if usesTLS(description):
        TLSClientEndpoint(NoReactor(), description).read()


def checkServerFiles(description: str) -> None:
    """
    Read the keys and certificates that a server endpoint string names, and look for its socket of systemd, if it names
    any.

    @raise CannotUse: they cannot be read, do not fit together, or are not there.
    """
    Listener(NoReactor(), description).checkFiles()


def _argument(description: str, name: str) -> str:
    """
    @return: the value of an argument of an endpoint string, or nothing.
    """
    found = re.search(ARGUMENT % name, description)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""


def _authorities(description: str, name: str) -> list[Any]:
    """
    Read the certificates of the directory that an argument of an endpoint string names.

    @raise CannotUse: there are none. Twisted would trust nobody then, and say so to none but each client.
    """
    directory = _argument(description, name)
    if not directory or not usesTLS(description):
        return []
    from OpenSSL.crypto import FILETYPE_PEM, load_certificate

    certificates = []
    for entry in sorted(os.listdir(directory)):
        if entry.lower().endswith(".pem"):
            with open(os.path.join(directory, entry), "rb") as file:
                pem = file.read()
            certificates += [
                load_certificate(FILETYPE_PEM, each)
                for each in re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
            ]
    if not certificates:
        raise CannotUse(f"no certificate in the .pem files of {directory}")
    return certificates


def raised(begun: Deferred[T]) -> Deferred[T]:
    """
    Raise at once the failure that is known at once, as it is where sockets are listened on.

    @return: what was begun, if it has not failed yet.
    """
    failures: list[Failure] = []
    if begun.called:
        begun.addErrback(failures.append)
    for failure in failures:
        failure.raiseException()
    return begun


@implementer(IStreamServerEndpoint)
class Listener:
    """
    The endpoint of a listener. Its C{ssl:} takes two arguments that Twisted has for clients only: C{caCertsDir=}, a
    directory of C{.pem} files with the authorities one of which must have signed the certificate of each client; and
    C{endpoint=}, another endpoint where to listen instead of the port, such as a socket of systemd.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        """
        @param reactor: what listens.
        @param description: an endpoint string.

        @raise ValueError: the description is wrong; Twisted raises C{TypeError} and others too.
        """
        checkServer(description)
        self._reactor = reactor
        self._description = description
        self._factory: Any = Factory()
        self._door: _Door | None = None
        self._under = _argument(description, "endpoint") if usesTLS(description) else ""

    def checkFiles(self) -> None:
        """
        Read the keys and certificates, and look for the socket of systemd, without listening.

        @raise CannotUse: they cannot be read, do not fit together, or are not there.
        """
        if self.read() is None or self._under:
            plain = self._under or self._description
            with _inWords(plain):
                serverFromString(self._reactor, plain)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Read the keys and certificates, and listen.

        @return: fires with the port; fails with L{CannotUse} too.
        """
        self._factory = protocolFactory
        return maybeDeferred(self._listen)

    def _listen(self) -> Deferred[IListeningPort]:
        if self._under:
            self._door = _Door(self.read())
            return Listener(self._reactor, self._under).listen(self._door)
        self.checkFiles()
        listening: Deferred[IListeningPort] = self._endpoint(self._reactor, self._entrance).listen(self._factory)
        return listening

    def _entrance(self, factory: Any) -> Any:
        """
        Choose what to listen with, given what the endpoint has made of our factory.
        """
        if factory is self._factory:
            return factory
        self._door = _Door(factory)
        return self._door

    def _endpoint(self, reactor: Any, door: Callable[[Any], Any]) -> IStreamServerEndpoint:
        authorities = _authorities(self._description, "caCertsDir")
        plain = self._description
        if usesTLS(plain):
            plain = re.sub(ARGUMENT % "(?:caCertsDir|endpoint)", "", plain)
        endpoint: IStreamServerEndpoint = serverFromString(_Reactor(reactor, door, authorities), plain)
        return endpoint

    def read(self) -> Any:
        """
        Read keys and certificates again.

        @return: what L{use} takes; C{None} if there are none.

        @raise CannotUse: they cannot be read, or do not fit together.
        """
        if not usesTLS(self._description):
            return None
        found: list[Any] = []
        with _inWords(self._description):
            raised(self._endpoint(_NoPorts(), found.append).listen(self._factory))
        return found[0]

    def use(self, fresh: Any) -> None:
        """
        Use other keys and certificates for connections from now on. The port stays open, and so does every connection.

        @param fresh: what L{read} has given.
        """
        if self._door is not None:
            self._door.factory = fresh


class _Door(Factory):
    """
    The factory of a port. There may be another one behind it for the next connection.
    """

    noisy = False

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self._first = factory

    def doStart(self) -> None:
        """
        The port opens.
        """
        self._first.doStart()

    def doStop(self) -> None:
        """
        The port closes. That concerns the protocol's own factory, on which all that were behind this door stand.
        """
        self._first.doStop()

    def logPrefix(self) -> str:
        """
        @return: the name of the port in the log.
        """
        prefix: str = self.factory.logPrefix()
        return prefix

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]  # Factory's is narrower
        """
        @return: the protocol of a new connection.
        """
        protocol: IProtocol | None = self.factory.buildProtocol(addr)
        return protocol


class _NoPorts:
    """
    A reactor that does not listen.
    """

    def listenTCP(self, *args: Any, **kwargs: Any) -> None:
        """
        Do nothing.
        """


class _Reactor:
    """
    A reactor to listen with. Whatever an endpoint calls, the factory passes through our hands.
    """

    def __init__(self, reactor: Any, door: Callable[[Any], Any], authorities: list[Any]) -> None:
        """
        @param door: given the factory, gives the one to listen with.
        @param authorities: who must have signed the certificates of clients; nobody if they need none.
        """
        self._reactor = reactor
        self._door = door
        self._authorities = authorities

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Listen.
        """
        return self._reactor.listenTCP(port, self._door(factory), *args, **kwargs)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Listen, with TLS.
        """
        from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER
        from twisted.protocols.tls import TLSMemoryBIOFactory

        context = contextFactory.getContext()  # made only now: key and certificate may not fit
        if self._authorities:
            store = context.get_cert_store()
            for each in self._authorities:
                store.add_cert(each)
            context.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT)
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), *args, **kwargs)

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Listen on a UNIX socket.
        """
        _clear(os.fsencode(address))
        try:
            return self._reactor.listenUNIX(address, self._door(factory), *args, **kwargs)
        except PermissionError as error:  # the directory's, or to look whether the owner of the lock lives
            raise CannotListenError(None, address, error) from error

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """
        Listen on a socket that systemd opened.
        """
        port = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, self._door(factory))
        return _Adopted(port) if addressFamily == socket.AF_UNIX else port


class _Adopted:
    """
    A port on a UNIX socket of somebody else. Twisted's own removes the file when it stops, and nobody finds the socket
    any more.
    """

    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def stopListening(self) -> None:
        """
        Accept nothing more.
        """
        self._port.stopReading()
        self._port.socket.close()
        self._port.factory.doStop()


def _clear(path: bytes) -> None:
    """
    Remove the UNIX socket of a process that crashed, and the lock beside it.

    Twisted does it where no process has the id in the lock. In a container each life of a process has the same one.
    """
    lock = path + b".lock"
    try:
        if os.path.islink(lock) and stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                client.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        os.unlink(lock)
    except OSError:
        pass  # somebody accepts there, or listening will say what is wrong
