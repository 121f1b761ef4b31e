"""What the benchmarks share: a cluster of real processes in a directory that goes away, the peer's
processes beside it, and the closing `ratio` lines."""

import contextlib
import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.dont_write_bytecode = True

import lib  # noqa: E402 pylint: disable=wrong-import-position

RAP = os.path.join(ROOT, "build", "rap")
TOOLS = os.path.join(ROOT, "build", "tests", "bench")


@contextlib.contextmanager
def environment():
    """An Env whose directory lies beside the build tree: the disk the build is on, not a tmpfs."""
    folder = tempfile.mkdtemp(prefix="bench-", dir=os.path.join(ROOT, "build"))
    env = lib.Env(RAP, os.path.join(folder, "run"))
    try:
        yield env
    finally:
        env.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def tool(name, *args):
    out = subprocess.run([os.path.join(TOOLS, name), *map(str, args)], check=False,
                         capture_output=True, text=True)
    lib.expect(out.returncode == 0, f"{name} {args}: exit {out.returncode}", out.stdout, out.stderr)
    return json.loads(out.stdout)


class Loader:
    """load_rap in the name of a node that is enrolled for it and does not run."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.node = cluster.enroll("load")
        self.node.kill9()
        self.key, = glob.glob(os.path.join(self.node.dir, "**", "node.key"), recursive=True)
        del cluster.nodes["load"]

    def __call__(self, leader, clients, seconds, *more):
        return tool("load_rap", self.cluster.owner_dir(), self.key, self.node.id, leader.id,
                    leader.address, clients, seconds, *more)


def fill(loader, leader, nodes):
    """Enrolls that many nodes; seconds it took."""
    start = now()
    while nodes > 0:
        part = min(nodes, 50000)
        loader(leader, 256, 900, part)
        nodes -= part
    return now() - start


def tcp_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_etcd(env, members=3):
    """Client URLs of an etcd cluster with its defaults, on the same disk."""
    names = [f"e{i}" for i in range(members)]
    client = {n: f"http://127.0.0.1:{tcp_port()}" for n in names}
    peer = {n: f"http://127.0.0.1:{tcp_port()}" for n in names}
    for n in names:
        with open(os.path.join(env.folder, n + ".log"), "ab") as log:
            env.helpers.append(subprocess.Popen(
                ["etcd", "--name", n, "--data-dir", os.path.join(env.folder, n),
                 "--listen-client-urls", client[n], "--advertise-client-urls", client[n],
                 "--listen-peer-urls", peer[n], "--initial-advertise-peer-urls", peer[n],
                 "--initial-cluster", ",".join(f"{m}={peer[m]}" for m in names),
                 "--initial-cluster-state", "new"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=env.child_setup))

    def leader():
        done = subprocess.run(
            ["etcdctl", "--endpoints", ",".join(client.values()), "endpoint", "status", "-w",
             "json"], capture_output=True, text=True, check=False,
            env=os.environ | {"ETCDCTL_API": "3"})
        if done.returncode != 0:
            return None
        for s in json.loads(done.stdout):
            if s["Status"]["leader"] == s["Status"]["header"]["member_id"]:
                return s["Endpoint"]
        return None
    return lib.wait_until(leader, "etcd to elect a leader")


def put_request(path, key=b"bench/key", value_bytes=256):
    """A file with etcdserverpb.PutRequest as gRPC frames it: flag, length, protobuf."""
    value = os.urandom(value_bytes)
    message = bytes([1 << 3 | 2, len(key)]) + key + bytes(
        [2 << 3 | 2, value_bytes & 0x7f | 0x80, value_bytes >> 7]) + value
    with open(path, "wb") as f:
        f.write(b"\0" + len(message).to_bytes(4, "big") + message)
    return path


def etcd_revision(url):
    done = subprocess.run(["etcdctl", "--endpoints", url, "endpoint", "status", "-w", "json"],
                          capture_output=True, text=True, check=True,
                          env=os.environ | {"ETCDCTL_API": "3"})
    return json.loads(done.stdout)[0]["Status"]["header"]["revision"]


def load_etcd(env, url, clients, seconds):
    """Puts over gRPC, as etcd's own clients speak it: one HTTP/2 connection with that many calls
    under way, made by h2load. HTTP says 200 to a refused call too, so etcd's revision, which counts
    what was committed, must agree."""
    log = os.path.join(env.folder, "h2load.tsv")
    if os.path.exists(log):
        os.unlink(log)
    before = etcd_revision(url)
    done = subprocess.run(
        ["h2load", "-c1", f"-m{clients}", f"-D{seconds}", "--warm-up-time=1s", f"--log-file={log}",
         "-H", "content-type: application/grpc", "-H", "te: trailers", "-d",
         put_request(os.path.join(env.folder, "put.bin")), url + "/etcdserverpb.KV/Put"],
        capture_output=True, text=True, check=True)
    with open(log, encoding="ascii") as f:
        took = sorted(int(line.split("\t")[2]) / 1000 for line in f)
    lib.expect(etcd_revision(url) - before >= len(took) > 0, "every call was committed",
               done.stdout)
    return {"system": "etcd", "clients": clients, "ops_per_s": len(took) / float(seconds),
            "p50_ms": quantile(took, 0.5), "p99_ms": quantile(took, 0.99)}


def ratio(name, value, target, better="higher"):
    good = value >= target if better == "higher" else value <= target
    print(f"ratio {name} {value:.2f} target {'>=' if better == 'higher' else '<='} {target}"
          f"{'' if good else '  MISSED'}", flush=True)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def now():
    return time.monotonic()
