//! Every bound of the product, in one place; those that depend on one another are asserted at compile time.

use std::time::Duration;

// --- HTTP (DESIGN 7) ---
/// Request line and header fields together.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields in one request.
pub const HEADERS_MAX: usize = 64;
/// Body of a request on the contract's routes.
pub const BODY_BYTES_MAX: usize = 262_144;
/// Handshake of one connection, first byte to last.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// From the first byte of a head to its last.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// From the end of the head to the end of the body.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// From the first byte of an answer to its last.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two requests of one connection.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Connections at once, unless `RM_MAX_CONNECTIONS` says otherwise.
pub const CONNECTIONS_MAX: u32 = 1024;
/// Connections at once from one address.
pub const CONNECTIONS_PER_ADDRESS_MAX: u32 = 64;
/// New connections of one address within a second, for each that it may hold at once: a flood of handshakes costs a closed socket each.
pub const ARRIVALS_PER_PLACE: u32 = 4;
/// How long a connection must have waited for its peer before it may lose its place to a new one when all places are taken.
pub const YIELD_AFTER: Duration = Duration::from_secs(1);
/// Addresses remembered at once for the two bounds above; beyond it a new address must wait.
pub const ADDRESSES_MAX: usize = 8192;
/// Stack of a connection's thread.
pub const CONNECTION_STACK_BYTES: usize = 256 * 1024;
/// Request target (path and query); a longer one is 414.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Method token.
pub const METHOD_BYTES_MAX: usize = 32;
/// After the last answer of a connection: how long, and how much, a client may still send before the socket is closed under it.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
/// See [`LINGER_TIME_MAX`].
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pause of the accept thread when the system has no descriptor or memory for one more connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the kernel keeps waiting for the accept thread.
pub const ACCEPT_BACKLOG: i32 = 1024;
/// How long a stop waits for answers under way.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

// --- the writer (DESIGN 4) ---
/// Members of one batch, one commit.
pub const BATCH_JOBS_MAX: usize = 256;
/// Jobs waiting for the writer; one more is refused with 503.
pub const QUEUE_JOBS_MAX: usize = 4096;
/// Free space below which writes are refused (507).
pub const RESERVE_WRITE_BYTES: u64 = 64 * 1024 * 1024;
/// Free space below which reads are refused too: the rest is for audit entries and erasure.
pub const RESERVE_READ_BYTES: u64 = 8 * 1024 * 1024;
/// How far the anchor file may lie behind the log.
pub const ANCHOR_LAG_MAX: Duration = Duration::from_secs(10);

// --- audit (DESIGN 6) ---
/// Resource ids in one line; more become further parts.
pub const AUDIT_IDS_PER_LINE_MAX: usize = 200;
/// Refusals of one (address, reason) within this time are one counted entry.
pub const AUDIT_COALESCE_TIME: Duration = Duration::from_secs(60);
/// Distinct (address, reason) pairs counted at once; beyond it they share one counter.
pub const AUDIT_COALESCE_KEYS_MAX: usize = 4096;

// --- memories (REFLECT_API 4, DESIGN 10); lengths are code points ---
/// Title.
pub const TITLE_CHARS_MAX: usize = 500;
/// Content.
pub const CONTENT_CHARS_MAX: usize = 100_000;
/// Tags of one memory.
pub const TAGS_MAX: usize = 50;
/// One tag.
pub const TAG_CHARS_MAX: usize = 100;
/// Entries of `allowed_vendors`.
pub const VENDORS_MAX: usize = 50;
/// One vendor.
pub const VENDOR_CHARS_MAX: usize = 50;
/// A subject's external name.
pub const SUBJECT_CHARS_MAX: usize = 200;
/// `metadata` as JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Nesting of `metadata`.
pub const METADATA_DEPTH_MAX: usize = 4;
/// A `run_id` or `speaker`.
pub const NAME_CHARS_MAX: usize = 200;
/// Records in one unlimited list (REFLECT_API 8.12).
pub const LIST_RECORDS_MAX: usize = 10_000;
/// Bytes of record text in one list.
pub const LIST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Look-alikes are merged only when the older one was made within this time.
pub const MERGE_WINDOW: Duration = Duration::from_secs(48 * 3600);

// A whole batch of the largest writes must fit the space that a write may still use.
const _: () = assert!((BATCH_JOBS_MAX * BODY_BYTES_MAX) as u64 <= RESERVE_WRITE_BYTES);
const _: () = assert!(RESERVE_READ_BYTES < RESERVE_WRITE_BYTES);
const _: () = assert!(BATCH_JOBS_MAX <= QUEUE_JOBS_MAX);
// A target of its greatest length leaves room for header fields, and offsets into a head fit 16 bits (`http::request::Headers`).
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX && HEAD_BYTES_MAX < 65_536);
const _: () = assert!(METADATA_BYTES_MAX < BODY_BYTES_MAX);
