"""What the clients do while servers fail: threads of small steps, each with a session of its own."""

import random
import threading
import time
import traceback

from cluster import Failure, wait_for
from session import BAD_VERSION, EPHEMERAL, NO_NODE, SEQUENTIAL, Ended, Lost, Session

ROOT, REGISTERS, QUEUE, EPHEMERALS = "/faults", "/faults/r", "/faults/q", "/faults/e"
REGISTER_COUNT = 5
# Timeouts of sessions that must outlive every fault, and of those that may end.
LONG_MS, BRIEF_MS = 40000, 4000
# Every so many steps a client goes to another server.
MOVES_EVERY = 150


class Worker:
    """One client; `steps` counts what was acknowledged."""

    timeout_ms = LONG_MS

    def __init__(self, name, servers, seed, patience):
        self.name, self.servers = name, servers
        self.random = random.Random(f"{seed} {name}")
        self.patience = patience
        self.sessions, self.steps, self.error = [], 0, None
        # From when on the last step was under way that was acknowledged.
        self.begun = 0.0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def open(self):
        number = len(self.sessions)
        session = Session(
            f"{self.name}.{number}", self.servers, self.random, self.timeout_ms, self.patience
        )
        self.sessions.append(session)
        return session

    def run(self):
        try:
            session = self.open()
            while not self.stopping.is_set():
                begun = time.monotonic()
                try:
                    session = self.step(session) or session
                    self.steps, self.begun = self.steps + 1, begun
                except Lost:
                    pass
                if session.socket and self.random.randrange(MOVES_EVERY) == 0:
                    session.drop()
                # The servers need the processor, too.
                self.stopping.wait(self.random.random() * 0.01)
            self.finish(session)
        except Exception:  # pylint: disable=broad-except
            self.error = traceback.format_exc()

    def step(self, session):
        """One request or a few; another session if this one has ended."""
        raise NotImplementedError

    def finish(self, session):
        """Ends the session."""
        while True:
            try:
                session.close()
                return
            except Lost:
                continue
            except Ended:
                # The request before was heard.
                return


class Registers(Worker):
    """Sets and reads a few znodes that all share."""

    def step(self, session):
        path = f"{REGISTERS}/{self.random.randrange(REGISTER_COUNT)}"
        value = f"{self.name} {self.random.random()}".encode()
        choice = self.random.randrange(10)
        if choice < 4:
            require(session.set(path, value))
        elif choice < 6:
            read = require(session.get(path))
            require(session.set(path, value, read.version), BAD_VERSION)
        elif choice < 8:
            require(session.get(path, watch=self.random.random() < 0.5))
        else:
            require(session.get(path, synced=True))


class Creates(Worker):
    """Creates znodes, numbered by the servers, two at once or with a value, and deletes some."""

    def step(self, session):
        number = f"{self.name}-{self.steps}-{self.random.randrange(1 << 30)}"
        choice = self.random.randrange(10)
        if choice < 4:
            require(session.create(f"{QUEUE}/s-", flags=SEQUENTIAL))
        elif choice < 7:
            require(session.create_both(f"{QUEUE}/{number}-a", f"{QUEUE}/{number}-b"))
        else:
            path = f"{QUEUE}/{number}"
            require(session.create(path, number.encode()))
            if choice == 9:
                require(session.delete(path))


class Owners(Worker):
    """Sessions with an ephemeral, which end by a word, or because nothing is heard of them."""

    timeout_ms = BRIEF_MS

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.until = 0.0

    def step(self, session):
        now = time.monotonic()
        try:
            if session.session == 0 or not session.history:
                self.until = now + self.random.uniform(0.2, BRIEF_MS / 1000)
                session.connect()
                path = f"{EPHEMERALS}/{session.session:016x}"
                require(session.create(path, flags=EPHEMERAL))
            elif now < self.until:
                session.ping()
                self.stopping.wait(self.random.uniform(0.02, 0.2))
            elif self.random.random() < 0.6:
                session.close()
                return self.open()
            else:
                session.drop()
                return self.open()
        except Ended:
            return self.open()
        return None


class Lister(Worker):
    """Looks who is there."""

    def step(self, session):
        require(session.children(EPHEMERALS))
        self.stopping.wait(0.05)


def require(op, *others):
    if op.error != 0 and op.error not in others:
        raise Failure(f"{op} is refused")
    return op


class Clients:
    """All of them, as long as the `with` lasts."""

    def __init__(self, servers, seed):
        self.servers = servers
        self.session = Session("setup", servers, random.Random(seed), LONG_MS)
        for path in (ROOT, REGISTERS, QUEUE, EPHEMERALS):
            require(self.session.create(path))
        for number in range(REGISTER_COUNT):
            require(self.session.create(f"{REGISTERS}/{number}", b"first"))
        kinds = [Registers] * 5 + [Creates] * 2 + [Owners] * 2 + [Lister]
        # Some leave a silent server soon; some wait until it speaks again.
        self.workers = [
            kind(f"{kind.__name__.lower()}{number}", servers, seed, [2.0, 20.0][number % 2])
            for number, kind in enumerate(kinds)
        ]
        for worker in self.workers:
            worker.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self.workers:
            worker.stopping.set()

    def go_on(self, seconds, but=()):
        """Waits until each has been answered something that it began just now."""
        since = time.monotonic()
        for worker in self.workers:
            self.look(worker)
            if worker not in but:
                wait_for(
                    f"{worker.name} goes on (last at {since - worker.begun:.1f} s before)",
                    lambda: self.look(worker) and worker.begun > since,
                    seconds,
                )

    @staticmethod
    def look(worker):
        if worker.error:
            raise Failure(f"{worker.name}: {worker.error}")
        return True

    def patient(self):
        return [worker for worker in self.workers if worker.patience > 10]

    def stop(self):
        """Ends all; what every session went through."""
        for worker in self.workers:
            worker.stopping.set()
        for worker in self.workers:
            worker.thread.join(timeout=120)
            self.look(worker)
            if worker.thread.is_alive():
                raise Failure(f"{worker.name} does not end")
        sessions = [session for worker in self.workers for session in worker.sessions]
        return [self.session, *sessions]
