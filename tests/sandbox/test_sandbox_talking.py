"""Users of the simulated Telegram: what they do becomes updates, which a bot is brought or asks for, as on the real one."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from telegram import ChatMemberBanned, Update
from telegram.constants import ChatMemberStatus

from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox
from distributor.sandbox.talking import SECRET_HEADER

TOKEN, BOT = "123456:sandbox-token-0001", "123456"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None, limits=UNLIMITED) as running:
        running.talking.met(BOT)
        yield running


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{sandbox.url}/bot{TOKEN}", timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def page(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, timeout=10, trust_env=False) as client:
        yield client


class Hook:
    """A webhook that answers as told, and remembers."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, Any], str | None]] = []
        self.called = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner.called:
                    status = owner.statuses.pop(0) if owner.statuses else 200
                    owner.got.append((body, self.headers.get(SECRET_HEADER)))
                    owner.called.notify_all()
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the stdlib's
                """Nothing on the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def wait(self, number: int) -> None:
        with self.called:
            assert self.called.wait_for(lambda: len(self.got) >= number, 10)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


def result(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def wait_until_taken(api: httpx.Client) -> None:
    """The hook has an update a moment before the sandbox has its answer."""
    while result(api.post("/getWebhookInfo"))["pending_update_count"]:
        pass


def test_python_telegram_bot_reads_every_update(sandbox: Sandbox) -> None:
    users = sandbox.talking
    said = Update.de_json(users.say("42", "/start abc", language="en"), None)
    assert said.message
    assert said.message.from_user
    assert (said.message.chat.type, said.message.from_user.language_code) == ("private", "en")
    assert said.message.entities[0].type == "bot_command"
    pressed = Update.de_json(users.press("42", "x", 7), None)
    assert pressed.callback_query
    assert pressed.callback_query.data == "x"
    blocked = Update.de_json(users.block("42"), None)
    assert blocked.my_chat_member
    assert isinstance(blocked.my_chat_member.new_chat_member, ChatMemberBanned)
    raised = Update.de_json(users.move("-100", "administrator", title="G"), None)
    assert raised.my_chat_member
    assert raised.my_chat_member.new_chat_member.status == ChatMemberStatus.ADMINISTRATOR
    numbers = [update["update_id"] for update in users.updates]
    assert numbers == sorted(set(numbers))


def test_a_bot_that_asks_gets_each_until_it_confirms(sandbox: Sandbox, api: httpx.Client) -> None:
    first, second = sandbox.talking.say("42", "a"), sandbox.talking.say("42", "b")
    assert result(api.post("/getUpdates", json={"limit": 1})) == [first]
    assert result(api.post("/getUpdates")) == [first, second]
    assert result(api.post("/getUpdates", json={"offset": first["update_id"] + 1})) == [second]
    assert result(api.post("/getUpdates", json={"offset": second["update_id"] + 1})) == []


def test_a_question_stays_open_until_somebody_speaks(sandbox: Sandbox, api: httpx.Client) -> None:
    timer = threading.Timer(0.2, sandbox.talking.say, ("42", "a"))
    timer.start()
    found = result(api.post("/getUpdates", json={"timeout": 30}))
    assert [update["message"]["text"] for update in found] == ["a"]


def test_only_one_asks_at_a_time(sandbox: Sandbox, api: httpx.Client) -> None:
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(api.post("/getUpdates", json={"timeout": 30})))
    first.start()
    while not sandbox.talking._listeners[BOT].question:
        pass
    second = threading.Thread(target=lambda: api.post("/getUpdates", json={"timeout": 1}))
    second.start()
    first.join()
    second.join()
    assert answers[0].status_code == 409
    assert "terminated by other getUpdates request" in answers[0].json()["description"]


def test_only_what_a_bot_wants_is_kept(sandbox: Sandbox, api: httpx.Client) -> None:
    api.post("/getUpdates", json={"allowed_updates": ["my_chat_member"]})
    sandbox.talking.say("42", "a")
    blocked = sandbox.talking.block("42")
    assert result(api.post("/getUpdates")) == [blocked]


def test_a_webhook_is_brought_everything_in_order_with_its_secret(
    sandbox: Sandbox, api: httpx.Client, hook: Hook
) -> None:
    before = sandbox.talking.say("42", "before")
    asked = {"url": hook.url, "secret_token": "abc-1", "allowed_updates": ["message"]}
    assert result(api.post("/setWebhook", json=asked)) is True
    after = sandbox.talking.say("42", "after")
    hook.wait(2)
    assert hook.got == [(before, "abc-1"), (after, "abc-1")]
    wait_until_taken(api)
    assert result(api.post("/getWebhookInfo"))["url"] == hook.url
    assert api.post("/getUpdates").status_code == 409
    assert result(api.post("/deleteWebhook")) is True
    assert result(api.post("/getUpdates")) == []


def test_what_was_not_taken_comes_again(sandbox: Sandbox, api: httpx.Client, hook: Hook) -> None:
    hook.statuses = [500, 401, 200]
    api.post("/setWebhook", json={"url": hook.url})
    first, second = sandbox.talking.say("42", "a"), sandbox.talking.say("42", "b")
    hook.wait(4)
    assert [update for update, _ in hook.got] == [first, first, first, second]


def test_a_webhook_that_nobody_answers_is_told(sandbox: Sandbox, api: httpx.Client) -> None:
    api.post("/setWebhook", json={"url": "http://127.0.0.1:9/hook"})
    sandbox.talking.say("42", "a")
    while "last_error_message" not in (info := result(api.post("/getWebhookInfo"))):
        pass
    assert (info["last_error_message"], info["pending_update_count"]) == (
        "Connection failed: ConnectError",
        1,
    )
    api.post("/setWebhook", json={"url": "http://127.0.0.1:9/hook", "drop_pending_updates": True})
    assert result(api.post("/getWebhookInfo"))["pending_update_count"] == 0


@pytest.mark.parametrize(
    "asked",
    [{"url": "ftp://x"}, {"url": "http://x/", "secret_token": "a b"}, {"url": "x", "allowed_updates": "{"}],
)
def test_a_webhook_that_cannot_be_is_refused(api: httpx.Client, asked: dict[str, str]) -> None:
    assert api.post("/setWebhook", json=asked).status_code == 400


def test_a_button_can_be_pressed_and_answered_once(sandbox: Sandbox, api: httpx.Client) -> None:
    keyboard = {"inline_keyboard": [[{"text": "A", "callback_data": "1"}]]}
    sent = result(api.post("/sendMessage", json={"chat_id": 42, "text": "x", "reply_markup": keyboard}))
    pressed = sandbox.talking.press("42", "1", sent["message_id"])
    answer = {"callback_query_id": pressed["callback_query"]["id"], "text": "ok"}
    assert result(api.post("/answerCallbackQuery", json=answer)) is True
    assert "query is too old" in api.post("/answerCallbackQuery", json=answer).json()["description"]
    assert sandbox.talking.toasts == [("42", "ok")]


@pytest.mark.parametrize("data", ["", "x" * 65, "早" * 22])
def test_a_button_carries_64_bytes(api: httpx.Client, data: str) -> None:
    keyboard = {"inline_keyboard": [[{"text": "A", "callback_data": data}]]}
    answer = api.post("/sendMessage", json={"chat_id": 42, "text": "x", "reply_markup": keyboard})
    assert answer.json()["description"] == "Bad Request: BUTTON_DATA_INVALID"


def test_who_blocked_the_bot_gets_nothing_until_they_unblock_it(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.talking.block("42")
    refused = api.post("/sendMessage", json={"chat_id": 42, "text": "x"})
    assert refused.json()["description"] == "Forbidden: bot was blocked by the user"
    sandbox.talking.unblock("42")
    assert api.post("/sendMessage", json={"chat_id": 42, "text": "x"}).status_code == 200


@pytest.fixture
def _heard(api: httpx.Client) -> None:
    api.post("/getUpdates")


@pytest.mark.usefixtures("_heard")
class TestThePage:
    def test_a_person_can_be_a_reader(self, sandbox: Sandbox, page: httpx.Client, api: httpx.Client) -> None:
        keyboard = {"inline_keyboard": [[{"text": "甲 <b>", "callback_data": "1"}]]}
        api.post("/sendMessage", json={"chat_id": 42, "text": "x", "reply_markup": keyboard})
        ours = {"Sec-Fetch-Site": "same-origin"}
        said = page.post("/chat/42", data={"do": "say", "text": "/start <i>"}, headers=ours)
        assert (said.status_code, said.headers["location"]) == (303, "/chat/42#end")
        shown = page.get("/chat/42").text
        assert "/start &lt;i&gt;" in shown
        assert '<button name="data" value="1">甲 &lt;b&gt;</button>' in shown
        page.post("/chat/42", data={"do": "press", "data": "1", "message": "1"}, headers=ours)
        page.post("/chat/42", data={"do": "block"}, headers=ours)
        assert "Unblock the bot" in page.get("/chat/42").text
        kinds = [min(update) for update in sandbox.talking.updates]
        assert kinds == ["message", "callback_query", "my_chat_member"]

    def test_a_new_chat_can_be_begun(self, page: httpx.Client) -> None:
        assert page.get("/chat/1001").status_code == 200
        assert "Talk to the bot as a reader" in page.get("/", params={"channel": "telegram"}).text
        assert page.get("/chat/@somebody").status_code == 404

    def test_a_program_says_it_in_json(self, sandbox: Sandbox, page: httpx.Client) -> None:
        answer = page.post("/chat/-100", json={"do": "move", "status": "administrator", "title": "G"})
        assert answer.json() == sandbox.talking.updates[0]
        page.post("/chat/42", json={"do": "unblock"})
        assert page.get("/api/toasts").json() == []

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({}, 422),
            ({"do": "dance"}, 422),
            ({"do": "say"}, 422),
            ({"do": "press", "data": "x", "message": "y"}, 422),
        ],
    )
    def test_what_cannot_be_done_is_told(self, page: httpx.Client, body: dict[str, str], status: int) -> None:
        assert page.post("/chat/42", json=body).status_code == status

    @pytest.mark.parametrize("origin", [None, "cross-site", "same-site", "none"])
    def test_another_site_s_form_does_nothing(
        self, sandbox: Sandbox, page: httpx.Client, origin: str | None
    ) -> None:
        headers = {"Sec-Fetch-Site": origin} if origin else {}
        assert page.post("/chat/42", data={"do": "block"}, headers=headers).status_code == 415
        assert sandbox.talking.updates == []

    def test_before_any_bot_has_called(self) -> None:
        with Sandbox(None) as fresh, httpx.Client(base_url=fresh.url, trust_env=False) as page:
            assert page.post("/chat/42", json={"do": "say", "text": "x"}).status_code == 409
            assert page.get("/chat/42").status_code == 404
            assert "Talk to the bot" not in page.get("/", params={"channel": "telegram"}).text
