"""Judges what clients were told: see `judge`.

Every set writes a value of its own, so what a read shows says which set it has seen; and versions
say in which order sets took effect. A write that was lost leaves its version to another.
"""

import collections

from clients import BRIEF_MS, EPHEMERALS, QUEUE, REGISTERS
from session import UNKNOWN


def judge(sessions, tree, slack):
    """What is wrong, a line each.

    `tree` is what all servers hold at the end, value and version by path; `slack` is for how many
    seconds a server may answer pings that its leader does not hear of.
    """
    wrong = [line for session in sessions for line in session.wrong]
    ops = [op for session in sessions for op in session.history]
    writes = [op for op in ops if op.error == 0 and op.changed and op.kind != "get"]
    wrong += order(writes)
    by_path = collections.defaultdict(list)
    for op in ops:
        by_path[op.path].append(op)
    for path, here in by_path.items():
        if path.startswith(REGISTERS + "/"):
            wrong += register(path, here, tree)
        elif path.startswith(QUEUE + "/"):
            wrong += present(path, here, tree)
    wrong += sequence(writes)
    wrong += pairs(ops, tree)
    for session in sessions:
        wrong += own_order(session)
    return wrong + ephemerals(sessions, ops, tree, slack)


def order(writes):
    """Whatever was asked for after an acknowledgement has the higher zxid."""
    wrong, latest, before = [], None, None
    # The parts of one transaction have the same.
    for op in sorted(writes, key=lambda op: (op.zxid, op.begin)):
        is_other = before and (before.client, before.begin) != (op.client, op.begin)
        if is_other and before.zxid == op.zxid:
            wrong.append(f"one zxid twice: {before} {op}")
        if latest and op.end < latest.begin:
            wrong.append(f"acknowledged before another began, but ordered after it: {op} {latest}")
        if not latest or op.begin > latest.begin:
            latest = op
        before = op
    return wrong


def register(path, ops, tree):
    """One znode that is set and read: an order of sets that agrees with all that was told."""
    wrong, values, versions = [], {0: b"first"}, {b"first": 0}
    refused = {op.value for op in ops if op.kind == "set" and op.error not in (0, UNKNOWN)}
    told = [op for op in ops if op.error == 0 and op.kind in ("set", "get")]
    final_value, final_version = tree.get(path, (None, -1))
    seen = [(op.version, op.value, op) for op in told]
    for version, value, op in [*seen, (final_version, final_value, "the end")]:
        if values.setdefault(version, value) != value:
            wrong.append(f"{path}: version {version} is {values[version]!r} and {value!r}: {op}")
        if versions.setdefault(value, version) != version:
            wrong.append(f"{path}: {value!r} is version {versions[value]} and {version}: {op}")
        if value in refused:
            wrong.append(f"{path}: {value!r} was refused, and is there: {op}")
        if version > final_version:
            wrong.append(f"{path}: version {version} is gone, {final_version} is there: {op}")
    sets = sorted((op for op in told if op.kind == "set"), key=lambda op: op.changed)
    for one, other in zip(sets, sets[1:]):
        if one.version >= other.version:
            wrong.append(f"{path}: versions go back: {one} {other}")
    gets = [op for op in told if op.kind == "get"]
    return wrong + reads(path, sets, gets) + one_server(path, told)


def reads(path, sets, gets):
    """Reads behind a sync see all that was acknowledged before; others, all that their zxid says."""
    wrong = []
    latest, waiting = 0, sorted(sets, key=lambda op: op.end, reverse=True)
    for get in sorted((op for op in gets if op.synced), key=lambda op: op.begin):
        while waiting and waiting[-1].end < get.begin:
            latest = max(latest, waiting.pop().version)
        if get.version < latest:
            wrong.append(f"{path}: behind a sync, version {latest} is not seen: {get}")
    latest, waiting = 0, sets[::-1]
    for get in sorted(gets, key=lambda op: op.zxid):
        while waiting and waiting[-1].changed <= get.zxid:
            latest = waiting.pop().version
        if get.version < latest or get.changed > get.zxid:
            wrong.append(f"{path}: what zxid {get.zxid:#x} has is not what is read: {get}")
    return wrong


def one_server(path, told):
    """What one client of a server was told, no other client of it is answered from before."""
    wrong = []
    for server in {op.server for op in told}:
        here = [op for op in told if op.server == server]
        latest, waiting = 0, sorted(here, key=lambda op: op.end, reverse=True)
        for op in sorted(here, key=lambda op: op.begin):
            while waiting and waiting[-1].end < op.begin:
                latest = max(latest, waiting.pop().version)
            if op.version < latest:
                wrong.append(f"{path}: another client of {server} has seen {latest}: {op}")
    return wrong


def own_order(session):
    """A session never sees less than it has seen or done, whichever server it asks."""
    wrong, least = [], collections.Counter()
    for op in session.history:
        if op.error == 0 and op.kind in ("set", "get"):
            if op.version < least[op.path]:
                wrong.append(f"{op.client} has seen version {least[op.path]}: {op}")
            least[op.path] = max(least[op.path], op.version)
    return wrong


def present(path, ops, tree):
    """One znode that was created, and perhaps deleted."""
    created = any(op.kind == "create" and op.error == 0 for op in ops)
    deletes = [op for op in ops if op.kind == "delete"]
    if any(op.error == 0 for op in deletes) and path in tree:
        return [f"{path} was deleted, and is there: {ops}"]
    if created and not deletes and path not in tree:
        return [f"{path} was created, and is not there: {ops}"]
    return []


def sequence(writes):
    """Numbers that the servers give come in the order of zxids."""
    made = [op for op in writes if op.kind == "create" and op.path.startswith(f"{QUEUE}/s-")]
    names = [op.path for op in sorted(made, key=lambda op: op.zxid)]
    if names != sorted(set(names)):
        return [f"numbers out of order: {names}"]
    return []


def pairs(ops, tree):
    """What one transaction makes is there as a whole, even when nobody was told."""
    wrong = []
    for op in ops:
        if op.kind == "create" and op.path.endswith("-a"):
            other = op.path[:-1] + "b"
            if (op.path in tree) != (other in tree):
                wrong.append(f"of {op.path} and {other} there is one: {op}")
    return wrong


def ephemerals(sessions, ops, tree, slack):
    """They are there as long as their session is, and no longer."""
    left = [path for path in tree if path.startswith(EPHEMERALS + "/")]
    wrong = [f"{path} has outlived its session" for path in left]
    lists = [op for op in ops if op.kind == "children" and op.error == 0 and op.synced]
    for session in sessions:
        made = [op for op in session.history if op.kind == "create" and op.error == 0]
        made = [op for op in made if op.path.startswith(EPHEMERALS + "/")]
        if not made:
            continue
        told = [op for op in session.history if op.error == 0 and op.kind != "close"]
        closes = [op for op in session.history if op.kind == "close"]
        ends = max(op.begin for op in told) + BRIEF_MS / 1000 - slack
        ends = min([ends] + [op.begin for op in closes])
        gone = min([op.end for op in closes if op.error == 0], default=float("inf"))
        name = f"{made[0].session:016x}"
        if session.ended < ends:
            wrong.append(f"{name} has ended {ends - session.ended:.3f} s too early")
        for op in lists:
            if made[0].end < op.begin and op.end < ends and name not in op.value:
                wrong.append(f"{name} is not there {ends - op.end:.3f} s before its end: {op}")
            if op.begin > gone and name in op.value:
                wrong.append(f"{name} is there {op.begin - gone:.3f} s after its end")
    return wrong
