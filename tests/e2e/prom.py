"""A strict reader of the text exposition format of Prometheus, version 0.0.4: what a scrape of ours must
satisfy, which is more than a server asks for."""

import json
import math
import re
import shutil
import subprocess

from lib import Failure

NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
LABEL = re.compile(rf'({NAME})="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')
SAMPLE = re.compile(rf"^({NAME})(?:\{{(.*)\}})? (\S+)$")
VALUE = re.compile(r"^([+-]?Inf|NaN|-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?)$")


def bad(number, line, why):
    raise Failure(f"line {number}: {why}: {line!r}")


def labels_of(number, line, text):
    labels, at = {}, 0
    while text and at < len(text):
        m = LABEL.match(text, at)
        if not m:
            bad(number, line, "labels")
        if m[1] in labels:
            bad(number, line, f"label {m[1]} twice")
        labels[m[1]] = m[2].replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
        at = m.end()
    if text is not None and (not text or text.endswith(",")):
        bad(number, line, "empty labels")
    return labels


def check_histogram(name, samples):
    series = {}
    for sample, labels, value in samples:
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        series.setdefault(rest, {"le": [], "sum": None, "count": None})
        kind = sample.removeprefix(name + "_")
        if kind == "bucket":
            series[rest]["le"].append((float(labels["le"].replace("+Inf", "inf")), value))
        else:
            series[rest][kind] = value
    for rest, s in series.items():
        bounds = [b for b, _ in s["le"]]
        counts = [c for _, c in s["le"]]
        if bounds != sorted(set(bounds)) or not bounds or bounds[-1] != math.inf:
            raise Failure(f"{name}{rest}: bounds {bounds}")
        if counts != sorted(counts) or counts[-1] != s["count"] or s["sum"] is None:
            raise Failure(f"{name}{rest}: {counts}, count {s['count']}, sum {s['sum']}")


def parse(text):
    """{family: (type, [(sample name, labels, value)])}."""
    if not text.endswith("\n"):
        raise Failure("the last line does not end")
    families, name, helped, seen = {}, None, None, set()
    for number, line in enumerate(text[:-1].split("\n"), 1):
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            if helped in families or len(line.split(" ", 3)) < 4:
                bad(number, line, "HELP")
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name != helped or name in families or kind not in ("counter", "gauge", "histogram"):
                bad(number, line, "TYPE")
            if (kind == "counter") != name.endswith("_total"):
                bad(number, line, "a counter ends in _total and nothing else does")
            families[name] = (kind, [])
            continue
        m = SAMPLE.match(line)
        if not m or not VALUE.match(m[3]):
            bad(number, line, "no sample")
        labels = labels_of(number, line, m[2])
        value = float(m[3].replace("Inf", "inf"))
        kind = families[name][0] if name else None
        names = [f"{name}_{s}" for s in ("bucket", "sum", "count")] if kind == "histogram" else [name]
        if m[1] not in names or (kind == "counter" and not value >= 0):
            bad(number, line, f"does not belong to {name}")
        if ("le" in labels) != m[1].endswith("_bucket") and kind == "histogram":
            bad(number, line, "le")
        key = (m[1], tuple(sorted(labels.items())))
        if key in seen:
            bad(number, line, "twice")
        seen.add(key)
        families[name][1].append((m[1], labels, value))
    for name, (kind, samples) in families.items():
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def value(families, sample, **labels):
    """Of the one sample with these labels (and perhaps others)."""
    found = [v for _, s in families.values() for n, have, v in s
             if n == sample and labels.items() <= have.items()]
    if len(found) != 1:
        raise Failure(f"{len(found)} samples of {sample} {labels}")
    return found[0]


def promtool(*args, text=None):
    """Whether promtool is here; raises when it complains."""
    tool = shutil.which("promtool")
    if tool is None:
        return False
    done = subprocess.run([tool, *args], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0 or (text is not None and done.stderr.strip()):
        raise Failure(f"promtool {' '.join(args)}: {done.stdout} {done.stderr}")
    return True


def names_in(expression):
    """The metrics that an expression of PromQL of ours mentions."""
    return set(re.findall(r"\b(?:rap|process)_[a-z0-9_]+", expression))


def dashboard_expressions(path):
    with open(path, encoding="utf-8") as f:
        board = json.load(f)
    return [t["expr"] for p in board["panels"] for t in p.get("targets", [])]


def rule_expressions(path):
    """The file is ours, and each expr stands on its line or in the block after `expr: |`."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    return re.findall(r"^\s+expr: (?:\|\n)?(.+?)(?=^\s+(?:for|labels|annotations|- ):?)", text,
                      re.M | re.S)
