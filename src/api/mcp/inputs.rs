//! What the arguments of each tool may be. Beyond the contract a write may carry what REST takes beside it (`subject`, `occurred_at`, …).

use crate::api::inputs::{
    ANY_VENDOR, CONTENT, ID, KEPT_VENDORS, METADATA, NEW_TYPE, OCCURRED_AT, OFFSET, PARENTS_VENDORS, RUN_ID, SHARE_SCOPE, SHARE_WITH_TEAM,
    SPEAKER, SUBJECT, TAG, TAGS, TERM, TITLE, limit,
};
use crate::api::schema::{Field, Kind, Literal, Schema};
use crate::base::limits;

const fn id(name: &'static str, about: &'static str) -> Field {
    Field::required(name, ID, about)
}

const fn ten(max: i64) -> Field {
    limit(max).or(Literal::Integer(10))
}

const SOME_TAGS: Field = TAGS.or(Literal::Texts(&[]));
const SCOPE: Field =
    Field::optional("scope", Kind::OneOf(&["personal", "org", "team", "all"]), "Whose memories: your own, or what is shared with you.")
        .or(Literal::Text("all"));

pub static READ: Schema = Schema { fields: &[ten(50)] };

pub static BRIEFING: Schema =
    Schema { fields: &[Field::optional("format", Kind::OneOf(&["markdown", "json"]), "How it is written.").or(Literal::Text("markdown"))] };

pub static BY_ID: Schema = Schema { fields: &[id("id", "The memory's id.")] };

pub static LATEST: Schema =
    Schema { fields: &[Field::optional("tag", Kind::Text { min: 0, max: limits::TERM_CHARS_MAX, pattern: None }, "Only with this tag.")] };

pub static BROWSE: Schema = Schema { fields: &[limit(200).or(Literal::Integer(50)), OFFSET, SCOPE] };

pub static SEARCH: Schema = Schema {
    fields: &[
        TERM,
        ten(50),
        SCOPE,
        Field::optional(
            "ranked",
            Kind::Boolean,
            "Take the term for a question in your own words and give the memories that answer it best, instead of those that hold it as it stands.",
        ),
    ],
};

pub static BY_TAG: Schema = Schema {
    fields: &[
        Field::required("tags", Kind::List { items: &TAG, min: 1, max: limits::TAGS_MAX }, "Any of these."),
        limit(100).or(Literal::Integer(20)),
        OFFSET,
        SCOPE,
    ],
};

pub static WRITE: Schema = Schema {
    fields: &[
        TITLE,
        CONTENT,
        SOME_TAGS,
        ANY_VENDOR,
        NEW_TYPE,
        SHARE_SCOPE,
        SHARE_WITH_TEAM,
        SUBJECT,
        METADATA,
        RUN_ID,
        SPEAKER,
        OCCURRED_AT,
    ],
};

pub static UPDATE: Schema =
    Schema { fields: &[id("id", "The memory's id."), TITLE, CONTENT, SOME_TAGS, KEPT_VENDORS, METADATA, RUN_ID, SPEAKER, OCCURRED_AT] };

pub static REPLY: Schema = Schema {
    fields: &[
        id("parent_memory_id", "The memory to reply to; it must not be a reply itself."),
        TITLE,
        CONTENT,
        SOME_TAGS,
        PARENTS_VENDORS,
        NEW_TYPE,
        SUBJECT,
        METADATA,
        RUN_ID,
        SPEAKER,
        OCCURRED_AT,
    ],
};

pub static POOL: Schema = Schema { fields: &[limit(50).or(Literal::Integer(20)), OFFSET] };

pub static THREAD: Schema = Schema { fields: &[id("memory_id", "A memory, or a reply to it.")] };

pub static AROUND: Schema = Schema {
    fields: &[
        id("memory_id", "The memory to look around."),
        Field::optional("min_shared_tags", Kind::Integer { min: 1, max: 10 }, "How many tags a memory must have in common to be similar.")
            .or(Literal::Integer(2)),
        Field::optional("top_tag_similar", Kind::Integer { min: 1, max: 20 }, "How many similar ones to give at most.")
            .or(Literal::Integer(5)),
    ],
};

pub static CLUSTER: Schema =
    Schema { fields: &[Field::required("tag", Kind::Text { min: 1, max: limits::TAG_CHARS_MAX, pattern: None }, "The tag."), ten(50)] };

pub static SHARE: Schema = Schema {
    fields: &[
        id("memory_id", "The memory to share."),
        Field::optional("scope", Kind::OneOf(&["org", "team"]), "Whom to share it with.").or(Literal::Text("org")),
    ],
};
