//! Reads parameters, and refuses those nobody knows: a misspelt `lese_ms` must not become the
//! default lease.

use crate::refuse;
use lockkeeper::wire::ErrorObject;
use lockkeeper_core::Command;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, OnceLock, PoisonError},
};

/// How many shapes of parameters are remembered as known.
const SHAPES_MAX: usize = 4096;

/// The name of the parameter that says which project a request is about.
const PROJECT: &str = "project";

/// Parameters at a glance.
struct Glance<'a> {
    project: Option<Cow<'a, str>>,
    names: Vec<Cow<'a, str>>,
    /// Whether any of them is an object or a list.
    is_nested: bool,
}

/// Which project a request is about, and what it says beside it.
pub(crate) struct InProject<'a> {
    /// Which.
    pub(crate) project: Cow<'a, str>,
    glance: Glance<'a>,
    params: &'a RawValue,
}

impl<'a> InProject<'a> {
    pub(crate) fn read(params: &'a RawValue) -> Result<InProject<'a>, ErrorObject> {
        let mut glance = Glance::at(params)?;
        let Some(project) = glance.project.take() else {
            return Err(refuse::params("missing field `project`: name what the request is about"));
        };
        Ok(InProject { project, glance, params })
    }

    /// A command; none, if the method is not one.
    pub(crate) fn command(&self, method: &str) -> Option<Result<Command, ErrorObject>> {
        let command = match lockkeeper::wire::read_command(method, self.params)? {
            Ok(command) => command,
            Err(error) => return Some(Err(wrong(method, &error))),
        };
        let known = || match lockkeeper::wire::write_command(&command) {
            Some(Ok((_, value))) => Ok(value),
            _ => Err(refuse::internal("a command cannot be written")),
        };
        Some(self.glance.check(method, self.params, known).map(|()| command))
    }

    pub(crate) fn parse<T: Serialize + DeserializeOwned>(
        &self,
        method: &str,
    ) -> Result<T, ErrorObject> {
        parse(method, self.params, &self.glance)
    }
}

/// Parameters that are about no project, or name it as one of their own.
pub(crate) fn plain<T: Serialize + DeserializeOwned>(
    method: &str,
    params: &RawValue,
) -> Result<T, ErrorObject> {
    let mut glance = Glance::at(params)?;
    if glance.project.take().is_some() {
        glance.names.push(PROJECT.into());
    }
    parse(method, params, &glance)
}

fn parse<T: Serialize + DeserializeOwned>(
    method: &str,
    params: &RawValue,
    glance: &Glance<'_>,
) -> Result<T, ErrorObject> {
    let parsed: T = serde_json::from_str(params.get()).map_err(|error| wrong(method, &error))?;
    let known =
        || serde_json::to_value(&parsed).map_err(|error| refuse::internal(error.to_string()));
    glance.check(method, params, known)?;
    Ok(parsed)
}

/// Where it is wrong says nothing: it is one line.
fn wrong(method: &str, error: &serde_json::Error) -> ErrorObject {
    let said = error.to_string();
    let what = said.split(" at line ").next().unwrap_or(&said);
    refuse::params(format!("{method}: {what}"))
}

impl<'a> Glance<'a> {
    fn at(params: &'a RawValue) -> Result<Glance<'a>, ErrorObject> {
        serde_json::from_str(params.get()).map_err(|error| wrong("params", &error))
    }

    /// Whether each name means something. What was understood, written again, has all the names
    /// that mean anything; shapes that were looked at before need not be looked at again.
    fn check(
        &self,
        method: &str,
        params: &RawValue,
        known: impl FnOnce() -> Result<Value, ErrorObject>,
    ) -> Result<(), ErrorObject> {
        static SHAPES: OnceLock<(RandomState, Mutex<HashSet<u64>>)> = OnceLock::new();
        let (hasher, shapes) = SHAPES.get_or_init(Default::default);
        let shape = (!self.is_nested).then(|| hasher.hash_one((method, &self.names)));
        let lock = || shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if shape.is_some_and(|shape| lock().contains(&shape)) {
            return Ok(());
        }
        let mut said: Value =
            serde_json::from_str(params.get()).map_err(|error| wrong(method, &error))?;
        if let Value::Object(said) = &mut said
            && !self.names.iter().any(|name| name == PROJECT)
        {
            said.remove(PROJECT);
        }
        if let Some(problem) = unknown(&said, &known()?) {
            return Err(refuse::params(format!("{method}: {problem}")));
        }
        if let Some(shape) = shape {
            let mut shapes = lock();
            if shapes.len() < SHAPES_MAX {
                shapes.insert(shape);
            }
        }
        Ok(())
    }
}

/// The first name in `said` that nothing in `known` has.
fn unknown(said: &Value, known: &Value) -> Option<String> {
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => {
            said.iter().find_map(|(name, value)| match known.get(name) {
                Some(known) => unknown(value, known),
                None => {
                    let names: Vec<String> = known.keys().map(|name| format!("`{name}`")).collect();
                    let names = match names.is_empty() {
                        true => "there are none here".to_owned(),
                        false => format!("known are {}", names.join(", ")),
                    };
                    Some(format!("unknown field `{name}`: {names}"))
                }
            })
        }
        (Value::Array(said), Value::Array(known)) => {
            said.iter().zip(known).find_map(|(said, known)| unknown(said, known))
        }
        _ => None,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Glance<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Glance<'a>, D::Error> {
        from.deserialize_map(GlanceVisitor)
    }
}

struct GlanceVisitor;

impl<'de> Visitor<'de> for GlanceVisitor {
    type Value = Glance<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the parameters by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Glance<'de>, A::Error> {
        let mut glance = Glance { project: None, names: Vec::with_capacity(8), is_nested: false };
        while let Some(Text(name)) = map.next_key()? {
            if name == PROJECT && glance.project.is_none() {
                let project: Option<Text<'de>> = map.next_value()?;
                glance.project = project.map(|Text(project)| project);
            } else {
                let Depth(is_nested) = map.next_value()?;
                glance.is_nested |= is_nested;
                glance.names.push(name);
            }
        }
        Ok(glance)
    }
}

/// Text that is borrowed where it can be.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text<'a>, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        from.deserialize_str(TextVisitor)
    }
}

/// Whether a value has values in it.
struct Depth(bool);

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Depth, D::Error> {
        struct DepthVisitor;

        impl<'de> Visitor<'de> for DepthVisitor {
            type Value = Depth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Depth, E> {
                Ok(Depth(false))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Depth, E> {
                Ok(Depth(false))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Depth, E> {
                Ok(Depth(false))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Depth, E> {
                Ok(Depth(false))
            }

            fn visit_str<E>(self, _: &str) -> Result<Depth, E> {
                Ok(Depth(false))
            }

            fn visit_unit<E>(self) -> Result<Depth, E> {
                Ok(Depth(false))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Depth, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Depth(true))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Depth, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Depth(true))
            }
        }

        from.deserialize_any(DepthVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockkeeper::wire::{HelloAsk, Open, Subscribe};
    use serde_json::json;

    fn command(method: &str, params: Value) -> Result<Command, String> {
        let raw = serde_json::value::to_raw_value(&params).unwrap();
        let read = InProject::read(&raw).and_then(|read| read.command(method).unwrap());
        read.map_err(|error| error.message)
    }

    #[test]
    fn a_name_that_nobody_knows_is_refused_and_told_with_those_that_are_known() {
        let good = json!({"project": "p", "session": 1, "resource": "file:a", "lease_ms": 5});
        let bad = json!({"project": "p", "session": 1, "resource": "file:a", "lese_ms": 5});
        for _ in 0..2 {
            command("acquire", good.clone()).unwrap();
            let said = command("acquire", bad.clone()).unwrap_err();
            assert!(said.contains("unknown field `lese_ms`"), "{said}");
            assert!(said.contains("`lease_ms`"), "{said}");
        }
        let both = json!({"project": "p", "session": 1, "token": 2,
            "lock": "0190b5a2-7c1e-7000-8000-000000000001"});
        assert!(command("release", both).unwrap_err().contains("unknown field `token`"));
        let said = command("cleanup_expired", json!({"project": "p", "all": true})).unwrap_err();
        assert!(said.contains("unknown field `all`: there are none here"), "{said}");
    }

    #[test]
    fn also_inside_of_lists() {
        let batch = |member: Value| {
            command("acquire_all", json!({"project": "p", "session": 1, "wants": [member]}))
        };
        batch(json!("file:a")).unwrap();
        batch(json!({"resource": "file:a", "mode": "shared"})).unwrap();
        let claim = |member: Value| {
            command("task.claim", json!({"project": "p", "session": 1, "claims": [member]}))
        };
        claim(json!({"task": "task:a", "expect_version": 1})).unwrap();
        let said = claim(json!({"task": "task:a", "expect_verson": 1})).unwrap_err();
        assert!(said.contains("`expect_verson`"), "{said}");
    }

    #[test]
    fn what_is_missing_or_of_the_wrong_kind_is_told() {
        for (params, what) in [
            (json!({"session": 1, "resource": "file:a"}), "missing field `project`"),
            (json!({"project": 7, "session": 1}), "text"),
            (json!({"project": "p", "resource": "file:a"}), "missing field `session`"),
            (json!({"project": "p", "session": "x", "resource": "file:a"}), "invalid type"),
            (json!({"project": "p", "session": 1, "resource": "a"}), "acquire: "),
            (json!(["p", 1]), "an object with the parameters"),
            (json!(null), "an object with the parameters"),
        ] {
            let said = command("acquire", params).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn others_are_read_as_strictly() {
        let raw = |value: Value| serde_json::value::to_raw_value(&value).unwrap();
        let ask = raw(json!({"client": "x", "token": "y"}));
        assert_eq!(plain::<HelloAsk>("hello", &ask).unwrap().token.as_deref(), Some("y"));
        let ask = raw(json!({"project": "p", "since": 3}));
        let read: Subscribe = plain("subscribe", &ask).unwrap();
        assert_eq!((read.project.as_deref(), read.since), (Some("p"), Some(3)));
        assert!(plain::<HelloAsk>("hello", &ask).is_err());
        let ask = raw(json!({"project": "p", "agent": "a", "kind": "detached", "reuse": true}));
        let read: Open = InProject::read(&ask).unwrap().parse("session.open").unwrap();
        assert!(read.reuse);
        let ask = raw(json!({"project": "p", "agent": "a", "linger": 3}));
        assert!(InProject::read(&ask).unwrap().parse::<Open>("session.open").is_err());
    }
}
