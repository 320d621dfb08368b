"""The fast engine: libwebrtc, by way of the package ``wrtc`` (the extra ``native``)."""

from .engine import NativeEngine

__all__ = ["NativeEngine"]
