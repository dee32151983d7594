"""The part of a documentation page that a script measures: between two marks.

Not run by itself.
"""

import re

from stylecli.files import write_text


def write_block(page, name, text):
    """Put a text that ends a line between ``<!-- name -->`` and ``<!-- /name -->`` of a page."""
    content = page.read_text(encoding="utf-8")
    marks = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
    if len(marks.findall(content)) != 1:
        raise SystemExit(f"{page} has no <!-- {name} --> ... <!-- /{name} --> marks")
    write_text(page, marks.sub(lambda _: text, content))
