"""MCP at /mcp, both eras: every tool, and what bad input gets. A test named after a pin of the contract keeps it."""

import json
import re
import secrets
import select
import time
import unittest

from rosemary_server import LONG, OWNER, Server, ServerCase, unique
from test_dashboard import DASHBOARD, KEY, token

OTHER = "other@clinic.example"
UNKNOWN = "01890000-0000-7000-8000-000000000000"
MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07")
BOTH = "application/json, text/event-stream"
META = "io.modelcontextprotocol/"
TOOLS = [
    "read_memories", "get_memory_briefing", "get_memory_by_id", "get_latest_memory", "browse_memories", "search_memories", "get_memories_by_tag",
    "write_memory", "update_memory", "delete_memory", "read_org_memories", "read_team_memories", "write_child_memory", "read_thread",
    "get_graph_around", "get_topic_cluster", "share_memory",
]


class Legacy:
    """A session of a legacy client."""

    def __init__(self, client, version="2025-11-25", initialize=True):
        self.client, self.version, self.session, self.last = client, version, None, 0
        if initialize:
            params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
            answer = self.send({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params}).expect(200)
            self.session, self.initialized = answer.headers["mcp-session-id"], answer.json["result"]
            self.send({"jsonrpc": "2.0", "method": "notifications/initialized"}).expect(202)

    def headers(self, **more):
        found = {"Accept": BOTH}
        if self.session:
            found |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": self.version}
        return found | more

    def send(self, message, **more):
        return self.client.post("/mcp", message, headers=self.headers(**more))

    def ask(self, method, params=None):
        self.last += 1
        message = {"jsonrpc": "2.0", "id": self.last, "method": method}
        answer = self.send(message if params is None else message | {"params": params})
        assert answer.json["id"] == self.last and answer.json["jsonrpc"] == "2.0", answer.body
        return answer

    def call(self, tool, **arguments):
        return self.ask("tools/call", {"name": tool, "arguments": arguments}).expect(200).json["result"]


class Modern:
    """A client of the modern era."""

    def __init__(self, client):
        self.client, self.last = client, 0

    def meta(self):
        return {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}, f"{META}clientInfo": {"name": "test", "version": "1"}}

    def headers(self, method, params):
        found = {"Accept": BOTH, "MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if isinstance(params.get("name"), str):
            found["Mcp-Name"] = params["name"]
        return found

    def ask(self, method, params=None, headers=None, meta=None):
        self.last += 1
        params = {"_meta": self.meta() if meta is None else meta} | (params or {})
        sent = self.headers(method, params) | (headers or {})
        message = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}
        answer = self.client.post("/mcp", message, headers={name: value for name, value in sent.items() if value is not None})
        assert answer.json["id"] == self.last, answer.body
        return answer

    def call(self, tool, **arguments):
        result = self.ask("tools/call", {"name": tool, "arguments": arguments}).expect(200).json["result"]
        assert result["resultType"] == "complete" and result["_meta"][f"{META}serverInfo"]["name"] == "reflect-memory", result
        return result


def text(result):
    assert [part["type"] for part in result["content"]] == ["text"], result
    return result["content"][0]["text"]


class McpCase(ServerCase):
    options = {"users": (OTHER,)}

    def setUp(self):
        self.cursor, self.claude = self.agents["cursor"], self.agents["claude"]
        self.both = (Legacy(self.cursor), Modern(self.cursor))

    def failed(self, result, message):
        self.assertIs(result.get("isError"), True, result)
        self.assertNotIn("structuredContent", result)
        if isinstance(message, str):
            self.assertEqual(text(result), message)
        else:
            self.assertRegex(text(result), message)

    def rpc(self, answer, status, code):
        self.assertEqual((answer.status, answer.json["error"]["code"]), (status, code), answer.body)
        return answer

    def entries(self):
        """The audit log by index. The service is stopped for it, and begins again on another port."""
        server = self.server
        server.stop()
        done = server.run("audit", "export", "-")
        server.start()
        for client in (self.owner, *self.agents.values(), *self.others.values()):
            client.connection.port = server.port
            client.close()
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return {entry["i"]: entry for entry in found if "i" in entry}


class Tools(McpCase):
    def test_every_tool_is_listed_with_its_schemas_and_hints(self):
        lists = [client.ask("tools/list").expect(200).json["result"] for client in self.both]
        for found in lists:
            self.assertEqual([tool["name"] for tool in found["tools"]], TOOLS)
            for tool in found["tools"]:
                self.assertEqual((tool["inputSchema"]["type"], tool["outputSchema"]["type"]), ("object", "object"), tool["name"])
                self.assertTrue(tool["annotations"]["title"] and tool["description"])
                self.assertIs(tool["annotations"].get("readOnlyHint") or tool["annotations"].get("destructiveHint"), True)
        self.assertEqual(lists[0]["tools"], lists[1]["tools"])
        self.assertEqual((lists[1]["ttlMs"], lists[1]["cacheScope"], lists[1]["resultType"]), (3_600_000, "public", "complete"))
        self.assertEqual(set(lists[0]), {"tools"})

    def schemas(self):
        return {tool["name"]: tool["outputSchema"] for tool in self.both[0].ask("tools/list").json["result"]["tools"]}

    def test_every_tool_does_what_the_contract_says(self):
        schemas = self.schemas()

        def told(client, tool, **arguments):
            result = client.call(tool, **arguments)
            self.assertNotIn("isError", result, result)
            misfit = Server.document.unlike(schemas[tool], result["structuredContent"])
            self.assertIsNone(misfit, f"{tool}: {misfit}")
            return text(result), result["structuredContent"]

        for client in self.both:
            with self.subTest(type(client).__name__):
                word, tag = unique("word"), unique("tag")
                shown, record = told(client, "write_memory", title=f"About {word}", content=f"{word} is\na \"test\"", tags=[tag, "b", "c"])
                self.assertEqual(json.loads(shown), record)
                self.assertIn('\n  "content"', shown, "pretty-printed with two spaces")
                self.assertEqual((record["origin"], record["allowed_vendors"], record["memory_type"]), ("cursor", ["*"], "semantic"))
                other = told(client, "write_memory", title="Another", content=f"see {record['id']}", tags=[tag, "b"], memory_type="episodic", share_scope="org",
                             subject="MRN 1", occurred_at="2026-11-21T08:00:00Z")[1]
                self.assertEqual((other["subject"], other["shared_with_org_id"]), ("MRN 1", None))
                shown, found = told(client, "read_memories", limit=2)
                self.assertEqual([memory["id"] for memory in json.loads(shown)], [other["id"], record["id"]])
                self.assertEqual(found, {"memories": json.loads(shown)})
                self.assertEqual(told(client, "get_memory_by_id", id=record["id"])[1], record)
                self.assertEqual(told(client, "get_latest_memory")[1]["id"], other["id"])
                self.assertEqual(told(client, "get_latest_memory", tag="c")[1]["id"], record["id"])
                _, page = told(client, "browse_memories", limit=1, offset=1)
                self.assertEqual([memory["id"] for memory in page["memories"]], [record["id"]])
                self.assertEqual((page["limit"], page["offset"], page["scope"], page["has_more"]), (1, 1, "all", page["total"] > 2))
                self.assertNotIn("content", page["memories"][0])
                for scope in ("org", "team"):
                    page = told(client, "browse_memories", scope=scope)[1]
                    self.assertEqual((page["memories"], page["total"], page["scope"], page["has_more"]), ([], 0, scope, False))
                    self.assertEqual(told(client, "get_memories_by_tag", tags=[tag], scope=scope)[1]["total"], 0)
                    self.assertEqual(told(client, "search_memories", term=word, scope=scope)[1], {"memories": []})
                shown, found = told(client, "search_memories", term=word.upper())
                self.assertEqual([memory["id"] for memory in json.loads(shown)], [record["id"]])
                self.assertEqual(told(client, "search_memories", term="   ")[1], {"memories": []})
                ranked = told(client, "search_memories", term=f"what is {word}?", ranked=True)[1]["memories"]
                self.assertEqual(ranked[0]["id"], record["id"])
                _, page = told(client, "get_memories_by_tag", tags=[tag])
                self.assertEqual(([memory["id"] for memory in page["memories"]], page["total"], page["limit"]), ([other["id"], record["id"]], 2, 20))
                _, child = told(client, "write_child_memory", parent_memory_id=record["id"], title="Reply", content="yes", tags=["r"])
                self.assertEqual(child["parent_memory_id"], record["id"])
                for member in (record["id"], child["id"]):
                    thread = told(client, "read_thread", memory_id=member)[1]
                    self.assertEqual((thread["parent"]["id"], [memory["id"] for memory in thread["children"]]), (record["id"], [child["id"]]))
                near = told(client, "get_graph_around", memory_id=record["id"])[1]
                ids = {key: [node["id"] for node in value] if isinstance(value, list) else value and value["id"] for key, value in near.items()}
                self.assertEqual(ids, {"center": record["id"], "parent": None, "children": [child["id"]], "siblings": [], "tag_similar": [other["id"]],
                                       "references": [], "referenced_by": [other["id"]]})
                self.assertEqual((near["tag_similar"][0]["shared_tag_count"], near["tag_similar"][0]["relation"]), (2, "tag_similar"))
                self.assertNotIn("content", near["center"])
                near = told(client, "get_graph_around", memory_id=other["id"], min_shared_tags=3)[1]
                self.assertEqual(([node["id"] for node in near["references"]], near["tag_similar"]), ([record["id"]], []))
                near = told(client, "get_graph_around", memory_id=child["id"])[1]
                self.assertEqual((near["parent"]["id"], near["siblings"]), (record["id"], []))
                self.owner.put(f"/memories/{record['id']}", {"title": "About", "content": "narrowed", "tags": [tag], "allowed_vendors": [record["origin"]]}).expect(200)
                changed = told(client, "update_memory", id=record["id"], title="About", content="changed", tags=[tag])[1]
                self.assertEqual(changed["allowed_vendors"], [record["origin"]], "what is not spoken of is not opened")
                self.assertEqual((changed["id"], changed["title"], changed["tags"]), (record["id"], "About", [tag]))
                _, cluster = told(client, "get_topic_cluster", tag=tag)
                self.assertEqual((cluster["tag"], cluster["count"]), (tag, 2))
                self.assertEqual([memory["id"] for memory in cluster["memories"]], [record["id"], other["id"]], "newest change first")
                shown, briefing = told(client, "get_memory_briefing")
                self.assertRegex(shown, "^# ")
                self.assertIn(tag, shown)
                shown, briefing = told(client, "get_memory_briefing", format="json")
                self.assertEqual(json.loads(shown)["user"], briefing["user"])
                shown, gone = told(client, "delete_memory", id=record["id"])
                self.assertIn("\"About\"", shown)
                self.assertEqual(gone, {"deleted": True, "id": record["id"], "title": "About"})
                self.failed(client.call("get_memory_by_id", id=record["id"]), "Memory not found")
                self.failed(client.call("read_thread", memory_id=child["id"]), "Memory not found")

    def test_tools_of_orgs_answer_as_to_a_user_without_one(self):
        record = self.cursor.remember(path="/agent/memories", allowed_vendors=["*"])
        for client in self.both:
            for tool, arguments in (("read_org_memories", {}), ("read_team_memories", {"limit": 1}), ("share_memory", {"memory_id": record["id"]}),
                                    ("share_memory", {"memory_id": UNKNOWN, "scope": "team"})):
                self.failed(client.call(tool, **arguments), "Not a member of any team")

    def test_pin_failures_are_results_that_say_so(self):
        record = self.cursor.remember(path="/agent/memories", allowed_vendors=["*"])
        child = self.cursor.post(f"/agent/memories/{record['id']}/children", {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}).expect(201).json
        trashed = self.cursor.remember(unique(), path="/agent/memories", allowed_vendors=["*"])
        self.cursor.delete(f"/agent/memories/{trashed['id']}").expect(200)
        reply = {"title": "t", "content": "c"}
        for client in self.both:
            self.failed(client.call("get_memory_by_id", id=UNKNOWN), "Memory not found")
            self.failed(client.call("get_memory_by_id", id="no id"), "Memory not found")
            self.failed(client.call("get_latest_memory", tag=unique()), "No memories found with that tag")
            self.failed(client.call("write_child_memory", parent_memory_id=child["id"], **reply), re.compile(r"\(parent_is_child\)$"))
            self.failed(client.call("write_child_memory", parent_memory_id=UNKNOWN, **reply), re.compile(r"\(parent_not_found\)$"))
            self.failed(client.call("write_child_memory", parent_memory_id=trashed["id"], **reply), re.compile(r"\(parent_not_found\)$"))
            self.failed(client.call("write_memory", allowed_vendors=["nobody"], **reply), 'Invalid vendor in allowed_vendors. Valid: "*", "claude", "cursor"')
            self.failed(client.call("get_graph_around", memory_id=UNKNOWN), "Memory not found")

    def test_pin_wrong_arguments_and_unknown_tools_are_results_with_32602(self):
        secret = unique("secret")
        for client in self.both:
            for tool, arguments in (
                ("write_memory", {}), ("write_memory", {"title": secret}), ("write_memory", {"title": 1, "content": "c"}),
                ("write_memory", {"title": "", "content": "c"}), ("write_memory", {"title": "t", "content": "c", "tags": secret}),
                ("write_memory", {"title": "t" * 501, "content": "c"}), ("write_memory", {"title": "t", "content": "c", "memory_type": secret}),
                ("read_memories", {"limit": 51}), ("read_memories", {"limit": 0}), ("read_memories", {"limit": "2"}), ("browse_memories", {"limit": 201}),
                ("browse_memories", {"scope": secret}), ("search_memories", {"term": ""}), ("get_memories_by_tag", {"tags": []}),
                ("get_graph_around", {"memory_id": UNKNOWN, "min_shared_tags": 11}), ("get_topic_cluster", {"tag": secret, "limit": 51}),
                ("get_memory_briefing", {"format": secret}), ("get_memory_by_id", {"id": [secret]}),
            ):
                with self.subTest(tool, arguments=arguments):
                    result = client.call(tool, **arguments)
                    self.failed(result, re.compile(f"-32602.*{tool}: arguments"))
                    self.assertNotIn(secret, text(result))
        self.failed(self.both[0].call(secret), re.compile("-32602"))
        self.assertNotIn(secret, text(self.both[0].call(secret)))
        # The modern era's own rule: no such tool is no call.
        answer = self.rpc(self.both[1].ask("tools/call", {"name": secret, "arguments": {}}), 200, -32602)
        self.assertNotIn(secret.encode(), answer.body)

    def test_unknown_arguments_are_dropped(self):
        for client in self.both:
            result = client.call("write_memory", title=unique(), content="c", __proto__={}, user_id=UNKNOWN, origin="api", vendor="claude")
            self.assertEqual(result["structuredContent"]["origin"], "cursor")
            self.assertNotIn("isError", client.call("get_latest_memory", nonsense=1))

    def test_vendor_gating_is_that_of_rest(self):
        word = unique("gated")
        hidden = self.owner.remember(word, word, tags=[word, "g"], allowed_vendors=["claude"])
        seen = self.owner.remember(word + "2", f"{word} and {hidden['id']}", tags=[word, "g"])
        for client in self.both:
            self.failed(client.call("get_memory_by_id", id=hidden["id"]), "Memory not found")
            self.failed(client.call("read_thread", memory_id=hidden["id"]), "Memory not found")
            self.failed(client.call("get_graph_around", memory_id=hidden["id"]), "Memory not found")
            self.failed(client.call("update_memory", id=hidden["id"], title="t", content="c"), "Memory not found")
            self.failed(client.call("delete_memory", id=hidden["id"]), "Memory not found")
            self.failed(client.call("write_child_memory", parent_memory_id=hidden["id"], title="t", content="c"), re.compile(r"\(parent_not_found\)$"))
            narrow = self.owner.remember(unique(), unique(), allowed_vendors=["cursor"])
            reply = client.call("write_child_memory", parent_memory_id=narrow["id"], title="t", content=unique())
            self.assertEqual(reply["structuredContent"]["allowed_vendors"], ["cursor"], "a reply was open to all")
            self.failed(client.call("update_memory", id=seen["id"], title="t", content="c"), "Agents can only update memories they created")
            self.failed(client.call("delete_memory", id=seen["id"]), "Agents can only delete memories they created")
            for tool, arguments in (("read_memories", {}), ("browse_memories", {}), ("search_memories", {"term": word}), ("get_memories_by_tag", {"tags": [word]}),
                                    ("get_topic_cluster", {"tag": word}), ("search_memories", {"term": word, "ranked": True}),
                                    ("get_graph_around", {"memory_id": seen["id"], "min_shared_tags": 1})):
                found = json.dumps(client.call(tool, **arguments)["structuredContent"])
                self.assertIn(seen["id"], found, tool)
                self.assertNotIn(f'"id": "{hidden["id"]}"', found, tool)
            self.assertEqual(client.call("get_memories_by_tag", tags=[word])["structuredContent"]["total"], 1)
        self.assertIn(hidden["id"], text(Legacy(self.claude).call("search_memories", term=word)))

    def test_what_belongs_to_another_person_is_not_there(self):
        theirs = self.others[OTHER].remember(unique("theirs"), "theirs alone", tags=["theirs"])
        for client in self.both:
            for tool, arguments in (("get_memory_by_id", {"id": theirs["id"]}), ("read_thread", {"memory_id": theirs["id"]}),
                                    ("get_graph_around", {"memory_id": theirs["id"]}), ("delete_memory", {"id": theirs["id"]}),
                                    ("update_memory", {"id": theirs["id"], "title": "t", "content": "c"})):
                self.assertEqual(client.call(tool, **arguments), client.call(tool, **arguments | {k: UNKNOWN for k in arguments if k.endswith("id")}), tool)
                self.failed(client.call(tool, **arguments), "Memory not found")
            mine = client.call("write_memory", title=unique(), content=f"names {theirs['id']}", tags=["theirs"])["structuredContent"]
            near = client.call("get_graph_around", memory_id=mine["id"], min_shared_tags=1)["structuredContent"]
            self.assertEqual((near["references"], [node for node in near["tag_similar"] if node["id"] == theirs["id"]]), ([], []))
            self.assertNotIn(theirs["id"], json.dumps(client.call("get_topic_cluster", tag="theirs")))


class Sessions(McpCase):
    def test_pin_initialize_opens_a_session_and_briefs(self):
        word = unique("tag")
        self.cursor.remember(tags=[word], path="/agent/memories", allowed_vendors=["*"])
        for version in LEGACY:
            session = Legacy(self.cursor, version)
            self.assertRegex(session.session, r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$")
            found = session.initialized
            self.assertEqual(found["protocolVersion"], version)
            self.assertEqual((found["serverInfo"]["name"], found["serverInfo"]["version"]), ("reflect-memory", "1.0.0"))
            self.assertEqual(found["capabilities"], {"tools": {}, "logging": {}})
            self.assertRegex(found["instructions"], "^# ")
            self.assertIn(word, found["instructions"])
            self.assertEqual(session.ask("ping").expect(200).json["result"], {})
        for asked in ("2026-07-28", "2099-01-01", "x"):
            params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}
            answer = Legacy(self.cursor, initialize=False).send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
            self.assertEqual(answer.expect(200).json["result"]["protocolVersion"], "2025-11-25")

    def test_instructions_show_a_vendor_only_what_it_may_see(self):
        word = unique("hiddentag")
        self.owner.remember(tags=[word], allowed_vendors=["claude"])
        self.assertNotIn(word, Legacy(self.cursor).initialized["instructions"])
        self.assertIn(word, Legacy(self.claude).initialized["instructions"])
        self.assertNotIn(word, Modern(self.cursor).ask("server/discover").json["result"]["instructions"])

    def test_methods_of_the_legacy_era(self):
        session = Legacy(self.cursor)
        for level in ("debug", "emergency"):
            self.assertEqual(session.ask("logging/setLevel", {"level": level}).expect(200).json["result"], {})
        self.rpc(session.ask("logging/setLevel", {"level": "loud"}), 200, -32602)
        self.rpc(session.ask("logging/setLevel"), 200, -32602)
        for method in ("resources/list", "resources/templates/list", "prompts/list", "completion/complete", "server/discover", "nonsense", ""):
            self.rpc(session.ask(method), 200, -32601)
        self.rpc(session.ask("tools/list", {"cursor": "x"}), 200, -32602)
        for params in ({}, {"name": 1}, {"name": "read_memories", "arguments": []}, {"name": "read_memories", "arguments": "x"}):
            self.rpc(session.ask("tools/call", params), 200, -32602)
        self.assertEqual(session.ask("tools/call", {"name": "read_memories"}).expect(200).json["result"].get("isError"), None)
        for method in ("notifications/initialized", "notifications/cancelled", "notifications/other"):
            answer = session.send({"jsonrpc": "2.0", "method": method, "params": {"requestId": 1}}).expect(202)
            self.assertEqual(answer.body, b"")
        session.send({"jsonrpc": "2.0", "id": 9, "result": {}}).expect(202)

    def test_pin_a_session_is_needed_and_an_unknown_one_is_404(self):
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        nobody = Legacy(self.cursor, initialize=False)
        self.rpc(nobody.send(listing), 400, -32000)
        self.rpc(nobody.send({"jsonrpc": "2.0", "method": "notifications/initialized"}), 400, -32000)
        for unknown in (UNKNOWN, "x", "", secrets.token_hex(2000), Legacy(self.cursor).session.upper()):
            answer = self.rpc(nobody.send(listing, **{"Mcp-Session-Id": unknown}), 404, -32000)
            self.assertRegex(answer.json["error"]["message"], "^Session not found")
            self.assertNotIn(unknown.encode() or b"\0", answer.body)
        session = Legacy(self.cursor)
        self.rpc(session.send(listing, **{"MCP-Protocol-Version": "2026-01-01"}), 400, -32000)
        self.rpc(session.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}), 400, -32600)
        for params in ({}, {"protocolVersion": 1, "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}},
                       {"protocolVersion": "2025-11-25", "clientInfo": {"name": "n", "version": "1"}}, {"protocolVersion": "2025-11-25", "capabilities": {}}):
            answer = self.rpc(nobody.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}), 400, -32602)
            self.assertNotIn("mcp-session-id", answer.headers)

    def test_a_session_is_its_openers_alone(self):
        mine = Legacy(self.cursor)
        with self.server.client(self.server.user_keys[OTHER]) as stranger, self.server.client(self.server.owner_key) as person:
            for thief in (self.claude, stranger, person):
                stolen = Legacy(thief, initialize=False)
                stolen.session = mine.session
                foreign = self.rpc(stolen.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), 404, -32000)
                stolen.session = UNKNOWN
                self.assertEqual(foreign.body, stolen.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).body, "a foreign session is one that never was")
                for method in ("GET", "DELETE"):
                    self.rpc(thief.request(method, "/mcp", headers={"Accept": BOTH, "Mcp-Session-Id": mine.session}), 404, -32000)
        mine.ask("ping").expect(200)

    def test_delete_ends_a_session(self):
        session = Legacy(self.cursor)
        self.rpc(self.cursor.delete("/mcp"), 400, -32000)
        self.assertEqual(self.cursor.delete("/mcp", headers=session.headers()).expect(200).body, b"")
        self.rpc(session.ask("ping"), 404, -32000)
        self.rpc(self.cursor.delete("/mcp", headers=session.headers()), 404, -32000)

    def stream(self, session):
        client = self.server.agent("cursor")
        client.connection.request("GET", "/mcp", headers={"Authorization": f"Bearer {client.token}", **session.headers()})
        # A stream ends with its connection, and http.client closes one whose answer has no length: the answer keeps the socket.
        response = client.connection.getresponse()
        self.assertEqual((response.status, response.headers["content-type"]), (200, "text/event-stream"))
        self.addCleanup(response.close)
        return response

    def test_a_stream_is_open_for_as_long_as_its_session_is_and_is_its_newest(self):
        session = Legacy(self.cursor)
        self.rpc(self.cursor.get("/mcp", headers={"Accept": BOTH}), 400, -32000)
        self.rpc(self.cursor.get("/mcp", headers=session.headers(Accept="application/json")), 406, -32000)
        first = self.stream(session)
        second = self.stream(session)
        self.assertEqual(first.read(), b"", "a newer stream ends the older one")
        session.ask("ping").expect(200)
        self.cursor.delete("/mcp", headers=session.headers()).expect(200)
        self.assertEqual(second.read(), b"")

    def test_asking_for_the_head_ends_no_stream(self):
        """HEAD opened a stream that nobody read, and so ended the one that was read."""
        session = Legacy(self.cursor)
        stream = self.stream(session)
        head = self.cursor.request("HEAD", "/mcp", headers=session.headers())
        self.assertEqual((head.status, head.headers["allow"], head.body), (405, "DELETE, GET, POST", b""))
        self.assertEqual(select.select([stream], [], [], 2.5)[0], [], "it is still open")

    def test_pin_both_media_types_must_be_accepted(self):
        session = Legacy(self.cursor)
        for accept in ("application/json", "text/event-stream", "*/*", "", "application/json;q=0, text/event-stream"):
            self.rpc(session.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, Accept=accept), 406, -32000)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
            answer = self.cursor.post("/mcp", raw=b'{"jsonrpc":"2.0","id":1,"method":"ping"}', headers=session.headers(**{"Content-Type": kind}))
            self.rpc(answer, 415, -32000)
        self.assertEqual(self.cursor.put("/mcp", {}).status, 405)

    def test_what_is_no_message_is_refused(self):
        session = Legacy(self.cursor)
        for raw, code in (
            (b"", -32700), (b"{", -32700), (b"\xff", -32700), (b'{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}', -32700),
            (b"[" * 100_000, -32700), (b'{"a":' * 50_000, -32700), (b"1", -32600), (b'"x"', -32600), (b"null", -32600), (b"{}", -32600),
            (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600), (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
            (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600), (b'{"jsonrpc":"2.0","id":1,"method":["ping"]}', -32600),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32602),
        ):
            with self.subTest(raw[:60]):
                answer = self.cursor.post("/mcp", raw=raw, headers=session.headers(**{"Content-Type": "application/json"}))
                self.rpc(answer, 400, code)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
        limit = 262_144
        self.cursor.post("/mcp", raw=body + b" " * (limit - len(body)), headers=session.headers(**{"Content-Type": "application/json"})).expect(200)
        self.cursor.post("/mcp", raw=body + b" " * (limit + 1 - len(body)), headers=session.headers(**{"Content-Type": "application/json"})).expect(413)
        self.owner.get("/whoami").expect(200)

    def test_batches_are_answered_by_the_versions_that_know_them(self):
        def ping(n):
            return {"jsonrpc": "2.0", "id": n, "method": "ping"}
        for version in LEGACY[:2]:
            self.rpc(Legacy(self.cursor, version).send([ping(1)]), 400, -32600)
        for version in LEGACY[2:]:
            session = Legacy(self.cursor, version)
            call = {"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {"name": "write_memory", "arguments": {"title": unique(), "content": "c"}}}
            batch = [ping(1), {"jsonrpc": "2.0", "method": "notifications/x"}, call, 7, {"jsonrpc": "2.0", "id": 3, "method": "nonsense"},
                     {"jsonrpc": "2.0", "id": 4, "method": "initialize"}]
            answers = session.send(batch).expect(200).json
            self.assertEqual([answer.get("id") for answer in answers], [1, "c", None, 3, 4])
            self.assertEqual(answers[0]["result"], {})
            self.assertEqual(answers[1]["result"]["structuredContent"]["origin"], "cursor")
            self.assertEqual([answer["error"]["code"] for answer in answers[2:]], [-32600, -32601, -32600])
            session.send([{"jsonrpc": "2.0", "method": "notifications/x"}]).expect(202)
            self.rpc(session.send([]), 400, -32600)
            self.rpc(session.send([ping(n) for n in range(21)]), 400, -32600)
            self.assertEqual(len(session.send([ping(n) for n in range(20)]).expect(200).json), 20)
            self.rpc(Legacy(self.cursor, initialize=False).send([ping(1)]), 400, -32000)

    def test_events_tell_of_what_mcp_writes(self):
        with self.server.client(self.server.owner_key) as watcher:
            watcher.connection.request("GET", "/events", headers={"Authorization": f"Bearer {watcher.token}", "Accept": "text/event-stream"})
            response = watcher.connection.getresponse()
            self.assertEqual(response.readline(), b"event: hello\n")
            record = self.both[0].call("write_memory", title=unique(), content="told")["structuredContent"]
            for _ in range(20):
                if (line := response.readline()).startswith(b"data: ") and b"memory.created" in line:
                    break
            self.assertEqual(json.loads(line[6:])["memory_id"], record["id"])
            response.close()


class ModernEra(McpCase):
    def setUp(self):
        super().setUp()
        self.client = self.both[1]

    def test_discover_says_what_is_here(self):
        found = self.client.ask("server/discover").expect(200).json["result"]
        self.assertEqual((found["supportedVersions"], found["capabilities"], found["resultType"]), ([MODERN], {"tools": {}}, "complete"))
        self.assertEqual((found["cacheScope"], found["ttlMs"] >= 0), ("private", True), "a briefing is one person's")
        self.assertEqual(found["_meta"][f"{META}serverInfo"]["name"], "reflect-memory")
        self.assertRegex(found["instructions"], "^# ")

    def test_no_session_is_opened_or_looked_at(self):
        answer = self.client.ask("tools/list", headers={"Mcp-Session-Id": UNKNOWN}).expect(200)
        self.assertNotIn("mcp-session-id", answer.headers)

    def test_meta_is_required(self):
        whole = self.client.meta()
        for missing in ("protocolVersion", "clientCapabilities"):
            self.rpc(self.client.ask("tools/list", meta={key: value for key, value in whole.items() if not key.endswith(missing)}), 400, -32602)
        self.rpc(self.client.ask("tools/list", meta={}), 400, -32602)
        self.rpc(self.client.ask("tools/list", meta={**whole, f"{META}clientCapabilities": []}), 400, -32602)
        self.rpc(self.client.ask("tools/list", meta={**whole, f"{META}logLevel": "loud"}), 400, -32602)
        self.client.ask("tools/list", meta={key: value for key, value in whole.items() if not key.endswith("clientInfo")}).expect(200)

    def test_header_fields_must_say_what_the_body_says(self):
        record = self.client.call("write_memory", title=unique(), content="c")["structuredContent"]
        call = ("tools/call", {"name": "delete_memory", "arguments": {"id": record["id"]}})
        for headers in ({"Mcp-Name": "read_memories"}, {"Mcp-Name": None}, {"Mcp-Method": "tools/list"}, {"Mcp-Method": None}, {"Mcp-Method": "TOOLS/CALL"},
                        {"MCP-Protocol-Version": None}, {"MCP-Protocol-Version": "2025-11-25"}, {"Mcp-Name": "=?base64?!!?="}, {"Mcp-Name": "delete_memory2"}):
            with self.subTest(headers=headers):
                self.rpc(self.client.ask(*call, headers=headers), 400, -32020)
        self.client.call("get_memory_by_id", id=record["id"])
        self.client.ask(*call, headers={"Mcp-Name": "=?base64?ZGVsZXRlX21lbW9yeQ==?="}).expect(200)

    def test_an_unknown_version_is_told_which_are_known(self):
        meta = {**self.client.meta(), f"{META}protocolVersion": "1900-01-01"}
        answer = self.rpc(self.client.ask("tools/list", meta=meta, headers={"MCP-Protocol-Version": "1900-01-01"}), 400, -32022)
        self.assertEqual(answer.json["error"]["data"], {"supported": [MODERN], "requested": "1900-01-01"})
        self.rpc(self.client.ask("tools/list", meta=meta), 400, -32020)

    def test_methods_that_are_gone_are_404(self):
        for method in ("initialize", "ping", "logging/setLevel", "resources/list", "resources/subscribe", "prompts/list", "subscriptions/listen", "nonsense"):
            self.rpc(self.client.ask(method), 404, -32601)

    def test_get_and_delete_are_405(self):
        for method in ("GET", "DELETE"):
            answer = self.cursor.request(method, "/mcp", headers={"Accept": BOTH, "MCP-Protocol-Version": MODERN})
            self.rpc(answer, 405, -32000)
            self.assertEqual(answer.headers["allow"], "POST")

    def test_batches_and_responses_are_refused_and_notifications_taken(self):
        headers = {"Accept": BOTH, "MCP-Protocol-Version": MODERN}
        self.assertEqual(self.rpc(self.cursor.post("/mcp", [{}], headers=headers), 400, -32600).status, 400)
        answer = self.rpc(self.cursor.post("/mcp", {"jsonrpc": "2.0", "id": 1, "result": {}}, headers=headers), 400, -32600)
        self.assertNotIn("id", answer.json, "the modern era leaves out an id that is not known")
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        self.assertEqual(self.cursor.post("/mcp", note, headers=headers).expect(202).body, b"")
        self.rpc(self.cursor.post("/mcp", note, headers=headers | {"Mcp-Method": "tools/call"}), 400, -32020)

    def test_a_foreign_origin_is_403(self):
        self.assertEqual(self.cursor.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": self.client.meta()}},
                                          headers=self.client.headers("server/discover", {}) | {"Origin": "https://evil.example"}).status, 403)


class Credentials(McpCase):
    def discover(self, client):
        return client.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": self.both[1].meta()}},
                           headers=self.both[1].headers("server/discover", {}))

    def test_pin_who_is_not_known_is_told_where_to_get_a_credential(self):
        revoked = self.owner.post("/api/keys", {"label": "short"}).expect(200).json
        self.owner.delete(f"/api/keys/{revoked['id']}").expect(200)
        for token in (None, "", "nonsense", revoked["key"], "rmk_" + "0" * 32, "rma_" + "0" * 32, self.server.api_key):
            with self.server.client(token) as client:
                for answer in (self.discover(client), client.get("/mcp"), client.delete("/mcp"), client.post("/mcp", [])):
                    self.assertEqual((answer.status, answer.json["error"]), (401, "invalid_token"), token)
                    self.assertEqual(set(answer.json), {"error", "error_description"})
                    self.assertRegex(answer.headers["www-authenticate"], r'^Bearer error="invalid_token", error_description="[^"]*", '
                                     r'resource_metadata="https://[^"]*/\.well-known/oauth-protected-resource/mcp"$')

    def test_pin_a_user_key_speaks_for_the_tool_that_its_label_names(self):
        for label, vendor in (("My Cursor key", "cursor"), ("CLAUDE desktop", "claude"), ("chatgpt", "chatgpt"), ("Gemini", "gemini"), ("grok 4", "grok"),
                              ("n8n", "n8n"), ("Ward 3", "apikey")):
            made = self.owner.post("/api/keys", {"label": label}).expect(200).json
            with self.server.client(made["key"]) as client:
                record = Legacy(client).call("write_memory", title=unique(), content="c")["structuredContent"]
                self.assertEqual(record["origin"], vendor, label)
                self.assertEqual(client.get("/whoami").json["role"], "user", "elsewhere it is what it was")
        hidden = self.owner.remember(unique(), allowed_vendors=["claude"])
        for label, seen in (("claude", True), ("cursor", False), ("other", False)):
            made = self.owner.post("/api/keys", {"label": label}).expect(200).json
            with self.server.client(made["key"]) as client:
                self.assertEqual("isError" not in Modern(client).call("get_memory_by_id", id=hidden["id"]), seen, label)

    def test_a_dashboard_is_not_let_in_and_makes_nobody_known(self):
        with Server(settings=DASHBOARD) as server, server.client(KEY) as dashboard, server.client(server.owner_key) as owner:
            for email in (OWNER, "somebody.new@clinic.example"):
                for message, headers in ((self.both[1].meta(), self.both[1].headers("tools/list", {})), ({}, {"Accept": BOTH})):
                    sent = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": message}}
                    answer = dashboard.post("/mcp", sent, headers=headers | {"X-Dashboard-Token": token(email)}).expect(401)
                    self.assertEqual(answer.json["error"], "invalid_token")
            self.assertEqual([user["email"] for user in owner.get("/admin/users").expect(200).json["users"]], [OWNER])

    def test_a_user_key_reaches_its_own_persons_memories_alone(self):
        theirs = self.others[OTHER].remember(unique("theirs"))
        with self.server.client(self.server.user_keys[OTHER]) as client:
            self.assertIn(theirs["id"], text(Modern(client).call("read_memories")))
            self.assertNotIn("isError", Modern(client).call("get_memory_by_id", id=theirs["id"]))
        with self.server.client(self.server.owner_key) as client:
            self.failed(Modern(client).call("get_memory_by_id", id=theirs["id"]), "Memory not found")

    def test_a_revocation_holds_for_the_next_message_and_ends_the_stream(self):
        made = self.owner.post("/api/keys", {"label": "claude"}).expect(200).json
        with self.server.client(made["key"]) as client:
            session = Legacy(client)
            stream = self.server.client(made["key"])
            stream.connection.request("GET", "/mcp", headers={"Authorization": f"Bearer {made['key']}", **session.headers()})
            response = stream.connection.getresponse()
            self.assertEqual(response.status, 200)
            self.owner.delete(f"/api/keys/{made['id']}").expect(200)
            self.assertEqual(session.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}).status, 401)
            self.assertEqual(response.read(), b"")
            response.close()


class Audit(McpCase):
    def test_every_message_has_its_entry_under_its_own_verb(self):
        legacy, modern = self.both
        record = legacy.call("write_memory", title=unique(), content="c", tags=["audited"])["structuredContent"]
        batched = Legacy(self.cursor, "2025-03-26")
        asked = [
            ("memory.create", legacy.ask("tools/call", {"name": "write_memory", "arguments": {"title": unique(), "content": "c"}})),
            ("memory.read", modern.ask("tools/call", {"name": "get_memory_by_id", "arguments": {"id": record["id"]}})),
            ("memory.read", legacy.ask("tools/call", {"name": "get_memory_by_id", "arguments": {"id": UNKNOWN}})),
            ("memory.list", legacy.ask("tools/call", {"name": "browse_memories"})),
            ("memory.search", legacy.ask("tools/call", {"name": "search_memories", "arguments": {"term": "x"}})),
            ("memory.thread", legacy.ask("tools/call", {"name": "read_thread", "arguments": {"memory_id": record["id"]}})),
            ("memory.around", legacy.ask("tools/call", {"name": "get_graph_around", "arguments": {"memory_id": record["id"]}})),
            ("memory.around", legacy.ask("tools/call", {"name": "get_topic_cluster", "arguments": {"tag": "audited"}})),
            ("memory.brief", legacy.ask("tools/call", {"name": "get_memory_briefing"})),
            ("memory.reply", legacy.ask("tools/call", {"name": "write_child_memory", "arguments": {"parent_memory_id": record["id"], "title": "t", "content": "c"}})),
            ("memory.update", legacy.ask("tools/call", {"name": "update_memory", "arguments": {"id": record["id"], "title": "t", "content": "c"}})),
            ("memory.trash", legacy.ask("tools/call", {"name": "delete_memory", "arguments": {"id": record["id"]}})),
            ("memory.list", legacy.ask("tools/call", {"name": "read_team_memories"})),
            ("memory.create", legacy.ask("tools/call", {"name": "write_memory", "arguments": {"title": 1}})),
            ("mcp.call", legacy.ask("tools/call", {"name": "nonsense"})),
            ("mcp.call", legacy.ask("nonsense")),
            ("mcp.call", modern.ask("tools/list", headers={"Mcp-Method": "x"})),
            ("mcp.tools", modern.ask("tools/list")),
            ("mcp.discover", modern.ask("server/discover")),
            ("mcp.ping", legacy.ask("ping")),
            ("mcp.level", legacy.ask("logging/setLevel", {"level": "info"})),
            ("mcp.notify", legacy.send({"jsonrpc": "2.0", "method": "notifications/x"})),
            ("mcp.ping", batched.send([{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 2, "method": "ping"}])),
            ("mcp.end", self.cursor.delete("/mcp", headers=batched.headers())),
        ]
        entries = self.entries()
        for verb, answer in asked:
            entry = entries[answer.audit_index]
            self.assertEqual(entry["op"], verb, entry)
            self.assertEqual((entry["actor"]["kind"], entry["actor"]["vendor"], entry["role"]), ("agent", "cursor", "agent"))
        self.assertEqual(entries[asked[1][1].audit_index]["res"]["ids"], [record["id"]])
        missing = entries[asked[2][1].audit_index]
        self.assertEqual((missing["decision"], missing["outcome"], missing["status"]), ("deny", "refused", 404))
        wrong = entries[asked[13][1].audit_index]
        self.assertEqual((wrong["outcome"], wrong["reason"], wrong["status"]), ("refused", "schema", 400))
        ping = [entry for i, entry in entries.items() if entry["op"] == "mcp.ping" and i in (asked[22][1].audit_index - 1, asked[22][1].audit_index)]
        self.assertEqual(len(ping), 2, "each message of a batch has its own")
        self.assertEqual(len({entry["opid"] for entry in ping}), 2)
        initialize = [entry for entry in entries.values() if entry["op"] == "mcp.initialize"]
        self.assertTrue(initialize and all(entry["phi"] for entry in initialize), "a briefing tells of memories")


class Limits(unittest.TestCase):
    def test_a_batch_counts_as_the_requests_it_holds(self):
        with Server(settings={"RM_CREDENTIAL_RATE_LIMIT_PER_MINUTE": "30"}) as server, server.agent("cursor") as client:
            session = Legacy(client, "2025-03-26")
            batch = [{"jsonrpc": "2.0", "id": n, "method": "ping"} for n in range(20)]
            answer = session.send(batch).expect(200)
            self.assertEqual(len(answer.json), 20)
            answer = session.send(batch).expect(429)
            self.assertEqual(answer.json["error"]["code"], -32000)
            self.assertIn("retry-after", answer.headers)
            # None of what was refused was counted, or done.
            self.assertEqual(session.send(batch[:1]).status, 200)
            self.assertEqual(session.send(batch[:2] * 4).status, 429)

    def test_quotas_are_those_of_rest(self):
        with Server(users=(OTHER,), settings={"RM_SANDBOX_MEMORY_CAP": "2"}) as server, server.client(server.user_keys[OTHER]) as client:
            mcp = Modern(client)
            for _ in range(2):
                parent = mcp.call("write_memory", title=unique(), content="c")["structuredContent"]
            full = mcp.call("write_memory", title=unique(), content="c")
            reply = mcp.call("write_child_memory", parent_memory_id=parent["id"], title="t", content="c")
            for refused in (full, reply):
                self.assertEqual((refused.get("isError"), text(refused)), (True, "Memory limit reached"))
            self.assertNotIn("isError", mcp.call("update_memory", id=parent["id"], title="t", content="other"))
            self.assertEqual(client.get("/usage").json["memory_count"], 2)
            with server.agent("cursor") as owners:
                self.assertNotIn("isError", Modern(owners).call("write_memory", title=unique(), content="c"), "the owner has no cap")

    def test_unknown_credentials_count_against_their_address(self):
        with Server(settings={"RM_RATE_LIMIT_PER_MINUTE": "3"}) as server, server.client("nonsense") as client:
            for _ in range(3):
                client.post("/mcp", {}).expect(401)
            self.assertEqual(client.post("/mcp", {}).expect(429).json["error"]["code"], -32000)
            with server.client(server.api_key) as owner:
                owner.post("/mcp", {}).expect(429)

    def test_beyond_a_persons_bound_their_oldest_session_ends_and_its_client_begins_again(self):
        with Server(users=(OTHER,)) as server, server.agent("cursor") as greedy, server.client(server.user_keys[OTHER]) as other:
            modest, first = Legacy(other), Legacy(greedy)
            for _ in range(100):
                Legacy(greedy)
            self.assertEqual(first.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}).status, 404)
            Legacy(greedy).ask("ping").expect(200)
            modest.ask("ping").expect(200)

    @unittest.skipUnless(LONG, "500 sessions")
    def test_who_fills_all_sessions_shuts_nobody_out(self):
        people = [f"{n}@clinic.example" for n in range(6)]
        with Server(users=people) as server:
            clients = [server.client(server.user_keys[email]) for email in people]
            modest = Legacy(clients[0])
            for client in clients[1:]:
                for _ in range(100):
                    Legacy(client)
            with server.agent("claude") as late:
                Legacy(late).ask("ping").expect(200)
            modest.ask("ping").expect(200)
            for client in clients:
                client.close()

    def test_streams_of_one_credential_are_bounded(self):
        with Server() as server, server.agent("cursor") as client:
            responses = []
            for _ in range(4):
                session = Legacy(client)
                stream = server.agent("cursor")
                stream.connection.request("GET", "/mcp", headers={"Authorization": f"Bearer {stream.token}", **session.headers()})
                responses.append(stream.connection.getresponse())
                self.assertEqual(responses[-1].status, 200)
            session = Legacy(client)
            answer = client.get("/mcp", headers=session.headers()).expect(429)
            self.assertEqual(answer.json["error"]["code"], -32000)
            responses[0].close()
            deadline = time.monotonic() + 30
            while (status := self.opened(server, session)) == 429 and time.monotonic() < deadline:
                time.sleep(0.2)
            self.assertEqual(status, 200)
            for response in responses:
                response.close()

    def opened(self, server, session):
        stream = server.agent("cursor")
        stream.connection.request("GET", "/mcp", headers={"Authorization": f"Bearer {stream.token}", **session.headers()})
        response = stream.connection.getresponse()
        self.addCleanup(response.close)
        return response.status


if __name__ == "__main__":
    unittest.main()
