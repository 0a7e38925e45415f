//! Leases that renew themselves.

use crate::{guard::HoldState, session::Owner};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};
use tokio::{sync::mpsc, time::Instant};

/// A lease that renews itself for as long as somebody has its guard.
pub(crate) struct Renewal {
    owner: Weak<Owner>,
    state: Weak<HoldState>,
}

/// Renews leases when a third of them is over: one queue of deadlines for all of them.
pub(crate) async fn renew_in_time(mut asked: mpsc::UnboundedReceiver<Renewal>) {
    let mut due: BTreeMap<(Instant, u64), Renewal> = BTreeMap::new();
    let mut count = 0;
    loop {
        let next = due.first_key_value().map(|((at, _), _)| *at);
        tokio::select! {
            renewal = asked.recv() => match renewal {
                Some(renewal) => plan(&mut due, &mut count, renewal),
                None => return,
            },
            () = sleep_until(next) => {
                let now = Instant::now();
                while let Some(entry) = due.first_entry()
                    && entry.key().0 <= now
                {
                    let renewal = entry.remove();
                    renewal.renew();
                    plan(&mut due, &mut count, renewal);
                }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn plan(due: &mut BTreeMap<(Instant, u64), Renewal>, count: &mut u64, renewal: Renewal) {
    let Some(state) = renewal.state.upgrade().filter(|state| state.lost().is_none()) else {
        return;
    };
    *count += 1;
    due.insert((Instant::now() + state.renew_in(), *count), renewal);
}

impl Renewal {
    pub(crate) fn new(owner: &Arc<Owner>, state: &Arc<HoldState>) -> Renewal {
        Renewal { owner: Arc::downgrade(owner), state: Arc::downgrade(state) }
    }

    fn renew(&self) {
        if let (Some(owner), Some(state)) = (self.owner.upgrade(), self.state.upgrade())
            && state.lost().is_none()
        {
            owner.renew(state);
        }
    }
}
