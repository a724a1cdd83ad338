//! Settings of the relay: a table, a file and a user of their own, so that outbound credentials never stand in the service's environment and
//! the service's keys never in the relay's.
//!
//! Invariants
//! - There is no destination but those listed, each a host and a port.
//! - The model's address is one of them, and its host is named among the model hosts too.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::base::limits;
use crate::base::log::Level;
use crate::config::raw::{Problems, Raw, Warning, Whose};
use crate::config::settings::{Fallback, Row, Setting, Takes};
use crate::config::{parse, settings};
use crate::crypto::secret::Secret;

/// Where the packaged relay has its settings.
pub const FILE: &str = "/etc/rosemary-relay/relay.env";

settings::table! {
    "Where it may go" {
        /// Every host and port that may be connected to, separated by commas, each exactly so. Nothing else is reached, whoever asks.
        EGRESS_ALLOW: Vec<Destination> = "RM_EGRESS_ALLOW", "0.1.0",
            Takes::Text("host:port, separated by commas"), Fallback::Required("llm.hospital.example:443"), parse::destinations;
        /// CA certificates in PEM by which destinations are known. Unset: those of the system.
        EGRESS_CA: PathBuf = "RM_EGRESS_CA", "0.1.0",
            Takes::Path, Fallback::Absent("the system's", "/etc/rosemary-relay/ca.pem"), parse::path;
        /// Seconds that one request may take in all.
        EGRESS_SECONDS: u32 = "RM_EGRESS_TIMEOUT_SECONDS", "0.1.0",
            Takes::Number(1, limits::EGRESS_SECONDS_MAX), Fallback::Value("120"), parse::number;
    }
    "The language model" {
        /// Where the OpenAI-compatible endpoint begins; `/chat/completions` is appended. Its host and port must be in `RM_EGRESS_ALLOW`.
        MODEL_BASE_URL: BaseUrl = "RM_MODEL_BASE_URL", "0.1.0",
            Takes::Text("https URL"), Fallback::Absent("none: no model is reached", "https://llm.hospital.example/v1"), parse::base_url;
        /// Hosts that may be the model's, separated by commas: a second list, so that neither alone opens the way for prompts.
        ALLOWED_MODEL_HOSTS: Vec<String> = "RM_ALLOWED_MODEL_HOSTS", "0.1.0",
            Takes::Text("host names, separated by commas"),
            Fallback::Absent("none: required with `RM_MODEL_BASE_URL`", "llm.hospital.example"), parse::hosts;
        /// True: the model's host must resolve to private addresses alone (RFC 1918, unique local, loopback), or it is not connected to.
        REQUIRE_INTERNAL: bool = "RM_REQUIRE_INTERNAL_MODEL_BASE_URL", "0.1.0",
            Takes::Text("true (1, yes, on) or false (0, no, off)"), Fallback::Value("true"), parse::truth;
        /// What the endpoint asks for as a bearer token.
        MODEL_API_KEY: Secret<String> = "RM_MODEL_API_KEY", "0.1.0",
            Takes::Secret(limits::STATIC_KEY_CHARS.0), Fallback::Absent("none is sent", ""), parse::static_key;
    }
    "The relay itself" {
        /// UNIX socket of the service, which the relay connects to.
        RELAY_SOCKET: PathBuf = "RM_RELAY_SOCKET", "0.1.0",
            Takes::Path, Fallback::Value("/run/rosemary-relay.sock"), parse::path;
        /// The kernel's lock on the relay: no program is run, no socket listens, no port is reached that `RM_EGRESS_ALLOW` does not name.
        /// On a kernel that cannot enforce it the relay does not start unless this is off.
        EGRESS_LOCK: bool = "RM_EGRESS_LOCK", "0.1.0",
            Takes::Text("on (1, true, yes) or off (0, false, no)"), Fallback::Value("on"), parse::switch;
        /// How much is written to the log on standard error. No level holds what is sent or answered.
        LOG: Level = "RM_LOG", "0.1.0",
            Takes::Word(&["error", "warn", "info", "debug"]), Fallback::Value("info"), parse::level;
    }
}

/// Every row, in the order of the documents.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|(_, rows)| rows.iter().copied())
}

/// A host and a port that may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Name or IP literal in lower case; IPv6 in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where an endpoint begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Its host and port.
    pub to: Destination,
    /// Its path, empty or beginning with `/`, without one at its end.
    pub path: String,
}

/// The model's endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its place in the list, counted from 0.
    pub index: usize,
    /// Its path.
    pub path: String,
    /// Whether its addresses must be private.
    pub internal: bool,
    /// What it asks for.
    pub key: Option<Secret<String>>,
}

/// The relay's settings as meant.
#[derive(Debug)]
pub struct RelayConfig {
    /// Where it may go, at least one.
    pub allow: Vec<Destination>,
    /// CA certificates, if not the system's.
    pub ca: Option<PathBuf>,
    /// Seconds for one request.
    pub seconds: u32,
    /// The model.
    pub model: Option<Endpoint>,
    /// Where the service listens.
    pub socket: PathBuf,
    /// Must the kernel lock the relay in?
    pub lock: bool,
    /// Least important level that is logged.
    pub log: Level,
}

impl RelayConfig {
    /// Reads the settings from environment variables.
    ///
    /// Errors: [`Problems`], all of them.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<(Self, Vec<Warning>), Problems> {
        let mut raw = Raw::collect(vars);
        let config = Self::take(&mut raw);
        let warnings = raw.finish(Whose::Relay)?;
        Ok((config.expect("what is missing has been noted as a problem"), warnings))
    }

    /// Reads a file of settings, one `NAME=value` a line, as the unit does. It is what an operator edits, so it is read whole or not at all.
    ///
    /// Errors: it cannot be read, or [`Problems`]; the text is for the operator.
    pub fn from_file(path: &Path) -> Result<(Self, Vec<Warning>), String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}; check the path", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
        let pairs = lines.map(|line| line.split_once('=').unwrap_or((line, "")));
        let pairs: Vec<(OsString, OsString)> =
            pairs.map(|(name, value)| (name.trim().into(), value.trim().trim_matches(['"', '\'']).into())).collect();
        Self::from_env(pairs.into_iter()).map_err(|problems| format!("{}: {problems}", path.display()))
    }

    fn take(raw: &mut Raw) -> Option<Self> {
        let allow = raw.take(&EGRESS_ALLOW);
        let ca = raw.take(&EGRESS_CA);
        let seconds = raw.take(&EGRESS_SECONDS);
        let url = raw.take(&MODEL_BASE_URL);
        let hosts = raw.take(&ALLOWED_MODEL_HOSTS);
        let internal = raw.take(&REQUIRE_INTERNAL);
        let key = raw.take_secret(MODEL_API_KEY.row.name, &MODEL_API_KEY);
        let socket = raw.take(&RELAY_SOCKET);
        let lock = raw.take(&EGRESS_LOCK);
        let log = raw.take(&LOG);
        let allow = allow?;
        let model = match url {
            None => None,
            Some(BaseUrl { to, path }) => {
                let name = MODEL_BASE_URL.row.name;
                let listed = allow.iter().position(|one| *one == to);
                if listed.is_none() {
                    raw.problem(name, Some(&to.to_string()), format!("not in {}; add it there", EGRESS_ALLOW.row.name));
                }
                let named = hosts.is_some_and(|hosts| hosts.contains(&to.host));
                if !named {
                    raw.problem(name, Some(&to.host), format!("not in {}; add it there", ALLOWED_MODEL_HOSTS.row.name));
                }
                Some(Endpoint { index: listed.filter(|_| named)?, path, internal: internal?, key })
            }
        };
        Some(Self { allow, ca, seconds: seconds?, model, socket: socket?, lock: lock?, log: log? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<RelayConfig, String> {
        let vars = vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        RelayConfig::from_env(vars).map(|(config, _)| config).map_err(|problems| problems.to_string())
    }

    fn with(more: &[(&str, &str)]) -> Result<RelayConfig, String> {
        let mut vars = vec![("RM_EGRESS_ALLOW", "llm.example:8443,10.0.0.5:443")];
        vars.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        vars.extend(more);
        read(&vars)
    }

    #[test]
    fn without_a_list_there_is_no_relay() {
        assert!(read(&[]).unwrap_err().contains("RM_EGRESS_ALLOW: not set, and required"));
        let config = with(&[]).unwrap();
        assert_eq!(config.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["llm.example:8443", "10.0.0.5:443"]);
        assert!(config.model.is_none() && config.lock && config.seconds == 120);
        for wrong in [
            "llm.example",
            "llm.example:0",
            "llm.example:65536",
            "*:443",
            "llm example:443",
            "a:1,a:1",
            "fd00::5:443",
            "10.0.0.256:1",
            "https://a:1",
        ] {
            assert!(with(&[("RM_EGRESS_ALLOW", wrong)]).is_err(), "{wrong}");
        }
        assert!(with(&[("RM_EGRESS_ALLOW", "[FD00:0::5]:1")]).unwrap().allow[0].to_string() == "[fd00::5]:1");
    }

    #[test]
    fn the_models_address_is_on_both_lists_or_the_relay_does_not_start() {
        let both = [("RM_MODEL_BASE_URL", "https://LLM.example:8443/v1/"), ("RM_ALLOWED_MODEL_HOSTS", "llm.example")];
        let model = with(&both).unwrap().model.unwrap();
        assert_eq!((model.index, model.path.as_str(), model.internal, model.key.is_none()), (0, "/v1", true, true));
        assert!(with(&both[..1]).unwrap_err().contains("not in RM_ALLOWED_MODEL_HOSTS"));
        for elsewhere in ["https://llm.example/v1", "https://llm.example:8444", "https://other.example:8443", "https://10.0.0.5:8443"] {
            let hosts = ("RM_ALLOWED_MODEL_HOSTS", "llm.example,other.example,10.0.0.5");
            assert!(with(&[("RM_MODEL_BASE_URL", elsewhere), hosts]).unwrap_err().contains("not in RM_EGRESS_ALLOW"), "{elsewhere}");
        }
        for wrong in [
            "http://llm.example:8443",
            "https://u@llm.example:8443",
            "https://llm.example:8443/v1?x",
            "https://llm.example:8443/../x",
            "https://",
            "https:///x",
        ] {
            assert!(with(&[("RM_MODEL_BASE_URL", wrong)]).unwrap_err().contains("give an https URL"), "{wrong}");
        }
    }

    #[test]
    fn the_services_settings_do_not_stand_in_the_relays_nor_the_other_way_round() {
        for name in ["RM_API_KEY", "RM_API_KEY_FILE", "RM_KEK_FILE", "RM_AGENT_KEY_CURSOR", "RM_MODEL_NAME"] {
            assert!(with(&[(name, "/some-value-of-it")]).unwrap_err().contains(&format!("{name}: a setting of the service")), "{name}");
        }
        assert!(with(&[("RM_EGRESS_ALOW", "x")]).unwrap_err().contains("did you mean RM_EGRESS_ALLOW?"));
        for row in rows().filter(|row| !["RM_RELAY_SOCKET", "RM_EGRESS_LOCK", "RM_LOG"].contains(&row.name)) {
            assert!(crate::config::settings::rows().all(|other| other.name != row.name), "{}", row.name);
        }
    }

    #[test]
    fn every_row_is_obeyed() {
        for row in rows() {
            let wrong = with(&[(row.name, "\u{7f}")]).unwrap_err();
            assert!(wrong.contains(row.name), "{wrong}");
            if let Fallback::Value(text) | Fallback::Required(text) = row.default {
                assert!(with(&[(row.name, text)]).is_ok(), "{}", row.name);
            }
            assert!(row.help().ends_with('.'));
        }
        let secret = "canary-0123456789";
        let config = with(&[("RM_MODEL_API_KEY", secret)]).unwrap();
        assert!(!format!("{config:?}").contains("canary"));
    }
}
