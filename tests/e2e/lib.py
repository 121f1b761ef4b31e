"""Real `rap` processes on loopback: nodes, clusters and the waiting for what they do.

A test gets an Env; Env.cluster(...) gives a running cluster. Nothing here sleeps for a fixed time
and then hopes: wait_until() polls a condition and says what it last saw when it gives up."""

import collections
import ctypes
import glob
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

PORTS = range(20000, 32000)  # for nodes; a worker narrows it (run)
LIMIT = 30.0  # seconds; a condition that needs longer is a failure
OK, FAILED, USAGE, NOT_FOUND, DENIED, CONFLICT, UNAVAILABLE, TIMED_OUT, DEGRADED = range(9)

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1

Result = collections.namedtuple("Result", "rc json out err")


class Failure(AssertionError):
    """A test's expectation did not hold."""


class NeedsRoot(Exception):
    """This test can be run by root only; run gives it to a worker under sudo."""


def need_root():
    if os.geteuid() != 0:
        raise NeedsRoot


def expect(condition, text, *seen):
    if not condition:
        raise Failure(text + "".join(f"\n    saw: {shortened(repr(s))}" for s in seen))


def shortened(text, limit=1200):
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def wait_until(condition, what, limit=LIMIT, every=0.05):
    """Returns the first true value of condition(). Until then condition may raise Failure: its text
    is what was last seen."""
    start, last = time.monotonic(), None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except Failure as e:
            last = e
        if time.monotonic() - start > limit:
            raise Failure(f"waited {limit:.0f} s for {what}; last saw: {last}")
        time.sleep(every)


def in_parallel(workers, items, work):
    """work(item) for each item on that many threads; results in the order of the items. The first
    exception is raised after all have ended."""
    items, results, errors = list(items), {}, []
    queue, lock = collections.deque(enumerate(items)), threading.Lock()

    def run():
        while True:
            with lock:
                if not queue or errors:
                    return
                n, item = queue.popleft()
            try:
                results[n] = work(item)
            except Exception as e:  # pylint: disable=broad-except
                errors.append(e)

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return [results[n] for n in range(len(items))]


def free_port(taken=set()):  # pylint: disable=dangerous-default-value
    """A UDP port on loopback that nobody has, below the ephemeral range, so that it is still free
    when a node that was killed starts again. Never the same twice in one process."""
    while True:
        port = random.choice(PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            taken.add(port)
            return port


def clean_env():
    return {k: v for k, v in os.environ.items() if not k.startswith("RAP_")} | {
        "NO_COLOR": "1", "LC_ALL": "C"}


def run_rap(rap, *args, timeout=90, stdin=None):
    """A CLI command. json is None when stdout is not JSON."""
    try:
        done = subprocess.run([rap, *map(str, args)], capture_output=True, text=True, check=False,
                              timeout=timeout, env=clean_env(), input=stdin,
                              stdin=subprocess.DEVNULL if stdin is None else None)
    except subprocess.TimeoutExpired as e:
        raise Failure(f"rap {' '.join(map(str, args))}: still running after {timeout} s") from e
    return Result(done.returncode, parse_json(done.stdout), done.stdout, done.stderr)


def parse_json(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def says(result, slug):
    """Whether a command named this error code (base/err.h)."""
    return re.search(rf"\b{re.escape(slug)}\b", result.out + result.err) is not None


def open_files(pid):
    """What a process has open, as links of /proc. That of a `rap` is root's alone to see."""
    found = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except FileNotFoundError:
                pass
    except PermissionError as e:
        raise NeedsRoot from e
    return found


def items(result):
    """The items of a list answer."""
    expect(result.rc == OK and isinstance(result.json, dict) and "items" in result.json,
           "a list was expected", result)
    return result.json["items"]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Node:
    """One data directory and the daemon that may run on it."""

    def __init__(self, env, folder, name, port):
        self.env, self.name, self.port = env, name, port
        self.dir = os.path.join(folder, name)
        self.log_path = os.path.join(folder, name + ".log")
        self.address = f"127.0.0.1:{port}"
        self.process, self.frozen, self.id = None, False, None
        self.rap = env.rap  # its binary; another for a host of another version
        self.environment = {}  # more of it for the daemon
        self.prefix = []       # what its daemon runs under, e.g. in a network namespace
        self.run_args = []     # more for `rap agent run`

    # --- commands ---
    def cli(self, *args, **kw):
        return run_rap(self.rap, *args, "-o", "json", "--data-dir", self.dir, **kw)

    def ok(self, *args, **kw):
        """A command that must succeed; its JSON."""
        r = self.cli(*args, **kw)
        expect(r.rc == OK, f"{self.name}: rap {' '.join(map(str, args))}: exit {r.rc}", r.out,
               r.err)
        return r.json

    def refused(self, rc, slug, *args, **kw):
        """A command that must fail with this exit code and name this error."""
        r = self.cli(*args, **kw)
        expect(r.rc == rc and says(r, slug), f"{self.name}: rap {' '.join(map(str, args))}: "
               f"expected exit {rc} with {slug}, got {r.rc}", r.out, r.err)
        return r

    def api(self, method, path, body=None, headers=None, timeout=10):
        """(status, JSON body, headers) of a call on the node's socket."""
        c = UnixConnection(os.path.join(self.dir, "rap.sock"), timeout)
        try:
            c.request(method, path, None if body is None else json.dumps(body),
                      {"Content-Type": "application/json", **(headers or {})})
            answer = c.getresponse()
            return answer.status, parse_json(answer.read().decode()), dict(answer.getheaders())
        except OSError as e:
            raise Failure(f"{self.name}: {method} {path}: {e}") from e
        finally:
            c.close()

    def status(self):
        r = self.cli("status")
        expect(isinstance(r.json, dict) and "node_id" in r.json, f"{self.name}: no status", r)
        return r.json

    def roles(self):
        """Names of the roles this node knows it has."""
        return sorted(r["role"] if isinstance(r, dict) else r for r in self.status()["roles"])

    # --- the daemon ---
    def start(self, wait=True, args=()):
        expect(self.process is None, f"{self.name} is running already")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, self.rap, "agent", "run", "--data-dir", self.dir, *self.run_args,
                 *args],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=clean_env() | self.environment, preexec_fn=self.env.child_setup,
                start_new_session=self.env.keep)
        self.env.processes.append(self)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, limit=LIMIT):
        def ready():
            self.expect_running()
            r = self.cli("status", "--check")
            expect(r.rc == OK, f"status --check: exit {r.rc}: {r.err.strip()}", r.json)
            return True
        wait_until(ready, f"{self.name} to be ready", limit)
        self.id = self.status()["node_id"]

    def expect_running(self):
        rc = None if self.process is None else self.process.poll()
        expect(self.process is not None and rc is None, f"{self.name} is not running (exit {rc})")

    def stop(self):
        """SIGTERM; the exit must be clean."""
        self.thaw()
        self.process.terminate()
        try:
            rc = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired as e:
            raise Failure(f"{self.name} did not stop on SIGTERM") from e
        self.process = None
        expect(rc == 0, f"{self.name}: exit {rc} on SIGTERM")

    def kill9(self):
        self.process.kill()
        self.process.wait()
        self.process, self.frozen = None, False

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True

        def stopped():
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
                return f.read().rpartition(")")[2].split()[0] in "tT"
        wait_until(stopped, f"{self.name} to be frozen")

    def thaw(self):
        if self.frozen and self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def cleanup(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    # --- joining ---
    def join_args(self, token_file, *more):
        return ["join", "--token-file", token_file, "--listen", self.address, "--name", self.name,
                *more]

    def join_start(self, token_file, *more):
        """`rap join` that waits for the decision, in the background."""
        with open(self.log_path, "ab") as log:
            p = subprocess.Popen(
                [*self.prefix, self.rap, *self.join_args(token_file, *more), "-o", "json", "--data-dir",
                 self.dir], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=clean_env() | self.environment, preexec_fn=self.env.child_setup)
        self.env.helpers.append(p)
        return p


class Cluster:
    """Nodes by name: a1, a2 ... authorities, n1, n2 ... ordinary. a1 is the seed."""

    def __init__(self, env, folder):
        self.env, self.folder = env, folder
        self.nodes = {}
        os.makedirs(folder, exist_ok=True)

    def __getattr__(self, name):
        try:
            return self.__dict__["nodes"][name]
        except KeyError:
            raise AttributeError(name) from None

    def add(self, name, port=None):
        self.nodes[name] = Node(self.env, self.folder, name, port or free_port())
        return self.nodes[name]

    def authorities(self):
        return [n for name, n in self.nodes.items() if name.startswith("a")]

    def others(self, *but):
        return [n for n in self.authorities() if n not in but]

    # --- growing ---
    def init(self, name="demo"):
        seed = self.add("a1")
        seed.ok("init", "--cluster", name, "--listen", seed.address, "--name", "a1")
        seed.start()
        return seed

    def owner_dir(self):
        found = glob.glob(os.path.join(self.a1.dir, "owner", "*"))
        expect(len(found) == 1, "one owner directory on the seed", found)
        return found[0]

    def token(self, *args, via=None):
        """(path of a file with a new token, the answer). The file is outside every data
        directory."""
        answer = (via or self.a1).ok("token", "create", *args)
        return self.env.token_file(answer["token"]), answer

    def request(self, name, status="pending", via=None):
        """The join request of the host with this name, or None."""
        found = [r for r in items((via or self.a1).cli("request", "list"))
                 if r["node_name"] == name and r["status"] == status]
        expect(len(found) <= 1, f"{name} has one {status} request", found)
        return found[0] if found else None

    def pending(self, name, via=None):
        return wait_until(lambda: self.request(name, via=via), f"the request of {name}")

    def approve(self, request, via=None):
        return (via or self.a1).ok("request", "approve", request["id"], "--fingerprint",
                                   request["node_fingerprint"])

    def enroll(self, name, via=None, token_file=None):
        """A new host joins, is approved and runs."""
        node = self.add(name)
        if token_file is None:
            token_file, _ = self.token("--uses", "1", via=via)
        joining = node.join_start(token_file)
        self.approve(self.pending(name, via), via)
        rc = joining.wait(LIMIT)
        expect(rc == OK, f"{name}: rap join: exit {rc}")
        return node.start()

    def promote(self, node, via=None):
        """Makes an enrolled node an authority, with the owner's key."""
        via = via or self.a1
        via.ok("authority", "add", node.name, "--owner-dir", self.owner_dir(), "--yes")
        wait_until(lambda: self.authority_status(node, via) == "voter",
                   f"{node.name} to be a voter")
        added, = [a for a in items(via.cli("authority", "list")) if a["node_id"] == node.id]
        expect(added.get("signs", True), "nodes believe it when `add` says it is done", added)

    def bootstrap(self, authorities=3, nodes=2):
        self.init()
        for i in range(2, authorities + 1):
            self.promote(self.enroll(f"a{i}"))
        for i in range(1, nodes + 1):
            self.enroll(f"n{i}")
        self.settle()
        return self

    # --- looking ---
    @staticmethod
    def authority_status(node, via):
        for a in items(via.cli("authority", "list")):
            if a["node_id"] == node.id:
                return a["status"]
        return None

    def leader(self, among=None):
        """The authority that says it leads with a majority behind it, or None."""
        for n in among or [n for n in self.authorities() if n.process and not n.frozen]:
            r = n.cli("status")
            if isinstance(r.json, dict) and has_quorum(r.json) and \
                    r.json.get("leader") in (n.id, n.name) and n.id is not None:
                return n
        return None

    def wait_leader(self, among=None):
        return wait_until(lambda: self.leader(among), "a leader with a majority")

    def settle(self, among=None):
        """Until every running authority knows one leader and has applied what it has."""
        running = among or [n for n in self.authorities() if n.process and not n.frozen]

        def same():
            seen = [n.status() for n in running]
            expect(all(has_quorum(s) for s in seen), "a majority seen by all", seen)
            expect(len({s["leader"] for s in seen}) == 1, "one leader", seen)
            expect(len({s["index"] for s in seen}) == 1, "one index", seen)
            return True
        wait_until(same, "the authorities to agree")
        return self.leader(running)

    def one_digest(self):
        """Every authority holds the same state, seen at one index: something may be committed while
        they are asked."""
        def same():
            seen = {(s["index"], s["state_digest"]) for s in
                    (n.status() for n in self.authorities() if n.process)}
            expect(len(seen) == 1, "one index and digest", seen)
            return True
        wait_until(same, "the authorities to show one digest")

    # --- many at once ---
    def start_all(self):
        for n in self.nodes.values():
            if n.process is None:
                n.start(wait=False)
        for n in self.nodes.values():
            n.wait_ready()
        self.settle()

    def stop_all(self):
        for n in self.nodes.values():
            if n.process is not None:
                n.stop()


def has_quorum(status):
    """`quorum` of a status answer, whether told as a flag or as counts."""
    q = status.get("quorum")
    return q["seen"] >= q["needed"] if isinstance(q, dict) else q is True


class Env:
    """What one test has: a directory, the binary, and the processes to end with it."""

    templates = {}  # (authorities, nodes) -> Cluster that was stopped

    def __init__(self, rap, folder, keep=False, old_rap=None, long=False):
        self.rap, self.folder, self.keep, self.old_rap = rap, folder, keep, old_rap
        self.long = long  # instead of the short form that every run can afford
        self.processes, self.helpers, self.clusters = [], [], []
        self.at_end = []  # called when all processes have ended
        os.makedirs(folder, exist_ok=True)

    def child_setup(self):
        """In the child: do not outlive the test (unless it is meant to)."""
        if not self.keep:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def new_cluster(self, name="c"):
        c = Cluster(self, os.path.join(self.folder, name))
        self.clusters.append(c)
        return c

    def cluster(self, authorities=3, nodes=2, run_args=()):
        """A running cluster of its own for this test: a copy of one that was bootstrapped once and
        stopped cleanly. run_args: more for `rap agent run`, on each."""
        key = (authorities, nodes)
        if key not in Env.templates:
            made = Cluster(self, os.path.join(os.path.dirname(self.folder),
                                              f"template-{authorities}-{nodes}"))
            self.clusters.append(made)
            made.bootstrap(authorities, nodes)
            made.stop_all()
            Env.templates[key] = made
        template, c = Env.templates[key], self.new_cluster()
        for n in template.nodes.values():
            copy = c.add(n.name, n.port)
            copy.id, copy.run_args = n.id, [str(a) for a in run_args]
            shutil.copytree(n.dir, copy.dir, symlinks=True, ignore=skip_sockets)
        c.start_all()
        return c

    def token_folder(self):
        return os.path.join(self.folder, "tokens")

    def token_file(self, text):
        folder = self.token_folder()
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"t{len(os.listdir(folder))}")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w",
                  encoding="ascii") as f:
            f.write(text + "\n")
        return path

    def cleanup(self):
        for node in self.processes:
            node.cleanup()
        for p in self.helpers:
            if p.poll() is None:
                p.kill()
            p.wait()
        for end in self.at_end:
            end()

    def log_tails(self, lines=12):
        """The ends of the nodes' logs, for a failure report."""
        out = []
        for c in self.clusters:
            for n in c.nodes.values():
                if os.path.exists(n.log_path):
                    with open(n.log_path, encoding="utf-8", errors="replace") as f:
                        tail = collections.deque(f, lines)
                    out.append(f"--- {n.name} ({n.log_path})\n{''.join(tail)}")
        return "".join(out)


def skip_sockets(folder, names):
    return [n for n in names if not (os.path.isdir(os.path.join(folder, n)) or
                                     os.path.isfile(os.path.join(folder, n)))]
