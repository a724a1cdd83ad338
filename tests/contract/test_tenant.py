"""Nobody learns of what is not theirs: every operation that the server describes, tried with every kind of foreign id and name, by every kind of
principal, answers as it does to one that nobody has: status, body, totals, and the time it takes.

The operations come from /openapi.json and from MCP's list of tools: a new route or tool is tried without a line here. A value is put in the place of each path parameter, each query
parameter and each text of the body's example, once as somebody else's and once as nobody's. `ROSEMARY_LONG` tries every value everywhere, and
takes times more often.
"""

import json
import re
import secrets
import statistics
import unittest
from urllib.parse import quote

from rosemary_server import LONG, ServerCase
from test_mcp import Legacy

OTHER, THIRD, FOURTH = "other@clinic.example", "third@clinic.example", "fourth@clinic.example"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What differs between two answers that tell the same: ids and keys drawn, times, and the nonce that keeps writes apart.
VOLATILE = [
    (re.compile(r"rm_live_[0-9a-f]{8,48}"), "<key>"),
    (UUID, "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"zz[b-z]{20}"), "<nonce>"),
    # Whoever writes the same words twice is told so.
    (re.compile(r'"event":"(ADD|NOOP)"'), '"event":"<event>"'),
]
# Counts of one's own uses grow by asking for them; a stream does not end; the log is the administrator's.
LEFT_OUT = {"getUsageByMonth", "watchMemories"}
# These ask for nothing that has an owner, and belong to their own tests.
PUBLIC = ("/authorize", "/token", "/register", "/revoke", "/oauth/", "/.well-known/", "/health", "/openapi.json", "/mcp")


def word():
    """A word that no text has parts of in common with."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz") for _ in range(20))


def nobodys(value):
    """A value of the same form that nobody has."""
    if UUID.fullmatch(value):
        return value[:24] + secrets.token_hex(6)
    return word()


def same_form(answer, sent):
    """What an answer tells, whatever was sent and drawn."""
    text = answer.body.decode()
    for form in {sent, quote(sent), json.dumps(sent)[1:-1]} if sent else ():
        text = text.replace(form, "<sent>")
    for pattern, name in VOLATILE:
        text = pattern.sub(name, text)
    return answer.status, answer.headers.get("content-type"), text


def leaves(value, at=()):
    """The places of the texts in a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*at, index))
    elif isinstance(value, str):
        yield at


def put_at(value, at, new):
    """The value with another text at that place."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = put_at(value[at[0]], at[1:], new)
    return copy


class Operation:
    """One row of the document: how it is asked, and where a value may be put."""

    def __init__(self, path, method, described):
        self.path, self.method, self.id = path, method.upper(), described["operationId"]
        self.names = re.findall(r"\{([^}]*)\}", path)
        self.query = [p["name"] for p in described.get("parameters", []) if p.get("in") == "query" and p["schema"].get("type") == "string" and "enum" not in p["schema"]]
        content = described.get("requestBody", {}).get("content", {})
        self.media, self.body = next(((media, c.get("example")) for media, c in content.items()), (None, None))
        self.reads = self.method == "GET" or self.id.startswith(("list", "search", "read", "browse", "get", "rank", "mem0List", "mem0Search", "query"))

    def places(self):
        yield from (("path", name) for name in self.names)
        yield from (("query", name) for name in self.query)
        # What a filter chooses by is one of its words, not a name.
        yield from (("body", at) for at in leaves(self.body) if at[-1] not in ("by", "role"))

    def ask(self, client, scheme, place, value):
        """Asks with `value` at `place`; elsewhere stand values of nobody's, and text that no two writes share."""
        path = self.path
        for name in self.names:
            path = path.replace(f"{{{name}}}", quote(value if place == ("path", name) else "01890000-0000-7000-8000-000000000000", safe=""))
        if place and place[0] == "query":
            path += f"?{place[1]}={quote(value, safe='')}"
        body = self.body
        if isinstance(body, dict):
            for at in leaves(body):
                if at[-1] in ("content", "text"):
                    body = put_at(body, at, f"zz{word()}")
        if place and place[0] == "body":
            body = put_at(body, place[1], value)
        headers = {"Authorization": f"{scheme} {client.token}"}
        if self.media and self.media != "application/json":
            return client.request(self.method, path, raw=json.dumps(body).encode(), headers={**headers, "Content-Type": self.media})
        return client.request(self.method, path, body, headers=headers)


class Tool:
    """One tool of MCP: how it is called, and where a value may be put."""

    def __init__(self, described):
        self.name, schema = described["name"], described["inputSchema"]
        self.reads = bool(described["annotations"].get("readOnlyHint"))
        self.texts, self.base = [], {}
        for key, value in schema["properties"].items():
            listed = value.get("type") == "array"
            if "enum" not in value and (value.get("type") == "string" or listed and value["items"].get("type") == "string"):
                self.texts.append((key, listed))
            if key in schema.get("required", ()):
                self.base[key] = "01890000-0000-7000-8000-000000000000" if key == "id" or key.endswith("_id") else [f"zz{word()}"] if listed else f"zz{word()}"

    def call(self, session, key, listed, value):
        # No two calls say the same, so that none is united with another.
        fresh = {name: f"zz{word()}" if str(stands).startswith("zz") else stands for name, stands in self.base.items()}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": self.name, "arguments": fresh | {key: [value] if listed else value}}}
        return session.send(message)


class TenantCase(ServerCase):
    options = {"users": (OTHER, THIRD, FOURTH)}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Operations have ids that only their callers and the log know.
        for client in (cls.owner, cls.others[OTHER]):
            client.remember(word())
        cls.server.stop()
        bundle = cls.server.folder / "log.ndjson"
        assert cls.server.run("audit", "export", str(bundle)).returncode == 0
        entries = [json.loads(line) for line in bundle.read_bytes().splitlines() if b'"op":' in line]
        written = [entry["opid"] for entry in entries if entry["op"] == "memory.create"]
        cls.server.start()
        cls.owner = cls.server.client(cls.server.owner_key)
        cls.agents = {vendor: cls.server.agent(vendor) for vendor in cls.server.agent_keys}
        cls.others = {user: cls.server.client(key) for user, key in cls.server.user_keys.items()}
        for client in (cls.owner, *cls.agents.values(), *cls.others.values()):
            cls.addClassCleanup(client.close)
        cls.operation_of = {cls.owner.token: written[0], cls.others[OTHER].token: written[1]}
        assert cls.owner.get(f"/api/v1/operations/{written[0]}").expect(200).json["outcome"] == "committed"
        document = cls.owner.get("/openapi.json").expect(200).json
        cls.operations = [
            Operation(path, method, described)
            for path, item in document["paths"].items() if not path.startswith(PUBLIC)
            for method, described in item.items() if described["operationId"] not in LEFT_OUT
        ]
        # What creates and changes comes last: what it leaves behind is the asker's own.
        cls.operations.sort(key=lambda operation: not operation.reads)
        # What administrators alone may do is theirs to do to anybody.
        third = cls.others[THIRD]
        cls.lawful = {operation.id for operation in cls.operations if cls.admin_only(operation, third)}

    @classmethod
    def fill(cls, client, **more):
        """Somebody's things of every kind: what they are called."""
        names = {kind: word() for kind in ("subject", "tag", "run", "agent", "app", "text", "speaker", "label")}
        write = lambda text: client.post("/memories", {
            "title": f"About {text}", "content": f"It says {text}", "tags": [names["tag"]], "subject": names["subject"], "run_id": names["run"],
            "speaker": names["speaker"], "metadata": {"agent_id": names["agent"], "app_id": names["app"]}, **more,
        }).expect(201).json
        memory, trashed = write(names["text"]), write(word())
        reply = client.post(f"/memories/{memory['id']}/children", {"title": "Reply", "content": word(), "tags": [names["tag"]], **more}).expect(201).json
        client.put(f"/memories/{memory['id']}", {"title": f"About {names['text']}", "content": "Changed", "tags": [names["tag"]], "allowed_vendors": memory["allowed_vendors"]}).expect(200)
        client.delete(f"/memories/{trashed['id']}").expect(200)
        things = {"memory": memory["id"], "trashed": trashed["id"], "reply": reply["id"], **names}
        things["person"] = client.get("/users/me").json["id"]
        things["operation"] = cls.operation_of.get(client.token, "01890000-0000-4000-8000-000000000000")
        things["key"] = client.post("/api/keys", {"label": names["label"]}).expect(200).json["id"]
        return things

    def compare(self, askers, scheme="Bearer", only=lambda operation: True):
        """Every operation with every foreign value in every place, by each asker: pairs of a client and what is foreign to it. What reads comes
        first, for all of them: what they write holds the values that they were given."""
        plan = [(operation, client, foreign) for operation in self.operations if only(operation) for client, foreign in askers]
        return sum(self.compare_one(operation, client, foreign, scheme) for operation, client, foreign in plan)

    def compare_one(self, operation, client, foreign, scheme):
        tried = 0
        administers = client.token in (self.server.owner_key, self.server.api_key)
        if not (administers and operation.id in self.lawful):
            for place in operation.places():
                known = {}
                kinds = foreign if LONG or place[0] == "path" else self.fitting(operation, place, foreign)
                for kind in kinds:
                    value = foreign[kind]
                    control, form = nobodys(value), bool(UUID.fullmatch(value))
                    # In a path nothing comes of it: one answer of nobody's stands for all.
                    if place[0] != "path" or form not in known:
                        known[form] = same_form(operation.ask(client, scheme, place, control), control)
                    nobody = known[form]
                    asked = operation.ask(client, scheme, place, value)
                    with self.subTest(operation=operation.id, place=str(place), kind=kind):
                        self.assertEqual(same_form(asked, value), nobody)
                        told = [name for name, other in foreign.items() if other != value and other.encode() in asked.body]
                        self.assertEqual(told, [], "an answer tells of what is not the asker's")
                    tried += 1
        return tried

    @staticmethod
    def admin_only(operation, client):
        """Whether it is refused to a person for not being an administrator."""
        return operation.path.startswith(("/admin/", "/api/v1/")) and operation.ask(client, "Bearer", None, "").status == 403

    def fitting(self, operation, place, foreign):
        """The short form: ids where an id stands, else the names; two of them."""
        example = operation.body
        for step in place[1] if place[0] == "body" else ():
            example = example[step]
        if isinstance(example, str) and UUID.fullmatch(example):
            return ["memory", "trashed"]
        named = {"tags": "tag", "tag": "tag", "subject": "subject", "user_id": "subject", "run_id": "run", "agent_id": "agent", "app_id": "app", "speaker": "speaker"}
        key = next((step for step in reversed(place[1]) if isinstance(step, str)), "") if place[0] == "body" else place[1]
        return [kind for kind in (named.get(key, "text"), "memory") if kind in foreign]

    def compare_tools(self, client, *sets):
        session, tried = Legacy(client), 0
        tools = sorted(map(Tool, session.ask("tools/list").expect(200).json["result"]["tools"]), key=lambda tool: not tool.reads)
        for tool, foreign in ((tool, foreign) for tool in tools for foreign in sets):
            for key, listed in tool.texts:
                for kind, value in foreign.items():
                    if not LONG and (key == "id" or key.endswith("_id")) != bool(UUID.fullmatch(value)):
                        continue
                    control = nobodys(value)
                    nobody = same_form(tool.call(session, key, listed, control), control)
                    asked = tool.call(session, key, listed, value)
                    with self.subTest(tool=tool.name, argument=key, kind=kind):
                        self.assertEqual(same_form(asked, value), nobody)
                        told = [name for name, other in foreign.items() if other != value and other.encode() in asked.body]
                        self.assertEqual(told, [], "an answer tells of what is not the asker's")
                    tried += 1
        return tried


class People(TenantCase):
    def test_another_person(self):
        self.fill(self.others[OTHER])
        tried = self.compare([(self.others[OTHER], self.fill(self.owner))])
        self.assertGreater(tried, 300)

    def test_another_person_with_mem0s_scheme(self):
        self.fill(self.others[FOURTH])
        tried = self.compare([(self.others[FOURTH], self.fill(self.owner))], "Token", lambda operation: re.match("/v[123]/", operation.path) and (LONG or operation.reads))
        self.assertGreater(tried, 30)

    def test_totals_do_not_move_with_what_others_write(self):
        """What people and agents read of their own is the same before and after others write much."""
        third = self.server.client(self.server.user_keys[THIRD])
        self.addCleanup(third.close)
        self.fill(third)
        askers = [("person", third), ("agent", self.agents["cursor"])]
        plain = [operation for operation in self.operations if operation.reads and not operation.names]

        def read():
            return {(name, operation.id): same_form(operation.ask(client, "Bearer", None, ""), "") for name, client in askers for operation in plain}

        # The first reading of a scope may come from a scan, the next from the index that it asked for: both are exact.
        before = read()
        for _ in range(3):
            self.fill(self.owner, allowed_vendors=["claude"])
            self.fill(self.others[OTHER])
        after = read()
        self.assertEqual(after, before)

    def test_what_is_there_takes_as_long_as_what_is_not(self):
        """Medians of times, taken in turn; wide bounds, as other things take time too."""
        rounds, factor, slack = (400, 2.0, 0.004) if LONG else (40, 4.0, 0.03)
        for client, foreign in ((self.others[OTHER], self.fill(self.owner)), (self.agents["cursor"], self.fill(self.owner, allowed_vendors=["claude"]))):
            for method, path in (("GET", "/agent/memories/{}"), ("GET", "/agent/memories/{}/thread"), ("DELETE", "/agent/memories/{}"), ("GET", "/v1/memories/{}/")):
                times = {True: [], False: []}
                for n in range(2 * rounds):
                    there = n % 2 == 0
                    id = foreign["memory"] if there else nobodys(foreign["memory"])
                    answer = client.request(method, path.format(id))
                    self.assertEqual(answer.status, 404)
                    times[there].append(answer.seconds)
                fast, slow = sorted(statistics.median(taken) for taken in times.values())
                self.assertLess(slow, fast * factor + slack, (method, path))


class Owner(TenantCase):
    def test_the_owner_by_either_key(self):
        with self.server.client(self.server.api_key) as static:
            foreign = self.fill(self.others[OTHER])
            self.compare([(self.owner, foreign), (static, foreign)], only=lambda operation: LONG or operation.names)


class Agents(TenantCase):
    def test_agents_and_what_is_another_persons_or_hidden(self):
        hidden = self.fill(self.owner, allowed_vendors=["claude"])
        # Names and the person are theirs to use; what carries them is hidden.
        hidden = {kind: hidden[kind] for kind in ("memory", "trashed", "reply", "text", "tag")}
        agent = self.agents["cursor"]
        reached = [operation for operation in self.operations if operation.ask(agent, "Bearer", None, "").status != 403]
        self.assertGreater(len(reached), 30)
        askers = [(agent, hidden), (agent, self.fill(self.others[OTHER]))]
        self.compare(askers, only=lambda operation: LONG or operation in reached and (operation.names or operation.reads))


class Tools(TenantCase):
    def test_tools_of_another_person(self):
        self.fill(self.others[OTHER])
        self.assertGreater(self.compare_tools(self.others[OTHER], self.fill(self.owner)), 50)

    def test_tools_of_agents_and_what_is_hidden_from_them(self):
        hidden = self.fill(self.owner, allowed_vendors=["claude"])
        hidden = {kind: hidden[kind] for kind in ("memory", "trashed", "reply", "text", "tag")}
        self.assertGreater(self.compare_tools(self.agents["cursor"], hidden, self.fill(self.others[THIRD])), 40)


if __name__ == "__main__":
    unittest.main()
