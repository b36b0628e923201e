"""aibenchd spec pin: digests are written into specifications, and nothing else is touched."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import fileserver
import pytest

from aibenchd import errors, settings, yamlfile
from aibenchd.specs import files, pin

BODY = b"weights"
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _net(tmp_path: Path) -> None:
    (tmp_path / "net.pb").write_bytes(BODY)


@pytest.fixture
def server(file_server: fileserver.FileServer) -> fileserver.FileServer:
    file_server.body = BODY
    return file_server


def cache(tmp_path: Path) -> files.ModelCache:
    chosen = settings.ModelCacheSettings(generators_directory=tmp_path / "generators")
    return files.ModelCache(chosen, tmp_path / "work/models", first_pause=0.001)


async def pinned(tmp_path: Path, text: str, name: str = "net.yaml", *, renew: bool = False) -> tuple[str, pin.Result]:
    path = tmp_path / name
    path.write_bytes(text.encode())
    result = await pin.pin(path, cache(tmp_path), renew=renew)
    return path.read_bytes().decode(), result


def specification(**file: Any) -> str:
    whole = {"name": "net", "format": "f", "files": {"a": {"filename": "a", "location": "net.pb", **file}}}
    return json.dumps({"model": whole, "tests": [{"metric": "delay", "commands": ["x"]}]}, indent=2)


YAML = """\
# A person's words.
model: {name: net, format: f}   # and more
tests:
  - metric: delay
    commands: ["{program}"]

    input_files:
      block:
        filename: a        # the file
        location: net.pb   # where it is
        # what comes last
      before_lists:
        filename: a
        location:
          - absent
          - net.pb

      brackets: {filename: a, location: net.pb}
      quoted: {"filename": 'a', 'location': "net.pb"}
      empty:
        sha256:            # to come
        filename: a
        location: net.pb
      null_there: {sha256: ~, filename: a, location: net.pb}
      folded:
        filename: a
        location: >-
          net.pb
      anchored: &anchored
          filename: &name a
          location: net.pb
      alias: *anchored
      has_one: {filename: a, location: net.pb, sha256: SHA}
    files:
    - filename: a
      location: net.pb
    preprocess:
      command: "true"
      files: {x: {filename: a, location: net.pb}}
    output_files:
      out: {filename: out.npy, golden: {filename: a, location: net.pb}}
""".replace("SHA", SHA256)
WRITTEN = {
    "        location: net.pb   # where it is\n": f'        sha256: "{SHA256}"\n',
    "      before_lists:\n        filename: a\n": f'        sha256: "{SHA256}"\n',
    "      folded:\n        filename: a\n": f'        sha256: "{SHA256}"\n',
    "          filename: &name a\n          location: net.pb\n": f'          sha256: "{SHA256}"\n',
    "    - filename: a\n      location: net.pb\n": f'      sha256: "{SHA256}"\n',
    "      brackets: {filename: a, location: net.pb": f', sha256: "{SHA256}"',
    "      quoted: {\"filename\": 'a', 'location': \"net.pb\"": f", 'sha256': \"{SHA256}\"",
    "      empty:\n        sha256:": f' "{SHA256}"',
    "      files: {x: {filename: a, location: net.pb": f', sha256: "{SHA256}"',
    "golden: {filename: a, location: net.pb": f', sha256: "{SHA256}"',
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_yaml_is_left_as_a_person_wrote_it(tmp_path: Path, newline: str) -> None:
    expected = YAML.replace("sha256: ~", f'sha256: "{SHA256}"')
    for before, added in WRITTEN.items():
        assert expected.count(before) == 1, before
        expected = expected.replace(before, before + added)
    found, result = await pinned(tmp_path, YAML.replace("\n", newline))
    assert found == expected.replace("\n", newline)
    assert len(result.written) == 12
    again, nothing = await pinned(tmp_path, found)
    assert (again, nothing) == (found, pin.Result())


JSON = [  # what is written is between the asterisks
    '{"filename": "a", "location": "net.pb"*, "sha256": "SHA"*}',
    '{"filename":"a","location":"net.pb"*,"sha256":"SHA"*}',
    '{"sha256": "*SHA*", "filename": "a", "location": "net.pb"}',
    '{"location": ["absent", "net.pb"], "filename": "a"*, "sha256": "SHA"*}',
    '{"filename": "a"*, "sha256": "SHA"*, "location": ["net.pb"]}',
    '{\n\t"filename" : "a",\n\t"location" : "net.pb"*,\n\t"sha256" : "SHA"*\n}',
    '{\n    "filename": "a", "location":\n      "net.pb", "md5": "MD5"*, "sha256": "SHA"*\n}',
    '{"filename": "gone", "filename": "a", "location": "net.pb"*, "sha256": "SHA"*}',
    '{"filename": "\\u0061\\"{[,:", "location": "net.pb"*, "sha256": "SHA"*, "x": [{}, []]}',
]


@pytest.mark.parametrize("file", JSON)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_json_is_left_as_a_person_wrote_it(tmp_path: Path, file: str, newline: str) -> None:
    frame = '{"model":\n  {"name": "é", "format": "f", "files": [ FILE ]},\n "tests": [{"metric": "delay", "commands": ["x"]}]\t}'
    frame = frame.replace("FILE", file).replace("MD5", MD5).replace("SHA", SHA256).replace("\n", newline)
    found, result = await pinned(tmp_path, re.sub(r"\*.*?\*", "", frame, flags=re.DOTALL), "net.json")
    assert found == frame.replace("*", "")
    assert result.written == [f"{tmp_path}/net.json: model.files[0]: sha256 {SHA256}"]


async def test_a_byte_order_mark_and_the_mode_stay(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text("\ufeff" + specification())
    path.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    await pin.pin(link, cache(tmp_path), renew=False)
    assert path.read_text().startswith("\ufeff{")
    assert yamlfile.load(path).value["model"]["files"]["a"]["sha256"] == SHA256
    assert (link.is_symlink(), stat.S_IMODE(path.stat().st_mode)) == (True, 0o640)
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".")]


async def test_nothing_is_written_through_a_link_where_the_new_text_would_lie(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("as it was")
    path = tmp_path / "net.json"
    path.write_text(specification())
    (tmp_path / f".net.json.{os.getpid()}.json").symlink_to("victim")
    with pytest.raises(errors.ModelFileError, match="cannot be written: File exists"):
        await pin.pin(path, cache(tmp_path), renew=False)
    assert (path.read_text(), (tmp_path / "victim").read_text()) == (specification(), "as it was")


async def test_files_of_the_network_and_of_generators(tmp_path: Path, server: fileserver.FileServer) -> None:
    (tmp_path / "make.py").write_text("import sys; open(sys.argv[-1], 'w').write(sys.argv[1])")
    files_ = {
        "web": {"filename": "w", "location": server.url},
        "old": {"filename": "w", "location": server.url, "md5": MD5},
        "made": {"filename": "m", "location": ["absent", {"generator": ["make.py", "made"]}]},
    }
    text = json.dumps({"model": {"name": "n", "files": files_}, "tests": [{"metric": "delay", "commands": ["x"]}]})
    found, _ = await pinned(tmp_path, text, "net.json")
    digests = {name: file["sha256"] for name, file in json.loads(found)["model"]["files"].items()}
    assert digests == {"web": SHA256, "old": SHA256, "made": hashlib.sha256(b"made").hexdigest()}


async def test_each_source_is_asked_once(tmp_path: Path, server: fileserver.FileServer) -> None:
    file = {"filename": "w", "location": server.url}
    tests = [{"metric": "delay", "commands": ["x"], "input_files": {"a": file, "b": file}} for _ in range(3)]
    _, result = await pinned(tmp_path, json.dumps({"model": {"name": "n"}, "tests": tests}), "net.json")
    assert (len(result.written), len(server.requests)) == (6, 1)


async def test_a_digest_that_is_there_stays_until_it_is_to_be_renewed(tmp_path: Path) -> None:
    text = specification(sha256="0" * 64)
    assert await pinned(tmp_path, text, "net.json") == (text, pin.Result())
    found, _ = await pinned(tmp_path, text, "net.json", renew=True)
    assert found == text.replace("0" * 64, SHA256)


@pytest.mark.parametrize("renew", [False, True])
async def test_an_md5_that_says_otherwise_holds(tmp_path: Path, renew: bool) -> None:
    text = specification(md5="0" * 32, **({"sha256": "0" * 64} if renew else {}))
    found, result = await pinned(tmp_path, text, "net.json", renew=renew)
    assert found == text
    (reason,) = result.failed
    assert f"model.files.a: net.pb has md5 {MD5}, and the specification says {'0' * 32}" in reason


async def test_files_that_are_made_at_run_time_are_left(tmp_path: Path) -> None:
    text = specification(location="{HOSTDIR}/a")
    found, result = await pinned(tmp_path, text, "net.json", renew=True)
    assert (found, result.written, result.failed) == (text, [], [])
    assert result.left == [f"{tmp_path}/net.json: model.files.a: made at run time, and has no digest"]


async def test_what_can_be_had_is_written_also_where_another_cannot(tmp_path: Path) -> None:
    files_ = {"a": {"filename": "a", "location": "net.pb"}, "b": {"filename": "b", "location": "absent"}}
    text = json.dumps({"model": {"name": "n", "files": files_}, "tests": [{"metric": "delay", "commands": ["x"]}]})
    found, result = await pinned(tmp_path, text, "net.json")
    assert "sha256" in json.loads(found)["model"]["files"]["a"]
    assert "sha256" not in json.loads(found)["model"]["files"]["b"]
    assert "model.files.b: absent is not there" in result.failed[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"benchmarks": ["a.json"]}', "is a benchmarks file; pin the model files that it lists"),
        ("{", "is not JSON"),
        ("[]", "expected keys with values"),
        ('{"model": {"name": "n", "files": {"a": {"filename": "../a", "location": "b"}}}, "tests": []}', "does not leave"),
    ],
)
async def test_what_is_no_model_file_is_not_written(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(errors.InvalidFileError, match=reason):
        await pinned(tmp_path, text, "net.json")
    assert (tmp_path / "net.json").read_text() == text


NO_PLACE = """\
model: {name: net}
tests:
- metric: delay
  commands: [x]
  files:
    a:
      location: [net.pb]
      filename: |-
        a
"""


async def test_what_has_no_place_for_a_digest_is_left_to_its_writer(tmp_path: Path) -> None:
    text = NO_PLACE
    with pytest.raises(errors.ModelFileError, match=rf"write there by hand: tests\[0\].files.a: sha256: {SHA256}"):
        await pinned(tmp_path, text)
    assert (tmp_path / "net.yaml").read_text() == text


async def test_a_change_meanwhile_is_not_overwritten(tmp_path: Path, server: fileserver.FileServer) -> None:
    path = tmp_path / "net.json"

    async def while_a_person_edits(writer: Any, request: fileserver.Request, body: bytes) -> None:
        path.write_text("edited")
        await fileserver.whole(writer, request, body)

    server.script = [while_a_person_edits]
    with pytest.raises(errors.ModelFileError, match=r"net\.json: was changed meanwhile; pin it again"):
        await pinned(tmp_path, specification(location=server.url), "net.json")
    assert path.read_text() == "edited"


async def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(errors.ModelFileError, match="cannot be written: Permission denied"):
        await pin.pin(tmp_path / "net.json", cache(tmp_path), renew=False)


# ---------------------------------------------------------------- as a person calls it


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "aibenchd", "spec", "pin", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    one, two, three = tmp_path / "one.json", tmp_path / "two.yaml", tmp_path / "three.json"
    one.write_text(specification())
    two.write_text(specification(location="absent"))
    three.write_text(specification(sha256=SHA256))
    done = command(one, two, three)
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [f"{one}: model.files.a: sha256 {SHA256}", f"{three}: every file has its sha256"],
    )
    assert done.stderr.startswith(f"{two}: model.files.a: absent is not there")
    assert (command(one).returncode, command("--renew", one).stdout) == (0, f"{one}: model.files.a: sha256 {SHA256}\n")
    missing = command(tmp_path / "nowhere.json")
    assert (missing.returncode, "nowhere.json: cannot be read" in missing.stderr) == (1, True)


def test_the_command_takes_places_from_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/net.pb").write_bytes(BODY)
    config, path = tmp_path / "aibenchd.yaml", tmp_path / "net.json"
    config.write_text("models: {root: root}\n")
    path.write_text(specification(location="//net.pb"))
    assert "is relative to models.root" in command(path).stderr
    assert command("--config", config, path).returncode == 0
    assert json.loads(path.read_text())["model"]["files"]["a"]["sha256"] == SHA256
