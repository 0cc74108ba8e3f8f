# -*- test-case-name: tests.migrate.test_endpoints -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Endpoint strings and lines of C{upstream} from the addresses of other configurations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from txconnpool.routing.distribution import ServerSpec


@dataclass(frozen=True)
class Offset:
    """
    How listeners are moved, so that the new proxy can run beside the old one.

    @ivar ports: what is added to every port. If it is not 0, C{.new} is appended to the path of a UNIX socket.
    """

    ports: int = 0

    def port(self, port: int) -> int:
        """
        @raise ValueError: the new port is not possible.
        """
        moved = port + self.ports
        if not 1 <= moved <= 65535:
            raise ValueError(f"port {port} plus {self.ports} is {moved}; expected a port from 1 to 65535")
        return moved

    def path(self, path: str) -> str:
        """
        @return: the path for the new proxy.
        """
        return f"{path}.new" if self.ports else path


def escaped(text: str) -> str:
    """
    @return: an argument of an endpoint string. Spaces are escaped too: after them, C{upstream} has words.
    """
    return re.sub(r"([\\:=\s])", r"\\\1", text)


def serverLine(server: ServerSpec, kind: str = "tcp") -> str:
    """
    Write a server as a line of the setting C{upstream}.

    @param server: a server with host and port or with a path.
    @param kind: the type of the endpoint of a server with host and port: C{tcp} or C{tls}.
    """
    if server.path is not None:
        words = [f"unix:{escaped(server.path)}"]
    else:
        words = [f"{kind}:{escaped(server.host or '')}:{server.port}"]
    if server.weight is not None:
        digits = f"{server.weight:.10f}"
        words.append(f"weight={digits.rstrip('0').rstrip('.')}")
    if server.label is not None:
        words.append(f"label={server.label}")
    return " ".join(words)


def port(text: str) -> int:
    """
    @raise ValueError: the text is no port.
    """
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"port {text}: expected a number from 1 to 65535")
    return int(text)


def seconds(milliseconds: int) -> str:
    """
    Write a time as a value of a setting.

    @param milliseconds: the time, above 0. It is cut to one day, the longest one that the settings allow.
    """
    milliseconds = min(milliseconds, 86400000)
    return f"{milliseconds // 1000}" if milliseconds % 1000 == 0 else f"{milliseconds}ms"
