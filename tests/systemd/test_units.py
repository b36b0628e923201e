"""The units are clean by systemd's own word, and as closed as programs under test allow."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "systemd"
UNITS = sorted(path.name for path in SOURCE.iterdir() if path.suffix in (".service", ".socket"))
SERVICES = [name for name in UNITS if name.endswith(".service")]
INSTALLED = "/opt/aibenchd/bin"
EXPOSURE = 2.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with paths of programs that are here, adb's a stand-in where there is none."""
    adb = shutil.which("adb") or shutil.which("true")
    for name in UNITS:
        text = (SOURCE / name).read_text().replace(INSTALLED, str(Path(sys.executable).parent))
        (tmp_path / name).write_text(text.replace("ExecStart=/usr/bin/adb", f"ExecStart={adb}"))
    return tmp_path


def analyze(*arguments: str, units: Path) -> subprocess.CompletedProcess[str]:
    # The colon at the end: what the system has comes after ours.
    environment = {"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0"}
    argv = ["systemd-analyze", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_say_about_a_unit(installed: Path, name: str) -> None:
    told = analyze("verify", "--man=no", "--recursive-errors=yes", str(installed / name), units=installed)
    ours = [line for line in told.stderr.splitlines() if "aibenchd" in line]
    assert not ours
    assert told.returncode == 0, told.stderr


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_little_harm(installed: Path, name: str) -> None:
    told = analyze("security", "--offline=true", "--no-pager", str(installed / name), units=installed)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    assert found, told.stderr
    assert float(found[1]) <= EXPOSURE


@needs_systemd
def test_what_is_wrong_with_a_unit_is_seen(installed: Path) -> None:
    (installed / "aibenchd.service").write_text("[Service]\nExecStart=/no/such/program\nFrob=yes\n")
    told = analyze("verify", "--man=no", str(installed / "aibenchd.service"), units=installed)
    assert "Frob" in told.stderr
    assert told.returncode != 0


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_unit_names_of_ours_is_there(name: str) -> None:
    """Modules that it runs, units that it needs, users that it runs as."""
    text = (SOURCE / name).read_text()
    for module in re.findall(r"-m (aibenchd\S*)", text):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, timeout=60)
    for unit in re.findall(r"aibenchd[\w-]*\.(?:service|socket)", text):
        assert unit in UNITS
    users = (SOURCE / "sysusers.d" / "aibenchd.conf").read_text()
    for user in re.findall(r"^(?:User|Group|SupplementaryGroups)=(.*)$", text, re.MULTILINE):
        assert re.search(rf"^[ug] {user} ", users, re.MULTILINE)


def test_programs_run_under_just_in_time_compilers() -> None:
    """Both are inherited by whatever a service starts."""
    for name in ("aibenchd.service", "aibenchd-launcher.service"):
        settings = (SOURCE / name).read_text()
        assert "MemoryDenyWriteExecute=yes" not in settings
        assert "ProcSubset=pid" not in settings


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_users_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    argv = ["systemd-sysusers", f"--root={tmp_path}", str(SOURCE / "sysusers.d" / "aibenchd.conf")]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    users = [line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert sorted(users) == ["aibenchd", "aibenchd-adb", "aibenchd-run"]
    groups = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert groups["aibenchd-run"] == "aibenchd"
    assert groups["plugdev"] == "aibenchd-adb"
