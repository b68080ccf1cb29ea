"""Servers of an ensemble as processes on loopback, of both kinds: `java` and `ringkeeper`."""

import contextlib
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

from free_port import free_port

JAVA, RINGKEEPER = "java", "ringkeeper"
# The password of "super", who may read everything.
SUPER = "super:secret"

CONFIG = """\
tickTime=1000
initLimit=30
syncLimit=10
minSessionTimeout=1000
maxSessionTimeout=60000
clientPortAddress={host}
maxClientCnxns=0
4lw.commands.whitelist=*
admin.enableServer=false
extendedTypesEnabled=true
DigestAuthenticationProvider.superDigest={digest}
dataDir={directory}/data
clientPort={port}
"""

LOGBACK = """\
<configuration>
  <appender name="ERR" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="ERR"/></root>
</configuration>
"""


class Failure(Exception):
    """Something is not as it has to be."""


def wait_for(what, condition, seconds=60.0):
    """Waits until `condition` gives something; exceptions of sockets count as nothing yet."""
    deadline = time.monotonic() + seconds
    while True:
        found = None
        with contextlib.suppress(OSError, EOFError):
            found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.05)


def four_letter(port, word, host="127.0.0.1"):
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(word.encode())
        answer = b""
        while more := connection.recv(65536):
            answer += more
    return answer.decode()


class Server:
    """One member: its directory, and its process while it runs."""

    def __init__(self, cluster, number, kind):
        self.cluster, self.number, self.kind = cluster, number, kind
        # Where it lives, and by which command its process gets there.
        self.host, self.enter = "127.0.0.1", []
        self.port = free_port()
        self.peer_ports = free_port(), free_port()
        self.is_observer = False
        self.directory = cluster.directory / str(number)
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self.process = None
        # Where this run of it begins in the log.
        self.log_from = 0

    def __str__(self):
        return f"{self.kind} {self.number}"

    def member_line(self):
        observer = ":observer" if self.is_observer else ""
        learner, election = self.peer_ports
        return f"server.{self.number}={self.host}:{learner}:{election}{observer}\n"

    def write_config(self, members):
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "myid").write_text(f"{self.number}\n")
        text = CONFIG.format(
            digest=self.cluster.digest,
            directory=self.directory,
            host=self.host,
            port=self.port,
        )
        own = self.cluster.options.splitlines(keepends=True)
        keys = {line.partition("=")[0] for line in own}
        lines = text.splitlines(keepends=True)
        usual = [line for line in lines if line.partition("=")[0] not in keys]
        text = "".join(usual + own)
        if self.is_observer:
            text += "peerType=observer\n"
        (self.directory / "zoo.cfg").write_text(text + members)

    def reach(self, other, port):
        """From its next start on, it finds the learner port of another member there."""
        config = self.directory / "zoo.cfg"
        line = other.member_line()
        learner, election = other.peer_ports
        through = line.replace(f":{learner}:{election}", f":{port}:{election}")
        config.write_text(config.read_text().replace(line, through))

    def start(self):
        config = self.directory / "zoo.cfg"
        if self.kind == JAVA:
            jars = self.cluster.jars
            command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]
            command += [f"-Dlogback.configurationFile={self.cluster.logback}"]
            command += ["-cp", f"{jars}:{jars}/*"]
            command += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", config]
        else:
            command = [self.cluster.binary, config]
        with open(self.log, "ab") as log:
            self.log_from = log.tell()
            self.process = subprocess.Popen(self.enter + command, stdout=log, stderr=log)

    def tell(self, number):
        self.process.send_signal(number)

    def pause(self):
        """Stops the process; it goes on with `SIGCONT`. A thread that is under way stops later."""
        self.tell(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        states = lambda: [task.read_text().rpartition(") ")[2][0] for task in tasks.glob("*/stat")]
        wait_for(f"{self} stops", lambda: set(states()) == {"T"})

    def end(self, number=signal.SIGTERM):
        """Ends the process; `SIGKILL` without a word to it."""
        self.tell(number)
        self.process.wait(timeout=60)
        self.process = None

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def wipe(self):
        """Removes all data; the number stays."""
        shutil.rmtree(self.data)
        self.data.mkdir()
        (self.data / "myid").write_text(f"{self.number}\n")

    def logged(self, text):
        """Whether its transaction log has these bytes: it was there before they were acknowledged."""
        wanted = text.encode()
        files = [file for file in self.data.rglob("log*") if file.is_file()]
        return any(wanted in file.read_bytes() for file in files)

    def said(self, since=None):
        """Its log lines, of this run or from `since` on."""
        text = self.log.read_bytes()[self.log_from if since is None else since :]
        return text.decode(errors="replace")

    def role(self):
        """leader, follower or observer; nothing while it looks for a leader."""
        if not self.is_running():
            return None
        found = re.search(r"^Mode: (\w+)$", self.word("srvr"), re.MULTILINE)
        return found and found.group(1)

    def metric(self, name):
        """A number of its `mntr`."""
        found = re.search(rf"^{name}\t(\d+)$", self.word("mntr"), re.MULTILINE)
        if not found:
            raise Failure(f"{self} has no {name}")
        return int(found.group(1))

    def word(self, word):
        return four_letter(self.port, word, self.host)

    def tool(self, *arguments):
        """One of ringkeeper's tools on its data."""
        command = [self.cluster.binary, *arguments, self.directory / "zoo.cfg"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise Failure(f"{' '.join(arguments)} of {self}: {done.stdout}{done.stderr}")


class Cluster:
    """Members by number. Whatever runs is killed when its `with` ends.

    `options` are lines for every config, in place of the usual ones of the same keys; `place` tells
    a server where it lives."""

    def __init__(self, settings, name, kinds, observers=(), options="", place=None):
        self.binary, self.jars, self.digest = settings.binary, settings.jars, settings.digest
        self.options = options
        self.directory = pathlib.Path(settings.scratch) / name
        self.directory.mkdir(parents=True)
        self.logback = self.directory / "logback.xml"
        self.logback.write_text(LOGBACK)
        self.servers = {number: Server(self, number, kind) for number, kind in kinds.items()}
        for number in observers:
            self.servers[number].is_observer = True
        for server in self:
            if place:
                place(server)
        members = "".join(server.member_line() for server in self)
        for server in self:
            server.write_config(members)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self:
            if server.is_running():
                server.end(signal.SIGKILL)

    def __iter__(self):
        return iter(self.servers.values())

    def __getitem__(self, number):
        return self.servers[number]

    def running(self):
        return [server for server in self if server.is_running()]

    def of_kind(self, kind):
        return [server for server in self if server.kind == kind]

    def leader(self):
        leaders = [server for server in self.running() if server.role() == "leader"]
        return leaders[0] if len(leaders) == 1 else None

    def wait_formed(self, seconds=90):
        """Waits until everything that runs has its part; gives the leader."""
        return wait_for("the ensemble forms", self._formed, seconds)

    def _formed(self):
        for server in self.running():
            server_role = server.role()
            if server_role is None:
                return None
        return self.leader()

    def start(self):
        for server in self:
            server.start()
        self.wait_formed()

    def start_led_by(self, number):
        """Starts all servers, fresh, such that this one leads: the highest of those who vote
        first."""
        voters = [server for server in self if not server.is_observer]
        first = [server for server in voters if server.number <= number]
        if len(first) * 2 <= len(voters):
            raise Failure(f"server {number} cannot lead a quorum that it is the highest of")
        for server in first:
            server.start()
        self.wait_formed()
        for server in self:
            if server.process is None:
                server.start()
        leader = self.wait_formed()
        if leader.number != number:
            raise Failure(f"{leader} leads, {number} was to")
