# -*- test-case-name: tests.config.test_credentials -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Users and passwords, and where they are kept.

Settings contain only the place of a password, never the password itself. It is read when it is needed, and never shown
in a message.
"""

from __future__ import annotations

import os
import re

from txconnpool.config.kinds import Kind
from txconnpool.wire import Login

#: Bytes of a user and a password, at most.
LOGIN_MAX = 2048


def readLogins(source: str) -> tuple[Login, ...]:
    """
    Read users and passwords.

    @param source: C{file:PATH}, or C{env:NAME} for an environment variable. Each line in it is C{user:password}.

    @return: each user with the password.

    @raise ValueError: they cannot be read. The message has the reason, and nothing of the content.
    """
    kind, _, place = source.partition(":")
    if kind == "file" and place:
        try:
            with open(place, "rb") as file:
                content = file.read()
        except OSError as error:
            raise ValueError(f"{place} cannot be read: {error.strerror}") from None
        except ValueError:  # a NUL in the path
            raise ValueError("expected file:PATH or env:NAME, in there user:password") from None
    elif kind == "env" and place:
        if place not in os.environ:
            raise ValueError(f"there is no environment variable {place}")
        content = os.fsencode(os.environ[place])
    else:
        raise ValueError("expected file:PATH or env:NAME, in there user:password")
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        if line:
            if len(line) > LOGIN_MAX or not re.fullmatch(rb"[^ :\0]+:[^ \0]+", line):
                raise ValueError(f"line {number} of {place}: expected user:password, without spaces")
            user, _, password = line.partition(b":")
            found.append((user, password))
    if not found:
        raise ValueError(f"{place} is empty: expected user:password")
    return tuple(found)


class Accounts(Kind[str]):
    """
    The place of users and passwords: a file or an environment variable.
    """

    metavar = "SOURCE"
    expected = "file:PATH or env:NAME, in there user:password"

    def __init__(self, most: int | None = None) -> None:
        """
        @param most: how many users there may be; C{None}: any number.
        """
        self._most = most

    def checkValue(self, value: str) -> None:
        """
        Check that the value begins with C{file:} or C{env:}.
        """
        if not (isinstance(value, str) and re.match("(file|env):.", value, re.DOTALL)):
            raise self.wrong()

    def located(self, value: str, directory: str) -> str:
        """
        Make the path of a file absolute.
        """
        kind, _, place = value.partition(":")
        return f"file:{os.path.join(directory, place)}" if kind == "file" else value

    def checkFiles(self, value: str) -> None:
        """
        Read and count the users and passwords.
        """
        found = readLogins(value)
        if self._most is not None and len(found) > self._most:
            raise ValueError(f"{len(found)} users: expected {self._most}")

    def quote(self, value: object) -> str:
        """
        Do not show a value that is neither a file nor an environment variable: it may be the password itself.
        """
        return repr(value) if isinstance(value, str) and re.match("(file|env):", value) else "'...'"


class SecretFile(Kind[str]):
    """
    The path of a file whose first line is a secret.
    """

    metavar = "FILE"
    expected = "a file that can be read, with the secret in its first line"

    @staticmethod
    def read(value: str) -> bytes:
        """
        @return: the secret, without spaces around it.

        @raise OSError: the file cannot be read.
        """
        with open(value, "rb") as file:
            return file.readline(_SECRET_MAX).strip()

    def checkValue(self, value: str) -> None:
        """
        Check that there is a path.
        """
        if not (isinstance(value, str) and value):
            raise self.wrong()

    def located(self, value: str, directory: str) -> str:
        """
        Make the path absolute.
        """
        return os.path.join(directory, value)

    def checkFiles(self, value: str) -> None:
        """
        Read the secret, which may not be empty.
        """
        try:
            secret = self.read(value)
        except (OSError, ValueError):  # the second one for a NUL in the path
            secret = b""
        if not secret:
            raise self.wrong()


#: The length of a secret in bytes, at most.
_SECRET_MAX = 1024
