"""PostgreSQL as the system of record (SPEC PG-01..04, AUTH-01, AUTH-07; S13, S14): it holds exactly what
the log says, whoever leads and whatever dies."""

import hashlib
import os
import random
import subprocess
import threading

from lib import (DEGRADED, DENIED, FAILED, LIMIT, OK, TIMED_OUT, UNAVAILABLE, USAGE, Failure, expect,
                 in_parallel, items, says, wait_until)
from cluster_tests import events
from join_tests import token_parts
from pg import ADMIN, ROLE, Postgres, binary, postgres
from trust_tests import holders, key_files


def enable(c, pg, *more, via=None):
    return (via or c.a1).ok("mirror", "enable", "--dsn", pg.dsn(), *more)


def mirrored(env, authorities, *more, nodes=0):
    """A cluster, and PostgreSQL with its mirror switched on (`more`: options of `rap mirror enable`)."""
    c = env.cluster(authorities=authorities, nodes=nodes)
    pg = postgres(env)
    pg.prepare(c.a1)
    enable(c, pg, *more)
    return c, pg


def status(node):
    r = node.cli("mirror", "status")
    expect(isinstance(r.json, dict) and "state" in r.json, "a mirror status", r)
    return r.json


def caught_up(node, limit=LIMIT):
    """Until PostgreSQL has all that was applied; the status then."""
    def same():
        s = status(node)
        expect(s["state"] == "following" and s["lag_entries"] == 0, "the mirror follows", s)
        return s
    return wait_until(same, "the mirror to catch up", limit)


def verified(node):
    """The comparison of state and mirror, which must find them equal. While leadership moves there is
    nobody to make it."""
    def compared():
        caught_up(node)
        r = node.cli("mirror", "verify", "--timeout", "60s")
        expect(r.rc != UNAVAILABLE, "somebody to compare", r)
        return r
    r = wait_until(compared, "a comparison")
    answer = r.json
    expect(r.rc == OK, "state and mirror are equal", r)
    expect(answer["differences"] == 0 and answer["index"] == answer["mirror_index"],
           "state and mirror are equal", answer["rows"][:5], answer["index"])
    # And for somebody who has nothing but the database: rows, sums, seal, audit chain.
    r = node.cli("audit", "verify", "--from-postgres", status(node)["dsn"], "--cluster-id",
                 node.status()["cluster_id"])
    expect(r.rc == OK and r.json["index"] >= answer["index"], "the mirror is what was signed", r)
    return answer


def tokens(node, count):
    in_parallel(4, range(count), lambda _: node.ok("token", "create"))


def test_mirror_follows_the_log(env):
    """PG-01, PG-02, AUTH-01: rows of before and after, each once."""
    c = env.cluster(authorities=3, nodes=2)
    pg = postgres(env)
    made = pg.prepare(c.a1)
    expect(made["schema_to"] >= 1 and made["role_created"], "schema and role are made", made)
    again = c.a1.ok("mirror", "migrate", "--dsn", pg.dsn(user=ADMIN))
    expect(again["schema_from"] == made["schema_to"] and not again["role_created"],
           "a second migration changes nothing", again)
    s = enable(c, pg)
    expect(s["state"] == "following" and s["server_version"], "it follows", s)
    expect(pg.value("SELECT count(*) FROM rap.nodes") == "5", "the nodes of before are there")
    tokens(c.a2, 20)
    for words in (["mesh", "set", "--synthetic", "on"], ["node", "mesh", "n1", "--region", "eu"],
                  ["pool", "create", "exits"], ["pool", "add", "exits", "n2"],
                  ["qos", "set", "bulk", "--rate", "8000"],
                  ["intent", "create", "i", "--policy", "avoid", "--to", "pool:exits", "--via",
                   "direct"]):
        c.a1.ok(*words, "--yes")
    answer = verified(c.a3)
    by_name = {t["table"]: t for t in answer["tables"]}
    expect(by_name["node_join_tokens"]["mirror_rows"] >= 20, "the tokens are there", by_name)
    expect(by_name["request_results"]["mirror_rows"] > 0, "so are the first results", by_name)
    expect(all(by_name[t]["mirror_rows"] == 1 for t in
               ("mesh_settings", "node_mesh_settings", "egress_pools", "egress_pool_members",
                "qos_policies", "cluster_route_intents")), "and what is wanted of the mesh", by_name)
    expect(all(t["state_digest"] == t["mirror_digest"] for t in answer["tables"]),
           "equal digests", answer["tables"])
    # S20: nor is there a secret in it, however it is written down.
    path, _ = c.token("--uses", "1")
    c.enroll("n3", token_file=path)
    caught_up(c.a1)
    dump = os.path.join(env.folder, "dump", "rap.sql")
    os.makedirs(os.path.dirname(dump))
    with open(dump, "w", encoding="utf-8") as f:
        f.write(pg.command([binary("pg_dump"), "-h", pg.dir, "-p", str(pg.port), "-U", ADMIN, "rap"]))
    secret = token_parts(path)[1]
    kept = holders(os.path.dirname(dump), key_files(c) | {
        "token": secret, "hash": hashlib.sha256(secret).digest()})
    expect(kept == {("rap.sql", "hash")}, "the token's hash, and no secret", kept)
    audit = items(c.a1.cli("audit", "list", "--event-type", "mirror_enabled"))
    expect(len(audit) == 1 and audit[0]["high_risk"], "enabling is an audited high-risk act", audit)
    c.a1.ok("mirror", "disable", "--yes")
    expect(status(c.a1)["state"] == "disabled", "disabled")


# The guard is off for this session: what follows is an edit on purpose.
EDIT = "SET session_replication_role = replica; "


# --- rights and strings ---

def test_mirror_role_cannot_change_the_schema_or_the_past(env):
    """PG-04 and S13: what the authorities' role may do in PostgreSQL, said by PostgreSQL."""
    c = env.cluster(authorities=1, nodes=0)
    pg = postgres(env)
    pg.prepare(c.a1)
    s = enable(c, pg)
    cluster = c.a1.status()["cluster_id"]
    refused = {
        "CREATE TABLE rap.x (a int)": "permission denied",
        "CREATE TABLE public.x (a int)": "permission denied",
        "ALTER TABLE rap.nodes ADD COLUMN x int": "must be owner",
        "DROP TABLE rap.nodes": "must be owner",
        "TRUNCATE rap.nodes": "permission denied",
        "ALTER TABLE rap.nodes DISABLE TRIGGER ALL": "must be owner",
        "DELETE FROM rap.authority_applied": "permission denied",
        "INSERT INTO rap.schema_migrations VALUES (99, 'x', 99)": "permission denied",
        "SET session_replication_role = replica": "permission denied",
        "SELECT rap.grant_writer('public')": "permission denied",
        # It may write rows, but only with a position that moves on.
        "UPDATE rap.nodes SET name = 'x'": "written by the mirror only",
        "DELETE FROM rap.cluster_audit_events": "written by the mirror only",
        'UPDATE rap.authority_applied SET "index" = "index" - 1': "stale writer",
        'UPDATE rap.authority_applied SET "index" = "index"': "stale writer",
        'UPDATE rap.authority_applied SET "claim" = 0, "index" = "index" + 9': "stale writer",
        'UPDATE rap.authority_applied SET "writer_term" = 0, "claim" = "claim" + 1': "stale writer",
    }
    for sql, why in refused.items():
        r = pg.psql(sql, user=ROLE, check=False)
        expect(r.returncode != 0 and why in r.stderr, f"{sql}: refused with \"{why}\"", r.stderr)
    # An administrator's slip of the hand is refused too.
    r = pg.psql("UPDATE rap.nodes SET name = 'x'", check=False)
    expect("written by the mirror only" in r.stderr, "no edit by accident", r.stderr)
    r = c.a1.cli("mirror", "migrate", "--dsn", pg.dsn(user=ADMIN), "--role", ADMIN)
    expect(r.rc == DENIED and "role of their own" in r.err, "an administrator is no role for it", r)
    expect(pg.position(cluster)[1] >= s["mirror_index"], "and nothing moved")
    verified(c.a1)


def test_mirror_secrets_stay_out_of_the_log(env):
    """S20: a password in a connection string is refused and kept nowhere."""
    c = env.cluster(authorities=1, nodes=0)
    for dsn in ("host=/x dbname=rap user=r password=hunter2secret",
                "postgresql://r:hunter2secret@localhost/rap"):
        r = c.a1.refused(DENIED, "denied", "mirror", "enable", "--dsn", dsn)
        expect("passfile=" in r.err, "it says what to use", r)
    c.a1.refused(DENIED, "denied", "mirror", "enable", "--dsn", "host=db.example dbname=r user=r")
    r = c.a1.cli("mirror", "enable", "--dsn", "host=/x dbname=r user=r", "--mode", "often")
    expect(r.rc == USAGE and "async or required" in r.err, "a wrong mode", r)
    r = c.a1.cli("mirror", "enable", "--dsn", "host=/x dbname=r user=r", "--max-lag", "1ms")
    expect(r.rc == USAGE and "--max-lag" in r.err, "a wrong lag", r)
    expect(status(c.a1)["state"] == "disabled", "nothing was enabled")
    c.stop_all()
    for folder, _, names in os.walk(c.folder):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    expect(b"hunter2secret" not in f.read(), f"no secret in {path}")


def test_mirror_says_what_to_do_about_a_schema(env):
    """No schema, a lack in it, one for newer programs: each is named, with the next command."""
    c = env.cluster(authorities=1, nodes=0)
    pg = postgres(env)
    pg.psql("CREATE DATABASE rap", db="postgres")
    r = c.a1.cli("mirror", "enable", "--dsn", pg.dsn(user=ADMIN), "--timeout", "3s")
    expect(r.rc == TIMED_OUT and "rap mirror migrate" in r.err, "no schema", r)
    c.a1.ok("mirror", "migrate", "--dsn", pg.dsn(user=ADMIN), "--dry-run")
    expect(pg.value("SELECT to_regclass('rap.nodes') IS NULL") == "t", "a dry run changes nothing")
    c.a1.ok("mirror", "migrate", "--dsn", pg.dsn(user=ADMIN))
    caught_up(c.a1)

    def says_error(text):
        def check():
            s = status(c.a1)
            expect(s["state"] != "following" and text in s["last_error"], text, s)
            return True
        pg.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'rap-mirror%'")
        wait_until(check, f"last_error to say {text}")

    pg.psql("ALTER TABLE rap.nodes RENAME COLUMN name TO nom")
    says_error("lacks nodes.name")
    pg.psql("ALTER TABLE rap.nodes RENAME COLUMN nom TO name")
    caught_up(c.a1)
    pg.psql("INSERT INTO rap.schema_migrations VALUES (99, 'x', 99)")
    says_error("newer versions")
    r = c.a1.cli("mirror", "migrate", "--dsn", pg.dsn(user=ADMIN))
    expect(r.rc == FAILED and says(r, "schema"), "migrate refuses it too", r)
    # Newer, but of a kind that older writers can live with.
    pg.psql("UPDATE rap.schema_migrations SET min_writer = 1 WHERE version = 99")
    caught_up(c.a1)


# --- whatever dies ---

class Load:
    """Tokens made through any authority until it is stopped; what was acknowledged."""

    def __init__(self, c, threads=3, pause_s=0.0):
        self.c, self.pause_s, self.acknowledged = c, pause_s, []
        self.stopped, self.running, self.busy = threading.Event(), threading.Event(), 0
        self.running.set()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.running.set()
        for t in self.threads:
            t.join()

    def run(self, number):
        choose = random.Random(number)
        while not self.stopped.wait(self.pause_s):
            self.running.wait()
            with self.lock:
                self.busy += 1
            try:
                code, answer, _ = choose.choice(self.c.authorities()).api(
                    "POST", "/v1/tokens", {"ttl": "1h"}, timeout=3)
                if code == 201:
                    self.acknowledged.append(answer["id"])
            except Failure:
                self.stopped.wait(0.02)
            finally:
                with self.lock:
                    self.busy -= 1

    def reach(self, count):
        want = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= want, f"{count} more commands")

    def pause(self):
        self.running.clear()
        wait_until(lambda: self.busy == 0, "the load to pause")

    def go_on(self):
        self.running.set()


def whole(c, pg, acknowledged):
    """S14, told by PostgreSQL itself and by the product: nothing lost, nothing twice, equal rows."""
    verified(c.wait_leader())
    there = set(pg.value("SELECT id FROM rap.node_join_tokens").split())
    lost = set(acknowledged) - there
    expect(not lost, "every acknowledged token is there", len(lost), len(acknowledged))
    chain = pg.value("SELECT count(*) FROM (SELECT seq, prev_hash, lag(hash) OVER w AS before,"
                     " lag(seq) OVER w AS seq_before FROM rap.cluster_audit_events"
                     " WINDOW w AS (PARTITION BY cluster_id ORDER BY seq)) e"
                     " WHERE seq_before IS NOT NULL AND (before <> prev_hash OR seq_before <> seq - 1)")
    expect(chain == "0", "the audit chain has no gap and no fork", chain)
    twice = pg.value("SELECT count(*) FROM (SELECT request_id FROM rap.request_results"
                     " GROUP BY cluster_id, request_id HAVING count(*) > 1) x")
    expect(twice == "0", "each request has one result", twice)


def test_mirror_survives_the_death_of_leaders(env):
    """PG-02, S14, AUTH-07: kill -9 of two leaders in turn, under load; each term has its row."""
    c, pg = mirrored(env, 3)
    with Load(c) as load:
        for _ in range(2):
            load.reach(20)
            leader = c.wait_leader()
            leader.kill9()
            c.wait_leader(c.others(leader))
            load.reach(20)
            leader.start()
    whole(c, pg, load.acknowledged)
    expect(pg.position(c.a1.status()["cluster_id"])[0] >= 3, "each leader took the mirror over")
    terms = pg.value("SELECT count(*), count(ended_at), count(DISTINCT leader_node_id) FROM"
                     " rap.cluster_authority_terms WHERE epoch = 1")
    told = items(c.a1.cli("authority", "terms", "--limit", "500"))
    expect([int(n) for n in terms.split("|")] ==
           [len(told), len(told) - 1, len({t["leader_node_id"] for t in told})] and len(told) >= 3,
           "PostgreSQL has who led when", terms, told)


def test_mirror_connection_cut_under_load(env):
    """PG-02: pg_terminate_backend again and again; nothing is lost or written twice."""
    c, pg = mirrored(env, 3)
    with Load(c) as load:
        for _ in range(10):
            load.reach(5)
            pg.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'rap-mirror%'")
    whole(c, pg, load.acknowledged)


def sessions(pg, condition):
    return int(pg.value("SELECT count(*) FROM pg_stat_activity"
                        f" WHERE application_name LIKE 'rap-mirror%' AND {condition}"))


def test_mirror_outcome_unknown_before_commit(env):
    """PostgreSQL dies while a group waits for a lock: it is not there, and is written again."""
    c, pg = mirrored(env, 1)
    caught_up(c.a1)
    holder = subprocess.Popen(
        ["psql", "-X", "-q", "-h", pg.dir, "-p", str(pg.port), "-U", ADMIN, "-d", "rap"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    env.helpers.append(holder)
    holder.stdin.write("BEGIN; SELECT * FROM rap.authority_applied FOR UPDATE;\n")
    holder.stdin.flush()
    wait_until(lambda: int(pg.value("SELECT count(*) FROM pg_stat_activity WHERE state ="
                                    " 'idle in transaction'")), "the row to be locked")
    token = c.a1.ok("token", "create")["id"]
    wait_until(lambda: sessions(pg, "wait_event_type = 'Lock'"), "the group to wait for the lock")
    pg.kill9()
    pg.start()
    whole(c, pg, [token])


def test_mirror_outcome_unknown_after_commit(env):
    """PostgreSQL commits and dies before it can say so: the position tells, nothing is written twice."""
    c, pg = mirrored(env, 1)
    caught_up(c.a1)
    cluster = c.a1.status()["cluster_id"]
    # A standby that does not exist: commits are on disk here, and wait for it.
    pg.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    pg.psql("SELECT pg_reload_conf()")
    token = c.a1.ok("token", "create")["id"]
    wait_until(lambda: sessions(pg, "wait_event = 'SyncRep'"), "the commit to wait")
    expect(status(c.a1)["lag_entries"] > 0, "it is not acknowledged", status(c.a1))
    pg.kill9()
    with open(os.path.join(pg.data, "postgresql.auto.conf"), "w", encoding="ascii"):
        pass
    pg.start()
    expect(pg.value(f"SELECT count(*) FROM rap.node_join_tokens WHERE id = '{token}'") == "1",
           "the commit whose answer was lost is there", pg.position(cluster))
    whole(c, pg, [token])


def test_mirror_follows_after_postgresql_dies_under_load(env):
    """L6: kill -9 of PostgreSQL; commits go on, and it catches up."""
    c, pg = mirrored(env, 3)
    with Load(c) as load:
        for _ in range(3):
            load.reach(10)
            pg.kill9()
            load.reach(20)
            pg.start()
            wait_until(lambda: status(c.wait_leader())["state"] == "following", "it to follow", 12)
    whole(c, pg, load.acknowledged)


def test_mirror_refuses_a_paused_leader(env):
    """AUTH-07, S13: a leader that slept through an election cannot write, by itself or by hand."""
    c, pg = mirrored(env, 3)
    cluster = c.a1.status()["cluster_id"]
    with Load(c) as load:
        load.reach(10)
        old = c.wait_leader()
        old_claim, _ = pg.position(cluster)
        old.freeze()
        new = c.wait_leader(c.others(old))
        wait_until(lambda: pg.position(cluster)[0] > old_claim, "the new leader to take it over")
        load.reach(10)
        # What a client with the old leader's claim could still try.
        _, index = pg.position(cluster)
        for sql in (f'UPDATE rap.authority_applied SET "index" = {index + 1000},'
                    f" claim = {old_claim} WHERE cluster_id = '{cluster}'",
                    'UPDATE rap.authority_applied SET "claim" = "claim" + 1, "writer_term" ='
                    f" \"writer_term\" - 1 WHERE cluster_id = '{cluster}'"):
            r = pg.psql(sql, user=ROLE, check=False)
            expect("stale writer" in r.stderr, "an old claim is refused", r.stderr)
        old.thaw()
        load.reach(10)
        writer = pg.value("SELECT writer_node_id FROM rap.authority_applied")
        expect(writer != old.id or c.leader() is old, "the old leader did not take it back", writer)
        wait_until(lambda: status_of(old) in ("standby", "following"), "the old leader to stand by")
    whole(c, pg, load.acknowledged)
    expect(new.id is not None, "there was a new leader")


def test_mirror_stands_back_from_a_later_writer(env):
    """AUTH-07: who finds a writer of a later term is fenced, says so, and goes on when that was undone."""
    c, pg = mirrored(env, 1)
    caught_up(c.a1)
    term = pg.value("SELECT writer_term FROM rap.authority_applied")
    cut = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
           " WHERE application_name LIKE 'rap-mirror%'")
    pg.psql(EDIT + "UPDATE rap.authority_applied SET writer_term = 999, writer_node_id = 'other';"
            + cut)
    s = wait_until(lambda: status(c.a1)["state"] == "fenced" and status(c.a1), "it to be fenced")
    expect("node other" in s["last_error"] and "999" in s["last_error"], "it says who", s)
    before = pg.position(c.a1.status()["cluster_id"])
    token = c.a1.ok("token", "create")["id"]
    expect(pg.position(c.a1.status()["cluster_id"]) == before, "nothing is written")
    pg.psql(EDIT + f"UPDATE rap.authority_applied SET writer_term = {term}")
    whole(c, pg, [token])


def status_of(node):
    """What this authority itself says, leader or not."""
    r = node.cli("mirror", "status", "--stale")
    return r.json["state"] if isinstance(r.json, dict) and "state" in r.json else None


# --- PostgreSQL goes back, is edited, runs ahead ---

def test_mirror_restored_from_an_old_backup_is_caught_up(env):
    """S14: a restored position is noticed, audited and caught up; an empty database too."""
    c, pg = mirrored(env, 3)
    with Load(c) as load:
        load.reach(10)
        backup = pg.backup("backup")
        load.reach(30)
        wait_until(lambda: status(c.a1)["lag_entries"] == 0, "it to be behind by nothing")
        pg.stop()
        pg.restore(backup)
        pg.start()
        load.reach(5)
    whole(c, pg, load.acknowledged)
    seen = events(c.a1, "mirror_rewound")
    expect(len(seen) == 1 and "was at" in seen[0]["details"]["detail"], "it is audited", seen)
    pg.psql("DROP DATABASE rap WITH (FORCE)", db="postgres")
    pg.prepare(c.a1)
    whole(c, pg, load.acknowledged)
    expect(status(c.a1)["resyncs"] >= 1, "written as a whole", status(c.a1))


def test_mirror_edited_by_hand_raises_an_alarm(env):
    """S14, S15: verify names the rows, required mode fails closed, a rebuild ends it."""
    c, pg = mirrored(env, 3, "--mode", "required", nodes=2)
    verified(c.a1)
    pg.psql(EDIT + f"UPDATE rap.nodes SET name = 'mallory' WHERE id = '{c.n1.id}';"
            f"DELETE FROM rap.cluster_memberships WHERE node_id = '{c.n2.id}';"
            "INSERT INTO rap.banned_keys SELECT cluster_id, 'ff', 'x', 1, 2 FROM rap.clusters")
    r = c.a2.cli("mirror", "rebuild", "--dry-run")
    expect(r.rc == OK and r.json["differences"] == 3, "a preview shows three rows", r)
    expect(status(c.a1)["state"] == "following", "and raises no alarm")
    r = c.a2.cli("mirror", "verify")
    expect(r.rc == DEGRADED and r.json["differences"] == 3, "verify finds three rows", r)
    rows = {d["table"]: d for d in r.json["rows"]}
    expect(rows["nodes"]["key"] == c.n1.id and rows["nodes"]["what"] == "differs" and
           rows["nodes"]["columns"] == "name", "the edited row and column", rows)
    expect(rows["cluster_memberships"]["what"] == "missing" and
           rows["banned_keys"]["what"] == "extra", "a row less, a row more", rows)
    wait_until(lambda: status(c.a1)["alarm"] == "edited", "the alarm")
    alarms = wait_until(lambda: events(c.a1, "mirror_alarm"), "the alarm in the audit")
    expect(len(alarms) == 1, "one alarm", alarms)
    c.a3.refused(UNAVAILABLE, "mirror_unavailable", "role", "assign", "n1", "relay-node",
                 "--timeout", "1s")
    c.a3.ok("token", "create")
    # The next leader is under the same alarm.
    leader = c.wait_leader()
    leader.kill9()
    new = c.wait_leader(c.others(leader))
    wait_until(lambda: status_of(new) == "failed", "the new leader to be under alarm")
    r = new.cli("mirror", "rebuild", "--yes", "--reason", "test")
    expect(r.rc == OK and r.json["state"] == "following", "a rebuild ends it", r)
    leader.start()
    verified(new)
    c.settle()
    new.ok("role", "assign", "n1", "relay-node")
    expect(len(events(new, "mirror_rebuild")) == 1, "the rebuild is audited")


def test_mirror_ahead_of_the_log_raises_an_alarm(env):
    """S14: entries that the log does not have are never believed; rebuild takes the position back."""
    c, pg = mirrored(env, 1)
    verified(c.a1)
    cut = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
           " WHERE application_name LIKE 'rap-mirror%'")
    pg.psql(EDIT + 'UPDATE rap.authority_applied SET "index" = "index" + 1000;' + cut)
    wait_until(lambda: status(c.a1)["alarm"] == "ahead", "the alarm")
    expect("1000" not in status(c.a1)["mode"], "status")
    token = c.a1.ok("token", "create")["id"]  # async: nothing is refused
    expect(pg.value(f"SELECT count(*) FROM rap.node_join_tokens WHERE id = '{token}'") == "0",
           "nothing is written under alarm")
    c.a1.stop()
    c.a1.start()
    wait_until(lambda: status(c.a1)["state"] == "failed", "the alarm after a restart")
    c.a1.ok("mirror", "rebuild", "--yes")
    verified(c.a1)
    # The same index with another history.
    pg.psql(EDIT + "UPDATE rap.authority_applied SET digest = repeat('0', 64);" + cut)
    wait_until(lambda: status(c.a1)["alarm"] == "diverged", "the alarm")
    c.a1.ok("mirror", "rebuild", "--yes")
    verified(c.a1)


def test_mirror_required_refuses_and_recovers(env):
    """D2: high-risk requests wait for PostgreSQL, the rest goes on, and the way out is always open."""
    c, pg = mirrored(env, 3, "--mode", "required", "--max-lag", "1s", nodes=1)
    c.a1.ok("role", "assign", "n1", "relay-node")
    pg.kill9()
    c.a2.ok("token", "create")

    def refused():
        r = c.a2.cli("role", "assign", "n1", "audit-sink", "--timeout", "100ms")
        if r.rc == OK:  # not yet: take it back
            c.a2.ok("role", "unassign", "n1", "audit-sink")
        expect(r.rc == UNAVAILABLE and says(r, "mirror_unavailable"), "it is refused", r)
        expect("behind" in r.err and "mirror enable" in r.err, "it says why and what to do", r)
        return True
    wait_until(refused, "high-risk requests to be refused")
    code, problem, headers = c.a1.api("POST", "/v1/roles", {"node": "n1", "role": "core-mesh"})
    expect(code == 503 and problem["code"] == "mirror_unavailable" and "Retry-After" in headers,
           "503 with Retry-After", code, problem, headers)
    c.a1.ok("token", "create")
    expect(status(c.a1)["available"] is False and status(c.a1)["last_error"], "status tells why")
    # Rights can be taken away all the same: a stolen host must not stay in because a database is down.
    before = status(c.a1)["reserve_used"]
    c.a2.ok("role", "unassign", "n1", "relay-node")
    c.a2.ok("node", "disable", "n1", "--reason", "stolen?", "--yes")
    c.a2.refused(UNAVAILABLE, "mirror_unavailable", "node", "enable", "n1", "--timeout", "100ms")
    expect(status(c.a1)["reserve_used"] == before + 2, "counted", status(c.a1))
    c.a1.ok("mirror", "enable", "--dsn", pg.dsn(), "--mode", "async", "--no-wait")
    c.a1.ok("node", "enable", "n1")
    c.a1.ok("role", "assign", "n1", "core-mesh")
    c.a1.ok("mirror", "enable", "--dsn", pg.dsn(), "--mode", "required", "--max-lag", "1s",
            "--no-wait")
    wait_until(lambda: not status(c.a1)["available"], "it to be refused again")
    pg.start()
    wait_until(lambda: status(c.a1)["available"], "it to be allowed again")
    c.a1.ok("role", "unassign", "n1", "core-mesh")
    wait_until(lambda: status(c.a1)["reserve_used"] == 0, "the reserve to be whole again")
    whole(c, pg, [])
    c.a1.ok("mirror", "disable", "--yes")
    pg.stop()
    c.a1.ok("role", "assign", "n1", "core-mesh")


def test_mirror_of_two_clusters_in_one_database(env):
    """Rows of one never touch the other's; an alarm of one is none of the other's."""
    pg = postgres(env)
    clusters = [env.new_cluster("x"), env.new_cluster("y")]
    for i, c in enumerate(clusters):
        c.init(f"c{i}")
        if i == 0:
            pg.prepare(c.a1)
        enable(c, pg)
    for c in clusters:
        tokens(c.a1, 5)
    ids = [c.a1.status()["cluster_id"] for c in clusters]
    for c, cluster in zip(clusters, ids):
        answer = verified(c.a1)
        rows = {t["table"]: t["mirror_rows"] for t in answer["tables"]}
        expect(rows["clusters"] == 1 and rows["node_join_tokens"] == 5, "its own rows only", rows)
        expect(pg.position(cluster)[1] == answer["mirror_index"], "its own position")
    expect(pg.value("SELECT count(*) FROM rap.node_join_tokens") == "10", "both are there")
    pg.psql(EDIT + f"DELETE FROM rap.node_join_tokens WHERE cluster_id = '{ids[0]}'")
    expect(clusters[0].a1.cli("mirror", "verify").rc == DEGRADED, "the edited one says so")
    verified(clusters[1].a1)
    clusters[0].a1.ok("mirror", "rebuild", "--yes")
    for c in clusters:
        verified(c.a1)


def test_mirror_role_bound_to_its_cluster(env):
    """Clusters of different owners in one database: a bound role neither sees nor writes another's rows."""
    pg = postgres(env)
    clusters = [env.new_cluster("x"), env.new_cluster("y")]
    ids = []
    for i, c in enumerate(clusters):
        c.init(f"c{i}")
        ids.append(c.a1.status()["cluster_id"])
        if i == 0:
            pg.psql("CREATE DATABASE rap", db="postgres")
        c.a1.ok("mirror", "migrate", "--dsn", pg.dsn(user=ADMIN), "--role", f"writer{i}",
                "--cluster-id", ids[i])
        c.a1.ok("mirror", "enable", "--dsn", pg.dsn(user=f"writer{i}"))
        verified(c.a1)
    for i in range(2):
        expect(pg.value("SELECT cluster_id FROM rap.authority_applied", user=f"writer{i}") == ids[i],
               "it sees its own position alone")
        expect(pg.value("SELECT DISTINCT cluster_id FROM rap.nodes", user=f"writer{i}") == ids[i],
               "and its own rows")
    r = pg.psql("INSERT INTO rap.authority_applied (cluster_id) VALUES ('other')", user="writer0",
                check=False)
    expect("row-level security" in r.stderr, "no position of another's making", r.stderr)
    done = pg.psql("UPDATE rap.authority_applied SET claim = claim + 1 WHERE cluster_id ="
                   f" '{ids[1]}' RETURNING 1", user="writer0")
    expect(done.stdout == "", "another's position is out of reach", done)
    r = clusters[0].a1.cli("mirror", "enable", "--dsn", pg.dsn(user="writer1"), "--timeout", "3s")
    expect(r.rc == TIMED_OUT and "row-level security" in r.err, "a role of another cluster", r)


def test_mirror_torture_smoke(env):
    """A few rounds of tests/e2e/mirror_torture, whose long run is 200."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mirror_torture")
    done = subprocess.run([script, "--rap", env.rap, "--rounds", "10", "--seed", "11"],
                          capture_output=True, text=True, check=False, timeout=220)
    expect(done.returncode == 0 and "10 rounds held" in done.stdout, "10 rounds hold",
           done.stdout[-3000:])


def openssl(folder, *args):
    done = subprocess.run(["openssl", *args], cwd=folder, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"openssl {args[0]}", done.stderr)


def test_mirror_over_tls_verifies_the_server(env):
    """PG-01: sslmode=verify-full against the right and a wrong root, by name, with a client password
    from a passfile."""
    c = env.cluster(authorities=1, nodes=0)
    pg = Postgres(env, tcp=True)
    for name in ("root", "other"):
        openssl(pg.dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
    openssl(pg.dir, "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout",
            "server.key", "-out", "server.csr")
    openssl(pg.dir, "x509", "-req", "-in", "server.csr", "-CA", "root.crt", "-CAkey", "root.key",
            "-CAcreateserial", "-days", "2", "-out", "server.crt")
    for name in ("server.key", "server.crt"):
        pg.own(os.path.join(pg.dir, name))
    os.chmod(os.path.join(pg.dir, "server.key"), 0o600)
    with open(os.path.join(pg.data, "pg_hba.conf"), "w", encoding="ascii") as f:
        f.write("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    pg.start(ssl="on", ssl_cert_file=os.path.join(pg.dir, "server.crt"),
             ssl_key_file=os.path.join(pg.dir, "server.key"))
    pg.prepare(c.a1)
    pg.psql(f"ALTER ROLE {ROLE} PASSWORD 'a-test-password'")
    passfile = os.path.join(env.folder, "pgpass")
    with open(os.open(passfile, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as f:
        f.write("*:*:*:*:a-test-password\n")

    def dsn(host, root):
        return (f"host={host} port={pg.port} dbname=rap user={ROLE} sslmode=verify-full"
                f" sslrootcert={pg.dir}/{root}.crt passfile={passfile}")

    for host, root, error in (("localhost", "other", "certificate"),
                              ("127.0.0.1", "root", "certificate")):
        r = c.a1.cli("mirror", "enable", "--dsn", dsn(host, root), "--timeout", "3s")
        expect(r.rc == TIMED_OUT and error in r.err, f"{host} with {root} is refused", r)
    s = c.a1.ok("mirror", "enable", "--dsn", dsn("localhost", "root"))
    expect(s["state"] == "following", "the right one is accepted", s)
    expect(sessions(pg, "pid IN (SELECT pid FROM pg_stat_ssl WHERE ssl)") == 1, "over TLS")
    verified(c.a1)
