"""Holds answers against the server's own OpenAPI document: what it does not say, no answer may do.

    document = Document(client.get("/openapi.json").json)
    document.misfit("GET", "/memories/…", answer)      # None, or what does not fit

Stricter than the document has to be for its readers: a key that it does not name is a misfit too. JSON Schema 2020-12 as far as the
document uses it; a keyword that is not known here is an error, so that nothing goes unchecked. Standard library only.
"""

import datetime
import json
import re

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
KNOWN = {
    "$ref", "type", "properties", "required", "additionalProperties", "items", "enum", "const", "allOf", "anyOf", "oneOf", "format", "minimum",
    "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "description", "default", "examples", "title",
}
TYPES = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}
# Headers that every answer of HTTP may carry, and those of the contract that are on all of them.
COMMON = {
    "date", "content-type", "content-length", "connection", "cache-control", "strict-transport-security", "x-content-type-options",
    "x-frame-options", "referrer-policy", "vary",
}


class Document:
    def __init__(self, document):
        self.document = document
        paths = []
        for path, item in document["paths"].items():
            pattern = "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", path))
            paths.append(("{" in path, re.compile(pattern), path, item))
        # A fixed segment wins over a parameter.
        self.paths = sorted(paths, key=lambda entry: entry[0])

    def resolve(self, value):
        while isinstance(value, dict) and "$ref" in value:
            target = self.document
            for step in value["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            value = target
        return value

    def operation(self, method, path):
        """The path as the document spells it and its operation; None where it describes none."""
        path = path.partition("?")[0]
        method = "get" if method == "HEAD" else method.lower()
        for _, pattern, name, item in self.paths:
            if pattern.fullmatch(path):
                return (name, item[method]) if method in item else None
        return None

    def misfit(self, method, path, answer):
        """What `answer` does that the document does not say; None if it fits or the document does not know this operation."""
        found = self.operation(method, path)
        if found is None:
            return None
        name, operation = found
        where = f"{method} {name} answered {answer.status}"
        response = self.resolve(operation["responses"].get(str(answer.status)))
        if response is None:
            return f"{where}, which the document does not list: {answer.body[:200]!r}"
        documented = COMMON | {header.lower() for header in response.get("headers", {})}
        for header, value in answer.headers.items():
            if header not in documented:
                return f"{where} with the header {header}, which the document does not list"
            schema = self.resolve(response.get("headers", {}).get(header, {})).get("schema", {})
            if schema.get("type") == "integer" and not re.fullmatch(r"\d+", value):
                return f"{where} with {header}: {value}, which is no integer"
        content = response.get("content", {})
        if method == "HEAD":
            return None
        if not answer.body:
            return f"{where} without a body" if content and "content-type" in answer.headers else None
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if media_type not in content:
            return f"{where} with {media_type}, which the document does not list"
        schema = content[media_type]["schema"]
        if "json" not in media_type:
            return None
        misfit = self.unlike(schema, json.loads(answer.body))
        return misfit and f"{where} with a body that does not fit: {misfit}"

    def unlike(self, schema, value, at="", strict=True):
        """What in `value` does not fit `schema`, or None."""
        schema = self.resolve(schema)
        assert not set(schema) - KNOWN, f"{sorted(set(schema) - KNOWN)}: not known to this check"
        types = schema.get("type", [])
        types = [types] if isinstance(types, str) else types
        if types and not any(TYPES[kind](value) for kind in types):
            return f"{at or '/'} is a {type(value).__name__}, not {types}"
        if "const" in schema and value != schema["const"] or "enum" in schema and value not in schema["enum"]:
            return f"{at or '/'} is none of the listed values"
        if isinstance(value, str):
            length = len(value)
            if not schema.get("minLength", 0) <= length <= schema.get("maxLength", length):
                return f"{at} has {length} characters"
            if "pattern" in schema and not re.search(schema["pattern"], value):
                return f"{at} does not match its pattern"
            if schema.get("format") == "uuid" and not UUID.fullmatch(value):
                return f"{at} is no UUID"
            if schema.get("format") == "date-time" and not (TIME.fullmatch(value) and datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))):
                return f"{at} is no time"
        if isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return f"{at} is {value}"
        if isinstance(value, list):
            if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
                return f"{at} has {len(value)} items"
            for i, item in enumerate(value):
                if "items" in schema and (misfit := self.unlike(schema["items"], item, f"{at}/{i}")):
                    return misfit
        parts = schema.get("allOf", [])
        for part in parts:
            if misfit := self.unlike(part, value, at, strict=False):
                return misfit
        for key in ("anyOf", "oneOf"):
            misfits = [self.unlike(part, value, at) for part in schema.get(key, [])]
            if misfits and all(misfits):
                return " and ".join(misfits)
        if isinstance(value, dict):
            for key in schema.get("required", []):
                if key not in value:
                    return f"{at}/{key} is absent"
            named = self.named(schema)
            for key, inner in value.items():
                if key in schema.get("properties", {}):
                    if misfit := self.unlike(schema["properties"][key], inner, f"{at}/{key}"):
                        return misfit
                elif strict and named is not None and key not in named:
                    return f"{at}/{key} is not in the document"
        return None

    def named(self, schema):
        """The keys that an object may hold, or None for an object of any keys."""
        schema = self.resolve(schema)
        if schema.get("additionalProperties") is True or schema.get("anyOf") or schema.get("oneOf"):
            return None
        names = set(schema.get("properties", {}))
        for part in schema.get("allOf", []):
            inner = self.named(part)
            if inner is None:
                return None
            names |= inner
        return names
