"""Clocks that are wrong, and clocks that jump (SPEC AUTH-11, TOK-03): elections, leases of attention and staleness use
the monotonic clock; what the wall clock decides is decided by the leader's, once, and never goes back."""

import os

from lib import OK, expect, wait_until
from cluster_tests import all_items, events

HOUR = 3600


class SkewedClock:
    """The wall clock of one node; started again, its daemon has tests/e2e/clockskew.c in front of it."""

    def __init__(self, env, node):
        self.node, self.control = node, node.dir + ".clockskew"
        library = os.path.join(os.path.dirname(env.rap), "tests", "libclockskew.so")
        expect(os.path.exists(library), "tests/libclockskew.so is built beside rap", library)
        node.environment = {"LD_PRELOAD": library, "CLOCKSKEW": self.control}
        node.run_args = ["--agent-heartbeat", "700ms"]

    def ahead(self, seconds):
        with open(self.control + ".new", "w", encoding="ascii") as f:
            f.write(str(seconds))
        os.rename(self.control + ".new", self.control)


def offset_near(node, seconds):
    """Until the node says how far its clock is ahead."""
    def near():
        ms = node.status()["clock_ahead_ms"]
        expect(abs(ms / 1000 - seconds) < 30, f"{node.name} about {seconds} s ahead", ms)
        return True
    return wait_until(near, f"{node.name} to see its clock")


def skewed(env, c):
    """Every node started again, each with a clock of its own."""
    c.stop_all()
    clocks = {n.name: SkewedClock(env, n) for n in c.nodes.values()}
    c.start_all()
    return clocks


def test_clock_skew_is_told_and_harms_nothing_before_an_hour(env):
    """Runbook "a clock that is wrong": a node, a follower, and the leader, each an hour off in turn, jumping
    both ways under load. Nobody is elected, nobody goes stale, no command is lost, and each offset is told."""
    c = env.cluster(authorities=3, nodes=1)
    clocks = skewed(env, c)
    leader = c.wait_leader()
    follower = c.others(leader)[0]
    term = leader.status()["term"]
    for node in (c.n1, follower):
        for seconds in (HOUR, -HOUR, 0):
            clocks[node.name].ahead(seconds)
            offset_near(node, seconds)
            leader.ok("token", "create")
    made = []
    for seconds in (HOUR, -HOUR, 0):
        clocks[leader.name].ahead(seconds)
        offset_near(c.n1, -seconds)
        offset_near(follower, -seconds)
        made.append(leader.ok("token", "create", "--ttl", "2h"))
        c.others(leader)[0].ok("role", "assign", "n1", "relay-node")
        wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to get a role")
        leader.ok("role", "unassign", "n1", "relay-node")
        wait_until(lambda: "relay-node" not in c.n1.roles(), "n1 to lose it")
    expect(leader.status()["term"] == term, "nobody was elected", term, leader.status()["term"])
    expect(not [e for e in all_items(leader, "audit") if e["event_type"] == "health_changed" and
                "stale" in str(e["details"])], "nobody went stale")
    # Stamps never go back: an hour that was decided too early stays decided, and the audit is in order.
    times = [e["created_at"] for e in sorted(all_items(leader, "audit"), key=lambda e: e["seq"])]
    expect(times == sorted(times), "the audit's times rise", times[-5:])
    expect(made[1]["expires_at"] >= made[0]["expires_at"], "as do deadlines", made)
    leader.ok("audit", "verify")
    c.one_digest()


def test_leader_ahead_of_its_cluster_is_replaced_by_transfer(env):
    """The runbook's cure: what a leader two hours ahead certifies is not valid elsewhere yet; under another
    leader it is, without waiting for the stamps."""
    c = env.cluster(authorities=3, nodes=0)
    clocks = skewed(env, c)
    leader = c.wait_leader()
    clock = clocks[leader.name]
    clock.ahead(2 * HOUR)
    token, _ = c.token("--uses", "2", "--ttl", "6h", via=leader)
    early = c.add("early")
    joining = early.join_start(token, "--timeout", "2s")
    c.approve(c.pending("early", leader), leader)
    expect(joining.wait(30) != OK, "a certificate of the future is not taken")
    leader.ok("authority", "transfer", c.others(leader)[0].name, "--yes")
    new = wait_until(lambda: next(a for a in c.others(leader)
                                  if a.status()["leader"] == a.id), "another leader")
    late = c.add("late")
    joining = late.join_start(token)
    c.approve(c.pending("late", new), new)
    expect(joining.wait(30) == OK, "a node joins under the other leader")
    late.start()
    clock.ahead(0)
    c.settle()
    new.ok("audit", "verify")
    expect(len(events(new, "join_approved")) >= 2, "both approvals are in the audit")
