//! The graph of a person's memories, as the contract draws it.

use serde::Serialize;

use crate::api::answers::{Members, Shape, answer, first, flag, id, list_of, maybe_text, number, text, texts, time, title, word};
use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::memories::Topic;
use crate::memories::graph::{Ask, Graph, Join, graph};
use crate::policy::action::GraphMemories;
use crate::store::Receipt;

/// What a reply weighs beside a tag in common.
const PARENT_WEIGHT: usize = 3;
/// Of a node in no cluster.
const PLAIN: &str = "#9ca3af";
/// Of clusters; which one depends on the cluster's id alone.
const COLORS: [&str; 12] =
    ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#65a30d", "#4f46e5", "#b45309", "#0d9488", "#be123c"];

fn color(id: &str) -> &'static str {
    let place = id.get(..2).and_then(|byte| usize::from_str_radix(byte, 16).ok()).unwrap_or(0);
    COLORS[place % COLORS.len()]
}

#[derive(Serialize)]
struct Document<'a> {
    nodes: Vec<Node<'a>>,
    edges: Vec<Edge>,
    clusters: Vec<Cluster<'a>>,
    scope: &'a str,
    days: u64,
    max_nodes: usize,
    truncated: bool,
}

#[derive(Serialize)]
struct Node<'a> {
    id: String,
    title: &'a str,
    tags: Vec<&'a str>,
    author_id: &'a str,
    shared: bool,
    is_thread_root: bool,
    is_thread_child: bool,
    reply_count: u64,
    created_at: String,
    cluster_id: Option<&'a str>,
    color: &'static str,
}

#[derive(Serialize)]
struct Edge {
    source: String,
    target: String,
    #[serde(rename = "type")]
    kind: &'static str,
    weight: usize,
}

#[derive(Serialize)]
struct Cluster<'a> {
    id: &'a str,
    name: &'a str,
    description: &'a str,
    tags: Vec<&'a str>,
    member_count: u64,
    color: &'static str,
}

const DRAWN: Shape = Shape::Schema(r##"{"type":"string","pattern":"^#[0-9a-f]{6}$","examples":["#2563eb"]}"##);

/// What it looks like, for the OpenAPI document.
pub(in crate::api) const COMPONENTS: Members = &[
    (
        "Graph",
        answer(
            &[
                ("nodes", list_of("GraphNode")),
                ("edges", list_of("GraphEdge")),
                ("clusters", list_of("GraphCluster")),
                ("scope", word(&["personal", "team", "both"])),
                ("days", number()),
                ("max_nodes", first()),
                ("truncated", flag()),
            ],
            &[],
        ),
    ),
    (
        "GraphNode",
        answer(
            &[
                ("id", id()),
                ("title", title()),
                ("tags", texts("allergy")),
                ("author_id", id()),
                ("shared", flag()),
                ("is_thread_root", flag()),
                ("is_thread_child", flag()),
                ("reply_count", number()),
                ("created_at", time()),
                ("cluster_id", maybe_text("5f1c0a9be3d27784")),
                ("color", DRAWN),
            ],
            &[],
        ),
    ),
    ("GraphEdge", answer(&[("source", id()), ("target", id()), ("type", word(&["parent_of", "shared_tag"])), ("weight", first())], &[])),
    (
        "GraphCluster",
        answer(
            &[
                ("id", text("5f1c0a9be3d27784")),
                ("name", text("diet/glucose/insulin")),
                ("description", text("4 memories about diet, glucose, insulin")),
                ("tags", texts("diet")),
                ("member_count", first()),
                ("color", DRAWN),
            ],
            &[],
        ),
    ),
];

/// `GET /graph`. Nothing is shared with anybody yet, so a team's graph is empty.
pub fn read(cx: &mut Cx<'_>) -> Answered {
    let scope = cx.fields.text("scope").expect("the schema has a default");
    let similar = cx.fields.text("include_similarity").is_none_or(|asked| matches!(asked.as_str(), "1" | "true"));
    let days = cx.fields.count("days").and_then(|days| u64::try_from(days).ok());
    let max_nodes = cx.fields.count("max_nodes").expect("the schema has a default");
    let shared_min = cx.fields.count("sim_min_shared").expect("the schema has a default");
    let of_team = scope == "team";
    let ask = Ask { days, max_nodes: if of_team { 0 } else { max_nodes }, shared_min: similar.then_some(shared_min) };
    let author = cx.who.user().to_string();
    let done = cx.walk::<GraphMemories, _, _>(cx.own(), &Words::MEMORY, |access| graph(access, &ask))?;
    Ok(cx.answer(done, |found, receipt| {
        reply::json(&Document {
            nodes: nodes(found, &author, receipt),
            edges: edges(found),
            clusters: found.topics.iter().map(|topic| cluster(topic, receipt)).collect(),
            scope: &scope,
            days: days.unwrap_or(0),
            max_nodes,
            truncated: found.truncated && !of_team,
        })
    }))
}

fn nodes<'a>(found: &'a Graph, author: &'a str, receipt: &Receipt) -> Vec<Node<'a>> {
    let places = found.nodes.iter().zip(&found.replies).zip(&found.of);
    let node = |((memory, replies), of): ((&'a crate::store::memories::Memory, &u64), &Option<usize>)| {
        let cluster_id = of.map(|of| found.topics[of].id.expose(receipt));
        Node {
            id: memory.id.to_string(),
            title: memory.text.title.expose(receipt),
            tags: memory.text.tags.iter().map(|tag| tag.expose(receipt)).collect(),
            author_id: author,
            shared: false,
            is_thread_root: *replies > 0,
            is_thread_child: memory.parent.is_some(),
            reply_count: *replies,
            created_at: memory.created_at.to_string(),
            cluster_id,
            color: cluster_id.map_or(PLAIN, color),
        }
    };
    places.map(node).collect()
}

fn edges(found: &Graph) -> Vec<Edge> {
    let edge = |&(source, target, join): &(usize, usize, Join)| {
        let (kind, weight) = match join {
            Join::ParentOf => ("parent_of", PARENT_WEIGHT),
            Join::SharedTags(count) => ("shared_tag", count),
        };
        Edge { source: found.nodes[source].id.to_string(), target: found.nodes[target].id.to_string(), kind, weight }
    };
    found.edges.iter().map(edge).collect()
}

fn cluster<'a>(topic: &'a Topic, receipt: &Receipt) -> Cluster<'a> {
    let id = topic.id.expose(receipt);
    Cluster {
        id,
        name: topic.name.expose(receipt),
        description: topic.description.expose(receipt),
        tags: topic.tags.iter().map(|tag| tag.expose(receipt)).collect(),
        member_count: topic.memories,
        color: color(id),
    }
}
