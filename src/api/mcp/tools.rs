//! The tools: one row each. What `tools/list` says, what a call is checked by and what it does follow from it.
//!
//! Invariants
//! - Whoever lists the tools sees all of them in this order, whoever asks: what a call may do is policy's to say.
//! - Input schemas are those that check the arguments; output schemas are the components of the OpenAPI document, references filled in.

use serde_json::{Map, Value, json};

use super::calls::{self, Called};
use super::inputs;
use crate::api::answers::{
    Shape, answer, flag, id, list_of, maybe_id, maybe_text, never, number, reference, text, texts, time, title, word,
};
use crate::api::openapi;
use crate::api::run::Cx;
use crate::api::schema::{Schema, with_members};

/// What a client may tell its user before it calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// It changes nothing.
    Reads,
    /// It changes something.
    Changes,
}

/// One tool.
pub struct Tool {
    /// By which it is called.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// For the model.
    pub about: &'static str,
    /// See [`Hint`].
    pub hint: Hint,
    /// The policy verb that it asks for: its name in the audit log.
    pub verb: &'static str,
    /// Its arguments.
    pub arguments: &'static Schema,
    /// Its structured content.
    output: Shape,
    /// What it does.
    pub run: fn(&mut Cx<'_>) -> Called,
}

const MEMORY: Shape = reference("Memory");
const MEMORIES: Shape = answer(&[("memories", list_of("Memory"))], &[]);
const SCOPE: Shape = word(&["personal", "org", "team", "all"]);

/// A page of what is the asker's, the organisation's or the team's.
macro_rules! scoped {
    ($of:literal) => {
        answer(
            &[
                ("memories", list_of($of)),
                ("total", number()),
                ("limit", number()),
                ("offset", number()),
                ("scope", SCOPE),
                ("has_more", flag()),
            ],
            &[],
        )
    };
}

/// A page of what is shared.
macro_rules! pool {
    ($key:literal) => {
        answer(&[($key, Shape::List(&POOLED)), ("count", number()), ("offset", number()), ("has_more", flag())], &[])
    };
}

const POOLED: Shape = answer(
    &[
        ("id", id()),
        ("title", title()),
        ("content", text("")),
        ("tags", texts("")),
        ("origin", text("")),
        ("memory_type", text("")),
        ("author", text("")),
        ("shared_at", time()),
        ("created_at", time()),
    ],
    &[],
);

const NODE: Shape = answer(
    &[
        ("id", id()),
        ("title", title()),
        ("tags", texts("")),
        ("user_id", id()),
        ("shared_with_org_id", maybe_id()),
        ("parent_memory_id", maybe_id()),
        ("created_at", time()),
        ("relation", text("")),
    ],
    &[("shared_tag_count", number())],
);
const NODES: Shape = Shape::List(&NODE);

const AROUND: Shape = answer(
    &[
        ("center", NODE),
        ("parent", Shape::Any("", &[NODE, never()])),
        ("children", NODES),
        ("siblings", NODES),
        ("tag_similar", NODES),
        ("references", NODES),
        ("referenced_by", NODES),
    ],
    &[],
);

const SHARED: Shape = answer(
    &[("shared", flag()), ("scope", word(&["org", "team"])), ("memory", MEMORY)],
    &[("org_id", maybe_text("")), ("team_id", maybe_text(""))],
);

/// The tools, in the order in which they are listed.
pub static TOOLS: &[Tool] = &[
    Tool {
        name: "read_memories",
        title: "Read newest memories",
        about: "The newest memories in full, newest first. To find something in particular, search_memories is better.",
        hint: Hint::Reads,
        verb: "memory.list",
        arguments: &inputs::READ,
        output: MEMORIES,
        run: calls::read,
    },
    Tool {
        name: "get_memory_briefing",
        title: "Get memory briefing",
        about: "What the memories are about, in short: totals, tags, open threads, conventions and topics. Read it at the beginning of a session.",
        hint: Hint::Reads,
        verb: "memory.brief",
        arguments: &inputs::BRIEFING,
        output: reference("Briefing"),
        run: calls::briefing,
    },
    Tool {
        name: "get_memory_by_id",
        title: "Get a memory",
        about: "One memory in full, by its id.",
        hint: Hint::Reads,
        verb: "memory.read",
        arguments: &inputs::BY_ID,
        output: MEMORY,
        run: calls::by_id,
    },
    Tool {
        name: "get_latest_memory",
        title: "Get the latest memory",
        about: "The newest memory in full, of a tag if one is given.",
        hint: Hint::Reads,
        verb: "memory.list",
        arguments: &inputs::LATEST,
        output: MEMORY,
        run: calls::latest,
    },
    Tool {
        name: "browse_memories",
        title: "Browse memories",
        about: "A page of memories without their content, newest first: to see what there is. Read one with get_memory_by_id.",
        hint: Hint::Reads,
        verb: "memory.list",
        arguments: &inputs::BROWSE,
        output: scoped!("Summary"),
        run: calls::browse,
    },
    Tool {
        name: "search_memories",
        title: "Search memories",
        about: "Memories whose title or content holds a text as it stands, in any case of its letters. With ranked=true: the memories that \
                answer a question best, though they use other words.",
        hint: Hint::Reads,
        verb: "memory.search",
        arguments: &inputs::SEARCH,
        output: MEMORIES,
        run: calls::search,
    },
    Tool {
        name: "get_memories_by_tag",
        title: "Get memories by tag",
        about: "A page of memories in full that carry any of these tags, newest first.",
        hint: Hint::Reads,
        verb: "memory.list",
        arguments: &inputs::BY_TAG,
        output: scoped!("Memory"),
        run: calls::by_tag,
    },
    Tool {
        name: "write_memory",
        title: "Write a memory",
        about: "Keeps something for later sessions and other tools. One fact or decision a memory, with a title that says what it is about and a few tags.",
        hint: Hint::Changes,
        verb: "memory.create",
        arguments: &inputs::WRITE,
        output: MEMORY,
        run: calls::write,
    },
    Tool {
        name: "update_memory",
        title: "Update a memory",
        about: "Replaces title, content, tags and vendors of a memory that this tool wrote; what it said before stays as a version.",
        hint: Hint::Changes,
        verb: "memory.update",
        arguments: &inputs::UPDATE,
        output: MEMORY,
        run: calls::update,
    },
    Tool {
        name: "delete_memory",
        title: "Delete a memory",
        about: "Moves a memory that this tool wrote to the trash, from where its person can take it back.",
        hint: Hint::Changes,
        verb: "memory.trash",
        arguments: &inputs::BY_ID,
        output: answer(&[("deleted", flag()), ("id", id()), ("title", title())], &[]),
        run: calls::delete,
    },
    Tool {
        name: "read_org_memories",
        title: "Read the organisation's memories",
        about: "A page of memories that are shared with the organisation.",
        hint: Hint::Reads,
        verb: "memory.list",
        arguments: &inputs::POOL,
        output: pool!("org_memories"),
        run: calls::pool,
    },
    Tool {
        name: "read_team_memories",
        title: "Read the team's memories",
        about: "A page of memories that are shared with the team.",
        hint: Hint::Reads,
        verb: "memory.list",
        arguments: &inputs::POOL,
        output: pool!("team_memories"),
        run: calls::pool,
    },
    Tool {
        name: "write_child_memory",
        title: "Reply to a memory",
        about: "Writes a memory as a reply to another, so that both are read as one thread. Threads are one level deep.",
        hint: Hint::Changes,
        verb: "memory.reply",
        arguments: &inputs::REPLY,
        output: MEMORY,
        run: calls::reply,
    },
    Tool {
        name: "read_thread",
        title: "Read a thread",
        about: "A memory with its replies, oldest first, by the id of any of them.",
        hint: Hint::Reads,
        verb: "memory.thread",
        arguments: &inputs::THREAD,
        output: answer(&[("parent", MEMORY), ("children", list_of("Memory"))], &[]),
        run: calls::thread,
    },
    Tool {
        name: "get_graph_around",
        title: "Get what is near a memory",
        about: "What a memory is connected with: its thread, memories with tags in common, those that it names by id and those that name it. No content.",
        hint: Hint::Reads,
        verb: "memory.around",
        arguments: &inputs::AROUND,
        output: AROUND,
        run: calls::around,
    },
    Tool {
        name: "get_topic_cluster",
        title: "Get a topic",
        about: "Memories with one tag, the last changed first, without their content.",
        hint: Hint::Reads,
        verb: "memory.around",
        arguments: &inputs::CLUSTER,
        output: answer(&[("tag", text("")), ("count", number()), ("memories", list_of("Summary"))], &[]),
        run: calls::cluster,
    },
    Tool {
        name: "share_memory",
        title: "Share a memory",
        about: "Shares a memory with the organisation or the team of its person.",
        hint: Hint::Changes,
        verb: "mcp.call",
        arguments: &inputs::SHARE,
        output: SHARED,
        run: calls::share,
    },
];

/// The tool of this name.
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// What `tools/list` says of all tools: a JSON array.
pub fn list() -> Value {
    let components = openapi::components();
    TOOLS
        .iter()
        .map(|tool| {
            let mut annotations = json!({ "title": tool.title });
            annotations[if tool.hint == Hint::Reads { "readOnlyHint" } else { "destructiveHint" }] = json!(true);
            let mut arguments = openapi::object_schema(tool.arguments);
            // What is not known is dropped, as the contract has it.
            arguments.as_object_mut().and_then(|schema| schema.remove("additionalProperties"));
            json!({
                "name": tool.name,
                "title": tool.title,
                "description": tool.about,
                "inputSchema": bare(arguments, &components),
                "outputSchema": bare(tool.output.value(), &components),
                "annotations": annotations,
            })
        })
        .collect()
}

/// A schema by itself: references filled in, examples left out.
fn bare(schema: Value, components: &Value) -> Value {
    match schema {
        Value::Object(mut map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/components/schemas/")) {
                return bare(components[name].clone(), components);
            }
            // A property may have the name of a keyword.
            let named = map.remove("properties").map(|properties| match properties {
                Value::Object(properties) => with_members(properties.into_iter().map(|(name, schema)| (name, bare(schema, components)))),
                _ => Map::new(),
            });
            let keep = |key: &str| !matches!(key, "examples" | "example");
            let mut schema = with_members(map.into_iter().filter(|(key, _)| keep(key)).map(|(key, value)| (key, bare(value, components))));
            if let Some(named) = named {
                schema.insert("properties".to_owned(), named.into());
            }
            schema.into()
        }
        Value::Array(items) => items.into_iter().map(|item| bare(item, components)).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::Part;
    use crate::policy::action::VERBS;

    #[test]
    fn the_tools_are_those_of_the_contract() {
        let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
        assert_eq!(
            names,
            [
                "read_memories",
                "get_memory_briefing",
                "get_memory_by_id",
                "get_latest_memory",
                "browse_memories",
                "search_memories",
                "get_memories_by_tag",
                "write_memory",
                "update_memory",
                "delete_memory",
                "read_org_memories",
                "read_team_memories",
                "write_child_memory",
                "read_thread",
                "get_graph_around",
                "get_topic_cluster",
                "share_memory",
            ]
        );
        for tool in TOOLS {
            assert!(VERBS.contains(&tool.verb), "{}", tool.name);
            assert!(find(tool.name).is_some_and(|found| std::ptr::eq(found, tool)));
        }
        assert!(find("").is_none() && find("Write_memory").is_none());
    }

    #[test]
    fn every_tool_lists_objects_without_references_or_examples() {
        let list = list();
        for tool in list.as_array().unwrap() {
            let name = tool["name"].as_str().unwrap();
            for key in ["inputSchema", "outputSchema"] {
                assert_eq!(tool[key]["type"], "object", "{name} {key}");
                let text = tool[key].to_string();
                assert!(!text.contains("$ref") && !text.contains("\"examples\""), "{name} {key}");
            }
            let hints = tool["annotations"].as_object().unwrap();
            assert_eq!(hints.len(), 2, "{name}: a title and one hint");
            assert!(hints["title"].is_string() && (hints.get("readOnlyHint").is_some() ^ hints.get("destructiveHint").is_some()));
            assert!(tool["description"].as_str().unwrap().ends_with('.'), "{name}");
        }
    }

    #[test]
    fn required_arguments_are_those_of_the_contract_and_defaults_pass() {
        let required = |name: &str| -> Vec<_> {
            find(name).unwrap().arguments.fields.iter().filter(|field| field.required).map(|field| field.name).collect()
        };
        for (name, arguments) in [
            ("get_memory_by_id", &["id"][..]),
            ("search_memories", &["term"]),
            ("get_memories_by_tag", &["tags"]),
            ("write_memory", &["title", "content"]),
            ("update_memory", &["id", "title", "content"]),
            ("delete_memory", &["id"]),
            ("write_child_memory", &["parent_memory_id", "title", "content"]),
            ("read_thread", &["memory_id"]),
            ("get_graph_around", &["memory_id"]),
            ("get_topic_cluster", &["tag"]),
            ("share_memory", &["memory_id"]),
            ("read_memories", &[]),
            ("get_memory_briefing", &[]),
            ("get_latest_memory", &[]),
            ("browse_memories", &[]),
            ("read_org_memories", &[]),
            ("read_team_memories", &[]),
        ] {
            assert_eq!(required(name), arguments, "{name}");
        }
        for tool in TOOLS {
            let names: std::collections::BTreeSet<_> = tool.arguments.fields.iter().map(|field| field.name).collect();
            assert_eq!(names.len(), tool.arguments.fields.len(), "{}", tool.name);
            if tool.arguments.fields.iter().all(|field| !field.required) {
                assert!(tool.arguments.check(Part::Arguments, Some(json!({})), false).is_ok(), "{}", tool.name);
            }
        }
    }
}
