"""The overlay as the owner configures it: who takes part, who knows whom (SPEC RTE-04, PEER, SNAP-02)."""

import os
import sqlite3
from contextlib import closing

from lib import DENIED, FAILED, OK, UNAVAILABLE, USAGE, expect, items, says, wait_until


def overlay_on(node):
    return node.ok("fabric", "sessions")["overlay"]["on"]


def config(node):
    return node.ok("config", "show")


def peers(node):
    return {p["node_id"] for p in config(node)["peers"]}


def test_the_owner_turns_the_overlay_on_and_off(env):
    """RTE-04, SYN-01, SYN-05: off by default, on by signed configuration, for all or for one; without a restart.
    The audit says who did it."""
    c = env.cluster(authorities=1, nodes=3)
    nodes = [c.a1, c.n1, c.n2, c.n3]
    expect(not any(overlay_on(n) for n in nodes), "off by default")
    expect(c.a1.ok("mesh", "show")["overlay"] is False, "off by default", c.a1.ok("mesh", "show"))
    c.a1.ok("node", "mesh", "n3", "--overlay", "off", "--yes")
    c.a1.ok("role", "assign", "n2", "relay-node", "--yes")
    c.a1.ok("mesh", "set", "--overlay", "on", "--yes")
    wait_until(lambda: [overlay_on(n) for n in nodes] == [True, True, True, False],
               "everybody but n3 to have an overlay")
    wait_until(lambda: any(link["node_id"] == c.n2.id and link["state"] == "up"
                           for link in c.n1.ok("route", "list")["links"]), "n1's link to its relay")
    # Test traffic is a switch of its own.
    expect(c.n1.cli("node", "ping", c.n2.id).rc != OK, "no test traffic yet")
    c.a1.ok("node", "mesh", "n2", "--synthetic", "on", "--yes")
    wait_until(lambda: c.n1.cli("node", "ping", c.n2.id).rc == OK, "n2 to answer")
    expect(c.n2.cli("node", "ping", c.n1.id).rc != OK, "n1 does not")
    c.a1.ok("mesh", "set", "--overlay", "off", "--yes")
    wait_until(lambda: not any(overlay_on(n) for n in nodes), "the overlay to be off")
    r = c.n1.cli("route", "list")
    expect(r.rc == DENIED and "rap mesh set" in r.err, "refused, with the way on", r)
    events = [e["event_type"] for e in items(c.a1.cli("audit", "list", "--limit", "500"))]
    expect(events.count("mesh_configured") == 2 and events.count("node_mesh_configured") == 2,
           "audited", events)
    # What makes no sense is refused, and nothing changes.
    index = c.a1.status()["index"]
    for args in (["--kind", "huge"], ["--overlay", "maybe"], ["--trust", "101"],
                 ["--region", "Not A Name"]):
        r = c.a1.cli("node", "mesh", "n1", *args, "--yes")
        expect(r.rc in (USAGE, FAILED), f"{args} is refused", r)
    expect(c.a1.cli("mesh", "set", "--yes").rc in (USAGE, FAILED), "nothing to set")
    expect(c.a1.ok("node", "show", "n1")["mesh"] is None, "n1 has no row of its own", index)


def test_size_and_place_of_a_node_are_configured(env):
    """PEER-02, PEER-03: kinds bound how many peers are kept; region, bandwidth and trust of relays reach
    the scores of others; a thin node relays for nobody."""
    c = env.cluster(authorities=1, nodes=6)
    relays = [c.n2, c.n3, c.n4, c.n5]
    for r in relays:
        c.a1.ok("role", "assign", r.name, "relay-node", "--yes")
    c.a1.ok("node", "mesh", "n1", "--kind", "thin", "--region", "eu", "--yes")
    c.a1.ok("node", "mesh", "n2", "--region", "eu", "--bandwidth", "1000", "--yes")
    c.a1.ok("node", "mesh", "n3", "--region", "us", "--bandwidth", "10", "--trust", "40", "--yes")
    c.a1.ok("node", "mesh", "n6", "--region", "eu", "--yes")
    c.a1.ok("mesh", "set", "--overlay", "on", "--yes")

    def scores():
        seen = {link["node_id"]: link.get("score_inputs")
                for link in c.n6.ok("route", "list")["links"]}
        expect(c.n2.id in seen and c.n3.id in seen, "links to both", seen)
        near, far = seen[c.n2.id], seen[c.n3.id]
        expect((near["region"], near["trust"], near["bandwidth"]) == (0, 0, 1), "n2", near)
        expect((far["region"], far["trust"]) == (2, 60) and far["bandwidth"] > 5, "n3", far)
        return True
    wait_until(scores, "n6 to know what its relays are like")
    wait_until(lambda: 1 <= c.n1.ok("route", "list")["active_peers"] <= 3, "a thin node's peers")
    wait_until(lambda: c.n6.ok("route", "list")["active_peers"] >= 3, "an ordinary node's peers")
    c.a1.ok("node", "mesh", "n3", "--kind", "thin", "--yes")
    wait_until(lambda: not c.n3.ok("route", "list")["relay"] and
               c.n3.id not in {r["node_id"] for r in config(c.n6)["relays"]},
               "n3 to relay no more")
    shown = c.a1.ok("node", "show", "n3")["mesh"]
    expect((shown["kind"], shown["region"], shown["bandwidth_mbps"], shown["trust"]) ==
           ("thin", "us", 10, 40), "what is not given stays", shown)


def test_members_of_an_organization_are_told_each_others_addresses(env):
    """SNAP-02, SNAP-03, PEER-04: the signed configuration says where those are that serve the same
    organization, and nobody else; with an address the way is direct."""
    c = env.cluster(authorities=1, nodes=3)
    c.a1.ok("mesh", "set", "--synthetic", "on", "--yes")
    for name, org in (("n1", "acme"), ("n2", "acme"), ("n3", "zeta")):
        c.a1.ok("role", "assign", name, "update-cache", "--org", org, "--yes")
    wait_until(lambda: peers(c.n1) == {c.n2.id} and peers(c.n2) == {c.n1.id},
               "n1 and n2 to know each other")
    wait_until(lambda: "update-cache" in c.n3.roles(), "n3 to have its role")
    expect(peers(c.n3) == set(), "n3 is told of nobody", config(c.n3))
    expect({p["address"] for p in config(c.n1)["peers"]} == {c.n2.address}, "where n2 is",
           config(c.n1))
    answer = wait_until(lambda: c.n1.cli("node", "ping", c.n2.id, "--timeout", "5s").json, "an echo")
    expect(answer["path"] == "direct" and answer["received"] == 1, "the direct way", answer)
    expect(c.n1.cli("node", "ping", c.n3.id, "--timeout", "2s").rc != OK, "no way to a stranger")
    # It moves, keeps its identity, and is found again; the next start needs no option.
    c.n2.stop()
    moved = f"localhost:{c.n2.port}"
    r = c.n2.cli("agent", "run", "--advertise", "nowhere")
    expect(r.rc != OK and "advertised" in r.err, "an address that is none", r)
    c.n2.start(args=("--advertise", moved))
    wait_until(lambda: {p["address"] for p in config(c.n1)["peers"]} == {moved}, "n1 to be told")
    expect(c.n1.ok("node", "ping", c.n2.id, "--timeout", "10s")["path"] == "direct", "there")
    c.n2.stop()
    c.n2.start()
    expect(c.n2.status()["advertise"] == moved, "kept", c.n2.status())
    # It ends with the role, and with the membership.
    c.a1.ok("role", "unassign", "n2", "update-cache", "--org", "acme", "--yes")
    wait_until(lambda: peers(c.n1) == set() and peers(c.n2) == set(), "them to forget each other")
    c.a1.ok("role", "assign", "n2", "update-cache", "--org", "acme", "--yes")
    wait_until(lambda: peers(c.n1) == {c.n2.id}, "n1 to know n2 again")
    c.a1.ok("node", "revoke", "n2", "--reason", "stolen", "--yes")
    wait_until(lambda: peers(c.n1) == set(), "n1 to forget n2")


def test_another_nodes_configuration_is_refused(env):
    """SNAP-01, SYN-03: a file of another node, put in place of one's own, is not used."""
    c = env.cluster(authorities=1, nodes=2)
    for name in ("n1", "n2"):
        c.a1.ok("role", "assign", name, "update-cache", "--org", "acme", "--yes")
    wait_until(lambda: peers(c.n1) and peers(c.n2), "both to have peers")
    c.n1.stop()
    c.n2.stop()
    c.a1.stop()

    def stored(node):
        found = [os.path.join(d, "node.db") for d, _, f in os.walk(node.dir) if "node.db" in f]
        expect(len(found) == 1, "one store", found)
        return found[0]
    with closing(sqlite3.connect(stored(c.n2))) as db:
        row = db.execute("SELECT epoch, config_version, received_at, signed FROM snapshot").fetchone()
    with closing(sqlite3.connect(stored(c.n1))) as db, db:
        db.execute("UPDATE snapshot SET epoch = ?, config_version = ?, received_at = ?, signed = ?",
                   row)
    c.n1.start(wait=False)
    wait_until(lambda: c.n1.cli("status").rc == OK, "n1 to run")
    expect(c.n1.cli("config", "show").rc != OK, "nothing is in force")
    r = c.n1.cli("config", "verify")
    expect(r.rc != OK and says(r, "bad_proof"), "and the reason is named", r)


def test_mesh_live_smoke(env):
    """SYN-01, SYN-02, RTE-06: three processes and their authority; test traffic is off by default, then echoes
    directly, over one relay and over a forced one, bounded; needs no authority; is off again."""
    c = env.cluster(authorities=1, nodes=3)
    c.a1.ok("role", "assign", "n3", "relay-node", "--yes")
    c.a1.ok("mesh", "set", "--overlay", "on", "--yes")
    wait_until(lambda: any(link["node_id"] == c.n3.id and link["state"] == "up"
                           for link in c.n1.ok("route", "list")["links"]), "n1's link to its relay")
    r = c.n1.cli("node", "ping", c.n3.id, "--timeout", "10s")
    expect(r.rc != OK and says(r, "no_service") and "rap mesh set" in r.err, "off by default", r)
    c.a1.ok("mesh", "set", "--synthetic", "on", "--yes")

    def echo(to, *args):
        r = c.n1.cli("node", "ping", to.id, *args, "--timeout", "10s")
        return r.json if r.rc == OK else None
    direct = wait_until(lambda: echo(c.n3, "--count", "3"), "a direct echo")
    expect((direct["path"], direct["received"]) == ("direct", 3), "direct", direct)
    relayed = wait_until(lambda: echo(c.n2, "--count", "3"), "a relayed echo")
    expect((relayed["path"], relayed["via"]) == ("relayed", c.n3.id), "over the one relay", relayed)
    forced = wait_until(lambda: echo(c.a1, "--via", c.n3.id), "a forced echo")
    expect((forced["path"], forced["via"]) == ("relayed", c.n3.id), "over the relay asked for", forced)
    expect(echo(c.n2, "--size", "65536")["received"] == 1, "the largest there is")
    for args in (["--size", "65537"], ["--count", "1001"], ["--bytes", str((1 << 30) + 1)]):
        r = c.n1.cli("node", "ping", c.n2.id, *args)
        expect(r.rc != OK and r.rc != UNAVAILABLE, f"{args} is refused", r)
    c.a1.stop()
    expect(echo(c.n2)["path"] == "relayed" and echo(c.n3)["path"] == "direct", "without an authority")
    c.a1.start()
    c.a1.ok("mesh", "set", "--synthetic", "off", "--yes")
    wait_until(lambda: says(c.n1.cli("node", "ping", c.n2.id, "--timeout", "5s"), "no_service"),
               "test traffic to be off again")
