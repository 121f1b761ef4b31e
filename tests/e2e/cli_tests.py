"""The command line and the API as scripts see them (DESIGN section 9)."""

import re
import uuid

from lib import CONFLICT, NOT_FOUND, OK, TIMED_OUT, UNAVAILABLE, USAGE, expect, run_rap, says
from cluster_tests import all_items

RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")

FREE_FORM = ("details", "reported_facts", "facts", "policy", "metadata")


def check_row(where, row):
    """Ids are text, times RFC 3339 UTC, wherever they appear."""
    for key, value in row.items():
        if isinstance(value, dict) and key not in FREE_FORM:
            check_row(where, value)
        if value in (None, ""):
            continue
        if key.endswith("_at"):
            expect(isinstance(value, str) and RFC3339.match(value), f"{where}: {key}", value)
        if key in ("id", "node_id", "cluster_id", "join_token_id", "approved_node_id"):
            expect(isinstance(value, str), f"{where}: {key}", value)
        if key in ("node_id", "cluster_id"):
            expect(UUID.match(value), f"{where}: {key} is a UUIDv7", value)


def test_json_output_has_the_promised_shape(env):
    c = env.cluster(authorities=3, nodes=1)
    c.a1.ok("role", "assign", "n1", "relay-node")
    _, token = c.token("--ttl", "1h", "--uses", "1")
    expect({"id", "token", "expires_at"} <= set(token), "token create", sorted(token))
    check_row("token create", token)
    status = c.a1.status()
    wanted = {"node_id", "cluster_id", "roles", "authority_state", "quorum", "leader", "epoch",
              "term", "index"}
    expect(wanted <= set(status), "status", sorted(status))
    check_row("status", status)
    for noun in ("token", "request", "node", "authority", "role", "audit"):
        answer = c.a1.ok(noun, "list")
        expect(set(answer) >= {"items", "next_cursor"}, f"{noun} list", sorted(answer))
        for row in answer["items"]:
            check_row(f"{noun} list", row)
    node = c.a1.ok("node", "show", "n1")
    expect(node["name"] == "n1" and "relay-node" in str(node["roles"]), "node show", node)
    expect(c.a1.ok("node", "show", node["id"])["id"] == node["id"], "by id")
    # Pages add up to the whole.
    whole = [e["id"] for e in all_items(c.a1, "audit")]
    first = c.a1.ok("audit", "list", "--limit", "2")
    expect(len(first["items"]) == 2 and first["next_cursor"], "a page of two", first)
    second = c.a1.ok("audit", "list", "--limit", "2", "--cursor", first["next_cursor"])
    got = [e["id"] for e in first["items"] + second["items"]]
    expect(len(set(got)) == 4 and set(got) <= set(whole), "the next page goes on", got)


def test_table_output_is_for_people(env):
    c = env.cluster(authorities=3, nodes=1)
    r = run_rap(env.rap, "node", "list", "--data-dir", c.a1.dir)
    expect(r.rc == OK and r.json is None and "n1" in r.out, "a table", r)
    expect(len({len(line.split("\t")) for line in r.out.splitlines()}) == 1, "no stray tabs", r.out)
    r = run_rap(env.rap, "status", "--data-dir", c.a1.dir)
    expect(r.rc == OK and "a1" in r.out, "status for people", r)


def test_exit_codes_tell_what_happened(env):
    c = env.cluster(authorities=3, nodes=1)
    for args in (("nonsense",), ("node", "nonsense"), ("node", "show"), ("token", "create", "--no"),
                 ("token", "create", "--uses", "many"), ("token", "create", "--ttl", "soon")):
        r = c.a1.cli(*args)
        expect(r.rc == USAGE and r.err, f"{args}: a usage error", r)
    r = run_rap(env.rap, "node", "list", "--data-dir", c.a1.dir, "-o", "runes")
    expect(r.rc == USAGE, "an unknown format", r)
    c.a1.refused(NOT_FOUND, "not_found", "node", "show", "nobody")
    c.a1.refused(NOT_FOUND, "not_found", "token", "revoke", str(uuid.uuid4()), "--yes")
    r = c.a1.cli("role", "assign", "n1", "emperor")
    expect(r.rc != OK and says(r, "role_unknown"), "an unknown role", r)
    # Somebody has the address.
    host = c.add("h0")
    token, _ = c.token("--uses", "1")
    for address, rc, slug in ((c.n1.address, CONFLICT, "address_taken"), ("192.0.2.1:7", USAGE, "no address of")):
        r = host.cli("join", "--token-file", token, "--listen", address, "--name", "h0", "--no-wait")
        expect(r.rc == rc and slug in r.err and address in r.err, "which address is wrong", r)
    # Nobody is there.
    c.n1.stop()
    r = c.n1.cli("status")
    expect(r.rc == UNAVAILABLE and r.err, "no daemon", r)
    # A member cannot be made twice.
    c.n1.refused(CONFLICT, "exists", "init", "--cluster", "again", "--listen", "127.0.0.1:1",
                 "--name", "x")
    # Waiting ends.
    token, _ = c.token("--uses", "1")
    host = c.add("h1")
    r = host.cli(*host.join_args(token, "--timeout", "1s"))
    expect(r.rc == TIMED_OUT, "a join nobody decides", r)


def test_a_dangerous_act_asks_first(env):
    c = env.cluster(authorities=3, nodes=1)
    r = c.a1.cli("node", "revoke", "n1", "--reason", "x")
    expect(r.rc == USAGE, "without a terminal and without --yes it is not done", r)
    expect(c.a1.ok("node", "show", "n1")["identity_state"] != "revoked", "n1 is as it was")


def test_dry_run_changes_nothing_through_any_authority(env):
    c = env.cluster(authorities=3, nodes=1)
    before = {noun: all_items(c.a1, noun) for noun in ("token", "role", "audit")}
    for via in c.authorities():  # two of them pass it on to the leader
        for args in (("token", "create"), ("role", "assign", "n1", "relay-node"),
                     ("node", "revoke", "n1", "--reason", "x", "--yes")):
            r = via.cli(*args, "--dry-run")
            expect(r.rc == OK, f"{args} --dry-run", r)
            expect("rapj1_" not in r.out, "no token is made", r.out)
    r = c.a2.cli("role", "assign", "n1", "emperor", "--dry-run")
    expect(r.rc != OK and says(r, "role_unknown"), "what would be refused is refused", r)
    for noun, rows in before.items():
        expect(all_items(c.a1, noun) == rows, f"{noun} list is as it was", all_items(c.a1, noun))


def test_a_repeated_request_id_gets_the_first_answer(env):
    """D14, S4: through another authority too; another request under the same id is refused."""
    c = env.cluster(authorities=3, nodes=1)
    key = {"Idempotency-Key": "0190b7a2-0000-7000-8000-0000000000aa"}
    body = {"node": "n1", "role": "relay-node"}
    first = c.a1.api("POST", "/v1/roles", body, key)
    again = c.a2.api("POST", "/v1/roles", body, key)
    expect(first[0] in (200, 201) and again[0] in (200, 201), "both succeed", first, again)
    expect(first[1] == again[1], "with one answer", first, again)
    other = c.a3.api("POST", "/v1/roles", {"node": "n1", "role": "core-mesh"}, key)
    expect(other[0] == 422 and other[1]["code"] == "idempotency_key_reused", "not for another",
           other)
    roles = [r["role"] for r in all_items(c.a1, "role") if r["node_name"] == "n1"]
    expect(roles == ["relay-node"], "one role", roles)


def test_errors_of_the_api_are_problems(env):
    c = env.cluster(authorities=3, nodes=1)
    for method, path, body, status in (("GET", "/v1/nodes/nobody", None, 404),
                                       ("GET", "/v1/nothing", None, 404),
                                       ("POST", "/v1/roles", {"node": "n1"}, 400),
                                       ("POST", "/v1/roles", {"node": "n1", "role": 7}, 400),
                                       ("GET", "/v1/nodes?limit=100000", None, 400)):
        got, problem, headers = c.a1.api(method, path, body, {
            "Idempotency-Key": "0190b7a2-0000-7000-8000-0000000000bb"})
        expect(got == status, f"{method} {path}: {status}", got, problem)
        expect(headers.get("Content-Type", "").startswith("application/problem+json") and
               {"type", "title", "status", "detail", "code"} <= set(problem),
               f"{method} {path}: a problem", headers, problem)
