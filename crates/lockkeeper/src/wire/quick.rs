//! The three commands that nothing is asked more often than: read from their line in one go, and
//! written without what goes without saying.
//!
//! The general way looks at a line three times: what is around the parameters, which names are in
//! them, and what they mean. Here is what nearly all lines look like. Whatever is out of the
//! ordinary, a name nobody knows or a wrong value above all, is left to the general way, which also
//! knows what to say about it.

use super::write_line;
use lockkeeper_core::{
    Acquire, AskOptions, Command, Credential, LockId, LockMode, Release, Renew, RequestId,
    Resource, SessionId, TicketId,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc, time::Duration};

/// A line that asks for `acquire`, `release` or `renew`.
#[derive(Debug)]
pub struct QuickLine<'a> {
    /// The number or text that names the answer, as it was written.
    pub id: Option<&'a RawValue>,
    /// In which project.
    pub project: Cow<'a, str>,
    /// What is asked.
    pub command: Command,
}

/// Reads a line if it is one of these and there is nothing unusual about it. What is read then is
/// what the general way reads, and there is no parameter in it that means nothing.
pub fn read_quickly(line: &[u8]) -> Option<QuickLine<'_>> {
    // Checked at once, not text by text.
    serde_json::from_str(str::from_utf8(line).ok()?).ok()
}

/// Appends one of these commands as a whole line. `None` if it is another one.
pub(super) fn write_quickly(
    id: u64,
    project: &str,
    command: &Command,
    to: &mut Vec<u8>,
) -> Option<Result<(), serde_json::Error>> {
    let project = Text(Cow::Borrowed(project));
    let session_of = |by| match by {
        Credential::Session(session) => Some(session),
        Credential::Token(_) => None,
    };
    Some(match command {
        Command::Acquire(Acquire { session, resource, mode, options }) => {
            let AskOptions {
                wait,
                slice,
                lease,
                reason,
                metadata,
                priority,
                reentrant,
                request_id,
                fleeting: _,
            } = options.clone();
            let params = AcquireLine {
                project,
                session: *session,
                resource: resource.clone(),
                mode: *mode,
                wait_ms: wait.map(millis),
                slice_ms: slice.map(millis),
                lease_ms: lease.map(millis),
                reason,
                metadata,
                priority,
                reentrant,
                request_id,
            };
            write_line(id, "acquire", params, to)
        }
        &Command::Release(Release { by, lock, share, request_id }) => {
            let session = session_of(by)?;
            write_line(id, "release", ReleaseLine { project, session, lock, share, request_id }, to)
        }
        &Command::Renew(Renew { by, lock, lease, shorten, request_id }) => {
            let (session, lease_ms) = (session_of(by)?, lease.map(millis));
            let params = RenewLine { project, session, lock, lease_ms, shorten, request_id };
            write_line(id, "renew", params, to)
        }
        _ => return None,
    })
}

/// A span in whole milliseconds, rounded up.
fn millis(span: Duration) -> u64 {
    let started = u64::from(span.subsec_nanos().div_ceil(1_000_000));
    span.as_secs().saturating_mul(1_000).saturating_add(started)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Part {
    Jsonrpc,
    Id,
    Method,
    Params,
}

#[derive(Deserialize)]
#[serde(variant_identifier, rename_all = "lowercase")]
enum Method {
    Acquire,
    Release,
    Renew,
}

impl<'de: 'a, 'a> Deserialize<'de> for QuickLine<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<QuickLine<'a>, D::Error> {
        from.deserialize_map(LineVisitor(PhantomData))
    }
}

/// Whether it is surely a name that can be held: a text without escapes, which could spell half a
/// sign, or a number that is not too large.
fn is_plain(id: &str) -> bool {
    match id.strip_prefix('"') {
        Some(text) => !text.contains('\\'),
        None => id.len() < 20 && id.bytes().all(|b| b == b'-' || b.is_ascii_digit()),
    }
}

struct LineVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for LineVisitor<'a> {
    type Value = QuickLine<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<QuickLine<'a>, A::Error> {
        let unusual = || A::Error::custom("unusual");
        let (mut is_versioned, mut id, mut method, mut asked) = (false, None, None, None);
        while let Some(part) = map.next_key()? {
            match part {
                Part::Jsonrpc if !is_versioned => {
                    let Text(version) = map.next_value()?;
                    if version != "2.0" {
                        return Err(unusual());
                    }
                    is_versioned = true;
                }
                Part::Id if id.is_none() => {
                    let raw: &'a RawValue = map.next_value()?;
                    if !is_plain(raw.get()) {
                        return Err(unusual());
                    }
                    id = Some(raw);
                }
                Part::Method if method.is_none() => method = Some(map.next_value()?),
                Part::Params if asked.is_none() => {
                    asked = Some(match method {
                        Some(Method::Acquire) => {
                            map.next_value::<ByName<AcquireLine<'a>>>()?.0.into()
                        }
                        Some(Method::Release) => {
                            map.next_value::<ByName<ReleaseLine<'a>>>()?.0.into()
                        }
                        Some(Method::Renew) => map.next_value::<ByName<RenewLine<'a>>>()?.0.into(),
                        None => return Err(unusual()),
                    });
                }
                _ => return Err(unusual()),
            }
        }
        let (project, command) = asked.ok_or_else(unusual)?;
        Ok(QuickLine { id, project, command })
    }
}

/// A command and the project it is about.
type Asked<'a> = (Cow<'a, str>, Command);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcquireLine<'a> {
    #[serde(borrow)]
    project: Text<'a>,
    session: SessionId,
    resource: Resource,
    #[serde(default, skip_serializing_if = "is_default")]
    mode: LockMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slice_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i8>,
    #[serde(default, skip_serializing_if = "is_default")]
    reentrant: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
}

impl<'a> From<AcquireLine<'a>> for Asked<'a> {
    fn from(it: AcquireLine<'a>) -> Asked<'a> {
        let options = AskOptions {
            wait: it.wait_ms.map(Duration::from_millis),
            slice: it.slice_ms.map(Duration::from_millis),
            lease: it.lease_ms.map(Duration::from_millis),
            reason: it.reason,
            metadata: it.metadata,
            priority: it.priority,
            reentrant: it.reentrant,
            request_id: it.request_id,
            fleeting: false,
        };
        let (session, resource, mode) = (it.session, it.resource, it.mode);
        (it.project.0, Acquire { session, resource, mode, options }.into())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseLine<'a> {
    #[serde(borrow)]
    project: Text<'a>,
    session: SessionId,
    lock: LockId,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<TicketId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
}

impl<'a> From<ReleaseLine<'a>> for Asked<'a> {
    fn from(it: ReleaseLine<'a>) -> Asked<'a> {
        let by = Credential::Session(it.session);
        let (lock, share, request_id) = (it.lock, it.share, it.request_id);
        (it.project.0, Release { by, lock, share, request_id }.into())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewLine<'a> {
    #[serde(borrow)]
    project: Text<'a>,
    session: SessionId,
    lock: LockId,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    shorten: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
}

impl<'a> From<RenewLine<'a>> for Asked<'a> {
    fn from(it: RenewLine<'a>) -> Asked<'a> {
        let by = Credential::Session(it.session);
        let lease = it.lease_ms.map(Duration::from_millis);
        let (lock, shorten, request_id) = (it.lock, it.shorten, it.request_id);
        (it.project.0, Renew { by, lock, lease, shorten, request_id }.into())
    }
}

/// Parameters by their names. What is derived would take a list of them as well.
struct ByName<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByName<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ByName<T>, D::Error> {
        struct ByNameVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ByNameVisitor<T> {
            type Value = ByName<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("parameters by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ByName<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(ByName)
            }
        }

        from.deserialize_map(ByNameVisitor(PhantomData))
    }
}

/// Text that is borrowed where it can be.
#[derive(Serialize, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
