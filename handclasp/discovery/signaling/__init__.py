"""Signaling over the WebSocket service: invitations, mailboxes and the sealed conversation in them."""

from .invitation import Invitation
from .session import MailboxSession, Moment, Watcher, join, open_invitation

__all__ = ["Invitation", "MailboxSession", "Moment", "Watcher", "join", "open_invitation"]
