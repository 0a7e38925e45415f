//! A fact as the JSON of its row in the audit log.
//!
//! Any fact can be written by serde, and is read by it. The two that make up nearly every log are
//! written by hand: shorter, because what is not there is left out, and without the detours.

use super::carry::as_json;
use crate::text::{Digits, IdText, RequestText};
use lockkeeper_core::{Fact, Granted, LockMode, ReleaseCause, RequestId};

/// Writes it behind what is in the buffer.
pub(super) fn write(fact: &Fact, buffer: &mut String) -> Result<(), serde_json::Error> {
    match fact {
        Fact::Granted(granted) => write_granted(granted, buffer),
        Fact::Released { lock, remaining: 0, cause: ReleaseCause::Released, share, request_id } => {
            *buffer += r#"{"released":{"lock":""#;
            *buffer += IdText::from(*lock).as_str();
            *buffer += r#"","remaining":0,"cause":"released""#;
            if let Some(share) = share {
                number(buffer, r#","share":"#, share.get());
            }
            if let Some(id) = request_id {
                request(buffer, *id);
            }
            *buffer += "}}";
            Ok(())
        }
        other => {
            *buffer += &serde_json::to_string(other)?;
            Ok(())
        }
    }
}

fn write_granted(granted: &Granted, buffer: &mut String) -> Result<(), serde_json::Error> {
    // Every field is named, so that a new one cannot be forgotten.
    let Granted {
        lock,
        ticket,
        session,
        resource,
        mode,
        token,
        slots,
        lease_ms,
        expires_at,
        wait_ms,
        reason,
        metadata,
        request_id,
        fleeting,
    } = granted;
    *buffer += r#"{"granted":{"lock":""#;
    *buffer += IdText::from(*lock).as_str();
    number(buffer, r#"","ticket":"#, ticket.get());
    number(buffer, r#","session":"#, session.get());
    *buffer += r#","resource":"#;
    text(buffer, resource.as_str())?;
    *buffer += r#","mode":"#;
    match mode {
        LockMode::Exclusive => *buffer += r#""exclusive""#,
        mode => *buffer += &serde_json::to_string(mode)?,
    }
    number(buffer, r#","token":"#, token.get());
    *buffer += r#","slots":"#;
    match slots.as_slice() {
        [] => *buffer += "[]",
        slots => *buffer += &as_json(slots.iter().map(|slot| u64::from(*slot))),
    }
    number(buffer, r#","lease_ms":"#, *lease_ms);
    number(buffer, r#","expires_at":"#, expires_at.0);
    number(buffer, r#","wait_ms":"#, *wait_ms);
    for (name, said) in [(r#","reason":"#, reason), (r#","metadata":"#, metadata)] {
        if let Some(said) = said {
            *buffer += name;
            text(buffer, said)?;
        }
    }
    if let Some(id) = request_id {
        request(buffer, *id);
    }
    if *fleeting {
        *buffer += r#","fleeting":true"#;
    }
    *buffer += "}}";
    Ok(())
}

fn number(buffer: &mut String, name: &str, number: u64) {
    *buffer += name;
    *buffer += Digits::of(number).as_str();
}

fn request(buffer: &mut String, id: RequestId) {
    *buffer += r#","request_id":""#;
    *buffer += RequestText::from(id).as_str();
    buffer.push('"');
}

/// A text; nearly all of them have nothing to be escaped.
fn text(buffer: &mut String, text: &str) -> Result<(), serde_json::Error> {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        buffer.push('"');
        *buffer += text;
        buffer.push('"');
    } else {
        *buffer += &serde_json::to_string(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockkeeper_core::{LockId, Resource, ResourceType, SessionId, TicketId, Timestamp, Token};
    use proptest::prelude::*;

    fn same(fact: &Fact) -> Result<(), TestCaseError> {
        let mut text = "what was there before".to_owned();
        write(fact, &mut text).unwrap();
        let text = text.strip_prefix("what was there before").unwrap();
        prop_assert_eq!(&serde_json::from_str::<Fact>(text).unwrap(), fact);
        prop_assert!(!text.contains("null"), "{}", text);
        Ok(())
    }

    proptest! {
        #[test]
        fn a_fact_that_is_written_by_hand_is_read_back(
            numbers: [u64; 6],
            id: u128,
            key in "[^\\p{Cc}]{1,40}",
            slots in prop::collection::vec(any::<u32>(), 0..4),
            permits in 0..4_u32,
            reason: Option<String>,
            metadata: Option<String>,
            request: Option<u128>,
            share: Option<u64>,
            fleeting: bool,
        ) {
            let mode = match permits {
                0 => LockMode::Exclusive,
                1 => LockMode::Shared,
                n => LockMode::Permit(n),
            };
            let lock = LockId::from_u128(id);
            // No reign issues larger ones, and none are read.
            let stamp = |number: u64| number & Token::MAX.get();
            let request_id = request.map(RequestId::new);
            let no_null = |text: Option<String>| text.filter(|text| !text.contains("null"));
            same(&Fact::Granted(Granted {
                lock,
                ticket: TicketId::from_u64(stamp(numbers[0])),
                session: SessionId::from_u64(stamp(numbers[1])),
                resource: Resource::new(ResourceType::from("git"), &key),
                mode,
                token: Token::from_u64(stamp(numbers[2])),
                slots,
                lease_ms: numbers[3],
                expires_at: Timestamp(numbers[4]),
                wait_ms: numbers[5],
                reason: no_null(reason).map(Into::into),
                metadata: no_null(metadata).map(Into::into),
                request_id,
                fleeting,
            }))?;
            let cause = ReleaseCause::Released;
            let share = share.map(stamp).map(TicketId::from_u64);
            same(&Fact::Released { lock, remaining: 0, cause, share, request_id })?;
        }
    }
}
