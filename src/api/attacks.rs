//! What a hijacked agent, or a person with a valid key, tries through the routes; and what the log must say of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::run::{Api, Settings};
use crate::authn::{Principal, Vendor};
use crate::base::time::Clock;
use crate::base::{duty, hex, limits, rng};
use crate::crypto::secret::Secret;
use crate::crypto::unlock::{KdfCost, Kek};
use crate::engine::{Engine, Options};
use crate::http::{Authority, Handler, Headers, Method, Reply, Request};
use crate::identity;
use crate::policy::action::{CreateKey, CreatePerson, Instance, Person};
use crate::store::Store;
use crate::store::gate::{Admission, Call};
use crate::store::phi::Phi;
use crate::store::tables::TABLES;
use crate::store::vault;

const OWNER: &str = "owner-key-for-tests";
const CURSOR: &str = "cursor-key-for-tests";
const CLAUDE: &str = "claude-key-for-tests";

/// A service in a folder of its own, without sockets.
struct Service {
    api: Arc<Api>,
    store: Option<Store>,
    folder: PathBuf,
}

impl Service {
    fn new() -> Self {
        Self::limited(0, 0)
    }

    fn limited(credential_per_minute: u32, admin_per_minute: u32) -> Self {
        Self::with(credential_per_minute, admin_per_minute, None)
    }

    fn with(credential_per_minute: u32, admin_per_minute: u32, memories_max: Option<u64>) -> Self {
        let folder = std::env::temp_dir().join(format!("rosemary-attack-{}", hex::encode(&rng::array::<8>())));
        std::fs::create_dir(&folder).unwrap();
        let options = Options { cache_bytes: 4 << 20, stride: 4608, tables: TABLES, kdf: KdfCost::FLOOR };
        let engine = Engine::create(&folder.join("memory.db"), &options, &Kek::for_test(&[7; 32])).unwrap();
        vault::initialise(&engine, "label", "owner@example.org", &Clock::system()).unwrap();
        let key = |name: &str, vendor, key: &str| (name.to_owned(), vendor, Secret::new(key.to_owned()));
        let settings = vault::Settings {
            label: "label".into(),
            owner_email: "owner@example.org".into(),
            static_keys: vec![
                key("RM_API_KEY", None, OWNER),
                key("RM_AGENT_KEY_CURSOR", Vendor::parse("cursor"), CURSOR),
                key("RM_AGENT_KEY_CLAUDE", Vendor::parse("claude"), CLAUDE),
            ],
            sign_in: Default::default(),
            index_bytes: 64 << 20,
            memories_max,
            anchor: None,
            model: None,
            clock: Clock::system(),
            fatal: Box::new(|| {}),
        };
        let store = Store::open(engine, settings).unwrap();
        let settings = Settings {
            address_per_minute: 0,
            credential_per_minute,
            admin_per_minute,
            public_url: "https://localhost:8443".into(),
            surroundings: Arc::default(),
            model: None,
        };
        Self { api: Arc::new(Api::new(store.vault().clone(), &settings)), store: Some(store), folder }
    }

    /// So many keys of somebody new.
    fn keys_of_another(&self, email: &str, keys: usize) -> Vec<String> {
        let vault = self.store.as_ref().unwrap().vault();
        let (console, email) = (Principal::system(vault.tenant(), vault.owner(), "console"), Phi::new(email.to_owned()));
        let made = vault.write::<CreatePerson, _, _>(&console, Instance, &Call::internal(), move |a| identity::create_person(a, &email));
        let person = made.unwrap().into_parts().0;
        let key = |_| {
            let (console, drawn) = (Principal::system(vault.tenant(), person, "console"), identity::draw_key(vault));
            let made = vault.write::<CreateKey, _, _>(&console, Person(person), &Call::internal(), move |a| {
                identity::create_key(a, drawn, Phi::new("a key".to_owned()))
            });
            made.unwrap().into_parts().0.key.expose().to_owned()
        };
        (0..keys).map(key).collect()
    }

    /// Status and body of one request.
    fn ask(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let reply = self.reply(key, method, path, body).settled();
        (reply.status, serde_json::from_slice(&reply.body).unwrap_or(Value::Null))
    }

    fn reply(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.reply_to(key, method, path, body, &[])
    }

    fn reply_to(&self, key: &str, method: Method, path: &str, body: Option<Value>, further: &[(&str, &str)]) -> Reply {
        let bearer = format!("Bearer {key}");
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_owned())));
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut headers = vec![("authorization", bearer.as_str()), ("accept", "application/json, text/event-stream")];
        headers.extend(body.as_ref().map(|_| ("content-type", "application/json")));
        headers.extend(further);
        self.api.handle(Request {
            method,
            path: path.to_owned(),
            query,
            authority: Authority::parse("localhost:8443").unwrap(),
            headers: Headers::of(&headers),
            body: body.map(|body| body.to_string().into_bytes()).unwrap_or_default(),
            client: address,
            client_certificate: false,
        })
    }

    fn get(&self, key: &str, path: &str) -> (u16, Value) {
        self.ask(key, Method::Get, path, None)
    }

    fn post(&self, key: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask(key, Method::Post, path, Some(body))
    }

    fn delete(&self, key: &str, path: &str) -> (u16, Value) {
        self.ask(key, Method::Delete, path, None)
    }

    /// Writes as the owner, open to `vendors`; gives the id.
    fn written(&self, title: &str, content: &str, tags: &[&str], vendors: &[&str]) -> String {
        let (status, memory) =
            self.post(OWNER, "/memories", json!({ "title": title, "content": content, "tags": tags, "allowed_vendors": vendors }));
        assert_eq!(status, 201, "{memory}");
        memory["id"].as_str().unwrap().to_owned()
    }

    fn total(&self, key: &str, filter: Value) -> Value {
        let (status, page) = self.post(key, "/agent/memories/browse", json!({ "filter": filter }));
        assert_eq!(status, 200, "{page}");
        page["total"].clone()
    }

    /// Tables, indexes, counts and log agree with one another.
    fn sound(&self) {
        let report = self.store.as_ref().unwrap().vault().check(&mut |_, _| {}).unwrap();
        assert_eq!(report.count, 0, "{:?}", report.listed);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.store.take().unwrap().stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|memory| memory["id"].as_str().unwrap()).collect()
}

/// Versions were checked against the memory as it is now: opening a memory to a vendor opened its whole past.
#[test]
fn a_version_that_was_not_open_to_a_vendor_stays_closed_to_it() {
    let service = Service::new();
    let id = service.written("t", "HIDDEN past", &[], &["claude"]);
    let open = json!({ "title": "t", "content": "open", "tags": [], "allowed_vendors": ["*"] });
    assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{id}"), Some(open.clone())).0, 200);
    assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{id}"), Some(open)).0, 200);
    let (_, seen) = service.get(CURSOR, &format!("/agent/memories/{id}/versions"));
    let numbers =
        |answer: &Value| answer["versions"].as_array().unwrap().iter().map(|v| v["version_number"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((numbers(&seen), &seen["current_version"]), (vec![2], &json!(3)));
    assert!(!seen.to_string().contains("HIDDEN"));
    for key in [OWNER, CLAUDE] {
        let (_, all) = service.get(key, &format!("/agent/memories/{id}/versions"));
        assert_eq!((numbers(&all), &all["current_version"]), (vec![2, 1], &json!(3)));
    }
}

/// An agent may write for another vendor and then not see what it wrote. Repeating the text united the two and gave the memory back, with
/// whatever tags its owner had added.
#[test]
fn repeating_a_text_gives_back_nothing_that_the_agent_may_not_see() {
    let service = Service::new();
    let note = json!({ "title": "t", "content": "c", "tags": ["mine"], "allowed_vendors": ["claude"] });
    let (_, first) = service.post(CURSOR, "/agent/memories", note.clone());
    let id = first["id"].as_str().unwrap();
    assert_eq!(service.get(CURSOR, &format!("/agent/memories/{id}")).0, 404);
    let owners = json!({ "title": "t", "content": "c", "tags": ["SECRET"], "allowed_vendors": ["claude"] });
    assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{id}"), Some(owners)).0, 200);
    let (status, again) = service.post(CURSOR, "/agent/memories", note.clone());
    assert_eq!(status, 201);
    assert!(again["id"] != first["id"] && !again.to_string().contains("SECRET"), "{again}");
    // One that it may see is united, also after a change that made it a repeat.
    let open = |content: &str| json!({ "title": "u", "content": content, "tags": ["one"], "allowed_vendors": ["*"] });
    let (_, a) = service.post(CURSOR, "/agent/memories", open("before"));
    let path = format!("/agent/memories/{}", a["id"].as_str().unwrap());
    assert_eq!(service.ask(CURSOR, Method::Put, &path, Some(open("after"))).0, 200);
    let (_, b) = service.post(CURSOR, "/agent/memories", open(" after\n"));
    assert_eq!(a["id"], b["id"]);
    assert_ne!(service.post(CLAUDE, "/agent/memories", open("after")).1["id"], a["id"], "another origin");
    service.sound();
}

/// The tags that were too many were dropped, and the answer was 201 all the same.
#[test]
fn a_repeat_whose_tags_do_not_fit_is_a_record_of_its_own() {
    let service = Service::new();
    let tags = |range: std::ops::Range<usize>| range.map(|n| format!("t{n}")).collect::<Vec<_>>();
    let write = |range| {
        let (status, memory) =
            service.post(CURSOR, "/agent/memories", json!({ "title": "t", "content": "c", "tags": tags(range), "allowed_vendors": ["*"] }));
        assert_eq!(status, 201, "{memory}");
        memory
    };
    let first = write(0..40);
    assert_eq!((&write(10..50)["id"], &write(0..50)["tags"]), (&first["id"], &json!(tags(0..50))), "as many as fit are united");
    let other = write(40..80);
    assert_ne!(other["id"], first["id"]);
    assert_eq!(other["tags"], json!(tags(40..80)));
    // Asked again it is found, and the first is as it was.
    assert_eq!(write(40..80)["id"], other["id"]);
    assert_eq!(service.get(CURSOR, &format!("/agent/memories/{}", first["id"].as_str().unwrap())).1["tags"], json!(tags(0..50)));
    assert_eq!(service.total(CURSOR, json!({ "by": "all" })), 2);
    service.sound();
}

#[test]
fn hidden_and_trashed_memories_are_nowhere_on_the_agent_routes() {
    let service = Service::new();
    let hidden = service.written("HIDDEN zebra", "zebra", &["x"], &["claude"]);
    let gone = service.written("HIDDEN trashed", "zebra", &["x"], &["*"]);
    let seen = service.written("seen", "zebra", &["x"], &["cursor", "claude"]);
    assert_eq!(service.delete(OWNER, &format!("/memories/{gone}")).0, 200);
    let filters = [
        json!({ "by": "all" }),
        json!({ "by": "tags", "tags": ["x"] }),
        json!({ "by": "ids", "ids": [hidden, gone, seen] }),
        json!({ "by": "search", "term": "zebra" }),
        json!({ "by": "search", "term": "ze" }),
        json!({ "by": "search", "term": "z" }),
        json!({ "by": "origin", "origin": "api" }),
    ];
    for filter in filters {
        let (status, page) = service.post(CURSOR, "/agent/memories/browse", json!({ "filter": filter }));
        assert_eq!((status, ids(&page["memories"]), &page["total"]), (200, vec![seen.as_str()], &json!(1)), "{filter}");
        assert_eq!(service.total(OWNER, filter.clone()), 2, "{filter}");
    }
    // Of the trash its size is told, as far as the vendor might see what lies in it.
    let away = service.written("HIDDEN both", "zebra", &["x"], &["claude"]);
    assert_eq!(service.delete(OWNER, &format!("/memories/{away}")).0, 200);
    for (key, size) in [(CURSOR, 1), (CLAUDE, 2), (OWNER, 2)] {
        let (status, page) = service.post(key, "/agent/memories/browse", json!({ "filter": { "by": "trashed" } }));
        assert_eq!((status, page), (200, json!({ "memories": [], "total": size, "limit": 50, "offset": 0, "has_more": false })));
    }
    let posts = [
        ("/agent/memories/by-tag", json!({ "tags": ["x"] }), "memories"),
        ("/agent/memories/search", json!({ "term": "zebra" }), "memories"),
        ("/agent/memories/search", json!({ "term": "z" }), "memories"),
        ("/agent/memories/list", json!({}), "memories"),
        ("/api/v1/memories/search", json!({ "query": "zebra hidden trashed", "explain": true }), "results"),
    ];
    for (path, body, list) in posts {
        let (status, answer) = service.post(CURSOR, path, body);
        assert_eq!((status, ids(&answer[list])), (200, vec![seen.as_str()]), "{path} {answer}");
        assert!(!answer.to_string().contains("HIDDEN"));
    }
    for latest in ["/agent/memories/latest", "/agent/memories/latest?tag=x", "/agent/memories/latest?origin=api"] {
        assert_eq!(service.get(CURSOR, latest).1["id"], seen.as_str(), "{latest}");
    }
    let absent = service.get(CURSOR, "/agent/memories/018f0000-0000-7000-8000-000000000000");
    let text = json!({ "title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"] });
    for id in [&hidden, &gone] {
        for tail in ["", "/versions", "/thread"] {
            assert_eq!(service.get(CURSOR, &format!("/agent/memories/{id}{tail}")), absent, "{tail}");
        }
        assert_eq!(service.delete(CURSOR, &format!("/agent/memories/{id}")).0, 404);
        assert_eq!(service.ask(CURSOR, Method::Put, &format!("/agent/memories/{id}"), Some(text.clone())).0, 404);
        assert_eq!(service.post(CURSOR, &format!("/agent/memories/{id}/children"), text.clone()).0, 404);
    }
    service.sound();
}

/// Versions and thread of what is in the trash were told to a person's key.
#[test]
fn what_is_in_the_trash_is_on_no_agent_route_whoever_asks() {
    let service = Service::new();
    let parent = service.written("parent", "p", &[], &["*"]);
    let body = json!({ "title": "r", "content": "reply", "tags": [], "allowed_vendors": ["*"] });
    let (_, reply) = service.post(OWNER, &format!("/memories/{parent}/children"), body);
    let reply = reply["id"].as_str().unwrap();
    let states = |id: &str| {
        let asked = [OWNER, CURSOR].into_iter().flat_map(|key| ["", "/versions", "/thread"].map(|tail| (key, tail)));
        asked.map(|(key, tail)| service.get(key, &format!("/agent/memories/{id}{tail}")).0).collect::<Vec<_>>()
    };
    assert_eq!((states(&parent), states(reply)), (vec![200; 6], vec![200; 6]));
    // Trashed by itself, with its parent, and live below a parent that is gone.
    assert_eq!(service.delete(OWNER, &format!("/memories/{reply}")).0, 200);
    assert_eq!((states(&parent), states(reply)), (vec![200; 6], vec![404; 6]));
    assert_eq!(service.delete(OWNER, &format!("/memories/{parent}")).0, 200);
    assert_eq!((states(&parent), states(reply)), (vec![404; 6], vec![404; 6]));
    assert_eq!(service.post(OWNER, &format!("/memories/{reply}/restore"), json!({})).0, 200);
    assert_eq!(states(reply), [200, 200, 404, 200, 200, 404]);
    for tail in ["", "/versions", "/thread"] {
        assert_eq!(service.get(OWNER, &format!("/memories/{parent}{tail}")).0, 200, "a person's own routes show the trash");
    }
}

#[test]
fn a_thread_shows_an_agent_neither_hidden_parents_nor_hidden_or_trashed_replies() {
    let service = Service::new();
    let parent = service.written("parent", "p", &[], &["*"]);
    let reply = |vendors: &[&str], content: &str| {
        let body = json!({ "title": "r", "content": content, "tags": [], "allowed_vendors": vendors });
        let (status, reply) = service.post(OWNER, &format!("/memories/{parent}/children"), body);
        assert_eq!(status, 201);
        reply["id"].as_str().unwrap().to_owned()
    };
    let (open, _, trashed) = (reply(&["*"], "open"), reply(&["claude"], "HIDDEN"), reply(&["*"], "trashed"));
    assert_eq!(service.delete(OWNER, &format!("/memories/{trashed}")).0, 200);
    let (_, thread) = service.get(CURSOR, &format!("/agent/memories/{open}/thread"));
    assert_eq!((thread["parent"]["id"].as_str(), ids(&thread["children"])), (Some(parent.as_str()), vec![open.as_str()]));
    let closed = json!({ "title": "parent", "content": "p", "tags": [], "allowed_vendors": ["claude"] });
    assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{parent}"), Some(closed)).0, 200);
    assert_eq!(service.get(CURSOR, &format!("/agent/memories/{open}/thread")).0, 404);
    service.sound();
}

#[test]
fn counts_and_order_survive_every_way_into_and_out_of_the_trash() {
    let service = Service::new();
    let text = |content: &str, vendors: &[&str]| json!({ "title": "t", "content": content, "tags": ["x"], "allowed_vendors": vendors });
    let parent = service.written("t", "parent", &["x"], &["*"]);
    let replies: Vec<String> = (0..4)
        .map(|n| {
            let (_, reply) = service.post(OWNER, &format!("/memories/{parent}/children"), text(&format!("reply {n}"), &["cursor"]));
            reply["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(service.total(CURSOR, json!({ "by": "all" })), 5);
    // One reply is trashed before its parent, another is purged; the cascade then meets both.
    assert_eq!(service.delete(OWNER, &format!("/memories/{}", replies[0])).0, 200);
    assert_eq!(service.delete(OWNER, &format!("/memories/{}/permanent", replies[1])).0, 204);
    assert_eq!(service.delete(OWNER, &format!("/memories/{parent}")).0, 200);
    service.sound();
    assert_eq!(service.total(CURSOR, json!({ "by": "all" })), 0);
    // A live reply of a trashed parent outlives the emptied trash, alone, and is found.
    assert_eq!(service.post(OWNER, &format!("/memories/{}/restore", replies[2]), json!({})).0, 200);
    assert_eq!(service.total(CURSOR, json!({ "by": "tags", "tags": ["x"] })), 1);
    assert_eq!(service.delete(OWNER, "/memories/trash"), (200, json!({ "deleted": 3 })));
    service.sound();
    let (_, alone) = service.get(OWNER, &format!("/memories/{}", replies[2]));
    assert_eq!(alone["parent_memory_id"], Value::Null);
    assert_eq!(service.total(CURSOR, json!({ "by": "tags", "tags": ["x"] })), 1);
    // Vendors change, twice to the same.
    for vendors in [&["claude"][..], &["claude", "claude"], &["*", "cursor"], &["cursor"]] {
        assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{}", replies[2]), Some(text("now", vendors))).0, 200);
        service.sound();
    }
    assert_eq!((service.total(CURSOR, json!({ "by": "all" })), service.total(CLAUDE, json!({ "by": "all" }))), (json!(1), json!(0)));
    assert_eq!(service.post(OWNER, &format!("/memories/{}/restore", replies[2]), json!({})).0, 404);
    assert_eq!(service.delete(OWNER, "/memories/trash"), (200, json!({ "deleted": 0 })));
}

/// Lists opened every match before they counted, and threads and versions had no bound at all: a few hundred large memories were gigabytes.
#[test]
fn no_answer_opens_more_than_it_may_hold() {
    // Minutes without optimisation; the short form is `an_answer_is_bounded_and_few_are_large_at_once` of the gate's tests.
    if std::env::var_os("ROSEMARY_LONG").is_none() {
        return;
    }
    let service = Service::new();
    let large = "x".repeat(limits::CONTENT_CHARS_MAX);
    let fits = limits::LIST_BYTES_MAX / limits::CONTENT_CHARS_MAX;
    let parent = service.written("parent", &large, &["x"], &["*"]);
    for n in 0..=fits {
        let body = json!({ "title": format!("{n}"), "content": large, "tags": ["x"], "allowed_vendors": ["*"] });
        assert_eq!(service.post(OWNER, &format!("/memories/{parent}/children"), body.clone()).0, 201);
        assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{parent}"), Some(body)).0, 200);
    }
    let all = json!({ "by": "all" });
    assert_eq!(service.post(OWNER, "/memories/list", json!({ "filter": all })).0, 400);
    assert_eq!(service.post(OWNER, "/memories/list", json!({ "filter": all, "limit": 500 })).0, 400);
    let (status, page) = service.post(OWNER, "/memories/list", json!({ "filter": all, "limit": 300 }));
    assert_eq!((status, ids(&page["memories"]).len()), (200, 300));
    for route in ["thread", "versions"] {
        let (status, refusal) = service.get(OWNER, &format!("/memories/{parent}/{route}"));
        assert_eq!((status, refusal["error"].as_str()), (400, Some("The answer would exceed 32 MiB")), "{route}");
    }
    // A summary holds no content, a count opens nothing that it keeps.
    assert_eq!(
        service.post(CURSOR, "/agent/memories/browse", json!({ "filter": { "by": "search", "term": "xxxx" }, "limit": 1 })).1["total"],
        fits + 2
    );
}

/// One commit took every version of a memory, however many there were, while every other write waited.
#[test]
fn a_long_history_is_removed_in_several_commits_and_wholly() {
    let service = Service::new();
    let text = |n: usize| json!({ "title": "t", "content": format!("{n}"), "tags": ["x"], "allowed_vendors": ["*"] });
    let id = service.written("t", "first", &["x"], &["*"]);
    let (_, reply) = service.post(OWNER, &format!("/memories/{id}/children"), text(0));
    let reply = format!("/memories/{}", reply["id"].as_str().unwrap());
    for n in 0..limits::PURGE_CHUNK {
        assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{id}"), Some(text(n))).0, 200);
        assert_eq!(service.ask(OWNER, Method::Put, &reply, Some(text(n))).0, 200);
    }
    assert_eq!(service.delete(OWNER, &format!("/memories/{id}/permanent")).0, 204);
    for gone in [&reply, &format!("/memories/{id}")] {
        assert_eq!(service.get(OWNER, gone).0, 404);
    }
    service.sound();
    let other = service.written("t", "other", &["x"], &["*"]);
    for n in 0..limits::PURGE_CHUNK {
        assert_eq!(service.ask(OWNER, Method::Put, &format!("/memories/{other}"), Some(text(n))).0, 200);
    }
    assert_eq!(service.delete(OWNER, &format!("/memories/{other}")).0, 200);
    assert_eq!(service.delete(OWNER, "/memories/trash"), (200, json!({ "deleted": 1 })));
    service.sound();
    assert_eq!(service.total(OWNER, json!({ "by": "trashed" })), 0);
}

/// One commit moved a whole thread, and prepared its words for the index, while everybody waited for the writer: 14 seconds for 1,000 long replies.
#[test]
fn a_long_thread_moves_in_several_commits_and_wholly() {
    let service = Service::new();
    let content = |n: usize| if n.is_multiple_of(50) { format!("zebra {n} ").repeat(9_000) } else { format!("zebra {n}") };
    let id = service.written("t", "zebra", &["x"], &["*"]);
    for n in 0..limits::PURGE_CHUNK + 5 {
        let reply = json!({ "title": "t", "content": content(n), "tags": ["x"], "allowed_vendors": ["*"] });
        assert_eq!(service.post(OWNER, &format!("/memories/{id}/children"), reply).0, 201);
    }
    let entries = || service.store.as_ref().unwrap().vault().check(&mut |_, _| {}).unwrap().checkpoint.unwrap().size;
    let shown = |by: &str| service.total(OWNER, json!({ "by": by }));
    let all = limits::PURGE_CHUNK + 6;
    let search = |limit: usize| {
        service.post(OWNER, "/agent/memories/browse", json!({ "filter": { "by": "search", "term": "zebra" }, "limit": limit })).1["total"]
            .clone()
    };
    assert_eq!(search(1), all);
    let before = entries();
    assert_eq!(service.delete(OWNER, &format!("/memories/{id}")).0, 200);
    assert!(entries() > before + 1, "one commit");
    assert_eq!((shown("all"), shown("trashed"), search(1)), (json!(0), json!(all), json!(0)));
    service.sound();
    assert_eq!(service.post(OWNER, &format!("/memories/{id}/restore"), Value::Null).0, 200);
    assert_eq!((shown("all"), shown("trashed"), search(1)), (json!(all), json!(0), json!(all)));
    service.sound();
    // The same by a selection, of which the replies are a part.
    let before = entries();
    let (status, done) = service.delete(OWNER, "/v1/memories/?agent_id=*&run_id=*&user_id=*&app_id=*");
    assert_eq!((status, &done["deleted"], &done["kept"]), (200, &json!(all), &json!(0)), "{done}");
    assert!(entries() > before + 1, "one commit");
    assert_eq!((shown("all"), shown("trashed")), (json!(0), json!(all)));
    service.sound();
}

/// A thread comes out of the trash in several commits: what the plan has no room for must be refused by the first of them.
#[test]
fn a_thread_comes_back_wholly_or_not_at_all() {
    let replies = limits::PURGE_CHUNK + 5;
    let service = Service::with(0, 0, Some(u64::try_from(replies + 1).unwrap()));
    let key = service.keys_of_another("other@example.org", 1).remove(0);
    let text = |content: String| json!({ "title": "t", "content": content, "tags": [], "allowed_vendors": ["*"] });
    let written = |path: &str, content: String| service.post(&key, path, text(content));
    let id = written("/memories", "thread".into()).1["id"].as_str().unwrap().to_owned();
    for n in 0..replies {
        assert_eq!(written(&format!("/memories/{id}/children"), n.to_string()).0, 201);
    }
    assert_eq!(service.delete(&key, &format!("/memories/{id}")).0, 200);
    let one = written("/memories", "one more".into()).1["id"].as_str().unwrap().to_owned();
    let restored = || service.post(&key, &format!("/memories/{id}/restore"), Value::Null).0;
    let live = || service.post(&key, "/agent/memories/browse", json!({ "filter": { "by": "all" } })).1["total"].clone();
    assert_eq!((restored(), live()), (429, json!(1)));
    assert_eq!(service.delete(&key, &format!("/memories/{one}")).0, 200);
    assert_eq!((restored(), live()), (200, json!(replies + 1)));
    service.sound();
}

/// An agent that may delete a memory took the replies to it along, those of others and those hidden from it among them.
#[test]
fn an_agent_takes_along_no_reply_that_it_did_not_write() {
    let service = Service::new();
    for by_selection in [false, true] {
        let (status, parent) = service.post(
            CURSOR,
            "/agent/memories",
            json!({ "title": "p", "content": format!("{by_selection}"), "tags": [], "allowed_vendors": ["*"], "run_id": "r" }),
        );
        assert_eq!(status, 201, "{parent}");
        let id = parent["id"].as_str().unwrap();
        let reply = |key: &str, content: &str, vendors: &[&str]| {
            let path = if key == OWNER { format!("/memories/{id}/children") } else { format!("/agent/memories/{id}/children") };
            let body = json!({ "title": "t", "content": content, "tags": ["x"], "allowed_vendors": vendors });
            let (status, reply) = service.post(key, &path, body);
            assert_eq!(status, 201, "{reply}");
            format!("/memories/{}", reply["id"].as_str().unwrap())
        };
        let own = reply(CURSOR, "mine", &["*"]);
        let others = [reply(OWNER, "for claude", &["claude"]), reply(OWNER, "for all", &["*"]), reply(CLAUDE, "by claude", &["*"])];
        if by_selection {
            let (status, done) = service.delete(CURSOR, "/v1/memories/?run_id=r");
            assert_eq!((status, &done["deleted"], &done["kept"]), (200, &json!(2), &json!(0)), "{done}");
        } else {
            assert_eq!(service.delete(CURSOR, &format!("/agent/memories/{id}")).0, 200);
        }
        let is_trashed = |path: &str| !service.get(OWNER, path).1["deleted_at"].is_null();
        assert!(is_trashed(&own) && is_trashed(&format!("/memories/{id}")));
        assert!(!others.iter().any(|path| is_trashed(path)));
        service.sound();
    }
}

/// Each new key has buckets of its own: were keys made at a rate for each key, ten keys would make a hundred.
#[test]
fn the_administrative_limit_is_a_persons_not_a_keys() {
    let service = Service::limited(0, 3);
    let made = |key: &str| service.post(key, "/api/keys", json!({}));
    let (status, first) = made(OWNER);
    assert_eq!(status, 200);
    assert_eq!(made(first["key"].as_str().unwrap()).0, 200);
    assert_eq!(made(OWNER).0, 200);
    assert_eq!(made(first["key"].as_str().unwrap()).0, 429);
}

/// A refusal of the administrative window carried the credential's window too, and an answer on such a route that one alone.
#[test]
fn an_answer_tells_of_one_window_the_one_that_will_refuse_first() {
    let service = Service::limited(8, 3);
    let asked = |method, path: &str, body: Option<Value>| {
        let reply = service.reply(OWNER, method, path, body);
        let told =
            |name: &str| reply.headers.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect::<Vec<_>>();
        let window = [told("x-ratelimit-limit"), told("x-ratelimit-remaining")].concat().join("/");
        assert_eq!(told("x-ratelimit-reset").len(), 1, "{path}");
        let retry = told("retry-after").len();
        (reply.settled().status, window, retry)
    };
    let one = |status, window: &str, retry| (status, window.to_owned(), retry);
    assert_eq!(asked(Method::Get, "/whoami", None), one(200, "8/7", 0));
    assert_eq!(asked(Method::Get, "/admin/check", None), one(200, "3/2", 0));
    assert_eq!(asked(Method::Post, "/api/keys", Some(json!({ "label": 7, "extra": 1 }))), one(400, "3/1", 0));
    assert_eq!(asked(Method::Get, "/api/keys", None), one(200, "8/4", 0), "a list of keys changes nothing");
    assert_eq!(asked(Method::Post, "/api/keys", Some(json!({}))), one(200, "3/0", 0));
    assert_eq!(asked(Method::Get, "/admin/users", None), one(429, "3/0", 1));
    assert_eq!(asked(Method::Get, "/memories/x", None), one(404, "8/1", 0));
    assert_eq!(asked(Method::Get, "/whoami", None), one(200, "8/0", 0));
    assert_eq!(asked(Method::Get, "/admin/check", None), one(429, "8/0", 1), "the credential's window is looked at first");
    let service = Service::limited(2, 3);
    let checked = service.reply(OWNER, Method::Get, "/admin/check", None);
    assert!(checked.headers.contains(&("x-ratelimit-limit", "2".to_owned())), "the narrower one is the credential's");
    // Each further message of a batch counts too: the first request opens the session, the second is three.
    let service = Service::limited(3, 0);
    let opening = json!({ "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let opened =
        service.reply(CURSOR, Method::Post, "/mcp", Some(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening })));
    let session = &opened.headers.iter().find(|(name, _)| *name == "mcp-session-id").unwrap().1;
    let batch = json!((0..3).map(|id| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })).collect::<Vec<_>>());
    let over = service.reply_to(CURSOR, Method::Post, "/mcp", Some(batch), &[("mcp-session-id", session)]);
    assert_eq!((over.status, over.headers.iter().filter(|(name, _)| *name == "x-ratelimit-limit").count()), (429, 1));
}

/// Mem0's batches were one request each, whatever they held: with one credential 600,000 commits a minute.
#[test]
fn what_mem0_takes_in_one_request_counts_as_what_it_holds() {
    let service = Service::limited(10, 0);
    let header = |reply: &Reply, name: &str| {
        let mut values = reply.headers.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is said once");
        value
    };
    let add = |key, messages: usize| {
        let said: Vec<_> = (0..messages).map(|n| json!({ "role": "user", "content": format!("{key} {n}") })).collect();
        service.reply(key, Method::Post, "/v3/memories/add/", Some(json!({ "messages": said, "user_id": "x" })))
    };
    let added = add(CURSOR, 4);
    assert_eq!((added.status, header(&added, "x-ratelimit-remaining").as_deref()), (200, Some("6")));
    let added: Value = serde_json::from_slice(&added.body).unwrap();
    let ids: Vec<_> = added["results"].as_array().unwrap().iter().map(|memory| memory["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 4);
    let batch = |key, ids: &[String], method| {
        let text = |id: &String| if method == Method::Put { json!({ "memory_id": id, "text": "new" }) } else { json!({ "memory_id": id }) };
        service.reply(key, method, "/v1/batch/", Some(json!({ "memories": ids.iter().map(text).collect::<Vec<_>>() })))
    };
    let changed = batch(CURSOR, &ids, Method::Put);
    assert_eq!((changed.status, header(&changed, "x-ratelimit-remaining").as_deref()), (200, Some("2")));
    // Two are left, and four would be needed: none is taken, and nothing is done.
    let refused = batch(CURSOR, &ids, Method::Delete);
    let told: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, header(&refused, "x-ratelimit-limit").as_deref()), (429, Some("10")), "{told}");
    assert!(header(&refused, "retry-after").is_some() && header(&refused, "x-ratelimit-reset").is_some(), "{told}");
    assert!(told["error"].as_str().unwrap().starts_with("Rate limit exceeded, retry in "), "{told}");
    assert_eq!(add(CURSOR, 3).status, 429);
    assert_eq!(service.get(CLAUDE, "/v1/memories/").1.as_array().unwrap().len(), 4);
    // More than a minute is worth takes a minute of its own, and says so.
    let refused = add(CLAUDE, 11);
    let told: Value = serde_json::from_slice(&refused.body).unwrap();
    let text = "This counts as 11 requests, more than the 10 of a minute: it takes a minute of its own; retry in ";
    assert!(refused.status == 429 && told["error"].as_str().unwrap().starts_with(text), "{told}");
    let added = add(OWNER, 11);
    assert_eq!((added.status, header(&added, "x-ratelimit-remaining").as_deref()), (200, Some("0")));
    assert_eq!(service.get(OWNER, "/whoami").0, 429);
    assert_eq!(add(CLAUDE, 8).status, 200, "what was refused was not counted");
    service.sound();
}

/// A batch that the person's rate refused had used up its key's rate as well.
#[test]
fn a_batch_that_a_persons_rate_refuses_costs_its_key_nothing() {
    let service = Service::limited(10, 0);
    let per_person = usize::try_from(10 * limits::RATE_PER_PERSON_TIMES).unwrap();
    let keys = service.keys_of_another("other@example.org", per_person / 10 + 1);
    let passed = |key: &str, times: usize| (0..times).filter(|_| service.get(key, "/whoami").0 == 200).count();
    let (last, others) = keys.split_last().unwrap();
    let used: usize = others.iter().map(|key| passed(key, if key == &others[0] { 5 } else { 10 })).sum();
    assert_eq!(used, per_person - 5);
    // Of the person's five this request takes one, and it would need seven more.
    let said: Vec<_> = (0..8).map(|n| json!({ "role": "user", "content": format!("note {n}") })).collect();
    assert_eq!(service.post(last, "/v3/memories/add/", json!({ "messages": said, "user_id": "x" })).0, 429);
    assert_eq!(passed(last, 5), 4, "what the person has left");
}

/// Each new key has a bucket of its own, and a person may have a hundred.
#[test]
fn a_persons_keys_together_have_a_rate_and_the_owners_agents_have_each_their_own() {
    let service = Service::limited(3, 0);
    let keys = service.keys_of_another("other@example.org", 7);
    let passed = |keys: &[String]| {
        let asked = keys.iter().flat_map(|key| (0..3).map(|_| service.get(key, "/whoami").0));
        let statuses: Vec<_> = asked.collect();
        assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        statuses.iter().filter(|status| **status == 200).count()
    };
    let per_person = usize::try_from(3 * limits::RATE_PER_PERSON_TIMES).unwrap();
    assert!(per_person < 7 * 3);
    assert_eq!(passed(&keys), per_person);
    assert_eq!(passed(&service.keys_of_another("third@example.org", 1)), 3);
    let owners: Vec<_> = [OWNER, CURSOR, CLAUDE].map(str::to_owned).into();
    assert_eq!(passed(&owners), 9);
}

#[test]
fn an_operation_is_told_to_the_key_that_asked_for_it_and_to_no_other() {
    let service = Service::new();
    let absent = service.get(OWNER, "/api/v1/operations/018f0000-0000-4000-8000-000000000000");
    assert_eq!(absent.0, 404);
    assert_eq!(service.get(OWNER, "/api/v1/operations/x").0, 404);
    let vault = service.store.as_ref().unwrap().vault();
    let call = Call::internal();
    let Ok(Admission::Principal(who, _)) = vault.admit(OWNER) else { panic!("the owner's key is known") };
    let refused = crate::audit::Reason::Schema;
    let index = vault.record(&who, &call, "memory.create", refused, 400).unwrap().index();
    let path = format!("/api/v1/operations/{}", call.operation);
    let (status, told) = service.get(OWNER, &path);
    assert_eq!((status, told["outcome"].as_str(), told["audit_index"].as_u64()), (200, Some("refused"), Some(index)));
    assert_eq!(service.get(CURSOR, &path).0, 404);
}

/// Few threads serve all: what waits or works for long must not keep one of them, and what is asked most need not give its place away.
#[test]
fn what_waits_is_off_duty_and_a_promise_is_not() {
    let service = Service::new();
    let id = service.written("t", "content", &["a"], &["*"]);
    let on_duty = |key, method, path: &str, body| {
        duty::begin();
        let (status, answer) = service.ask(key, method, path, body);
        assert!(status < 300, "{path}: {answer}");
        duty::end()
    };
    assert!(on_duty(OWNER, Method::Get, &format!("/memories/{id}"), None));
    assert!(on_duty(CLAUDE, Method::Get, &format!("/agent/memories/{id}"), None));
    assert!(on_duty(OWNER, Method::Post, "/memories", Some(json!({ "title": "t", "content": "other", "tags": [] }))));
    for (key, method, path, body) in [
        (OWNER, Method::Get, "/whoami", None),
        (OWNER, Method::Post, "/memories/list", Some(json!({ "filter": { "by": "all" } }))),
        (OWNER, Method::Post, "/api/v1/memories/search", Some(json!({ "query": "content" }))),
        (CLAUDE, Method::Post, "/agent/memories/search", Some(json!({ "term": "content" }))),
        (OWNER, Method::Delete, &format!("/memories/{id}"), None),
    ] {
        assert!(!on_duty(key, method, path, body), "{path}");
    }
}
