"""Kills leaders under clients as they are: kazoo here, Curator and the Java client in `Kills.java`.

Where the servers are ringkeepers, clients of the survivors may notice nothing but a pause.

usage: kills.py zookeeper|BINARY JARS SCRATCH ROUNDS     (CURATOR_PATH: the class path)
"""

import collections
import logging
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import types

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.recipe.counter import Counter
from kazoo.recipe.lock import Lock

from cluster import JAVA, RINGKEEPER, Cluster, Failure, wait_for

# As ensembles are usually configured.
OPTIONS = "tickTime=2000\ninitLimit=10\nsyncLimit=5\nminSessionTimeout=4000\n"
# A ringkeeper keeps its clients for longer than a slow machine takes to elect a leader.
GRACE = "ringkeeper.clientGraceMs=5000\n"
TIMEOUT = 30
# Writes that each client must have got done before and after a kill.
WRITES = 50
# How the Java program says that a connection was lost, or a request with it.
LOSS = re.compile(r"Disconnected|Expired|SUSPENDED|LOST|[1-9]\d* failed")


def hosts(servers):
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)


class Java:
    """The program for Curator and the Java client."""

    def __init__(self, servers, log):
        command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]
        command += ["-Dzookeeper.sasl.client=false", "-cp", os.environ["CURATOR_PATH"], "Kills"]
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [*command, hosts(servers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure("the Java program has ended")
        return line.strip()

    def finish(self):
        self.tell("finish")
        said = [line.strip() for line in self.process.stdout]
        if self.process.wait(timeout=120):
            raise Failure("\n".join(said))
        return said


class Kazoo:
    """A client that sets one znode without pause, and holds a lock meanwhile or shares a counter."""

    def __init__(self, servers, name):
        self.events = collections.Counter()
        self.client = KazooClient(hosts=hosts(servers), timeout=TIMEOUT)
        self.client.add_listener(self.notice)
        self.client.start(timeout=60)
        self.events.clear()
        self.path = f"/kazoo/{name}"
        self.client.ensure_path(self.path)
        self.lock = Lock(self.client, f"/kazoo/lock-{name}")
        self.lock.acquire(timeout=60)
        self.counter = Counter(self.client, f"/kazoo/counter-{name}")
        self.written = self.gap = self.added = 0
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def notice(self, state):
        # Of the first connection, it may be told only after `start`.
        if state != KazooState.CONNECTED:
            self.events[state] += 1

    def run(self):
        last, version = time.monotonic(), 0
        while not self.stopping:
            try:
                found = self.client.set_async(self.path, b"x" * 100).get(timeout=TIMEOUT).version
                if found <= version:
                    self.events["WRONG: versions go back"] += 1
                now, version = time.monotonic(), found
                self.gap, last = max(self.gap, now - last), now
                self.written += 1
                if self.written % 10 == 0:
                    self.counter += 1
                    self.added += 1
            except (KazooException, KazooTimeoutError):
                self.events["failed"] += 1

    def goes_on(self):
        had = self.written
        wait_for(f"kazoo writes {self.path}", lambda: self.written >= had + WRITES)

    def finish(self):
        self.stopping = True
        self.thread.join()
        node = f"{self.lock.path}/{self.lock.node}"
        stat = self.client.exists(node)
        if not stat or stat.ephemeralOwner != self.client.client_id[0]:
            raise Failure(f"the lock of {self.path} is lost: {node} {stat}")
        unknown = self.events["failed"]
        if not self.added <= self.counter.value <= self.added + unknown:
            raise Failure(f"{self.counter.value} after {self.added} and {unknown} unknown")
        self.lock.release()
        # That it has ended by our own will is not an event.
        events = dict(self.events)
        self.client.stop()
        self.client.close()
        if any(name == "LOST" or name.startswith("WRONG") for name in events):
            raise Failure(f"{self.path}: {events}")
        return events


def play(cluster, rounds, may_notice):
    cluster.start()
    servers = list(cluster)
    gaps, events = {"kazoo": [], "java": []}, collections.Counter()
    with Java(servers, cluster.directory / "java.log") as java:
        java.answer()
        whole = Kazoo(servers, "whole")
        for number in range(rounds):
            leader = cluster.wait_formed()
            survivors = [server for server in servers if server is not leader]
            java.tell(f"begin {hosts(survivors)}")
            if (answer := java.answer()) != "ready":
                raise Failure(answer)
            clients = [Kazoo([server], f"{number}-{server.number}") for server in survivors]
            for client in clients:
                client.goes_on()
                client.gap = 0
            leader.end(signal.SIGKILL)
            for client in [*clients, whole]:
                client.goes_on()
            java.tell("end")
            answer = java.answer()
            noticed = collections.Counter()
            for client in clients:
                noticed.update(client.finish())
            gap = max(client.gap for client in clients) * 1000
            print(
                f"   leader {leader.number} killed: {answer}; "
                f"kazoo gap {gap:.1f} ms; {dict(noticed) or 'no event'}",
                flush=True,
            )
            if not may_notice and (noticed or LOSS.search(answer)):
                raise Failure("clients of the survivors have lost connections or requests")
            events.update(noticed)
            gaps["kazoo"].append(gap)
            gaps["java"].append(float(answer.split()[3]))
            leader.start()
            cluster.wait_formed()
        whole.goes_on()
        noticed = whole.finish()
        print(f"   kazoo with all servers: gap {whole.gap * 1000:.1f} ms; {noticed or 'no event'}")
        for line in java.finish():
            print(f"   {line}")
    for name, found in gaps.items():
        print(f"   {name} on survivors: median gap {statistics.median(found):.1f} ms, worst {max(found):.1f}")
    print(f"   kazoo on survivors: {dict(events) or 'no event'}")


def main():
    binary, jars, scratch, rounds = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # What the library says of lost connections is expected here.
    logging.disable(logging.CRITICAL)
    kind = JAVA if binary == "zookeeper" else RINGKEEPER
    settings = types.SimpleNamespace(binary=binary, jars=jars, scratch=scratch, digest="super:")
    options = OPTIONS + GRACE * (kind == RINGKEEPER)
    with Cluster(settings, f"kills-{kind}", {1: kind, 2: kind, 3: kind}, options=options) as cluster:
        play(cluster, int(rounds), may_notice=kind == JAVA)
    print("kills: 1 passed, 0 failed")


if __name__ == "__main__":
    main()
