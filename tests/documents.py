# Copyright txconnpool contributors. See LICENSE.
"""
The parts of the documents that are generated from tables of the source code. C{python -m tests.documents} writes them
again after a change to an option or a statistic; L{tests.test_documents} fails if they are not current.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from txconnpool.config.settings import OPTIONS
from txconnpool.operate.statistics.prometheus import metricName
from txconnpool.operate.statistics.table import POOL, PROCESS, SERVER, Scope
from txconnpool.wire.redis.commands import COMMANDS, RedisCommand, Use
from txconnpool.wire.redis.requestreader import ONE_SERVER
from txconnpool.wire.redis.several import DIVIDED, SPREADS

SOURCE = Path(__file__).resolve().parents[1]

README = SOURCE / "README.rst"
MANUAL = SOURCE / "conf" / "README.rst"
METRICS = SOURCE / "conf" / "metrics.rst"
LIBRARY = SOURCE / "txconnpool" / "library.rst"

_OPTIONS_HEADING = "\nEvery option\n============\n"

_REDIS_HEADING = "\nRedis commands\n==============\n"

#: The key specification of commands with exactly one key.
_ONE_KEY = re.compile("i[0-9]:r0,1,0").fullmatch

_METRICS_START = """\
===============
Every statistic
===============

.. Written by `python -m tests.documents`. Do not edit: change the table in txconnpool/operate/statistics/table.py.

These are the numbers of ``/metrics``, in Prometheus' text format. ``/stats.json`` has the same, and so has the command
``stats``, under memcached's names where memcached has the same number (in parentheses here).

Counters only grow, also across a reload; compute differences. They begin with 0 when the process starts. The counters
of a pool are the sums over its servers, and those of several workers are added up. A histogram ``NAME`` is the series
``NAME_bucket``, ``NAME_sum`` and ``NAME_count``, in seconds.

``connpool_build_info`` is always 1; its labels ``version``, ``python`` and ``twisted`` are the versions that run,
``implementation`` is ``native`` with the extension in C, or ``python`` without it, and ``reactor`` is the class of the
reactor, ``TurnReactor`` unless ``twistd`` was given another one.
"""


def chapter(document: Path, heading: str) -> str:
    """
    @return: the text between a heading of a document and the next heading of any level.
    """
    found = re.search(rf"(?m)^{re.escape(heading)}\n([=~-])\1+\n", document.read_text("utf-8"))
    assert found is not None, f"{document} has no heading {heading!r}"
    return re.split(r"\n[^\n]+\n(?:={3,}|-{3,}|~{3,})\n", document.read_text("utf-8")[found.end() :], maxsplit=1)[0]


def blocks(document: Path, heading: str) -> list[str]:
    """
    @return: the literal blocks and code blocks below a heading of a document.
    """
    text = chapter(document, heading) + "\n\n"
    found = re.findall(r"(?:::|code-block:: \w+)\n\n((?:(?:    [^\n]*)?\n)+)", text)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]


def _indented(text: str) -> list[str]:
    text = re.sub(r"(?<!`)`(?!`)", "``", text)
    return textwrap.wrap(text, 120, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def optionsText() -> str:
    """
    @return: the list of all options with their defaults, for the manual.
    """
    lines = []
    for each in OPTIONS:
        default = each.show(each.default)
        lines.append(f"``--{each.name} {each.kind.metavar}``{f' ({default})' if default else ''}")
        lines += _indented(each.doc)
    return "\n".join(lines) + "\n"


def _scopeText(title: str, scope: Scope) -> list[str]:
    lines = ["", title, "=" * len(title), ""]
    if scope.labels:
        lines += [f"Labels: {', '.join(f'``{label}``' for label in scope.labels)}.", ""]
    for each in scope.statistics:
        alias = f" (``{each.alias}``)" if each.alias else ""
        by = f", by ``{each.label}``" if each.label else ""
        lines += [f"``{metricName(scope, each)}``{alias}", *_indented(f"{each.kind}{by}: {each.meaning}")]
    return lines


def metricsText() -> str:
    """
    @return: the document about all statistics.
    """
    lines: list[str] = []
    for title, scope in (("The process", PROCESS), ("Each pool", POOL), ("Each server", SERVER)):
        lines += _scopeText(title, scope)
    return _METRICS_START + "\n".join(lines) + "\n"


def redisText() -> str:
    """
    @return: what the proxy does with each command of Redis, for the manual.
    """
    lines: list[str] = []
    for use in Use:
        names = [command.name for command in COMMANDS if command.use is use and not command.subcommands]
        mayBlock = [command.name for command in COMMANDS if command.use is Use.SHARED and command.mayBlock]
        note = f"; so are {' and '.join(mayBlock)} with ``BLOCK``" if use is Use.PINNED else ""
        lines += _commandsText(f"{use.value[0].upper()}{use.value[1:]}{note}:", names)
    lines += ["If several servers share the keys, some of these differ:", ""]
    for name, does in _SEVERAL.items():
        found = [command.name for command in COMMANDS if not command.subcommands and several(command) == name]
        lines += _commandsText(f"{does}:", found)
    return "\n".join(lines)


def _commandsText(title: str, names: list[str]) -> list[str]:
    return [title, "", *textwrap.wrap(" ".join(f"``{name}``" for name in names), 120, break_on_hyphens=False), ""]


#: What is done with commands if several servers share the keys.
_SEVERAL = {
    "divided": "Each server gets a request for its keys, and the client one reply",
    "spread": "Sent to every server, or to one after another (``scan``); the client gets one reply",
    "together": "``CROSSSLOT`` if the keys are on several servers",
    "refused": "Refused",
}


def several(command: RedisCommand) -> str:
    """
    @return: what is done with a command if several servers share the keys, of C{_SEVERAL}; an empty string: it goes to
        the server of its key, or to one.
    """
    if command.use not in (Use.SHARED, Use.PINNED, Use.SUBSCRIBING):
        return ""
    if command.name in ONE_SERVER:
        return "refused"
    if (command.name, False) in DIVIDED:
        return "divided"
    if command.name == "scan" or (command.name, False) in SPREADS:
        return "spread"
    return "" if command.keySpecs == "-" or _ONE_KEY(command.keySpecs) else "together"


def write() -> list[Path]:
    """
    Write the generated parts of the documents.

    @return: the documents that have changed.
    """
    before = {path: path.read_text("utf-8") for path in (METRICS, MANUAL)}
    METRICS.write_text(metricsText(), "utf-8")
    manual = MANUAL.read_text("utf-8")
    start, heading, rest = manual.partition(_REDIS_HEADING)
    introduction = chapter(MANUAL, "Redis commands").strip("\n").partition("\n\n")[0]
    manual = f"{start}{heading}\n{introduction}\n\n{redisText()}{_OPTIONS_HEADING}{rest.partition(_OPTIONS_HEADING)[2]}"
    MANUAL.write_text(manual, "utf-8")
    start, heading, _ = manual.partition(_OPTIONS_HEADING)
    introduction = chapter(MANUAL, "Every option").strip("\n").partition("\n\n")[0]
    MANUAL.write_text(f"{start}{heading}\n{introduction}\n\n{optionsText()}", "utf-8")
    return [path for path, text in before.items() if path.read_text("utf-8") != text]


if __name__ == "__main__":
    for path in (changed := write()):
        sys.stdout.write(f"written: {path.relative_to(SOURCE)}\n")
    if not changed:
        sys.stdout.write(f"{METRICS.relative_to(SOURCE)} and {MANUAL.relative_to(SOURCE)} are current\n")
