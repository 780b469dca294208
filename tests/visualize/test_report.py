from __future__ import annotations

from html.parser import HTMLParser

import pytest

from videossl_hf.errors import OutputError
from videossl_hf.visualize.curves import loss_curves
from videossl_hf.visualize.report import (
    Report,
    Section,
    figure_block,
    settings_block,
    strip_rows,
    table_block,
    tiles_block,
)

VOID = {"meta", "img", "br", "path", "use", "rect", "image", "line", "circle"}


class Reader(HTMLParser):
    """Collects addresses and tags, and sees that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page() -> Reader:
    clip = ("data:image/png;base64,AAAA", "up <fast>", True)
    query = {
        "image": clip[0],
        "name": "up",
        "note": "a & b",
        "found": [("ours", [clip, (clip[0], "down", False)])],
    }
    report = Report(
        title="Found <something>",
        lead="It works & that is all",
        tiles=tiles_block([("51.3 %", "kNN", "11 % with random weights")]),
        sections=[
            Section("One", "text", [figure_block("loss", loss_curves({"total": [(0, 1.0), (1, 2.0)]}))]),
            Section("Two", "", [table_block(["a", "b"], [["x", "1"], ["y", "2"]], strong=(1,))]),
            Section("Three", "", [strip_rows([query]), settings_block("how", {"seed": 0}, "a: <b>")]),
        ],
    )
    reader = Reader()
    reader.feed(report.html())
    return reader


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere(page):
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_all_texts_arrive_as_they_were_given(page):
    text = "".join(page.text)
    for expected in ("Found <something>", "It works & that is all", "up <fast>", "a & b", "a: <b>", "51.3 %"):
        assert expected in text


def test_it_follows_light_and_dark(page):
    style = next(text for text in page.text if "--ink" in text)
    assert "prefers-color-scheme: dark" in style


def test_writing_makes_the_folder_and_leaves_nothing_half_done(tmp_path):
    path = Report("title", "lead").write(tmp_path / "a" / "report.html")
    assert path.read_text().startswith("<!doctype html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Report("title", "lead").write(tmp_path / "file" / "report.html")
