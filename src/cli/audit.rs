//! `rosemary audit export`: the audit log, or a range of it, as a bundle that anybody can check with the log's public key alone.

use crate::audit::{Detail, Reason};
use crate::authn::Principal;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{Output, Sink};
use crate::cli::progress::Progress;
use crate::cli::{args, open, say, serve};
use crate::config::Config;
use crate::policy::action::{ExportLog, Instance};
use crate::store::gate::{Call, Fault};
use crate::store::log_view::{LogError, LogView, view};
use crate::store::tx::StoreError;
use crate::store::vault::Vault;

/// Why the log was not given.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("--from and --to: the log has {0} entries")]
    Range(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store cannot be read")]
    Unavailable,
}

impl Fault for Refusal {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::Range(_) => (Reason::Schema, 400),
            Self::Store(_) | Self::Unavailable => (Reason::WorkFailed, 500),
        }
    }
}

/// The command.
pub fn run(args::Audit::Export { file, from, to }: &args::Audit, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    if to.is_some_and(|to| *from >= to) {
        return Err(Failure::new(Exit::Usage, "--from and --to: there is nothing from the one to before the other"));
    }
    let output = Output::seen_at(file)?;
    let store = open::store(&mut config)?;
    let done = output.write(|sink| export(store.vault(), sink, *from, *to));
    store.stop();
    let (entries, key) = done?;
    say(&format!("{entries} entries written; check them anywhere: rosemary verify --log FILE --key '{key}'"));
    Ok(Exit::Ok)
}

/// Writes entries `from` to before `to` and the trailer. Gives how many, and the log's key.
fn export(vault: &Vault, sink: &mut Sink<'_>, from: u64, to: Option<u64>) -> Result<(u64, String), Failure> {
    let console = Principal::system(vault.tenant(), vault.owner(), "console");
    let granted = vault.read::<ExportLog, _, Refusal>(&console, Instance, &Call::internal(), |access| {
        let view: LogView = view(access).map_err(|_| Refusal::Unavailable)?;
        let end = to.unwrap_or(view.size());
        if from >= end || end > view.size() {
            return Err(Refusal::Range(view.size()));
        }
        access.detail(Detail::First(from));
        access.detail(Detail::End(end));
        access.detail(Detail::Size(view.size()));
        access.count(end - from);
        Ok((view, end))
    });
    let ((view, end), receipt) = match granted {
        Ok(recorded) => recorded.into_parts(),
        Err(crate::store::gate::Refused::Work(error @ Refusal::Range(_), _)) => return Err(Failure::new(Exit::Usage, error)),
        Err(refused) => return Err(open::refused("exporting the log", &refused)),
    };
    let damaged = |error: LogError| Failure::new(Exit::DataDamaged, format_args!("exporting the log: {error}; run verify"));
    let mut progress = Progress::new("exporting", end - from);
    for index in from..end {
        sink.line(view.line(&receipt, index).map_err(damaged)?.as_bytes())?;
        progress.at(index - from);
    }
    sink.line(view.trailer(&receipt, from, end).map_err(damaged)?.as_bytes())?;
    Ok((end - from, view.vkey().to_string()))
}
