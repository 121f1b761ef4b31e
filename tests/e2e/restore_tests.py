"""A cluster out of PostgreSQL alone (SPEC PG-01, AUTH-07, AUD-01; DESIGN D2 and section 7, decision 0013): what the
mirror holds is signed, so it can be believed, or named as edited, when no authority is left."""

import os
import signal
import time

from lib import (CONFLICT, DENIED, FAILED, NOT_FOUND, OK, USAGE, expect, open_files, wait_until)
from pg import postgres
from cluster_tests import all_items, events
from mirror_tests import EDIT, caught_up, enable, mirrored, status
from recovery_tests import other_owner, owner_copy, wait_state, wait_voters


def from_postgres(node, pg, owner, *more):
    return node.cli("authority", "restore", "--from-postgres", pg.dsn(), "--listen", node.address,
                    "--owner-dir", owner, *more)


def audit_of(node, pg, *more):
    return node.cli("audit", "verify", "--from-postgres", pg.dsn(), *more)


def sealed(pg, index):
    """Until the mirror has that entry."""
    wait_until(lambda: int(pg.value('SELECT max("index") FROM rap.authority_applied')) >= index,
               "the mirror to be there")


def test_cluster_is_rebuilt_from_postgresql_alone(env):
    """Runbook "every authority is lost, PostgreSQL is not": directories of all three are gone; state,
    roles, tokens, audit and first results come back, nodes follow, the mirror goes on in the new epoch, and a
    writer of the old one is refused by the database."""
    c, pg = mirrored(env, 3, "--mode", "required", nodes=1)
    owner = owner_copy(c)
    _, kept = c.token("--uses", "3")
    c.a2.ok("role", "assign", "n1", "relay-node")
    wait_until(lambda: "relay-node" in c.n1.roles(), "n1 to get its role")
    caught_up(c.a1)
    before = c.a1.ok("audit", "verify")
    cluster_id = c.a1.status()["cluster_id"]
    lost, place, port = c.authorities(), c.a1, c.a1.port
    for a in lost:
        a.kill9()
        del c.nodes[a.name]
    claim, _ = pg.position(cluster_id)
    new = c.add("a9", port)
    checked = audit_of(new, pg, "--owner-dir", owner)
    expect(checked.rc == OK and checked.json["ok"] and checked.json["rows"] >= before["rows"],
           "the mirror holds the audit, whole", checked)
    new.refused(CONFLICT, "wrong_cluster", "audit", "verify", "--from-postgres", pg.dsn(),
                "--owner-dir", other_owner(env))
    plan = from_postgres(new, pg, owner, "--as", "a1", "--dry-run", "--yes")
    expect(plan.rc == OK and plan.json["new_epoch"] == 2 and plan.json["kind"] == "restore" and
           plan.json["base_index"] == checked.json["index"], "a preview", plan)
    expect(not os.path.exists(os.path.join(new.dir, "raft.db")), "which changed nothing")
    done = from_postgres(new, pg, owner, "--as", "a1", "--yes", "--reason", "fire")
    expect(done.rc == OK, "restored", done)
    new.start()
    s = new.status()
    expect(s["node_id"] == place.id and s["epoch"] == 2 and s["voters"] == 1 and
           s["epoch_began_by"] == "restore" and s["epoch_base_index"] == checked.json["index"],
           "it goes on from the mirror", s)
    expect(kept["id"] in [t["id"] for t in all_items(new, "token")], "the token is there")
    after = new.ok("audit", "verify")
    expect(after["rows"] > before["rows"], "the chain goes on", after)
    rows = events(new, "authority_restored")
    expect(len(rows) == 1 and rows[0]["actor_kind"] == "owner", "audited", rows)
    wait_until(lambda: c.n1.ok("config", "show")["epoch"] == 2, "n1 to follow")
    expect("relay-node" in c.n1.roles(), "n1 keeps its role")
    # The mirror goes on by itself, in the new epoch.
    caught_up(new)
    epoch = pg.value("SELECT epoch || ' ' || writer_epoch FROM rap.authority_applied")
    expect(epoch == "2 2", "written in epoch 2", epoch)
    r = new.cli("mirror", "verify")
    expect(r.rc == OK and r.json["differences"] == 0, "and equal", r)
    expect(audit_of(new, pg, "--owner-dir", owner).json["epoch"] == 2, "and sealed")
    # A writer of the old epoch that wakes up: the claim of then, and a claim anew, both end there.
    for change in (f'claim = {claim}, "index" = "index" + 1000, writer_epoch = 1, writer_term = 99',
                   'claim = claim + 1, writer_epoch = 1, writer_term = 999'):
        r = pg.psql(f"UPDATE rap.authority_applied SET {change}", user="rap_mirror", check=False)
        expect(r.returncode != 0 and "stale writer" in r.stderr, "the database refuses", r.stderr)
    # One of the lost was not lost: fenced, not believed, and it does not write either.
    back = lost[1]
    back.start(wait=False)
    wait_state(back, "fenced")
    back.kill9()
    # It grows again.
    for a in lost[1:]:
        new.ok("authority", "remove", a.name, "--yes")
    node = c.enroll("a4", via=new)
    new.ok("authority", "add", "a4", "--owner-dir", owner, "--yes")
    wait_voters(c, new, node)


EDITS = [
    ("rap.nodes", "UPDATE rap.nodes SET name = 'mallory' WHERE name = 'n1'"),
    ("rap.cluster_audit_events", "DELETE FROM rap.cluster_audit_events WHERE seq = 3"),
    ("rap.banned_keys", "INSERT INTO rap.banned_keys SELECT id, repeat('f', 64), 'x', 1, 2"
                        " FROM rap.clusters"),
    ("rap.authority_applied", "UPDATE rap.authority_applied SET digest = repeat('0', 64)"),
    # A thorough one: the sums are put right by copying, the seal cannot be.
    ("rap.mirror_sums", "DELETE FROM rap.node_join_tokens;"
                        "DELETE FROM rap.mirror_sums WHERE table_name = 'node_join_tokens'"),
    ("seal", "UPDATE rap.mirror_seals SET seal = set_byte(seal, 40, get_byte(seal, 40) # 1)"),
]


def test_edited_mirror_is_refused_and_the_table_named(env):
    """S14: no edit, however small, gets into a cluster by way of a restore."""
    c = env.cluster(authorities=1, nodes=1)
    owner = owner_copy(c)
    pg = postgres(env)
    host = c.add("a9")
    r = from_postgres(host, pg, owner, "--as", "a1", "--yes")
    expect(r.rc != OK and "rap" in r.err, "no such database", r)
    pg.prepare(c.a1)
    r = from_postgres(host, pg, owner, "--as", "a1", "--yes")
    expect(r.rc == NOT_FOUND and "no cluster is mirrored" in r.err, "an empty mirror", r)
    c.a1.refused(USAGE, "either FILE or --from-postgres", "authority", "restore", "--listen",
                 host.address)
    enable(c, pg)
    c.token("--uses", "3")
    caught_up(c.a1)
    c.a1.kill9()
    whole = audit_of(host, pg)
    expect(whole.rc == OK, "whole before", whole)
    for table, sql in EDITS:
        pg.psql("CREATE DATABASE kept TEMPLATE rap", db="postgres")
        pg.psql(EDIT + sql)
        for r in (audit_of(host, pg, "--owner-dir", owner),
                  from_postgres(host, pg, owner, "--as", "a1", "--yes")):
            expect(r.rc in (FAILED, DENIED) and table in r.err, f"{table} is named", r, sql)
        expect(not os.path.exists(os.path.join(host.dir, "raft.db")), "nothing is left behind")
        pg.psql("DROP DATABASE rap", db="postgres")
        pg.psql("ALTER DATABASE kept RENAME TO rap", db="postgres")
    expect(audit_of(host, pg).json["head"] == whole.json["head"], "whole again")
    # A leader does not go on from rows that were signed by nobody either.
    pg.psql(EDIT + "UPDATE rap.mirror_sums SET rows = rows + 1 WHERE table_name = 'nodes'")
    c.a1.start()
    wait_until(lambda: status(c.a1)["alarm"] == "edited", "the alarm")
    expect("mirror_sums" in status(c.a1)["alarm_detail"], "says what", status(c.a1))
    r = c.a1.cli("mirror", "rebuild", "--yes")
    expect(r.rc == OK, "a rebuild ends it", r)
    expect(audit_of(host, pg).rc == OK, "and seals it anew")


def test_mirror_of_an_older_writer_is_sealed_anew(env):
    """Upgrade: rows that a program without seals wrote are no alarm; the next leader writes the whole."""
    c, pg = mirrored(env, 1)
    caught_up(c.a1)
    c.a1.kill9()
    host = c.add("a9")
    pg.psql(EDIT + "DELETE FROM rap.mirror_sums; DELETE FROM rap.mirror_seals")
    r = audit_of(host, pg)
    expect(r.rc == NOT_FOUND, "nothing is sealed", r)
    c.a1.start()
    sealed(pg, caught_up(c.a1)["mirror_index"])
    expect(audit_of(host, pg).rc == OK, "sealed", audit_of(host, pg))
    expect(status(c.a1)["alarm"] in ("", "none", None), "no alarm", status(c.a1))


def sockets(node):
    return sum(f.startswith("socket:") for f in open_files(node.process.pid))


def test_leader_checks_the_mirror_by_itself(env):
    """S14: an edit is found without anybody asking, while writing goes on, and raises the alarm."""
    c, pg = mirrored(env, 1, nodes=1)
    c.a1.stop()
    c.a1.run_args = ["--mirror-check", "500ms"]
    c.a1.start()
    first = wait_until(lambda: status(c.a1)["verified_at"], "a first check")
    c.token("--uses", "3")
    wait_until(lambda: status(c.a1)["verified_at"] > first, "another one")
    expect(status(c.a1)["state"] == "following" and status(c.a1)["alarm"] == "", "nothing is wrong")
    pg.psql(EDIT + "UPDATE rap.nodes SET name = 'mallory' WHERE name = 'n1'")
    wait_until(lambda: status(c.a1)["alarm"] == "edited", "the alarm")
    expect("rap.nodes" in status(c.a1)["alarm_detail"], "which table", status(c.a1))
    wait_until(lambda: events(c.a1, "mirror_alarm"), "the alarm in the audit")
    r = c.a1.cli("mirror", "rebuild", "--yes")
    expect(r.rc == OK, "a rebuild ends it", r)
    again = status(c.a1)["verified_at"]
    wait_until(lambda: status(c.a1)["verified_at"] > again, "a check that finds nothing")
    # A frozen PostgreSQL holds up neither the check's end nor the authority's.
    seen = status(c.a1)["verified_at"]
    wait_until(lambda: status(c.a1)["verified_at"] > seen, "a check to be over")
    idle = sockets(c.a1)
    pg.signal_all(signal.SIGSTOP)
    wait_until(lambda: sockets(c.a1) > idle, "the next check to hang in its connection")
    start = time.monotonic()
    c.a1.stop()
    took = time.monotonic() - start
    pg.signal_all(signal.SIGCONT)
    expect(took < 5, "a clean stop beside a frozen server", took)
