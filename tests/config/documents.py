"""Valid configurations as the parser gives them, and their texts with the line of each key."""

from typing import Any

from hypothesis import strategies as st

from sgpud.config.lines import Path
from sgpud.config.schema.kinds import toml, toml_key

Document = dict[str, Any]

ENTRIES = ("*", "GPU-0a1b", "0", "7", "0000:3b:00.0", "NVIDIA A100*", "Tesla T?", "MIG-1")
RESOURCES = ("example.com/shared-gpu", "a.b/c", "deepomatic.com/shared-a100")
FOLDERS = ("/var/lib/kubelet/device-plugins", "/x", "/data/kubelet/é")

_factors = st.integers(1, 10_000)
_mount = st.fixed_dictionaries(
    {"host": st.sampled_from(FOLDERS), "container": st.just("/usr/local/nvidia")},
    optional={"read_only": st.booleans()},
)


def _xids(step: int) -> st.SearchStrategy[list[int]]:
    """XIDs of one class: no two classes have one in common."""
    return st.lists(st.sampled_from(range(10 * step, 10 * step + 9)), unique=True, max_size=3)


VALID: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "gpus": {
        "allow": st.lists(st.sampled_from(ENTRIES), unique=True),
        "deny": st.lists(st.sampled_from(ENTRIES), unique=True),
    },
    "sharing": {
        "resource": st.sampled_from(RESOURCES),
        "duplication_factor": _factors,
        "share_memory": st.sampled_from(["0", "1GiB", "64MiB", "1.5 GiB"]),
        "reserve_memory": st.sampled_from(["0", "512MiB"]),
        "advertise": st.sampled_from(["largest", "all"]),
        "allow_large_status": st.booleans(),
        "placement": st.sampled_from(["spread", "packed"]),
        "multiple": st.sampled_from(["distinct", "same", "any", "refuse"]),
        "full_guard": st.booleans(),
        "memory_headroom": st.sampled_from(["5%", "2GiB", "2.5 %", "0"]),
        "memory_resume": st.sampled_from(["", "10%", "4GiB"]),
        "resume_after": st.sampled_from(["30s", "0", "1m", "1500ms"]),
        "measure_every": st.sampled_from(["5s", "1s", "0.5m"]),
        "settle": st.sampled_from(["2m", "120s", "0.25h"]),
        "expected_memory": st.sampled_from(["0", "2GiB"]),
    },
    "container": {
        "method": st.sampled_from(
            ["auto", "nvidia-runtime", "volume-mounts", "cdi", "device-nodes"]
        ),
        "cdi_kind": st.sampled_from(["nvidia.com/gpu", "a/b"]),
        "mounts": st.lists(_mount, max_size=1),
    },
    "limits": {
        "memory": st.sampled_from(["auto", "require", "off"]),
        "limit_factor": st.sampled_from([1, 1.0, 1.25, 4]),
        "memory_context": st.sampled_from(["0", "512MiB", "1GiB"]),
        "overuse": st.sampled_from(["report", "evict", "off"]),
        "dry_run": st.booleans(),
        "cool_down": st.sampled_from(["60s", "5s", "10m"]),
        "tolerance": st.sampled_from(["512MiB", "0"]),
        "over_for": st.sampled_from(["30s", "0"]),
        "pressure": st.sampled_from(["95%", "always", "2GiB"]),
        "spare": st.sampled_from([[], ["kube-system/*"], ["a/b-?", "*/*"]]),
    },
    "health": {
        "hold_down": st.sampled_from(["60s", "2m", "0"]),
        "ignore": _xids(1),
        "restart": _xids(2),
        "reset": _xids(3),
        "reboot": _xids(4),
        "uncorrected_ecc": st.sampled_from(["ignore", "drain"]),
        "row_remap_pending": st.sampled_from(["ignore", "reset"]),
        "row_remap_failure": st.sampled_from(["reset", "reboot"]),
        "trust_last_known": st.booleans(),
        "trust_for": st.sampled_from(["120s", "1s"]),
    },
    "kubelet": {
        "api": st.sampled_from(["device-plugin", "dra"]),
        "api_server": st.sampled_from(["auto", "never"]),
        "fast_status": st.booleans(),
        "numa": st.booleans(),
        "plugin_directory": st.sampled_from(FOLDERS),
        "pod_resources": st.sampled_from(FOLDERS),
    },
    "dra": {
        "driver": st.sampled_from(["gpu.deepomatic.com", "a"]),
        "kubeconfig": st.sampled_from(["", "/etc/kubernetes/kubelet.conf"]),
        "node_name": st.sampled_from(["", "node-1.example.com"]),
        "cdi_dir": st.sampled_from(["/var/run/cdi", "/etc/cdi"]),
        "order": st.sampled_from(["placement", "packed", "spread", "fixed"]),
        "reorder_every": st.sampled_from(["10s", "1m"]),
        "evict": st.sampled_from(["never", "unhealthy"]),
        "default_memory": st.sampled_from(["0", "4GiB"]),
    },
    "http": {
        "listen": st.sampled_from(["", "tcp:9449", "tcp:1:interface=127.0.0.1"]),
        "expose_status": st.booleans(),
        "hosts": st.lists(
            st.sampled_from(["node", "node-1.example.com", "a.b"]), max_size=3, unique=True
        ),
    },
    "log": {
        "level": st.sampled_from(["debug", "info", "warn", "error"]),
        "format": st.sampled_from(["auto", "text", "journald", "json"]),
    },
}
"""What a valid configuration can hold for each key of the sections that stand once."""

RULES = st.lists(
    st.fixed_dictionaries(
        {"match": st.sampled_from(ENTRIES)},
        optional={"resource": st.sampled_from(RESOURCES), "duplication_factor": _factors},
    ),
    max_size=3,
    unique_by=lambda rule: rule["match"],
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A valid configuration as the parser would give it, with some of the keys."""
    document: Document = {}
    for section, keys in VALID.items():
        if draw(st.booleans()):
            document[section] = draw(st.fixed_dictionaries({}, optional=keys))
    rules = draw(RULES)
    if "share_memory" in document.get("sharing", {}):
        # A rule with a factor alone would make places of what elsewhere counts memory.
        rules = [{**rule, "resource": f"own.com/r{n}"} for n, rule in enumerate(rules)]
    for number, rule in enumerate(rules):
        if draw(st.booleans()):
            rule |= {"share_memory": "2GiB", "resource": f"memory.com/r{number}"}
    if rules:
        document["gpu"] = rules
    return document


def write(document: Document) -> tuple[str, dict[Path, int]]:
    """A document of sections as a text, and the line of every section, rule and key.

    Sections that are no tables are written first, as simple keys.
    """
    rows: list[str] = []
    lines: dict[Path, int] = {}

    def pair(path: Path, value: Any) -> None:
        rows.append(f"{toml_key(str(path[-1]))} = {toml(value)}  # comment")
        lines[path] = len(rows)

    def table(header: str, path: Path, keys: Document) -> None:
        rows.extend(("# comment", header))
        lines.setdefault(path[:1], len(rows))
        lines[path] = len(rows)
        for name, value in keys.items():
            pair((*path, name), value)

    for name, section in document.items():
        if not (isinstance(section, dict) or (isinstance(section, list) and section)):
            pair((name,), section)
    for name, section in document.items():
        if isinstance(section, dict):
            table(f"[{toml_key(name)}]", (name,), section)
        elif (name,) not in lines:
            for number, rule in enumerate(section):
                table(f"[[{toml_key(name)}]]", (name, number), rule)
    return "\n".join(rows), lines
