"""A fresh Rosemary in a folder of its own, and a client that trusts nothing but its certificate.

    with Server() as server:
        owner = server.client(server.owner_key)
        owner.post("/memories", {"title": "t", "content": "c", "tags": []}).expect(201)

Promises: every server has its own folder, data file, keys, certificate and port; the folder is gone afterwards; only the process
started here is ever signalled; what it printed is kept in `server.output` (bytes), also across restarts; every answer of status 400
and above is kept in `server.refusals`; an answer that the server's OpenAPI document does not describe is an AssertionError, whatever the
test was after. Standard library only.
"""

import hashlib
import http.client
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

from document import Document

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("ROSEMARY_BIN") or ROOT / "target/debug/rosemary")
LONG = bool(os.environ.get("ROSEMARY_LONG"))
START_SECONDS = 30
OWNER = "owner@clinic.example"


class Answer:
    """One answer: `status`, `headers` (lower-case names), `body` (bytes), `json` (parsed, or None), `seconds`."""

    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds
        self.json = None
        if body and "json" in headers.get("content-type", ""):
            self.json = json.loads(body)

    def expect(self, *statuses):
        assert self.status in statuses, f"expected {statuses}, got {self.status}: {self.body[:400]!r}"
        return self

    @property
    def audit_index(self):
        return int(self.headers["x-audit-index"])


class Client:
    """One kept-alive connection with one bearer token (None: no Authorization header). Not for use by two threads at once."""

    def __init__(self, server, token=None, source=None, timeout=30):
        self.server, self.token = server, token
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, timeout=timeout, context=server.tls(), source_address=(source, 0) if source else None
        )

    def request(self, method, path, body=None, headers=None, raw=None):
        """Sends `body` as JSON, or `raw` bytes as they are. A closed idle connection is opened again once."""
        sent = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        data = raw
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        sent.update(headers or {})
        began = time.monotonic()
        fresh = self.connection.sock is None
        try:
            answer = self._once(method, path, data, sent, began)
        except (http.client.RemoteDisconnected, http.client.CannotSendRequest, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            self.connection.close()
            if fresh:
                raise
            answer = self._once(method, path, data, sent, began)
        if answer.status >= 400:
            self.server.refusals.append(answer)
        misfit = self.server.document and self.server.document.misfit(method, path, answer)
        assert not misfit, misfit
        return answer

    def _once(self, method, path, data, headers, began):
        self.connection.request(method, path, body=data, headers=headers)
        response = self.connection.getresponse()
        body = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, body, time.monotonic() - began)

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def put(self, path, body=None, **more):
        return self.request("PUT", path, body, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    def remember(self, title="Note", content="Content", tags=("test",), path="/memories", **more):
        """Writes a memory and returns its record."""
        return self.post(path, {"title": title, "content": content, "tags": list(tags), **more}).expect(201).json

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Server:
    """`vendors`: agent keys to configure. `settings`: further or changed RM_* (None removes one). `users`: other people's
    addresses; their keys are in `user_keys`."""

    # One for all servers, as it differs between them by their address alone; fetched where no limit counts the request.
    document = None

    def __init__(self, vendors=("cursor", "claude"), settings=None, users=()):
        self._holder = tempfile.TemporaryDirectory(prefix="rosemary-test-")
        self.folder = pathlib.Path(self._holder.name)
        self.data = self.folder / "memory.db"
        self.anchor = self.folder / "anchor" / "anchor.note"
        self.anchor.parent.mkdir()
        self.kek = self.folder / "kek"
        write_private(self.kek, secrets.token_hex(32))
        self.api_key = secrets.token_urlsafe(32)
        self.agent_keys = {vendor: secrets.token_urlsafe(32) for vendor in vendors}
        self.settings = {
            "RM_DB_PATH": str(self.data),
            "RM_TENANT_ID": "clinic-test",
            "RM_OWNER_EMAIL": OWNER,
            "RM_KEK_FILE": str(self.kek),
            "RM_PORT": "0",
            "RM_ANCHOR_FILE": str(self.anchor),
            "RM_API_KEY": self.api_key,
            "RM_RATE_LIMIT_PER_MINUTE": "0",
            "RM_CREDENTIAL_RATE_LIMIT_PER_MINUTE": "0",
            "RM_ADMIN_RATE_LIMIT_PER_MINUTE": "0",
            **{f"RM_AGENT_KEY_{vendor.upper()}": key for vendor, key in self.agent_keys.items()},
        }
        self.change(settings or {})
        self.users, self.user_keys = users, {}
        self.owner_key, self.port, self.process = None, None, None
        self.output, self.refusals, self._readers = bytearray(), [], []

    def change(self, settings):
        for name, value in settings.items():
            self.settings.pop(name, None) if value is None else self.settings.__setitem__(name, str(value))

    def run(self, *arguments, timeout=120, **settings):
        """Runs another command of the program on this folder. Returns its `CompletedProcess` (bytes)."""
        done = subprocess.run(
            [str(BINARY), *arguments], env=self.environment(settings), cwd=self.folder, capture_output=True, timeout=timeout, check=False
        )
        self.output += done.stdout + done.stderr
        return done

    def environment(self, changed=None):
        merged = {**self.settings, **(changed or {})}
        return {"PATH": os.environ.get("PATH", ""), **{name: str(value) for name, value in merged.items() if value is not None}}

    def init(self):
        done = self.run("init")
        assert done.returncode == 0, f"init failed with {done.returncode}: {text(done)}"
        self.owner_key = key_in(done.stdout)
        for user in self.users:
            # A person becomes known by being named as the owner once.
            made = self.run("key", "make", "--label", "test", RM_OWNER_EMAIL=user)
            assert made.returncode == 0, f"key make failed with {made.returncode}: {text(made)}"
            self.user_keys[user] = key_in(made.stdout)
        return self

    def start(self):
        """Starts `serve` and waits until it listens. `self.start_seconds` is the time from exec to listening."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [str(BINARY), "serve"], env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        listening, address = threading.Event(), {}

        def drain(stream):
            for line in stream:
                self.output += line
                found = re.search(rb"listening address=\"?[^ ]*:(\d+)", line)
                if found and not listening.is_set():
                    address["port"] = int(found[1])
                    listening.set()
            listening.set()

        self._readers = [threading.Thread(target=drain, args=(s,), daemon=True) for s in (self.process.stderr, self.process.stdout)]
        for reader in self._readers:
            reader.start()
        deadline = began + START_SECONDS
        while "port" not in address:
            listening.wait(0.05)
            if self.process.poll() is not None or time.monotonic() > deadline:
                code = self.process.poll()
                self.kill()
                raise AssertionError(f"serve did not listen (exit code {code}): {bytes(self.output[-2000:]).decode(errors='replace')}")
            time.sleep(0.002)
        self.start_seconds = time.monotonic() - began
        self.port = address["port"]
        if ports := os.environ.get("ROSEMARY_TEST_PORTS"):  # nowhere.py asks which connections are to servers
            with open(ports, "a", encoding="ascii") as file:
                file.write(f"{self.port}\n")
        if Server.document is None and "RM_SEALED_START" not in self.settings and self.settings.get("RM_RATE_LIMIT_PER_MINUTE") == "0":
            with self.client() as nobody:
                Server.document = Document(nobody.get("/openapi.json").expect(200).json)
        return self

    def tls(self):
        context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def client(self, token=None, **more):
        return Client(self, token, **more)

    def agent(self, vendor):
        return self.client(self.agent_keys[vendor])

    def socket(self, source=None, timeout=30, tls=True):
        """A bare connection, for what no proper client would send."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout, source_address=(source, 0) if source else None)
        return self.tls().wrap_socket(plain, server_hostname="localhost") if tls else plain

    def stop(self):
        """Asks the process to stop and waits; returns its exit code."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("serve did not stop within 30 s of SIGTERM") from None
        self._reap()
        return code

    def kill(self):
        """Ends the process as a power cut would end it for the process itself."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._reap()

    def _reap(self):
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        self.process = None

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self):
        try:
            return self.init().start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.remove()

    def remove(self):
        self.kill()
        self._holder.cleanup()


class ServerCase(unittest.TestCase):
    """Tests that share one server. A class sets `options` for `Server`."""

    options = {}
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server(**cls.options).__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.owner = cls.server.client(cls.server.owner_key)
        cls.addClassCleanup(cls.owner.close)
        cls.agents = {vendor: cls.server.agent(vendor) for vendor in cls.server.agent_keys}
        for agent in cls.agents.values():
            cls.addClassCleanup(agent.close)
        # A second user's key: from the command line where one was asked for.
        cls.others = {user: cls.server.client(key) for user, key in cls.server.user_keys.items()}

    def error(self, answer, status, message=None):
        """`answer` must be a refusal of the contract's shape; `message` is its exact text or a compiled pattern."""
        self.assertEqual(answer.status, status, answer.body[:400])
        self.assertIsInstance(answer.json, dict, answer.body[:400])
        self.assertIsInstance(answer.json.get("error"), str)
        if isinstance(message, str):
            self.assertEqual(answer.json["error"], message)
        elif message is not None:
            self.assertRegex(answer.json["error"], message)
        return answer.json


def unique(word="x"):
    return f"{word}{secrets.token_hex(6)}"


def write_private(path, content):
    """Writes a file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def key_in(output):
    found = re.search(rb"rm_live_[0-9a-f]{48}", output)
    assert found, f"no key of the form rm_live_<48 hex> in {output!r}"
    return found[0].decode()


def text(done):
    return (done.stdout + done.stderr).decode(errors="replace")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
