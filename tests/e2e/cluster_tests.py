"""A cluster's life: growing, restarting, and losing processes."""

import json
import os

from lib import DEGRADED, LIMIT, OK, UNAVAILABLE, expect, items, wait_until


def names(node, noun, key):
    return sorted(x[key] for x in items(node.cli(noun, "list")))


def test_bootstrap_three_and_enroll_two(env):
    c = env.new_cluster()
    c.bootstrap(authorities=3, nodes=2)
    for n in c.nodes.values():
        expect(names(n if n in c.authorities() else c.a1, "node", "name") ==
               ["a1", "a2", "a3", "n1", "n2"], "five nodes", n.name)
    statuses = [a["status"] for a in items(c.a2.cli("authority", "list"))]
    expect(statuses == ["voter"] * 3, "three voters", statuses)
    ids = {n.status()["node_id"] for n in c.nodes.values()}
    expect(len(ids) == 5, "five different ids", ids)
    expect(len({n.status()["cluster_id"] for n in c.nodes.values()}) == 1, "one cluster id")
    # ENR-04: approval grants no role.
    expect(c.n1.roles() == [], "an ordinary node starts with no roles", c.n1.status())
    expect(c.a1.ok("audit", "verify")["ok"] is True, "the audit chain verifies")


def test_five_authorities_survive_the_loss_of_two(env):
    """With three of them: quorum_tests."""
    c = env.cluster(authorities=5, nodes=0)
    first = c.wait_leader()
    second = c.others(first)[0]
    first.kill9()
    second.kill9()
    left = c.others(first, second)
    c.wait_leader(left)
    token, _ = c.token("--uses", "1", via=left[0])
    c.enroll("n1", via=left[0], token_file=token)


def test_leader_that_is_stopped_hands_over_first(env):
    """When the process has ended, another authority has begun a new term already: nobody had to wait
    for an election timeout."""
    cluster = env.cluster(authorities=3, nodes=0)
    leader = cluster.settle()
    term = leader.status()["term"]
    leader.stop()
    rest = cluster.others(leader)
    expect(max(n.status()["term"] for n in rest) > term, "a new term when the leader has stopped")
    cluster.wait_leader()
    expect(rest[0].ok("token", "create")["id"], "a token under the next leader")


def events(node, kind):
    """Of the audit, every one of this type."""
    return all_items(node, "audit", "--event-type", kind)


def all_items(node, noun, *args):
    """Every page of a list."""
    out, cursor = [], None
    while True:
        page = node.ok(noun, "list", *args, *(["--cursor", cursor] if cursor else []))
        out += page["items"]
        cursor = page["next_cursor"]
        if not cursor:
            return out


def picture(node):
    return {noun: all_items(node, noun) for noun in
            ("token", "request", "node", "authority", "role", "audit")}


def decided(picture_):
    """What must be the same after a restart: all but live state and what a new term writes."""
    live = ("last_seen_at", "last_heartbeat_at", "health_status", "agent_version", "facts",
            "last_contact_ms", "in_contact", "match_index", "updated_at", "raft_role", "leader")
    out = {noun: [{k: v for k, v in row.items() if k not in live} for row in rows]
           for noun, rows in picture_.items()}
    out["audit"] = [row for row in out["audit"] if row["event_type"] not in LIVE_EVENTS]
    return out


LIVE_EVENTS = ("term_start", "term_started", "node_health", "health_changed")


def test_full_restart_of_all_authorities_loses_nothing(env):
    c = env.cluster(authorities=3, nodes=1)
    c.token("--uses", "3")
    c.a2.ok("role", "assign", "n1", "relay-node")
    before = decided(picture(c.a1))
    for how in ("stop", "kill9"):
        for a in c.authorities():
            getattr(a, how)()
        for a in c.authorities():
            a.start(wait=False)
        c.wait_leader()
        c.settle()
        for a in c.authorities():
            after = decided(picture(a))
            for noun, rows in before.items():
                expect(len(after[noun]) == len(rows), f"{noun} list after {how} on {a.name}",
                       len(rows), len(after[noun]))
                for was, now in zip(rows, after[noun]):
                    expect(was == now, f"{noun} after {how} on {a.name}", was, now)


def test_offline_start_uses_the_stored_snapshot(env):
    c = env.cluster(authorities=3, nodes=1)
    c.a1.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: c.n1.roles() == ["relay-node"], "the role to reach n1")
    held = c.n1.ok("config", "show")
    for a in c.authorities():
        a.stop()
    c.n1.kill9()
    c.n1.start(wait=False)
    wait_until(lambda: c.n1.cli("status").rc == OK, "n1 to answer")
    again = c.n1.ok("config", "show")
    for key in ("epoch", "config_version", "node_id", "cluster_id", "expires_at"):
        expect(again[key] == held[key], f"the same {key} as before", held, again)
    expect(c.n1.roles() == ["relay-node"], "the role of the stored snapshot")
    r = c.n1.cli("config", "verify")
    expect(r.rc == OK, "the stored snapshot verifies offline", r)
    r = c.n1.cli("status", "--check")
    expect(r.rc in (UNAVAILABLE, DEGRADED), "the check says that no authority is there", r)
    for a in c.authorities():
        a.start(wait=False)
    c.n1.wait_ready()


def test_role_reaches_its_node_and_no_other(env):
    """ROLE-05, RULE-14: a node's snapshot holds its own roles."""
    c = env.cluster(authorities=3, nodes=2)
    c.a3.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: c.n1.roles() == ["relay-node"], "the role to reach n1", LIMIT)
    expect(c.n2.roles() == [], "no role at n2", c.n2.status())
    c.a2.ok("role", "unassign", "n1", "relay-node")
    wait_until(lambda: c.n1.roles() == [], "the role to leave n1", LIMIT)


def test_audit_chain_verifies_and_lists_events(env):
    """AUD-01, S16."""
    c = env.cluster(authorities=3, nodes=1)
    c.a1.ok("role", "assign", "n1", "relay-node")
    _, token = c.token("--uses", "1")
    c.a1.ok("token", "revoke", token["id"], "--yes")
    c.settle()
    heads = set()
    for a in c.authorities():
        answer = a.ok("audit", "verify")
        expect(answer["ok"] is True and answer["rows"] > 0, "a chain with rows", answer)
        heads.add((answer["rows"], answer["head"]))
    expect(len(heads) == 1, "one chain on all authorities", heads)
    events = all_items(c.a2, "audit")
    kinds = {e["event_type"] for e in events}
    for word in ("token_create", "token_revoke", "join_submit", "join_approve", "role_assign",
                 "authority_add"):
        expect(any(word in k for k in kinds), f"an event for {word}", sorted(kinds))
    expect(len({e["id"] for e in events}) == len(events), "no event twice")
    # The same chain in an exported file, without a daemon; and what was done to it is named.
    exported = c.a2.cli("audit", "export").out.splitlines(keepends=True)
    path = os.path.join(env.folder, "audit.jsonl")

    def verify(lines):
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(lines)
        return c.a2.cli("audit", "verify", "--file", path)
    r = verify(exported)
    live = c.a2.ok("audit", "verify")
    expect(r.rc == OK and r.json["ok"] and r.json["rows"] == len(exported) >= 10, "the file", r)
    expect(live["rows"] > r.json["rows"] or live["head"] == r.json["head"], "one head", live, r)
    changed = json.dumps({**json.loads(exported[4]), "actor_id": "somebody"}) + "\n"
    for lines, word in ((exported[:4] + [changed] + exported[5:], "line 5"),
                        (exported[:3] + exported[4:], "event 4 is missing"),
                        (exported[:2] + [exported[3], exported[2]] + exported[4:], "event 3"),
                        (exported[:2] + ["{}\n"], "line 3"), (["nonsense\n"], "line 1")):
        r = verify(lines)
        expect(r.rc != OK and word in r.err, f"a file with {word}", r)
    expect(verify(exported[5:]).json["first_seq"] == 6, "a part of it")
    line = c.a2.ok("audit", "list", "--node", "n1")["items"]
    expect([e["event_type"] for e in line][:3] ==
           ["join_submitted", "join_approved", "certificate_issued"], "AUD-03: n1's timeline", line)
    roles = c.a2.ok("audit", "list", "--node", "n1", "--category", "roles")["items"]
    expect([e["event_type"] for e in roles] == ["role_assigned"], "and its roles", roles)
    approvals = [e for e in events if "join_approve" in e["event_type"]]
    expect(approvals and all(e["actor_kind"] == "admin" and e["actor_id"].startswith("uid:")
                             for e in approvals), "approvals name their actor", approvals)
