//! What a person has allowed to clients of OAuth: listed, and ended.

use serde_json::{Value, json};

use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::base::id::CredentialId;
use crate::policy::action::{ListGrants, RevokeGrant};
use crate::store::grants;

/// `GET /api/v1/oauth/grants`
pub fn list(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ListGrants, _, _>(cx.person(), &Words::GRANT, grants::list, |found, _| {
        let found: Vec<Value> = found
            .iter()
            .map(|grant| {
                json!({
                    "id": grant.id.to_string(),
                    "client_id": grant.client.text(),
                    "client_name": grant.client_name,
                    "vendor": grant.vendor,
                    "scope": grant.scope.text(),
                    "created_at": grant.created_at.to_string(),
                    "refreshed_at": grant.refreshed_at.to_string(),
                    "ends_at": grant.ends_at.to_string(),
                })
            })
            .collect();
        reply::json(&json!({ "grants": found }))
    })
}

/// `DELETE /api/v1/oauth/grants/:id`
pub fn revoke(cx: &mut Cx<'_>) -> Answered {
    let Some(id) = CredentialId::parse(cx.id) else { return Err(cx.missing(&Words::GRANT)) };
    cx.write::<RevokeGrant, _, _>(id, &Words::GRANT, grants::end, |(), _| reply::json(&json!({ "revoked": true })))
}
