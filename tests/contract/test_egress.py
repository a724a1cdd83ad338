"""The door: the relay, the list of where it may go, and the language model behind it.

A fake endpoint of the site, OpenAI-compatible, plays the model; it answers over TLS with a certificate of its own. Promises that are tested: nothing
is connected to that the operator has not listed (nowhere.py counts the packets), nothing leaves before its entry, and whatever happens has an entry
and an answer.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from rosemary_server import BINARY, Server, ServerCase, text, unique, write_private

WAIT_SECONDS = 30
OTHER = "nurse@clinic.example"
KEY = "model-key-0123456789abcdef0123456789"


def eventually(what, seconds=WAIT_SECONDS):
    """Waits until `what()` is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
    return found


def listed(port):
    """Tells nowhere.py that a port is one that a relay of these tests may reach."""
    if ports := os.environ.get("ROSEMARY_TEST_PORTS"):
        with open(ports, "a", encoding="ascii") as file:
            file.write(f"{port}\n")
    return port


class Endpoint:
    """A server that stands where a language model would. `answer` decides: a text, or a function of the request handler."""

    def __init__(self, certificate, tls=True):
        self.requests, self.connections = [], 0
        self.answer = "Penicillin."
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.requests.append((self.path, dict(self.headers.items()), json.loads(body)))
                if callable(endpoint.answer):
                    return endpoint.answer(self)
                return self.say(200, {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": endpoint.answer}}]})

            def say(self, status, body, headers=()):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                connection, address = self.socket.accept()
                endpoint.connections += 1
                if not tls:
                    return connection, address
                # The handshake belongs to the connection's own thread.
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.port = listed(self.listener.server_address[1])
        threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.listener.shutdown()
        self.listener.server_close()


class Relay:
    """A relay in a folder of its own."""

    def __init__(self, folder, socket_path, allow, ca=None, **settings):
        self.output = bytearray()
        key = folder / f"model-key-{unique()}"
        write_private(key, KEY)
        self.settings = {"RM_RELAY_SOCKET": str(socket_path), "RM_EGRESS_ALLOW": allow, "RM_EGRESS_CA": str(ca) if ca else None,
                         "RM_MODEL_API_KEY_FILE": str(key), "RM_EGRESS_TIMEOUT_SECONDS": "20"}
        self.settings |= {name: str(value) for name, value in settings.items()}
        self.process = None

    def environment(self):
        # What a proxy's variables say must have no effect.
        given = {"PATH": os.environ.get("PATH", ""), "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
        return given | {name: value for name, value in self.settings.items() if value is not None}

    def start(self):
        self.process = subprocess.Popen([str(BINARY), "relay"], env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

        def drain(stream):
            for line in stream:
                self.output += line

        self.reader = threading.Thread(target=drain, args=(self.process.stderr,), daemon=True)
        self.reader.start()
        return self

    def run(self):
        """Starts it where it is expected to end by itself."""
        return subprocess.run([str(BINARY), "relay"], env=self.environment(), capture_output=True, timeout=60, check=False)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.reader.join(10)
            self.process.stderr.close()
            self.process = None


class EgressCase(ServerCase):
    """A service with a model, its endpoint, and a relay between them."""

    options = {"settings": {"RM_DISABLE_MODEL_EGRESS": "false", "RM_MODEL_NAME": "ward-model"}, "users": (OTHER,)}

    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory(prefix="rosemary-egress-")
        cls.addClassCleanup(cls.holder.cleanup)
        cls.folder = pathlib.Path(cls.holder.name)
        cls.socket = cls.folder / "relay.sock"
        cls.options = {**cls.options, "settings": {**cls.options["settings"], "RM_RELAY_SOCKET": str(cls.socket)}}
        super().setUpClass()
        # The endpoint's certificate is a fresh one of the program's own making.
        made = Server().init()
        cls.addClassCleanup(made.remove)
        cls.certificate = made.folder
        cls.endpoint = Endpoint(cls.certificate)
        cls.addClassCleanup(cls.endpoint.close)

    def setUp(self):
        self.endpoint.answer = "Penicillin."
        self.endpoint.requests.clear()

    def relay(self, port=None, host="127.0.0.1", ca="cert.pem", wait=True, **settings):
        to = f"{host}:{port or self.endpoint.port}"
        model = {"RM_MODEL_BASE_URL": f"https://{to}/v1", "RM_ALLOWED_MODEL_HOSTS": host}
        relay = Relay(self.folder, self.socket, to, self.certificate / ca if ca else None, **(model | settings)).start()
        self.addCleanup(self.gone)
        self.addCleanup(relay.kill)
        if wait:
            eventually(lambda: b"connected to the service" in relay.output)
            eventually(lambda: self.log_of_service().count("the relay is connected") > self.log_of_service().count("the relay is gone"))
        return relay

    def log_of_service(self):
        return bytes(self.server.output).decode(errors="replace")

    def gone(self):
        """Waits until the service has noticed that no relay is there."""
        eventually(lambda: self.log_of_service().count("the relay is connected") == self.log_of_service().count("the relay is gone"))

    def ask(self, client=None, query="What is she allergic to?", **more):
        return (client or self.owner).post("/query", {"query": query, "memory_filter": {"by": "all"}, **more}, headers={})

    def entries(self, op):
        """The audit entries of an operation, in order: read from an export while the service is stopped."""
        self.server.stop()
        done = self.server.run("audit", "export", "-")
        self.server.start()
        for client in (self.owner, *self.agents.values()):
            client.close()
            client.connection = self.server.client().connection
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b'{"actor"')]
        return [line for line in lines if line["op"] == op]


class Model(EgressCase):
    def test_a_person_gets_the_receipt_of_the_contract_and_the_model_gets_the_memories(self):
        tag = unique("t")
        record = self.owner.remember("Allergy", "Penicillin: rash on both arms, 2019", [tag], subject="MRN 4711")
        self.relay()
        answer = self.owner.post("/query", {"query": "What is she allergic to?", "memory_filter": {"by": "tags", "tags": [tag]}}).expect(200)
        receipt = answer.json
        self.assertEqual(set(receipt), {"response", "memories_used", "prompt_sent", "model_config", "vendor_filter", "truncated", "memories_included", "memories_total"})
        self.assertEqual((receipt["response"], receipt["truncated"], receipt["memories_included"], receipt["memories_total"], receipt["vendor_filter"]),
                         ("Penicillin.", False, 1, 1, None))
        self.assertEqual(receipt["memories_used"], [record])
        self.assertEqual(receipt["model_config"], {"model": "ward-model", "temperature": 0.7, "max_tokens": 1024})
        self.assertGreater(answer.audit_index, 0)
        (path, headers, sent), = self.endpoint.requests
        self.assertEqual(path, "/v1/chat/completions")
        self.assertEqual(headers["authorization"], f"Bearer {KEY}")
        self.assertEqual((sent["model"], sent["temperature"], sent["max_tokens"], sent["stream"]), ("ward-model", 0.7, 1024, False))
        self.assertEqual([message["role"] for message in sent["messages"]], ["system", "user"])
        self.assertEqual(sent["messages"][1]["content"], receipt["prompt_sent"])
        for part in ("Allergy", "Penicillin: rash on both arms, 2019", tag, "MRN 4711", "Question: What is she allergic to?"):
            self.assertIn(part, receipt["prompt_sent"])

    def test_an_agent_is_answered_from_what_its_vendor_may_see(self):
        tag = unique("t")
        self.owner.remember("Open", "open to all", [tag])
        self.owner.remember("Hidden", "hidden from it", [tag], allowed_vendors=["claude"])
        self.relay()
        receipt = self.agents["cursor"].post("/query", {"query": "q", "memory_filter": {"by": "tags", "tags": [tag]}}).expect(200).json
        self.assertEqual(set(receipt), {"response", "memories_used_count", "memories_included_in_prompt", "truncated", "estimated_tokens", "vendor_filter"})
        self.assertEqual((receipt["memories_used_count"], receipt["memories_included_in_prompt"], receipt["vendor_filter"], receipt["truncated"]), (1, 1, "cursor", False))
        self.assertGreater(receipt["estimated_tokens"], 5)
        prompt = self.endpoint.requests[-1][2]["messages"][1]["content"]
        self.assertIn("open to all", prompt)
        self.assertNotIn("hidden from it", prompt)

    def test_the_budget_and_the_limit_cut_and_say_so(self):
        tag = unique("t")
        for n in range(4):
            self.owner.remember(f"Note {n}", f"{n} " + "x" * 40_000, [tag])
        self.relay()
        by_tag = {"query": "Note", "memory_filter": {"by": "tags", "tags": [tag]}}
        receipt = self.owner.post("/query", by_tag).expect(200).json
        self.assertEqual((receipt["memories_included"], receipt["memories_total"], receipt["truncated"]), (2, 4, True))
        self.assertLess(len(receipt["prompt_sent"]), 101_000)
        receipt = self.owner.post("/query", {**by_tag, "limit": 1}).expect(200).json
        self.assertEqual((receipt["memories_included"], receipt["memories_total"], receipt["truncated"]), (1, 4, True))

    def test_what_is_in_the_trash_or_somebody_elses_is_not_told(self):
        tag = unique("t")
        gone = self.owner.remember("Gone", "in the trash", [tag])
        self.owner.delete(f"/memories/{gone['id']}").expect(200)
        self.relay()
        receipt = self.owner.post("/query", {"query": "q", "memory_filter": {"by": "ids", "ids": [gone["id"]]}}).expect(200).json
        self.assertEqual((receipt["memories_included"], receipt["memories_total"]), (0, 0))
        self.assertNotIn("in the trash", self.endpoint.requests[-1][2]["messages"][1]["content"])

    def test_chat_passes_the_conversation_and_knows_its_model_only(self):
        self.relay()
        self.assertEqual(self.owner.get("/chat/models").expect(200).json, {"models": ["ward-model"]})
        messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]
        self.assertEqual(self.owner.post("/chat", {"model": "ward-model", "messages": messages}).expect(200).json, {"response": "Penicillin.", "model": "ward-model"})
        self.assertEqual(self.endpoint.requests[-1][2]["messages"], messages)
        self.error(self.owner.post("/chat", {"model": "gpt-4", "messages": messages}), 400, re.compile("^body/model"))
        self.error(self.agents["cursor"].post("/chat", {"model": "ward-model", "messages": messages}), 403)

    def test_health_says_that_a_model_may_be_asked(self):
        with self.server.client() as nobody:
            self.assertEqual(nobody.get("/health").expect(200).json["model_egress"], "enabled")

    def test_without_a_relay_nothing_is_read_and_the_answer_is_503(self):
        self.gone()
        answer = self.ask()
        self.error(answer, 503, "The language model cannot be reached now; nothing was sent")
        self.assertIn("retry-after", answer.headers)

    def test_nobody_keeps_the_model_from_the_others(self):
        """One agent that asks in parallel had every place that there is, for as long as it liked."""
        self.relay()
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        self.endpoint.answer = lambda handler: (go_on.wait(WAIT_SECONDS), handler.say(200, {"choices": [{"message": {"content": "late"}}]}))
        clients = [self.server.agent("cursor") for _ in range(4)]
        statuses = []
        threads = [threading.Thread(target=lambda c=client: statuses.append(self.ask(c).status)) for client in clients]
        for thread in threads:
            thread.start()
        eventually(lambda: len(self.endpoint.requests) == 4)
        for mine in (self.agents["cursor"], self.agents["claude"], self.owner):
            self.error(self.ask(mine), 429, "At most 4 questions at once; wait for an answer")
        clients.append(self.server.client(self.server.user_keys[OTHER]))
        other = threading.Thread(target=lambda: statuses.append(self.ask(clients[-1]).status))
        other.start()
        eventually(lambda: statuses or len(self.endpoint.requests) == 5)
        self.assertEqual(statuses, [])
        go_on.set()
        for thread in (*threads, other):
            thread.join(WAIT_SECONDS)
        for client in clients:
            client.close()
        self.assertEqual(statuses, [200] * 5)
        self.ask().expect(200)

    def test_answers_that_are_none_are_502_and_nothing_of_them_is_shown(self):
        canary = unique("canary")
        self.relay(**{"RM_EGRESS_TIMEOUT_SECONDS": 2})

        def redirect(handler):
            handler.say(307, b"", [("location", f"https://127.0.0.1:{self.endpoint.port}/elsewhere")])

        def oversized(handler):
            handler.send_response(200)
            handler.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(64):
                    handler.wfile.write(b"x" * 65_536)

        def slow(handler):
            handler.send_response(200)
            handler.send_header("content-length", "1000")
            handler.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    handler.wfile.write(b" ")
                    handler.wfile.flush()
                    time.sleep(0.1)

        def cut(handler):
            handler.send_response(200)
            handler.send_header("content-length", "1000")
            handler.end_headers()
            handler.wfile.write(b"{")
            handler.close_connection = True

        ended = {
            "redirected": redirect,
            "too_large": oversized,
            "timed_out": slow,
            "broken_off": cut,
            "bad_answer": lambda handler: handler.say(200, b"\xff\xfe"),
        }
        answered = [
            lambda handler: handler.say(500, {"error": canary}),
            lambda handler: handler.say(401, {"error": canary}),
            lambda handler: handler.say(200, canary.encode()),
            lambda handler: handler.say(200, {"choices": []}),
            lambda handler: handler.say(200, {"choices": [{"message": {"content": None}}]}),
        ]
        for play in [*ended.values(), *answered]:
            self.endpoint.answer = play
            answer = self.ask()
            self.error(answer, 502, "The language model gave no usable answer")
            self.assertNotIn(canary.encode(), answer.body)
        self.assertNotIn("/elsewhere", [path for path, _, _ in self.endpoint.requests], "no redirect is followed")
        told = [entry["det"]["ended"] for entry in self.entries("egress.end")][-len(ended) - len(answered):]
        self.assertEqual(told, [*ended, *["answered"] * len(answered)])
        self.assertNotIn(canary.encode(), bytes(self.server.output))


class Record(EgressCase):
    def test_every_attempt_is_on_record_before_and_after_and_no_text_is(self):
        secret = unique("canary")
        self.owner.remember(secret, f"text {secret}")
        relay = self.relay()
        answer = self.ask(query=f"about {secret}").expect(200)
        self.endpoint.answer = lambda handler: handler.say(503, {})
        self.ask().expect(502)
        relay.kill()
        self.gone()
        self.ask().expect(503)
        queries, sends, ends = self.entries("memory.query"), self.entries("egress.send"), self.entries("egress.end")
        self.assertEqual([(e["outcome"], e["status"], e.get("reason")) for e in queries], [("ok", 200, None), ("ok", 200, None), ("refused", 503, "relay_absent")])
        self.assertEqual(queries[0]["i"], answer.audit_index)
        self.assertEqual(len(sends), 2)
        for query, send, end in zip(queries, sends, ends, strict=False):
            self.assertLess(query["i"], send["i"])
            self.assertLess(send["i"], end["i"])
            self.assertEqual(send["det"]["opid"], query["opid"])
            self.assertEqual(end["det"]["opid"], query["opid"])
            self.assertEqual((send["det"]["dest"], send["det"]["use"], send["actor"]), (1, "model", {"kind": "system", "vendor": "relay"}))
        self.assertEqual([(end["det"]["ended"], end["det"]["code"]) for end in ends], [("answered", 200), ("answered", 503)])
        done = json.dumps([queries, sends, ends])
        for hidden in (secret, "127.0.0.1:" + str(self.endpoint.port), KEY):
            self.assertNotIn(hidden, done)
            self.assertNotIn(hidden.encode(), bytes(self.server.output) + bytes(relay.output))


class Lists(EgressCase):
    """What the relay's settings allow, tried from outside."""

    def relay_that_ends(self, allow, code=78, **settings):
        done = Relay(self.folder, self.socket, allow, self.certificate / "cert.pem", **settings).run()
        self.assertEqual(done.returncode, code, text(done))
        return text(done)

    def test_without_a_list_the_relay_does_not_run(self):
        self.assertIn("RM_EGRESS_ALLOW: not set, and required", self.relay_that_ends("", RM_MODEL_BASE_URL="https://127.0.0.1:1"))

    def test_a_model_that_is_not_on_both_lists_is_refused_at_the_start(self):
        here = f"127.0.0.1:{self.endpoint.port}"
        for allow, url, hosts in ((here, f"https://127.0.0.1:{self.endpoint.port + 1}", "127.0.0.1"), (here, f"https://localhost:{self.endpoint.port}", "localhost"),
                                  ("127.0.0.1:443", f"https://{here}", "127.0.0.1"), (here, f"https://{here}", "llm.example")):
            self.assertIn("add it there", self.relay_that_ends(allow, RM_MODEL_BASE_URL=url, RM_ALLOWED_MODEL_HOSTS=hosts))
        self.assertIn("give an https URL", self.relay_that_ends(here, RM_MODEL_BASE_URL=f"http://{here}", RM_ALLOWED_MODEL_HOSTS="127.0.0.1"))

    def test_the_services_keys_do_not_stand_in_the_relays_settings(self):
        self.assertIn("RM_API_KEY: a setting of the service", self.relay_that_ends("127.0.0.1:1", RM_API_KEY="x" * 40))
        done = self.server.run("doctor", RM_MODEL_API_KEY="x" * 40)
        self.assertEqual(done.returncode, 78)
        self.assertIn("RM_MODEL_API_KEY: a setting of the relay", text(done))

    def test_addresses_outside_are_refused_by_rule_and_nobody_is_connected_to(self):
        for host in ("192.0.2.1", "169.254.169.254", "[2001:db8::1]", "[fe80::1]", "0.0.0.0"):
            relay = self.relay(host=host, port=443)
            self.error(self.ask(), 502)
            relay.kill()
            self.gone()
        # Where the model may be anywhere, a link's address still may not.
        relay = self.relay(host="169.254.169.254", port=443, RM_REQUIRE_INTERNAL_MODEL_BASE_URL="false")
        self.error(self.ask(), 502)
        self.assertEqual([end["det"]["ended"] for end in self.entries("egress.end")][-6:], ["address_refused"] * 6)

    def test_bad_tls_is_refused_before_anything_is_sent(self):
        stranger = Server().init()
        self.addCleanup(stranger.remove)
        for port, host, certificate in ((self.endpoint.port, "127.0.0.1", stranger.folder), (self.endpoint.port, "127.0.0.2", self.certificate)):
            self.endpoint.requests.clear()
            to = f"{host}:{port}"
            if host == "127.0.0.2":  # the same certificate, which does not name this address
                other = socket.create_server((host, 0))
                self.addCleanup(other.close)
                to = f"{host}:{listed(other.getsockname()[1])}"
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate / "cert.pem", self.certificate / "key.pem")

                def once():
                    with contextlib.suppress(OSError):
                        connection, _ = other.accept()
                        context.wrap_socket(connection, server_side=True)

                threading.Thread(target=once, daemon=True).start()
            relay = Relay(self.folder, self.socket, to, certificate / "cert.pem", RM_MODEL_BASE_URL=f"https://{to}", RM_ALLOWED_MODEL_HOSTS=host).start()
            self.addCleanup(relay.kill)
            eventually(lambda: b"connected to the service" in relay.output)
            eventually(lambda: self.ask().status == 502)
            eventually(lambda: b"tls_failed" in relay.output)
            relay.kill()
            self.gone()
            self.assertEqual(self.endpoint.requests, [])

    def test_plain_http_and_silence_are_no_tls(self):
        plain = Endpoint(self.certificate, tls=False)
        self.addCleanup(plain.close)
        relay = self.relay(port=plain.port, RM_EGRESS_TIMEOUT_SECONDS=2)
        self.error(self.ask(), 502)
        self.assertEqual(plain.requests, [])
        relay.kill()
        self.gone()
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        relay = self.relay(port=listed(silent.getsockname()[1]), RM_EGRESS_TIMEOUT_SECONDS=2)
        self.error(self.ask(), 502)
        self.assertIn(b"timed_out", relay.output)

    def test_nobody_there_is_unreachable(self):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = listed(closed.getsockname()[1])
        relay = self.relay(port=port)
        self.error(self.ask(), 502)
        self.assertIn(b"unreachable", relay.output)


class Line(EgressCase):
    """The line between service and relay."""

    def test_a_relay_killed_in_the_middle_is_502_and_another_takes_over(self):
        relay, asked = self.relay(), threading.Event()

        def hang(handler):
            asked.set()
            time.sleep(30)

        self.endpoint.answer = hang
        answers = []
        asker = threading.Thread(target=lambda: answers.append(self.ask()))
        asker.start()
        self.assertTrue(asked.wait(WAIT_SECONDS))
        relay.kill()
        asker.join(WAIT_SECONDS)
        self.error(answers[0], 502)
        self.endpoint.answer = "Again."
        self.gone()
        self.relay()
        self.assertEqual(self.ask().expect(200).json["response"], "Again.")
        self.assertIn("relay_lost", [end["det"]["ended"] for end in self.entries("egress.end")])

    def test_a_relay_outlives_the_service_and_comes_back(self):
        relay = self.relay()
        self.ask().expect(200)
        self.entries("egress.end")  # stops and starts the service
        eventually(lambda: relay.output.count(b"connected to the service") == 2)
        eventually(lambda: self.ask().status == 200)
        self.assertIsNone(relay.process.poll())

    def test_a_second_relay_is_hung_up_on_while_the_first_is_there(self):
        self.relay()
        second = Relay(self.folder, self.socket, f"127.0.0.1:{self.endpoint.port}", self.certificate / "cert.pem").start()
        self.addCleanup(second.kill)
        eventually(lambda: "a relay is connected already" in self.log_of_service())
        self.ask().expect(200)

    def test_what_is_no_relay_is_hung_up_on(self):
        self.gone()
        for sent in (b"GET / HTTP/1.1\r\n\r\n", struct.pack("<I", 1 << 31), struct.pack("<I", 3) + b"\x01\x09\x09", b""):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(WAIT_SECONDS)
                stranger.connect(str(self.socket))
                stranger.sendall(sent)
                stranger.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(stranger.recv(100), b"")
        self.relay()
        self.ask().expect(200)

    @unittest.skipUnless(os.getuid() == 0, "another user's process can be started by root alone")
    def test_another_users_process_is_hung_up_on_before_a_byte_is_read(self):
        self.gone()
        os.chmod(self.folder, 0o755)
        os.chmod(self.socket, 0o666)
        self.addCleanup(os.chmod, self.folder, 0o700)
        hello = struct.pack("<I", 6) + b"\x01\x00\x01\x01\x00\x01"  # a relay with one destination, the model's
        # From within the folder: those above it are for root alone.
        script = (f"import os,socket\nos.chdir({str(self.socket.parent)!r})\nos.setgid(65534)\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(30)\ns.connect({self.socket.name!r})\n"
                  f"try:\n s.sendall({hello!r})\n print(s.recv(100))\nexcept OSError as e: print(b'')\n")
        done = subprocess.run(["python3", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.stdout.strip(), "b''", done.stderr)
        eventually(lambda: "user 65534 is not the relay's" in self.log_of_service())
        self.error(self.ask(), 503)

    def test_the_relay_obeys_its_list_whatever_it_is_told(self):
        """This test plays the service: it orders what the list does not have."""
        path = self.folder / "other.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(WAIT_SECONDS)
            relay = Relay(self.folder, path, f"127.0.0.1:{self.endpoint.port}", self.certificate / "cert.pem").start()
            self.addCleanup(relay.kill)
            line, _ = listener.accept()
            with line:
                line.settimeout(WAIT_SECONDS)

                def said():
                    length = struct.unpack("<I", line.recv(4, socket.MSG_WAITALL))[0]
                    return line.recv(length, socket.MSG_WAITALL)

                def order(body):
                    line.sendall(struct.pack("<I", len(body) + 1) + b"\x01" + body)

                self.assertEqual(said()[1:], b"\x00\x01\x00\x01", "one destination, no model, locked in")
                before = self.endpoint.connections
                order(b"\x05\x01\x07")  # order 5: test destination 8
                self.assertEqual(said(), b"\x01\x01\x05\x01\x00\x00", "not listed")
                order(b"\x06\x00\x02{}")  # order 6: the model, of which there is none
                self.assertEqual(said(), b"\x01\x01\x06\x01\x00\x00")
                self.assertEqual(self.endpoint.connections, before)
                order(b"\x07\x01\x00")  # order 7: test destination 1
                self.assertEqual(said(), b"\x01\x01\x07\x00\x00\x00", "answered")
                order(b"\x08\x02\x00")  # no order
                self.assertEqual(line.recv(1), b"")


class Console(EgressCase):
    def test_the_operator_tries_every_destination_on_record(self):
        closed = socket.create_server(("127.0.0.1", 0))
        port = listed(closed.getsockname()[1])
        closed.close()
        here = f"127.0.0.1:{self.endpoint.port}"
        self.relay(RM_EGRESS_ALLOW=f"{here},127.0.0.1:{port},169.254.169.254:443", RM_EGRESS_TIMEOUT_SECONDS=2)
        done = self.server.run("egress", "test")
        self.assertEqual(done.returncode, 1, text(done))
        shown = done.stdout.decode()
        self.assertIn("relay: connected, locked in by the kernel", shown)
        self.assertRegex(shown, r" 1  answered  \(model\)")
        self.assertRegex(shown, r" 2  unreachable")
        self.assertRegex(shown, r" 3  address_refused")
        self.assertEqual(self.endpoint.requests, [], "a test sends no request")
        sends, ends = self.entries("egress.send"), self.entries("egress.end")
        self.assertEqual([(send["det"]["use"], send["det"]["dest"]) for send in sends], [("test", 1), ("test", 2), ("test", 3)])
        self.assertEqual(ends[0]["det"]["ended"], "answered")

    def test_without_a_relay_the_test_says_what_to_start(self):
        self.gone()
        done = self.server.run("egress", "test")
        self.assertEqual(done.returncode, 75)
        self.assertIn("rosemary-relay.service", text(done))

    def test_list_and_apply_show_and_write_what_the_unit_lets_through(self):
        settings, unit = self.folder / "relay.env", self.folder / "unit.d"
        settings.write_text("# the list\nRM_EGRESS_ALLOW=127.0.0.1:8443,[fd00::5]:443\nRM_MODEL_BASE_URL=https://127.0.0.1:8443/v1\nRM_ALLOWED_MODEL_HOSTS=127.0.0.1\n")
        at = ("--settings", str(settings), "--unit", str(unit))
        done = self.server.run("egress", "list", *at)
        self.assertEqual(done.returncode, 1)
        self.assertIn("run rosemary egress apply", text(done))
        self.assertEqual(self.server.run("egress", "apply", *at).returncode, 0)
        lines = (unit / "addresses.conf").read_text().splitlines()
        self.assertEqual([line for line in lines if not line.startswith("#")], ["[Service]", "IPAddressAllow=", "IPAddressAllow=127.0.0.1", "IPAddressAllow=fd00::5"])
        done = self.server.run("egress", "list", *at)
        self.assertEqual(done.returncode, 0, text(done))
        self.assertRegex(text(done), r" 1  127\.0\.0\.1:8443 +model +127\.0\.0\.1\n 2  \[fd00::5\]:443 +- +fd00::5\n")
        settings.write_text("RM_EGRESS_ALLOW=169.254.169.254:80\n")
        done = self.server.run("egress", "apply", *at)
        self.assertEqual(done.returncode, 78)
        self.assertIn("169.254.169.254:80: leads to an address that the rules forbid", text(done))
        self.assertIn("IPAddressAllow=fd00::5", (unit / "addresses.conf").read_text(), "a refused list changes nothing")


class Off(unittest.TestCase):
    def test_a_model_without_a_way_to_it_does_not_start(self):
        server = Server(settings={"RM_DISABLE_MODEL_EGRESS": "false", "RM_MODEL_NAME": "m"}).init()
        self.addCleanup(server.remove)
        done = server.run("serve")
        self.assertEqual(done.returncode, 78, text(done))
        self.assertIn("rosemary-relay.socket", text(done))
        done = server.run("serve", RM_RELAY_SOCKET=server.folder / "r.sock", RM_RELAY_USER="nobody-of-this-name")
        self.assertEqual(done.returncode, 78, text(done))
        self.assertIn("RM_RELAY_USER", text(done))

    def test_with_egress_off_there_is_no_socket_for_a_relay(self):
        with Server() as server:
            at = server.folder / "r.sock"
            server.stop()
            server.change({"RM_RELAY_SOCKET": str(at)})
            server.start()
            self.assertFalse(at.exists())


if __name__ == "__main__":
    unittest.main()
