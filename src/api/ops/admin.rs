//! What administrators see: that they are ones, who is known, and the contract's lists of a hosted service, which are empty here.

use serde_json::{Value, json};

use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::identity::{self, Refusal};
use crate::policy::action::{Instance, ListPeople, ReadAdmin};

/// `GET /admin/check`
pub fn check(cx: &mut Cx<'_>) -> Answered {
    constant(cx, &json!({ "owner": true }))
}

/// `GET /admin/waitlist`
pub fn waitlist(cx: &mut Cx<'_>) -> Answered {
    constant(cx, &json!({ "waitlist": [], "total": 0 }))
}

/// `GET /admin/early-access` and `GET /admin/integration-requests`
pub fn requests(cx: &mut Cx<'_>) -> Answered {
    constant(cx, &json!({ "requests": [], "total": 0 }))
}

/// An answer that holds no data; it is recorded all the same.
fn constant(cx: &mut Cx<'_>, answer: &Value) -> Answered {
    cx.read::<ReadAdmin, _, _>(Instance, &Words::ADMIN, |_| Ok::<_, Refusal>(()), |(), _| reply::json(answer))
}

/// `GET /admin/users`
pub fn users(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ListPeople, _, _>(Instance, &Words::ADMIN, identity::list_people, |people, receipt| {
        let users: Vec<Value> = people
            .iter()
            .map(
                |user| json!({ "id": user.id.to_string(), "email": user.email.expose(receipt), "created_at": user.created_at.to_string() }),
            )
            .collect();
        reply::json(&json!({ "users": users }))
    })
}
