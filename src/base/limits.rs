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
/// Stack of a connection's thread.
pub const CONNECTION_STACK_BYTES: usize = 256 * 1024;
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

// --- keys and the file (DESIGN 3) ---
/// Shortest key file or credential: 256 bits, if its bytes are random.
pub const KEK_BYTES_MIN: usize = 32;
/// Longest key file, credential or passphrase file that is read.
pub const KEK_BYTES_MAX: usize = 64 * 1024;
/// Key slots of one file.
pub const KEY_SLOTS: usize = 8;
/// Argon2id memory a stored slot may ask for, in KiB.
pub const ARGON2_KIB_MAX: u32 = 1024 * 1024;
/// Argon2id passes a stored slot may ask for.
pub const ARGON2_PASSES_MAX: u32 = 10;
/// Argon2id lanes a stored slot may ask for.
pub const ARGON2_LANES_MAX: u32 = 4;
/// Disk space held ahead of need behind the data file.
pub const RESERVE_BYTES: u64 = RESERVE_WRITE_BYTES + RESERVE_STEP_BYTES;
/// How much of the reserve is given up at a time when the disk is full.
pub const RESERVE_STEP_BYTES: u64 = 4 * 1024 * 1024;
/// How long a full disk is left alone before it is asked again for a reserve, milliseconds.
pub const RESERVE_RETRY_MS: u64 = 1000;
/// Logical size of the store: what 20-bit region and page numbers of the B-tree can address.
pub const STORE_BYTES_MAX: u64 = 1 << 52;
/// Damaged blocks that a check lists by number.
pub const CHECK_LISTED_MAX: usize = 16;
/// Rows in one commit of a copy.
pub const COPY_ROWS_PER_COMMIT: usize = 10_000;
/// Bytes after which a commit of a copy ends.
pub const COPY_BYTES_PER_COMMIT: usize = 4 * 1024 * 1024;

// A whole batch of the largest writes must fit the space that a write may still use.
const _: () = assert!((BATCH_JOBS_MAX * BODY_BYTES_MAX) as u64 <= RESERVE_WRITE_BYTES);
const _: () = assert!(RESERVE_READ_BYTES < RESERVE_WRITE_BYTES);
const _: () = assert!(BATCH_JOBS_MAX <= QUEUE_JOBS_MAX);
const _: () = assert!(METADATA_BYTES_MAX < BODY_BYTES_MAX);
