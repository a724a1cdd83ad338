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
/// Threads a processor that serve connections as long as they need not wait: while one of them reads a row from the disk, the others go on.
pub const PLACES_PER_CORE: usize = 3;
/// How long a thread that has no place rests before it ends.
pub const REST_TIME_MAX: Duration = Duration::from_secs(10);
/// How often connections are looked at that may have waited too long.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Reads of a socket that may give no text before a thread on duty leaves that connection for another: more than the longest record takes.
pub const READS_AT_ONCE_MAX: usize = 8;
/// A longer body is read, and its request answered, by a thread that is not on duty.
pub const PROMPT_BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a stop waits for threads that have nothing left to serve.
pub const CREW_END_TIME_MAX: Duration = Duration::from_secs(1);
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
/// Streams open at once (DESIGN 7); they take no place among connections.
pub const STREAMS_MAX: usize = 256;
/// Streams open at once with one credential.
pub const STREAMS_PER_CREDENTIAL_MAX: usize = 4;
/// Streams open at once for one person, whatever credentials they have: no person takes the places of all.
pub const STREAMS_PER_PERSON_MAX: usize = 16;
const _: () = assert!(STREAMS_PER_CREDENTIAL_MAX < STREAMS_PER_PERSON_MAX && STREAMS_PER_PERSON_MAX * 4 <= STREAMS_MAX);
/// How long a stream waits for its source before it looks whether it should end.
pub const STREAM_TURN: Duration = Duration::from_millis(500);
/// Bytes of a stream that have [`WRITE_TIME_MAX`] to leave: 1 KiB/s at least.
pub const STREAM_PART_BYTES: usize = 30 * 1024;
/// A stream that has sent nothing for this long says that it is still there.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that wait for one stream; one more ends it, so that its reader looks anew.
pub const EVENTS_WAITING_MAX: usize = 1024;
/// Connections that the kernel keeps waiting for the accept thread.
pub const ACCEPT_BACKLOG: i32 = 1024;
/// How long a stop waits for answers under way.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

// --- what a request may carry (REFLECT_API 1, 4, 5) ---
/// Nesting of a JSON body, its outermost object included.
pub const JSON_DEPTH_MAX: usize = 32;
/// Pairs of a query string or a form.
pub const FORM_PAIRS_MAX: usize = 1024;
/// A search term or query; code points.
pub const TERM_CHARS_MAX: usize = 500;
/// Label of an API key; code points.
pub const LABEL_CHARS_MAX: usize = 100;
/// Tags named by one filter.
pub const FILTER_TAGS_MAX: usize = 1000;
/// A presented credential.
pub const CREDENTIAL_BYTES_MAX: usize = 1024;
/// Clients of OAuth that nobody has consented to yet: the oldest goes for a new one.
pub const OAUTH_WAITING_MAX: usize = 1000;
/// How long such a client, and a person's decision, are waited for.
pub const OAUTH_WAIT: Duration = Duration::from_secs(30 * 60);
/// How long a code can be exchanged.
pub const OAUTH_CODE_LIFE: Duration = Duration::from_secs(5 * 60);
/// Life of an access token.
pub const OAUTH_ACCESS_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Life of a refresh token.
pub const OAUTH_REFRESH_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// `RM_OAUTH_GRANT_DAYS`, most.
pub const OAUTH_GRANT_DAYS_MAX: u32 = 3650;
/// `RM_OAUTH_GRANT_DAYS`, unless it says otherwise.
pub const OAUTH_GRANT_DAYS: u32 = 90;
/// Clients that somebody has consented to; when so many are kept, those without a grant go first.
pub const OAUTH_CLIENTS_MAX: usize = 1000;
/// Grants of one person.
pub const OAUTH_GRANTS_MAX: usize = 32;
/// Used-up refresh tokens by which a replay is known; a grant that has so many of them ends.
pub const OAUTH_SPENT_MAX: u32 = 1024;
/// Registrations a minute from one address.
pub const OAUTH_REGISTRATIONS_PER_MINUTE: u32 = 20;
/// Redirect addresses of one client.
pub const REDIRECT_URIS_MAX: usize = 10;
/// One of them.
pub const REDIRECT_URI_BYTES_MAX: usize = 2000;
/// A client's name; code points.
pub const CLIENT_NAME_CHARS_MAX: usize = 100;
/// A client's `state`.
pub const OAUTH_STATE_BYTES_MAX: usize = 4096;
/// Stored credentials that are known to stand without being looked up.
pub const STANDING_MAX: usize = 4096;
/// Changes that wait at a search index before they are taken in without being asked for.
pub const INDEX_WAITING_MAX: usize = 256;
/// Changes at which whoever brings more takes them in itself: the thread that does so cannot keep up.
pub const INDEX_BEHIND_MAX: usize = 8 * INDEX_WAITING_MAX;
/// Where blocks are sealed: memory that is kept for the next ones.
pub const SEALING_BYTES_KEPT: usize = 256 * 1024;
/// A dashboard's token.
pub const JWT_BYTES_MAX: usize = 4096;
/// How far a token of another machine may say that it was made in the future: clocks differ, but not by more.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// A clock before 2025 is wrong: the first version is younger.
pub const CLOCK_MS_MIN: u64 = 1_735_689_600_000;
/// A first or last name; code points.
pub const PERSON_NAME_CHARS_MAX: usize = 100;
/// Addresses or credentials whose rate is counted at once; beyond it the least used is forgotten.
pub const THROTTLE_SLOTS: usize = 16 * 1024;
/// The window of every rate limit.
pub const THROTTLE_WINDOW: Duration = Duration::from_secs(60);

// --- the writer (DESIGN 4) ---
/// Members of one batch, one commit.
pub const BATCH_JOBS_MAX: usize = 256;
/// A batch begins no further job once it has taken so much of the processor, so that an answer which waits for its entry alone does not wait for others' work.
pub const BATCH_WORK_TIME: Duration = Duration::from_millis(10);
/// Jobs waiting for the writer; one more is refused with 503.
pub const QUEUE_JOBS_MAX: usize = 4096;
/// Tries, 10 ms apart, to put the last counts of refusals into a queue that is full, before the service stops.
pub const LAST_COUNTS_ATTEMPTS: u32 = 50;
/// Durable batches that wait for their answers; one more and the writer waits.
pub const COMMITTED_BATCHES_MAX: usize = 2;
/// Answers that the writer gives itself when nothing else waits for it: fewer than it costs to have another thread do so.
pub const ANSWERS_AT_ONCE_MAX: usize = 8;
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
/// One entry's line; more than 200 record ids and 200 subjects of 39 bytes with all other fields.
pub const AUDIT_LINE_BYTES_MAX: usize = 32 * 1024;
/// A bundle's last line: a proof, and the changes of the log's key.
pub const AUDIT_TRAILER_BYTES_MAX: usize = 512 * 1024;
/// Changes of the log's key in a bundle, the newest; whoever holds an older key asks for a newer one.
pub const AUDIT_HANDOVERS_MAX: usize = 64;
/// Those on whose behalf one actor acts.
pub const AUDIT_BEHALF_MAX: usize = 16;
/// Signatures of one signed note (C2SP signed-note asks for at least 16).
pub const NOTE_SIGNATURES_MAX: usize = 16;
/// A signed note as a whole.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;
/// The receipt of an erasure: a signed note that names every backup which still holds what was erased.
pub const RECEIPT_BYTES_MAX: usize = 4 * 1024 * 1024;

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
/// An answer of more text than this counts as large.
pub const LARGE_ANSWER_BYTES: usize = 1024 * 1024;
/// Large answers put together or being sent at once; one more is 503. Each holds its text and its JSON: at most about 1.5 GiB together.
pub const LARGE_ANSWERS_MAX: usize = 16;
/// Of these, one person's, or one credential's of the owner: whoever reads slowly has the places of their own alone.
pub const LARGE_ANSWERS_PER_PARTY_MAX: usize = 4;
const _: () = assert!(LARGE_ANSWERS_PER_PARTY_MAX * 4 <= LARGE_ANSWERS_MAX);
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

/// Memory for the opened blocks of a copy while it is made.
pub const COPY_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// A copy that goes on beside requests rests this many times as long as it worked,
pub const COPY_REST_PER_WORK: u32 = 1;
/// for work of at most this long.
pub const COPY_REST_MAX: Duration = Duration::from_millis(500);

/// Within this time a restore must be done: 72 hours, as the HIPAA Security Rule's contingency plan is to ask (proposed 45 CFR 164.308(a)(13)).
pub const RESTORE_TIME_MAX: Duration = Duration::from_secs(72 * 3600);
/// After a backup or drill that failed, the next one is not tried before.
pub const UPKEEP_RETRY: Duration = Duration::from_secs(10 * 60);
/// A drill that failed is due again after this time.
pub const DRILL_RETRY: Duration = Duration::from_secs(24 * 3600);
/// How far the thread of backups and drills steps back before those that answer (nice(2)).
pub const UPKEEP_NICE: i32 = 10;

// A whole batch of the largest writes must fit the space that a write may still use.
const _: () = assert!((BATCH_JOBS_MAX * BODY_BYTES_MAX) as u64 <= RESERVE_WRITE_BYTES);
const _: () = assert!(RESERVE_READ_BYTES < RESERVE_WRITE_BYTES);
const _: () = assert!(BATCH_JOBS_MAX <= QUEUE_JOBS_MAX);
// A target of its greatest length leaves room for header fields, and offsets into a head fit 16 bits (`http::request::Headers`).
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX && HEAD_BYTES_MAX < 65_536);
const _: () = assert!(METADATA_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(METADATA_DEPTH_MAX < JSON_DEPTH_MAX);

// --- settings (DESIGN 9) ---
/// What `RM_MAX_CONNECTIONS` may ask for: if all of them are slow at once, one thread and one stack each.
pub const CONNECTIONS_SETTING_MAX: u32 = 16_384;
/// Files, and threads, that a service has beside those of its connections: more than it was ever seen with.
pub const BESIDE_CONNECTIONS: u64 = 64;
/// What a rate limit may ask for, requests a minute.
pub const RATE_PER_MINUTE_MAX: u32 = 1_000_000;
/// Requests that all credentials of one person together may make, in times what one of them may: who makes more keys gains no more by it. The
/// owner's are not counted together: in many a house all agents are theirs.
pub const RATE_PER_PERSON_TIMES: u32 = 5;
/// `RM_CACHE_MIB`, least and most.
pub const CACHE_MIB: (u32, u32) = (4, 65_536);
/// `RM_INDEX_MIB`, least and most.
pub const INDEX_MIB: (u32, u32) = (16, 65_536);
/// What `RM_SANDBOX_MEMORY_CAP` may ask for.
pub const MEMORIES_SETTING_MAX: u32 = 100_000_000;
/// Keys of one person other than the owner that are not revoked.
pub const KEYS_ACTIVE_MAX: u64 = 100;
/// Addresses in `RM_LISTEN`, networks in `RM_TRUSTED_PROXIES`.
pub const ADDRESS_LIST_MAX: usize = 64;
/// `RM_AGENT_KEY_<VENDOR>` settings.
pub const AGENT_KEYS_MAX: usize = 256;
/// A static key, least and most characters.
pub const STATIC_KEY_CHARS: (usize, usize) = (16, 512);
/// A static key below this many characters draws a warning.
pub const STATIC_KEY_CHARS_ADVISED: usize = 32;
/// The secret that dashboards sign with, least characters: as long as what HS256 gives (RFC 7518 section 3.2).
pub const JWT_SECRET_CHARS_MIN: usize = 32;
/// `RM_MAX_SEATS`, most.
pub const SEATS_MAX: u32 = 1_000_000;
/// A file that holds a secret: key, passphrase or static key.
pub const SECRET_FILE_BYTES_MAX: usize = 4096;
/// Bytes of a file of settings that are looked at.
pub const SETTINGS_FILE_BYTES_MAX: usize = 64 * 1024;
/// `RM_TENANT_ID` (DESIGN 10).
pub const TENANT_LABEL_CHARS_MAX: usize = 64;
/// An e-mail address, and the part of it before `@` (RFC 5321 section 4.5.3.1).
pub const EMAIL_CHARS_MAX: usize = 254;
/// See [`EMAIL_CHARS_MAX`].
pub const EMAIL_LOCAL_CHARS_MAX: usize = 64;
/// A host name (RFC 1035 section 2.3.4).
pub const HOST_CHARS_MAX: usize = 253;

const _: () = assert!(CONNECTIONS_PER_ADDRESS_MAX <= CONNECTIONS_MAX && CONNECTIONS_MAX <= CONNECTIONS_SETTING_MAX);
const _: () = assert!(STATIC_KEY_CHARS.1 < SECRET_FILE_BYTES_MAX);

/// `RM_BACKUP_EVERY_HOURS`, most.
pub const BACKUP_HOURS_MAX: u32 = 24 * 31;
/// `RM_BACKUP_KEEP_DAYS` and `RM_BACKUP_DRILL_DAYS`, most.
pub const BACKUP_DAYS_MAX: u32 = 36_500;

// --- the search index (DESIGN 12) ---
/// One term of the index; the rest of a longer word is not looked at.
pub const TERM_BYTES_MAX: usize = 64;
/// Distinct terms of one query; later ones are not looked at.
pub const QUERY_TERMS_MAX: usize = 64;
/// Bytes of one query's text that are looked at.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of content that one snippet looks through.
pub const SNIPPET_SCAN_BYTES_MAX: usize = 64 * 1024;
/// Changes kept for a scope while its index is being built; one more and the build starts again.
pub const INDEX_QUEUE_CHANGES_MAX: usize = 4096;
/// Bytes of text in those changes.
pub const INDEX_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

// --- the gate and the writer ---
/// Times a read is decided anew because credentials changed while it ran; then it is refused as busy.
pub const READ_ATTEMPTS_MAX: usize = 8;
/// A scope's newest memories among which an exact repeat is looked for.
pub const MERGE_SCAN_MAX: usize = 20_000;
/// Scopes whose recent writes are held at once.
pub const MERGE_SCOPES_MAX: usize = 64;
/// A key's last use is written at most this often.
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(60);
/// A step of the wall clock against the monotonic one that is recorded.
pub const CLOCK_STEP_MIN: Duration = Duration::from_secs(2);
/// Operations of unknown outcome that are remembered until their callers ask.
pub const UNKNOWN_OPERATIONS_MAX: usize = 16_384;
/// Newest audit entries that are searched for an operation's outcome.
pub const OPERATION_SCAN_ENTRIES_MAX: u64 = 10_000;
/// Tries to reopen the store after a failure, with growing pauses; then the process ends.
pub const RECOVER_ATTEMPTS_MAX: u32 = 6;
/// The first such pause; the nth is n times as long.
pub const RECOVER_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });
/// How often the anchor is written while the log grows.
pub const ANCHOR_INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// Memories read at once while an index is built.
pub const INDEX_CHUNK: usize = 500;
/// Scopes that wait for their index to be built.
pub const INDEX_REQUESTS_MAX: usize = 256;

const _: () = assert!(ANCHOR_INTERVAL.as_secs() * 2 <= ANCHOR_LAG_MAX.as_secs());
/// Memories that one selection may open to decide on them by their text.
pub const SELECT_OPENED_MAX: usize = 20_000;
/// Memories that one commit of a trashing by selection looks at.
pub const TRASH_SURVEY_MAX: usize = 2000;

// --- MCP clients (REFLECT_API 6) ---
/// Sessions at once; one more ends that which was used least recently, of whoever has most.
pub const MCP_SESSIONS_MAX: usize = 500;
/// Sessions at once of one person; one more ends that of their own which was used least recently.
pub const MCP_SESSIONS_PER_PERSON_MAX: usize = 100;
/// A session that was not used for this long is forgotten.
pub const MCP_SESSION_IDLE: Duration = Duration::from_secs(30 * 60);
/// Messages of one batch; each counts as a request.
pub const MCP_BATCH_MAX: usize = 20;
/// For how long a client may take the list of tools for current: it changes with the program alone.
pub const MCP_TOOLS_FRESH: Duration = Duration::from_secs(60 * 60);
/// For how long a client may take the briefing for current.
pub const MCP_BRIEFING_FRESH: Duration = Duration::from_secs(60);
/// Memories of one kind near another: replies, siblings, references.
pub const NEAR_MAX: usize = 50;
/// Memories that a tag may gather before they are sorted by their latest change, newest first.
pub const NEAR_SCAN_MAX: usize = 20_000;

const _: () = assert!(5 * MCP_SESSIONS_PER_PERSON_MAX <= MCP_SESSIONS_MAX, "few cannot fill it");

// --- Mem0 clients ---
/// Messages of one addition: one memory each, all in one commit and one audit line.
pub const MESSAGES_MAX: usize = AUDIT_IDS_PER_LINE_MAX;
/// Memories named by one batch.
pub const BATCH_MEMORIES_MAX: usize = 1000;
/// Conditions of one filter.
pub const FILTER_CONDITIONS_MAX: usize = 100;
/// Values in all lists of one filter.
pub const FILTER_VALUES_MAX: usize = 1000;
/// A filter as JSON.
pub const FILTER_BYTES_MAX: usize = 64 * 1024;
/// Nesting of a filter as JSON.
pub const FILTER_DEPTH_MAX: usize = 16;
/// Memories on one page.
pub const PAGE_MEMORIES_MAX: usize = 1000;
/// Exports that were asked for and may be fetched: in all, of one person, of one credential, and for how long.
pub const EXPORTS_MAX: usize = 1000;
/// See [`EXPORTS_MAX`].
pub const EXPORTS_PER_PERSON_MAX: usize = 250;
/// See [`EXPORTS_MAX`].
pub const EXPORTS_PER_CREDENTIAL_MAX: usize = 16;
/// See [`EXPORTS_MAX`].
pub const EXPORT_LIFE: Duration = Duration::from_secs(3600);
/// Characters of the title that is made of a message.
pub const DERIVED_TITLE_CHARS_MAX: usize = 80;

/// A search query, code points: no byte of the longest one is left unread.
pub const QUESTION_CHARS_MAX: usize = 4096;

const _: () = assert!(QUESTION_CHARS_MAX * 4 <= QUERY_BYTES_MAX);
const _: () = assert!(FILTER_DEPTH_MAX < JSON_DEPTH_MAX && FILTER_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(DERIVED_TITLE_CHARS_MAX <= TITLE_CHARS_MAX);
/// Replies of one memory.
pub const REPLIES_MAX: usize = 1000;
/// Memories and versions removed for good by one commit.
pub const PURGE_CHUNK: usize = 200;
/// Bytes of sealed text that one commit moves to or from the trash: with the words for an index some 10 ms of the writer's time.
pub const MOVED_BYTES_MAX: usize = 256 * 1024;
/// Bytes of sealed text that one commit reads, and where it must opens, to choose what moves.
pub const SURVEYED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Live memories of a scope that are scanned while its index is not ready; with more the answer is 503.
pub const SCAN_MEMORIES_MAX: u64 = 2000;
/// Characters of a snippet.
pub const SNIPPET_CHARS_MAX: usize = 240;
/// How long an address over its limit waits for each refusal.
pub const FLOOD_PAUSE: Duration = Duration::from_millis(250);

// --- briefing and graph ---
/// Tags that a briefing lists, most.
pub const BRIEFING_TAGS_MAX: i64 = 500;
/// Threads that a briefing lists, most.
pub const BRIEFING_THREADS_MAX: i64 = 50;
/// Days that `recency_days` and `days` may ask for.
pub const RECENT_DAYS_MAX: i64 = 3650;
/// Memories that one list of a briefing opens to name its tags and all that are as frequent as the last of them: if these are in more memories, the
/// tags of the newest.
pub const BRIEFING_TAGS_OPENED_MAX: usize = 5000;
/// Newest memories among whose replies a briefing finds the threads.
pub const BRIEFING_SURVEY_MAX: usize = 20_000;
/// Newest memories whose tags a briefing makes topics of.
pub const BRIEFING_TOPIC_MEMORIES: usize = 1000;
/// Topics of one briefing.
pub const BRIEFING_TOPICS_MAX: usize = 20;
/// Nodes that a graph may be asked for.
pub const GRAPH_NODES_MAX: i64 = 2000;
/// Edges of one graph that join memories by their tags.
pub const GRAPH_EDGES_MAX: usize = 20_000;
/// Tags of one memory that clusters are made of.
pub const CLUSTER_TAGS_MAX: usize = 16;
/// Tags of the smallest cluster.
pub const CLUSTER_TAGS_MIN: usize = 3;
/// Rounds of one level of clustering, and levels; what is not settled then stays as it is.
pub const CLUSTER_ROUNDS_MAX: usize = 32;

const _: () = assert!(BRIEFING_TAGS_MAX as usize <= BRIEFING_TAGS_OPENED_MAX);
// --- the language model (REFLECT_API 5.8) ---
/// A question to the model, code points.
pub const MODEL_QUERY_CHARS_MAX: usize = 10_000;
/// Name of a model, code points.
pub const MODEL_NAME_CHARS_MAX: usize = 50;
/// Messages of one conversation.
pub const CHAT_MESSAGES_MAX: usize = 100;
/// One message, code points.
pub const CHAT_MESSAGE_CHARS_MAX: usize = 50_000;
/// Memories that one question is answered from, unless it asks for fewer.
pub const QUERY_MEMORIES_MAX: usize = 50;
/// Characters that a token is taken to be when tokens are estimated.
pub const CHARS_PER_TOKEN: usize = 4;
/// `RM_MODEL_MAX_TOKENS`, most.
pub const MODEL_TOKENS_MAX: u32 = 131_072;
/// `RM_CONTEXT_CHAR_BUDGET`, most.
pub const CONTEXT_CHARS_MAX: u32 = 1_000_000;
/// `RM_SYSTEM_PROMPT`, code points.
pub const SYSTEM_PROMPT_CHARS_MAX: usize = 8000;
/// Path of `RM_MODEL_BASE_URL`.
pub const BASE_PATH_BYTES_MAX: usize = 256;
/// Name of a user of the system (useradd(8)).
pub const USER_NAME_BYTES_MAX: usize = 32;

// --- the relay (DESIGN 8) ---
/// `RM_EGRESS_TIMEOUT_SECONDS`, most.
pub const EGRESS_SECONDS_MAX: u32 = 600;
/// How long the service waits for the relay's answer: longer than the relay may take.
pub const EGRESS_WAIT: Duration = Duration::from_secs(EGRESS_SECONDS_MAX as u64 + 15);
/// Orders under way at once; one more is refused.
pub const EGRESS_ORDERS_MAX: usize = 8;
/// Of these, one person's: nobody has the language model alone.
pub const EGRESS_ORDERS_PER_PERSON_MAX: usize = 4;
const _: () = assert!(EGRESS_ORDERS_PER_PERSON_MAX < EGRESS_ORDERS_MAX);
/// One frame between service and relay.
pub const EGRESS_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A destination's answer; a longer one is cut off and counts for nothing.
pub const EGRESS_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The head of a destination's answer.
pub const EGRESS_HEAD_BYTES_MAX: usize = 64 * 1024;
/// From a frame's first byte to its last, and from a connection's beginning to its first frame.
pub const EGRESS_FRAME_TIME_MAX: Duration = Duration::from_secs(10);
/// From the first packet of a connection to its TLS handshake's end.
pub const EGRESS_CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause of the relay before it connects to the service again.
pub const RELAY_PAUSE: Duration = Duration::from_millis(500);
/// How often whoever waits on the relay's socket looks whether to stop.
pub const RELAY_TURN: Duration = Duration::from_millis(250);
/// Addresses of one name; with more it is refused.
pub const NAME_ADDRESSES_MAX: usize = 16;
/// How long one name server is waited for, and how often all are asked.
pub const NAME_TIME_MAX: Duration = Duration::from_secs(2);
/// See [`NAME_TIME_MAX`].
pub const NAME_ROUNDS_MAX: usize = 2;
/// Name servers that are asked (resolver(5): MAXNS).
pub const NAME_SERVERS_MAX: usize = 3;
/// A name server's answer over UDP (RFC 1035 section 2.3.4; larger ones need EDNS, which is not asked for).
pub const NAME_ANSWER_BYTES_MAX: usize = 512;
/// Bytes of `/etc/hosts` and `/etc/resolv.conf` that are looked at.
pub const NAME_FILE_BYTES_MAX: u64 = 256 * 1024;

// A character is at most 6 bytes in JSON, so the largest question with its memories fits one frame.
const _: () = assert!((CONTEXT_CHARS_MAX as usize + MODEL_QUERY_CHARS_MAX + SYSTEM_PROMPT_CHARS_MAX + 8192) * 6 < EGRESS_FRAME_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX * 6 < EGRESS_FRAME_BYTES_MAX && EGRESS_ANSWER_BYTES_MAX < EGRESS_FRAME_BYTES_MAX);

// --- import and export ---
/// One line of an import: the longest record (100,000 code points, escaped) with all its fields.
pub const IMPORT_LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Records stored by one commit of an import; one audit line names them all.
pub const IMPORT_CHUNK: usize = AUDIT_IDS_PER_LINE_MAX;
/// Bytes of lines stored by one commit of an import; a single longer line is one commit.
pub const IMPORT_CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// How far in the future a record to import may say it was written: clocks differ, but not by more.
pub const IMPORT_AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Rows looked at by one step of an export.
pub const EXPORT_CHUNK: usize = AUDIT_IDS_PER_LINE_MAX;
/// Bytes of content opened by one step of an export.
pub const EXPORT_CHUNK_BYTES: usize = 4 * 1024 * 1024;

// --- erasure and rotation of keys (DESIGN 3) ---
/// Memories removed by one step of an erasure; one audit line names them all.
pub const ERASE_CHUNK: usize = AUDIT_IDS_PER_LINE_MAX / 2;
/// Memories looked at by one step of an erasure of a subject.
pub const ERASE_SEEN: usize = 20_000;
/// Holders whose keys are wrapped anew by one commit.
pub const REWRAP_CHUNK: usize = 2000;
/// Rows sealed again by one commit.
pub const RESEAL_CHUNK: usize = 200;
/// Bytes after which such a commit ends.
pub const RESEAL_CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Rows looked at by one step of it.
pub const RESEAL_SEEN: usize = 20_000;
/// Longest ledger of erased holders that is read.
pub const LEDGER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// An anchor that has not been written for this long, with entries that it lacks, is not being written.
pub const ANCHOR_LATE: Duration = Duration::from_secs(60);
/// A certificate with less time than this is to be renewed.
pub const CERTIFICATE_TIME_MIN: Duration = Duration::from_secs(30 * 86_400);
/// How long a start waits for holders to be erased again from an older copy of the data, before it gives up and says so.
pub const ERASE_AGAIN_TIME_MAX: Duration = Duration::from_secs(3600);
/// Pause after a failed step of the rotator before it tries again.
pub const ROTATE_PAUSE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

// --- the console of this machine ---
/// One frame of the console's socket.
pub const CONSOLE_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Connections to the console at once; one more is closed.
pub const CONSOLE_CONNECTIONS_MAX: usize = 8;
/// How long a console's connection may take to ask, and to take an answer.
pub const CONSOLE_TIME_MAX: Duration = Duration::from_secs(10);
/// How often the console's thread looks whether it should end.
pub const CONSOLE_TURN: Duration = Duration::from_millis(200);
/// After the first attempt to unlock that failed, the next is not taken before this time; it doubles with each further one,
pub const UNLOCK_PAUSE: Duration = Duration::from_secs(1);
/// up to this.
pub const UNLOCK_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest passphrase that is typed.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

const _: () = assert!(CONSOLE_FRAME_BYTES_MAX > 2 * KEK_BYTES_MAX);
/// Newest entries of the log that a report of an incident counts.
pub const REPORT_ENTRIES_MAX: u64 = 1_000_000;

// --- embeddings (docs/search.md) ---
/// Longest model file that is read.
pub const ENCODER_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Pieces of a text that a model may look at.
pub const ENCODER_TOKENS_MAX: usize = 512;
/// Numbers of a vector.
pub const ENCODER_WIDTH_MAX: usize = 1024;
/// Width of a layer's inner step.
pub const ENCODER_INNER_MAX: usize = 4096;
/// Layers of a model.
pub const ENCODER_LAYERS_MAX: usize = 24;
/// Pieces that a model knows.
pub const ENCODER_PIECES_MAX: usize = 1 << 18;
/// Characters of a word that is split into pieces; a longer one is unknown.
pub const ENCODER_WORD_CHARS_MAX: usize = 100;
/// Memories embedded between two commits of vectors.
pub const EMBED_CHUNK: usize = 32;
/// Changed memories that wait by name for the embedder; more are found by looking through the rows.
pub const EMBED_WAITING_MAX: usize = 4096;
/// Rows that one step of that looks at.
pub const EMBED_SEEN: usize = 5000;
/// While others use the store, the embedder rests this many times as long as a memory took,
pub const EMBED_REST_TIMES: u32 = 9;
/// at most this long,
pub const EMBED_REST_MAX: Duration = Duration::from_secs(5);
/// looking in between whether it should end.
pub const EMBED_REST_STEP: Duration = Duration::from_millis(50);
/// How long it waits before what failed is tried again.
pub const EMBED_PAUSE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

const _: () = assert!(EMBED_CHUNK <= AUDIT_IDS_PER_LINE_MAX);
