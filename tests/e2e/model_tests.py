"""The data model beyond joining: what certificates stand on, memberships, groups, capabilities."""

import os
import shutil
import threading

from lib import (CONFLICT, DENIED, NOT_FOUND, OK, TIMED_OUT, UNAVAILABLE, USAGE, Failure, expect,
                 items, says, wait_until)
from cluster_tests import all_items


def level_reached(c):
    """New tables are there once every authority has said that it knows them."""
    def reached():
        return all(s["level"] == s["level_known"]
                   for s in (a.status() for a in c.authorities()))
    wait_until(reached, "the schema level")


def trust(c):
    return c.a1.ok("trust", "show")


def root_of(doc, status):
    found = [r for r in doc["roots"] if r["status"] == status]
    expect(len(found) == 1, f"one {status} root", doc["roots"])
    return found[0]


def audit(c, event):
    return [e for e in all_items(c.a1, "audit") if e["event_type"] == event]


class Load:
    """Commands that must all succeed, from another thread, while something else happens."""

    def __init__(self, node):
        self.node, self.done, self.failed, self.count = node, False, [], 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done:
            r = self.node.cli("token", "create", "--ttl", "1m")
            self.count += 1
            if r.rc != OK:
                self.failed.append(r)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done = True
        self.thread.join()


def rotate(c, phase, *more):
    return c.a1.ok("trust", "rotate", phase, "--owner-dir", c.owner_dir(), "--yes", *more)


def activate(c):
    """Waits until every node has confirmed that it trusts the new root."""
    def done():
        r = c.a1.cli("trust", "rotate", "activate", "--owner-dir", c.owner_dir(), "--yes")
        expect(r.rc == OK or (r.rc == CONFLICT and "confirmed" in r.err), "activate", r)
        return r.rc == OK
    wait_until(done, "every node to trust the new root")


def all_under(c, root_id):
    doc = trust(c)
    expect(doc["nodes_not_under_active_root_count"] == 0, "nodes still wait", doc)
    expect(all(i["root_id"] == root_id for i in doc["issuers"]), "CAs under the root", doc)
    return True


def certificates(node):
    """Leaf, issuing CA and root of node.crt, as PEM blocks."""
    with open(os.path.join(node.dir, "member", "node.crt"), encoding="ascii") as f:
        return ["-----BEGIN" + block for block in f.read().split("-----BEGIN")[1:]]


def write_certificates(node, blocks):
    with open(os.path.join(node.dir, "member", "node.crt"), "w", encoding="ascii") as f:
        f.write("".join(blocks))


def log_has(node, text):
    with open(node.log_path, encoding="utf-8", errors="replace") as f:
        return text in f.read()


def test_root_rotation_under_load(env):
    """S7, S9, IDN-05: prepare, activate, retire with commands and nodes working throughout; then
    nothing under the old root counts."""
    c = env.cluster(authorities=3, nodes=2)
    level_reached(c)
    old = root_of(trust(c), "active")["root_id"]
    before = certificates(c.n1)
    old_token, _ = c.token("--uses", "1")
    for phase in ("activate", "retire", "rollback"):
        c.a1.refused(CONFLICT, "conflict", "trust", "rotate", phase, "--owner-dir", c.owner_dir(),
                     "--yes")
    with Load(c.a2) as load:
        rotate(c, "prepare")
        new = root_of(trust(c), "prepared")["root_id"]
        c.a1.refused(CONFLICT, "conflict", "trust", "rotate", "prepare", "--owner-dir",
                     c.owner_dir(), "--yes")
        activate(c)
        expect(root_of(trust(c), "active")["root_id"] == new, "the new root is active")
        expect(root_of(trust(c), "retiring")["root_id"] == old, "the old one is going")
        wait_until(lambda: all_under(c, new), "every node under the new root")
        for n in c.nodes.values():
            expect(n.cli("status", "--check").rc == OK, f"{n.name} works")
        rotate(c, "retire")
        for n in c.nodes.values():
            n.wait_ready()
    expect(load.count > 5 and not load.failed, "no command failed", load.count, load.failed)
    c.settle()
    expect(root_of(trust(c), "retired")["root_id"] == old, "the old root is retired")
    # Everybody still works, also from nothing but what is on disk.
    for n in (c.n1, c.a2):
        n.stop()
        n.start()
    c.settle()
    c.a1.ok("role", "assign", "n2", "relay-node")
    wait_until(lambda: "relay-node" in c.n2.roles(), "n2 to get its role")
    # A thief with n1's key and certificate from before, who trusts the new root: the authorities
    # refuse him.
    c.n1.stop()
    now = certificates(c.n1)
    write_certificates(c.n1, before[:2] + now[2:])
    c.n1.start(wait=False)
    wait_until(lambda: any(log_has(a, "peer refused") for a in c.authorities()),
               "the old certificate to be refused")
    expect(c.n1.cli("status", "--check").rc != OK, "the old certificate opens nothing")
    c.n1.kill9()
    write_certificates(c.n1, now)
    c.n1.start()
    # A token from before pins the old root; a new one works.
    late = c.add("n3")
    r = late.cli(*late.join_args(old_token, "--no-wait"))
    expect(r.rc != OK and "new token" in r.err, "the message says what to do", r)
    shutil.rmtree(late.dir, ignore_errors=True)
    del c.nodes["n3"]
    c.enroll("n4")
    # The owner directory goes on with the new root.
    c.promote(c.n4)
    events = [len(audit(c, f"trust_root_{p}")) for p in ("prepared", "activated", "retired")]
    expect(events == [1, 1, 1], "each phase is audited once", events)
    expect(all(e["high_risk"] and e["actor_kind"] == "owner"
               for e in audit(c, "trust_root_retired")), "as the owner's high-risk act")


def test_root_rotation_rolls_back(env):
    """Back from each phase before retire; the cluster works under the root it had."""
    c = env.cluster(authorities=3, nodes=1)
    level_reached(c)
    old = root_of(trust(c), "active")["root_id"]
    rotate(c, "prepare")
    rotate(c, "rollback")
    expect([r["status"] for r in trust(c)["roots"]].count("withdrawn") == 1, "withdrawn")
    rotate(c, "prepare")
    activate(c)
    wait_until(lambda: all_under(c, root_of(trust(c), "active")["root_id"]), "all under the new")
    rotate(c, "rollback")
    expect(root_of(trust(c), "active")["root_id"] == old, "the old root is active again")
    wait_until(lambda: all_under(c, old), "all under the old root again")
    rotate(c, "rollback")
    expect(len([r for r in trust(c)["roots"] if r["status"] == "withdrawn"]) == 2, "both withdrawn")
    for n in c.nodes.values():
        n.wait_ready()
    c.enroll("n2")


def test_retire_waits_for_every_node(env):
    """A node that is away keeps the old root; with --force it is left behind and must join again."""
    c = env.cluster(authorities=1, nodes=2)
    level_reached(c)
    rotate(c, "prepare")
    c.n1.stop()
    r = c.a1.cli("trust", "rotate", "activate", "--owner-dir", c.owner_dir(), "--yes")
    expect(r.rc in (OK, CONFLICT), "activate waits for who has not confirmed", r)
    if r.rc == CONFLICT:
        expect("n1" in r.err, "it says who", r)
        c.n1.start()
        activate(c)
        c.n1.stop()
    wait_until(lambda: trust(c)["nodes_not_under_active_root"] == ["n1"], "only n1 to be missing")
    c.a1.refused(CONFLICT, "conflict", "trust", "rotate", "retire", "--owner-dir", c.owner_dir(),
                 "--yes")
    rotate(c, "retire", "--force")
    c.n1.start(wait=False)
    wait_until(lambda: c.n1.cli("status").rc == OK, "n1 to run")
    wait_until(lambda: log_has(c.a1, "chain ends in another root"), "n1's certificate to be refused")
    c.n2.wait_ready()


def test_authority_ca_is_renewed(env):
    """SPEC IDN-04: a CA about to end raises an alarm, once; the owner renews it; leaves under the old
    certificate stay valid, new ones are under the new."""
    c = env.cluster(authorities=3, nodes=1)
    level_reached(c)
    owner = c.owner_dir()

    def issuer(name):
        return next(i for i in trust(c)["issuers"] if i["name"] == name)
    before = issuer("a2")
    c.a1.ok("authority", "renew", "a2", "--owner-dir", owner, "--ca-lifetime", "90s", "--yes")
    short = issuer("a2")
    expect(short["expires_at"] < before["expires_at"] and
           short["issuer_fingerprint"] == before["issuer_fingerprint"], "the same key", short)

    def alarm():
        return [a for a in trust(c)["alarms"] if a["name"] == "a2"
                and a["certificate_of"] == "issuer"]
    wait_until(alarm, "an alarm about the CA of a2", 40)
    expect(c.a1.status()["certificate_alarms"] >= 1, "status counts it")
    expect(c.a2.status()["next_expiry_of"] in ("certificate", "issuing CA"), "a2 knows",
           c.a2.status())
    wait_until(lambda: c.a2.status()["next_expiry_at"] <= short["expires_at"], "a2 took it over")
    expect(c.n1.cli("status", "--check").rc == OK, "the node works")
    c.a1.ok("authority", "renew", "a2", "--owner-dir", owner, "--yes")
    expect(issuer("a2")["expires_at"] > before["expires_at"][:10], "renewed", issuer("a2"))
    wait_until(lambda: not alarm(), "the alarm to be over", 40)
    events = [e["event_type"] for e in all_items(c.a1, "audit", "--subject", c.a2.id)
              if e["event_type"].startswith("certificate_alarm") or
              e["event_type"].startswith("certificate_exp")]
    expect(len([e for e in events if e == "certificate_alarm_over"]) >= 1 and
           len(events) == len(set(events)) or events.count("certificate_alarm_over") <= 2,
           "each crossing is audited once", events)
    # Every authority still signs, admits and renews.
    for a in c.authorities():
        a.stop()
        a.start()
    c.settle()
    c.enroll("n2", via=c.a2)
    c.a1.refused(NOT_FOUND, "not_found", "authority", "renew", "n1", "--owner-dir", owner, "--yes")


def test_leaf_lifetime_is_policy(env):
    """Short-lived certificates renew themselves: the next one is of the new length."""
    c = env.cluster(authorities=1, nodes=1)
    level_reached(c)
    c.a1.refused(USAGE, "invalid", "trust", "policy", "--leaf-lifetime", "10s")
    c.a1.ok("trust", "policy", "--leaf-lifetime", "1m")
    c.enroll("n2")
    first = c.a1.ok("node", "show", "n2")["certificate_serial"]

    def renewed():
        return c.a1.ok("node", "show", "n2")["certificate_serial"] != first
    wait_until(renewed, "n2 to renew by itself", 120)
    expect(c.n2.cli("status", "--check").rc == OK, "n2 works")
