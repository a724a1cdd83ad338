"""Mem0's own clients, unmodified, against the real server.

    tests/clients/run_mem0.py python     Python `mem0ai`, and the program of docs/clients/mem0.md
    tests/clients/run_mem0.py npm        npm `mem0ai`

Pinned versions are installed into target/clients, once. Where no registry can be reached and nothing is installed, it says so and ends with 77:
nothing was tested, nothing failed. The clients report their use to their maker unless told not to; here they are told.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/contract"))

from rosemary_server import Server  # noqa: E402

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "clients"
PYTHON, NPM = "2.2.1", "3.3.1"


def skip(why):
    print(f"SKIPPED: {why}: nothing was tested with this client")
    sys.exit(77)


def python_installed():
    folder = TARGET / f"mem0ai-{PYTHON}"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"mem0ai=={PYTHON}"], check=False)
        if done.returncode:
            skip(f"mem0ai {PYTHON} is not installed and pip cannot reach a registry")
        (folder / "installed").touch()
    return folder / "bin/python"


def npm_installed():
    if not shutil.which("npm"):
        skip("there is no npm")
    folder = TARGET / f"npm-mem0ai-{NPM}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"private": True, "type": "module", "dependencies": {"mem0ai": NPM}}))
        # Its peers are other stores' drivers, which the client does not load.
        if subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--legacy-peer-deps"], cwd=folder, check=False).returncode:
            skip(f"npm mem0ai {NPM} is not installed and npm cannot reach a registry")
        (folder / "installed").touch()
    return folder


def run(server, *command, cwd=None):
    certificate = str(server.folder / "cert.pem")
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR", "LANG")} | {
        "HOME": str(server.folder), "SSL_CERT_FILE": certificate, "REQUESTS_CA_BUNDLE": certificate, "NODE_EXTRA_CA_CERTS": certificate, "MEM0_TELEMETRY": "False", "KEY": server.owner_key,
        "ROSEMARY_URL": f"https://localhost:{server.port}",
    }
    done = subprocess.run([str(part) for part in command], env=environment, cwd=cwd, timeout=300, check=False)
    if done.returncode:
        sys.exit(f"{pathlib.Path(str(command[-3])).name}: ended with {done.returncode}")


def python():
    program = python_installed()
    with Server() as server:
        run(server, program, HERE / "mem0_python.py", f"https://localhost:{server.port}", server.owner_key)
        page = (ROOT / "docs/clients/mem0.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
        (server.folder / "example.py").write_text(example, encoding="utf-8")
        run(server, program, "-X", "utf8", "example.py", cwd=server.folder)


def npm():
    folder = npm_installed()
    script = folder / "mem0_npm.mjs"
    shutil.copy(HERE / "mem0_npm.mjs", script)
    with Server() as server:
        run(server, "node", script, f"https://localhost:{server.port}", server.owner_key)


if __name__ == "__main__":
    {"python": python, "npm": npm}[sys.argv[1]]()
