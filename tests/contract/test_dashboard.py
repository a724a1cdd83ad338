"""Sign-in by a dashboard: its key and a signed token for one person; who is an administrator; one's own names."""

import base64
import hashlib
import hmac
import json
import secrets
import time
import unittest

from rosemary_server import OWNER, Server, ServerCase, text, unique

KEY, SECRET = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
ADMIN = "head.nurse@clinic.example"
DASHBOARD = {"RM_DASHBOARD_SERVICE_KEY": KEY, "RM_DASHBOARD_JWT_SECRET": SECRET}


def encode(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(email="", secret=SECRET, header=None, digest=hashlib.sha256, **claims):
    """A token as a dashboard makes it; a claim that is None is left out."""
    all_claims = {"iss": "reflect-dashboard", "aud": "reflect-memory", "email": email, "exp": int(time.time()) + 300} | claims
    signed = f'{encode(header or {"alg": "HS256", "typ": "JWT"})}.{encode({k: v for k, v in all_claims.items() if v is not None})}'
    return f"{signed}.{encode(hmac.new(secret.encode(), signed.encode(), digest).digest())}"


class DashboardCase(ServerCase):
    options = {"settings": {**DASHBOARD, "RM_OWNER_EMAILS": ADMIN}}

    def by(self, email, method="GET", path="/users/me", body=None, **claims):
        with self.server.client(KEY) as client:
            return client.request(method, path, body, headers={"X-Dashboard-Token": token(email, **claims)})

    def entries(self, op):
        """Entries of the log by this name, exported with the service stopped."""
        bundle = self.server.folder / f"{unique('bundle')}.ndjson"
        done = self.restart("audit", "export", str(bundle))
        assert done.returncode == 0, text(done)
        lines = [json.loads(line) for line in bundle.read_text().splitlines()]
        return [line for line in lines if line.get("op") == op]

    def restart(self, *command, **settings):
        """Stops the service, runs a command if there is one, and starts it with changed settings; clients follow to its new port."""
        self.server.stop()
        done = self.server.run(*command) if command else None
        self.server.change(settings)
        self.server.start()
        for client in (self.owner, *self.agents.values(), *self.others.values()):
            client.close()
            client.connection.port = self.server.port
        return done


class SignIn(DashboardCase):
    def test_a_dashboard_token_finds_or_creates_the_user_by_lower_case_email(self):
        """[pin] Existing tools create users this way."""
        name = unique("New.Person")
        first = self.by(f"{name}@Clinic.Example").expect(200).json
        self.assertEqual(first["email"], f"{name}@clinic.example".lower())
        self.assertEqual((first["role"], first["plan"], first["org_id"]), ("user", "free", None))
        again = self.by(f" {name.upper()}@CLINIC.EXAMPLE ").expect(200).json
        self.assertEqual(again, first)
        self.assertEqual(self.by(OWNER).expect(200).json["email"], OWNER)

    def test_what_a_dashboard_writes_has_its_origin_and_belongs_to_the_person(self):
        email, other = f"{unique('a')}@clinic.example", f"{unique('b')}@clinic.example"
        good = {"title": unique(), "content": "c", "tags": []}
        made = self.by(email, "POST", "/memories", good).expect(201).json
        self.assertEqual(made["origin"], "dashboard")
        agents = self.by(email, "POST", "/agent/memories", good | {"title": unique(), "allowed_vendors": ["*"], "origin": "x"}).expect(201).json
        self.assertEqual(agents["origin"], "dashboard", "[pin] an origin is not chosen where the credential has one")
        child = self.by(email, "POST", f"/memories/{made['id']}/children", good | {"title": unique()}).expect(201).json
        self.assertEqual(child["origin"], "dashboard")
        self.by(email, "GET", f"/memories/{made['id']}").expect(200)
        self.error(self.by(other, "GET", f"/memories/{made['id']}"), 404, "Memory not found")
        self.error(self.owner.get(f"/memories/{made['id']}"), 404, "Memory not found")

    def test_a_person_can_make_a_key_at_the_dashboard_and_is_the_same_person_by_it(self):
        email = f"{unique('keys')}@clinic.example"
        key = self.by(email, "POST", "/api/keys", {"label": "laptop"}).expect(200).json["key"]
        with self.server.client(key) as own:
            self.assertEqual(own.get("/users/me").expect(200).json, self.by(email).expect(200).json)

    def test_one_persons_operation_is_not_told_to_another_through_the_same_dashboard(self):
        email, other = f"{unique('a')}@clinic.example", f"{unique('b')}@clinic.example"
        answer = self.by(email, "POST", "/memories", {"title": unique(), "content": "c", "tags": []}).expect(201)
        entry = next(e for e in self.entries("memory.create") if e["i"] == answer.audit_index)
        self.assertEqual((entry["origin"], entry["role"], entry["cred"][:30]), ("dashboard", "user", "env:RM_DASHBOARD_SERVICE_KEY#" + entry["cred"][29]))
        self.by(email, path=f"/api/v1/operations/{entry['opid']}").expect(200)
        self.error(self.by(other, path=f"/api/v1/operations/{entry['opid']}"), 404)

    def test_a_new_person_is_one_audited_write_of_its_own(self):
        user = self.by(f"{unique('audited')}@clinic.example").expect(200).json
        made = [e for e in self.entries("person.create") if user["id"] in e.get("res", {}).get("ids", [])]
        self.assertEqual(len(made), 1)
        self.assertEqual((made[0]["actor"], made[0]["outcome"]), ({"kind": "system", "vendor": "dashboard"}, "ok"))

    def test_a_missing_token_and_a_bad_one_are_401(self):
        with self.server.client(KEY) as client:
            self.error(client.get("/users/me"), 401, "Missing X-Dashboard-Token header")
            self.error(client.get("/users/me", headers={"X-Dashboard-Token": " "}), 401, "Missing X-Dashboard-Token header")
            email = f"{unique('never')}@clinic.example"
            good = token(email)
            signed, _, mac = good.rpartition(".")
            header, _, claims = signed.partition(".")
            none = encode({"alg": "none"})
            for bad in (
                "x", "..", f"{signed}.", f"{none}.{claims}.", f"{none}.{claims}.{mac}", good[:-1], good + "A", good + "=", f"{good}.x",
                token(email, secret=SECRET[:-1] + "x"), token(email, secret=KEY), token(email, header={"alg": "none"}),
                # A verifier that takes the algorithm from the token would check these with the same secret.
                token(email, header={"alg": "RS256"}), token(email, header={"alg": "HS512"}, digest=hashlib.sha512),
                token(email, header={"alg": "HS256", "crit": ["b64"], "b64": False}),
                token(email, header={"alg": "HS256", "jwk": {"kty": "oct", "k": encode(b"x" * 32)}}, secret="x" * 32),
                token(email, iss="reflect-memory"), token(email, iss=None), token(email, aud="reflect-dashboard"), token(email, aud=None),
                token(email, aud=[]), token(email, exp=None), token(email, exp="tomorrow"), token(email, exp=True),
                token(email, nbf=int(time.time()) + 3600), token(email, iat=int(time.time()) + 3600), token(""), token("no-address"),
                token("a@b\r\nx@y"), token(None, sub=email), token([email]), token(email, pad="x" * 6000),
                token(email, pending_id="0" * 32),
            ):
                with self.subTest(bad[:60]):
                    self.error(client.get("/users/me", headers={"X-Dashboard-Token": bad}), 401, "Invalid dashboard token")
            self.error(client.get("/users/me", headers={"X-Dashboard-Token": token(email, exp=int(time.time()) - 1)}), 401, "Dashboard token expired")
        self.assertNotIn(email, [u["email"] for u in self.owner.get("/admin/users").expect(200).json["users"]])

    def test_two_tokens_in_one_request_are_none(self):
        pair = "".join(f"X-Dashboard-Token: {token(email)}\r\n" for email in (OWNER, ADMIN))
        with self.server.socket() as bare:
            bare.sendall(f"GET /users/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{pair}Connection: close\r\n\r\n".encode())
            self.assertRegex(bare.recv(65536), rb"^HTTP/1.1 401 ")

    def test_a_token_alone_or_with_another_key_is_nothing(self):
        for bearer in (None, "x" * 40, token(OWNER)):
            with self.server.client(bearer) as client:
                self.error(client.get("/users/me", headers={"X-Dashboard-Token": token(OWNER)}), 401)
        # With a person's own key it changes nothing.
        with self.server.client(self.server.owner_key) as client:
            self.assertEqual(client.get("/users/me", headers={"X-Dashboard-Token": token(ADMIN)}).expect(200).json["email"], OWNER)

    def test_the_order_of_checks_is_the_contracts(self):
        """The dashboard's key is looked at before the route: an unknown path without a token is 401, with one 404."""
        with self.server.client(KEY) as client:
            self.error(client.get("/no/such/path"), 401, "Missing X-Dashboard-Token header")
        self.assertEqual(self.by(OWNER, path="/no/such/path").expect(404).json["message"], "Route GET:/no/such/path not found")
        with self.server.client(KEY) as client:
            client.get("/health").expect(200)

    def test_a_stream_ends_with_its_token(self):
        with self.server.client(KEY, timeout=60) as client:
            head = {"Authorization": f"Bearer {KEY}", "X-Dashboard-Token": token(OWNER, exp=int(time.time()) + 4)}
            client.connection.request("GET", "/events", headers=head)
            stream = client.connection.getresponse()
            self.assertEqual(stream.status, 200)
            self.assertIn(b"hello", stream.read(), "it ends by itself")


class Names(DashboardCase):
    def test_names_are_changed_and_the_one_not_sent_becomes_empty(self):
        me = self.owner.get("/users/me").expect(200).json
        self.assertEqual((me["first_name"], me["last_name"]), (None, None))
        changed = self.owner.request("PATCH", "/users/me", {"first_name": "Ada", "last_name": "Lovelace"}).expect(200).json
        self.assertEqual(changed, me | {"first_name": "Ada", "last_name": "Lovelace"})
        self.assertEqual(self.owner.request("PATCH", "/users/me", {"last_name": "King"}).expect(200).json["first_name"], "")
        self.assertEqual(self.owner.get("/users/me").expect(200).json, me | {"first_name": "", "last_name": "King"})
        self.owner.request("PATCH", "/users/me", {"first_name": "ä" * 100}).expect(200)
        for bad in ({"first_name": "ä" * 101}, {"email": "x@y.example"}, {"first_name": {}}, []):
            self.error(self.owner.request("PATCH", "/users/me", bad), 400)
        self.error(self.agents["cursor"].request("PATCH", "/users/me", {"first_name": "x"}), 403, "Agent keys cannot access this endpoint")
        self.assertEqual(self.restart("verify").returncode, 0)


class Administration(DashboardCase):
    def test_admin_check_and_users_are_for_administrators_alone(self):
        """[pin] `{"owner": true}`; others 403 `Admin access required`."""
        user = f"{unique('plain')}@clinic.example"
        self.by(user).expect(200)
        for path in ("/admin/check", "/admin/users", "/admin/waitlist", "/admin/early-access", "/admin/integration-requests", "/api/v1/backups"):
            with self.subTest(path):
                self.error(self.by(user, path=path), 403, "Admin access required")
                self.error(self.agents["cursor"].get(path), 403, "Agent keys cannot access this endpoint")
                self.by(ADMIN, path=path).expect(200)
                self.owner.get(path).expect(200)
        self.assertEqual(self.owner.get("/admin/check").expect(200).json, {"owner": True})
        self.assertEqual(self.owner.get("/whoami").expect(200).json["is_admin"], True)
        self.assertEqual(self.by(ADMIN, path="/whoami").expect(200).json["is_admin"], True)
        self.assertEqual(self.by(user, path="/whoami").expect(200).json["is_admin"], False)

    def test_admin_lists_of_a_hosted_service_are_empty(self):
        """[pin] The contract's three lists."""
        self.assertEqual(self.owner.get("/admin/waitlist").expect(200).json, {"waitlist": [], "total": 0})
        for path in ("/admin/early-access", "/admin/integration-requests"):
            self.assertEqual(self.owner.get(path).expect(200).json, {"requests": [], "total": 0})

    def test_admin_users_are_newest_first(self):
        emails = [f"{unique('n')}@clinic.example" for _ in range(3)]
        for email in emails:
            self.by(email).expect(200)
        users = self.owner.get("/admin/users").expect(200).json["users"]
        self.assertEqual([u["email"] for u in users[:3]], emails[::-1])
        self.assertEqual({OWNER, ADMIN} - {u["email"] for u in users}, set())
        self.assertEqual([u["created_at"] for u in users], sorted((u["created_at"] for u in users), reverse=True))

    def test_the_log_says_at_each_start_who_administrates(self):
        admin = self.by(ADMIN).expect(200).json["id"]
        self.assertTrue(all(e["res"]["ids"] == [admin] for e in self.entries("system.admins")))

    def test_who_is_no_longer_named_administrates_no_longer(self):
        self.by(ADMIN, path="/admin/check").expect(200)
        self.restart(RM_OWNER_EMAILS=None)
        self.error(self.by(ADMIN, path="/admin/check"), 403, "Admin access required")
        self.restart(RM_OWNER_EMAILS=ADMIN)
        self.by(ADMIN, path="/admin/check").expect(200)


class Seats(DashboardCase):
    options = {"settings": {**DASHBOARD, "RM_MAX_SEATS": "2"}}

    def test_one_more_person_than_there_are_seats_is_403(self):
        first, second = f"{unique('one')}@clinic.example", f"{unique('two')}@clinic.example"
        self.by(first).expect(200)  # the owner has the other seat
        self.error(self.by(second), 403, r"Seat limit reached (2). Ask an administrator for a seat")
        self.by(first).expect(200)
        self.by(OWNER).expect(200)
        self.assertNotIn(second, [u["email"] for u in self.owner.get("/admin/users").expect(200).json["users"]])
        refused = self.entries("person.create")[-1]
        self.assertEqual((refused["outcome"], refused["reason"], refused["status"]), ("refused", "quota", 403))


class Limits(unittest.TestCase):
    def test_bad_tokens_count_against_their_address_and_people_against_themselves(self):
        with Server(settings={**DASHBOARD, "RM_RATE_LIMIT_PER_MINUTE": "5", "RM_CREDENTIAL_RATE_LIMIT_PER_MINUTE": "8"}) as server:
            with server.client(KEY) as client:
                def ask(email):
                    return client.get("/whoami", headers={"X-Dashboard-Token": token(email)}).status
                self.assertEqual([ask("a@clinic.example") for _ in range(10)], [200] * 8 + [429] * 2)
                self.assertEqual(ask("b@clinic.example"), 200, "another person at the same dashboard")
            with server.client(KEY) as client:
                statuses = [client.get("/whoami", headers={"X-Dashboard-Token": "x"}).status for _ in range(7)]
                self.assertEqual(statuses, [401] * 5 + [429] * 2)
                self.assertEqual(client.get("/whoami", headers={"X-Dashboard-Token": token("b@clinic.example")}).status, 200)

    def test_without_both_settings_there_is_no_dashboard(self):
        with Server() as server, server.client(KEY) as client:
            self.assertEqual(client.get("/whoami", headers={"X-Dashboard-Token": token(OWNER)}).expect(401).json["error"], "Invalid API key")
            for settings in ({"RM_DASHBOARD_SERVICE_KEY": KEY}, {"RM_DASHBOARD_JWT_SECRET": SECRET},
                             {"RM_DASHBOARD_SERVICE_KEY": KEY, "RM_DASHBOARD_JWT_SECRET": "x" * 31}):
                done = server.run("doctor", **settings)
                self.assertEqual(done.returncode, 78)
                self.assertNotIn(KEY, text(done))

    def test_doctor_tells_of_a_dashboard(self):
        with Server(settings=DASHBOARD) as server:
            server.stop()
            checks = {check["name"]: check for check in json.loads(server.run("doctor", "--json").stdout)["checks"]}
            self.assertIn("RM_DASHBOARD_SERVICE_KEY", checks["dashboard"]["what"])


if __name__ == "__main__":
    unittest.main()
