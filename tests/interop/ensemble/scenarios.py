"""What is played with ensembles of both kinds of servers."""

import contextlib
import signal
import struct

from checks import check, got
from cluster import JAVA, RINGKEEPER, SUPER, Cluster, Failure, wait_for
from configured import configured, killed_and_back
from exchange import text
from joins import joins_under_writes, slow_learner
from load import Load
from operations import exercise
from wire import CREATE, GET_DATA, SET_DATA, SYNC, Pipe, create_body, read_tree


def write(server, prefix, count, data=b"x"):
    pipe = Pipe(server.port)
    pipe.create_all([(f"{prefix}-{number}", data) for number in range(count)])
    pipe.close()


def behind(cluster, follower):
    """A follower that has missed some hundred writes gets these alone."""
    follower.end()
    leader = cluster.wait_formed()
    write(leader, f"/missed-{len(read_tree(leader.port, SUPER))}", 300)
    follower.start()
    cluster.wait_formed()
    check(cluster)
    got(follower, "DIFF")


def wiped(cluster, follower):
    """A follower without data gets a tree of everything."""
    leader = cluster.leader()
    pipe = Pipe(leader.port)
    root = f"/full-{pipe.session:x}"
    pipe.create_all([(root, b"")])
    nodes = [(f"{root}/{n}", [b"%d" % n, b"", None][n % 3]) for n in range(3000)]
    pipe.create_all(nodes + [(f"{root}/large", bytes(range(256)) * 400)])
    acls = [[(31, "digest", f"user{n}:hash"), (1, "world", "anyone")] for n in range(50)]
    requests = [(CREATE, create_body(f"{root}/a{n}", b"", acl)) for n, acl in enumerate(acls)]
    requests += [(CREATE, create_body(f"{root}/e{n}", b"", flags=1)) for n in range(50)]
    errors = {error for error, _, _ in pipe.ask_all(requests)}
    if errors != {0}:
        raise Failure(f"filling the tree: {errors}")
    follower.end()
    follower.wipe()
    follower.start()
    cluster.wait_formed()
    check(cluster)
    got(follower, "SNAP")
    # The session goes on at the server that has just heard of it.
    pipe.socket.close()
    moved = Pipe(follower.port, pipe.session, pipe.password)
    if moved.session != pipe.session:
        raise Failure(f"{follower} does not know a session of the tree that it was sent")
    moved.close()
    tree = check(cluster)
    left = [path for path in tree if path.startswith(f"{root}/e")]
    if left:
        raise Failure(f"the session is closed, its ephemerals are there: {left[:5]}")


def overruled(cluster):
    """A leader dies with writes that nobody else has: they are gone."""
    leader = cluster.leader()
    others = [server for server in cluster.running() if server is not leader]
    write(leader, "/before", 20)
    pipe = Pipe(leader.port)
    for server in others:
        server.pause()
    pipe.tell_all([(CREATE, create_body(f"/unheard-{n}")) for n in range(50)])
    wait_for("the leader logs", lambda: leader.logged("/unheard-49"), 20)
    # What waits in the others' sockets must not reach them either.
    for server in [leader, *others]:
        server.end(signal.SIGKILL)
    for server in others:
        server.start()
    # Where the next history goes on in another epoch, no log is cut: a tree is sent.
    cluster.wait_formed()
    leader.start()
    write(cluster.wait_formed(), "/after", 20)
    tree = check(cluster)
    got(leader, "TRUNC")
    kept = [path for path in tree if path.startswith("/unheard")]
    found = sum(path.startswith(("/before-", "/after-")) for path in tree)
    if kept or found != 40:
        raise Failure(f"{kept[:5]} are there; of 40 others, {found}")


def led_by_ringkeeper(settings):
    kinds = {1: JAVA, 2: JAVA, 3: RINGKEEPER}
    with Cluster(settings, "led-by-ringkeeper", kinds) as cluster:
        cluster.start_led_by(3)
        yield "ringkeeper leads two of ZooKeeper: everything through each", lambda: played(cluster)
        yield "one of ZooKeeper that missed writes gets them", lambda: behind(cluster, cluster[1])
        yield "one of ZooKeeper without data gets the tree", lambda: wiped(cluster, cluster[1])
        yield "a ringkeeper that led, cut back", lambda: overruled(cluster)


def led_by_java(settings):
    kinds = {1: JAVA, 2: JAVA, 3: RINGKEEPER}
    with Cluster(settings, "led-by-java", kinds) as cluster:
        cluster.start_led_by(2)
        yield "ringkeeper follows a ZooKeeper: everything through each", lambda: played(cluster)
        yield "a ringkeeper that missed writes gets them", lambda: behind(cluster, cluster[3])
        yield "a ringkeeper without data gets the tree", lambda: wiped(cluster, cluster[3])
        yield "a ZooKeeper that led, cut back", lambda: overruled(cluster)


def played(cluster):
    exercise(cluster)
    check(cluster)


def killed(cluster, wanted):
    """The leader dies again and again under load."""
    with Load(cluster) as load:
        for _ in range(wanted):
            killed_and_back(cluster, load)
    check(cluster)
    load.judge()


def ringkeeper_observes(settings):
    kinds = {1: JAVA, 2: JAVA, 3: RINGKEEPER}
    with Cluster(settings, "ringkeeper-observes", kinds, observers=[3]) as cluster:
        cluster.start_led_by(2)
        yield "ringkeeper observes two of ZooKeeper", lambda: played(cluster)
        yield "an observing ringkeeper without data", lambda: wiped(cluster, cluster[3])
        yield "an observing ringkeeper that missed writes", lambda: behind(cluster, cluster[3])


def java_observes(settings):
    kinds = {1: RINGKEEPER, 2: RINGKEEPER, 3: JAVA}
    with Cluster(settings, "java-observes", kinds, observers=[3]) as cluster:
        cluster.start_led_by(2)
        yield "a ZooKeeper observes two ringkeepers", lambda: played(cluster)
        yield "an observing ZooKeeper without data", lambda: wiped(cluster, cluster[3])
        yield "an observing ZooKeeper that missed writes", lambda: behind(cluster, cluster[3])


def rolling(settings):
    kinds = {1: JAVA, 2: JAVA, 3: JAVA}
    with Cluster(settings, "rolling", kinds) as cluster:
        cluster.start()
        yield "from ZooKeeper to ringkeeper under load", lambda: roll(cluster, RINGKEEPER)
        yield "three ringkeepers: everything through each", lambda: played(cluster)
        yield "and back to ZooKeeper under load", lambda: roll(cluster, JAVA)
        yield "three of ZooKeeper again: everything through each", lambda: played(cluster)


def roll(cluster, kind):
    """Each server becomes one of the other kind, with its data; clients work on."""
    with Load(cluster) as load:
        for server in cluster:
            load.runs_on()
            server.end()
            if kind == RINGKEEPER:
                server.tool("import")
            else:
                server.tool("export", "--in-place")
            server.kind = kind
            server.start()
            cluster.wait_formed()
            load.runs_on()
    check(cluster)
    load.judge()


def killed_leaders(settings):
    kinds = {1: RINGKEEPER, 2: JAVA, 3: RINGKEEPER}
    with Cluster(settings, "killed-ringkeeper", kinds) as cluster:
        cluster.start()
        yield "leaders are killed under load, two ringkeepers", lambda: killed(cluster, 4)
    kinds = {1: JAVA, 2: RINGKEEPER, 3: JAVA}
    with Cluster(settings, "killed-java", kinds) as cluster:
        cluster.start()
        yield "leaders are killed under load, two of ZooKeeper", lambda: killed(cluster, 4)


def paused_leaders(settings):
    kinds = {number: RINGKEEPER for number in range(1, 4)}
    options = "tickTime=200\ninitLimit=50\nsyncLimit=5\n"
    with Cluster(settings, "paused-leaders", kinds, options=options) as cluster:
        cluster.start()
        yield "no sync at a leader that was left tells of before", lambda: left(cluster, 5)


def left(cluster, times):
    """A leader stands still until there is another. What a client has asked it for meanwhile, it
    finds when it goes on, and it may not know yet that it leads no more."""
    for number in range(times):
        leader = cluster.wait_formed()
        others = [server for server in cluster if server is not leader]
        path = f"/left-{number}"
        pipe = Pipe(leader.port)
        pipe.create(path, b"before")
        leader.pause()
        roles = lambda: {server.role() for server in others}
        wait_for("another leads", lambda: roles() == {"leader", "follower"})
        writer = Pipe(others[0].port)
        writer.must(SET_DATA, text(path) + text(b"after") + struct.pack(">i", -1))
        writer.close()
        pipe.tell_all([(SYNC, text("/")), (GET_DATA, text(path) + b"\0")])
        leader.tell(signal.SIGCONT)
        with contextlib.suppress(EOFError, ConnectionError):
            pipe.receive()
            if b"before" in pipe.receive():
                raise Failure(f"{leader} answers a sync, and does not know what came before")
    cluster.wait_formed()
    check(cluster)


SMALL = [led_by_ringkeeper, led_by_java, slow_learner, joins_under_writes]
SMALL += [configured, paused_leaders]
FULL = [*SMALL, ringkeeper_observes, java_observes, rolling, killed_leaders]
