//! Fuzz targets: each takes any bytes and panics when a promise of the product is broken.
//!
//! A target is a plain function, so that every driver runs the same code: libFuzzer (`bin/libfuzzer.rs`) where it can be built, else the
//! seeded mutator (`bin/mutate.rs`).

mod hyper_oracle;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use rosemary::api::schema::{Part, Schema};
use rosemary::api::{body, inputs};
use rosemary::audit::Entry;
use rosemary::audit::checkpoint::{Anchor, Checkpoint, vkey};
use rosemary::audit::note::Vkey;
use rosemary::audit::verify::Verifier;
use rosemary::base::codec;
use rosemary::base::id::{InstanceId, LogId};
use rosemary::config::Config;
use rosemary::crypto::unlock::{KdfCost, Kek};
use rosemary::engine::{Engine, Options, Read, Table};
use rosemary::http::parse::{Progress, fuzz_entry};
use rosemary::http::{percent_decode, query_pairs};
use serde_json::Value;

/// A target's name, its function, and inputs to begin with.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: &[Target] = &[
    Target { name: "http_head", run: http_head, seeds: http_seeds },
    Target { name: "json_body", run: json_body, seeds: json_seeds },
    Target { name: "query", run: query, seeds: || texts(&["a=b&c=%20+&a=%f0%9f%8c%bf", "tag=x&tag=y", "%", "=&=&"]) },
    Target { name: "checkpoint", run: checkpoint, seeds: checkpoint_seeds },
    Target { name: "audit_line", run: audit_line, seeds: audit_seeds },
    Target { name: "settings", run: settings, seeds: settings_seeds },
    Target { name: "codec", run: record_codec, seeds: codec_seeds },
    Target { name: "file", run: file, seeds: file_seeds },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A head that we accept is one that hyper reads too, with the same method, path and body length; the answer does not depend on how the
/// bytes arrive.
fn http_head(bytes: &[u8]) {
    let whole = fuzz_entry(bytes);
    if let Progress::Head(head, used) = &whole {
        assert!(*used <= bytes.len());
        assert!(matches!(fuzz_entry(&bytes[..*used]), Progress::Head(_, again) if again == *used), "the head alone is the same head");
        assert!(!matches!(fuzz_entry(&bytes[..*used - 1]), Progress::Head(..)), "one byte less is not yet a head");
        hyper_oracle::agree(&bytes[..*used], head);
    }
}

fn http_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /memories HTTP/1.1\r\nHost: localhost:8443\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n",
        "PUT /a?b=c HTTP/1.1\r\nHost: [::1]:1\r\nContent-Length: 0\r\nConnection: close, x\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        "\r\nHEAD * HTTP/1.0\nHost:a\n\n",
    ])
}

/// What the JSON reader accepts it accepts again, unchanged, but for fractions of more than 15 digits, whose last one may be rounded;
/// an error of a schema repeats nothing of the input.
fn json_body(bytes: &[u8]) {
    const SCHEMAS: [&Schema; 9] = [
        &inputs::CREATE,
        &inputs::AGENT_CREATE,
        &inputs::UPDATE,
        &inputs::LIST,
        &inputs::BROWSE,
        &inputs::BY_TAG,
        &inputs::TERM_SEARCH,
        &inputs::NEW_KEY,
        &inputs::SEARCH,
    ];
    let Ok(value) = body::json(bytes) else { return };
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    let again = body::json(&text).expect("what was written is read again");
    if !has_floats(&value) {
        assert_eq!(again, value, "what was written is read again");
    }
    for schema in SCHEMAS {
        for coerce in [false, true] {
            if let Err(error) = schema.check(Part::Body, Some(value.clone()), coerce) {
                assert!(error.to_string().len() < 400, "an error repeats no input");
            }
        }
    }
}

fn has_floats(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_floats),
        Value::Object(map) => map.values().any(has_floats),
        _ => false,
    }
}

fn json_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"title":"t","content":"c","tags":["a"],"allowed_vendors":["*"],"memory_type":"episodic","metadata":{"a":[1,{"b":null}]}}"#,
        r#"{"filter":{"by":"search","term":"x"},"limit":"2","offset":null}"#,
        r#"{"query":"how far","limit":5,"tags":["a"],"subject":"MRN","since":"2026-01-01T00:00:00Z","explain":true}"#,
        r#"{"title":"\ud83c\udf3f\u0000","content":1e400,"tags":"x"}"#,
        r#"{"a":1,"a":2}"#,
    ])
}

/// Decoding gives text or nothing, and never more than it got.
fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for plus in [false, true] {
        if let Some(decoded) = percent_decode(text, plus) {
            assert!(decoded.len() <= text.len());
        }
    }
    if let Some(pairs) = query_pairs(text) {
        assert!(pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= text.len());
    }
    let _ = body::form(text);
}

/// Nobody can sign without the key: no input but our own note is accepted.
fn checkpoint(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = Vkey::parse(text) {
        assert_eq!(key.to_string(), text, "a key has one text form");
    }
    let (key, log) = (signer(), log());
    let vkey = vkey(log, key.public());
    if let Ok(found) = Checkpoint::parse(text, &vkey) {
        assert_eq!(found.log, log);
        assert!(text.starts_with(&found.note(key)[..20]), "a signed checkpoint is ours");
    }
    let _ = Anchor::parse(text, &vkey);
    let mut verifier = Verifier::new();
    for line in text.lines().take(64) {
        if verifier.line(line).is_err() {
            break;
        }
    }
    let _ = verifier.finish(&vkey);
}

fn log() -> LogId {
    LogId::from_bytes([7; 16])
}

fn signer() -> &'static rosemary::crypto::sign::SigningKey {
    static KEY: OnceLock<rosemary::crypto::sign::SigningKey> = OnceLock::new();
    KEY.get_or_init(|| rosemary::crypto::sign::SigningKey::from_seed(&rosemary::crypto::secret::Secret::new([9; 32])))
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let note = Checkpoint { log: log(), size: 300, root: [3; 32] }.note(signer());
    vec![note.into_bytes(), vkey(log(), signer().public()).to_string().into_bytes()]
}

/// A line that is read is written again to the same bytes: there is one form.
fn audit_line(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(entry) = Entry::parse(text) {
        assert_eq!(entry.line(), text);
    }
}

fn audit_seeds() -> Vec<Vec<u8>> {
    include_str!("../../tests/vectors/audit/entries.ndjson").lines().map(|line| line.as_bytes().to_vec()).collect()
}

/// Settings are refused with a message or understood; a secret's value is in no message.
fn settings(bytes: &[u8]) {
    const CANARY: &str = "cAnArY-0123456789";
    let lines = bytes.split(|byte| *byte == b'\n').take(64);
    let mut vars: Vec<(OsString, OsString)> = lines
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            // Files are not opened at the fuzzer's word.
            (!line[..at].ends_with(b"_FILE")).then(|| (OsString::from_vec(line[..at].to_vec()), OsString::from_vec(line[at + 1..].to_vec())))
        })
        .collect();
    vars.push(("RM_AGENT_KEY_CANARY".into(), format!("{CANARY} ").into()));
    if let Err(problems) = Config::from_env(vars.into_iter()) {
        assert!(!problems.to_string().contains(CANARY), "a message repeats a secret");
    }
}

fn settings_seeds() -> Vec<Vec<u8>> {
    vec![
        b"RM_DB_PATH=/x/y.db\nRM_TENANT_ID=a\nRM_OWNER_EMAIL=a@b.example\nRM_PORT=8443\nRM_LISTEN=127.0.0.1,::1\nRM_API_KEY=0123456789abcdef0123456789abcdef"
            .to_vec(),
        b"RM_TRUSTED_PROXIES=10.0.0.0/8,::/0\nRM_CACHE_MIB=64\nRM_LOG=debug\nRM_PUBLIC_URL=https://a.example:1/\nRM_DISABLE_TELEMETRY=true".to_vec(),
        include_bytes!("../../config/rosemary.env.example").to_vec(),
    ]
}

type Shape = (u8, Option<u64>, String, Vec<Vec<u8>>, Option<(u32, [u8; 16])>, bool, i64);

/// A stored value that is read is written again to the same bytes.
fn record_codec(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<Shape>(1, bytes) {
        assert_eq!(codec::encode(1, &value), bytes);
    }
}

fn codec_seeds() -> Vec<Vec<u8>> {
    let shape: Shape = (1, Some(300), "ab".into(), vec![vec![1, 2], vec![]], Some((7, [9; 16])), true, -5);
    vec![codec::encode(1, &shape)]
}

const ROWS: u32 = 300;

fn options() -> Options {
    Options { cache_bytes: 1 << 20, stride: 4608, tables: &["rows"], kdf: KdfCost::DEFAULT }
}

fn row(n: u32) -> (Vec<u8>, Vec<u8>) {
    (n.to_be_bytes().to_vec(), n.to_le_bytes().repeat(40))
}

/// A whole file and the key that opens it, made once.
fn image() -> &'static (Vec<u8>, Kek) {
    static IMAGE: OnceLock<(Vec<u8>, Kek)> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = scratch();
        let kek = Kek::write_key_file(&folder.join("kek"), InstanceId::draw()).expect("a key can be written");
        let path = folder.join("seed.db");
        let _ = std::fs::remove_file(&path);
        let engine = Engine::create(&path, &options(), &kek).expect("a file can be made");
        for half in 0..2 {
            engine
                .commit(|batch| (0..ROWS).filter(|n| n % 2 == half).map(row).try_for_each(|(key, value)| batch.put(Table(0), &key, &value)))
                .unwrap_or_else(|_| panic!("rows can be written"));
        }
        engine.close().expect("a file can be closed");
        (std::fs::read(&path).expect("the file is there"), kek)
    })
}

fn scratch() -> std::path::PathBuf {
    let base = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    let folder = base.join(format!("rosemary-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

/// A file with bytes changed (input: offset u32, length u8, bytes; repeated) opens with the rows that were written, or errs; a row that
/// is read is right. No panic escapes.
fn file(bytes: &[u8]) {
    let (image, kek) = image();
    let (mut altered, mut rest) = (image.clone(), bytes);
    while let [a, b, c, d, length, tail @ ..] = rest {
        let length = usize::from(*length).min(tail.len());
        let at = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).expect("32 bits fit") % altered.len();
        for (byte, new) in altered[at..].iter_mut().zip(&tail[..length]) {
            *byte ^= new;
        }
        rest = &tail[length..];
    }
    let path = scratch().join("altered.db");
    std::fs::write(&path, &altered).expect("the copy can be written");
    let Ok(engine) = Engine::inspect(&path, &options(), kek) else { return };
    let Ok(snapshot) = engine.snapshot() else { return };
    for n in 0..ROWS {
        let (key, value) = row(n);
        if let Ok(found) = snapshot.get(Table(0), &key) {
            assert_eq!(found, Some(value), "a silent wrong answer");
        }
    }
}

fn file_seeds() -> Vec<Vec<u8>> {
    [0u32, 4096, 8192, 16384, 24576, 32768, 40960, 45568, 50176].iter().map(|at| [&at.to_le_bytes()[..], &[2, 0, 1]].concat()).collect()
}
