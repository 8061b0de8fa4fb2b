"""What the pages say, in each language that a newsletter may have."""

from collections.abc import Mapping
from dataclasses import dataclass

from distributor.model import ConsentKind


@dataclass(frozen=True, kw_only=True)
class Words:
    """`{title}` is a newsletter's name, `{address}` a masked address; the fields stand in the order of the pages."""

    name: str  # of the language, for who looks for it
    titles: str
    failed: str  # before the title of a page that shows a form once more
    contact: str
    subscribe: str
    subscribe_any: str
    subscribe_text: str
    address: str
    newsletters: str
    agree: str
    archive: str
    embed: str
    bad_address: str
    disposable: str
    none_chosen: str
    once_more: str
    proving: str
    limited: str
    limited_text: str
    look: str
    look_text: str
    look_again: str
    embed_title: str
    embed_text: str
    embed_code: str
    confirm: str
    confirm_text: str
    confirm_button: str
    confirmed: str
    confirmed_text: str
    today_button: str
    gone: str
    gone_text: str
    subscribe_again: str
    today_comes: str
    today_comes_text: str
    today_sent: str
    today_sent_text: str
    today_none: str
    today_none_text: str
    leave: str
    leave_text: str
    leave_why: str
    leave_button: str
    reasons: Mapping[str, str]
    less: str
    left: str
    left_text: str
    mistake: str
    come_back: str
    back: str
    back_text: str
    preferences: str
    preferences_text: str
    saved: str
    saved_none: str
    suppressed: str
    places: Mapping[str, str]
    language: str
    save: str
    telegram: str
    telegram_text: str
    telegram_button: str
    telegram_link: str
    telegram_link_text: str
    telegram_open: str
    leave_all: str
    leave_all_text: str
    leave_all_button: str
    kept: str
    kept_text: str
    kinds: Mapping[ConsentKind, str]
    sources: Mapping[str, str]
    unknown: str
    unknown_text: str
    explain: str
    explain_leave: str
    explain_preferences: str


#: What a reader may say on leaving: written down as it stands here, whatever the language.
REASONS = ("too many", "not for me", "never asked for it", "other")

WORDS: Mapping[str, Words] = {
    "zh-CN": Words(
        name="中文",
        titles="《{title}》",
        failed="有误：",
        contact="联系我们",
        subscribe="订阅《{title}》",
        subscribe_any="订阅",
        subscribe_text="填写邮箱，再点击确认邮件里的按钮，就会收到新的一期。每封邮件都可以一键退订。",
        address="邮箱地址",
        newsletters="想收到哪些？",
        agree="同意并订阅",
        archive="先看看往期",
        embed="把这个表单放到您的网站",
        bad_address="这不像是邮箱地址，请检查一下，例如 name@example.com。",
        disposable="这个邮箱只能用一时，以后的来信会丢失。请换一个长期使用的地址。",
        none_chosen="请至少选择一份。",
        once_more="还差一步：请再点一次按钮，我们好确认填表的不是程序。",
        proving="正在确认，请稍等几秒。",
        limited="请稍后再试",
        limited_text="短时间内的订阅请求太多了。请过 {minutes} 分钟再试。",
        look="请查收邮件",
        look_text="如果这个地址需要确认，确认邮件很快就到。点击信里的按钮，订阅才会生效。",
        look_again="没有收到？请看看垃圾邮件。同一个地址，一天最多收到一封确认邮件；已经订阅的地址不会再收到。",
        embed_title="订阅表单",
        embed_text="把这段代码放到您网站的任何地方。里面没有脚本，也不会加载任何东西；填写的人会来到我们的页面继续。",
        embed_code="代码",
        confirm="确认订阅",
        confirm_text="点击按钮后，{address} 会收到：",
        confirm_button="确认订阅",
        confirmed="订阅成功",
        confirmed_text="{address} 现在会收到：",
        today_button="把今天这一期发给我",
        gone="链接已失效",
        gone_text="这个确认链接不完整，已经过期，或者不能再使用。",
        subscribe_again="重新订阅",
        today_comes="今天这一期已经寄出",
        today_comes_text="几分钟内就会到您的邮箱。",
        today_sent="今天这一期已经给您了",
        today_sent_text="它已经发出，或者正在路上。没有看到？请看看垃圾邮件。",
        today_none="今天还没有发出",
        today_none_text="下一期发出时，您会和大家一起收到。",
        leave="退订《{title}》？",
        leave_text="点击按钮后，{address} 将不再收到它。",
        leave_why="愿意告诉我们原因吗？（可以不选）",
        leave_button="确认退订",
        reasons={
            "too many": "太频繁了",
            "not for me": "内容不适合我",
            "never asked for it": "我没有订阅过",
            "other": "其他原因",
        },
        less="只想少收一些，或者换个渠道？请看订阅设置",
        left="已退订",
        left_text="{address} 不会再收到《{title}》。已经在路上的一封可能仍会到达。",
        mistake="点错了？可以马上恢复，不必再确认。",
        come_back="恢复订阅",
        back="欢迎回来",
        back_text="{address} 会继续收到《{title}》。",
        preferences="订阅设置",
        preferences_text="勾选的会继续收到，取消勾选的不再收到。",
        saved="已保存",
        saved_none="已保存：您不会再收到我们的任何一期。",
        suppressed="这个地址目前不会收到任何来信：曾有退信、投诉，或者应要求停用。如有疑问，请联系 {contact}。",
        places={"email": "邮箱", "telegram": "Telegram"},
        language="语言",
        save="同意并保存",
        telegram="在 Telegram 上收",
        telegram_text="连接之后，这里订阅的通讯也可以由我们的机器人发给您。",
        telegram_button="连接 Telegram",
        telegram_link="连接 Telegram",
        telegram_link_text="请在一小时内打开下面的链接，再点击 Telegram 里的“开始”。链接只能使用一次。",
        telegram_open="打开 Telegram",
        leave_all="全部退订",
        leave_all_text="以后不再收到任何一期，不论在哪个渠道。",
        leave_all_button="全部退订",
        kept="我们记录了什么",
        kept_text="这个地址何时、从哪里同意或撤回。想查看全部信息，或者要求删除，请联系 {contact}。",
        kinds={
            ConsentKind.ASKED: "填写了地址",
            ConsentKind.CONFIRMED: "本人确认",
            ConsentKind.ASSERTED: "由我们信任的系统确认",
            ConsentKind.IMPORTED: "从其他系统转入",
            ConsentKind.WITHDRAWN: "退订",
        },
        sources={
            "form": "订阅页面",
            "confirmation page": "确认页面",
            "unsubscribe page": "退订页面",
            "preferences page": "订阅设置",
            "one click": "邮箱的退订按钮",
            "telegram": "Telegram",
        },
        unknown="没有找到",
        unknown_text="这个链接不完整，或者已经失效。请从您收到的邮件里重新打开。",
        explain="请从邮件里打开",
        explain_leave="这是邮件的网页版，不属于任何一位读者。请打开您自己收到的邮件，点击页脚的“退订”链接。",
        explain_preferences="这是邮件的网页版，不属于任何一位读者。请打开您自己收到的邮件，点击页脚的“订阅设置”链接。",
    ),
    "en": Words(
        name="English",
        titles="{title}",
        failed="Error: ",
        contact="Contact",
        subscribe="Subscribe to {title}",
        subscribe_any="Subscribe",
        subscribe_text="Enter your address, press the button in the mail that follows, and new issues come to you. Each of them lets you leave with one click.",
        address="E-mail address",
        newsletters="Which ones would you like?",
        agree="Agree and subscribe",
        archive="Read past issues first",
        embed="Put this form on your site",
        bad_address="This does not look like an e-mail address. Please check it: name@example.com, for example.",
        disposable="This mailbox is a passing one, and later mail would be lost. Please use an address that you keep.",
        none_chosen="Please choose at least one.",
        once_more="One more step: please press the button again, so that we know it is not a program.",
        proving="Checking; this takes a few seconds.",
        limited="Please try again later",
        limited_text="There were too many requests in a short time. Please try again in {minutes} min.",
        look="Look into your mailbox",
        look_text="If this address needs to be confirmed, a mail is on its way. The subscription begins when you press its button.",
        look_again="Nothing there? Please look into the spam folder. An address gets at most one such mail a day, and none when it is subscribed already.",
        embed_title="Subscription form",
        embed_text="Put this code anywhere on your site. It has no script and loads nothing; whoever fills it in goes on at our page.",
        embed_code="Code",
        confirm="Confirm your subscription",
        confirm_text="When you press the button, {address} gets:",
        confirm_button="Confirm",
        confirmed="You are subscribed",
        confirmed_text="{address} now gets:",
        today_button="Send me today's issue",
        gone="This link works no more",
        gone_text="It is incomplete, it has expired, or it may not be used any more.",
        subscribe_again="Subscribe again",
        today_comes="Today's issue is on its way",
        today_comes_text="It reaches your mailbox within a few minutes.",
        today_sent="You have today's issue",
        today_sent_text="It was sent to you, or is on its way. Not there? Please look into the spam folder.",
        today_none="Nothing has gone out today",
        today_none_text="When the next issue does, you get it with everybody else.",
        leave="Leave “{title}”?",
        leave_text="When you press the button, {address} gets it no more.",
        leave_why="Would you tell us why? (You need not.)",
        leave_button="Unsubscribe",
        reasons={
            "too many": "Too many mails",
            "not for me": "It is not for me",
            "never asked for it": "I never asked for it",
            "other": "Something else",
        },
        less="Fewer mails, or another channel? See your preferences",
        left="You have left",
        left_text="{address} gets “{title}” no more. One that is under way already may still arrive.",
        mistake="That was a mistake? You can be back at once, without another confirmation.",
        come_back="Subscribe again",
        back="Welcome back",
        back_text="{address} goes on getting “{title}”.",
        preferences="Preferences",
        preferences_text="What is ticked comes to you; what is not, does not.",
        saved="Saved",
        saved_none="Saved: you get nothing from us any more.",
        suppressed="Nothing is sent to this address at the moment: mail came back, there was a complaint, or somebody asked us to stop. If you wonder why, ask {contact}.",
        places={"email": "E-mail", "telegram": "Telegram"},
        language="Language",
        save="Agree and save",
        telegram="On Telegram",
        telegram_text="Once you have connected it, our bot can bring you the newsletters there as well.",
        telegram_button="Connect Telegram",
        telegram_link="Connect Telegram",
        telegram_link_text="Please open this link within an hour, and press “Start” in Telegram. It works once.",
        telegram_open="Open Telegram",
        leave_all="Leave everything",
        leave_all_text="Nothing comes to you any more, on any channel.",
        leave_all_button="Leave everything",
        kept="What we keep about you",
        kept_text="When and where this address agreed, or took it back. To see all of it, or to have it erased, write to {contact}.",
        kinds={
            ConsentKind.ASKED: "The address was entered",
            ConsentKind.CONFIRMED: "Its reader confirmed",
            ConsentKind.ASSERTED: "Confirmed by a system that we trust",
            ConsentKind.IMPORTED: "Brought over from another system",
            ConsentKind.WITHDRAWN: "Left",
        },
        sources={
            "form": "sign-up page",
            "confirmation page": "confirmation page",
            "unsubscribe page": "unsubscribe page",
            "preferences page": "preferences",
            "one click": "the mail program's button",
            "telegram": "Telegram",
        },
        unknown="Not found",
        unknown_text="This link is incomplete, or no longer valid. Please open it from the mail that you received.",
        explain="Please open it from your mail",
        explain_leave="This is the browser's copy of the mail and belongs to no reader. Please open the mail that you received and use the “Unsubscribe” link at its foot.",
        explain_preferences="This is the browser's copy of the mail and belongs to no reader. Please open the mail that you received and use the “Preferences” link at its foot.",
    ),
}
