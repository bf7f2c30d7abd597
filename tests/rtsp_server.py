"""`PYTHON tests/rtsp_server.py CLIP PORT`: an RTSP server on loopback by GStreamer.

Needs an interpreter with GStreamer's bindings, as a rule the system's own (Debian:
gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good and -bad). Each client gets the
clip once from its beginning, at its pace, then the stream ends. Imports nothing of this project.
"""

from __future__ import annotations

import sys

NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0')"


def main(clip: str, port: str) -> None:
    """Serve rtsp://127.0.0.1:PORT/live until killed; says so when it listens."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(
        f'( filesrc location="{clip}" ! qtdemux ! h264parse config-interval=-1 '
        "! rtph264pay name=pay0 pt=96 )"
    )
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
