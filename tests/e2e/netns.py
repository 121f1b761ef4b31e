"""A network of namespaces: one router, and each host on a wire of its own to it, so that any pair of
hosts can be cut off from each other, one way or both, without either noticing but by silence. Needs
root and iproute2 (./dev deps test)."""

import itertools
import os
import subprocess
import sys

from lib import Cluster, Failure, Node, need_root

COUNTER = itertools.count()


def ip(*args):
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"ip {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


class Net:
    def __init__(self, env):
        need_root()
        self.tag = f"rap{os.getpid()}-{next(COUNTER)}"
        self.router, self.spaces, self.lines = f"{self.tag}-r", [], []
        self.addresses, self.wires = {}, {}  # of hosts
        env.at_end.append(self.remove)
        self.space(self.router)
        self.inside(self.router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")

    def space(self, name):
        ip("netns", "add", name)
        self.spaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")

    @staticmethod
    def inside(space, *command):
        ip("netns", "exec", space, *command)

    def space_of(self, name):
        return f"{self.tag}-{name}"

    def host(self, name):
        """A new host; its namespace."""
        n = len(self.addresses) + 1
        space, wire = self.space_of(name), f"{self.tag}w{n}"[-15:]
        self.space(space)
        ip("-n", self.router, "link", "add", wire, "type", "veth", "peer", "name", "eth0",
           "netns", space)
        ip("-n", self.router, "address", "add", f"10.77.{n}.1/30", "dev", wire)
        ip("-n", self.router, "link", "set", wire, "up")
        ip("-n", space, "address", "add", f"10.77.{n}.2/30", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "route", "add", "default", "via", f"10.77.{n}.1")
        self.addresses[name], self.wires[name] = f"10.77.{n}.2", wire
        return space

    def rule(self, verb, a, b):
        ip("-n", self.router, "rule", verb, "from", self.addresses[a.name], "to",
           self.addresses[b.name], "blackhole")

    def delay(self, node, ms):
        """From now on what node sends arrives that much later."""
        name = f"late{list(self.addresses).index(node.name) + 1}"
        line = subprocess.Popen(
            [sys.executable, os.path.join(os.path.dirname(__file__), "delay_line.py"),
             f"{self.tag}-{node.name}", self.router, name, self.addresses[node.name], str(ms)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines.append(line)
        if line.stdout.readline() != "ready\n":
            raise Failure(f"no delay line for {node.name}")

    def slow(self, node, mbit):
        """The wire to node carries no more than this from now on, behind a queue of 30 ms."""
        wire = self.wires[node.name]
        self.inside(self.router, "tc", "qdisc", "add", "dev", wire, "root", "tbf", "rate",
                    f"{mbit}mbit", "burst", "32k", "latency", "30ms")

    def cut_one_way(self, a, b):
        """What a sends to b is lost."""
        self.rule("add", a, b)

    def mend_one_way(self, a, b):
        self.rule("del", a, b)

    def cut(self, a, b):
        self.cut_one_way(a, b)
        self.cut_one_way(b, a)

    def mend(self, a, b):
        self.mend_one_way(a, b)
        self.mend_one_way(b, a)

    def remove(self):
        for line in self.lines:
            line.stdin.close()
            line.wait()
        for name in self.spaces:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        self.spaces = []


class NetCluster(Cluster):
    """A cluster whose nodes each run on a host of their own."""

    def __init__(self, env, *run_args):
        super().__init__(env, os.path.join(env.folder, "c"))
        env.clusters.append(self)
        self.net, self.run_args = Net(env), list(run_args)

    def add(self, name, port=None):
        node = Node(self.env, self.folder, name, port or 7400)
        space = self.net.host(name)
        node.prefix = ["ip", "netns", "exec", space]
        node.address = f"{self.net.addresses[name]}:{node.port}"
        node.run_args = self.run_args
        self.nodes[name] = node
        return node
