//! Questions to the actor, answered once everything that was seen is on record.

use super::LockActor;
use crate::{error::Unavailable, question::*};
use kameo::{
    message::{Context, Message},
    reply::DelegatedReply,
};
use lockkeeper_core::{LockTable, Timestamp};

/// A question of whatever kind, for a server.
pub(crate) struct See<Q>(pub(crate) Q);

impl<Q: Question> Message<See<Q>> for LockActor {
    type Reply = DelegatedReply<Result<Q::Answer, Unavailable>>;

    async fn handle(&mut self, it: See<Q>, ctx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let (later, tell) = ctx.reply_sender();
        let see = |table: &LockTable, now: Timestamp| it.0.see(table, now);
        self.look(see, move |seen| {
            if let Some(tell) = tell {
                tell.send(seen);
            }
        });
        later
    }
}

macro_rules! questions {
    ($($name:ident),*) => {$(
        #[doc = concat!("[`", stringify!($name), "`], answered once all that was seen is written.")]
        impl Message<$name> for LockActor {
            type Reply = DelegatedReply<Result<<$name as Question>::Answer, Unavailable>>;

            async fn handle(
                &mut self,
                question: $name,
                ctx: &mut Context<Self, Self::Reply>,
            ) -> Self::Reply {
                let (later, tell) = ctx.reply_sender();
                let see = |table: &LockTable, now: Timestamp| question.see(table, now);
                self.look(see, move |seen| {
                    if let Some(tell) = tell {
                        tell.send(seen);
                    }
                });
                later
            }
        }
    )*};
}

questions!(
    Inspect,
    List,
    Queue,
    Sessions,
    Grants,
    WaitGraphNow,
    ContentionNow,
    StatsNow,
    Stale,
    Leases,
    TaskNow,
    Tasks,
    LastEvent
);
