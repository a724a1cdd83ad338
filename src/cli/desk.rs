//! The desk: what the running service does for its operator at the console, one arm a question.
//!
//! Every step passes the gate as the system principal `console` and leaves its audit entry, as the same command does on a stopped service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::api::ops::status::Surroundings;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{certificate, egress, incident, keys, status};
use crate::egress::hub::Hub;
use crate::store::vault::Vault;

/// What questions are answered with.
pub struct Desk {
    /// The store.
    pub vault: Vault,
    /// Set to have certificate and level of the log read anew.
    pub reload: Arc<AtomicBool>,
    /// The relay's line, where something may leave.
    pub relay: Option<Arc<Hub>>,
    /// Set when the service stops.
    pub stop: Arc<AtomicBool>,
    /// The settings that answers name.
    pub config: Facts,
    /// What is around the store.
    pub surroundings: Arc<Surroundings>,
}

/// What the desk knows of the settings.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The data file.
    pub db_path: std::path::PathBuf,
}

impl Desk {
    /// Whether a long answer is to be given up.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Answers one question of the console.
///
/// Errors: what the command on a stopped service would end with; `Usage` for a question that is not known.
pub fn answer(desk: &Desk, ask: &str, with: &Value, say: &mut dyn FnMut(&str)) -> Result<Value, Failure> {
    match ask {
        "keys.rotate_epoch" => {
            let epoch = keys::rotate_epoch(&desk.vault, &desk.config.db_path, &|| desk.is_stopping(), say)?;
            Ok(json!({ "epoch": epoch }))
        }
        "egress.test" => egress::tested(desk, say),
        "status" => status::running(&desk.vault, &desk.surroundings),
        "keys.rotate_deks" => {
            let epoch = keys::rotate_deks(&desk.vault, &desk.config.db_path, &|| desk.is_stopping(), say)?;
            Ok(json!({ "epoch": epoch }))
        }
        "keys.rotate_audit" => keys::rotate_audit(&desk.vault, &desk.config.db_path, &|| desk.is_stopping(), say),
        "keys.tls" => certificate::note(&desk.vault, with["own"] == true).map(|()| Value::Null),
        "reload" => {
            desk.reload.store(true, Ordering::Relaxed);
            Ok(Value::Null)
        }
        ask if ask.starts_with("incident.") => incident::answer(&desk.vault, &desk.config.db_path, ask, with, &|| desk.is_stopping(), say),
        _ => Err(Failure::new(Exit::Usage, format_args!("{ask}: this version of the service does not know this; update both"))),
    }
}
