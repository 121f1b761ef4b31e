"""Disks that fill up, fail and lie: a process that cannot write ends and never acknowledges (S22), the
others go on, and nothing acknowledged is lost (S2; reliability.md section 4)."""

import os
import sqlite3

from lib import CONFLICT, LIMIT, OK, UNAVAILABLE, Failure, expect, has_quorum, items, wait_until
from cluster_tests import events
from recovery_tests import owner_copy, recover


class FailingDisk:
    """The disk of one node; started again, its daemon has tests/e2e/diskfault.c in front of it."""

    def __init__(self, env, node, restart=True):
        self.control = node.dir + ".diskfault"
        library = os.path.join(os.path.dirname(env.rap), "tests", "libdiskfault.so")
        expect(os.access(library, os.R_OK), f"no {library}: cmake --build makes it")
        node.environment = {"LD_PRELOAD": library, "DISKFAULT": self.control}
        if restart:
            node.stop()
            node.start()

    def fail(self, *lines):
        with open(self.control + ".new", "w", encoding="ascii") as f:
            f.write("".join(line + "\n" for line in lines))
        os.rename(self.control + ".new", self.control)

    def recover(self):
        os.unlink(self.control)


def ended(node, *words):
    """The daemon ends by itself, and its last lines say why."""
    expect(node.process.wait(LIMIT) != 0, f"{node.name}: a bad exit")
    node.process = None
    with open(node.log_path, encoding="utf-8") as f:
        last = "".join(f.readlines()[-2:])
    for word in words:
        expect(word in last, f"{node.name}: {word} in its last lines", last)


def token_ids(node):
    return {t["id"] for t in items(node.cli("token", "list", "--limit", "500"))}


def make_tokens(via, count):
    return {via.ok("token", "create")["id"] for _ in range(count)}


def disk_fails_under(env, which, *faults):
    """A write to the log of one authority fails: it ends, the others go on, it comes back."""
    c = env.cluster(authorities=3, nodes=0)
    leader = c.wait_leader()
    victim = leader if which == "leader" else c.others(leader)[0]
    disk = FailingDisk(env, victim)
    c.settle()
    if which == "leader" and c.wait_leader() is not victim:
        victim.ok("authority", "transfer", victim.name, "--yes")
        wait_until(lambda: c.leader() is victim, f"{victim.name} to lead")
    others = c.others(victim)
    acknowledged = make_tokens(victim, 3)
    disk.fail(*faults)
    # Whoever asks through the victim gets an answer of the majority or none; never a false one.
    r = victim.cli("token", "create", "--timeout", "2s")
    if r.rc == 0:
        acknowledged.add(r.json["id"])
    ended(victim, "raft", "docs/OPERATIONS.md#an-authority")
    c.wait_leader(others)
    acknowledged |= make_tokens(others[0], 3)
    victim.start(wait=False)  # the fault is still there: it cannot vote, and says so
    ended(victim)
    disk.recover()
    victim.start()
    c.settle()
    for n in c.authorities():
        expect(token_ids(n) >= acknowledged, f"{n.name} holds every acknowledged token")
    c.one_digest()


def test_disk_full_on_a_follower(env):
    disk_fails_under(env, "follower", "write ENOSPC raft.db")


def test_disk_full_on_the_leader(env):
    disk_fails_under(env, "leader", "write ENOSPC raft.db")


def test_sync_fails_on_a_follower(env):
    disk_fails_under(env, "follower", "sync EIO raft.db")


def test_sync_fails_on_the_leader(env):
    disk_fails_under(env, "leader", "sync EIO raft.db")


# --- what is on the disk is not what was written ---

def flip_entry(node):
    """One bit of the last log entry that is stored, below SQLite's notice."""
    db = sqlite3.connect(file_of(node, "raft.db"))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    index, data = db.execute("SELECT log_index, data FROM log_entries"
                             " ORDER BY log_index DESC LIMIT 1").fetchone()
    flipped = bytearray(data)
    flipped[len(flipped) // 2] ^= 0x10
    db.execute("UPDATE log_entries SET data = ? WHERE log_index = ?", (bytes(flipped), index))
    db.commit()
    db.close()


def file_of(node, name):
    for folder, _, files in os.walk(node.dir):
        if name in files:
            return os.path.join(folder, name)
    raise Failure(f"{node.name}: no {name}")


def drop_wal(path):
    for suffix in ("-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)


def truncate_log(node):
    path = file_of(node, "raft.db")
    drop_wal(path)
    os.truncate(path, os.path.getsize(path) // 2)


def garble(path):
    """The second page, the root of the first table, as the file itself has it."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with open(path, "r+b") as f:
        f.seek(4096)
        f.write(b"\xff" * 4096)


def garble_log(node):
    garble(file_of(node, "raft.db"))


DAMAGES = {"flipped": flip_entry, "truncated": truncate_log, "garbled": garble_log}


def voters(node):
    return {a["name"] for a in items(node.cli("authority", "list")) if a["status"] == "voter"}


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def test_damaged_log_on_a_minority_heals_from_the_others(env):
    """S22, decision 0014: the member leaves the vote by a committed command, begins anew, and comes in again."""
    c = env.cluster(authorities=3, nodes=0)
    made = make_tokens(c.a1, 2)
    for i, (name, damage) in enumerate(DAMAGES.items()):
        victim = c.others(c.wait_leader())[0]
        rest = c.others(victim)
        victim.stop()
        damage(victim)
        made |= make_tokens(c.wait_leader(rest), 1)
        victim.start(wait=False)
        wait_until(lambda: len(events(rest[0], "authority_damaged")) == i + 1, f"{name}: the audit to tell")
        c.settle()
        wait_until(lambda: voters(rest[0]) == {n.name for n in c.authorities()}, f"{name}: to vote again")
        wait_until(lambda: token_ids(victim) >= made, f"{name}: nothing to be missing")
        folder = os.path.dirname(file_of(victim, "raft.db"))
        kept = [f for f in os.listdir(folder) if ".damaged-" in f and not f.endswith(("-wal", "-shm"))]
        expect(kept, f"{name}: the damaged file is kept")
        expect("heal" not in os.listdir(folder), f"{name}: the note is gone")
        for f in os.listdir(folder):
            if ".damaged-" in f:
                os.unlink(os.path.join(folder, f))
    c.one_digest()


def refused_on_a_majority(c, damage, found):
    """a1 and a2 end with what was found and the runbook, and nothing of theirs was changed."""
    c.stop_all()
    damaged = (c.a1, c.a2)
    for n in damaged:
        damage(n)
    before = [read_bytes(file_of(n, "raft.db")) for n in damaged]
    for n in c.authorities():
        n.start(wait=False)
    for n in damaged:
        ended(n, found, "a majority is lost", "docs/OPERATIONS.md#an-authority")
    expect([read_bytes(file_of(n, "raft.db")) for n in damaged] == before, "nothing was changed")


def test_damaged_log_on_a_majority_is_refused_and_changes_nothing(env):
    c = env.cluster(authorities=3, nodes=0)
    refused_on_a_majority(c, flip_entry, "checksum does not match")
    wait_until(lambda: not has_quorum(c.a3.status()), "a3 to see no majority")
    c.a3.refused(UNAVAILABLE, "no_quorum", "token", "create", "--timeout", "3s")


def garble_frame(node, last):
    """One sector of a page in the write-ahead log, as kill -9 left it: of the last frame, or with whole transactions
    behind it."""
    with open(file_of(node, "raft.db") + "-wal", "r+b") as f:
        header = f.read(32)
        page = int.from_bytes(header[8:12], "big")
        frames = []
        while (head := f.read(24)) and len(head) == 24 and head[8:16] == header[16:24]:
            frames.append(f.tell())
            f.seek(page, os.SEEK_CUR)
        expect(len(frames) > 3, "several transactions", len(frames))
        at = frames[-1 if last else 0] + page - 512
        f.seek(at)
        sector = f.read(512)
        f.seek(at)
        f.write(bytes(b ^ 0xff for b in sector))


def test_torn_write_in_the_log_of_a_killed_follower_loses_nothing(env):
    """Before the end it is damage, and heals; at the end nobody can tell it from a power cut, and what is missing comes
    from the others."""
    c = env.cluster(authorities=3, nodes=0)
    made = set()
    for last in (False, True):
        victim = c.others(c.wait_leader())[0]
        rest = c.others(victim)
        victim.stop()  # begins a new write-ahead log
        victim.start()
        c.settle()
        made |= make_tokens(victim, 5)
        victim.kill9()
        garble_frame(victim, last)
        made |= make_tokens(c.wait_leader(rest), 1)
        victim.start(wait=False)
        if not last:
            row = wait_until(lambda: events(rest[0], "authority_damaged"), "the audit to tell")[0]
            expect(row["subject_id"] == victim.id and "frame" in str(row["details"]), "what it was", row)
        wait_until(lambda: token_ids(victim) >= made, "nothing to be missing")
        wait_until(lambda: voters(rest[0]) == {n.name for n in c.authorities()}, "it to vote")
        c.settle()
    c.one_digest()
    for n in c.authorities():
        expect(token_ids(n) >= made, f"{n.name} holds every acknowledged token")


def test_torn_write_in_the_log_of_a_killed_standby_loses_nothing(env):
    """It has no vote that anybody could doubt; the leader counts it for the entry, and has to count it anew."""
    c = env.cluster(authorities=3, nodes=0)
    leader = c.wait_leader()
    victim = c.others(leader)[0]
    leader.ok("authority", "demote", victim.name, "--yes", "--force")
    wait_until(lambda: leader.status()["voters"] == 2, "two voters")
    victim.stop()  # begins a new write-ahead log
    victim.start()
    c.settle()
    made = make_tokens(victim, 5)
    c.settle()
    victim.kill9()
    garble_frame(victim, last=True)
    victim.start(wait=False)
    made |= make_tokens(leader, 1)
    wait_until(lambda: token_ids(victim) >= made, "nothing to be missing")
    c.settle()
    expect(c.authority_status(victim, leader) == "standby", "it has no vote")
    c.one_digest()


def flip_image(node):
    """One bit of the packed state in the snapshot that is stored."""
    db = sqlite3.connect(file_of(node, "raft.db"))
    index, part, data = db.execute("SELECT snapshot_index, part, data FROM snapshot_parts"
                                   " ORDER BY part DESC LIMIT 1").fetchone()
    flipped = bytearray(data)
    flipped[len(flipped) // 2] ^= 0x10
    db.execute("UPDATE snapshot_parts SET data = ? WHERE snapshot_index = ? AND part = ?",
               (bytes(flipped), index, part))
    db.commit()
    db.close()


def test_damaged_snapshot_image_heals_on_a_minority_and_is_refused_on_a_majority(env):
    c = env.cluster(authorities=3, nodes=0)
    made = make_tokens(c.a1, 2)
    owner = owner_copy(c)
    c.settle()
    c.stop_all()
    recover(c.a1, owner)  # its log goes on from an image, which the others get
    c.a1.start()
    for n in c.others(c.a1):  # one by one: together they would go on by themselves
        n.start(wait=False)
        wait_until(lambda n=n: n.name in voters(c.a1), f"{n.name} to vote in epoch 2")
    c.settle()
    victim = c.others(c.wait_leader())[0]
    rest = c.others(victim)
    victim.stop()
    flip_image(victim)
    made |= make_tokens(c.wait_leader(rest), 1)
    victim.start(wait=False)
    row = wait_until(lambda: events(rest[0], "authority_damaged"), "the audit to tell")[0]
    expect(row["subject_id"] == victim.id and "snapshots" in str(row["details"]), "what it was", row)
    wait_until(lambda: voters(rest[0]) == {"a1", "a2", "a3"} and token_ids(victim) >= made, "it to have healed")
    c.settle()
    refused_on_a_majority(c, flip_image, "snapshots")


def test_damaged_log_of_the_only_authority_is_refused_at_once(env):
    c = env.cluster(authorities=1, nodes=0)
    c.a1.stop()
    flip_entry(c.a1)
    c.a1.start(wait=False)
    ended(c.a1, "checksum does not match", "docs/OPERATIONS.md#an-authority")


def flip_node_id(path):
    """One bit of what it takes itself for."""
    db = sqlite3.connect(path)
    node_id = bytearray(db.execute("SELECT value FROM settings WHERE key = 'node_id'").fetchone()[0])
    node_id[9] ^= 1
    db.execute("UPDATE settings SET value = ? WHERE key = 'node_id'", (bytes(node_id),))
    db.commit()
    db.close()


def truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


STORE_DAMAGES = {"garbled": garble, "truncated": truncate, "emptied": lambda path: os.truncate(path, 0),
                 "missing": os.unlink, "flipped": flip_node_id}


def test_node_with_a_damaged_store_does_not_guess(env):
    """node.db holds what was last accepted (S17): a damaged one is refused, with what to do, and neither a start nor a
    join makes another node of this one."""
    c = env.cluster(authorities=1, nodes=1)
    token, _ = c.token()
    for node in (c.n1, c.a1):
        node.stop()
        path = file_of(node, "node.db")
        folder = os.path.dirname(path)
        drop_wal(path)
        whole, key = read_bytes(path), read_bytes(os.path.join(folder, "node.key"))
        for name, damage in STORE_DAMAGES.items():
            damage(path)
            node.start(wait=False)
            ended(node, "node.db", "docs/OPERATIONS.md#a-node")
            if name != "flipped":  # that one says what a whole one says: there is a membership
                r = node.cli(*node.join_args(token, "--no-wait"))
                expect(r.rc not in (OK, 2) and "node.db" in r.err, f"{name}: a join is refused", r)
            expect(read_bytes(os.path.join(folder, "node.key")) == key, f"{name}: its key is untouched")
            for suffix in ("", "-wal", "-shm"):
                if os.path.exists(path + suffix):
                    os.unlink(path + suffix)
            with open(path, "wb") as f:
                f.write(whole)
        was = node.id
        node.start()
        expect(node.id == was, f"{node.name}: with its store as it was it is who it was")
    expect(c.a1.ok("token", "create")["id"], "the cluster goes on")


def test_no_vote_is_taken_while_a_damaged_one_is_to_come(env):
    """What a demotion leaves is counted with the damaged one away, before and after it has left the vote."""
    c = env.cluster(authorities=3, nodes=0)
    leader = c.wait_leader()
    other, victim = c.others(leader)
    victim.kill9()
    wait_until(lambda: leader.status()["seen"] == 2, f"{victim.name} to be missed")
    r = leader.refused(CONFLICT, "quorum_at_risk", "authority", "demote", other.name, "--yes", "--force")
    expect("only 1 of the 2" in r.err, "what would be left", r.err)
    for _ in range(5):
        flip_entry(victim)
        victim.start(wait=False)
        wait_until(lambda: c.authority_status(victim, leader) != "voter", "it to leave the vote")
        victim.kill9()
        if c.authority_status(victim, leader) != "voter":
            break  # else it was faster
    wait_until(lambda: leader.status()["voters"] == 2, "two voters")
    r = leader.refused(CONFLICT, "quorum_at_risk", "authority", "demote", other.name, "--yes")
    expect("does not come, only 1 of 2" in r.err and "rap authority list" in r.err, "what to wait for", r.err)
    victim.start()
    c.settle()
    wait_until(lambda: voters(leader) == {n.name for n in c.authorities()}, "three voters")
    c.one_digest()
