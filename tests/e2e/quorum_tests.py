"""What a majority decides, and what a minority must not."""

import random
import threading
import uuid

from lib import (CONFLICT, FAILED, OK, UNAVAILABLE, Failure, expect, has_quorum, in_parallel, items,
                 says, wait_until)
from cluster_tests import all_items


def many_requests(c, count):
    """That many hosts ask to join, four at a time; their pending requests."""
    token, _ = c.token("--uses", str(count))
    hosts = [c.add(f"h{i:03d}") for i in range(count)]

    def ask(host):
        r = host.cli(*host.join_args(token, "--no-wait"))
        expect(r.rc == OK, f"{host.name}: join --no-wait", r)

    in_parallel(4, hosts, ask)
    pending = all_items(c.a1, "request", "--status", "pending")
    expect(len(pending) == count, f"{count} pending requests", len(pending))
    return pending


def test_leader_killed_in_approval_storm_loses_nothing(env):
    leader_killed_in_approval_storm(env, 3, 48)


def test_leader_of_five_killed_in_approval_storm_loses_nothing(env):
    leader_killed_in_approval_storm(env, 5, 16)


def leader_killed_in_approval_storm(env, authorities, count):
    """S2, S4, S5: what was acknowledged is there afterwards; each request is decided once."""
    c = env.cluster(authorities=authorities, nodes=0)
    pending = many_requests(c, count)
    leader = c.wait_leader()
    # Anybody may be asked, the leader too; after its death the others.
    seed, lock = random.Random(7), threading.Lock()
    acknowledged, unknown = {}, set()
    killed = threading.Event()

    def approve(request):
        with lock:
            via = seed.choice(c.others(leader) if killed.is_set() else c.authorities())
        r = via.cli("request", "approve", request["id"], "--fingerprint",
                    request["node_fingerprint"], "--timeout", "20s")
        with lock:
            if r.rc == OK:
                acknowledged[request["id"]] = r.json
            else:
                unknown.add(request["id"])
            if len(acknowledged) >= count // 4 and not killed.is_set():
                killed.set()
                leader.kill9()

    in_parallel(6, pending, approve)
    expect(killed.is_set(), "the leader was killed in the middle", len(acknowledged))
    c.wait_leader(c.others(leader))
    leader.start(wait=False)
    leader.wait_ready()
    c.settle()

    # Those without an answer may be tried again, once each (S4: the effect stays single).
    for request in pending:
        if request["id"] in unknown:
            r = c.a1.cli("request", "approve", request["id"], "--fingerprint",
                         request["node_fingerprint"])
            expect(r.rc == OK or (r.rc == CONFLICT and says(r, "already_decided")),
                   "a second try succeeds or finds it decided", r)
    c.settle()
    for a in c.authorities():
        rows = {r["id"]: r for r in all_items(a, "request")}
        nodes = [n["id"] for n in all_items(a, "node") if n["name"].startswith("h")]
        for request in pending:
            row = rows[request["id"]]
            expect(row["status"] == "approved" and row["approved_node_id"] in nodes,
                   f"{a.name}: every request ends approved, with its node", row)
        expect(len(nodes) == len(set(nodes)) == len(pending), f"{a.name}: one node a request",
               len(nodes))
        events = [e["subject_id"] for e in all_items(a, "audit")
                  if "join_approve" in e["event_type"]]
        ours = [s for s in events if s in rows and rows[s]["node_name"].startswith("h")]
        expect(len(ours) == len(set(ours)) == len(pending), f"{a.name}: one decision a request",
               len(ours), len(set(ours)))
    for request_id, answer in acknowledged.items():
        row = next(r for r in all_items(c.a1, "request") if r["id"] == request_id)
        if isinstance(answer, dict) and "approved_node_id" in answer:
            expect(row["approved_node_id"] == answer["approved_node_id"],
                   "the node that was acknowledged", row, answer)


def gated(c, request, token, authority):
    """Each kind of request that needs a majority (AUTH-01..03)."""
    return [
        ("request", "approve", request["id"], "--fingerprint", request["node_fingerprint"]),
        ("request", "reject", request["id"], "--reason", "no"),
        ("role", "assign", c.n1.name, "relay-node"),
        ("node", "revoke", c.n2.name, "--reason", "test", "--yes"),
        ("node", "rename", c.n2.name, "renamed"),
        ("token", "create", "--uses", "1"),
        ("token", "revoke", token["id"], "--yes"),
        ("authority", "remove", authority.name, "--yes"),
        ("authority", "add", c.n1.name, "--owner-dir", c.owner_dir(), "--yes"),
        ("trust", "policy", "--leaf-lifetime", "20d", "--yes"),
        ("trust", "rotate", "prepare", "--owner-dir", c.owner_dir(), "--yes"),
    ]


def minority_refuses(env, authorities, pick):
    """pick(leader, the others): who is left, fewer than half."""
    c = env.cluster(authorities=authorities, nodes=2)
    token, _ = c.token("--uses", "2")
    _, kept = c.token("--uses", "1")
    host = c.add("h1")
    host.ok(*host.join_args(token, "--no-wait"))
    request = c.pending("h1")
    leader = c.wait_leader()
    left = pick(leader, c.others(leader))
    away = c.others(*left)
    c.settle()
    before = decided_state(left[0])
    for a in away:
        a.freeze()
    wait_until(lambda: not any(has_quorum(a.status()) for a in left), "them to see no majority")
    late = c.add("h2")

    def ask(each):
        via, args = each
        r = via.cli(*args)
        expect(r.rc == UNAVAILABLE and says(r, "no_quorum"),
               f"{via.name}: rap {' '.join(args[:2])} is refused with no_quorum", r)

    def ask_api(via):
        status, problem, _ = via.api("POST", f"/v1/requests/{request['id']}/approve",
                                     {"fingerprint": request["node_fingerprint"]},
                                     {"Idempotency-Key": str(uuid.uuid4())})
        expect(status == 503 and problem["code"] == "no_quorum", "the API refuses too", problem)
        expect(problem["seen"] < problem["needed"] == authorities // 2 + 1 and "epoch" in problem and
               "term" in problem, "the refusal says what was seen", problem)

    def ask_to_join(_):
        r = late.cli(*late.join_args(token, "--no-wait", "--timeout", "3s"))
        expect(r.rc != OK, "nobody can even ask to join", r)

    def read(via):
        # The default read is linearizable: it cannot be answered; a stale one can, and says so.
        r = via.cli("node", "list")
        expect(r.rc == UNAVAILABLE, "a linearizable read is refused", r)
        r = via.cli("node", "list", "--stale")
        expect(r.rc == OK and len(items(r)) == authorities + 2, "a stale read is answered", r)
        expect(via.cli("status", "--check").rc != OK, "the check fails")

    # Each waits for a leader to appear before it is refused: all at once.
    work = [(ask, (via, args)) for via in left for args in gated(c, request, kept, away[0])]
    work += [(f, via) for via in left for f in (ask_api, read)] + [(ask_to_join, None)]
    in_parallel(len(work), work, lambda w: w[0](w[1]))
    # A call outlives its host by as long as it may wait for a leader (docs/decisions/0003): what began later has
    # ended, and so has the last thing that the host asked.
    in_parallel(len(left), left, lambda via: ask((via, ("token", "create"))))

    for a in away:
        a.thaw()
    c.wait_leader()
    c.settle()
    for a in c.authorities():
        after = decided_state(a)
        expect(after == before, f"{a.name} shows nothing of what was refused", before, after)
    c.approve(c.request("h1"), via=left[0])


def decided_state(node):
    return {
        "requests": sorted((r["id"], r["status"]) for r in all_items(node, "request")),
        "tokens": sorted((t["id"], t["used_count"], t["revoked_at"])
                         for t in all_items(node, "token")),
        "nodes": sorted((n["id"], n["name"], n["identity_state"]) for n in all_items(node, "node")),
        "roles": sorted((r["node_id"], r["role"]) for r in all_items(node, "role")),
        "authorities": sorted((a["node_id"], a["status"]) for a in all_items(node, "authority")),
    }


def test_minority_refuses_every_gated_request_when_the_leader_is_left(env):
    """AUTH-03, S18."""
    minority_refuses(env, 3, lambda leader, _: [leader])


def test_minority_refuses_every_gated_request_when_a_follower_is_left(env):
    minority_refuses(env, 3, lambda _, others: others[:1])


def test_minority_of_five_refuses_every_gated_request(env):
    minority_refuses(env, 5, lambda leader, others: [leader, others[0]])


def test_frozen_leader_that_wakes_decides_nothing_on_its_own(env):
    """S1, S3: after a pause longer than an election the old leader follows."""
    c = env.cluster(authorities=3, nodes=0)
    old = c.wait_leader()
    term = old.status()["term"]
    old.freeze()
    new = c.wait_leader(c.others(old))
    _, token = c.token(via=new)
    old.thaw()

    def sees():
        try:
            ids = {t["id"] for t in items(old.cli("token", "list"))}
        except Failure:
            return False
        expect(token["id"] in ids, "a linearizable read on the woken leader sees what happened")
        return True
    wait_until(sees, "the woken leader to answer")
    expect(c.settle().status()["term"] > term, "a higher term")


def test_leadership_is_transferred_without_a_gap(env):
    c = env.cluster(authorities=3, nodes=0)
    old = c.wait_leader()
    target = c.others(old)[0]
    r = old.cli("authority", "transfer", target.name, "--yes")
    expect(r.rc == OK, "transfer", r)
    wait_until(lambda: c.leader() is target, f"{target.name} to lead")
    target.ok("token", "create")
    r = old.cli("authority", "transfer", "nobody", "--yes")
    expect(r.rc not in (OK, FAILED), "to somebody unknown is refused", r)
