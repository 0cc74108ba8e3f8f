# -*- test-case-name: tests.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The optional extension: functions in C in place of the hot ones of this package.

Each of these functions has a I{twin} in Python, which is its definition: both have the same result for the same
arguments. They take bytes and integers, have no state, and keep no reference to an argument. Those of
L{txconnpool.net.sockets} make system calls. If the extension was not built, or C{TXCONNPOOL_PURE=1} is in the
environment, the twins are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, TypeVar

#: The number that the extension must have. It changes with the arguments or results of its functions, so that a package
#: never uses an extension that was built from other source.
INTERFACE: Final = 19

F = TypeVar("F", bound=Callable[..., Any])


def load(
    environment: Mapping[str, str] = os.environ, importModule: Callable[[str], Any] = import_module
) -> tuple[Any, str]:
    """
    @param environment: the variables of the environment.
    @param importModule: imports a module by its name.

    @return: the extension, or C{None} and why it is not used.
    """
    if environment.get("TXCONNPOOL_PURE") == "1":
        return None, "TXCONNPOOL_PURE=1"
    try:
        module = importModule("txconnpool._native")
    except ModuleNotFoundError:
        return None, "the extension was not built"
    except ImportError as error:
        return None, f"the extension cannot be loaded: {error}"
    if module.INTERFACE != INTERFACE:
        return None, "the extension was built from other source"
    return module, ""


extension, reason = load()

#: What runs: C{native} with the extension, C{python} without it.
IMPLEMENTATION: Final = "python" if extension is None else "native"

#: The same for the log, with the reason.
DESCRIPTION: Final = f"pure Python ({reason})" if extension is None else "native"


def choose(twin: F, name: str = "") -> F:
    """
    @param name: the name of the function in the extension, if it is not that of C{twin}.

    @return: the function of the extension, or C{twin} if the extension is not used.
    """
    chosen: F = twin if extension is None else getattr(extension, name or twin.__name__)
    return chosen
