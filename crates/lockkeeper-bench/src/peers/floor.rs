//! The floor of the design: an actor that does nothing, asked once and told once for a pair.

use super::{Client, Granted, Key, Peer};
use crate::trouble::Result;
use kameo::{mailbox, prelude::*};

/// An actor that does nothing.
#[derive(Actor)]
pub(crate) struct Empty;
struct Ping;
struct Note;

impl Message<Ping> for Empty {
    type Reply = u64;

    async fn handle(&mut self, _: Ping, _: &mut Context<Self, u64>) -> u64 {
        1
    }
}

impl Message<Note> for Empty {
    type Reply = ();

    async fn handle(&mut self, _: Note, _: &mut Context<Self, ()>) {}
}

/// The way to one.
#[derive(Clone)]
pub(crate) struct Floor(ActorRef<Empty>);

impl Floor {
    /// Starts one; it ends with the last way to it.
    pub(crate) fn start() -> Floor {
        Floor(Empty::spawn_with_mailbox(Empty, mailbox::unbounded()))
    }
}

impl Peer for Floor {
    type Client = Floor;

    async fn client(&self, _: usize) -> Result<Floor> {
        Ok(self.clone())
    }
}

impl Client for Floor {
    fn burst(&self) -> u64 {
        16
    }

    async fn acquire(&mut self, _: &Key) -> Result<Granted> {
        self.0.ask(Ping).send().await?;
        Ok(Granted::Yes)
    }

    async fn release(&mut self) -> Result<()> {
        Ok(self.0.tell(Note).try_send()?)
    }
}
