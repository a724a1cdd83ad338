"""The check that holds every answer against the OpenAPI document finds what it is there to find."""

import json
import unittest

from document import Document
from rosemary_server import Answer, ServerCase, unique


class Misfits(ServerCase):
    def setUp(self):
        self.record = self.owner.remember(unique())
        self.path = f"/memories/{self.record['id']}"

    def misfit(self, status=200, body=None, headers=None, method="GET", path=None, media_type="application/json; charset=utf-8"):
        body = json.dumps(self.record if body is None else body).encode()
        return self.server.document.misfit(method, path or self.path, Answer(status, {"content-type": media_type, **(headers or {})}, body, 0))

    def test_an_answer_as_described_fits(self):
        self.assertIsNone(self.misfit(headers={"x-audit-index": "7", "x-ratelimit-limit": "600"}))
        self.assertIsNone(self.misfit(body={"error": "Memory not found"}, status=404))

    def test_every_departure_is_found(self):
        less = {key: value for key, value in self.record.items() if key != "tags"}
        for changed, words in (
            ({"status": 418}, "does not list"),
            ({"status": 201}, "does not list"),
            ({"body": less}, "/tags is absent"),
            ({"body": {**self.record, "extra": 1}}, "/extra is not in the document"),
            ({"body": {**self.record, "title": 1}}, "/title is a int"),
            ({"body": {**self.record, "id": "x"}}, "/id is no UUID"),
            ({"body": {**self.record, "created_at": "now"}}, "/created_at is no time"),
            ({"body": {**self.record, "tags": [None]}}, "/tags/0 is a NoneType"),
            ({"body": {**self.record, "memory_type": "other"}}, "/memory_type is none"),
            ({"body": [self.record]}, "is a list"),
            ({"headers": {"x-new": "1"}}, "the header x-new"),
            ({"headers": {"x-audit-index": "many"}}, "no integer"),
            ({"media_type": "text/html"}, "text/html"),
            ({"status": 404, "body": {"message": "no"}}, "/error is absent"),
        ):
            with self.subTest(words):
                self.assertIn(words, self.misfit(**changed) or "")

    def test_a_keyword_that_the_check_does_not_know_is_an_error(self):
        with self.assertRaises(AssertionError):
            Document({"paths": {}}).unlike({"type": "string", "contentEncoding": "base64"}, "x")

    def test_an_answer_that_does_not_fit_fails_the_test_that_got_it(self):
        described = self.server.document
        self.addCleanup(setattr, type(self.server), "document", described)
        closed = json.loads(json.dumps(described.document).replace('"content"', '"kontent"'))
        type(self.server).document = Document(closed)
        with self.assertRaises(AssertionError):
            self.owner.get(self.path)


if __name__ == "__main__":
    unittest.main()
