"""The overlay's routes: learnt without an authority, over relays, away from what dies (SPEC RTE)."""

from lib import DENIED, NOT_FOUND, OK, USAGE, expect, wait_until

FAILOVER_SECONDS = 5.0  # a dead relay's links are dead after 1 s; the rest is a busy machine's


def explain(node, dst):
    r = node.cli("route", "explain", dst.id)
    expect(r.rc == OK, f"{node.name}: route explain {dst.name}", r)
    return r.json


def leads(node, dst, over):
    """Waits until packets of node for dst go to one of `over`; returns which."""
    ids = {n.id: n for n in over}

    def relayed():
        e = explain(node, dst)
        expect(e["result"] == "relayed" and e["next_hop"] in ids,
               f"{node.name} reaches {dst.name} over one of {[n.name for n in over]}", e)
        return ids[e["next_hop"]]
    return wait_until(relayed, f"a route from {node.name} to {dst.name}")


def overlay_cluster(env, nodes, relays):
    c = env.cluster(authorities=1, nodes=nodes)
    for r in relays:
        c.a1.ok("role", "assign", r, "relay-node", "--yes")
    for n in [n for n in c.nodes.values() if n is not c.a1]:
        n.stop()
        n.start(args=("--overlay",))
    return c


def test_leaves_reach_each_other_over_relays_and_lose_one_and_the_authority(env):
    """RTE-02, RTE-07, D6: two relays, two ordinary nodes that know nothing of each other."""
    c = overlay_cluster(env, 4, ["n3", "n4"])
    relays = [c.n3, c.n4]
    first = leads(c.n1, c.n2, relays)
    leads(c.n2, c.n1, relays)
    listing = c.n1.ok("route", "list")
    expect(not listing["relay"], "an ordinary node is no relay", listing)
    expect(listing["counters"]["drop_role"] == 0 and listing["counters"]["probes_out"] > 0,
           "probes go out, nothing is refused", listing["counters"])
    expect({link["node_id"] for link in listing["links"] if link["state"] == "up"} >=
           {r.id for r in relays}, "links to both relays are up", listing["links"])
    # An ordinary node learns what it asks for, nothing else: topology stays hidden.
    known = {i["destination"] for i in listing["items"]}
    expect(known <= {c.n2.id, c.n3.id, c.n4.id}, "it knows relays and what it asked for", known)

    c.a1.stop()  # routing needs no authority
    other = relays[1] if first is relays[0] else relays[0]
    first.kill9()
    wait_until(lambda: leads(c.n1, c.n2, [other]) is other, "the other relay", FAILOVER_SECONDS)
    leads(c.n2, c.n1, [other])
    # With it gone as well there is no way, and the reason has a name.
    other.kill9()

    def refused():
        e = explain(c.n1, c.n2)
        expect(e["result"] == "refused" and e["refusal"] in ("no_route", "udp_blocked"),
               "no way is left", e)
        return True
    wait_until(refused, "the refusal")
    # Both are back, still without an authority: from the stored configuration.
    for r in relays:
        r.start(wait=False, args=("--overlay",))
    leads(c.n1, c.n2, relays)


def test_a_role_that_ends_takes_the_routes_with_it(env):
    """ROLE, RTE-02: who loses the role forwards no more, and its neighbours go elsewhere."""
    c = overlay_cluster(env, 4, ["n3"])
    leads(c.n1, c.n2, [c.n3])
    c.a1.ok("role", "assign", "n4", "relay-node", "--yes")
    c.a1.ok("role", "unassign", "n3", "relay-node", "--yes")
    leads(c.n1, c.n2, [c.n4])
    leads(c.n2, c.n1, [c.n4])
    wait_until(lambda: not c.n3.ok("route", "list")["relay"], "n3 to know that it is no relay")


def test_a_revoked_relay_is_left_within_5s(env):
    """DESIGN section 4: also as a next hop."""
    c = overlay_cluster(env, 4, ["n3", "n4"])
    first = leads(c.n1, c.n2, [c.n3, c.n4])
    other = c.n4 if first is c.n3 else c.n3
    c.a1.ok("node", "revoke", first.name, "--reason", "stolen", "--yes")
    wait_until(lambda: leads(c.n1, c.n2, [other]) is other, "another relay", FAILOVER_SECONDS)


def test_links_and_routes_are_shown_by_any_authority(env):
    """RTE-09, SYN-04: samples come with the heartbeat and are no decisions: the state stays as it is.
    Whoever is asked, the leader answers."""
    c = env.cluster(authorities=3, nodes=3, run_args=("--overlay", "--agent-heartbeat", "300ms"))
    c.a1.ok("role", "assign", "n3", "relay-node", "--yes")
    leads(c.n1, c.n2, [c.n3])
    follower = c.others(c.wait_leader())[0]

    def link():
        seen = [r for r in follower.ok("mesh", "links", "--node", "n1")["items"]
                if (r["from_node_name"], r["to_node_name"]) == ("n1", "n3")]
        expect(len(seen) == 1 and seen[0]["status"] == "up" and seen[0]["relay"] and
               seen[0]["rtt_us"] > 0, "n1's link to its relay", seen)
        return seen[0]
    wait_until(link, "the link", 60)

    def route():
        seen = [r for r in follower.ok("mesh", "routes", "--node", "n2")["items"]
                if (r["from_node_name"], r["to_node_name"]) == ("n1", "n2")]
        expect(len(seen) == 1 and seen[0]["status"] == "usable" and
               (seen[0]["path_kind"], seen[0]["next_hop_name"]) == ("relayed", "n3"),
               "n1's way to n2", seen)
        return True
    wait_until(route, "the route", 60)

    # An authority reports its own links as well; pages hold each link once.
    def of_authorities():
        seen = follower.ok("mesh", "links")["items"]
        expect({"a1", "a2", "a3"} <= {r["from_node_name"] for r in seen if r["status"] == "up"},
               "authorities report links", seen)
        return {(r["from_node_id"], r["to_node_id"]) for r in seen}
    everything = wait_until(of_authorities, "links of authorities", 60)
    paged, cursor = [], None
    while True:
        page = follower.ok("mesh", "links", "--limit", "2",
                           *(["--cursor", cursor] if cursor else []))
        expect(len(page["items"]) <= 2, "no page above its limit", page)
        paged += [(r["from_node_id"], r["to_node_id"]) for r in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    expect(paged == sorted(set(paged)) and set(paged) >= everything, "each link once, in order",
           paged, everything)
    follower.refused(USAGE, "invalid", "mesh", "links", "--limit", "2", "--cursor", "nonsense")
    follower.refused(NOT_FOUND, "not_found", "mesh", "links", "--node", "nobody")

    index = c.a1.status()["index"]
    c.n3.kill9()

    def gone():
        shown = {s["to_node_name"]: s["status"]
                 for s in follower.ok("mesh", "links", "--node", "n1")["items"]}
        expect(shown.get("n3") != "up", "the link is not up", shown)
        return True
    wait_until(gone, "the link to be down")
    rows = c.a1.ok("audit", "list")["items"]
    expect(all("link" not in r["event_type"] for r in rows), "samples are no events", rows)
    expect(c.a1.status()["index"] - index < 20, "samples are not committed", index, c.a1.status())


def test_changes_of_links_and_of_decided_ways_are_kept(env):
    """RTE-09, SYN-04: what changed is in the log, coarsely, so every authority has it, also without a
    leader; a way is kept when an intent decided it."""
    c = env.cluster(authorities=3, nodes=3, run_args=("--agent-heartbeat", "300ms"))
    c.a1.ok("role", "assign", "n3", "relay-node", "--yes")
    c.a1.ok("mesh", "set", "--overlay", "on", "--yes")
    wanted = c.a1.ok("intent", "create", "over-n3", "--policy", "require", "--from", "node:n1", "--to",
                     "node:n2", "--via", "node:n3", "--yes")
    wait_until(lambda: c.n1.cli("route", "list").rc == OK, "n1's overlay")
    leads(c.n1, c.n2, [c.n3])
    wait_until(lambda: explain(c.n1, c.n2)["decided_by"] == "over-n3", "the intent to decide")
    follower = c.others(c.wait_leader())[0]

    def kept(what):
        page = follower.ok("mesh", what, "--stale", "--limit", "500")
        expect(page["live"] is False, "as the log has it", page)
        return {(r["from_node_name"], r["to_node_name"]): r for r in page["items"]}

    def both():
        links, routes = kept("links"), kept("routes")
        expect(("n1", "n3") in links and links["n1", "n3"]["status"] == "up", "the link", links)
        way = routes.get(("n1", "n2"))
        expect(way and (way["status"], way["path_kind"], way["next_hop_id"], way["intent_id"]) ==
               ("usable", "relayed", c.n3.id, wanted["id"]), "the way", routes)
        expect(("n2", "n1") not in routes, "nothing decided the other one", routes)
        return True
    wait_until(both, "both to be in the log", 60)
    index = c.a1.status()["index"]
    c.n3.kill9()

    def gone():
        links, routes = kept("links"), kept("routes")
        expect(links["n1", "n3"]["status"] != "up", "the link is down", links)
        expect(routes["n1", "n2"]["status"] != "usable", "the way is gone", routes)
        return True
    wait_until(gone, "both to be down in the log", 60)
    expect(c.a1.status()["index"] - index < 60, "changes, not samples", index, c.a1.status())
    c.a1.ok("intent", "delete", "over-n3", "--yes")
    wait_until(lambda: ("n1", "n2") not in kept("routes"), "the way to be forgotten", 60)
    c.a1.ok("node", "revoke", "n3", "--reason", "test", "--yes")
    wait_until(lambda: ("n1", "n3") not in kept("links"), "links of a revoked node to be forgotten")
    c.one_digest()


def test_overlay_is_off_until_asked_for(env):
    """RTE-04: the flag off is a refusal that says what to do."""
    c = env.cluster(authorities=1, nodes=1)
    for words in (["list"], ["explain", c.a1.id]):
        r = c.n1.cli("route", *words)
        expect(r.rc == DENIED and "--overlay" in r.err, "refused, with the way on", r)
    expect(c.n1.cli("route", "explain").rc == USAGE, "a destination is needed")
    c.n1.stop()
    c.n1.start(args=("--overlay",))
    r = c.n1.cli("route", "explain", "ffff")
    expect(r.rc == NOT_FOUND and "whole id" in r.err, "an unknown prefix", r)
    e = explain(c.n1, c.n1)
    expect(e["result"] == "self", "the way to itself", e)
