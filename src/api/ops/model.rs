//! The site's language model: questions answered from memories, and conversations.

use serde_json::json;

use crate::api::reply::{self, Answered, Failure, Words};
use crate::api::run::Cx;
use crate::audit::Reason;
use crate::identity;
use crate::policy::action::ListModels;

/// The answer while no model may be reached.
fn off(cx: &Cx<'_>) -> Failure {
    let failure = cx.refuse(Reason::EgressOff, 503, "Model egress disabled by deployment policy");
    Failure { mode: Some("self-host"), ..failure }
}

/// `POST /query`
pub fn query(cx: &mut Cx<'_>) -> Answered {
    Err(off(cx))
}

/// `POST /chat`
pub fn chat(cx: &mut Cx<'_>) -> Answered {
    Err(off(cx))
}

/// `GET /chat/models`
pub fn models(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ListModels, _, _>(cx.person(), &Words::MEMORY, |_| Ok::<_, identity::Refusal>(()), |(), _| reply::json(&json!({ "models": [] })))
}
