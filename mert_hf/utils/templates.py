"""Pages and cards from Jinja templates: files `*.html.jinja` and `*.md.jinja` next to the code that fills them."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def fill_template(package: str, name: str, **values: Any) -> str:
    """The text of a template with its values.

    Args:
        package: the package that holds the file, as `__package__`. pyproject.toml lists its templates as package data.
        name: name of the file. Values are escaped in `*.html.jinja`; `markupsafe.Markup` is HTML already.
        values: by the names that the template uses; one that it uses and that is not given is an error.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8")).render(values)
