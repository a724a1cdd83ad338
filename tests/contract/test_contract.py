"""The wire contract end to end: what existing clients write, read and rely on. Names of tests state the behaviour they hold."""

import re
import time
import unittest
from urllib.parse import quote

from rosemary_server import OWNER, ROOT, ServerCase, text, unique

RECORD = {
    "id", "title", "content", "tags", "origin", "allowed_vendors", "memory_type", "created_at", "updated_at",
    "shared_with_org_id", "shared_with_team_id", "shared_at", "parent_memory_id",
}
SUMMARY = {"id", "title", "tags", "origin", "memory_type", "created_at", "updated_at"}
VERSION = {"id", "memory_id", "title", "content", "tags", "origin", "allowed_vendors", "memory_type", "version_number", "created_at"}
PAGE = {"memories", "total", "limit", "offset", "has_more"}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UNKNOWN = "01890000-0000-7000-8000-000000000000"


def ids(answer):
    return [memory["id"] for memory in answer.json["memories"]]


def put_body(record, **changed):
    return {key: record[key] for key in ("title", "content", "tags", "allowed_vendors")} | changed


class Conventions(ServerCase):
    def test_errors_are_an_object_with_error(self):
        self.error(self.owner.get(f"/memories/{UNKNOWN}"), 404, "Memory not found")
        self.error(self.owner.post("/memories", {}), 400)
        with self.server.client() as nobody:
            self.error(nobody.get("/whoami"), 401)

    def test_an_unknown_route_has_the_contracts_body(self):
        answer = self.owner.get("/no/such/route").expect(404)
        self.assertEqual(answer.json, {"message": "Route GET:/no/such/route not found", "error": "Not Found", "statusCode": 404})

    def test_an_agent_is_told_that_a_path_is_none_of_its_own_before_it_is_told_that_there_is_none(self):
        agent = self.agents["cursor"]
        for path in ("/no/such/route", "/admin/nothing", "/memories"):
            self.error(agent.get(path), 403, "Agent keys cannot access this endpoint")
        agent.get("/agent/nothing").expect(404)
        agent.get("/api/v1/nothing").expect(404)

    def test_an_unknown_route_without_a_token_is_401(self):
        with self.server.client() as nobody:
            self.error(nobody.get("/no/such/route"), 401)

    def test_a_wrong_method_on_a_contract_path_is_an_unknown_route(self):
        self.assertEqual(self.owner.request("PATCH", "/memories/list", {}).expect(404).json["statusCode"], 404)

    def test_unknown_keys_are_refused_on_every_route_with_a_schema(self):
        full = {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}
        memory = self.owner.remember(unique())
        bodies = {
            "/memories": full,
            "/memories/list": {"filter": {"by": "all"}},
            "/agent/memories": full,
            "/agent/memories/browse": {"filter": {"by": "all"}},
            "/agent/memories/by-tag": {"tags": ["a"]},
            "/agent/memories/search": {"term": "a"},
            "/agent/memories/list": {},
            "/api/keys": {"label": "a"},
            "/api/v1/memories/search": {"query": "a"},
        }
        for path, body in bodies.items():
            with self.subTest(path):
                self.error(self.owner.post(path, {**body, "extra": 1}), 400, re.compile("additional properties"))
        for path in (f"/memories/{memory['id']}", f"/agent/memories/{memory['id']}"):
            with self.subTest(path):
                self.error(self.owner.put(path, {**full, "extra": 1}), 400, "body must NOT have additional properties")

    def test_lengths_count_characters_not_bytes(self):
        wide = "\U0001f33f"
        record = self.owner.remember(wide * 500, wide * 1000, [wide * 100])
        self.assertEqual(record["title"], wide * 500)
        self.error(self.owner.post("/memories", {"title": wide * 501, "content": "c", "tags": []}), 400)
        self.error(self.owner.post("/memories", {"title": "t", "content": "c", "tags": [wide * 101]}), 400)

    def test_every_limit_holds_on_both_sides(self):
        good = {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}
        for key, inside, outside in (
            ("title", "x" * 500, "x" * 501),
            ("title", "x", ""),
            ("content", "x" * 100_000, "x" * 100_001),
            ("content", "x", ""),
            ("tags", ["x"] * 1 + [f"t{n}" for n in range(49)], [f"t{n}" for n in range(51)]),
            ("tags", ["x" * 100], ["x" * 101]),
            ("tags", [], [""]),
            ("allowed_vendors", ["*"] * 50, ["*"] * 51),
            ("allowed_vendors", ["*"], []),
            ("memory_type", "episodic", "other"),
        ):
            with self.subTest(key, outside=str(outside)[:20]):
                self.owner.post("/memories", good | {"title": unique(), key: inside}).expect(201)
                self.error(self.owner.post("/memories", good | {key: outside}), 400, re.compile(f"^body/{key}"))

    def test_scalars_are_coerced_as_the_contract_lists(self):
        tag = unique()
        record = self.owner.post("/memories", {"title": 123, "content": True, "tags": tag}).expect(201).json
        self.assertEqual((record["title"], record["content"], record["tags"]), ("123", "true", [tag]))
        page = self.owner.post("/agent/memories/by-tag", {"tags": tag, "limit": "2"}).expect(200).json
        self.assertEqual((page["limit"], page["total"]), (2, 1))
        page = self.owner.post("/agent/memories/browse", {"filter": {"by": "all"}, "offset": None}).expect(200).json
        self.assertEqual(page["offset"], 0)

    def test_coercion_does_not_reach_our_own_routes(self):
        self.assertEqual(self.owner.post("/api/v1/memories/search", {"query": 123}).status, 400)
        self.assertEqual(self.owner.post("/api/v1/memories/search", {"query": "x", "limit": "2"}).status, 400)

    def test_validation_text_names_the_place(self):
        for body, message in (
            ({"content": "c", "tags": []}, "body must have required property 'title'"),
            ({"title": "", "content": "c", "tags": []}, "body/title must NOT have fewer than 1 characters"),
            ({"title": "t", "content": "c"}, "body must have required property 'tags'"),
            ({"title": "t", "content": "c", "tags": [], "x": 1}, "body must NOT have additional properties"),
        ):
            self.error(self.owner.post("/memories", body), 400, message)

    def test_forms_are_accepted(self):
        answer = self.owner.post(
            "/memories", raw=b"title=A+form&content=c%26d&tags=one&tags=two", headers={"Content-Type": "application/x-www-form-urlencoded"}
        ).expect(201)
        self.assertEqual((answer.json["title"], answer.json["content"], answer.json["tags"]), ("A form", "c&d", ["one", "two"]))

    def test_an_empty_json_body_is_400_and_no_body_is_fine_without_a_schema(self):
        record = self.owner.remember(unique())
        self.owner.delete(f"/memories/{record['id']}").expect(200)
        path = f"/memories/{record['id']}/restore"
        self.error(self.owner.post(path, raw=b"", headers={"Content-Type": "application/json"}), 400)
        self.owner.post(path).expect(200)
        self.error(self.owner.post("/memories"), 400, "body must be object")

    def test_a_malformed_body_is_400_also_where_no_body_is_wanted(self):
        memory = self.owner.remember(unique())
        for method, path in (("POST", "/api/v1/backups"), ("DELETE", f"/api/v1/oauth/grants/{UNKNOWN}"), ("POST", f"/memories/{memory['id']}/restore")):
            answer = self.owner.request(method, path, raw=b"{", headers={"Content-Type": "application/json"})
            self.error(answer, 400, "Body is not valid JSON but content-type is set to 'application/json'")
            self.assertEqual("problem" in answer.headers["content-type"], path.startswith("/api/v1/"))

    def test_what_is_declared_not_to_be_there_is_404(self):
        """Routes of the contract that were neither there nor named among those that are not."""
        page = (ROOT / "docs/clients/reflect.md").read_text(encoding="utf-8")
        declared = re.search(r"^Not there, so 404: (.*?)\n\n", page, re.M | re.S)[1]
        named = {
            "/orgs…": "/orgs/x", "/share": "/memories/x/share", "/unshare": "/memories/x/unshare", "/agent/team/…": "/agent/team/memories",
            "/admin/metrics": None, "/admin/audit": None, "/admin/audit/export": None, "/admin/log-export": None, "/admin/llm-keys": None,
            "/api/users/me/export": None, "/waitlist": None, "/early-access": None, "/integration-requests": None,
        }
        self.assertEqual(set(re.findall(r"`(/[^` ]*)`", declared)), set(named))
        for name, path in named.items():
            for method in ("GET", "POST"):
                self.owner.request(method, path or name, {} if method == "POST" else None).expect(404)

    def test_security_headers_are_on_every_answer(self):
        with self.server.client() as nobody:
            for answer in (nobody.get("/health"), nobody.get("/whoami"), self.owner.get("/whoami"), self.owner.get("/nothing")):
                self.assertRegex(answer.headers["strict-transport-security"], r"max-age=63072000.*includeSubDomains.*preload")
                self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
                self.assertEqual(answer.headers["x-frame-options"], "DENY")
                self.assertEqual(answer.headers["referrer-policy"], "strict-origin-when-cross-origin")
                self.assertIn("Origin", answer.headers["vary"])

    def test_head_works_on_get_routes(self):
        for path in ("/health", "/whoami"):
            answer = self.owner.request("HEAD", path).expect(200)
            self.assertEqual(answer.body, b"")

    def test_a_foreign_origin_is_refused(self):
        self.assertEqual(self.owner.get("/whoami", headers={"Origin": "https://evil.example"}).status, 403)
        self.owner.get("/whoami", headers={"Origin": f"https://127.0.0.1:{self.server.port}"}).expect(200)

    def test_every_answer_with_data_names_its_audit_entry(self):
        record = self.owner.remember(unique())
        seen = [self.owner.get(f"/memories/{record['id']}").audit_index, self.owner.get("/whoami").audit_index,
                self.owner.get(f"/memories/{UNKNOWN}").audit_index]
        self.assertEqual(seen, sorted(set(seen)), "indexes rise")


class PublicRoutes(ServerCase):
    def test_health_has_the_contracts_keys(self):
        with self.server.client() as nobody:
            body = nobody.get("/health").expect(200).json
        self.assertEqual(
            {key: body[key] for key in ("service", "status", "deployment_mode", "network_boundary", "model_egress", "public_webhooks")},
            {"service": "reflect-memory", "status": "ok", "deployment_mode": "self-host", "network_boundary": "private",
             "model_egress": "disabled", "public_webhooks": False},
        )
        self.assertIsInstance(body["uptime_seconds"], (int, float))

    def test_openapi_describes_the_agent_api(self):
        with self.server.client() as nobody:
            body = nobody.get("/openapi.json").expect(200).json
        self.assertTrue(body["openapi"].startswith("3.1"))
        named = {op.get("operationId") for path in body["paths"].values() for op in path.values() if isinstance(op, dict)}
        self.assertLessEqual(
            {"writeMemory", "getLatestMemory", "getMemoryById", "updateMemory", "deleteMemory", "getVersionHistory", "searchMemories",
             "readMemories", "getMemoriesByTag", "browseMemories", "queryMemory", "whoAmI"}, named)
        self.assertNotIn("reflectmemory.com", str(body))


class Authentication(ServerCase):
    def test_the_static_key_is_the_owner(self):
        with self.server.client(self.server.api_key) as static:
            self.assertEqual(static.get("/whoami").expect(200).json["role"], "user")
            record = static.remember(unique())
        self.owner.get(f"/memories/{record['id']}").expect(200)

    def test_whoami_of_a_user_and_of_an_agent(self):
        mine = self.owner.get("/whoami").expect(200).json
        self.assertEqual((mine["role"], mine["vendor"], mine["is_admin"], mine["deployment_mode"]), ("user", None, True, "self-host"))
        self.assertIs(mine["log_sharing_enabled"], False)
        agent = self.agents["cursor"].get("/whoami").expect(200).json
        self.assertEqual((agent["role"], agent["vendor"], agent["is_admin"]), ("agent", "cursor", False))

    def test_missing_and_malformed_credentials_are_401(self):
        with self.server.client() as nobody:
            for header in (None, "", "Bearer", "Bearer ", "Basic abc", "Bearer  "):
                headers = {} if header is None else {"Authorization": header}
                self.error(nobody.get("/whoami", headers=headers), 401, re.compile("^Missing or malformed Authorization header"))
            self.error(nobody.get("/whoami", headers={"Authorization": "Bearer rm_live_" + "0" * 48}), 401, "Invalid API key")
            self.error(nobody.get("/whoami", headers={"Authorization": "Bearer x"}), 401, "Invalid API key")

    def test_agents_reach_agent_routes_only(self):
        for method, path in (("POST", "/memories"), ("GET", f"/memories/{UNKNOWN}"), ("POST", "/memories/list"),
                             ("DELETE", "/memories/trash"), ("GET", "/api/keys"), ("POST", "/api/keys"), ("GET", "/users/me")):
            with self.subTest(path):
                answer = self.agents["cursor"].request(method, path, {} if method == "POST" else None)
                self.assertEqual(self.error(answer, 403), {"error": "Agent keys cannot access this endpoint"})

    def test_a_user_key_may_call_agent_routes_without_vendor_filter(self):
        record = self.agents["cursor"].remember(unique(), path="/agent/memories", allowed_vendors=["cursor"])
        self.owner.get(f"/agent/memories/{record['id']}").expect(200)
        self.assertIn(record["id"], ids(self.owner.post("/agent/memories/list", {})))


class KeysAndUsers(ServerCase):
    def test_a_key_is_shown_once_works_and_can_be_revoked(self):
        made = self.owner.post("/api/keys", {"label": "laptop"}).expect(200).json
        self.assertEqual(set(made), {"key", "id", "key_prefix", "label", "created_at"})
        self.assertRegex(made["key"], r"^rm_live_[0-9a-f]{48}$")
        self.assertEqual(made["key_prefix"], made["key"][:16])
        with self.server.client(made["key"]) as laptop:
            laptop.get("/whoami").expect(200)
            self.assertEqual(self.owner.delete(f"/api/keys/{made['id']}").expect(200).json, {"revoked": True})
            self.error(laptop.get("/whoami"), 401, "Invalid API key")
        self.error(self.owner.delete(f"/api/keys/{made['id']}"), 404)
        self.error(self.owner.delete(f"/api/keys/{UNKNOWN}"), 404)
        self.error(self.owner.delete("/api/keys/nonsense"), 404)

    def test_the_key_list_is_newest_first_keeps_revoked_ones_and_shows_no_secret(self):
        first = self.owner.post("/api/keys", {"label": "first"}).expect(200).json
        second = self.owner.post("/api/keys", {}).expect(200).json
        self.assertEqual(second["label"], "Default")
        self.owner.delete(f"/api/keys/{first['id']}").expect(200)
        answer = self.owner.get("/api/keys").expect(200)
        keys = answer.json["keys"]
        self.assertEqual(set(keys[0]), {"id", "user_id", "key_prefix", "label", "last_used_at", "created_at", "revoked_at"})
        mine = [key["id"] for key in keys if key["id"] in (first["id"], second["id"])]
        self.assertEqual(mine, [second["id"], first["id"]])
        self.assertTrue(next(key for key in keys if key["id"] == first["id"])["revoked_at"])
        self.assertIsNone(next(key for key in keys if key["id"] == second["id"])["revoked_at"])
        for made in (first, second):
            self.assertNotIn(made["key"].encode(), answer.body)

    def test_making_a_key_needs_a_body_object(self):
        self.error(self.owner.post("/api/keys"), 400)
        self.error(self.owner.post("/api/keys", {"label": "x" * 101}), 400)

    def test_users_me_has_the_contracts_keys(self):
        me = self.owner.get("/users/me").expect(200).json
        self.assertLessEqual({"id", "email", "clerk_id", "role", "plan", "stripe_customer_id", "org_id", "org_role", "team_id",
                              "first_name", "last_name"}, set(me))
        self.assertEqual((me["email"], me["org_id"]), (OWNER, None))


class Memories(ServerCase):
    def test_a_record_always_has_every_key_of_the_contract(self):
        record = self.owner.remember("Shape", "of a record", ["a", "b"])
        self.assertEqual(set(record), RECORD)
        self.assertRegex(record["id"], UUID)
        self.assertRegex(record["created_at"], TIME)
        self.assertEqual(record["updated_at"], record["created_at"])
        self.assertEqual((record["title"], record["content"], record["tags"]), ("Shape", "of a record", ["a", "b"]))
        self.assertEqual((record["origin"], record["allowed_vendors"], record["memory_type"]), ("api", ["*"], "semantic"))
        for key in ("shared_with_org_id", "shared_with_team_id", "shared_at", "parent_memory_id"):
            self.assertIsNone(record[key])
        self.assertEqual(self.owner.get(f"/memories/{record['id']}").expect(200).json, record)

    def test_text_returns_exactly_as_sent(self):
        for content in ("tab\tnewline\r\nend ", "nul\0bell\a", "e\u0301 \u00e9 \u202e \ufeff", "\U0001f9ec" * 10, "' OR 1=1 --", "</script>%00"):
            with self.subTest(content):
                record = self.owner.remember(content, content, [content])
                read = self.owner.get(f"/memories/{record['id']}").expect(200).json
                self.assertEqual((read["title"], read["content"], read["tags"]), (content, content, [content]))

    def test_extra_fields_are_kept_and_echoed_only_when_set(self):
        extra = {"subject": "MRN 12", "metadata": {"ward": {"bed": 3}, "dose": [0.12088995980580641, 2.2250738585072011e-308, 9007199254740993]}, "run_id": "run-1", "speaker": "Dr. Rao"}
        record = self.owner.remember(unique(), occurred_at="2026-01-02T03:04:05Z", **extra)
        for key, value in extra.items():
            self.assertEqual(record[key], value, key)
        self.assertEqual(record["occurred_at"], "2026-01-02T03:04:05.000Z")
        self.assertEqual(self.owner.get(f"/memories/{record['id']}").json, record)

    def test_an_update_replaces_text_and_keeps_a_version(self):
        record = self.owner.remember("Before", unique(), ["old"])
        path = f"/memories/{record['id']}"
        changed = self.owner.put(path, put_body(record, title="After", tags=["new"])).expect(200).json
        self.assertEqual((changed["title"], changed["tags"], changed["created_at"]), ("After", ["new"], record["created_at"]))
        self.assertGreaterEqual(changed["updated_at"], record["updated_at"])
        self.owner.put(path, put_body(record, title="Later")).expect(200)
        versions = self.owner.get(f"{path}/versions").expect(200).json["versions"]
        self.assertEqual([(v["version_number"], v["title"]) for v in versions], [(2, "After"), (1, "Before")])
        self.assertEqual(set(versions[0]), VERSION)
        self.assertEqual(versions[1]["content"], record["content"])
        self.assertEqual({v["memory_id"] for v in versions}, {record["id"]})

    def test_an_update_needs_all_four_fields(self):
        record = self.owner.remember(unique())
        for missing in ("title", "content", "tags", "allowed_vendors"):
            body = {key: value for key, value in put_body(record).items() if key != missing}
            self.error(self.owner.put(f"/memories/{record['id']}", body), 400, f"body must have required property '{missing}'")

    def test_an_update_accepts_and_ignores_memory_type(self):
        record = self.owner.remember(unique())
        changed = self.owner.put(f"/memories/{record['id']}", put_body(record, memory_type="episodic")).expect(200).json
        self.assertEqual(changed["memory_type"], "semantic")

    def test_trash_restore_and_permanent_delete(self):
        record = self.owner.remember(unique())
        path = f"/memories/{record['id']}"
        trashed = self.owner.delete(path).expect(200).json
        self.assertRegex(trashed["deleted_at"], TIME)
        self.assertEqual(self.owner.get(path).expect(200).json["deleted_at"], trashed["deleted_at"])
        self.error(self.owner.get(f"/agent/memories/{record['id']}"), 404)
        self.error(self.owner.put(path, put_body(record)), 404)
        self.error(self.owner.delete(path), 404, "Memory not found")
        self.assertIn(record["id"], ids(self.owner.post("/memories/list", {"filter": {"by": "trashed"}})))
        self.assertNotIn(record["id"], ids(self.owner.post("/memories/list", {"filter": {"by": "all"}})))
        self.assertNotIn("deleted_at", self.owner.post(f"{path}/restore").expect(200).json)
        self.error(self.owner.post(f"{path}/restore"), 404, "Memory not found or not in trash")
        self.assertIn(record["id"], ids(self.owner.post("/memories/list", {"filter": {"by": "all"}})))
        self.assertEqual(self.owner.delete(f"{path}/permanent").expect(204).body, b"")
        for method, below in (("GET", ""), ("DELETE", ""), ("DELETE", "/permanent"), ("POST", "/restore"), ("GET", "/versions")):
            self.error(self.owner.request(method, path + below), 404)

    def test_permanent_delete_works_on_trashed_memories(self):
        record = self.owner.remember(unique())
        self.owner.delete(f"/memories/{record['id']}").expect(200)
        self.owner.delete(f"/memories/{record['id']}/permanent").expect(204)

    def test_emptying_the_trash_says_how_many(self):
        self.owner.delete("/memories/trash").expect(200)
        for _ in range(3):
            self.owner.delete(f"/memories/{self.owner.remember(unique())['id']}").expect(200)
        self.assertEqual(self.owner.delete("/memories/trash").expect(200).json, {"deleted": 3})
        self.assertEqual(self.owner.delete("/memories/trash").expect(200).json, {"deleted": 0})
        self.assertEqual(ids(self.owner.post("/memories/list", {"filter": {"by": "trashed"}})), [])

    def test_a_malformed_id_is_404(self):
        for bad in ("x", "1", "A" * 200, quote("../whoami", safe=""), UNKNOWN.upper(), UNKNOWN + "0"):
            self.error(self.owner.get(f"/memories/{bad}"), 404)

    def test_an_exact_repeat_is_merged_and_a_near_repeat_is_not(self):
        title, content = f"Allergy {unique()}", "Penicillin causes a rash on both arms"
        first = self.owner.remember(title, content, ["a"])
        again = self.owner.remember(f" {title}", content, ["b"])
        self.assertEqual((again["id"], again["tags"]), (first["id"], ["a", "b"]))
        self.assertEqual(len(self.owner.get(f"/memories/{first['id']}/versions").json["versions"]), 1)
        near = self.owner.remember(title, content + " today", ["a"])
        self.assertNotEqual(near["id"], first["id"])
        other = self.owner.remember(title, content, ["a"], memory_type="episodic")
        self.assertNotEqual(other["id"], first["id"])

    def test_titles_that_look_like_ci_are_not_trashed(self):
        record = self.agents["cursor"].remember(f"CI run ci-{unique()}", tags=["ci_x", "integration_test"], path="/agent/memories", allowed_vendors=["*"])
        self.agents["cursor"].get(f"/agent/memories/{record['id']}").expect(200)

    def test_asking_for_a_scope_without_membership_stays_personal(self):
        for scope in ({"share_scope": "org"}, {"share_scope": "team"}, {"share_with_team": True}):
            record = self.owner.remember(unique(), **scope)
            self.assertIsNone(record["shared_with_org_id"])
            self.assertIsNone(record["shared_with_team_id"])
            self.assertIsNone(record["shared_at"])


class Lists(ServerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.made = [cls.owner.remember(f"List {n}", f"Entry number {n}", ["list", f"n{n}"]) for n in range(7)]
        cls.agent_made = cls.agents["cursor"].remember("List by agent", "agent text", ["agent"], path="/agent/memories", allowed_vendors=["*"])

    def listed(self, filter, **more):
        return ids(self.owner.post("/memories/list", {"filter": filter, **more}).expect(200))

    def test_lists_are_newest_first(self):
        newest_first = [m["id"] for m in reversed(self.made)]
        self.assertEqual([i for i in self.listed({"by": "all"}) if i in newest_first], newest_first)

    def test_filter_by_tags_matches_any(self):
        self.assertEqual(self.listed({"by": "tags", "tags": ["n1", "n5", "absent"]}), [self.made[5]["id"], self.made[1]["id"]])

    def test_filter_by_ids(self):
        wanted = [self.made[2]["id"], self.made[6]["id"]]
        self.assertEqual(self.listed({"by": "ids", "ids": [*wanted, UNKNOWN, "nonsense"]}), sorted(wanted, reverse=True))

    def test_an_id_that_is_none_matches_nothing_and_takes_no_other_along(self):
        wanted = self.made[2]["id"]
        for odd in ("x" * 101, "x" * 5000, "", "../", "\u0000", wanted.upper()):
            self.assertEqual(self.listed({"by": "ids", "ids": [odd, wanted]}), [wanted])
            self.assertEqual(self.listed({"by": "ids", "ids": [odd]}), [])

    def test_a_filter_names_at_most_a_thousand_tags(self):
        tags = [f"x{n}" for n in range(1000)]
        self.assertEqual(self.listed({"by": "tags", "tags": tags}), [])
        self.error(self.owner.post("/memories/list", {"filter": {"by": "tags", "tags": [*tags, "one more"]}}), 400)

    def test_filter_by_search_and_by_origin(self):
        self.assertEqual(self.listed({"by": "search", "term": "NUMBER 3"}), [self.made[3]["id"]])
        self.assertEqual(self.listed({"by": "origin", "origin": "cursor"}), [self.agent_made["id"]])

    def test_an_unknown_filter_or_an_extra_key_is_400(self):
        for bad in ({"by": "owner"}, {"by": "all", "tags": ["x"]}, {"by": "tags"}, {"by": "tags", "tags": []}, {"by": "ids", "ids": []},
                    {"by": "search", "term": ""}, {"by": "search", "term": "x" * 501}, {"by": "origin", "origin": "x" * 51}, {}, "all"):
            with self.subTest(bad):
                self.error(self.owner.post("/memories/list", {"filter": bad}), 400)

    def test_limit_and_offset_page_through_without_gap_or_repeat(self):
        everything = self.listed({"by": "all"})
        paged = [i for offset in range(0, len(everything), 3) for i in self.listed({"by": "all"}, limit=3, offset=offset)]
        self.assertEqual(paged, everything)
        self.assertEqual(self.listed({"by": "all"}, offset=3), everything, "without a limit the offset is ignored")
        for bad in ({"limit": 0}, {"limit": 501}, {"offset": -1}, {"limit": 1.5}, {"limit": "x"}):
            self.error(self.owner.post("/memories/list", {"filter": {"by": "all"}, **bad}), 400)

    def test_browse_is_a_page_of_summaries(self):
        page = self.owner.post("/agent/memories/browse", {"filter": {"by": "tags", "tags": ["list"]}, "limit": 3, "offset": 2}).expect(200).json
        self.assertEqual(set(page), PAGE)
        self.assertEqual((page["total"], page["limit"], page["offset"], page["has_more"]), (7, 3, 2, True))
        self.assertEqual([m["title"] for m in page["memories"]], ["List 4", "List 3", "List 2"])
        self.assertEqual(set(page["memories"][0]), SUMMARY)
        last = self.owner.post("/agent/memories/browse", {"filter": {"by": "tags", "tags": ["list"]}, "offset": 4}).expect(200).json
        self.assertEqual((last["limit"], last["has_more"], len(last["memories"])), (50, False, 3))

    def test_by_tag_is_a_page_of_records(self):
        page = self.owner.post("/agent/memories/by-tag", {"tags": ["n0", "n1"]}).expect(200).json
        self.assertEqual(set(page), PAGE)
        self.assertEqual((page["total"], page["limit"], page["has_more"]), (2, 20, False))
        self.assertEqual(page["memories"][0], self.made[1])

    def test_agent_list_counts_what_it_returns(self):
        body = self.owner.post("/agent/memories/list", {"limit": 2}).expect(200).json
        self.assertEqual(set(body), {"memories", "count"})
        self.assertEqual((body["count"], body["memories"][0]["id"]), (2, self.agent_made["id"]))
        self.error(self.owner.post("/agent/memories/list"), 400, "body must be object")

    def test_latest_prefers_tag_over_origin(self):
        self.assertEqual(self.owner.get("/agent/memories/latest").expect(200).json["id"], self.agent_made["id"])
        self.assertEqual(self.owner.get("/agent/memories/latest?origin=api").expect(200).json["id"], self.made[6]["id"])
        self.assertEqual(self.owner.get("/agent/memories/latest?tag=n2&origin=cursor").expect(200).json["id"], self.made[2]["id"])
        answer = self.owner.get("/agent/memories/latest?tag=absent")
        self.error(answer, 404, re.compile("^No memories found"))
        self.assertNotIn(b"absent", answer.body, "no error echoes a tag")


class Search(ServerCase):
    def found(self, term, **more):
        body = self.owner.post("/agent/memories/search", {"term": term, **more}).expect(200).json
        self.assertEqual(body["count"], len(body["memories"]))
        return {memory["title"] for memory in body["memories"]}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for title, content in (("Alpha", "100% of the dose"), ("Beta", "under_score"), ("Gamma", "a plain HbA1c value"),
                               ("\u00c4rztin", "stra\u00dfe"), ("Delta", "underXscore 100 of the dose")):
            cls.owner.remember(title, content, ["search"])

    def test_search_is_a_literal_substring_of_title_or_content(self):
        self.assertEqual(self.found("lph"), {"Alpha"})
        self.assertEqual(self.found("bA1"), {"Gamma"})
        self.assertEqual(self.found("e dose"), {"Alpha", "Delta"})
        self.assertEqual(self.found("a "), {"Gamma"}, "across words, and not across title and content")

    def test_search_ignores_case_in_ascii_only(self):
        self.assertEqual(self.found("HBA1C"), {"Gamma"})
        self.assertEqual(self.found("\u00c4RZ"), {"\u00c4rztin"})
        self.assertEqual(self.found("\u00e4rz"), set())

    def test_percent_and_underscore_are_ordinary(self):
        self.assertEqual(self.found("100%"), {"Alpha"})
        self.assertEqual(self.found("under_"), {"Beta"})
        self.assertEqual(self.found("_"), {"Beta"})
        self.assertEqual(self.found("%"), {"Alpha"})

    def test_a_blank_term_finds_nothing(self):
        self.assertEqual(self.found("   "), set())

    def test_search_finds_what_was_written_a_moment_ago_and_forgets_what_was_deleted(self):
        word = unique("zq")
        record = self.owner.remember("Fresh", word)
        self.assertEqual(self.found(word), {"Fresh"})
        self.owner.put(f"/memories/{record['id']}", put_body(record, content="changed")).expect(200)
        self.assertEqual(self.found(word), set())
        self.owner.put(f"/memories/{record['id']}", put_body(record, content=word)).expect(200)
        self.owner.delete(f"/memories/{record['id']}").expect(200)
        self.assertEqual(self.found(word), set())

    def test_ranked_search_scores_and_explains(self):
        for n in range(3):
            self.owner.remember(f"Insulin note {n}", "insulin " * (n + 1) + "given with breakfast", ["ranked"])
        body = {"query": "insulin with breakfast", "limit": 2, "tags": ["ranked"], "explain": True}
        deadline = time.monotonic() + 20
        answer = self.owner.post("/api/v1/memories/search", body)
        while answer.status == 503 and time.monotonic() < deadline:
            self.assertIn("retry-after", answer.headers)
            time.sleep(0.2)
            answer = self.owner.post("/api/v1/memories/search", body)
        found = answer.expect(200).body
        self.assertIn(b"score", found)
        self.assertIn(b"snippet", found)


class Agents(ServerCase):
    def write(self, vendor, **more):
        return self.agents[vendor].remember(unique(), unique(), path="/agent/memories", **({"allowed_vendors": ["*"]} | more))

    def test_origin_is_the_vendor_and_cannot_be_spoofed(self):
        record = self.write("cursor", origin="claude")
        self.assertEqual(record["origin"], "cursor")

    def test_origin_of_a_user_on_the_agent_route_is_the_bodys_or_user(self):
        self.assertEqual(self.owner.remember(unique(), path="/agent/memories", allowed_vendors=["*"])["origin"], "user")
        self.assertEqual(self.owner.remember(unique(), path="/agent/memories", allowed_vendors=["*"], origin="notebook")["origin"], "notebook")

    def test_agent_writes_need_allowed_vendors(self):
        answer = self.agents["cursor"].post("/agent/memories", {"title": "t", "content": "c", "tags": []})
        self.error(answer, 400, "body must have required property 'allowed_vendors'")

    def test_an_unknown_vendor_is_refused_with_the_valid_ones(self):
        for path in ("/memories", "/agent/memories"):
            answer = self.owner.post(path, {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["nobody"]})
            message = self.error(answer, 400, re.compile("allowed_vendors"))["error"]
            self.assertTrue(all(name in message for name in ('"*"', '"cursor"', '"claude"')), message)

    def test_a_memory_hidden_from_a_vendor_looks_absent_everywhere(self):
        tag, word = unique("tag"), unique("zz")
        hidden = self.owner.remember(word, word, [tag], allowed_vendors=["cursor"])
        shown = self.owner.remember(f"{word} shown", word, [tag], allowed_vendors=["claude", "cursor"])
        claude = self.agents["claude"]
        self.error(claude.get(f"/agent/memories/{hidden['id']}"), 404, "Memory not found")
        self.error(claude.get(f"/agent/memories/{hidden['id']}/versions"), 404)
        self.error(claude.put(f"/agent/memories/{hidden['id']}", put_body(hidden)), 404)
        self.error(claude.delete(f"/agent/memories/{hidden['id']}"), 404)
        for path, body in (("/agent/memories/browse", {"filter": {"by": "tags", "tags": [tag]}}),
                           ("/agent/memories/browse", {"filter": {"by": "ids", "ids": [hidden["id"], shown["id"]]}}),
                           ("/agent/memories/browse", {"filter": {"by": "search", "term": word}}),
                           ("/agent/memories/by-tag", {"tags": [tag]})):
            page = claude.post(path, body).expect(200).json
            self.assertEqual(([m["id"] for m in page["memories"]], page["total"]), ([shown["id"]], 1), (path, body))
        self.assertEqual(ids(claude.post("/agent/memories/search", {"term": word}).expect(200)), [shown["id"]])
        self.assertNotIn(hidden["id"], ids(claude.post("/agent/memories/list", {"limit": 50}).expect(200)))
        self.assertEqual(claude.get(f"/agent/memories/latest?tag={tag}").expect(200).json["id"], shown["id"])
        self.assertNotIn(hidden["id"].encode(), claude.post("/api/v1/memories/search", {"query": word}).body)
        self.agents["cursor"].get(f"/agent/memories/{hidden['id']}").expect(200)

    def test_an_agent_changes_only_what_it_wrote(self):
        record = self.write("cursor")
        path = f"/agent/memories/{record['id']}"
        self.error(self.agents["claude"].put(path, put_body(record)), 403, "Agents can only update memories they created")
        self.error(self.agents["claude"].delete(path), 403, "Agents can only delete memories they created")
        self.assertEqual(self.agents["cursor"].put(path, put_body(record, title="Mine")).expect(200).json["title"], "Mine")
        deleted = self.agents["cursor"].delete(path).expect(200).json
        self.assertEqual(deleted, {"deleted": True, "id": record["id"], "title": "Mine"})
        self.error(self.agents["cursor"].get(path), 404)

    def test_agent_versions_name_the_current_one(self):
        record = self.write("cursor")
        path = f"/agent/memories/{record['id']}"
        self.assertEqual(self.agents["cursor"].get(f"{path}/versions").expect(200).json, {"versions": [], "current_version": 1})
        self.agents["cursor"].put(path, put_body(record, title="Second")).expect(200)
        body = self.agents["cursor"].get(f"{path}/versions").expect(200).json
        self.assertEqual((len(body["versions"]), body["current_version"]), (1, 2))


class ModelRoutes(ServerCase):
    """With model egress off, as it is by default."""

    OFF = {"error": "Model egress disabled by deployment policy", "mode": "self-host"}
    CHAT = {"model": "m", "messages": [{"role": "user", "content": "q"}]}

    def test_query_and_chat_are_off_by_policy(self):
        for client in (self.owner, self.agents["cursor"]):
            answer = client.post("/query", {"query": "q", "memory_filter": {"by": "all"}})
            self.assertEqual(self.error(answer, 503), self.OFF)
            self.assertNotIn("retry-after", answer.headers)
            self.assertGreater(answer.audit_index, 0)
        self.assertEqual(self.error(self.owner.post("/chat", self.CHAT), 503), self.OFF)
        self.assertEqual(self.owner.get("/chat/models").expect(200).json, {"models": []})

    def test_a_bad_body_is_400_even_with_egress_off(self):
        good = {"query": "q", "memory_filter": {"by": "all"}}
        for body, text in (
            ({}, "body must have required property 'query'"),
            ({"query": "q"}, "body must have required property 'memory_filter'"),
            ({**good, "query": ""}, "body/query must NOT have fewer than 1 characters"),
            ({**good, "query": "x" * 10_001}, "body/query must NOT have more than 10000 characters"),
            ({**good, "memory_filter": {"by": "trashed"}}, "body/memory_filter must match exactly one schema in oneOf"),
            ({**good, "limit": 51}, "body/limit must be <= 50"),
            ({**good, "limit": 0}, "body/limit must be >= 1"),
            ({**good, "extra": 1}, "body must NOT have additional properties"),
        ):
            with self.subTest(text):
                self.error(self.owner.post("/query", body), 400, text)
                self.error(self.agents["cursor"].post("/query", body), 400, text)
        for body, text in (
            ({"messages": self.CHAT["messages"]}, "body must have required property 'model'"),
            ({**self.CHAT, "model": "m" * 51}, "body/model must NOT have more than 50 characters"),
            ({**self.CHAT, "messages": []}, "body/messages must NOT have fewer than 1 items"),
            ({**self.CHAT, "messages": self.CHAT["messages"] * 101}, "body/messages must NOT have more than 100 items"),
            ({**self.CHAT, "messages": [{"role": "system", "content": "q"}]}, "body/messages/0/role must be equal to one of the allowed values"),
            ({**self.CHAT, "messages": [{"role": "user", "content": "x" * 50_001}]}, "body/messages/0/content must NOT have more than 50000 characters"),
        ):
            with self.subTest(text):
                self.error(self.owner.post("/chat", body), 400, text)

    def test_agents_may_ask_and_not_chat(self):
        for method, path, body in (("POST", "/chat", self.CHAT), ("GET", "/chat/models", None)):
            self.error(self.agents["cursor"].request(method, path, body), 403, "Agent keys cannot access this endpoint")


class Threads(ServerCase):
    def reply(self, parent, title, **more):
        body = {"title": title, "content": unique(), "tags": [], **more}
        return self.owner.post(f"/memories/{parent['id']}/children", body).expect(201).json

    def test_a_thread_is_its_parent_and_children_oldest_first(self):
        parent = self.owner.remember(unique())
        children = [self.reply(parent, f"reply {n}") for n in range(3)]
        for asked in (parent, children[1]):
            thread = self.owner.get(f"/memories/{asked['id']}/thread").expect(200).json
            self.assertEqual(set(thread), {"parent", "children"})
            self.assertEqual(thread["parent"]["id"], parent["id"])
            self.assertEqual([c["id"] for c in thread["children"]], [c["id"] for c in children])
            self.assertEqual({c["parent_memory_id"] for c in thread["children"]}, {parent["id"]})

    def test_threads_are_one_level_deep(self):
        parent = self.owner.remember(unique())
        child = self.reply(parent, "reply")
        answer = self.owner.post(f"/memories/{child['id']}/children", {"title": "t", "content": "c", "tags": []})
        self.error(answer, 400, re.compile("^Threads are one level deep"))

    def test_a_trashed_or_unknown_memory_takes_no_reply(self):
        parent = self.owner.remember(unique())
        self.owner.delete(f"/memories/{parent['id']}").expect(200)
        body = {"title": "t", "content": "c", "tags": []}
        self.error(self.owner.post(f"/memories/{parent['id']}/children", body), 400, "Cannot reply to a trashed memory")
        self.error(self.owner.post(f"/memories/{UNKNOWN}/children", body), 404)

    def test_a_reply_is_never_merged_with_another(self):
        parent = self.owner.remember(unique())
        body = {"title": "same", "content": "same words", "tags": []}
        first, second = (self.owner.post(f"/memories/{parent['id']}/children", body).expect(201).json for _ in range(2))
        self.assertNotEqual(first["id"], second["id"])

    def test_trash_restore_and_permanent_delete_take_the_replies_along(self):
        parent = self.owner.remember(unique())
        child = self.reply(parent, "reply")
        self.owner.delete(f"/memories/{parent['id']}").expect(200)
        self.assertIn("deleted_at", self.owner.get(f"/memories/{child['id']}").expect(200).json)
        self.owner.post(f"/memories/{parent['id']}/restore").expect(200)
        self.assertNotIn("deleted_at", self.owner.get(f"/memories/{child['id']}").expect(200).json)
        self.owner.delete(f"/memories/{parent['id']}/permanent").expect(204)
        self.error(self.owner.get(f"/memories/{child['id']}"), 404)

    def test_an_agent_sees_a_thread_as_its_vendor_may(self):
        parent = self.owner.remember(unique(), allowed_vendors=["cursor"])
        self.error(self.agents["claude"].get(f"/agent/memories/{parent['id']}/thread"), 404)
        body = {"title": "t", "content": unique(), "tags": [], "allowed_vendors": ["*"]}
        self.error(self.agents["claude"].post(f"/agent/memories/{parent['id']}/children", body), 404)
        child = self.agents["cursor"].post(f"/agent/memories/{parent['id']}/children", body).expect(201).json
        self.assertEqual((child["origin"], child["parent_memory_id"]), ("cursor", parent["id"]))

    def test_a_reply_that_names_no_vendors_is_as_open_as_its_parent(self):
        """It was open to every vendor's agents, whoever might see what it replied to."""
        parent, word = self.owner.remember(unique(), allowed_vendors=["cursor"]), unique()
        self.agents["claude"].post("/agent/memories/search", {"term": word}).expect(200)  # an index is there
        child = self.reply(parent, word)
        self.assertEqual(child["allowed_vendors"], ["cursor"])
        self.error(self.agents["claude"].get(f"/agent/memories/{child['id']}"), 404)
        for vendor, seen in (("claude", False), ("cursor", True)):
            found = self.agents[vendor].post("/agent/memories/search", {"term": word}).expect(200).json
            ranked = self.agents[vendor].post("/api/v1/memories/search", {"query": word}).expect(200).json
            self.assertEqual([child["id"] in [memory["id"] for memory in memories] for memories in (found["memories"], ranked["results"])], [seen, seen])
        self.assertEqual(self.reply(parent, "named", allowed_vendors=["*"])["allowed_vendors"], ["*"])


class RateLimits(ServerCase):
    options = {"settings": {"RM_CREDENTIAL_RATE_LIMIT_PER_MINUTE": "20", "RM_RATE_LIMIT_PER_MINUTE": "10"}}

    def test_over_the_limit_is_429_with_the_contracts_headers(self):
        answers = [self.owner.get("/whoami") for _ in range(25)]
        self.assertEqual(answers[0].headers["x-ratelimit-limit"], "20")
        self.assertLess(int(answers[1].headers["x-ratelimit-remaining"]), 20)
        over = next(a for a in answers if a.status == 429)
        self.error(over, 429, re.compile(r"^Rate limit exceeded, retry in \d+ seconds$"))
        self.assertGreaterEqual(int(over.headers["retry-after"]), 1)

    def test_failed_authentication_counts_against_the_address_and_not_against_others(self):
        with self.server.client("wrong" * 8) as stranger:
            statuses = [stranger.get("/whoami").status for _ in range(15)]
        self.assertEqual(statuses[0], 401)
        self.assertEqual(statuses[-1], 429)
        self.agents["cursor"].get("/whoami").expect(200)


class Restart(ServerCase):
    def test_everything_is_there_after_a_restart(self):
        record = self.owner.remember(unique(), "kept", ["kept"])
        before = self.owner.get("/whoami").audit_index
        self.assertEqual(self.server.stop(), 0)
        done = self.server.run("verify")
        self.assertEqual(done.returncode, 0, text(done))
        self.server.start()
        with self.server.client(self.server.owner_key) as again:
            self.assertEqual(again.get(f"/memories/{record['id']}").expect(200).json, record)
            self.assertEqual(ids(again.post("/agent/memories/search", {"term": "kept"})), [record["id"]])
            self.assertGreater(again.get("/whoami").audit_index, before)


if __name__ == "__main__":
    unittest.main()
