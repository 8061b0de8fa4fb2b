"""A loopback world to send to: an SMTP catcher, a Telegram and a WeCom simulator with faults, and an inbox to look at.

Demo, rehearsals and tests send here. It shares no code with the rest of the package, so that it can check it; it is
written from what the real services say about themselves, and as strict as they are. Start: `server.Sandbox`.
"""
