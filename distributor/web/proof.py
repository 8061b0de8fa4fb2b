"""The script that makes a form's proof of work, served by ourselves: no page of ours asks another host."""

from fastapi import FastAPI, Response
from jinja2 import Environment

#: Where templates/web/guard.html.j2 has it from.
SCRIPT = "/assets/proof.js"


def add_proof_script(app: FastAPI, templates: Environment) -> None:
    """The project's own templates/web/proof.js comes first, as for every template."""
    assert templates.loader
    source, _, _ = templates.loader.get_source(templates, "web/proof.js")
    headers = {"Cache-Control": "public, max-age=3600"}

    def script() -> Response:
        return Response(source, media_type="text/javascript", headers=headers)

    app.add_api_route(
        SCRIPT, script, methods=["GET", "HEAD"], response_class=Response, include_in_schema=False
    )
