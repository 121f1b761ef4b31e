"""Enrolment: tokens, approval, refusals (DESIGN section 5, SPEC TOK and ENR)."""

import base64
import json
import os
import secrets
import socket
import time

from lib import CONFLICT, LIMIT, OK, UNAVAILABLE, expect, in_parallel, items, says, wait_until
from cluster_tests import all_items

PREFIX = "rapj1_"


def token_parts(path):
    """(bytes before the secret, the secret, the addresses) of a token file."""
    with open(path, encoding="ascii") as f:
        text = f.read().strip().removeprefix(PREFIX)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return raw[:48], raw[48:80], raw[80:]


def token_text(head, secret, tail):
    return PREFIX + base64.urlsafe_b64encode(head + secret + tail).decode().rstrip("=")


def refused_join(c, name, token_file, slug):
    """A host whose join must end with this error and leave nothing behind."""
    host = c.add(name)
    r = host.cli(*host.join_args(token_file, "--no-wait", "--timeout", "20s"))
    expect(r.rc not in (OK, UNAVAILABLE) and says(r, slug),
           f"{name} is refused with {slug}", r)
    member = os.path.join(host.dir, "member")
    left = os.listdir(member) if os.path.isdir(member) else []
    expect("node.crt" not in left and "join.token" not in left,
           f"{name} keeps no certificate and no token", left)
    return host


def test_one_use_token_raced_by_20_hosts_admits_one(env):
    """TOK-03, S6."""
    c = env.cluster(authorities=3, nodes=0)
    token_file, token = c.token("--uses", "1")
    hosts = [c.add(f"h{i:02d}") for i in range(20)]

    def ask(host):
        return host.cli(*host.join_args(token_file, "--no-wait"))

    results = in_parallel(10, hosts, ask)
    won = [r for r in results if r.rc == OK]
    expect(len(won) == 1, "one host was taken", [r.rc for r in results])
    for r in results:
        if r.rc != OK:
            expect(says(r, "token_used"), "the others are told that the token is used up", r)
    for a in c.authorities():
        rows = [r for r in all_items(a, "request") if r["node_name"].startswith("h")]
        expect(len(rows) == 1, "one request", rows)
    row = next(t for t in all_items(c.a1, "token") if t["id"] == token["id"])
    expect(row["used_count"] == 1 and row["max_uses"] == 1, "one use counted", row)


def test_refused_tokens_get_distinct_errors_and_are_audited(env):
    """TOK-03, TOK-04: expired, revoked, used, unknown, malformed, another cluster's."""
    c = env.cluster(authorities=3, nodes=0)
    short, answer = c.token("--uses", "1", "--ttl", "1s")
    made = time.monotonic()
    revoked, answer = c.token("--uses", "1")
    c.a2.ok("token", "revoke", answer["id"], "--yes")
    used, _ = c.token("--uses", "1")
    first = c.add("first")
    first.ok(*first.join_args(used, "--no-wait"))

    head, secret, tail = token_parts(used)
    forged = env.token_file(token_text(head, secrets.token_bytes(32), tail))
    other_cluster = env.token_file(token_text(secrets.token_bytes(16) + head[16:], secret, tail))
    other_root = env.token_file(token_text(head[:16] + secrets.token_bytes(32), secret, tail))
    cut = env.token_file(token_text(head, secret[:-1], b""))
    garbage = env.token_file("rapj1_!!!!")

    before = len(all_items(c.a1, "audit"))
    refused_join(c, "h-revoked", revoked, "token_revoked")
    refused_join(c, "h-used", used, "token_used")
    refused_join(c, "h-forged", forged, "token_unknown")
    refused_join(c, "h-cut", cut, "malformed")
    refused_join(c, "h-garbage", garbage, "malformed")
    wait_until(lambda: time.monotonic() - made > 1.5, "the short token to expire")
    refused_join(c, "h-expired", short, "token_expired")

    # A host believes only the root its token pins, so these two never send the secret.
    for name, file in (("h-cluster", other_cluster), ("h-root", other_root)):
        host = c.add(name)
        r = host.cli(*host.join_args(file, "--no-wait", "--timeout", "5s"))
        expect(r.rc != OK, f"{name} does not join", r)

    expect({r["node_name"] for r in all_items(c.a1, "request") if r["status"] == "pending"} ==
           {"first"}, "only the first host has a request")

    def audited():
        events = all_items(c.a1, "audit")[before:]
        text = json.dumps([e for e in events if "denied" in e["event_type"]])
        for slug in ("token_revoked", "token_used", "token_unknown", "token_expired"):
            expect(slug in text, f"{slug} is in the audit", [e["event_type"] for e in events])
        return True
    wait_until(audited, "the refusals to be audited")


def test_token_scope_is_enforced(env):
    c = env.cluster(authorities=3, nodes=0)
    named, _ = c.token("--uses", "1", "--name", "only-me")
    refused_join(c, "somebody", named, "token_scope")
    host = c.add("only-me")
    host.ok(*host.join_args(named, "--no-wait"))


def test_rejection_reaches_the_host(env):
    """ENR-04: the reason is kept and shown; the host holds nothing afterwards."""
    c = env.cluster(authorities=3, nodes=0)
    token, _ = c.token("--uses", "1")
    host = c.add("h1")
    joining = host.join_start(token)
    request = c.pending("h1")
    c.a2.ok("request", "reject", request["id"], "--reason", "not our machine")
    rc = joining.wait(LIMIT)
    with open(host.log_path, encoding="utf-8") as f:
        said = f.read()
    expect(rc not in (OK, UNAVAILABLE), "join fails", rc)
    expect("rejected" in said and "not our machine" in said, "the host is told why", said)
    expect(not os.path.exists(os.path.join(host.dir, "member", "node.crt")), "no certificate")
    row = c.a3.ok("request", "show", request["id"])
    expect(row["status"] == "rejected" and row["rejection_reason"] == "not our machine",
           "the reason is kept", row)
    c.a1.refused(CONFLICT, "already_decided", "request", "approve", request["id"],
                 "--fingerprint", request["node_fingerprint"])


def test_wrong_fingerprint_is_refused_and_changes_nothing(env):
    """DESIGN section 5.4, S7."""
    c = env.cluster(authorities=3, nodes=0)
    token, _ = c.token("--uses", "1")
    host = c.add("h1")
    joining = host.join_start(token)
    request = c.pending("h1")
    right = request["node_fingerprint"]
    flipped = ("0" if right[0] != "0" else "1") + right[1:]
    for wrong in (flipped, flipped[:16], "0" * 64):
        r = c.a2.cli("request", "approve", request["id"], "--fingerprint", wrong)
        expect(r.rc not in (OK, UNAVAILABLE) and says(r, "fingerprint_mismatch"),
               f"{wrong} is refused", r)
    for short in (right[:15], "", right + "0"):
        r = c.a2.cli("request", "approve", request["id"], "--fingerprint", short)
        expect(r.rc != OK, f"\"{short}\" is refused", r)
    expect(c.request("h1") is not None, "still pending")
    with open(host.log_path, encoding="utf-8") as f:
        expect(right in f.read().replace(":", ""), "the host showed the same fingerprint")
    c.a2.ok("request", "approve", request["id"], "--fingerprint", right[:16])
    expect(joining.wait(LIMIT) == OK, "the first 16 digits are enough")


def test_join_resumes_after_interruption(env):
    c = env.cluster(authorities=3, nodes=0)
    token, _ = c.token("--uses", "1")
    host = c.add("h1")
    joining = host.join_start(token)
    request = c.pending("h1")
    joining.kill()
    joining.wait()
    joining = host.join_start(token)
    wait_until(lambda: joining.poll() is None and log_count(host, request["id"]) >= 1,
               "the second join to name the request")
    rows = [r for r in items(c.a1.cli("request", "list")) if r["node_name"] == "h1"]
    expect([r["id"] for r in rows] == [request["id"]], "one request, the same", rows)
    expect(rows[0]["node_fingerprint"] == request["node_fingerprint"], "with the same key", rows)
    # Approved while the host is away: it gets its certificate when it comes back.
    joining.kill()
    joining.wait()
    c.approve(request)
    expect(host.join_start(token).wait(LIMIT) == OK, "the third one ends the join")
    host.refused(CONFLICT, "exists", *host.join_args(token))
    host.start()


def test_join_works_with_a_dead_authority_first_in_the_token(env):
    """RFC 8305: addresses that do not answer cost a fraction of a second each, not their dial's
    10 s."""
    c = env.cluster(authorities=3, nodes=0)
    token, _ = c.token("--uses", "1")
    head, secret, tail = token_parts(token)
    addresses = tail.decode().split(",")
    dead = next(n for n in c.authorities() if n.address == addresses[0])
    dead.kill9()
    among = c.others(dead)
    leader = c.wait_leader(among)
    silent = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    for s in silent:
        s.bind(("127.0.0.1", 0))
    mute = [f"127.0.0.1:{s.getsockname()[1]}" for s in silent]
    token = env.token_file(token_text(
        head, secret, ",".join([addresses[0], *mute, *addresses[1:]]).encode()))
    host = c.add("h1")
    joining = host.join_start(token, "--timeout", f"{LIMIT:.0f}s")
    c.approve(c.pending("h1", via=leader), via=leader)
    expect(joining.wait(LIMIT) == OK, "the host joins")
    for address in (addresses[0], *mute):
        expect(log_count(host, f"connecting to {address}") == 1, f"{address} was tried once")
    for s in silent:
        s.setblocking(False)
        expect(len(s.recv(2048)) > 0, "the silent address was asked")
        s.close()
    host.start()


def log_count(host, text):
    with open(host.log_path, encoding="utf-8") as f:
        return f.read().count(text)


def test_name_in_use_is_refused(env):
    """DESIGN section 5.7: explicit states, never ghosts."""
    c = env.cluster(authorities=3, nodes=1)
    token, _ = c.token("--uses", "2")
    twin = c.add("twin")
    twin.name = "n1"
    r = twin.cli(*twin.join_args(token, "--no-wait"))
    if r.rc == OK:  # the name is taken when the request is decided
        request = c.pending("n1")
        r = c.a1.cli("request", "approve", request["id"], "--fingerprint",
                     request["node_fingerprint"])
    expect(r.rc not in (OK, UNAVAILABLE) and says(r, "name_taken"), "the name is taken", r)
    expect(len([n for n in all_items(c.a1, "node") if n["name"] == "n1"]) == 1, "one n1")
