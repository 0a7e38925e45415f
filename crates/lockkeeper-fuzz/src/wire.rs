//! What travels: the server's decoder, and the client's.

use crate::life::Life;
use lockkeeper::{
    CallError, Lost,
    wire::{self, Hello, Incoming, Note, Status, write_command, write_command_line},
};
use lockkeeper_core::{Answer, Command, LockId, Reign, SessionId, TicketId, Timestamp};
use lockkeeper_server::fuzz;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

/// Longer lines are too long here.
const LINE_MAX: usize = 2_000;

/// What a client sends. The first byte says in which pieces it arrives.
pub(crate) fn requests(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(size) + 1).collect();
    let lines = fuzz::cut(LINE_MAX, &pieces);
    assert_eq!(lines, fuzz::cut(LINE_MAX, &[bytes]), "it matters how the bytes are cut");
    for line in lines.into_iter().flatten() {
        match fuzz::read(&line) {
            None => assert!(line.trim_ascii().is_empty(), "a line is not answered"),
            Some(Err(answer)) => refused(&answer),
            Some(Ok((method, params))) => command(&method, &params),
        }
    }
}

#[derive(Deserialize)]
struct Refused {
    error: wire::ErrorObject,
}

/// A refusal is one line of JSON that says something.
fn refused(answer: &[u8]) {
    let end = answer.iter().position(|&byte| byte == b'\n');
    assert_eq!(end, Some(answer.len() - 1), "an answer is one line");
    // The id goes back as it came, so it must be something that everybody can hold.
    let _: serde_json::Value = serde_json::from_slice(answer).expect("an answer can be held");
    let told: Refused = serde_json::from_slice(answer).expect("an answer is JSON");
    assert!(!told.error.message.is_empty(), "a refusal says why");
}

/// A command that is understood means the same when it is written again.
fn command(method: &str, params: &RawValue) {
    match fuzz::command(method, params) {
        None => assert!(!wire::COMMANDS.contains(&method), "{method} is a command"),
        Some(Err(error)) => {
            assert_eq!(error.code, wire::code::INVALID_PARAMS, "{error}");
            assert!(!error.message.is_empty());
        }
        Some(Ok((project, command))) => {
            let written = write_command(&command).expect("it came that way").expect("it is JSON");
            assert_eq!(written.0, method);
            let (project, params) = (project.as_str(), written.1);
            let again = to_raw_value(&wire::InProject { project, params }).expect("it is JSON");
            let again = fuzz::command(method, &again).expect("the same method");
            assert_eq!(again.expect("it is understood again"), (project.to_owned(), command));
        }
    }
}

/// What a daemon sends.
pub(crate) fn answers(line: &[u8]) {
    same_again::<Note>(line);
    let Ok(told) = serde_json::from_slice::<Incoming>(line) else { return };
    if let Some(error) = told.error {
        let text = serde_json::to_string(&error).expect("it is JSON");
        assert_eq!(serde_json::from_str::<wire::ErrorObject>(&text).ok().as_ref(), Some(&error));
        let error = CallError::from(error);
        // Whatever it is, there is a word for it.
        assert!(!error.code().is_empty() || error.to_string().is_empty());
        let _ = (error.retryable(), error.legacy_code());
    }
    if let Some(result) = told.result {
        let result = result.get().as_bytes();
        same_again::<Answer>(result);
        same_again::<Hello>(result);
        same_again::<Status>(result);
    }
}

/// What was understood means the same when it is written again.
pub(crate) fn same_again<T>(bytes: &[u8])
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    if let Ok(read) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&read).expect("it is JSON");
        let again = serde_json::from_slice::<T>(&written);
        let text = || String::from_utf8_lossy(&written).into_owned();
        assert_eq!(again.unwrap_or_else(|error| panic!("{error}: {}", text())), read);
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let life = Life::lived(Reign::first(7));
    let mut seen = Vec::new();
    let mut seeds = Vec::new();
    for (nth, command) in life.commands.iter().enumerate() {
        let kind = std::mem::discriminant(command);
        if seen.contains(&kind) || matches!(command, Command::OpenSession(_)) {
            continue;
        }
        seen.push(kind);
        let mut line = vec![nth as u8];
        if write_command_line(nth as u64, "demo", command, &mut line).is_ok() {
            seeds.push(line);
        }
    }
    seeds.push(
        b"\x03{\"id\":1}\n\r\n[]\n{\"method\":\"ping\"}\nnonsense\n\xff\n{\"id\":{}}".to_vec(),
    );
    seeds
}

pub(crate) fn answer_seeds() -> Vec<Vec<u8>> {
    let life = Life::lived(Reign::first(7));
    let mut ledger = lockkeeper_core::Ledger::new(lockkeeper_core::Forgetful);
    let mut seeds = Vec::new();
    let mut seen = Vec::new();
    for turn in life.turns {
        let Ok(settled) = turn.settle(&mut ledger) else { break };
        for reply in settled.replies() {
            let result = match &reply.outcome {
                Ok(answer) => {
                    let answer = serde_json::to_string(answer).unwrap_or_default();
                    format!("\"result\":{answer}")
                }
                Err(refusal) => {
                    let error = wire::ErrorObject::from(&CallError::Refused(refusal.clone()));
                    let error = serde_json::to_string(&error).unwrap_or_default();
                    format!("\"error\":{error}")
                }
            };
            let kind: String = result.chars().take(24).collect();
            if !seen.contains(&kind) {
                seen.push(kind);
                seeds.push(format!("{{\"jsonrpc\":\"2.0\",\"id\":3,{result}}}").into_bytes());
            }
        }
        for event in settled.events() {
            let project = "demo".into();
            let note = Note::Event(Box::new(lockkeeper::ProjectEvent {
                project_id: project,
                event: event.clone(),
            }));
            seeds.extend(serde_json::to_vec(&note).ok().filter(|_| seeds.len() < 40));
        }
    }
    let (project, session) = ("demo".into(), SessionId::from_u64(1));
    let lock = LockId::from_u128(7);
    let until = Timestamp(9);
    let revoking = Note::Revoking { project, session, lock, until };
    let granted = Note::Granted {
        project: "demo".into(),
        session,
        ticket: TicketId::from_u64(2),
        grants: Vec::new(),
    };
    let lost = Note::Lost { project: "demo".into(), session, lock, why: Lost::Expired };
    let notes = [revoking, granted, lost, Note::Missed { missed: 3 }];
    seeds.extend(notes.iter().filter_map(|note| serde_json::to_vec(note).ok()));
    seeds
}
