//! What operators may do to the settings, and what they get.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::settings::{ABSENT, Fallback, GROUPS, Takes, rows};
use super::*;

const MINIMUM: &[(&str, &str)] =
    &[("RM_DB_PATH", "/data/r.db"), ("RM_TENANT_ID", "007"), ("RM_OWNER_EMAIL", "Owner@Example.org"), ("RM_KEK_FILE", "/keys/kek")];

/// The minimum with `changes` on top.
fn read(changes: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), Problems> {
    let kept = MINIMUM.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    Config::from_env(kept.chain(changes).map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

/// The problems of the minimum with `changes` on top, as text.
fn problems(changes: &[(&str, &str)]) -> String {
    read(changes).map(|_| ()).expect_err("a problem").to_string()
}

/// A fresh folder of this test.
fn folder(test: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rosemary-config-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn file(folder: &Path, name: &str, content: &[u8], mode: u32) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn the_minimum_gives_the_defaults() {
    let (config, warnings) = read(&[]).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.tenant_label, "007");
    assert_eq!(config.owner_email, "owner@example.org");
    assert_eq!(config.listen, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((config.port, config.cache_mib, config.index_mib), (8443, 64, 256));
    assert_eq!(
        (config.max_connections, config.max_connections_per_address),
        (limits::CONNECTIONS_MAX, limits::CONNECTIONS_PER_ADDRESS_MAX)
    );
    assert_eq!(config.limits, RateLimits { address: NonZeroU32::new(100), credential: NonZeroU32::new(600), admin: NonZeroU32::new(10) });
    assert_eq!(config.kek, KekChoice::KeyFile("/keys/kek".into()));
    assert_eq!(config.tls.cert, Path::new("/data/cert.pem"));
    assert_eq!(config.tls.key, Path::new("/data/key.pem"));
    assert_eq!((config.tls.own, config.tls.min_version), (false, TlsVersion::V1_2));
    assert_eq!(config.log, Level::Info);
    assert!(config.api_key.is_none() && config.agent_keys.is_empty() && config.anchor_file.is_none() && config.public_url.is_none());
}

#[test]
fn every_row_is_obeyed_and_refuses_what_it_does_not_take() {
    for row in rows() {
        let name = row.name.replace("<VENDOR>", "CURSOR");
        let wrong: &[&str] = match row.takes {
            Takes::Number(least, most) => {
                for lawful in [least, most].map(|value| value.to_string()) {
                    let all = [(name.as_str(), lawful.as_str()), ("RM_MAX_CONNECTIONS", "16384")];
                    let one = if name == "RM_MAX_CONNECTIONS_PER_ADDRESS" { &all[..] } else { &all[..1] };
                    let answer = read(if name == "RM_MAX_CONNECTIONS" { &[("RM_MAX_CONNECTIONS", "64")] } else { one });
                    assert!(answer.is_ok(), "{name}={lawful}");
                }
                let beyond = (u64::from(most) + 1).to_string();
                assert!(problems(&[(&name, &beyond)]).starts_with(&format!("{name}={beyond:?}: give a whole number")));
                assert!(least == 0 || problems(&[(&name, "0")]).contains(&name));
                &["-1", "1e3", "0x10", "٣", "1.0", "+5", "many", "99999999999999999999"]
            }
            Takes::Word(_) => &["nonsense", "Self-Host ", "1.1", "true,"],
            Takes::Path => &["relative/path", "/", "x"],
            Takes::Secret(_) => &["short", "has spaces has spaces", "rm_live_0123456789abcdef", "ключ-ключ-ключ-ключ"],
            Takes::Text(_) => &["\u{7f}", "a b", ",", "maybe"],
        };
        // words that are lawful names, and the text that is free
        let lawful = |value: &str| match row.name {
            "RM_TENANT_ID" | "RM_RELAY_USER" => value == "maybe",
            "RM_MODEL_NAME" => matches!(value, "maybe" | ","),
            "RM_SYSTEM_PROMPT" => value != "\u{7f}",
            _ => false,
        };
        for value in wrong.iter().filter(|value| !lawful(value)) {
            assert!(problems(&[(&name, value)]).contains(&name), "{name}={value:?}");
        }
        if let Fallback::Value(text) | Fallback::Required(text) | Fallback::Absent(_, text) = row.default
            && !text.is_empty()
            && !["RM_KEK_PASSPHRASE_FILE", "RM_TLS_CERT", "RM_TLS_KEY", "RM_EMBEDDING_MODEL", "RM_EMBEDDING_MODEL_SHA256"]
                .contains(&row.name)
        {
            assert!(read(&[(&name, text)]).is_ok(), "the documents' own example must be lawful: {name}={text}");
        }
        assert_eq!(read(&[(&name, " \t ")]).is_err(), MINIMUM.iter().any(|(needed, _)| *needed == name), "blank means unset: {name}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let empty = Config::from_env(std::iter::empty()).map(|_| ()).unwrap_err();
    let names: Vec<&str> = empty.0.iter().map(|note| note.name.as_str()).collect();
    assert_eq!(names, ["RM_DB_PATH", "RM_KEK_FILE", "RM_OWNER_EMAIL", "RM_TENANT_ID"]);
    let text = problems(&[("RM_PORT", "http"), ("RM_LISTEN", "localhost"), ("RM_PROT", "1"), ("RM_TEST_MODE", "1")]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("RM_PORT=\"http\": give a whole number, 0 to 65535"));
    assert!(text.contains("RM_PROT: no such setting; did you mean RM_PORT?"));
    assert!(text.contains("RM_TEST_MODE: not obeyed by this version: no switch turns the safeguards off; remove it"));
}

#[test]
fn a_name_of_another_version_fails_with_its_own_message() {
    for (pattern, why) in ABSENT {
        let name = pattern.replace('*', "X");
        assert!(problems(&[(&name, "value-of-it")]).contains(&format!("{name}: not obeyed by this version: {why}")), "{name}");
        assert!(rows().all(|row| row.name != name), "{name} is in both tables");
    }
}

#[test]
fn names_are_unique_and_headed() {
    let mut names: Vec<&str> = rows().map(|row| row.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(GROUPS.iter().all(|(heading, rows)| !heading.is_empty() && !rows.is_empty()));
    assert!(rows().all(|row| row.help().ends_with('.') && settings::absent(row.name).is_none()));
}

#[test]
fn what_cannot_be_switched_says_so() {
    assert!(problems(&[("RM_DISABLE_TELEMETRY", "false")]).contains("no telemetry to enable"));
    assert!(problems(&[("RM_DISABLE_TELEMETRY", "tru")]).contains("give true"));
    assert!(problems(&[("RM_DEPLOYMENT_MODE", "hosted")]).contains("self-host"));
    assert!(read(&[("RM_DISABLE_TELEMETRY", "YES"), ("RM_DISABLE_MODEL_EGRESS", "1"), ("RM_DEPLOYMENT_MODE", "self-host")]).is_ok());
}

#[test]
fn a_model_needs_a_name_and_is_off_by_default() {
    assert!(read(&[]).unwrap().0.model.is_none() && read(&[("RM_MODEL_NAME", "m")]).unwrap().0.model.is_none());
    assert!(problems(&[("RM_DISABLE_MODEL_EGRESS", "false")]).contains("RM_MODEL_NAME: not set although RM_DISABLE_MODEL_EGRESS is false"));
    let model = |more: &[(&str, &str)]| {
        read(&[&[("RM_DISABLE_MODEL_EGRESS", "no"), ("RM_MODEL_NAME", "m")], more].concat()).ok().and_then(|(config, _)| config.model)
    };
    let defaults = model(&[]).unwrap();
    assert_eq!((defaults.temperature, defaults.max_tokens, defaults.context_chars), (Temperature(70), 1024, 100_000));
    let temperature = |text: &str| model(&[("RM_MODEL_TEMPERATURE", text)]).map(|model| model.temperature.0);
    assert_eq!([temperature("0"), temperature("2"), temperature("0.5"), temperature("1.25")], [Some(0), Some(200), Some(50), Some(125)]);
    for wrong in ["2.01", "-1", ".5", "1.", "0.123", "1e0", "NaN", "3", "10"] {
        assert_eq!(temperature(wrong), None, "{wrong}");
    }
    for (name, value) in
        [("RM_MODEL_BASE_URL", "https://llm.example"), ("RM_MODEL_API_KEY", "0123456789abcdef"), ("RM_EGRESS_ALLOW", "a:1")]
    {
        assert!(problems(&[(name, value)]).contains(&format!("{name}: a setting of the relay; move it to /etc/rosemary-relay/relay.env")));
    }
}

#[test]
fn a_secret_is_never_shown() {
    const CANARY: &str = "canary with space";
    let names = ["RM_API_KEY", "RM_API_KEY_FILE", "RM_AGENT_KEY_X", "RM_AGENT_KEY_X_FILE", "RM_APIKEY", "RM_KEK", "RM_KEK_FILE"];
    for name in names.into_iter().chain(["RM_KEK_PASSPHRASE", "RM_KEK_PASSPHRASE_FILE", "RM_TLS_KEY", "RM_MODEL_API_KEY", "RM_AGENT_KEY_"])
    {
        let text = problems(&[(name, CANARY)]);
        assert!(text.contains(name) && !text.contains("canary"), "{text}");
    }
    let text = problems(&[("RM_PUBLIC_URL", "https://user:canary@host")]);
    assert!(!text.contains("canary"));
    let key = "canary-0123456789-0123456789-0123456789";
    let (config, warnings) = read(&[("RM_API_KEY", key)]).unwrap();
    assert!(!format!("{config:?}{warnings:?}").contains("canary"));
    assert!(config.api_key.unwrap().matches(key.as_bytes()));
}

#[test]
fn a_secret_in_the_environment_or_a_short_one_draws_a_warning() {
    let warnings = |changes: &[(&str, &str)]| read(changes).unwrap().1.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(warnings(&[("RM_API_KEY", "0123456789abcdef")]).contains("set RM_API_KEY_FILE"));
    assert!(warnings(&[("RM_API_KEY", "0123456789abcdef")]).contains("shorter than 32"));
    assert_eq!(warnings(&[("RM_API_KEY", "0123456789abcdef0123456789abcdef")]).lines().count(), 1);
    assert!(warnings(&[("RM_ANCHOR_FILE", "/data/anchor")]).contains("another disk"));
    assert!(warnings(&[("RM_ANCHOR_FILE", "/other/anchor")]).is_empty());
    assert!(problems(&[("RM_API_KEY", "0123456789abcde")]).contains("16 to 512"));
}

#[test]
fn secrets_come_from_files_that_others_cannot_read() {
    let folder = folder("files");
    let key = "k".repeat(40);
    let good = file(&folder, "good", format!("{key}\r\n").as_bytes(), 0o640);
    let (config, warnings) = read(&[("RM_AGENT_KEY_CURSOR_FILE", &good)]).unwrap();
    assert!(warnings.is_empty());
    assert_eq!((config.agent_keys[0].vendor.as_str(), config.agent_keys[0].name.as_str()), ("cursor", "RM_AGENT_KEY_CURSOR"));
    assert!(config.agent_keys[0].key.matches(key.as_bytes()));
    assert!(problems(&[("RM_API_KEY_FILE", &good), ("RM_API_KEY", &"x".repeat(40))]).contains("set together with RM_API_KEY_FILE"));
    for (name, content, mode, says) in [
        ("open", key.as_bytes(), 0o644, "mode 0644 lets others"),
        ("group", key.as_bytes(), 0o660, "mode 0660 lets others"),
        ("empty", b"", 0o600, "empty"),
        ("blank", b" \n", 0o600, "blank"),
        ("binary", b"\xff\xfe0123456789abcdef", 0o600, "not UTF-8"),
        ("lines", b"0123456789abcdef\n0123456789abcdef\n", 0o600, "without spaces"),
        ("long", &[b'x'; limits::SECRET_FILE_BYTES_MAX + 1], 0o600, "longer than 4096 bytes"),
    ] {
        let path = file(&folder, name, content, mode);
        let text = problems(&[("RM_API_KEY_FILE", &path)]);
        assert!(text.contains(says), "{text}");
    }
    assert!(problems(&[("RM_API_KEY_FILE", "/nowhere/at/all")]).contains("No such file"));
    assert!(problems(&[("RM_API_KEY_FILE", "/dev/null")]).contains("not a regular file"));
    assert!(problems(&[("RM_API_KEY_FILE", folder.to_str().unwrap())]).contains("not a regular file"));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn static_keys_differ_and_vendors_are_lawful() {
    let (a, b) = ("a".repeat(32), "b".repeat(32));
    let (config, _) = read(&[("RM_API_KEY", &a), ("RM_AGENT_KEY_CLAUDE_2", &b)]).unwrap();
    assert_eq!(config.agent_keys[0].vendor, "claude_2");
    assert!(problems(&[("RM_API_KEY", &a), ("RM_AGENT_KEY_CURSOR", &a)]).contains("the same key as RM_API_KEY"));
    assert!(problems(&[("RM_AGENT_KEY_X", &a), ("RM_AGENT_KEY_Y", &a)]).contains("RM_AGENT_KEY_Y: the same key as RM_AGENT_KEY_X"));
    assert!(problems(&[("RM_AGENT_KEY_cursor", &a), ("RM_AGENT_KEY_CURSOR", &b)]).contains("names the vendor cursor"));
    assert!(problems(&[("RM_AGENT_KEY_API", &a)]).contains("reserved"));
    assert!(problems(&[("RM_AGENT_KEY_A.B", &a)]).contains("end the name with a vendor"));
    assert!(problems(&[(&format!("RM_AGENT_KEY_{}", "V".repeat(51)), &a)]).contains("end the name with a vendor"));
    assert!(read(&[(&format!("RM_AGENT_KEY_{}", "V".repeat(50)), &a)]).is_ok());
    assert!(problems(&[("RM_AGENT_KEY_FILE", "/nowhere/key")]).contains("no such setting"), "the suffix always means a file");
    for prefix in ["rm_live_", "rma_", "rmr_", "rms_", "rmk_"] {
        assert!(problems(&[("RM_AGENT_KEY_X", &format!("{prefix}{a}"))]).contains("reserved"));
    }
}

#[test]
fn a_dashboard_has_a_key_and_a_secret_or_neither() {
    let (a, b) = ("a".repeat(32), "b".repeat(32));
    let (config, _) = read(&[("RM_DASHBOARD_SERVICE_KEY", &a), ("RM_DASHBOARD_JWT_SECRET", &b)]).unwrap();
    let dashboard = config.dashboard.unwrap();
    assert!(dashboard.service_key.matches(a.as_bytes()) && dashboard.jwt_secret.matches(b.as_bytes()));
    assert!(read(&[]).unwrap().0.dashboard.is_none());
    assert!(
        problems(&[("RM_DASHBOARD_SERVICE_KEY", &a)]).contains("RM_DASHBOARD_JWT_SECRET: not set although RM_DASHBOARD_SERVICE_KEY is")
    );
    assert!(problems(&[("RM_DASHBOARD_JWT_SECRET", &b)]).contains("RM_DASHBOARD_SERVICE_KEY: not set although RM_DASHBOARD_JWT_SECRET is"));
    assert!(problems(&[("RM_DASHBOARD_SERVICE_KEY", &a), ("RM_DASHBOARD_JWT_SECRET", &b[..31])]).contains("32 to 512"));
    assert!(problems(&[("RM_DASHBOARD_SERVICE_KEY", &a), ("RM_DASHBOARD_JWT_SECRET", &a)]).contains("the same key as"));
    assert!(problems(&[("RM_DASHBOARD_SERVICE_KEY", &a), ("RM_DASHBOARD_JWT_SECRET", &b), ("RM_API_KEY", &a)]).contains("the same key as"));
}

#[test]
fn administrators_are_a_list_of_addresses_in_lower_case() {
    let (config, _) = read(&[("RM_OWNER_EMAILS", "A@x.example, b@x.example"), ("RM_MAX_SEATS", "3")]).unwrap();
    assert_eq!(config.oauth_grant_days, crate::base::limits::OAUTH_GRANT_DAYS);
    assert_eq!((config.admin_emails, config.seats_max), (vec!["a@x.example".to_owned(), "b@x.example".to_owned()], 3));
    assert!(problems(&[("RM_OWNER_EMAILS", "a@x.example,A@x.example")]).contains("repeats"));
    assert!(problems(&[("RM_OWNER_EMAILS", "a@x.example,")]).contains("e-mail address"));
}

#[test]
fn there_is_exactly_one_source_of_the_key() {
    assert!(problems(&[("RM_KEK_PASSPHRASE_FILE", "/keys/p")]).contains("RM_KEK_FILE: given together with RM_KEK_PASSPHRASE_FILE"));
    let (config, _) = read(&[("RM_KEK_FILE", ""), ("RM_KEK_PASSPHRASE_FILE", "/keys/p")]).unwrap();
    assert_eq!(config.kek, KekChoice::PassphraseFile("/keys/p".into()));

    let folder = folder("credential");
    let directory = folder.to_str().unwrap();
    assert!(problems(&[("RM_KEK_FILE", ""), ("CREDENTIALS_DIRECTORY", directory)]).contains("there is no other key"));
    file(&folder, KEK_CREDENTIAL, &[7; 32], 0o400);
    let (config, _) = read(&[("RM_KEK_FILE", ""), ("CREDENTIALS_DIRECTORY", directory)]).unwrap();
    assert_eq!(config.kek, KekChoice::Credential(folder.join(KEK_CREDENTIAL)));
    assert!(problems(&[("CREDENTIALS_DIRECTORY", directory)]).contains("RM_KEK_FILE: given together with the systemd credential"));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn certificate_and_key_go_together_and_no_file_serves_twice() {
    assert!(problems(&[("RM_TLS_CERT", "/c.pem")]).contains("RM_TLS_KEY: not set although RM_TLS_CERT is"));
    assert!(problems(&[("RM_TLS_KEY", "/k.pem")]).contains("RM_TLS_CERT: not set although RM_TLS_KEY is"));
    let (config, _) = read(&[("RM_TLS_CERT", "/c.pem"), ("RM_TLS_KEY", "/k.pem"), ("RM_TLS_MIN_VERSION", "1.3")]).unwrap();
    assert_eq!((config.tls.own, config.tls.min_version), (true, TlsVersion::V1_3));
    assert!(read(&[("RM_TLS_CERT", "/both.pem"), ("RM_TLS_KEY", "/both.pem")]).is_ok(), "one PEM file may hold both");
    assert!(problems(&[("RM_ANCHOR_FILE", "/data/r.db")]).contains("the same file as RM_DB_PATH"));
    assert!(problems(&[("RM_KEK_FILE", "/data/r.db")]).contains("RM_KEK_FILE=\"/data/r.db\": the same file as RM_DB_PATH"));
    assert!(problems(&[("RM_MAX_CONNECTIONS", "10")]).contains("RM_MAX_CONNECTIONS_PER_ADDRESS=\"64\": more than RM_MAX_CONNECTIONS"));
}

#[test]
fn a_public_url_is_host_and_port() {
    let url = |text: &str| {
        read(&[("RM_PUBLIC_URL", text)]).ok().and_then(|(config, _)| config.public_url).map(|url| (url.host, url.port, url.text))
    };
    let made = |host: &str, port, text: &str| Some((host.to_owned(), port, text.to_owned()));
    assert_eq!(url("https://Memory.Example:8443/"), made("memory.example", 8443, "https://memory.example:8443"));
    assert_eq!(url("HTTPS://host:443"), made("host", 443, "https://host"));
    assert_eq!(url("https://[0:0::1]:9"), made("[::1]", 9, "https://[::1]:9"));
    assert_eq!(url("https://[2001:db8::1]"), made("[2001:db8::1]", 443, "https://[2001:db8::1]"));
    assert_eq!(url("https://10.0.0.1"), made("10.0.0.1", 443, "https://10.0.0.1"));
    for wrong in
        ["http://h", "https://", "https:///", "https://h/p", "https://h:0", "https://h:65536", "https://h:", "https://u@h", "https://h?q"]
    {
        assert_eq!(url(wrong), None, "{wrong}");
    }
    for wrong in [
        "https://10.0.0.256",
        "https://0x7f.1",
        "https://h#f",
        "https://-h",
        "https://h.",
        "https://[::1",
        "https://::1",
        "https://h_h",
        "https://ü",
    ] {
        assert_eq!(url(wrong), None, "{wrong}");
    }
}

#[test]
fn lists_and_addresses_are_strict() {
    let listen = |text: &str| read(&[("RM_LISTEN", text)]).map(|(config, _)| config.listen.len()).ok();
    assert_eq!(listen("127.0.0.1, ::1"), Some(2));
    assert_eq!(listen("127.0.0.1,127.0.0.1"), None);
    assert_eq!(listen("127.0.0.1:80"), None);
    let proxies = |text: &str| read(&[("RM_TRUSTED_PROXIES", text)]).map(|(config, _)| config.trusted_proxies.len()).ok();
    assert_eq!(proxies("10.0.0.1, 10.1.0.0/16,fd00::/8"), Some(3));
    assert_eq!(proxies("0.0.0.0/0"), None);
    assert_eq!(proxies("10.0.0.1/16"), None);
    let email = |text: &str| read(&[("RM_OWNER_EMAIL", text)]).is_ok();
    assert!(email("a.b+c@hospital") && email("o'neil@x-y.example"));
    for wrong in ["a", "@b", "a@", "a@b@c", "a b@c", "a@b,c@d", ".a@b", "a..b@c", "a@b..c", "a@-b", "ä@b", &format!("{}@b", "a".repeat(65))]
    {
        assert!(!email(wrong), "{wrong}");
    }
}

#[test]
fn bytes_of_any_kind_are_answered_not_panicked_on() {
    use std::os::unix::ffi::OsStringExt;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let not_text =
        Config::from_env([(OsString::from("RM_TENANT_ID"), OsString::from_vec(vec![0xff]))].into_iter()).map(|_| ()).unwrap_err();
    assert!(not_text.to_string().contains("RM_TENANT_ID: not UTF-8 text") && !not_text.to_string().contains("RM_TENANT_ID: not set"));
    let names: Vec<String> = rows().map(|row| row.name.replace("<VENDOR>", "V")).collect();
    for round in 0..20_000_usize {
        let mut name = names[round % names.len()].clone().into_bytes();
        if round % 3 == 0 {
            let at = usize::from(byte()) % name.len();
            name[at] = byte();
        }
        let alphabet: &[u8] = b"https://[]:.,@/0129afAZ-_%\xff\xc3 \n";
        let value = (0..byte() % 24).map(|_| alphabet[usize::from(byte()) % alphabet.len()]).collect();
        let _ = Config::from_env([(OsString::from_vec(name), OsString::from_vec(value))].into_iter());
    }
}
