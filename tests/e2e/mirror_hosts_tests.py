"""PostgreSQL on several hosts, of which some are lost (SPEC PG-01, PG-02; S13, S14)."""

import signal

from lib import USAGE, expect, wait_until
from cluster_tests import events
from mirror_tests import Load, verified, whole
from pg import ROLE, Postgres


def on_hosts(*servers):
    """One connection string for several servers, in this order."""
    return (f"host={','.join('127.0.0.1' for _ in servers)}"
            f" port={','.join(str(s.port) for s in servers)} dbname=rap user={ROLE}"
            " target_session_attrs=read-write")


def test_mirror_moves_to_a_promoted_standby_that_lagged(env):
    """S13, S14: several hosts in one string; the primary is lost, and its standby, promoted, lacks what had been
    acknowledged: it is noticed, audited and written again."""
    c = env.cluster(authorities=3, nodes=0)
    cluster = c.a1.status()["cluster_id"]
    pg = Postgres(env, tcp=True).start()
    pg.prepare(c.a1)
    standby = Postgres(env, "standby", tcp=True, of=pg).start()
    s = c.a1.ok("mirror", "enable", "--dsn", on_hosts(standby, pg))
    expect(s["state"] == "following" and pg.position(cluster)[1] > 0,
           "the standby only reads: the next host is written to", s)
    with Load(c) as load:
        load.reach(10)
        wait_until(lambda: standby.position(cluster)[1] > 0, "the standby to follow")
        standby.stop_following()
        behind = standby.position(cluster)[1]
        load.reach(30)
        wait_until(lambda: pg.position(cluster)[1] > behind + 5, "the standby to lag")
        pg.kill9()
        standby.promote()
        load.reach(5)
    whole(c, standby, load.acknowledged)
    seen = events(c.a1, "mirror_rewound")
    expect(len(seen) == 1 and "was at" in seen[0]["details"]["detail"], "it is audited", seen)


def test_mirror_tries_the_next_host_when_one_is_silent(env):
    """A host that is frozen or gone lets a connection neither succeed nor fail: the next one gets its turn. So does
    the one after a name that nobody knows."""
    c = env.cluster(authorities=1, nodes=0)
    silent, pg = Postgres(env, "silent", tcp=True).start(), Postgres(env, tcp=True).start()
    pg.prepare(c.a1)
    silent.signal_all(signal.SIGSTOP)
    s = c.a1.ok("mirror", "enable", "--dsn", on_hosts(silent, pg), "--timeout", "30s")
    expect(s["state"] == "following", "the host that answers is found", s)
    dsn = on_hosts(silent, pg).replace("127.0.0.1,", "no-such-host.invalid,")
    s = c.a1.ok("mirror", "enable", "--dsn", dsn, "--allow-insecure", "--timeout", "30s")
    expect(s["state"] == "following", "a name that is not known is passed over", s)
    verified(c.a1)
    r = c.a1.cli("mirror", "enable", "--dsn", on_hosts(silent, pg).replace("host=", "host=127.0.0.1,"))
    expect(r.rc == USAGE and "2 ports for 3 hosts" in r.err, "as many ports as hosts", r)
