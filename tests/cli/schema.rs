//! Each answer with `--json` is of the shape in docs/schema/answers.json. The house looks at every
//! one that passes through it, so that no test has to think of it.
//!
//! The checker knows the part of JSON Schema that the file uses, and says so when it meets more.
//! A field the file does not know is a mistake here; programs are told to expect new ones.

use crate::support::Ran;
use serde_json::{Map, Value};
use std::sync::LazyLock;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../docs/schema/answers.json");
    serde_json::from_str(text).expect("the schema is JSON")
});

/// The name of the shape a command line is answered with; none if it is of another kind.
fn shape_of(args: &[String]) -> Option<String> {
    let ours = args.iter().take_while(|arg| *arg != "--");
    let ours: Vec<&String> = ours.collect();
    let is_json = ours.iter().any(|arg| *arg == "--json");
    let at = ours.iter().position(|arg| !arg.starts_with("--"))?;
    let verb = ours[at].as_str();
    match verb {
        _ if !is_json => None,
        // They have more than one line, or tests of their own.
        "watch" | "simulate" | "serve" | "run" => None,
        "task" => Some(format!("task-{}", ours.get(at + 1)?)),
        verb => Some(verb.to_owned()),
    }
}

/// Looks at what a command line was answered with.
#[track_caller]
pub(crate) fn check(args: &[String], ran: &Ran) {
    let Some(shape) = shape_of(args) else { return };
    // Ended by a signal, it says nothing.
    if ran.code.is_none() {
        return;
    }
    let object = ran.json();
    let exit = object.get("exit").and_then(Value::as_i64).unwrap_or(0);
    assert_eq!(ran.code.map(i64::from), Some(exit), "the exit code is told: {}", ran.all());
    assert_eq!(object["ok"], ran.code == Some(0), "{}", ran.all());
    let shape = if object.get("error").is_some() { "failure".to_owned() } else { shape };
    check_shape(&shape, &object);
}

/// Looks at one object.
#[track_caller]
pub(crate) fn check_shape(shape: &str, object: &Value) {
    let node = &SCHEMA["$defs"][shape];
    assert!(node.is_object(), "the schema says nothing about {shape}");
    let mut problems = Vec::new();
    look(node, object, shape, &mut problems);
    assert!(problems.is_empty(), "{object} is no {shape}:\n{}", problems.join("\n"));
}

fn look(node: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
    let rules = node.as_object().expect("a schema is an object");
    for (rule, wanted) in rules {
        match rule.as_str() {
            "description" | "title" | "required" => {}
            "$ref" => look(led(wanted), value, at, problems),
            "type" if !is_of(wanted, value) => problems.push(format!("{at} is no {wanted}")),
            "type" => {}
            "const" if wanted != value => problems.push(format!("{at} is not {wanted}")),
            "const" => {}
            "enum" => {
                let words = wanted.as_array().expect("a list");
                if !words.contains(value) {
                    problems.push(format!("{at}, {value}, is none of {wanted}"));
                }
            }
            "minimum" | "maximum" => {
                let (number, bound) = (value.as_i64(), wanted.as_i64());
                let is_well = if rule == "minimum" { number >= bound } else { number <= bound };
                if !is_well {
                    problems.push(format!("{at}, {value}, breaks the {rule} {wanted}"));
                }
            }
            "format" => {
                assert_eq!(wanted, "date-time", "only this is known");
                if !is_moment(value.as_str().unwrap_or_default()) {
                    problems.push(format!("{at}, {value}, is no moment"));
                }
            }
            "items" => {
                for (nth, item) in value.as_array().into_iter().flatten().enumerate() {
                    look(wanted, item, &format!("{at}[{nth}]"), problems);
                }
            }
            "properties" => {
                if let Some(fields) = value.as_object() {
                    look_at_fields(rules, fields, at, problems);
                }
            }
            "anyOf" => {
                let each = wanted.as_array().expect("a list").iter().map(|one| {
                    let mut problems = Vec::new();
                    look(one, value, at, &mut problems);
                    problems
                });
                let fewest = each.min_by_key(Vec::len).expect("one at least");
                problems.extend(fewest);
            }
            other => panic!("the checker does not know {other:?}"),
        }
    }
}

fn look_at_fields(
    rules: &Map<String, Value>,
    fields: &Map<String, Value>,
    at: &str,
    problems: &mut Vec<String>,
) {
    let known = rules["properties"].as_object().expect("an object");
    for name in rules["required"].as_array().expect("a list").iter().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            problems.push(format!("{at} has no {name:?}"));
        }
    }
    for (name, value) in fields {
        match known.get(name) {
            Some(node) => look(node, value, &format!("{at}.{name}"), problems),
            None => problems.push(format!("{at} has {name:?}, which nobody knows")),
        }
    }
}

fn led(reference: &Value) -> &'static Value {
    let path = reference.as_str().and_then(|path| path.strip_prefix('#')).expect("a local path");
    SCHEMA.pointer(path).unwrap_or_else(|| panic!("{path} leads nowhere"))
}

fn is_of(wanted: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the checker does not know the type {other:?}"),
    };
    match wanted {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        other => panic!("{other} is no type"),
    }
}

/// `2026-01-02T03:04:05.678Z`.
fn is_moment(text: &str) -> bool {
    let pattern = "0000-00-00T00:00:00.000Z";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, wanted)| match wanted {
            '0' => c.is_ascii_digit(),
            wanted => c == wanted,
        })
}

/// Every verb of the help has a shape, and every shape is one of something.
#[test]
fn each_verb_has_a_shape() {
    let help = crate::support::run(&["--help"]).exits(0).out;
    let verbs = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_once("  "));
    let verbs = verbs.map(|(verb, _)| verb).filter(|verb| {
        !verb.is_empty() && verb.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    });
    let mut seen = 0;
    for verb in verbs.filter(|verb| !verb.starts_with('-')) {
        let shape = match verb {
            "task" => "task-claim",
            "watch" => "event",
            "simulate" | "run" => continue,
            verb => verb,
        };
        assert!(SCHEMA["$defs"][shape].is_object(), "no shape for {verb}");
        seen += 1;
    }
    assert!(seen > 15, "the verbs were not found in the help");
}

#[test]
#[should_panic(expected = "acquire has no")]
fn red_when_a_field_is_missing() {
    check_shape("acquire", &serde_json::json!({ "ok": true, "project": "p", "agent": "a" }));
}

#[test]
#[should_panic(expected = "which nobody knows")]
fn red_when_a_field_is_new() {
    let object = serde_json::json!({ "ok": true, "rows": [], "columns": 3 });
    check_shape("audit", &object);
}

#[test]
#[should_panic(expected = "is no moment")]
fn red_when_a_moment_is_none() {
    let ring = serde_json::json!({
        "at": "yesterday", "victim": null, "requester": null, "policy": "p", "released": 0,
        "ring": [],
    });
    check_shape("ring", &ring);
}
