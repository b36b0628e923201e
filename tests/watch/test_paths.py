import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import settings
from aibenchd.watch import paths


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("setup.py", ["setup.py"], ["a/setup.py", "setup.pyc", "setupXpy"]),
        ("*.py", ["a.py", ".py"], ["a/b.py", "a.pyc"]),
        ("**/*.py", ["a.py", "a/b.py", "a/b/c.py"], ["a.pyc"]),
        ("**.py", ["a.py", "a/b.py"], ["a.pyc"]),
        ("src/**", ["src/a", "src/a/b"], ["src", "a/src/b"]),
        ("src/", ["src/a", "src/a/b"], ["src", "srca/b"]),
        ("src/*/test", ["src/a/test"], ["src/test", "src/a/b/test"]),
        ("src/**/test", ["src/test", "src/a/test", "src/a/b/test"], ["srctest", "src/atest"]),
        ("a?c", ["abc"], ["a/c", "ac", "abbc"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "-x"]),
        ("[!a-c]x", ["dx", "-x"], ["ax", "/x"]),
        ("[]]x", ["]x"], ["x"]),
        ("[z-a]x", [], ["ax", "zx", "x"]),
        ("[!z-a]x", ["ax"], ["/x", "x"]),
        ("[^a]x", ["^x", "ax"], ["bx"]),
        ("[a", ["[a"], ["a"]),
        ("[]", ["[]"], [""]),
        ("a+(b).c", ["a+(b).c"], ["aab.c"]),
        ("a\nb*", ["a\nb\nc"], ["ab"]),
        ("**", ["a", "a/b", "\n"], []),
        ("", [], ["a"]),
    ],
)
def test_globs(glob, matching, others):
    assert [path for path in matching if not paths.matches(glob, path)] == []
    assert [path for path in others if paths.matches(glob, path)] == []


text = st.text("ab/*?[]!-^\\.\n", max_size=12)


@given(text, text)
def test_no_glob_is_an_error(glob, path):
    paths.matches(glob, path)


@given(st.text("ab*?[]!-\\.\n", max_size=8), st.text("ab*?[]!-\\.\n", max_size=8))
def test_without_slashes_it_is_as_fnmatch_has_it(glob, path):
    assert paths.matches(glob, path) == fnmatch.fnmatchcase(path, glob)


@given(st.text("ab/.[+", min_size=1, max_size=12))
def test_a_path_without_wildcards_matches_itself_alone(path):
    if not path.endswith("/"):
        assert paths.matches(path, path)
        assert not paths.matches(path, f"{path}x")


def test_included_and_not_excluded():
    filters = settings.PathFilters(include=("src/**", "*.py"), exclude=("src/tests/**",))
    assert [path for path in ("src/a", "a.py", "src/tests/a", "docs/a") if paths.touched(filters, path)] == ["src/a", "a.py"]
    assert paths.touched(settings.PathFilters(exclude=("docs/**",)), "anything")
    assert not paths.touched(settings.PathFilters(exclude=("docs/**",)), "docs/a")
    assert not paths.filtering(settings.PathFilters())
