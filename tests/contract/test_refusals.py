"""What bad input gets: the contract's status and error body, nothing changed, and the server still there."""

import json
import re
import secrets
import socket
import ssl
import time
import unittest

from rosemary_server import ServerCase, unique

UNKNOWN = "01890000-0000-7000-8000-000000000000"
OTHER = "other@clinic.example"
GOOD = {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}
CHILD = {"title": "t", "content": "c", "tags": []}

# Every route that needs a credential: method, path ({id} a memory, {key} an API key, {operation} an operation), a lawful body.
ROUTES = (
    ("GET", "/whoami", None),
    ("GET", "/users/me", None),
    ("PATCH", "/users/me", {"first_name": "x"}),
    ("GET", "/oauth/status", None),
    ("GET", "/api/v1/oauth/grants", None),
    ("DELETE", "/api/v1/oauth/grants/{operation}", None),
    ("GET", "/admin/check", None),
    ("GET", "/admin/users", None),
    ("GET", "/admin/waitlist", None),
    ("GET", "/admin/early-access", None),
    ("GET", "/admin/integration-requests", None),
    ("GET", "/events", None),
    ("GET", "/usage", None),
    ("GET", "/graph", None),
    ("GET", "/usage/check", None),
    ("GET", "/billing/status", None),
    ("POST", "/billing/checkout", None),
    ("POST", "/billing/portal", None),
    ("GET", "/api/v1/usage", None),
    ("GET", "/briefing", None),
    ("GET", "/agent/briefing", None),
    ("POST", "/api/keys", {"label": "refused"}),
    ("GET", "/api/keys", None),
    ("DELETE", "/api/keys/{key}", None),
    ("POST", "/memories", GOOD),
    ("POST", "/memories/list", {"filter": {"by": "all"}}),
    ("DELETE", "/memories/trash", None),
    ("GET", "/memories/{id}", None),
    ("PUT", "/memories/{id}", GOOD),
    ("DELETE", "/memories/{id}", None),
    ("POST", "/memories/{id}/restore", None),
    ("DELETE", "/memories/{id}/permanent", None),
    ("GET", "/memories/{id}/versions", None),
    ("POST", "/memories/{id}/children", CHILD),
    ("GET", "/memories/{id}/thread", None),
    ("POST", "/agent/memories/{id}/children", GOOD),
    ("GET", "/agent/memories/{id}/thread", None),
    ("POST", "/agent/memories", GOOD),
    ("GET", "/agent/memories/latest", None),
    ("POST", "/agent/memories/browse", {"filter": {"by": "all"}}),
    ("POST", "/agent/memories/by-tag", {"tags": ["x"]}),
    ("POST", "/agent/memories/search", {"term": "x"}),
    ("POST", "/agent/memories/list", {}),
    ("GET", "/agent/memories/{id}", None),
    ("PUT", "/agent/memories/{id}", GOOD),
    ("DELETE", "/agent/memories/{id}", None),
    ("GET", "/agent/memories/{id}/versions", None),
    ("POST", "/api/v1/memories/search", {"query": "x"}),
    ("POST", "/query", {"query": "x", "memory_filter": {"by": "all"}}),
    ("POST", "/chat", {"model": "x", "messages": [{"role": "user", "content": "x"}]}),
    ("GET", "/chat/models", None),
    ("GET", "/api/v1/embeddings", None),
    ("GET", "/api/v1/backups", None),
    ("POST", "/api/v1/backups", None),
    ("GET", "/api/v1/status", None),
    ("POST", "/api/v1/erasures", {"holder": "user", "name": OTHER}),
    ("GET", "/api/v1/erasures", None),
    ("GET", "/api/v1/erasures/{erasure}", None),
    ("GET", "/api/v1/operations/{operation}", None),
    ("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}),
    ("GET", "/mcp", None),
    ("DELETE", "/mcp", None),
    ("GET", "/v1/ping/", None),
    ("POST", "/v3/memories/add/", {"messages": "x"}),
    ("POST", "/v1/memories/", {"messages": "x"}),
    ("POST", "/v3/memories/", {}),
    ("POST", "/v2/memories/", {}),
    ("GET", "/v1/memories/", None),
    ("POST", "/v3/memories/search/", {"query": "x"}),
    ("POST", "/v2/memories/search/", {"query": "x"}),
    ("POST", "/v1/memories/search/", {"query": "x"}),
    ("GET", "/v1/memories/{id}/", None),
    ("PUT", "/v1/memories/{id}/", {"text": "x"}),
    ("DELETE", "/v1/memories/{id}/", None),
    ("GET", "/v1/memories/{id}/history/", None),
    ("DELETE", "/v1/memories/", None),
    ("PUT", "/v1/batch/", {"memories": [{"memory_id": UNKNOWN, "text": "x"}]}),
    ("DELETE", "/v1/batch/", {"memories": [{"memory_id": UNKNOWN}]}),
    ("GET", "/v1/entities/", None),
    ("DELETE", "/v2/entities/user/{name}/", None),
    ("DELETE", "/v2/entities/agent/{name}/", None),
    ("DELETE", "/v2/entities/app/{name}/", None),
    ("DELETE", "/v2/entities/run/{name}/", None),
    ("POST", "/v1/exports/", {"schema": {}, "filters": {"user_id": "x"}}),
    ("POST", "/v1/exports/get/", {"filters": {"user_id": "x"}}),
    ("POST", "/v1/feedback/", {"memory_id": UNKNOWN, "feedback": "POSITIVE"}),
)


# Routes that need none, or do their own authentication (`test_oauth`).
PUBLIC = {
    ("GET", "/health"), ("GET", "/openapi.json"), ("GET", "/.well-known/oauth-authorization-server"), ("GET", "/.well-known/oauth-protected-resource/mcp"),
    ("POST", "/register"), ("GET", "/authorize"), ("GET", "/oauth/consent"), ("POST", "/oauth/consent"), ("GET", "/oauth/approve"),
    ("POST", "/oauth/approve-s2s"), ("POST", "/token"), ("POST", "/revoke"),
}


def exchange(server, sent, seconds=15):
    """Sends bytes on a bare TLS connection and returns all that comes back until the server closes or `seconds` pass."""
    got = b""
    with server.socket(timeout=seconds) as connection:
        try:
            connection.sendall(sent)
            while chunk := connection.recv(65536):
                got += chunk
                if b"\r\n\r\n" in got and b"connection: close" not in got.lower() and len(got) > 12:
                    break
        except (TimeoutError, ConnectionError, ssl.SSLError, socket.timeout):
            pass
    return got


def status_of(got):
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", got)
    return int(found[1]) if found else None


class Credentials(ServerCase):
    options = {"users": (OTHER,)}

    def setUp(self):
        self.record = self.owner.remember(unique(), "the original text")
        self.key = self.owner.post("/api/keys", {"label": "kept"}).expect(200).json

    def walk(self, client):
        for method, path, body in ROUTES:
            yield path, client.request(method, path.format(id=self.record["id"], key=self.key["id"], operation=UNKNOWN, erasure=UNKNOWN, name="nobody"), body)

    def unchanged(self):
        self.assertEqual(self.owner.get(f"/memories/{self.record['id']}").expect(200).json, self.record)
        keys = self.owner.get("/api/keys").expect(200).json["keys"]
        self.assertIsNone(next(key for key in keys if key["id"] == self.key["id"])["revoked_at"])

    def test_the_walk_covers_every_route_that_the_server_describes(self):
        with self.server.client() as nobody:
            document = nobody.get("/openapi.json").expect(200).json
        plain = re.compile(r"\{[^}]*\}")
        described = {(method.upper(), plain.sub("{}", path)) for path, item in document["paths"].items() for method in item
                     if method in ("get", "post", "put", "patch", "delete")}
        walked = {(method, plain.sub("{}", path)) for method, path, _ in ROUTES}
        self.assertEqual(described - PUBLIC - walked, set(), "routes without a refusal test")
        self.assertEqual(walked - described, set(), "routes that /openapi.json does not describe")

    def test_every_route_is_refused_without_credentials(self):
        with self.server.client() as nobody:
            for path, answer in self.walk(nobody):
                with self.subTest(path):
                    self.error(answer, 401)
        self.unchanged()

    def test_every_route_is_refused_with_a_revoked_key(self):
        made = self.owner.post("/api/keys", {"label": "short-lived"}).expect(200).json
        self.owner.delete(f"/api/keys/{made['id']}").expect(200)
        with self.server.client(made["key"]) as revoked:
            for path, answer in self.walk(revoked):
                with self.subTest(path):
                    self.error(answer, 401, "invalid_token" if path == "/mcp" else "Invalid API key")
        self.unchanged()

    def test_every_route_hides_another_users_records(self):
        other = self.others[OTHER]
        for method, path, body in ROUTES:
            # A name that no memory of one's own carries deletes nothing, whoever else has it (`test_mem0`). Erasures are for administrators:
            # others are told so, whatever the id (`test_erasure`).
            if "{" in path and "{name}" not in path and "{erasure}" not in path:
                with self.subTest(method + path):
                    answer = other.request(method, path.format(id=self.record["id"], key=self.key["id"], operation=UNKNOWN), body)
                    missing = other.request(method, path.format(id=UNKNOWN, key=UNKNOWN, operation=UNKNOWN), body)
                    self.error(answer, 404)
                    self.assertEqual(answer.body, missing.body, "a foreign record looks like one that never was")
        for path, body in (("/memories/list", {"filter": {"by": "ids", "ids": [self.record["id"]]}}),
                           ("/agent/memories/list", {}), ("/agent/memories/search", {"term": "original"}),
                           ("/agent/memories/browse", {"filter": {"by": "all"}}), ("/agent/memories/by-tag", {"tags": ["test"]}),
                           ("/api/v1/memories/search", {"query": "original text"}), ("/v3/memories/", {}),
                           ("/v3/memories/search/", {"query": "original text"}), ("/v2/memories/", {"filters": {"memory_ids": [self.record["id"]]}})):
            self.assertNotIn(self.record["id"].encode(), other.post(path, body).body, path)
        self.assertNotIn(self.key["id"].encode(), other.get("/api/keys").expect(200).body)
        self.unchanged()

    def test_a_key_with_one_character_changed_is_refused(self):
        good = self.key["key"]
        for at in (0, 7, 8, 20, 47, 48, 55):
            bad = good[:at] + ("0" if good[at] != "0" else "1") + good[at + 1:]
            with self.server.client(bad) as client:
                self.assertEqual(client.get("/whoami").status, 401, at)
        for bad in (good.upper(), good + "0", good[:-1], " " + good[:40], "rm_live_" + secrets.token_hex(24)):
            with self.server.client(bad) as client:
                self.assertEqual(client.get("/whoami").status, 401)

    def test_credentials_are_not_taken_from_elsewhere(self):
        key = self.server.owner_key
        with self.server.client() as nobody:
            self.error(nobody.get(f"/whoami?token={key}"), 401)
            self.error(nobody.get("/whoami", headers={"X-API-Key": key}), 401)
            self.error(nobody.get("/whoami", headers={"Cookie": f"token={key}"}), 401)
            self.error(nobody.post("/memories", {**GOOD, "api_key": key}), 401)


class Bodies(ServerCase):
    def count(self):
        return len(self.owner.post("/memories/list", {"filter": {"by": "all"}}).expect(200).json["memories"])

    def test_bad_bodies_are_400_and_change_nothing(self):
        before = self.count()
        bodies = [b"", b"{", b"[]", b"null", b'"x"', b"1", b"{}", b'{"title":"t"}', b"\xff\xfe", b'{"title":"\xff","content":"c","tags":[]}',
                  b'{"title":"t","title":"u","content":"c","tags":[]}', b'{"title":{},"content":"c","tags":[]}',
                  b'{"title":["a","b"],"content":"c","tags":[]}', b'{"title":"t","content":"c","tags":[{}]}',
                  b'{"title":"t","content":"c","tags":[[]]}', b'{"title":"\\ud800","content":"c","tags":[]}',
                  b'{"title":"t","content":"c","tags":[]} x', b'{"title":"t","content":NaN,"tags":[]}', b'{"title":"t","content":"c","tags":[],}',
                  b"[" * 100_000, b'{"a":' * 50_000, b'{"title":"t","content":"c","tags":[],"metadata":' + b'{"a":' * 5 + b"1" + b"}" * 6,
                  b'{"title":"t","content":"c","tags":[],"metadata":[]}', b'{"title":"t","content":"c","tags":[],"occurred_at":"soon"}',
                  b'{"title":"t","content":"c","tags":[],"subject":""}', b'{"__proto__":{},"title":"t","content":"c","tags":[]}',
                  json.dumps(GOOD | {"metadata": {"x": "y" * 17_000}}).encode(), json.dumps(GOOD | {"subject": "s" * 201}).encode()]
        for body in bodies:
            with self.subTest(body[:60]):
                answer = self.owner.post("/memories", raw=body, headers={"Content-Type": "application/json"})
                self.error(answer, 400)
        self.assertEqual(self.count(), before)

    def test_other_content_types_count_as_no_body(self):
        for kind in ("text/plain", "application/xml", "multipart/form-data; boundary=x", "application/jsonx"):
            self.error(self.owner.post("/memories", raw=json.dumps(GOOD).encode(), headers={"Content-Type": kind}), 400)

    def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_read(self):
        limit = 262_144
        def padded(size):
            body = json.dumps(GOOD).encode()
            return body + b" " * (size - len(body))
        self.owner.post("/memories", raw=padded(limit), headers={"Content-Type": "application/json"}).expect(201)
        answer = self.owner.post("/memories", raw=padded(limit + 1), headers={"Content-Type": "application/json"})
        self.error(answer, 413, "Request body is too large")

    def test_errors_never_echo_the_callers_text(self):
        canary = unique("canary")
        answers = [
            self.owner.post("/memories", {**GOOD, canary: 1}),
            self.owner.post("/memories", {**GOOD, "memory_type": canary}),
            self.owner.post("/memories", {**GOOD, "title": canary * 100}),
            self.owner.post("/memories", raw=canary.encode(), headers={"Content-Type": "application/json"}),
            self.owner.get(f"/memories/{canary}"),
            self.owner.get(f"/agent/memories/latest?tag={canary}"),
            self.owner.post("/memories/list", {"filter": {"by": canary}}),
            self.owner.delete(f"/api/keys/{canary}"),
            self.owner.get(f"/v1/memories/{canary}/"),
            self.owner.post("/v3/memories/", {"filters": {canary: canary}}),
            self.owner.post("/v3/memories/", {"filters": {"metadata": {canary: {canary: 1}}}}),
            self.owner.post("/v3/memories/add/", {"messages": [{"role": canary, "content": "x", canary: 1}]}),
            self.owner.delete(f"/v1/memories/?{canary}={canary}"),
            self.owner.put("/v1/batch/", {"memories": [{"memory_id": canary, "text": canary}]}),
        ]
        for answer in answers:
            self.assertGreaterEqual(answer.status, 400)
            self.assertNotIn(canary.encode(), answer.body)


class Framing(ServerCase):
    def head(self, *lines, method="POST", path="/memories", host=True):
        base = [f"{method} {path} HTTP/1.1"] + (["Host: localhost"] if host else []) + [f"Authorization: Bearer {self.server.owner_key}"]
        return "\r\n".join([*base, *lines, "", ""]).encode()

    def test_smuggling_shapes_are_refused_and_the_connection_closed(self):
        body = json.dumps(GOOD).encode()
        length = f"Content-Length: {len(body)}"
        kind = "Content-Type: application/json"
        for want, sent in (
            (411, self.head(kind, "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
            (411, self.head(kind, length, "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
            (411, self.head(kind, length, "Transfer-Encoding: identity") + body),
            (400, self.head(kind, length, length) + body),
            (400, self.head(kind, length, f"Content-Length: {len(body) + 1}") + body),
            (400, self.head(kind, f"Content-Length: {len(body)}, {len(body)}") + body),
            (400, self.head(kind, "Content-Length: -1") + body),
            (400, self.head(kind, "Content-Length: +5") + body),
            (400, self.head(kind, "Content-Length: 0x10") + body),
            (400, self.head(kind, "Content-Length: 5 5") + body),
            (400, self.head(kind, "Content-Length : 5") + body),
            (400, self.head(host=False, method="GET", path="/whoami")),
            (400, self.head("Host: localhost", method="GET", path="/whoami")),
            (400, self.head(" folded: x", method="GET", path="/whoami")),
            (400, b"GET /whoami\r\n\r\n"),
            (400, b"GET /who\0ami HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            (421, self.head("Host: evil.example", method="GET", path="/whoami", host=False)),
            (431, self.head(*[f"X-{n}: y" for n in range(80)], method="GET", path="/whoami")),
            (431, self.head("X-Long: " + "y" * 17_000, method="GET", path="/whoami")),
            (413, self.head(kind, "Content-Length: 100000000000000")),
        ):
            with self.subTest(sent[:120]):
                got = exchange(self.server, sent + self.head(method="DELETE", path="/memories/trash"))
                self.assertEqual(status_of(got), want, got[:200])
                self.assertIn(b"connection: close", got.lower())
                self.assertEqual(got.count(b"HTTP/1.1 "), 1, "nothing after the refusal is read as a request")
        self.owner.get("/whoami").expect(200)

    def test_a_length_beyond_all_numbers_is_refused(self):
        for length in ("99999999999999999999999999", "18446744073709551616"):
            got = exchange(self.server, self.head("Content-Type: application/json", f"Content-Length: {length}"))
            self.assertIn(status_of(got), (400, 413))
        self.owner.get("/whoami").expect(200)

    def test_garbage_does_not_end_the_process(self):
        for sent in (b"\0" * 1000, b"\x16\x03\x01" * 500, secrets.token_bytes(5000), b"GET " + b"/" * 20_000, b"\r\n" * 5000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            exchange(self.server, sent, seconds=3)
            with self.server.socket(tls=False, timeout=3) as plain:
                try:
                    plain.sendall(sent)
                    plain.recv(1000)
                except OSError:
                    pass
        self.owner.get("/whoami").expect(200)
        self.assertNotIn(b"panicked", bytes(self.server.output))

    def test_plain_http_gets_no_answer_with_data(self):
        with self.server.socket(tls=False, timeout=5) as plain:
            got = b""
            try:
                plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                got = plain.recv(1000)
            except OSError:
                pass
        self.assertNotIn(b"reflect-memory", got)

    def test_tls_below_1_2_is_refused_and_a_foreign_ca_is_not_ours(self):
        context = ssl.create_default_context()
        with self.assertRaises(ssl.SSLCertVerificationError), socket.create_connection(("127.0.0.1", self.server.port)) as plain:
            context.wrap_socket(plain, server_hostname="localhost")
        with self.server.socket() as connection:
            self.assertIn(connection.version(), ("TLSv1.2", "TLSv1.3"))

    def test_two_requests_sent_at_once_are_answered_in_order(self):
        one = self.head(method="GET", path="/whoami")
        with self.server.socket(timeout=10) as connection:
            connection.sendall(one + self.head("Connection: close", method="GET", path="/users/me"))
            got = b""
            while chunk := connection.recv(65536):
                got += chunk
        self.assertEqual(got.count(b"HTTP/1.1 200"), 2)
        self.assertLess(got.find(b"log_sharing_enabled"), got.find(b"clerk_id"))

    def test_a_head_that_never_ends_is_cut_off(self):
        began = time.monotonic()
        with self.server.socket(timeout=20) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            try:
                connection.recv(1000)
            except (TimeoutError, OSError) as error:
                self.assertNotIsInstance(error, TimeoutError)
        self.assertLess(time.monotonic() - began, 15)


if __name__ == "__main__":
    unittest.main()
