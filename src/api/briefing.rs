//! How a briefing is written out: the contract's JSON, and the markdown that an agent reads at the beginning of a session.
//!
//! Invariant: what people and agents wrote stands in the markdown as text of one line: it cannot begin a heading or a list, nor end its code span.

use serde::Serialize;

use crate::api::answers::{Members, answer, first, flag, id, list_of, maybe_id, maybe_text, number, text, texts, time, title, word};
use crate::api::reply;
use crate::memories::Topic;
use crate::memories::briefing::{Briefing, TagCount};
use crate::store::Receipt;

/// What it looks like, for the OpenAPI document.
pub(in crate::api) const COMPONENTS: Members = &[
    (
        "Briefing",
        answer(
            &[
                (
                    "user",
                    answer(
                        &[
                            ("id", id()),
                            ("email", text("adler@clinic.example")),
                            ("first_name", maybe_text("Ada")),
                            ("last_name", maybe_text("Adler")),
                            ("role", text("user")),
                            ("plan", text("free")),
                            ("org_id", maybe_id()),
                            ("team_name", maybe_text("Ward 3")),
                            ("org_role", maybe_text("member")),
                            ("team_member_count", number()),
                            ("subteam_id", maybe_id()),
                            ("subteam_name", maybe_text("Night shift")),
                        ],
                        &[],
                    ),
                ),
                (
                    "totals",
                    answer(&[("personal_memories", number()), ("personal_memories_shared", number()), ("team_pool_total", number())], &[]),
                ),
                ("personal_tags", list_of("TagCount")),
                ("team_tags", list_of("TagCount")),
                ("recent_tags", list_of("TagCount")),
                ("active_threads", list_of("ActiveThread")),
                ("detected_conventions", texts("Tags of the form `ward:…` name a ward, so far 2 of them.")),
                ("topic_clusters", list_of("TopicCluster")),
                ("generated_at", time()),
            ],
            &[],
        ),
    ),
    ("TagCount", answer(&[("tag", text("allergy")), ("count", first())], &[])),
    (
        "ActiveThread",
        answer(
            &[
                ("memory_id", id()),
                ("title", title()),
                ("reply_count", first()),
                ("last_activity_at", time()),
                ("shared_with_team", flag()),
            ],
            &[],
        ),
    ),
    (
        "TopicCluster",
        answer(
            &[
                ("name", text("diet/glucose/insulin")),
                ("description", text("4 memories about diet, glucose, insulin")),
                ("tags", texts("diet")),
                ("member_count", first()),
                ("internal_weight", number()),
                ("cluster_hash", text("5f1c0a9be3d27784")),
                ("scope", word(&["personal", "team"])),
            ],
            &[],
        ),
    ),
];

/// The contract's briefing.
#[derive(Serialize)]
struct Document<'a> {
    user: Whose<'a>,
    totals: Totals,
    personal_tags: Vec<Tag<'a>>,
    team_tags: [(); 0],
    recent_tags: Vec<Tag<'a>>,
    active_threads: Vec<Thread<'a>>,
    detected_conventions: Vec<&'a str>,
    topic_clusters: Vec<Cluster<'a>>,
    generated_at: String,
}

#[derive(Serialize)]
struct Whose<'a> {
    id: String,
    email: &'a str,
    first_name: Option<&'a str>,
    last_name: Option<&'a str>,
    role: &'static str,
    plan: &'a str,
    org_id: (),
    team_name: (),
    org_role: (),
    team_member_count: u64,
    subteam_id: (),
    subteam_name: (),
}

#[derive(Serialize)]
struct Totals {
    personal_memories: u64,
    personal_memories_shared: u64,
    team_pool_total: u64,
}

#[derive(Serialize)]
struct Tag<'a> {
    tag: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct Thread<'a> {
    memory_id: String,
    title: &'a str,
    reply_count: u64,
    last_activity_at: String,
    shared_with_team: bool,
}

#[derive(Serialize)]
struct Cluster<'a> {
    name: &'a str,
    description: &'a str,
    tags: Vec<&'a str>,
    member_count: u64,
    internal_weight: u64,
    cluster_hash: &'a str,
    scope: &'static str,
}

fn tags<'a>(tags: &'a [TagCount], receipt: &Receipt) -> Vec<Tag<'a>> {
    tags.iter().map(|tag| Tag { tag: tag.tag.expose(receipt), count: tag.count }).collect()
}

fn cluster<'a>(topic: &'a Topic, receipt: &Receipt) -> Cluster<'a> {
    Cluster {
        name: topic.name.expose(receipt),
        description: topic.description.expose(receipt),
        tags: topic.tags.iter().map(|tag| tag.expose(receipt)).collect(),
        member_count: topic.memories,
        internal_weight: topic.weight,
        cluster_hash: topic.id.expose(receipt),
        scope: "personal",
    }
}

/// As JSON.
pub fn json(briefing: &Briefing, receipt: &Receipt) -> Vec<u8> {
    let user = &briefing.user;
    let threads = briefing.threads.iter().map(|thread| Thread {
        memory_id: thread.id.to_string(),
        title: thread.title.expose(receipt),
        reply_count: thread.replies,
        last_activity_at: thread.last_activity.to_string(),
        shared_with_team: false,
    });
    reply::json(&Document {
        user: Whose {
            id: user.id.to_string(),
            email: user.email.expose(receipt),
            first_name: user.first_name.as_ref().map(|name| name.expose(receipt)),
            last_name: user.last_name.as_ref().map(|name| name.expose(receipt)),
            role: "user",
            plan: briefing.plan,
            org_id: (),
            team_name: (),
            org_role: (),
            team_member_count: 0,
            subteam_id: (),
            subteam_name: (),
        },
        totals: Totals { personal_memories: briefing.memories, personal_memories_shared: 0, team_pool_total: 0 },
        personal_tags: tags(&briefing.tags, receipt),
        team_tags: [],
        recent_tags: tags(&briefing.recent, receipt),
        active_threads: threads.collect(),
        detected_conventions: briefing.conventions.iter().map(|told| told.expose(receipt)).collect(),
        topic_clusters: briefing.topics.iter().map(|topic| cluster(topic, receipt)).collect(),
        generated_at: briefing.at.to_string(),
    })
}

/// What to do before writing, whoever the reader is.
const GUIDANCE: &str = "\
## Before you write
- Search first: what is there already wants a reply or an update, not a second record.
- Add to what a thread is about with a reply (`write_child_memory`, the parent's full id); an update replaces the text it had.
- Use the tags that are in use below before you invent one.
- Write what will still be true and useful later, one matter a memory, with the date and the person it is about.
";

/// As markdown.
pub fn markdown(briefing: &Briefing, receipt: &Receipt) -> String {
    let user = &briefing.user;
    let names =
        [&user.first_name, &user.last_name].into_iter().flatten().map(|name| inline(name.expose(receipt))).collect::<Vec<_>>().join(" ");
    let email = inline(user.email.expose(receipt));
    let who = if names.is_empty() { format!("**{email}**") } else { format!("**{names}** ({email})") };
    let mut text =
        format!("# Reflect Memory — session briefing\n\n**User:** {who}\n**Totals:** {} memories in your sight\n\n", briefing.memories);
    if !briefing.conventions.is_empty() {
        text += "## Conventions\n";
        briefing.conventions.iter().for_each(|told| text += &format!("- {}\n", line(told.expose(receipt))));
        text += "\n";
    }
    text += GUIDANCE;
    if !briefing.topics.is_empty() {
        text += "\n## Topic map\n";
        for topic in &briefing.topics {
            let tags: Vec<_> = topic.tags.iter().map(|tag| code(tag.expose(receipt))).collect();
            text += &format!("- **{}**: {} memories; tags {}\n", inline(topic.name.expose(receipt)), topic.memories, tags.join(", "));
        }
    }
    text += &format!("\n## Personal tags\n{}\n", listed(&briefing.tags, receipt));
    text += &format!("\n## Tags of the last {} days\n{}\n", briefing.recency_days, listed(&briefing.recent, receipt));
    if !briefing.threads.is_empty() {
        text += "\n## Current open threads\n";
        for thread in &briefing.threads {
            let replies = if thread.replies == 1 { "reply" } else { "replies" };
            let title = inline(thread.title.expose(receipt));
            text += &format!("- `{}` **{title}**: {} {replies}, the last at {}\n", thread.id, thread.replies, thread.last_activity);
        }
    }
    text
}

fn listed(tags: &[TagCount], receipt: &Receipt) -> String {
    let each: Vec<_> = tags.iter().map(|tag| format!("{} ({})", code(tag.tag.expose(receipt)), tag.count)).collect();
    if each.is_empty() { "None yet.".to_owned() } else { each.join(", ") }
}

/// The text on one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c }).collect()
}

/// The text on one line, its markup without effect.
fn inline(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in line(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#') {
            plain.push('\\');
        }
        plain.push(c);
    }
    plain
}

/// The text as a code span.
fn code(text: &str) -> String {
    format!("`{}`", line(text).replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_makes_no_markup() {
        assert_eq!(inline("a\n# Do this *now* [x](y)"), "a \\# Do this \\*now\\* \\[x\\](y)");
        assert_eq!(code("a`\n## b"), "`a' ## b`");
        assert_eq!(line("a\u{2028}b\u{85}c"), "a b c");
    }
}
