//! What the locks protect: registers behind gates that turn stale tokens away, in a process that is
//! never paused or killed.

use lockkeeper::{FenceGate, Token};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

/// A token that is shown to a register.
#[derive(Serialize, Deserialize)]
pub(crate) struct Show {
    pub(crate) register: String,
    pub(crate) token: u64,
    /// What to write; nothing: it is read.
    pub(crate) write: Option<u64>,
}

/// What the register says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    Accepted(u64),
    Bounced(u64),
}

/// How the gates are made.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Gates {
    /// As they should be.
    Right,
    /// There are none: everybody gets in.
    Open,
    /// They take a token once only: `<=` where it should be `<`.
    Once,
}

impl Gates {
    fn show(self, gate: &FenceGate<u64>, show: &Show) -> Said {
        let newest = gate.newest().map_or(0, Token::get);
        let deed = |value: &mut u64| {
            if let Some(written) = show.write {
                *value = written;
            }
            *value
        };
        let token = match self {
            Gates::Right => Token::from_u64(show.token),
            Gates::Open => Token::from_u64(show.token.max(newest)),
            Gates::Once if show.token <= newest => return Said::Bounced(newest),
            Gates::Once => Token::from_u64(show.token),
        };
        match gate.with(token, deed) {
            Ok(value) => Said::Accepted(value),
            Err(fenced) => Said::Bounced(fenced.newest.get()),
        }
    }
}

type Registers = Arc<Mutex<HashMap<String, Arc<FenceGate<u64>>>>>;

/// Serves until the process ends.
pub(crate) fn serve(at: &Path, gates: Gates) {
    let listener = UnixListener::bind(at).expect("a socket");
    let registers: Registers = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, registers) = (stream.expect("a connection"), registers.clone());
            thread::spawn(move || answer(&stream, &registers, gates));
        }
    });
}

fn answer(stream: &UnixStream, registers: &Registers, gates: Gates) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let show: Show = serde_json::from_str(&line).expect("a question");
        let gate = {
            let mut registers = registers.lock().expect("nobody panics here");
            registers.entry(show.register.clone()).or_default().clone()
        };
        let mut said = serde_json::to_vec(&gates.show(&gate, &show)).expect("an answer");
        said.push(b'\n');
        // Whoever asks may be dead by now.
        let mut to = stream;
        if to.write_all(&said).is_err() {
            return;
        }
    }
}
