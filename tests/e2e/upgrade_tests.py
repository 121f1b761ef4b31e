"""From one version to the next: directories that the version before wrote, groups of two versions, and
what the older one says of a newer state."""

from lib import FAILED, LIMIT, expect, items, wait_until
from split_tests import NewCluster, begin, begin_args
from witness_tests import believes


def old_cluster(env, authorities, nodes):
    """A running cluster of hosts of the version before."""
    new_rap, env.rap = env.rap, env.old_rap
    try:
        return env.new_cluster().bootstrap(authorities, nodes)
    finally:
        env.rap = new_rap


def upgrade(node):
    node.stop()
    node.rap = node.env.rap
    node.start()


def wait_for_the_level(c):
    def raised():
        s = c.a1.status()
        expect(s.get("level") == s.get("level_known"), "the highest level", s)
        return s["level"]
    return wait_until(raised, "the schema level to rise")


def test_a_directory_of_the_version_before_opens(env):
    c = old_cluster(env, authorities=3, nodes=1)
    c.a1.ok("role", "assign", "n1", "relay-node", "--yes")
    before = {noun: items(c.a1.cli(noun, "list")) for noun in ("node", "token", "role", "audit")}
    c.stop_all()
    for n in c.nodes.values():
        n.rap = env.rap
    c.start_all()
    for noun in ("token", "role"):
        now = items(c.a1.cli(noun, "list"))
        kept = len(now) == len(before[noun]) and all(
            was.items() <= row.items() for was, row in zip(before[noun], now))
        expect(kept, f"the same {noun} list, but for fields that are new", before[noun], now)
    expect([n["fingerprint"] for n in items(c.a1.cli("node", "list"))] ==
           [n["fingerprint"] for n in before["node"]], "the same nodes")
    kept = {e["hash"] for e in items(c.a1.cli("audit", "list"))}
    expect(kept >= {e["hash"] for e in before["audit"]}, "the same audit rows, and more")
    expect(c.a1.ok("audit", "verify")["ok"] is True, "the audit chain verifies")
    wait_for_the_level(c)
    c.enroll("n2")


def test_a_rolling_upgrade_keeps_approving(env):
    c = old_cluster(env, authorities=3, nodes=0)
    enrolled = []
    for node in c.authorities():
        upgrade(node)
        # Leadership goes round, so that either version leads the other.
        for leader in c.authorities():
            if c.wait_leader() is not leader:
                leader.ok("authority", "transfer", leader.name, "--yes")
                wait_until(lambda: c.leader() is leader,  # pylint: disable=cell-var-from-loop
                           f"{leader.name} to lead")
            enrolled.append(f"n{len(enrolled) + 1}")
            c.enroll(enrolled[-1], via=leader)
    wait_for_the_level(c)
    c.settle()
    c.one_digest()
    seen = {n["name"] for n in items(c.a1.cli("node", "list"))}
    expect(seen >= set(enrolled), "every host approved on the way", seen)


def test_a_cluster_from_before_gets_its_authority_set(env):
    """decision 0008: a cluster that was made before there were authority sets goes on as it was, until its owner
    vouches for the authorities; then its nodes ask for a majority."""
    c = old_cluster(env, authorities=3, nodes=1)
    for n in c.nodes.values():
        upgrade(n)
    wait_for_the_level(c)
    expect(not c.n1.ok("config", "verify")["witnessed"], "nobody was vouched for")
    r = c.a1.cli("authority", "anchor", "--owner-dir", c.n1.dir, "--yes")
    expect(r.rc != 0, "not without the owner's key", r)
    c.a2.ok("authority", "anchor", "--owner-dir", c.owner_dir(), "--yes")
    for n in c.nodes.values():
        wait_until(lambda n=n: believes(n, 3), f"{n.name} to believe three authorities")
    # Links follow by themselves, and a new one of the owner's goes on from there.
    c.a1.ok("authority", "remove", "a3", "--yes", "--force")
    wait_until(lambda: believes(c.n1, 2), "n1 to believe two")
    c.a1.ok("authority", "anchor", "--owner-dir", c.owner_dir(), "--yes")
    events = c.a1.ok("audit", "list", "--event-type", "authority_set_changed")["items"]
    expect([(e["details"]["members"], e["actor_kind"]) for e in events] ==
           [(3, "owner"), (2, "system"), (2, "owner")], "who vouched", events)
    wait_until(lambda: believes(c.n1, 2), "n1 to follow")
    c.enroll("n2")
    wait_until(lambda: believes(c.n2, 2), "a host that joins believes them too")


def test_the_version_before_refuses_a_newer_state_and_says_what_to_do(env):
    c = env.new_cluster()
    c.init()
    wait_for_the_level(c)
    c.a1.stop()
    c.a1.rap = env.old_rap
    c.a1.start(wait=False)
    rc = c.a1.process.wait(LIMIT)
    with open(c.a1.log_path, encoding="utf-8") as f:
        last = f.read().splitlines()[-3:]
    expect(rc != 0, "the old binary to stop", rc)
    expect(any("unknown to this version" in line or "newer" in line for line in last),
           "the reason in its last lines", last)
    c.a1.process = None
    c.a1.rap = env.rap
    c.a1.start()
    c.a1.ok("token", "create")


def test_a_split_waits_until_every_authority_knows_it(env):
    """decision 0005: a group with one member of the version before refuses, whoever leads, and says what for;
    once the last one is upgraded the same command does it."""
    c = old_cluster(env, authorities=3, nodes=2)
    for n in (c.a1, c.a2, c.n1, c.n2):
        upgrade(n)
    new = NewCluster(env, "n1")
    for leader in (c.a1, c.a3):
        if c.wait_leader() is not leader:
            c.wait_leader().ok("authority", "transfer", leader.name, "--yes")
            wait_until(lambda: c.leader() is leader,  # pylint: disable=cell-var-from-loop
                       f"{leader.name} to lead")
        for asked in (c.a1, c.a2):
            r = asked.refused(FAILED, "unsupported", *begin_args(c, new))
            expect("level 1, split.begin needs 15: it moves there by itself once every authority runs a version"
                   in r.err if leader is c.a1 else "the leader runs an older version, which has no split.begin: "
                   "upgrade every authority" in r.err, "what it waits for", r)
            asked.refused(FAILED, "unsupported", "split", "list")
            r = asked.refused(FAILED, "unsupported", "node", "enable", "n1", "--yes")
            expect("every authority" in r.err, "the same of other methods", r)
    upgrade(c.a3)
    wait_for_the_level(c)
    expect(begin(c, new)["status"] == "open", "begun")
    c.settle()
    c.one_digest()
