#!/usr/bin/env python3
"""Unlawful access does not compile: each attempt is a module of the crate itself, and the compiler must refuse it with the code expected.

Every file beside this one is an attempt. Its first line says what must happen:

    //! expect: E0451        the compiler refuses it, with this code only, in this file only
    //! expect: compiles     the lawful control

An attempt is appended to a copy of `src` as the module `attempt` and checked; dependencies come from the common target folder.
Arguments: names of attempts to run alone.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def check(folder):
    """Runs `cargo check --lib` there. Returns [(code, file, message)] of its errors."""
    done = subprocess.run(
        ["cargo", "check", "--lib", "--locked", "--quiet", "--message-format=json"], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "CARGO_TARGET_DIR": str(TARGET), "RUSTFLAGS": os.environ.get("RUSTFLAGS", "")},
    )
    errors = []
    for line in done.stdout.splitlines():
        message = json.loads(line).get("message", {})
        if message.get("level") == "error" and message.get("spans"):
            place = next((span for span in message["spans"] if span["is_primary"]), message["spans"][0])
            errors.append(((message.get("code") or {}).get("code", "no code"), place["file_name"], message["message"]))
    if done.returncode and not errors:
        sys.exit(f"cargo check itself failed:\n{done.stderr}")
    return errors


def main():
    attempts = sorted(path for path in HERE.glob("*.rs") if not sys.argv[1:] or path.stem in sys.argv[1:])
    if not any("expect: compiles" in path.read_text() for path in attempts) and not sys.argv[1:]:
        sys.exit("no lawful control: refusals alone prove nothing")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="rosemary-compile-") as name:
        folder = pathlib.Path(name)
        # Everything that the crate may include as text comes along.
        for entry in ("Cargo.toml", "Cargo.lock", "src", "config", "docs", "tests", "systemd", "packaging", "benches"):
            source = ROOT / entry
            if source.is_dir():
                shutil.copytree(source, folder / entry)
            elif source.exists():
                shutil.copy(source, folder / entry)
        lib = folder / "src/lib.rs"
        lib.write_text(lib.read_text() + "\n#[allow(dead_code, unused)]\nmod attempt;\n")
        for path in attempts:
            text = path.read_text()
            expected = re.match(r"//! expect: (\w+)\n", text)
            if not expected:
                sys.exit(f"{path.name}: the first line must be //! expect: E0000 or //! expect: compiles")
            (folder / "src/attempt.rs").write_text(text)
            errors = check(folder)
            want = [] if expected[1] == "compiles" else [expected[1]]
            good = sorted({code for code, _, _ in errors}) == want and all(file.endswith("src/attempt.rs") for _, file, _ in errors)
            print(f"{'ok  ' if good else 'FAIL'} {path.stem}: {expected[1]}", flush=True)
            if not good:
                failed += 1
                for code, file, message in errors[:10] or [("", "", "it compiles")]:
                    print(f"     {code} {file} {message}")
    print(f"{len(attempts) - failed} attempts as expected, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
