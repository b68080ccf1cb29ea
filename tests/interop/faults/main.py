"""Ensembles of ringkeepers that lose servers and links again and again under load.

usage: main.py BINARY SCRATCH small|full|SECONDS SEED [NAME...]
"""

import base64
import collections
import hashlib
import itertools
import random
import re
import signal
import sys
import time
import traceback
import types

import network
from checker import judge
from clients import EPHEMERALS, Clients
from cluster import RINGKEEPER, SUPER, Cluster, Failure, wait_for
from wire import differences, read_tree

TICK_MS, SYNC_LIMIT = 200, 5
OPTIONS = f"tickTime={TICK_MS}\ninitLimit=50\nsyncLimit={SYNC_LIMIT}\n"
# For how long a server may go on that nobody else hears: the limit, two ticks, and a slow machine.
STEP_DOWN = SYNC_LIMIT * TICK_MS / 1000 + 2 * TICK_MS / 1000 + 2.0
# How long clients may have to wait for service that there has to be.
SERVICE = 30.0
# What no server may ever log.
WRONG = re.compile(r"[Dd]igests are not matching|digest mismatch|digest is not the leader's|panicked")
# Seconds of faults in each scenario.
BUDGETS = {"small": 12, "full": 300}


class Play:
    """One ensemble, its clients, and what is done to it."""

    def __init__(self, cluster, clients, rng, net=None):
        self.cluster, self.clients, self.random, self.net = cluster, clients, rng, net
        self.voters = [server for server in cluster if not server.is_observer]
        self.observers = [server for server in cluster if server.is_observer]
        # Those that we have killed or stopped.
        self.down, self.waits = [], []
        self.rounds, self.tally = 0, collections.Counter()

    def pairs(self):
        """(fault, role) of all that has to be played, whatever the budget. Where links fail, too,
        nothing has to: it would take the time from them."""
        if self.net:
            return []
        roles = ["leader", "follower"] + ["observer"] * bool(self.observers)
        return list(itertools.product(["kill", "stop"], roles))

    def faults(self):
        """(name, function) of all that can happen to this ensemble."""
        found = [self.kill, self.kill, self.stop, self.kill_again, self.kill_quorum, self.kill_all]
        if self.net:
            found = [self.isolate, self.isolate, self.deaf, self.mute, self.cut, self.apart]
            found += [self.slow, self.kill, self.stop]
        return found

    def leader(self):
        return self.cluster.wait_formed()

    def victims(self, role=None):
        """A minority of the voters, often with the leader in it, or an observer: server and role.
        One has the role that is asked for."""
        leader, found = self.leader(), {}
        for server in self.choose(leader, role or self.draw()):
            usual = "observer" if server.is_observer else "follower"
            found[server] = "leader" if server is leader else usual
            print(found[server], server.number, end=" ", flush=True)
        return found

    def draw(self):
        if self.observers and self.random.randrange(3) == 0:
            return "observer"
        return "leader" if self.random.random() < 0.6 else "follower"

    def choose(self, leader, role):
        if role == "observer":
            return [self.random.choice(self.observers)]
        others = [server for server in self.voters if server is not leader]
        count = self.random.randint(1, (len(self.voters) - 1) // 2)
        if role == "leader":
            return [leader, *self.random.sample(others, count - 1)]
        return self.random.sample(others, count)

    def hit(self, fault, number, role):
        victims = self.victims(role)
        self.take(victims, number)
        self.served()
        self.tally.update((fault, found) for found in victims.values())

    def take(self, servers, number):
        for server in servers:
            self.alive(server)
            if number == signal.SIGSTOP:
                server.pause()
            else:
                server.end(number)
            self.down.append((server, number))

    def alive(self, server):
        if not server.is_running():
            raise Failure(f"{server} has ended by itself: {server.process.poll()}")

    def served(self):
        """Clients work on, without those that wait for a silent server."""
        began = time.monotonic()
        self.clients.go_on(SERVICE, but=self.clients.patient())
        self.waits.append(time.monotonic() - began)

    def restore(self):
        """Everything runs and reaches everything, and all clients work."""
        if self.net:
            self.net.heal()
        for server, number in self.down:
            if number == signal.SIGSTOP:
                server.tell(signal.SIGCONT)
            else:
                server.start()
        self.down = []
        self.leader()
        self.clients.go_on(SERVICE)
        for server in self.cluster:
            self.alive(server)

    # What can happen.

    def kill(self, role=None):
        self.hit("kill", signal.SIGKILL, role)

    def stop(self, role=None):
        self.hit("stop", signal.SIGSTOP, role)

    def kill_again(self):
        """The next leader dies when the last one has just been started."""
        for _ in range(3):
            leader = self.leader()
            print(leader.number, end=" ")
            self.take([leader], signal.SIGKILL)
            self.down = []
            leader.start()

    def kill_quorum(self):
        """Nobody is served until a majority is there."""
        count = len(self.voters) // 2 + 1
        left = self.random.sample(self.voters, len(self.voters) - count)
        self.take([server for server in self.voters if server not in left], signal.SIGKILL)
        for server in left:
            wait_for(f"{server} serves no more", lambda: server.role() is None, STEP_DOWN)

    def kill_all(self):
        self.take(list(self.cluster), signal.SIGKILL)

    def isolate(self):
        """A minority is cut off; it must stop serving, and the others go on."""
        group = self.victims()
        self.net.part([server.number for server in group])
        for server in group:
            wait_for(f"{server} serves no more", lambda: server.role() is None, STEP_DOWN)
        self.served()

    def deaf(self):
        """Nobody's packets reach some server, though its own arrive."""
        self.one_way(lambda victim, other: self.net.lose(other, victim))

    def mute(self):
        """A server hears everybody, and is heard by nobody."""
        self.one_way(self.net.lose)

    def one_way(self, lose):
        victim = self.random.choice(list(self.victims()))
        for server in self.cluster:
            if server is not victim:
                lose(victim.number, server.number)
        wait_for(f"{victim} serves no more", lambda: victim.role() is None, STEP_DOWN)
        self.served()

    def cut(self):
        """Leader and a follower don't reach each other; a third reaches both."""
        leader = self.leader()
        other = self.random.choice([server for server in self.cluster if server is not leader])
        self.net.lose(leader.number, other.number)
        self.net.lose(other.number, leader.number)
        self.served()

    def apart(self):
        """Nobody reaches anybody."""
        for server in self.cluster:
            self.net.part([server.number])
        for server in self.cluster:
            wait_for(f"{server} serves no more", lambda: server.role() is None, STEP_DOWN)

    def slow(self):
        for server in self.victims():
            self.net.slow(server.number)
        self.served()

    # How it goes, and ends.

    def run(self, seconds):
        """What has to be played, in any order; then anything, as long as there is time."""
        began, pairs = time.monotonic(), self.pairs()
        for name, role in self.random.sample(pairs, len(pairs)):
            self.play(began, getattr(self, name), role)
        while time.monotonic() - began < seconds:
            self.play(began, self.random.choice(self.faults()))
        played = (f"{' '.join(pair)} {count}" for pair, count in sorted(self.tally.items()))
        print(f"   {', '.join(played) or 'no kill, no stop'}", flush=True)
        if missing := [pair for pair in pairs if not self.tally[pair]]:
            raise Failure(f"not played: {missing}")

    def play(self, began, fault, *role):
        at = time.monotonic() - began
        print(f"   {at:6.1f} s  {fault.__name__}", end=" ", flush=True)
        fault(*role)
        self.restore()
        print(flush=True)
        self.rounds += 1

    def finish(self):
        sessions = self.clients.stop()
        trees = []

        def all_gone():
            trees[:] = [read_tree(server.port, SUPER, server.host) for server in self.cluster]
            return not any(path.startswith(EPHEMERALS + "/") for path in trees[0])

        wait_for("the last sessions end", all_gone)
        trees[:] = [read_tree(server.port, SUPER, server.host) for server in self.cluster]
        wrong = []
        for tree, server in zip(trees, self.cluster):
            wrong += [f"{server}: {line}" for line in differences(trees[0], tree)]
            said = [line for line in server.said(0).splitlines() if WRONG.search(line)]
            wrong += [f"{server} says: {line}" for line in said]
        last = {path: (node[0], node[2][4]) for path, node in trees[0].items()}
        slack = (SYNC_LIMIT + 2) * TICK_MS / 1000 + 0.5
        wrong += judge(sessions, last, slack)
        ops = [op for session in sessions for op in session.history]
        if wrong:
            self.keep(ops, wrong)
            raise Failure("\n".join(wrong[:20]))
        return len(ops), sum(op.error == 0 for op in ops), sum(s.moves for s in sessions)

    def keep(self, ops, wrong):
        """Writes down what was told, for those who look for the cause."""
        with open(self.cluster.directory / "history", "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in wrong)
            file.writelines(f"{op}\n" for op in sorted(ops, key=lambda op: op.begin))


def play(settings, name, voters, observers=0, spaces=False):
    seed = f"{settings.seed} {name}"
    kinds = {number: RINGKEEPER for number in range(1, voters + observers + 1)}
    watching = range(voters + 1, voters + observers + 1)
    with network.Network(kinds if spaces else []) if spaces else Nothing() as net:
        place = net.place if spaces else None
        with Cluster(settings, name, kinds, watching, OPTIONS, place) as cluster:
            cluster.start()
            servers = [(server.host, server.port) for server in cluster]
            with Clients(servers, seed) as clients:
                played = Play(cluster, clients, random.Random(seed), net)
                clients.go_on(SERVICE)
                played.run(settings.seconds)
                asked, answered, moves = played.finish()
    waits = sorted(played.waits)
    print(
        f"   {played.rounds} faults; {asked} requests, {answered} answered, {moves} connections; "
        f"all clients work after {waits[len(waits) // 2] if waits else 0:.2f} s, "
        f"{waits[-1] if waits else 0:.2f} s at most"
    )


class Nothing:
    """No network of our own."""

    def __enter__(self):
        return None

    def __exit__(self, *_):
        pass


SCENARIOS = {
    "three": lambda settings: play(settings, "three", 3),
    "five": lambda settings: play(settings, "five", 5),
    "observed": lambda settings: play(settings, "observed", 3, 2),
    "three-parted": lambda settings: play(settings, "three-parted", 3, spaces=True),
    "five-parted": lambda settings: play(settings, "five-parted", 5, spaces=True),
    "observed-parted": lambda settings: play(settings, "observed-parted", 3, 2, spaces=True),
}


def main():
    binary, scratch, budget, seed, *names = sys.argv[1:]
    # The servers have to go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    hashed = base64.b64encode(hashlib.sha1(SUPER.encode()).digest()).decode()
    settings = types.SimpleNamespace(
        binary=binary,
        jars=None,
        scratch=scratch,
        digest=f"super:{hashed}",
        seconds=BUDGETS.get(budget) or float(budget),
        seed=seed,
    )
    refusal = network.refusal()
    passed, failed, skipped = 0, 0, []
    for name, scenario in SCENARIOS.items():
        if names and name not in names:
            continue
        if refusal and name.endswith("-parted"):
            skipped.append(name)
            continue
        print(f"-- {name} (SEED={seed})", flush=True)
        began = time.monotonic()
        try:
            scenario(settings)
            passed += 1
            print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
    print(f"faults: {passed} passed, {failed} failed, {len(skipped)} skipped")
    if skipped:
        print(f"skipped: {', '.join(skipped)}: no network namespaces here: {refusal}")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
