//! Fuzz targets: what hostile bytes may reach, each with the properties it must keep. A property that fails is a panic.
//!
//! Invariants
//! - A target is a function of its bytes alone, but for `api`, whose store lives as long as the process: no clock, no chance that decides.
//! - Neither driver knows a target: `libfuzzer` (coverage-guided) and `rosemary-fuzz` (seeded mutator) walk the same table.

pub mod mutate;
pub mod targets {
    //! The targets, by the layer they attack.
    pub mod api;
    pub mod config;
    pub mod egress;
    pub mod embed;
    pub mod http;
    pub mod json;
    pub mod jwt;
    pub mod log;
    pub mod mcp;
    pub mod stored;
}

use targets::{api, config, egress, embed, http, json, jwt, log, mcp, stored};

/// One target.
pub struct Target {
    /// Its name: of its seeds (`seeds/<name>`), corpus, findings and dictionary words.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// Longest input worth trying, bytes.
    pub bytes_max: usize,
    /// Words that a mutator may insert.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "http", run: http::run, bytes_max: 4096, words: http::WORDS },
    Target { name: "block", run: stored::block, bytes_max: 512, words: &[] },
    Target { name: "superblock", run: stored::superblock, bytes_max: 512, words: &[] },
    Target { name: "rows", run: stored::rows, bytes_max: 2048, words: &[] },
    Target { name: "json", run: json::run, bytes_max: 4096, words: json::WORDS },
    Target { name: "notes", run: log::notes, bytes_max: 4096, words: log::WORDS },
    Target { name: "entries", run: log::entries, bytes_max: 8192, words: log::WORDS },
    Target { name: "embed", run: embed::run, bytes_max: 1024, words: embed::WORDS },
    Target { name: "settings", run: config::run, bytes_max: 2048, words: config::WORDS },
    Target { name: "egress", run: egress::run, bytes_max: 2048, words: egress::WORDS },
    Target { name: "jwt", run: jwt::run, bytes_max: 1024, words: jwt::WORDS },
    Target { name: "mcp", run: mcp::run, bytes_max: 4096, words: mcp::WORDS },
    Target { name: "api", run: api::run, bytes_max: 4096, words: api::WORDS },
];

/// The target called `name`.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The files of folder `path`, read, in the order of their names; nothing if there is no such folder.
pub fn files(path: &std::path::Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
