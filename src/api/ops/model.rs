//! The site's language model: questions answered from memories, and conversations. What it is told goes through the relay (`egress`).
//!
//! Invariants
//! - Memories are read and chosen as for any list of the asker's: an agent's question is answered from what its vendor may see.
//! - The entry of the request tells what was read before anything is sent; the relay's two entries, which name it, tell of the sending.
//! - One person has at most [`limits::EGRESS_ORDERS_PER_PERSON_MAX`] questions with the model, so that nobody keeps it from the others.
//! - Whoever was revoked while the model thought gets no answer.

use serde_json::json;
use zeroize::Zeroizing;

use super::memories::filter_named;
use super::required;
use crate::api::reply::{self, Answered, Failure, Words};
use crate::api::run::{Cx, bucket};
use crate::api::stream::Place;
use crate::audit::Reason;
use crate::base::limits;
use crate::config::Model;
use crate::egress::frame::{Outcome, What};
use crate::egress::hub::{Hub, Unsent};
use crate::egress::model::{self, Message, Role};
use crate::egress::order::{self, NotSent};
use crate::identity;
use crate::memories::{self, Filter, Page, Question, Refusal};
use crate::policy::action::{Chat, ListModels, QueryMemories};
use crate::store::Receipt;
use crate::store::gate::Access;
use crate::store::memories::{Memory, Part};

/// The model and the way to it, or why there is none.
fn ready<'a>(cx: &Cx<'a>) -> Result<(&'a Model, &'a Hub), Failure> {
    let Some((model, hub)) = &cx.api.model else {
        let failure = cx.refuse(Reason::EgressOff, 503, "Model egress disabled by deployment policy");
        return Err(Failure { mode: Some("self-host"), ..failure });
    };
    if hub.relay().is_none_or(|relay| relay.hello.model.is_none()) {
        return Err(cx.refuse(Reason::RelayAbsent, 503, ABSENT));
    }
    Ok((model, hub))
}

/// A place among the questions that are with the model. Ask before anything is read for one.
fn place(cx: &Cx<'_>) -> Result<Place, Failure> {
    cx.api.questions.enter(bucket(cx.who), cx.who.user()).map_err(|own| match own {
        Some(most) => cx.refuse(Reason::CredentialRate, 429, format!("At most {most} questions at once; wait for an answer")),
        None => cx.refuse(Reason::QueueFull, 503, "Many questions are with the language model; try again shortly"),
    })
}

const ABSENT: &str = "The language model cannot be reached now; nothing was sent";

/// What the model answers to `messages`, on behalf of the request that `receipt` records.
fn asked(cx: &Cx<'_>, model: &Model, hub: &Hub, messages: &[Message<'_>], receipt: &Receipt) -> Result<Zeroizing<String>, Failure> {
    let mut request = model::request(model, messages);
    let sent = order::send(&cx.api.vault, hub, Some(cx.call.operation), What::Model(std::mem::take(&mut *request)));
    let failed = || Failure::new(502, "The language model gave no usable answer").recorded(receipt);
    let answer = match sent {
        Ok(end) if end.outcome == Outcome::Answered && end.status == 200 => model::answer(&end.body).ok_or_else(failed)?,
        Ok(_) => return Err(failed()),
        Err(NotSent::Unsent(Unsent::Absent)) => return Err(Failure::new(503, ABSENT).recorded(receipt)),
        Err(NotSent::Unsent(Unsent::Busy)) => {
            return Err(Failure::new(503, "Many questions are with the language model; try again shortly").recorded(receipt));
        }
        Err(NotSent::Unavailable(why)) => return Err(Failure::unavailable(why)),
        Err(NotSent::Fault) => return Err(Failure::new(500, reply::INTERNAL).recorded(receipt)),
    };
    let mut generation = cx.call.admitted.unwrap_or_default();
    match cx.api.vault.stands(cx.who, &mut generation) {
        true => Ok(answer),
        false => Err(cx.refuse(Reason::RevokedCredential, 401, "Invalid API key")),
    }
}

/// The memories that a question is answered from: all that `filter` chooses if they are few, else those of them that answer best, and how many
/// it chooses in all. A filter that names memories in another way gives the newest.
fn chosen(access: &mut Access<'_, QueryMemories>, query: &str, filter: &Filter, limit: usize) -> Result<Page, Refusal> {
    let tags = match filter {
        Filter::All => Some(Vec::new()),
        Filter::Tags(tags) => Some(tags.clone()),
        Filter::Ids(_) | Filter::Search(_) | Filter::Origin(_) | Filter::Trashed => None,
    };
    if let Some(tags) = tags {
        let total = memories::list(access, filter, Part::Full, 0, 0)?.total;
        if total > u64::try_from(limit).unwrap_or(u64::MAX) {
            let question = Question { query: query.to_owned(), limit, tags, subject: None, since: None, until: None, explain: false };
            let memories = memories::rank(access, &question)?.into_iter().map(|(memory, _)| memory).collect();
            return Ok(Page { memories, total });
        }
    }
    memories::list(access, filter, Part::Full, 0, limit)
}

/// A memory as the model reads it.
fn told(number: usize, memory: &Memory, receipt: &Receipt) -> Zeroizing<String> {
    let text = &memory.text;
    let mut out = Zeroizing::new(String::with_capacity(text.content.bytes() + 2048));
    out.push_str(&format!("[{number}] "));
    out.push_str(text.title.expose(receipt));
    out.push_str(&format!("\nDate: {}", memory.occurred_at.unwrap_or(memory.created_at)));
    for (name, value) in [("About", &text.subject), ("Said by", &text.speaker)] {
        if let Some(value) = value {
            out.push_str(&format!("\n{name}: "));
            out.push_str(value.expose(receipt));
        }
    }
    for (i, tag) in text.tags.iter().enumerate() {
        out.push_str(if i == 0 { "\nTags: " } else { ", " });
        out.push_str(tag.expose(receipt));
    }
    out.push('\n');
    out.push_str(text.content.expose(receipt));
    out.push_str("\n\n");
    out
}

/// The question with as many of the memories before it as the budget holds, in their order, and which those are.
fn prompt<'m>(query: &str, memories: &'m [Memory], budget: usize, receipt: &Receipt) -> (Zeroizing<String>, Vec<&'m Memory>) {
    let (mut left, mut parts, mut included) = (budget, Vec::new(), Vec::new());
    for memory in memories {
        let part = told(included.len() + 1, memory, receipt);
        // One that does not fit makes room for smaller ones.
        if let Some(rest) = left.checked_sub(part.chars().count()) {
            left = rest;
            parts.push(part);
            included.push(memory);
        }
    }
    let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(bytes + query.len() + 64));
    text.push_str("Memories:\n\n");
    parts.iter().for_each(|part| text.push_str(part));
    text.push_str("Question: ");
    text.push_str(query);
    (text, included)
}

/// `POST /query`
pub fn query(cx: &mut Cx<'_>) -> Answered {
    let (model, hub) = ready(cx)?;
    let _place = place(cx)?;
    let query = Zeroizing::new(required(cx, "query"));
    let filter = filter_named(&mut cx.fields, "memory_filter");
    let limit = cx.fields.count("limit").unwrap_or(limits::QUERY_MEMORIES_MAX);
    let mut done = cx.look::<QueryMemories, _, _>(cx.own(), &Words::MEMORY, |access| chosen(access, &query, &filter, limit))?;
    let held = done.hold();
    let (page, receipt) = done.into_parts();
    let (prompt, included) = prompt(&query, &page.memories, model.context_chars, &receipt);
    let messages = [Message { role: Role::System, content: &model.system_prompt }, Message { role: Role::User, content: &prompt }];
    let response = asked(cx, model, hub, &messages, &receipt)?;

    let count = u64::try_from(included.len()).expect("a count fits 64 bits");
    let truncated = count < page.total;
    let vendor = cx.who.vendor().map(|vendor| vendor.name());
    let body = if vendor.is_some() {
        let tokens = prompt.chars().count().div_ceil(limits::CHARS_PER_TOKEN);
        json!({
            "response": *response,
            "memories_used_count": count,
            "memories_included_in_prompt": count,
            "truncated": truncated,
            "estimated_tokens": tokens,
            "vendor_filter": vendor,
        })
    } else {
        let used: Vec<_> = included.iter().map(|memory| reply::record(memory, &receipt)).collect();
        json!({
            "response": *response,
            "memories_used": used,
            "prompt_sent": *prompt,
            "model_config": { "model": model.name, "temperature": model.temperature.value(), "max_tokens": model.max_tokens },
            "vendor_filter": null,
            "truncated": truncated,
            "memories_included": count,
            "memories_total": page.total,
        })
    };
    Ok(written(body, &receipt).holding(held))
}

/// The answer; what it was made of is wiped.
fn written(mut body: serde_json::Value, receipt: &Receipt) -> crate::http::Reply {
    let bytes = reply::json(&body);
    crate::api::schema::wipe(&mut body);
    reply::recorded(200, Some(bytes), receipt)
}

/// `POST /chat`
pub fn chat(cx: &mut Cx<'_>) -> Answered {
    let (model, hub) = ready(cx)?;
    if required(cx, "model") != model.name {
        return Err(cx.refuse(Reason::Schema, 400, "body/model must be one of GET /chat/models"));
    }
    let _place = place(cx)?;
    let spoken: Vec<(Role, Zeroizing<String>)> = (cx.fields.objects("messages").unwrap_or_default().into_iter())
        .map(|mut message| {
            let role = if message.text("role").as_deref() == Some("assistant") { Role::Assistant } else { Role::User };
            (role, Zeroizing::new(message.text("content").unwrap_or_default()))
        })
        .collect();
    let done = cx.look::<Chat, _, _>(cx.person(), &Words::MEMORY, |_| Ok::<_, identity::Refusal>(()))?;
    let ((), receipt) = done.into_parts();
    let messages: Vec<Message<'_>> = spoken.iter().map(|(role, content)| Message { role: *role, content }).collect();
    let response = asked(cx, model, hub, &messages, &receipt)?;
    Ok(written(json!({ "response": *response, "model": model.name }), &receipt))
}

/// `GET /chat/models`
pub fn models(cx: &mut Cx<'_>) -> Answered {
    let models: Vec<&str> = cx.api.model.iter().map(|(model, _)| model.name.as_str()).collect();
    cx.read::<ListModels, _, _>(
        cx.person(),
        &Words::MEMORY,
        |_| Ok::<_, identity::Refusal>(()),
        |(), _| reply::json(&json!({ "models": models })),
    )
}
