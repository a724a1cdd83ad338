//! How much a person may keep, keeps and used; and billing, of which there is none.

use serde_json::{Value, json};

use crate::api::answers::{FALSE, Members, Shape, answer, flag, list_of, never, number, text};
use crate::api::reply::{self, Answered, Failure, Words};
use crate::api::run::Cx;
use crate::audit::Reason;
use crate::memories::{self, Refusal};
use crate::policy::action::ReadUsage;
use crate::store::quota::Standing;

/// A number, or -1 where there is no bound.
const MOST: Shape = Shape::Schema(r#"{"type":"integer","minimum":-1,"description":"-1: no bound"}"#);

/// What is answered here, for the OpenAPI document.
pub(in crate::api) const COMPONENTS: Members = &[
    (
        "Usage",
        answer(
            &[
                ("allowed", flag()),
                ("plan", text("free")),
                ("memory_count", number()),
                ("limits", answer(&[("maxMemories", MOST)], &[])),
                ("memories_remaining", MOST),
            ],
            &[],
        ),
    ),
    (
        "Billing",
        answer(
            &[
                ("plan", text("free")),
                ("has_billing", FALSE),
                ("limits", answer(&[("maxMemories", MOST), ("maxApiKeys", MOST)], &[])),
                ("memory_count", number()),
                ("memories_remaining", MOST),
                ("cancel_at_period_end", FALSE),
                ("current_period_end", never()),
            ],
            &[],
        ),
    ),
    ("UsageMonths", answer(&[("months", list_of("UsageMonth"))], &[])),
    (
        "UsageMonth",
        answer(
            &[("month", text("2026-11")), ("writes", number()), ("reads", number()), ("queries", number()), ("total_ops", number())],
            &[],
        ),
    ),
];

/// A bound as the contract writes it: -1 is none.
fn bound(most: Option<u64>) -> Value {
    most.map_or(json!(-1), |most| json!(most))
}

fn remaining(standing: &Standing) -> Value {
    bound(standing.plan.memories_max.map(|most| most.saturating_sub(standing.memories)))
}

/// `GET /usage` and `GET /usage/check`: the month that may be asked for has no effect, as in the contract.
pub fn check(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ReadUsage, _, Refusal>(
        cx.own(),
        &Words::MEMORY,
        |access| memories::standing(access),
        |standing, _| {
            reply::json(&json!({
                "allowed": standing.plan.memories_max.is_none_or(|most| standing.memories < most),
                "plan": standing.plan.name,
                "memory_count": standing.memories,
                "limits": { "maxMemories": bound(standing.plan.memories_max) },
                "memories_remaining": remaining(standing),
            }))
        },
    )
}

/// `GET /api/v1/usage`
pub fn months(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ReadUsage, _, Refusal>(
        cx.own(),
        &Words::MEMORY,
        |access| memories::months(access),
        |months, _| {
            let months: Vec<Value> = months
                .iter()
                .map(|(month, used)| {
                    let total = used.writes.saturating_add(used.reads).saturating_add(used.queries);
                    json!({ "month": month, "writes": used.writes, "reads": used.reads, "queries": used.queries, "total_ops": total })
                })
                .collect();
            reply::json(&json!({ "months": months }))
        },
    )
}

/// `GET /billing/status`
pub fn billing(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ReadUsage, _, Refusal>(
        cx.own(),
        &Words::MEMORY,
        |access| memories::standing(access),
        |standing, _| {
            reply::json(&json!({
                "plan": standing.plan.name,
                "has_billing": false,
                "limits": { "maxMemories": bound(standing.plan.memories_max), "maxApiKeys": bound(standing.plan.keys_max) },
                "memory_count": standing.memories,
                "memories_remaining": remaining(standing),
                "cancel_at_period_end": false,
                "current_period_end": null,
            }))
        },
    )
}

/// `POST /billing/checkout` and `POST /billing/portal`: nothing is sold here.
pub fn no_billing(cx: &mut Cx<'_>) -> Answered {
    Err(Failure { lasting: true, ..cx.refuse(Reason::NotOffered, 503, "Billing not configured") })
}
