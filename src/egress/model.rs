//! The model's language: requests and answers of an OpenAI-compatible endpoint (`/chat/completions`). Pure.
//!
//! Invariant: what an endpoint answers is read as data of a stranger: within bounds, one text is taken from it, and nothing else has a meaning.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::config::Model;

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever set the model up.
    System,
    /// A person or an agent.
    User,
    /// The model.
    Assistant,
}

/// One message.
#[derive(Serialize)]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: &'a str,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: &'a [Message<'a>],
    temperature: f64,
    max_tokens: u32,
    stream: bool,
}

/// The request for an answer to `messages`, as JSON.
pub fn request(model: &Model, messages: &[Message<'_>]) -> Zeroizing<String> {
    let request =
        Request { model: &model.name, messages, temperature: model.temperature.value(), max_tokens: model.max_tokens, stream: false };
    // A first pass for the length, so that the text is not moved about and left behind.
    let mut length = Length(0);
    let _ = serde_json::to_writer(&mut length, &request);
    let mut json = Vec::with_capacity(length.0);
    serde_json::to_writer(&mut json, &request).expect("a request is made of texts and numbers");
    Zeroizing::new(String::from_utf8(json).expect("JSON is UTF-8"))
}

struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An object: a list of what its members would hold is none, though serde takes one for a structure.
struct Object<T>(T);

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members(PhantomData))
    }
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Object<Choice>>,
}

#[derive(Deserialize)]
struct Choice {
    message: Object<Spoken>,
}

#[derive(Deserialize)]
struct Spoken {
    content: Option<String>,
}

/// The text that the endpoint answered with; `None` if `body` is no such answer.
pub fn answer(body: &str) -> Option<Zeroizing<String>> {
    let Object(completion): Object<Completion> = serde_json::from_str(body).ok()?;
    let mut texts = completion.choices.into_iter().map(|Object(choice)| choice.message.0.content);
    let first = texts.next().flatten();
    texts.flatten().for_each(|mut other| other.zeroize());
    first.map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Temperature;

    #[test]
    fn a_request_is_what_such_endpoints_take() {
        let model =
            Model { name: "m".into(), temperature: Temperature(70), max_tokens: 9, system_prompt: String::new(), context_chars: 1000 };
        let made =
            request(&model, &[Message { role: Role::System, content: "be brief" }, Message { role: Role::User, content: "\"?\"\n" }]);
        assert_eq!(
            *made,
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"\"?\"\n"}],"temperature":0.7,"max_tokens":9,"stream":false}"#
        );
    }

    #[test]
    fn an_answer_is_its_first_text_or_none() {
        let text = |body: &str| answer(body).map(|text| text.to_string());
        assert_eq!(
            text(r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"yes","extra":[1]}}],"usage":{}}"#),
            Some("yes".into())
        );
        assert_eq!(text(r#"{"choices":[{"message":{"content":""}},{"message":{"content":"b"}}]}"#), Some(String::new()));
        for bad in [
            "",
            "[]",
            "{}",
            r#"[[{"message":{"content":"a"}}]]"#,
            r#"{"choices":[[{"content":"a"}]]}"#,
            r#"{"choices":[{"message":["a"]}]}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":[{"message":{"content":null}}]}"#,
            r#"{"choices":[{"message":{"content":1}}]}"#,
            r#"{"error":{"message":"x"}}"#,
        ] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }
}
