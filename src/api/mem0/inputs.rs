//! What Mem0's paths accept: the keys that its clients send (Python `mem0ai` 0.1 to 2.x, npm `mem0ai` 3.x), and no others.
//!
//! Three kinds of key: those that do what they say; those that only steer a model or a hosted plan, which are read and have no effect (there is no
//! model here; `docs/clients/mem0.md` lists them); and those that would be a promise which is not kept here, which are refused (`super`).

use crate::api::schema::{Field, Kind, Literal, Schema};
use crate::base::limits;

const fn text(max: usize) -> Kind {
    Kind::Text { min: 1, max, pattern: None }
}

/// The largest whole number that a double holds exactly (RFC 8259 section 6).
const INTEGER_MAX: i64 = (1 << 53) - 1;

const WHOLE: Kind = Kind::Integer { min: 0, max: INTEGER_MAX };
const METADATA_OBJECT: Kind = Kind::Free { bytes_max: limits::METADATA_BYTES_MAX, depth_max: limits::METADATA_DEPTH_MAX };
const FILTER_OBJECT: Kind = Kind::Free { bytes_max: limits::FILTER_BYTES_MAX, depth_max: limits::FILTER_DEPTH_MAX };
const MAYBE_FLAG: Kind = Kind::Any(&[Kind::Boolean, Kind::Null]);
const MAYBE_TEXT: Kind = Kind::Any(&[text(limits::CONTENT_CHARS_MAX), Kind::Null]);
/// A name, as a text or as the whole number that some applications use.
const NAME: Kind = Kind::Any(&[text(limits::NAME_CHARS_MAX), WHOLE, Kind::Null]);
const MOMENT: Kind = Kind::Any(&[text(64), Kind::Number { min: 0.0, max: 253_402_300_799.0 }, Kind::Null]);
/// Anything of bounded size.
const ANYTHING: Kind = Kind::Any(&[
    Kind::Boolean,
    Kind::Null,
    text(limits::CONTENT_CHARS_MAX),
    Kind::Number { min: f64::MIN, max: f64::MAX },
    FILTER_OBJECT,
    Kind::List { items: &Kind::Any(&[text(limits::CONTENT_CHARS_MAX), FILTER_OBJECT]), min: 0, max: limits::FILTER_VALUES_MAX },
]);

const fn name(key: &'static str, about: &'static str) -> Field {
    Field::optional(key, NAME, about)
}

/// A key that is read and has no effect here.
const fn unused(key: &'static str) -> Field {
    Field::optional(key, ANYTHING, "Read, without effect: there is no model, hosted plan or other workspace that it could concern.")
}

const USER_ID: Field = name("user_id", "The person the memory is about.").like(Literal::Text("MRN 4711"));
const AGENT_ID: Field = name("agent_id", "The agent that it concerns; a name, never authority.").like(Literal::Text("triage"));
const APP_ID: Field = name("app_id", "The application that it concerns; a name, never authority.").like(Literal::Text("ward-round"));
const RUN_ID: Field = name("run_id", "The session or run.").like(Literal::Text("round-2026-11-21"));
const METADATA: Field =
    Field::optional("metadata", Kind::Any(&[METADATA_OBJECT, Kind::Null]), "Anything of your own.").like(Literal::Pairs(&[("ward", "3")]));
const TIMESTAMP: Field =
    Field::optional("timestamp", MOMENT, "When it happened: seconds since 1970, or RFC 3339.").like(Literal::Integer(1_795_248_000));
const EXPIRATION: Field =
    Field::optional("expiration_date", MAYBE_TEXT, "Refused unless null: memories do not expire here.").like(Literal::Json("null"));
const FILTERS: Field = Field::optional(
    "filters",
    Kind::Any(&[FILTER_OBJECT, Kind::Null]),
    "Conditions on user_id, agent_id, app_id, run_id, created_at, updated_at, timestamp, categories, metadata, keywords and memory_ids, joined by AND, OR and NOT.",
)
.like(Literal::Pairs(&[("user_id", "MRN 4711")]));
const PAGE: Field = Field::optional("page", Kind::Integer { min: 1, max: INTEGER_MAX }, "Which page, from 1.");
const PAGE_SIZE: Field = Field::optional("page_size", Kind::Integer { min: 1, max: max(limits::PAGE_MEMORIES_MAX) }, "How many on a page.");
const CATEGORIES: Field = Field::optional(
    "categories",
    Kind::Any(&[Kind::List { items: &text(limits::TAG_CHARS_MAX), min: 0, max: limits::TAGS_MAX }, Kind::Null]),
    "Only with any of these tags.",
)
.like(Literal::Texts(&["allergy"]));
const START: Field = Field::optional("start_date", MOMENT, "Only from then on.").like(Literal::Text("2026-11-01"));
const END: Field = Field::optional("end_date", MOMENT, "Only until then, that day included.").like(Literal::Text("2026-11-30"));
const FIELDS: Field = Field::optional(
    "fields",
    Kind::Any(&[Kind::List { items: &text(100), min: 0, max: 50 }, Kind::Null]),
    "Only these keys of each memory, beside its id and score.",
)
.like(Literal::Texts(&["memory"]));

const fn max(n: usize) -> i64 {
    assert!(n <= 1 << 32);
    #[expect(clippy::as_conversions, clippy::cast_possible_wrap, reason = "const: the assertion above bounds it")]
    let n = n as i64;
    n
}

/// One part of a message that is made of several.
static PART: Schema = Schema {
    fields: &[
        Field::required("type", Kind::OneOf(&["text"]), "Text alone is kept."),
        Field::required("text", text(limits::CONTENT_CHARS_MAX), "The text.").like(Literal::Text("Allergic to penicillin")),
    ],
};

static MESSAGE: Schema = Schema {
    fields: &[
        Field::required("role", text(limits::NAME_CHARS_MAX), "Who speaks: user, assistant, system.").like(Literal::Text("user")),
        Field::required(
            "content",
            Kind::Any(&[
                text(limits::CONTENT_CHARS_MAX),
                Kind::List { items: &Kind::Object(&PART), min: 1, max: limits::MESSAGES_MAX },
                Kind::Object(&PART),
            ]),
            "What is said, kept word for word.",
        )
        .like(Literal::Text("Allergic to penicillin")),
        Field::optional("name", Kind::Any(&[text(limits::NAME_CHARS_MAX), Kind::Null]), "Who it is, by name.")
            .like(Literal::Text("Dr. Adler")),
    ],
};

/// Who a memory concerns, as `filters` of an addition.
static NAMES: Schema = Schema { fields: &[USER_ID, AGENT_ID, APP_ID, RUN_ID] };

/// `POST /v3/memories/add/` and `POST /v1/memories/`
pub static ADD: Schema = Schema {
    fields: &[
        Field::required(
            "messages",
            Kind::Any(&[
                Kind::List { items: &Kind::Object(&MESSAGE), min: 1, max: limits::MESSAGES_MAX },
                text(limits::CONTENT_CHARS_MAX),
                Kind::Object(&MESSAGE),
            ]),
            "One memory each, in one commit.",
        )
        .like(Literal::Json(r#"[{"role":"user","content":"Allergic to penicillin"}]"#)),
        USER_ID,
        AGENT_ID,
        APP_ID,
        RUN_ID,
        Field::optional("filters", Kind::Any(&[Kind::Object(&NAMES), Kind::Null]), "The same four names, as newer clients send them."),
        METADATA,
        TIMESTAMP,
        Field::optional("infer", MAYBE_FLAG, "Whatever it says, messages are kept word for word; the answer says so."),
        EXPIRATION,
        Field::optional("immutable", MAYBE_FLAG, "Refused if true: it would not be kept."),
        unused("custom_categories"),
        unused("custom_instructions"),
        unused("agent_custom_instructions"),
        unused("structured_data_schema"),
        unused("includes"),
        unused("excludes"),
        unused("prompt"),
        unused("enable_graph"),
        unused("async_mode"),
        unused("output_format"),
        unused("version"),
        unused("source"),
        unused("org_id"),
        unused("project_id"),
        unused("org_name"),
        unused("project_name"),
    ],
};

/// `POST /v3/memories/` and `POST /v2/memories/`
pub static LIST: Schema = Schema {
    fields: &[
        FILTERS,
        USER_ID,
        AGENT_ID,
        APP_ID,
        RUN_ID,
        METADATA,
        CATEGORIES,
        START,
        END,
        FIELDS,
        PAGE,
        PAGE_SIZE,
        unused("show_expired"),
        unused("latest_only"),
        unused("enable_graph"),
        unused("keyword_search"),
        unused("output_format"),
        unused("version"),
        unused("source"),
        unused("org_id"),
        unused("project_id"),
        unused("org_name"),
        unused("project_name"),
    ],
};

/// The query string beside [`LIST`], and of `GET /v1/entities/`.
pub static PAGES: Schema = Schema { fields: &[PAGE, PAGE_SIZE, QUERY_ORG, QUERY_PROJECT] };

const QUERY_NAME: Kind = text(limits::NAME_CHARS_MAX);
const QUERY_USER: Field = Field::optional("user_id", QUERY_NAME, "About this person; `*` is anybody.").like(Literal::Text("MRN 4711"));
const QUERY_AGENT: Field = Field::optional("agent_id", QUERY_NAME, "Of this agent; `*` is any.").like(Literal::Text("triage"));
const QUERY_APP: Field = Field::optional("app_id", QUERY_NAME, "Of this application; `*` is any.").like(Literal::Text("ward-round"));
const QUERY_RUN: Field = Field::optional("run_id", QUERY_NAME, "Of this run; `*` is any.").like(Literal::Text("round-2026-11-21"));
const QUERY_ORG: Field = Field::optional("org_id", QUERY_NAME, "Read, without effect.").like(Literal::Text("org"));
const QUERY_PROJECT: Field = Field::optional("project_id", QUERY_NAME, "Read, without effect.").like(Literal::Text("project"));

/// `GET /v1/memories/`, query string
pub static QUERY_LIST: Schema = Schema {
    fields: &[
        QUERY_USER,
        QUERY_AGENT,
        QUERY_APP,
        QUERY_RUN,
        PAGE,
        PAGE_SIZE,
        Field::optional(
            "top_k",
            Kind::Integer { min: 1, max: max(limits::PAGE_MEMORIES_MAX) },
            "How many to give at most, where no page is asked for.",
        ),
        QUERY_ORG,
        QUERY_PROJECT,
    ],
};

/// `DELETE /v1/memories/`, query string
pub static DELETE_ALL: Schema = Schema { fields: &[QUERY_USER, QUERY_AGENT, QUERY_APP, QUERY_RUN, QUERY_ORG, QUERY_PROJECT] };

/// `DELETE /v1/memories/:id/`, query string
pub static DELETE_ONE: Schema = Schema {
    fields: &[
        Field::optional("delete_linked", Kind::Boolean, "Also those that it superseded: there are none here."),
        QUERY_ORG,
        QUERY_PROJECT,
    ],
};

/// `POST /v3/memories/search/`, `POST /v2/memories/search/` and `POST /v1/memories/search/`
pub static SEARCH: Schema = Schema {
    fields: &[
        Field::required("query", text(limits::QUESTION_CHARS_MAX), "What to look for, in your own words.")
            .like(Literal::Text("is she allergic to penicillin?")),
        FILTERS,
        USER_ID,
        AGENT_ID,
        APP_ID,
        RUN_ID,
        METADATA,
        CATEGORIES,
        FIELDS,
        Field::optional("top_k", Kind::Integer { min: 1, max: max(limits::PAGE_MEMORIES_MAX) }, "How many to give at most; 10 if absent."),
        Field::optional("limit", Kind::Integer { min: 1, max: max(limits::PAGE_MEMORIES_MAX) }, "Older spelling of `top_k`."),
        Field::optional(
            "threshold",
            Kind::Any(&[Kind::Number { min: 0.0, max: 1.0 }, Kind::Null]),
            "Least score, as a share of the best one's.",
        ),
        unused("rerank"),
        unused("keyword_search"),
        unused("filter_memories"),
        unused("reference_date"),
        unused("show_expired"),
        unused("latest_only"),
        unused("enable_graph"),
        unused("only_metadata_based_search"),
        unused("output_format"),
        unused("version"),
        unused("source"),
        unused("org_id"),
        unused("project_id"),
        unused("org_name"),
        unused("project_name"),
    ],
};

const NEW_TEXT: Field =
    Field::optional("text", MAYBE_TEXT, "What it says from now on.").like(Literal::Text("Allergic to penicillin and latex"));

/// `PUT /v1/memories/:id/`
pub static UPDATE: Schema = Schema { fields: &[NEW_TEXT, METADATA, TIMESTAMP, EXPIRATION] };

const MEMORY_ID: Field =
    Field::required("memory_id", text(100), "Which memory.").like(Literal::Text("019ab3c4-5d6e-7f80-8a9b-0c1d2e3f4a5b"));

static BATCH_UPDATE_ITEM: Schema = Schema { fields: &[MEMORY_ID, NEW_TEXT, METADATA, TIMESTAMP] };
static BATCH_DELETE_ITEM: Schema = Schema { fields: &[MEMORY_ID] };

/// `PUT /v1/batch/`
pub static BATCH_UPDATE: Schema = Schema {
    fields: &[Field::required(
        "memories",
        Kind::List { items: &Kind::Object(&BATCH_UPDATE_ITEM), min: 1, max: limits::BATCH_MEMORIES_MAX },
        "Which, and what they say from now on.",
    )
    .like(Literal::Json(r#"[{"memory_id":"019ab3c4-5d6e-7f80-8a9b-0c1d2e3f4a5b","text":"Allergic to latex"}]"#))],
};

/// `DELETE /v1/batch/`
pub static BATCH_DELETE: Schema = Schema {
    fields: &[Field::required(
        "memories",
        Kind::List { items: &Kind::Object(&BATCH_DELETE_ITEM), min: 1, max: limits::BATCH_MEMORIES_MAX },
        "Which.",
    )
    .like(Literal::Json(r#"[{"memory_id":"019ab3c4-5d6e-7f80-8a9b-0c1d2e3f4a5b"}]"#))],
};

/// `POST /v1/exports/`
pub static EXPORT: Schema = Schema {
    fields: &[
        Field::required("schema", ANYTHING, "Read, without effect: there is no model that could fill it.")
            .like(Literal::Json(r#"{"properties":{}}"#)),
        FILTERS,
        USER_ID,
        AGENT_ID,
        APP_ID,
        RUN_ID,
        unused("export_instructions"),
        unused("org_id"),
        unused("project_id"),
    ],
};

/// `POST /v1/exports/get/`
pub static EXPORT_GET: Schema = Schema {
    fields: &[
        Field::optional(
            "memory_export_id",
            Kind::Any(&[text(100), Kind::Null]),
            "The id that the request for the export was answered with.",
        )
        .like(Literal::Text("6f1c9a52-8d0e-4b7a-9f63-2f1f0c5c7f10")),
        FILTERS,
        USER_ID,
        AGENT_ID,
        APP_ID,
        RUN_ID,
        unused("org_id"),
        unused("project_id"),
    ],
};

/// `POST /v1/feedback/`
pub static FEEDBACK: Schema = Schema {
    fields: &[
        MEMORY_ID,
        Field::optional(
            "feedback",
            Kind::Any(&[Kind::OneOf(&["POSITIVE", "NEGATIVE", "VERY_NEGATIVE"]), Kind::Null]),
            "What to think of it; null withdraws.",
        )
        .like(Literal::Text("NEGATIVE")),
        Field::optional("feedback_reason", Kind::Any(&[text(limits::QUESTION_CHARS_MAX), Kind::Null]), "Why.")
            .like(Literal::Text("It was the other arm")),
    ],
};
