"""Frames to a moving picture: encoded by ffmpeg as they come, or one PNG file each."""

from stylecli.lazy import lazy_attributes

_WHERE = {
    "write_video": "stylecli.video.writing",
    "write_frames": "stylecli.video.frame_files",
    "read_video_provenance": "stylecli.video.marking",
}

__all__ = list(_WHERE)
__getattr__ = lazy_attributes(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted(_WHERE)
