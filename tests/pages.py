"""The elements of a page."""

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "hr", "use", "path"}
"""Elements that have no end."""


class Page(HTMLParser):
    """All elements of a page, which are closed in order, and the text within each kind of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.text.setdefault(tag, []).append("")
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.text[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self) -> str:
        """The JSON text that the page's program reads."""
        index = next(i for i, attributes in enumerate(self.all("script")) if attributes.get("id") == "data")
        return self.text["script"][index]
