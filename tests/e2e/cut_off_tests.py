"""What may continue while a node is cut off from the authority (SPEC AUTH-04): for ever, or as long as the owner says."""

from lib import DENIED, OK, USAGE, expect, wait_until
from cluster_tests import events

QUICK = ("--agent-heartbeat", "300ms")


def pings(a, b):
    return a.cli("node", "ping", b.id, "--timeout", "3s")


def cut_off(*nodes):
    return [n.status()["cut_off"] for n in nodes]


def test_services_of_who_is_cut_off_go_on_for_as_long_as_the_owner_says(env):
    c = env.cluster(authorities=3, nodes=2, run_args=QUICK)
    for n in ("n1", "n2"):
        c.a1.ok("role", "assign", n, "update-cache", "--org", "acme")
    c.a1.ok("mesh", "set", "--overlay", "on", "--synthetic", "on", "--yes")
    wait_until(lambda: pings(c.n1, c.n2).rc == OK and pings(c.n2, c.n1).rc == OK, "the nodes to talk")
    for value in ("10ms", "200h", "soon", "0s"):
        r = c.a1.cli("mesh", "set", "--cut-off-after", value, "--yes")
        expect(r.rc == USAGE, f"{value} is refused", r)
    # By default for ever.
    left = c.wait_leader()
    away = c.others(left)
    for a in away:
        a.freeze()
    wait_until(lambda: not c.n1.status()["ready"] and not left.status()["quorum"], "the nodes to be alone")
    expect(pings(c.n1, c.n2).rc == OK and cut_off(c.n1, c.n2, left) == [False] * 3, "they go on")
    for a in away:
        a.thaw()
    leader = c.settle()
    # Now for two seconds.
    doc = leader.ok("mesh", "set", "--cut-off-after", "2s", "--yes")
    expect(doc["cut_off_after_ms"] == 2000 and doc["overlay"] is True, "set, and the rest stays", doc)
    index = leader.status()["index"]
    wait_until(lambda: all(n.status()["config_version"] >= index - 1 for n in (c.n1, c.n2)), "the nodes to hear of it")
    # The limit came to nodes that had no contact until a moment ago.
    wait_until(lambda: cut_off(c.n1, c.n2) == [False] * 2, "the nodes to be in contact")
    expect(pings(c.n1, c.n2).rc == OK, "in contact, nothing changes")
    left = leader
    for a in c.others(left):
        a.freeze()
    wait_until(lambda: cut_off(c.n1, c.n2, left) == [True] * 3, "all of the minority to know")
    for one, other in ((c.n1, c.n2), (c.n2, c.n1), (left, c.n1)):
        r = pings(one, other)
        expect(r.rc == DENIED and "cut off" in r.err, f"{one.name} asks nobody", r)
    # Ways stay: they lead back. And so it ends by itself.
    expect(c.n1.ok("fabric", "sessions")["overlay"]["on"], "the overlay is on")
    for a in c.others(left):
        a.thaw()
    wait_until(lambda: cut_off(c.n1, c.n2, left) == [False] * 3, "contact again")
    wait_until(lambda: pings(c.n1, c.n2).rc == OK, "the services to go on")
    leader = c.settle()
    told = leader.ok("mesh", "set", "--cut-off-after", "never", "--yes")
    expect(told["cut_off_after_ms"] is None, "for ever again", told)
    seen = [e["details"].get("cut_off_after_ms") for e in events(leader, "mesh_configured")]
    expect(seen[-2:] == [2000, 0], "who said so is in the audit", seen)
