"""A split (SPEC AUTH-05, SEED-01, SEED-02, MEM-03): nodes seed a cluster with a root of its own and leave
the old one when it can stand alone. The steps are those of OPERATIONS, "Splitting a cluster"."""

import glob
import json
import os

from cluster_tests import all_items, events
from lib import (CONFLICT, NOT_FOUND, OK, USAGE, Node, expect, free_port, in_parallel, items, run_rap,
                 wait_until)
from mirror_tests import enable, verified
from model_tests import level_reached
from pg import postgres


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


    def grow(self):
        """n2 joins and decides: with its seed it is all that a split of n1 and n2 needs."""
        n2 = self.c.enroll("n2", via=self.seed)
        self.c.promote(n2, via=self.seed)
        return n2


def begin_args(c, new, *more):
    return ("split", "begin", "--name", "site-b", "--new-root", os.path.join(new.owner, "root.crt"),
            "--seed", "n1", "--node", "n2", "--owner-dir", c.owner_dir(), "--yes", *more)


def begin(c, new, *more):
    return c.a1.ok(*begin_args(c, new, *more))


def finish_args(c, file, *more):
    return ("split", "finish", "site-b", "--owner-dir", c.owner_dir(), "--report", file, "--yes", *more)


def wait_no_gaps(c, new, asked, through, file):
    """Until a report made on `through` of the new cluster leaves no gap; asked of `asked` in the old one."""
    def ready():
        new.report(through, file)
        r = asked.cli(*finish_args(c, file, "--dry-run"))
        expect(r.rc == OK, "no gap is left", r)
        return True
    wait_until(ready, "the new cluster to stand alone")


def members_at(node):
    return {n["name"]: n["membership_status"] for n in items(node.cli("node", "list"))}


LEFT = {"n1": "disabled", "n2": "disabled"}


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
    # As many as fit are looked at; one more is refused, and told what to do.
    ids = [f"01a2123b-5f94-77e1-a4a2-{n:012x}" for n in range(257)]
    for count, want in ((256, "there is no node"), (257, "at most 256 nodes leave at once: split in steps")):
        parts = [",".join(ids[i:min(i + 64, count)]) for i in range(0, count, 64)]
        status, problem, _ = c.a1.api("POST", "/v1/splits", terms | {"nodes": parts, "seed": ids[0]})
        expect(status in (404, 413, 422, 400) and want in problem["detail"], f"{count} nodes", status, problem)
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
    shown = c.a1.ok("split", "show", "site-b")
    expect(shown["staying"] == ["n1", "n2"] and "4 gaps: " in shown["last_attempt"] and
           shown["last_attempt_at"], "who has to leave, and what was missing", shown)
    r = c.a1.cli("doctor")
    found = [x for x in r.json["items"] if x["code"] == "split_open"]
    expect(r.rc == OK and len(found) == 1 and found[0]["next"] == "rap split show site-b" and
           "2 nodes have still to leave for site-b; last attempt: the nodes cannot leave" in found[0]["text"],
           "doctor tells of it", r)
    r = c.a1.refused(CONFLICT, "conflict", "authority", "add", "n2", "--owner-dir", c.owner_dir(), "--yes")
    expect("rap split cancel site-b" in r.err, "who leaves does not begin to decide here", r)
    r = run_rap(env.rap, *finish, file, "--data-dir", c.a1.dir)
    expect(r.rc == CONFLICT and "\n  not_joined n2: " in r.err and "Splitting a cluster" in r.err,
           "each gap is a line, and the runbook is named", r)
    expect(c.a1.ok("split", "show", "site-b")["status"] == "open", "nothing changed")
    for verb in ("disable", "revoke"):
        r = c.a1.refused(CONFLICT, "split_not_ready", "node", verb, "n1", "--reason", "early", "--yes")
        expect("split finish site-b" in r.err, "the next command is named", r)

    # n2 joins, decides there too, and takes its role over: it is in both clusters.
    n2 = new.grow()
    n2_old = c.n2.status()
    expect(n2_old["ready"] and n2.status()["cluster_id"] != n2_old["cluster_id"], "n2 is in both")
    new.seed.ok("role", "assign", "n2", "relay-node")

    wait_no_gaps(c, new, c.a1, n2, file)
    r = run_rap(env.rap, "split", "show", "site-b", "--data-dir", c.a1.dir)
    expect(r.rc == OK and "no gap was left" in r.out and "next: in site-b" in r.err, "and how far it is", r)
    r = c.a1.cli(*finish[:-2], "--report", file, "--no-input")
    expect(r.rc == USAGE, "it asks first", r)
    done = c.a1.ok(*finish, file)
    expect(done["status"] == "finished" and done["ended_at"], "finished", done)
    expect(c.a1.ok("split", "show", "site-b")["staying"] == [], "nobody has to leave any more")
    expect(not [x for x in c.a1.cli("doctor").json["items"] if x["code"] == "split_open"], "nor is it open")

    # In the old cluster they count for nothing any more.
    rows = members_at(c.a1)
    expect(rows == {"a1": "active"} | LEFT, "they left", rows)
    for n in (c.n1, c.n2):
        wait_until(lambda n=n: n.status()["membership_status"] == "disabled" and
                   not n.status()["ready"], f"{n.name} to be out of the old cluster")
        n.stop()
    left = [e["subject_id"] for e in events(c.a1, "membership_disabled")]
    expect(left == [c.n2.id, c.n1.id], "the seed leaves last", left)
    told = [e for e in all_items(c.a1, "audit") if e["event_type"].startswith("split_")]
    expect([e["event_type"] for e in told] == ["split_begun", "split_cancelled", "split_begun",
                                               "split_finished"] and
           all(e["actor_kind"] == "owner" and e["high_risk"] for e in told), "audited", told)
    c.a1.ok("audit", "verify")

    # The new one goes on without the old.
    c.a1.stop()
    new.c.enroll("n3", via=n2)
    expect(n2.cli("status", "--check").rc == OK and new.seed.cli("status", "--check").rc == OK,
           "the new cluster works")


def test_a_split_survives_the_leaders_of_its_steps(env):
    """AUTH-05, SEED-02: asked of followers throughout, a leader killed after the begin, the next one frozen in
    the middle of the finish: the split is the same one, and ends as a whole."""
    c = env.cluster(authorities=3, nodes=2)
    level_reached(c)
    new = NewCluster(env, "n1")
    first = c.wait_leader()
    follower, third = c.others(first)
    follower.ok(*begin_args(c, new))
    first.kill9()
    second = c.wait_leader([follower, third])
    asked = third if second is follower else follower
    expect(asked.ok("split", "show", "site-b")["status"] == "open", "the next leader has it")
    r = asked.refused(CONFLICT, "split_not_ready", "node", "disable", "n1", "--reason", "early", "--yes")
    expect("split finish site-b" in r.err, "and holds the seed", r)
    first.start()
    n2 = new.grow()
    file = os.path.join(c.folder, "report")
    wait_no_gaps(c, new, asked, n2, file)

    # The finish waits for a leader that answers no more, and is done by the next; asked twice, it is done once.
    second = c.wait_leader()
    asked, other = c.others(second)
    seen = []

    def work(what):
        if what == "finish":
            return asked.cli(*finish_args(c, file, "--timeout", "30s"))
        c.wait_leader([asked, other])
        while not seen or seen[-1]["status"] != "finished":  # whole at every moment, wherever one looks
            for node in (asked, other):
                split = node.cli("split", "show", "site-b", "--stale")
                rows = node.cli("node", "list", "--stale")
                expect(split.rc == OK and rows.rc == OK, "stale reads go on", split, rows)
                seen.append(split.json)
                left = {n["name"]: n["membership_status"] for n in items(rows)} | LEFT
                expect(split.json["status"] == "open" or left == members_at(node), "no half", rows)
        return None
    second.freeze()
    done, _ = in_parallel(2, ("finish", "look"), work)
    expect(done.rc == OK and done.json["status"] == "finished", "finished by another leader", done)
    second.thaw()
    c.settle()
    c.one_digest()
    for n in c.authorities():
        expect(members_at(n) == {"a1": "active", "a2": "active", "a3": "active"} | LEFT, "the same everywhere")
    expect(len(events(asked, "split_finished")) == 1 and len(events(asked, "membership_disabled")) == 2,
           "once")
    r = other.refused(CONFLICT, "already_decided", *finish_args(c, file))
    expect("finished already" in r.err, "again it is told what happened", r)
    asked.ok("audit", "verify")


def test_a_split_under_one_postgresql(env):
    """MEM-03, PG-02, S14: the old cluster's mirror and the new one's are one database; each holds its own
    cluster's rows, each once."""
    c = env.cluster(authorities=1, nodes=2)
    level_reached(c)
    pg = postgres(env)
    pg.prepare(c.a1)
    enable(c, pg)
    new = NewCluster(env, "n1")
    enable(new.c, pg, via=new.seed)
    begin(c, new)
    n2 = new.grow()
    file = os.path.join(c.folder, "report")
    wait_no_gaps(c, new, c.a1, n2, file)
    pg.kill9()  # it misses how they leave, and has it later
    c.a1.ok(*finish_args(c, file))
    pg.start()
    for node in (c.a1, n2):
        verified(node)
    old_id, new_id = c.a1.status()["cluster_id"], n2.status()["cluster_id"]

    def rows(sql):
        return sorted(pg.value(sql).split())
    status = ("SELECT n.name || ':' || m.membership_status FROM rap.nodes n JOIN rap.cluster_memberships m"
              " ON m.node_id = n.id AND m.cluster_id = n.cluster_id WHERE n.cluster_id = '%s'")
    expect(rows(status % old_id) == ["a1:active", "n1:disabled", "n2:disabled"], "the old cluster's rows",
           rows(status % old_id))
    expect(rows(status % new_id) == ["n1:active", "n2:active"], "the new cluster's rows",
           rows(status % new_id))
    expect(rows("SELECT cluster_id || ':' || new_cluster_id || ':' || status FROM rap.cluster_splits") ==
           [f"{old_id}:{new_id}:finished"], "the split is the old one's alone")
    for node, cluster in ((c.a1, old_id), (n2, new_id)):
        there = pg.value(f"SELECT count(*) || ' ' || max(seq) FROM rap.cluster_audit_events"
                         f" WHERE cluster_id = '{cluster}'").split()
        expect(there == [str(len(all_items(node, "audit")))] * 2, "each event once", there)
