# Copyright txconnpool contributors. See LICENSE.
"""
Shared code of tests for endpoints with certificates.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS, quoted


class Named(Factory):
    """
    A factory with a name.
    """

    protocol = Protocol
    noisy = False

    def logPrefix(self) -> str:
        """
        @return: the name in the log.
        """
        return "named"


class TLSTestCase(SynchronousTestCase):
    """
    Base class of tests with certificates.
    """

    skip = missingTLS

    def setUp(self) -> None:
        """
        Create an authority, and a host with a certificate of it.
        """
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.authority = Certificate(self.directory, "authority", authority=True)
        self.host = Certificate(self.directory, "host", self.authority)

    def made(self, name: str, content: str | None = None) -> Path:
        """
        Create a directory or a file.
        """
        path = self.directory / name
        if content is None:
            path.mkdir()
        else:
            path.write_text(content, "ascii")
        return path

    def server(self, *arguments: str) -> str:
        """
        @return: the endpoint string of a listener.
        """
        files = f"privateKey={quoted(self.host.key)}:certKey={quoted(self.host.certificate)}"
        return ":".join(["ssl:1234:interface=127.0.0.1", files, *arguments])
