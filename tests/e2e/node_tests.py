"""What a node is, beside what it does: identity, membership, health, each of its own (SPEC NODE-01 to NODE-04, MEM-01, MEM-02,
ENR-01, ENR-03, ROLE-01, ROLE-03, IDN-01, IDN-03, HB-03)."""

from lib import CONFLICT, NOT_FOUND, OK, expect, items, wait_until
from cluster_tests import all_items


def show(c, name):
    return c.a1.ok("node", "show", name)


def test_there_is_no_node_without_an_approval(env):
    """NODE-03, NODE-04, ENR-03: no way to write one in; a request stays pending for as long as nobody decides, and
    its host is nothing meanwhile."""
    c = env.cluster(authorities=1, nodes=1)
    before = {n["id"] for n in all_items(c.a1, "node")}
    body = {"name": "x", "fingerprint": "0" * 64, "public_key": "00"}
    for method, path in (("POST", "/v1/nodes"), ("PUT", "/v1/nodes/x"), ("POST", "/v1/node-agents"),
                         ("POST", "/v1/nodes/x/certificates"), ("POST", "/v1/node-agents/register")):
        code, _, _ = c.a1.api(method, path, body)
        expect(code in (404, 405), f"{method} {path} does not exist", code)
    token, _ = c.token("--uses", "1")
    host = c.add("h1")
    host.ok(*host.join_args(token, "--no-wait"))
    request = c.pending("h1")
    for key in ("id", "cluster_id", "node_name", "node_fingerprint", "reported_capabilities", "reported_facts",
                "requested_roles", "status", "join_token_id", "reviewed_at", "approved_node_id",
                "rejection_reason"):  # ENR-01
        expect(key in request, f"a request has {key}", request)
    # Not the first decision of the authority, nor its restart, decides for the people.
    c.a1.ok("token", "create")
    c.a1.stop()
    c.a1.start()
    c.a1.ok("role", "assign", "n1", "relay-node")
    expect(c.request("h1"), "it is pending still", items(c.a1.cli("request", "list")))
    expect({n["id"] for n in all_items(c.a1, "node")} == before, "and there is no node of it")
    host.start(wait=False)
    rc = host.process.wait(30)
    host.process = None
    expect(rc != OK, "an agent does not run there", rc)
    c.a1.refused(NOT_FOUND, "not_found", "role", "assign", "h1", "relay-node")
    joining = host.join_start(token)
    c.approve(request)
    expect(joining.wait(30) == OK, "approved, it is let in")
    host.start()
    row = show(c, "h1")
    expect(row["roles"] == [] and row["id"] not in before, "with no role", row)


def test_health_membership_and_identity_are_three_things(env):
    """NODE-01, MEM-01, MEM-02, IDN-01, IDN-03, HB-03: enrolled and not healthy; its heartbeats move last_seen_at; its silence is
    noticed and audited, and takes nothing from it."""
    c = env.cluster(authorities=1, nodes=2, run_args=("--agent-heartbeat", "300ms"))
    c.a1.ok("cluster", "update", "--heartbeat-sample", "1s")
    row = show(c, "n1")
    expect((row["enrollment_status"], row["membership_status"], row["identity_state"], row["health_status"]) ==
           ("enrolled", "active", "active", "healthy"), "all is well", row)
    cluster = c.a1.ok("cluster", "show")
    expect(row["certificate_serial"] and row["certificate_not_before"] < row["certificate_not_after"] and
           c.n1.status()["cluster_id"] == cluster["id"], "a certificate of this cluster", row)
    seen = row["last_seen_at"]
    wait_until(lambda: show(c, "n1")["last_seen_at"] > seen, "a heartbeat to be seen")
    c.a1.ok("role", "assign", "n1", "relay-node")
    c.n1.freeze()
    wait_until(lambda: show(c, "n1")["health_status"] == "stale", "its silence to be noticed")
    row = show(c, "n1")
    expect((row["enrollment_status"], row["membership_status"], row["identity_state"], row["roles"]) ==
           ("enrolled", "active", "active", ["relay-node"]), "nothing else is another", row)
    expect(c.a1.ok("cluster", "show")["nodes_by_health"].get("stale") == 1, "the cluster counts it")
    c.n1.thaw()
    wait_until(lambda: show(c, "n1")["health_status"] == "healthy", "it to be well again")
    changes = [(e["details"]["from"], e["details"]["to"]) for e in all_items(c.a1, "audit", "--subject", c.n1.id)
               if e["event_type"] == "health_changed"]
    expect(("healthy", "stale") in changes and changes[-1][1] == "healthy" and
           all(a[1] == b[0] for a, b in zip(changes, changes[1:])), "each change is audited", changes)


def test_a_role_for_one_organization_is_none_for_another(env):
    """ROLE-01, ROLE-03: assigned, restricted to an organization, disabled with its node, removed; each audited."""
    c = env.cluster(authorities=1, nodes=1)
    c.a1.ok("role", "assign", "n1", "update-cache", "--org", "acme")
    c.a1.refused(CONFLICT, "exists", "role", "assign", "n1", "update-cache", "--org", "acme")

    def held():
        return {(r["role"], r["organization_id"], r["state"]) for r in
                items(c.a1.cli("role", "list", "--node", "n1"))}
    rows = items(c.a1.cli("role", "list", "--node", "n1"))
    for key in ("id", "cluster_id", "node_id", "role", "organization_id", "status", "assigned_by_user_id",
                "assigned_at", "authority_index"):
        expect(key in rows[0], f"an assignment has {key}", rows[0])
    r = c.a1.cli("role", "unassign", "n1", "update-cache", "--org", "zeta")
    expect(r.rc == NOT_FOUND and len(held()) == 1, "zeta has none to take away", r, held())
    c.a1.ok("role", "assign", "n1", "update-cache", "--org", "zeta")
    wait_until(lambda: c.n1.roles() == ["update-cache"] * 2, "the node to serve both")
    c.a1.ok("role", "unassign", "n1", "update-cache", "--org", "acme")
    wait_until(lambda: c.n1.roles() == ["update-cache"], "acme to be served no more")
    expect({o for _, o, _ in held()} == {"zeta"}, "zeta is", held())
    c.a1.ok("node", "disable", "n1", "--reason", "test", "--yes")
    expect({s for _, _, s in held()} == {"ineffective"}, "disabled", held())
    c.a1.ok("node", "enable", "n1")
    events = [(e["event_type"], e["organization_id"]) for e in all_items(c.a1, "audit", "--subject", c.n1.id)
              if e["event_type"].startswith("role_")]
    expect(events == [("role_assigned", "acme"), ("role_assigned", "zeta"), ("role_removed", "acme")],
           "each is audited, for its organization", events)
