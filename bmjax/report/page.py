"""Composes one self-contained HTML page from a few kinds of blocks.

Every text is escaped where a block turns it into markup, so text from files can be
handed over as it is; pictures travel inside the page, and nothing is fetched.
"""

import base64
import hashlib
import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from bmjax.data import streams

LONG_TEXT = 50
LONG = 2.2  # width over height of a picture


@runtime_checkable
class Block(Protocol):
    """Anything that can turn itself into markup."""

    def to_html(self) -> str:
        """The block as HTML, all foreign text escaped."""
        ...


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph.

    Attributes:
      text: plain text.
      kind: "missing" says what the page would have shown, "warning" what went wrong.
    """

    text: str
    kind: Literal["plain", "missing", "warning"] = "plain"

    def to_html(self) -> str:
        """A paragraph, set apart by kind."""
        return f'<p class="{self.kind}">{html.escape(self.text)}</p>'


@dataclass(frozen=True, kw_only=True)
class Number:
    """One large number with what it means.

    Attributes:
      value: the number as text.
      name: what it is.
      detail: its spread or its count.
    """

    value: str
    name: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The few numbers that a reader came for."""

    numbers: tuple[Number, ...]

    def to_html(self) -> str:
        """A row of large numbers."""
        cells = "".join(
            f"<div><dt>{html.escape(n.name)}</dt><dd>{html.escape(n.value)}"
            f"<small>{html.escape(n.detail)}</small></dd></div>"
            for n in self.numbers
        )
        return f'<dl class="headline">{cells}</dl>'


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values.

    Attributes:
      items: pairs of name and value.
      title: small heading above them.
    """

    items: tuple[tuple[str, str], ...]
    title: str = ""

    def to_html(self) -> str:
        """A definition list."""
        cells = "".join(
            f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>"
            for k, v in self.items
        )
        title = f"<h3>{html.escape(self.title)}</h3>" if self.title else ""
        return f'<div class="facts">{title}<dl>{cells}</dl></div>'


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table.

    Attributes:
      text: what is shown.
      kind: "best" is set in bold, "bad" in a warning colour, "quiet" pale.
      is_number: right-aligned.
      case: a click goes to this case ...
      centre_mm: ... and its slices to this place, x y z [mm].
    """

    text: str
    kind: Literal["plain", "best", "bad", "quiet", "name"] = "plain"
    is_number: bool = True
    case: str = ""
    centre_mm: tuple[float, float, float] | None = None

    def to_html(self) -> str:
        """The text, as a link where there is somewhere to go."""
        text = html.escape(self.text)
        if not self.case:
            return text
        jump = ""
        if self.centre_mm is not None:
            place = " ".join(f"{value:.2f}" for value in self.centre_mm)
            jump = f' data-jump="{html.escape(self.case)}" data-mm="{place}"'
        return f'<a href="#{anchor(self.case)}"{jump}>{text}</a>'


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that can be sorted by a click on a heading.

    Attributes:
      columns: headings.
      rows: cells, as many as headings.
      footer: rows that stay below when sorted.
      groups: heading above several columns: (text, number of columns).
      caption: what the table shows.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footer: tuple[tuple[Cell, ...], ...] = ()
    groups: tuple[tuple[str, int], ...] = ()
    caption: str = ""

    def to_html(self) -> str:
        """A table inside a box that scrolls sideways on narrow screens."""
        first = (*self.rows, *self.footer, ())[0]
        is_number = [c.is_number for c in first] or [False] * len(self.columns)
        groups = "".join(
            f'<th colspan="{span}" scope="colgroup">{html.escape(text)}</th>'
            for text, span in self.groups
        )
        head = "".join(
            f'<th scope="col"{_number_class(numeric)}>'
            f'<button type="button">{html.escape(name)}</button></th>'
            for name, numeric in zip(self.columns, is_number, strict=True)
        )
        return (
            '<figure class="table"><div class="scroll"><table><thead>'
            + (f'<tr class="groups">{groups}</tr>' if groups else "")
            + f"<tr>{head}</tr></thead><tbody>{_rows_html(self.rows)}</tbody>"
            + (f"<tfoot>{_rows_html(self.footer)}</tfoot>" if self.footer else "")
            + f"</table></div>{_caption_html(self.caption)}</figure>"
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart in two colourings; the reader's system picks one.

    Attributes:
      name: of its files.
      light: PNG for light pages.
      dark: PNG for dark pages.
      to_pdf: draws it as a PDF.
      size: width and height [pixel].
      alt: what a reader who cannot see it should know.
      caption: text below it.
    """

    name: str
    light: bytes
    dark: bytes
    to_pdf: Callable[[], bytes]
    size: tuple[int, int]
    alt: str
    caption: str = ""

    def to_html(self) -> str:
        """A picture element."""
        width, height = self.size
        # on a telephone a long row of panels is turned under the finger
        is_long = width > LONG * height
        return (
            f'<figure class="chart{" long" if is_long else ""}">'
            '<div class="scroll"><picture><source '
            'media="(prefers-color-scheme: dark)" '
            f'srcset="{data_uri(self.dark, "image/png")}">'
            f'<img src="{data_uri(self.light, "image/png")}" width="{width}" '
            f'height="{height}" alt="{html.escape(self.alt)}" loading="lazy">'
            f"</picture></div>{_caption_html(self.caption)}</figure>"
        )

    def write(self, folder: Path) -> None:
        """Write it as a PNG and as a PDF."""
        for suffix, content in (("png", self.light), ("pdf", self.to_pdf())):
            streams.write_pieces(folder / f"{self.name}.{suffix}", [content])


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Blocks side by side, as many as fit.

    Attributes:
      blocks: what is laid out.
      min_width_px: narrowest column [px].
    """

    blocks: tuple[Block, ...]
    min_width_px: int = 420

    def to_html(self) -> str:
        """A grid that becomes one column on a telephone."""
        inner = "".join(block.to_html() for block in self.blocks)
        width = f"--min:{self.min_width_px}px"
        return f'<div class="grid" style="{width}">{inner}</div>'


@dataclass(frozen=True, kw_only=True)
class Details:
    """Blocks that open on request.

    Attributes:
      title: what a click opens.
      blocks: what is inside.
    """

    title: str
    blocks: tuple[Block, ...]

    def to_html(self) -> str:
        """A details element, closed."""
        inner = "".join(block.to_html() for block in self.blocks)
        title = html.escape(self.title)
        return f"<details><summary>{title}</summary>{inner}</details>"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the page.

    Attributes:
      title: heading, and entry of the table of contents.
      blocks: its content, in order.
    """

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
      title: heading and name of the browser's tab.
      subtitle: one line below it.
      sections: its parts, in order; those without blocks are left out.
      footer: last line, before the page's own weight.
      bound: what keeps that weight low.
    """

    title: str
    sections: tuple[Section, ...]
    subtitle: str = ""
    footer: str = "Research use only; not a medical device. Made by bmjax."
    bound: str = ""

    def to_html(self) -> str:
        """The page as one HTML document without outside references."""
        shown = [section for section in self.sections if section.blocks]
        contents = "".join(
            f'<a href="#section-{i}">{html.escape(s.title)}</a>'
            for i, s in enumerate(shown)
        )
        body = "".join(
            f'<section id="section-{i}"><h2>{html.escape(s.title)}</h2>'
            + "".join(block.to_html() for block in s.blocks)
            + "</section>"
            for i, s in enumerate(shown)
        )
        title = html.escape(self.title)
        script = _asset("page.js") + _asset("viewer.js")
        parts = (self.title, self.subtitle, contents, body, script)
        weight_mib = sum(len(part) for part in parts) / 2**20
        footer = f"{self.footer} This page weighs {weight_mib:.1f} MiB. {self.bound}"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f'<link rel="icon" href="data:,"><title>{title}</title>'
            f"<style>{_asset('page.css')}</style></head><body><header>"
            f'<h1>{title}</h1><p class="subtitle">{html.escape(self.subtitle)}</p>'
            f"<nav>{contents}</nav></header><main>{body}</main>"
            f"<footer>{html.escape(footer.strip())}</footer>"
            f"<script>{script}</script></body></html>\n"
        )

    def write(self, path: str | Path, *, figures: Path | None = None) -> Path:
        """Write the page; each file appears complete or not at all.

        Args:
          path: the page.
          figures: folder for every chart as PNG and PDF, if wanted.
        """
        if figures is not None:
            for figure in self.figures():
                figure.write(figures)
        streams.write_pieces(Path(path), [self.to_html().encode()])
        return Path(path)

    def figures(self) -> Iterator[Figure]:
        """Every chart of the page, in reading order."""
        for section in self.sections:
            yield from _figures_in(section.blocks)


def _figures_in(blocks: Sequence[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Grid | Details):
            yield from _figures_in(block.blocks)


def anchor(case: str) -> str:
    """Where a page shows a case."""
    return f"case-{hashlib.sha256(case.encode()).hexdigest()[:12]}"


def data_uri(content: bytes, mime: str) -> str:
    """A file's content as an address."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _rows_html(rows: Sequence[Sequence[Cell]]) -> str:
    lines = []
    for row in rows:
        cells = "".join(
            f'<td class="{cell.kind}{_extent(cell)}">{cell.to_html()}</td>'
            for cell in row
        )
        lines.append(f"<tr>{cells}</tr>")
    return "".join(lines)


def _extent(cell: Cell) -> str:
    if cell.is_number:
        return " number"
    return " long" if len(cell.text) > LONG_TEXT else ""


def _number_class(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _caption_html(caption: str) -> str:
    return f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""


def _asset(name: str) -> str:
    return (resources.files("bmjax.report") / "assets" / name).read_text("utf-8")
