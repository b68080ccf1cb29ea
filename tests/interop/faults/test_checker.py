"""The checker finds what is planted: a checker that can't fail proves nothing."""

import random

from checker import judge
from clients import EPHEMERALS, QUEUE, REGISTERS
from session import BAD_VERSION, UNKNOWN, Op, Session

PATH = f"{REGISTERS}/0"


def session(name, *ops):
    made = Session(name, [("here", 1)], random.Random(0))
    made.history = list(ops)
    return made


def op(kind, begin, end, **more):
    made = Op("someone", 7, kind, PATH, begin, end, error=0)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def write(begin, end, version, zxid, **more):
    values = {"value": b"v%d" % version, "changed": zxid, "zxid": zxid, "server": 1, **more}
    return op("set", begin, end, version=version, **values)


def read(begin, end, version, zxid, **more):
    values = {"value": b"v%d" % version, "zxid": zxid, "server": 1, **more}
    return op("get", begin, end, version=version, **values)


def create(begin, end, path, zxid, **more):
    return op("create", begin, end, path=path, zxid=zxid, changed=zxid, **more)


def there(version=2):
    return {PATH: (b"v%d" % version, version)}


# What is told, a list of requests for each session; what is there at the end; and what is found,
# or nothing. Of two sets, the second follows the first.
ONE, TWO = write(1, 2, 1, 11), write(3, 4, 2, 12)
OWNED = f"{EPHEMERALS}/{7:016x}"
OWNER = [create(1, 2, OWNED, 5), op("ping", 6, 7, path=""), op("close", 8, 9, path="")]
CASES = [
    ([[ONE, TWO], [read(2.5, 2.6, 1, 11, synced=True), read(5, 6, 2, 12)]], there(), None),
    ([[ONE, write(3, 4, 3, 12)]], there(3), None),
    ([[ONE, TWO]], there(1), "is gone"),
    ([[ONE, TWO]], {}, "is gone"),
    ([[ONE, write(3, 4, 1, 12, value=b"other")]], there(1), "version 1 is"),
    ([[ONE, write(3, 4, 2, 10)]], there(), "ordered after"),
    ([[ONE, write(3, 4, 2, 11)]], there(), "one zxid twice"),
    ([[ONE, TWO], [read(5, 6, 1, 12)]], there(), "is not what is read"),
    ([[ONE, TWO], [read(5, 6, 1, 11, synced=True, server=2)]], there(), "behind a sync"),
    ([[ONE, TWO], [read(5, 6, 1, 11, server=1)]], there(), "another client of"),
    ([[ONE, TWO], [read(5, 6, 1, 11, server=2)]], there(), None),
    ([[ONE, TWO, read(5, 6, 1, 11, server=2)]], there(), "has seen version 2"),
    ([[ONE, TWO], [read(5, 6, 2, 12, value=b"other")]], there(), "version 2 is"),
    ([[ONE, write(3, 4, 2, 0, error=BAD_VERSION, changed=0)]], there(), "was refused"),
    ([[ONE, write(3, 4, 2, 0, error=UNKNOWN, changed=0)]], there(), None),
    ([[ONE, write(3, 4, 2, 0, error=UNKNOWN, changed=0)]], there(1), None),
    ([[create(1, 2, f"{QUEUE}/a", 1)]], {}, "was created"),
    ([[create(1, 2, f"{QUEUE}/a", 1)]], {f"{QUEUE}/a": (b"", 0)}, None),
    ([[op("delete", 1, 2, path=f"{QUEUE}/a")]], {f"{QUEUE}/a": (b"", 0)}, "was deleted"),
    ([[create(1, 2, f"{QUEUE}/x-a", 1, error=UNKNOWN)]], {f"{QUEUE}/x-a": (b"", 0)}, "there is one"),
    (
        [[create(1, 2, f"{QUEUE}/s-2", 1), create(3, 4, f"{QUEUE}/s-1", 2)]],
        {f"{QUEUE}/s-2": (b"", 0), f"{QUEUE}/s-1": (b"", 0)},
        "out of order",
    ),
    ([OWNER], {}, None),
    ([OWNER], {OWNED: (b"", 0)}, "outlived"),
    ([OWNER, [op("children", 3, 4, path=EPHEMERALS, value=(), synced=True)]], {}, "is not there"),
    ([OWNER, [op("children", 10, 11, path=EPHEMERALS, value=(f"{7:016x}",), synced=True)]], {}, "after its end"),
]


def main():
    for number, (histories, tree, wanted) in enumerate(CASES):
        sessions = [session(f"s{at}", *ops) for at, ops in enumerate(histories)]
        found = judge(sessions, tree, 0.0)
        if wanted is None:
            assert not found, (number, found)
        else:
            assert any(wanted in line for line in found), (number, wanted, found)


main()
