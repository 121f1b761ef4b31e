"""kill -9 of every kind of process at moments that a seed picks: any time, at the Nth write or sync of its files,
while it starts, several at once, a host in the middle of joining; under load. After each round everybody runs, and
all authorities hold one state with everything in it that was acknowledged (S2, S4, S15)."""

import random
import signal
import subprocess
import threading
import time

from lib import CONFLICT, LIMIT, OK, clean_env, expect, in_parallel, wait_until
from cluster_tests import all_items
from storage_tests import FailingDisk


class Load:
    """Tokens, through each authority in turn; those that were acknowledged."""

    def __init__(self, cluster):
        self.cluster, self.made, self.stop = cluster, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            for a in self.cluster.authorities():
                r = a.cli("token", "create", "--uses", "1", "--timeout", "5s")
                if r.rc == OK:
                    self.made.append(r.json["id"])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class Killing:
    def __init__(self, env, seed):
        self.env, self.choose = env, random.Random(seed)
        self.c = env.cluster(authorities=3, nodes=1)
        self.c.stop_all()
        self.disks = {n.name: FailingDisk(env, n, restart=False) for n in self.c.nodes.values()}
        self.c.start_all()
        self.names = ["a1", "a2", "a3", "n1"]
        self.hosts = 0

    def victim(self):
        return self.c.nodes[self.choose.choice(self.names)]

    def moment(self, most):
        time.sleep(self.choose.uniform(0, most))  # the moment itself, not a wait for something

    def dies(self, node, must):
        """By what was planted; one that has nothing more to write is killed, if it may be so."""
        try:
            node.process.wait(LIMIT if must else 1)
        except subprocess.TimeoutExpired:
            expect(not must, f"{node.name} is killed at a write")
        node.kill9()

    # --- kinds; each leaves everything running ---
    def any_time(self):
        node = self.victim()
        self.moment(0.5)
        node.kill9()
        node.start()

    def at_a_write(self):
        node = self.victim()
        disk, operation = self.disks[node.name], self.choose.choice(("write", "sync"))
        disk.fail(f"{operation} KILL /member/ {self.choose.randrange(1, 40)}")
        self.dies(node, must=node is not self.c.n1)  # the load makes an authority write
        disk.recover()
        node.start()

    def at_a_write_of_its_start(self):
        node = self.victim()
        disk = self.disks[node.name]
        node.kill9()
        disk.fail(f"write KILL /member/ {self.choose.randrange(1, 12)}")
        node.start(wait=False)
        self.dies(node, must=False)
        disk.recover()
        node.start()

    def while_it_starts(self):
        node = self.victim()
        node.kill9()
        for _ in range(3):
            node.start(wait=False)
            self.moment(0.2)
            node.kill9()
        node.start()

    def all_authorities(self):
        self.moment(0.5)
        for a in self.c.authorities():
            a.kill9()
        for a in self.c.authorities():
            a.start(wait=False)
        for a in self.c.authorities():
            a.wait_ready()

    def a_host_that_joins(self):
        """Killed at a write, again and again, a little later each time, until it is done."""
        self.hosts += 1
        host = self.c.add(f"h{self.hosts}")
        disk = FailingDisk(self.env, host, restart=False)
        token, _ = self.c.token("--uses", "1")
        step, at, request, killed = self.choose.randrange(1, 6), 0, None, 0
        while True:
            at += step
            disk.fail(f"write KILL {host.dir} {at}")
            p = subprocess.Popen(
                [host.rap, *host.join_args(token), "-o", "json", "--data-dir", host.dir],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env=clean_env() | host.environment)
            self.env.helpers.append(p)
            if request is None:
                request = wait_until(lambda: self.c.request(host.name) or p.poll() is not None,
                                     "it to ask, or to be killed")
                request = None if request is True else request
                if request is not None:
                    self.c.approve(request)
            said = p.communicate(timeout=LIMIT)[1]
            if p.returncode == OK or (p.returncode == CONFLICT and "rap agent run" in said):
                break  # or it was killed when it had all it needs: it is told to start
            expect(p.returncode == -signal.SIGKILL, "it is killed, or gets through", p.returncode, said)
            killed += 1
        disk.recover()
        rows = [r for r in all_items(self.c.a1, "request") if r["node_name"] == host.name]
        expect(len(rows) == 1 and rows[0]["status"] == "approved", "one request, one node", rows)
        expect(killed > 0, "it was killed on the way", at)
        host.start()
        host.stop()
        del self.c.nodes[host.name]

    KINDS = (any_time, at_a_write, at_a_write_of_its_start, while_it_starts, all_authorities,
             a_host_that_joins)

    def check(self, made):
        self.c.settle()
        in_parallel(3, self.c.authorities(), lambda a: expect(
            set(made) <= {t["id"] for t in all_items(a, "token")},
            f"{a.name} kept every acknowledged token"))
        self.c.one_digest()
        self.c.n1.wait_ready()

    def run(self, rounds):
        """Each kind in turn; how often each was done."""
        counts, kinds = {}, list(Killing.KINDS)
        for n in range(rounds):
            if n % len(kinds) == 0:
                self.choose.shuffle(kinds)
            kind = kinds[n % len(kinds)]
            with Load(self.c) as load:
                wait_until(lambda: load.made, "requests to go on")
                kind(self)
                seen = len(load.made)
                wait_until(lambda: len(load.made) > seen, "requests to go on afterwards")
            self.check(load.made)
            counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
            print(f"round {n + 1}: {kind.__name__}", flush=True)
        for a in self.c.authorities():
            expect(a.ok("audit", "verify")["ok"] is True, "the audit chain verifies")
        return counts
