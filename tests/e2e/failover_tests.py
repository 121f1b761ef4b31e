"""Two sites that see each other only through relays: what happens to the relay in use costs a pause,
never a stream (DESIGN section 10). A bulk transfer and an echo go on meanwhile."""

import threading

from lib import expect, wait_until
from netns import NetCluster
from overlay_tests import MIB, Transfer, overlay, pinged, report

# The target is 1500 ms on a machine of its own. What was seen is printed; this bound is against hangs.
GAP_LIMIT_MS = 6000
SITE_A, SITE_B = ["a1", "n1", "r1", "r2"], ["r3", "r4", "b1", "b2"]
FAR_MS = 5  # r2 and r4 are that far away: the way over r1 and r3 is the better one


class Echo(threading.Thread):
    """One small call after another, until it is told to end; the longest is the pause a user saw."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b, self.ending, self.worst_ms, self.failed = a, b, False, 0, []
        self.start()

    def run(self):
        while not self.ending:
            r = self.a.cli("node", "ping", self.b.id, "--count", "20", "--timeout", "30s")
            if r.json is None or r.json["received"] != r.json["sent"]:
                self.failed.append(r)
            else:
                self.worst_ms = max(self.worst_ms, r.json["rtt_max_us"] // 1000)

    def finish(self):
        self.ending = True
        self.join()
        expect(not self.failed, "every echo came back", self.failed)
        return self.worst_ms


def links_up(node, to):
    up = {link["node_id"] for link in node.ok("route", "list")["links"]
          if link["state"] == "up"}
    return {n.id for n in to} <= up


class Sites:
    """n1 reaches b1 over one of r1, r2 and one of r3, r4."""

    def __init__(self, env, *run_args):
        c = self.c = NetCluster(env, "--overlay", "--synthetic", *run_args)
        c.init()
        for name in SITE_A[1:] + SITE_B:
            c.enroll(name)
        relays = [c.r1, c.r2, c.r3, c.r4]
        for r in relays:
            c.a1.ok("role", "assign", r.name, "relay-node", "--yes")
        for n in c.nodes.values():
            wait_until(lambda n=n: links_up(n, [r for r in relays if r is not n]),
                       f"{n.name} to have links to its relays")
        for r in (c.r2, c.r4):
            c.net.delay(r, FAR_MS)
        for a in SITE_A:
            for b in SITE_B:
                if not (a.startswith("r") and b.startswith("r")):
                    c.net.cut(c.nodes[a], c.nodes[b])

    def healthy(self):
        """Each has the links it can have."""
        c = self.c
        for node, to in ((c.n1, (c.r1, c.r2)), (c.b1, (c.r3, c.r4)), (c.b2, (c.r3, c.r4)),
                         (c.r1, (c.r2, c.r3, c.r4)), (c.r2, (c.r3, c.r4))):
            for n in to:
                expect(links_up(node, [n]), f"{node.name} has a link to {n.name}")
        return True

    def on_better_way(self):
        c = self.c
        names = {n.id: n.name for n in c.nodes.values()}
        way = {f"{n.name} to {to.name}":
               names.get(n.ok("route", "explain", to.id)["next_hop"])
               for n, to in ((c.n1, c.b1), (c.r1, c.b1), (c.b1, c.n1), (c.r3, c.n1))}
        expect(list(way.values()) == ["r1", "r3", "r3", "r1"], "the better way", way)
        return True

    def settle(self):
        """Traffic returns to the better way, once; true when it stays there."""
        c = self.c
        wait_until(self.on_better_way, "traffic to be on the better way")
        before = [n.ok("route", "list")["counters"]["switched"] for n in (c.n1, c.b1)]
        pinged(c.n1, c.b1, "--count", "200")
        after = [n.ok("route", "list")["counters"]["switched"] for n in (c.n1, c.b1)]
        return self.on_better_way() and before == after

    def during(self, what, hurt, heal, size):
        """A transfer and an echo while this happens to the way they use."""
        c = self.c
        wait_until(self.on_better_way, "traffic to be on the better way")
        pinged(c.n1, c.b2)
        t, e = Transfer(c.n1, c.b1, size), Echo(c.n1, c.b2)
        start = overlay(c.r3)["forwarded"]
        wait_until(lambda: overlay(c.r3)["forwarded"] > start + 3000, "r3 to relay")
        hurt()
        result = t.finish()
        worst = e.finish()
        report(f"{what}: echo {worst} ms; bulk", result)
        expect(max(result["longest_gap_ms"], worst) <= GAP_LIMIT_MS, "no hang", result, worst)
        heal()
        wait_until(self.healthy, "the links to be back")


def test_relays_between_two_sites_fail_and_no_stream_breaks(env):
    """RTE-06, RTE-07, D6. With --long the transfers are of 1 GiB."""
    s = Sites(env)
    c = s.c
    size = (1024 if env.long else 64) * MIB
    wait_until(s.on_better_way, "the better way to be found")
    answer = pinged(c.n1, c.b1)
    expect(answer["path"] == "relayed" and answer["via"] == c.r1.id, "over r1", answer)
    s.during("relay killed", c.r1.kill9, c.r1.start, size)
    expect(s.settle(), "no flapping")
    c.a1.stop()  # D6: the rest without any authority
    s.during("link cut one way", lambda: c.net.cut_one_way(c.r1, c.r3),
             lambda: c.net.mend_one_way(c.r1, c.r3), size)
    s.during("relay frozen", c.r3.freeze, c.r3.thaw, size)
    expect(s.settle(), "no flapping")
