"""The configuration: what is valid, what is not, and how that is said."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest

from aibenchd import errors, faults, plugins, settings, yamlfile
from aibenchd.devices import local as local_device
from aibenchd.report import http

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config" / "aibenchd.yaml"

GOOD = """\
repositories:
  - name: engine
    url: https://example.org/engine.git
    framework: pytorch
devices:
  - name: host
    kind: local
    tags: [quick]
benchmarks:
  - specification: model.json
sinks:
  - name: far
    kind: http
    url: https://example.org/records
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "aibenchd.yaml"
    path.write_text(text)
    return path


def found(directory: Path, text: str) -> list[errors.Fault]:
    with pytest.raises(errors.InvalidFileError) as caught:
        settings.load(write(directory, text))
    return caught.value.faults


def with_http(text: str) -> str:
    """The shipped configuration with its example of a sink switched on."""
    start = text.index("  # - name: dashboard")
    end = text.index("\n\n", start)
    return text[:start] + re.sub(r"^  # ", "  ", text[start:end], flags=re.MULTILINE) + text[end:]


def with_examples(text: str) -> str:
    """The shipped configuration with all its examples switched on; devices of this host then need CPUs of their own."""
    return re.sub(r"^  # (?=- |  )", "  ", text, flags=re.MULTILINE).replace("cpus: []", "cpus: [0]", 1)


def test_devices_and_sinks_are_of_their_own_kind(tmp_path: Path) -> None:
    loaded = settings.load(write(tmp_path, GOOD))
    (device,), (sink,) = loaded.devices, loaded.sinks
    assert isinstance(device, local_device.Settings)
    assert device.minimum_free == 1 << 30
    assert isinstance(sink, http.Http.Settings)
    assert json.loads(loaded.model_dump_json())["devices"][0]["minimum_free"] == "1GiB"
    assert loaded.model_dump()["sinks"][0]["url"] == "https://example.org/records"


def test_a_kind_is_imported_only_when_it_is_named(tmp_path: Path) -> None:
    write(tmp_path, "devices: [{name: host, kind: local}]")
    program = (
        "import sys, pathlib; from aibenchd import settings; before = set(sys.modules)\n"
        "settings.load(pathlib.Path(sys.argv[1]))\n"
        "print('aibenchd.devices.local' in before, 'aibenchd.devices.local' in sys.modules,"
        " {'aibenchd.report.http', 'httpx', 'sqlalchemy', 'numpy', 'torch', 'aiohttp'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "aibenchd.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split(None, 2) == ["False", "True", "set()\n"]


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("https://example.org/engine.git", "../engine") + "    token_file: secrets/far\n    ca_file: ca.pem\n"
    text += "state_directory: state\nstatus: {socket: ./s.sock}\nmodels: {root: /srv}\n"
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path.parent)
    loaded = settings.load(Path(tmp_path.name) / "aibenchd.yaml")
    (sink,) = loaded.sinks
    assert isinstance(sink, http.Http.Settings)
    assert loaded.state_directory == tmp_path / "state"
    assert loaded.status.socket == tmp_path / "s.sock"
    assert loaded.models.root == Path("/srv")
    assert loaded.builds.frameworks_directory == tmp_path / "specifications" / "frameworks"
    assert loaded.benchmarks[0].specification == tmp_path / "model.json"
    assert (sink.token_file, sink.ca_file) == (tmp_path / "secrets" / "far", tmp_path / "ca.pem")
    assert loaded.repositories[0].url == f"{tmp_path}/../engine"


def test_a_credential_without_a_slash_is_left_to_systemd(tmp_path: Path) -> None:
    keys = "credentials: {ssh_key_file: engine-key, known_hosts_file: ./hosts, token_file: /etc/token}"
    loaded = settings.load(write(tmp_path, GOOD.replace("framework: pytorch", f"framework: pytorch\n    {keys}")))
    assert list(settings.credential_files(loaded)) == [
        (("repositories", 0, "credentials", "ssh_key_file"), Path("engine-key")),
        (("repositories", 0, "credentials", "known_hosts_file"), tmp_path / "hosts"),
        (("repositories", 0, "credentials", "token_file"), Path("/etc/token")),
    ]


@pytest.mark.parametrize("given", ["2000000000", "2e9", '"2000000000"'])
def test_a_frequency_may_be_a_number_of_hertz(tmp_path: Path, given: str) -> None:
    text = f"devices: [{{name: a, kind: simulated, conditioning: {{frequency: {given}}}}}]"
    assert settings.load(write(tmp_path, text)).devices[0].conditioning.frequency == "2000000000"


def test_what_is_dumped_loads_again_as_the_same(tmp_path: Path) -> None:
    loaded = settings.load(write(tmp_path, with_http(CONFIG.read_text())))
    assert settings.load(write(tmp_path, loaded.model_dump_json())) == loaded


FREQUENCY = "devices[0].conditioning.frequency"
FAULTS = [
    # file, line of the fault, key, what its message says
    ("repositories: {}", 1, "repositories", "expected a list, found keys with values"),
    ("devices: host", 1, "devices", "expected a list, found the text 'host'; put brackets around it"),
    ("builds: []", 1, "builds", "expected keys with values, found a list"),
    ("- a", 1, "", "expected keys with values, found a list"),
    ("", 1, "", "expected keys with values, found nothing"),
    ("version: 2", 1, "version", "expected 1, found the number 2"),
    ("\nretentoin: {}", 2, "retentoin", "is no key here; did you mean 'retention'?"),
    ("builds:\n  paralel: 2", 2, "builds.paralel", "is no key here; did you mean 'parallel'?"),
    ("status:\n  xyzzy: 2", 2, "status.xyzzy", "known: group, metrics_listen, mode, operators, socket"),
    ("builds: {parallel: '2'}", 1, "builds.parallel", "expected a whole number, found the text '2'; take the quotes away"),
    ("builds: {parallel: 2x}", 1, "builds.parallel", "expected a whole number, found the text '2x'"),
    ("builds: {same_host: 'true'}", 1, "builds.same_host", "found the text 'true'; take the quotes away"),
    ("experiment: {alpha: '1e-3'}", 1, "experiment.alpha", "found the text '1e-3'; take the quotes away"),
    ("experiment: {min_effect: 2.5%}", 1, "experiment.min_effect", "expected a number, found the text '2.5%'; write it as 0.025"),
    ("builds: {parallel: 2.5}", 1, "builds.parallel", "expected a whole number, found the number 2.5"),
    ("builds: {parallel: 0}", 1, "builds.parallel", "expected 1 or more, found the number 0"),
    ("builds: {parallel: true}", 1, "builds.parallel", "expected a whole number, found true"),
    ("builds: {same_host: yes}", 1, "builds.same_host", "expected true or false, found the text 'yes'"),
    ("builds: {timeout: 90}", 1, "builds.timeout", "such as 90s, 15m or 1h30m, found the number 90"),
    ("builds: {timeout: 0s}", 1, "builds.timeout", "expected a duration of at least 1ms, found the text '0s'"),
    ("builds: {cache_size: 20G}", 1, "builds.cache_size", "such as 512MiB or 20GiB, found the text '20G'"),
    ("builds: {env: {JOBS: 8}}", 1, "builds.env.JOBS", "expected text, found the number 8; put quotes around it"),
    ("builds: {env: {a-b: x}}", 1, "builds.env.a-b", "expected a variable's name"),
    ("builds: {layout: {LDFLAGS: -fuse-ld=lld}}", 1, "builds.layout", "expected {seed} in one of them"),
    ("verify: {pages_a_month: 1, false_discovery_rate: 0.1}", 1, "verify", "choose one: expected pages_a_month"),
    ("experiment: {max_blocks: 1001}", 1, "experiment.max_blocks", "expected at most 1,000, not 1,001: all blocks are weighed"),
    ("builds: {layout: {LDFLAGS: 'x={sed}'}}", 1, "builds.layout", "LDFLAGS: expected no placeholder but {seed}, found '{sed}'"),
    ("builds: {layout: {LDFLAGS: 'x={seed'}}", 1, "builds.layout", "LDFLAGS: expected no placeholder but {seed}, found '{seed'"),
    ("experiment: {alpha: 0.7}", 1, "experiment.alpha", "expected less than 0.5, found the number 0.7"),
    ("experiment: {alpha: }", 1, "experiment.alpha", "expected a number, found nothing"),
    ("experiment: {order: coins}", 1, "experiment.order", "expected 'coin' or 'pairs', found the text 'coins'"),
    ("status: {mode: 0660}", 1, "status.mode", "expected text, found the number 660; put quotes around it"),
    ('status: {mode: "rw"}', 1, "status.mode", 'four octal digits in quotes, such as "0660"'),
    ("status: {metrics_listen: '9464'}", 1, "status.metrics_listen", "expected host:port, such as 127.0.0.1:9464"),
    ("run: {user: a, launcher: /b}", 1, "run", "user and launcher exclude each other"),
    ("devices:\n- name: a", 2, "devices[0].kind", "is required, as text; known: "),
    ("sinks:\n- {name: a, knd: screen}", 2, "sinks[0].kind", "; 'knd' may be a misspelling of it"),
    (
        "devices:\n- {name: a, kind: lokal}",
        2,
        "devices[0].kind",
        "'lokal' is none of the installed kinds of devices; did you mean 'local'?",
    ),
    ("devices:\n- {name: a,\n   kind: local, cpu: [1]}", 3, "devices[0].cpu", "is no key here; did you mean 'cpus'?"),
    ("devices: [{kind: local, name: a, host: b}]", 1, "devices[0].host", "is no key here; it belongs to the kinds ssh, ssh-gpu"),
    ("devices: [{kind: local, name: a, screen_off: on}]", 1, "devices[0].screen_off", "it belongs to the kind adb"),
    ("sinks: [{kind: screen, name: a, token_file: b}]", 1, "sinks[0].token_file", "it belongs to the kind http"),
    (
        "devices: [{kind: simulated, name: a, frequencies: []}]",
        1,
        "devices[0].frequencies",
        "expected a list of 1 or more, found an empty one",
    ),
    *(
        (f"devices: [{{kind: simulated, name: a, conditioning: {{frequency: {given}}}}}]", 1, FREQUENCY, f"expected {said}")
        for given, said in (
            ("2 GHz", "max, min, mid or a number of Hz, not '2 GHz'; write it as 2000000000"),
            ("1410.5MHz", "max, min, mid or a number of Hz, not '1410.5MHz'; write it as 1410500000"),
            ("2.5", "max, min, mid or a number of Hz, found the number 2.5"),
            ("-5", "max, min, mid or a number of Hz"),
            ("full", "max, min, mid or a number of Hz, found the text 'full'"),
        )
    ),
    ("devices: [{kind: local}]", 1, "devices[0].name", "is required: what benchmarks, status and records call it"),
    ("devices: [{kind: local, nmae: a}]", 1, "devices[0].nmae", "is no key here; did you mean 'name'?"),
    ("devices: [{kind: local, name: a b}]", 1, "devices[0].name", "expected a name of letters, digits"),
    ("devices: [{kind: local, name: a, cpus: [-1]}]", 1, "devices[0].cpus[0]", "expected 0 or more, found the number -1"),
    ("devices: [7]", 1, "devices[0]", "expected keys with values, found the number 7"),
    ("sinks: [{name: a, kind: http}]", 1, "sinks[0].url", "is required"),
    ("sinks: [{name: a, kind: http, url: 'ftp://x'}]", 1, "sinks[0].url", "found the text 'ftp://x'"),
    (
        "sinks: [{name: a, kind: http, url: 'http://x', format: xml}]",
        1,
        "sinks[0].format",
        "none of the installed kinds of formats; known: ",
    ),
    ("sinks: [{name: a, kind: http, url: 'http://x', format: {kind: otpl}}]", 1, "sinks[0].format.kind", "did you mean 'otlp'?"),
    (
        "sinks:\n- {name: a, kind: http, url: 'http://x', format: {kind: webhook,\n   tmplate: {}}}",
        3,
        "sinks[0].format.tmplate",
        "is no key here; did you mean 'template'?",
    ),
    (
        "sinks:\n- {name: a, kind: http, url: 'http://x', format: {kind: webhook, template: {a: [x,\n   'by {auther}']}}}",
        3,
        "sinks[0].format.template.a[1]",
        "there is no placeholder '{auther}'; did you mean 'author'?",
    ),
    (
        "sinks: [{name: a, kind: http, url: 'http://x', format: {kind: webhook, template: {a: '{'}}}]",
        1,
        "sinks[0].format.template.a",
        "one that is no placeholder's is written twice",
    ),
    (
        "sinks: [{name: a, kind: http, url: 'http://x', format: {kind: webhook, on: [mend]}}]",
        1,
        "sinks[0].format.on[0]",
        "expected 'confirmed', 'culprit', 'mended' or 'accepted'",
    ),
    (
        "sinks: [{name: a, kind: http, url: 'http://x', format: webhook, records: all}]",
        1,
        "sinks[0]",
        "the format webhook is of alerts alone; leave this key out",
    ),
    (
        "sinks: [{name: a, kind: http, url: 'http://x', format: influxdb-v2}]",
        1,
        "sinks[0].format",
        "is not told by its name alone: write {kind: influxdb-v2, bucket: …}",
    ),
    (
        "sinks:\n- {name: a, kind: http, url: 'http://x', format: {kind: influxdb-v2,\n   org: b}}",
        2,
        "sinks[0].format.bucket",
        "is required: name or id",
    ),
    (
        "sinks: [{name: a, kind: http, url: 'http://x', format: {kind: commit-status, repositories: {a: b}}}]\n"
        "repositories: [{name: a, url: /a, framework: pytorch}]",
        1,
        "sinks[0].format.repositories.a",
        "expected owner/name",
    ),
    ("sinks: [{name: a, kind: http, url: 'http://x', url_file: /y}]", 1, "sinks[0]", "expected either url or"),
    ("repositories: [{name: a, framework: pytorch}]", 1, "repositories[0].url", "is required: as git or hg clone takes it"),
    ("repositories: [{name: a, url: /a, framework: torch}]", 1, "repositories[0].framework", "did you mean 'pytorch'?"),
    ("repositories: [{name: a, url: /a, framework: pytorch, kind: svn}]", 1, "repositories[0].kind", "known: git, hg"),
    ("repositories: [{name: a, url: --x, framework: pytorch}]", 1, "repositories[0].url", "does not begin with '-'"),
    (
        "repositories:\n- {name: a, url: /a, framework: pytorch,\n   baseline: {rule: pinned}}",
        3,
        "repositories[0].baseline",
        "the rule 'pinned' needs a commit to pin to",
    ),
    ("bisect: {confidence: 97}", 1, "bisect.confidence", "expected a probability, below 1: 97 % is 0.97"),
    ("bisect: {confidence: 1}", 1, "bisect.confidence", "less than 1"),
    ("user_string: a\nuser_string: b", 2, "user_string", "is given twice, first in line 1, column 1"),
]


@pytest.mark.parametrize(("text", "line", "key", "words"), FAULTS)
def test_a_fault_names_line_key_and_what_was_expected(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    (fault,) = found(tmp_path, text)
    assert (fault.line, fault.key) == (line, key)
    assert words in fault.message
    assert fault.file == str(tmp_path / "aibenchd.yaml")


PASSWORD = "https://me:secret@example.org/engine"
TOKEN = "https://ghp_0123456789abcdef0123@example.org/engine"
FITTING = [
    # what is changed in GOOD, and into what; key of the fault; what it says
    (
        "name: host",
        "name: host\n    kind: local\n    cpus: [1]\n  - name: host\n    cpus: [2]",
        "devices[1].name",
        "'host' is taken by devices[0]; each has a name of its own",
    ),
    (
        "kind: http",
        "kind: http\n    format: {kind: commit-status, repositories: {engin: a/b}}",
        "sinks[0].format.repositories.engin",
        "no repository is called 'engin'; did you mean 'engine'?",
    ),
    ("name: far", "name: far\n    kind: screen\n  - name: far", "sinks[1].name", "'far' is taken by sinks[0]"),
    ("l.json", "l\n    devices: {names: [hots]}", "benchmarks[0].devices.names[0]", "called 'hots'; did you mean 'host'?"),
    ("l.json", "l\n    devices: {exclude: [x]}", "benchmarks[0].devices.exclude[0]", "no device is called 'x'; known: host"),
    (
        "l.json",
        "l\n    devices: {kinds: [adb]}",
        "benchmarks[0].devices.kinds[0]",
        "no device is of the kind 'adb'; known: local",
    ),
    ("l.json", "l\n    devices: {tags: [quik]}", "benchmarks[0].devices.tags[0]", "has the tag 'quik'; did you mean 'quick'?"),
    ("l.json", "l\n    repositories: [engin]", "benchmarks[0].repositories[0]", "no repository is called 'engin'; did you mean"),
    ("https://example.org/engine", PASSWORD, "repositories[0].url", "holds a password or token before the @"),
    ("https://example.org/engine", TOKEN, "repositories[0].url", "name that with token_file"),
    ("kind: http", "kind: http\n    token: abc", "sinks[0].token", "put it into a file that only the daemon can read"),
    ("kind: local", "kind: local\n    env: {HF_TOKEN: abc}", "devices[0].env.HF_TOKEN", "secrets are not kept in this file"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), FITTING)
def test_parts_that_do_not_fit_together_are_a_fault(tmp_path: Path, old: str, new: str, key: str, words: str) -> None:
    text = GOOD.replace(old, new)
    (fault,) = found(tmp_path, text)
    assert fault.key == key
    assert words in fault.message
    assert key.rpartition(".")[2].partition("[")[0] in text.splitlines()[fault.line - 1]


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    text = GOOD.replace("example.org/engine", "me:hunter2@example.org/engine") + "    password: hunter3\n    token: [hunter4]\n"
    messages = [str(fault) for fault in found(tmp_path, text)]
    assert len(messages) == 3
    assert not any("hunter" in message for message in messages)


def test_an_ordinary_user_in_an_address_is_no_secret(tmp_path: Path) -> None:
    for url in ("ssh://git@example.org/engine", "git@example.org:engine", "https://org@dev.example.org/org/p"):
        assert settings.load(write(tmp_path, GOOD.replace("https://example.org/engine.git", url))).repositories[0].url == url


@pytest.mark.parametrize(
    ("devices", "keys"),
    [
        ("{name: a, kind: local, cpus: [0, 1]}, {name: b, kind: local, cpus: [2]}", []),
        ("{name: a, kind: local, cpus: [0, 1]}, {name: b, kind: local, cpus: [2, 1]}", ["devices[1].cpus[1]"]),
        ("{name: a, kind: local}, {name: b, kind: local, cpus: [1]}", ["devices[0].cpus"]),
        ("{name: a, kind: local}, {name: b, kind: local, cpus: []}", ["devices[0].cpus", "devices[1].cpus"]),
        ("{name: a, kind: local, cpus: [0]}, {name: b, kind: gpu, index: 0, cpus: [0]}", ["devices[1].cpus[0]"]),
        ("{name: a, kind: gpu, index: 0}, {name: b, kind: gpu, index: 1, cpus: [1]}", ["devices[0].cpus"]),
        ("{name: a, kind: local}, {name: b, kind: simulated}", []),
    ],
)
def test_local_devices_share_no_cpu(tmp_path: Path, devices: str, keys: list[str]) -> None:
    path = write(tmp_path, f"devices: [{devices}]")
    try:
        settings.load(path)
        said = []
    except errors.InvalidFileError as error:
        said = [fault.key for fault in error.faults]
    assert said == keys


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ("host: box", []),
        ("host: box, directory: /d", ["devices[2].directory"]),
        ("host: BOX, port: 22, directory: /d/", ["devices[2].directory"]),
        ("host: box, directory: ~/.aibenchd/a", ["devices[2].directory"]),
        ("host: box, directory: .aibenchd/a", ["devices[2].directory"]),
        ("host: other, directory: /d", []),
        ("host: box, port: 23, directory: /d", []),
        ("host: box, username: bench, directory: /d", []),
        ("host: box, jump: [{host: gate}], directory: /d", []),
    ],
)
def test_no_two_devices_share_a_directory_behind_one_ssh_server(tmp_path: Path, more: str, keys: list[str]) -> None:
    first = "{name: a, kind: ssh, host: box}, {name: b, kind: ssh-gpu, gpu: '0', host: box, directory: /d}"
    path = write(tmp_path, f"devices: [{first}, {{name: c, kind: ssh, {more}}}]")
    try:
        settings.load(path)
        found: list[errors.Fault] = []
    except errors.InvalidFileError as error:
        found = error.faults
    assert [fault.key for fault in found] == keys
    assert all("which would end each other's sessions; give each a directory of its own" in fault.message for fault in found)


@pytest.mark.parametrize(
    ("devices", "keys"),
    [
        ("{name: a, kind: adb, serial: X}, {name: b, kind: adb, serial: Y}", []),
        ("{name: a, kind: adb, serial: X}, {name: b, kind: adb, serial: X, directory: /data/local/tmp/b}", []),
        ("{name: a, kind: adb, serial: X}, {name: b, kind: adb, serial: X}", ["devices[1].serial"]),
        ("{name: a, kind: adb, address: 'p:5'}, {name: b, kind: adb, address: 'p:5'}", ["devices[1].address"]),
    ],
)
def test_one_phone_is_not_two_devices(tmp_path: Path, devices: str, keys: list[str]) -> None:
    path = write(tmp_path, f"devices: [{devices}]")
    try:
        settings.load(path)
        said = []
    except errors.InvalidFileError as error:
        said = [fault.key for fault in error.faults]
    assert said == keys


def test_all_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "version: 3\nuser_string: 5\nuser_string: 6\ndevices: [{name: a, kind: nil}, {name: a, kind: local, cpus: x}]\n"
        "sinks: [{kind: http, url: 5}]\nbenchmarks: [{specification: a, devices: {tags: [b]}}]\nextra: 1\n"
    )
    assert [(fault.line, fault.key) for fault in found(tmp_path, text)] == [
        (1, "version"),
        (3, "user_string"),
        (4, "devices[0].kind"),
        (4, "devices[1].name"),
        (4, "devices[1].cpus"),
        (5, "sinks[0].name"),
        (5, "sinks[0].url"),
        (6, "benchmarks[0].devices.tags[0]"),
        (7, "extra"),
    ]


def test_a_kind_that_cannot_be_imported_is_a_fault(tmp_path: Path) -> None:
    """With a package installed that offers two kinds, one whose module is broken and one that is not there."""
    metadata = tmp_path / "vendor-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[aibenchd.devices]\nbroken = vendor_broken:Device\nabsent = vendor_absent:Device\n"
    )
    (tmp_path / "vendor_broken.py").write_text("1 / 0\n")
    write(tmp_path, "devices:\n- {name: a, kind: broken}\n- {name: b, kind: absent}\n- {name: c, kind: brokn}\n")
    program = (
        "import pathlib, sys; from aibenchd import errors, settings\n"
        "try: settings.load(pathlib.Path(sys.argv[1]))\n"
        "except errors.InvalidFileError as error:\n"
        "    for fault in error.faults: print(fault.line, fault.key, fault.message)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "aibenchd.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    broken, absent, unknown = done.stdout.splitlines()
    assert broken == "2 devices[0].kind 'broken' of devices cannot be imported: ZeroDivisionError: division by zero"
    assert absent.startswith("3 devices[1].kind 'absent' of devices cannot be imported: ModuleNotFoundError")
    assert unknown.startswith("4 devices[2].kind 'brokn' is none of the installed kinds of devices; did you mean 'broken'?")


def test_a_format_says_which_package_it_lacks(tmp_path: Path) -> None:
    path = write(tmp_path, "sinks:\n- {name: a, kind: http, url: 'http://x', format: otlp}")
    program = (
        "import pathlib, sys; sys.modules['opentelemetry.proto'] = None; from aibenchd import errors, settings\n"
        "try: settings.load(pathlib.Path(sys.argv[1]))\n"
        "except errors.InvalidFileError as error: print(error)\n"
        "assert 'sinks-http' in settings.json_schema()['$defs']"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    place = f"{path}:2:42: sinks[0].format: 'otlp' of formats cannot be imported"
    assert done.stdout.startswith(place), done.stdout
    assert "opentelemetry-proto is not installed: pip install 'aibenchd[otlp]'" in done.stdout


def test_a_large_farm_loads(tmp_path: Path) -> None:
    devices = [{"name": f"d{index}", "kind": "local", "cpus": [index], "tags": ["a", "b"]} for index in range(1000)]
    benchmarks = [{"specification": f"{index}.json", "devices": {"names": [f"d{index}"]}} for index in range(1000)]
    loaded = settings.load(write(tmp_path, json.dumps({"devices": devices, "benchmarks": benchmarks}, indent=1)))
    assert len(loaded.devices) == len(loaded.benchmarks) == 1000


# ---- the files in config/


def test_the_shipped_configuration_is_valid() -> None:
    loaded = settings.load(CONFIG)
    assert [device.kind for device in loaded.devices] == ["local"]
    assert loaded.builds.frameworks_directory.resolve() == ROOT / "specifications" / "frameworks"
    assert CONFIG.read_text().startswith("# yaml-language-server: $schema=aibenchd.schema.json\n")


def test_the_shipped_configuration_holds_the_defaults() -> None:
    """What a person reads in it is what holds where the key is left out."""
    written, default = settings.load(CONFIG).model_dump(), settings.Settings().model_dump()
    different = {key for key in default if written[key] != default[key]}
    assert different == {"repositories", "devices", "benchmarks", "sinks", "builds", "models"}
    assert {key for key in default["builds"] if written["builds"][key] != default["builds"][key]} == {"frameworks_directory"}


def missing_keys(value: Any, model: pydantic.BaseModel, path: str = "") -> list[str]:
    """The keys of a model's fields, and of the models within, that plain values lack."""
    lacking = [f"{path}{key}" for key in type(model).model_fields if key not in value]
    for key in value.keys() & type(model).model_fields.keys():
        inner, below = getattr(model, key), value[key]
        pairs = zip(inner, below, strict=True) if isinstance(inner, tuple) else [(inner, below)]
        lacking += [
            lack
            for one, part in pairs
            if isinstance(one, pydantic.BaseModel) and not isinstance(part, str)  # a format's name alone
            for lack in missing_keys(part, one, f"{path}{key}.")
        ]
    return lacking


def test_the_shipped_configuration_carries_every_key(tmp_path: Path) -> None:
    path = write(tmp_path, with_http(CONFIG.read_text()))
    assert missing_keys(yamlfile.load(path).value, settings.load(path)) == []


def test_the_shipped_configuration_shows_every_kind_and_all_its_keys(tmp_path: Path) -> None:
    text = with_examples(CONFIG.read_text())
    assert {device.kind for device in settings.load(write(tmp_path, text)).devices} == set(plugins.names("devices"))
    for group in ("devices", "sinks"):
        section = text[text.index(f"\n{group}:") : text.index("# ------", text.index(f"\n{group}:"))]
        for kind in plugins.names(group):
            assert re.search(rf"\b(kind:|;) {kind}\b", section), kind
            for key in plugins.load(group, kind).Settings.model_fields:  # type: ignore[attr-defined]
                assert re.search(rf"^(  - |    ){key}:", section, re.MULTILINE), f"{kind}: {key}"
    section = text[text.index("\nsinks:") :]
    for kind in plugins.names("formats"):
        assert re.search(rf"\b{kind}\b", section), kind
        for key in plugins.load("formats", kind).Settings.model_fields:  # type: ignore[attr-defined]
            assert re.search(rf"(^      |{{){key}:", section, re.MULTILINE), f"{kind}: {key}"


def test_the_shipped_schema_is_current() -> None:
    assert json.loads((ROOT / "config" / "aibenchd.schema.json").read_text()) == settings.json_schema(), (
        "run: python -m aibenchd.settings > config/aibenchd.schema.json"
    )


SCHEMA_LINE = re.compile(r"# yaml-language-server: \$schema=(.+)")  # relative to the file, as editors read it


def test_the_first_line_of_the_configuration_leads_to_its_schema() -> None:
    match = SCHEMA_LINE.fullmatch(CONFIG.read_text().splitlines()[0])
    assert match
    assert json.loads((CONFIG.parent / match[1]).read_text()) == settings.json_schema()


@pytest.mark.parametrize("draft", [jsonschema.Draft202012Validator, jsonschema.Draft7Validator])  # some editors know no newer one
@pytest.mark.parametrize("switched", [str, with_http, with_examples])
def test_the_schema_takes_what_is_shipped(tmp_path: Path, draft: Any, switched: Callable[[str], str]) -> None:
    """As an editor's validator does, which is not ours."""
    schema = settings.json_schema()
    draft.check_schema(schema)
    draft(schema).validate(yamlfile.load(write(tmp_path, switched(CONFIG.read_text()))).value)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ("devices: [{name: a, kind: local, cpu: [1]}]", "devices"),
        ("devices: [{name: a, kind: loca}]", "devices"),
        ("sinks: [{name: a, kind: http}]", "sinks"),
        ("experiment: {timeout: 5}", "experiment"),
        ("repositories: [{name: a, url: b, framework: pytorhc}]", "repositories"),
        ("benchmark: []", ""),
    ],
)
def test_the_schema_refuses_what_the_daemon_refuses(tmp_path: Path, wrong: str, key: str) -> None:
    path = write(tmp_path, wrong)
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.Draft202012Validator(settings.json_schema()).validate(yamlfile.load(path).value)
    assert next(iter(caught.value.absolute_path), "") == key
    with pytest.raises(errors.InvalidFileError):
        settings.load(path)


def objects(schema: Any) -> list[dict[str, Any]]:
    """All parts of a schema that have properties and close the list of them."""
    parts = list(schema.values()) if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    own = [schema] if isinstance(schema, dict) and schema.get("additionalProperties") is False else []
    return own + [inner for part in parts for inner in objects(part)]


def test_every_key_is_described() -> None:
    closed = objects(settings.json_schema())
    assert len(closed) > 15
    for part in closed:
        for key, schema in part["properties"].items():
            assert any("description" in one for one in (schema, *schema.get("anyOf", ()))), key


def test_every_pattern_has_words() -> None:
    text = json.dumps(settings.json_schema())
    patterns = {json.loads(f'"{pattern}"') for pattern in re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', text)}
    own = {settings.quantities.DURATION_PATTERN, settings.quantities.SIZE_PATTERN}
    assert patterns - own - faults.PATTERNS.keys() == set()
    assert faults.PATTERNS.keys() - patterns <= {r"^[A-Za-z_][A-Za-z0-9_]*$"}  # of keys: JSON Schema says it otherwise


def test_the_schema_names_every_kind_and_its_keys() -> None:
    schema = settings.json_schema()
    for group, base in (("devices", "cpus"), ("sinks", "records")):
        cases = {
            case["if"]["properties"]["kind"]["const"]: case["then"]["$ref"]
            for case in schema["properties"][group]["items"]["allOf"]
        }
        assert tuple(cases) == plugins.names(group)
        for kind, reference in cases.items():
            part = schema["$defs"][reference.removeprefix("#/$defs/")]
            assert part["properties"].keys() == plugins.load(group, kind).Settings.model_fields.keys()  # type: ignore[attr-defined]
            assert base in part["properties"]


def test_the_overrides_are_those_of_the_experiment_section() -> None:
    assert settings.ExperimentOverrides.model_fields.keys() == settings.ExperimentSettings.model_fields.keys()


def test_the_state_directory_is_the_configuration_s_else_systemd_s_first(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, says = settings.Settings(), settings.Settings(state_directory=Path("/srv"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert settings.known_state_directory(silent) is None
    with pytest.raises(errors.HarnessError, match="set state_directory"):
        settings.state_directory(silent)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")
    for look in (settings.known_state_directory, settings.state_directory):
        assert [look(silent), look(says)] == [Path("/var/lib/a"), Path("/srv")]
