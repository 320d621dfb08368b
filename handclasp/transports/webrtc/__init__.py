"""WebRTC data channels as a transport; see `webrtc`."""

from .engine import Candidate, DataChannel, Engine, EngineSession, Fingerprints, IceServer, PeerConnection
from .transport import WebRTCTransport, webrtc

__all__ = [
    "Candidate",
    "DataChannel",
    "Engine",
    "EngineSession",
    "Fingerprints",
    "IceServer",
    "PeerConnection",
    "WebRTCTransport",
    "webrtc",
]
