"""`config/*.toml` and the environment → Settings; every mistake is reported, together."""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from distributor.errors import ConfigError
from distributor.settings.events import SHARED_SECRETS
from distributor.settings.fields import ModelT
from distributor.settings.newsletter import Newsletter
from distributor.settings.system import SECRET_KEYS, WechatAccount
from distributor.settings.whole import Settings
from distributor.standard_webhooks import key_of

PREFIX = "DISTRIBUTOR_"


def load_settings(root: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Reads `root/config/`. Raises ConfigError with every mistake: file, line, key, what was expected."""
    environment = os.environ if environment is None else environment
    mistakes: list[str] = []
    config = root / "config"
    system = _read_toml(config / "distributor.toml", mistakes) or {}
    _refuse_secrets_in_file(system, config / "distributor.toml", mistakes)
    newsletters: dict[str, Newsletter] = {}
    for path in sorted((config / "newsletters").glob("*.toml")):
        if newsletter := _read_newsletter(path, mistakes):
            if newsletter.slug in newsletters:
                mistakes.append(f"{path}: slug: another newsletter is called {newsletter.slug!r} already")
            newsletters[newsletter.slug] = newsletter
    secrets = _Secrets(environment, mistakes)
    secrets.put_into(system)
    secrets.put_into_relays(system)
    secrets.put_into_signers(system)
    keys = {
        name: SecretStr(key)
        for name in _robots(system, newsletters)
        if (key := secrets.read(wecom_key_name(name)))
    }
    accounts = {name: secrets.read_account(name) for name in wechat_names(newsletters)}
    settings = _validate(
        Settings,
        config / "distributor.toml",
        mistakes,
        {
            **system,
            "root": root,
            "newsletters": newsletters,
            "wecom_keys": keys,
            "wechat_accounts": accounts,
        },
    )
    if mistakes or settings is None:
        raise ConfigError(mistakes)
    _check_together(settings)
    return _with_homes(settings)


def _with_homes(settings: Settings) -> Settings:
    """A newsletter that names no other home of its full text has it on the site, when readers reach that."""
    homes = {
        slug: newsletter
        if newsletter.url_pattern
        else newsletter.model_copy(update={"url_pattern": settings.page_pattern(slug)})
        for slug, newsletter in settings.newsletters.items()
    }
    return settings.model_copy(update={"newsletters": homes})


def packaged(name: str) -> Path:
    """A folder that comes with the package (`templates`, `config`, `posts`); in a checkout, the one beside it."""
    inside = Path(__file__).parent.parent / "defaults" / name
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / name


def wecom_key_name(robot: str) -> str:
    """The environment variable that holds a robot's key."""
    return f"{PREFIX}WECOM_{robot.upper().replace('-', '_')}_KEY"


def wechat_secret_names(account: str) -> tuple[str, str]:
    """The environment variables that hold an account's AppID and AppSecret."""
    stem = f"{PREFIX}WECHAT_{account.upper().replace('-', '_')}"
    return f"{stem}_APPID", f"{stem}_SECRET"


def wechat_names(newsletters: Mapping[str, Newsletter]) -> list[str]:
    """Every Official Account that a newsletter names."""
    tables = [newsletter.channel_settings.wechat for newsletter in newsletters.values()]
    return sorted({place.name for table in tables if table for place in table.destinations})


def relay_password_name(relay: str) -> str:
    """The environment variable that holds a relay's password."""
    return f"{PREFIX}RELAY_{relay.upper().replace('-', '_')}_PASSWORD"


def signup_secret_name(source: str) -> str:
    """The environment variable that holds the secrets of a system that signs readers up."""
    return f"{PREFIX}SIGNUP_{source.upper().replace('-', '_')}_SECRET"


def webhook_secret_name(endpoint: str) -> str:
    """The environment variable that holds the secrets of an endpoint of our webhooks."""
    return f"{PREFIX}WEBHOOK_{endpoint.upper().replace('-', '_')}_SECRET"


def _relay_tables(system: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The tables of `[[email.relays]]`, as far as they are tables."""
    return _tables(system, "email", "relays")


def _tables(system: Mapping[str, Any], table: str, array: str) -> Sequence[dict[str, Any]]:
    outer = system.get(table)
    inner = outer.get(array) if isinstance(outer, dict) else None
    return [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else []


def _read_newsletter(path: Path, mistakes: list[str]) -> Newsletter | None:
    table = _read_toml(path, mistakes)
    return None if table is None else _validate(Newsletter, path, mistakes, {"slug": path.stem, **table})


def _read_toml(path: Path, mistakes: list[str]) -> dict[str, Any] | None:
    """None, and a mistake, when it cannot be read. A byte order mark, as Windows' editors write it, is no mistake."""
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        mistakes.append(
            f"{path}: not found; run the command in the folder that holds config/, or name it with --project"
        )
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(f"{path}: cannot be read: {error}")
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"{path}: not valid TOML: {error}")
    return None


def _validate(kind: type[ModelT], path: Path, mistakes: list[str], table: dict[str, Any]) -> ModelT | None:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        mistakes.extend(_explain(error, path))
        return None


def _explain(error: ValidationError, path: Path) -> Iterator[str]:
    """One line a mistake: file:line, dotted key, what was expected."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for detail in error.errors(include_url=False, include_input=False):
        key = ".".join(str(step) for step in detail["loc"])
        line = find_line(lines, [str(step) for step in detail["loc"]])
        where = f"{path}:{line}" if line else str(path)
        if detail["type"] == "extra_forbidden":
            yield f"{where}: {key}: unknown key (a typing mistake?)"
        elif detail["type"] == "missing":
            yield f"{where}: {key}: missing"
        else:
            yield f"{where}: {key or 'file'}: {detail['msg'].removeprefix('Value error, ')}"


def find_line(lines: Sequence[str], loc: Sequence[str]) -> int | None:
    """The line (from 1) of a dotted key, by table headers and keys; tomllib keeps no positions."""
    wanted = [step for step in loc if not step.isdigit()]
    #: how many `[[…]]` of the array come before the one that is meant
    before = next((int(step) for step in loc if step.isdigit()), 0)
    table: list[str] = []
    best = None
    for number, text in enumerate(lines, 1):
        if header := re.match(r"\s*(\[+)\s*([^\]]+?)\s*\]+", text):
            table = header[2].split(".")
            if table != wanted[: len(table)]:
                continue
            if header[1] == "[[" and before:
                before, table = before - 1, ["another entry of the array"]
                continue
            best = number
        elif (pair := re.match(r"\s*([\w.-]+)\s*=", text)) and _names([*table, *pair[1].split(".")], wanted):
            return number
    return best


def _names(key: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a key is the wanted one, or a table in one line that holds it."""
    return list(key) == list(wanted[: len(key)])


class _Secrets:
    """Reads `NAME` or `NAME_FILE` from the environment."""

    #: environment name (without prefix) → where the value goes
    PLACES: Mapping[str, tuple[str, ...]] = {
        "DATABASE_URL": ("database", "url"),
        "BROKER_URL": ("broker", "url"),
        "SMTP_PASSWORD": ("email", "smtp", "password"),
        "TELEGRAM_TOKEN": ("telegram", "token"),
        "TELEGRAM_WEBHOOK_SECRET": ("bot", "webhook_secret"),
        "ALERT_WEBHOOK_URL": ("operator", "webhook_url"),
        "DEAD_MAN_URL": ("operator", "dead_man_url"),
        "S3_ACCESS_KEY": ("pictures", "s3", "access_key"),
        "S3_SECRET_KEY": ("pictures", "s3", "secret_key"),
        "BOUNCE_KEY": ("events", "bounces", "key"),
        "BOUNCE_PASSWORD": ("events", "bounces", "password"),
        **{f"{name.upper()}_SECRET": ("events", name, "secret") for name in SHARED_SECRETS},
        # Not secrets, but what differs between a laptop and a container:
        "SMTP_HOST": ("email", "smtp", "host"),
        "SMTP_PORT": ("email", "smtp", "port"),
        "TELEGRAM_API": ("telegram", "api"),
        "WECOM_API": ("wecom", "api"),
        "WECHAT_API": ("wechat", "api"),
        "WEB_BASE_URL": ("web", "base_url"),
        "WEB_HOST": ("web", "host"),
        "WEB_PORT": ("web", "port"),
    }

    def __init__(self, environment: Mapping[str, str], mistakes: list[str]) -> None:
        self.environment, self.mistakes = environment, mistakes

    def put_into(self, table: dict[str, Any]) -> None:
        for name, place in self.PLACES.items():
            value = self.read(PREFIX + name)
            if value is None:
                continue
            target = table
            for step in place[:-1]:
                target = target.setdefault(step, {}) if isinstance(target, dict) else None
            if isinstance(
                target, dict
            ):  # else the file has something else there, and that is told as a mistake
                target[place[-1]] = value

    def put_into_relays(self, table: Mapping[str, Any]) -> None:
        for relay in _relay_tables(table):
            if password := self.read(relay_password_name(str(relay.get("name", "")))):
                relay["password"] = password

    def put_into_signers(self, table: Mapping[str, Any]) -> None:
        """Secrets of whoever signs webhooks, theirs and ours: several, separated by blanks."""
        for where, array, name_of in (
            ("signup", "sources", signup_secret_name),
            ("webhooks", "endpoints", webhook_secret_name),
        ):
            for one in _tables(table, where, array):
                name = name_of(str(one.get("name", "")))
                given = (self.read(name) or "").split()
                one["secrets"] = tuple(SecretStr(secret) for secret in given if self._is_key(name, secret))

    def _is_key(self, name: str, secret: str) -> bool:
        try:
            key_of(secret)
        except ValueError as error:
            self.mistakes.append(f"environment {name}: {error}")
            return False
        return True

    def read_account(self, name: str) -> WechatAccount:
        appid, secret = map(self.read, wechat_secret_names(name))
        return WechatAccount(appid=appid or "", secret=SecretStr(secret or ""))

    def read(self, name: str) -> str | None:
        path = self.environment.get(f"{name}_FILE")
        if not path:
            return self.environment.get(name) or None
        try:
            return Path(path).read_text("utf-8").strip() or None
        except OSError as error:
            self.mistakes.append(f"environment {name}_FILE: cannot read {path}: {error.strerror}")
        except UnicodeDecodeError:
            self.mistakes.append(f"environment {name}_FILE: {path} holds no UTF-8 text")
        return None


def _refuse_secrets_in_file(system: Mapping[str, Any], path: Path, mistakes: list[str]) -> None:
    lines = path.read_text("utf-8-sig").splitlines() if system else []
    for name, place in _Secrets.PLACES.items():
        if place[-1] not in SECRET_KEYS:
            continue
        table: Any = system
        for step in place[:-1]:
            table = table.get(step, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict) and place[-1] in table:
            mistakes.append(_secret_in_file(path, lines, place, PREFIX + name))

    for (table, array, key), name_of in SECRETS_OF_ARRAYS.items():
        for number, one in enumerate(_tables(system, table, array)):
            if key in one:
                name = name_of(str(one.get("name", "")))
                mistakes.append(_secret_in_file(path, lines, (table, array, str(number), key), name))


#: (table, array, key) → the environment variable for an entry's name.
SECRETS_OF_ARRAYS: Mapping[tuple[str, str, str], Callable[[str], str]] = {
    ("email", "relays", "password"): relay_password_name,
    ("signup", "sources", "secrets"): signup_secret_name,
    ("webhooks", "endpoints", "secrets"): webhook_secret_name,
}


def _secret_in_file(path: Path, lines: Sequence[str], place: Sequence[str], name: str) -> str:
    key = ".".join(step for step in place if not step.isdigit())
    return f"{path}:{find_line(lines, place)}: {key}: a secret must not stand in a file; set {name} (or {name}_FILE)"


def _robots(system: Mapping[str, Any], newsletters: Mapping[str, Newsletter]) -> set[str]:
    """Every robot named anywhere: as a destination or as a route to the operator."""
    operator = system.get("operator")
    routes = operator.get("routes") if isinstance(operator, dict) else None
    names = {
        str(route.get("robot"))
        for route in (routes if isinstance(routes, list) else ())
        if isinstance(route, dict) and route.get("robot")
    }
    return names.union(*(newsletter.robots for newsletter in newsletters.values()))


def _check_together(settings: Settings) -> None:
    """What no single table can know."""
    mistakes = []
    if not settings.newsletters:
        mistakes.append(
            f"{settings.root / 'config/newsletters'}: no newsletter: one .toml file each is expected here"
        )
    if settings.broker.configured and settings.database.embedded:
        mistakes.append(
            "broker.url: workers on a broker need PostgreSQL: set DISTRIBUTOR_DATABASE_URL=postgresql://…, or leave the broker out"
        )
    mistakes += [
        f"signup.sources: {source.name}: no newsletter is called {slug!r} (config/newsletters/{slug}.toml)"
        for source in settings.signup.sources
        for slug in source.newsletters
        if slug not in settings.newsletters
    ]
    mistakes += _wrong_of_bot(settings)
    if mistakes:
        raise ConfigError(mistakes)


def _wrong_of_bot(settings: Settings) -> Iterator[str]:
    for slug in settings.bot.newsletters:
        table = settings.newsletters[slug].channel_settings.telegram if slug in settings.newsletters else None
        if slug not in settings.newsletters:
            yield f"bot.newsletters: no newsletter is called {slug!r}"
        elif not (table and table.subscribers):
            yield f"bot.newsletters: {slug!r} has no [channels.telegram] with subscribers: nobody can get it there"
