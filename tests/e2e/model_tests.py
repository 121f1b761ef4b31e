"""The data model beyond joining: what certificates stand on, memberships, groups, capabilities."""

import os
import shutil
import sqlite3
import threading

from lib import (CONFLICT, DENIED, NOT_FOUND, OK, USAGE, expect,
                 items, says, wait_until)
from clock_tests import SkewedClock
from cluster_tests import all_items
from join_tests import token_parts, token_text


# Nodes renew within four heartbeats when their root is on the way out.
QUICK = ("--agent-heartbeat", "700ms")


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


def rotate_confirmed(c, phase):
    """Waits until every node has confirmed that it trusts the root that becomes active."""
    def done():
        r = c.a1.cli("trust", "rotate", phase, "--owner-dir", c.owner_dir(), "--yes")
        expect(r.rc == OK or (r.rc == CONFLICT and "confirmed" in r.err), phase, r)
        return r.rc == OK
    wait_until(done, f"every node to have confirmed what {phase} needs")


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


def copy_snapshot(source, target):
    """The stored signed configuration of one node.db into another."""
    a, b = sqlite3.connect(source), sqlite3.connect(target)
    row = a.execute("SELECT epoch, config_version, received_at, signed FROM snapshot").fetchone()
    b.execute("UPDATE snapshot SET epoch = ?, config_version = ?, received_at = ?, signed = ?", row)
    b.commit()
    a.close()
    b.close()


def log_has(node, text):
    with open(node.log_path, encoding="utf-8", errors="replace") as f:
        return text in f.read()


def test_root_rotation_under_load(env):
    """S7, S9, IDN-05: prepare, activate, retire with commands and nodes working throughout; then
    nothing under the old root counts."""
    c = env.cluster(authorities=3, nodes=2, run_args=QUICK)
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
        rotate_confirmed(c, "activate")
        expect(root_of(trust(c), "active")["root_id"] == new, "the new root is active")
        expect(root_of(trust(c), "retiring")["root_id"] == old, "the old one is going")
        wait_until(lambda: all_under(c, new), "every node under the new root")
        # Authorities show the new root while a node's own certificate is of the old one: no attack.
        now = certificates(c.n1)
        write_certificates(c.n1, before)
        codes = {k["code"] for k in c.n1.cli("doctor").json["items"]}
        expect(not codes & {"wrong_pin", "other_root"}, "the old root is not the only one", codes)
        write_certificates(c.n1, now)
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
    c = env.cluster(authorities=3, nodes=1, run_args=QUICK)
    level_reached(c)
    old = root_of(trust(c), "active")["root_id"]
    rotate(c, "prepare")
    rotate(c, "rollback")
    expect([r["status"] for r in trust(c)["roots"]].count("withdrawn") == 1, "withdrawn")
    rotate(c, "prepare")
    rotate_confirmed(c, "activate")
    wait_until(lambda: all_under(c, root_of(trust(c), "active")["root_id"]), "all under the new")
    rotate_confirmed(c, "rollback")
    expect(root_of(trust(c), "active")["root_id"] == old, "the old root is active again")
    wait_until(lambda: all_under(c, old), "all under the old root again")
    rotate(c, "rollback")
    expect(len([r for r in trust(c)["roots"] if r["status"] == "withdrawn"]) == 2, "both withdrawn")
    for n in c.nodes.values():
        n.wait_ready()
    c.enroll("n2")


def test_retire_waits_for_every_node(env):
    """A node that is away keeps the old root; with --force it is left behind and must join again."""
    c = env.cluster(authorities=1, nodes=2, run_args=QUICK)
    level_reached(c)
    rotate(c, "prepare")
    open_now = [k for k in c.a1.cli("doctor").json["items"] if k["code"] == "rotation_open"]
    expect(len(open_now) == 1 and "rap trust rotate activate" in open_now[0]["next"], "doctor tells of it", open_now)
    c.n1.stop()
    r = c.a1.cli("trust", "rotate", "activate", "--owner-dir", c.owner_dir(), "--yes")
    expect(r.rc in (OK, CONFLICT), "activate waits for who has not confirmed", r)
    if r.rc == CONFLICT:
        expect("n1" in r.err, "it says who", r)
        c.n1.start()
        rotate_confirmed(c, "activate")
        c.n1.stop()
    wait_until(lambda: trust(c)["nodes_not_under_active_root"] == ["n1"], "only n1 to be missing")
    c.a1.refused(CONFLICT, "conflict", "trust", "rotate", "retire", "--owner-dir", c.owner_dir(),
                 "--yes")
    rotate(c, "retire", "--force")
    expect("rotation_open" not in c.a1.cli("doctor").out, "it is over")
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
    c = env.cluster(authorities=1, nodes=1, run_args=QUICK)
    level_reached(c)
    c.a1.refused(USAGE, "invalid", "trust", "policy", "--leaf-lifetime", "10s")
    c.a1.ok("trust", "policy", "--leaf-lifetime", "1m")
    clock = SkewedClock(env, c.enroll("n2"))
    c.n2.stop()
    c.n2.start()
    first = c.a1.ok("node", "show", "n2")["certificate_serial"]
    clock.ahead(45)  # two thirds of its life are over for n2, who decides when

    def renewed():
        return c.a1.ok("node", "show", "n2")["certificate_serial"] != first
    wait_until(renewed, "n2 to renew by itself", 120)
    expect(c.n2.cli("status", "--check").rc == OK, "n2 works")


def test_disabled_member_authorizes_nothing(env):
    """MEM-05: sessions cut, roles ineffective, heartbeats refused, certificates not renewed; enabled
    again without a restart, and distinct from revoked."""
    c = env.cluster(authorities=3, nodes=2)
    level_reached(c)
    c.a1.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to get its role")
    c.a1.refused(USAGE, "usage", "node", "disable", "n1", "--yes")
    c.a1.refused(CONFLICT, "conflict", "node", "disable", "a2", "--reason", "no", "--yes")
    c.a2.ok("node", "disable", "n1", "--reason", "maintenance", "--yes")
    c.a1.refused(CONFLICT, "already_decided", "node", "disable", "n1", "--reason", "x", "--yes")

    def told():
        s = c.n1.status()
        expect(s["membership_status"] == "disabled" and s["roles"] == [] and
               s["health"] == "disabled" and not s["ready"], "n1 knows", s)
        return True
    wait_until(told, "n1 to be told that it is disabled")
    row = c.a1.ok("node", "show", "n1")
    expect(row["membership_status"] == "disabled" and row["disabled_reason"] == "maintenance" and
           row["identity_state"] == "active", "not revoked", row)
    role = [r for r in items(c.a1.cli("role", "list")) if r["role"] == "relay-node"]
    expect([r["state"] for r in role] == ["ineffective"], "its role does not count", role)
    c.a1.refused(DENIED, "membership_disabled", "role", "assign", "n1", "core-mesh")
    heard = [h["received_at"] for h in items(c.a1.cli("node", "heartbeats", "n1"))]
    # From nothing but its disk it is still disabled, and its heartbeats count for nothing.
    c.n1.stop()
    c.n1.start(wait=False)
    wait_until(lambda: c.n1.cli("status").rc == OK, "n1 to run")
    wait_until(told, "n1 to be disabled still")
    expect([h["received_at"] for h in items(c.a1.cli("node", "heartbeats", "n1"))] == heard,
           "no heartbeat was taken")
    c.a1.ok("node", "enable", "n1", "--reason", "done")
    c.n1.wait_ready()
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to have its role again")
    wait_until(lambda: c.a1.ok("node", "show", "n1")["health_status"] == "healthy", "n1 is well")
    events = [e["event_type"] for e in all_items(c.a1, "audit", "--subject", c.n1.id)
              if e["event_type"].startswith("membership_")]
    expect(events == ["membership_disabled", "membership_enabled"], "audited", events)


def test_groups_are_folders_and_nothing_else(env):
    """GRP-01, GRP-02: nested, without cycles, bounded; a move changes no decision and no snapshot."""
    c = env.cluster(authorities=1, nodes=2)
    level_reached(c)
    make = ("group", "create")
    c.a1.ok(*make, "europe", "--kind", "region")
    c.a1.ok(*make, "berlin", "--parent", "europe", "--kind", "site")
    c.a1.ok(*make, "rack-1", "--parent", "berlin")
    c.a1.refused(CONFLICT, "name_taken", *make, "berlin", "--parent", "europe")
    c.a1.refused(NOT_FOUND, "not_found", *make, "x", "--parent", "nowhere")
    c.a1.refused(CONFLICT, "conflict", "group", "move", "europe", "--parent", "rack-1")
    c.a1.refused(CONFLICT, "conflict", "group", "move", "berlin", "--parent", "berlin")
    c.a1.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to get its role")
    version = c.n1.status()["config_version"]
    c.a1.ok("node", "group", "n1", "rack-1")
    c.a1.refused(CONFLICT, "conflict", "group", "delete", "rack-1")
    expect(c.a1.ok("node", "show", "n1")["group_name"] == "rack-1", "n1 is in its rack")
    c.a1.ok("group", "move", "rack-1", "--parent", "/", "--name", "rack-2")
    expect(c.a1.ok("group", "show", "rack-2")["parent_group_id"] is None, "at the top")
    c.a1.ok("node", "group", "n1")
    c.a1.ok("group", "delete", "rack-2")
    expect([g["name"] for g in items(c.a1.cli("group", "list"))] == ["europe", "berlin"], "left")
    # Nothing that was decided moved: the same configuration, the same role, the same approvals.
    expect(c.n1.status()["config_version"] == version and "relay-node" in c.n1.roles(),
           "n1's configuration is the one it had")
    below = "europe"
    for i in range(2, 9):
        c.a1.ok(*make, f"level-{i}", "--parent", below)
        below = f"level-{i}"
    r = c.a1.cli(*make, "too-deep", "--parent", below)
    expect(r.rc != OK and says(r, "too_large"), "depth is bounded", r)


def test_capabilities_are_verified_by_policy(env):
    """CAP-02, ROLE-04: what is reported is the upper bound, and marked until somebody vouches."""
    c = env.cluster(authorities=1, nodes=1)
    level_reached(c)
    row = c.a1.ok("node", "show", "n1")
    expect(row["capabilities"] and row["unverified_capabilities"] == row["capabilities"],
           "reported, not verified", row)
    c.a1.refused(USAGE, "invalid", "node", "verify", "n1", "can_fly")
    c.a1.ok("role", "assign", "n1", "relay-node")

    def state():
        return [r["state"] for r in items(c.a1.cli("role", "list", "--node", "n1"))]
    expect(state() == ["unverified"], "its role says so", state())
    c.a1.ok("node", "verify", "n1", "can_route_mesh")
    expect(state() == ["effective"], "vouched for", state())
    c.a1.ok("node", "verify", "n1", "can_route_mesh", "--withdraw")
    expect(state() == ["unverified"], "withdrawn", state())
    c.a1.ok("cluster", "auto-verify", "can_route_mesh")
    expect(state() == ["effective"], "by policy", state())
    c.enroll("n2")
    expect("can_route_mesh" not in c.a1.ok("node", "show", "n2")["unverified_capabilities"],
           "whoever comes is verified by policy")
    c.a1.refused(CONFLICT, "already_decided", "cluster", "auto-verify", "can_route_mesh")


def test_cluster_shows_gaps_and_takes_a_name(env):
    """CLU-04, HB-01: the last holder of a role gone is a gap; health, region, flags, observations."""
    c = env.cluster(authorities=3, nodes=2)
    level_reached(c)

    def coverage(role):
        return next((r for r in c.a1.ok("cluster", "show")["role_coverage"] if r["role"] == role),
                    None)
    expect(coverage("relay-node") is None, "nobody asked for a relay yet")
    c.a1.ok("cluster", "require", "relay-node")
    expect(coverage("relay-node")["gap"] and c.a1.ok("cluster", "show")["health"] == "degraded",
           "required, and nobody has it")
    c.a1.ok("role", "assign", "n1", "relay-node")
    expect(not coverage("relay-node")["gap"], "n1 has it", coverage("relay-node"))
    c.a1.ok("node", "disable", "n1", "--reason", "test", "--yes")
    expect(coverage("relay-node")["gap"], "the last holder is gone")
    c.a1.ok("node", "enable", "n1")
    c.a1.ok("cluster", "require", "relay-node", "--not")
    r = c.a1.ok("cluster", "update", "--region", "eu-1", "--metadata", '{"owner": "ops"}',
                "--test-telemetry", "on", "--heartbeat-sample", "1s")
    expect(r["region"] == "eu-1" and r["test_telemetry"] is True, "updated", r)
    expect(c.a1.ok("cluster", "show")["metadata"] in ('{"owner": "ops"}', {"owner": "ops"}),
           "metadata is kept", c.a1.ok("cluster", "show"))
    c.a1.refused(USAGE, "invalid", "cluster", "update", "--heartbeat-sample", "1ms")
    c.a1.ok("cluster", "update", "--name", "renamed")
    wait_until(lambda: c.n2.status()["cluster_name"] in ("renamed", "demo"), "n2 goes on")
    c.a1.ok("node", "telemetry", "n1", "on")
    expect(c.a1.ok("node", "show", "n1")["test_telemetry"] is True, "marked")

    def observed():
        rows = items(c.a1.cli("node", "heartbeats", "n2"))
        return rows and rows[-1]["version"] and len(rows) <= 16
    wait_until(observed, "an observation of n2")


def test_two_clusters_on_one_host(env):
    """MEM-03, MEM-04, CLU-03: one host in two clusters, with different roles; what is A's is worth
    nothing in B."""
    a, b = env.new_cluster("ca"), env.new_cluster("cb")
    a.init("alpha")
    b.init("beta")
    level_reached(a)
    level_reached(b)
    a.enroll("n1")
    b.enroll("n1")
    expect(a.n1.id != b.n1.id and a.n1.dir != b.n1.dir, "two identities, two directories")
    a.a1.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: "relay-node" in a.n1.roles(), "n1 to be a relay of alpha")
    expect(b.n1.roles() == [], "and nothing of beta")
    b.a1.refused(NOT_FOUND, "not_found", "node", "show", a.n1.id)
    # The overview of this host.
    seen = a.n1.cli("cluster", "memberships", os.path.dirname(b.n1.dir))
    rows = {(r["cluster_name"], r["node_name"]) for r in seen.json["items"] if r["running"]}
    expect({("alpha", "n1"), ("beta", "n1"), ("beta", "a1")} <= rows, "both are listed", seen.json)
    # A's token at B, with B's address put into it.
    token, _ = a.token("--uses", "1")
    head, secret, _ = token_parts(token)
    stray = b.add("n2")
    r = stray.cli(*stray.join_args(env.token_file(token_text(head, secret,
                                                             b.a1.address.encode())),
                                   "--no-wait", "--timeout", "10s"))
    expect(r.rc != OK, "A's token opens nothing at B", r)
    expect(not b.request("n2"), "B has heard of no request")
    del b.nodes["n2"]
    # A's certificate, key and configuration in B's directory.
    b.n1.stop()
    kept = certificates(b.n1)
    member = os.path.join(b.n1.dir, "member")
    shutil.copy(os.path.join(member, "node.key"), os.path.join(member, "kept.key"))
    shutil.copy(os.path.join(a.n1.dir, "member", "node.key"), os.path.join(member, "node.key"))
    write_certificates(b.n1, certificates(a.n1))
    b.n1.start(wait=False)
    wait_until(lambda: b.n1.process.poll() is not None or log_has(b.a1, "peer refused") or
               log_has(b.n1, "peer refused"), "A's certificate to be refused in B")
    expect(b.n1.cli("status", "--check").rc != OK, "it does not work")
    b.n1.cleanup()
    os.replace(os.path.join(member, "kept.key"), os.path.join(member, "node.key"))
    write_certificates(b.n1, kept)
    b.n1.start()
    # A's signed configuration in B's store.
    b.n1.stop()
    shutil.copy(os.path.join(member, "node.db"), os.path.join(member, "kept.db"))
    a.n1.stop()
    copy_snapshot(os.path.join(a.n1.dir, "member", "node.db"), os.path.join(member, "node.db"))
    a.n1.start()
    b.n1.start(wait=False)
    wait_until(lambda: log_has(b.n1, "stored configuration not usable"),
               "A's configuration to be refused in B")
    expect("entry-node" not in b.n1.roles(), "and to give no role")
