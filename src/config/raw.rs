//! The settings as typed: every `RM_*` name with its text, each taken once; what nobody takes is unknown.
//!
//! Invariants
//! - A problem never stops the reading: all are found in one start.
//! - The value of a secret, and of any name that is not in the table, is never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::base::{limits, order};
use crate::config::files::read_secret_text;
use crate::config::settings::{self, Fallback, Row, Setting};
use crate::config::{AgentKey, Dashboard, parse, relay};
use crate::crypto::secret::Secret;

/// Beginning of every setting's name.
const PREFIX: &str = "RM_";
/// End of the names that mean a file.
const FILE: &str = "_FILE";
/// Beginning of the one family of names.
const AGENT_KEY: &str = "RM_AGENT_KEY_";
/// Characters of a value that a problem repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// Why the program does not start, one item a fault.
#[derive(Debug)]
pub struct Problems(pub Vec<Note>);

/// Something to look at that does not stop the start.
pub type Warning = Note;

/// A sentence about one setting: name, value if it may be shown, what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    /// The variable.
    pub name: String,
    /// The value as typed; `None` for secrets, unknown names and unset variables.
    pub value: Option<String>,
    /// What is wrong and the remedy.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}: {}", self.name, self.text),
            None => write!(f, "{}: {}", self.name, self.text),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, note) in self.0.iter().enumerate() {
            write!(f, "{}{note}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Whose settings are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of the service, and of every command about its data.
    Service,
    /// Those of the relay.
    Relay,
}

impl Whose {
    /// Its names.
    fn rows(self) -> Box<dyn Iterator<Item = &'static Row>> {
        match self {
            Self::Service => Box::new(settings::rows()),
            Self::Relay => Box::new(relay::rows()),
        }
    }

    /// Why a name of the other one's is not obeyed here.
    fn foreign(self, name: &str) -> Option<String> {
        let bare = name.strip_suffix(FILE).unwrap_or(name);
        let (whose, file, mut rows) = match self {
            Self::Service => ("the relay", "/etc/rosemary-relay/relay.env", Self::Relay.rows()),
            Self::Relay => ("the service", "/etc/rosemary/rosemary.env", Self::Service.rows()),
        };
        let agent_key = self == Self::Relay && bare.starts_with(AGENT_KEY);
        (agent_key || rows.any(|row| row.name == name || row.name == bare)).then(|| format!("a setting of {whose}; move it to {file}"))
    }
}

/// The environment while it is read.
pub(super) struct Raw {
    values: BTreeMap<String, String>,
    /// Folder of the systemd credentials, if the unit has any.
    pub credentials: Option<PathBuf>,
    problems: Vec<Note>,
    warnings: Vec<Warning>,
}

impl Raw {
    /// Keeps the `RM_*` names that are not blank, and systemd's `CREDENTIALS_DIRECTORY`.
    pub fn collect(vars: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut raw = Self { values: BTreeMap::new(), credentials: None, problems: Vec::new(), warnings: Vec::new() };
        for (name, value) in vars {
            if name == "CREDENTIALS_DIRECTORY" && !value.is_empty() {
                raw.credentials = Some(PathBuf::from(value));
                continue;
            }
            if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Err(_) => raw.problem(&name, None, "not UTF-8 text; write it again"),
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    if raw.values.insert(name.clone(), text).is_some() {
                        raw.problem(&name, None, "set twice; keep one");
                    }
                }
            }
        }
        raw
    }

    /// Notes a fault of `name`.
    pub fn problem(&mut self, name: &str, value: Option<&str>, text: impl Into<String>) {
        self.problems.push(Note { name: name.into(), value: value.and_then(shown), text: text.into() });
    }

    /// Faults noted so far.
    pub fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// Notes something to look at.
    pub fn warn(&mut self, name: &str, text: impl Into<String>) {
        self.warnings.push(Note { name: name.into(), value: None, text: text.into() });
    }

    /// The value of a setting that is not a secret: as typed, or its default. `None` means a noted problem, or that it may be absent.
    pub fn take<T>(&mut self, setting: &Setting<T>) -> Option<T> {
        let row = &setting.row;
        let typed = self.values.remove(row.name);
        let text = match (&typed, row.default) {
            (Some(text), _) => text.trim(),
            (None, Fallback::Value(text)) => text,
            (None, Fallback::Absent(..)) => return None,
            (None, Fallback::Required(example)) => {
                if self.problems.iter().all(|note| note.name != row.name) {
                    self.problem(row.name, None, format!("not set, and required; give {}, such as {example}", article(&row.takes())));
                }
                return None;
            }
        };
        let shown = (!row.guards_secret()).then_some(text);
        (setting.parse)(row, text).map_err(|remedy| self.problem(row.name, shown, remedy)).ok()
    }

    /// The value of the secret `name`, from itself or from the file that `<name>_FILE` names.
    pub fn take_secret(&mut self, name: &str, setting: &Setting<Secret<String>>) -> Option<Secret<String>> {
        let file_name = format!("{name}{FILE}");
        let text = match (self.values.remove(name).map(Secret::new), self.values.remove(&file_name)) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.problem(name, None, format!("set together with {file_name}; keep {file_name} alone"));
                return None;
            }
            (Some(text), None) => {
                self.warn(
                    name,
                    format!("a secret in the environment shows in /proc and crash reports; put it in a file and set {file_name}"),
                );
                text
            }
            (None, Some(path)) => {
                // a path that does not parse is not shown: it may be the secret itself, pasted into the wrong variable
                match parse::path(&setting.row, path.trim()).and_then(|path| read_secret_text(&path)) {
                    Ok(text) => text,
                    Err(remedy) => {
                        self.problem(&file_name, None, remedy);
                        return None;
                    }
                }
            }
        };
        let key = (setting.parse)(&setting.row, text.expose()).map_err(|remedy| self.problem(name, None, remedy)).ok()?;
        if key.expose().len() < limits::STATIC_KEY_CHARS_ADVISED {
            let advised = limits::STATIC_KEY_CHARS_ADVISED;
            self.warn(name, format!("shorter than {advised} characters; `openssl rand -hex 32` makes a better one"));
        }
        Some(key)
    }

    /// `RM_API_KEY`, every `RM_AGENT_KEY_<VENDOR>` and the dashboard's two, checked to differ from one another.
    pub fn take_static_keys(&mut self) -> (Option<Secret<String>>, Vec<AgentKey>, Option<Dashboard>) {
        let dashboard = [&settings::DASHBOARD_SERVICE_KEY, &settings::DASHBOARD_JWT_SECRET].map(|setting| {
            let faults = self.problems.len();
            let secret = self.take_secret(setting.row.name, setting);
            (setting.row.name, secret, self.problems.len() > faults)
        });
        let api_key = self.take_secret(settings::API_KEY.row.name, &settings::API_KEY);
        let suffixes: BTreeSet<String> = (self.values.keys())
            .filter_map(|name| name.strip_suffix(FILE).unwrap_or(name).strip_prefix(AGENT_KEY))
            .map(str::to_owned)
            .collect();
        let mut agent_keys: Vec<AgentKey> = Vec::new();
        for suffix in suffixes {
            let name = format!("{AGENT_KEY}{suffix}");
            let key = self.take_secret(&name, &settings::AGENT_KEY);
            let vendor = parse::vendor(&suffix).map_err(|remedy| self.problem(&name, None, remedy)).ok();
            let (Some(key), Some(vendor)) = (key, vendor) else { continue };
            if let Some(twin) = agent_keys.iter().find(|other| other.vendor == vendor) {
                let text = format!("names the vendor {vendor}, as {} does; keep one", twin.name);
                self.problem(&name, None, text);
            } else if agent_keys.len() == limits::AGENT_KEYS_MAX {
                self.problem(&name, None, format!("at most {} agent keys; use `rosemary key make`", limits::AGENT_KEYS_MAX));
            } else {
                agent_keys.push(AgentKey { vendor, name, key });
            }
        }
        let all: Vec<(&str, &Secret<String>)> = (api_key.iter().map(|key| (settings::API_KEY.row.name, key)))
            .chain(agent_keys.iter().map(|agent| (agent.name.as_str(), &agent.key)))
            .chain(dashboard.iter().filter_map(|(name, secret, _)| Some((*name, secret.as_ref()?))))
            .collect();
        let repeats: Vec<(String, String)> = (all.iter().enumerate())
            .filter_map(|(i, (name, key))| {
                let twin = all[..i].iter().find(|(_, other)| key.matches(other.expose().as_bytes()))?;
                Some(((*name).to_owned(), format!("the same key as {}; every key must be its own", twin.0)))
            })
            .collect();
        for (name, text) in repeats {
            self.problem(&name, None, text);
        }
        let dashboard = match dashboard {
            [(_, Some(service_key), _), (_, Some(jwt_secret), _)] => Some(Dashboard { service_key, jwt_secret }),
            [(set, Some(_), _), (missing, None, false)] | [(missing, None, false), (set, Some(_), _)] => {
                self.problem(missing, None, format!("not set although {set} is; set both or neither"));
                None
            }
            _ => None,
        };
        (api_key, agent_keys, dashboard)
    }

    /// Ends the reading: names that nobody took are problems.
    pub fn finish(mut self, whose: Whose) -> Result<Vec<Warning>, Problems> {
        for name in std::mem::take(&mut self.values).into_keys() {
            let text = match (whose.foreign(&name), settings::absent(&name), nearest(&name, whose)) {
                (Some(other), _, _) => other,
                (None, Some(why), _) => format!("not obeyed by this version: {why}; remove it"),
                (None, None, Some(near)) => format!("no such setting; did you mean {near}?"),
                (None, None, None) => "no such setting; remove it, or see docs/configuration.md".into(),
            };
            self.problem(&name, None, text);
        }
        order::sort_by(&mut self.problems, |a, b| a.name.cmp(&b.name));
        if self.problems.is_empty() { Ok(self.warnings) } else { Err(Problems(self.problems)) }
    }
}

/// `words` with the article that a sentence needs.
fn article(words: &str) -> String {
    match words.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {words}"),
        Some('0'..='9') | None => words.into(),
        _ => format!("a {words}"),
    }
}

/// A value as a problem repeats it: shortened; not at all if it is a URL that may carry a password.
fn shown(value: &str) -> Option<String> {
    if value.contains('@') && value.contains("://") {
        return None;
    }
    let mut text: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    Some(text)
}

/// The known name that `name` most likely means: at most a third of its letters differ, or the one begins with the other.
fn nearest(name: &str, whose: Whose) -> Option<String> {
    let bare = name.strip_prefix(PREFIX).filter(|rest| !rest.is_empty())?;
    let vendor = bare.strip_suffix(FILE).unwrap_or(bare).rsplit('_').next().unwrap_or(bare);
    (whose.rows())
        .filter(|row| row.name != settings::AGENT_KEY.row.name)
        .flat_map(|row| [Some(row.name.to_owned()), row.is_secret().then(|| format!("{}{FILE}", row.name))])
        .flatten()
        .chain((whose == Whose::Service).then(|| format!("{AGENT_KEY}{vendor}")))
        .map(|known| (distance(name, &known), known))
        .filter(|(distance, known)| *distance <= bare.len().div_ceil(3) || name.starts_with(known.as_str()) || known.starts_with(name))
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance of two names, in bytes. Long names are cut: the answer only decides about a hint.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_its_neighbour_and_a_strange_one_none() {
        assert_eq!(nearest("RM_PRT", Whose::Service).as_deref(), Some("RM_PORT"));
        assert_eq!(nearest("RM_DATABASE_PATH", Whose::Service), None);
        assert_eq!(nearest("RM_TLS_CERTIFICATE", Whose::Service).as_deref(), Some("RM_TLS_CERT"));
        assert_eq!(nearest("RM_TENANT", Whose::Service).as_deref(), Some("RM_TENANT_ID"));
        assert_eq!(nearest("RM_APIKEY", Whose::Service).as_deref(), Some("RM_API_KEY"));
        assert_eq!(nearest("RM_AGENTKEY_CURSOR", Whose::Service).as_deref(), Some("RM_AGENT_KEY_CURSOR"));
        assert_eq!(nearest("RM_XYZZY", Whose::Service), None);
        assert_eq!(nearest("RM_", Whose::Service), None);
    }

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
        assert_eq!(distance("ab", "ab"), 0);
    }
}
