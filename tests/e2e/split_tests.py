"""A split (SPEC AUTH-05, SEED-01, SEED-02, MEM-03): nodes seed a cluster with a root of its own and leave
the old one when it can stand alone. The steps are those of OPERATIONS, "Splitting a cluster"."""

import glob
import json
import os

from cluster_tests import all_items
from lib import (CONFLICT, NOT_FOUND, OK, USAGE, Node, expect, free_port, items, run_rap,
                 wait_until)
from model_tests import level_reached


def gaps(result):
    """(gap, subject) of a refusal."""
    problem = json.loads(result.err[result.err.index("{"):])
    return {(g["gap"], g["subject"]) for g in problem["gaps"]}


def owner_of(node):
    found = glob.glob(os.path.join(node.dir, "owner", "*"))
    expect(len(found) == 1, "one owner directory", found)
    return found[0]


class NewCluster:
    """On the hosts of a cluster's nodes, beside them: the same names, data directories of their own."""

    def __init__(self, env, seed):
        self.c = env.new_cluster("site-b")
        self.c.nodes["a1"] = Node(env, self.c.folder, seed, free_port())
        self.seed = self.c.a1
        self.seed.ok("init", "--cluster", "site-b", "--listen", self.seed.address, "--name", seed)
        self.seed.start()
        self.owner = owner_of(self.seed)

    def report(self, through, file, *args):
        """`rap split report`, asked of that authority."""
        through.ok("split", "report", "--out", file, "--owner-dir", self.owner, *args)


def begin(c, new, *more):
    return c.a1.ok("split", "begin", "--name", "site-b", "--new-root",
                   os.path.join(new.owner, "root.crt"), "--seed", "n1", "--node", "n2",
                   "--owner-dir", c.owner_dir(), "--yes", *more)


def test_nodes_leave_for_a_cluster_of_their_own(env):
    """Early, the removal lists every gap; then the nodes leave, and both clusters go on."""
    c = env.cluster(authorities=1, nodes=2)
    level_reached(c)
    c.a1.ok("role", "assign", "n2", "relay-node")
    new = NewCluster(env, "n1")
    plan = begin(c, new, "--dry-run")
    expect(plan["dry_run"] and items(c.a1.cli("split", "list")) == [], "a dry run changes nothing")
    # Only the owner: whoever administers the old cluster has the socket, not the key.
    terms = {"id": "01a2123b-5f94-77e1-a4a2-48726eda6c96", "name": "site-b",
             "cluster_id": new.seed.status()["cluster_id"], "root_pin": "ab" * 32,
             "seed": c.n1.id, "nodes": [c.n1.id], "signature": "00" * 64}
    status, problem, _ = c.a1.api("POST", "/v1/splits", terms)
    expect(status == 403 and problem["code"] == "denied", "the owner signs", status, problem)
    begin(c, new)
    c.a1.ok("split", "cancel", "site-b", "--reason", "tomorrow", "--owner-dir", c.owner_dir(), "--yes")
    c.a1.refused(NOT_FOUND, "not_found", "split", "show", "site-c")
    split = begin(c, new)
    expect(split["status"] == "open" and split["members"] == ["n1", "n2"] and
           split["seed_name"] == "n1" and split["new_cluster_id"] == new.seed.status()["cluster_id"],
           "begun", split)
    finish = ("split", "finish", "site-b", "--owner-dir", c.owner_dir(), "--yes", "--report")
    file = os.path.join(c.folder, "report")

    # The seed alone: it is the whole of the new cluster.
    new.report(new.seed, file)
    r = c.a1.refused(CONFLICT, "split_not_ready", *finish, file, "--dry-run")
    expect({("no_authority", ""), ("no_admin_ingress", "n1"), ("not_joined", "n2"),
            ("role_uncovered", "relay-node")} <= gaps(r), "every gap is listed", r)
    r = run_rap(env.rap, *finish, file, "--data-dir", c.a1.dir)
    expect(r.rc == CONFLICT and "\n  not_joined n2: " in r.err and "Splitting a cluster" in r.err,
           "each gap is a line, and the runbook is named", r)
    expect(c.a1.ok("split", "show", "site-b")["status"] == "open", "nothing changed")
    for verb in ("disable", "revoke"):
        r = c.a1.refused(CONFLICT, "split_not_ready", "node", verb, "n1", "--reason", "early", "--yes")
        expect("split finish site-b" in r.err, "the next command is named", r)

    # n2 joins, decides there too, and takes its role over: it is in both clusters.
    n2 = new.c.enroll("n2", via=new.seed)
    new.c.promote(n2, via=new.seed)
    n2_old = c.n2.status()
    expect(n2_old["ready"] and n2.status()["cluster_id"] != n2_old["cluster_id"], "n2 is in both")
    new.seed.ok("role", "assign", "n2", "relay-node")

    def ready():
        new.report(n2, file)
        r = c.a1.cli(*finish, file, "--dry-run")
        expect(r.rc == OK, "no gap is left", r)
        return True
    wait_until(ready, "the new cluster to stand alone")
    r = c.a1.cli(*finish[:-2], "--report", file, "--no-input")
    expect(r.rc == USAGE, "it asks first", r)
    done = c.a1.ok(*finish, file)
    expect(done["status"] == "finished" and done["ended_at"], "finished", done)

    # In the old cluster they count for nothing any more.
    rows = {n["name"]: n["membership_status"] for n in items(c.a1.cli("node", "list"))}
    expect(rows == {"a1": "active", "n1": "disabled", "n2": "disabled"}, "they left", rows)
    for n in (c.n1, c.n2):
        wait_until(lambda n=n: n.status()["membership_status"] == "disabled" and
                   not n.status()["ready"], f"{n.name} to be out of the old cluster")
        n.stop()
    left = [e["subject_id"] for e in all_items(c.a1, "audit")
            if e["event_type"] == "membership_disabled"]
    expect(left == [c.n2.id, c.n1.id], "the seed leaves last", left)
    events = [e for e in all_items(c.a1, "audit") if e["event_type"].startswith("split_")]
    expect([e["event_type"] for e in events] == ["split_begun", "split_cancelled", "split_begun",
                                                 "split_finished"] and
           all(e["actor_kind"] == "owner" and e["high_risk"] for e in events), "audited", events)
    c.a1.ok("audit", "verify")

    # The new one goes on without the old.
    c.a1.stop()
    new.c.enroll("n3", via=n2)
    expect(n2.cli("status", "--check").rc == OK and new.seed.cli("status", "--check").rc == OK,
           "the new cluster works")
