# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the benchmarks count and compare correctly. No test depends on a measured time.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.bench import __main__ as command
from tests.bench import contenders, generator, measure, memory, profile, proxy, report, sampler, scaling
from tests.bench.contenders import Contender
from tests.bench.contest import Arena, Result, Sample
from tests.bench.generator import Clients, Generator, Outcome, WrongAnswer, rounded
from tests.bench.sampler import Sampler
from tests.bench.workloads import SERIES, TABLE, Aim, Workload
from tests.real.processes import cpu
from tests.real.relay import BLACKHOLE, Fault, Relay, cut, duplicate, edit, inject
from tests.real.servers import HOST, PATIENCE, SOURCE, Memcached, ServerFailed, freePort, missing, until


class WorkloadTests(SynchronousTestCase):
    """
    Tests for L{Workload}: requests and expected replies.
    """

    def test_plan(self) -> None:
        """
        The requests of a plan have the configured share of reads, and each call generates the same plan.
        """
        workload = Workload("", "", reads=0.9)
        plan = workload.plan()
        reads = [request for request, _, _ in plan if request.startswith(b"get ")]
        self.assertEqual(len(reads), 0.9 * len(plan))
        self.assertEqual(plan, workload.plan())

    def test_replies(self) -> None:
        """
        The expected reply is the value that the preload stored, or C{STORED} for a C{set}.
        """
        workload = Workload("", "", size=37, reads=0.5)
        stored = {}
        for request in workload.preload():
            head, value, end = request.split(b"\r\n")
            stored[head.split()[1]] = value
            self.assertEqual((len(value), end), (37, b""))
        self.assertEqual(len(set(stored.values())), workload.items)
        for request, reply, count in workload.plan():
            self.assertEqual(count, 1)
            words = request.split()
            if words[0] == b"get":
                self.assertEqual(reply, b"VALUE %b 0 37\r\n%b\r\nEND\r\n" % (words[1], stored[words[1]]))
            else:
                self.assertEqual((words[5], reply), (stored[words[1]], b"STORED\r\n"))

    def test_redis(self) -> None:
        """
        The same workload can be spelled for Redis, and has the same values.
        """
        one, several = (Workload("", "", size=3, keys=keys, reads=1.0, protocol="redis") for keys in (1, 2))
        request, reply, _ = one.plan()[0]
        self.assertRegex(request, rb"\A\*2\r\n\$3\r\nGET\r\n\$20\r\nbench:0000003:.{6}\r\n\Z")
        self.assertRegex(reply, rb"\A\$3\r\n<[0-9]{1,3}[.]?\r\n\Z")
        request, reply, count = several.plan()[0]
        self.assertRegex(request, rb"\A\*3\r\n\$4\r\nMGET\r\n")
        self.assertRegex(reply, rb"\A\*2\r\n\$3\r\n")
        self.assertEqual(count, 1)
        request, reply, _ = Workload("", "", reads=0.0, protocol="redis").plan()[0]
        self.assertIn(b"SET", request)
        self.assertEqual(reply, b"+OK\r\n")

    def test_pipeline(self) -> None:
        """
        A pipeline is one exchange, which counts all its requests.
        """
        for request, reply, count in Workload("", "", depth=16).plan():
            self.assertEqual(count, 16)
            self.assertEqual(len(re.findall(rb"^[gs]et ", request, re.M)), 16)
            self.assertEqual(len(re.findall(rb"^(?:END|STORED)\r$", reply, re.M)), 16)

    def test_keys(self) -> None:
        """
        A C{get} of several keys has different keys, and counts as one request.
        """
        request, reply, count = Workload("", "", keys=20, reads=1.0).plan()[0]
        self.assertEqual(len(set(request.split()[1:])), 20)
        self.assertEqual(re.findall(rb"VALUE (\S+)", reply), request.split()[1:])
        self.assertEqual(count, 1)

    def test_bounded(self) -> None:
        """
        The memory of each workload is bounded, also if its values are large.
        """
        for workload in [*TABLE, *(workload for _, series in SERIES.values() for _, workload in series)]:
            stored = workload.items * workload.size
            self.assertLess(stored, 100 << 20, workload)
            self.assertLess(sum(len(reply) for _, reply, _ in workload.plan()), 100 << 20, workload)


class OutcomeTests(SynchronousTestCase):
    """
    Tests for L{Outcome} and L{Sample}: the results of one round.
    """

    def test_rounded(self) -> None:
        """
        Durations are rounded down to microseconds, and large ones by at most two percent.
        """
        self.assertEqual([rounded(n) for n in (999, 1000, 127_999)], [0, 1, 127])
        for nanoseconds in (128_500, 1_234_567, 98_765_432_100):
            self.assertLessEqual(rounded(nanoseconds), nanoseconds / 1000)
            self.assertGreater(rounded(nanoseconds), nanoseconds / 1000 * 0.98)

    def test_percentile(self) -> None:
        """
        A percentile is the latency that this share of the exchanges did not exceed.
        """
        outcome = Outcome(latencies=Counter({10: 98, 20: 1, 30: 1}))
        self.assertEqual([outcome.percentile(share) for share in (0.5, 0.98, 0.99, 1.0)], [10, 10, 20, 30])

    def test_add(self) -> None:
        """
        Outcomes of two generators that ran at the same time can be added.
        """
        outcome = Outcome(10, 1.0, Counter({1: 10}))
        outcome.add(Outcome(5, 1.5, Counter({1: 3, 2: 2})))
        self.assertEqual(outcome, Outcome(15, 1.5, Counter({1: 13, 2: 2})))

    def test_sample(self) -> None:
        """
        Processor time is divided by the number of requests. The exact total is divided into user and system time in
        proportion to the coarse values of these.
        """
        cost = measure.Cost(3.0, 1.0, 3.0) - measure.Cost(1.0, 0.5, 1.5)
        sample = Sample.of(cost, Outcome(1000, 4.0, Counter({7: 1000})))
        self.assertEqual(sample, Sample(1000, 2000.0, 500.0, 1500.0, 250.0, 7, 7, 0.5))
        self.assertEqual(Sample.of(cost, Outcome(1000, 4.0), 2.0).server, 2000.0)


def sample(cpu: float, rate: float = 1.0) -> Sample:
    """
    @return: a sample with these values, and any others.
    """
    return Sample(1, cpu, cpu, 0.0, rate, 1.0, 1.0, 1.0)


class ResultTests(SynchronousTestCase):
    """
    Tests for L{Result}: all rounds of a workload.
    """

    def result(self) -> Result:
        """
        @return: three rounds of three contenders. All of them were slow in the second round.
        """
        samples = {
            "nutcracker": [sample(10.0), sample(30.0), sample(10.0)],
            "nutcracker-4": [sample(9.0), sample(28.0), sample(9.0)],
            "proxy": [sample(18.0), sample(56.0), sample(9.0)],
        }
        return Result(next(iter(TABLE)), samples)

    def test_yardstick(self) -> None:
        """
        The yardstick with less processor time is used, unless it failed.
        """
        result = self.result()
        self.assertEqual(result.yardstick, "nutcracker-4")
        result.failures["nutcracker-4"] = "wrong"
        self.assertEqual(result.yardstick, "nutcracker")
        self.assertIsNone(Result(result.workload, {"proxy": [sample(1.0)]}).yardstick)

    def test_ratio(self) -> None:
        """
        A ratio is the median of the ratios of each round, so that a round that was slow for all does not matter.
        """
        summary = self.result().summary()
        self.assertEqual(summary["proxy"]["cpu"], 18.0)
        self.assertEqual(summary["proxy"]["cpu-ratio"], 2.0)
        self.assertEqual(summary["nutcracker-4"]["cpu-ratio"], 1.0)

    def test_withoutYardstick(self) -> None:
        """
        Without a yardstick there are no ratios, and a contender without samples is left out.
        """
        summary = Result(Workload("", ""), {"proxy": [sample(1.0)], "other": []}, {"other": "dead"}).summary()
        self.assertEqual(list(summary), ["proxy"])
        self.assertNotIn("cpu-ratio", summary["proxy"])


class ReportTests(SynchronousTestCase):
    """
    Tests for L{report}.
    """

    def test_table(self) -> None:
        """
        Tables are Markdown with aligned columns.
        """
        self.assertEqual(report.table(["a", "bb"], [["ccc", "1"]]), "| a   | bb |\n| :-- | -: |\n| ccc |  1 |\n")

    def test_contest(self) -> None:
        """
        The table of a contest marks the yardstick, and the failures come after the table.
        """
        result = ResultTests().result()
        result.failures["gone"] = "closed"
        text = report.contest(result)
        self.assertIn("### 50 clients", text)
        self.assertIn("| nutcracker-4 = 1 |            9.0 |", text)
        self.assertIn("gone FAILED: closed", text)

    def test_verdict(self) -> None:
        """
        A contender's ratio is compared with the aim of the workload.
        """
        self.assertIn("90 % over", report.verdict([ResultTests().result()], "proxy"))
        self.assertEqual(report.verdict([ResultTests().result()], "nobody"), "")
        judgements = [report.judged(ratio, Aim("cpu", 1.3, 1.0)) for ratio in (1.0, 1.1, 1.3, 1.43)]
        self.assertEqual(judgements, ["goal", "reached", "reached", "10 % over"])

    def test_section(self) -> None:
        """
        A section replaces the older section of the same name, and the others stay unchanged.
        """
        path = Path(self.mktemp())
        for name, text in [("A", "1"), ("B", "2\n\n### x\n"), ("A", "3"), ("C", "4")]:
            report.section(name, text, path)
        text = path.read_text("utf-8")
        self.assertTrue(text.startswith("# Measured\n"))
        self.assertTrue(text.endswith("\n\n## A\n\n3\n\n## B\n\n2\n\n### x\n\n## C\n\n4\n"), text)

    def test_invocation(self) -> None:
        """
        The reported command repeats the measurement; options that name output files are left out.
        """
        arguments = ["--json", "x", "--rounds", "3", "--results", "--plot=y", "--variant", "a=. --b"]
        self.assertEqual(report.invocation("proxy", arguments), "proxy --rounds 3 --variant 'a=. --b'")

    def test_record(self) -> None:
        """
        The record has all results and settings, and can be saved as JSON.
        """
        path = Path(self.mktemp())
        report.save(path, report.record([ResultTests().result()], {"rounds": 3}))
        content = json.loads(path.read_text("utf-8"))
        self.assertEqual(content["settings"], {"rounds": 3})
        self.assertEqual(content["workloads"][0]["summary"]["proxy"]["cpu-ratio"], 2.0)
        self.assertEqual(content["workloads"][0]["samples"]["proxy"][1]["cpu"], 56.0)


class MemoryReportTests(SynchronousTestCase):
    """
    Tests for L{memory}.
    """

    def test_summary(self) -> None:
        """
        The summary has the sizes, the memory per session, and whether ten thousand sessions exceed the limit.
        """
        mega = 1 << 20
        prints = {
            "small": memory.Footprint({0: 10 * mega, 10_000: 50 * mega}, 20 * mega, 0.0),
            "large": memory.Footprint({0: 10 * mega, 10_000: 51 * mega}, 20 * mega, 0.0),
        }
        text = memory.summary(prints, 4000)
        self.assertIn("|    10.0 MB |         50.0 MB | 4.2 kB |  20.0 MB |", text)
        self.assertIn("10,000 sessions of small: 40.0 MB more (40.0 MB at most: reached)", text)
        self.assertIn("10,000 sessions of large: 41.0 MB more (40.0 MB at most: too much)", text)
        self.assertIn("An idle connection to memcached takes 4.0 kB", text)

    def test_without(self) -> None:
        """
        The summary leaves out values that were not measured.
        """
        text = memory.summary({"one": memory.Footprint({0: 1, 10: 2}, 1, 0.0)}, None)
        self.assertNotIn("10,000", text)
        self.assertNotIn("connection", text)


class ScalingReportTests(SynchronousTestCase):
    """
    Tests for L{scaling}.
    """

    def test_grown(self) -> None:
        """
        Each row of a series has the cost and the ratio of each contender, or C{failed} if the contender has no sample.
        """
        failed = Result(Workload("", ""), {"nutcracker-4": [sample(8.0)], "proxy": []}, {"proxy": "dead"})
        text = scaling.grown("clients", "clients", {10: ResultTests().result(), 2000: failed})
        self.assertIn("| 10      | 10.0 (1.11; 1) | 9.0 (1.00; 1) | 18.0 (2.00; 1) |", text)
        self.assertIn("| 2,000   |         failed | 8.0 (1.00; 1) |         failed |", text)
        self.assertIn("clients 2,000: proxy FAILED: dead", text)

    def test_plot(self) -> None:
        """
        All series are plotted, except contenders without samples.
        """
        path = Path(self.mktemp())
        half = Result(Workload("", ""), {"proxy": []}, {"proxy": "dead"})
        scaling.plot({"clients": {10: ResultTests().result(), 50: half}}, path)
        text = path.read_text("utf-8")
        for word in ("growing clients", "nutcracker-4", "proxy"):
            self.assertIn(word, text)

    if importlib.util.find_spec("matplotlib") is None:
        test_plot.skip = "matplotlib is not installed"  # type: ignore[attr-defined]

    def test_noPlot(self) -> None:
        """
        Without matplotlib no plot is written, and the standard error output has the reason.
        """

        def missing(name: str) -> None:
            raise ImportError(f"no {name} here")

        errors = io.StringIO()
        self.patch(importlib, "import_module", missing)
        self.patch(sys, "stderr", errors)
        self.assertFalse(scaling.tryPlot({}, Path(self.mktemp())))
        self.assertEqual(errors.getvalue(), "no plot: no matplotlib here\n")


class CommandTests(SynchronousTestCase):
    """
    Tests for the command line.
    """

    def test_unknown(self) -> None:
        """
        An unknown command is an error, and all commands are listed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench", "dance"], cwd=SOURCE, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 2)
        for name in command.COMMAND_NAMES:
            self.assertIn(f"  {name}", done.stderr)

    def test_chosenWorkloads(self) -> None:
        """
        Workloads are selected by name; without a name, all are. An unknown name is an error that lists the known ones.
        """
        self.assertEqual([workload.clients for workload in proxy.chosen(["c500"])], [500])
        self.assertEqual(proxy.chosen([]), list(TABLE))
        self.assertIn("pipeline", str(self.assertRaises(ValueError, proxy.chosen, ["c5000"])))

    def test_chosenContenders(self) -> None:
        """
        Without names, all contenders but C{direct} take part.
        """
        known = [contenders.nutcracker(1), contenders.nutcracker(4), contenders.proxy(), contenders.direct()]

        def names(*chosen: str) -> list[str]:
            return [contender.name for contender in contenders.choose(known, chosen)]

        self.assertEqual(names(), ["nutcracker", "nutcracker-4", "proxy"])
        self.assertEqual(names("direct", "proxy"), ["proxy", "direct"])
        self.assertIn("nutcracker-4", str(self.assertRaises(ValueError, names, "envoy")))

    def test_variant(self) -> None:
        """
        A variant is a source tree with options. Any other text is an error.
        """
        one = contenders.variant(f"deep={SOURCE} --pipeline-depth 512")
        self.assertEqual(one.name, "deep")
        server = one.make(["/upstream"])
        self.assertEqual(server.options[-2:], ("--pipeline-depth", "512"))
        for text in ("deep", "=x", "deep=", f"deep={SOURCE}/tests"):
            self.assertRaises(ValueError, contenders.variant, text)

    def test_processors(self) -> None:
        """
        The contender gets a processor of its own if there are several, and if pinning is not disabled.
        """
        available = os.sched_getaffinity(0)
        own, others = measure.processors(True)
        self.assertEqual(own | others, available)
        self.assertEqual(len(own), 1)
        self.assertEqual(bool(own & others), len(available) == 1)
        self.assertEqual(measure.processors(False), (available, available))
        with measure.pinned(own):
            self.assertEqual(os.sched_getaffinity(0), own)
        self.assertEqual(os.sched_getaffinity(0), available)


class MeasureTests(SynchronousTestCase):
    """
    Tests for L{measure}.
    """

    skip = measure.unable()

    def test_cost(self) -> None:
        """
        The processor time of a process and of its children is counted, that of other processes is not.
        """
        work = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); sys.stdin.read()"
        script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            cost = measure.Cost.of(process.pid)
            size = measure.residentSize(process.pid)
            process.kill()
        self.assertGreaterEqual(cost.total, 0.3)
        self.assertLess(cost.total, 3.0)
        self.assertGreater(cost.user + cost.system, 0.2)
        self.assertGreater(size, 2 << 20)

    def test_machine(self) -> None:
        """
        The description of the machine has these facts, and no name, address or directory of the machine.
        """
        facts = measure.machine()
        self.assertEqual(list(facts), ["date", "processor", "processors", "system", "python", "twisted"])
        self.assertNotIn("/", str(facts["python"]))

    def test_build(self) -> None:
        """
        The description of an interpreter says which options it was built with, or which system it belongs to.
        """
        options = "'--prefix=/opt/python' '--enable-shared' '--with-lto' 'LDFLAGS=-L/opt/lib'"
        self.patch(sys, "executable", "/opt/python/bin/python3")
        self.patch(sysconfig, "get_config_var", lambda name: options if name == "CONFIG_ARGS" else "")
        self.assertIn(" configured with --enable-shared --with-lto (", str(measure.machine()["python"]))
        self.patch(sysconfig, "get_config_var", lambda name: None)
        self.assertIn(" configured with no options (", str(measure.machine()["python"]))
        self.patch(sys, "executable", "/usr/bin/env")
        self.patch(platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Some System 1"})
        self.assertIn(" of Some System 1 (", str(measure.machine()["python"]))


class SamplerTests(SynchronousTestCase):
    """
    Tests for L{sampler} and L{profile}.
    """

    def test_sample(self) -> None:
        """
        C{sample} counts call stacks, and C{end} writes them.
        """
        collecting = Sampler(self.mktemp())

        def inner() -> None:
            collecting.sample(signal.SIGPROF, sys._getframe())

        for _ in range(3):
            inner()
        collecting.end(0, None)
        with open(collecting.file, encoding="utf-8") as stream:
            ((stack, count),) = json.load(stream)["stacks"]
        self.assertEqual(count, 3)
        self.assertIn("inner", stack[0][1])
        self.assertIn("test_sample", stack[1][1])

    def test_process(self) -> None:
        """
        The sampler runs C{twistd} and samples it between the two signals, and the process ends as usual.
        """
        workload = Workload("test", "test", clients=5)
        with Memcached("-t", "1") as memcached:
            assert not isinstance(memcached.address, str)
            contenders.fill(memcached.address, workload)
            port = freePort()
            options = ["-p", f"tcp:{port}:interface={HOST}", "-h", HOST, "-d", str(memcached.address[1])]
            twistd = profile.Sampled(*options, plugin="portforward", address=(HOST, port)).start()
            self.addCleanup(twistd.stop)
            clients = Clients(twistd.address, workload.clients, workload.plan())
            self.addCleanup(clients.close)
            twistd.signal(sampler.BEGIN)
            before = cpu(twistd.pid)
            while cpu(twistd.pid) - before < 1.0:  # some hundred samples: a function of a few percent is among them
                clients.run(0.5)
            twistd.signal(sampler.END)
            until(twistd.samples.exists)
            text = profile.places(profile.read(twistd.samples), 1.0, SOURCE, 100)
            self.assertIn("doRead", text)
            self.assertEqual(twistd.stop(), -signal.SIGTERM)

    test_process.skip = missing("memcached")  # type: ignore[attr-defined]

    def test_places(self) -> None:
        """
        Samples are counted by line and by function. A function that occurs several times in one stack counts once.
        """
        a, b = (str(SOURCE / "a.py"), "A.f", 3), (str(SOURCE / "b.py"), "g", 4)
        text = profile.places([([a, b, b], 3), ([b], 1)], 8.0, SOURCE, 5)
        self.assertIn("| a.py A.f | 75.0% | 6.00 |      75.0% | 6.00 |", text)
        self.assertIn("| b.py g   | 25.0% | 2.00 |     100.0% | 8.00 |", text)
        self.assertIn("4 samples", text)


class ClientsTests(SynchronousTestCase):
    """
    Tests that L{Clients} detect every wrong reply.
    """

    skip = measure.unable() or missing("memcached")
    workload = Workload("test", "test", clients=4, depth=3, size=50)
    kind = Clients

    def setUp(self) -> None:
        """
        Start a memcached with all values, and a relay in front of it.
        """
        self.memcached = Memcached("-t", "1").start()
        self.addCleanup(self.memcached.stop)
        contenders.fill(self.memcached.address, self.workload)
        self.relay = Relay(self.memcached.address).start()
        self.addCleanup(self.relay.stop)

    def clients(self) -> Clients:
        """
        Connect the clients of the workload through the relay.
        """
        clients = self.kind(self.relay.address, self.workload.clients, self.workload.plan())
        self.addCleanup(clients.close)
        return clients

    def test_right(self) -> None:
        """
        Correct replies are counted, each exchange with its latency, and clients can run several times.
        """
        clients = self.clients()
        for _ in range(2):
            outcome = clients.run(0.05)
            self.assertGreaterEqual(outcome.requests, self.workload.clients * self.workload.depth)
            self.assertEqual(outcome.requests, outcome.latencies.total() * self.workload.depth)
            self.assertGreaterEqual(outcome.seconds, 0.05)

    def test_paced(self) -> None:
        """
        Clients that send at a constant rate send no more often, and report wrong and missing replies too.
        """
        clients = self.clients()
        outcome = clients.runPaced(0.1, 100)
        exchanges = outcome.latencies.total()
        self.assertEqual(outcome.requests, exchanges * self.workload.depth)
        self.assertTrue(1 <= exchanges <= 10, exchanges)
        self.relay.set(BLACKHOLE)
        self.patch(generator, "PATIENCE", 0.5)
        self.assertIn("no reply within", str(self.assertRaises(WrongAnswer, clients.runPaced, 0.5, 100)))

    def spoilt(self, fault: Fault, patience: float = PATIENCE) -> str:
        """
        Inject a fault into a run, which ends when the clients notice it.

        @param patience: how long they wait for a reply.

        @return: the text of the clients' error.
        """
        clients = self.clients()
        clients.run(0.0)
        self.relay.set(fault)
        self.patch(generator, "PATIENCE", patience)
        return str(self.assertRaises(WrongAnswer, clients.run, PATIENCE))

    def test_swapped(self) -> None:
        """
        Valid replies in the wrong order are detected.
        """
        pattern = re.compile(rb"(VALUE .*\r\n.*\r\nEND\r\n)(VALUE .*\r\n.*\r\nEND\r\n)")
        self.assertIn("received", self.spoilt(edit(lambda data: pattern.sub(rb"\2\1", data))))

    def test_duplicated(self) -> None:
        """
        Duplicated bytes are detected.
        """
        self.assertIn("received", self.spoilt(edit(lambda data: data.replace(b"STORED\r\n", b"STORED\r\n" * 2))))
        self.assertIn("received", self.spoilt(duplicate(3, after=70)))

    def test_otherByte(self) -> None:
        """
        A single wrong byte in a value is detected.
        """
        self.assertIn("received", self.spoilt(edit(lambda data: data.replace(b">", b"]", 1))))

    def test_error(self) -> None:
        """
        An error line is a wrong reply.
        """
        error = edit(lambda data: b"SERVER_ERROR no\r\n")
        self.assertIn("SERVER_ERROR no", self.spoilt(error))

    def test_unasked(self) -> None:
        """
        Bytes that arrive between two runs are detected in the second run.
        """
        self.assertIn("received", self.spoilt(inject(b"END\r\n")))

    def test_closed(self) -> None:
        """
        A connection that is closed in the middle of a reply is detected.
        """
        self.assertIn("closed, expected", self.spoilt(cut(after=10)))

    def test_closedWhenDone(self) -> None:
        """
        A connection that is closed while no reply is expected is an error too.
        """
        self.assertRaises(WrongAnswer, generator.rest, b"", None)

    def test_stuck(self) -> None:
        """
        A run fails if replies stop arriving.
        """
        self.assertIn("got no reply within", self.spoilt(BLACKHOLE, 0.5))

    def test_refused(self) -> None:
        """
        A client that cannot connect is an error.
        """
        self.relay.stop()
        self.assertRaises(ConnectionRefusedError, self.clients)

    def test_large(self) -> None:
        """
        Requests and replies that are larger than the kernel's socket buffers are sent and received completely.
        """
        workload = Workload("large", "large", clients=2, size=1_000_000, reads=0.5)
        with contenders.storage() as memcached:
            contenders.fill(memcached.address, workload)
            clients = self.kind(memcached.address, workload.clients, workload.plan())
            self.addCleanup(clients.close)
            self.assertEqual([clients.run(0.0).requests for _ in range(5)], [workload.clients] * 5)

    def test_process(self) -> None:
        """
        A load in a child process reports its outcome or its error.
        """
        load = Generator(self.relay.address, self.workload, 2)
        self.addCleanup(load.close)
        load.ready()
        load.go(0.05)
        outcome = load.outcome()
        self.assertEqual(outcome.requests, outcome.latencies.total() * self.workload.depth)
        self.relay.drop()
        load.go(0.05)
        self.assertIn("ConnectionResetError", str(self.assertRaises(WrongAnswer, load.outcome)))

    def test_dead(self) -> None:
        """
        The death of the child process is an error.
        """
        load = Generator(self.relay.address, self.workload, 2)
        load.ready()
        os.kill(load.pid, signal.SIGKILL)
        self.assertRaises(WrongAnswer, load.outcome)
        load.close()


class ArenaTests(SynchronousTestCase):
    """
    Tests for L{Arena}.
    """

    skip = measure.unable() or missing("memcached")
    workload = Workload("test", "test", clients=5)

    def hold(self, *several: Contender, generators: int = 1) -> Result:
        """
        Run a short contest.
        """
        return Arena(rounds=2, seconds=0.05, generators=generators).hold(self.workload, several)

    def test_samples(self) -> None:
        """
        Each contender has a sample for each round.
        """
        result = self.hold(contenders.direct(), generators=2)
        self.assertEqual(result.failures, {})
        self.assertEqual(len(result.samples["direct"]), 2)
        self.assertGreater(result.median("direct", "cpu"), 0)
        self.assertIsNone(result.yardstick)

    def test_redis(self) -> None:
        """
        Contenders for Redis answer the same load, and the processor time of the server behind them is measured.
        """
        workload = replace(self.workload, keys=3, protocol="redis")
        result = Arena(rounds=1, seconds=0.05).hold(
            workload, [contenders.direct("redis"), contenders.proxy(protocol="redis")]
        )
        self.assertEqual(result.failures, {})
        self.assertEqual(result.median("direct", "server"), 0)
        self.assertGreater(result.median("proxy", "server"), 0)

    test_redis.skip = missing("redis-server")  # type: ignore[attr-defined]

    def test_failure(self) -> None:
        """
        A contender that gives a wrong answer is excluded, the others go on, and the exit status is 1.
        """
        empty = Contender("empty", lambda _: Memcached("-t", "1"), "has none of the values")
        result = self.hold(empty, contenders.direct())
        self.assertIn("received", result.failures["empty"])
        self.assertEqual(len(result.samples["direct"]), 2)
        self.assertEqual(proxy.failed([result]), 1)

    def test_footprint(self) -> None:
        """
        Memory is measured for each number of sessions, and after they are closed.
        """
        found = memory.footprint(Arena(), contenders.direct(), [20], 0.0001)
        self.assertEqual(list(found.sizes), [0, 20])
        self.assertTrue(all(size > 1 << 20 for size in [*found.sizes.values(), found.left]))

    def test_notStarting(self) -> None:
        """
        If a contender cannot be started, the contest ends with the error, and the other processes are stopped.
        """
        started = []

        def make(_: object) -> Memcached:
            started.append(Memcached("-t", "1"))
            return started[-1]

        broken = Contender("broken", lambda _: Memcached("--no-such-option"), "")
        self.assertRaises(ServerFailed, self.hold, Contender("empty", make, ""), broken)
        self.assertFalse(started[0].running())
