"""What holds of an HTML file that is mailed: it is whole, needs nothing from elsewhere, and says in words what it draws."""

from __future__ import annotations

from typing import Any

import html5lib

REFERRING = ("src", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href")


def parsed(text: str) -> Any:
    """Its elements, in no namespace.

    Raises:
        html5lib.html5parser.ParseError: it is not as HTML must be.
    """
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def check(text: str) -> Any:
    """All of this; its elements."""
    tree = parsed(text)
    names = [_name(one) for one in tree.iter()]
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "img"} & set(names)
    known = [one.get("id") for one in tree.iter() if one.get("id")]
    assert len(known) == len(set(known))
    for one in tree.iter():
        assert not [name for name in one.attrib if str(name).startswith("on") or name in REFERRING]
        if one.get("href") is not None:
            assert one.get("href").startswith("#")
            assert one.get("href")[1:] in known
        if _name(one) == "svg":
            assert one.get("aria-hidden") == "true" or (one.get("role"), bool(one.get("aria-label"))) == ("img", True)
        if _name(one) == "table":
            head = [cell for cell in one.iter() if _name(cell) == "th" and cell.get("scope") == "col"]
            assert head
    assert "url(" not in "".join(one.text or "" for one in tree.iter() if _name(one) == "style")
    return tree


def words(tree: Any) -> str:
    """What a person reads, and hears read of pictures."""
    body = next((one for one in tree.iter() if _name(one) == "body"), tree)
    heard = [one.get("aria-label") for one in body.iter() if one.get("aria-label")]
    return " ".join(" ".join([*body.itertext(), *heard]).split())


def part(tree: Any, name: str) -> Any:
    """The element of an id."""
    return next(one for one in tree.iter() if one.get("id") == name)


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
