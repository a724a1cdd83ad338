//! The briefing of a session: `GET /briefing` for a person, `GET /agent/briefing` for whoever may call agent routes.

use crate::api::briefing;
use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::memories::briefing::{Ask, brief};
use crate::policy::action::BriefMemories;

/// `GET /briefing` and `GET /agent/briefing`
pub fn read(cx: &mut Cx<'_>) -> Answered {
    let markdown = cx.fields.text("format").is_some_and(|format| format == "markdown");
    let default = Ask::default();
    let ask = Ask {
        top_tags: cx.fields.count("top_tags").unwrap_or(default.top_tags),
        recency_days: cx.fields.count("recency_days").and_then(|days| days.try_into().ok()).unwrap_or(default.recency_days),
        active_threads: cx.fields.count("active_threads").unwrap_or(default.active_threads),
        topics: false,
    };
    let (found, receipt) = cx.walk::<BriefMemories, _, _>(cx.own(), &Words::MEMORY, |access| brief(access, &ask))?.into_parts();
    if !markdown {
        return Ok(reply::recorded(200, Some(briefing::json(&found, &receipt)), &receipt));
    }
    let mut answer = reply::recorded(200, Some(briefing::markdown(&found, &receipt).into_bytes()), &receipt);
    answer.content_type = "text/markdown; charset=utf-8";
    Ok(answer)
}
