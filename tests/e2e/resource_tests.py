"""What organizations have behind nodes and pools, reached by name by their own nodes and by no others
(SPEC RTE-03, RTE-02, SNAP-03), and intents that are an organization's."""

from lib import CONFLICT, DENIED, NOT_FOUND, OK, USAGE, expect, items, says, wait_until
from overlay_tests import mesh


def resources(node):
    return {r["name"]: r for r in node.ok("config", "show")["resources"]}


def reaches(node, selector):
    """Waits for an echo; what it says must not tell where it leads."""
    def so():
        r = node.cli("node", "ping", selector, "--timeout", "5s")
        expect(r.rc == OK and r.json["received"] == 1, f"{node.name} to reach {selector}", r)
        expect(r.json["node_id"] is None and r.json["via"] is None, "no topology is told", r.json)
        return r.json
    return wait_until(so, f"an echo of {selector}")


def test_a_resource_is_reached_by_its_organization_alone(env):
    """RTE-03: a caller names a resource; its organization's nodes know it, the others have no row of it and are
    told apart: out of scope. It moves, behind a pool too; an intent about it follows."""
    c = mesh(env, ["r1"], ["n1", "e1", "e2"])
    c.a1.ok("role", "assign", "n1", "update-cache", "--org", "acme", "--yes")
    c.a1.ok("role", "assign", "e2", "update-cache", "--org", "zeta", "--yes")
    made = c.a1.ok("resource", "create", "db", "--org", "acme", "--protocol", "ssh", "--node", "e1",
                   "--target", "10.9.8.7:22", "--credential", "vault:db", "--yes")
    expect((made["organization_id"], made["node_name"], made["egress_pool_id"]) ==
           ("acme", "e1", None), "what was made", made)
    told = wait_until(lambda: resources(c.n1).get("db"), "n1 to know the resource")
    expect(told["served_by"] == "node" and c.e1.id not in str(told) and "10.9.8.7" not in str(told)
           and "vault" not in str(told), "who serves it, and what it is there, is not told", told)

    opened = c.n1.ok("route", "open", "resource:db")
    expect(opened["route_id"] not in (c.e1.id, made["id"]), "opaque", opened)
    reaches(c.n1, f"route:{opened['route_id']}")
    for name in ("resource:db", "resource:acme/db", f"resource:{made['id']}"):
        reaches(c.n1, name)
    expect(c.n1.ok("route", "explain", "resource:db")["destination"] == c.e1.id,
           "what the operator of n1 is told")

    # Scope: another organization's node, one of none, a name that there is not, who serves it.
    wait_until(lambda: "update-cache" in c.e2.roles(), "e2 to hear of its role")
    expect(resources(c.e2) == {} and resources(c.e1) == {}, "nobody else has a row of it")
    c.e2.refused(DENIED, "out_of_scope", "route", "open", "resource:acme/db")
    c.e2.refused(NOT_FOUND, "not_found", "route", "open", "resource:db")
    c.e1.refused(DENIED, "out_of_scope", "route", "open", "resource:db")
    c.n1.refused(NOT_FOUND, "not_found", "route", "open", "resource:nothing")
    c.n1.refused(USAGE, "invalid", "route", "open", "resource:")
    c.n1.refused(DENIED, "out_of_scope", "node", "ping", "resource:zeta/db")
    c.n1.refused(NOT_FOUND, "not_found", "route", "explain", "resource:nothing")

    # The same name at another organization; a node that serves both must say which.
    c.a1.ok("resource", "create", "db", "--org", "zeta", "--protocol", "rdp", "--node", "e2",
            "--yes")
    c.a1.refused(CONFLICT, "ambiguous", "resource", "show", "db")
    c.a1.ok("role", "assign", "n1", "update-cache", "--org", "zeta", "--yes")
    wait_until(lambda: len(c.n1.ok("config", "show")["resources"]) == 2, "n1 to know both")
    c.n1.refused(CONFLICT, "ambiguous", "route", "open", "resource:db")
    reaches(c.n1, "resource:zeta/db")

    # It moves behind a pool: the route that is open goes on.
    c.a1.ok("pool", "create", "exits", "--org", "acme", "--yes")
    c.a1.ok("pool", "add", "exits", "e2", "--yes")
    c.a1.refused(DENIED, "out_of_scope", "resource", "set", "zeta/db", "--pool", "exits", "--yes")
    c.a1.ok("resource", "set", "acme/db", "--pool", "exits", "--yes")
    wait_until(lambda: {r["served_by"] for r in c.n1.ok("config", "show")["resources"]} ==
               {"node", "pool"}, "n1 to hear of it")
    c.e1.kill9()
    reaches(c.n1, f"route:{opened['route_id']}")

    # An intent about it is its organization's, and is about whoever serves it.
    closed = c.a1.ok("intent", "create", "closed", "--policy", "deny", "--to", "resource:acme/db",
                     "--yes")
    expect((closed["organization_id"], closed["to"], closed["from"]) ==
           ("acme", "resource:acme/db", "organization:acme"), "whose it is", closed)

    def denied():
        r = c.n1.cli("node", "ping", f"route:{opened['route_id']}", "--timeout", "5s")
        expect(r.rc == DENIED and says(r, "denied"), "no way is allowed", r)
        return True
    wait_until(denied, "the intent to be obeyed")
    c.a1.refused(CONFLICT, "conflict", "resource", "delete", "acme/db", "--yes")
    c.a1.refused(CONFLICT, "conflict", "pool", "delete", "exits", "--yes")
    c.a1.ok("intent", "delete", "closed", "--yes")
    # Who serves it is revoked: nobody does.
    c.a1.ok("node", "revoke", "e2", "--reason", "stolen", "--yes")

    def orphaned():
        r = c.n1.refused(NOT_FOUND, "not_found", "route", "open", "resource:zeta/db")
        expect("nobody serves" in r.err, "why", r.err)
        return True
    wait_until(orphaned, "n1 to hear that nobody serves it")
    c.a1.ok("resource", "delete", "acme/db", "--yes")
    wait_until(lambda: len(resources(c.n1)) == 1, "n1 to forget it")
    c.n1.refused(NOT_FOUND, "not_found", "node", "ping", f"route:{opened['route_id']}")
    kinds = [e["event_type"] for e in items(c.a1.cli("audit", "list", "--limit", "500"))
             if e["organization_id"] == "acme" and e["subject_type"] == "resource"]
    expect(sorted(kinds) == ["resource_changed", "resource_created", "resource_deleted"],
           "audited as acme's", kinds)


def test_resources_that_make_no_sense_are_refused(env):
    """Each says why, and nothing changes."""
    c = env.cluster(authorities=1, nodes=1)
    good = ["--org", "acme", "--protocol", "ssh"]
    c.a1.ok("pool", "create", "theirs", "--org", "zeta", "--yes")
    for args, code in ((["Not A Name", *good, "--node", "n1"], "invalid"),
                       (["", *good, "--node", "n1"], "invalid"),
                       (["x", *good], "invalid"),
                       (["x", *good, "--node", "n1", "--pool", "theirs"], "invalid"),
                       (["x", "--org", "acme", "--protocol", "R D P", "--node", "n1"], "invalid"),
                       (["x", "--org", "acme", "--protocol", "", "--node", "n1"], "invalid"),
                       (["x", "--org", "", "--protocol", "ssh", "--node", "n1"], "invalid"),
                       (["x", "--org", "a" * 65, "--protocol", "ssh", "--node", "n1"], "too_large"),
                       (["x", *good, "--node", "n1", "--target", "a\tb"], "invalid"),
                       (["x", *good, "--node", "nobody"], "not_found"),
                       (["x", *good, "--pool", "theirs"], "out_of_scope")):
        r = c.a1.cli("resource", "create", *args, "--yes")
        expect(r.rc != OK and says(r, code), f"{args}: {code}", r)
    expect(items(c.a1.cli("resource", "list")) == [], "none was made")
    c.a1.ok("resource", "create", "x", *good, "--node", "n1", "--yes")
    r = c.a1.cli("resource", "create", "x", *good, "--node", "n1", "--yes")
    expect(r.rc != OK and says(r, "name_taken"), "a name once in an organization", r)
    r = c.a1.cli("resource", "set", "x", "--yes")
    expect(r.rc == USAGE, "nothing to change", r)
    changed = c.a1.ok("resource", "set", "x", "--target", "h:1", "--yes")
    expect((changed["protocol"], changed["node_name"], changed["target_ref"]) == ("ssh", "n1", "h:1"),
           "what is not given stays", changed)
    c.a1.ok("resource", "delete", "x", "--yes")
    c.a1.refused(NOT_FOUND, "not_found", "resource", "delete", "x", "--yes")
