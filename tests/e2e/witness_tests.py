"""A decision carries its quorum (DESIGN D16, docs/decisions/0008)."""

from lib import OK, expect, wait_until


def believes(node, members):
    """Whether the configuration in force is signed by a majority of so many authorities."""
    r = node.cli("config", "verify")
    return (r.rc == OK and r.json["witnessed"] and
            r.json["authority_set_members"] == members and r.json)


def test_nodes_believe_the_voters(env):
    """The set follows the voters, link by link, and every node asks for its majority."""
    c = env.cluster(authorities=3, nodes=1)
    for node in c.nodes.values():
        wait_until(lambda node=node: believes(node, 3), f"{node.name} to believe three authorities")
    c.a1.ok("authority", "remove", "a3", "--yes")
    for node in (c.a1, c.a2, c.n1):
        wait_until(lambda node=node: believes(node, 2), f"{node.name} to believe two authorities")
    c.a1.ok("role", "assign", "n1", "relay-node", "--yes")
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to hear of its role")
    events = c.a1.ok("audit", "list", "--event-type", "authority_set_changed")["items"]
    expect([e["details"]["members"] for e in events] == [1, 2, 3, 2], "one link a change", events)
