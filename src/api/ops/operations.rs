//! How one's own operation ended, for whoever got an unknown outcome.

use serde_json::json;

use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::base::id::OperationId;
use crate::identity;
use crate::policy::action::ReadOperation;
use crate::store::writer::Settled;

/// `GET /api/v1/operations/:id`
pub fn read(cx: &mut Cx<'_>) -> Answered {
    let Some(id) = OperationId::parse(cx.id) else { return Err(cx.missing(&Words::OPERATION)) };
    cx.read::<ReadOperation, _, _>(id, &Words::OPERATION, identity::read_operation, |settled, _| {
        reply::json(&json!({
            "operation_id": id.to_string(),
            "outcome": match settled {
                Settled::Pending => "unknown",
                Settled::Committed(_) => "committed",
                Settled::Refused(_) => "refused",
                Settled::NotCommitted => "not_committed",
            },
            "audit_index": settled.entry(),
        }))
    })
}
