//! Requests and answers around what they carry: JSON-RPC 2.0.

use crate::{params::Text, refuse};
use lockkeeper::wire::{ErrorObject, code};
use lockkeeper_core::Answer;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Names the answer; without one nobody waits for it.
    pub(crate) id: Option<Box<RawValue>>,
    pub(crate) method: Box<str>,
    pub(crate) params: Box<RawValue>,
}

/// A line that is no request, and what to say about it.
#[derive(Debug)]
pub(crate) struct NoRequest {
    pub(crate) id: Option<Box<RawValue>>,
    pub(crate) error: ErrorObject,
}

/// What is said in answer.
#[derive(Debug)]
pub(crate) enum Said {
    /// What a command came to; written where it goes out.
    Answer(Answer),
    /// What is written already.
    Raw(Box<RawValue>),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "also_null")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "also_null")]
    params: Option<&'a RawValue>,
}

/// What is there and null is there.
fn also_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

fn parse_error(what: &str) -> ErrorObject {
    refuse::error(code::PARSE, "parse", what)
}

/// Reads a line; none, if it is blank.
pub(crate) fn read(line: &[u8]) -> Option<Result<Request, NoRequest>> {
    let nameless = |error| Some(Err(NoRequest { id: None, error }));
    let Ok(line) = std::str::from_utf8(line) else {
        return nameless(parse_error("the line is not UTF-8"));
    };
    let line = line.trim_ascii();
    if line.is_empty() {
        return None;
    }
    if line.starts_with('[') {
        return nameless(refuse::request(
            "batches are not spoken here: send one request per line, as many as you like at once",
        ));
    }
    let envelope: Envelope<'_> = match serde_json::from_str(line) {
        Ok(envelope) => envelope,
        Err(error) if error.is_data() => {
            return nameless(refuse::request(format!("the line is not a request: {error}")));
        }
        Err(error) => return nameless(parse_error(&format!("the line is not JSON: {error}"))),
    };
    let id = match envelope.id {
        Some(id) if !id.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) => {
            return nameless(refuse::request("`id` is a number or a text"));
        }
        Some(id) if !can_be_held(id) => {
            return nameless(refuse::request(
                "`id` is a number that is too large, or a text with half a sign in it",
            ));
        }
        id => id.map(ToOwned::to_owned),
    };
    if envelope.jsonrpc.is_some_and(|Text(version)| version != "2.0") {
        let error = refuse::request("`jsonrpc` is \"2.0\" here, or left out");
        return Some(Err(NoRequest { id, error }));
    }
    let Some(Text(method)) = envelope.method else {
        let error = refuse::request("`method` is missing: what is to be done?");
        return Some(Err(NoRequest { id, error }));
    };
    let params = match envelope.params {
        Some(params) => params.to_owned(),
        None => nothing(),
    };
    Some(Ok(Request { id, method: method.into(), params }))
}

/// Whether everybody can read a name. JSON can spell half of a pair of surrogates, and numbers
/// beyond all bounds; it goes back as it came, and must not break whoever passes the answer on.
fn can_be_held(id: &RawValue) -> bool {
    match id.get().starts_with('"') {
        true => serde_json::from_str::<Text<'_>>(id.get()).is_ok(),
        false => serde_json::from_str::<f64>(id.get()).is_ok(),
    }
}

/// No parameters.
fn nothing() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Writes an answer as a line.
pub(crate) fn write(id: Option<&RawValue>, result: &Result<Said, ErrorObject>, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    to.extend_from_slice(id.map_or("null", RawValue::get).as_bytes());
    let before = to.len();
    let written = match result {
        Ok(said) => {
            to.extend_from_slice(br#","result":"#);
            match said {
                Said::Answer(answer) => serde_json::to_writer(&mut *to, answer),
                Said::Raw(raw) => {
                    to.extend_from_slice(raw.get().as_bytes());
                    Ok(())
                }
            }
        }
        Err(error) => {
            to.extend_from_slice(br#","error":"#);
            serde_json::to_writer(&mut *to, error)
        }
    };
    if written.is_err() {
        to.truncate(before);
        let lost = br#","error":{"code":-32603,"message":"the answer cannot be written"}"#;
        to.extend_from_slice(lost);
    }
    to.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn said(line: &str) -> (Value, String) {
        match read(line.as_bytes()).unwrap() {
            Ok(request) => panic!("{request:?}"),
            Err(NoRequest { id, error }) => {
                let mut line = Vec::new();
                write(id.as_deref(), &Err(error), &mut line);
                let answer: Value = serde_json::from_slice(&line).unwrap();
                (answer["id"].clone(), answer["error"]["message"].as_str().unwrap().to_owned())
            }
        }
    }

    #[test]
    fn requests_are_read_as_people_write_them() {
        let read = |line: &str| read(line.as_bytes()).unwrap().unwrap();
        let whole = read(r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":{"x":1}}"#);
        assert_eq!(whole.id.unwrap().get(), r#""a""#);
        assert_eq!((&*whole.method, whole.params.get()), ("ping", r#"{"x":1}"#));
        let bare = read("  {\"method\":\"p\\u0069ng\"}\r");
        assert_eq!((&*bare.method, bare.params.get(), bare.id.is_none()), ("ping", "{}", true));
        let escaped = read(r#"{"id":"\ud83d\udd12\n","method":"ping"}"#);
        assert_eq!(escaped.id.unwrap().get(), r#""\ud83d\udd12\n""#);
    }

    #[test]
    fn what_is_no_request_is_told_why() {
        for (line, id, what) in [
            ("{", json!(null), "not JSON"),
            ("nonsense", json!(null), "not JSON"),
            ("7", json!(null), "not a request"),
            ("[{\"id\":1,\"method\":\"ping\"}]", json!(null), "one request per line"),
            ("{\"id\":1}", json!(1), "`method` is missing"),
            ("{\"id\":1,\"method\":\"ping\",\"jsonrpc\":\"1.0\"}", json!(1), "2.0"),
            ("{\"id\":{},\"method\":\"ping\"}", json!(null), "number or a text"),
            ("{\"id\":null,\"method\":\"ping\"}", json!(null), "number or a text"),
            ("{\"id\":1,\"method\":7}", json!(null), "not a request"),
            (r#"{"id":"\ud83d","method":"ping"}"#, json!(null), "half a sign"),
            (r#"{"id":"\udd12\ud83d","method":"ping"}"#, json!(null), "half a sign"),
            (r#"{"id":1e999,"method":"ping"}"#, json!(null), "too large"),
        ] {
            let (found, said) = said(line);
            assert_eq!(found, id, "{line}");
            assert!(said.contains(what), "{line}: {said}");
        }
        assert!(read(b"\xff\xfe").unwrap().is_err());
        assert!(read(b"  \r").is_none());
    }

    proptest! {
        #[test]
        fn whatever_the_line_there_is_one_answer_to_it(
            line in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "[\\{\\}\\[\\]\":,a-z0-9 \\\\]{0,80}".prop_map(String::into_bytes),
                "\\{\"id\":[0-9a-z\"\\[\\{]{1,4},\"method\":\"[a-z\\\\\"]{0,5}\"\\}"
                    .prop_map(String::into_bytes),
            ],
        ) {
            if let Some(Err(NoRequest { id, error })) = read(&line) {
                let mut answer = Vec::new();
                write(id.as_deref(), &Err(error), &mut answer);
                let end = answer.iter().position(|&byte| byte == b'\n');
                prop_assert_eq!(end, Some(answer.len() - 1));
                prop_assert!(serde_json::from_slice::<Value>(&answer).is_ok());
            }
        }
    }
}
