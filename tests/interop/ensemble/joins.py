"""Learners that are slow to synchronize, or that join while much is written."""

import re
import signal
import time

from checks import check, got
from cluster import JAVA, RINGKEEPER, Cluster, Failure, wait_for
from exchange import text
from relay import Relay
from stream import Stream
from wire import SYNC, Pipe

# For so long a learner does not hear what follows its leader's first packet, seconds.
HELD = 4.0
TICK = "tickTime=2000\n"
# How long a sync may take: less than half a tick, after which a leader pings again. And a write,
# where disks and processors are busy.
SYNC_LIMIT, WRITE_LIMIT = 0.7, 2.0

# The tree that is sent while it changes, how fast it does, and how long a learner may take.
FOLDERS = [f"/tree-{number}" for number in range(100)]
PER_SECOND, JOIN_LIMIT = 1000, 30.0
# What a ringkeeper says that leaves its leader since a proposal does not follow the last one.
REFUSED = re.compile(r"a proposal of \S+ behind")


def slow_learner(settings):
    kinds = {1: JAVA, 2: RINGKEEPER, 3: RINGKEEPER}
    with (
        Cluster(settings, "slow-learner", kinds, options=TICK) as cluster,
        Relay(cluster[3].peer_ports[0]) as relay,
    ):
        cluster[1].reach(cluster[3], relay.port)
        cluster.start_led_by(3)
        Pipe(cluster[3].port).create("/written")
        yield "syncs that need a ZooKeeper that joined at once", lambda: depended_on(cluster)
        relay.hold = HELD
        yield "one that joined a leader slowly", lambda: joined_late(cluster)
        yield "one that an election waited for", lambda: elected_late(cluster)


def depended_on(cluster):
    """Of its two followers, the leader has the ZooKeeper alone: syncs and writes need it."""
    if cluster[2].is_running():
        cluster[2].end(signal.SIGKILL)
    leader = cluster.wait_formed()
    with Stream(leader, ["/written"], 250) as stream:
        # The first ones after a member's death may wait for its links to break.
        stream.runs_on(50)
        stream.slowest = 0.0
        syncs = [slowest_sync(server) for server in (leader, cluster[1])]
        stream.runs_on(50)
    print(f"   at most {max(syncs):.3f} s for a sync, {stream.slowest:.3f} s for a write")
    if stream.slowest > WRITE_LIMIT:
        raise Failure(f"a write took {stream.slowest:.1f} s")


def slowest_sync(server, times=10):
    slowest, pipe = 0.0, Pipe(server.port)
    for _ in range(times):
        began = time.monotonic()
        pipe.must(SYNC, text("/"))
        slowest = max(slowest, time.monotonic() - began)
        if slowest > SYNC_LIMIT:
            raise Failure(f"a sync through {server} took {slowest:.1f} s")
    pipe.close()
    return slowest


def joined_late(cluster):
    """A leader that serves gets a learner that takes its time."""
    cluster[2].start()
    cluster.wait_formed()
    cluster[1].end(signal.SIGKILL)
    with Stream(cluster[3], ["/written"], 250) as stream:
        cluster[1].start()
        cluster.wait_formed()
        stream.runs_on(50)
    depended_on(cluster)


def elected_late(cluster):
    """A leader has its quorum only when that learner has come."""
    cluster[1].end(signal.SIGKILL)
    wait_for("the leader serves no more", lambda: cluster[3].role() is None)
    cluster[1].start()
    cluster.wait_formed()
    depended_on(cluster)


def joins_under_writes(settings):
    znodes, joins, back = (40_000, 12, 4) if settings.is_full else (20_000, 4, 1)
    kinds = {1: RINGKEEPER, 2: RINGKEEPER, 3: JAVA}
    with Cluster(settings, "joins-under-writes", kinds) as cluster:
        cluster.start_led_by(3)
        fill(cluster[3], znodes)
        some = [cluster[1 + turn % 2] for turn in range(joins)]
        yield "ringkeepers get a ZooKeeper's tree that changes", lambda: join(cluster, some)
        cluster[3].end(signal.SIGKILL)
        cluster.wait_formed()
        cluster[3].start()
        cluster.wait_formed()
        some = [cluster[3]] * back
        yield "a ZooKeeper gets a ringkeeper's tree that changes", lambda: join(cluster, some)


def fill(server, znodes):
    pipe = Pipe(server.port)
    pipe.create_all([(folder, b"") for folder in FOLDERS])
    each = range(znodes // len(FOLDERS))
    pipe.create_all([(f"{folder}/{n}", b"%d" % n * 10) for n in each for folder in FOLDERS])
    pipe.close()


def join(cluster, learners):
    """One after the other is wiped, and gets the whole tree while it is written to."""
    took = []
    with Stream(cluster.leader(), FOLDERS, PER_SECOND) as stream:
        for learner in learners:
            learner.end(signal.SIGKILL)
            learner.wipe()
            began, before = time.monotonic(), stream.answered
            learner.start()
            wait_for(f"{learner} serves", learner.role, JOIN_LIMIT)
            seconds = time.monotonic() - began
            took.append(f"{seconds:.1f} s ({(stream.answered - before) / seconds:.0f} writes/s)")
            # Enough to be behind all that the tree may have been ahead of.
            stream.runs_on(PER_SECOND // 2)
            got(learner, "SNAP")
            wrong(learner)
    print(f"   joined after {', '.join(took)}")
    check(cluster)
    for learner in set(learners):
        wrong(learner)


def wrong(learner):
    """A learner has noticed nothing wrong, and got the tree once."""
    refused = [line for line in learner.said().splitlines() if REFUSED.search(line)]
    mismatches = learner.metric("zk_digest_mismatches_count")
    if refused or mismatches:
        raise Failure(f"{learner} counts {mismatches} digests that differ; it says {refused}")
