//! The table and the store's writer, without actors and handles around them: what a library of ours
//! can at best be.

use crate::{
    place,
    trouble::{Result, Trouble, trouble},
};
use lockkeeper_core::{
    Acquire, Answer, AskOptions, Command, Credential, LockMode, LockTable, OpenSession, Reign,
    Release, Resource, SessionId, TableConfig, Timestamp,
};
use lockkeeper_store::{
    Claim, Durability, OpenOptions, Retention, SqliteStore, Writer, WriterOptions,
};
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;

/// A table and its clients, in front of the writer.
pub(crate) struct Bare {
    writer: Writer,
    claim: Claim,
    table: LockTable,
    session: SessionId,
    names: Vec<Resource>,
    told: Sender<Told>,
    hears: Receiver<Told>,
    _folder: TempDir,
}

/// What a client is told, or why not.
type Told = Result<(usize, Answer)>;

impl Bare {
    /// A new store, for so many clients.
    pub(crate) fn new(durability: Durability, clients: usize) -> Result<Bare> {
        let folder = place::folder()?;
        let options = OpenOptions { durability, ..OpenOptions::default() };
        let store = SqliteStore::open(folder.path().join("locks.db"), options)?;
        let never = Retention { released: None, audit: None, ..Retention::default() };
        let options = WriterOptions { retention: never, ..WriterOptions::default() };
        let writer = Writer::start(Box::new(store), options)?;
        let (tell, claimed) = channel();
        writer.claim("bench".into(), move |claim| drop(tell.send(claim)));
        let claim = claimed.recv()??.0;
        let (told, hears) = channel();
        let mut bare = Bare {
            writer,
            claim,
            table: LockTable::new(TableConfig::default(), Reign::first(5)),
            session: SessionId::from_u64(0),
            names: (0..clients).map(|nth| Resource::file(&format!("own/{nth}"))).collect(),
            told,
            hears,
            _folder: folder,
        };
        let open = OpenSession { agent: "agent-bench".into(), ..OpenSession::default() };
        bare.submit(0, open.into());
        match bare.hears.recv()?? {
            (_, Answer::SessionOpened { session }) => bare.session = session,
            other => return trouble(format!("no session: {other:?}")),
        }
        Ok(bare)
    }

    fn submit(&mut self, client: usize, command: Command) {
        let turn = self.table.apply(now(), command);
        let told = self.told.clone();
        self.writer.submit(&self.claim, turn, move |settled| {
            let mut replies = match settled {
                Ok(settled) => settled.into_parts().0,
                Err(error) => return drop(told.send(Err(error.into()))),
            };
            let said = replies.pop().map(|reply| reply.outcome);
            let said = match said {
                Some(Ok(answer)) => Ok((client, answer)),
                refused => Err(Trouble(format!("it is not granted: {refused:?}"))),
            };
            drop(told.send(said));
        });
    }

    fn ask(&mut self, client: usize) {
        let (session, resource) = (self.session, self.names[client].clone());
        let (mode, options) = (LockMode::Exclusive, AskOptions::default());
        self.submit(client, Acquire { session, resource, mode, options }.into());
    }

    /// Pairs in a second.
    pub(crate) fn rate(&mut self, window: Duration) -> Result<f64> {
        let (began, mut pairs) = (Instant::now(), 0);
        while began.elapsed() < window {
            pairs += self.round()?;
        }
        Ok(pairs as f64 / began.elapsed().as_secs_f64())
    }

    /// Each client goes on as soon as it is told; 20 pairs each, so that nobody waits for the
    /// slowest all the time.
    fn round(&mut self) -> Result<usize> {
        const EACH: usize = 20;
        let mut left = vec![EACH; self.names.len()];
        (0..left.len()).for_each(|client| self.ask(client));
        let mut pairs = 0;
        while pairs < EACH * left.len() {
            let (client, answer) = self.hears.recv()??;
            match answer {
                Answer::Granted(grants) => {
                    let by = Credential::Session(self.session);
                    let (lock, share) = (grants[0].lock, Some(grants[0].ticket));
                    self.submit(client, Release { by, lock, share, request_id: None }.into());
                }
                _ => {
                    pairs += 1;
                    left[client] -= 1;
                    if left[client] > 0 {
                        self.ask(client);
                    }
                }
            }
        }
        Ok(pairs)
    }
}

fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}
