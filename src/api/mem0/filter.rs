//! Filters as Mem0's clients write them, read into selections.
//!
//! ```text
//! {"AND": [{"user_id": "MRN 4711"}, {"created_at": {"gte": "2026-11-01"}}, {"NOT": [{"categories": {"contains": "draft"}}]}]}
//! ```
//! Several keys in one object are joined by AND. A value stands for equality, `"*"` for any value, a list for any of its values, null for none.
//! `"*"` stands by itself, with `eq` or `ne`; where it would have no meaning it is refused.
//!
//! Invariants
//! - Bounded: at most [`limits::FILTER_CONDITIONS_MAX`] conditions and [`limits::FILTER_VALUES_MAX`] values in lists; size and depth by the schema.
//! - A key or an operator that is not known is refused, never left out: a filter that is misread must not widen what is listed or trashed.
//! - An error names a place made of known keys and indexes, never a key or value of the caller's.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::base::id::MemoryId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::memories::{Moment, Order, Scalar, Select, Test, Who};
use crate::store::memories::EntityKind;
use crate::store::phi::Phi;

/// The names that a memory may carry, and what they are.
pub const NAMES: [(&str, Who); 4] = [
    ("user_id", Who::Subject),
    ("agent_id", Who::Entity(EntityKind::Agent)),
    ("app_id", Who::Entity(EntityKind::App)),
    ("run_id", Who::Entity(EntityKind::Run)),
];

/// What is left of the bounds while a filter is read.
struct Left {
    conditions: usize,
    values: usize,
}

type Read<T> = Result<T, String>;

/// Reads the filter at `place` (for errors). `value` is left empty of what was taken; the caller wipes it.
pub fn read(value: &mut Value, place: &str) -> Read<Select> {
    let mut left = Left { conditions: limits::FILTER_CONDITIONS_MAX, values: limits::FILTER_VALUES_MAX };
    group(value, place, &mut left)
}

fn refuse<T>(place: &str, text: &str) -> Read<T> {
    Err(format!("{place} {text}"))
}

fn object<'v>(value: &'v mut Value, place: &str) -> Read<&'v mut Map<String, Value>> {
    value.as_object_mut().map_or_else(|| refuse(place, "must be object"), Ok)
}

fn group(value: &mut Value, place: &str, left: &mut Left) -> Read<Select> {
    let mut parts = Vec::new();
    for (key, value) in object(value, place)? {
        match key.as_str() {
            joiner @ ("AND" | "OR" | "NOT") => {
                let inner = each(value, &format!("{place}/{joiner}"), left)?;
                parts.push(match joiner {
                    "AND" => Select::All(inner),
                    "OR" => Select::Any(inner),
                    _ => Select::None(inner),
                });
            }
            _ => parts.push(field(key, value, place, left)?),
        }
    }
    Ok(Select::All(parts))
}

fn each(value: &mut Value, place: &str, left: &mut Left) -> Read<Vec<Select>> {
    match value {
        Value::Array(items) if items.is_empty() => refuse(place, "must NOT have fewer than 1 items"),
        Value::Array(items) => items.iter_mut().enumerate().map(|(i, item)| group(item, &format!("{place}/{i}"), left)).collect(),
        one => Ok(vec![group(one, place, left)?]),
    }
}

/// Counts one condition more.
fn count(place: &str, left: &mut Left) -> Read<()> {
    match left.conditions.checked_sub(1) {
        Some(conditions) => {
            left.conditions = conditions;
            Ok(())
        }
        None => refuse(place, &format!("must NOT have more than {} conditions", limits::FILTER_CONDITIONS_MAX)),
    }
}

fn field(key: &str, value: &mut Value, place: &str, left: &mut Left) -> Read<Select> {
    if let Some((name, who)) = NAMES.iter().find(|(name, _)| *name == key) {
        return conditions(value, &format!("{place}/{name}"), left, &mut |operator, value, place, left| {
            named(*who, operator, value, place, left)
        });
    }
    match key {
        "created_at" | "timestamp" | "updated_at" => {
            let (moment, known) = match key {
                "created_at" => (Moment::Happened, "created_at"),
                "timestamp" => (Moment::Happened, "timestamp"),
                _ => (Moment::Changed, "updated_at"),
            };
            conditions(value, &format!("{place}/{known}"), left, &mut |operator, value, place, _| timed(moment, operator, value, place))
        }
        "categories" => conditions(value, &format!("{place}/categories"), left, &mut tagged),
        "keywords" => conditions(value, &format!("{place}/keywords"), left, &mut |operator, value, place, _| match operator {
            "eq" | "icontains" if operator != "eq" || value != "*" => Ok(Select::Says(text(value, place)?, true)),
            "contains" => Ok(Select::Says(text(value, place)?, false)),
            _ => refuse(place, "takes contains and icontains"),
        }),
        "memory_ids" | "id" => {
            let known = if key == "id" { "id" } else { "memory_ids" };
            conditions(value, &format!("{place}/{known}"), left, &mut |operator, value, place, left| match operator {
                "eq" | "in" => Ok(Select::Ids(ids(value, place, left)?)),
                "ne" => Ok(Select::None(vec![Select::Ids(ids(value, place, left)?)])),
                _ => refuse(place, "takes eq, ne and in"),
            })
        }
        "metadata" => metadata(value, &format!("{place}/metadata"), left),
        _ => refuse(
            place,
            "holds a key that is not known here; known are AND, OR, NOT, user_id, agent_id, app_id, run_id, created_at, updated_at, timestamp, \
             categories, metadata, keywords and memory_ids (your own keys belong into metadata)",
        ),
    }
}

/// Reads one condition for each operator in it.
type Condition<'c> = dyn FnMut(&'static str, &mut Value, &str, &mut Left) -> Read<Select> + 'c;

/// Operators as the clients write them.
const OPERATORS: [&str; 10] = ["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "icontains"];

fn conditions(value: &mut Value, place: &str, left: &mut Left, read: &mut Condition<'_>) -> Read<Select> {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut parts = Vec::new();
            for (key, value) in map {
                let Some(operator) = OPERATORS.iter().find(|operator| *operator == key) else {
                    return refuse(place, &format!("holds an operator that is not known here; known are {}", OPERATORS.join(", ")));
                };
                count(place, left)?;
                parts.push(read(operator, value, &format!("{place}/{operator}"), left)?);
            }
            Ok(if parts.len() == 1 { parts.remove(0) } else { Select::All(parts) })
        }
        Value::Array(_) => {
            count(place, left)?;
            read("in", value, place, left)
        }
        one => {
            count(place, left)?;
            read("eq", one, place, left)
        }
    }
}

/// Takes a text out of `value`; a number counts as it prints.
fn text(value: &mut Value, place: &str) -> Read<Phi> {
    match value {
        Value::String(text) => Ok(Phi::new(std::mem::take(text))),
        Value::Number(n) if n.is_i64() || n.is_u64() => Ok(Phi::new(n.to_string())),
        _ => refuse(place, "must be string"),
    }
}

/// The values of a list, or of one; each counts.
fn values<'v>(value: &'v mut Value, place: &str, left: &mut Left) -> Read<&'v mut [Value]> {
    let values = match value {
        Value::Array(values) => values.as_mut_slice(),
        one => std::slice::from_mut(one),
    };
    match left.values.checked_sub(values.len()) {
        _ if values.iter().any(|value| value == "*") => refuse(place, "must NOT hold * here"),
        Some(rest) => {
            left.values = rest;
            Ok(values)
        }
        None => refuse(place, &format!("must NOT have more than {} values", limits::FILTER_VALUES_MAX)),
    }
}

fn texts(value: &mut Value, place: &str, left: &mut Left) -> Read<Vec<Phi>> {
    values(value, place, left)?.iter_mut().map(|value| text(value, place)).collect()
}

fn not(select: Select) -> Select {
    Select::None(vec![select])
}

fn named(who: Who, operator: &str, value: &mut Value, place: &str, left: &mut Left) -> Read<Select> {
    match (operator, has(operator, value)) {
        (_, Some(true)) => Ok(Select::NamesAny(who)),
        (_, Some(false)) => Ok(not(Select::NamesAny(who))),
        ("eq" | "in", _) => Ok(Select::Named(who, texts(value, place, left)?)),
        ("ne" | "nin", _) => Ok(not(Select::Named(who, texts(value, place, left)?))),
        _ => refuse(place, "takes eq, ne, in, nin and *"),
    }
}

/// Whether a condition asks that there is any value, or that there is none, if that is what it asks.
fn has(operator: &str, value: &Value) -> Option<bool> {
    let any = match value {
        Value::Null => false,
        any if any == "*" => true,
        _ => return None,
    };
    match operator {
        "eq" => Some(any),
        "ne" => Some(!any),
        _ => None,
    }
}

fn tagged(operator: &'static str, value: &mut Value, place: &str, left: &mut Left) -> Read<Select> {
    // Every tag contains the empty text.
    let any = || Select::TagContains(Phi::new(String::new()), false);
    match (operator, has(operator, value)) {
        (_, Some(true)) => Ok(any()),
        (_, Some(false)) => Ok(not(any())),
        ("eq" | "in", _) => Ok(Select::Tags(texts(value, place, left)?)),
        ("ne" | "nin", _) => Ok(not(Select::Tags(texts(value, place, left)?))),
        ("contains", _) => Ok(Select::TagContains(text(value, place)?, false)),
        ("icontains", _) => Ok(Select::TagContains(text(value, place)?, true)),
        _ => refuse(place, "takes eq, ne, in, nin, contains, icontains and *"),
    }
}

fn ids(value: &mut Value, place: &str, left: &mut Left) -> Read<BTreeSet<MemoryId>> {
    let mut ids = BTreeSet::new();
    for id in values(value, place, left)? {
        let Some(id) = id.as_str() else { return refuse(place, "must be an id, or a list of ids") };
        // What is no id is nobody's: it chooses nothing, like an id of somebody else's.
        ids.extend(MemoryId::parse(id));
    }
    Ok(ids)
}

fn timed(moment: Moment, operator: &str, value: &Value, place: &str) -> Read<Select> {
    let Some((from, to)) = span(value) else {
        return refuse(place, "must be a date (2026-11-21), an RFC 3339 time, or seconds since 1970");
    };
    let before = |at: Timestamp| at.ms().checked_sub(1).map(Timestamp::from_ms);
    let after = |at: Timestamp| Timestamp::from_ms(at.ms().saturating_add(1));
    match operator {
        "eq" => Ok(Select::When(moment, Some(from), Some(to))),
        "ne" => Ok(not(Select::When(moment, Some(from), Some(to)))),
        "gte" => Ok(Select::When(moment, Some(from), None)),
        "gt" => Ok(Select::When(moment, Some(after(to)), None)),
        "lte" => Ok(Select::When(moment, None, Some(to))),
        // Before the very first moment there is nothing.
        "lt" => Ok(before(from).map_or(Select::Any(Vec::new()), |to| Select::When(moment, None, Some(to)))),
        _ => refuse(place, "takes eq, ne, gt, gte, lt and lte"),
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The first and the last millisecond that a time means: a date is a whole UTC day, a time without an offset is UTC.
pub fn span(value: &Value) -> Option<(Timestamp, Timestamp)> {
    let moment = |at: Timestamp| (at, at);
    match value {
        Value::Number(_) => moment_of(value).map(moment),
        Value::String(text) if text.len() == 10 && text.as_bytes()[4] == b'-' => {
            let from = Timestamp::parse(&format!("{text}T00:00:00Z"))?;
            Some((from, Timestamp::from_ms(from.ms().checked_add(DAY_MS - 1)?)))
        }
        Value::String(_) => moment_of(value).map(moment),
        _ => None,
    }
}

/// The moment that a client's `timestamp` names: seconds since 1970 (as a number or a text), RFC 3339 (UTC without an offset), or the beginning of
/// a UTC day.
pub fn moment_of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(n) => seconds(n.as_f64()?),
        Value::String(text) => {
            let text = text.trim();
            let forms = [text.to_owned(), format!("{text}Z"), format!("{text}T00:00:00Z")];
            forms.iter().find_map(|form| Timestamp::parse(form)).or_else(|| seconds(text.parse().ok()?))
        }
        _ => None,
    }
}

fn seconds(seconds: f64) -> Option<Timestamp> {
    let ms = (seconds * 1000.0).round();
    // Until the end of the year 9999.
    (0.0..253_402_300_800_000.0).contains(&ms).then(|| format!("{ms:.0}").parse().ok().map(Timestamp::from_ms)).flatten()
}

fn metadata(value: &mut Value, place: &str, left: &mut Left) -> Read<Select> {
    let mut parts = Vec::new();
    for (key, value) in object(value, place)? {
        // `{"metadata": {"ne": {"ward": "3"}}}`: an operator before the keys that it is for.
        let leading = OPERATORS.iter().find(|operator| *operator == key && value.is_object());
        if let Some(operator) = leading {
            for (key, value) in object(value, place)? {
                count(place, left)?;
                parts.push(tested(key, operator, value, place, left)?);
            }
        } else {
            let key = key.clone();
            parts.push(conditions(value, place, left, &mut |operator, value, place, left| tested(&key, operator, value, place, left))?);
        }
    }
    Ok(Select::All(parts))
}

fn tested(key: &str, operator: &str, value: &mut Value, place: &str, left: &mut Left) -> Read<Select> {
    let holds = |test: Test| Select::Metadata(Phi::new(key.to_owned()), test);
    let order = match operator {
        "gt" => Some(Order::Greater),
        "gte" => Some(Order::AtLeast),
        "lt" => Some(Order::Less),
        "lte" => Some(Order::AtMost),
        _ => None,
    };
    if let Some(order) = order {
        return Ok(holds(Test::Compare(order, scalar(value, place)?)));
    }
    match (operator, &mut *value) {
        ("eq", any) if any == "*" => Ok(holds(Test::Present)),
        ("ne", any) if any == "*" => Ok(not(holds(Test::Present))),
        ("eq" | "in", value) => Ok(holds(Test::OneOf(scalars(value, place, left)?))),
        ("ne" | "nin", value) => Ok(not(holds(Test::OneOf(scalars(value, place, left)?)))),
        ("contains", value) => Ok(holds(Test::Contains(text(value, place)?, false))),
        (_, value) => Ok(holds(Test::Contains(text(value, place)?, true))),
    }
}

fn scalars(value: &mut Value, place: &str, left: &mut Left) -> Read<Vec<Scalar>> {
    values(value, place, left)?.iter_mut().map(|value| scalar(value, place)).collect()
}

fn scalar(value: &mut Value, place: &str) -> Read<Scalar> {
    match value {
        Value::String(text) => Ok(Scalar::Text(Phi::new(std::mem::take(text)))),
        Value::Number(n) => n.as_f64().map_or_else(|| refuse(place, "must be a number of a double's range"), |n| Ok(Scalar::Number(n))),
        Value::Bool(flag) => Ok(Scalar::Flag(*flag)),
        Value::Null => Ok(Scalar::Null),
        _ => refuse(place, "must be a text, a number, a boolean or null, or a list of these"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(filter: Value) -> String {
        let mut filter = filter;
        match read(&mut filter, "body/filters") {
            Ok(select) => format!("{select:?}"),
            Err(text) => text,
        }
    }

    #[test]
    fn every_field_and_operator_of_the_clients_is_read() {
        for (filter, select) in [
            (json!({}), "All([])"),
            (json!({ "user_id": "a" }), "All([Named(Subject, [Phi])])"),
            (json!({ "user_id": 7 }), "All([Named(Subject, [Phi])])"),
            (json!({ "run_id": "*" }), "All([NamesAny(Entity(Run))])"),
            (json!({ "agent_id": null }), "All([None([NamesAny(Entity(Agent))])])"),
            (json!({ "app_id": { "in": ["a", "b"] } }), "All([Named(Entity(App), [Phi, Phi])])"),
            (json!({ "user_id": { "ne": "a" } }), "All([None([Named(Subject, [Phi])])])"),
            (
                json!({ "OR": [{ "user_id": "a" }, { "NOT": { "run_id": "r" } }] }),
                "All([Any([All([Named(Subject, [Phi])]), All([None([All([Named(Entity(Run), [Phi])])])])])])",
            ),
            (json!({ "categories": { "contains": "x" } }), "All([TagContains(Phi, false)])"),
            (json!({ "keywords": { "icontains": "x" } }), "All([Says(Phi, true)])"),
            (json!({ "memory_ids": ["x"] }), "All([Ids({})])"),
            (json!({ "metadata": { "ward": "3" } }), "All([All([Metadata(Phi, OneOf([Text(Phi)]))])])"),
            (
                json!({ "metadata": { "n": { "gte": 3, "lt": 9.5 } } }),
                "All([All([All([Metadata(Phi, Compare(AtLeast, Number(3.0))), Metadata(Phi, Compare(Less, Number(9.5)))])])])",
            ),
            (json!({ "metadata": { "ne": { "ward": 3 } } }), "All([All([None([Metadata(Phi, OneOf([Number(3.0)]))])])])"),
            (json!({ "metadata": { "ward": "*" } }), "All([All([Metadata(Phi, Present)])])"),
            (json!({ "metadata": { "ward": { "ne": "*" } } }), "All([All([None([Metadata(Phi, Present)])])])"),
            (json!({ "user_id": { "ne": "*" } }), "All([None([NamesAny(Subject)])])"),
            (json!({ "user_id": { "ne": null } }), "All([NamesAny(Subject)])"),
            // A tag that contains nothing in particular is any tag.
            (json!({ "categories": "*" }), "All([TagContains(Phi, false)])"),
            (json!({ "categories": null }), "All([None([TagContains(Phi, false)])])"),
            (json!({ "categories": { "ne": "*" } }), "All([None([TagContains(Phi, false)])])"),
            (json!({ "categories": { "ne": null } }), "All([TagContains(Phi, false)])"),
            (json!({ "NOT": [{ "categories": "*" }] }), "All([None([All([TagContains(Phi, false)])])])"),
        ] {
            assert_eq!(shape(filter), select);
        }
    }

    /// `*` was read as a tag, or an id, of that name, which nobody has: its negation chose everything, also for a deletion.
    #[test]
    fn any_and_none_are_refused_where_they_mean_nothing() {
        for (filter, words) in [
            (json!({ "memory_ids": "*" }), "body/filters/memory_ids must NOT hold * here"),
            (json!({ "NOT": [{ "memory_ids": null }] }), "body/filters/NOT/0/memory_ids must be an id"),
            (json!({ "id": { "ne": ["*"] } }), "body/filters/id/ne must NOT hold * here"),
            (json!({ "memory_ids": [{}] }), "body/filters/memory_ids must be an id"),
            (json!({ "keywords": "*" }), "body/filters/keywords takes contains"),
            (json!({ "keywords": null }), "body/filters/keywords must be string"),
            (json!({ "categories": ["*"] }), "body/filters/categories must NOT hold * here"),
            (json!({ "categories": { "nin": ["a", "*"] } }), "body/filters/categories/nin must NOT hold * here"),
            (json!({ "user_id": { "nin": ["*"] } }), "body/filters/user_id/nin must NOT hold * here"),
            (json!({ "categories": [null] }), "body/filters/categories must be string"),
            (json!({ "metadata": { "ward": { "nin": ["*"] } } }), "body/filters/metadata/nin must NOT hold * here"),
            (json!({ "created_at": "*" }), "body/filters/created_at must be a date"),
        ] {
            let refusal = shape(filter);
            assert!(refusal.starts_with(words), "{refusal}");
        }
        // As a part of a text it is itself.
        assert_eq!(shape(json!({ "keywords": { "contains": "*" } })), "All([Says(Phi, false)])");
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_place_and_never_repeated() {
        for (filter, words) in [
            (json!({ "SECRET": "SECRET" }), "body/filters holds a key"),
            (json!({ "AND": [{ "user_id": { "SECRET": 1 } }] }), "body/filters/AND/0/user_id holds an operator"),
            (json!({ "AND": [] }), "body/filters/AND must NOT have fewer than 1 items"),
            (json!({ "OR": ["SECRET"] }), "body/filters/OR/0 must be object"),
            (json!({ "user_id": { "gt": "SECRET" } }), "body/filters/user_id/gt takes eq"),
            (json!({ "user_id": {} }), "body/filters/user_id must be string"),
            (json!({ "user_id": [["SECRET"]] }), "body/filters/user_id must be string"),
            (json!({ "created_at": { "gte": "SECRET" } }), "body/filters/created_at/gte must be a date"),
            (json!({ "created_at": { "contains": "2026" } }), "body/filters/created_at/contains takes eq"),
            (json!({ "metadata": { "SECRET": { "SECRET": 1 } } }), "body/filters/metadata holds an operator"),
            (json!({ "metadata": { "SECRET": [{}] } }), "body/filters/metadata must be a text"),
            (json!({ "metadata": "SECRET" }), "body/filters/metadata must be object"),
            (json!({ "expiration_date": "SECRET" }), "body/filters holds a key"),
        ] {
            let refusal = shape(filter);
            assert!(refusal.starts_with(words) && !refusal.contains("SECRET"), "{refusal}");
        }
    }

    #[test]
    fn conditions_and_values_are_bounded() {
        let many = |n: usize| json!({ "AND": vec![json!({ "user_id": "a" }); n] });
        assert!(shape(many(limits::FILTER_CONDITIONS_MAX)).starts_with("All("));
        assert!(shape(many(limits::FILTER_CONDITIONS_MAX + 1)).contains("conditions"));
        let list = |n: usize| json!({ "user_id": { "in": vec!["a"; n] } });
        assert!(shape(list(limits::FILTER_VALUES_MAX)).starts_with("All("));
        assert!(shape(list(limits::FILTER_VALUES_MAX + 1)).contains("values"));
    }

    #[test]
    fn a_date_is_a_whole_day_and_a_time_is_itself() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        assert_eq!(span(&json!("2026-11-21")), Some((at("2026-11-21T00:00:00Z"), at("2026-11-21T23:59:59.999Z"))));
        for same in [
            json!("2026-11-21T08:00:00Z"),
            json!("2026-11-21T09:00:00+01:00"),
            json!("2026-11-21T08:00:00"),
            json!(1_795_248_000),
            json!("1795248000"),
        ] {
            assert_eq!(span(&same), Some((at("2026-11-21T08:00:00Z"), at("2026-11-21T08:00:00Z"))), "{same}");
        }
        for none in
            [json!("yesterday"), json!(-1), json!(1e300), json!(null), json!(["2026-11-21"]), json!("2026-13-01"), json!("é026-11-2")]
        {
            assert_eq!(span(&none), None, "{none}");
        }
        let day = |operator: &str| shape(json!({ "created_at": { operator: "1970-01-01" } }));
        assert_eq!(day("lt"), "All([Any([])])");
        assert_eq!(day("gt"), format!("All([When(Happened, Some({:?}), None)])", at("1970-01-02T00:00:00Z")));
    }
}
