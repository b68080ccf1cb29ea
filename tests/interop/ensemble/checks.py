"""What has to hold of the servers of an ensemble, whatever was done to it."""

import re

from cluster import JAVA, RINGKEEPER, SUPER, Failure
from wire import differences, read_tree

# What both kinds write when a tree is not what it has to be.
WRONG = re.compile(r"[Dd]igests are not matching|digest mismatch|digest is not the leader's|panicked")
# What each says of how it got the leader's history.
GOT = {
    (JAVA, "DIFF"): "Getting a diff from the leader",
    (JAVA, "SNAP"): "Getting a snapshot from leader",
    (JAVA, "TRUNC"): "Truncating log to get in sync with the leader",
    (RINGKEEPER, "SNAP"): "receiving the leader's tree",
    (RINGKEEPER, "TRUNC"): "cutting the log",
}


def check(cluster, servers=None):
    """The same tree through every server (of these), and nobody has noticed anything wrong."""
    asked = servers or cluster.running()
    trees = [(server, read_tree(server.port, SUPER, server.host)) for server in asked]
    first, wanted = trees[0]
    for server, tree in trees[1:]:
        lines = differences(wanted, tree)
        if lines:
            raise Failure(f"the trees of {first} / {server} differ:\n" + "\n".join(lines))
    for server in cluster:
        wrong = [line for line in server.said(0).splitlines() if WRONG.search(line)]
        if wrong:
            raise Failure(f"{server} says: " + "\n".join(wrong[:5]))
    return wanted


def got(server, how):
    """That a learner got the history in that way, and in no other, since it was started."""
    said = server.said()
    ways = [way for (kind, way), text in GOT.items() if kind == server.kind and text in said]
    if (ways or ["DIFF"]) != [how]:
        raise Failure(f"{server} got the history by {ways or ['DIFF']}, not {how}")
