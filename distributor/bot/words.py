"""What the bot says, as HTML, in both languages. What stands in braces comes escaped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, kw_only=True)
class Words:
    """One language. `title` and `joint` make a list of newsletters."""

    name: str  # of the language, on its button
    title: str
    joint: str
    subscribed: str
    already: str
    consent: str
    commands: str
    connected: str
    connected_already: str
    choose: str
    dead_link: str
    refused: str
    nothing: str
    stopped: str
    not_subscribed: str
    settings: str
    connected_to: str
    chosen: str
    not_chosen: str
    spoken: str
    old_button: str
    start_first: str
    coming: str
    had: str
    elsewhere: str
    no_issue: str
    on_the_web: str
    help: str
    #: command → its line in Telegram's menu
    menu: Mapping[str, str]

    def titles(self, titles: Iterable[str]) -> str:
        """《甲》、《乙》, escaped."""
        return self.joint.join(self.title.format(escape(title)) for title in titles)


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(
        name="中文",
        title="《{}》",
        joint="、",
        subscribed="已为你订阅{titles}，新的一期会直接发到这里。",
        already="你已经订阅了{titles}，新的一期会直接发到这里。",
        consent="你发送指令，即表示：\n<blockquote>{consent}</blockquote>",
        commands="/today 看最新一期\n/settings 选择订阅和语言\n/stop 退订",
        connected="已连接到你的邮箱订阅（{address}）。",
        connected_already="这个对话早已连接到你的邮箱订阅（{address}）。",
        choose="用 /settings 选择要在这里收到的内容。",
        dead_link="这个链接已经用过，或者过期了（有效期一小时）。\n请回到订阅设置页面重新打开；也可以直接发送 /start，在这里订阅。",
        refused="这个对话目前不能订阅。",
        nothing="目前没有可以在这里订阅的内容。",
        stopped="已退订，不会再往这里发送。\n想回来时，发送 /start。",
        not_subscribed="你在这里还没有订阅。\n发送 /start 就可以订阅。",
        settings="<b>订阅设置</b>\n点一下按钮，开启或关闭。",
        connected_to="已连接邮箱：{address}",
        chosen="已订阅",
        not_chosen="已关闭",
        spoken="已切换为中文",
        old_button="这个按钮已经失效，请重新发送 /settings",
        start_first="请先发送 /start",
        coming="{title}马上就到。",
        had="{title}已经发到这里了，请往上翻看。",
        elsewhere="{title}没有发到这里。",
        no_issue="{title}还没有发出过。",
        on_the_web="网页版：{url}",
        help="我只认识这些指令：\n/start 订阅\n/today 看最新一期\n/settings 选择订阅和语言\n/stop 退订",
        menu={
            "start": "订阅",
            "today": "看最新一期",
            "settings": "选择订阅和语言",
            "stop": "退订",
            "help": "帮助",
        },
    ),
    "en": Words(
        name="English",
        title="“{}”",
        joint=", ",
        subscribed="You are subscribed to {titles}. New issues will arrive right here.",
        already="You are subscribed to {titles} already. New issues arrive right here.",
        consent="By sending the command you said:\n<blockquote>{consent}</blockquote>",
        commands="/today the latest issue\n/settings what you get, and the language\n/stop unsubscribe",
        connected="Connected to your e-mail subscription ({address}).",
        connected_already="This chat is connected to your e-mail subscription ({address}) already.",
        choose="Choose with /settings what arrives here.",
        dead_link="This link has been used before, or has expired (it lasts one hour).\n"
        "Open it again from your preferences page, or send /start to subscribe right here.",
        refused="This chat cannot be subscribed at the moment.",
        nothing="There is nothing to subscribe to here at the moment.",
        stopped="You are unsubscribed; nothing more will be sent here.\nTo come back, send /start.",
        not_subscribed="You are not subscribed here.\nSend /start to subscribe.",
        settings="<b>Your subscriptions</b>\nPress a button to turn one on or off.",
        connected_to="Connected to: {address}",
        chosen="Subscribed",
        not_chosen="Turned off",
        spoken="Switched to English",
        old_button="This button is out of date: send /settings again",
        start_first="Send /start first",
        coming="{title} is on its way.",
        had="{title} was sent here already: please scroll up.",
        elsewhere="{title} was not sent here.",
        no_issue="{title} has not appeared yet.",
        on_the_web="On the web: {url}",
        help="These are the commands I know:\n/start subscribe\n/today the latest issue\n"
        "/settings what you get, and the language\n/stop unsubscribe",
        menu={
            "start": "Subscribe",
            "today": "The latest issue",
            "settings": "What you get, and the language",
            "stop": "Unsubscribe",
            "help": "Help",
        },
    ),
}


def language_of(code: str, otherwise: str) -> str:
    """The language of ours for one that Telegram names ("zh-hans", "en-GB"); else the newsletter's own."""
    spoken = code.partition("-")[0].lower()
    return {"zh": "zh-CN", "en": "en"}.get(spoken, otherwise)
