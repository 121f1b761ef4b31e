"""The runbook "certificate expiry" to its end: what has expired, not only what is about to (SPEC IDN-04)."""

import os
import shutil

from lib import OK, UNAVAILABLE, expect, wait_until
from clock_tests import skewed
from cluster_tests import all_items
from model_tests import level_reached, log_has, trust

MINUTE = 60


def audited(node, event, subject):
    return [e for e in all_items(node, "audit", "--subject", subject) if e["event_type"] == event]


def later(c, clocks, seconds):
    """All clocks of the cluster are ahead of what they were by this much, as if it had passed."""
    for clock in clocks.values():
        clock.ahead(seconds)


def test_a_node_whose_certificate_expired_joins_again(env):
    """Off for longer than its certificate lives: it is told so, opens nothing, and the runbook brings it back."""
    c = env.cluster(authorities=3, nodes=1)
    level_reached(c)
    c.a1.ok("trust", "policy", "--leaf-lifetime", "1m")
    gone = c.enroll("gone")
    old = gone.id
    gone.stop()
    del c.nodes["gone"]
    clocks = skewed(env, c)
    later(c, clocks, 10 * MINUTE)
    leader = c.wait_leader()
    wait_until(lambda: audited(leader, "certificate_expired", old), "the end of it in the audit", 40)
    alarms = [a for a in trust(c)["alarms"] if a["name"] == "gone"]
    expect(alarms, "it is among the alarms", trust(c)["alarms"])
    gone.environment = c.n1.environment  # the same time
    gone.start(wait=False)
    wait_until(lambda: any(log_has(a, "error=certificate_expired") for a in c.authorities()),
               "the authorities to refuse it")
    expect(gone.cli("status", "--check").rc != OK and
           gone.status()["next_expiry_at"] < audited(leader, "certificate_expired", old)[0]["created_at"],
           "it opens nothing, and says why", gone.status())
    gone.kill9()
    leader.ok("node", "revoke", "gone", "--reason", "its certificate expired", "--yes")
    leader.ok("node", "remove", "gone", "--yes")
    shutil.rmtree(gone.dir)
    token, _ = c.token("--uses", "1", via=leader)
    back = c.add("gone")
    back.environment = c.n1.environment
    joining = back.join_start(token)
    c.approve(c.pending("gone", leader), leader)
    expect(joining.wait(30) == OK, "it joins again under its name")
    back.start()
    expect(back.id != old, "as another node", back.id)
    expect(c.n1.cli("status", "--check").rc == OK, "the one that ran renewed its own")


def test_an_authority_whose_ca_expired_is_replaced(env):
    """Its own certificate ends with its CA, so the others refuse it and it cannot hear of a new one: the rest goes
    on, removes it, and adds the host anew."""
    c = env.cluster(authorities=3, nodes=1)
    level_reached(c)
    owner = c.owner_dir()
    leader = c.wait_leader()
    short = c.others(leader)[-1]
    shutil.copytree(owner, os.path.join(env.folder, "owner"))
    leader.ok("authority", "renew", short.name, "--owner-dir", owner, "--ca-lifetime", "90s", "--yes")
    clocks = skewed(env, c)
    later(c, clocks, 10 * MINUTE)
    c.stop_all()
    for n in c.nodes.values():
        n.start(wait=False)
    leader = c.wait_leader(c.others(short))
    wait_until(lambda: audited(leader, "certificate_expired", short.id), "the end of it in the audit", 40)
    wait_until(lambda: short.cli("status", "--check").rc != OK, "it is out")
    expect(leader.ok("authority", "renew", short.name, "--owner-dir", os.path.join(env.folder, "owner"),
                     "--yes"), "its key may be certified again; it does not hear of it")
    expect(log_has(leader, "error=certificate_expired"), "it is refused")
    # The runbook of a dead authority, without a moment of rest for the others.
    leader.ok("token", "create")
    leader.ok("authority", "remove", short.name, "--reason", "its CA expired", "--yes")
    leader.ok("node", "remove", short.name, "--yes")
    short.kill9()
    environment = short.environment
    shutil.rmtree(short.dir)
    token, _ = c.token("--uses", "1", via=leader)
    back = c.add(short.name)
    back.environment = environment
    joining = back.join_start(token)
    c.approve(c.pending(back.name, leader), leader)
    expect(joining.wait(30) == OK, "the host joins anew")
    back.start()
    leader.ok("authority", "add", back.name, "--owner-dir", os.path.join(env.folder, "owner"), "--yes")
    wait_until(lambda: c.authority_status(back, leader) == "voter", "it to vote")
    expect(c.n1.cli("status", "--check").rc == OK, "the node works")


def test_a_majority_whose_cas_expired_is_recovered_by_the_owner(env):
    """Nobody renewed anything: no authority lets another in. One of them goes on alone and is renewed; its node comes back
    by itself."""
    c = env.cluster(authorities=3, nodes=1)
    level_reached(c)
    owner = os.path.join(env.folder, "owner")
    shutil.copytree(c.owner_dir(), owner)
    leader = c.wait_leader()
    for a in c.authorities():
        leader.ok("authority", "renew", a.name, "--owner-dir", owner, "--ca-lifetime", "90s", "--yes")
    c.settle()
    clocks = skewed(env, c)
    later(c, clocks, 10 * MINUTE)
    c.stop_all()
    for n in c.nodes.values():
        n.start(wait=False)
    wait_until(lambda: any(log_has(a, "error=certificate_expired") for a in c.authorities()), "them to refuse each other")
    r = c.a1.cli("authority", "renew", "a1", "--owner-dir", owner, "--yes", "--timeout", "2s")
    expect(r.rc == UNAVAILABLE, "nothing is decided without a majority", r)
    for a in c.authorities():
        a.stop()
    c.a1.ok("authority", "recover", "--owner-dir", owner, "--yes")
    c.a1.start(wait=False)
    wait_until(lambda: c.a1.status()["quorum"], "a1 to decide alone")
    c.a1.ok("authority", "renew", "a1", "--owner-dir", owner, "--yes")
    c.a1.wait_ready()
    wait_until(lambda: c.n1.cli("status", "--check").rc == OK, "the node to be back")
    for gone in c.others(c.a1):
        c.a1.ok("authority", "remove", gone.name, "--reason", "its CA expired", "--force", "--yes")
    c.a1.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: "relay-node" in c.n1.roles(), "the cluster to go on")
