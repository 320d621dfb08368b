"""Signing in with a linked account, for a website whose server is Python: docs/protocols/sign-in.md.

The website's own server verifies what the wallet's account signed, and keeps the session. A shared signaling
service has no part in it: it never sees a cookie, a message or an account.

=====================  ==============================================================
`Sessions`             the rules, without HTTP: begin, link, redeem, rotate, revoke
`SignInSettings`       origins, chains and lifetimes, each with its reason
`SignedIn`             who is signed in
`verify_link`          checks one signed message by itself, for sessions of your own
=====================  ==============================================================
"""

from __future__ import annotations

from .link import ExpectedLink, SignatureVerifier, VerifiedLink, verify_link
from .sessions import Sessions, SignedIn
from .settings import SignInSettings

__all__ = [
    "ExpectedLink",
    "Sessions",
    "SignInSettings",
    "SignatureVerifier",
    "SignedIn",
    "VerifiedLink",
    "verify_link",
]
