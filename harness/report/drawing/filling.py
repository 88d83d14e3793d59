"""Fills the HTML templates, and writes the policy that allows only the page's own script."""

import base64
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.base.numbers import number
from harness.base.text import visible
from harness.report.drawing.untrusted import cut

HERE = Path(__file__).parent
LONGEST = 6_000
"""Most characters shown of one value: enough for the methods text; a hostile name is cut."""
SCRIPTS = ("payload.js", "highlight.js", "diff.js", "detail.js", "page.js")


def render_template(
    values: dict[str, Any], template: str = "page.html.j2", *, scripted: bool = True
) -> str:
    """Return the page. Every value is escaped, and its invisible characters are made visible."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters["score"] = number
    style, script = _assets()
    script = script if scripted else ""
    own = {"style": Markup(style), "script": Markup(script), "policy": policy(style, script)}  # noqa: S704
    return environment.get_template(template).render(**values, **own)


def _visible(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Markup):  # Markup is ours
        return cut(visible(value), LONGEST)
    return value


@lru_cache(maxsize=1)
def _assets() -> tuple[str, str]:
    style = (HERE / "static/style.css").read_text()
    parts = "\n".join((HERE / "static" / name).read_text() for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{parts}}})();\n'
    if "</" in style or "</" in script:
        raise ValueError("the page's own style or script would end its element")
    return style, script


def policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that allows this style, this script if any, data: images."""
    allowed = _named(script) if script else "'none'"
    return (
        f"default-src 'none'; style-src {_named(style)}; script-src {allowed}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _named(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
