"""A PostgreSQL server of a test's own: a data directory under the test's folder, its socket there too,
nothing on the network unless asked for. PostgreSQL refuses to run as root, so a root test runs it as the
system's postgres (or nobody)."""

import glob
import os
import pwd
import shutil
import signal
import subprocess

from lib import LIBC, PR_SET_PDEATHSIG, Failure, expect, free_port, wait_until

ROLE = "rap_mirror"
ADMIN = "admin"


def binary(name):
    """Path of a server program, newest version first."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"),
                   key=lambda p: int(p.split("/")[4]), reverse=True)
    expect(found, "PostgreSQL is installed: ./dev deps test")
    return found[0]


def server_user():
    """(uid, gid) to run the server as, None when this process may."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            p = pwd.getpwnam(name)
            return p.pw_uid, p.pw_gid
        except KeyError:
            continue
    raise Failure("no user to run PostgreSQL as")


def stat_of(pid):
    """Fields after the name in /proc/PID/stat: state, parent, ...; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except OSError:
        return None


def runs(pid):
    stat = stat_of(pid)
    return stat is not None and stat[0] not in "ZX"


class Postgres:
    def __init__(self, env, name="pg", tcp=False, of=None):
        """of: this server is to be a standby of that one, which runs."""
        self.env, self.user = env, server_user()
        self.dir = os.path.join(env.folder, name)
        self.data = os.path.join(self.dir, "data")
        self.port = free_port() if tcp else 5432
        self.tcp, self.process = tcp, None
        self.log_path = os.path.join(self.dir, "log")
        os.makedirs(self.dir)
        self.own(self.dir)
        for path in (env.folder, os.path.dirname(env.folder)):  # ours; the server's user passes
            os.chmod(path, os.stat(path).st_mode | 0o011)
        if of is not None:
            self.command([binary("pg_basebackup"), "-D", self.data, "-h", of.dir, "-p",
                          str(of.port), "-U", ADMIN, "-c", "fast", "-X", "stream", "-R"])
        else:
            self.command([binary("initdb"), "-D", self.data, "-U", ADMIN, "-A", "trust", "-N",
                          "--locale=C", "-E", "UTF8"])
        env.processes.append(self)

    def own(self, path):
        if self.user:
            os.chown(path, *self.user)

    def become(self):
        """In the child, before exec."""
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.user:
            os.setgroups([])
            os.setgid(self.user[1])
            os.setuid(self.user[0])
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def command(self, args, **kw):
        done = subprocess.run(args, capture_output=True, text=True, check=False, cwd=self.dir,
                              preexec_fn=self.become, timeout=60, **kw)
        expect(done.returncode == 0, f"{os.path.basename(args[0])}: exit {done.returncode}",
               done.stderr[-800:])
        return done.stdout

    def start(self, **settings):
        args = [binary("postgres"), "-D", self.data, "-k", self.dir, "-p", str(self.port),
                "-c", "listen_addresses=" + ("127.0.0.1" if self.tcp else ""),
                "-c", "shared_buffers=16MB", "-c", "max_connections=40",
                "-c", "log_min_error_statement=panic"]
        for key, value in settings.items():
            args += ["-c", f"{key}={value}"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(args, stdout=log, stderr=log, cwd=self.dir,
                                            stdin=subprocess.DEVNULL, preexec_fn=self.become)
        self.wait_ready()
        return self

    def wait_ready(self):
        def ready():
            expect(self.process.poll() is None, "PostgreSQL runs", self.tail())
            return self.psql("SELECT 1", check=False).returncode == 0
        wait_until(ready, "PostgreSQL to accept connections")

    def tail(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()[-600:]

    def stop(self):
        """Fast shutdown."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self.process = None

    def pids(self):
        """The postmaster and its children, each of which has a process group of its own."""
        found = [self.process.pid]
        for name in filter(str.isdigit, os.listdir("/proc")):
            stat = stat_of(name)
            if stat is not None and int(stat[1]) == self.process.pid:
                found.append(int(name))
        return found

    def signal_all(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill9(self):
        """The whole server at once, as a host that loses power (but for what the kernel has). The
        postmaster is stopped first: it must not start others, or clean up, in between."""
        self.process.send_signal(signal.SIGSTOP)
        children = self.pids()[1:]
        self.signal_all(signal.SIGKILL)
        self.process.wait()
        self.process = None
        wait_until(lambda: not any(map(runs, children)), "the backends to be gone")
        try:
            os.unlink(os.path.join(self.data, "postmaster.pid"))
        except FileNotFoundError:
            pass

    def cleanup(self):
        if self.process is not None and self.process.poll() is None:
            self.kill9()
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- SQL ---
    def psql(self, sql, user=ADMIN, db="rap", check=True):
        if sql == "SELECT 1":
            db = "postgres"
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-p",
             str(self.port), "-U", user, "-d", db, "-c", sql],
            capture_output=True, text=True, check=False, timeout=60,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
        if check:
            expect(done.returncode == 0, f"psql: {sql[:80]}", done.stderr)
        return done

    def value(self, sql, **kw):
        return self.psql(sql, **kw).stdout.strip()

    def dsn(self, user=ROLE, db="rap", **more):
        extra = "".join(f" {k}={v}" for k, v in more.items())
        return f"host={self.dir} port={self.port} dbname={db} user={user}{extra}"

    def prepare(self, node):
        """A database with the mirror's schema and role."""
        self.psql("CREATE DATABASE rap", db="postgres")
        return node.ok("mirror", "migrate", "--dsn", self.dsn(user=ADMIN))

    def position(self, cluster_id):
        """(claim, index) of a cluster."""
        row = self.value("SELECT claim, \"index\" FROM rap.authority_applied"
                         f" WHERE cluster_id = '{cluster_id}'")
        return tuple(int(x) for x in row.split("|")) if row else (0, 0)

    # --- a standby ---
    def stop_following(self):
        """It lags from here on."""
        self.psql("ALTER SYSTEM SET primary_conninfo = ''")
        self.psql("SELECT pg_reload_conf()")
        wait_until(lambda: self.value("SELECT count(*) FROM pg_stat_wal_receiver") == "0",
                   "the standby to stop following")

    def promote(self):
        expect(self.value("SELECT pg_promote()") == "t", "the standby is promoted", self.tail())

    # --- copies of the data directory ---
    def backup(self, name):
        """A copy as of now, taken while the server runs."""
        to = os.path.join(self.dir, name)
        self.command([binary("pg_basebackup"), "-D", to, "-h", self.dir, "-p", str(self.port),
                      "-U", ADMIN, "-c", "fast", "-X", "stream"])
        return to

    def restore(self, backup):
        """The data directory becomes the backup; the server must be down."""
        shutil.rmtree(self.data)
        shutil.copytree(backup, self.data, symlinks=True)
        for folder, names, files in os.walk(self.data):
            for name in names + files + ["."]:
                self.own(os.path.join(folder, name))
        os.chmod(self.data, 0o700)


def postgres(env, **settings):
    return Postgres(env).start(**settings)
