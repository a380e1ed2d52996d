"""Templates: HTML is escaped, Markdown is not, and a value that is missing is an error."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from jinja2 import UndefinedError

from mert_hf.utils.text import fill_template


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[str]:
    """A package with the same template as HTML and as Markdown."""
    (tmp_path / "some_templates").mkdir()
    (tmp_path / "some_templates" / "__init__.py").touch()
    for name in ("page.html.jinja", "page.md.jinja"):
        text = "{% for name in names %}\n- {{ name }}\n{% endfor %}\n"
        (tmp_path / "some_templates" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "some_templates"
    sys.modules.pop("some_templates", None)


def test_lines_of_a_block_are_whole_lines(package):
    assert fill_template(package, "page.md.jinja", names=["a", "<b>"]) == "- a\n- <b>\n"
    assert fill_template(package, "page.html.jinja", names=["a", "<b>"]) == "- a\n- &lt;b&gt;\n"


def test_a_missing_value_is_an_error(package):
    with pytest.raises(UndefinedError, match="'names' is undefined"):
        fill_template(package, "page.md.jinja")
