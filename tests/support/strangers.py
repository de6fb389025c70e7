"""A stranger with works of his own who names ids of others: in bodies, in queries, and below his own parents.

`walk` of test_surface puts an id into every part of a path. Here the rest of a request is the stranger's own, so that
it gets as far as the id: his work with their asset, his licence with their chapter, his consent to their rule. The
answer must be the one for an id that nobody has.
"""

import copy
import re
from uuid import UUID, uuid4

__all__ = ["METHODS", "operations", "places_of_ids", "walk_below", "walk_bodies", "walk_queries"]

METHODS = ("get", "post", "put", "patch", "delete")
_ID = re.compile(r"\w+_ids?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
NOT_WALKED = ("/v1/admin/", "/v1/auth/")
"""Staff's, who may name everybody's; and those of whoever has not signed in."""
NOT_OURS = {"client_order_id"}
"""Names that end alike and are no ids of what somebody owns."""
INSTEAD = {"file_id": ("body",), "chapter_id": ("work_id",)}
"""What must be left out of a body where it has an id of this name: one or the other is wanted."""
PUBLIC = {
    "account_id", "licensee_id",  # that an account exists: /v1/users/{user_id}
    "creator_id",  # /v1/creators/{creator_id}
    "terms_id",  # of a published work, as its /license-terms shows them
}  # fmt: skip


ANSWERS = {"licensee": "account", "parent_license": "license", "portfolio_work": "work", "token": "market"}
"""What is said to be unknown where an id of this name is."""


def places_of_ids(document):
    """Where a request may name an id beside its path: (path, name)."""
    places = set()
    for _, path, operation in operations(document):
        if path.startswith(NOT_WALKED):
            continue
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        places |= {(path, _name(place)) for place in _places(document, content)} if content else set()
        places |= {(path, parameter["name"]) for parameter in _ids_of_query(operation)}
    return places


def _ids_of_query(operation):
    named = operation.get("parameters", [])
    return [parameter for parameter in named if parameter["in"] == "query" and _ID.fullmatch(parameter["name"])]


def _places(document, content):
    """Paths to the ids in a body, by its schema; 0 is an entry of a list."""

    def found(schema, path):
        while "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        for alternative in (*schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("allOf", ())):
            yield from found(alternative, path)
        for name, inner in schema.get("properties", {}).items():
            if _ID.fullmatch(name) and name not in NOT_OURS:
                yield (*path, name, 0) if name.endswith("_ids") else (*path, name)
            else:
                yield from found(inner, (*path, name))
        if "items" in schema:
            yield from found(schema["items"], (*path, 0))

    return sorted(set(found(content["schema"], ())), key=str)


def _nested_paths(document):
    """Routes with two ids in their path, of which one lies below the other."""
    return [
        (method, path)
        for method, path, _ in operations(document)
        if len(set(re.findall(r"\{(\w+)\}", path)) - {"number"}) > 1
    ]


async def walk_below(world, document, stranger, own, ids):
    """The stranger's parents with children of others, and the other way round. Returns how many requests."""
    asked = 0
    for method, path in _nested_paths(document):
        body = _example(_operation(document, method, path))
        parent, child = re.findall(r"\{(\w+)\}", path)
        for mine, theirs in ((parent, child), (child, parent)):
            if mine in own:
                _, count = await _alike(
                    world, method, path, stranger, ids, lambda id_, m=mine, t=theirs: {m: own[m], t: id_},
                    lambda _, b=body: b,
                )  # fmt: skip
                asked += count
    return asked


async def walk_bodies(world, document, stranger, own, ids):
    """Each id that a body may have. Returns the places that were reached, as (path, name)."""
    reached = set()
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or path.startswith(NOT_WALKED):
            continue
        for place in _places(document, content):
            name = _name(place)
            known = ids - own["public"] if name in PUBLIC else ids
            body = _own_body(_example(operation), place, own)
            unknown, _ = await _alike(
                world, method, path, stranger, known, lambda _: own, lambda id_, b=body, p=place: _put(b, p, id_)
            )
            reached |= {(path, name)} if _is_about(name, unknown) else set()
    return reached


async def walk_queries(world, document, stranger, own, ids):
    """Each id in a query. Returns the places that were reached, as (path, name)."""
    reached = set()
    for method, path, operation in operations(document):
        if path.startswith(NOT_WALKED):
            continue
        for parameter in _ids_of_query(operation):
            name = parameter["name"]
            known = ids - own["public"] if name in PUBLIC else ids
            unknown, _ = await _alike(
                world, method, path, stranger, known, lambda _: own, lambda _: None, lambda id_, n=name: {n: id_}
            )
            reached |= {(path, name)} if _is_about(name, unknown) else set()
    return reached


def _is_about(name, unknown):
    """Whether what was answered for an unknown id is about that id: else nobody looked it up, whoever's it is."""
    status, said = unknown
    stem = name.removesuffix("s").removesuffix("_id")
    return status == 200 or f"'reason': 'unknown_{ANSWERS.get(stem, stem)}'" in said


async def _alike(world, method, path, stranger, ids, parts, body, query=lambda _: None):
    """Whatever the id is: the same answer, but for the id itself. Returns it, and how many were asked for."""

    async def answer(id_):
        values = parts(id_)
        url = re.sub(r"\{(\w+)\}", lambda part: str(values.get(part[1], _NOBODYS)), path)
        headers = stranger | {"idempotency-key": uuid4().hex}
        found = await world.client.request(method, url, headers=headers, json=body(id_), params=query(id_))
        said = found.json()
        kept = said["error"] | {"request_id": "", "timestamp": ""} if "error" in said else said.get("data")
        return found.status_code, _TIME.sub("TIME", repr(kept).replace(id_, "ID"))

    unknown = await answer(str(uuid4()))
    wanted = [id_ for id_ in sorted(ids) if _is_uuid(id_)]
    for id_ in wanted:
        found = await answer(id_)
        assert found == unknown, (method, path, id_, unknown, found)
    return unknown, len(wanted)


_NOBODYS = uuid4()


def operations(document):
    """Method, path and operation of every route."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def _operation(document, method, path):
    return document["paths"][path][method]


def _example(operation):
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return content.get("example")


def _own_body(example, place, own):
    """The example with the stranger's own ids, and without those that may be left out."""

    def filled(value, name=""):
        if isinstance(value, list):
            return [] if _ID.fullmatch(name) else [filled(each) for each in value]
        if isinstance(value, dict):
            return {name: filled(each, name) for name, each in value.items()}
        return own.get(name, value) if _ID.fullmatch(name) and isinstance(value, str) else value

    body = filled(example)
    for name in INSTEAD.get(_name(place), ()):
        body.pop(name, None)
    return body


def _put(body, place, id_):
    body = copy.deepcopy(body)
    at = body
    for step in place[:-1]:
        if isinstance(step, str) and not at.get(step):
            at[step] = [None] if place[-1] == 0 else {}
        at = at[step]
    at[place[-1]] = id_
    return body


def _name(place):
    return next(step for step in reversed(place) if isinstance(step, str))


def _is_uuid(text):
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
