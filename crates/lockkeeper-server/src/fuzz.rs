//! The decoder of the wire by itself, for whoever feeds it anything: a socket in between would cost
//! a thousand tries for each. Nothing here is for programs, and none of it stays as it is.

use crate::{
    envelope::{self, NoRequest, Request},
    line::{Lines, Piece},
    params::InProject,
};
use lockkeeper::wire::ErrorObject;
use lockkeeper_core::Command;
use serde_json::value::RawValue;

/// The lines in what arrives in these pieces; none, where one is too long.
pub fn cut(max: usize, pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    let mut note = |piece: Piece<'_>| match piece {
        Piece::Line(line) => found.push(Some(line.to_vec())),
        Piece::TooLong => found.push(None),
    };
    let mut lines = Lines::new(max);
    pieces.iter().for_each(|piece| lines.take(piece, &mut note));
    lines.end(&mut note);
    found
}

/// The method and the parameters of a line, or the answer to what is no request. None, if it is
/// blank.
#[allow(clippy::type_complexity, reason = "it is said in the line above")]
pub fn read(line: &[u8]) -> Option<Result<(Box<str>, Box<RawValue>), Vec<u8>>> {
    let read = envelope::read(line)?;
    Some(match read {
        Ok(Request { method, params, .. }) => Ok((method, params)),
        Err(NoRequest { id, error }) => {
            let mut answer = Vec::new();
            envelope::write(id.as_deref(), &Err(error), &mut answer);
            Err(answer)
        }
    })
}

/// The command of a request and its project. None, if the method is no command's.
pub fn command(method: &str, params: &RawValue) -> Option<Result<(String, Command), ErrorObject>> {
    match InProject::read(params) {
        Ok(read) => {
            let command = read.command(method)?;
            Some(command.map(|command| (read.project.into_owned(), command)))
        }
        Err(error) => lockkeeper::wire::COMMANDS.contains(&method).then_some(Err(error)),
    }
}
