"""A decision carries its quorum (DESIGN D16, docs/decisions/0008)."""

import json
import os
import shutil
import subprocess

from lib import OK, clean_env, expect, wait_until
from cluster_tests import all_items


def believes(node, members):
    """Whether the configuration in force is signed by a majority of so many authorities."""
    r = node.cli("config", "verify")
    return (r.rc == OK and r.json["witnessed"] and
            r.json["authority_set_members"] == members and r.json)


def test_nodes_believe_the_voters(env):
    """The set follows the voters, link by link, and every node asks for its majority."""
    c = env.cluster(authorities=3, nodes=1)
    for node in c.nodes.values():
        wait_until(lambda node=node: believes(node, 3), f"{node.name} to believe three authorities")
    c.a1.ok("authority", "remove", "a3", "--yes", "--force")
    for node in (c.a1, c.a2, c.n1):
        wait_until(lambda node=node: believes(node, 2), f"{node.name} to believe two authorities")
    c.a1.ok("role", "assign", "n1", "relay-node", "--yes")
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to hear of its role")
    events = c.a1.ok("audit", "list", "--event-type", "authority_set_changed")["items"]
    expect([e["details"]["members"] for e in events] == [1, 2, 3, 2], "one link a change", events)


def attacker(env, command, **args):
    """tests/e2e/attacker; the process, which prints one line of JSON."""
    program = os.path.join(os.path.dirname(env.rap), "tests", "e2e", "attacker")
    expect(os.access(program, os.X_OK), f"{program} is built (the target `attacker`)")
    line = [program, command] + [f"{k}={v}" for k, v in args.items()]
    return subprocess.Popen(  # pylint: disable=consider-using-with
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**clean_env(), "ASAN_OPTIONS": "detect_leaks=0"})


def answer_of(process):
    out, err = process.communicate(timeout=120)
    expect(process.returncode == 0 and out, "the attacker ran", process.args, err)
    return json.loads(out)


def steal(node):
    """The disk of an authority host is gone, and the host with it."""
    node.kill9()
    stolen = node.dir + "-stolen"
    shutil.copytree(os.path.join(node.dir, "member"), stolen)
    return stolen


def reports(node):
    return [e for e in all_items(node, "audit") if e["event_type"] == "forgery_reported"]


def test_stolen_authority_moves_no_node_to_a_forged_snapshot(env):
    """DESIGN D16: with one authority's keys and disk, roles nobody gave, a tree of the thief's own, the
    real majority's signatures on other content, an authority set of himself and an old version are all
    refused, and the attempt is reported once the node meets an honest authority."""
    c = env.cluster(authorities=3, nodes=1)
    wait_until(lambda: believes(c.n1, 3), "n1 to believe three authorities")
    before = c.n1.ok("config", "verify")
    expect(reports(c.a1) == [], "no forgery so far")
    stolen = steal(c.a3)
    c.a1.stop()
    c.a2.stop()
    for lie in ("bare", "own", "reuse", "set", "old"):
        thief = attacker(env, "serve", stolen=stolen, listen=c.a3.address, victim=c.n1.id, lie=lie)
        end = answer_of(thief)
        expect(end == {"told": lie, "end": "refused"}, "n1 dropped him", end)
        if lie != "old":
            c.n1.stop()  # what it has to report outlives a restart
            c.n1.start(wait=False)
            wait_until(lambda: c.n1.cli("status").rc == OK, "n1 to run again")
    expect(c.n1.roles() == [], "n1 has no role", c.n1.roles())
    after = c.n1.ok("config", "verify")
    expect(after == before, "n1 keeps what it had", before, after)
    c.a1.start(wait=False)
    c.a2.start()
    c.a1.wait_ready()
    wanted = {"not_witnessed", "bad_proof", "bad_authority_set"}
    wait_until(lambda: {e["details"]["error"] for e in reports(c.a1)} >= wanted,
               "the attempts to be reported", limit=60)
    for e in reports(c.a1):
        expect(e["subject_id"] == c.a3.id and e["details"]["reported_by"] == c.n1.id and
               e["details"]["kind"] == "snapshot" and e["high_risk"], "who told what of whom", e)
    expect(c.a1.status()["forgery_reports"] >= 3, "status says so", c.a1.status())
    # The rest of the group goes on without the stolen one.
    c.a1.ok("role", "assign", "n1", "relay-node", "--yes")
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to hear what was decided")
    c.a1.ok("authority", "remove", "a3", "--reason", "stolen", "--yes", "--force")
    wait_until(lambda: believes(c.n1, 2), "n1 to believe the two that are left")


def test_stolen_authority_admits_nobody(env):
    """DESIGN D16: a certificate under the stolen CA opens no service anywhere, and in an authority's name
    not even a session; its word gets no signature of another authority."""
    c = env.cluster(authorities=3, nodes=1)
    wait_until(lambda: believes(c.n1, 3), "n1 to believe three authorities")
    stolen = steal(c.a3)

    def call(to, service, **args):
        return answer_of(attacker(env, "call", to=to.address, server=to.id, service=service,
                                  **{"stolen": stolen, "id": "new", **args}))

    rows = (
        # No proof that the key is a node's: nothing is served.
        (c.a1, "config", {"stream": 1}, "not_witnessed"),
        (c.a1, "heartbeat", {"body": "heartbeat"}, "not_witnessed"),
        (c.a1, "renew", {"body": "renew"}, "not_witnessed"),
        (c.a1, "report", {}, "not_witnessed"),
        (c.a1, "raft", {"stream": 1}, "not_witnessed"),
        (c.a1, "witness", {"body": "statement"}, "not_witnessed"),
        (c.a1, "config", {"stream": 1, "id": c.n1.id}, ("not_witnessed", "denied")),
        # Not even a session: the alert of the handshake.
        (c.a1, "config", {"stream": 1, "id": c.a2.id}, "denied"),
        (c.n1, "issuer", {"id": c.a1.id}, "denied"),
        (c.n1, "issuer", {}, "not_witnessed"), # reported with the one before
    )
    for to, service, args, error in rows:
        got = call(to, service, **args)
        expect(got["error"] in error,
               f"{service} of {to.name} {args}", got)
    # Himself, with all he stole: nobody signs what he made up.
    got = answer_of(attacker(env, "call", to=c.a1.address, server=c.a1.id, service="witness",
                             member=stolen, body="statement"))
    expect(got["error"] in ("conflict", "not_found"), "no signature for his statement", got)
    expect(len(all_items(c.a1, "node")) == 4, "nobody was admitted")
    wait_until(lambda: any(e["details"]["kind"] == "certificate" and
                           e["details"]["reported_by"] == c.n1.id and
                           e["subject_id"] == c.a3.id and c.a1.id in e["details"]["detail"]
                           for e in reports(c.a1)),
               "n1 to report a3's certificate in a1's name", limit=60)


def test_certificate_in_a_nodes_name_opens_nothing_at_other_nodes(env):
    """decision 0018: a stolen CA signs a certificate for an ordinary node's id. Neither an ordinary node nor a
    relay has a session with it, though it shows that node's own proof; and they report whose CA it was."""
    c = env.cluster(authorities=3, nodes=3)
    relay = c.n3
    c.a1.ok("role", "assign", "n3", "relay-node", "--yes")
    for node in (c.n1, relay):
        node.stop()
        node.start(args=["--overlay"])
    for node in (c.n1, relay):
        wait_until(lambda n=node: believes(n, 3), f"{node.name} to believe three authorities")
    stolen = steal(c.a3)
    proof = os.path.join(c.a3.dir, "n2.proof")

    def call(to, service, **args):
        return answer_of(attacker(env, "call", to=to.address, server=to.id, service=service,
                                  **{"stolen": stolen, "id": c.n2.id, **args}))

    # Anybody may ask n2 for its proof: it says no more than which key is n2's.
    got = call(c.n2, "leaf", id="new", save=proof)
    expect(got["error"] == "ok" and os.path.getsize(proof) < 8192, "n2's proof", got)
    for to in (c.n1, relay):
        got = call(to, "issuer", shows=proof)
        expect(got["error"] == "not_witnessed", f"{to.name} against n2's own proof", got)
        got = call(to, "synthetic", stream=1)
        expect(got["error"] == "not_witnessed", f"{to.name} against no proof", got)
        sessions = to.ok("fabric", "sessions")["items"]
        expect(all(s["node_id"] != c.n2.id for s in sessions), f"{to.name} has no such peer", sessions)

    def reported(by):
        return any(e["details"]["kind"] == "certificate" and e["details"]["reported_by"] == by.id and
                   e["subject_id"] == c.a3.id and c.n2.id in e["details"]["detail"]
                   for e in reports(c.a1))
    for to in (c.n1, relay):
        wait_until(lambda n=to: reported(n), f"{to.name} to report a3's certificate in n2's name",
                   limit=60)
    # The real n2 is let in by the same proof.
    c.n2.stop()
    c.n2.start(args=["--overlay"])
    wait_until(lambda: any(s["node_id"] == c.n2.id for s in relay.ok("fabric", "sessions")["items"]),
               "n2 to have a session with the relay")


def test_one_authority_is_stolen(env):
    """docs/OPERATIONS.md, "One authority is stolen": the runbook, step by step."""
    # Renewals are spread over four heartbeats.
    c = env.cluster(authorities=3, nodes=1, run_args=("--agent-heartbeat", "700ms"))
    c.a1.ok("authority", "transfer", "a3", "--yes")
    wait_until(lambda: c.leader() is c.a3, "a3 to lead")
    n2 = c.enroll("n2", via=c.a3)  # under a3's CA
    c.a3.ok("authority", "transfer", "a1", "--yes")
    wait_until(lambda: c.leader() is c.a1, "a1 to lead")
    stolen = steal(c.a3)

    def thief(service, **args):
        return answer_of(attacker(env, "call", to=c.a1.address, server=c.a1.id, service=service,
                                  **args))
    got = thief("op", member=stolen, body="op:token.create")
    expect(got["error"] == "ok", "while it is a member, the thief has a token made", got)

    # 1. Remove it.
    c.a1.ok("authority", "remove", "a3", "--force", "--reason", "stolen", "--yes")
    wait_until(lambda: thief("op", member=stolen, body="op:token.create")["error"] == "revoked",
               "the thief to be refused")
    # 2. What was asked for on its word.
    rows = [e for e in all_items(c.a1, "audit") if e["details"].get("via") == c.a3.id]
    expect([e["event_type"] for e in rows] == ["token_created"], "what it passed on", rows)
    led = [t for t in c.a1.ok("authority", "terms")["items"] if t["leader_node_id"] == c.a3.id]
    expect(len(led) >= 1, "the terms it led", led)
    # 3. Take it back, and every token it may have seen.
    for token in all_items(c.a1, "token"):
        if token["revoked_at"] is None:
            c.a1.ok("token", "revoke", token["id"], "--yes")
    expect(all(t["revoked_at"] is not None for t in all_items(c.a1, "token")), "no token is left")
    # 4. What was issued by it is renewed elsewhere.
    c.a1.ok("trust", "show")

    def left():
        return [r["nodes_count"] for r in c.a1.ok("trust", "show")["retired_issuers"]]
    wait_until(lambda: left() == [0], "no node under a3's CA", limit=90, every=0.5)
    wait_until(lambda: n2.cli("status", "--check").rc == OK, "n2 to be well")
    # 5. Nobody believes it: not its signature, nor its CA.
    for node in (c.a1, c.a2, c.n1, n2):
        wait_until(lambda n=node: believes(n, 2), f"{node.name} to believe the two that are left")
    got = answer_of(attacker(env, "call", to=n2.address, server=n2.id, service="issuer", stolen=stolen,
                             id=c.n1.id))
    expect(got["error"] in ("not_witnessed", "denied"), "its CA opens nothing", got)
    # 6. Go on with three.
    c.enroll("a4")
    c.a1.ok("authority", "add", "a4", "--owner-dir", c.owner_dir(), "--yes")
    for node in (c.a1, c.n1, n2):
        wait_until(lambda n=node: believes(n, 3), f"{node.name} to believe three")
    expect(c.a1.ok("audit", "verify")["ok"] is True, "the audit is whole")
