"""The wallet protocol: link, session and signatures; the part that replaces WalletConnect."""

from .sequence import Observer, Step
from .signing import SigningRequest
from .wallet import PROTOCOL, Approver, LinkRequest, Proposal, Wallet
from .website import LinkedWallet, PendingLink, RemoteWallet, invite, open_wallet

__all__ = [
    "PROTOCOL",
    "Approver",
    "LinkRequest",
    "LinkedWallet",
    "Observer",
    "PendingLink",
    "Proposal",
    "RemoteWallet",
    "SigningRequest",
    "Step",
    "Wallet",
    "invite",
    "open_wallet",
]
