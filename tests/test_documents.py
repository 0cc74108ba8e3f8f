# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the documents are current: what they list is what the source code has, and the files they name exist.
"""

from __future__ import annotations

import gc
import inspect
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import docutils.core
import yaml
from twisted.internet.defer import Deferred, fail
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.documents import (
    LIBRARY,
    MANUAL,
    METRICS,
    README,
    SOURCE,
    blocks,
    chapter,
    metricsText,
    optionsText,
    redisText,
    several,
)
from txconnpool import errors, memcache
from txconnpool.config.ini import load
from txconnpool.config.settings import OPTIONS
from txconnpool.errors import PoolError
from txconnpool.interfaces import IPoolObserver
from txconnpool.memcache import MemCachePool
from txconnpool.operate.console.commands import USAGE
from txconnpool.operate.statistics.prometheus import metricName
from txconnpool.operate.statistics.table import POOL, PROCESS, SERVER
from txconnpool.pool import Pool
from txconnpool.pool.base import BasePool, PoolOptions
from txconnpool.redis import RedisPool
from txconnpool.wire.redis.commands import COMMANDS

CONTRIBUTING = SOURCE / "CONTRIBUTING.rst"

#: The documents, by who reads them.
DOCUMENTS = (
    README,
    MANUAL,
    METRICS,
    LIBRARY,
    SOURCE / "txconnpool" / "README.rst",
    SOURCE / "CHANGES.rst",
    CONTRIBUTING,
)


def find(path: str) -> Path | None:
    """
    @return: the file or folder of a path that is relative to the checkout or to C{txconnpool}, or C{None}.
    """
    return next((each for each in (SOURCE / path, SOURCE / "txconnpool" / path) if each.exists()), None)


class DocumentTests(SynchronousTestCase):
    """
    Tests for C{txconnpool/README.rst}, C{CONTRIBUTING.rst} and the last chapter of C{README.rst}.
    """

    def setUp(self) -> None:
        """
        Read the documents.
        """
        self.map = (SOURCE / "txconnpool" / "README.rst").read_text("utf-8")
        self.texts = (chapter(README, "Where to look next"), self.map, CONTRIBUTING.read_text("utf-8"))

    def test_paths(self) -> None:
        """
        Every path exists.
        """
        for text in self.texts:
            paths = re.findall(r"``([\w.]+/[\w./]*|\w+\.(?:py|rst|md))``", text)
            self.assertGreater(len(paths), 5)
            self.assertEqual([path for path in paths if find(path) is None], [])

    def test_names(self) -> None:
        """
        Every class, method and function that stands before a path in parentheses is defined in that file.
        """
        pairs = re.findall(r"``([\w.]+)``\s+\(``([\w/]+\.py)``\)", self.map)
        self.assertGreater(len(pairs), 10)
        for name, path in pairs:
            file = find(path)
            assert file is not None, path
            for part in name.split("."):
                self.assertRegex(
                    file.read_text("utf-8"), rf"(?m)^ *(?:async def|def|class) {part}\b", f"{name} in {path}"
                )

    def test_short(self) -> None:
        """
        The map of the source code is short enough to be read at once.
        """
        self.assertLessEqual(len(self.map.splitlines()), 150)


class UserDocumentTests(SynchronousTestCase):
    """
    Tests for the documents that users read: C{README.rst}, the operator's manual, the list of statistics and the guide
    to the pool.
    """

    def test_short(self) -> None:
        """
        The README is short enough to be read at once.
        """
        self.assertLessEqual(len(README.read_text("utf-8").splitlines()), 300)

    def test_valid(self) -> None:
        """
        All documents are valid reStructuredText: every reference has a target, every table fits its columns.
        """
        for document in DOCUMENTS:
            # Without highlighting, which needs one more package.
            settings = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
            docutils.core.publish_doctree(document.read_text("utf-8"), str(document), settings_overrides=settings)

    def test_links(self) -> None:
        """
        Every file that a document links to exists.
        """
        for document in DOCUMENTS:
            for target in re.findall(r"<([\w./]+\.(?:rst|md|ini|json))>`_", document.read_text("utf-8")):
                self.assertTrue((document.parent / target).exists(), f"{document}: {target}")

    def test_options(self) -> None:
        """
        The manual lists every option with its default and description.
        """
        self.assertTrue(optionsText() in chapter(MANUAL, "Every option") + "\n", "run python -m tests.documents")

    def test_redis(self) -> None:
        """
        The manual says of each command of Redis what the proxy does with it.
        """
        self.assertTrue(redisText().strip() in chapter(MANUAL, "Redis commands"), "run python -m tests.documents")

    def test_severalRedis(self) -> None:
        """
        The table of requests for several servers of Redis names every command that is divided, sent to all, or refused.
        """
        words = set(re.findall(r"[A-Z]+", chapter(MANUAL, "Several servers of Redis")))
        for command in COMMANDS:
            if several(command) in ("divided", "spread", "refused"):
                self.assertLessEqual(set(command.name.upper().split("|")), words, command.name)

    def test_metrics(self) -> None:
        """
        The list of statistics is that of the table of statistics.
        """
        self.assertEqual(METRICS.read_text("utf-8"), metricsText(), "run python -m tests.documents")

    def test_inis(self) -> None:
        """
        The examples of ini files that have sections are valid, alone or with their clients' address.
        """
        count = 0
        for heading in re.findall(r"(?m)^(.+)\n=+$", MANUAL.read_text("utf-8")):
            for block in blocks(MANUAL, heading) if heading != "The operator's manual" else []:
                if re.match(r"\[(connpool|pool:\w+)\]\n", block):
                    path = Path(self.mktemp())
                    path.write_text(block, "utf-8")
                    load(str(path), {})
                    count += 1
        self.assertEqual(count, 6)

    def test_commands(self) -> None:
        """
        The manual describes the commands of the console with all their arguments, and no others.
        """
        described = set(re.findall(r"(?m)^``([a-z][^`]*)``  ", chapter(MANUAL, "The console")))
        expected = {usage for usage, _ in USAGE.values()}
        tables = USAGE["show"][0]
        expected = expected - {tables} | {f"show {each}" for each in tables.removeprefix("show ").split("|")}
        self.assertEqual(described, expected)


def series() -> dict[str, set[str]]:
    """
    @return: the labels of each time series of C{/metrics}, by name. Prometheus adds two of them to all.
    """
    found = {"connpool_build_info": {"version", "python", "twisted", "implementation"}, "up": set()}
    for scope in (PROCESS, POOL, SERVER):
        for each in scope.statistics:
            name, labels = metricName(scope, each), {*scope.labels, *([each.label] if each.label else [])}
            if each.kind == "histogram":
                found |= {f"{name}_bucket": {*labels, "le"}, f"{name}_sum": labels, f"{name}_count": labels}
            else:
                found[name] = labels
    return {name: labels | {"instance", "job"} for name, labels in found.items()}


class MonitoringTests(SynchronousTestCase):
    """
    Tests for the rules and the dashboard in C{conf/}.
    """

    def check(self, expression: str) -> None:
        """
        Assert that all names and labels of a PromQL expression are those of C{/metrics}.
        """
        known = series()
        names = re.findall(r"\bconnpool_\w+|\bup(?={)", expression)
        self.assertTrue(names, expression)
        self.assertEqual([name for name in names if name not in known], [], expression)
        labels = set().union(*(known[name] for name in names))
        used = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression))
        for words in re.findall(r"\bby \(([^)]*)\)", expression):
            used |= set(words.split(", "))
        self.assertEqual(used - labels, set(), expression)
        if "histogram_quantile" in expression:
            self.assertRegex(expression, r"by \([^)]*\ble\b[^)]*\) \(rate\(\w+_bucket[{[]")
        for name in re.findall(r"\b(?:rate|increase)\((\w+)", expression):
            self.assertRegex(name, "_(?:total|bucket|sum|count)$", expression)

    def test_alerts(self) -> None:
        """
        The rules use series that exist, each has a summary and an action, and the manual lists them.
        """
        (group,) = yaml.safe_load((SOURCE / "conf" / "alerts.yml").read_text("utf-8"))["groups"]
        for rule in group["rules"]:
            self.check(rule["expr"])
            self.assertEqual(set(rule["annotations"]), {"summary", "action"}, rule)
            used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
            grouped = re.search(r"\bby \(([^)]*)\)", rule["expr"])
            if grouped is not None:
                self.assertEqual(used - set(grouped[1].split(", ")), set(), rule)
        listed = re.findall(r"(?m)^``(Connpool\w+)``", chapter(MANUAL, "Statistics and alerts"))
        self.assertEqual(listed, [rule["alert"] for rule in group["rules"]])

    def test_dashboard(self) -> None:
        """
        The panels of the dashboard use series that exist, and do not overlap.
        """
        dashboard = json.loads((SOURCE / "conf" / "grafana.json").read_text("utf-8"))
        cells: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                self.check(target["expr"])
                shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                (kept,) = set(re.findall(r"\bby \(([^)]*)\)", target["expr"])[:1]) or {"instance"}
                self.assertEqual(shown - set(kept.split(", ")), set(), target)
            place = panel["gridPos"]
            mine = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertEqual(cells & mine, set(), panel["title"])
            cells |= mine
        for query in self.variables(dashboard):
            self.check(query)

    def variables(self, dashboard: dict[str, Any]) -> Iterator[str]:
        """
        @return: the queries of a dashboard's variables.
        """
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
                assert query is not None, variable
                yield f"count by ({query[2]}) ({query[1]})"


def defaults(pool: Any) -> dict[str, str]:
    """
    @return: the defaults of all options of a class of pools, as the guide shows them.
    """
    signature = inspect.signature(BasePool.__init__).parameters
    found = {name: signature[name] for name in PoolOptions.__annotations__} | dict(
        inspect.signature(pool.__init__).parameters
    )
    values = {name: each.default for name, each in found.items() if each.default is not inspect.Parameter.empty}
    return {
        name: value.__name__ if callable(value) else f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
    }


class LibraryTests(SynchronousTestCase):
    """
    Tests for the guide to the pool.
    """

    def rows(self) -> list[list[str]]:
        """
        @return: option, defaults of L{Pool}, L{MemCachePool} and L{RedisPool}, name and default of the proxy's setting.
        """
        lines = chapter(LIBRARY, "All options").splitlines()
        starts = [found.start() for found in re.finditer("=+", next(line for line in lines if line.startswith("===")))]
        cuts = [slice(*ends) for ends in pairwise(starts)]
        return [[line[cut].strip() for cut in cuts] for line in lines if re.match(r"``\w+`` ", line)]

    def test_defaults(self) -> None:
        """
        The table has all options of the pools with their defaults, and those of the proxy's settings.
        """
        rows = self.rows()
        for column, pool in ((1, Pool), (2, MemCachePool), (3, RedisPool)):
            shown = {row[0].strip("`"): row[column] for row in rows if row[column] != "-"}
            real = defaults(pool)
            wrong = {
                name: f"the table has {shown.get(name)}, the code {real.get(name)}"
                for name in (shown | real)
                if shown.get(name) != real.get(name)
            }
            self.assertEqual(wrong, {}, f"change the column {pool.__name__} of the table of options in library.rst")
        settings = {each.name: each.show(each.default) for each in OPTIONS}
        for row in rows:
            name, _, default = row[4].partition(" ")
            if name:
                self.assertEqual(default, settings[name.strip("`")], name)

    def test_txredisapi(self) -> None:
        """
        The methods and options in the table for those who come from txredisapi are those of L{RedisPool}.
        """
        table = chapter(LIBRARY, "Coming from txredisapi").partition("\ntxredisapi ")[2]
        cells = re.findall(r"(?m)^(?:``| ).{39,40} (.*)$", table)
        names = set(re.findall(r"``(?:async (?:with|for) (?:key in )?)?([a-z]\w+)\(", " ".join(cells)))
        self.assertGreater(len(names), 15)
        self.assertEqual({name for name in names if not hasattr(RedisPool, name)}, {"int", "multi"})

    def test_errors(self) -> None:
        """
        The table has all exceptions of the pool.
        """
        listed = set(re.findall(r"(?m)^``(\w+)``  ", chapter(LIBRARY, "When servers fail")))
        values = [getattr(memcache, name) for name in memcache.__all__]
        ofMemcached = {each.__name__ for each in values if isinstance(each, type) and issubclass(each, PoolError)}
        self.assertEqual(listed, (set(errors.__all__) | ofMemcached) - {"PoolError"})

    def test_webFailure(self) -> None:
        """
        The web server of the guide logs an unexpected error once.
        """
        names: dict[str, Any] = {"__name__": "web"}
        exec(blocks(LIBRARY, "In a web server")[0], names)

        class Broken:
            def add(self, *arguments: object) -> Deferred[bool]:
                return fail(ZeroDivisionError())

        class Failing:
            def notifyFinish(self) -> Deferred[None]:
                return Deferred()

            def processingFailed(self, reason: Failure) -> Failure:
                log.err(reason)
                return reason  # as that of Twisted's Request does

        names["Page"](Broken()).render_GET(Failing())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        gc.collect()  # a failure that a Deferred still has is logged when that is collected
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_observer(self) -> None:
        """
        The guide lists all events of an observer.
        """
        text = chapter(LIBRARY, "Preparing, checking and cleaning connections")
        listed = re.findall(r"``(\w+)``", text.partition("what is of interest: ")[2].partition(". What")[0])
        self.assertEqual(set(listed), set(IPoolObserver))
