"""Signaling over the WebSocket service: by invitation in a mailbox, or between peers that are connected to it."""

from .invitation import Invitation
from .moments import Moment, Watcher
from .presence import signaling
from .session import MailboxSession, join, open_invitation

__all__ = ["Invitation", "MailboxSession", "Moment", "Watcher", "join", "open_invitation", "signaling"]
