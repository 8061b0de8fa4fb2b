"""The template environment: the project's templates before the packaged ones, sandboxed."""

from pathlib import Path

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from distributor.settings import packaged


def template_environment(project: Path | None = None) -> Environment:
    """Templates by name, such as `email/issue.html.j2`: the project's `templates/` first, then the packaged ones."""
    folders = [project / "templates"] if project else []
    loaders: list[BaseLoader] = [FileSystemLoader(folder) for folder in [*folders, packaged("templates")]]
    return SandboxedEnvironment(
        loader=ChoiceLoader(loaders),
        autoescape=lambda name: name is not None and name.endswith((".html.j2", ".html")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
