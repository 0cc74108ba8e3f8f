# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the status page in a browser, with data of situations that real servers get into rarely. Pictures of all
situations are saved in the directory of the test run.
"""

from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.browser import Browser, missingBrowser
from tests.real.statuspages import (
    SITUATIONS,
    Data,
    PageServer,
    address,
    busy,
    busyPast,
    cluster,
    down,
    fresh,
    hundred,
    oneDown,
    pool,
    server,
    snapshot,
    stall,
)


class StatusPageTestCase(SynchronousTestCase):
    """
    Base class of tests of the page with given data.
    """

    skip = missingBrowser()

    def open(self, data: Data | None, width: int = 1280, dark: bool = False) -> Browser:
        """
        @return: a browser that shows the page.
        """
        self.served = PageServer(data).start()
        self.addCleanup(self.served.stop)
        browser = Browser(width, 800, dark).start()
        self.addCleanup(browser.stop)
        self.load(browser, data)
        return browser

    def load(self, browser: Browser, data: Data | None) -> None:
        """
        Load the page anew with other data.
        """
        self.served.data = data
        browser.open(self.served.url)
        browser.until("document.readyState == 'complete' && document.getElementById('title').textContent != ''")

    def show(self, browser: Browser, data: Data | None) -> None:
        """
        Serve other data, and let the page fetch it.
        """
        self.served.data = data
        browser.value("refresh()")

    def text(self, browser: Browser, selector: str) -> str:
        """
        @return: the text of the first element of a CSS selector, as it is shown.
        """
        shown: str = browser.value(f"document.querySelector({json.dumps(selector)}).innerText")
        return shown

    def texts(self, browser: Browser, selector: str) -> list[str]:
        """
        @return: the texts of all shown elements of a CSS selector.
        """
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        shown: list[str] = browser.value(
            f"{found}.filter((each) => each.checkVisibility()).map((each) => each.innerText)"
        )
        return shown

    def level(self, browser: Browser) -> str:
        """
        @return: C{"good"}, C{"warn"} or C{"bad"}.
        """
        name: str = browser.value("document.getElementById('verdict').className")
        return name.removeprefix("verdict ")


class SituationTests(StatusPageTestCase):
    """
    Tests for all situations, as the page shows them on a desktop and on a phone, light and dark.
    """

    expected = {
        "fresh": ("good", "All is well", "1 pool, 2 servers up, no requests at the moment"),
        "busy": ("good", "All is well", "3 pools, 7 servers up, [0-9,]+ requests/s, p99 at most [0-9]+ µs"),
        "burst": ("good", "All is well", "1 pool, 1 server up, no requests at the moment"),
        "stall": (
            "bad", "pages gets no replies",
            r"Since [^(]+ \(12 s\): 38 requests in flight to tcp:10.0.0.11:11211, 110 waiting",
        ),
        "oneDown": (
            "warn", "pages: 1 of 3 servers down", r"Since [^(]+ \(2 min 12 s\): tcp:10.0.0.12:11211: connection refused"
        ),
        "halfDown": (
            "bad", "pages: 1 of 2 servers down", r"Since [^(]+ \(2 min 12 s\): tcp:10.0.0.12:11211: connection refused"
        ),
        "poolDown": (
            "bad", "pages is down",
            r"Since [^(]+ \(2 min 12 s\): tcp:10.0.0.12:11211 \(2 min\), tcp:10.0.0.11:11211 \(2 min\): "
            "connection refused",
        ),
        "hundred": (
            "warn", "shards: 3 of 100 servers down",
            r"Since [^(]+ \(28 min 40 s\): tcp:cache017[^ ]+ \(11 min\): connection refused, "
            r"tcp:cache042[^ ]+ \(28 min\): connection timed out and 1 more",
        ),
        "cluster": ("bad", "redis: 100 slots have no node", "As the cluster has reported 12 s ago"),
    }  # fmt: skip

    def judge(self, width: int, dark: bool) -> None:
        browser = self.open(SITUATIONS["fresh"](time.time()), width, dark)
        for name, (level, title, fact) in self.expected.items():
            self.load(browser, SITUATIONS[name](time.time()))
            self.assertEqual((self.level(browser), self.text(browser, "#title")), (level, title), name)
            self.assertRegex(self.text(browser, "#fact"), f"^{fact}$")
            self.assertNotEqual(self.text(browser, "#advice"), "", name)
            shown = browser.value("document.title")
            self.assertEqual(shown, "txconnpool" if level == "good" else f"(!) {title} \N{EN DASH} txconnpool")
            self.assertEqual(browser.value("document.documentElement.scrollWidth"), width, name)
            browser.screenshot(Path(f"status-{name}-{width}-{'dark' if dark else 'light'}.png"))
        self.assertEqual(browser.errors, [])

    def test_desktop(self) -> None:
        """
        The verdict names what is wrong, since when, and what to do.
        """
        self.judge(1280, False)

    def test_desktopDark(self) -> None:
        """
        The same with dark colors.
        """
        self.judge(1280, True)

    def test_phone(self) -> None:
        """
        A phone needs no horizontal scrolling.
        """
        self.judge(375, False)

    def test_phoneDark(self) -> None:
        """
        The same with dark colors.
        """
        self.judge(375, True)

    def test_complete(self) -> None:
        """
        Every situation is expected to show something.
        """
        self.assertEqual(list(self.expected), list(SITUATIONS))


class VerdictTests(StatusPageTestCase):
    """
    Tests for the verdict, by the functions of the page.
    """

    def verdicts(self, browser: Browser, *pools: Data, **process: Any) -> list[Any]:
        """
        @return: the level, the title and the advice of the verdict, and the other titles.
        """
        data = {**snapshot(time.time(), list(pools)), **process}
        found = browser.value(f"verdict({json.dumps(data)})")
        return [found["level"], found["title"], found["advice"], found["others"]]

    def one(self, name: str = "a", **numbers: Any) -> Data:
        servers = [server("s1", 10.0), server("s2", 10.0)]
        return {**pool(name, servers, busyPast(time.time(), 20.0)), **numbers}

    def test_causes(self) -> None:
        """
        Each trouble has a level, a title, and advice.
        """
        browser = self.open(fresh(time.time()))
        full = self.one(sessions=10, sessions_max=10)
        self.assertEqual(self.verdicts(browser, full)[:2], [2, "a refuses new clients"])
        nearly = self.one(sessions=9, sessions_max=10)
        self.assertEqual(self.verdicts(browser, nearly)[:2], [1, "a is nearly full of clients"])
        paused = self.one(state="paused", waiting=3, longest_wait_seconds=9.0)
        self.assertEqual(self.verdicts(browser, paused), [1, "a is paused", "Console: resume a", []])
        self.assertEqual(self.verdicts(browser, self.one(state="draining"))[:2], [1, "a is draining"])
        waiting = self.one(waiting=3, longest_wait_seconds=0.6, connections_max=4)
        self.assertEqual(self.verdicts(browser, waiting)[:2], [1, "a: 3 clients wait"])
        self.assertIn("pool-size", self.verdicts(browser, waiting)[2])
        drained = self.one(servers=[server("s1"), server("s2", state="drained")])
        self.assertEqual(
            self.verdicts(browser, drained),
            [1, "a: 1 of 2 drained", "Console, when it may serve again: restore s2", []],
        )
        ejected = self.one(servers=[server("s1", ejected=1), server("s2", state="drained"), server("s3")])
        self.assertEqual(self.verdicts(browser, ejected)[:2], [1, "a: 1 of 3 drained, 1 of 3 ejected"])
        moved = self.one(servers=[server("s1"), server("s2"), {**down("s3"), "ejected": 1}])
        self.assertEqual(self.verdicts(browser, moved)[:2], [1, "a: 1 of 3 servers down, others have the keys"])
        self.assertEqual(self.verdicts(browser)[:2], [1, "No pool runs"])
        late = self.verdicts(browser, self.one(), loop_lag_seconds=0.7)
        self.assertEqual(late[:2], [1, "The proxy is overloaded"])
        memory = self.verdicts(browser, self.one(), held_bytes=95, held_max_bytes=100)
        self.assertEqual(memory[:2], [1, "Memory for clients is nearly used up"])
        silent = self.verdicts(browser, self.one(), workers={"ready": 3, "silent": 1, "starting": 0, "stopping": 0})
        self.assertEqual(silent[:2], [1, "1 worker does not answer"])
        self.assertEqual(self.verdicts(browser, self.one())[:2], [0, "All is well"])

    def test_errors(self) -> None:
        """
        A few errors among many requests are no trouble, one in a hundred is, one in five is serious. A pool that is
        down has errors anyway.
        """
        browser = self.open(fresh(time.time()))
        for errors, expected in ((0.1, 0), (0.5, 1), (8.0, 2)):
            history = busyPast(time.time(), 20.0, errors=lambda ago, n=errors: n)  # type: ignore[misc]
            self.assertEqual(self.verdicts(browser, self.one(history=history, request_errors={"lost": 1}))[0], expected)
        self.assertEqual(self.verdicts(browser, self.one(history=history, state="down"))[3], [])

    def test_since(self) -> None:
        """
        Errors are dated from their first one, even if some samples between have none; what began before the history is
        said to be older.
        """
        browser = self.open(fresh(time.time()))
        for first, pause, expected in (
            (45, 0, "(1 min 32 s)"),
            (45, 20, "(1 min 32 s)"),
            (45, 31, "(18 s)"),
            (149, 0, "or earlier"),
        ):

            def errors(ago: int, first: int = first, pause: int = pause) -> float:
                return 0.0 if ago > first or 8 < ago <= 8 + pause else 6.0

            one = self.one(history=busyPast(time.time(), 20.0, errors=errors), request_errors={"lost": 1})
            data = snapshot(time.time(), [one])
            self.show(browser, data)
            self.assertEqual(self.text(browser, "#title").split(": ")[0], "a")
            self.assertIn(f" {expected}: ", self.text(browser, "#fact"))

    def test_worst(self) -> None:
        """
        The worst trouble is the verdict, and the others are named.
        """
        browser = self.open(fresh(time.time()))
        bad = pool("b", [down("s1")], busyPast(time.time(), 20.0))
        level, title, _, others = self.verdicts(browser, self.one(state="paused"), bad)
        self.assertEqual((level, title, others), (2, "b is down", ["a is paused"]))

    def test_remedies(self) -> None:
        """
        The advice for a server that is down follows from the reason.
        """
        browser = self.open(fresh(time.time()))
        for reason, advice in (
            ("connection refused", "Nothing listens there"),
            (
                "connect timed out: connected, but no answer to the handshake within 1 s",
                "It accepts connections but does not answer",
            ),
            ("too many connections", "The server is at its limit"),
            ("no route to host", "The host does not answer"),
            ("connecting timed out", "The host does not answer"),
            ("no such host", "The name is not found"),
            ("login failed", "The server refuses the login"),
            ("connection closed by the server", "The server ends connections at once"),
            ("certificate verify failed", "TLS fails"),
            ("something else", "Try to reach the server"),
        ):
            one = pool("a", [down("s1", reason=reason)], busyPast(time.time(), 20.0))
            self.assertTrue(self.verdicts(browser, one)[2].startswith(advice), reason)

    def test_noAnswer(self) -> None:
        """
        While the proxy does not answer, that is the verdict, until it answers again.
        """
        browser = self.open(busy(time.time()))
        self.show(browser, None)
        self.assertEqual((self.level(browser), self.text(browser, "#title")), ("bad", "The proxy does not answer"))
        self.assertTrue(browser.value("document.body.classList.contains('stale')"))
        self.show(browser, busy(time.time()))
        self.assertEqual(self.level(browser), "good")
        self.assertFalse(browser.value("document.body.classList.contains('stale')"))


class PoolTests(StatusPageTestCase):
    """
    Tests for the rows of pools and servers.
    """

    def test_rows(self) -> None:
        """
        Each pool is a row, the worst one first. Its details open on demand, and are open if there is one pool.
        """
        browser = self.open(oneDown(time.time()))
        self.assertEqual(self.texts(browser, ".toggle"), ["pages", "sessions", "fragments"])
        self.assertEqual(self.texts(browser, ".summary .state"), ["1 of 3 down", "all 4 up", "up"])
        self.assertEqual(self.texts(browser, "figure"), [])
        browser.value("document.querySelectorAll('.summary')[1].click()")
        self.assertEqual(len(self.texts(browser, "figure")), 3)
        self.load(browser, fresh(time.time()))
        self.assertEqual(len(self.texts(browser, "figure")), 3)

    def test_still(self) -> None:
        """
        While the mouse is over the pools, they stay where they are. Whatever the verdict says, it has the same height.
        """
        browser = self.open(busy(time.time()))
        order = ["pages", "sessions", "fragments"]
        self.assertEqual(self.texts(browser, ".toggle"), order)
        x, y, top = self.place(browser, "tbody:nth-of-type(3) .summary")
        browser.point(x + 50, y + 10)
        data = busy(time.time() + 2)
        data["pools"][2] = pool("fragments", [down("s1")], busyPast(time.time(), 20.0))
        self.show(browser, data)
        self.assertEqual(self.level(browser), "bad")
        self.assertEqual(self.texts(browser, ".toggle"), order)
        self.assertEqual(self.place(browser, "tbody:nth-of-type(3) .summary"), (x, y, top))
        browser.value("idle = () => true")
        self.show(browser, data)
        self.assertEqual(self.texts(browser, ".toggle"), ["fragments", "pages", "sessions"])

    def test_detailsStill(self) -> None:
        """
        While the mouse is over the details of a pool, they do not move, whatever goes wrong.
        """
        browser = self.open(fresh(time.time()))
        figure, first = "figure:nth-child(2)", self.place(browser, "figure:nth-child(2)")
        browser.point(first[0] + 100, first[1] + 60)
        history = busyPast(time.time(), 20.0, errors=lambda ago: 9.0)
        errors = pool("pages", [server("s1", 50.0), down("s2", reason="no such host")], history, waiting=9)
        errors["request_errors"]["lost"] = 1
        self.show(browser, snapshot(time.time() + 2, [errors]))
        self.assertEqual(self.level(browser), "bad")
        self.assertEqual(self.place(browser, figure), first)
        self.assertEqual(self.texts(browser, ".troubles li"), [])
        self.assertIn("s2\tdown", self.texts(browser, ".servers tbody tr")[0].replace("\n", ""))
        browser.value("idle = () => true")
        self.show(browser, snapshot(time.time() + 2, [errors]))
        self.assertEqual(len(self.texts(browser, ".troubles li")), 1)

    def place(self, browser: Browser, selector: str) -> tuple[float, float, float]:
        """
        @return: the position and the height of an element.
        """
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y, height = browser.value(f"(({{x, y, height}}) => [x, y, height])({box})")
        return x, y, height

    def test_hundred(self) -> None:
        """
        Of many servers those with trouble are first. All are shown on demand, sorted by any column.
        """
        browser = self.open(hundred(time.time()))
        rows = ".servers tbody tr"
        first = [line.split("\t")[:2] for line in self.texts(browser, rows)]
        self.assertEqual(len(first), 12)
        names = [int(name[9:12]) for name, *_ in first]
        self.assertEqual(names[:6], [17, 42, 43, 71, 60, 0])
        self.assertEqual(self.texts(browser, ".servers .what .state")[:6], [
            "down 11 min: connection refused", "down 28 min: connection timed out", "down 28 min: connection refused",
            "drained", "up, failures", "up",
        ])  # fmt: skip
        browser.value("document.querySelectorAll('.sort')[2].click()")
        self.assertIn("tcp:cache088", self.texts(browser, rows)[0])
        self.assertEqual(browser.value("document.querySelectorAll('.servers th')[3].ariaSort"), "descending")
        browser.value("document.querySelector('.more[data-is=more]').click()")
        self.assertEqual(len(self.texts(browser, rows)), 100)
        browser.value("document.querySelectorAll('.sort')[0].click()")
        self.assertIn("tcp:cache000", self.texts(browser, rows)[0])

    def test_heat(self) -> None:
        """
        A server that was down for a part of the last five minutes has red cells for that part.
        """
        browser = self.open(oneDown(time.time()))
        labels = browser.value("[...document.querySelectorAll('.servers .cells')].map((each) => each.ariaLabel)")
        self.assertEqual(labels[:3], ["down in 14 of 30 intervals", "up all the time", "up all the time"])

    def fits(self, browser: Browser, selector: str) -> bool:
        """
        @return: whether all of the text of an element is shown.
        """
        node = f"document.querySelector({json.dumps(selector)})"
        sizes = f"{node}.scrollWidth <= {node}.clientWidth && {node}.scrollHeight <= {node}.clientHeight + 1"
        shown: bool = browser.value(sizes)
        return shown

    def test_nothingCut(self) -> None:
        """
        The reason of a server that is down is shown in full on a desktop, and all of the header on a phone.
        """
        reason = "connection refused by the firewall of the host"
        servers = [down("tcp:10.0.0.12:11211", reason=reason), server("tcp:10.0.0.13:11211", 10.0)]
        data = snapshot(time.time(), [pool("pages", servers, busyPast(time.time(), 20.0))])
        browser = self.open(data)
        self.assertIn(reason, self.texts(browser, ".servers .what .text")[0])
        self.assertTrue(self.fits(browser, ".servers .what .text.bad"))
        browser = self.open(data, 375)
        self.assertEqual([self.fits(browser, each) for each in ("#process", "#load")], [True, True])

    def test_noOldLatency(self) -> None:
        """
        A server without requests has no latency, whatever it had before. The details explain the failures.
        """
        past = server("s", 200.0)
        servers = [{**down("tcp:s:1"), "latency_seconds": past["latency_seconds"]}, server("tcp:s:2", 10.0)]
        browser = self.open(snapshot(time.time(), [pool("pages", servers, busyPast(time.time(), 20.0))]))
        rows = self.texts(browser, ".servers tbody td[data-name=p99]")
        none = "\N{EN DASH}"
        self.assertEqual([row == none for row in rows], [True, False])
        self.assertIn("failed dials and lost connections since the start", self.text(browser, ".legend"))

    def test_cluster(self) -> None:
        """
        Slots that no node has are a trouble. Nodes have their slots or are replicas. Other pools have no such numbers.
        """
        data = cluster(time.time())
        browser = self.open(data)
        self.assertEqual(self.text(browser, "#title"), "redis: 100 slots have no node")
        self.assertEqual(self.texts(browser, ".summary .state")[0], "100 slots not covered")
        for each in range(2):
            browser.value(f"document.querySelectorAll('.summary')[{each}].click()")
        self.assertEqual(
            self.texts(browser, ".servers .what")[1:5],
            [
                "up, 9,000 slots: 0-8999",
                "up, replica",
                "up, 7,284 slots: 9000-12000, 12101-16383, 1 replica",
                "up, replica",
            ],
        )
        self.assertEqual(self.texts(browser, ".replica .name"), [address(13), address(14)])
        numbers = [" ".join(each.split()) for each in self.texts(browser, ".numbers div")]
        self.assertIn("Slots 16,284 reported 12 s ago, 31 times", numbers)
        self.assertIn("Redirects 9 7 moved, 2 ask, 0 later", numbers)
        self.assertEqual(sum(each.startswith(("Slots", "Redirects")) for each in numbers), 2)
        data["pools"][0]["slots_covered"] = 16384
        self.load(browser, data)
        self.assertEqual(self.texts(browser, ".summary .state")[0], "all 4 up")

    def test_removed(self) -> None:
        """
        Pools and servers that are removed disappear, and new ones appear.
        """
        browser = self.open(busy(time.time()))
        data = busy(time.time() + 2)
        data["pools"][0]["servers"][0]["name"] = "tcp:10.0.0.99:11211"
        data["pools"][1]["name"] = "other"
        self.show(browser, data)
        self.assertEqual(self.texts(browser, ".toggle"), ["pages", "other", "fragments"])
        browser.value("document.querySelector('.toggle').click()")
        names = self.texts(browser, ".servers th.name[scope=row]")
        self.assertEqual(names, ["tcp:10.0.0.99:11211", "tcp:10.0.0.12:11211"])

    def test_strangeNames(self) -> None:
        """
        Names are text, whatever is in them, and no pool or server may be called like something of the page.
        """
        strange = "<img src=x onerror=document.title='broken'>"
        data = oneDown(time.time())
        first, second, third = data["pools"]
        first["name"] = "__proto__"
        second["name"] = strange
        third["servers"][0]["name"] = "constructor"
        third["servers"][2]["name"] = "__proto__"
        third["servers"][1]["name"] = third["servers"][1]["reason"] = strange
        third["requests"][strange] = third["request_errors"][strange] = 10**9
        data["events"].append({"time": 1, "level": strange, "text": strange})
        browser = self.open(data)
        browser.value("document.querySelectorAll('.toggle').forEach((each) => each.click())")
        self.assertGreater(browser.value("document.body.innerText").count(strange), 5)
        self.assertEqual(browser.value("document.querySelectorAll('img').length"), 0)
        self.assertIn("__proto__", self.texts(browser, ".toggle"))
        for _ in range(2):
            self.show(browser, {**data, "time": data["time"] + 2})
            names = self.texts(browser, ".servers th[scope=row]")
            self.assertEqual([names.count(name) for name in ("constructor", "__proto__", strange)], [1, 1, 1])
        self.assertEqual(browser.errors, [])


class PlotTests(StatusPageTestCase):
    """
    Tests for the plots.
    """

    def areas(self, browser: Browser, selector: str) -> list[list[float]]:
        """
        @return: the width and height of each shown part of a plot, in units of the plot.
        """
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        areas: list[list[float]] = browser.value(
            f"{found}.map((each) => each.getBBox()).map((box) => [box.width, box.height])"
        )
        return areas

    def test_burst(self) -> None:
        """
        A single sample of requests, errors, latency or waiters is drawn, in the row of the pool too.
        """
        browser = self.open(SITUATIONS["burst"](time.time()))
        for selector in (".plot path.bar", ".spark path.bar", ".spark path.area"):
            for width, height in self.areas(browser, selector):
                self.assertGreaterEqual(width, 1, selector)
                self.assertGreaterEqual(height, 3, selector)
        for selector in (".plot path.second", "figure:nth-child(2) path.main"):
            ((width, _),) = self.areas(browser, selector)
            self.assertGreater(width, 5)

    def test_stall(self) -> None:
        """
        Those who wait now are drawn and shown as a number.
        """
        browser = self.open(stall(time.time()))
        browser.value("document.querySelector('.toggle').click()")
        self.assertEqual(self.texts(browser, ".keys")[2].split(), ["in", "flight", "38", "waiting", "110"])
        self.assertEqual(self.texts(browser, ".summary td[data-is=waiting]")[0], "110")
        self.assertEqual(self.texts(browser, ".servers .state")[0], "up, no replies")

    def test_scales(self) -> None:
        """
        The scales have units, and numbers of things are whole.
        """
        browser = self.open(SITUATIONS["burst"](time.time()))
        self.assertEqual(
            [each.split("\n") for each in self.texts(browser, ".scale")],
            [["600/s", "300/s", "0"], ["10 ms", "1 ms", "100 µs"], ["20", "10", "0"]],
        )
        shown = browser.value("[0, 0.034, 0.96, 1.2, 38, 12345, null].map(whole)")
        self.assertEqual(shown, ["0", "<1", "<1", "1", "38", "12.3 k", "\N{EN DASH}"])
        shown = browser.value("[0, 0.02, 0.5, 420, 9999, 12345, 2171000, null].map(rate)")
        self.assertEqual(shown, ["0", "<0.1/s", "0.5/s", "420/s", "9,999/s", "12.3 k/s", "2.2 M/s", "\N{EN DASH}"])

    def test_keyboard(self) -> None:
        """
        Everything can be reached and used with the keyboard alone.
        """
        browser = self.open(busy(time.time()))
        browser.press("Tab")
        self.assertEqual(browser.value("document.activeElement.innerText"), "pages")
        browser.press("Enter")
        self.assertEqual(browser.value("document.activeElement.ariaExpanded"), "true")
        browser.press("Tab")
        self.assertEqual(browser.value("document.activeElement.getAttribute('class')"), "plot")
        browser.press("ArrowLeft")
        browser.press("ArrowLeft")
        self.assertRegex(self.texts(browser, "output")[0], r"^\d\d:\d\d:\d\d")
        self.assertIn(": at ", browser.value("document.activeElement.ariaLabel"))
        browser.press("Escape")
        self.assertEqual(self.texts(browser, "output")[0], "")
        for _ in range(3):
            browser.press("Tab")
        self.assertEqual(browser.value("document.activeElement.className"), "sort")
        browser.press("Enter")
        self.assertEqual(browser.value("document.activeElement.parentNode.ariaSort"), "ascending")
        outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
        self.assertEqual(outline, "solid")

    def test_pointed(self) -> None:
        """
        Pointing at a plot shows the values of that time, and moves nothing.
        """
        browser = self.open(SITUATIONS["burst"](time.time()))
        parts = "[...document.querySelectorAll('figure svg, figcaption, .keys, .keys span, .scale, .axis span')]"
        fixed = f"{parts}.map((each) => Object.values(each.getBoundingClientRect().toJSON()))"
        plot = "document.querySelector('.plot').getBoundingClientRect()"
        x, y, width = browser.value(f"(({{x, y, width}}) => [x, y, width])({plot})")
        before = browser.value(fixed)
        browser.point(x + width * 0.599, y + 40)
        self.assertEqual(self.texts(browser, ".keys")[0].split(), ["requests", "420/s", "errors", "0.5/s"])
        self.assertEqual(browser.value(fixed), before)
        browser.point(5, 5)
        self.assertEqual(self.texts(browser, ".keys")[0].split(), ["requests", "0", "errors", "0"])

    def test_same(self) -> None:
        """
        The proxy may serve a snapshot twice. Rates are those since the one before. If that was long ago, because the
        page was hidden, they are those of the history.
        """
        data = busy(time.time())
        later = deepcopy(data)
        later["time"] += 2
        later["pools"][0]["servers"][0]["requests"]["get"] += 400
        browser = self.open(data)
        browser.value("document.querySelector('.toggle').click()")
        for _ in range(2):
            self.show(browser, later)
            self.assertEqual(self.texts(browser, ".servers td[data-name='req/s']")[0], "200")
        past = data["pools"][0]["servers"][0]["history"]["requests"][-1]
        for seconds in (3600, -3600):
            self.show(browser, {**deepcopy(later), "time": data["time"] + seconds})
            self.assertEqual(self.texts(browser, ".servers td[data-name='req/s']")[0], f"{past:,.0f}")
