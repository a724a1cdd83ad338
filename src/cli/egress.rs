//! `rosemary relay` and `rosemary egress`: the one process that connects to other machines, and what the operator sees and settles of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::base::durable;
use crate::base::log::{self, Level};
use crate::cli::console::Line;
use crate::cli::desk::Desk;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, say, serve, settings as service, text};
use crate::config::relay::{self, RelayConfig};
use crate::config::settings;
use crate::egress::frame::{Outcome, What};
use crate::egress::order;
use crate::egress::relay::{Relay, leads};
use crate::egress::resolve::Names;
use crate::sandbox;

/// The drop-in that `apply` writes.
const DROP_IN: &str = "addresses.conf";

/// `rosemary relay`.
pub fn relay() -> Result<Exit, Failure> {
    serve::harden();
    let (config, warnings) = RelayConfig::from_env(std::env::vars_os())?;
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    log::set_level(config.log);
    sandbox::receive().map_err(|error| Failure::new(Exit::Unavailable, format_args!("LISTEN_FDS: {error}")))?;
    let lock = config.lock;
    let relay = Relay::new(config).map_err(|error| Failure::new(Exit::CertificateUnusable, error))?;
    let name = relay::EGRESS_LOCK.row.name;
    if lock {
        let (folders, ports) = relay.needs();
        sandbox::engage_relay(&folders, &ports).map_err(|error| {
            Failure::new(Exit::LockUnenforced, format_args!("{error}; run a kernel that does, or set {name}=off and know what it costs"))
        })?;
    } else {
        log::line(Level::Warn, "the kernel's lock on the relay is off", &[("setting", &name)]);
    }
    relay.run()
}

/// `rosemary egress`.
pub fn run(command: &args::Egress) -> Result<Exit, Failure> {
    match command {
        args::Egress::Apply(at) => apply(at),
        args::Egress::List(at) => list(at),
        args::Egress::Test => test(),
    }
}

fn read(path: &Path) -> Result<RelayConfig, Failure> {
    let (config, warnings) = RelayConfig::from_file(path).map_err(|error| Failure::new(Exit::Config, error))?;
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    Ok(config)
}

/// Why a host leads nowhere, and what to do.
fn remedy(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::AddressRefused => "leads to an address that the rules forbid; see RM_REQUIRE_INTERNAL_MODEL_BASE_URL and docs/egress.md",
        _ => "leads nowhere; check its spelling and the name servers in /etc/resolv.conf",
    }
}

/// The unit's drop-in for these addresses.
fn drop_in(addresses: &BTreeSet<IpAddr>) -> String {
    let mut unit = String::from(
        "# Written by `rosemary egress apply` from RM_EGRESS_ALLOW; run it again when a host moves.\n\
         # The unit denies every other address (IPAddressDeny=any).\n[Service]\nIPAddressAllow=\n",
    );
    addresses.iter().for_each(|address| unit += &format!("IPAddressAllow={address}\n"));
    unit
}

/// Where all destinations lead, with the name servers if one of them is a name.
fn all_addresses(config: &RelayConfig, names: &Names) -> Result<BTreeSet<IpAddr>, Failure> {
    let mut all = BTreeSet::new();
    for (index, to) in config.allow.iter().enumerate() {
        all.extend(leads(config, index, names).map_err(|outcome| Failure::new(Exit::Config, format_args!("{to}: {}", remedy(outcome))))?);
    }
    if config.allow.iter().any(|to| to.host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()) {
        all.extend(names.servers());
    }
    Ok(all)
}

fn apply(at: &args::Where) -> Result<Exit, Failure> {
    let config = read(&at.settings)?;
    let addresses = all_addresses(&config, &Names::system())?;
    std::fs::create_dir_all(&at.unit).map_err(|error| Failure::io(&at.unit, &error))?;
    let path = at.unit.join(DROP_IN);
    durable::replace(&path, drop_in(&addresses).as_bytes(), 0o644).map_err(|error| Failure::io(&path, &error))?;
    say(&format!(
        "{}: {} addresses; now: systemctl daemon-reload && systemctl restart rosemary-relay.service",
        path.display(),
        addresses.len()
    ));
    Ok(Exit::Ok)
}

fn list(at: &args::Where) -> Result<Exit, Failure> {
    let (config, names) = (read(&at.settings)?, Names::system());
    let unit = std::fs::read_to_string(at.unit.join(DROP_IN)).ok();
    let allowed: Option<BTreeSet<IpAddr>> =
        unit.map(|unit| unit.lines().filter_map(|line| line.strip_prefix("IPAddressAllow=")?.parse().ok()).collect());
    let mut out = String::from("no  destination                               for    leads to\n");
    let mut weak = 0;
    for (index, to) in config.allow.iter().enumerate() {
        let model = config.model.as_ref().filter(|model| model.index == index);
        let found = leads(&config, index, &names);
        let shown = match &found {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Err(outcome) => remedy(*outcome).to_owned(),
        };
        out += &format!("{:>2}  {:<40}  {:<5}  {shown}\n", index + 1, to.to_string(), if model.is_some() { "model" } else { "-" });
        weak += usize::from(found.is_err());
        if let (Ok(found), Some(allowed)) = (&found, &allowed)
            && !found.iter().all(|address| allowed.contains(address))
        {
            out += "    the unit does not let it through: it has moved since; run rosemary egress apply\n";
            weak += 1;
        }
    }
    out += &match &config.model {
        Some(model) if model.internal => "model: private addresses alone\n".to_owned(),
        Some(_) => "model: any address of its host (RM_REQUIRE_INTERNAL_MODEL_BASE_URL=false)\n".to_owned(),
        None => "model: none (RM_MODEL_BASE_URL is not set)\n".to_owned(),
    };
    out += &match &allowed {
        Some(allowed) => format!("unit:  {} addresses are let through, every other is denied by the kernel\n", allowed.len()),
        None => {
            weak += 1;
            format!("unit:  no addresses are let through ({} is not there): run rosemary egress apply\n", at.unit.join(DROP_IN).display())
        }
    };
    out += &format!(
        "lock:  {}\n",
        if config.lock { "the relay locks itself to these ports and runs no program" } else { "off (RM_EGRESS_LOCK)" }
    );
    text::print(out.as_bytes())?;
    Ok(if weak == 0 { Exit::Ok } else { Exit::Found })
}

fn test() -> Result<Exit, Failure> {
    serve::harden();
    let config = service()?;
    let none = || {
        let name = settings::CONSOLE_SOCKET.row.name;
        Failure::new(
            Exit::Temporary,
            format_args!("{name}: {}: no service is running there; start it first", config.console_socket.display()),
        )
    };
    let done = Line::dial(&config)?.ok_or_else(none)?.ask("egress.test", Value::Null, &mut say)?;
    let results = done["results"].as_array().cloned().unwrap_or_default();
    let mut out = format!(
        "relay: connected, {}\n",
        if done["locked"] == true { "locked in by the kernel" } else { "not locked (RM_EGRESS_LOCK=off)" }
    );
    for result in &results {
        let purpose = if result["model"] == true { "  (model)" } else { "" };
        out +=
            &format!("{:>2}  {}{purpose}\n", result["number"].as_u64().unwrap_or_default(), result["ended"].as_str().unwrap_or_default());
    }
    text::print(out.as_bytes())?;
    let reached = results.iter().all(|result| result["ended"] == Outcome::Answered.word());
    Ok(if reached && !results.is_empty() { Exit::Ok } else { Exit::Found })
}

/// What the running service does for `rosemary egress test`: every destination tried through the relay, on record.
pub fn tested(desk: &Desk, say: &mut dyn FnMut(&str)) -> Result<Value, Failure> {
    let off = settings::DISABLE_MODEL_EGRESS.row.name;
    let hub = desk.relay.as_ref().ok_or_else(|| Failure::new(Exit::Usage, format_args!("nothing leaves this service: {off} is true")))?;
    let absent = "the relay is not connected; start it: systemctl enable --now rosemary-relay.service";
    let relay = hub.relay().ok_or_else(|| Failure::new(Exit::Temporary, absent))?.hello;
    let mut results = Vec::new();
    for index in (0..relay.destinations).take_while(|_| !desk.is_stopping()) {
        let end = order::send(&desk.vault, hub, None, What::Test(index)).map_err(|why| Failure::new(Exit::Temporary, why))?;
        results.push(json!({ "number": index + 1, "ended": end.outcome.word(), "model": relay.model == Some(index) }));
        say(&format!("{} of {} tried", results.len(), relay.destinations));
    }
    Ok(json!({ "locked": relay.locked, "results": results }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_replaces_what_stood_there_and_names_each_address_once() {
        let addresses = ["10.0.0.5", "fd00::1", "10.0.0.5"].iter().map(|text| text.parse().unwrap()).collect();
        let unit = drop_in(&addresses);
        assert!(unit.contains("[Service]\nIPAddressAllow=\nIPAddressAllow=10.0.0.5\nIPAddressAllow=fd00::1\n"));
        assert_eq!(unit.matches("10.0.0.5").count(), 1);
    }
}
