"""PHI canaries: protected text goes in through every route and is found again through the API, and nowhere else.

Searched as raw bytes (UTF-8, UTF-16, base64 and hex forms): the data file, the anchor and every other file of the folder, all that the
process printed, and the body of every refusal. Keys and tokens are canaries too.
"""

import base64
import json
import re
import secrets
import unittest
import urllib.parse

from rosemary_server import ServerCase

OTHER = "canary.person@clinic.example"


def canary(kind):
    """Long enough never to occur by chance, short enough for every field, and with letters whose case could be folded."""
    return f"Zq{kind}{secrets.token_hex(9)}Xv"


def forms(text):
    raw = text.encode()
    yield from (raw, raw.lower(), raw.upper(), raw.hex().encode(), text.encode("utf-16-le"), raw[::-1])
    for shift in range(3):
        # The part of the base64 form that does not depend on what stands before or after.
        yield base64.b64encode(b"\0" * shift + raw)[4:-4]


DASHBOARD = {name: f"Zq{secrets.token_hex(20)}" for name in ("RM_DASHBOARD_SERVICE_KEY", "RM_DASHBOARD_JWT_SECRET")}


class Canaries(ServerCase):
    options = {"users": (OTHER,), "settings": DASHBOARD}

    def test_protected_text_is_found_through_the_api_and_nowhere_else(self):
        placed, owner, agent = {}, self.owner, self.agents["cursor"]

        def new(kind):
            return placed.setdefault(kind, canary(kind))

        # In through every field of every writing route.
        record = owner.post("/memories", {
            "title": new("title"), "content": f"before {new('content')} after", "tags": [new("tag")], "subject": new("subject"),
            "metadata": {new("metakey"): {"deep": [new("metavalue")]}}, "speaker": new("speaker"), "run_id": new("run"),
        }).expect(201).json
        agents = agent.post("/agent/memories", {
            "title": new("agenttitle"), "content": new("agentcontent"), "tags": [new("agenttag")], "allowed_vendors": ["*"],
        }).expect(201).json
        for client, path, kind in ((owner, f"/memories/{record['id']}", "changed"), (agent, f"/agent/memories/{agents['id']}", "agentchanged")):
            client.put(path, {"title": new(kind), "content": new(f"{kind}content"), "tags": [new(f"{kind}tag")], "allowed_vendors": ["*"]}).expect(200)
        def mcp(method, status=200, client=agent, headers=None, **params):
            meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {new("mcpcapability"): {}},
                    "io.modelcontextprotocol/clientInfo": {"name": new("mcpclient"), "version": "1"}, new("mcpmeta"): 1}
            sent = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": params.get("name", "")}
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}
            return client.post("/mcp", message, headers=sent | (headers or {})).expect(status)

        written = mcp("tools/call", name="write_memory", arguments={
            "title": new("mcptitle"), "content": new("mcpcontent"), "tags": [new("mcptag")], "subject": new("mcpsubject"), new("mcpunknown"): new("mcpdropped"),
        }).json["result"]["structuredContent"]
        mcp("tools/call", name="search_memories", arguments={"term": new("mcpterm")})
        mcp("tools/call", name="get_topic_cluster", arguments={"tag": new("mcpasktag")})
        mcp("tools/call", name="get_memory_by_id", arguments={"id": new("mcpid")})
        refused = mcp("tools/call", name="write_memory", arguments={"title": new("mcprefused"), "memory_type": new("mcptype")})
        self.assertIs(refused.json["result"]["isError"], True)
        self.server.refusals.append(refused)
        self.server.refusals.append(mcp("tools/call", name=new("mcptool"), arguments={}))
        mcp(new("mcpmethod"), 404)
        mcp("tools/list", 400, headers={"Mcp-Method": new("mcpheader")})
        mcp("initialize", 400, headers={"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": new("mcpsession")})

        gone = owner.remember(new("gone"), new("gonecontent"), [new("gonetag")])
        owner.delete(f"/memories/{gone['id']}").expect(200)
        owner.delete(f"/memories/{gone['id']}/permanent").expect(204)
        trashed = owner.remember(new("trashed"), new("trashedcontent"))
        owner.delete(f"/memories/{trashed['id']}").expect(200)
        key = owner.post("/api/keys", {"label": new("label")}).expect(200).json
        placed["key"] = key["key"]

        owner.request("PATCH", "/users/me", {"first_name": new("firstname"), "last_name": new("lastname")}).expect(200)

        # What a client of OAuth says of itself, and every secret on the way.
        back = f"https://client.example/{new('redirectpath')}"
        said = {"redirect_uris": [back], "client_name": new("clientname"), "token_endpoint_auth_method": "client_secret_post"}
        with self.server.client() as web:
            client = web.post("/register", said).expect(201).json
            asked = {"response_type": "code", "client_id": client["client_id"], "redirect_uri": back, "code_challenge_method": "S256", "state": new("state"),
                     "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}
            page = web.get(web.get("/authorize?" + urllib.parse.urlencode(asked)).expect(302).headers["location"]).expect(200)
            form = dict(re.findall(r'name="(pending_id|csrf)" value="([0-9a-f]+)"', page.body.decode()))
            cookie = page.headers["set-cookie"].partition(";")[0]
            form |= {"key": self.server.owner_key, "vendor": "oauth", "decision": "allow"}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            sent = web.post("/oauth/consent", raw=urllib.parse.urlencode(form).encode(), headers={**kind, "Cookie": cookie}).expect(303)
            code = urllib.parse.parse_qs(urllib.parse.urlsplit(sent.headers["location"]).query)["code"][0]
            form = {"grant_type": "authorization_code", "code": code, "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
                    "client_id": client["client_id"], "client_secret": client["client_secret"]}
            tokens = web.post("/token", raw=urllib.parse.urlencode(form).encode(), headers=kind).expect(200).json
        placed |= {"oauthcode": code, "oauthsecret": client["client_secret"], "oauthcookie": cookie.partition("=")[2],
                   "oauthaccess": tokens["access_token"], "oauthrefresh": tokens["refresh_token"]}
        self.assertIn(placed["clientname"], json.dumps(owner.get("/api/v1/oauth/grants").expect(200).json))

        # In through everything that is asked, named or announced.
        noise = {"User-Agent": f"{new('agentstring')}/1.0", "X-Request-Id": f"{new('requestid')} {new('patientname')}",
                 "Referer": f"https://x.example/{new('referer')}", "X-Other": new("header"), "Cookie": f"a={new('cookie')}"}
        for client, prefix in ((owner, ""), (agent, "/agent")):
            client.post("/agent/memories/search", {"term": new("term" + prefix.strip("/"))}, headers=noise).expect(200)
            client.post("/agent/memories/by-tag", {"tags": [new("asktag")]}, headers=noise).expect(200)
            client.post("/agent/memories/browse", {"filter": {"by": "search", "term": new("askterm")}}, headers=noise).expect(200)
            client.post("/api/v1/memories/search", {"query": f"patient {new('query')}", "tags": [new("qtag")], "subject": new("qsubject")}, headers=noise)
            client.post("/query", {"query": new("modelquery"), "memory_filter": {"by": "search", "term": new("modelterm")}}, headers=noise).expect(503)
            client.get(f"/agent/memories/latest?tag={new('latesttag')}&x={new('param')}", headers=noise).expect(400, 404)
            client.get(f"/agent/memories/{new('path')}", headers=noise).expect(404)
            client.get(f"/agent/briefing?format={new('briefformat')}", headers=noise).expect(400)
            client.get(f"/agent/briefing?format=markdown&{new('briefkey')}=1", headers=noise).expect(400)
            client.get(f"/{new('route')}/x?y={new('routequery')}", headers=noise).expect(403, 404)
        for query in (f"/usage?month={new('month')}", f"/graph?scope={new('graphscope')}", f"/briefing?top_tags={new('toptags')}"):
            owner.get(query, headers=noise).expect(200, 400)
        for path in ("/billing/checkout", "/billing/portal"):
            owner.post(path, {new("billing"): new("billingvalue")}, headers=noise).expect(503)
        # What a briefing and a graph tell, they tell in their answers alone.
        for path in ("/briefing", "/briefing?format=markdown", "/graph"):
            owner.get(path).expect(200)
        owner.post("/chat", {"model": new("model"), "messages": [{"role": "user", "content": new("chat")}]}, headers=noise).expect(503)
        for filter in ({"by": "tags", "tags": [new("ftag")]}, {"by": "search", "term": new("fterm")}, {"by": "origin", "origin": new("forigin")},
                       {"by": "ids", "ids": [new("fid")]}):
            owner.post("/memories/list", {"filter": filter}).expect(200)
        for body in ({new("badkey"): 1}, {"title": {new("badobject"): 1}, "content": "c", "tags": []},
                     {"title": "t", "content": "c", "tags": [], "memory_type": new("badtype")},
                     {"title": "t", "content": "c", "tags": [], "allowed_vendors": [new("badvendor")]}):
            owner.post("/memories", body, headers=noise).expect(400)
        owner.post("/memories", raw=b'{"title": "' + new("broken").encode(), headers={"Content-Type": "application/json"}).expect(400)
        owner.post("/api/v1/erasures", {"holder": "user", "name": f"{new('erasemail')}@x.example"}, headers=noise).expect(404)
        owner.post("/api/v1/erasures", {"holder": "subject", "name": new("erasename")}, headers=noise).expect(404)
        owner.get(f"/api/v1/erasures/{new('eraseid')}", headers=noise).expect(404)
        with self.server.client(new("token")) as stranger:
            stranger.get(f"/{new('strangerpath')}?z={new('strangerquery')}", headers=noise).expect(401)
        with self.server.socket() as bare:
            bare.sendall(f"GET /{new('framing')} HTTP/1.1\r\nHost: {new('host')}.example\r\nX: {new('barefield')}\r\n\r\n".encode())
            self.server.refusals.append(type("Bare", (), {"body": bare.recv(65536), "status": 421})())
        other = self.others[OTHER]
        other.remember(new("othertitle"), new("othercontent"))
        placed["email"] = OTHER
        placed |= {f"agentkey-{vendor}": key for vendor, key in self.server.agent_keys.items()}
        placed |= {"dashboardkey": DASHBOARD["RM_DASHBOARD_SERVICE_KEY"], "dashboardsecret": DASHBOARD["RM_DASHBOARD_JWT_SECRET"]}
        placed |= {"apikey": self.server.api_key, "ownerkey": self.server.owner_key, "kek": self.server.kek.read_text()}

        # Found again through the API.
        text = json.dumps([
            owner.get(f"/memories/{record['id']}").expect(200).json, owner.get(f"/memories/{record['id']}/versions").expect(200).json,
            agent.get(f"/agent/memories/{agents['id']}").expect(200).json, agent.get(f"/agent/memories/{agents['id']}/versions").expect(200).json,
            owner.post("/memories/list", {"filter": {"by": "trashed"}}).expect(200).json, agent.get(f"/agent/memories/{written['id']}").expect(200).json, owner.get("/api/keys").expect(200).json, owner.get("/users/me").expect(200).json,
            other.get("/users/me").expect(200).json, other.post("/agent/memories/list", {}).expect(200).json,
        ])
        for kind in ("title", "content", "tag", "subject", "metakey", "metavalue", "speaker", "run", "agenttitle", "agentcontent", "agenttag", "mcptitle", "mcpcontent", "mcptag", "mcpsubject",
                     "changed", "changedcontent", "changedtag", "agentchanged", "agentchangedcontent", "trashed", "trashedcontent", "label", "firstname", "lastname",
                     "othertitle", "othercontent", "email"):
            self.assertIn(placed[kind], text, f"{kind} is not found again")
        self.assertNotIn(placed["gone"], text)
        for term, found in ((placed["changed"][4:20], record), (placed["agentchangedcontent"], agents)):
            self.assertIn(found["id"], [m["id"] for m in owner.post("/agent/memories/search", {"term": term}).json["memories"]])

        # And nowhere else: what the process printed (init shows the owner's key once), refusals, and every file that Rosemary wrote.
        output = bytes(self.server.output)
        shown_once = {self.server.owner_key, *self.server.user_keys.values()}
        self.server.stop()
        for command in (("verify",), ("doctor",), ("doctor", "--json")):
            output += b"".join([(done := self.server.run(*command)).stdout, done.stderr])
        self.server.start()
        ours = {self.server.kek}
        files = {path: path.read_bytes() for path in self.server.folder.rglob("*") if path.is_file() and path not in ours}
        self.assertIn(self.server.data, files)
        places = {"printed": output, "refusals": b"\n".join(a.body for a in self.server.refusals)} | {str(p): b for p, b in files.items()}
        leaks = [
            f"{kind} is in {place}"
            for kind, value in placed.items()
            for place, content in places.items()
            # The keys that init and key make show once; an operator's own argument may be named to the operator; the contract's answer
            # to an unknown route names the path.
            if not (place == "printed" and (value in shown_once or kind == "email") or place == "refusals" and kind == "route")
            and any(form in content for form in forms(value))
        ]
        self.assertEqual(leaks, [])

    def test_the_search_itself_finds_what_it_looks_for(self):
        value = canary("control")
        for content in (value.encode(), b"xx" + value.lower().encode(), base64.b64encode(b"1" + value.encode() + b"22"), value.encode("utf-16-le")):
            self.assertTrue(any(form in content for form in forms(value)))


if __name__ == "__main__":
    unittest.main()
