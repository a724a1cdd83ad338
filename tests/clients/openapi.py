"""schemathesis against the real server: answers that the OpenAPI document does not describe, 5xx, and routes that forget to ask for a key.

    tests/clients/openapi.py            a minute or two
    tests/clients/openapi.py --long     more examples of every operation, and sequences of operations

A pinned version is installed into target/clients, once. Where no registry can be reached and nothing is installed, it says so and ends with 77:
nothing was tested, nothing failed.

Not asked of it: that a value of another type is refused (the contract's routes coerce, as the document says), and that an unknown method is 405
(the contract's routes answer 404). What refuses by policy with 503 is left out of the check for 5xx alone; the stream of events does not end.
"""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/contract"))

from rosemary_server import Server  # noqa: E402

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "clients"
VERSION = "4.32.5"
# Before 3.11.8 and 3.12.2 CPython's parser, which hypothesis uses, fails now and then where several threads parse at once ("SystemError: AST
# constructor recursion depth mismatch", python/cpython#106905): an operation then counts as an error, and which one it is changes. With one
# worker nothing parses beside it; fewer threads ask the same questions.
WORKERS = 1 if (3, 11) <= sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2) else 4
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance", "ignored_auth"]
ENDLESS = ("watchMemories",)
REFUSES_BY_POLICY = ("queryMemory", "chat", "openCheckout", "openPortal")


def installed():
    folder = TARGET / f"schemathesis-{VERSION}"
    program = folder / "bin/st"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"schemathesis=={VERSION}"], check=False)
        if done.returncode:
            print(f"SKIPPED: schemathesis {VERSION} is not installed and pip cannot reach a registry: nothing was tested")
            sys.exit(77)
        (folder / "installed").touch()
    return program


def run(program, server, checks, filters, long):
    command = [
        program, "run", f"https://127.0.0.1:{server.port}/openapi.json", "--url", f"https://127.0.0.1:{server.port}",
        "--tls-verify", server.folder / "cert.pem", "--header", f"Authorization: Bearer {server.api_key}",
        "--checks", ",".join(checks), "--phases", "examples,coverage,fuzzing,stateful" if long else "examples,coverage,fuzzing",
        "--max-examples", "40" if long else "6", "--workers", WORKERS, "--seed", "1", "--warnings", "off", "--no-color", "--continue-on-failure",
        "--suppress-health-check", "all", "--generation-database", "none", *filters,
    ]
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR", "LANG")} | {"HOME": str(server.folder)}
    return subprocess.run([str(part) for part in command], cwd=server.folder, env=environment, check=False).returncode


def main():
    long = "--long" in sys.argv[1:]
    program = installed()
    with Server() as server:
        without = [part for name in (*ENDLESS, *REFUSES_BY_POLICY) for part in ("--exclude-operation-id", name)]
        by_policy = [part for name in REFUSES_BY_POLICY for part in ("--include-operation-id", name)]
        worst = max(run(program, server, CHECKS, without, long), run(program, server, CHECKS[1:], by_policy, False))
    sys.exit(worst)


if __name__ == "__main__":
    main()
