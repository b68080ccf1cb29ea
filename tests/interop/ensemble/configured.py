"""Ensembles of ringkeepers with settings that change what a leader, a sync or a quorum is."""

import signal
import time

from checks import check
from cluster import RINGKEEPER, Cluster, Failure, wait_for
from exchange import text
from load import Load
from wire import SYNC, Pipe

FAST = "tickTime=200\ninitLimit=50\nsyncLimit=25\n"
# Of three groups, two decide; of the first one's weight, server 1 has the greater part.
GROUPS = "group.1=1:2:3\ngroup.2=4\ngroup.3=5\nweight.1=3\n"


def configured(settings):
    def servers(name, count, options):
        kinds = {number: RINGKEEPER for number in range(1, count + 1)}
        return Cluster(settings, name, kinds, options=FAST + options)

    with servers("no-clients", 3, "leaderServes=no\n") as cluster:
        yield "a leader without clients", lambda: without_clients(cluster)
    with servers("unproven", 3, "ringkeeper.linearizableSync=false\n") as cluster:
        yield "syncs that prove no more than ZooKeeper's", lambda: unproven(cluster)
    with servers("groups", 5, GROUPS) as cluster:
        yield "groups and weights decide", lambda: groups(cluster)


def without_clients(cluster):
    for server in cluster:
        server.start()
    leader, _ = wait_for("all but one follow", lambda: leads(cluster))
    with Load(cluster) as load:
        load.runs_on()
        leader.end(signal.SIGKILL)
        load.runs_on()
        leader.start()
        load.runs_on()
    leader, followers = wait_for("all but one follow", lambda: leads(cluster))
    try:
        Pipe(leader.port)
    except (OSError, EOFError):
        pass
    else:
        raise Failure(f"{leader} leads, and takes clients")
    check(cluster, followers)
    load.judge(followers)


def leads(cluster):
    """The one that does not follow, and those that do; nothing while there are several such."""
    followers = [server for server in cluster if server.role() == "follower"]
    others = [server for server in cluster if server not in followers]
    return (others[0], followers) if len(others) == 1 else None


def unproven(cluster):
    cluster.start()
    with Load(cluster) as load:
        killed_and_back(cluster, load)
    check(cluster)
    load.judge()
    # Nobody tells this leader that it still leads, so long as it need not have noticed.
    leader = cluster.leader()
    pipe = Pipe(leader.port)
    followers = [server for server in cluster if server is not leader]
    for server in followers:
        server.pause()
    pipe.must(SYNC, text("/"))
    for server in followers:
        server.tell(signal.SIGCONT)


def killed_and_back(cluster, load):
    load.runs_on()
    leader = cluster.leader()
    leader.end(signal.SIGKILL)
    load.runs_on()
    leader.start()
    cluster.wait_formed()
    load.runs_on()


def groups(cluster):
    cluster.start()
    with Load(cluster) as load:
        killed_and_back(cluster, load)
        # Three of five, but of one group.
        kill(cluster, 4, 5)
        unserved(cluster)
        cluster[4].start()
        load.runs_on()
        # Three of five and of two groups, but a lesser part of the one.
        kill(cluster, 1)
        unserved(cluster)
        cluster[1].start()
        load.runs_on()
        # Two of five.
        kill(cluster, 2, 3)
        load.runs_on()
        for number in (2, 3, 5):
            cluster[number].start()
        cluster.wait_formed()
    check(cluster)
    load.judge()


def kill(cluster, *numbers):
    for number in numbers:
        cluster[number].end(signal.SIGKILL)


def unserved(cluster):
    """Nobody serves any more, and nobody begins to in the time of several elections."""

    def silent():
        return all(server.role() is None for server in cluster.running())

    wait_for("nobody serves", silent, 10)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        if not silent():
            raise Failure("somebody serves without a quorum")
        time.sleep(0.05)
