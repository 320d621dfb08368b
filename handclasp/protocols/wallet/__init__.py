"""The wallet protocol: link, session and signatures; the part that replaces WalletConnect."""

from .origin import Fetch, Fetched, OriginCheck, OriginLevel, check_origin, fetch_https
from .sequence import Observer, Step
from .signing import SigningRequest
from .wallet import PROTOCOL, Approver, LinkRequest, Proposal, Wallet
from .website import LinkedWallet, PendingLink, RemoteWallet, invite, open_wallet

__all__ = [
    "PROTOCOL",
    "Approver",
    "Fetch",
    "Fetched",
    "LinkRequest",
    "LinkedWallet",
    "Observer",
    "OriginCheck",
    "OriginLevel",
    "PendingLink",
    "Proposal",
    "RemoteWallet",
    "SigningRequest",
    "Step",
    "Wallet",
    "check_origin",
    "fetch_https",
    "invite",
    "open_wallet",
]
