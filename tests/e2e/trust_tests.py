"""Who is believed, what a stolen thing is worth, and what leaves a node (DESIGN section 4)."""

import base64
import ctypes
import glob
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

from attack_tests import Attack, Attacker, details, run_table
from lib import (LIMIT, OK, UNAVAILABLE, Failure, expect, has_quorum, items, says, skip_sockets,
                 wait_until)
from cluster_tests import all_items
from join_tests import token_parts, token_text
from netns import NetCluster

REVOKE_SECONDS = 5.0  # DESIGN section 4, S9
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
CAPTURE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "capture.py")


def sessions(node):
    """Ids of the nodes this one has live sessions with."""
    status, answer, _ = node.api("GET", "/v1/fabric/sessions")
    expect(status == 200, f"{node.name}: sessions", status, answer)
    return {s["node_id"] for s in answer["items"]}


def test_revoked_node_is_cut_within_5s(env):
    """S9, IDN-04: no session, no new handshake, on any authority; the others are untouched."""
    c = env.cluster(authorities=3, nodes=2)
    wait_until(lambda: any(c.n1.id in sessions(a) for a in c.authorities()), "a session of n1")
    c.a2.ok("node", "revoke", "n1", "--reason", "stolen", "--yes")
    start = time.monotonic()

    def cut():
        return all(c.n1.id not in sessions(a) for a in c.authorities())
    wait_until(cut, "n1 to be cut off everywhere", REVOKE_SECONDS)
    wait_until(lambda: c.n1.cli("status", "--check").rc != OK, "n1 to know", REVOKE_SECONDS + LIMIT)
    # It keeps knocking; for as long again nobody lets it in.
    while time.monotonic() - start < 2 * REVOKE_SECONDS:
        expect(cut(), "n1 stays out", [sorted(sessions(a)) for a in c.authorities()])
        time.sleep(0.2)
    c.n1.kill9()
    c.n1.start(wait=False)
    wait_until(lambda: c.n1.cli("status").rc == OK, "n1 to run again")
    for _ in range(10):
        expect(cut(), "n1 stays out after a restart")
        time.sleep(0.2)
    row = c.a1.ok("node", "show", "n1")
    expect(row["identity_state"] == "revoked", "it is listed as revoked", row)
    expect(any(c.n2.id in sessions(a) for a in c.authorities()), "n2 is still connected")
    # Its key stays banned: the same host with the same key cannot come back.
    token, _ = c.token("--uses", "1")
    back = c.add("n1-again")
    os.makedirs(os.path.join(back.dir, "member"), mode=0o700)
    shutil.copy(os.path.join(c.n1.dir, "member", "node.key"), os.path.join(back.dir, "member"))
    r = back.cli(*back.join_args(token, "--no-wait"))
    if r.rc == OK:  # the join made itself a key of its own: not the revoked identity
        expect(c.pending("n1-again")["node_fingerprint"] != row["fingerprint"],
               "the revoked key is not taken again")
    else:
        expect(r.rc != UNAVAILABLE, "refused for the key, not for the network", r)


class Capture:
    """Every packet of a namespace, as capture.py counts them, from now on."""

    def __init__(self, space, port, marks):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, CAPTURE, str(port),
             *(m.hex() for m in marks)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        expect(self.process.stdout.readline().strip() == "ready", "the capture runs")

    def seen(self):
        """Ends it."""
        return json.loads(self.process.communicate("")[0])


def test_only_udp_between_nodes(env):
    """D4, RULE-21: QUIC on each node's one port and nothing else; nothing readable in it. Each node is on a host
    of its own, and the router between them sees all there is."""
    c = NetCluster(env, "--overlay", "--synthetic")
    c.init()
    name = "n1-very-telling-name"
    token, _ = c.token("--uses", "1")
    marks = [name.encode(), token_parts(token)[1], b"relay-node"]
    control = Capture(c.net.router, c.a1.port, marks)
    capture = Capture(c.net.router, c.a1.port, marks)
    try:
        for a in ("a2", "a3"):
            c.promote(c.enroll(a))
        n1, n2 = c.enroll(name, token_file=token), c.enroll("n2")
        c.a1.ok("role", "assign", name, "relay-node")
        wait_until(lambda: n1.roles() == ["relay-node"], "the role to reach it")
        n2.ok("node", "ping", n1.id, "--count", "5", "--bytes", "1000000")
        leader = c.wait_leader()
        leader.kill9()
        c.wait_leader()
        leader.start()
        c.settle()
        c.a1.ok("node", "revoke", "n2", "--reason", "test", "--yes")
        for n in c.nodes.values():
            with open(f"/proc/{n.process.pid}/net/tcp", encoding="ascii") as f:
                expect(len(f.readlines()) == 1, f"no TCP socket on the host of {n.name}")
        seen = capture.seen()
        expect(seen["quic"] > 1000, "the capture saw the nodes talk", seen)
        expect(seen["other"] == 0, "nothing but QUIC", seen)
        expect(seen["marks"] == 0, "nothing readable", seen)
        # What the capture would have said of a line of text over TCP, or over UDP beside a node's port.
        for kind, port in ((socket.SOCK_STREAM, c.a1.port), (socket.SOCK_DGRAM, 9)):
            telling = (f"import socket; s = socket.socket(type={int(kind)}); s.settimeout(1);"
                       f"s.connect_ex(('{c.net.addresses['a1']}', {port})); "
                       f"s.type == {int(socket.SOCK_DGRAM)} and s.send(b'{name}')")
            c.net.inside(c.net.space_of("n2"), sys.executable, "-c", telling)
        told = control.seen()
        expect(told["other"] >= 2 and told["marks"] >= 1, "it would have been told", told)
    finally:
        for p in (capture.process, control.process):
            if p.poll() is None:
                p.stdin.close()
                p.wait()


def key_files(c):
    """path -> private key bytes, for every key there is."""
    keys = {}
    for pattern in ("*/member/*.key", "*/owner/*/*.key"):
        for path in glob.glob(os.path.join(c.folder, pattern)):
            with open(path, encoding="ascii") as f:
                body = "".join(line for line in f if not line.startswith("-----"))
            keys[path] = base64.b64decode(body)[-32:]  # RFC 8410: the seed ends the PKCS#8
    return keys


def spellings(secret):
    """How bytes could have been written down: as they are, hex, base64 at any offset of a text."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for before in range(3):
        whole = slice((before * 8 + 5) // 6, (before + len(secret)) * 8 // 6)
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.append(encode(bytes(before) + secret)[whole])
    return found


def unpacked(data):
    """What the zstd frames in these bytes hold: images of the state are packed."""
    zstd = ctypes.CDLL("libzstd.so.1")
    zstd.ZSTD_decompressBound.restype = ctypes.c_ulonglong
    for call in (zstd.ZSTD_findFrameCompressedSize, zstd.ZSTD_decompress):
        call.restype = ctypes.c_size_t
    found, at = [], data.find(ZSTD_MAGIC)
    while at >= 0:
        rest = data[at:]
        size = zstd.ZSTD_findFrameCompressedSize(rest, ctypes.c_size_t(len(rest)))
        room = zstd.ZSTD_decompressBound(rest, ctypes.c_size_t(size)) if size <= len(rest) else 0
        if 0 < room < 1 << 30:
            out = ctypes.create_string_buffer(room)
            got = zstd.ZSTD_decompress(out, ctypes.c_size_t(room), rest, ctypes.c_size_t(size))
            found.append(out.raw[:got] if got <= room else b"")
        at = data.find(ZSTD_MAGIC, at + 1)
    return b"".join(found)


def holders(folder, secrets):
    """(file, name of the secret) for each secret found in a file under folder."""
    found = set()
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if not os.path.isfile(path):
                continue
            with open(path, "rb") as f:
                data = f.read()
            data += unpacked(data)
            for label, secret in secrets.items():
                if any(s in data for s in spellings(secret)):
                    found.add((os.path.relpath(path, folder), label))
    return found


def test_no_secret_outside_its_file(env):
    """S20, TOK-02, IDN-02: state, logs, a backup, answers of the API, command lines, cores. What PostgreSQL
    holds: mirror_tests."""
    c = env.new_cluster()
    c.bootstrap(authorities=3, nodes=1)
    token, answer = c.token("--uses", "2")
    secret = token_parts(token)[1]
    c.enroll("n2", token_file=token)
    waiting = c.add("n3")
    joining = waiting.join_start(token)
    c.pending("n3")
    with open(f"/proc/{joining.pid}/cmdline", "rb") as f:
        line = f.read()
    expect(all(s not in line for s in spellings(secret)), "no secret in a command line", line)
    # A refused join must not leave its token in a log either.
    late = c.add("n4")
    late.cli(*late.join_args(token, "--no-wait"))
    shown = "".join(c.a1.cli(*args).out for args in (
        ("token", "list"), ("audit", "list"), ("request", "list"), ("node", "list"),
        ("config", "show"), ("authority", "list")))
    expect(all(s not in shown.encode() for s in spellings(secret)), "no secret in any answer")
    with open(token, encoding="ascii") as f:
        expect(f.read().strip() not in shown, "the raw token is shown once only", answer["id"])

    c.a1.ok("authority", "backup", os.path.join(c.folder, "backup"))

    keys = key_files(c)
    expect(len(keys) >= 5 + 3 + 1 - 1, "keys of nodes, issuers and the owner", sorted(keys))
    for path in keys:
        mode = os.stat(path).st_mode & 0o777
        expect(mode == 0o600, f"{path} is readable by its owner only", oct(mode))
    c.a1.kill9()  # its database's log stays as it is
    c.a1.start()
    secrets = {os.path.relpath(p, c.folder): k for p, k in keys.items()} | {"token": secret}
    found = holders(c.folder, secrets)
    allowed = {(name, name) for name in secrets} | {("n3/member/join.token", "token")}
    expect(found <= allowed, "secrets found outside their files", found - allowed)
    expect({(name, name) for name in secrets if name != "token"} <= found,
           "the search finds each key in its own file", found)
    known = {f for f, _ in holders(c.folder, {"hash": hashlib.sha256(secret).digest()})}
    expect("backup" in known and any(f.startswith("a2/member/raft.db") for f in known),
           "and looks into images and logs, where the token's hash is", known)
    leaves_no_core(c.a1, c.folder)


def leaves_no_core(node, folder):
    """It dies of a bug, where cores may be of any size."""
    node.stop()

    def ready():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def crashed(*command):
        p = subprocess.Popen(command, cwd=folder, preexec_fn=ready, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        node.env.helpers.append(p)
        if command[0] == node.rap:
            wait_until(lambda: node.cli("status").rc == OK, "it to run")
        else:
            p.stdout.readline()
        p.send_signal(signal.SIGSEGV)
        _, status = os.waitpid(p.pid, 0)
        p.returncode = -signal.SIGSEGV
        expect(os.WIFSIGNALED(status), "it died", status)
        return os.WCOREDUMP(status)
    if not crashed("sh", "-c", "echo; while :; do sleep 1; done"):
        print("note: no process leaves a core here; rap would not either")
    expect(not crashed(node.rap, "agent", "run", "--data-dir", node.dir), "no core was written",
           os.listdir(folder))


def test_authority_add_without_the_owner_key_is_refused(env):
    """D7: neither no key, nor another cluster's key, nor what an authority holds, makes an
    authority."""
    c = env.cluster(authorities=3, nodes=1)
    other = env.new_cluster("other")
    seed = other.add("x1")
    seed.ok("init", "--cluster", "other", "--listen", seed.address, "--name", "x1")
    foreign = glob.glob(os.path.join(seed.dir, "owner", "*"))[0]

    empty = os.path.join(env.folder, "empty")
    os.makedirs(empty)
    # An authority's own issuing key in the place of the root key.
    insider = os.path.join(env.folder, "insider")
    shutil.copytree(c.owner_dir(), insider)
    shutil.copy(os.path.join(c.a2.dir, "member", "issuer.key"), os.path.join(insider, "root.key"))
    for what, folder in (("nothing", empty), ("another owner's key", foreign),
                         ("an issuing key", insider)):
        r = c.a1.cli("authority", "add", "n1", "--owner-dir", folder, "--yes")
        expect(r.rc not in (OK, UNAVAILABLE), f"with {what} it is refused", r)
    # The API takes no shortcut either: a CA that the root did not sign.
    status, answer, _ = c.a1.api("POST", "/v1/authorities/prepare", {"node": "n1"})
    expect(status == 200, "prepare", status, answer)
    status, answer, _ = c.a1.api("POST", "/v1/authorities", {"node": "n1", "issuer": answer["csr"]},
                                 {"Idempotency-Key": "0190b7a2-0000-7000-8000-000000000002"})
    expect(status >= 400, "a CA without the root's signature is refused", status, answer)
    names = [a["name"] for a in all_items(c.a2, "authority") if a["status"] != "removed"]
    expect(sorted(names) == ["a1", "a2", "a3"], "still three", names)
    c.promote(c.n1)


def test_removed_authority_neither_votes_nor_reads(env):
    c = env.cluster(authorities=3, nodes=0)
    if c.wait_leader() is not c.a1:
        c.a1.ok("authority", "transfer", "a1", "--yes")
    wait_until(lambda: c.leader() is c.a1, "a1 to lead")
    c.a1.ok("authority", "remove", "a3", "--yes", "--force")
    left = [c.a1, c.a2]
    c.settle(left)
    voters = [a["name"] for a in all_items(c.a1, "authority") if a["status"] == "voter"]
    expect(sorted(voters) == ["a1", "a2"], "two voters", voters)
    _, token = c.token()
    for reads in (("token", "list"), ("node", "list"), ("request", "list")):
        r = c.a3.cli(*reads, "--timeout", "3s")
        expect(r.rc != OK, "a removed authority gets no answer", r)
    r = c.a3.cli("token", "list", "--stale")
    expect(token["id"] not in r.out, "nor anything newer than its removal", r)
    r = c.a3.cli("token", "create", "--timeout", "3s")
    expect(r.rc != OK, "nor can it ask for anything", r)
    # It does not count: without a2 there is no majority, whatever a3 does.
    c.a2.freeze()
    wait_until(lambda: not has_quorum(c.a1.status()), "a1 to see no majority")
    c.a1.refused(UNAVAILABLE, "no_quorum", "token", "create")
    c.a3.kill9()
    # Nor does a thief of its keys, whatever he asks for.
    c.a2.thaw()
    c.wait_leader(left)
    x = Attacker(env, c)
    run_table(x, lambda a: x.call(c.a3, **a.args), [
        Attack(service, {"service": service, **more}, "revoked", silent="counted with a3's own attempts")
        for service, more in (
            ("op", {"body": "op:token.create"}), ("op", {"body": "op:read.index"}),
            ("raft", {"stream": 1}), ("config", {"stream": 1}), ("witness", {"body": "statement"}),
            ("issuer", {}), ("recovery", {}), ("heartbeat", {"body": "heartbeat", "as": c.a3.id}))])
    rows = [r for r in all_items(c.a1, "audit") if r["event_type"] == "handshake_refused"]
    expect(any(r["subject_id"] == c.a3.id and details(r)["error"] == "revoked" for r in rows),
           "a3 is refused by name", rows)
    c.a2.freeze()
    wait_until(lambda: not has_quorum(c.a1.status()), "a1 to see no majority again")
    c.a3.start(wait=False)
    for _ in range(20):
        expect(not has_quorum(c.a1.status()), "a3 does not vote after a restart either")
        time.sleep(0.1)
    c.a2.thaw()
    c.wait_leader(left)
    expect(token["id"] in {t["id"] for t in all_items(c.a2, "token")}, "a1 and a2 go on")


def test_nodes_of_a_removed_authority_renew_and_stay(env):
    """DESIGN section 4: an authority's CA signs what it decided as leader. Removing that authority
    retires the CA; its nodes get a certificate from another at once and are never cut off."""
    # Nodes spread their renewals over four heartbeats: all learn of it at once.
    c = env.cluster(authorities=3, nodes=0, run_args=("--agent-heartbeat", "700ms"))
    signer = c.wait_leader()
    n1 = c.enroll("n1", via=signer)
    left = c.others(signer)
    before = left[0].ok("node", "show", "n1")["certificate_serial"]
    left[0].ok("authority", "remove", signer.name, "--yes", "--force")
    wait_until(lambda: left[0].ok("node", "show", "n1")["certificate_serial"] != before,
               "n1 to have a certificate from another authority", limit=90, every=0.5)
    wait_until(lambda: n1.cli("status", "--check").rc == OK, "n1 to be ready under it")
    events = {e["event_type"] for e in all_items(left[0], "audit")
              if e["subject_id"] == n1.id}
    expect("certificate_rotated" in events, "the renewal is audited", events)
    left[0].ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: n1.roles() == ["relay-node"], "configuration to reach n1 still")


def test_stolen_ordinary_node_directory_cannot_act_as_authority(env):
    """DESIGN D7 and section 4: an ordinary certificate opens no gated request and no enrolment. Nor does one who
    stands between a host and the authority get the secret of its token."""
    c = env.cluster(authorities=3, nodes=1)
    for args in (("token", "create"), ("role", "assign", "n1", "relay-node"),
                 ("node", "revoke", "a2", "--reason", "x", "--yes"),
                 ("authority", "remove", "a2", "--yes")):
        r = c.n1.cli(*args, "--timeout", "5s")
        expect(r.rc != OK, "an ordinary node's socket gives no gated request", r)

    token, answer = c.token("--uses", "1")
    head, secret, _ = token_parts(token)
    lured = c.add("h1")

    def lure(to, *slugs):
        """A host is sent there with a token whose secret and pin are right."""
        bent = env.token_file(token_text(head, secret, to.address.encode()))
        r = lured.cli(*lured.join_args(bent, "--no-wait", "--timeout", "2s"))
        expect(r.rc != OK and any(says(r, s) for s in slugs), f"{to.name} enrols nobody: {slugs}", r)
        counters = to.api("GET", "/v1/fabric/sessions")[1]["counters"]
        expect(counters["rpcs_served"] == 0 and counters["sessions"] == 0 or to is c.n1,
               "the host broke off before it sent the secret", counters)

    def foreign(name, *stolen):
        """An authority of another cluster; with n1's identity, as far as its daemon takes it."""
        seed = env.new_cluster(name).add(f"{name}-1")
        seed.ok("init", "--cluster", "demo", "--listen", seed.address)
        for file in stolen:
            shutil.copy(os.path.join(c.n1.dir, "member", file), os.path.join(seed.dir, "member", file))
        return seed
    lure(c.n1, "timeout")
    # A build that serves enrolment with n1's certificate is met by agent_join_test (stolen_node_is_no_authority);
    # ours does not even start with it.
    mixed = foreign("mixed", "node.key", "node.crt")
    mixed.start(wait=False)
    expect(mixed.process.wait(LIMIT) != 0, "a daemon with another cluster's identity")
    mixed.process = None
    # A root of its own: the pin decides.
    lure(foreign("own").start(), "wrong_cluster")
    # The right name of the cluster on the token, and the pin of another root, at the real authority.
    wrong = env.token_file(token_text(head[:16] + os.urandom(32), secret, c.a1.address.encode()))
    r = lured.cli(*lured.join_args(wrong, "--no-wait", "--timeout", "2s"))
    expect(r.rc != OK and says(r, "bad_certificate") and "pinned" in r.err, "the root is another", r)

    expect(c.request("h1") is None, "no request was made")
    row = next(t for t in all_items(c.a1, "token") if t["id"] == answer["id"])
    expect(row["used_count"] == 0, "the token was not used", row)
    expect(not [e for e in all_items(c.a1, "audit") if e["event_type"] == "join_denied"],
           "and not shown")
    lured.ok(*lured.join_args(token, "--no-wait"))


def test_a_copied_node_directory_does_not_make_a_second_node(env):
    """Two processes with one identity: the newer session takes over; nothing breaks."""
    c = env.cluster(authorities=3, nodes=1)
    clone = c.add("clone")
    shutil.copytree(c.n1.dir, clone.dir, ignore=skip_sockets)
    c.n1.stop()
    clone.start(wait=False)  # listens where n1 did

    def answers():
        try:
            return clone.status()["node_id"] == c.n1.id
        except Failure:
            return False
    wait_until(answers, "the clone to run as n1")
    expect(len([n for n in all_items(c.a1, "node") if n["name"] == "n1"]) == 1, "one n1")
    r = clone.cli("agent", "run", timeout=20)
    expect(r.rc != OK and (says(r, "busy") or "lock" in r.err), "one process a directory", r)
    expect(len(items(c.a1.cli("node", "list"))) == 4, "four nodes")
