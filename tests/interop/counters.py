"""Writes the data directory of a ZooKeeper whose counters are about to overflow.

usage: counters.py DIR

The snapshot in DIR/version-2 is of the oldest form that every 3.x server reads, without a digest.
It holds ten nodes "/c0" to "/c9" whose next sequential children get numbers around 2^31, and ten
nodes "/v0" to "/v9" whose data were set nearly 2^31 times. It cannot be had by a client in an
acceptable time.
"""

import os
import struct
import sys
import zlib

LAST_ZXID = 0x100
OPEN_ACL = 1
INT_MAX = 2**31 - 1
SPECIAL = ("/zookeeper", "/zookeeper/quota", "/zookeeper/config")


def integer(value):
    return struct.pack(">i", value)


def long(value):
    return struct.pack(">q", value)


def text(value):
    return integer(len(value)) + value.encode()


def node(path, version=0, cversion=0, acl=OPEN_ACL):
    zxid = 0 if path in ("",) + SPECIAL else LAST_ZXID
    stat = struct.pack(
        ">qqqqiiiqq", zxid, zxid, 0, 0, version, cversion, 0, 0, zxid
    )
    return text(path) + integer(0) + long(acl) + stat


def snapshot():
    parts = [b"ZKSN", integer(2), long(-1)]
    parts += [integer(0)]  # no sessions
    parts += [integer(1), long(OPEN_ACL), integer(1), integer(31), text("world"), text("anyone")]
    parts += [node("", cversion=20)] + [node(path) for path in SPECIAL]
    parts += [node(f"/c{back}", cversion=INT_MAX - back) for back in range(10)]
    parts += [node(f"/v{back}", version=INT_MAX - back) for back in range(10)]
    body = b"".join(parts) + text("/")
    return body + long(zlib.adler32(body)) + text("/")


folder = os.path.join(sys.argv[1], "version-2")
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, f"snapshot.{LAST_ZXID:x}"), "wb") as file:
    file.write(snapshot())
