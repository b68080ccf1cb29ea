"""Fills a server with a tree of every kind, shows a tree, looks after a session.

usage: exchange.py PORT fill STATE    makes the tree; keeps a session with an ephemeral in STATE
       exchange.py PORT more PATH     makes another znode, and changes one
       exchange.py PORT dump          prints every znode: data, stat, access list
       exchange.py PORT resume STATE  goes on with the session, which must still own its ephemeral
       exchange.py PORT brief PATH    makes a TTL znode, and waits until it is gone

Speaks the protocol itself, so that it can make what libraries do not know.
"""

import hashlib
import json
import os
import socket
import struct
import sys
import time

CREATE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN2 = 1, 3, 4, 5, 6, 7, 12
CREATE_CONTAINER, CREATE_TTL, AUTH = 19, 21, 100
NO_NODE = -101
ALL, READ = 31, 1
ANYONE = [(ALL, "world", "anyone")]


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">i", len(value)) + value


def acl_list(entries):
    parts = (struct.pack(">i", perms) + text(scheme) + text(who) for perms, scheme, who in entries)
    return struct.pack(">i", len(entries)) + b"".join(parts)


class Client:
    def __init__(self, port, session=0, password=bytes(16)):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.xid = 0
        self.send(struct.pack(">iqiq", 0, 0, 40000, session) + text(password) + b"\0")
        answer = self.receive()
        _, self.timeout, self.session = struct.unpack(">iiq", answer[:16])
        self.password = answer[20:36]

    def send(self, packet):
        self.socket.sendall(struct.pack(">i", len(packet)) + packet)

    def receive(self):
        length = struct.unpack(">i", self.exactly(4))[0]
        return self.exactly(length)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise SystemExit("the server has closed the connection")
            data += more
        return data

    def ask(self, kind, body):
        self.xid += 1
        self.send(struct.pack(">ii", self.xid, kind) + body)
        reply = self.receive()
        error = struct.unpack(">i", reply[12:16])[0]
        return error, reply[16:]

    def must(self, kind, body):
        error, reply = self.ask(kind, body)
        if error:
            raise SystemExit(f"request {kind} of {body!r} failed: {error}")
        return reply

    def auth(self, who):
        self.send(struct.pack(">iii", -4, AUTH, 0) + text("digest") + text(who))
        error = struct.unpack(">i", self.receive()[12:16])[0]
        assert error == 0, error

    def create(self, path, data=b"", acl=ANYONE, flags=0, kind=CREATE, ttl=None):
        body = text(path) + text(data) + acl_list(acl) + struct.pack(">i", flags)
        self.must(kind, body + (b"" if ttl is None else struct.pack(">q", ttl)))

    def set(self, path, data):
        self.must(SET_DATA, text(path) + text(data) + struct.pack(">i", -1))


def leave():
    """Ends without a word to the server, so that sessions stay."""
    sys.stdout.flush()
    os._exit(0)


def fill(port, state):
    client = Client(port)
    client.create("/plain", b"some data")
    client.set("/plain", b"other data")
    client.create("/large", bytes(range(256)) * 2000)
    client.create("/empty")
    client.create("/größe", "✓".encode())
    client.create("/" + "long" * 300, b"a path too long for a key")
    for number in range(300):
        client.create(f"/plain/n{number}", str(number).encode() * number)
    for flags in (2, 2, 2):
        client.create("/plain/seq-", flags=flags)
    client.must(2, text("/plain/n7") + struct.pack(">i", -1))
    client.create("/container", kind=CREATE_CONTAINER, flags=4)
    client.create("/container/child")
    client.create("/ttl", b"an hour", kind=CREATE_TTL, flags=5, ttl=3_600_000)
    client.create("/secret", b"x", [(ALL, "digest", "alice:hash"), (READ, "ip", "127.0.0.1")])
    client.create("/changed")
    client.must(SET_ACL, text("/changed") + acl_list([(READ, "world", "anyone")]) + b"\xff" * 4)
    client.create("/zookeeper/quota/plain")
    client.create("/zookeeper/quota/plain/zookeeper_limits", b"count=1000,bytes=-1")
    client.create("/zookeeper/quota/plain/zookeeper_stats", b"count=0,bytes=0")
    client.create("/plain/counted", b"12345")
    keeper = Client(port)
    keeper.create("/mine", b"ephemeral", flags=1)
    keeper.create("/mine-s-", flags=3)
    with open(state, "w", encoding="ascii") as file:
        json.dump({"session": keeper.session, "password": keeper.password.hex()}, file)
    leave()


def more(port, path):
    client = Client(port)
    client.create(path, b"came later")
    client.set("/plain", path.encode())
    leave()


def dump(port):
    client = Client(port)
    client.auth("super:secret")
    pending = ["/"]
    while pending:
        path = pending.pop()
        reply = client.must(GET_CHILDREN2, text(path) + b"\0")
        count, at, names = struct.unpack(">i", reply[:4])[0], 4, []
        for _ in range(count):
            length = struct.unpack(">i", reply[at : at + 4])[0]
            names.append(reply[at + 4 : at + 4 + length].decode())
            at += 4 + length
        stat = struct.unpack(">qqqqiiiqiiq", reply[at : at + 68])
        data = client.must(GET_DATA, text(path) + b"\0")
        length = struct.unpack(">i", data[:4])[0]
        value = hashlib.sha256(data[4 : 4 + max(length, 0)]).hexdigest()[:16]
        acl = client.must(GET_ACL, text(path))[:-68].hex()
        print(path[:60], len(path), length, value, *stat, acl)
        prefix = path if path == "/" else path + "/"
        pending += [prefix + name for name in sorted(names, reverse=True)]
    leave()


def resume(port, state):
    with open(state, encoding="ascii") as file:
        saved = json.load(file)
    client = Client(port, saved["session"], bytes.fromhex(saved["password"]))
    assert client.session == saved["session"], "the session was not accepted"
    reply = client.must(EXISTS, text("/mine") + b"\0")
    owner = struct.unpack(">q", reply[44:52])[0]
    assert owner == saved["session"], f"its ephemeral belongs to {owner:#x}"
    leave()


def brief(port, path):
    client = Client(port)
    client.create(path, kind=CREATE_TTL, flags=5, ttl=100)
    deadline = time.monotonic() + 30
    while client.ask(EXISTS, text(path) + b"\0")[0] != NO_NODE:
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} stays")
        time.sleep(0.1)


if __name__ == "__main__":
    {"fill": fill, "more": more, "dump": dump, "resume": resume, "brief": brief}[sys.argv[2]](
        int(sys.argv[1]), *sys.argv[3:]
    )
