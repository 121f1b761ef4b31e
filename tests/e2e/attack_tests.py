"""Attacks on a running authority, as tables: what is tried, the error it ends with, and the audit row it
leaves (or why none). docs/SECURITY.md lists them for people."""

import collections
import json
import os
import re
import secrets
import socket
import subprocess
import time

from lib import CONFLICT, LIMIT, OK, clean_env, expect, in_parallel, says, wait_until
from cluster_tests import all_items
from join_tests import token_parts, token_text

# What no row of the audit is written for: nobody is named and no token was shown.
NOBODY = "names nobody: not ours, or not proven"
UNREAD = "refused before it was read"

Attack = collections.namedtuple("Attack", "name args error detail event silent", defaults=("", "", ""))


class Attacker:
    """tests/e2e/attacker, one command at a time, each from an address of its own: so that no attack
    pays for another (fabric/source_limit.h) and each leaves its own audit row."""

    def __init__(self, env, cluster):
        self.program = os.path.join(os.path.dirname(env.rap), "tests", "e2e", "attacker")
        expect(os.access(self.program, os.X_OK), f"{self.program} is built (the target `attacker`)")
        self.env, self.cluster, self.sources = env, cluster, 0
        self.target = cluster.wait_leader()

    def source(self):
        self.sources += 1
        return f"127.0.{1 + self.sources // 250}.{1 + self.sources % 250}"

    def run(self, command, timeout=90, **args):
        line = [self.program, command] + [f"{k}={v}" for k, v in args.items()]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=timeout,
                              env=clean_env())
        expect(done.returncode == 0 and done.stdout, f"the attacker ran: {' '.join(line[1:])}",
               done.returncode, done.stderr)
        return json.loads(done.stdout)

    def enroll(self, token, **args):
        return self.run("enroll", token=token, to=self.target.address,
                        **{"from": self.source(), **args})

    def handshake(self, **args):
        return self.run("handshake", owner=self.cluster.owner_dir(), to=self.target.address,
                        server=self.target.id, **{"from": self.source(), **args})

    def call(self, member, **args):
        return self.run("call", member=os.path.join(member.dir, "member"), to=self.target.address,
                        server=self.target.id, **{"from": self.source(), **args})


def audit(cluster):
    return all_items(cluster.a1, "audit")


def details(row):
    return row["details"] if isinstance(row["details"], dict) else json.loads(row["details"])


def run_table(attacker, run, attacks):
    """Tries each and compares; all deviations are reported together."""
    wrong, expected = [], []
    for a in attacks:
        first = attacker.sources + 1
        answer = run(a)
        source = f"127.0.{1 + first // 250}.{1 + first % 250}:"
        if answer["error"] != a.error or a.detail not in answer.get("detail", ""):
            wrong.append(f"{a.name}: expected {a.error} ({a.detail}), got {answer}")
        attacker.target.expect_running()
        expected.append((a, source))

    def missing():
        rows = [r for r in audit(attacker.cluster)
                if r["event_type"] in ("join_denied", "handshake_refused", "service_refused",
                                       "command_refused")]
        found = []
        for a, source in expected:
            mine = [r for r in rows if details(r).get("source_address", "").startswith(source)]
            if a.event and not any(r["event_type"] == a.event and
                                   details(r)["error"] == a.error for r in mine):
                found.append(f"{a.name}: no {a.event} with {a.error} from {source}")
            if not a.event and (mine or not a.silent):
                found.append(f"{a.name}: not expected in the audit: {mine}")
        return found
    wait_until(lambda: not missing() or expect(False, "audit rows", *missing()),
               "the audit to tell of each") if not wrong else None
    expect(not wrong, "each attack ends as it must", *wrong)


def test_attacks_on_enrollment_are_refused_and_audited(env):
    """reliability: token, CSR and key."""
    c = env.cluster(authorities=3, nodes=2)
    x = Attacker(env, c)
    expired, _ = c.token("--uses", "1", "--ttl", "1s")
    made = time.monotonic()
    good, _ = c.token("--uses", "100")
    other, _ = c.token("--uses", "100")
    used, _ = c.token("--uses", "1")
    revoked, answer = c.token("--uses", "1")
    named, _ = c.token("--uses", "1", "--name", "only-me")
    roled, _ = c.token("--uses", "1", "--role", "relay-node")
    c.a2.ok("token", "revoke", answer["id"], "--yes")
    c.a2.ok("node", "revoke", "n2", "--reason", "stolen", "--yes")
    head, _, tail = token_parts(good)
    elsewhere = env.token_file(token_text(head, secrets.token_bytes(32), tail))
    key = os.path.join(env.folder, "first.key")
    request = "0190b7a2-0000-7000-8000-0000000000f1"
    n1_key, n2_key = (os.path.join(n.dir, "member", "node.key") for n in (c.n1, c.n2))

    # What is allowed, to be bent below.
    for token, name, args in ((used, "first", {}), (good, "waiting", {"key": key, "id": request}),
                              (good, "a" * 63, {})):
        answer = x.enroll(token, name=name, **args)
        expect(answer["error"] == "ok", f"{name} may ask", answer)
    waiting = c.pending("waiting")
    pending = {r["node_name"] for r in all_items(c.a1, "request") if r["status"] == "pending"}
    wait_until(lambda: time.monotonic() - made > 2.0, "the short token to be over by a second")

    def csr(kind, error, detail, event="join_denied", silent=""):
        return Attack(f"csr {kind}", {"token": good, "csr": kind}, error, detail, event, silent)

    def ask(what, token, error, **args):
        return Attack(what, {"token": token, **args}, error, "", "join_denied")

    extensions, subject = "attributes or extensions", "asks for a subject"
    run_table(x, lambda a: x.enroll(**a.args), [
        ask("token used before", used, "token_used"),
        ask("token over by a second", expired, "token_expired"),
        ask("token revoked", revoked, "token_revoked"),
        ask("token guessed", good, "token_unknown", secret="random"),
        ask("token of another cluster", elsewhere, "token_unknown"),
        ask("token for another name", named, "token_scope", name="not-me"),
        ask("token for other roles", roled, "token_scope", role="core-mesh"),
        csr("ca", "bad_csr", extensions),
        csr("keyusage", "bad_csr", extensions),
        csr("san", "bad_csr", extensions),
        csr("wildcard", "bad_csr", extensions),
        csr("nul", "bad_csr", extensions),
        csr("sans_30", "bad_csr", extensions),
        csr("sans_10k", "malformed", "", event="", silent=UNREAD),
        csr("cn", "bad_csr", subject),
        csr("cn_wildcard", "bad_csr", subject),
        csr("rsa_2048", "bad_csr", "not Ed25519"),
        csr("rsa_16k", "too_large", ""),
        csr("p256", "bad_csr", "not Ed25519"),
        csr("small_order", "bad_csr", "weak key"),
        csr("noncanonical", "bad_csr", "weak key"),
        csr("bad_signature", "bad_csr", "signature does not verify"),
        csr("other_signer", "bad_csr", "signature does not verify"),
        csr("trailing", "bad_csr", "not one DER value"),
        csr("cut", "bad_csr", "not one DER value"),
        ask("key enrolled already", good, "key_known", key=n1_key),
        ask("key revoked", good, "key_revoked", key=n2_key),
        ask("key waiting under another token", other, "exists", key=key, name="again"),
        ask("key swapped while waiting", good, "idempotency_key_reused", name="waiting", id=request),
        ask("name of a node", good, "name_taken", name="n1"),
        ask("name of a waiting host", good, "name_taken", name="waiting"),
        ask("name: case twin", good, "bad_name", name="N1"),
        ask("name: homoglyph", good, "bad_name", name_hex="d0bf31"),  # Cyrillic
        ask("name: wildcard", good, "bad_name", name="*"),
        ask("name: SQL", good, "bad_name", name="a';--"),
        ask("name: dash at the end", good, "bad_name", name="a-"),
        ask("name: NUL", good, "malformed", name_hex="613100612e"),
        ask("name: not UTF-8", good, "malformed", name_hex="61ff"),
        ask("name: none", good, "malformed", name=""),
        ask("name: 64 bytes", good, "too_large", name="a" * 64),
        ask("facts: a byte too many", good, "too_large", facts_bytes=4097),
        ask("role unknown", good, "role_unknown", role="superuser"),
        ask("not msgpack", good, "malformed", frame_hex="c1"),
        ask("an empty map", good, "malformed", frame_hex="80"),
        Attack("no ALPN", {"token": good, "alpn": "none"}, "unsupported", silent=NOBODY),
        Attack("ALPN of another protocol", {"token": good, "alpn": "h3"}, "unsupported",
               silent=NOBODY),
    ])

    left = {r["node_name"] for r in all_items(c.a1, "request") if r["status"] == "pending"}
    expect(left == pending, "no request but those allowed", left ^ pending)
    # S7: the certificate is for the key that was shown to the approver.
    approved = c.approve(waiting)
    expect(approved["node"]["fingerprint"] == waiting["node_fingerprint"], "the first key", approved)
    c.enroll("after")
    for n in c.authorities():
        n.expect_running()


def test_attacks_with_certificates_are_refused_and_audited(env):
    """reliability: certificates."""
    c = env.cluster(authorities=3, nodes=2)
    x = Attacker(env, c)
    c.n2.stop()
    c.a1.ok("node", "revoke", "n2", "--reason", "stolen", "--yes")
    members = {n.name: os.path.join(n.dir, "member") for n in (c.n1, c.n2)}
    control = x.handshake(chain="good")
    expect(control["session"] == "up", "a good chain comes up", control)

    def chain(kind, error, event="", silent=NOBODY):
        return Attack(f"chain {kind}", {"chain": kind}, error, "", event, "" if event else silent)

    def run(a):
        answer = x.handshake(**a.args)
        expect(answer["session"] == "refused", f"{a.name}: no session", answer)
        return answer
    run_table(x, run, [
        chain("self_signed", "bad_certificate"),
        chain("wrong_root", "bad_signature"),
        chain("wrong_root_shown", "bad_certificate"),
        chain("other_cluster", "wrong_cluster"),
        chain("wrong_eku", "bad_certificate"),
        chain("node_as_ca", "bad_certificate"),
        chain("authority_name", "bad_certificate"),
        chain("chain_of_50", "bad_certificate"),
        chain("nobody", "certificate_required"),
        chain("expired", "certificate_expired", "handshake_refused"),
        chain("expired_ca", "certificate_expired", "handshake_refused"),
        chain("not_yet_valid", "certificate_expired", "handshake_refused"),
        Attack("revoked", {"member": members["n2"]}, "revoked", "", "handshake_refused"),
        Attack("a copied certificate without its key", {"member": members["n1"], "key": "other"},
               "bad_signature", silent=NOBODY),
    ])
    # Authentic, and yet nobody the state knows: asked for a proof, it has none.
    run_table(x, lambda a: x.handshake(**a.args), [
        Attack("a node that was never decided", {"chain": "good", "service": "config"},
               "not_witnessed", event="handshake_refused")])
    # The peer is told that it may not, the audit why.
    answer = x.handshake(chain="own_id")
    expect(answer == {"session": "refused", "error": "denied"}, "it says it is the authority", answer)
    wait_until(lambda: any(details(r).get("error") == "wrong_node" for r in audit(c)
                           if r["event_type"] == "handshake_refused"), "wrong_node in the audit")
    row = next(r for r in audit(c) if r["event_type"] == "handshake_refused" and
               details(r)["error"] == "revoked")
    expect(row["subject_id"] == c.n2.id and row["actor_id"] == c.n2.id, "the row names n2", row)
    wait_until(lambda: c.n1.cli("status", "--check").rc == OK, "n1 to be as before")
    c.enroll("after")


def test_a_member_that_asks_for_too_much_is_refused_and_audited(env):
    """reliability: Raft and RPC. An ordinary node's directory in the hands of an attacker."""
    c = env.cluster(authorities=3, nodes=2)
    x = Attacker(env, c)
    c.n2.stop()
    other = c.n1.id
    control = x.call(c.n2, service="heartbeat", body="heartbeat", **{"as": c.n2.id})
    expect(control["error"] == "ok", "its own heartbeat is taken", control)

    def call(name, error, event="service_refused", silent="", **args):
        return Attack(name, args, error, "", event, silent)
    run_table(x, lambda a: x.call(c.n2, **a.args), [
        call("op: token.create", "not_authority", service="op", body="op:token.create"),
        call("op: 100,000 arrays", "not_authority", event="", service="op", body="deep",
             silent="the same node, service and error: counted with the first"),
        call("raft", "not_authority", service="raft", stream=1),
        call("issuer", "not_authority", service="issuer"),
        call("heartbeat of another node", "wrong_node", service="heartbeat", body="heartbeat",
             **{"as": other}),
        call("renewal for another node", "wrong_node", service="renew", body="renew",
             **{"as": other}),
        call("enrolment with a certificate", "no_service", event="", service="enroll", stream=1,
             silent="a service that is not offered to members"),
        call("no such service", "no_service", event="", service="shell",
             silent="may be a newer version's"),
        call("heartbeat: 100,000 arrays", "malformed", event="", service="heartbeat", body="deep",
             silent="a defect as likely as an attack; logged"),
        call("heartbeat: 4 GiB", "malformed", event="", service="heartbeat", body="huge_length",
             silent="a defect as likely as an attack; logged"),
    ])
    # A renewal must be for the key the state knows. The command is refused, in the node's name.
    answer = x.call(c.n2, service="renew", body="renew")
    expect(answer["error"] == "fingerprint_mismatch", "another key", answer)

    def told():
        return any(r["event_type"] == "command_refused" and r["actor_id"] == c.n2.id and
                   details(r)["error"] == "fingerprint_mismatch" for r in audit(c))
    wait_until(told, "the renewal to be in the audit")
    rows = [r for r in audit(c) if r["event_type"] == "service_refused"]
    expect({r["actor_id"] for r in rows} == {c.n2.id}, "all in the name of n2, no honest node's", rows)
    expect({details(r)["service"] for r in rows} == {"op", "raft", "issuer", "heartbeat", "renew"},
           "each service", rows)
    # It stopped before it came up, so nothing was done in the name of n1.
    expect(len(all_items(c.a1, "token")) == len([r for r in audit(c)
                                                 if r["event_type"] == "token_created"]),
           "no token from outside")
    c.n2.start()


def test_a_stolen_authority_that_sends_nonsense_harms_nobody(env):
    """reliability: Raft and RPC, from a peer that may speak them. What it may *decide* is another
    matter (docs/SECURITY.md)."""
    c = env.cluster(authorities=3, nodes=1)
    if c.wait_leader() is c.a3:
        c.a1.ok("authority", "transfer", "a1", "--yes")
        wait_until(lambda: c.leader() is c.a1, "a1 to lead")
    c.a3.stop()
    x = Attacker(env, c)
    nodes, tokens = len(all_items(c.a1, "node")), len(all_items(c.a1, "token"))
    defect = "a defect as likely as an attack; the answer says it"

    def call(name, error, event="", silent=defect, **args):
        return Attack(name, args, error, "", event, "" if event else silent)
    run_table(x, lambda a: x.call(c.a3, **a.args), [
        call("raft: an empty map", "malformed", "service_refused", service="raft", stream=1),
        call("raft: 100,000 arrays", "malformed", service="raft", stream=1, body="deep",
             silent="counted with the first"),
        call("op: an empty map", "malformed", service="op"),
        call("op: 4 GiB", "malformed", service="op", body="huge_length"),
        call("op: no such method", "not_found", service="op", body="op:cluster.destroy"),
        call("op: a person who submits a join", "denied", "service_refused", service="op",
             body="op:join.submit"),
        call("op: an authority it adds by itself", "denied", "service_refused", service="op",
             body="op:authority.commit", actor="owner"),
        call("op: the set of authorities", "denied", "service_refused", service="op",
             body="op:authority.set_next", actor="system"),
        call("op: a node's health", "denied", "service_refused", service="op",
             body="op:node.health", actor="system"),
        call("op: a certificate of another authority's", "denied", "service_refused", service="op",
             body="op:authority.renewed", actor="node", id=c.a1.id),
        call("op: a rotation in the owner's name", "denied", "service_refused", service="op",
             body="op:trust.rotate", actor="owner"),
        call("op: a promotion of the leader's host", "denied", "service_refused", service="op",
             body="op:partition.promote"),
        call("op: a backup of the leader's", "denied", "service_refused", service="op",
             body="op:backup.create"),
        call("op: a person without an account", "denied", "service_refused", service="op",
             body="op:token.create", id="somebody"),
        call("op: a join without a body", "malformed", service="op", body="op:join.submit",
             actor="node"),
        call("op: a refusal without a body", "malformed", service="op", body="op:refusal.noted",
             actor="system", id=""),
        call("op: an unknown actor", "denied", service="op", body="op:token.create", actor="root",
             silent="counted with the one without an account"),
        call("heartbeat for a node nobody knows", "ok", service="heartbeat", body="heartbeat",
             silent="taken, and kept for nobody"),
    ])
    # Of the streams of one kind that it opens, the newest is heard; none may carry more than its kind.
    def streams(**args):
        return x.run("streams", member=os.path.join(c.a3.dir, "member"), to=x.target.address,
                     server=x.target.id, service="raft", **{"from": x.source(), **args})
    before = rss_kib(c.a1.process.pid)
    for kind in ({}, {"bulk": 1}):
        got = streams(n=200, **kind)
        expect(got == {"ended": 199, "error": "closed"}, "one raft stream is left", got)
    got = streams(n=1, frame=17 << 20)
    expect(got == {"ended": 1, "error": "malformed"}, "more than entries may have", got)
    expect_flat(c.a1, before, 65536)
    # What it may still do, because an administrator at its socket might: the audit says on whose word.
    answer = x.call(c.a3, service="op", body="op:token.create")
    expect(answer["error"] == "ok", "a call as an administrator's is taken", answer)
    row = next(r for r in audit(c) if r["event_type"] == "token_created" and "via" in details(r))
    expect(details(row)["via"] == c.a3.id and row["actor_id"] == "uid:0", "on a3's word", row)
    tokens += 1
    expect(len(all_items(c.a1, "node")) == nodes and len(all_items(c.a1, "token")) == tokens,
           "nothing was changed")
    expect(c.a1.ok("audit", "verify")["ok"] is True, "the audit chain verifies")
    c.a3.start()
    c.settle()
    c.enroll("after")


def test_connections_that_ask_for_nothing_are_ended(env):
    """reliability: half-open handshakes, idle sessions. A host enrols beside them."""
    c = env.cluster(authorities=1, nodes=0)
    x = Attacker(env, c)
    token, _ = c.token("--uses", "1")

    def work(what):
        if what == "enroll":
            for i in range(4):
                c.enroll(f"during-{i}").stop()
            return {}
        more = {"hello_only": 1, "seconds": 4, "n": 2000} if what == "hello" else {"n": 200}
        return x.run("hold", token=token, to=x.target.address, **{"from": x.source(), **more})
    before = rss_kib(c.a1.process.pid)
    hello, idle, _ = in_parallel(3, ["hello", "idle", "enroll"], work)
    expect(sum(v for k, v in hello.items() if k != "seconds") == 2000, "hellos", hello)
    seconds = idle.pop("seconds")
    expect(idle == {"timeout": 200} and seconds < 20, "each is ended in time", idle, seconds)
    expect_flat(c.a1, before, 65536)
    expect(c.a1.ok("token", "create")["id"], "and serves")


def test_decisions_cannot_be_bent(env):
    """reliability: approve twice, after reject, another fingerprint; through the API, in full."""
    c = env.cluster(authorities=3, nodes=1)
    x = Attacker(env, c)
    token, _ = c.token("--uses", "10")
    asked = {}
    for name in ("one", "two", "three"):
        answer = x.enroll(token, name=name)
        expect(answer["error"] == "ok", f"{name} may ask", answer)
        asked[name] = c.pending(name)

    def post(verb, request, body, status, code):
        got, answer, _ = c.a2.api("POST", f"/v1/requests/{request['id']}/{verb}", body)
        expect(got == status and answer.get("code", "") == code,
               f"{verb} {request['node_name']}: {status} {code}", got, answer)

    def approve(request, status, code, fingerprint=None):
        post("approve", request, {"fingerprint": fingerprint or request["node_fingerprint"]}, status,
             code)
    one, two, three = asked["one"], asked["two"], asked["three"]
    approve(one, 409, "fingerprint_mismatch", two["node_fingerprint"])
    approve(one, 409, "fingerprint_mismatch", "0" * 64)
    approve(one, 200, "")
    approve(one, 409, "already_decided")
    post("reject", one, {"reason": "late"}, 409, "already_decided")
    post("reject", two, {"reason": "no"}, 200, "")
    approve(two, 409, "already_decided")
    approve({"id": "0190b7a2-0000-7000-8000-000000000077", "node_name": "nobody",
             "node_fingerprint": "0" * 64}, 404, "not_found")
    r = c.a1.cli("request", "approve", three["id"], "--fingerprint", two["node_fingerprint"])
    expect(r.rc == CONFLICT and says(r, "fingerprint_mismatch"), "the CLI compares too", r)
    # Two administrators at the same instant: one decision.
    done = in_parallel(8, range(8), lambda n: (c.a1, c.a2, c.a3)[n % 3].api(
        "POST", f"/v1/requests/{three['id']}/approve",
        {"fingerprint": three["node_fingerprint"]})[0])
    expect(sorted(done) == [200] + [409] * 7, "one of eight approvals counts", done)
    nodes = [n["name"] for n in all_items(c.a1, "node") if n["name"] in asked]
    expect(sorted(nodes) == ["one", "three"], "two nodes", nodes)

    def told():
        errors = {details(r)["error"] for r in audit(c) if r["event_type"] == "command_refused" and
                  r["actor_kind"] == "admin" and details(r)["command"] == "join_approve"}
        return errors >= {"fingerprint_mismatch", "already_decided", "not_found"} or errors
    wait_until(lambda: told() is True, "refused approvals in the audit")


def test_a_token_revoked_while_it_is_used_admits_nobody_afterwards(env):
    """reliability: revoked between check and commit. In the order of the log, none comes later."""
    c = env.cluster(authorities=3, nodes=0)
    x = Attacker(env, c)
    token, answer = c.token("--uses", "1000")

    def used():
        status, row, _ = c.a1.api("GET", f"/v1/tokens/{answer['id']}")
        return status == 200 and row["used_count"] > 0

    def work(what):
        if what == "race":
            return x.run("race", token=token, to=x.target.address, n=600, spread=1)
        # Some requests are decided, some on their way.
        wait_until(used, "the first to be taken", every=0.005)
        status, doc, _ = c.a2.api("DELETE", f"/v1/tokens/{answer['id']}")
        return status, doc
    tally, (status, doc) = in_parallel(2, ["race", "revoke"], work)
    expect(status == 200, "the token is revoked", doc)
    taken = [r["seq"] for r in audit(c) if r["event_type"] == "join_submitted" and
             details(r)["join_token_id"] == answer["id"]]
    end = next(r["seq"] for r in audit(c) if r["event_type"] == "token_revoked")
    expect(0 < len(taken) < 600 and max(taken) < end, "nobody is taken after the revocation", taken,
           end)
    expect(tally.pop("seconds") > 0 and tally["pending"] == len(taken) and
           tally["token_revoked"] > 0 and sum(tally.values()) == 600 and
           tally.keys() <= {"pending", "token_revoked", "rate_limited", "no_quorum"},
           "each is told", tally, len(taken))


def test_one_use_token_used_by_1000_at_once_admits_one(env):
    """TOK-03, S6. Each with its own key, connected beforehand, asking in the same instant."""
    # All come from one address, and 999 fail: more than that address may. Nor is this about elections.
    c = env.cluster(authorities=3, nodes=0, run_args=(
        "--enroll-rate", 1000000, "--heartbeat", "300ms", "--election", "3s"))
    x = Attacker(env, c)
    token, answer = c.token("--uses", "1")
    tally = x.run("race", token=token, to=x.target.address, n=1000)
    expect(tally.pop("seconds") > 0 and tally == {"pending": 1, "token_used": 999},
           "one is taken, all others are told why", tally)
    for a in c.authorities():
        rows = [r for r in all_items(a, "request") if r["join_token_id"] == answer["id"]]
        expect(len(rows) == 1, "one request", rows)
    row = next(t for t in all_items(c.a1, "token") if t["id"] == answer["id"])
    expect(row["used_count"] == 1, "one use counted", row)
    c.enroll("after")


def test_a_thousand_hosts_behind_one_address_may_ask(env):
    """What the limit for each address must not be in the way of, with its default."""
    c = env.cluster(authorities=3, nodes=0, run_args=("--heartbeat", "300ms", "--election", "3s"))
    x = Attacker(env, c)
    token, answer = c.token("--uses", "1000")
    tally = x.run("race", token=token, to=x.target.address, n=1000, spread=1)
    expect(tally.pop("seconds") < LIMIT and tally == {"pending": 1000}, "all are taken", tally)
    row = next(t for t in all_items(c.a1, "token") if t["id"] == answer["id"])
    expect(row["used_count"] == 1000, "a thousand uses", row)


def stranger(kind):
    """A packet of nobody: an Initial with garbage in it, one of another version, noise."""
    if kind == "noise":
        return bytes([secrets.randbelow(256)]) + secrets.token_bytes(secrets.randbelow(1400))
    version = b"\0\0\0\1" if kind == "initial" else b"\x1a\x2a\x3a\x4a"
    head = b"\xc3" + version + b"\x08" + secrets.token_bytes(8) + b"\x08" + secrets.token_bytes(8)
    rest = 1200 - len(head) - 3
    return head + b"\0" + bytes([0x40 | rest >> 8, rest & 255]) + secrets.token_bytes(rest)


def test_packets_of_strangers_get_back_less_than_they_brought(env):
    """reliability: spoofed Initials, wrong version, noise. RFC 9000 section 8.1: at most three times
    as much; no memory; a host enrols meanwhile."""
    c = env.cluster(authorities=1, nodes=0)
    before = rss_kib(c.a1.process.pid)
    traffic = {}

    def flood(_):
        for kind in ("initial", "version", "noise"):
            sent = got = 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.bind(("127.0.6.6", 0))
                s.setblocking(False)
                for _ in range(5000):
                    try:
                        sent += s.sendto(stranger(kind), ("127.0.0.1", c.a1.port))
                        got += len(s.recv(65536))
                    except BlockingIOError:
                        pass
            traffic[kind] = (sent, got)
    in_parallel(2, [flood, lambda _: c.enroll("during")], lambda work: work(None))
    for kind, (sent, got) in traffic.items():
        expect(got < sent, f"{kind}: less comes back", traffic)
    expect(traffic["version"][1] > 0, "another version is told ours", traffic)
    expect_flat(c.a1, before, 16384)
    c.enroll("after")


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def expect_flat(node, before, limit_kib):
    """What it has grown by since; bounded, unless a sanitizer keeps what was freed."""
    grown = rss_kib(node.process.pid) - before
    with open(node.rap, "rb") as f:
        sanitized = b"__asan_init" in f.read()
    expect(sanitized or grown < limit_kib, f"{node.name}: memory stays flat", grown)
    return grown


def guess(x, node, n, rate, **args):
    """Random secrets against one authority while a host enrols and a node reports; the tally."""
    c = x.cluster
    # What it needs at first is not what it needs for each.
    token, _ = c.token("--uses", "1")
    x.run("guess", token=token, to=node.address, **{**args, "n": 1000, "from": "127.0.8.8"})
    before, events = rss_kib(node.process.pid), len(audit(c))
    began = time.monotonic()
    tally, over, took = {}, [], []

    def work(what):
        if what == "guess":
            tally.update(x.run("guess", timeout=7200, token=token, to=node.address, n=n, **args))
            over.append(True)
            return
        while not over and len(took) < 20 or not took:
            start = time.monotonic()
            one, _ = c.token("--uses", "1")
            host = c.enroll(f"during-{len(took)}", token_file=one)
            expect(c.a1.ok("node", "show", host.name)["health_status"] == "healthy",
                   f"{host.name} reports")
            took.append(time.monotonic() - start)
            host.stop()
    in_parallel(2, ["guess", "enroll"], work)
    seconds = time.monotonic() - began
    grown = expect_flat(node, before, 16384)
    rows = len(audit(c)) - events
    print(f"note: {n} guesses in {tally.pop('seconds'):.1f} s at --enroll-rate {rate}: {tally};"
          f" the authority grew by {grown} KiB, has {rows} audit rows more; {len(took)} hosts enrolled"
          f" beside it, the slowest in {max(took):.1f} s", flush=True)
    expect(tally.get("pending", 0) == 0, "no guess wins", tally)
    # Those of the hosts that join, and of refusals 60 at once and 60 a minute.
    expect(rows < 60 + seconds + 20 * len(took), "the audit is not flooded", rows)
    return tally


def test_guessing_is_slowed_and_disturbs_nobody(env):
    """reliability: guess run. `tests/e2e/guess` is the long one."""
    c = env.cluster(authorities=1, nodes=1)
    x = Attacker(env, c)
    # 127.0.0.1 is where everybody else lives here: the guessers sit elsewhere.
    tally = guess(x, c.a1, 3000, 64, **{"from": "127.0.9.9", "parallel": 64})
    expect(tally.get("rate_limited", 0) > 2500, "few guesses are looked at", tally)
    expect(tally.get("token_unknown", 0) >= 64, "the first are", tally)
    rows = [r for r in audit(c) if r["event_type"] == "join_denied" and
            details(r).get("source_address", "").startswith("127.0.9.9:")]
    expect({details(r)["error"] for r in rows} == {"token_unknown", "rate_limited"},
           "both are in the audit", rows)
    expect(len(rows) <= 4, "told once, then counted", rows)
