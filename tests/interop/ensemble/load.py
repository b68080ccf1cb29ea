"""Clients that write all the time and remember what was acknowledged to them."""

import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NodeExistsError
from kazoo.handlers.threading import KazooTimeoutError

from cluster import SUPER, Failure, wait_for
from wire import read_tree

WRITERS = 3


class Writer:
    """One client: a znode after the other, and a counter."""

    def __init__(self, hosts, name):
        self.root = f"/load-{name}"
        self.client = KazooClient(hosts=hosts, timeout=20)
        self.client.start(timeout=60)
        self.client.create(self.root, b"0")
        self.acknowledged, self.counter, self.failures = [], 0, 0
        self.stopping = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.stopping:
            number += 1
            path = f"{self.root}/{number:06}"
            try:
                self.client.create_async(path, b"x").get(timeout=30)
                self.acknowledged.append(path)
                self.client.set_async(self.root, b"%d" % number).get(timeout=30)
                self.counter = number
            except NodeExistsError as error:
                raise Failure(f"{path} was never asked for before") from error
            except (KazooException, KazooTimeoutError):
                self.failures += 1
                time.sleep(0.02)

    def finish(self):
        self.stopping = True
        self.thread.join()
        self.client.stop()
        self.client.close()


class Load:
    """Some writers, as long as its `with` lasts."""

    rounds = 0

    def __init__(self, cluster):
        self.cluster = cluster
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster)
        Load.rounds += 1
        self.writers = [Writer(hosts, f"{Load.rounds}-{n}") for n in range(WRITERS)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for writer in self.writers:
            writer.finish()

    def runs_on(self):
        """Waits until each writer has got some more answers."""
        before = [len(writer.acknowledged) for writer in self.writers]
        for writer, had in zip(self.writers, before):
            wait_for(
                f"the writer of {writer.root} goes on",
                lambda: len(writer.acknowledged) >= had + 20,
            )

    def judge(self, servers=None):
        """Everything acknowledged is there, through each server (of these)."""
        for server in servers or self.cluster.running():
            tree = read_tree(server.port, SUPER)
            for writer in self.writers:
                lost = [path for path in writer.acknowledged if path not in tree]
                counter = int(tree[writer.root][0])
                if lost or counter < writer.counter:
                    raise Failure(
                        f"{server} has lost of {len(writer.acknowledged)} acknowledged writes "
                        f"{lost[:5]}; the counter is {counter}, {writer.counter} was acknowledged"
                    )
