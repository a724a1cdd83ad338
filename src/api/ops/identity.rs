//! Who one is: what the presented key is, and the person behind it. Names and address are read before a receipt, like any record.

use serde_json::json;

use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::identity;
use crate::policy::action::{ReadSelf, UpdateSelf};
use crate::store::Receipt;
use crate::store::accounts::User;
use crate::store::gate::Access;
use crate::store::phi::Phi;

/// `GET /whoami`
pub fn whoami(cx: &mut Cx<'_>) -> Answered {
    let who = cx.who;
    cx.read::<ReadSelf, _, _>(
        cx.person(),
        &Words::MEMORY,
        |_| Ok::<_, identity::Refusal>(()),
        |(), _| {
            reply::json(&json!({
                "role": if who.vendor().is_some() { "agent" } else { "user" },
                "vendor": who.vendor().map(|vendor| vendor.name()),
                "deployment_mode": "self-host",
                "log_sharing_enabled": false,
                "is_admin": who.is_admin(),
            }))
        },
    )
}

/// The contract's view of a person.
fn person(user: &User, plan: &str, receipt: &Receipt) -> Vec<u8> {
    reply::json(&json!({
        "id": user.id.to_string(),
        "email": user.email.expose(receipt),
        "clerk_id": null,
        "role": "user",
        "plan": plan,
        "stripe_customer_id": null,
        "org_id": null,
        "org_role": null,
        "team_id": null,
        "first_name": user.first_name.as_ref().map(|name| name.expose(receipt)),
        "last_name": user.last_name.as_ref().map(|name| name.expose(receipt)),
    }))
}

/// `GET /users/me`
pub fn me(cx: &mut Cx<'_>) -> Answered {
    let plan = cx.api.vault.plan_of(cx.who.user()).name;
    cx.read::<ReadSelf, _, _>(cx.person(), &Words::MEMORY, identity::read_self, |user, receipt| person(user, plan, receipt))
}

/// `PATCH /users/me`: the name that is not sent becomes empty.
pub fn rename(cx: &mut Cx<'_>) -> Answered {
    let plan = cx.api.vault.plan_of(cx.who.user()).name;
    let [first, last] = ["first_name", "last_name"].map(|name| Phi::new(cx.fields.text(name).unwrap_or_default()));
    let work = move |access: &mut Access<'_, UpdateSelf>| identity::rename(access, &first, &last);
    cx.write::<UpdateSelf, _, _>(cx.person(), &Words::MEMORY, work, |user, receipt| person(user, plan, receipt))
}
