//! Kinds of work, and rows that do it: a job for each column, with a peer that is there already or
//! one that is made anew each time.

use crate::{
    args::Plan,
    load,
    peers::{Peer, server::Missing},
    rounds::Entry,
    sheet::Target,
    stats,
    trouble::{Result, Trouble},
};
use std::time::Duration;

/// Something that can be measured with any peer; a column is a number.
pub(crate) trait Work: Copy + Send + Sync + 'static {
    fn measure<P: Peer>(
        self,
        peer: &P,
        column: usize,
    ) -> impl Future<Output = Result<Vec<f64>>> + Send;
}

/// A lock of its own for each of so many clients.
#[derive(Clone, Copy)]
pub(crate) struct Uncontended {
    pub(crate) window: Duration,
}

impl Work for Uncontended {
    async fn measure<P: Peer>(self, peer: &P, clients: usize) -> Result<Vec<f64>> {
        Ok(vec![load::uncontended(peer, clients, self.window).await?])
    }
}

/// So many locks at once, for each of some clients.
#[derive(Clone, Copy)]
pub(crate) struct Batches {
    pub(crate) clients: usize,
    pub(crate) window: Duration,
}

impl Work for Batches {
    async fn measure<P: Peer>(self, peer: &P, size: usize) -> Result<Vec<f64>> {
        Ok(vec![load::batches(peer, self.clients, size, self.window).await?])
    }
}

/// One lock that so many clients hold for a while each: the gap, its 99th part, and how long one
/// waits.
#[derive(Clone, Copy)]
pub(crate) struct HandOver {
    pub(crate) window: Duration,
}

impl Work for HandOver {
    async fn measure<P: Peer>(self, peer: &P, clients: usize) -> Result<Vec<f64>> {
        let handed = load::hand_over(peer, clients, self.window).await?;
        Ok(vec![handed.gap, handed.gap_p99, handed.wait_p99])
    }
}

/// One lock that so many clients give back at once: pairs, shares, and how long one waits.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) window: Duration,
}

impl Work for Crowd {
    async fn measure<P: Peer>(self, peer: &P, clients: usize) -> Result<Vec<f64>> {
        let crowd = load::crowd(peer, clients, self.window).await?;
        Ok(vec![crowd.rate, crowd.share, crowd.wait, crowd.wait_p99])
    }
}

/// A ring of so many that is closed, so often; the median.
#[derive(Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) times: usize,
}

impl Work for Verdict {
    async fn measure<P: Peer>(self, peer: &P, ring: usize) -> Result<Vec<f64>> {
        let mut took = Vec::new();
        for _ in 0..self.times {
            took.push(load::verdict(peer, ring).await?);
        }
        took.sort_by(f64::total_cmp);
        let median = stats::at(&took, 0.5);
        Ok(vec![median.ok_or_else(|| Trouble("measured no time".to_owned()))?])
    }
}

/// A row whose peer is there.
pub(crate) fn row<P: Peer + Clone>(
    mut entry: Entry,
    columns: &[usize],
    peer: P,
    work: impl Work,
) -> Entry {
    for &column in columns {
        let peer = peer.clone();
        entry = entry.job(move || {
            let peer = peer.clone();
            async move { work.measure(&peer, column).await }
        });
    }
    entry
}

/// A row whose peer is made anew each time.
pub(crate) fn fresh<P, F>(
    mut entry: Entry,
    columns: &[usize],
    make: impl Fn() -> F + Copy + Send + Sync + 'static,
    work: impl Work,
) -> Entry
where
    P: Peer,
    F: Future<Output = Result<P>> + Send,
{
    for &column in columns {
        entry = entry.job(move || async move { work.measure(&make().await?, column).await });
    }
    entry
}

/// A row of somebody else, who may not be there; nobody who is not asked for is started.
pub(crate) async fn other<P: Peer + Clone>(
    plan: &Plan,
    name: &str,
    columns: &[usize],
    peer: impl Future<Output = std::result::Result<P, Missing>>,
    work: impl Work,
    targets: &[(usize, Target)],
) -> Option<Entry> {
    if !plan.rounds.takes(name) {
        return None;
    }
    let mut entry = match peer.await {
        Ok(peer) => row(Entry::new(name), columns, peer, work),
        Err(why) => Entry::new(name).absent(why),
    };
    for (sheet, target) in targets {
        entry = entry.reaching(*sheet, target.clone());
    }
    Some(entry)
}
