"""A network namespace for each server, on one bridge: links that lose what goes one way, are slow,
or are whole again.

Packets get lost by giving their destination a hardware address that nobody has: no firewall is
needed, both ends keep their connections, and nobody is told.
"""

import os
import subprocess

NOBODY = "02:00:00:00:00:01"
DEVICE = "eth0"
# Where there is no netem, a slow link is one of little rate, on which packets wait for each other.
SLOW = [
    ["netem", "delay", "30ms", "20ms"],
    ["tbf", "rate", "2mbit", "burst", "3000", "limit", "1000000"],
]


class Refused(Exception):
    """The system did not do what a command asked for; says which, and why."""


def run(*words):
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise Refused(f"{' '.join(words)}: {done.stderr.strip()}")


def refusal():
    """Why there can be no namespaces here; nothing if there can."""
    try:
        with Network([1]):
            return None
    except FileNotFoundError:
        return "there is no program 'ip' (package iproute2)"
    except Refused as error:
        return str(error)


class Network:
    """Namespaces by number, as long as the `with` lasts. We are on the bridge ourselves."""

    def __init__(self, numbers):
        self.numbers = list(numbers)
        self.bridge = f"rkb{os.getpid()}"
        # A range meant for tests of networks, so that it is nobody's.
        self.net = f"198.18.{os.getpid() % 250}"

    def __enter__(self):
        try:
            run("ip", "link", "add", self.bridge, "type", "bridge")
            run("ip", "addr", "add", f"{self.net}.254/24", "dev", self.bridge)
            run("ip", "link", "set", self.bridge, "up")
            for number in self.numbers:
                self.add(number)
        except BaseException:
            self.__exit__()
            raise
        return self

    def add(self, number):
        name = self.name(number)
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", DEVICE, "netns", name)
        run("ip", "link", "set", name, "master", self.bridge, "up")
        run("ip", "-n", name, "addr", "add", f"{self.host(number)}/24", "dev", DEVICE)
        run("ip", "-n", name, "link", "set", DEVICE, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")

    def __exit__(self, *_):
        # Whatever was made. A namespace takes its links with it, but only some time after its
        # name is free: the next network of that name would find them. So they go first.
        for number in self.numbers:
            subprocess.run(["ip", "link", "del", self.name(number)], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", self.name(number)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)

    def name(self, number):
        """Of a namespace, and of the end of its link that is on the bridge."""
        return f"{self.bridge}-{number}"

    def host(self, number):
        return f"{self.net}.{number}"

    def place(self, server):
        """Has a server live in its namespace."""
        server.host = self.host(server.number)
        server.enter = ["ip", "netns", "exec", self.name(server.number)]

    def lose(self, source, destination):
        """What one sends to the other does not arrive."""
        where = [self.host(destination), "lladdr", NOBODY, "dev", DEVICE, "nud", "permanent"]
        run("ip", "-n", self.name(source), "neigh", "replace", *where)

    def part(self, group):
        """Cuts a group of servers off from all others, both ways."""
        for one in group:
            for other in self.numbers:
                if other not in group:
                    self.lose(one, other)
                    self.lose(other, one)

    def slow(self, number):
        for discipline in SLOW:
            try:
                words = ["tc", "-n", self.name(number), "qdisc", "replace", "dev", DEVICE, "root"]
                run(*words, *discipline)
                return
            except Refused:
                continue

    def heal(self):
        """All links are whole, and as fast as they can be."""
        for number in self.numbers:
            name = self.name(number)
            run("ip", "-n", name, "neigh", "flush", "dev", DEVICE, "nud", "permanent")
            # Fails where there is none.
            words = ["tc", "-n", name, "qdisc", "del", "dev", DEVICE, "root"]
            subprocess.run(words, capture_output=True, check=False)
