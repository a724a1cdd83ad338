//! The ranked search of our own, and how far the vectors are that it goes by.

use serde_json::{Value, json};

use super::required;
use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::base::hex;
use crate::memories::{self, Question};
use crate::policy::action::{Instance, ReadEmbeddings, SearchMemories};
use crate::store::embedder::{self, Standing};
use crate::store::phi::Phi;
use crate::store::search::{Hit, passage};

/// `GET /api/v1/embeddings`
pub fn embeddings(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ReadEmbeddings, _, _>(Instance, &Words::MEMORY, embedder::standing, |standing, _| {
        reply::json(&match standing {
            None => json!({ "model": Value::Null }),
            Some(Standing { model, width, progress }) => json!({
                "model": hex::encode(model),
                "dimensions": width,
                "memories": progress.live,
                "embedded": progress.embedded,
                "backlog": progress.live.saturating_sub(progress.embedded),
            }),
        })
    })
}

/// `POST /api/v1/memories/search`
pub fn rank(cx: &mut Cx<'_>) -> Answered {
    let question = Question {
        query: required(cx, "query"),
        limit: cx.fields.count("limit").expect("the schema has a default"),
        tags: cx.fields.texts("tags").unwrap_or_default(),
        subject: cx.fields.text("subject").map(Phi::new),
        since: cx.fields.time("since"),
        until: cx.fields.time("until"),
        explain: cx.fields.flag("explain").unwrap_or(false),
    };
    cx.read::<SearchMemories, _, _>(
        cx.own(),
        &Words::MEMORY,
        |access| {
            let found = memories::rank(access, &question)?;
            Ok::<_, memories::Refusal>(
                found.into_iter().map(|(memory, hit)| (passage(&memory, &question.query), memory, hit)).collect::<Vec<_>>(),
            )
        },
        |found, receipt| {
            let results: Vec<Value> = found
                .iter()
                .map(|(passage, memory, hit)| {
                    let mut result = json!(reply::record(memory, receipt));
                    result["score"] = json!(hit.score);
                    result["snippet"] = json!(passage.text);
                    result["highlights"] = passage.highlights.iter().map(|range| json!([range.start, range.end])).collect();
                    if let Some(explain) = explained(hit) {
                        result["explain"] = explain;
                    }
                    result
                })
                .collect();
            reply::json(&json!({ "results": results, "count": results.len() }))
        },
    )
}

fn explained(hit: &Hit) -> Option<Value> {
    let explain = hit.explain.as_ref()?;
    let terms: Vec<Value> = explain
        .terms
        .iter()
        .map(|term| {
            json!({
                "term": term.term,
                "score": term.score,
                "content_count": term.content_count,
                "in_title": term.in_title,
                "in_tags": term.in_tags,
                "in_speaker": term.in_speaker,
            })
        })
        .collect();
    Some(json!({
        "terms": terms,
        "meaning": explain.meaning,
        "neighbours": explain.neighbours,
        "conversation": explain.conversation,
        "speaker": explain.speaker,
        "time": explain.time,
    }))
}
