"""Checks the pages and traces that write_pages left in a folder.

A page must be well-formed as XML (stricter than HTML asks), must load nothing, run nothing, and stay
below 2 MB; a trace must parse and have the fields that the Trace Event Format requires.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

PAGE_BYTES_MAX = 2_000_000
EVENT_KEYS = {
    "X": {"name", "cat", "ts", "dur", "pid", "tid", "args"},
    "M": {"name", "pid", "args"},
    "C": {"name", "ts", "pid", "args"},
}


def check_page(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < PAGE_BYTES_MAX, f"{path}: {len(text.encode())} bytes"
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    ids = []
    for element in root.iter():
        assert element.tag not in {"script", "link", "img", "iframe", "object"}, element.tag
        for key, value in element.attrib.items():
            assert not key.startswith("on"), f"{path}: handler {key}"
            assert key not in {"src", "href", "srcset"}, f"{path}: {key}={value}"
            assert "nan" not in value.lower().split(), f"{path}: {element.tag} {key}={value}"
            assert not re.search(r"\b(nan|inf)\b", value), f"{path}: {element.tag} {key}={value}"
            if key in {"width", "height"}:
                assert not value.startswith("-"), f"{path}: {element.tag} {key}={value}"
        if "id" in element.attrib:
            ids.append(element.attrib["id"])
    assert len(ids) == len(set(ids)), f"{path}: ids are not unique"
    css = "".join(style.text for style in root.iter("style"))
    assert "url(" not in css and "@import" not in css, path
    assert css.count("{") == css.count("}"), path
    words = "".join(root.itertext())
    assert not re.search(r"\b-?(nan|inf)\b", words), f"{path}: nan or inf in the text"


def check_trace(path):
    trace = json.loads(path.read_text(encoding="utf-8"))
    for event in trace["traceEvents"]:
        missing = EVENT_KEYS[event["ph"]] - event.keys()
        assert not missing, f"{path}: {missing}"
        if event["ph"] == "X":
            assert event["dur"] >= 0 and event["ts"] >= 0, path


def main():
    folder = pathlib.Path(sys.argv[1])
    pages = sorted(folder.glob("*.html"))
    traces = sorted(folder.glob("*.json"))
    assert pages and traces, f"{folder} holds no pages"
    for path in pages:
        check_page(path)
    for path in traces:
        check_trace(path)


main()
