"""Writes to one server at a steady rate, with the time of the slowest answer."""

import random
import struct
import threading
import time

from cluster import Failure, wait_for
from exchange import text
from wire import CREATE, DELETE, SET_DATA, Pipe, create_body

# So many requests are sent at once.
BATCH = 25


class Stream:
    """One client that changes the children of `folders` all the time, as long as its `with` lasts:
    it sets, creates and deletes. The next batch is sent when the last one is answered."""

    def __init__(self, server, folders, per_second):
        self.server, self.folders, self.per_second = server, folders, per_second
        self.pipe = Pipe(server.port)
        self.answered, self.slowest, self.failure = 0, 0.0, None
        self.random, self.made = random.Random(per_second), []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def run(self):
        due = time.monotonic()
        try:
            while not self.ended.is_set():
                began = time.monotonic()
                errors = {error for error, _, _ in self.pipe.ask_all(self.batch())}
                if errors != {0}:
                    raise Failure(f"writes at {self.server}: errors {errors}")
                now = time.monotonic()
                self.slowest = max(self.slowest, now - began)
                self.answered += BATCH
                # What it could not send in time is left out.
                due = max(due + BATCH / self.per_second, now)
                self.ended.wait(due - now)
            self.pipe.close()
        except Exception as error:  # pylint: disable=broad-except
            self.failure = repr(error)

    def batch(self):
        requests = []
        for number in range(self.answered, self.answered + BATCH):
            folder = self.random.choice(self.folders)
            if number % 5 == 0 and len(self.made) > 50:
                path = self.made.pop(self.random.randrange(len(self.made)))
                requests.append((DELETE, text(path) + struct.pack(">i", -1)))
            elif number % 5 < 3:
                self.made.append(f"{folder}/{self.pipe.session:x}-{number}")
                requests.append((CREATE, create_body(self.made[-1], b"%d" % number)))
            else:
                data = text(b"%d" % number)
                requests.append((SET_DATA, text(folder) + data + struct.pack(">i", -1)))
        return requests

    def runs_on(self, count):
        """Waits until so many more writes are acknowledged."""
        wanted = self.answered + count
        wait_for("writes go on", lambda: self.failure or self.answered >= wanted, 30)
        if self.failure:
            raise Failure(f"writes at {self.server}: {self.failure}")
