//! What each route accepts: the schemas of the contract's bodies and query strings, and of our own.
//!
//! Beyond the contract a write may carry `subject`, `metadata`, `run_id`, `speaker` and `occurred_at`; a client that does not know them never
//! sees them.

use crate::api::schema::{Field, Kind, Literal, Pattern, Schema};
use crate::base::limits;

/// The largest whole number that a double holds exactly (RFC 8259 section 6).
const INTEGER_MAX: i64 = (1 << 53) - 1;

const fn text(min: usize, max: usize) -> Kind {
    Kind::Text { min, max, pattern: None }
}

/// `origin` as a caller may state it: stored in clear under the block key, so a word and not prose.
const ORIGIN_WORD: Pattern = Pattern {
    source: "^[A-Za-z0-9._-]+$",
    matches: |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
};

pub(in crate::api) const TAG: Kind = text(1, limits::TAG_CHARS_MAX);
const VENDOR: Kind = text(1, limits::VENDOR_CHARS_MAX);
pub(in crate::api) const ID: Kind = text(1, 100);

pub(in crate::api) const TITLE: Field =
    Field::required("title", text(1, limits::TITLE_CHARS_MAX), "What the memory is about.").like(Literal::Text("Allergy"));
pub(in crate::api) const CONTENT: Field = Field::required("content", text(1, limits::CONTENT_CHARS_MAX), "The memory itself.")
    .like(Literal::Text("Penicillin: rash on both arms, 2019"));
pub(in crate::api) const TAGS: Field =
    Field::required("tags", Kind::List { items: &TAG, min: 0, max: limits::TAGS_MAX }, "Words to find it by.")
        .like(Literal::Texts(&["allergy"]));
const VENDORS: Field = Field::required(
    "allowed_vendors",
    Kind::List { items: &VENDOR, min: 1, max: limits::VENDORS_MAX },
    "Vendors whose agents may see it; `*` is all of them.",
)
.like(Literal::Texts(&["*"]));
pub(in crate::api) const ANY_VENDOR: Field = VENDORS.or(Literal::Texts(&["*"]));
/// Left out it stays as it was: a call that does not speak of it opens the memory to nobody.
pub(in crate::api) const KEPT_VENDORS: Field = Field::optional(
    "allowed_vendors",
    Kind::List { items: &VENDOR, min: 1, max: limits::VENDORS_MAX },
    "Vendors whose agents may see it; `*` is all of them. Left out, those that may see it now.",
)
.like(Literal::Texts(&["*"]));
/// The same of a reply: left out, it is as open as what it replies to.
pub(in crate::api) const PARENTS_VENDORS: Field =
    Field { about: "Vendors whose agents may see it; `*` is all of them. Left out, those that may see the parent.", ..KEPT_VENDORS };
pub(in crate::api) const MEMORY_TYPE: Field =
    Field::optional("memory_type", Kind::OneOf(&["semantic", "episodic", "procedural"]), "What kind of memory it is.");
pub(in crate::api) const NEW_TYPE: Field = MEMORY_TYPE.or(Literal::Text("semantic"));
pub(in crate::api) const SHARE_SCOPE: Field = Field::optional("share_scope", Kind::OneOf(&["org", "team"]), "Whom to share it with.");
pub(in crate::api) const SHARE_WITH_TEAM: Field =
    Field::optional("share_with_team", Kind::Boolean, "Older spelling of `share_scope: \"org\"`.");
const ORIGIN: Field = Field::optional(
    "origin",
    Kind::Text { min: 1, max: limits::VENDOR_CHARS_MAX, pattern: Some(&ORIGIN_WORD) },
    "Where it comes from, when a user key writes; an agent key's vendor overrides it.",
)
.like(Literal::Text("intake-form"));
pub(in crate::api) const SUBJECT: Field =
    Field::optional("subject", text(1, limits::SUBJECT_CHARS_MAX), "The person the memory is about, by your own name for them. Immutable.")
        .like(Literal::Text("MRN 4711"));
pub(in crate::api) const METADATA: Field = Field::optional(
    "metadata",
    Kind::Free { bytes_max: limits::METADATA_BYTES_MAX, depth_max: limits::METADATA_DEPTH_MAX },
    "Anything of your own.",
)
.like(Literal::Pairs(&[("ward", "3")]));
pub(in crate::api) const RUN_ID: Field =
    Field::optional("run_id", text(1, limits::NAME_CHARS_MAX), "The session or run it was learned in.")
        .like(Literal::Text("round-2026-11-21"));
pub(in crate::api) const SPEAKER: Field =
    Field::optional("speaker", text(1, limits::NAME_CHARS_MAX), "Who said it.").like(Literal::Text("Dr. Adler"));
pub(in crate::api) const OCCURRED_AT: Field =
    Field::optional("occurred_at", Kind::Time, "When it happened; not before 1970.").like(Literal::Text("2026-11-21T08:00:00.000Z"));

/// All tags of a memory.
const TAGS_SHARED_MAX: i64 = 50;
const _: () = assert!(TAGS_SHARED_MAX as usize == limits::TAGS_MAX);

pub(in crate::api) const OFFSET: Field =
    Field::optional("offset", Kind::Integer { min: 0, max: INTEGER_MAX }, "How many to skip.").or(Literal::Integer(0));
pub(in crate::api) const TERM: Field =
    Field::required("term", text(1, limits::TERM_CHARS_MAX), "Text to find in title or content, as it stands.")
        .like(Literal::Text("penicillin"));

pub(in crate::api) const fn limit(max: i64) -> Field {
    Field::optional("limit", Kind::Integer { min: 1, max }, "How many to give at most.")
}

const fn by(word: &'static [&'static str]) -> Field {
    Field::required("by", Kind::OneOf(word), "Which filter this is.")
}

/// One kind of filter, by its word.
type Variant = (&'static str, Schema);

const BY_ALL: Variant = ("all", Schema { fields: &[by(&["all"])] });
const BY_TAGS: Variant = (
    "tags",
    Schema {
        fields: &[
            by(&["tags"]),
            Field::required("tags", Kind::List { items: &TAG, min: 1, max: limits::FILTER_TAGS_MAX }, "Any of these.")
                .like(Literal::Texts(&["allergy"])),
        ],
    },
);
/// What is no id, however long, is one of no memory.
const ANY_ID: Kind = text(0, limits::BODY_BYTES_MAX);
const BY_IDS: Variant = (
    "ids",
    Schema {
        fields: &[
            by(&["ids"]),
            Field::required("ids", Kind::List { items: &ANY_ID, min: 1, max: limits::LIST_RECORDS_MAX }, "These memories.")
                .like(Literal::Texts(&["019ab3c4-5d6e-7f80-8a9b-0c1d2e3f4a5b"])),
        ],
    },
);
const BY_SEARCH: Variant = ("search", Schema { fields: &[by(&["search"]), TERM] });
const BY_ORIGIN: Variant = (
    "origin",
    Schema {
        fields: &[
            by(&["origin"]),
            Field::required("origin", text(1, limits::VENDOR_CHARS_MAX), "Where they come from.").like(Literal::Text("cursor")),
        ],
    },
);
const BY_TRASHED: Variant = ("trashed", Schema { fields: &[by(&["trashed"])] });

const FILTER: Field = Field::required(
    "filter",
    Kind::Tagged { tag: "by", variants: &[BY_ALL, BY_TAGS, BY_IDS, BY_SEARCH, BY_ORIGIN, BY_TRASHED] },
    "Which memories.",
);

/// `POST /memories`
pub static CREATE: Schema = Schema {
    fields: &[TITLE, CONTENT, TAGS, ANY_VENDOR, NEW_TYPE, SHARE_SCOPE, SHARE_WITH_TEAM, SUBJECT, METADATA, RUN_ID, SPEAKER, OCCURRED_AT],
};

/// `POST /agent/memories`
pub static AGENT_CREATE: Schema = Schema {
    fields: &[
        TITLE,
        CONTENT,
        TAGS,
        VENDORS,
        NEW_TYPE,
        SHARE_SCOPE,
        SHARE_WITH_TEAM,
        ORIGIN,
        SUBJECT,
        METADATA,
        RUN_ID,
        SPEAKER,
        OCCURRED_AT,
    ],
};

/// `PUT /memories/:id` and `PUT /agent/memories/:id`. `memory_type` is accepted and has no effect (the contract); the optional keys, absent,
/// leave what is stored.
pub static UPDATE: Schema = Schema { fields: &[TITLE, CONTENT, TAGS, VENDORS, MEMORY_TYPE, METADATA, RUN_ID, SPEAKER, OCCURRED_AT] };

/// `POST /memories/:id/children`
pub static CHILD: Schema =
    Schema { fields: &[TITLE, CONTENT, TAGS, PARENTS_VENDORS, NEW_TYPE, SUBJECT, METADATA, RUN_ID, SPEAKER, OCCURRED_AT] };

/// `POST /agent/memories/:id/children`
pub static AGENT_CHILD: Schema =
    Schema { fields: &[TITLE, CONTENT, TAGS, VENDORS, NEW_TYPE, SUBJECT, METADATA, RUN_ID, SPEAKER, OCCURRED_AT] };

/// Vendors as an import may name them, whether or not they have keys here: a word and not prose, as it is stored in clear.
const VENDOR_WORD: Pattern = Pattern { source: "^(\\*|[A-Za-z0-9._-]+)$", matches: |text| text == "*" || (ORIGIN_WORD.matches)(text) };

/// One line of an import: the contract's record as an export writes it, keys that hold null left out before.
pub static IMPORT: Schema = Schema {
    fields: &[
        Field::optional("id", ID, "Its id where it comes from; replies name it, a new one is drawn here."),
        TITLE,
        CONTENT,
        TAGS.or(Literal::Texts(&[])),
        ORIGIN.or(Literal::Text("import")),
        Field::optional(
            "allowed_vendors",
            Kind::List {
                items: &Kind::Text { min: 1, max: limits::VENDOR_CHARS_MAX, pattern: Some(&VENDOR_WORD) },
                min: 1,
                max: limits::VENDORS_MAX,
            },
            "Vendors whose agents may see it; `*` is all of them.",
        )
        .or(Literal::Texts(&["*"])),
        NEW_TYPE,
        Field::optional("created_at", Kind::Time, "When it was written; now if absent."),
        Field::optional("updated_at", Kind::Time, "When it was last changed."),
        Field::optional("deleted_at", Kind::Time, "When it was moved to the trash."),
        Field::optional("parent_memory_id", ID, "The `id` of an earlier line that this one replies to."),
        SUBJECT,
        METADATA,
        RUN_ID,
        SPEAKER,
        OCCURRED_AT,
    ],
};

/// `POST /memories/list`; no limit gives all of them, and `offset` then has no effect.
pub static LIST: Schema = Schema { fields: &[FILTER, limit(500), OFFSET] };

/// `POST /agent/memories/browse`
pub static BROWSE: Schema = Schema { fields: &[FILTER, limit(200).or(Literal::Integer(50)), OFFSET] };

/// `POST /agent/memories/by-tag`
pub static BY_TAG: Schema = Schema {
    fields: &[
        Field::required("tags", Kind::List { items: &TAG, min: 1, max: limits::TAGS_MAX }, "Any of these.")
            .like(Literal::Texts(&["allergy"])),
        limit(100).or(Literal::Integer(20)),
        OFFSET,
    ],
};

/// `POST /agent/memories/search`
pub static TERM_SEARCH: Schema = Schema { fields: &[TERM, limit(50).or(Literal::Integer(10))] };

/// `POST /agent/memories/list`
pub static AGENT_LIST: Schema = Schema { fields: &[limit(50).or(Literal::Integer(10))] };

/// `GET /agent/memories/latest`, query string
pub static LATEST: Schema = Schema {
    fields: &[
        Field::optional("tag", text(0, limits::TERM_CHARS_MAX), "With this tag; wins over `origin`.").like(Literal::Text("allergy")),
        Field::optional("origin", text(0, limits::TERM_CHARS_MAX), "From this origin.").like(Literal::Text("cursor")),
    ],
};

/// `GET /briefing` and `GET /agent/briefing`, query string
pub static BRIEFING: Schema = Schema {
    fields: &[
        Field::optional("format", Kind::OneOf(&["json", "markdown"]), "How it is written.").or(Literal::Text("json")),
        Field::optional("top_tags", Kind::Integer { min: 1, max: limits::BRIEFING_TAGS_MAX }, "Tags in each list.")
            .or(Literal::Integer(30)),
        Field::optional("recency_days", Kind::Integer { min: 1, max: limits::RECENT_DAYS_MAX }, "How many days count as recent.")
            .or(Literal::Integer(7)),
        Field::optional("active_threads", Kind::Integer { min: 0, max: limits::BRIEFING_THREADS_MAX }, "Threads at most.")
            .or(Literal::Integer(5)),
    ],
};

/// `GET /graph`, query string
pub static GRAPH: Schema = Schema {
    fields: &[
        Field::optional("scope", Kind::OneOf(&["personal", "team", "both"]), "Whose memories.").or(Literal::Text("both")),
        Field::optional("days", Kind::Integer { min: 1, max: limits::RECENT_DAYS_MAX }, "Only those of so many days; all if absent."),
        Field::optional("max_nodes", Kind::Integer { min: 1, max: limits::GRAPH_NODES_MAX }, "Memories at most, the newest.")
            .or(Literal::Integer(500)),
        Field::optional("include_similarity", Kind::OneOf(&["0", "1", "false", "true"]), "Whether tags in common join memories.")
            .or(Literal::Text("1")),
        Field::optional("sim_min_shared", Kind::Integer { min: 1, max: TAGS_SHARED_MAX }, "How many of them it takes.")
            .or(Literal::Integer(2)),
    ],
};

/// `GET /usage` and `GET /usage/check`, query string; the month is accepted and has no effect (the contract).
pub static USAGE: Schema = Schema {
    fields: &[
        Field::optional("month", text(0, limits::NAME_CHARS_MAX), "Without effect; see `/api/v1/usage`.").like(Literal::Text("2026-11"))
    ],
};

/// `POST /api/keys`
pub static NEW_KEY: Schema = Schema {
    fields: &[Field::optional("label", text(1, limits::LABEL_CHARS_MAX), "Your name for the key.")
        .or(Literal::Text("Default"))
        .like(Literal::Text("Ward 3 laptop"))],
};

/// `PATCH /users/me`
pub static NAMES: Schema = Schema {
    fields: &[
        Field::optional("first_name", text(0, limits::PERSON_NAME_CHARS_MAX), "Your first name; absent, it becomes empty.")
            .like(Literal::Text("Ada")),
        Field::optional("last_name", text(0, limits::PERSON_NAME_CHARS_MAX), "Your last name; absent, it becomes empty.")
            .like(Literal::Text("Adler")),
    ],
};

/// `POST /api/v1/erasures`
pub static ERASURE: Schema = Schema {
    fields: &[
        Field::required("holder", Kind::OneOf(&["user", "subject"]), "A person with a sign-in, or somebody memories are about."),
        Field::required(
            "name",
            text(1, limits::EMAIL_CHARS_MAX),
            "The user's e-mail address, the subject's name; or the id of either, as the audit log has it.",
        )
        .like(Literal::Text("nurse@hospital.example")),
    ],
};

/// `POST /api/v1/memories/search`
pub static SEARCH: Schema = Schema {
    fields: &[
        Field::required("query", text(1, limits::TERM_CHARS_MAX), "What to look for, in your own words.")
            .like(Literal::Text("is she allergic to penicillin?")),
        limit(50).or(Literal::Integer(10)),
        Field::optional("tags", Kind::List { items: &TAG, min: 1, max: limits::TAGS_MAX }, "Only with any of these.")
            .like(Literal::Texts(&["allergy"])),
        Field::optional("subject", text(1, limits::SUBJECT_CHARS_MAX), "Only about this person.").like(Literal::Text("MRN 4711")),
        Field::optional("since", Kind::Time, "Only from then on, that moment included."),
        Field::optional("until", Kind::Time, "Only until then, that moment included."),
        Field::optional("explain", Kind::Boolean, "Say how each score came about."),
    ],
};

/// `POST /query`
pub static QUERY: Schema = Schema {
    fields: &[
        Field::required("query", text(1, limits::MODEL_QUERY_CHARS_MAX), "What the model is asked.")
            .like(Literal::Text("What is she allergic to?")),
        Field::required(
            "memory_filter",
            Kind::Tagged { tag: "by", variants: &[BY_ALL, BY_TAGS, BY_IDS, BY_SEARCH, BY_ORIGIN] },
            "Which memories it is given; none from the trash.",
        ),
        limit(50),
    ],
};

const MESSAGE: Schema = Schema {
    fields: &[
        Field::required("role", Kind::OneOf(&["user", "assistant"]), "Who says it."),
        Field::required("content", text(0, limits::CHAT_MESSAGE_CHARS_MAX), "What is said.").like(Literal::Text("What is a macrolide?")),
    ],
};

/// `POST /chat`
pub static CHAT: Schema = Schema {
    fields: &[
        Field::required("model", text(1, limits::MODEL_NAME_CHARS_MAX), "One of `GET /chat/models`.").like(Literal::Text("ward-model")),
        Field::required(
            "messages",
            Kind::List { items: &Kind::Object(&MESSAGE), min: 1, max: limits::CHAT_MESSAGES_MAX },
            "The conversation so far.",
        ),
    ],
};
