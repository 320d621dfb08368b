"""Signaling over the WebSocket service: invitations, mailboxes and the sealed conversation in them."""

from .invitation import Invitation
from .moments import Moment, Watcher
from .session import MailboxSession, join, open_invitation

__all__ = ["Invitation", "MailboxSession", "Moment", "Watcher", "join", "open_invitation"]
