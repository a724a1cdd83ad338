//! The documents that follow from the tables: `docs/configuration.md`, `config/rosemary.env.example`, `config/relay.env.example` and the list in
//! `--help`.
//!
//! A test compares both files with what is written here; run it with `ROSEMARY_WRITE_DOCS=1` to write them anew.

use std::fmt::Write as _;

use crate::config::relay;
use crate::config::settings::{ABSENT, Fallback, GROUPS, Row};

/// Width of the wrapped comments and help.
const COLUMNS: usize = 100;

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = String::from(INTRODUCTION);
    sections(&mut text, "##", GROUPS);
    text.push_str(RELAY);
    sections(&mut text, "###", relay::GROUPS);
    text.push_str(NOT_OBEYED);
    for (name, why) in ABSENT {
        let _ = writeln!(text, "| `{name}` | {why} |");
    }
    text
}

/// The rows of `groups`, under headings of this `level`.
fn sections(text: &mut String, level: &str, groups: &[(&str, &[&Row])]) {
    for (group, rows) in groups {
        let _ = write!(text, "\n{level} {group}\n");
        for row in *rows {
            let _ = write!(text, "\n{level}# `{}`\n{}\n\n- takes: {}\n", row.name, wrapped(&row.help(), "").trim_end(), row.takes());
            let _ = write!(text, "- default: {}\n- since: {}\n", default(row), row.since);
            if row.is_secret() {
                let _ = writeln!(text, "- in a file: `{}_FILE` names the file that holds it", row.name);
            }
        }
    }
}

const RELAY: &str = "
## The relay
`rosemary relay` is a process and a user of its own ([egress.md](egress.md)), with a file of its own: `/etc/rosemary-relay/relay.env`, mode 0640,
`config/relay.env.example` is a template. None of these is a setting of the service, `RM_RELAY_SOCKET`, `RM_EGRESS_LOCK` and `RM_LOG` apart, which
both have; what stands in the wrong file stops the start.
";

/// What holds without the setting, in words.
fn default(row: &Row) -> String {
    match row.default {
        Fallback::Required(example) => format!("none; required (such as `{example}`)"),
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Absent(words, "") => words.into(),
        Fallback::Absent(words, example) => format!("{words} (such as `{example}`)"),
    }
}

const NOT_OBEYED: &str = "
## Names that this version does not obey
A setting that is accepted and ignored would be a lie, so these stop the start:

| name | why |
|---|---|
";

const INTRODUCTION: &str = "# Configuration
<!-- Written from src/config/settings.rs; a test keeps it current. -->

Rosemary reads `RM_*` variables from its environment, once, at the start. The systemd unit takes them from
`/etc/rosemary/rosemary.env`; `config/rosemary.env.example` is a template.

- Every fault is reported in one start, with name, value (never a secret) and remedy; then the program ends with exit code 78.
- A name that is not listed here is a fault. Blank means unset.
- Secrets: `<name>_FILE` names a file that holds the secret, mode 0640 or stricter. A secret written straight into the environment works
  and draws a warning. The suffix `_FILE` always means a file.
";

/// `config/rosemary.env.example`.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Settings of Rosemary: copy to /etc/rosemary/rosemary.env, owner root, group rosemary, mode 0640.\n\
         # Lines that begin with # are comments; every setting is listed. See docs/configuration.md.\n",
    );
    examples(&mut text, GROUPS, "/etc/rosemary/keys/NAME");
    text
}

/// `config/relay.env.example`.
pub fn relay_example() -> String {
    let mut text = String::from(
        "# Settings of Rosemary's relay: copy to /etc/rosemary-relay/relay.env, owner root, group rosemary-relay, mode 0640.\n\
         # Lines that begin with # are comments; every setting is listed. See docs/egress.md.\n",
    );
    examples(&mut text, relay::GROUPS, "/etc/rosemary-relay/model-key");
    text
}

/// The rows of `groups` as lines of a file, secrets in `secret`.
fn examples(text: &mut String, groups: &[(&str, &[&Row])], secret: &str) {
    for (group, rows) in groups {
        let _ = write!(text, "\n# === {group} ===\n");
        for row in *rows {
            let _ = write!(text, "\n{}", wrapped(&row.help(), "# "));
            let _ = match (row.is_secret(), row.default) {
                (true, _) => writeln!(text, "#{}_FILE={secret}", row.name.replace("<VENDOR>", "CURSOR")),
                (_, Fallback::Required(example)) => writeln!(text, "{}={example}", row.name),
                (_, Fallback::Value(value)) => writeln!(text, "#{}={value}", row.name),
                (_, Fallback::Absent(_, example)) => writeln!(text, "#{}={example}", row.name),
            };
        }
    }
}

/// The settings as `--help` lists them: name, values, default.
pub fn help() -> String {
    let mut text = String::from("Settings (environment; docs/configuration.md explains each):\n");
    for row in crate::config::settings::rows() {
        let _ = match row.default {
            Fallback::Required(_) => writeln!(text, "  {:<36}required: {}", row.name, row.takes()),
            Fallback::Value(value) => writeln!(text, "  {:<36}[{value}]", row.name),
            Fallback::Absent(..) if row.is_secret() => writeln!(text, "  {:<36}or {}_FILE", row.name, row.name),
            Fallback::Absent(words, _) => writeln!(text, "  {:<36}[{words}]", row.name),
        };
    }
    text
}

/// `text` in lines of at most [`COLUMNS`] characters, each after `prefix`.
fn wrapped(text: &str, prefix: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from(prefix);
    for word in text.split_whitespace() {
        if line.len() > prefix.len() && line.len() + word.len() >= COLUMNS {
            let _ = writeln!(lines, "{}", line.trim_end());
            line = String::from(prefix);
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(lines, "{}", line.trim_end());
    lines
}

/// Compares a generated document with the repository's; writes it first if `ROSEMARY_WRITE_DOCS` is set.
#[cfg(test)]
pub fn assert_current(file: &str, expected: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("ROSEMARY_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a writable tree");
        std::fs::write(&path, expected).expect("a writable tree");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), expected, "{file} is stale: run the tests with ROSEMARY_WRITE_DOCS=1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_are_current() {
        assert_current("docs/configuration.md", &markdown());
        assert_current("config/rosemary.env.example", &env_example());
        assert_current("config/relay.env.example", &relay_example());
    }
}
