"""What the bot does and says: every command in both languages, on both databases, and what it must not do."""

import copy
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from fakes import BOTH, migrated_database
from talker import LI, WANG, Talker, make_talker

from distributor.audience import Visit
from distributor.bot import read
from distributor.bot.replies import Reply, Toast
from distributor.bot.words import WORDS
from distributor.db import Database
from distributor.model import DeliveryState, LinkPurpose, SuppressionReason
from distributor.settings.newsletter import TelegramChannelSettings

#: Where the SQL differs; making an empty database on PostgreSQL takes longer than the test.
ON_BOTH = pytest.mark.parametrize("database", BOTH, indirect=True)
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
LANGUAGES = pytest.mark.parametrize(
    ("code", "language"), [("zh-hans", "zh-CN"), ("en-GB", "en"), ("de", "zh-CN")]
)


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as opened:
        yield opened


@pytest.fixture
def talker(database: Database) -> Talker:
    return make_talker(database)


@ON_SQLITE
class TestStart:
    @LANGUAGES
    def test_a_bare_start_subscribes_with_evidence(self, talker: Talker, code: str, language: str) -> None:
        said = talker.says("/start", language=code)
        words = WORDS[language]
        assert words.subscribed.format(titles=words.title.format("早报 &lt;A&amp;B&gt;")) in said
        assert "<blockquote>" in said
        assert talker.gets() == {"daily"}
        assert talker.consents() == [("daily", "confirmed", "telegram", language)]
        assert talker.world.audience.chat(LI).language == language

    def test_the_words_that_count_are_those_that_were_shown(self, talker: Talker) -> None:
        said = talker.says("/start")
        wording = talker.bot.reception.wording(["daily"], "zh-CN", "telegram").text
        assert "/stop" in wording
        assert wording.replace("<A&B>", "&lt;A&amp;B&gt;") in said

    def test_again_changes_nothing(self, talker: Talker) -> None:
        talker.says("/start")
        assert "已经订阅" in talker.says("/start")
        assert len(talker.consents()) == 1

    def test_a_choice_made_before_is_kept(self, talker: Talker) -> None:
        talker.says("/start")
        talker.presses(button(talker, "Weekly"))
        talker.presses(button(talker, "早报"))
        talker.says("/start")
        assert talker.gets() == {"weekly"}

    def test_with_our_name_behind_it(self, talker: Talker) -> None:
        assert "已为你订阅" in talker.says("/START@Morning_Bot")
        assert "指令" in talker.says("/start@another_bot", WANG)
        assert talker.gets(WANG) == set()

    @pytest.mark.parametrize("reason", [SuppressionReason.COMPLAINED, SuppressionReason.MANUAL])
    def test_a_final_suppression_is_not_undone(self, talker: Talker, reason: SuppressionReason) -> None:
        talker.world.audience.suppress("telegram", LI, reason)
        assert talker.says("/start") == WORDS["zh-CN"].refused
        assert talker.gets() == set()
        assert talker.consents() == []

    def test_nothing_to_subscribe_to(self, talker: Talker) -> None:
        talker.world.engine.newsletters.clear()  # type: ignore[attr-defined]
        talker.bot.reception.newsletters["x"] = talker.world.newsletter.model_copy(  # type: ignore[index]
            update={"slug": "x", "public": False}
        )
        object.__setattr__(talker.bot, "settings", talker.settings.model_copy(update={"newsletters": ()}))
        assert talker.says("/start") == WORDS["zh-CN"].nothing


@ON_BOTH
class TestConnecting:
    @pytest.mark.parametrize("code", ["zh-hans", "en"])
    def test_a_link_binds_the_chat_and_subscribes_it(self, talker: Talker, code: str) -> None:
        reader = talker.reader()
        said = talker.says(f"/start {talker.link(reader)}", language=code)
        assert "l•••@readers.example" in said
        assert "li@" not in said
        assert talker.gets() == {"daily"}
        # in the language the reader has chosen before, whatever Telegram says
        assert talker.consents() == [("daily", "confirmed", "telegram", "zh-CN")]
        found = talker.world.audience.preferences(reader.token)
        assert found is not None
        assert [(place.channel, place.address) for place in found.places] == [
            ("email", "li@readers.example"),
            ("telegram", LI),
        ]

    def test_it_subscribes_to_what_the_reader_gets_and_telegram_has(self, talker: Talker) -> None:
        reader = talker.reader(newsletter="weekly")
        talker.reader(newsletter="letter")
        talker.says(f"/start {talker.link(reader)}")
        assert talker.gets() == {"weekly"}

    def test_a_reader_of_mail_alone_chooses_by_hand(self, talker: Talker) -> None:
        said = talker.says(f"/start {talker.link(talker.reader(newsletter='letter'))}")
        assert "/settings" in said
        assert talker.gets() == set()
        assert "l•••@readers.example" in talker.settings_of().text

    def test_a_link_works_once(self, talker: Talker) -> None:
        token = talker.link(talker.reader())
        talker.says(f"/start {token}")
        assert "早已连接" in talker.says(f"/start {token}")
        assert talker.says(f"/start {token}", WANG) == WORDS["zh-CN"].dead_link
        assert talker.gets(WANG) == set()

    def test_a_link_expires(self, talker: Talker) -> None:
        token = talker.link(talker.reader())
        talker.world.clock.forward(timedelta(minutes=61))
        assert talker.says(f"/start {token}", language="en") == WORDS["en"].dead_link
        assert talker.gets() == set()

    def test_a_suppressed_reader_s_link_leads_nowhere(self, talker: Talker) -> None:
        token = talker.link(talker.reader())
        talker.world.audience.suppress("email", "li@readers.example", SuppressionReason.COMPLAINED)
        assert talker.says(f"/start {token}") == WORDS["zh-CN"].dead_link
        assert talker.gets() == set()

    @pytest.mark.parametrize("token", ["nobody-has-this", "x" * 5000, "\x00", "a' OR 1=1", "早"])
    def test_an_unknown_token_is_answered_like_an_old_one(self, talker: Talker, token: str) -> None:
        assert talker.says(f"/start {token}") == WORDS["zh-CN"].dead_link

    def test_a_confirmation_s_token_is_none(self, talker: Talker) -> None:
        """Each purpose has tokens of its own."""
        reader = talker.reader()
        token = talker.world.audience.new_link(reader.token, LinkPurpose.CONFIRM, timedelta(hours=1))
        assert talker.says(f"/start {token}") == WORDS["zh-CN"].dead_link

    def test_it_brings_a_blocked_chat_back(self, talker: Talker) -> None:
        talker.says("/start")
        talker.hears(talker.users.block(LI))
        talker.says(f"/start {talker.link(talker.reader())}")
        assert talker.gets() == {"daily"}


@ON_SQLITE
class TestStop:
    @pytest.mark.parametrize("code", ["zh-hans", "en"])
    def test_it_ends_everything_in_this_chat_alone(self, talker: Talker, code: str) -> None:
        reader = talker.reader()
        talker.says(f"/start {talker.link(reader)}")
        talker.presses(button(talker, "Weekly"))
        talker.says("/start", WANG)
        assert talker.gets() == {"daily", "weekly"}
        assert talker.says("/stop", language=code) == WORDS["zh-CN"].stopped
        assert (talker.gets(), talker.gets(WANG)) == (set(), {"daily"})
        found = talker.world.audience.find(reader.token)
        assert found is not None
        assert found.state == "active"
        assert [row[:3] for row in talker.consents()[-2:]] == [
            ("daily", "withdrawn", "telegram"),
            ("weekly", "withdrawn", "telegram"),
        ]

    @LANGUAGES
    def test_whoever_gets_nothing_is_told_so(self, talker: Talker, code: str, language: str) -> None:
        assert talker.says("/stop", language=code) == WORDS[language].not_subscribed

    def test_it_works_however_often_somebody_has_asked(self, talker: Talker) -> None:
        talker.says("/start")
        answers = [talker.says("/start") for _ in range(20)]
        assert answers[-1] == ""
        talker.says("/stop")
        assert talker.gets() == set()

    def test_a_start_afterwards_begins_anew(self, talker: Talker) -> None:
        talker.says("/start")
        talker.says("/stop")
        assert "<blockquote>" in talker.says("/start")
        assert [row[1] for row in talker.consents()] == ["confirmed", "withdrawn", "confirmed"]


def button(talker: Talker, label: str, chat: str = LI) -> str:
    """What the button of /settings with this in its label carries."""
    buttons = itertools.chain.from_iterable(talker.settings_of(chat).keyboard)
    return next(one.data for one in buttons if label in one.label)


@ON_SQLITE
class TestSettings:
    @LANGUAGES
    def test_it_shows_what_there_is(self, talker: Talker, code: str, language: str) -> None:
        talker.says("/start", language=code)
        reply = talker.settings_of(language=code)
        assert reply.text == WORDS[language].settings
        labels = [[one.label for one in row] for row in reply.keyboard]
        chosen = {name: f"{'✅ ' if name == language else ''}{WORDS[name].name}" for name in WORDS}
        assert labels == [["✅ 早报 <A&B>"], ["▫️ Weekly"], list(chosen.values())]
        assert all(len(one.data.encode()) <= 64 for row in reply.keyboard for one in row)

    def test_whoever_has_not_begun_is_told_how(self, talker: Talker) -> None:
        assert talker.says("/settings", language="en") == WORDS["en"].not_subscribed

    def test_a_button_turns_a_newsletter_on_and_off(self, talker: Talker) -> None:
        talker.says("/start")
        on, off = button(talker, "Weekly"), button(talker, "早报")
        toast, shown = talker.presses(on)
        assert isinstance(toast, Toast)
        assert toast.text == "已订阅"
        assert isinstance(shown, Reply)
        assert (shown.edits, shown.keyboard[1][0].label) == (7, "✅ Weekly")
        assert talker.bot.reception.wording(["weekly"], "zh-CN", "telegram").text in shown.text
        assert talker.gets() == {"daily", "weekly"}
        assert next(one.text for one in talker.presses(off)) == "已关闭"
        assert talker.gets() == {"weekly"}
        assert [row[:2] for row in talker.consents()] == [
            ("daily", "confirmed"),
            ("weekly", "confirmed"),
            ("daily", "withdrawn"),
        ]

    def test_a_second_press_of_an_old_button_changes_nothing_more(self, talker: Talker) -> None:
        talker.says("/start")
        on = button(talker, "Weekly")
        talker.presses(on)
        talker.presses(on)
        assert talker.gets() == {"daily", "weekly"}
        assert len(talker.consents()) == 2

    def test_a_button_changes_the_language(self, talker: Talker) -> None:
        talker.says("/start")
        toast, shown = talker.presses(button(talker, "English"))
        assert (toast.text, shown.text) == (WORDS["en"].spoken, WORDS["en"].settings)
        assert talker.says("/stop") == WORDS["en"].stopped

    @pytest.mark.parametrize(
        "data",
        [
            "",
            "|",
            "on:weekly",
            "on:weekly|",
            "on:weekly|AAAA",
            "language:en|x",
            "\x00|\x00",
            "x" * 64,
            "中|文",
        ],
    )
    def test_what_we_did_not_write_changes_nothing(self, talker: Talker, data: str) -> None:
        talker.says("/start")
        (toast,) = talker.presses(data)
        assert toast.text == WORDS["zh-CN"].old_button
        assert talker.gets() == {"daily"}

    def test_another_chat_s_button_changes_nothing(self, talker: Talker) -> None:
        talker.says("/start")
        talker.says("/start", WANG)
        (toast,) = talker.presses(button(talker, "Weekly"), WANG)
        assert toast.text == WORDS["zh-CN"].old_button
        assert talker.gets(WANG) == {"daily"}

    def test_a_newsletter_that_is_offered_no_more_is_not_begun(self, talker: Talker) -> None:
        talker.says("/start")
        on = button(talker, "Weekly")
        known = dict(talker.world.engine.newsletters)
        known["weekly"] = known["weekly"].model_copy(update={"public": False})
        object.__setattr__(talker.bot.reception, "newsletters", known)
        (toast,) = talker.presses(on)
        assert toast.text == WORDS["zh-CN"].old_button
        assert talker.gets() == {"daily"}

    def test_a_blocked_chat_begins_nothing_by_a_button(self, talker: Talker) -> None:
        """Pressed before, heard after: only a /start of theirs brings a chat back."""
        talker.says("/start")
        on = button(talker, "Weekly")
        talker.hears(talker.users.block(LI))
        (toast,) = talker.presses(on)
        assert toast.text == WORDS["zh-CN"].start_first
        assert talker.world.audience.chat(LI).active == {"daily"}

    def test_a_button_in_a_group_is_nobody_s(self, talker: Talker) -> None:
        update = talker.users.press(LI, "x", 7)
        update["callback_query"]["message"]["chat"] = {"id": -100, "type": "supergroup", "title": "G"}
        assert talker.hears(update) == ()


@ON_SQLITE
class TestToday:
    @LANGUAGES
    def test_it_sends_the_newest_issue_once(self, talker: Talker, code: str, language: str) -> None:
        world = talker.world
        talker.says("/start", WANG)
        world.open(slug="older", guarded=False)
        world.drain("telegram")
        issue = world.open(
            world.engine.ledger.issues()[0].local_date + timedelta(days=1), "newest", guarded=False
        )
        world.drain("telegram")
        sent = world.engine.channels["telegram"].accepted  # type: ignore[attr-defined]
        sent.clear()
        talker.says("/start", language=code)
        words = WORDS[language]
        title = words.title.format("早报 &lt;A&amp;B&gt;")
        assert talker.says("/today") == words.coming.format(title=title)
        assert talker.says("/today") == words.coming.format(title=title)
        world.drain("telegram")
        assert [parcel.recipient.address for parcel in sent] == [LI]
        said = talker.says("/today")
        assert said.startswith(words.had.format(title=title))
        assert f"http://news.example/issues/{issue.id}" in said
        world.drain("telegram")
        assert len(sent) == 1
        assert world.check_sum(issue).sent == 2

    @LANGUAGES
    def test_before_the_first_issue(self, talker: Talker, code: str, language: str) -> None:
        talker.says("/start", language=code)
        title = WORDS[language].title.format("早报 &lt;A&amp;B&gt;")
        assert talker.says("/today") == WORDS[language].no_issue.format(title=title)

    @pytest.mark.parametrize("away", ["never there", "stopped", "blocked"])
    def test_whoever_gets_nothing_is_sent_nothing(self, talker: Talker, away: str) -> None:
        issue = talker.world.open(guarded=False)
        if away != "never there":
            talker.says("/start")
        if away == "stopped":
            talker.says("/stop")
        if away == "blocked":
            talker.hears(talker.users.block(LI))
        assert talker.says("/today") == WORDS["zh-CN"].not_subscribed
        assert talker.world.log(issue) == {}

    def test_an_issue_that_waits_for_a_person_is_not_let_out(self, talker: Talker) -> None:
        talker.says("/start")
        issue, _, _ = talker.world.frozen_only()
        assert "还没有发出过" in talker.says("/today")
        assert talker.world.log(issue) == {}

    def test_a_paused_issue_stays_where_it_is(self, talker: Talker) -> None:
        issue = talker.world.open(guarded=False)
        talker.world.ledger.set_paused(issue.id, paused=True)
        talker.says("/start")
        assert "还没有发出过" in talker.says("/today")

    def test_an_issue_that_was_not_delivered_here_is_shown_on_the_web(self, talker: Talker) -> None:
        """Blocked while it was sent: the row is settled, and the resend of a person alone puts it out again."""
        talker.says("/start")
        issue = talker.world.open()
        talker.hears(talker.users.block(LI))
        talker.world.drain("telegram")
        assert talker.world.log(issue)[LI].state is DeliveryState.SKIPPED
        talker.says("/start")
        said = talker.says("/today")
        assert "没有发到这里" in said
        assert f"http://news.example/issues/{issue.id}" in said


@ON_BOTH
class TestBlocking:
    def test_nothing_goes_to_a_chat_that_blocked_us(self, talker: Talker) -> None:
        talker.says("/start")
        assert talker.hears(talker.users.block(LI)) == ()
        assert talker.world.audience.chat(LI).suppressed == "blocked"
        assert talker.world.audience.count("daily", "telegram") == 0

    def test_unblocking_alone_subscribes_nobody(self, talker: Talker) -> None:
        talker.says("/start")
        talker.hears(talker.users.block(LI))
        assert talker.hears(talker.users.unblock(LI)) == ()
        assert talker.gets() == set()

    def test_their_own_start_brings_them_back_with_evidence(self, talker: Talker) -> None:
        talker.says("/start")
        talker.hears(talker.users.block(LI))
        talker.hears(talker.users.unblock(LI))
        assert "<blockquote>" in talker.says("/start")
        assert talker.gets() == {"daily"}
        assert [row[1] for row in talker.consents()] == ["confirmed", "confirmed"]

    def test_who_had_stopped_and_blocked_gets_the_default_again(self, talker: Talker) -> None:
        talker.says("/start")
        talker.says("/stop")
        talker.hears(talker.users.block(LI))
        talker.says("/start")
        assert talker.gets() == {"daily"}

    def test_a_stranger_who_blocks_is_no_subscriber(self, talker: Talker) -> None:
        talker.hears(talker.users.block(LI))
        assert talker.gets() == set()
        assert talker.world.audience.listing("daily") == []


@ON_BOTH
class TestOrder:
    """Updates that come again, late, or in another order than they happened."""

    def test_every_order_ends_the_same_way(self, talker: Talker) -> None:
        """Start, block, start, stop, a minute between them: whatever comes first, they have stopped."""
        updates = self.story(talker)
        for chat, order in enumerate(itertools.permutations(range(4)), 50_000):
            for place in order:
                talker.hears(self.of_chat(updates[place], chat))
            assert talker.gets(str(chat)) == set(), order

    def test_the_last_word_counts(self, talker: Talker) -> None:
        start, block, back, _stop = self.story(talker)
        for update in (block, back, start):
            talker.hears(update)
        assert talker.gets() == {"daily"}
        talker.hears(self.of_chat(block, int(WANG)))
        talker.hears(self.of_chat(start, int(WANG)))
        assert talker.gets(WANG) == set()

    def test_many_at_once_are_one(self, talker: Talker) -> None:
        """Two web processes, the same update and others of the same chat at the same moment."""
        updates = [talker.users.say(LI, "/start") for _ in range(4)] * 3
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(talker.hears, updates))
        assert talker.gets() == {"daily"}
        assert len(talker.consents()) == 1
        token = talker.link(talker.reader())
        chats = [str(chat) for chat in range(60_000, 60_006)]
        with ThreadPoolExecutor(6) as pool:
            said = list(pool.map(lambda chat: talker.says(f"/start {token}", chat), chats))
        assert said.count(WORDS["zh-CN"].dead_link) == 5
        assert sum(bool(talker.gets(chat)) for chat in chats) == 1

    def test_a_replay_is_done_once_and_not_answered(self, talker: Talker) -> None:
        for update in self.story(talker)[:1] * 3:
            talker.hears(update)
        assert len(talker.consents()) == 1
        for kind in ("/settings", "/today", "/help", "/stop", "hello"):
            update = talker.users.say(LI, kind)
            talker.hears(update)
            assert talker.hears(update) == ()

    def story(self, talker: Talker) -> list[dict[str, object]]:
        users = talker.users
        updates = [users.say(LI, "/start"), users.block(LI), users.say(LI, "/start"), users.say(LI, "/stop")]
        for minute, update in enumerate(updates):
            what = update.get("message") or update["my_chat_member"]
            what["date"] += 60 * minute
        return updates

    def of_chat(self, update: dict[str, object], chat: int) -> dict[str, object]:
        other = copy.deepcopy(update)
        other["update_id"] = int(str(other["update_id"])) + chat * 1000
        what: dict[str, object] = other.get("message") or other["my_chat_member"]  # type: ignore[assignment]
        what["chat"] = {"id": chat, "type": "private", "first_name": "R"}
        what["from"] = {"id": chat, "is_bot": False, "first_name": "R", "language_code": "zh-hans"}
        return other


@ON_SQLITE
class TestOtherThings:
    @LANGUAGES
    @pytest.mark.parametrize("text", ["/help", "hello", "/unknown", "/", "你好", "<b>x</b>", "/star t"])
    def test_anything_else_gets_a_short_help(
        self, talker: Talker, code: str, language: str, text: str
    ) -> None:
        assert talker.says(text, language=code) == WORDS[language].help

    def test_small_talk_is_answered_once(self, talker: Talker) -> None:
        assert talker.says("hello") != ""
        assert talker.says("hello?") == ""
        assert talker.says("hello", WANG) != ""

    def test_a_chat_that_never_stops_asking_is_not_answered(self, talker: Talker) -> None:
        answers = [talker.says("/settings") for _ in range(12)]
        assert [bool(answer) for answer in answers] == [True] * 8 + [False] * 4

    def test_groups_hear_nothing_from_us(self, talker: Talker) -> None:
        for text in ("/start", "/start@morning_bot", "/stop", "hello"):
            update = talker.users.say(LI, text)
            update["message"]["chat"] = {"id": -100500, "type": "supergroup", "title": "G"}
            assert talker.hears(update) == ()
        assert talker.world.audience.listing("daily") == []

    def test_what_a_bare_start_gives_can_be_chosen_again(self, talker: Talker) -> None:
        """A newsletter that is on no public page, named for the bot alone."""
        known = dict(talker.world.engine.newsletters)
        known["daily"] = known["daily"].model_copy(update={"public": False})
        object.__setattr__(talker.bot.reception, "newsletters", known)
        talker.says("/start")
        talker.presses(button(talker, "早报"))
        talker.presses(button(talker, "早报"))
        assert talker.gets() == {"daily"}

    def test_bots_are_not_answered(self, talker: Talker) -> None:
        update = talker.users.say(LI, "/start")
        update["message"]["from"]["is_bot"] = True
        assert talker.hears(update) == ()

    def test_the_operator_hears_of_groups_once(self, talker: Talker) -> None:
        update = talker.users.move("-100500", "administrator", title="A\u202e\ngroup " + "x" * 100)
        talker.hears(update)
        talker.hears(update)
        ((key, subject, text),) = talker.told
        assert "-100500" in text
        assert "none of our destinations" in text
        assert "A group xxx" in text
        assert "x" * 60 not in text
        assert "\u202e" not in text
        assert "-100500" not in key + subject  # they are logged

    def test_strangers_cannot_flood_the_operator(self, talker: Talker) -> None:
        for number in range(40):
            talker.hears(talker.users.move(f"-1005{number:02}", "member"))
        assert len(talker.told) == 5

    def test_a_destination_of_ours_is_told_each_time(self, talker: Talker) -> None:
        known = dict(talker.world.engine.newsletters)
        tables = known["daily"].channel_settings.model_copy(update={"telegram": telegram_with("-100500")})
        known["daily"] = known["daily"].model_copy(update={"channel_settings": tables})
        object.__setattr__(talker.bot.reception, "newsletters", known)
        for minute, status in enumerate(["member", "administrator", "kicked", "member"]):
            update = talker.users.move("-100500", status)
            update["my_chat_member"]["date"] += 60 * minute
            talker.hears(update)
        assert [subject.split()[4] for _, subject, _ in talker.told] == [
            "member", "administrator", "kicked", "member",
        ]  # fmt: skip
        assert all("destination of ours" in text for _, _, text in talker.told)


def telegram_with(chat: str) -> object:
    return TelegramChannelSettings.model_validate({"destinations": [{"name": "main", "chat": chat}]})


@ON_BOTH
def test_a_whole_walk(talker: Talker) -> None:
    talker.says("/start")
    talker.presses(button(talker, "Weekly"))
    talker.presses(button(talker, "English"))
    issue = talker.world.open()
    talker.says("/start", WANG)
    assert "马上就到" in talker.says("/today", WANG)
    talker.says("/stop")
    talker.world.drain("telegram")
    assert talker.world.states(issue) == {LI: "skipped(unsubscribed)", WANG: "sent"}


@ON_BOTH
def test_preferences_and_the_bot_mean_the_same(talker: Talker) -> None:
    """What a reader turns off on the page is off in the chat's settings."""
    reader = talker.reader()
    talker.says(f"/start {talker.link(reader)}")
    found = talker.world.audience.preferences(reader.token)
    assert found is not None
    chat = found.places[1].subscriber_id
    talker.world.audience.choose(reader.token, {(chat, "daily"): False}, "en", Visit(source="page"))
    assert talker.gets() == set()
    assert talker.settings_of().keyboard[0][0].label == "▫️ 早报 <A&B>"
    assert talker.settings_of().text.startswith(WORDS["en"].settings)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"update_id": "1"},
        {"update_id": True},
        {"update_id": 1, "message": {"chat": 1}},
        {"update_id": 1, "message": {"message_id": 1, "date": "soon", "chat": {"id": 1, "type": "private"}}},
        {"update_id": 1, "callback_query": {"id": 1}},
        {"update_id": 1, "my_chat_member": {"chat": {}}},
    ],
)
def test_what_is_no_update_is_told_apart(told: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"update"):
        read(told)
