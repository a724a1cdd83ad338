//! Settings from any environment: lines `NAME=value`.
//!
//! The reading ends, in the same way whatever the order of the variables; what is accepted obeys the bounds that the fields promise; no
//! secret's value, and no unknown name's, is repeated in a problem or a warning.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use rosemary::config::{Config, settings};

/// Names and values of settings.
pub const WORDS: &[&str] = &[
    "RM_DB_PATH=/data/r.db\n",
    "RM_TENANT_ID=a\n",
    "RM_OWNER_EMAIL=o@example.org\n",
    "RM_KEK_FILE=/keys/kek\n",
    "RM_KEK_PASSPHRASE_FILE=/keys/p\n",
    "RM_LISTEN=",
    "RM_PORT=",
    "RM_PUBLIC_URL=https://",
    "RM_TLS_CERT=/t/c\n",
    "RM_TLS_KEY=/t/k\n",
    "RM_TLS_CLIENT_CA=/t/a\n",
    "RM_TLS_MIN_VERSION=1.3\n",
    "RM_API_KEY=",
    "RM_API_KEY_FILE=/",
    "RM_AGENT_KEY_CURSOR=",
    "RM_AGENT_KEY_",
    "_FILE=",
    "RM_RATE_LIMIT_PER_MINUTE=",
    "RM_MAX_CONNECTIONS=",
    "RM_MAX_CONNECTIONS_PER_ADDRESS=",
    "RM_TRUSTED_PROXIES=",
    "RM_CACHE_MIB=",
    "RM_INDEX_MIB=",
    "RM_LOG=",
    "RM_ANCHOR_FILE=/a/b\n",
    "RM_DISABLE_TELEMETRY=",
    "RM_DEPLOYMENT_MODE=self-host\n",
    "RM_DISABLE_MODEL_EGRESS=false\n",
    "RM_MODEL_NAME=m\n",
    "RM_MODEL_TEMPERATURE=",
    "RM_SYSTEM_PROMPT=",
    "RM_RELAY_USER=",
    "CREDENTIALS_DIRECTORY=/nonexistent\n",
    "127.0.0.1",
    "[::1]",
    "::1",
    "fe80::1%eth0",
    "10.0.0.0/8",
    "/0",
    "0",
    "65535",
    "65536",
    "4294967296",
    "+5",
    "true",
    "off",
    "xn--",
    ":443",
    "@",
    "..",
    "/../",
    "\u{e9}",
    "\u{0}",
    "\u{7f}",
    ",",
    " ",
    "\n",
    "=",
];

/// Added to every value that no message may repeat.
const MARK: &str = "Qy7Zx9Kw";

fn read(vars: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(Config, Vec<String>), Vec<String>> {
    let vars = vars.map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)));
    let texts = |notes: Vec<rosemary::config::Warning>| notes.iter().map(ToString::to_string).collect::<Vec<_>>();
    match Config::from_env(vars) {
        Ok((config, warnings)) => Ok((config, texts(warnings))),
        Err(problems) => Err(texts(problems.0)),
    }
}

/// The target.
pub fn run(bytes: &[u8]) {
    let shown: Vec<&str> = settings::rows().filter(|row| !row.is_secret() && !row.guards_secret()).map(|row| row.name).collect();
    let mut vars: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
        let (name, mut value) = (line[..at].to_vec(), line.get(at + 1..).unwrap_or_default().to_vec());
        let is = |known: &str| name == known.as_bytes();
        if name.starts_with(b"RM_") && !shown.iter().any(|known| is(known)) && !name.ends_with(b"_FILE") {
            value.extend_from_slice(MARK.as_bytes());
        }
        // A process has each name once.
        if !vars.iter().any(|(known, _)| *known == name) {
            vars.push((name, value));
        }
    }
    let (forth, back) = (read(vars.iter().cloned()), read(vars.iter().rev().cloned()));
    // A mutator that learned the mark may have put it where it may be shown.
    let learned = bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes());
    for text in forth.as_ref().map_or_else(|problems| problems, |(_, warnings)| warnings) {
        assert!(learned || !text.contains(MARK), "{text}");
    }
    match (forth, back) {
        (Ok((config, _)), Ok((again, _))) => {
            assert_eq!((&config.db_path, &config.public_url, &config.listen), (&again.db_path, &again.public_url, &again.listen));
            accepted(&config);
        }
        (Err(mut problems), Err(mut again)) => {
            assert!(!problems.is_empty());
            problems.sort();
            again.sort();
            assert_eq!(problems.len(), again.len(), "{problems:?}\n{again:?}");
        }
        (one, other) => panic!("the order of variables decides: {:?} {:?}", one.err(), other.err()),
    }
}

fn accepted(config: &Config) {
    assert!(config.db_path.is_absolute() && !config.listen.is_empty());
    assert!(config.max_connections_per_address <= config.max_connections);
    assert!(
        (1..=64).contains(&config.tenant_label.len())
            && config.tenant_label.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    );
    assert_eq!(config.owner_email, config.owner_email.to_lowercase());
    if let Some(url) = &config.public_url {
        assert!(
            url.host == url.host.to_lowercase() && !url.host.is_empty() && url.text.starts_with("https://") && !url.text.ends_with('/')
        );
        assert_eq!(settings::PUBLIC_URL.row.name, "RM_PUBLIC_URL");
        let again = rosemary::config::parse::public_url(&settings::PUBLIC_URL.row, &url.text).expect("a URL's own text is a URL");
        assert_eq!(again, *url);
    }
    let keys: Vec<&str> =
        config.agent_keys.iter().map(|agent| &agent.key).chain(&config.api_key).map(|key| key.expose().as_str()).collect();
    assert!(keys.iter().enumerate().all(|(i, key)| key.len() >= 16 && !keys[..i].contains(key)), "static keys are long and distinct");
    let vendor =
        |vendor: &str| (1..=50).contains(&vendor.len()) && vendor.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    assert!(config.agent_keys.iter().all(|agent| vendor(&agent.vendor)));
}
