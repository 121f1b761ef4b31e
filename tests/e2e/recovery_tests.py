"""Recovery by the owner: lost quorums, promoted minorities, and the histories that must not be
believed (DESIGN section 7, docs/decisions/0007). docs/OPERATIONS.md names these tests as the drills
behind its runbooks."""

import json
import os
import shutil
import signal
import subprocess

from lib import CONFLICT, OK, expect, has_quorum, items, wait_until
from cluster_tests import all_items, events


def owner_copy(c):
    """The owner directory where the owner keeps it: off every host."""
    kept = os.path.join(c.env.folder, "owner")
    if not os.path.isdir(kept):
        shutil.copytree(c.owner_dir(), kept)
    return kept


def lists(node, *args):
    """All items of a list command."""
    found, cursor = [], []
    while True:
        r = node.cli(*args, *cursor)
        found += items(r)
        if not r.json.get("next_cursor"):
            return found
        cursor = ["--cursor", r.json["next_cursor"]]


def wait_state(node, state):
    return wait_until(lambda: node.status()["authority_state"] == state and node.status(),
                      f"{node.name} to be {state}")


def recover(node, owner, *more):
    return node.ok("authority", "recover", "--owner-dir", owner, "--yes", *more)


def wait_voters(c, via, *nodes):
    for n in nodes:
        wait_until(lambda n=n: c.authority_status(n, via) == "voter", f"{n.name} to be a voter")


def test_quorum_lost_for_good_is_recovered_on_the_survivor(env):
    """Runbook "lost quorum": two of three are gone for good; nothing acknowledged is lost."""
    c = env.cluster(authorities=3, nodes=1)
    owner = owner_copy(c)
    _, token = c.token("--uses", "3")
    c.settle()
    before = c.a1.status()
    survivor = c.others(c.wait_leader())[0]
    for a in c.others(survivor):
        a.kill9()
    survivor.refused(6, "no_quorum", "token", "create")
    survivor.refused(CONFLICT, "busy", "authority", "recover", "--owner-dir", owner, "--yes")
    survivor.stop()

    plan = survivor.ok("authority", "recover", "--owner-dir", owner, "--dry-run")
    expect(plan["new_epoch"] == 2 and plan["base_index"] >= before["index"], "the plan", plan)
    recover(survivor, owner, "--reason", "fire in room 2")
    survivor.start()
    status = survivor.status()
    expect(status["epoch"] == 2 and status["voters"] == 1 and has_quorum(status) and
           status["epoch_began_by"] == "recover" and status["index"] > before["index"],
           "it goes on in epoch 2", status)
    expect(token["id"] in [t["id"] for t in all_items(survivor, "token")], "the token is there")
    started = events(survivor, "authority_recovered")
    expect(len(started) == 1 and started[0]["actor_kind"] == "owner" and
           started[0]["subject_id"] == survivor.id, "an audit row of the owner", started)
    survivor.ok("audit", "verify")
    survivor.ok("token", "create")
    # The node of the cluster follows, on the owner's word alone.
    wait_until(lambda: c.n1.ok("config", "show")["epoch"] == 2, "n1 to believe epoch 2")
    # The lost ones are removed, new ones added.
    for a in c.others(survivor):
        survivor.ok("authority", "remove", a.name, "--reason", "burnt", "--yes")
        del c.nodes[a.name]
    for name in ("a4", "a5"):
        node = c.enroll(name, via=survivor)
        survivor.ok("authority", "add", name, "--owner-dir", owner, "--yes")
        wait_voters(c, survivor, node)
    expect(c.settle().status()["voters"] == 3, "three voters again")


def test_promoted_minority_wins_and_the_old_majority_reports_what_it_decided(env):
    """S12, S18: exactly one history is believed everywhere, the other is reported entry by entry."""
    c = env.cluster(authorities=3, nodes=1)
    owner = owner_copy(c)
    c.settle()
    minority = c.others(c.wait_leader())[0]
    majority = c.others(minority)
    minority.refused(CONFLICT, "conflict", "partition", "promote", "--owner-dir", owner, "--yes")

    for a in majority:
        a.freeze()
    wait_until(lambda: not has_quorum(minority.status()), "the minority to see that it is one")
    promoted = minority.ok("partition", "promote", "--owner-dir", owner, "--yes")
    expect(promoted["epoch"] == 2 and promoted["voters"] == 1, "the minority goes on", promoted)
    ours = minority.ok("token", "create")["id"]
    c.settle([minority])

    # Elsewhere the majority lives on and knows nothing of it.
    minority.freeze()
    for a in majority:
        a.thaw()
    leader = c.wait_leader(majority)
    theirs = [leader.ok("token", "create")["id"] for _ in range(3)]
    leader.ok("node", "rename", c.n1.name, "elsewhere")
    status = c.settle(majority).status()
    expect(status["epoch"] == 1, "the old majority is in epoch 1", status)

    minority.thaw()
    for a in majority:
        wait_state(a, "fenced")
        r = a.refused(CONFLICT, "fenced", "token", "create")
        expect("epoch" in r.err and "2" in r.err, f"{a.name} says which epoch fenced it", r)
    reports = wait_until(
        lambda: [r for r in lists(minority, "partition", "reports") if r["status"] == "reported"]
        if len([r for r in lists(minority, "partition", "reports")
                if r["status"] == "reported"]) == 2 else None, "both reports")
    for a in majority:
        report = next(r for r in reports if r["node_id"] == a.id)
        rows = lists(minority, "partition", "divergence", a.name)
        expect(report["rows_total"] == len(rows) and report["from_epoch"] == 1, "the report", report)
        tokens = [r["subject_id"] for r in rows if r["kind"] == "token_create" and r["committed"]]
        expect(sorted(tokens) == sorted(theirs), f"{a.name} reports each token, as committed", rows)
        renames = [r for r in rows if r["kind"] == "node_rename"]
        expect(len(renames) == 1 and renames[0]["subject_id"] == c.n1.id and
               renames[0]["actor_kind"] == "admin" and renames[0]["request_id"], "the rename", rows)
        own = a.ok("partition", "divergence")
        expect(own["fenced"] and own["rows_total"] == len(rows), f"{a.name} shows the same", own)
    expect(minority.status()["voters"] == 1, "nobody votes yet")

    minority.refused(CONFLICT, "wrong_cluster", "partition", "merge", majority[0].name,
                     "--owner-dir", other_owner(env), "--yes")
    for a in majority:
        minority.ok("partition", "merge", a.name, "--owner-dir", owner, "--yes")
    wait_voters(c, minority, *majority)
    c.wait_leader()
    c.settle()
    wait_until(lambda: len({(s["index"], s["state_digest"]) for s in
                            (a.status() for a in c.authorities())}) == 1, "one state everywhere")
    for a in c.authorities():
        tokens = {t["id"] for t in all_items(a, "token")}
        expect(ours in tokens and not tokens & set(theirs), f"{a.name} believes the one history",
               tokens)
        expect(os.path.exists(os.path.join(a.dir, "member", "raft.db.1")) == (a in majority),
               f"{a.name}: the old log of a merged one is kept aside")
    names = {n["name"] for n in all_items(minority, "node")}
    expect("n1" in names and "elsewhere" not in names, "the rename did not happen", names)
    kinds = {e["event_type"] for e in all_items(minority, "audit")}
    expect({"partition_promoted", "divergence_reported", "partition_merged"} <= kinds, "audited",
           kinds)
    minority.ok("audit", "verify")
    rows = lists(minority, "partition", "list")
    expect([r["resolution"] for r in rows if r["status"] == "resolved"][:1] == ["promoted"],
           "the partition is in the list", rows)


def other_owner(env):
    """The owner directory of another cluster."""
    other = env.new_cluster("other")
    seed = other.add("a1")
    seed.ok("init", "--cluster", "other", "--listen", seed.address)
    return other.owner_dir()


def test_three_of_five_are_lost_and_the_other_survivor_rejoins_by_itself(env):
    """Runbook "lost quorum", with two survivors: the one that was not recovered has nothing of its
    own to give up and comes back without being told to."""
    c = env.cluster(authorities=5, nodes=0)
    owner = owner_copy(c)
    _, token = c.token("--uses", "3")
    c.settle()
    leader = c.wait_leader()
    lost = [leader, *c.others(leader)[:2]]
    survivors = c.others(*lost)
    for a in lost:
        a.kill9()
    for a in survivors:
        a.refused(6, "no_quorum", "token", "create")
    # Each can tell how far its log goes; the one that goes furthest is taken.
    plans = {}
    for a in survivors:
        a.stop()
        plans[a] = a.ok("authority", "recover", "--owner-dir", owner, "--dry-run")
    best = max(survivors, key=lambda a: (plans[a]["base_term"], plans[a]["base_index"]))
    other = next(a for a in survivors if a is not best)
    recover(best, owner)
    best.start()
    other.start(wait=False)
    wait_voters(c, best, other)
    c.settle(survivors)
    expect(other.status()["epoch"] == 2 and best.status()["voters"] == 2, "two voters in epoch 2")
    for a in survivors:
        expect(token["id"] in [t["id"] for t in all_items(a, "token")], f"{a.name} has the token")
    # One of the lost comes back after all: nothing it decided is believed, and it catches up.
    late = lost[1]
    late.start(wait=False)
    wait_voters(c, best, late)
    expect(c.settle([*survivors, late]).status()["epoch"] == 2, "one epoch")


def test_dead_authority_is_replaced(env):
    """Runbook "lost minority": nothing stops, the partition is recorded, another takes the place."""
    c = env.cluster(authorities=3, nodes=0)
    owner = owner_copy(c)
    dead = c.others(c.wait_leader())[0]
    left = c.others(dead)
    dead.kill9()
    # Who was heard a moment ago is alive; and a start that took long may have left a row of its own.
    wait_until(lambda: c.wait_leader(left).status()["seen"] == 2, "the dead one to be missed")
    left[0].ok("token", "create")
    row = wait_until(lambda: [p for p in lists(left[0], "partition", "list")
                              if p["status"] == "open"], "the partition to be seen")[0]
    expect(row["members"] == [dead.id] and row["member_names"] == [dead.name] and row["has_quorum"] and
           row["resolved_at"] is None, "who is out", row)
    left[0].ok("authority", "remove", dead.name, "--reason", "dead", "--yes")
    row = wait_until(lambda: [p for p in lists(left[0], "partition", "list")
                              if p["id"] == row["id"] and p["status"] == "resolved"],
                     "the partition to be resolved")[0]
    expect(row["resolution"] == "removed", "it did not heal", row)
    del c.nodes[dead.name]
    node = c.enroll("a4", via=left[0])
    left[0].ok("authority", "add", "a4", "--owner-dir", owner, "--yes")
    wait_voters(c, left[0], node)
    expect(c.settle().status()["voters"] == 3, "three voters")
    # The old host comes back: it is nobody any more.
    dead.start(wait=False)
    wait_until(lambda: dead.status()["authority_state"] != "healthy" and
               not has_quorum(dead.status()), "the removed one to be without a majority")
    dead.refused(6, "no_quorum", "token", "create")
    expect(c.settle().status()["voters"] == 3, "and it changes nothing")


def test_leader_host_is_lost_and_comes_back(env):
    """Runbook "lost leader host": what was acknowledged is there; the cut is recorded as healed."""
    c = env.cluster(authorities=3, nodes=0)
    lost = c.wait_leader()
    _, token = c.token(via=lost)
    lost.kill9()
    left = c.others(lost)
    new = c.wait_leader(left)
    expect(token["id"] in [t["id"] for t in all_items(new, "token")], "the token is there")
    wait_until(lambda: [p for p in lists(new, "partition", "list")
                        if p["status"] == "open" and p["members"] == [lost.id]], "it to be seen out")
    lost.start()
    row = wait_until(lambda: [p for p in lists(new, "partition", "list")
                              if p["status"] == "resolved"], "the partition to heal")[0]
    expect(row["resolution"] == "healed" and row["members"] == [lost.id], "healed", row)
    kinds = [e["event_type"] for e in all_items(new, "audit")]
    expect("partition_detected" in kinds and "partition_resolved" in kinds, "audited", kinds)
    terms = [t for t in lists(new, "authority", "terms") if t["ended_at"] is None]
    expect(len(terms) == 1 and terms[0]["leader_node_id"] == c.settle().id, "one open term", terms)


def backup(node, path):
    made = node.ok("authority", "backup", path)
    expect(os.stat(path).st_mode & 0o777 == 0o600, "mode 0600", oct(os.stat(path).st_mode))
    return made


def restore(c, name, file, owner, *more, port=None):
    node = c.add(name, port)
    node.ok("authority", "restore", file, "--listen", node.address, "--owner-dir", owner, "--yes",
            *more)
    return node.start()


def test_cluster_goes_on_from_a_backup_on_a_new_host(env):
    """Runbook "restore from backup": every authority is lost; the state, the audit and the nodes are
    those of the backup."""
    c = env.cluster(authorities=3, nodes=1)
    owner = owner_copy(c)
    file = os.path.join(env.folder, "backup")
    _, kept = c.token("--uses", "3")
    made = backup(c.others(c.wait_leader())[0], file)
    _, later = c.token("--uses", "3")
    checked = c.a1.ok("authority", "verify", file, "--owner-dir", owner)
    expect(checked["ok"] and checked["index"] == made["index"] and checked["epoch"] == 1,
           "the backup is good", checked)
    c.a1.refused(CONFLICT, "exists", "authority", "backup", file)
    c.a1.refused(CONFLICT, "wrong_cluster", "authority", "verify", file, "--owner-dir",
                 other_owner(env))
    lost = c.authorities()
    for a in lost:
        a.kill9()
    # It takes the place of a1, at the same address: n1 finds it by itself.
    c.a1.refused(CONFLICT, "busy" if c.a1.process else "exists", "authority", "restore", file,
                 "--listen", c.a1.address, "--owner-dir", owner, "--as", "a1", "--yes")
    place, port = c.a1, c.a1.port
    for a in lost:
        del c.nodes[a.name]
    new = restore(c, "a9", file, owner, "--as", "a1", "--reason", "fire", port=port)
    status = new.status()
    expect(status["node_id"] == place.id and status["epoch"] == 2 and status["voters"] == 1 and
           status["epoch_began_by"] == "restore" and
           status["epoch_base_index"] == made["index"], "it goes on from the backup", status)
    tokens = [t["id"] for t in all_items(new, "token")]
    expect(kept["id"] in tokens and later["id"] not in tokens, "what was in it", tokens)
    new.ok("audit", "verify")
    rows = events(new, "authority_restored")
    expect(len(rows) == 1 and rows[0]["actor_kind"] == "owner", "audited", rows)
    wait_until(lambda: c.n1.ok("config", "show")["epoch"] == 2, "n1 to follow")
    new.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to get its role")
    # One of the lost was not lost: what it decided after the backup is reported, not believed.
    back = lost[1]
    back.start(wait=False)
    wait_state(back, "fenced")
    wait_until(lambda: [r for r in lists(new, "partition", "reports")
                        if r["node_id"] == back.id and r["status"] == "reported"], "its report")
    rows = lists(new, "partition", "divergence", back.name)
    expect(later["id"] in [r["subject_id"] for r in rows if r["kind"] == "token_create"],
           "the token made after the backup", rows)
    back.kill9()
    # It grows again.
    for a in lost[1:]:
        new.ok("authority", "remove", a.name, "--yes")
    node = c.enroll("a4", via=new)
    new.ok("authority", "add", "a4", "--owner-dir", owner, "--yes")
    wait_voters(c, new, node)


def test_bad_backups_are_refused_with_clear_words(env):
    c = env.cluster(authorities=1, nodes=0)
    owner = owner_copy(c)
    file = os.path.join(env.folder, "backup")
    backup(c.a1, file)
    with open(file, "rb") as f:
        good = f.read()

    def written(name, content):
        path = os.path.join(env.folder, name)
        with open(path, "wb") as out:
            out.write(content)
        return path

    def flipped(at):
        return good[:at] + bytes([good[at] ^ 1]) + good[at + 1:]

    cases = [
        ("empty", b"", "no backup"),
        ("text", b"hello, I am a file\n" * 10, "no backup"),
        ("cut_in_the_head", good[:200], "truncated"),
        ("cut_at_the_end", good[:-1], "truncated"),
        ("longer", good + b"x", "too long"),
        ("head_flipped", flipped(40), None),
        ("image_flipped", flipped(len(good) - 100), "damaged"),
    ]
    host = c.add("a9")
    for name, content, words in cases:
        path = written(name, content)
        for r in (c.a1.cli("authority", "verify", path),
                  host.cli("authority", "restore", path, "--listen", host.address, "--owner-dir",
                           owner, "--name", "a9", "--yes")):
            expect(r.rc != OK and (words is None or words in r.err), f"{name} is refused", r)
    expect(not os.path.exists(os.path.join(host.dir, "member", "node.db")) or
           host.cli("agent", "run").rc != OK, "nothing was restored")
    # A good one, but not with this key, name or place.
    host.refused(CONFLICT, "wrong_cluster", "authority", "restore", file, "--listen", host.address,
                 "--owner-dir", other_owner(env), "--name", "a9", "--yes")
    host.refused(CONFLICT, "name_taken", "authority", "restore", file, "--listen", host.address,
                 "--owner-dir", owner, "--name", "a1", "--yes")
    host.refused(3, "not_found", "authority", "restore", file, "--listen", host.address,
                 "--owner-dir", owner, "--as", "nobody", "--yes")
    r = host.cli("authority", "restore", file, "--listen", host.address, "--owner-dir", owner,
                 "--name", "a9", "--dry-run")
    expect(r.rc == OK and r.json["new_epoch"] == 2, "a dry run shows the plan", r)
    r = host.cli("authority", "restore", file, "--listen", host.address, "--owner-dir", owner,
                 "--name", "a9", "--yes")
    expect(r.rc == OK, "and the good one is restored after all that", r)
    # The old authority still runs: it is fenced when they meet, for it is of the older epoch.
    host.start()
    wait_state(c.a1, "fenced")
    # And it stays so over a restart.
    c.a1.kill9()
    c.a1.start(wait=False)
    wait_state(c.a1, "fenced")
    c.a1.refused(CONFLICT, "fenced", "token", "create")


def test_removal_that_survives_less_is_refused_without_force(env):
    c = env.cluster(authorities=3, nodes=0)
    leader = c.wait_leader()
    one, two = c.others(leader)
    r = leader.refused(CONFLICT, "quorum_at_risk", "authority", "remove", one.name, "--yes")
    expect("--force" in r.err and "0 more may be lost instead of 1" in r.err, "what is lost", r.err)
    # Through a follower as well, and also when the leader itself is to go.
    one.refused(CONFLICT, "quorum_at_risk", "authority", "remove", leader.name, "--yes")
    two.kill9()
    wait_until(lambda: leader.status()["seen"] == 2, "the dead one to be missed")
    # With one dead, a live one is never taken out, force or not; the dead one is, for nothing is lost.
    leader.refused(CONFLICT, "quorum_at_risk", "authority", "remove", one.name, "--yes", "--force")
    leader.ok("authority", "remove", two.name, "--yes")
    wait_until(lambda: leader.status()["voters"] == 2, "two voters")
    # Of two, one cannot shrink the authority set that nodes believe (docs/decisions/0008).
    r = leader.refused(CONFLICT, "quorum_at_risk", "authority", "remove", one.name, "--yes", "--force")
    expect("add another first" in r.err, "the way out", r.err)
    leader.refused(CONFLICT, "quorum_at_risk", "authority", "remove", leader.name, "--yes", "--force")


def test_authority_is_demoted_and_promoted_again(env):
    """Membership: a voter becomes a follower without a vote, stays one over changes of leader and restarts, and votes
    again when it is promoted and has caught up."""
    c = env.cluster(authorities=3, nodes=1)
    leader = c.wait_leader()
    one, two = c.others(leader)
    leader.refused(CONFLICT, "quorum_at_risk", "authority", "demote", one.name, "--yes")
    r = leader.cli("authority", "demote", one.name, "--yes", "--force", "--reason", "far away")
    expect(r.rc == OK, "demoted", r)
    wait_until(lambda: c.authority_status(one, leader) == "standby" and
               leader.status()["voters"] == 2, "it to have no vote")
    leader.refused(CONFLICT, "already_decided", "authority", "demote", one.name, "--yes", "--force")
    # It follows, answers, and stays what it is over a restart and another leader.
    leader.ok("role", "assign", "n1", "relay-node")
    one.kill9()
    leader.ok("role", "unassign", "n1", "relay-node")  # a majority of two
    one.start()
    two.ok("authority", "transfer", two.name, "--yes")
    wait_until(lambda: two.status()["leader"] == two.id, "another leader")
    c.one_digest()
    expect(c.authority_status(one, two) == "standby" and two.status()["voters"] == 2,
           "still without a vote", two.status())
    two.ok("authority", "promote", one.name, "--reason", "back")
    expect(c.authority_status(one, two) == "voter" and two.status()["voters"] == 3, "it votes")
    rows = [e["event_type"] for e in all_items(two, "audit")
            if e["event_type"] in ("authority_demoted", "authority_promoted")]
    expect(sorted(rows) == ["authority_demoted", "authority_promoted"], "audited", rows)


def test_failed_add_leaves_no_ghost(env):
    """A new authority that dies before it has caught up counts for nothing and can be taken out."""
    c = env.cluster(authorities=3, nodes=1)
    owner = owner_copy(c)
    leader = c.wait_leader()
    c.n1.freeze()
    r = leader.cli("authority", "add", "n1", "--owner-dir", owner, "--yes", "--timeout", "4s")
    expect(r.rc != OK, "nobody there to ask", r)
    expect(len(all_items(leader, "authority")) == 3, "an add that did not begin leaves nothing")
    c.n1.thaw()
    c.n1.wait_ready()
    leader.ok("authority", "add", "n1", "--owner-dir", owner, "--yes", "--no-wait")
    c.n1.kill9()
    shutil.rmtree(os.path.join(c.n1.dir, "member"))  # the host is gone for good
    status = leader.status()
    expect(status["voters"] in (3, 4), "voters", status)
    leader.ok("authority", "remove", "n1", "--yes", "--force")
    wait_until(lambda: leader.status()["voters"] == 3 and
               all(a["name"] != "n1" for a in lists(leader, "authority", "list")), "it to be gone")
    c.others(leader)[0].kill9()
    leader.ok("token", "create")


def test_voter_restored_from_an_old_disk_is_not_believed(env):
    """reliability.md, old data dir restored: S1, S2. Its peers notice, it votes again only after it
    has caught up as one that does not count."""
    c = env.cluster(authorities=3, nodes=0)
    leader = c.wait_leader()
    victim = c.others(leader)[0]
    other = c.others(leader, victim)[0]
    victim.stop()
    old = victim.dir + ".old"
    shutil.copytree(victim.dir, old, symlinks=True)
    victim.start()
    c.settle()
    tokens = [leader.ok("token", "create")["id"] for _ in range(5)]
    for to in (other, leader):  # both remember what it acknowledged, and terms it acted in
        to.ok("authority", "transfer", to.name, "--yes")
        wait_until(lambda to=to: to.status()["leader"] == to.id, f"{to.name} to lead")
        to.ok("token", "create")
        c.settle()
    victim.kill9()
    shutil.rmtree(victim.dir)
    shutil.move(old, victim.dir)
    victim.start(wait=False)
    row = wait_until(lambda: events(leader, "authority_fenced"), "the old disk to be noticed")
    expect(len(row) == 1 and row[0]["subject_id"] == victim.id, "who it is", row)
    details = row[0]["details"] if isinstance(row[0]["details"], dict) else json.loads(
        row[0]["details"])
    expect(details["shown_index"] < details["acknowledged_index"], "what was shown", details)
    wait_voters(c, leader, victim)
    c.settle()
    expect(leader.status()["voters"] == 3, "three voters again")
    for a in (leader, other, victim):
        have = {t["id"] for t in all_items(a, "token")}
        expect(set(tokens) <= have, f"{a.name} has every token", have)
    # Another leader, which knew it before and has not heard it since, listens to it.
    other.ok("authority", "transfer", other.name, "--yes")
    wait_until(lambda: other.status()["leader"] == other.id and other.status()["seen"] == 3,
               f"{other.name} to lead and to hear both")
    leader = other
    # An ordinary restart is no reason.
    victim.kill9()
    victim.start()
    c.settle()
    expect(len(events(leader, "authority_fenced")) == 1, "once")


def test_recovery_killed_at_any_moment_is_done_or_not_begun(env):
    """kill -9 of the command, and of the daemon while a promotion waits for its restart."""
    c = env.cluster(authorities=3, nodes=0)
    owner = owner_copy(c)
    survivor = c.others(c.wait_leader())[0]
    for a in c.others(survivor):
        a.kill9()
    wait_until(lambda: not has_quorum(survivor.status()), "no majority")
    # The statement is beside the log, the daemon dies before its restart.
    survivor.process.send_signal(signal.SIGCONT)
    promote = subprocess.Popen(
        [env.rap, "partition", "promote", "--owner-dir", owner, "--yes", "--data-dir", survivor.dir],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pending = os.path.join(survivor.dir, "member", "recovery")
    wait_until(lambda: os.path.exists(pending) or survivor.cli("status").rc == OK and
               survivor.status()["epoch"] == 2, "the statement", every=0.005)
    survivor.kill9()
    promote.kill()
    promote.wait()
    survivor.start()
    expect(survivor.status()["epoch"] == 2 and not os.path.exists(pending), "it went on at the start",
           survivor.status())
    survivor.stop()

    # Offline, killed after a longer and longer time until it gets through.
    epoch, killed, delay = 2, 0, 0.002
    while epoch < 4:
        p = subprocess.Popen(
            [env.rap, "authority", "recover", "--owner-dir", owner, "--yes", "--data-dir",
             survivor.dir], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            p.wait(delay)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            killed += 1
        plan = survivor.ok("authority", "recover", "--owner-dir", owner, "--dry-run")
        expect(plan["epoch"] in (epoch, epoch + 1), "the old log or the new one", plan)
        epoch = plan["epoch"]
        delay *= 1.5
    expect(killed > 3, "it was killed on the way", killed)
    survivor.start()
    status = survivor.status()
    expect(status["epoch"] == epoch and has_quorum(status), "it decides in the last epoch", status)
    survivor.ok("audit", "verify")
    starts = events(survivor, "authority_recovered")
    expect(len(starts) == epoch - 2, "one row an epoch", starts)


def test_two_recoveries_of_one_epoch_are_told_and_settled_by_the_next(env):
    """Both are the owner's word: neither side is fenced until the owner recovers one once more."""
    c = env.cluster(authorities=3, nodes=0)
    owner = owner_copy(c)
    c.settle()
    one, two, gone = c.a1, c.a2, c.a3
    gone.kill9()
    two.kill9()
    wait_until(lambda: not has_quorum(one.status()), "no majority")
    one.ok("partition", "promote", "--owner-dir", owner, "--yes")
    recover(two, owner)
    two.start()
    for a in (one, two):
        status = wait_until(lambda a=a: a.status().get("epoch_rival") and a.status(),
                            f"{a.name} to notice")
        expect(status["epoch"] == 2 and status["authority_state"] == "healthy" and
               status["voters"] == 1, f"{a.name} goes on by itself", status)
    one.stop()
    recover(one, owner)
    one.start()
    wait_state(two, "fenced")
    expect(one.status()["epoch"] == 3 and "epoch_rival" not in one.status(), "settled", one.status())
    wait_until(lambda: [r for r in lists(one, "partition", "reports") if r["status"] == "reported"],
               "the report")
    one.ok("partition", "merge", "a2", "--owner-dir", owner, "--yes")
    wait_voters(c, one, two)
    c.settle([one, two])


def test_cluster_that_never_ran_is_recovered_too(env):
    """Its state is of the first schema level: the entry that begins the epoch raises it."""
    c = env.new_cluster()
    seed = c.add("a1")
    seed.ok("init", "--cluster", "demo", "--listen", seed.address, "--name", "a1")
    recover(seed, c.owner_dir())
    seed.start()
    status = seed.status()
    expect(status["epoch"] == 2 and has_quorum(status), "it decides in epoch 2", status)
    seed.ok("audit", "verify")


def test_host_of_a_fenced_authority_follows_the_new_epoch_as_a_node(env):
    c = env.cluster(authorities=3, nodes=0)
    owner = owner_copy(c)
    c.settle()
    kept = c.others(c.wait_leader())[0]
    others = c.others(kept)
    for a in others:
        a.freeze()
    wait_until(lambda: not has_quorum(kept.status()), "no majority")
    kept.ok("partition", "promote", "--owner-dir", owner, "--yes")
    kept.freeze()
    for a in others:
        a.thaw()
    c.wait_leader(others).ok("token", "create")
    kept.thaw()
    for a in others:
        wait_state(a, "fenced")
        wait_until(lambda a=a: a.ok("config", "show")["epoch"] == 2, f"{a.name} to believe epoch 2")
