"""Prints a TCP port of loopback that is free, and stays so for a while.

Not one of those that the system hands out by itself: somebody's outgoing connection could take it
before the server does, or a client that waits for the server could be connected to itself.
"""

import random
import socket

with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
    HANDED_OUT = range(int(file.read().split()[0]), 65536)


def free_port():
    while True:
        port = random.choice(range(10000, max(HANDED_OUT.start, 20000)))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


if __name__ == "__main__":
    print(free_port())
