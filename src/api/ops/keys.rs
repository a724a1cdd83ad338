//! A person's keys: made, listed, revoked. Invariant: the key itself is in one answer only, the one that made it.

use serde_json::json;

use super::required;
use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::authn::credential::display_prefix;
use crate::base::id::CredentialId;
use crate::identity;
use crate::policy::action::{CreateKey, ListKeys, RevokeKey};
use crate::store::phi::Phi;

/// `POST /api/keys`
pub fn create(cx: &mut Cx<'_>) -> Answered {
    let label = Phi::new(required(cx, "label"));
    let drawn = identity::draw_key(&cx.api.vault);
    cx.write::<CreateKey, _, _>(
        cx.person(),
        &Words::KEY,
        move |access| identity::create_key(access, drawn, label),
        |made, receipt| {
            reply::json(&json!({
                "key": made.key.expose(),
                "id": made.id.to_string(),
                "key_prefix": display_prefix(made.key.expose()),
                "label": made.label.expose(receipt),
                "created_at": made.created_at.to_string(),
            }))
        },
    )
}

/// `GET /api/keys`
pub fn list(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ListKeys, _, _>(cx.person(), &Words::KEY, identity::list_keys, |keys, receipt| {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({
                    "id": key.id.to_string(),
                    "user_id": key.user.to_string(),
                    "key_prefix": key.prefix.expose(receipt),
                    "label": key.label.expose(receipt),
                    "last_used_at": key.last_used_at.map(|at| at.to_string()),
                    "created_at": key.created_at.to_string(),
                    "revoked_at": key.revoked_at.map(|at| at.to_string()),
                })
            })
            .collect();
        reply::json(&json!({ "keys": keys }))
    })
}

/// `DELETE /api/keys/:id`
pub fn revoke(cx: &mut Cx<'_>) -> Answered {
    let Some(id) = CredentialId::parse(cx.id) else { return Err(cx.missing(&Words::KEY)) };
    cx.write::<RevokeKey, _, _>(id, &Words::KEY, identity::revoke_key, |(), _| reply::json(&json!({ "revoked": true })))
}
