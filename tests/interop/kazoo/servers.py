"""pytest plugin: runs kazoo's own tests against servers of ours to choose.

kazoo's harness builds a cluster of Java processes. In its place stands a cluster of INTEROP_SERVERS
servers (one, if that is not set), each started by the command in INTEROP_SERVE, which gets the path
of a zoo.cfg appended and becomes the server. The names of the tests that passed are written to
INTEROP_PASSED, one a line.
"""

import atexit
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time

import kazoo.testing.harness
from free_port import free_port

START_SECONDS = 60
STOP_SECONDS = 30


class Server:
    """What kazoo's tests expect of an entry of its cluster."""

    def __init__(self, number):
        self.number = number
        self.working_path = tempfile.mkdtemp(prefix="ringkeeper-kazoo.")
        self.client_port = free_port()
        self.peer_ports = free_port(), free_port()
        self.address = f"127.0.0.1:{self.client_port}"
        self.process = None

    @property
    def running(self):
        return self.process is not None

    def run(self):
        if not self.running:
            self.start()
            self.await_serving()

    def start(self):
        config = os.path.join(self.working_path, "zoo.cfg")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                "tickTime=2000\n"
                f"dataDir={self.working_path}/data\n"
                f"clientPort={self.client_port}\n"
                "clientPortAddress=127.0.0.1\n"
                "maxClientCnxns=0\n"
                "admin.enableServer=false\n"
                "4lw.commands.whitelist=*\n"
                # "super:test", as kazoo's own harness has it
                "DigestAuthenticationProvider.superDigest="
                "super:D/InIHSb7yEEbrWz8b9l71RjZJU=\n"
            )
            if len(CLUSTER) > 1:
                file.write("initLimit=10\nsyncLimit=5\n")
                for server in CLUSTER:
                    learner, election = server.peer_ports
                    file.write(f"server.{server.number}=127.0.0.1:{learner}:{election}\n")
        data = os.path.join(self.working_path, "data")
        os.makedirs(data, exist_ok=True)
        with open(os.path.join(data, "myid"), "w", encoding="utf-8") as file:
            file.write(str(self.number))
        log = open(os.path.join(self.working_path, "log"), "ab")
        command = shlex.split(os.environ["INTEROP_SERVE"]) + [config]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()

    def await_serving(self):
        deadline = time.monotonic() + START_SECONDS
        while b"\nMode: " not in four_letter(self.client_port, b"srvr"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start:\n" + "".join(self.get_logs()))
            time.sleep(0.05)

    def stop(self):
        if not self.running:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            self.process = None

    def destroy(self):
        self.stop()
        shutil.rmtree(self.working_path, ignore_errors=True)
        os.makedirs(self.working_path, exist_ok=True)

    def get_logs(self, num_lines=100):
        try:
            with open(os.path.join(self.working_path, "log"), encoding="utf-8") as file:
                return file.readlines()[-num_lines:]
        except FileNotFoundError:
            return []


class Cluster(list):
    """What kazoo's harness expects of its cluster."""

    def start(self):
        # None of them serves before a quorum runs.
        stopped = [server for server in self if not server.running]
        for server in stopped:
            server.start()
        for server in stopped:
            server.await_serving()

    def stop(self):
        for server in self:
            server.stop()

    def terminate(self):
        for server in self:
            server.destroy()

    def remove(self):
        self.terminate()
        for server in self:
            shutil.rmtree(server.working_path, ignore_errors=True)

    def get_logs(self):
        return [line for server in self for line in server.get_logs()]


def four_letter(port, word):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(word)
            answer = b""
            while chunk := connection.recv(4096):
                answer += chunk
            return answer
    except OSError:
        return b""


CLUSTER = Cluster(
    Server(number + 1) for number in range(int(os.environ.get("INTEROP_SERVERS", "1")))
)
atexit.register(CLUSTER.remove)
kazoo.testing.harness.get_global_cluster = lambda: CLUSTER


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        with open(os.environ["INTEROP_PASSED"], "a", encoding="utf-8") as file:
            print(report.nodeid.removeprefix("kazoo/tests/"), file=file)
