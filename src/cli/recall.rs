//! `rosemary bench recall`: whether a search finds what answers a question, and how long it takes, over conversations with known answers.
//!
//! Each conversation is a file: `turns` (`id`, `session`, `time`, `speaker`, `text`, `caption`) and `questions` (`question`, `evidence`: ids of
//! turns, `category`), the form of the LoCoMo files. A turn becomes one memory "speaker: text caption" with its speaker, its session as run, its
//! time as time of event and in the metadata; every question is asked as an owner asks. Recall@k is the mean share of a question's evidence among
//! its first k results, over the questions whose evidence is there.
//!
//! Invariants
//! - Every conversation has a store of its own in a folder of its own, written and asked through the gate as in service.
//! - A search's time is what it takes inside, opening the hits among it, without waiting for the commit of its audit entry.
//! - Nothing of a conversation is printed or kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::base::time::Timestamp;
use crate::cli::bench::{Folder, warm};
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, init, open, text};
use crate::embed::Model;
use crate::memories::{self, Question, Refusal};
use crate::policy::action::{CreateMemory, Instance, ReadEmbeddings, Scope, SearchMemories};
use crate::store::embedder;
use crate::store::gate::{Admission, Call};
use crate::store::memories::{MemoryType, NewMemory, Text};
use crate::store::phi::Phi;
use crate::store::vault::Vault;

/// Results looked at.
const CUTS: [usize; 4] = [1, 5, 10, 20];
/// Memories written in one commit.
const CHUNK: usize = 100;

/// One file.
#[derive(Deserialize)]
struct Conversation {
    turns: Vec<Turn>,
    questions: Vec<Asked>,
}

#[derive(Deserialize)]
struct Turn {
    id: String,
    session: u32,
    time: String,
    speaker: String,
    text: String,
    #[serde(default)]
    caption: String,
}

#[derive(Deserialize)]
struct Asked {
    question: String,
    evidence: Vec<String>,
    #[serde(default)]
    category: u32,
}

/// What one question gave.
struct Outcome {
    category: u32,
    recall: [f64; CUTS.len()],
    took: Duration,
}

/// One line of the report.
#[derive(Serialize)]
struct Line {
    of: String,
    questions: usize,
    recall_at_1: f64,
    recall_at_5: f64,
    recall_at_10: f64,
    recall_at_20: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// What one way of searching found.
#[derive(Serialize)]
struct Found {
    conversations: Vec<Line>,
    categories: Vec<Line>,
    all: Line,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    memories: usize,
    /// By words alone.
    lexical: Found,
    /// By words and meaning, if a model was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    hybrid: Option<Found>,
}

/// The command.
pub fn run(command: &args::Recall) -> Result<Exit, Failure> {
    let model = command.model.as_deref().map(model).transpose()?;
    let mut conversations = Vec::new();
    for path in files(&command.dir)? {
        let conversation = read(&path)?;
        conversations.push((path, conversation));
    }
    let memories = conversations.iter().map(|(_, conversation)| conversation.turns.len()).sum();
    let lexical = found(&command.scratch, &conversations, None)?;
    let hybrid = model.map(|model| found(&command.scratch, &conversations, Some(&model))).transpose()?;
    let report = Report { version: env!("CARGO_PKG_VERSION"), memories, lexical, hybrid };
    let shown = match command.json {
        true => serde_json::to_string_pretty(&report).expect("a report is JSON") + "\n",
        false => report.table(),
    };
    text::print(shown.as_bytes())
}

/// The model in a file of the operator's own, so whatever its hash.
fn model(path: &Path) -> Result<Arc<Model>, Failure> {
    let bytes = open::model_bytes(path).map_err(|error| Failure::io(path, &error))?;
    Model::read(&bytes).map(Arc::new).map_err(|error| Failure::new(Exit::NoInput, format_args!("{}: {error}", path.display())))
}

/// Asks all questions one way.
fn found(scratch: &Path, all: &[(PathBuf, Conversation)], model: Option<&Arc<Model>>) -> Result<Found, Failure> {
    let (mut outcomes, mut conversations) = (Vec::new(), Vec::new());
    for (path, conversation) in all {
        let some = measure(scratch, path, conversation, model)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        conversations.push(Line::of(&name, some.iter()));
        outcomes.extend(some);
    }
    let mut known: Vec<u32> = outcomes.iter().map(|outcome| outcome.category).collect();
    known.sort_unstable();
    known.dedup();
    let categories =
        known.iter().map(|&category| Line::of(&format!("category {category}"), outcomes.iter().filter(|one| one.category == category)));
    Ok(Found { categories: categories.collect(), conversations, all: Line::of("all", outcomes.iter()) })
}

/// The conversations of a folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::io(folder, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Failure::io(folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Failure::new(Exit::NoInput, format_args!("{}: no conversation (*.json) is in this folder", folder.display()))),
        false => Ok(files),
    }
}

fn read(path: &Path) -> Result<Conversation, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::io(path, &error))?;
    // The parser's own words name a place, and may name what stands there: the place is enough.
    let fault = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        Failure::new(Exit::NoInput, format_args!("{}: not a conversation: line {line}, column {column}", path.display()))
    };
    serde_json::from_slice(&bytes).map_err(fault)
}

/// Writes one conversation and asks its questions.
fn measure(within: &Path, path: &Path, conversation: &Conversation, model: Option<&Arc<Model>>) -> Result<Vec<Outcome>, Failure> {
    let folder = Folder::new(within)?;
    let key = init::init(&mut folder.settings()?)?.key;
    let store = open::store_and_model(&mut folder.settings()?, model.cloned())?;
    let vault = store.vault();
    let outcomes = match vault.admit(key.expose()) {
        Ok(Admission::Principal(who, ..)) => ask(vault, &who, path, conversation),
        _ => Err(Failure::new(Exit::Internal, "the new owner's key is not accepted")),
    };
    store.stop();
    outcomes
}

fn ask(vault: &Vault, who: &Principal, path: &Path, conversation: &Conversation) -> Result<Vec<Outcome>, Failure> {
    let scope = Scope { tenant: vault.tenant(), owner: vault.owner() };
    let mut ids: Vec<MemoryId> = Vec::with_capacity(conversation.turns.len());
    for turns in conversation.turns.chunks(CHUNK) {
        let new = turns.iter().map(|turn| memory(path, turn)).collect::<Result<Vec<_>, _>>()?;
        let made = vault.write::<CreateMemory, _, Refusal>(who, scope, &Call::internal(), move |access| {
            new.into_iter().map(|new| memories::create(access, new).map(|memory| memory.id)).collect::<Result<Vec<_>, _>>()
        });
        ids.extend(made.map_err(|refused| open::refused("writing", &refused))?.into_parts().0);
    }
    embedded(vault, who)?;
    let search = |text: &str| {
        let limit = CUTS[CUTS.len() - 1];
        let question =
            Question { query: text.to_owned(), limit, tags: Vec::new(), subject: None, since: None, until: None, explain: false };
        vault.read::<SearchMemories, _, Refusal>(who, scope, &Call::internal(), |access| {
            let since = Instant::now();
            let found = memories::rank(access, &question)?;
            Ok((found.iter().map(|(memory, _)| memory.id).collect::<Vec<_>>(), since.elapsed()))
        })
    };
    warm(|_| search("warm"))?;
    let mut outcomes = Vec::new();
    for asked in &conversation.questions {
        let place = |wanted: &String| conversation.turns.iter().position(|turn| turn.id == *wanted);
        let evidence: Vec<MemoryId> = asked.evidence.iter().filter_map(place).map(|place| ids[place]).collect();
        if evidence.is_empty() {
            continue;
        }
        let answer = search(&asked.question).map_err(|refused| open::refused("searching", &refused))?;
        let (found, took) = answer.into_parts().0;
        outcomes.push(Outcome { category: asked.category, recall: recall(&evidence, &found), took });
    }
    Ok(outcomes)
}

/// Waits until every memory has its vector, if this store makes any.
fn embedded(vault: &Vault, who: &Principal) -> Result<(), Failure> {
    // Asking is a use of the store, which the embedder gives way to.
    let mut pause = Duration::from_millis(10);
    loop {
        let standing = vault.read::<ReadEmbeddings, _, _>(who, Instance, &Call::internal(), embedder::standing);
        let standing = standing.map_err(|refused| open::refused("waiting for vectors", &refused))?.into_parts().0;
        if standing.is_none_or(|standing| standing.progress.embedded >= standing.progress.live) {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_secs(2));
    }
}

/// The share of `evidence` among the first results, at each cut.
fn recall(evidence: &[MemoryId], found: &[MemoryId]) -> [f64; CUTS.len()] {
    CUTS.map(|cut| share(evidence.iter().filter(|id| found.iter().take(cut).any(|hit| hit == *id)).count(), evidence.len()))
}

fn memory(path: &Path, turn: &Turn) -> Result<NewMemory, Failure> {
    let Some(at) = moment(&turn.time) else {
        let what = format_args!("{}: turn {}: its time is not like \"1:56 pm on 8 May, 2023\" or RFC 3339", path.display(), turn.id);
        return Err(Failure::new(Exit::NoInput, what));
    };
    let mut content = format!("{}: {}", turn.speaker, turn.text);
    if !turn.caption.is_empty() {
        content += " ";
        content += &turn.caption;
    }
    let mut new = NewMemory {
        text: Text {
            title: Phi::new(String::new()),
            content: Phi::new(content),
            tags: Vec::new(),
            metadata: Some(Phi::new(serde_json::json!({ "time": turn.time, "turn": turn.id }).to_string())),
            speaker: Some(Phi::new(turn.speaker.clone())),
            run_id: Some(Phi::new(format!("session {}", turn.session))),
            subject: None,
        },
        origin: "bench".to_owned(),
        allowed_vendors: vec!["*".to_owned()],
        kind: MemoryType::Semantic,
        occurred_at: Some(at),
        created_at: None,
        prepared: None,
    };
    new.prepare();
    Ok(new)
}

/// A turn's time, taken as UTC: `1:56 pm on 8 May, 2023`, or RFC 3339.
fn moment(text: &str) -> Option<Timestamp> {
    let spoken = || {
        let civil = jiff::civil::DateTime::strptime("%I:%M %p on %d %B, %Y", text).ok()?;
        let at = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        u64::try_from(at.as_millisecond()).ok().map(Timestamp::from_ms)
    };
    Timestamp::parse(text).or_else(spoken)
}

/// A part of a whole that is not zero.
fn share(part: usize, whole: usize) -> f64 {
    let real = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    real(part) / real(whole)
}

impl Line {
    fn of<'a>(of: &str, outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let (mut sums, mut times) = ([0.0; CUTS.len()], Vec::new());
        for outcome in outcomes {
            sums.iter_mut().zip(outcome.recall).for_each(|(sum, recall)| *sum += recall);
            times.push(outcome.took);
        }
        times.sort_unstable();
        let ms = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let [recall_at_1, recall_at_5, recall_at_10, recall_at_20] = sums.map(|sum| sum * share(1, times.len().max(1)));
        let questions = times.len();
        Self { of: of.to_owned(), questions, recall_at_1, recall_at_5, recall_at_10, recall_at_20, p50_ms: ms(50), p99_ms: ms(99) }
    }
}

impl Report {
    fn table(&self) -> String {
        let mut out = String::new();
        let ways = [("by words alone", Some(&self.lexical)), ("by words and meaning", self.hybrid.as_ref())];
        for (way, found) in ways.into_iter().filter_map(|(way, found)| Some((way, found?))) {
            out += &format!(
                "{way}\n{:<14} {:>9} {:>6} {:>6} {:>6} {:>6} {:>8} {:>8}\n",
                "of", "questions", "R@1", "R@5", "R@10", "R@20", "p50 ms", "p99 ms"
            );
            for line in found.conversations.iter().chain(&found.categories).chain([&found.all]) {
                let Line { of, questions, recall_at_1, recall_at_5, recall_at_10, recall_at_20, p50_ms, p99_ms } = line;
                out += &format!(
                    "{of:<14} {questions:>9} {recall_at_1:>6.3} {recall_at_5:>6.3} {recall_at_10:>6.3} {recall_at_20:>6.3} {p50_ms:>8.2} {p99_ms:>8.2}\n"
                );
            }
            out += "\n";
        }
        out + &format!(
            "R@k: mean share of a question's evidence among the first k results, {} turns written one memory each. ms: inside the search, the\n\
             records of the hits opened and the question embedded, without the wait for its audit entry.\n",
            self.memories
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_time_are_one_moment() {
        for (text, expected) in [
            ("1:56 pm on 8 May, 2023", "2023-05-08T13:56:00.000Z"),
            ("12:06 am on 11 November, 2022", "2022-11-11T00:06:00.000Z"),
            ("2023-05-08T15:56:00+02:00", "2023-05-08T13:56:00.000Z"),
        ] {
            assert_eq!(moment(text).map(|at| at.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "13:56 pm on 8 May, 2023", "1:56 pm on 31 February, 2023"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn recall_is_the_share_of_evidence_among_the_first() {
        let ids: Vec<MemoryId> = (0..30).map(|_| MemoryId::draw(Timestamp::from_ms(1))).collect();
        let evidence = [ids[0], ids[7], ids[15], ids[25]];
        assert_eq!(recall(&evidence, &ids), [0.25, 0.25, 0.5, 0.75]);
        assert_eq!(recall(&evidence, &[]), [0.0; 4]);
    }

    #[test]
    fn a_small_conversation_is_written_asked_and_reported() {
        let folder = Folder::new(&std::env::temp_dir()).unwrap();
        let path = folder.0.join("1.json");
        let turn = |id: &str, session: u32, speaker: &str, text: &str| serde_json::json!({ "id": id, "session": session, "time": "1:56 pm on 8 May, 2023", "speaker": speaker, "text": text });
        let conversation = serde_json::json!({
            "turns": [
                turn("D1:1", 1, "Anna", "The roses are in bloom."),
                turn("D1:2", 1, "Ben", "Mine need water."),
                turn("D2:1", 2, "Anna", "I took the train to Ghent."),
            ],
            "questions": [
                { "question": "How did Anna travel to Ghent?", "evidence": ["D2:1"], "category": 4 },
                { "question": "Unknown?", "evidence": ["D9:9"], "category": 1 },
            ],
        });
        fs::write(&path, conversation.to_string()).unwrap();
        let model = Arc::new(Model::read(include_bytes!("../../tests/vectors/embedding/tiny.model")).unwrap());
        for model in [None, Some(&model)] {
            let found = found(&folder.0, &[(path.clone(), read(&path).unwrap())], model).unwrap();
            // The tiny model's weights are invented: what it adds to the words means nothing.
            let first = if model.is_some() { found.all.recall_at_1 } else { 1.0 };
            assert_eq!((found.all.questions, found.all.recall_at_1, found.all.recall_at_20), (1, first, 1.0));
        }

        // What is wrong is named, without a word of what stands there.
        let mut wrong = conversation;
        wrong["turns"][1]["time"] = "some day".into();
        fs::write(&path, wrong.to_string()).unwrap();
        let fault = measure(&folder.0, &path, &read(&path).unwrap(), None).err().unwrap().message;
        assert!(fault.contains("turn D1:2") && !fault.contains("some day"), "{fault}");
        fs::write(&path, "{\"turns\": \"secret\"}").unwrap();
        let fault = read(&path).err().unwrap().message;
        assert!(fault.contains("line 1") && !fault.contains("secret"), "{fault}");
        fs::remove_file(&path).unwrap();
        assert!(files(&folder.0).is_err());
    }
}
