"""What the owner wants of routes and queues, obeyed by real nodes (SPEC RTE-09, QOS-01)."""

from lib import DENIED, NOT_FOUND, OK, USAGE, expect, items, says, wait_until
from overlay_tests import MIB, mesh, ping, pinged


def explain(a, b):
    return a.ok("route", "explain", b.id)


def decided(a, b, name, result):
    """Waits until the way from a to b is what `name` made it; what explain says."""
    def so():
        e = explain(a, b)
        expect(e["decided_by"] == name and e["result"] == result,
               f"{a.name} to {b.name}: {result}, decided by {name}", e)
        return e
    return wait_until(so, "the intent to decide")


def goes(a, b, path, via=None):
    def so():
        answer = pinged(a, b)
        expect(answer["path"] == path and (via is None or answer["via"] == via.id),
               f"{path} {via.name if via else ''}", answer)
        return answer
    return wait_until(so, f"{a.name} to reach {b.name} {path}")


def test_routes_obey_the_owners_intents(env):
    """RTE-09: direct, deny, require, prefer, avoid; each is obeyed by the nodes it is about, named by
    `route explain`, and ends with its deletion. Nobody else is told of it."""
    c = mesh(env, ["r1", "r2"], ["n1", "b1"])

    def intent(name, policy, *args):
        return c.a1.ok("intent", "create", name, "--policy", policy, "--from", "node:n1", "--to",
                       "node:b1", *args, "--yes")

    goes(c.n1, c.b1, "relayed")  # its address is known to nobody
    intent("grant", "direct")
    goes(c.n1, c.b1, "direct")
    shown = intent("no-shortcut", "deny", "--via", "direct")
    expect((shown["from"], shown["to"], shown["via"]) == ("node:n1", "node:b1", "direct"),
           "selectors by name", shown)
    goes(c.n1, c.b1, "relayed")
    # For a moment it may go over a relay because the direct path is not there yet.
    wait_until(lambda: explain(c.n1, c.b1)["decided_by"] == "no-shortcut", "the intent to decide")
    expect(not explain(c.n1, c.b1)["direct_allowed"], "direct is forbidden")

    for relay, other in ((c.r2, c.r1), (c.r1, c.r2)):
        intent("one-way", "require", "--via", f"node:{relay.name}")
        goes(c.n1, c.b1, "relayed", relay)
        paths = {p["next_hop"]: p for p in explain(c.n1, c.b1)["paths"]}
        expect(paths.get(other.id) is None or (paths[other.id]["refusal"], paths[other.id]["intent"])
               == ("policy", "one-way"), "the other relay is refused, by name", paths)
        c.a1.ok("intent", "delete", "one-way", "--yes")

    # By region, as a wish: it is followed while there is such a way, and no longer.
    c.a1.ok("node", "mesh", "r1", "--region", "eu", "--yes")
    c.a1.ok("node", "mesh", "r2", "--region", "us", "--yes")
    for wish, args, relay in (("avoid-eu", ("avoid", "--via", "region:eu"), c.r2),
                              ("prefer-eu", ("prefer", "--via", "region:eu"), c.r1)):
        intent(wish, *args)
        goes(c.n1, c.b1, "relayed", relay)
        if wish == "avoid-eu":
            c.a1.ok("intent", "delete", wish, "--yes")
    c.r1.kill9()
    goes(c.n1, c.b1, "relayed", c.r2)
    c.r1.start()

    # Nobody else is told.
    expect(not c.b1.ok("config", "show")["intents"] and not c.r1.ok("config", "show")["intents"],
           "b1 and r1 have no intents")
    expect({i["name"] for i in c.n1.ok("config", "show")["intents"]} == {"no-shortcut", "prefer-eu"},
           "n1 has its own, and addresses are no intent", c.n1.ok("config", "show"))

    intent("quarantine", "deny")
    decided(c.n1, c.b1, "quarantine", "refused")

    def refused():
        r = c.n1.cli("node", "ping", c.b1.id, "--timeout", "5s")
        expect(r.rc == DENIED and says(r, "denied"), "no way, at once and by name", r)
        return True
    wait_until(refused, "n1 to be kept from b1")
    expect(pinged(c.n1, c.a1)["received"] == 1, "its authority is reached all the same")
    expect(pinged(c.b1, c.r2)["received"] == 1, "others are not concerned")
    c.a1.ok("intent", "disable", "quarantine", "--yes")
    goes(c.n1, c.b1, "relayed")
    for name in ("quarantine", "prefer-eu", "no-shortcut"):
        c.a1.ok("intent", "delete", name, "--yes")
    goes(c.n1, c.b1, "direct")
    expect([i["name"] for i in items(c.a1.cli("intent", "list"))] == ["grant"], "what is left")
    kinds = [e["event_type"] for e in items(c.a1.cli("audit", "list", "--limit", "500"))]
    expect(kinds.count("route_intent_created") == 7 and kinds.count("route_intent_deleted") == 6 and
           kinds.count("route_intent_disabled") == 1, "audited", kinds)


def test_what_is_denied_is_refused_when_others_dial_too(env):
    """RTE-02, RTE-09: the node that has a deny closes the sessions that others open, and refuses streams of a
    denied service; an intent of an organization is obeyed by a node once it serves it."""
    c = mesh(env, ["r1"], ["n1", "b1"])

    def counted(node, what):
        return node.ok("fabric", "sessions")["counters"][what]

    def refused(a, b):
        def so():
            r = a.cli("node", "ping", b.id, "--timeout", "5s")
            expect(r.rc == DENIED and says(r, "denied"), f"{a.name} to be kept from {b.name}", r)
            return True
        wait_until(so, f"{a.name} to be kept from {b.name}")

    pinged(c.b1, c.n1)
    c.a1.ok("intent", "create", "closed", "--policy", "deny", "--from", "node:n1", "--to", "node:b1",
            "--yes")
    refused(c.b1, c.n1)  # which was told nothing: it is n1 that refuses
    expect(c.b1.ok("config", "show")["intents"] == [] and counted(c.n1, "sessions_denied") > 0,
           "n1 refused it")
    expect(counted(c.b1, "sessions_denied") == 0, "b1 refused nothing")
    expect(pinged(c.n1, c.a1)["received"] == 1, "authorities are reached whatever it says")
    c.a1.ok("intent", "delete", "closed", "--yes")
    pinged(c.b1, c.n1)

    c.a1.ok("intent", "create", "quiet", "--policy", "deny", "--from", "node:n1", "--to", "node:b1",
            "--service", "synthetic", "--org", "acme", "--yes")
    expect(pinged(c.b1, c.n1)["received"] == 1, "n1 does not serve acme")
    c.a1.ok("role", "assign", "n1", "update-cache", "--org", "acme", "--yes")
    refused(c.b1, c.n1)
    refused(c.n1, c.b1)
    e = c.n1.ok("route", "explain", c.b1.id)
    expect(e["denied_services"] == [{"service_class": "synthetic", "intent": "quiet"}] and
           e["result"] != "refused", "the service is denied, the way is not", e)
    expect(counted(c.n1, "streams_denied") > 0, "n1 refused its streams")
    c.a1.ok("intent", "delete", "quiet", "--yes")
    pinged(c.b1, c.n1)


def test_intents_that_make_no_sense_are_refused(env):
    """Each says why, and nothing changes."""
    c = env.cluster(authorities=1, nodes=1)
    for args in (["x", "--policy", "require"], ["x", "--policy", "maybe", "--via", "direct"],
                 ["x", "--policy", "direct", "--to", "node:n1"],
                 ["x", "--policy", "prefer", "--via", "region"],
                 ["x", "--policy", "prefer", "--via", "direct:n1"],
                 ["x", "--policy", "prefer", "--via", "direct", "--qos", "control"],
                 ["Not A Name", "--policy", "deny"],
                 ["x", "--policy", "deny", "--from", "role:king"]):
        r = c.a1.cli("intent", "create", *args, "--yes")
        expect(r.rc != OK and ("invalid" in r.err or "not_found" in r.err), f"{args}", r)
    for args in (["--from", "node:nobody"], ["--to", "pool:none"]):
        c.a1.refused(NOT_FOUND, "not_found", "intent", "create", "x", "--policy", "deny", *args,
                     "--yes")
    expect(items(c.a1.cli("intent", "list")) == [], "none was made")
    c.a1.ok("intent", "create", "x", "--policy", "deny", "--from", "node:n1", "--yes")
    r = c.a1.cli("intent", "create", "x", "--policy", "deny", "--yes")
    expect(r.rc != OK and says(r, "name_taken"), "a name once", r)
    c.a1.ok("intent", "delete", "x", "--yes")
    c.a1.refused(NOT_FOUND, "not_found", "intent", "delete", "x", "--yes")


def test_a_route_to_a_pool_is_opaque_and_survives_its_node(env):
    """RTE-03, RTE-01: a caller names a pool and gets an id, not a node; the nearest node is used, another one
    when that dies; an organization's pool is nobody else's."""
    c = mesh(env, ["r1"], ["n1", "e1", "e2"])
    c.a1.ok("role", "assign", "n1", "update-cache", "--org", "acme", "--yes")
    c.a1.ok("pool", "create", "exits", "--org", "acme", "--yes")
    for e in ("e1", "e2"):
        c.a1.ok("pool", "add", "exits", e, "--yes")
    wait_until(lambda: [p["members"] for p in c.n1.ok("config", "show")["pools"]] == [2],
               "n1 to know the pool")
    c.e1.refused(NOT_FOUND, "not_found", "route", "open", "pool:exits")
    c.n1.refused(NOT_FOUND, "not_found", "route", "open", "pool:nothing")
    c.n1.refused(USAGE, "invalid", "route", "open", "exits")
    opened = c.n1.ok("route", "open", "pool:exits")
    expect(set(opened) <= {"route_id", "expires_at"} and
           opened["route_id"] not in (c.e1.id, c.e2.id), "opaque", opened)

    def used():
        r = c.n1.cli("node", "ping", f"route:{opened['route_id']}", "--timeout", "5s")
        expect(r.rc == OK and r.json["node_id"] is None and r.json["via"] is None,
               "an answer that tells no topology", r)
        return r.json
    wait_until(used, "an echo over the route")

    def served_by():
        """Who has a session with n1: the one that was chosen."""
        return [e for e in (c.e1, c.e2) if e.process and
                c.n1.id in {s["node_id"] for s in items(e.cli("fabric", "sessions"))}]
    first = wait_until(served_by, "the node that was chosen")[0]
    other = c.e2 if first is c.e1 else c.e1
    first.kill9()
    wait_until(used, "the route to lead to another node", 30)
    expect(other in served_by(), "the other one serves now", first.name)
    # What the owner forbids, a route does not reach.
    c.a1.ok("intent", "create", "closed", "--policy", "deny", "--from", "node:n1", "--to",
            "pool:exits", "--yes")

    def denied():
        r = c.n1.cli("node", "ping", f"route:{opened['route_id']}", "--timeout", "5s")
        expect(r.rc == DENIED, "no way is allowed", r)
        return True
    wait_until(denied, "the intent to be obeyed")
    c.n1.ok("route", "close", opened["route_id"])
    c.n1.refused(NOT_FOUND, "not_found", "node", "ping", f"route:{opened['route_id']}")
    straight = c.n1.ok("route", "open", f"node:{c.r1.id}")
    expect(c.n1.ok("node", "ping", f"route:{straight['route_id']}")["received"] == 1, "to a node")


def test_queues_of_relays_obey_the_owner(env):
    """QOS-01: a class has at most its rate, from signed configuration, while others go on."""
    c = mesh(env, ["r1"], ["n1", "b1"])
    goes(c.n1, c.b1, "relayed", c.r1)
    free = ping(c.n1, c.b1, "--bytes", 8 * MIB)["bytes_per_second"]
    c.a1.ok("qos", "set", "bulk", "--rate", "8000", "--yes")
    shown = {q["channel_class"]: q for q in items(c.a1.cli("qos", "list"))}
    expect(shown["bulk"]["rate"] == 8000 and shown["bulk"]["configured"] and
           shown["interactive"]["rate"] is None, "what is in force", shown)

    def limited():
        rate = ping(c.n1, c.b1, "--bytes", 1 * MIB)["bytes_per_second"]
        expect(rate < 1.6 * MIB, "at most 8 Mbit/s, and a burst", rate, free)
        return rate
    rate = wait_until(limited, "the rate to be kept")
    expect(free > 2 * rate, "it was more before", free, rate)
    # Of another class, the same transfer is not concerned.
    c.a1.ok("intent", "create", "swift", "--policy", "prefer", "--from", "node:n1", "--to", "node:b1",
            "--qos", "interactive", "--yes")
    wait_until(lambda: explain(c.n1, c.b1)["data_class"] == "interactive", "n1 to know the class")
    wait_until(lambda: ping(c.n1, c.b1, "--bytes", 4 * MIB)["bytes_per_second"] > 2 * rate,
               "the transfer to be free again")
    c.a1.ok("qos", "reset", "bulk", "--yes")
    c.a1.refused(USAGE, "invalid", "qos", "set", "control", "--rate", "10",
                 "--yes")
    r = c.a1.cli("qos", "set", "express", "--rate", "10", "--yes")
    expect(r.rc != OK and says(r, "invalid"), "no such class", r)
