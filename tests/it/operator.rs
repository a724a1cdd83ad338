//! The operator's commands on a real data file, the service stopped: what goes in comes out, and what is asked is answered.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// An instance in a folder of its own, gone afterwards.
struct Instance {
    folder: PathBuf,
}

impl Instance {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rosemary-it-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("other")).expect("a writable folder");
        let instance = Self { folder };
        assert!(instance.run(&["init"]).status.success());
        instance
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rosemary"));
        command.args(arguments).env_clear().current_dir(&self.folder);
        command.env("RM_DB_PATH", self.path("memory.db")).env("RM_KEK_FILE", self.path("kek")).env("RM_LOG", "warn");
        command.env("RM_TENANT_ID", "t").env("RM_OWNER_EMAIL", "owner@example.org").env("RM_ANCHOR_FILE", self.path("other/anchor"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Runs a command that must end with `code`; gives what it printed.
    fn expect(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let out = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
        let (said, complained) = (text(&out.stdout), text(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{arguments:?}\n{said}\n{complained}");
        (said, complained)
    }

    fn import(&self, lines: &str) -> (Option<i32>, String) {
        let mut child = self.command(&["import", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut input = child.stdin.take().expect("a pipe");
        // The program may stop reading at a faulty line.
        let _ = std::io::Write::write_all(&mut input, lines.as_bytes());
        drop(input);
        let out = child.wait_with_output().expect("it ends");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    fn export(&self) -> Vec<Value> {
        let (said, _) = self.expect(0, &["export", "-"]);
        said.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The records with ids told by their place in the file, so that two exports can be compared.
fn without_ids(mut records: Vec<Value>) -> Vec<Value> {
    let places: BTreeMap<String, usize> = (0..).zip(&records).map(|(at, record)| (record["id"].to_string(), at)).collect();
    for record in &mut records {
        let parent = record["parent_memory_id"].clone();
        record["id"] = Value::Null;
        if !parent.is_null() {
            record["parent_memory_id"] = json!(places[&parent.to_string()]);
        }
    }
    records
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it was made").permissions().mode() & 0o777
}

const RECORDS: &str = r#"{"id":"a","title":"Anna","content":"Emoji 🩺, umlaut ü, quote \" and \u0007","tags":["x","y"],"origin":"cursor","allowed_vendors":["cursor","unknown.tool"],"memory_type":"episodic","created_at":"2024-01-02T03:04:05.678Z","updated_at":"2024-02-02T00:00:00.000Z","subject":"patient 7","run_id":"r","speaker":"s","metadata":{"b":1.5,"a":[null,true]},"occurred_at":"2023-12-31T23:59:59.000Z","shared_at":null}
{"title":"In the trash","content":"c","deleted_at":"2024-03-01T00:00:00.000Z","created_at":"2024-01-01T00:00:00.000Z"}

{"id":"b","parent_memory_id":"a","title":"A reply","content":"older than its parent","created_at":"2023-01-01T00:00:00.000Z","subject":"patient 7"}
{"title":"Anna","content":"Emoji 🩺, umlaut ü, quote \" and \u0007","tags":["z"],"created_at":"2024-01-02T03:04:05.678Z"}
"#;

#[test]
fn an_export_that_is_imported_gives_equal_records() {
    let (one, two) = (Instance::new("one"), Instance::new("two"));
    assert_eq!(one.import(RECORDS).0, Some(0));
    let first = one.export();
    assert_eq!(first.len(), 4, "{first:?}");
    assert_eq!(first[0]["metadata"], json!({"a":[null,true],"b":1.5}));
    assert_eq!(
        (&first[0]["updated_at"], &first[0]["allowed_vendors"]),
        (&json!("2024-02-02T00:00:00.000Z"), &json!(["cursor", "unknown.tool"]))
    );
    assert_eq!(first[3]["parent_memory_id"], first[0]["id"], "replies come behind every parent");
    one.expect(0, &["export", "copy.ndjson"]);
    assert_eq!(mode(&one.path("copy.ndjson")), 0o600);
    one.expect(73, &["export", "copy.ndjson"]);
    two.expect(0, &["import", one.path("copy.ndjson").to_str().expect("a plain path")]);
    let second = two.export();
    assert!(first.iter().zip(&second).all(|(a, b)| a["id"] != b["id"]), "ids are new");
    assert_eq!(without_ids(first), without_ids(second));
    one.expect(0, &["verify"]);
    two.expect(0, &["verify"]);
}

#[test]
fn a_faulty_line_is_named_not_repeated_and_what_precedes_it_is_stored() {
    let instance = Instance::new("faulty");
    let good = r#"{"title":"t","content":"c"}"#;
    let mut stored = 0;
    for (bad, why) in [
        ("{", "not a JSON object"),
        ("[]", "must be object"),
        (r#"{"title":"t","title":"u","content":"c"}"#, "repeated key"),
        (r#"{"content":"canary"}"#, "title"),
        (r#"{"title":"t","content":7}"#, "/content"),
        (r#"{"title":"t","content":"c","canary":1}"#, "additional"),
        (r#"{"title":"t","content":"c","allowed_vendors":["two words"]}"#, "/allowed_vendors"),
        (r#"{"title":"t","content":"c","created_at":"2999-01-01T00:00:00Z"}"#, "future"),
        (r#"{"title":"t","content":"c","created_at":"2024-01-02T00:00:00Z","updated_at":"2024-01-01T00:00:00Z"}"#, "updated_at"),
        (r#"{"title":"t","content":"c","parent_memory_id":"canary"}"#, "parent_memory_id"),
        (r#"{"title":"t","content":"c","shared_with_org_id":"canary"}"#, "additional"),
    ] {
        let (code, said) = instance.import(&format!("{good}\n{good}\n{bad}\n{good}\n"));
        assert_eq!(code, Some(65), "{bad}: {said}");
        assert!(said.contains("line 3") && said.contains(why) && said.contains("the 2 memories before it"), "{bad}: {said}");
        assert!(!said.contains("canary"), "{said}");
        stored += 2;
    }
    let twins = r#"{"id":"a","title":"t","content":"c"}"#;
    assert!(instance.import(&format!("{twins}\n{twins}\n")).1.contains("line 2"));
    let long = format!("{{\"title\":\"t\",\"content\":\"{}\"}}", "x".repeat(3 << 20));
    assert!(instance.import(&long).1.contains("longer than"));
    assert_eq!(instance.export().len(), stored + 1);
    instance.expect(66, &["import", "absent.ndjson"]);
    instance.expect(0, &["verify"]);
}

#[test]
fn many_records_cross_chunks_and_come_back_in_order() {
    let instance = Instance::new("many");
    let record =
        |n: u64| format!("{{\"title\":\"t{n}\",\"content\":\"c\",\"created_at\":\"2024-01-01T00:00:{:02}.{:03}Z\"}}\n", n / 1000, n % 1000);
    assert_eq!(instance.import(&(0..1001).map(record).collect::<String>()).0, Some(0));
    let titles: Vec<String> = instance.export().iter().map(|record| record["title"].as_str().expect("text").to_owned()).collect();
    assert_eq!(titles, (0..1001).map(|n| format!("t{n}")).collect::<Vec<_>>());
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let instance = Instance::new("keys");
    let (key, _) = instance.expect(0, &["key", "make", "--label", "ward 3"]);
    assert!(key.starts_with("rm_live_"));
    let (list, _) = instance.expect(0, &["key", "list"]);
    let row = list.lines().find(|line| line.contains("ward 3")).expect("it is listed").to_owned();
    assert!(row.contains("owner@example.org") && row.contains(&key[..16]) && !list.contains(key.trim()), "{list}");
    let id = row.split(' ').next().expect("the id comes first");
    instance.expect(0, &["key", "revoke", id]);
    instance.expect(2, &["key", "revoke", id]);
    instance.expect(2, &["key", "revoke", "nonsense"]);
    instance.expect(2, &["key", "make", "--label", ""]);
    instance.expect(0, &["verify"]);
}

#[test]
fn an_exported_log_is_checked_with_its_key_alone() {
    let instance = Instance::new("log");
    instance.import(RECORDS);
    let (report, _) = instance.expect(0, &["verify"]);
    let key = report.lines().find_map(|line| line.strip_prefix("log key")).expect("the key is told").trim().to_owned();
    instance.expect(0, &["audit", "export", "log.ndjson"]);
    assert_eq!(mode(&instance.path("log.ndjson")), 0o600);
    instance.expect(0, &["audit", "export", "part.ndjson", "--from", "2", "--to", "5"]);
    instance.expect(2, &["audit", "export", "none.ndjson", "--from", "5000"]);
    assert!(!instance.path("none.ndjson").exists());
    // No settings are needed, and none is read.
    let check = |file: &str, key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rosemary"));
        let out = command.args(["verify", "--log", file, "--key", key]).env_clear().current_dir(&instance.folder).output();
        out.expect("the program starts").status.code()
    };
    assert_eq!((check("log.ndjson", &key), check("part.ndjson", &key)), (Some(0), Some(0)));
    let whole = fs::read_to_string(instance.path("log.ndjson")).expect("text");
    assert!(whole.contains("\"op\":\"memory.import\"") && !whole.contains("umlaut"));
    for changed in [whole.replacen("\"n\":4", "\"n\":3", 1), whole.lines().skip(1).collect::<Vec<_>>().join("\n"), String::new()] {
        fs::write(instance.path("changed.ndjson"), changed).expect("a writable folder");
        assert_eq!(check("changed.ndjson", &key), Some(1));
    }
    let (other, _) = Instance::new("other").expect(0, &["verify"]);
    let other = other.lines().find_map(|line| line.strip_prefix("log key")).expect("the key is told").trim();
    assert_eq!((check("log.ndjson", other), check("log.ndjson", "nonsense")), (Some(1), Some(2)));
    // The export itself is in the log.
    let (later, _) = instance.expect(0, &["audit", "export", "-"]);
    assert_eq!(later.matches("\"op\":\"audit.export\"").count(), 3, "the two that gave something, and the refusal");
}

#[test]
fn a_lost_anchor_is_accepted_by_an_override_that_the_log_tells_of() {
    let instance = Instance::new("anchor");
    fs::remove_file(instance.path("other/anchor")).expect("init made it");
    instance.expect(86, &["export", "-"]);
    let (report, _) = instance.expect(1, &["verify"]);
    assert!(report.contains("anchor"));
    instance.expect(0, &["anchor", "accept"]);
    instance.expect(0, &["verify"]);
    let (log, _) = instance.expect(0, &["audit", "export", "-"]);
    let entry = log.lines().find(|line| line.contains("\"op\":\"anchor.accept\"")).expect("it is recorded");
    assert!(entry.contains("\"reason\":\"override\"") && entry.contains("\"setting\":\"anchor\""), "{entry}");
}

#[test]
fn verify_and_doctor_change_nothing() {
    let instance = Instance::new("untouched");
    assert_eq!(instance.import(RECORDS).0, Some(0));
    let all =
        || ["memory.db", "kek", "cert.pem", "key.pem", "other/anchor"].map(|name| fs::read(instance.path(name)).expect("it is there"));
    let before = all();
    instance.expect(0, &["verify"]);
    instance.run(&["doctor"]);
    assert!(all() == before, "a file was changed");
    // One damaged byte in each copy of the superblock in turn: the file opens by the other copy, and the report says so.
    let whole = before[0].clone();
    for at in [300, 4096 + 300] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(instance.path("memory.db"), &damaged).expect("our file");
        let (report, _) = instance.expect(1, &["verify"]);
        assert!(report.contains("superblock: copy"), "{report}");
        assert!(fs::read(instance.path("memory.db")).expect("it is there") == damaged, "verify mends nothing");
    }
}

/// `verify` called a file sound into which an older superblock had been put back, with a key slot that was removed since.
#[test]
fn verify_finds_an_older_superblock() {
    let instance = Instance::new("superblock");
    let old = fs::read(instance.path("memory.db")).expect("init made it")[..8192].to_vec();
    instance.expect(0, &["keys", "rotate", "epoch"]);
    let (report, _) = instance.expect(0, &["verify"]);
    assert!(!report.contains("WRONG"), "{report}");
    // Without an anchor, which would see it too.
    fs::remove_file(instance.path("other/anchor")).expect("init made it");
    let unanchored = |arguments: &[&str]| instance.command(arguments).env_remove("RM_ANCHOR_FILE").output().expect("the program starts");
    assert_eq!(unanchored(&["verify"]).status.code(), Some(0));
    let mut file = fs::read(instance.path("memory.db")).expect("it is there");
    file[..8192].copy_from_slice(&old);
    fs::write(instance.path("memory.db"), &file).expect("our file");
    let found = unanchored(&["verify"]);
    let report = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.status.code() == Some(1) && report.contains("superblock: the superblock has generation 1"), "{report}");
}

/// The anchor of an `init` that failed behind it stood in the way of the next, as one that may guard another file.
#[test]
fn an_init_that_failed_can_be_run_again() {
    let instance = Instance::new("again");
    for made in ["memory.db", "other/anchor"] {
        fs::remove_file(instance.path(made)).expect("init made it");
    }
    fs::create_dir(instance.path("other/anchor.erased")).expect("a folder where the list belongs");
    let out = instance.run(&["init"]);
    assert!(!out.status.success() && !instance.path("memory.db").exists(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!instance.path("other/anchor").exists(), "the anchor is gone with the file it spoke of");
    fs::remove_dir(instance.path("other/anchor.erased")).expect("it is empty");
    instance.expect(0, &["init"]);
    // One that is of another file stays.
    fs::remove_file(instance.path("memory.db")).expect("init made it");
    assert!(!instance.run(&["init"]).status.success() && instance.path("other/anchor").exists());
}

#[test]
fn doctor_names_what_is_weak_and_exits_1() {
    let instance = Instance::new("doctor");
    let out = instance.command(&["doctor", "--json"]).env("RM_RATE_LIMIT_PER_MINUTE", "0").output().expect("the program starts");
    assert_eq!(out.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("a list");
    let state = |name: &str| checks.iter().find(|check| check["name"] == name).map(|check| check["state"].clone());
    assert_eq!(state("rate: addresses"), Some(json!("weak")));
    assert_eq!(state("rate: credentials"), Some(json!("on")));
    assert_eq!(state("egress lock"), Some(json!("on")));
    assert_eq!(state("data file"), Some(json!("on")));
    assert!(
        checks.iter().all(|check| check["state"] != "weak" || check["remedy"] != "" || check["name"] == "setting"),
        "each weakness has a remedy"
    );
    fs::set_permissions(instance.path("memory.db"), fs::Permissions::from_mode(0o644)).expect("our file");
    let (text, _) = instance.expect(1, &["doctor"]);
    assert!(text.contains("chmod 0600"), "{text}");
}
