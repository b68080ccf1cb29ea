"""Every kind of operation through one server, its effects seen through the others; sessions that
move, end and expire."""

import queue
import struct
import threading
import time

from kazoo import exceptions
from kazoo.client import KazooClient
from kazoo.protocol.states import EventType
from kazoo.security import make_acl, make_digest_acl

from cluster import Failure, wait_for
from exchange import ANYONE, text
from wire import CREATE, CREATE_CONTAINER, CREATE_TTL, Pipe, create_body, syncs_early

PING, EXISTS, EPHEMERALS, ALL_CHILDREN, ADD_WATCH, RECURSIVE = 11, 3, 103, 104, 106, 1
# How long a session may be silent here, and how long ones that have to stay may.
BRIEF_MS, LONG_MS = 2000, 30000


def connect(server, **options):
    client = KazooClient(hosts=f"127.0.0.1:{server.port}", timeout=LONG_MS / 1000, **options)
    client.start(timeout=60)
    client.port = server.port
    return client


def catch_up(client, path):
    """Afterwards the client's server has applied all that was acknowledged anywhere before."""
    if syncs_early("127.0.0.1", client.port):
        refused(exceptions.NoNodeError, client.delete, "/nowhere")
    client.sync(path)


def refused(wanted, ask, *arguments, **options):
    try:
        ask(*arguments, **options)
    except wanted:
        return
    raise Failure(f"{ask.__name__}{arguments} was to be refused: {wanted.__name__}")


def same(found, wanted, what):
    if found != wanted:
        raise Failure(f"{what}: {found!r} in place of {wanted!r}")


def exercise(cluster):
    """All of it through each server that runs."""
    servers = cluster.running()
    keepers = [Keeper(server) for server in servers]
    clients = [connect(server) for server in servers]
    clients[0].ensure_path("/ops")
    for at, server in enumerate(servers):
        there, back = clients[at], clients[(at + 1) % len(clients)]
        root = f"/ops/{len(clients[0].get_children('/ops'))}-{server.number}"
        there.create(root)
        nodes(there, back, root)
        special(server, root)
        refusals(there, root)
        access(server, there, root)
        multis(there, back, root)
        watches(there, back, root)
        recursive_watch(servers[at - 1], there, root)
        ephemerals(server, there, back, root)
    sequences(clients)
    bursts(servers)
    moves(servers)
    ends(servers, clients)
    for keeper in keepers:
        keeper.finish()
    for client in clients:
        client.stop()
        client.close()


def nodes(there, back, root):
    same(there.create(f"{root}/a", b"one"), f"{root}/a", "create")
    path, stat = there.create(f"{root}/b", b"", include_data=True)
    same((path, stat.version, stat.dataLength), (f"{root}/b", 0, 0), "create2")
    same(there.get(f"{root}/a")[0], b"one", "what was created is read")
    stat = there.set(f"{root}/a", b"two")
    same(stat.version, 1, "set")
    same(there.set(f"{root}/a", b"three", version=1).version, 2, "set of a version")
    large = bytes(range(256)) * 400
    there.create(f"{root}/large", large)
    catch_up(back, root)
    same(back.get(f"{root}/a")[0], b"three", "a sync brings what another server was told")
    same(back.get(f"{root}/large")[0], large, "100 KB")
    same(sorted(back.get_children(root)), ["a", "b", "large"], "children")
    back.delete(f"{root}/b", version=0)
    catch_up(there, root)
    same(there.exists(f"{root}/b"), None, "deleted elsewhere")
    _, stat = there.get_children(root, include_data=True)
    same((stat.numChildren, stat.cversion), (2, 4), "the parent's stat")


def special(server, root):
    """What the library does not know."""
    pipe = Pipe(server.port)
    requests = [
        (CREATE, create_body(f"{root}/null", None)),
        (CREATE_CONTAINER, create_body(f"{root}/container", b"", flags=4)),
        (CREATE, create_body(f"{root}/container/child")),
        (CREATE_TTL, create_body(f"{root}/ttl", b"t", flags=5) + struct.pack(">q", 3_600_000)),
        (CREATE, create_body(f"{root}/größe-✓", "✓".encode())),
        (CREATE, create_body(f"{root}/ephemeral", flags=1)),
        (EPHEMERALS, text(root)),
        (ALL_CHILDREN, text(root)),
    ]
    replies = pipe.ask_all(requests)
    same([error for error, _, _ in replies], [0] * len(requests), "errors of special requests")
    wanted = struct.pack(">i", 1) + text(f"{root}/ephemeral")
    same(replies[-2][2], wanted, "the session's ephemerals")
    same(replies[-1][2], struct.pack(">i", 8), "all children")
    zxids = [zxid for _, zxid, _ in replies[:-2]]
    if zxids != sorted(set(zxids)):
        raise Failure(f"pipelined writes get zxids {zxids}")
    pipe.close()


def refusals(there, root):
    refused(exceptions.NodeExistsError, there.create, f"{root}/a")
    refused(exceptions.NoNodeError, there.create, f"{root}/no/child")
    refused(exceptions.NoNodeError, there.delete, f"{root}/no")
    refused(exceptions.NoNodeError, there.set, f"{root}/no", b"")
    refused(exceptions.NoNodeError, there.get, f"{root}/no")
    refused(exceptions.NotEmptyError, there.delete, root)
    refused(exceptions.BadVersionError, there.set, f"{root}/a", b"", version=7)
    refused(exceptions.BadVersionError, there.delete, f"{root}/a", version=7)
    refused(exceptions.InvalidACLError, there.create, f"{root}/acl", b"", acl=[make_acl("x", "y")])


def access(server, there, root):
    mine = [make_digest_acl("alice", "secret", all=True)]
    there.create(f"{root}/closed", b"hidden", acl=mine)
    refused(exceptions.NoAuthError, there.get, f"{root}/closed")
    refused(exceptions.NoAuthError, there.set, f"{root}/closed", b"")
    alice = connect(server, auth_data=[("digest", "alice:secret")])
    same(alice.get(f"{root}/closed")[0], b"hidden", "alice reads")
    acl, stat = alice.get_acls(f"{root}/closed")
    same((acl, stat.aversion), (mine, 0), "access list")
    refused(exceptions.BadVersionError, alice.set_acls, f"{root}/closed", mine, version=3)
    read_only = [make_acl("world", "anyone", read=True)]
    same(alice.set_acls(f"{root}/closed", read_only, version=0).aversion, 1, "set access list")
    same(there.get(f"{root}/closed")[0], b"hidden", "now everybody reads")
    refused(exceptions.NoAuthError, there.set, f"{root}/closed", b"")
    alice.stop()
    alice.close()


def multis(there, back, root):
    batch = there.transaction()
    batch.create(f"{root}/m", b"1")
    batch.set_data(f"{root}/m", b"2")
    batch.check(f"{root}/m", 1)
    batch.create(f"{root}/m/s-", b"", sequence=True)
    batch.create(f"{root}/gone")
    batch.delete(f"{root}/gone")
    results = batch.commit()
    same(results[0], f"{root}/m", "multi: create")
    same(results[3], f"{root}/m/s-0000000000", "multi: sequential create")
    same(results[-1], True, "multi: delete")
    batch = there.transaction()
    batch.create(f"{root}/never", b"1")
    batch.check(f"{root}/m", 77)
    batch.delete(f"{root}/m")
    kinds = [type(result) for result in batch.commit()]
    wanted = [exceptions.RolledBackError, exceptions.BadVersionError]
    same(kinds, wanted + [exceptions.RuntimeInconsistency], "a multi that fails")
    catch_up(back, root)
    same(back.exists(f"{root}/never"), None, "what a failed multi has created")
    same(back.get(f"{root}/m")[0], b"2", "what a failed multi has deleted")


def watches(there, back, root):
    """Watches at one server, changes through another."""
    events = queue.Queue()
    catch_up(back, root)
    back.get(f"{root}/a", watch=events.put)
    there.set(f"{root}/a", b"seen")
    next_event(events, EventType.CHANGED, f"{root}/a")
    same(back.exists(f"{root}/later", watch=events.put), None, "not there yet")
    there.create(f"{root}/later")
    next_event(events, EventType.CREATED, f"{root}/later")
    back.get_children(root, watch=events.put)
    back.exists(f"{root}/later", watch=events.put)
    there.delete(f"{root}/later")
    next_event(events, EventType.DELETED, f"{root}/later")
    next_event(events, EventType.CHILD, root)
    if not events.empty():
        raise Failure(f"an event too many: {events.get()}")


def recursive_watch(other, there, root):
    """The library has none."""
    pipe = Pipe(other.port)
    pipe.sync()
    pipe.must(ADD_WATCH, text(root) + struct.pack(">i", RECURSIVE))
    there.create(f"{root}/w", b"")
    there.create(f"{root}/w/x", b"")
    there.set(f"{root}/w/x", b"1")
    there.delete(f"{root}/w/x")
    for kind, path in [(1, "w"), (1, "w/x"), (3, "w/x"), (2, "w/x")]:
        event = pipe.receive()
        xid, _, _, found, _ = struct.unpack(">iqiii", event[:24])
        same((xid, found, event[28:].decode()), (-1, kind, f"{root}/{path}"), "recursive watch")
    pipe.close()


def next_event(events, kind, path):
    try:
        event = events.get(timeout=30)
    except queue.Empty as error:
        raise Failure(f"no event: {kind} {path}") from error
    same((event.type, event.path), (kind, path), "event")


def ephemerals(server, there, back, root):
    owner = connect(server)
    path = owner.create(f"{root}/e-", b"mine", ephemeral=True, sequence=True)
    refused(exceptions.NoChildrenForEphemeralsError, there.create, f"{path}/child")
    catch_up(back, root)
    events = queue.Queue()
    stat = back.exists(path, watch=events.put)
    same(stat.ephemeralOwner, owner.client_id[0], "who owns an ephemeral")
    owner.stop()
    owner.close()
    next_event(events, EventType.DELETED, path)


def sequences(clients):
    """The numbers of one parent come in order, whichever server hands them out."""
    root = f"/seq-{len(clients[0].get_children('/'))}"
    clients[0].create(root)
    for number in range(12):
        path = clients[number % len(clients)].create(f"{root}/n-", sequence=True)
        same(path, f"{root}/n-{number:010}", "sequence")


def bursts(servers):
    """Everybody writes at once, without waiting for answers one by one."""
    pipes = [Pipe(server.port) for server in servers]
    root = f"/burst-{pipes[0].session:x}"
    pipes[0].create(root)
    failures = []

    def burst(pipe):
        try:
            pipe.sync()
            mine = f"{root}/{pipe.session:x}"
            pipe.create_all([(mine, b"")])
            pipe.create_all([(f"{mine}/{n}", b"%d" % n * (n % 50)) for n in range(300)])
            requests = [(CREATE, create_body(f"{root}/s-", b"", ANYONE, 2)) for _ in range(100)]
            same({error for error, _, _ in pipe.ask_all(requests)}, {0}, "sequential burst")
        except Exception as error:  # pylint: disable=broad-except
            failures.append(repr(error))

    threads = [threading.Thread(target=burst, args=(pipe,)) for pipe in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(failures, [], "failures of bursts")
    for pipe in pipes:
        pipe.close()


def exists(pipe, path):
    return pipe.ask(EXISTS, text(path) + b"\0")[0] == 0


def moves(servers):
    """A session goes from each server to the next, with its ephemeral."""
    pipe = Pipe(servers[0].port)
    path = f"/moving-{pipe.session:x}"
    pipe.create(path, flags=1)
    for server in servers[1:] + servers[:1]:
        pipe.socket.close()
        moved = Pipe(server.port, pipe.session, pipe.password)
        same((moved.session, moved.password), (pipe.session, pipe.password), f"moved to {server}")
        moved.sync()
        same(exists(moved, path), True, "the ephemeral of a session that moves")
        pipe = moved
    for server in servers:
        stranger = Pipe(server.port, pipe.session, b"wrong password!!")
        same((stranger.session, stranger.timeout), (0, 0), f"a wrong password at {server}")
    # A ZooKeeper closes the session's connection before it looks at the password.
    pipe.socket.close()
    Pipe(servers[0].port, pipe.session, pipe.password).close()
    for server in servers:
        # A ZooKeeper that hears of the end only now closes the connection without an answer.
        other = Pipe(server.port)
        other.sync()
        other.close()
        late = Pipe(server.port, pipe.session, pipe.password)
        same((late.session, late.timeout), (0, 0), f"a session that was closed, at {server}")


def ends(servers, clients):
    """Sessions that go silent expire, and everybody sees it."""
    paths, began = [], time.monotonic()
    for server in servers:
        silent = Pipe(server.port, timeout_ms=BRIEF_MS)
        paths.append(f"/silent-{silent.session:x}")
        silent.create(paths[-1], flags=1)
        silent.socket.close()
    for client in clients:
        catch_up(client, "/")
    if time.monotonic() - began < BRIEF_MS / 1000:
        same([path for path in paths if not clients[0].exists(path)], [], "expired too early")
    for client in clients:
        for path in paths:
            wait_for(f"{path} expires", lambda: client.exists(path) is None, 30)


class Keeper:
    """A session that only pings, for longer than its timeout: its server has to tell the leader."""

    def __init__(self, server):
        self.server = server
        self.pipe = Pipe(server.port, timeout_ms=BRIEF_MS * 2)
        self.path = f"/kept-{self.pipe.session:x}"
        self.pipe.create(self.path, flags=1)
        self.until = time.monotonic() + BRIEF_MS * 2.5 / 1000
        self.failure = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.done.is_set() or time.monotonic() < self.until:
                self.pipe.send(struct.pack(">ii", -2, PING))
                self.pipe.receive()
                time.sleep(0.2)
        except (OSError, EOFError) as error:
            self.failure = repr(error)

    def finish(self):
        self.done.set()
        self.thread.join()
        same(self.failure, None, f"a session at {self.server} that pings")
        same(exists(self.pipe, self.path), True, "its ephemeral")
        self.pipe.close()
