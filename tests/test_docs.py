"""The documents say what is there: links, commands, settings, environment variables, states, words."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel
from services import ROOT

from distributor import model
from distributor.cli.app import app
from distributor.preflight.checks import CHECKS
from distributor.settings import PREFIX, Newsletter, Settings, load_settings
from distributor.settings.reading import _Secrets

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
#: A name that looks like a test's and is a module's.
STORIES = {path.stem for path in (ROOT / "distributor" / "dispatch").glob("*.py")}
#: The glossary's words, by what they are about.
WORDS = (
    *("newsletter", "post", "issue", "message", "channel", "transport", "provider"),
    *("subscriber", "subscription", "destination", "audience", "recipient"),
    *("delivery", "attempt", "receipt", "chunk", "lease", "slice", "turn", "journal", "sent log"),
    *("relay", "pace group", "canary"),
    *("sent", "delivered", "skipped", "failed", "unconfirmed", "event", "suppression"),
    *("retry", "resend", "preview", "test send", "rehearsal"),
)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return FENCE.sub("", path.read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """The fragments of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    dead = []
    for link in MARKDOWN_LINK.findall(prose(document)):
        if re.match(r"https?:|mailto:", link):
            continue
        target, _, fragment = link.partition("#")
        file = (document.parent / target).resolve() if target else document
        if not file.exists() or (fragment and fragment not in anchors(file)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_test_file_that_is_named_exists(document: Path) -> None:
    named_files = set(re.findall(r"tests/(?:\w+/)*test_\w+\.py", document.read_text("utf-8")))
    assert sorted(name for name in named_files if not (ROOT / name).is_file()) == []


def test_every_test_that_is_named_exists() -> None:
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    found = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"`(test_\w+)`", document.read_text("utf-8"))
        if name not in STORIES
    }
    assert len(found) > 20
    assert sorted(name for name in found if f"def {name}(" not in tests) == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").iterdir()), ids=named)
def test_pictures_are_small_enough_for_a_page(picture: Path) -> None:
    assert picture.stat().st_size < 400_000


def commands(group: Any, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


@pytest.mark.parametrize("readme", READMES, ids=named)
def test_every_command_stands_in_the_readme(readme: Path) -> None:
    spans = CODE.findall(prose(readme))
    known = list(commands(typer.main.get_command(app)))
    assert len(known) > 20
    assert [name for name in known if not any(re.match(rf"{name}\b", span) for span in spans)] == []


def test_every_command_of_the_examples_exists() -> None:
    known = {name.split()[0] for name in commands(typer.main.get_command(app))}
    said = re.compile(r"(?:^\$ |`)distributor (?:-C \S+ )?([a-z]+)", re.MULTILINE)
    found = {name for document in DOCUMENTS for name in said.findall(document.read_text("utf-8"))}
    assert sorted(found - known) == []


def tables_of(annotation: object) -> Iterator[type[BaseModel]]:
    """The settings tables inside a field's type: the type itself, or what an optional or a tuple holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from tables_of(inner)


def keys_of(table: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in table.model_fields.items():
        key = f"{path}{field.alias or name}"
        yield key
        for inner in tables_of(field.annotation):
            yield from keys_of(inner, f"{key}.")


def written(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in table.items():
        yield f"{path}{name}"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield from written(item, f"{path}{name}.")


@pytest.mark.parametrize(
    ("file", "table"),
    [("config/distributor.toml", Settings), ("config/newsletters/ai-daily.toml", Newsletter)],
)
def test_every_key_of_the_configuration_exists(file: str, table: type[BaseModel]) -> None:
    found = set(written(tomllib.loads((ROOT / file).read_text("utf-8"))))
    assert sorted(found - set(keys_of(table))) == []


def test_the_configuration_as_shipped_is_good() -> None:
    assert list(load_settings(ROOT, {}).newsletters) == ["ai-daily"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_setting_that_is_named_exists(document: Path) -> None:
    known = {*keys_of(Settings), *keys_of(Newsletter)}
    first = {key.partition(".")[0] for key in known if "." in key}
    spans = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", document.read_text("utf-8"))
    settings = [
        span
        for span in spans
        if span.partition(".")[0] in first
        and span.rpartition(".")[2] not in {"html", "txt", "eml", "md", "py"}
    ]
    assert [setting for setting in settings if setting not in known] == []


def test_every_environment_variable_is_explained() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    variables = [
        *(PREFIX + name for name in _Secrets.PLACES),
        "DISTRIBUTOR_WECOM_<ROBOT>_KEY",
        "DISTRIBUTOR_RELAY_<NAME>_PASSWORD",
    ]
    assert [name for name in variables if f"`{name}`" not in text] == []


def test_every_environment_variable_that_is_named_exists() -> None:
    known = {PREFIX + name for name in _Secrets.PLACES} | {"DISTRIBUTOR_PROJECT"}
    named_there = {
        name.removesuffix("_FILE")
        for document in DOCUMENTS
        for name in re.findall(r"DISTRIBUTOR_[A-Z0-9_]+[A-Z]", document.read_text("utf-8"))
    }
    by_name = (
        "DISTRIBUTOR_WECOM",
        "DISTRIBUTOR_WECHAT",
        "DISTRIBUTOR_RELAY",
        "DISTRIBUTOR_SIGNUP",
        "DISTRIBUTOR_WEBHOOK",
    )
    assert sorted(name for name in named_there - known if not name.startswith(by_name)) == []


LEGAL = {(str(start), str(end)) for start, ends in model.LEGAL_MOVES.items() for end in ends}


def test_the_table_of_arrows_is_that_of_the_model() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| ([a-i]) \| (\w+) \| (\w+) \|", text, re.MULTILINE)
    assert {(start, end) for _, start, end in rows} == LEGAL


def test_the_drawing_of_arrows_is_that_of_the_table() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| ([a-i]) \| (\w+) \| (\w+) \|", text, re.MULTILINE)
    drawn = re.findall(r"^ +(\w+) --> (\w+): ([a-i])$", text, re.MULTILINE)
    assert {(letter, start, end) for start, end, letter in drawn} == set(rows)


def glossary() -> str:
    return (ROOT / "docs" / "glossary.md").read_text("utf-8")


def test_every_word_is_explained() -> None:
    explained = re.findall(r"^\| \*\*(.+?)\*\* \|", glossary(), re.MULTILINE)
    assert sorted(set(WORDS) - set(explained)) == []
    assert len(explained) == len(set(explained))


@pytest.mark.parametrize(
    "states",
    [
        model.DeliveryState,
        model.IssueState,
        model.SkipReason,
        model.SubscriptionState,
        model.SuppressionReason,
    ],
)
def test_every_state_stands_in_the_glossary(states: type[StrEnum]) -> None:
    assert [str(state) for state in states if not re.search(rf"\b{state}\b", glossary())] == []


def test_every_check_of_a_post_is_named() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [check.name for check in CHECKS if f"`{check.name}`" not in text] == []
