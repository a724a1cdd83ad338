"""OAuth 2.1 for the connectors of AI tools: whole flows as a client and a browser make them, and what attackers try with each part."""

import base64
import hashlib
import html
import json
import re
import secrets
import time
import unittest
import urllib.parse

from rosemary_server import Server, unique
from test_dashboard import DASHBOARD, KEY, DashboardCase, token
from test_mcp import BOTH, Legacy

BACK = "https://client.example/callback?fixed=1"
OTHER = "nurse@clinic.example"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def pkce():
    verifier = secrets.token_urlsafe(48)
    return verifier, base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def query(url):
    pairs = urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, strict_parsing=True)
    assert len({name for name, _ in pairs}) == len(pairs), f"a parameter twice in {url}"
    return dict(pairs)


class OAuthCase(DashboardCase):
    options = {"settings": DASHBOARD, "users": (OTHER,)}

    def setUp(self):
        self.web = self.server.client()
        self.addCleanup(self.web.close)

    def form(self, path, pairs, headers=None):
        return self.web.post(path, raw=urllib.parse.urlencode(pairs).encode(), headers={**FORM, **(headers or {})})

    def refused(self, answer, status, error):
        """A refusal in the shape of RFC 6749."""
        self.assertEqual((answer.status, answer.json and answer.json.get("error")), (status, error), answer.body[:300])
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def client(self, method="none", uris=(BACK,), name="Claude", **more):
        said = {"redirect_uris": list(uris), "client_name": name, "token_endpoint_auth_method": method, **more}
        return self.web.post("/register", said).expect(201).json

    def authorize(self, client, challenge, **changes):
        asked = {"response_type": "code", "client_id": client["client_id"], "redirect_uri": client["redirect_uris"][0], "code_challenge": challenge,
                 "code_challenge_method": "S256", "state": "s t&=", "scope": "mcp:read mcp:write"} | changes
        return self.web.get("/authorize?" + urllib.parse.urlencode({k: v for k, v in asked.items() if v is not None}))

    def page(self, client, challenge, **changes):
        """The page of consent: its answer, and its form's fields with the browser's cookie."""
        sent = self.authorize(client, challenge, **changes).expect(302)
        self.assertRegex(sent.headers["location"], r"^/oauth/consent\?pending_id=[0-9a-f]{32}$")
        page = self.web.get(sent.headers["location"]).expect(200)
        text = page.body.decode()
        fields = {name: html.unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)}
        cookie = page.headers["set-cookie"].partition(";")[0]
        return page, fields, {"Cookie": f"other=1; {cookie}"}

    def decide(self, fields, cookie, key=None, decision="allow", vendor="oauth", **headers):
        pairs = {**fields, "key": self.server.owner_key if key is None else key, "vendor": vendor, "decision": decision}
        return self.form("/oauth/consent", pairs, {**cookie, **headers})

    def code(self, client, key=None, vendor="oauth", **changes):
        verifier, challenge = pkce()
        _, fields, cookie = self.page(client, challenge, **changes)
        back = self.decide(fields, cookie, key, vendor=vendor).expect(303).headers["location"]
        self.assertTrue(back.startswith(client["redirect_uris"][0].partition("?")[0]), back)
        return query(back), verifier

    def exchange(self, client, code, verifier, headers=None, **changes):
        pairs = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier, "redirect_uri": client["redirect_uris"][0],
                 "client_id": client["client_id"]} | changes
        return self.form("/token", {k: v for k, v in pairs.items() if v is not None}, headers)

    def granted(self, client=None, key=None, vendor="oauth", **changes):
        client = client or self.client()
        back, verifier = self.code(client, key, vendor, **changes)
        return client, self.exchange(client, back["code"], verifier).expect(200).json

    def refresh(self, client, refresh_token, **changes):
        pairs = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client["client_id"]} | changes
        return self.form("/token", {k: v for k, v in pairs.items() if v is not None})

    def status(self, bearer, path="/whoami"):
        with self.server.client(bearer) as agent:
            return agent.get(path).status

    def grants(self, key=None):
        with self.server.client(key or self.server.owner_key) as person:
            return person.get("/api/v1/oauth/grants").expect(200).json["grants"]


class Discovery(OAuthCase):
    def test_the_server_and_the_resource_describe_themselves(self):
        issuer = f"https://127.0.0.1:{self.server.port}"
        server = self.web.get("/.well-known/oauth-authorization-server").expect(200).json
        self.assertEqual(server["issuer"], issuer)
        for key, path in (("authorization_endpoint", "/authorize"), ("token_endpoint", "/token"), ("registration_endpoint", "/register"), ("revocation_endpoint", "/revoke")):
            self.assertEqual(server[key], issuer + path)
        self.assertEqual((server["code_challenge_methods_supported"], server["response_types_supported"]), (["S256"], ["code"]))
        resource = self.web.get("/.well-known/oauth-protected-resource/mcp").expect(200).json
        self.assertEqual((resource["resource"], resource["authorization_servers"]), (issuer + "/mcp", [issuer]))

    def test_the_issuer_is_the_address_that_was_asked_for_and_checked(self):
        """The issuer came from `Host`, which nobody looks at beside the address in an absolute target."""
        for path in ("/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp"):
            with self.server.socket() as bare:
                bare.sendall(f"GET https://localhost:{self.server.port}{path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda: bare.recv(65536), b""))
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
            self.assertIn(f'"https://localhost:{self.server.port}'.encode(), answer)
            self.assertNotIn(b"evil", answer)

    def test_the_bare_protected_resource_is_404(self):
        """[pin] Only the form with the resource's path exists."""
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/", "/.well-known/oauth-protected-resource/x"):
            self.assertEqual(self.web.get(path).expect(404).json["message"], f"Route GET:{path} not found")

    def test_the_public_url_is_the_issuer_where_it_is_set(self):
        with Server(settings={"RM_PUBLIC_URL": "https://memory.hospital.example"}) as server, server.client() as web:
            self.assertEqual(web.get("/.well-known/oauth-authorization-server").expect(200).json["issuer"], "https://memory.hospital.example")
            self.assertEqual(web.get("/.well-known/oauth-protected-resource/mcp").expect(200).json["resource"], "https://memory.hospital.example/mcp")


class Registration(OAuthCase):
    def test_a_client_gets_an_id_and_a_secret_where_it_wants_one(self):
        public = self.client("none")
        self.assertRegex(public["client_id"], r"^rm_[0-9a-f]{16}$")
        self.assertNotIn("client_secret", public)
        for method in ("client_secret_post", "client_secret_basic"):
            made = self.client(method)
            self.assertRegex(made["client_secret"], r"^rms_[0-9a-f]{32}$")
            self.assertEqual(made["client_secret_expires_at"], 0)
        unsaid = self.web.post("/register", {"redirect_uris": [BACK]}).expect(201).json
        self.assertEqual(unsaid["token_endpoint_auth_method"], "client_secret_basic", "RFC 7591 section 2")

    def test_bad_metadata_is_refused_with_its_own_code(self):
        for uris in ([], None, "https://x.example", ["http://x.example/"], ["javascript:alert(1)"], ["https://x.example/#f"], [BACK] * 11, ["https://u@x.example/"],
                     [BACK, "smb://x.example/share"], ["ms-msdt:/id"], ["myapp:/back"]):
            self.refused(self.web.post("/register", {"redirect_uris": uris}), 400, "invalid_redirect_uri")
        for more in ({"client_name": "x" * 101}, {"token_endpoint_auth_method": "private_key_jwt"}, {"grant_types": ["implicit"]}, {"response_types": ["token"]}):
            self.refused(self.web.post("/register", {"redirect_uris": [BACK], **more}), 400, "invalid_client_metadata")
        for raw, kind in ((b"", "application/json"), (b"[]", "application/json"), (b"{", "application/json"), (b"redirect_uris=x", FORM["Content-Type"])):
            self.refused(self.web.post("/register", raw=raw, headers={"Content-Type": kind}), 400, "invalid_client_metadata")

    def test_a_flood_of_registrations_stays_in_memory_and_is_bounded(self):
        size = self.server.data.stat().st_size
        first = self.client()
        for _ in range(1050):
            self.client()
        with self.server.client(KEY) as service:
            counts = service.get("/oauth/status").expect(200).json
        self.assertEqual(counts["registrations_waiting"], 1000)
        self.assertIn("not registered", self.authorize(first, pkce()[1]).expect(400).body.decode())
        self.assertLess(self.server.data.stat().st_size - size, 8 << 20)
        self.granted()  # nobody is locked out

    def test_registrations_are_limited_by_address(self):
        with Server(settings={"RM_RATE_LIMIT_PER_MINUTE": "100"}) as server, server.client() as web:
            answers = [web.post("/register", {"redirect_uris": [BACK]}).status for _ in range(25)]
            self.assertEqual(answers, [201] * 20 + [429] * 5)


    def test_keys_that_are_guessed_on_the_page_count_against_their_address(self):
        """With a tool's own key beside them, 600 a minute could be tried where a stranger has 100."""
        with Server(settings={"RM_RATE_LIMIT_PER_MINUTE": "40"}) as server, server.client() as stranger, server.agent("cursor") as agent:
            self.server, self.web = server, stranger
            client = self.client()
            self.web = agent
            _, fields, cookie = self.page(client, pkce()[1])
            answers = [self.decide(fields, cookie, key=f"rm_live_{n:048x}").status for n in range(60)]
            self.assertEqual(set(answers[:30]), {401})
            self.assertEqual(set(answers[45:]), {429})


class Flow(OAuthCase):
    def test_the_whole_flow_gives_tokens_of_the_contracts_shape(self):
        """[pin] `rma_`/`rmr_`, bearer, 604800 seconds, both rotate."""
        client = self.client()
        back, verifier = self.code(client, vendor="claude", resource=f"https://127.0.0.1:{self.server.port}/mcp")
        self.assertEqual((back["state"], back["iss"], back["fixed"]), ("s t&=", f"https://127.0.0.1:{self.server.port}", "1"))
        answer = self.exchange(client, back["code"], verifier).expect(200)
        tokens = answer.json
        self.assertRegex(tokens["access_token"], r"^rma_[0-9a-f]{32}$")
        self.assertRegex(tokens["refresh_token"], r"^rmr_[0-9a-f]{32}$")
        self.assertEqual((tokens["token_type"], tokens["expires_in"], tokens["scope"]), ("bearer", 604800, "mcp:read mcp:write"))
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertIn("x-audit-index", answer.headers)
        with self.server.client(tokens["access_token"]) as agent:
            who = agent.get("/whoami").expect(200).json
            self.assertEqual((who["role"], who["vendor"], who["is_admin"]), ("agent", "claude", False))
            made = agent.remember(unique(), "by a connector", path="/agent/memories", allowed_vendors=["*"])
            self.assertEqual(made["origin"], "claude")
        # It is the owner's memory, and the owner sees who holds what.
        self.owner.get(f"/memories/{made['id']}").expect(200)
        [grant] = [g for g in self.grants() if g["client_id"] == client["client_id"]]
        self.assertEqual((grant["vendor"], grant["client_name"], grant["scope"]), ("claude", "Claude", "mcp:read mcp:write"))
        # Both tokens rotate.
        fresh = self.refresh(client, tokens["refresh_token"]).expect(200).json
        self.assertFalse({fresh["access_token"], fresh["refresh_token"]} & {tokens["access_token"], tokens["refresh_token"]})
        self.assertEqual((self.status(tokens["access_token"]), self.status(fresh["access_token"])), (401, 200))

    def test_a_token_belongs_to_the_person_who_consented_and_never_to_the_owner(self):
        """[pin] REFLECT_API 8.13."""
        mine = self.owner.remember(unique(), "the owner's own")
        _, tokens = self.granted(key=self.server.user_keys[OTHER])
        with self.server.client(tokens["access_token"]) as agent:
            self.error(agent.get(f"/agent/memories/{mine['id']}"), 404)
            made = agent.remember(unique(), path="/agent/memories", allowed_vendors=["*"])
        self.error(self.owner.get(f"/memories/{made['id']}"), 404)
        self.others[OTHER].get(f"/memories/{made['id']}").expect(200)

    def test_an_oauth_token_reaches_agent_routes_only_and_is_told_so(self):
        """[pin] `OAuth tokens cannot access this endpoint`."""
        _, tokens = self.granted()
        with self.server.client(tokens["access_token"]) as agent:
            for method, path in (("GET", "/users/me"), ("POST", "/memories"), ("GET", "/api/keys"), ("GET", "/admin/check"), ("GET", "/api/v1/oauth/grants"),
                                 ("POST", "/api/keys"), ("GET", "/no/such/path"), ("GET", "/events")):
                self.error(agent.request(method, path, {} if method == "POST" else None), 403, "OAuth tokens cannot access this endpoint")
            agent.post("/agent/memories/list", {}).expect(200)
            agent.get("/oauth/status").expect(200)

    def test_a_vendor_is_what_the_person_confirms(self):
        """[pin] The client's name is a suggestion; without a confirmation it is `oauth`."""
        client = self.client(name="Cursor")
        page, fields, cookie = self.page(client, pkce()[1])
        self.assertIn('value="oauth" checked', page.body.decode())
        self.assertIn('value="cursor"', page.body.decode())
        hidden = self.owner.remember(unique(), "for cursor alone", allowed_vendors=["cursor"])
        _, plain = self.granted(self.client(name="Cursor"))
        _, confirmed = self.granted(self.client(name="Cursor"), vendor="cursor")
        self.assertEqual((self.status(plain["access_token"], f"/agent/memories/{hidden['id']}"), self.status(confirmed["access_token"], f"/agent/memories/{hidden['id']}")), (404, 200))
        for vendor in ("api", "user", "dashboard", "*", "Cursor", "notoffered", ""):
            again = self.decide(fields, cookie, vendor=vendor).expect(400)
            self.assertIn("role=\"alert\"", again.body.decode())

    def test_a_read_only_grant_reads_and_changes_nothing(self):
        self.owner.remember(unique(), "to be read")
        _, tokens = self.granted(scope="mcp:read")
        self.assertEqual(tokens["scope"], "mcp:read")
        with self.server.client(tokens["access_token"]) as agent:
            [record] = agent.post("/agent/memories/list", {"limit": 1}).expect(200).json["memories"]
            good = {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}
            for method, path, body in (("POST", "/agent/memories", good), ("PUT", f"/agent/memories/{record['id']}", good), ("DELETE", f"/agent/memories/{record['id']}", None)):
                self.error(agent.request(method, path, body), 403)
            said = {"messages": [{"role": "user", "content": "c"}], "user_id": "u"}
            for method, path, body in (("POST", "/v1/memories/", said), ("POST", "/v3/memories/add/", said), ("POST", f"/agent/memories/{record['id']}/children", good),
                                       ("DELETE", "/v1/memories/?user_id=u", None), ("DELETE", "/v2/entities/user/u/", None)):
                self.assertEqual(agent.request(method, path, body).status, 403, path)
        client = self.client()
        self.refused(self.refresh(client, tokens["refresh_token"], scope="mcp:write"), 400, "invalid_grant")

    def test_a_secret_is_verified_by_either_method(self):
        """[pin] REFLECT_API 8.6: a client that has a secret must show it."""
        for method in ("client_secret_post", "client_secret_basic"):
            client = self.client(method)
            back, verifier = self.code(client)
            wrong = {"client_secret": "rms_" + "0" * 32}
            for changes, headers in (({}, None), (wrong, None), ({"client_secret": client["client_secret"][:-1]}, None),
                                     ({"client_id": None}, {"Authorization": "Basic " + base64.b64encode(f"{client['client_id']}:x".encode()).decode()}),
                                     ({"client_id": None}, {"Authorization": "Basic !"})):
                self.refused(self.exchange(client, back["code"], verifier, headers, **changes), 401, "invalid_client")
            basic = {"Authorization": "Basic " + base64.b64encode(f"{client['client_id']}:{client['client_secret']}".encode()).decode()}
            self.refused(self.exchange(client, back["code"], verifier, basic, client_secret=client["client_secret"]), 400, "invalid_request")
            if method == "client_secret_post":
                tokens = self.exchange(client, back["code"], verifier, client_secret=client["client_secret"]).expect(200).json
            else:
                tokens = self.exchange(client, back["code"], verifier, basic, client_id=None).expect(200).json
            self.refused(self.refresh(client, tokens["refresh_token"]), 401, "invalid_client")
            self.refresh(client, tokens["refresh_token"], client_secret=client["client_secret"]).expect(200)
        public = self.client()
        back, verifier = self.code(public)
        self.refused(self.exchange(public, back["code"], verifier, client_secret="x"), 401, "invalid_client")

    def test_the_log_names_who_consented_and_what_was_given_and_never_a_token(self):
        client, tokens = self.granted(key=self.server.user_keys[OTHER], vendor="claude")
        user = self.others[OTHER].get("/users/me").expect(200).json["id"]
        fresh = self.refresh(client, tokens["refresh_token"]).expect(200).json
        bundle = self.server.folder / "log.ndjson"
        self.restart("audit", "export", str(bundle))
        lines = [json.loads(line) for line in bundle.read_text().splitlines()]
        consent = [e for e in lines if e.get("op") == "oauth.consent"][-1]
        issue = [e for e in lines if e.get("op") == "oauth.issue"][-1]
        renew = [e for e in lines if e.get("op") == "oauth.refresh"][-1]
        self.assertEqual((consent["actor"]["id"], consent["det"]["vendor"], consent["outcome"]), (user, "claude", "ok"))
        self.assertEqual(issue["actor"], {"behalf": [user], "kind": "agent", "vendor": "claude"})
        self.assertEqual((issue["cred"], issue["det"]["cred"]), (consent["cred"], renew["cred"]))
        for secret in (*tokens.values(), *fresh.values()):
            if str(secret).startswith(("rma_", "rmr_")):
                self.assertNotIn(secret, bundle.read_text())
        self.assertEqual(self.status(fresh["access_token"]), 200, "grants outlive a restart")

    def test_the_file_is_whole_with_grants_in_every_state(self):
        client, tokens = self.granted()
        for _ in range(3):
            tokens = self.refresh(client, tokens["refresh_token"]).expect(200).json
        other, gone = self.granted()
        self.form("/revoke", {"token": gone["access_token"], "client_id": other["client_id"]}).expect(200)
        self.granted(client)
        done = self.restart("verify")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Attacks(OAuthCase):
    def test_pkce_with_s256_is_the_only_way(self):
        client, (verifier, challenge) = self.client(), pkce()
        known, _ = self.granted()
        for changes in ({"code_challenge_method": "plain", "code_challenge": verifier}, {"code_challenge_method": None}, {"code_challenge": None},
                        {"code_challenge_method": "s256"}, {"code_challenge": verifier}, {"code_challenge": challenge + "="}):
            # Anybody may register: nobody is sent to a program that no person has consented to.
            self.assertNotIn("location", self.authorize(client, challenge, **changes).expect(400).headers)
            back = self.authorize(known, challenge, **changes).expect(302).headers["location"]
            self.assertEqual((query(back)["error"], query(back)["state"]), ("invalid_request", "s t&="))
            self.assertTrue(back.startswith(BACK))
        for changes, error in (({"response_type": "token"}, "unsupported_response_type"), ({"response_type": None}, "unsupported_response_type"),
                               ({"scope": "admin"}, "invalid_scope"), ({"resource": "https://other.example/mcp"}, "invalid_target"),
                               ({"resource": f"https://127.0.0.1:{self.server.port}.evil.example/mcp"}, "invalid_target"),
                               ({"resource": f"https://127.0.0.1:{self.server.port}/memories"}, "invalid_target")):
            self.assertEqual(query(self.authorize(known, challenge, **changes).expect(302).headers["location"])["error"], error)

    def test_nobody_is_sent_to_an_address_that_was_not_registered(self):
        client, challenge = self.client(), pkce()[1]
        for uri in ("https://evil.example/", BACK + "x", BACK[:-1], BACK.replace("https", "http"), BACK.replace("client", "CLIENT"), BACK + "&a=b",
                    "https://client.example.evil.example/callback?fixed=1", "https://client.example/callback", "javascript:alert(1)", "//evil.example"):
            answer = self.authorize(client, challenge, redirect_uri=uri).expect(400)
            self.assertNotIn("location", answer.headers)
            self.assertNotIn(b"evil", answer.body)
        for changes in ({"client_id": "rm_0123456789abcdef"}, {"client_id": "x"}, {"client_id": None}):
            self.assertNotIn("location", self.authorize(client, challenge, **changes).expect(400).headers)
        two = self.client(uris=(BACK, BACK + "2"))
        self.authorize(two, challenge, redirect_uri=None).expect(400)
        self.authorize(client, challenge, redirect_uri=None).expect(302)
        twice = urllib.parse.urlencode([("client_id", client["client_id"])] * 2)
        self.assertNotIn("location", self.web.get(f"/authorize?{twice}").expect(400).headers)

    def test_a_code_is_used_once_and_its_replay_ends_what_came_of_it(self):
        client = self.client()
        back, verifier = self.code(client)
        tokens = self.exchange(client, back["code"], verifier).expect(200).json
        self.refused(self.exchange(client, back["code"], verifier), 400, "invalid_grant")
        self.assertEqual(self.status(tokens["access_token"]), 401)
        self.refused(self.refresh(client, tokens["refresh_token"]), 400, "invalid_grant")

    def test_a_code_is_worth_nothing_without_its_verifier_client_and_address(self):
        client, foreign = self.client(), self.client()
        back, verifier = self.code(client)
        for changes in ({"code_verifier": pkce()[0]}, {"code_verifier": verifier + "x"}, {"code_verifier": "short"}, {"client_id": foreign["client_id"]},
                        {"redirect_uri": "https://evil.example/"}, {"code": secrets.token_hex(16)}, {"code": back["code"].upper()}):
            self.refused(self.exchange(client, **({"code": back["code"], "verifier": verifier} | {}), **{k: v for k, v in changes.items() if k not in ("code",)})
                         if "code" not in changes else self.exchange(client, changes["code"], verifier), 400, "invalid_grant")
        for missing in ("code_verifier", "grant_type"):
            self.refused(self.exchange(client, back["code"], verifier, **{missing: None}), 400, "invalid_request")
        self.refused(self.exchange(client, back["code"], verifier, grant_type="password"), 400, "unsupported_grant_type")
        self.refused(self.exchange(client, back["code"], verifier, resource="https://other.example/mcp"), 400, "invalid_target")
        self.exchange(client, back["code"], verifier).expect(200)  # none of that used it up

    def test_a_used_refresh_token_ends_the_family_and_the_log_says_so(self):
        client, first = self.granted()
        second = self.refresh(client, first["refresh_token"]).expect(200).json
        third = self.refresh(client, second["refresh_token"]).expect(200).json
        answer = self.refresh(client, first["refresh_token"])
        self.refused(answer, 400, "invalid_grant")
        self.assertEqual(self.status(third["access_token"]), 401)
        self.refused(self.refresh(client, third["refresh_token"]), 400, "invalid_grant")
        [entry] = [e for e in self.entries("oauth.replay") if e["i"] == answer.audit_index]
        self.assertEqual((entry["status"], entry["outcome"], entry["actor"]["kind"]), (400, "ok", "agent"))

    def test_a_refresh_token_of_another_client_does_nothing(self):
        (client, tokens), foreign = self.granted(), self.client()
        self.refused(self.refresh(foreign, tokens["refresh_token"]), 400, "invalid_grant")
        self.refused(self.refresh(client, tokens["access_token"]), 400, "invalid_grant")
        self.refused(self.form("/revoke", {"token": tokens["access_token"], "client_id": foreign["client_id"]}), 400, "invalid_grant")
        self.assertEqual(self.status(tokens["refresh_token"]), 401, "a refresh token opens no route")
        self.assertEqual(self.status(tokens["access_token"]), 200)
        self.refresh(client, tokens["refresh_token"]).expect(200)

    def test_a_revoked_grant_ends_with_the_very_next_answer(self):
        for end in ("access_token", "refresh_token", "person"):
            client, tokens = self.granted()
            if end == "person":
                [grant] = [g for g in self.grants() if g["client_id"] == client["client_id"]]
                self.error(self.others[OTHER].delete(f"/api/v1/oauth/grants/{grant['id']}"), 404, "Grant not found")
                self.error(self.owner.delete(f"/api/keys/{grant['id']}"), 404, "Key not found")
                self.assertEqual(self.status(tokens["access_token"]), 200)
                self.owner.delete(f"/api/v1/oauth/grants/{grant['id']}").expect(200)
                self.error(self.owner.delete(f"/api/v1/oauth/grants/{grant['id']}"), 404, "Grant not found")
            else:
                self.form("/revoke", {"token": tokens[end], "client_id": client["client_id"], "token_type_hint": "nonsense"}).expect(200)
            self.assertEqual(self.status(tokens["access_token"]), 401)
            self.refused(self.refresh(client, tokens["refresh_token"]), 400, "invalid_grant")
            self.form("/revoke", {"token": tokens["access_token"], "client_id": client["client_id"]}).expect(200)

    def test_a_second_consent_to_a_client_ends_the_first_grant(self):
        client, first = self.granted()
        _, second = self.granted(client)
        self.assertEqual((self.status(first["access_token"]), self.status(second["access_token"])), (401, 200))

    def test_a_key_revoked_meanwhile_takes_its_code_with_it(self):
        made = self.owner.post("/api/keys", {"label": "short-lived"}).expect(200).json
        client = self.client()
        back, verifier = self.code(client, key=made["key"])
        self.owner.delete(f"/api/keys/{made['id']}").expect(200)
        self.refused(self.exchange(client, back["code"], verifier), 400, "invalid_grant")

    def test_a_revoked_key_takes_its_grants_along(self):
        """Whoever stole a key consented with it once, and kept their access when it was revoked."""
        made = self.owner.post("/api/keys", {"label": "stolen"}).expect(200).json
        client, tokens = self.granted(key=made["key"])
        _, others = self.granted()
        fresh = self.refresh(client, tokens["refresh_token"]).expect(200).json
        self.owner.delete(f"/api/keys/{made['id']}").expect(200)
        self.assertEqual((self.status(fresh["access_token"]), self.status(others["access_token"])), (401, 200))
        for refresh_token in (fresh["refresh_token"], tokens["refresh_token"]):
            self.refused(self.refresh(client, refresh_token), 400, "invalid_grant")
        self.assertNotIn(client["client_id"], [grant["client_id"] for grant in self.grants()])

    def test_forged_and_foreign_tokens_open_nothing(self):
        _, tokens = self.granted()
        good = tokens["access_token"]
        for bad in (good[:-1], good + "0", good.upper(), "rma_" + secrets.token_hex(16), "rma_", tokens["refresh_token"], good.replace("rma_", "rmr_")):
            self.assertEqual(self.status(bad), 401)

    def test_the_page_is_not_framed_loads_nothing_and_says_who_asks(self):
        page, fields, _ = self.page(self.client(name="<b>Evil</b>\" onload=x"), pkce()[1])
        policy = page.headers["content-security-policy"]
        for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self' https://client.example"):
            self.assertIn(part, policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual((page.headers["x-frame-options"], page.headers["cache-control"]), ("DENY", "no-store"))
        for part in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
            self.assertIn(part, page.headers["set-cookie"])
        self.assertTrue(page.headers["set-cookie"].startswith("__Host-"))
        text = page.body.decode()
        self.assertNotIn("<b>", text)
        self.assertIn("&lt;b&gt;Evil&lt;/b&gt;", text)
        self.assertNotIn("<script", text)
        self.assertIn("https://client.example", text)

    def test_an_answer_that_did_not_come_from_the_page_decides_nothing(self):
        client = self.client()
        _, fields, cookie = self.page(client, pkce()[1])
        _, others, other_cookie = self.page(client, pkce()[1])
        for pairs, head in ((fields, {}), ({**fields, "csrf": ""}, cookie), ({**fields, "csrf": fields["csrf"][:-1] + "0"}, cookie), (fields, other_cookie),
                            ({**fields, "csrf": others["csrf"]}, cookie), ({**others, "csrf": fields["csrf"]}, cookie), ({"pending_id": fields["pending_id"]}, cookie)):
            if pairs.get("csrf") == fields["csrf"] and head == cookie and pairs["pending_id"] == fields["pending_id"]:
                continue
            self.decide(pairs, head).expect(403)
            self.decide(pairs, head, decision="deny").expect(403)
        # Whatever stands in the place of an id.
        for id in ("", "ä" * 40, "x" * 15 + "ä" * 9, "\0" * 20, "0" * 5000):
            self.decide({**fields, "pending_id": id}, cookie).expect(403)
            self.web.get("/oauth/consent?" + urllib.parse.urlencode({"pending_id": id})).expect(404)
        self.decide(fields, cookie, Origin="https://evil.example").expect(403)
        self.decide(fields, cookie, Origin="null").expect(403)
        self.decide(fields, cookie, Origin=f"https://127.0.0.1:{self.server.port}").expect(303)

    def test_only_a_persons_own_key_can_allow_anything(self):
        client = self.client()
        _, fields, cookie = self.page(client, pkce()[1])
        _, tokens = self.granted()
        for key, status in (("", 401), ("x", 401), (KEY, 401), (self.server.owner_key[:-1], 401), (self.server.agent_keys["cursor"], 403), (tokens["access_token"], 403),
                            (token("owner@clinic.example"), 401)):
            again = self.decide(fields, cookie, key).expect(status)
            self.assertIn("role=\"alert\"", again.body.decode())
            if len(key) > 20:
                self.assertNotIn(key.encode(), again.body)
        self.decide(fields, cookie, decision="maybe").expect(400)
        self.decide(fields, cookie).expect(303)
        self.decide(fields, cookie).expect(404)

    def test_a_person_can_say_no_without_a_key(self):
        _, fields, cookie = self.page(self.client(), pkce()[1])
        back = query(self.decide(fields, cookie, "", decision="deny").expect(303).headers["location"])
        self.assertEqual((back["error"], back["state"]), ("access_denied", "s t&="))
        self.decide(fields, cookie).expect(404)

    def test_a_token_is_asked_for_in_a_form_alone(self):
        client = self.client()
        self.refused(self.web.post("/token", {"grant_type": "authorization_code", "client_id": client["client_id"]}), 400, "invalid_request")
        self.refused(self.web.post("/token?grant_type=refresh_token", raw=b""), 400, "invalid_request")
        twice = b"grant_type=refresh_token&grant_type=refresh_token&client_id=" + client["client_id"].encode()
        self.refused(self.web.post("/token", raw=twice, headers=FORM), 400, "invalid_request")
        for raw in (b"\xff", b"a=%", b"&".join(b"a%d=b" % n for n in range(2000))):
            self.refused(self.web.post("/token", raw=raw, headers=FORM), 400, "invalid_request")

    def test_grants_of_one_person_are_bounded(self):
        key = self.others[OTHER].post("/api/keys", {"label": "many"}).expect(200).json["key"]
        while len(self.grants(key)) < 32:
            self.granted(key=key)
        client = self.client()
        _, fields, cookie = self.page(client, pkce()[1])
        self.assertIn("As many grants", self.decide(fields, cookie, key).expect(409).body.decode())
        for grant in self.grants(key):
            self.others[OTHER].delete(f"/api/v1/oauth/grants/{grant['id']}").expect(200)
        self.granted(key=key)


class Connector(OAuthCase):
    """What an MCP client does from the first refusal to the last."""

    def test_a_connector_finds_its_way_from_the_refusal_of_mcp_and_ends_with_its_grant(self):
        challenge = self.web.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers={"Accept": BOTH}).expect(401).headers["www-authenticate"]
        resource = self.web.get(urllib.parse.urlsplit(re.search(r'resource_metadata="([^"]+)"', challenge)[1]).path).expect(200).json
        client, tokens = self.granted(vendor="claude", resource=resource["resource"])
        with self.server.client(tokens["access_token"]) as agent:
            session = Legacy(agent)
            written = session.call("write_memory", title=unique(), content="by a connector", tags=["oauth"])
            record = json.loads(written["content"][0]["text"])
            self.assertEqual(record["origin"], "claude")
        self.owner.get(f"/memories/{record['id']}").expect(200)
        # A session is the grant's: it goes on with the next token, and another grant of the same person has no part in it.
        fresh = self.refresh(client, tokens["refresh_token"]).expect(200).json
        with self.server.client(fresh["access_token"]) as agent:
            session.client = agent
            self.assertEqual(session.ask("ping").expect(200).json["result"], {})
        _, other = self.granted()
        with self.server.client(other["access_token"]) as foreign:
            self.assertEqual(foreign.post("/mcp", {"jsonrpc": "2.0", "id": 9, "method": "ping"}, headers=session.headers()).status, 404)
        # The open stream and every further answer end with the grant.
        with self.server.client(fresh["access_token"], timeout=60) as listening:
            listening.connection.request("GET", "/mcp", headers={"Authorization": f"Bearer {fresh['access_token']}", **session.headers(Accept="text/event-stream")})
            stream = listening.connection.getresponse()
            self.assertEqual(stream.status, 200)
            self.form("/revoke", {"token": fresh["refresh_token"], "client_id": client["client_id"]}).expect(200)
            stream.read()  # it ends by itself
        with self.server.client(fresh["access_token"]) as agent:
            answer = agent.post("/mcp", {"jsonrpc": "2.0", "id": 2, "method": "ping"}, headers=session.headers()).expect(401)
            self.assertIn("resource_metadata", answer.headers["www-authenticate"])


class Emergency(OAuthCase):
    def test_revoking_everything_ends_grants_codes_and_approvals_too(self):
        client, tokens = self.granted()
        waiting = self.client()
        back, verifier = self.code(waiting)
        pending = query("x:" + self.authorize(client, pkce()[1]).expect(302).headers["location"])["pending_id"]
        done = self.server.run("incident", "freeze")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.refused(self.refresh(client, tokens["refresh_token"]), 503, "temporarily_unavailable")
        self.refused(self.exchange(waiting, back["code"], verifier), 503, "temporarily_unavailable")
        self.assertEqual(self.status(tokens["access_token"]), 200, "reads go on")
        done = self.server.run("incident", "revoke-all")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.status(tokens["access_token"]), 401)
        self.refused(self.refresh(client, tokens["refresh_token"]), 400, "invalid_grant")
        self.assertEqual(self.server.run("incident", "thaw").returncode, 0)
        self.refused(self.exchange(waiting, back["code"], verifier), 400, "invalid_grant")
        self.error(self.web.get(f"/oauth/approve?token={token('a@clinic.example', pending_id=pending)}"), 403)
        with self.server.client(KEY) as service:
            self.error(service.post("/oauth/approve-s2s", {"pending_id": pending, "email": "a@clinic.example"}), 403)


class Approval(OAuthCase):
    def pending(self):
        client, (verifier, challenge) = self.client(), pkce()
        return client, verifier, query("x:" + self.authorize(client, challenge).expect(302).headers["location"])["pending_id"]

    def test_a_dashboard_token_approves_and_sends_back(self):
        """[pin] 302 back; 404 unknown, 403 bad token."""
        client, verifier, pending = self.pending()
        email = f"{unique('new')}@clinic.example"
        approving = token(email, pending_id=pending)
        back = query(self.web.get(f"/oauth/approve?token={approving}").expect(302).headers["location"])
        tokens = self.exchange(client, back["code"], verifier).expect(200).json
        with self.server.client(tokens["access_token"]) as agent:
            self.assertEqual(agent.get("/whoami").expect(200).json["vendor"], "oauth", "nobody confirmed another")
        self.assertIn(client["client_id"], [g["client_id"] for g in self.by(email, path="/api/v1/oauth/grants").expect(200).json["grants"]])
        self.error(self.web.get(f"/oauth/approve?token={approving}"), 404)
        self.error(self.web.get(f"/oauth/approve?token={token(email, pending_id='0' * 32)}"), 404)
        _, _, other = self.pending()
        for bad in ("", "x", token(email), token(email, pending_id=other, secret="x" * 40), token(email, pending_id=other, exp=int(time.time()) - 1), KEY):
            self.error(self.web.get(f"/oauth/approve?token={bad}"), 403)

    def test_asking_for_the_head_decides_nothing_and_begins_nothing(self):
        """HEAD was taken for GET: a scanner that looks where a link leads approved for its reader."""
        client, verifier, pending = self.pending()
        approving = f"/oauth/approve?token={token('head@clinic.example', pending_id=pending)}"
        with self.server.client(KEY) as service:
            counts = service.get("/oauth/status").expect(200).json
            for path in (approving, "/authorize?" + urllib.parse.urlencode({"client_id": client["client_id"]})):
                for bearer in (None, self.server.owner_key):
                    with self.server.client(bearer) as web:
                        head = web.request("HEAD", path)
                        self.assertEqual((head.status, head.headers["allow"]), (405, "GET"))
                        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                            self.assertIn(web.request(method, path).status, (401, 404), method)
            self.assertEqual(service.get("/oauth/status").expect(200).json, counts)
        back = query(self.web.get(approving).expect(302).headers["location"])
        self.exchange(client, back["code"], verifier).expect(200)

    def test_approve_s2s_is_for_the_service_key_alone(self):
        """[pin] `{redirect_url}`; 403 otherwise."""
        client, verifier, pending = self.pending()
        said = {"pending_id": pending, "email": f"{unique('S2S')}@clinic.example"}
        for bearer in (None, "x" * 40, self.server.owner_key, self.server.api_key, self.server.agent_keys["cursor"], token(said["email"])):
            with self.server.client(bearer) as other:
                self.error(other.post("/oauth/approve-s2s", said), 403)
        with self.server.client(KEY) as service:
            self.error(service.post("/oauth/approve-s2s", {**said, "pending_id": "0" * 32}), 404)
            for bad in ({**said, "email": "x"}, {"email": said["email"]}, {**said, "more": 1}, [], {**said, "pending_id": 7}):
                self.error(service.post("/oauth/approve-s2s", bad), 400)
            back = query(service.post("/oauth/approve-s2s", said).expect(200).json["redirect_url"])
            self.error(service.post("/oauth/approve-s2s", said), 404)
        self.exchange(client, back["code"], verifier).expect(200)

    def test_status_counts_for_the_service_key_and_for_agents(self):
        with self.server.client(KEY) as service:
            counts = service.get("/oauth/status").expect(200).json
        self.assertEqual(set(counts), {"registrations_waiting", "decisions_waiting", "codes_waiting", "clients", "grants"})
        self.assertEqual(set(self.agents["cursor"].get("/oauth/status").expect(200).json), set(counts))
        self.owner.get("/oauth/status").expect(200)
        self.error(self.others[OTHER].get("/oauth/status"), 403, "Admin access required")
        self.error(self.web.get("/oauth/status"), 401)


if __name__ == "__main__":
    unittest.main()
