"""What a mail says around the post, in each language that a newsletter may have."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Words:
    """`{title}` is the newsletter's name, `{time}` when it comes.

    A Chinese subject leaves the name to the sender: spam filters take "AI", alone among Han, for shouting.
    """

    why: str
    unsubscribe: str
    preferences: str
    view: str
    original: str
    contact: str
    contents: str
    items: str
    shortened: str
    cover: str
    confirm_subject: str
    confirm_title: str
    confirm: str
    confirm_button: str
    confirm_ignore: str
    confirm_why: str
    remind_subject: str
    remind: str
    welcome_subject: str
    welcome_title: str
    welcome: str
    welcome_when: str
    goodbye_subject: str
    goodbye_title: str
    goodbye: str
    goodbye_mistake: str
    goodbye_button: str
    goodbye_why: str
    link_below: str


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(
        why="您收到这封邮件，是因为您订阅了《{title}》。",
        unsubscribe="退订",
        preferences="订阅设置",
        view="在浏览器中查看",
        original="阅读原文",
        contact="联系我们",
        contents="本期目录",
        items="（{count} 条）",
        shortened="这期内容较长，邮件里放不下。以上只是开头，全文请在网页上阅读。",
        cover="封面",
        confirm_subject="请确认您的订阅",
        confirm_title="请确认订阅《{title}》",
        confirm="有人用这个邮箱地址订阅了《{title}》。如果是您本人，请点击下面的按钮，订阅才会生效。",
        confirm_button="确认订阅",
        confirm_ignore="如果不是您本人操作，请忽略这封邮件：不点击按钮，您就不会再收到我们的来信。",
        confirm_why="您收到这封邮件，是因为有人在《{title}》的订阅页面填写了这个地址。",
        remind_subject="提醒：您的订阅还没有确认",
        remind="昨天有人用这个邮箱地址订阅了《{title}》，但还没有确认。如果是您本人，请点击下面的按钮；这是最后一次提醒。",
        welcome_subject="欢迎订阅",
        welcome_title="欢迎订阅《{title}》",
        welcome="订阅成功。从下一期开始，您会收到《{title}》。",
        welcome_when="通常在 {time} 发出。为免误入垃圾箱，请把 {address} 加入通讯录。",
        goodbye_subject="您已退订",
        goodbye_title="您已退订《{title}》",
        goodbye="退订成功，我们不会再给这个地址发送《{title}》。感谢您一路的阅读。",
        goodbye_mistake="如果这不是您的本意，可以随时重新订阅。",
        goodbye_button="重新订阅",
        goodbye_why="这是退订的回执，之后不会再有来信。",
        link_below="按钮打不开时，请把这个地址复制到浏览器：",
    ),
    "en": Words(
        why="You receive this mail because you subscribed to {title}.",
        unsubscribe="Unsubscribe",
        preferences="Preferences",
        view="View in browser",
        original="Read the original",
        contact="Contact",
        contents="In this issue",
        items=" ({count} items)",
        shortened="This issue is too long for a mail. Above is its beginning; the whole is on the web.",
        cover="Cover",
        confirm_subject="Please confirm your subscription to {title}",
        confirm_title="Please confirm your subscription to {title}",
        confirm="Somebody subscribed this address to {title}. If it was you, press the button: it begins only then.",
        confirm_button="Confirm the subscription",
        confirm_ignore="If it was not you, ignore this mail: without the button you will not hear from us again.",
        confirm_why="You receive this mail because somebody entered this address at {title}.",
        remind_subject="Reminder: your subscription to {title} is not confirmed yet",
        remind="Somebody subscribed this address to {title} and has not confirmed. If it was you, press the button; this is the last reminder.",
        welcome_subject="Welcome to {title}",
        welcome_title="Welcome to {title}",
        welcome="You are subscribed. {title} comes to you from the next issue on.",
        welcome_when="It usually leaves at {time}. To keep it out of the spam folder, add {address} to your contacts.",
        goodbye_subject="You left {title}",
        goodbye_title="You left {title}",
        goodbye="You are unsubscribed; {title} is not sent to this address any more. Thank you for reading.",
        goodbye_mistake="If you did not mean to, you can subscribe again at any time.",
        goodbye_button="Subscribe again",
        goodbye_why="This confirms that you unsubscribed; no more mail follows.",
        link_below="If the button does not open, copy this address into your browser:",
    ),
}
