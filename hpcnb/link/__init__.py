"""Resumable streams over any pipe: one multiplexed, sequence-numbered byte link between two processes."""

from __future__ import annotations

from hpcnb.link.flow import StreamError
from hpcnb.link.handshake import LinkRefused
from hpcnb.link.link import Link, LinkState
from hpcnb.link.pipe import lost_once
from hpcnb.link.stream import Joint, Stream, splice
from hpcnb.link.tls import secure

__all__ = ["Joint", "Link", "LinkRefused", "LinkState", "Stream", "StreamError", "lost_once", "secure", "splice"]
