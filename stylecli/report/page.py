"""One self-contained HTML page: no request leaves it, and it reads well without scripts."""

from html import escape
from importlib.resources import files
from pathlib import Path

from stylecli import __version__
from stylecli.files import write_text
from stylecli.report.blocks import block_html, markup, picture_html
from stylecli.report.content import Report, Section

# The browser itself refuses whatever would reach outside the file.
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def write_report(path: Path | str, report: Report) -> None:
    """Write a report to an HTML file atomically; pictures and video are inside it."""
    write_text(path, report_html(report))


def report_html(report: Report) -> str:
    """Return a report as the text of an HTML page."""
    sections = "\n".join(
        _section_html(section, f"s{index}") for index, section in enumerate(report.sections)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="generator" content="stylecli {__version__}">
<meta name="color-scheme" content="light dark">
<title>{escape(report.title)}</title>
<style>
{_part("page.css")}</style>
</head>
<body>
{_header_html(report)}
<main>
{sections}
</main>
<footer><p>{markup(report.footer or f"Written by stylecli {__version__}.")}</p></footer>
<script>
{_part("page.js")}</script>
</body>
</html>
"""


def _header_html(report: Report) -> str:
    parts = [f"<h1>{escape(report.title)}</h1>", f'<p class="lead">{markup(report.lead)}</p>']
    if report.facts:
        facts = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in report.facts
        )
        parts.append(f'<dl class="facts">{facts}</dl>')
    if len(report.sections) > 2:
        links = "".join(
            f'<li><a href="#s{index}">{escape(section.heading)}</a></li>'
            for index, section in enumerate(report.sections)
        )
        parts.append(f'<nav aria-label="Sections"><ol>{links}</ol></nav>')
    if report.hero is not None:
        parts.append(picture_html(report.hero))
    return "<header>\n{}\n</header>".format("\n".join(parts))


def _section_html(section: Section, anchor: str) -> str:
    paragraphs = "\n".join(f"<p>{markup(text)}</p>" for text in section.paragraphs)
    blocks = "\n".join(block_html(block) for block in section.blocks)
    heading = escape(section.heading)
    return f'<section id="{anchor}">\n<h2>{heading}</h2>\n{paragraphs}\n{blocks}\n</section>'


def _part(name: str) -> str:
    return files("stylecli.report").joinpath(name).read_text(encoding="utf-8")
