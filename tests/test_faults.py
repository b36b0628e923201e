"""What a fault advises."""

from aibenchd import faults


def test_each_name_is_suggested_once() -> None:
    assert faults.suggestion("nosuchbench", ["soft", "net", "net"]) == "known: net, soft"
