# -*- test-case-name: tests.net.test_tlswords -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The words for TLS after a line that stands for several servers, whose addresses are found later.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

#: The words, without the values that the user chooses, for error messages.
TLS_WORDS: Final = "tls=yes, trustRoots=DIRECTORY, certificate=FILE, privateKey=FILE"

#: The words that are arguments of endpoint strings for TLS, and have the path of a file or directory.
_PATHS: Final = ("trustRoots", "certificate", "privateKey")


@dataclass(frozen=True)
class TLSWords:
    """
    Whether servers have TLS: with C{tls=yes}, C{trustRoots=DIRECTORY}, C{certificate=FILE} or C{privateKey=FILE}.

    @ivar secure: whether connections have TLS.
    @ivar files: the words with files.
    """

    secure: bool = False
    files: tuple[tuple[str, str], ...] = ()

    def endpoint(self, host: str, port: int) -> str:
        """
        @param host: a name or an IP address.

        @return: the client endpoint string of a server.
        """
        parts = ["tls" if self.secure else "tcp", _escaped(host), str(port)]
        return ":".join([*parts, *(f"{name}={_escaped(path)}" for name, path in self.files)])

    def located(self, directory: str) -> TLSWords:
        """
        @param directory: the directory that relative paths are relative to.

        @return: the same words with absolute paths.
        """
        return replace(self, files=tuple((name, os.path.join(directory, path)) for name, path in self.files))

    @property
    def words(self) -> list[str]:
        """
        Words from which L{readTLS} makes the same.
        """
        found = ["tls=yes"] if self.secure and not self.files else []
        return found + [f"{name}={path}" for name, path in self.files]


#: No words: connections have no TLS.
PLAIN: Final = TLSWords()


def readTLS(words: Iterable[str]) -> tuple[TLSWords, list[str]]:
    """
    Read the words for TLS.

    @return: what they say, and the words that are something else, or there twice.

    @raise ValueError: they do not belong together. The text says what would be right.
    """
    secure, files, others = False, dict[str, str](), list[str]()
    for word in words:
        name, _, value = word.partition("=")
        if word == "tls=yes" and not secure:
            secure = True
        elif name in _PATHS and value and name not in files:
            files[name] = value
        else:
            others.append(word)
    if ("certificate" in files) is not ("privateKey" in files):
        raise ValueError("certificate= and privateKey= belong together; expected both or none")
    return TLSWords(secure or bool(files), tuple(files.items())), others


def _escaped(text: str) -> str:
    return re.sub(r"([:\\= ])", r"\\\1", text)
