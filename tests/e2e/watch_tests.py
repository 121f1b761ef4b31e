"""What operators watch: metrics, the dashboard and the rules made of them."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import xml.etree.ElementTree

import prom
from lib import Cluster, DENIED, Failure, OK, USAGE, expect, wait_until

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs")

BAD_TEXTS = {
    "no end": "# HELP a A.\n# TYPE a gauge\na 1",
    "no type": "a 1\n",
    "counter without _total": "# HELP a A.\n# TYPE a counter\na 1\n",
    "gauge with _total": "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n",
    "family twice": "# HELP a A.\n# TYPE a gauge\na 1\n# HELP a A.\n# TYPE a gauge\n",
    "sample twice": '# HELP a A.\n# TYPE a gauge\na{x="1"} 1\na{x="1"} 2\n',
    "another family's sample": "# HELP a A.\n# TYPE a gauge\nb 1\n",
    "open label": '# HELP a A.\n# TYPE a gauge\na{x="1} 1\n',
    "raw quote": '# HELP a A.\n# TYPE a gauge\na{x="1"2"} 1\n',
    "no value": "# HELP a A.\n# TYPE a gauge\na \n",
    "hex value": "# HELP a A.\n# TYPE a gauge\na 0x1\n",
    "falling buckets": "# HELP a A.\n# TYPE a histogram\n" + "".join(
        f'a_bucket{{le="{le}"}} {n}\n' for le, n in (("1", 2), ("2", 1), ("+Inf", 2)))
        + "a_sum 1\na_count 2\n",
    "no +Inf": '# HELP a A.\n# TYPE a histogram\na_bucket{le="1"} 2\na_sum 1\na_count 2\n',
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fetch(port, path="/metrics", host=None):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    conn.request("GET", path, headers={"Host": host} if host else {})
    answer = conn.getresponse()
    text = answer.read().decode()
    conn.close()
    return answer.status, answer.getheader("Content-Type"), text


def scrape(node):
    status, kind, text = fetch(node.metrics_port)
    expect(status == 200 and kind.startswith("text/plain; version=0.0.4"), "a scrape", status, kind)
    return prom.parse(text), text


class Watched(Cluster):
    """A cluster whose nodes all serve metrics."""

    def __init__(self, env):
        super().__init__(env, os.path.join(env.folder, "c"))
        env.clusters.append(self)
        self.run_args = []

    def add(self, name, port=None):
        node = super().add(name, port)
        node.metrics_port = free_port()
        node.run_args = ["--overlay", "--metrics", f"127.0.0.1:{node.metrics_port}", *self.run_args]
        return node


def watched(env, nodes=1):
    c = Watched(env)
    c.init()
    for i in range(nodes):
        c.enroll(f"n{i + 1}")
    return c


def test_metrics_say_what_the_cluster_does(env):
    for what, text in BAD_TEXTS.items():
        try:
            prom.parse(text)
        except Failure:
            continue
        raise Failure(f"the reader takes {what}")
    c = watched(env)
    before, text = scrape(c.a1)
    prom.promtool("check", "metrics", text=text)
    again, _ = scrape(c.a1)
    for name, (kind, samples) in before.items():
        for sample, labels, v in samples if kind == "counter" else []:
            expect(prom.value(again, sample, **labels) >= v, f"{name} does not fall", v)
    status = c.a1.status()
    expect(prom.value(before, "rap_raft_role", role="leader") == 1, "leads")
    expect(prom.value(before, "rap_raft_quorum") == 1, "quorum")
    expect(prom.value(before, "rap_raft_term") == status["term"], "term")
    expect(prom.value(before, "rap_raft_leader_info", node_id=status["leader"]) == 1, "leader")
    expect(prom.value(before, "rap_commands_total", kind="join_approve", outcome="ok") == 1, "joins")
    made = prom.value(before, "rap_commands_total", kind="token_create", outcome="ok")
    c.token("--ttl", "1h")
    after, _ = scrape(c.a1)
    expect(prom.value(after, "rap_commands_total", kind="token_create", outcome="ok") == made + 1,
           "a token is a command")
    expect(prom.value(after, "rap_command_commit_seconds_count") >
           prom.value(before, "rap_command_commit_seconds_count"), "which took time")
    expect(prom.value(after, "rap_audit_head") == len(c.a1.ok("audit", "list", "--limit", "500")
                                                      ["items"]), "audit head")
    expect(prom.value(before, "rap_join_requests", status="approved") == 1, "requests by status")
    # An ordinary node, which knows the authority's clock.
    def compared():
        families, _ = scrape(c.n1)
        return families if "rap_agent_clock_ahead_seconds" in families else None
    node = wait_until(compared, "a heartbeat to be answered")
    expect(prom.value(node, "rap_authority") == 0 and "rap_raft_term" not in node, "no authority")
    expect(abs(prom.value(node, "rap_agent_clock_ahead_seconds")) < 5, "one clock")
    expect(prom.value(node, "rap_agent_connected") == 1, "connected")
    ends = prom.value(node, "rap_certificate_expires_timestamp_seconds", certificate="leaf")
    now = prom.value(node, "process_start_time_seconds")
    expect(29 * 86400 < ends - now < 31 * 86400, "leaf of 30 days", ends - now)
    # The same over the socket, for its owner.
    code, _, headers = c.a1.api("GET", "/v1/metrics")
    expect(code == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"),
           "over the socket", code, headers)


def test_metrics_are_for_this_host(env):
    c = Watched(env)
    node = c.init()
    expect(fetch(node.metrics_port, "/v1/status")[0] == 404, "no API")
    expect(fetch(node.metrics_port, "/metrics", host="evil.example")[0] == 404, "no rebinding")
    node.stop()
    r = node.cli("agent", "run", "--metrics", "0.0.0.0:9464")
    expect(r.rc == USAGE and "127.0.0.1" in r.err, "not for other hosts", r)


def test_dashboard_and_rules_use_metrics_there_are(env):
    """Each name they mention is in a real scrape; rules are also checked by promtool where it is."""
    c = watched(env)
    have = set()
    for n in (c.a1, c.n1):
        families, _ = scrape(n)
        have |= {s for _, samples in families.values() for s, _, _ in samples}
    # What only a mirror and other members of the group bring; the names are checked in the source.
    with open(os.path.join(DOCS, "..", "src", "node", "metrics.c"), encoding="utf-8") as f:
        source = f.read()
    special = {"rap_mirror_", "rap_raft_peer_"}
    rules = os.path.join(DOCS, "prometheus", "rap.rules.yml")
    for path, expressions in (
            ("rap.json", prom.dashboard_expressions(os.path.join(DOCS, "grafana", "rap.json"))),
            ("rap.rules.yml", prom.rule_expressions(rules))):
        expect(len(expressions) > 10, f"{path} has expressions", len(expressions))
        for expression in expressions:
            names = prom.names_in(expression)
            expect(names, f"{path}: an expression without a metric", expression)
            for name in names - have:
                expect(any(name.startswith(s) for s in special) and f'"{name}"' in source,
                       f"{path}: {name} is no metric of ours", expression)
    with open(rules, encoding="utf-8") as f:
        alerts = f.read().count("- alert:")
    expect(alerts == len(prom.rule_expressions(rules)), "each alert has its expression", alerts)
    prom.promtool("check", "rules", rules)


SVG = "{http://www.w3.org/2000/svg}"


def rendered(env, svg):
    """Chromium's picture of it, where Chromium is: it draws, so it is well-formed and not empty."""
    chromium = shutil.which("chromium")
    if chromium is None or not os.environ.get("RAP_TEST_CHROMIUM"):
        return
    png = os.path.join(env.folder, "map.png")
    subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                    f"--screenshot={png}", "--window-size=900,940", f"file://{svg}"],
                   capture_output=True, check=True, timeout=60)
    expect(os.path.getsize(png) > 10000, "a picture", os.path.getsize(png))


def test_mesh_is_drawn(env):
    """The text and the picture hold each node, each link and its figures; the same mesh, the same bytes."""
    c = Watched(env)
    c.run_args = ["--agent-heartbeat", "500ms"]
    c.init()
    for name in ("r1", "n1", "n2"):
        c.enroll(name)
    c.a1.ok("role", "assign", "r1", "relay-node", "--yes")
    c.a1.ok("node", "mesh", "n1", "--region", "eu", "--yes")

    def linked():
        links = c.a1.ok("mesh", "links")["items"]
        pairs = {(k["from_node_name"], k["to_node_name"]) for k in links if k["status"] == "up"}
        return {("n1", "r1"), ("r1", "n1"), ("n2", "r1"), ("r1", "n2")} <= pairs
    wait_until(linked, "links to be reported")
    svg = os.path.join(env.folder, "map.svg")
    r = c.a1.cli("mesh", "map", "--svg", svg)
    expect(r.rc == OK and os.stat(svg).st_mode & 0o077 == 0, "for the owner alone", r)
    root = xml.etree.ElementTree.parse(svg).getroot()
    titles = [e.text for e in root.iter(f"{SVG}title")]
    for name, kind in (("a1", "authority"), ("r1", "relay"), ("n1", "node"), ("n2", "node")):
        expect(f"{name}: {kind}, healthy" in titles, f"{name} is drawn", titles)
        expect(name in [e.text for e in root.iter(f"{SVG}text")], f"{name} has its name")
    expect(any(re.fullmatch(r"r1 - n1: up, [0-9.]+ ms, [0-9.]+ % lost, \d+ routes", t)
               for t in titles), "the link is drawn", titles)
    expect("eu" in [e.text for e in root.iter(f"{SVG}text")], "and the region")
    text = subprocess.run([env.rap, "mesh", "map", "--data-dir", c.a1.dir], capture_output=True,
                          text=True, check=True).stdout
    expect("1 authorities, 1 relays, 2 other nodes" in text and "\neu\n  n1 " in text, "in text", text)
    rendered(env, svg)
    # Only who owns an authority's socket sees it.
    expect(c.n1.cli("mesh", "map").rc == DENIED, "not on an ordinary node", c.n1.cli("mesh", "map"))
