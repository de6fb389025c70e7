"""Files: uploads in parts, checks of what they are, and short-lived URLs to read them."""

from platform_api.kernel.context import Context
from platform_api.media.routes import FileController, UploadController
from platform_api.media.service import MediaService

__all__ = ["CONTEXT"]

CONTEXT = Context(
    "media",
    (UploadController, FileController),
    MediaService,
    events=("file.ready", "file.quarantined"),
    binary=("/v1/uploads/",),
)
