//! An order on record: its entry before it leaves, and how it ended after.
//!
//! Invariants
//! - Nothing is handed to the relay before the entry `egress.send` is durable, and nothing is given back before `egress.end` is.
//! - An entry names a destination by its number in the operator's list, counted from 1, and the operation that it serves; never a host or a text.

use std::time::Instant;

use crate::audit::{Detail, Word};
use crate::authn::Principal;
use crate::base::id::OperationId;
use crate::egress::frame::{End, What};
use crate::egress::hub::{Hub, Unsent};
use crate::policy::action::{EndEgress, Instance, Reads, SendEgress};
use crate::store::gate::{Call, Failed, Refused};
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

/// Why nothing is known of a destination's answer.
#[derive(Debug)]
pub enum NotSent {
    /// Nothing left.
    Unsent(Unsent),
    /// An entry could not be written: nothing left, or nothing is given back.
    Unavailable(Unavailable),
    /// A fault of ours; nothing is given back.
    Fault,
}

impl std::fmt::Display for NotSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsent(Unsent::Absent) => f.write_str("the relay is not connected"),
            Self::Unsent(Unsent::Busy) => f.write_str("the relay has as many orders as it takes"),
            Self::Unavailable(why) => write!(f, "the attempt could not be recorded: {why}"),
            Self::Fault => f.write_str("the attempt could not be recorded"),
        }
    }
}

/// Has the relay do `what` on behalf of `operation`, on record.
pub fn send(vault: &Vault, hub: &Hub, operation: Option<OperationId>, what: What) -> Result<End, NotSent> {
    let relay = hub.relay().ok_or(NotSent::Unsent(Unsent::Absent))?;
    let number = match &what {
        What::Model(_) => relay.hello.model,
        What::Test(index) => Some(*index),
    };
    let mut details = vec![Detail::Use(Word::of(what.word()))];
    details.extend(number.map(|index| Detail::Destination(u64::from(index) + 1)));
    details.extend(operation.map(Detail::Operation));
    if let What::Model(body) = &what {
        details.push(Detail::Bytes(count(body.len())));
    }
    record::<SendEgress>(vault, &details)?;

    let since = Instant::now();
    let end = hub.ask(relay, what);
    let took = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);

    details.retain(|detail| !matches!(detail, Detail::Bytes(_)));
    details.push(Detail::TookMs(took));
    match &end {
        Ok(end) => {
            details.push(Detail::Ended(Word::of(end.outcome.word())));
            details.push(Detail::Bytes(count(end.body.len())));
            if end.status != 0 {
                details.push(Detail::Code(end.status.into()));
            }
        }
        Err(Unsent::Absent) => details.push(Detail::Ended(Word::of("absent"))),
        Err(Unsent::Busy) => details.push(Detail::Ended(Word::of("busy"))),
    }
    record::<EndEgress>(vault, &details)?;
    end.map_err(NotSent::Unsent)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).expect("a length fits 64 bits")
}

fn record<A: Reads + crate::policy::action::Action<Target = Instance>>(vault: &Vault, details: &[Detail]) -> Result<(), NotSent> {
    let who = Principal::system(vault.tenant(), vault.owner(), "relay");
    let done = vault.read::<A, (), Failed>(&who, Instance, &Call::internal(), |access| {
        details.iter().cloned().for_each(|detail| access.detail(detail));
        Ok(())
    });
    match done {
        Ok(_) => Ok(()),
        Err(Refused::Unavailable(why)) => Err(NotSent::Unavailable(why)),
        Err(Refused::Denied(..) | Refused::Work(..) | Refused::Fault(_) | Refused::Revoked(_)) => Err(NotSent::Fault),
    }
}
