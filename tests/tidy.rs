//! The tree as a whole, tested as code is tested: layers look downward, every module says what it promises, banned words stay out, and
//! documents name only what exists.
//!
//! Every check reads the working tree and reports all offences at once, one a line: `file:line: what is wrong`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Bottom to top: a layer may use itself and those before it.
const LAYERS: [&str; 16] = [
    "base", "config", "sandbox", "crypto", "embed", "authn", "policy", "audit", "engine", "store", "memories", "identity", "egress",
    "http", "api", "cli",
];

/// Layers that may use less than their place allows: leaves that must stay separable.
const ONLY: [(&str, &[&str]); 3] = [("http", &["base", "config"]), ("audit", &["base", "crypto"]), ("embed", &["base", "crypto"])];

/// What may be used from above, by exact prefix: settings hold secrets, and `Secret` depends on nothing.
const UPWARD: [(&str, &str); 1] = [("config", "crypto::secret")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository below `folder` (build output and version control apart) with one of `extensions` (empty: any), sorted.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if !["target", ".git", "__pycache__", "corpus", "artifacts", "dist"].iter().any(|skip| name == *skip) {
                    folders.push(path);
                }
            } else if path.is_file() && (extensions.is_empty() || extensions.iter().any(|e| path.extension().is_some_and(|x| x == *e))) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The line, counted from 1, on which byte `at` lies.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// `source` with comments and the inside of literals blanked, so that words and braces mean what they say. Lengths and lines are kept.
fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |from: usize, to: usize| out[from..to].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        let from = i;
        if rest.starts_with(b"//") {
            i += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            blank(from, i);
        } else if rest.starts_with(b"/*") {
            let mut depth = 0;
            while i < bytes.len() {
                match &bytes[i..] {
                    [b'/', b'*', ..] => (depth, i) = (depth + 1, i + 2),
                    [b'*', b'/', ..] => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            blank(from, i);
        } else if let Some(hashes) = raw_string(rest).filter(|_| i == 0 || !is_word(bytes[i - 1])) {
            let start = i + rest.iter().position(|b| *b == b'"').expect("a raw string has a quote") + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            i = source[start..].find(&end).map_or(bytes.len(), |at| start + at);
            blank(start, i);
            i = (i + end.len()).min(bytes.len());
        } else if rest[0] == b'"' {
            i += 1;
            while i < bytes.len() && bytes[i] != b'"' {
                i += if bytes[i] == b'\\' { 2 } else { 1 };
            }
            i = i.min(bytes.len());
            blank(from + 1, i);
            i += 1;
        } else if rest[0] == b'\'' {
            // A character literal closes after one character or one escape; anything else is a lifetime.
            let inner = if rest.get(1) == Some(&b'\\') {
                rest.iter().skip(3).position(|b| *b == b'\'').map(|at| at + 3)
            } else {
                source[i + 1..].chars().next().map(|c| 1 + c.len_utf8()).filter(|at| rest.get(*at) == Some(&b'\''))
            };
            i += match inner {
                Some(close) => {
                    blank(from + 1, from + close);
                    close + 1
                }
                None => 1,
            };
        } else {
            i += 1;
        }
    }
    String::from_utf8(out).expect("blanking keeps or clears whole characters")
}

/// The number of hashes if `rest` opens a raw string: `r"`, `r#"`, `br##"`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let after = rest.strip_prefix(b"br").or_else(|| rest.strip_prefix(b"r"))?;
    let hashes = after.iter().take_while(|b| **b == b'#').count();
    (after.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// The end of the item that starts at `at`: its closing brace or its semicolon.
fn item_end(code: &str, at: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in code.as_bytes()[at..].iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth -= 1;
                if depth == 0 && *byte == b'}' {
                    return at + offset + 1;
                }
            }
            b';' if depth == 0 => return at + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Items under `#[cfg(test)]` or `#[cfg(any(test, …` as (start, end) in `code`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    for marker in ["#[cfg(test)]", "#[cfg(any(test,", "#[cfg(any(test, "] {
        items.extend(code.match_indices(marker).map(|(at, _)| {
            let attribute = at + code[at..].find(']').map_or(0, |close| close + 1);
            (at, item_end(code, attribute))
        }));
    }
    items
}

/// One Rust file of `src`: its path, text, code, and whether all of it is test code.
struct Source {
    path: PathBuf,
    text: String,
    code: String,
    test: bool,
}

fn sources() -> Vec<Source> {
    let mut all: Vec<Source> = files("src", &["rs"])
        .into_iter()
        .map(|path| {
            let text = read(&path);
            Source { code: code(&text), path, text, test: false }
        })
        .collect();
    // `#[cfg(test)] mod name;` makes name.rs, or the folder name/, test code.
    let mut test_paths = BTreeSet::new();
    for source in &all {
        for (from, to) in test_items(&source.code) {
            let item = &source.code[from..to];
            let Some(name) = item.strip_suffix(';').and_then(|i| i.rsplit_once("mod ")).map(|(_, n)| n.trim()) else { continue };
            let stem = source.path.file_stem().unwrap_or_default();
            let folder = source.path.parent().expect("a file has a folder");
            let home = if stem == "mod" || stem == "lib" { folder.to_path_buf() } else { folder.join(stem) };
            test_paths.insert(home.join(format!("{name}.rs")));
            test_paths.insert(home.join(name));
        }
    }
    for source in &mut all {
        source.test = source.path.ancestors().any(|a| test_paths.contains(a));
    }
    all
}

/// `path` segments named after `crate::` in `code`, groups opened: `crate::{base::id, http}` gives `base::id` and `http`.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    fn expand(prefix: &str, text: &str, at: usize, out: &mut Vec<(usize, String)>) {
        let word = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
        let path = format!("{prefix}{}", &text[..word]);
        if !text[word..].starts_with('{') {
            out.push((at, path.trim_end_matches(':').to_owned()));
            return;
        }
        let (mut depth, mut start) = (0, word + 1);
        for (i, c) in text[word..].char_indices().map(|(i, c)| (i + word, c)) {
            match c {
                '{' => depth += 1,
                ',' if depth == 1 => {
                    expand(&path, text[start..i].trim(), at, out);
                    start = i + 1;
                }
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        if !text[start..i].trim().is_empty() {
                            expand(&path, text[start..i].trim(), at, out);
                        }
                        return;
                    }
                }
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with(['$', '_'])) {
        expand("", &code[at + "crate::".len()..], at, &mut out);
    }
    out
}

#[test]
fn layers_look_downward_only() {
    let mut offences = Vec::new();
    for source in sources() {
        let inside = source.path.strip_prefix(root().join("src")).expect("below src").to_path_buf();
        let own = inside.iter().next().and_then(|s| s.to_str()).unwrap_or_default().trim_end_matches(".rs").to_owned();
        let Some(place) = LAYERS.iter().position(|l| *l == own) else { continue };
        let only = ONLY.iter().find(|(layer, _)| *layer == own).map(|(_, may)| *may);
        for (at, path) in crate_paths(&source.code) {
            let used = path.split("::").next().unwrap_or_default();
            let Some(target) = LAYERS.iter().position(|l| *l == used) else { continue };
            let excepted = UPWARD.iter().any(|(layer, prefix)| *layer == own && path.starts_with(prefix));
            let lawful = used == own || only.map_or(target < place, |may| may.contains(&used)) || excepted;
            if !lawful {
                offences.push(format!("{}:{}: {own} must not use {path}", shown(&source.path), line_of(&source.code, at)));
            }
        }
    }
    none(offences);
}

#[test]
fn lib_declares_exactly_the_layers_in_order() {
    let lib = read(&root().join("src/lib.rs"));
    let declared = lib.split("layers! {").nth(1).and_then(|rest| rest.split('}').next()).expect("lib.rs declares the layers");
    assert_eq!(declared.split_whitespace().collect::<Vec<_>>(), LAYERS);
    let drawn = lib.lines().find(|l| l.contains('→')).expect("lib.rs draws the layers");
    let names: Vec<_> = drawn.split('`').skip(1).step_by(2).collect();
    assert_eq!(names, LAYERS, "the drawing in lib.rs");
}

#[test]
fn outbound_https_is_the_relays_client_alone() {
    let own = root().join("src/egress/client.rs");
    let users = sources().into_iter().filter(|source| source.path != own && source.code.contains("ureq"));
    none(users.map(|source| format!("{}: only src/egress/client.rs uses ureq", shown(&source.path))).collect());
}

#[test]
fn every_module_opens_with_its_promise() {
    none(
        sources()
            .iter()
            .filter(|s| s.text.lines().find(|l| !l.trim().is_empty()).and_then(|l| l.strip_prefix("//! ")).is_none_or(|t| t.len() < 20))
            .map(|s| format!("{}:1: begin with a module text (`//! …`) that says what it does and promises", shown(&s.path)))
            .collect(),
    );
}

#[test]
fn every_module_is_reached() {
    let all = sources();
    none(
        all.iter()
            .filter(|source| {
                let stem = source.path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
                let folder = source.path.parent().expect("a file has a folder");
                if folder == root().join("src") && matches!(stem, "lib" | "main") {
                    return false;
                }
                let name = if stem == "mod" { folder.file_name().and_then(|n| n.to_str()).unwrap_or_default() } else { stem };
                let home = if stem == "mod" { folder.parent().expect("src is above") } else { folder };
                let parents = [home.join("mod.rs"), home.join("lib.rs"), home.with_extension("rs")];
                !all.iter().filter(|s| parents.contains(&s.path)).any(|parent| {
                    parent.code.contains(&format!("mod {name};"))
                        || parent.code.contains("layers! {") && parent.code.split("layers! {").nth(1).is_some_and(|l| l.contains(name))
                })
            })
            .map(|s| format!("{}:1: no module declares this file", shown(&s.path)))
            .collect(),
    );
}

/// A test that `tests/run` does not name is one that nobody runs.
#[test]
fn every_module_of_contract_tests_is_run() {
    let run = read(&root().join("tests/run"));
    let steps: BTreeSet<&str> = run.lines().filter(|line| line.contains("step ")).flat_map(str::split_whitespace).collect();
    let modules = files("tests/contract", &["py"]).into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_owned();
        (name.starts_with("test_") && !steps.contains(name.as_str())).then(|| format!("{}: no step of tests/run runs it", shown(&path)))
    });
    none(modules.collect());
}

#[test]
fn banned_words_stay_out_of_the_product() {
    /// Word, remedy, and whether tests may use it.
    const BANNED: [(&str, &str, bool); 16] = [
        ("todo!", "finish it", false),
        ("unimplemented!", "finish it", false),
        ("dbg!", "remove it", false),
        ("Durability::None", "an acknowledged write is durable", false),
        ("Durability::Eventual", "an acknowledged write is durable", false),
        (".unwrap()", "return an error, or expect(\"why it cannot fail\")", true),
        (".unwrap_err()", "return an error, or expect(\"why it cannot fail\")", true),
        (".expect(\"\")", "say why it cannot fail", false),
        ("panic!(", "return an error; assert! says what must hold", true),
        ("print!(", "use base::log, or write to the stream that cli hands out", true),
        ("println!(", "use base::log, or write to the stream that cli hands out", true),
        ("eprint!(", "use base::log, or write to the stream that cli hands out", true),
        ("eprintln!(", "use base::log, or write to the stream that cli hands out", true),
        ("#[ignore", "a test that does not run is no test", false),
        ("static mut", "no global state", false),
        ("transmute", "no unsafe code", false),
    ];
    let mut offences = Vec::new();
    for source in sources() {
        let tests = test_items(&source.code);
        let printing = source.path.starts_with(root().join("src/cli"));
        for (word, remedy, in_tests) in BANNED {
            for (at, _) in source.code.match_indices(word) {
                let in_word = source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && !word.starts_with(['.', '#']);
                let test = source.test || tests.iter().any(|(from, to)| (*from..*to).contains(&at));
                // A measurement proves nothing and may wait to be asked for; literals are blanked in `code`, so the text is asked.
                let measurement = word == "#[ignore" && source.text[at..].starts_with("#[ignore = \"a measurement");
                let allowed = in_tests && test || printing && word.contains("print") || measurement;
                if !in_word && !allowed {
                    offences.push(format!("{}:{}: {word} is banned: {remedy}", shown(&source.path), line_of(&source.code, at)));
                }
            }
        }
    }
    none(offences);
}

#[test]
fn the_repository_speaks_of_the_product_alone() {
    // Spelled in two halves, so that this file does not offend.
    let banned: Vec<String> =
        [("/wo", "rk/"), ("/ho", "me/"), ("/Us", "ers/"), ("FIX", "ME"), ("XX", "X:"), ("<<<<", "<<<"), (">>>>", ">>>"), ("TO", "DO:")]
            .iter()
            .map(|(a, b)| format!("{a}{b}"))
            .collect();
    let mut offences = Vec::new();
    for path in files("", &[]) {
        // A worktree's pointer to its repository is not part of the tree.
        if path == root().join(".git") || path.file_name().is_some_and(|n| n == "Cargo.lock") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            for word in banned.iter().filter(|w| line.contains(w.as_str())) {
                offences.push(format!("{}:{}: {word:?} does not belong here", shown(&path), number + 1));
            }
        }
    }
    none(offences);
}

#[test]
fn every_dependency_states_its_reason() {
    let (mut section, mut above, mut offences) = (String::new(), "", Vec::new());
    let manifest = read(&root().join("Cargo.toml"));
    for (number, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if section.ends_with("dependencies") && line.contains('=') {
            // A dependency directly below another shares its reason.
            if !(above.starts_with("# ") || above.contains('=')) {
                offences.push(format!("Cargo.toml:{}: say in a comment above which need it serves", number + 1));
            }
            if line.contains('*') || line.contains("git =") || line.contains("path =") {
                offences.push(format!("Cargo.toml:{}: name a version of the registry", number + 1));
            }
        }
        above = line;
    }
    none(offences);
}

#[test]
fn no_package_contains_bench_internals() {
    let manifest = read(&root().join("Cargo.toml"));
    assert!(manifest.contains("\nbench-internals = []"), "the feature has a new name: change this test");
    assert!(!manifest.lines().any(|l| l.starts_with("default =") && l.contains("bench-internals")), "a default feature is packaged");
    none(
        ["packaging", "systemd"]
            .iter()
            .flat_map(|folder| files(folder, &[]))
            .filter(|path| ["bench-internals", "all-features"].iter().any(|word| read(path).contains(word)))
            .map(|path| format!("{}: packages must be built without bench-internals", shown(&path)))
            .collect(),
    );
}

#[test]
fn documents_link_to_what_exists() {
    let mut offences = Vec::new();
    for path in files("", &["md"]) {
        let text = read(&path);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ', '#']).next().unwrap_or_default();
            let folder = path.parent().expect("a file has a folder");
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") && !folder.join(target).exists() {
                offences.push(format!("{}:{}: {target} does not exist", shown(&path), line_of(&text, at)));
            }
        }
    }
    none(offences);
}

#[test]
fn evidence_in_the_threat_model_is_a_test_that_exists() {
    let tests: String =
        ["src", "tests"].iter().flat_map(|folder| files(folder, &["rs", "py"])).map(|path| read(&path)).collect::<Vec<_>>().join("\n");
    let path = root().join("docs/threat-model.md");
    let mut offences = Vec::new();
    for (number, line) in read(&path).lines().enumerate() {
        let names = line.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 2);
        for name in names.filter(|n| n.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')) {
            if !tests.contains(&format!("fn {name}(")) && !tests.contains(&format!("def {name}(")) {
                offences.push(format!("{}:{}: no test is named {name}", shown(&path), number + 1));
            }
        }
    }
    none(offences);
}

mod of_tidy_itself {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = "a // b {\n/* c /* d */ } */ \"e \\\" {\" r#\"f \" {\"# '{' '\\'' &'g x \"é{\"";
        let cleared = code(source);
        assert_eq!(cleared.len(), source.len());
        assert!(!cleared.contains(['{', '}', 'b', 'c', 'd', 'e', 'f', 'é']), "{cleared}");
        assert!(cleared.contains("&'g x"));
    }

    #[test]
    fn groups_are_opened() {
        let paths: Vec<_> = crate_paths("use crate::{base::{id, log::line}, http}; crate::api::x()").into_iter().map(|(_, p)| p).collect();
        assert_eq!(paths, ["base::id", "base::log::line", "http", "api::x"]);
    }

    #[test]
    fn test_items_end_at_their_brace_or_semicolon() {
        let text = "fn a() {} #[cfg(test)] mod t { fn b() {} } #[cfg(test)]\nmod u; fn c() {}";
        let found: Vec<_> = test_items(text).into_iter().map(|(from, to)| &text[from..to]).collect();
        assert_eq!(found, ["#[cfg(test)] mod t { fn b() {} }", "#[cfg(test)]\nmod u;"]);
    }
}
