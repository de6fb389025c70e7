"""Routes of uploads and files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from litestar import Controller, Response, get, post, put
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from litestar.response import Stream

from platform_api.envelope import Envelope, number_from, ok, path_id
from platform_api.errors import ApiError, ErrorCode
from platform_api.idempotency import IdempotencyKey, checked_key
from platform_api.media.models import FileUrl, PartReceived, Upload, UploadRequest
from platform_api.media.service import MediaService
from platform_api.media.sniff import TYPES
from platform_api.openapi import BEARER, failures
from platform_api.routing import AnyRequest, Visitor, Who

__all__ = ["FileController", "UploadController"]

Media = NamedDependency[MediaService]
Range = Annotated[str | None, HeaderParameter(name="Range", required=False, max_length=100)]
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
INLINE = ("image/", "video/", "audio/")


_BINARY = RequestBody(
    content={
        "application/octet-stream": OpenAPIMediaType(Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY))
    },
    required=True,
)


@dataclass
class BinaryOperation(Operation):
    """A body of bytes, as the route reads it itself."""

    def __post_init__(self) -> None:
        self.request_body = _BINARY


@dataclass
class FileOperation(Operation):
    """Answers with a file, of whichever type it is, or with a range of it."""

    def __post_init__(self) -> None:
        content = dict.fromkeys(TYPES, OpenAPIMediaType(Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)))
        whole, part = OpenAPIResponse("The file.", content=content), OpenAPIResponse("The range.", content=content)
        self.responses = {**(self.responses or {}), "200": whole, "206": part}


class UploadController(Controller):
    path = "/v1/uploads"
    tags = ("files",)
    security = BEARER

    @post("/", responses=failures(400, 401, 403, 409, 429, 503))
    async def begin(
        self, request: AnyRequest, data: JSONBody[UploadRequest], caller: Who, media: Media,
        idempotency_key: IdempotencyKey = None,
    ) -> Envelope[Upload]:  # fmt: skip
        """Begin an upload: then its parts, in any order, then `complete`.

        A file has at most 1 GiB, and an account keeps at most 20 GiB (409 `quota_exceeded`), unless the operator sets
        other sizes; 20 uploads at once. One that is not complete after a day expires.
        """
        return ok(request, (await media.begin(caller, data, checked_key(idempotency_key)))[0])

    @get("/{upload_id:str}", responses=failures(401, 403, 404, 429, 503))
    async def read(self, request: AnyRequest, upload_id: FromPath[str], caller: Who, media: Media) -> Envelope[Upload]:
        """Where an upload stands, and which parts are missing.

        `missing_parts` names up to 100. A `ready` one has its `file`; of one that `failed`, `problem` is a word and
        `rule` the sentence.
        """
        return ok(request, await media.read(caller, path_id(upload_id, "upload")))

    @put(
        "/{upload_id:str}/parts/{number:str}", request_max_body_size=None, operation_class=BinaryOperation,
        responses=failures(400, 401, 403, 404, 409, 429, 503),
    )  # fmt: skip
    async def receive(
        self, request: AnyRequest, upload_id: FromPath[str], number: FromPath[str], caller: Who, media: Media
    ) -> Envelope[PartReceived]:
        """One part, as `application/octet-stream`. Sent again, it takes the place of the first."""
        id_ = path_id(upload_id, "upload")
        return ok(request, await media.receive(caller, id_, number_from(number) or 0, request.stream()))

    @post("/{upload_id:str}/complete", status_code=202, responses=failures(400, 401, 403, 404, 409, 429, 503))
    async def complete(
        self, request: AnyRequest, upload_id: FromPath[str], caller: Who, media: Media
    ) -> Envelope[Upload]:
        """All parts are sent: the file is put together and checked. Ask again until it is `ready` or `failed`."""
        return ok(request, await media.complete(caller, path_id(upload_id, "upload")))


class FileController(Controller):
    path = "/v1/files"
    tags = ("files",)

    @get("/{file_id:str}/url", responses=failures(401, 403, 404, 429, 503))
    async def url(
        self, request: AnyRequest, file_id: FromPath[str], visitor: Visitor, media: Media
    ) -> Envelope[FileUrl]:
        """A short-lived URL of a file of one's own, or of one that is public.

        Whoever has it may read, for five minutes. What was bought or licensed has its URLs at the `access-token` of the
        purchase or licence, not here.
        """
        return ok(request, await media.url(visitor, path_id(file_id, "file")))

    @get(
        "/{file_id:str}/content", operation_class=FileOperation, responses=failures(400, 401, 403, 404, 429, 503),
    )  # fmt: skip
    async def content(
        self, request: AnyRequest, file_id: FromPath[str], media: Media,
        expires: Annotated[int, QueryParameter(ge=0, le=2**53)],
        signature: Annotated[str, QueryParameter(max_length=64, pattern=r"^[0-9a-f]{64}$")], byte_range: Range = None,
    ) -> Response[Any]:  # fmt: skip
        """The bytes, or one range of them. Needs nothing but the signed URL."""
        row = await media.open(path_id(file_id, "file"), expires, signature)
        size = row["size_bytes"]
        start, end = _range(byte_range, size)
        kind = "inline" if row["type"].startswith(INLINE) else "attachment"
        headers = {
            "content-length": str(end - start), "accept-ranges": "bytes",
            "content-disposition": f"{kind}; filename*=UTF-8''{quote(row['name'], safe='')}",
            "content-security-policy": "default-src 'none'; sandbox",
        }  # fmt: skip
        if byte_range is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        status = 200 if byte_range is None else 206
        return Stream(media.content(row, start, end), media_type=row["type"], headers=headers, status_code=status)


def _range(text: str | None, size: int) -> tuple[int, int]:
    """First byte and the one behind the last. Raises ApiError VALIDATION_ERROR."""
    if text is None:
        return 0, size
    found = RANGE.fullmatch(text.replace(" ", ""))
    first, last = found.groups() if found else ("", "")
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    else:
        start, end = max(0, size - int(last)) if last else size, size
    if found is None or not 0 <= start < end:
        raise ApiError(ErrorCode.VALIDATION_ERROR, f"Range: no bytes of {size}", reason="bad_range", field="Range",
                       details={"size_bytes": size})  # fmt: skip
    return start, end
