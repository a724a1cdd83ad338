"""Every rule of the wire contract that existing clients or their tests depend on: one test each, in the order of the contract's text, named after
the rule; its docstring says the rule. Where another file tests the rule in all its breadth, the test here is the short form of it.

Rules about orgs, teams, sharing, single sign-on, queries of the audit log and a model that is reached have no tests: those parts are not there.
These rules are held elsewhere, and `Elsewhere` below sees that they are:

| rule | held by |
|---|---|
| a dashboard's token finds or creates its person by lower-case e-mail address | test_dashboard |
| `/admin/check`, the three empty lists of the hosted service, 403 `Admin access required` | test_dashboard |
| MCP: `instructions` are the markdown briefing with its topics | test_mcp |
| MCP: the vendor of a `rm_live_` key comes from its label | test_mcp |
| MCP: 401 with `WWW-Authenticate` and the protected resource's metadata | test_mcp |
| MCP: failures are results with `isError`, wrong arguments and unknown tools hold `-32602` | test_mcp |
| OAuth, where it is there: the shape and rotation of tokens, `approve-s2s`, its wording of what agents may not reach | test_oauth |
"""

import hashlib
import json
import pathlib
import re
import unittest

from rosemary_server import ROOT, Server, ServerCase, unique

from test_contract import PAGE, RECORD, SUMMARY, UNKNOWN, ids, put_body
from test_events import KEYS as EVENT_MEMORY
from test_events import Stream

OTHER = "other@clinic.example"
GOOD = {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}
HELD = {
    "test_dashboard": (
        "test_a_dashboard_token_finds_or_creates_the_user_by_lower_case_email",
        "test_admin_check_and_users_are_for_administrators_alone",
        "test_admin_lists_of_a_hosted_service_are_empty",
    ),
    "test_mcp": (
        "test_pin_initialize_opens_a_session_and_briefs",
        "test_pin_a_user_key_speaks_for_the_tool_that_its_label_names",
        "test_pin_who_is_not_known_is_told_where_to_get_a_credential",
        "test_pin_failures_are_results_that_say_so",
        "test_pin_wrong_arguments_and_unknown_tools_are_results_with_32602",
    ),
    "test_oauth": (
        "test_the_whole_flow_gives_tokens_of_the_contracts_shape",
        "test_an_oauth_token_reaches_agent_routes_only_and_is_told_so",
        "test_a_dashboard_token_approves_and_sends_back",
        "test_approve_s2s_is_for_the_service_key_alone",
    ),
}


class Elsewhere(unittest.TestCase):
    def test_the_rules_that_are_held_elsewhere_have_their_tests(self):
        routes = (ROOT / "src/api/routes.rs").read_text(encoding="utf-8")
        for name, tests in HELD.items():
            if name == "test_oauth" and '"/register"' not in routes:
                continue
            file = pathlib.Path(__file__).with_name(f"{name}.py")
            text = file.read_text(encoding="utf-8")
            for test in tests:
                self.assertIn(f"def {test}(", text, name)


class Pins(ServerCase):
    options = {"users": (OTHER,)}

    def write(self, client=None, path="/memories", **more):
        return (client or self.owner).post(path, {**GOOD, "title": unique(), "content": unique(), **more}).expect(201).json

    # --- 1. conventions ---

    def test_pin_errors_are_an_object_with_error(self):
        """Errors are `{"error": "<text>"}` everywhere."""
        with self.server.client() as nobody:
            refused = [nobody.get("/whoami"), nobody.post("/memories", GOOD), self.owner.get(f"/memories/{UNKNOWN}"), self.owner.post("/memories", {}),
                       self.owner.post("/billing/portal"), self.agents["cursor"].get("/users/me"), self.owner.get("/api/v1/operations/x"),
                       self.owner.post("/memories", raw=b"x" * 300_000, headers={"Content-Type": "application/json"}), self.owner.get("/v1/memories/x/")]
        self.assertEqual([answer.status for answer in refused], [401, 401, 404, 400, 503, 403, 404, 413, 404])
        for answer in refused:
            self.error(answer, answer.status)

    def test_pin_unknown_body_keys_are_400(self):
        """Unknown body keys are 400 on every route that has a schema."""
        document = self.owner.get("/openapi.json").json
        tried = 0
        for path, item in document["paths"].items():
            for method, operation in item.items():
                body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                if body.get("schema", {}).get("additionalProperties") is False:
                    tried += 1
                    with self.subTest(f"{method} {path}"):
                        answer = self.owner.request(method.upper(), re.sub(r"\{[^}]*\}", UNKNOWN, path), {**body["example"], "no_such_key": 1})
                        self.error(answer, 400, re.compile("^body must NOT have additional properties$"))
        self.assertGreater(tried, 15)

    def test_pin_lengths_count_characters(self):
        """Lengths count characters (code points), not bytes."""
        wide = "\U0001f33f"
        self.assertEqual(self.write(title=wide * 500)["title"], wide * 500)
        self.error(self.owner.post("/memories", {**GOOD, "title": wide * 501}), 400, "body/title must NOT have more than 500 characters")

    def test_pin_scalars_are_coerced(self):
        """Number and boolean to string, scalar to one-element array, numeric string to integer, null to 0 or ""."""
        tag = unique()
        record = self.write(title=123, content=True, tags=tag)
        self.assertEqual((record["title"], record["content"], record["tags"]), ("123", "true", [tag]))
        page = self.owner.post("/agent/memories/by-tag", {"tags": tag, "limit": "2", "offset": None}).expect(200).json
        self.assertEqual((page["limit"], page["offset"], page["total"]), (2, 0, 1))
        self.error(self.owner.post("/memories", {**GOOD, "title": None}), 400, "body/title must NOT have fewer than 1 characters")

    # --- 2. authentication ---

    def test_pin_agents_reach_their_routes_alone(self):
        """Agents reach /health, /whoami, /query and /agent/*; else 403 `Agent keys cannot access this endpoint`."""
        document, agent = self.owner.get("/openapi.json").json, self.agents["cursor"]
        tried = set()
        for path, item in document["paths"].items():
            if path.startswith(("/agent/", "/v1/", "/v2/", "/v3/", "/api/v1/", "/oauth/", "/.well-known/")) or path in ("/mcp", "/authorize", "/token", "/register", "/revoke"):
                continue
            for method, operation in item.items():
                answer = agent.request(method.upper(), re.sub(r"\{[^}]*\}", UNKNOWN, path), {} if "requestBody" in operation else None)
                if answer.status == 403 and operation.get("security"):
                    self.assertEqual(answer.json, {"error": "Agent keys cannot access this endpoint"}, path)
                else:
                    tried.add(path)
        self.assertEqual(tried, {"/health", "/openapi.json", "/whoami", "/query"})
        agent.post("/agent/memories/list", {}).expect(200)

    def test_pin_a_user_key_may_call_agent_routes(self):
        """A user key may call /agent/* too; then there is no vendor filter."""
        hidden = self.write(allowed_vendors=["claude"])
        self.owner.get(f"/agent/memories/{hidden['id']}").expect(200)
        self.assertIn(hidden["id"], ids(self.owner.post("/agent/memories/list", {})))

    def test_pin_the_display_prefix_is_the_first_16_characters(self):
        """`rm_live_<48 hex>`; display prefix = first 16 characters."""
        made = self.owner.post("/api/keys", {}).expect(200).json
        self.assertRegex(made["key"], "^rm_live_[0-9a-f]{48}$")
        self.assertEqual(made["key_prefix"], made["key"][:16])

    # --- 3. quotas ---

    def test_pin_usage_accepts_and_ignores_a_month(self):
        """`{allowed, plan, memory_count, limits:{maxMemories}, memories_remaining}`; `?month=YYYY-MM` is accepted and ignored."""
        answers = [self.owner.get(path).expect(200).json for path in ("/usage", "/usage/check", "/usage?month=2026-01", "/usage/check?month=1999-12")]
        self.assertEqual(set(answers[0]), {"allowed", "plan", "memory_count", "limits", "memories_remaining"})
        self.assertEqual(set(answers[0]["limits"]), {"maxMemories"})
        self.assertEqual(answers[1:], answers[:1] * 3)

    # --- 4. the record ---

    def test_pin_a_record_always_has_every_key(self):
        """Create and read answer with every key of the record."""
        record = self.write()
        self.assertEqual(set(record), RECORD)
        self.assertEqual(set(self.owner.get(f"/memories/{record['id']}").json), RECORD)
        self.assertEqual(set(self.owner.get(f"/agent/memories/{record['id']}").json), RECORD)

    def test_pin_a_summary_has_no_content(self):
        """Summary: id, title, tags, origin, memory_type, created_at, updated_at."""
        self.write()
        page = self.owner.post("/agent/memories/browse", {"filter": {"by": "all"}}).expect(200).json
        self.assertEqual({frozenset(memory) for memory in page["memories"]}, {frozenset(SUMMARY)})

    def test_pin_a_memory_hidden_from_a_vendor_is_not_there(self):
        """A memory that `allowed_vendors` hides looks like 404 and is absent from lists and totals."""
        tag, agent = unique(), self.agents["cursor"]
        hidden = self.write(title=tag, tags=[tag], allowed_vendors=["claude"])
        absent = agent.get(f"/agent/memories/{UNKNOWN}")
        answer = agent.get(f"/agent/memories/{hidden['id']}")
        self.assertEqual((answer.status, answer.body), (404, absent.body))
        for path, body in (("by-tag", {"tags": [tag]}), ("browse", {"filter": {"by": "ids", "ids": [hidden["id"]]}}), ("browse", {"filter": {"by": "search", "term": tag}})):
            page = agent.post(f"/agent/memories/{path}", body).expect(200).json
            self.assertEqual((page["memories"], page["total"], page["has_more"]), ([], 0, False), path)
        self.assertEqual(agent.post("/agent/memories/search", {"term": tag}).json, {"memories": [], "count": 0})
        self.error(agent.get(f"/agent/memories/latest?tag={tag}"), 404)

    def test_pin_an_agents_origin_is_its_vendor(self):
        """Origin of an agent key is its vendor, not spoofable."""
        self.assertEqual(self.write(self.agents["cursor"], "/agent/memories", origin="claude")["origin"], "cursor")

    def test_pin_a_user_keys_origin_on_agent_routes_is_the_bodys_or_user(self):
        """Origin of a user key on /agent/memories is the body's `origin`, or `user`."""
        self.assertEqual(self.write(path="/agent/memories", origin="notebook")["origin"], "notebook")
        self.assertEqual(self.write(path="/agent/memories")["origin"], "user")

    def test_pin_agents_change_only_what_they_wrote(self):
        """PUT and DELETE by an agent of what it did not write: 403 `Agents can only update|delete memories they created`."""
        record = self.write(allowed_vendors=["*"])
        path, agent = f"/agent/memories/{record['id']}", self.agents["cursor"]
        self.error(agent.put(path, put_body(record)), 403, "Agents can only update memories they created")
        self.error(agent.delete(path), 403, "Agents can only delete memories they created")
        self.assertEqual(self.owner.get(f"/memories/{record['id']}").json, record)

    def test_pin_refused_replies_have_codes(self):
        """404 parent_not_found; 400 parent_deleted `Cannot reply to a trashed memory`; 400 parent_is_child `Threads are one level deep; …`."""
        parent, gone = self.write(), self.write()
        child = self.owner.post(f"/memories/{parent['id']}/children", GOOD).expect(201).json
        self.owner.delete(f"/memories/{gone['id']}").expect(200)
        foreign = self.others[OTHER].post("/memories", GOOD).expect(201).json
        for prefix in ("", "/agent"):
            for id, status, code, text in (
                (UNKNOWN, 404, "parent_not_found", ""),
                (foreign["id"], 404, "parent_not_found", ""),
                (gone["id"], 400, "parent_deleted", "^Cannot reply to a trashed memory$"),
                (child["id"], 400, "parent_is_child", "^Threads are one level deep; "),
            ):
                answer = self.owner.post(f"{prefix}/memories/{id}/children", GOOD)
                self.assertEqual(self.error(answer, status, re.compile(text)).get("code"), code)

    def test_pin_a_parent_takes_its_replies_along(self):
        """Trash and restore of a parent cascade to its replies; a permanent delete purges them."""
        parent = self.write()
        child = self.owner.post(f"/memories/{parent['id']}/children", GOOD).expect(201).json
        at = f"/memories/{child['id']}"
        self.owner.delete(f"/memories/{parent['id']}").expect(200)
        self.assertIn("deleted_at", self.owner.get(at).expect(200).json)
        self.owner.post(f"/memories/{parent['id']}/restore").expect(200)
        self.assertNotIn("deleted_at", self.owner.get(at).expect(200).json)
        self.owner.delete(f"/memories/{parent['id']}/permanent").expect(204)
        self.error(self.owner.get(at), 404)

    def test_pin_a_scope_without_membership_stays_personal(self):
        """Asking for a scope without membership silently leaves the memory personal, 201."""
        for scope in ({"share_scope": "org"}, {"share_scope": "team"}, {"share_with_team": True}):
            record = self.write(**scope)
            self.assertEqual([record[key] for key in ("shared_with_org_id", "shared_with_team_id", "shared_at")], [None] * 3)

    def test_pin_search_is_a_literal_substring(self):
        """Search is a literal substring without regard to ASCII case; `%` and `_` are ordinary characters."""
        word = unique()
        percent, under = self.write(content=f"{word} 100% sure"), self.write(content=f"{word} a_b AB")
        found = lambda term: {m["id"] for m in self.owner.post("/agent/memories/search", {"term": f"{word} {term}"}).expect(200).json["memories"]}
        self.assertEqual((found("100%"), found("1%"), found("a_B"), found("_")), ({percent["id"]}, set(), {under["id"]}, set()))

    def test_pin_the_page_envelope(self):
        """Page: `{memories, total, limit, offset, has_more}`."""
        tag = unique()
        for _ in range(2):
            self.write(tags=[tag])
        for path, body in (("by-tag", {"tags": [tag]}), ("browse", {"filter": {"by": "tags", "tags": [tag]}})):
            page = self.owner.post(f"/agent/memories/{path}", {**body, "limit": 1}).expect(200).json
            self.assertEqual((set(page), page["total"], page["limit"], page["offset"], page["has_more"], len(page["memories"])), (PAGE, 2, 1, 0, True, 1))

    # --- 5. routes ---

    def test_pin_health(self):
        """`{service:"reflect-memory", status, uptime_seconds, deployment_mode, network_boundary, model_egress, public_webhooks}`."""
        with self.server.client() as nobody:
            body = nobody.get("/health").expect(200).json
        self.assertEqual(set(body), {"service", "status", "uptime_seconds", "deployment_mode", "network_boundary", "model_egress", "public_webhooks"})
        self.assertEqual((body["service"], body["status"], body["network_boundary"], body["model_egress"], body["public_webhooks"]),
                         ("reflect-memory", "ok", "private", "disabled", False))

    def test_pin_whoami(self):
        """`{role, vendor|null, deployment_mode, log_sharing_enabled, is_admin}`; is_admin is false for agents."""
        for client, role, vendor, admin in ((self.owner, "user", None, True), (self.others[OTHER], "user", None, False), (self.agents["claude"], "agent", "claude", False)):
            self.assertEqual(client.get("/whoami").expect(200).json,
                             {"role": role, "vendor": vendor, "deployment_mode": "self-host", "log_sharing_enabled": False, "is_admin": admin})

    def test_pin_the_list_of_keys(self):
        """`{keys:[{id,user_id,key_prefix,label,last_used_at,created_at,revoked_at}]}`, newest first, revoked ones included, no hash."""
        first, second = (self.owner.post("/api/keys", {"label": unique()}).expect(200).json for _ in range(2))
        self.owner.delete(f"/api/keys/{first['id']}").expect(200)
        keys = self.owner.get("/api/keys").expect(200).json["keys"]
        self.assertEqual({frozenset(key) for key in keys}, {frozenset({"id", "user_id", "key_prefix", "label", "last_used_at", "created_at", "revoked_at"})})
        self.assertEqual([key["id"] for key in keys if key["id"] in (first["id"], second["id"])], [second["id"], first["id"]])
        self.assertEqual([bool(key["revoked_at"]) for key in keys if key["id"] in (first["id"], second["id"])], [False, True])

    def test_pin_a_key_is_revoked_once(self):
        """DELETE /api/keys/:id: `{revoked:true}`; 404 if unknown or revoked already."""
        made = self.owner.post("/api/keys", {}).expect(200).json
        self.assertEqual(self.owner.delete(f"/api/keys/{made['id']}").expect(200).json, {"revoked": True})
        for id in (made["id"], UNKNOWN, "nonsense"):
            self.error(self.owner.delete(f"/api/keys/{id}"), 404)

    def test_pin_emptying_the_trash_says_how_many(self):
        """DELETE /memories/trash: `{deleted:n}`."""
        other = self.others[OTHER]
        other.delete("/memories/trash").expect(200)
        for _ in range(2):
            other.delete(f"/memories/{self.write(other)['id']}").expect(200)
        self.assertEqual([other.delete("/memories/trash").expect(200).json for _ in range(2)], [{"deleted": 2}, {"deleted": 0}])

    def test_pin_a_thread_is_oldest_first(self):
        """`{parent, children}`, oldest first, by the id of the parent or of a child."""
        parent = self.write()
        children = [self.owner.post(f"/memories/{parent['id']}/children", {**GOOD, "content": unique()}).expect(201).json["id"] for _ in range(3)]
        for id in (parent["id"], children[1]):
            thread = self.owner.get(f"/memories/{id}/thread").expect(200).json
            self.assertEqual((set(thread), thread["parent"]["id"], [child["id"] for child in thread["children"]]), ({"parent", "children"}, parent["id"], children))

    def test_pin_an_agents_delete(self):
        """DELETE /agent/memories/:id: `{deleted:true,id,title}`."""
        record = self.write(self.agents["cursor"], "/agent/memories")
        self.assertEqual(self.agents["cursor"].delete(f"/agent/memories/{record['id']}").expect(200).json,
                         {"deleted": True, "id": record["id"], "title": record["title"]})

    def test_pin_agent_versions_name_the_current_one(self):
        """GET /agent/memories/:id/versions: `{versions, current_version: n+1}`."""
        record = self.write(self.agents["cursor"], "/agent/memories")
        path = f"/agent/memories/{record['id']}"
        for n in range(2):
            self.agents["cursor"].put(path, put_body(record, content=unique())).expect(200)
        body = self.agents["cursor"].get(f"{path}/versions").expect(200).json
        self.assertEqual((set(body), [v["version_number"] for v in body["versions"]], body["current_version"]), ({"versions", "current_version"}, [2, 1], 3))

    def test_pin_the_briefing(self):
        """JSON with user, totals, tags, threads, conventions, no topics over REST; agents are 403 at /briefing."""
        body = self.owner.get("/briefing").expect(200).json
        self.assertEqual(set(body), {"user", "totals", "personal_tags", "team_tags", "recent_tags", "active_threads", "detected_conventions", "topic_clusters", "generated_at"})
        self.assertEqual(set(body["user"]), {"id", "email", "first_name", "last_name", "role", "plan", "org_id", "team_name", "org_role", "team_member_count", "subteam_id", "subteam_name"})
        self.assertEqual(set(body["totals"]), {"personal_memories", "personal_memories_shared", "team_pool_total"})
        self.assertEqual((body["topic_clusters"], body["team_tags"]), ([], []))
        self.error(self.agents["cursor"].get("/briefing"), 403)
        self.assertEqual(set(self.agents["cursor"].get("/agent/briefing").expect(200).json), set(body))

    def test_pin_the_graph(self):
        """`{nodes, edges, clusters, scope, days, max_nodes, truncated}`; a cluster's id is made of its sorted tags, its name of the first three."""
        tags = sorted(unique() for _ in range(3))
        root = self.write(tags=tags)
        child = self.owner.post(f"/memories/{root['id']}/children", {**GOOD, "tags": tags}).expect(201).json
        body = self.owner.get("/graph?scope=personal&max_nodes=2").expect(200).json
        self.assertEqual(set(body), {"nodes", "edges", "clusters", "scope", "days", "max_nodes", "truncated"})
        self.assertEqual([(e["source"], e["target"], e["type"], e["weight"]) for e in body["edges"]],
                         [(root["id"], child["id"], "parent_of", 3), (child["id"], root["id"], "shared_tag", 3)])
        (cluster,) = body["clusters"]
        self.assertEqual((cluster["id"], cluster["name"], cluster["tags"]), (hashlib.sha256("|".join(tags).encode()).hexdigest()[:16], "/".join(tags), tags))
        self.assertEqual({node["cluster_id"] for node in body["nodes"]}, {cluster["id"]})

    def test_pin_agents_may_not_watch_events(self):
        """GET /events: agents are 403."""
        self.error(self.agents["cursor"].get("/events"), 403, "Agent keys cannot access this endpoint")

    def test_pin_events_hold_the_memory_without_its_type(self):
        """`memory` in an event is the row without memory_type, with user_id; absent on purge."""
        with Stream(self.server, self.server.user_keys[OTHER]) as stream:
            self.assertEqual(stream.next()[0], "hello")
            record = self.write(self.others[OTHER])
            name, event = stream.next()
            self.assertEqual((name, set(event["memory"])), ("memory.created", EVENT_MEMORY))
            self.assertEqual((event["memory"]["user_id"], "memory_type" in event["memory"]), (event["user_id"], False))
            self.others[OTHER].delete(f"/memories/{record['id']}/permanent").expect(204)
            name, event = stream.next()
            self.assertEqual((name, "memory" in event), ("memory.purged", False))


class PinKeys(ServerCase):
    options = {"users": (OTHER,)}

    def test_pin_a_key_too_many(self):
        """POST /api/keys: `{key,id,key_prefix,label,created_at}`, the key shown once; 429 `{error,plan,active_keys,limit,upgrade_url}`."""
        other = self.others[OTHER]
        made = other.post("/api/keys", {"label": "x"}).expect(200).json
        self.assertEqual(set(made), {"key", "id", "key_prefix", "label", "created_at"})
        self.assertNotIn(made["key"].encode(), other.get("/api/keys").body)
        while (answer := other.post("/api/keys", {})).status == 200:
            pass
        self.assertEqual((answer.status, set(answer.json)), (429, {"error", "plan", "active_keys", "limit", "upgrade_url"}))


class PinLog(unittest.TestCase):
    def test_pin_a_fault_says_nothing_of_itself(self):
        """The text of a 5xx is the program's own: never a stack or a path."""
        with Server(settings={"RM_CACHE_MIB": "4"}) as server, server.client(server.owner_key) as owner:
            ids = [owner.remember(unique(), "x" * 20_000)["id"] for _ in range(400)]
            # The disk loses what it holds, beyond the head of the file.
            with open(server.data, "r+b") as file:
                size = file.seek(0, 2)
                file.seek(64 * 1024)
                file.write(bytes(size - 64 * 1024))
            fault = next((answer for answer in (owner.get(f"/memories/{id}") for id in ids) if answer.status >= 500), None)
            server.kill()
        self.assertIsNotNone(fault, "a file that was overwritten is noticed")
        self.assertIn(fault.json["error"], ("Internal server error", "The service cannot answer now; nothing was done"))
        for word in (b"src/", b".rs", b"panic", b"redb", str(server.folder).encode()):
            self.assertNotIn(word, fault.body)

    def test_pin_the_clients_request_id_is_in_the_log(self):
        """The client's X-Request-Id, trimmed, goes into audit rows; none is generated or echoed."""
        with Server() as server:
            with server.client(server.owner_key) as owner:
                answer = owner.get("/whoami", headers={"X-Request-Id": "  ward3-000117 "}).expect(200)
                bare = owner.get("/whoami").expect(200)
                self.assertNotIn("x-request-id", answer.headers)
            server.stop()
            bundle = server.folder / "log.ndjson"
            self.assertEqual(server.run("audit", "export", str(bundle)).returncode, 0)
            entries = [json.loads(line) for line in bundle.read_bytes().splitlines() if b'"op":' in line]
            rids = {entry["i"]: entry.get("rid") for entry in entries}
            self.assertEqual((rids[answer.audit_index], rids[bare.audit_index]), ("ward3-000117", None))


if __name__ == "__main__":
    unittest.main()
