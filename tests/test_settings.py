"""Settings: every mistake at once, with its place; secrets only from the environment."""

import re
import tomllib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from services import ROOT, Project

from distributor.errors import ConfigError
from distributor.settings import Settings, load_settings


def mistakes_of(root: Path, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        load_settings(root, environment or {})
    return raised.value.mistakes


def write(project: Project, name: str, text: str) -> Path:
    path = project.root / "config" / name
    path.write_text(text, "utf-8")
    return path


def mistakes_in(project: Project, text: str, name: str = "distributor.toml") -> list[str]:
    """The mistakes that this file makes, without the project's folder."""
    write(project, name, text)
    return [line.removeprefix(f"{project.root}/config/") for line in mistakes_of(project.root)]


class TestCommittedConfig:
    def test_it_loads_without_any_environment(self) -> None:
        settings = load_settings(ROOT, {})
        assert list(settings.newsletters) == ["ai-daily"]
        assert settings.newsletters["ai-daily"].channels == ("email", "telegram", "wecom")
        assert len(settings.operator.routes) == 2

    def test_what_it_calls_defaults_are_the_defaults(self) -> None:
        """Its first line says so; addresses of the sandbox and the operator's routes are examples, not defaults."""
        committed, bare = load_settings(ROOT, {}), Settings(root=ROOT)
        for name in (
            "database",
            "broker",
            "engine",
            "email",
            "web",
            "signup",
            "pictures",
            "events",
            "retention",
        ):
            assert getattr(committed, name) == getattr(bare, name), name
        sandbox = {"api": committed.telegram.api}
        assert committed.telegram == bare.telegram.model_copy(update=sandbox)
        assert committed.wecom == bare.wecom.model_copy(update=sandbox)
        assert committed.wechat == bare.wechat.model_copy(update=sandbox)

    def test_every_variable_it_names_is_read(self) -> None:
        text = (ROOT / "config/distributor.toml").read_text("utf-8")
        names = set(re.findall(r"DISTRIBUTOR_[A-Z0-9_]+", text)) - {
            "DISTRIBUTOR_WECOM_",
            "DISTRIBUTOR_WECHAT_",
            "DISTRIBUTOR_RELAY_",
            "DISTRIBUTOR_SIGNUP_",
            "DISTRIBUTOR_WEBHOOK_",
        }
        environment = {name: f"https://secret.example/{name}" for name in names}
        environment["DISTRIBUTOR_DATABASE_URL"] = "postgresql://127.0.0.1/x"
        settings = load_settings(ROOT, environment)
        read = {
            settings.email.smtp.password,
            settings.telegram.token,
            settings.database.url,
            settings.broker.url,
            settings.operator.webhook_url,
            settings.operator.dead_man_url,
            settings.pictures.s3.access_key,
            settings.pictures.s3.secret_key,
            settings.events.bounces.key,
            settings.events.bounces.password,
        }
        assert {secret.get_secret_value() for secret in read} == set(environment.values())


class TestMistakes:
    def test_all_are_told_together_with_file_line_and_key(self, project: Project) -> None:
        system = write(
            project,
            "distributor.toml",
            '[engine]\nchunk = 0\n\n[email.smtp]\nprot = 25\nsecurity = "ssl"\n',
        )
        newsletter = write(
            project,
            "newsletters/ai-daily.toml",
            'title = "x"\ntimezone = "Mars/Olympus"\n[sender]\nname = "x"\n[schedule]\ntime = "7:30"\n',
        )
        found = mistakes_of(project.root)
        places = [line.split(": ")[:2] for line in found]
        assert sorted(places) == sorted(
            [
                [f"{system}:2", "engine.chunk"],
                [f"{system}:5", "email.smtp.prot"],
                [f"{system}:6", "email.smtp.security"],
                [f"{newsletter}:2", "timezone"],
                [f"{newsletter}:3", "sender.address"],
                [f"{newsletter}:6", "schedule.time"],
            ]
        )

    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            ("databse = 1", "distributor.toml:1: databse: unknown key (a typing mistake?)"),
            ("[engine]\nchunks = 5", "distributor.toml:2: engine.chunks: unknown key (a typing mistake?)"),
            ('engine = {lease = "1 minute"}', "distributor.toml:1: engine.lease: expected a duration"),
            ('[web]\nbase_url = "example.com"', "distributor.toml:2: web.base_url: expected a URL"),
            ("[web]\nport = 70000", "distributor.toml:2: web.port: Input should be less than"),
            (
                '[[operator.routes]]\nkind = "webhook"\n[[operator.routes]]\n\nkind = "pigeon"',
                "distributor.toml:5: operator.routes.1.kind: Input should be",
            ),
            (
                '[[operator.routes]]\nkind = "webhook"\n[[operator.routes]]\nkind = "wecom"',
                'distributor.toml:3: operator.routes.1: a route of kind "wecom" needs `robot`',
            ),
            ("[operator]\nroutes = 5", "distributor.toml:2: operator.routes: Input should be a valid tuple"),
            ("operator = 5", "distributor.toml:1: operator: Input should be a valid dictionary"),
            ("[engine\nchunk = 1", "distributor.toml: not valid TOML: "),
        ],
    )
    def test_of_the_system_s_file(self, project: Project, text: str, mistake: str) -> None:
        [found] = mistakes_in(project, text)
        assert found.startswith(mistake)

    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            ("", "title: missing"),
            ('title = "two\\nlines"', "title: expected one line without control characters"),
            ('url_pattern = "https://x.example/{slog}"', ":1: url_pattern: expected a URL in which"),
            ('url_pattern = "https://x.example/{slug"', ":1: url_pattern: expected a URL in which"),
            ('[sender]\naddress = "not an address"', ":2: sender.address: expected an e-mail address"),
            ('[schedule]\ndays = ["mon", "monday"]', ":2: schedule.days.1: "),
            ("[schedule]\nskip = [2026-10-01, 7]", ":2: schedule.skip.1: "),
            ('[[channels.telegram.destinations]]\nname = "a"\nchat = "t.me/x"', ":3: channels.telegram."),
            ("[channels.email]\nsubscriber = true", ":2: channels.email.subscriber: unknown key"),
        ],
    )
    def test_of_a_newsletter_s_file(self, project: Project, text: str, mistake: str) -> None:
        found = mistakes_in(project, text, "newsletters/ai-daily.toml")
        assert any(line.startswith("newsletters/ai-daily.toml") and mistake in line for line in found), found

    @pytest.mark.parametrize(
        ("channel", "places", "mistake"),
        [
            ("telegram", [{"chat": "@paper"}, {"chat": "@evening"}], "a name stands there twice: a;"),
            ("wecom", [{}, {"mode": "text"}], "a name stands there twice: a;"),
            ("wechat", [{}, {}], "a name stands there twice: a;"),
            (
                "handoff",
                [{"title": "x", "to": "a@b.example"}, {"title": "y", "to": "b@b.example"}],
                "a name stands there twice: a;",
            ),
            (
                "telegram",
                [{"chat": "@Paper"}, {"name": "b", "chat": "@paper", "format": "rich"}],
                "a chat stands there twice: @paper;",
            ),
            (
                "telegram",
                [{"chat": "-100", "thread": 7}, {"name": "b", "chat": "-100", "thread": 7}],
                "a chat stands there twice: -100/7;",
            ),
        ],
    )
    def test_two_destinations_that_are_one(
        self, project: Project, channel: str, places: list[dict[str, Any]], mistake: str
    ) -> None:
        """Else the check passes, and the day ends at a constraint of the database."""
        text = (ROOT / "config/newsletters/ai-daily.toml").read_text("utf-8")
        head = text[: text.index("[channels.")]
        for place in places:
            values = "".join(f"{key} = {value!r}\n" for key, value in {"name": "a", **place}.items())
            head += f"[[channels.{channel}.destinations]]\n{values}"
        [found] = mistakes_in(project, head, "newsletters/ai-daily.toml")
        assert re.match(rf"newsletters/ai-daily\.toml:\d+: channels\.{channel}\.destinations: ", found)
        assert mistake in found

    def test_two_topics_of_a_chat_are_two_destinations(self, project: Project) -> None:
        chat = {"chat": "-100"}
        places = [
            {"name": "a", **chat},
            {"name": "b", **chat, "thread": 7},
            {"name": "c", **chat, "thread": 8},
        ]
        settings = project.settings(newsletter={"channels": {"telegram": {"destinations": places}}})
        table = settings.newsletters["ai-daily"].channel_settings.telegram
        assert table
        assert [place.name for place in table.destinations] == ["a", "b", "c"]

    def test_a_folder_without_config_is_told_with_the_way_out(self, tmp_path: Path) -> None:
        [found] = [line for line in mistakes_of(tmp_path) if "not found" in line]
        assert found.startswith(f"{tmp_path}/config/distributor.toml: not found")
        assert "--project" in found

    def test_no_newsletter(self, project: Project) -> None:
        (project.root / "config/newsletters/ai-daily.toml").unlink()
        assert mistakes_of(project.root) == (
            f"{project.root}/config/newsletters: no newsletter: one .toml file each is expected here",
        )

    def test_two_newsletters_of_one_name(self, project: Project) -> None:
        first = (project.root / "config/newsletters/ai-daily.toml").read_text("utf-8")
        found = mistakes_in(project, f'slug = "ai-daily"\n{first}', "newsletters/evening.toml")
        assert found == ["newsletters/evening.toml: slug: another newsletter is called 'ai-daily' already"]

    def test_a_byte_order_mark_is_no_mistake(self, project: Project) -> None:
        path = project.root / "config/distributor.toml"
        path.write_text(path.read_text("utf-8"), "utf-8-sig")
        assert load_settings(project.root, {}).newsletters

    def test_a_file_that_is_not_utf8(self, project: Project) -> None:
        (project.root / "config/newsletters/ai-daily.toml").write_bytes('title = "日报"'.encode("gbk"))
        assert "cannot be read" in mistakes_of(project.root)[0]

    def test_a_newsletter_that_is_not_there_is_told_with_those_that_are(self, project: Project) -> None:
        with pytest.raises(ConfigError, match=r"no newsletter is called 'weekly'.*there are: ai-daily"):
            project.settings().newsletter("weekly")

    def test_a_broker_with_the_embedded_database_is_refused(self, project: Project) -> None:
        environment = {"DISTRIBUTOR_BROKER_URL": "redis://127.0.0.1:1/0"}
        [found] = mistakes_of(project.root, environment)
        assert "workers on a broker need PostgreSQL" in found
        environment["DISTRIBUTOR_DATABASE_URL"] = "postgresql://127.0.0.1:1/x"
        assert load_settings(project.root, environment).broker.configured


class TestSecrets:
    @pytest.mark.parametrize(
        ("text", "line", "variable"),
        [
            ('[email.smtp]\nport = 25\npassword = "hush"', 3, "DISTRIBUTOR_SMTP_PASSWORD"),
            ('[email]\nsmtp = {password = "hush"}', 2, "DISTRIBUTOR_SMTP_PASSWORD"),
            ('[telegram]\ntoken = "hush"', 2, "DISTRIBUTOR_TELEGRAM_TOKEN"),
            ('[operator]\nwebhook_url = "https://hush.example"', 2, "DISTRIBUTOR_ALERT_WEBHOOK_URL"),
            ('[operator]\ndead_man_url = "https://hush.example"', 2, "DISTRIBUTOR_DEAD_MAN_URL"),
        ],
    )
    def test_in_a_file_it_is_refused_and_not_repeated(
        self, project: Project, text: str, line: int, variable: str
    ) -> None:
        [found] = mistakes_in(project, text)
        assert found.startswith(f"distributor.toml:{line}: ")
        assert variable in found
        assert "hush" not in found

    def test_a_value_of_the_wrong_kind_is_not_repeated(self, project: Project) -> None:
        found = mistakes_of(project.root, {"DISTRIBUTOR_SMTP_PORT": "hush"})
        assert len(found) == 1
        assert "hush" not in found[0]

    def test_name_or_name_file(self, project: Project, tmp_path: Path) -> None:
        secret = tmp_path / "token"
        secret.write_text("from-a-file\n", "utf-8")
        by_name = load_settings(project.root, {"DISTRIBUTOR_TELEGRAM_TOKEN": "from-the-environment"})
        by_file = load_settings(project.root, {"DISTRIBUTOR_TELEGRAM_TOKEN_FILE": str(secret)})
        assert by_name.telegram.token.get_secret_value() == "from-the-environment"
        assert by_file.telegram.token.get_secret_value() == "from-a-file"

    def test_an_empty_variable_is_an_absent_one(self, project: Project) -> None:
        """Compose files pass `${NAME:-}`."""
        environment = {"DISTRIBUTOR_WEB_PORT": "", "DISTRIBUTOR_TELEGRAM_TOKEN_FILE": ""}
        settings = load_settings(project.root, environment)
        assert (settings.web.port, settings.telegram.token.get_secret_value()) == (8025, "")

    def test_a_file_that_cannot_be_read_is_told(self, project: Project, tmp_path: Path) -> None:
        (tmp_path / "binary").write_bytes(b"\xff\xfe")
        found = mistakes_of(
            project.root,
            {
                "DISTRIBUTOR_SMTP_PASSWORD_FILE": str(tmp_path / "gone"),
                "DISTRIBUTOR_TELEGRAM_TOKEN_FILE": str(tmp_path / "binary"),
            },
        )
        assert found == (
            f"environment DISTRIBUTOR_SMTP_PASSWORD_FILE: cannot read {tmp_path}/gone: No such file or directory",
            f"environment DISTRIBUTOR_TELEGRAM_TOKEN_FILE: {tmp_path}/binary holds no UTF-8 text",
        )

    def test_each_robot_s_key_is_found_by_its_name(self, project: Project) -> None:
        project.settings(
            newsletter={"channels": {"wecom": {"destinations": [{"name": "ai-group"}]}}},
            operator={"routes": [{"kind": "wecom", "robot": "ops"}]},
        )
        settings = load_settings(
            project.root, {"DISTRIBUTOR_WECOM_AI_GROUP_KEY": "one", "DISTRIBUTOR_WECOM_OPS_KEY": "two"}
        )
        keys = {name: key.get_secret_value() for name, key in settings.wecom_keys.items()}
        assert keys == {"ai-group": "one", "ops": "two"}

    def test_an_account_s_login_is_found_by_its_name(self, project: Project, tmp_path: Path) -> None:
        places = [{"name": "main-desk", "mode": "publish"}, {"name": "other"}]
        project.settings(newsletter={"channels": {"wechat": {"destinations": places}}})
        (tmp_path / "secret").write_text("hush\n")
        settings = load_settings(
            project.root,
            {
                "DISTRIBUTOR_WECHAT_MAIN_DESK_APPID": "wx0123456789abcdef",
                "DISTRIBUTOR_WECHAT_MAIN_DESK_SECRET_FILE": str(tmp_path / "secret"),
                "DISTRIBUTOR_WECHAT_OTHER_APPID": "wx00",
            },
        )
        accounts = settings.wechat_accounts
        assert accounts["main-desk"].secret.get_secret_value() == "hush"
        assert (accounts["main-desk"].complete, accounts["other"].complete) == (True, False)
        assert "hush" not in repr(settings)
        assert settings.newsletter(None).channels == ("email", "wechat")

    def test_a_variable_does_not_hide_a_mistake_of_the_file(self, project: Project) -> None:
        write(project, "distributor.toml", 'database = "sqlite:///x"\n')
        environment = {"DISTRIBUTOR_DATABASE_URL": "postgresql://hush@127.0.0.1/x"}
        [found] = mistakes_of(project.root, environment)
        assert found.startswith(f"{project.root}/config/distributor.toml:1: database: ")

    def test_printed_settings_hold_no_secret(self, project: Project) -> None:
        names = ("SMTP_PASSWORD", "TELEGRAM_TOKEN", "ALERT_WEBHOOK_URL", "DEAD_MAN_URL")
        settings = load_settings(project.root, {f"DISTRIBUTOR_{name}": "hush-hush" for name in names})
        assert "hush" not in f"{settings} {settings!r} {settings.model_dump_json()}"


class TestScheduleTable:
    def test_values_keep_their_meaning(self, project: Project) -> None:
        settings = project.settings(
            newsletter={
                "schedule": {
                    "time": "06:05",
                    "days": ["mon"],
                    "skip": [date(2026, 10, 5)],
                    "extra": [date(2026, 10, 10), date(2026, 10, 5)],
                    "grace": "90m",
                }
            }
        )
        schedule = settings.newsletters["ai-daily"].schedule
        assert schedule.grace == timedelta(minutes=90)
        days = {day: schedule.sends_on(date(2026, 10, day)) for day in (5, 6, 10, 12)}
        assert days == {5: False, 6: False, 10: True, 12: True}

    def test_the_written_project_reads_back(self, project: Project) -> None:
        written = tomllib.loads((project.root / "config/newsletters/ai-daily.toml").read_text("utf-8"))
        assert project.settings().newsletters["ai-daily"].title == written["title"]
