"""`rap doctor` names what is wrong, in network namespaces where it is really so (SPEC FAB)."""

import base64
import json
import os
import subprocess

from lib import DEGRADED, OK, UNAVAILABLE, clean_env, expect, need_root, wait_until
from netns import NetCluster


def doctor(node, *args, prefix=()):
    """Exit code, and {check code: check} by what failed or warned."""
    done = subprocess.run([*node.prefix, *prefix, node.rap, "doctor", "-o", "json", "--data-dir",
                           node.dir, *args], capture_output=True, text=True, check=False,
                          env=clean_env(), timeout=60)
    answer = json.loads(done.stdout)
    expect(not done.stderr, "nothing on stderr", done.stderr)
    checks = answer["items"]
    for c in checks:
        expect(c["text"] and (c["next"] or c["result"] == "pass"), "a sentence, and what to do", c)
    failed = {c["code"]: c for c in checks if c["result"] == "fail"}
    expect(done.returncode == (DEGRADED if failed else OK), "exit code", done.returncode, failed)
    expect(answer["result"] in ("pass", "warn", "fail") and
           (answer["result"] == "fail") == bool(failed), "result", answer["result"])
    return failed, checks


def healthy(node):
    failed, checks = doctor(node)
    expect(not failed, f"{node.name} is healthy", failed)
    return {c["check"]: c["result"] for c in checks}


def fails(node, code, *args, prefix=()):
    failed, checks = doctor(node, *args, prefix=prefix)
    expect(code in failed, f"{node.name}: {code} is named", failed or checks)
    return failed


class Filter:
    """A rule of nftables in the router: packets that match vanish without a word."""

    def __init__(self, net, rule):
        self.net, self.rule = net, rule

    def nft(self, *command):
        self.net.inside(self.net.router, "nft", *command)

    def __enter__(self):
        self.nft("add", "table", "inet", "t")
        self.nft("add", "chain", "inet", "t", "f", "{ type filter hook forward priority 0; }")
        self.nft("add", "rule", "inet", "t", "f", *self.rule.split(), "drop")

    def __exit__(self, *_):
        self.nft("delete", "table", "inet", "t")


def test_doctor_names_what_the_network_does(env):
    c = NetCluster(env)
    c.init()
    n1 = c.enroll("n1")
    expect(healthy(n1) == {"contact": "pass", "version": "pass", "disk": "pass", "files": "pass",
                           "certificate": "pass", "daemon": "pass", "config": "pass", "path": "pass",
                           "mtu": "pass", "identity": "pass", "clock": "pass"}, "all is looked at",
           healthy(n1))
    healthy(c.a1)
    with Filter(c.net, "udp length > 0"):
        failed = fails(n1, "udp_blocked")
        expect("a1" in failed["udp_blocked"]["subject"], "which authority", failed)
        expect("unreachable_authority" not in failed, "not as if the host were gone", failed)
    with Filter(c.net, f"ip daddr {c.net.addresses['a1']} meta length > 1000"):
        failed = fails(n1, "mtu_black_hole")
        expect("vanish" in failed["mtu_black_hole"]["text"], "the way there is the small one", failed)
        expect("udp_blocked" not in failed, "small packets pass", failed)
    with Filter(c.net, f"ip daddr {c.net.addresses['n1']} meta length > 1000"):
        expect("do not" in fails(n1, "mtu_black_hole")["mtu_black_hole"]["text"],
               "the way back is the small one")
    with Filter(c.net, "meta length > 1300"):
        failed, checks = doctor(n1)
        expect("mtu_small" in [k["code"] for k in checks], "too small for relays", checks)
        expect(not failed, "but enough for QUIC", failed)
    c.net.cut(n1, c.a1)
    fails(n1, "unreachable_authority")
    c.net.mend(n1, c.a1)
    healthy(wait_connected(n1))
    c.a1.stop()
    failed = fails(n1, "unreachable_authority")
    expect("nothing listens" in failed["unreachable_authority"]["text"], "the host is there", failed)


def wait_connected(node):
    wait_until(lambda: node.status()["connected"], f"{node.name} to hear an authority")
    return node


def test_doctor_names_a_wrong_clock(env):
    library = os.path.join(os.path.dirname(env.rap), "tests", "libclockskew.so")
    expect(os.path.exists(library), "tests/libclockskew.so is built beside rap", library)
    control = os.path.join(env.folder, "clockskew")
    skewed = ("env", f"LD_PRELOAD={library}", f"CLOCKSKEW={control}")

    def shift(seconds):
        with open(control, "w", encoding="ascii") as f:
            f.write(str(seconds))

    c = NetCluster(env)
    c.init()
    n1 = c.enroll("n1")
    for seconds, word in ((120, "ahead"), (-120, "behind"), (3 * 365 * 86400, "ahead")):
        shift(seconds)
        failed = fails(n1, "clock_skew", prefix=skewed)
        expect(any(word in k["text"] for k in failed.values()), f"{seconds}: {word}", failed)
        expect("wrong_pin" not in failed and "udp_blocked" not in failed, "and nothing else", failed)
    n1.stop()
    shift(120)
    fails(n1, "clock_skew", prefix=skewed)
    shift(25 * 3600)  # or nobody was heard for a day: what is stored says how old it is
    fails(n1, "config_expired", prefix=skewed)
    healthy(n1)


def test_doctor_names_a_wrong_pin(env):
    """On a host that is about to join, with a token whose pin is that of another root."""
    c = env.cluster(authorities=1, nodes=0)
    path, _ = c.token("--uses", "1")
    with open(path, encoding="ascii") as f:
        text = f.read().strip()
    raw = bytearray(base64.urlsafe_b64decode(text.removeprefix("rapj1_") + "=="))
    host = c.add("h1")
    os.makedirs(host.dir, mode=0o700)
    failed, checks = doctor(host, "--token-file", path)
    expect(not failed, "the way of the token is good", failed)
    expect({"path", "mtu", "identity", "clock"} <= {k["check"] for k in checks}, "looked at", checks)
    raw[20] ^= 1
    bad = env.token_file("rapj1_" + base64.urlsafe_b64encode(raw).decode().rstrip("="))
    expect("udp_blocked" not in fails(host, "wrong_pin", "--token-file", bad), "it answers")
    fails(host, "no_membership")


def test_doctor_names_a_full_disk(env):
    need_root()
    node = env.new_cluster().add("h1")
    os.makedirs(node.dir, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none", node.dir], check=True)
    env.at_end.append(lambda: subprocess.run(["umount", node.dir], check=True))
    expect(node.dir in fails(node, "disk_full")["disk_full"]["next"], "where")
    subprocess.run(["mount", "-o", "remount,size=150m", node.dir], check=True)
    failed, checks = doctor(node)
    expect("disk_full" not in failed and "disk_nearly_full" in [k["code"] for k in checks], "warned",
           checks)


def test_doctor_looks_at_the_host(env):
    c = env.cluster(authorities=3, nodes=1)
    n1 = c.n1
    healthy(n1)
    key = os.path.join(n1.dir, "member", "node.key")
    os.chmod(key, 0o644)
    expect(key in fails(n1, "file_permissions")["file_permissions"]["next"], "chmod is named")
    os.chmod(key, 0o600)
    n1.stop()
    failed, checks = doctor(n1)
    expect(not failed and "not_running" in [k["code"] for k in checks], "stopped, not sick", failed)
    expect([k["check"] for k in checks].count("identity") == 3, "all three are probed", checks)
    for a in c.others(c.a1)[:2]:
        a.kill9()
    wait_until(lambda: not c.a1.status()["quorum"], "the majority to be gone")
    expect("unreachable_authority" in fails(c.a1, "no_quorum"), "and who is gone")


def test_doctor_knows_what_a_host_waits_for(env):
    """What waits for somebody else is not told as a fault of this host: a seed that never ran, a join that was
    not decided, a node whose authorities have no majority."""
    fresh = env.new_cluster("fresh").add("a1")
    r = fresh.cli("status")
    expect(r.rc == UNAVAILABLE and "holds no membership" in r.err and "rap init" in r.err, "what comes first", r)
    fresh.ok("init", "--cluster", "fresh", "--listen", fresh.address, "--name", "a1")
    failed, checks = doctor(fresh)
    expect(not failed and "no_config" in [k["code"] for k in checks], "to be started, not sick", checks)
    c = env.cluster(authorities=3, nodes=1, run_args=("--agent-heartbeat", "700ms"))
    host = c.add("h1")
    path, _ = c.token("--uses", "1")
    expect(host.cli(*host.join_args(path, "--no-wait")).rc == OK, "asked")
    failed, checks = doctor(host)
    pending = [k for k in checks if k["code"] == "join_pending"]
    expect(not failed and len(pending) == 1 and "rap request list" in pending[0]["next"], "asked, not decided",
           checks)
    for a in c.others(c.a1)[:2]:
        a.kill9()
    wait_until(lambda: c.n1.status()["contact_error"] == "no_quorum", "n1 to be told")
    found = fails(c.n1, "no_quorum")["no_quorum"]
    expect("no majority" in found["text"] and found["next"] == "rap doctor on an authority", "and to say so", found)
    r = c.a1.cli("token", "create")
    expect(r.rc == UNAVAILABLE and "trying again for up to 3s" in r.err, "it says how long it waits", r)
