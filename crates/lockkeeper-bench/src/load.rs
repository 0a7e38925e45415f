//! The work that is measured: clients who take and give back, over and over.

use crate::{
    inside::Inside,
    peers::{Client, Granted, Key, Peer},
    stats,
    trouble::{Result, Trouble, trouble},
};
use futures_util::future::try_join_all;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long a holder holds, and does something else afterwards, where hand-over is measured. So
/// nobody takes its own lock again while others have not even noticed that it was free, and it is
/// back in the queue before the next one is done.
const HOLD: Duration = Duration::from_millis(2);
const THINK: Duration = Duration::from_millis(1);

/// When figures begin to count: after a tenth of the window, and after all have certainly asked.
fn begin(clients: usize, window: Duration) -> Instant {
    let asked = Duration::from_millis(30) + Duration::from_micros(50) * clients as u32;
    Instant::now() + asked.max(window / 10)
}

/// Acquire + release in a second, by so many clients with a lock of their own each.
pub(crate) async fn uncontended<P: Peer>(
    peer: &P,
    clients: usize,
    window: Duration,
) -> Result<f64> {
    let connected = connect(peer, clients).await?;
    let begin = begin(clients, window);
    let end = begin + window;
    let mut tasks = JoinSet::new();
    for (nth, mut client) in connected.into_iter().enumerate() {
        tasks.spawn(async move {
            let (key, burst) = (Key::own(nth), client.burst());
            let mut count = 0u64;
            loop {
                for _ in 0..burst {
                    granted(client.acquire(&key).await?)?;
                    client.release().await?;
                }
                match Instant::now() {
                    now if now >= end => break,
                    now if now >= begin => count += burst,
                    _ => {}
                }
            }
            client.close().await?;
            Ok(count)
        });
    }
    let count: u64 = all(tasks).await?.into_iter().sum();
    Ok(count as f64 / window.as_secs_f64())
}

/// The same with several locks at once, taken in one request.
pub(crate) async fn batches<P: Peer>(
    peer: &P,
    clients: usize,
    size: usize,
    window: Duration,
) -> Result<f64> {
    let connected = connect(peer, clients).await?;
    let begin = begin(clients, window);
    let end = begin + window;
    let mut tasks = JoinSet::new();
    for (nth, mut client) in connected.into_iter().enumerate() {
        tasks.spawn(async move {
            let keys: Vec<Key> = (0..size).map(|at| Key::own(nth * size + at)).collect();
            let mut count = 0u64;
            loop {
                client.acquire_all(&keys).await?;
                client.release().await?;
                match Instant::now() {
                    now if now >= end => break,
                    now if now >= begin => count += 1,
                    _ => {}
                }
            }
            client.close().await?;
            Ok(count)
        });
    }
    let count: u64 = all(tasks).await?.into_iter().sum();
    Ok(count as f64 / window.as_secs_f64())
}

/// How a lock went from hand to hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandOver {
    /// The median from the moment a holder begins its release to the moment a client that was
    /// already waiting has its grant, in microseconds.
    pub(crate) gap: f64,
    /// One in a hundred takes longer.
    pub(crate) gap_p99: f64,
    /// One in a hundred waits longer from asking to having, in milliseconds.
    pub(crate) wait_p99: f64,
}

/// What goes on around one lock that all want.
struct Hot {
    inside: Inside,
    zero: Instant,
    /// When the last holder began its release, in nanoseconds since `zero`.
    released: AtomicU64,
    holder: AtomicUsize,
}

impl Hot {
    fn new() -> Arc<Hot> {
        let (inside, zero) = (Inside::default(), Instant::now());
        let (released, holder) = (AtomicU64::new(0), AtomicUsize::new(usize::MAX));
        Arc::new(Hot { inside, zero, released, holder })
    }

    fn now(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }
}

/// So many clients want one lock, hold it for a while, and want it again after a while.
pub(crate) async fn hand_over<P: Peer>(
    peer: &P,
    clients: usize,
    window: Duration,
) -> Result<HandOver> {
    let connected = connect(peer, clients).await?;
    let (hot, key) = (Hot::new(), Key::hot());
    let end = Instant::now() + window;
    let mut tasks = JoinSet::new();
    for (nth, mut client) in connected.into_iter().enumerate() {
        let (hot, key) = (hot.clone(), key.clone());
        tasks.spawn(async move {
            let (mut gaps, mut waits) = (Vec::new(), Vec::new());
            while Instant::now() < end {
                let asked = hot.now();
                granted(client.acquire(&key).await?)?;
                let has = hot.now();
                hot.inside.enter()?;
                let released = hot.released.load(Ordering::SeqCst);
                let last = hot.holder.swap(nth, Ordering::SeqCst);
                waits.push((has - asked) as f64 / 1e6);
                if last != usize::MAX && last != nth && asked < released {
                    gaps.push(has.saturating_sub(released) as f64 / 1e3);
                }
                let goes_on = Instant::now() < end;
                if goes_on {
                    tokio::time::sleep(HOLD).await;
                }
                hot.inside.leave();
                hot.released.store(hot.now(), Ordering::SeqCst);
                client.release().await?;
                if goes_on {
                    tokio::time::sleep(THINK).await;
                }
            }
            client.close().await?;
            Ok((gaps, waits))
        });
    }
    let (mut gaps, mut waits) = (Vec::new(), Vec::new());
    for (some_gaps, some_waits) in all(tasks).await? {
        gaps.extend(some_gaps);
        waits.extend(some_waits);
    }
    gaps.sort_by(f64::total_cmp);
    waits.sort_by(f64::total_cmp);
    // Who polls may not have handed over at all.
    let at = |figures: &[f64], share| stats::at(figures, share).unwrap_or(f64::NAN);
    Ok(HandOver { gap: at(&gaps, 0.5), gap_p99: at(&gaps, 0.99), wait_p99: at(&waits, 0.99) })
}

/// How a lock is shared that nobody holds for longer than it takes to give it back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// Acquire + release in a second, of all together.
    pub(crate) rate: f64,
    /// How often the luckiest client had it, over how often the unluckiest had.
    pub(crate) share: f64,
    /// The median from asking to having, in milliseconds.
    pub(crate) wait: f64,
    /// One in a hundred waits longer.
    pub(crate) wait_p99: f64,
}

/// So many clients want one lock, at once again.
pub(crate) async fn crowd<P: Peer>(peer: &P, clients: usize, window: Duration) -> Result<Crowd> {
    let connected = connect(peer, clients).await?;
    let (hot, key) = (Hot::new(), Key::hot());
    let begin = begin(clients, window);
    let end = begin + window;
    let mut tasks = JoinSet::new();
    for mut client in connected {
        let (hot, key) = (hot.clone(), key.clone());
        tasks.spawn(async move {
            let mut waits = Vec::new();
            loop {
                let asked = Instant::now();
                granted(client.acquire(&key).await?)?;
                hot.inside.enter()?;
                let has = Instant::now();
                hot.inside.leave();
                client.release().await?;
                match has {
                    _ if has >= end => break,
                    _ if has >= begin => waits.push((has - asked).as_secs_f64() * 1e3),
                    _ => {}
                }
            }
            client.close().await?;
            Ok(waits)
        });
    }
    let waits = all(tasks).await?;
    let most = waits.iter().map(Vec::len).max().unwrap_or_default();
    // Who had nothing at all counts as if it had had it once, or the share would have no end.
    let least = waits.iter().map(Vec::len).min().unwrap_or_default().max(1);
    let mut waits = waits.concat();
    waits.sort_by(f64::total_cmp);
    Ok(Crowd {
        rate: waits.len() as f64 / window.as_secs_f64(),
        share: most as f64 / least as f64,
        wait: stats::at(&waits, 0.5).unwrap_or(f64::NAN),
        wait_p99: stats::at(&waits, 0.99).unwrap_or(f64::NAN),
    })
}

/// From the request that closes a ring of so many to the first word of a deadlock, in microseconds.
pub(crate) async fn verdict<P: Peer>(peer: &P, ring: usize) -> Result<f64> {
    let mut connected = connect(peer, ring).await?;
    for (nth, client) in connected.iter_mut().enumerate() {
        granted(client.acquire(&Key::own(nth)).await?)?;
    }
    let closer = connected.pop().ok_or_else(|| Trouble("a ring has members".to_owned()))?;
    let mut tasks = JoinSet::new();
    for (nth, client) in connected.into_iter().enumerate() {
        tasks.spawn(waits_for(client, Key::own(nth + 1)));
        // One after the other, each certainly parked before the next one asks.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let closes = Instant::now();
    tasks.spawn(waits_for(closer, Key::own(0)));
    let said = all(tasks).await?;
    match said.into_iter().flatten().min() {
        Some(said) => Ok((said - closes).as_secs_f64() * 1e6),
        None => trouble("a ring was closed, and nobody was told"),
    }
}

/// When it was told of a deadlock, if it was.
async fn waits_for<C: Client>(mut client: C, key: Key) -> Result<Option<Instant>> {
    let outcome = client.acquire(&key).await?;
    let said = Instant::now();
    client.release().await?;
    client.close().await?;
    Ok((outcome == Granted::Deadlock).then_some(said))
}

fn granted(outcome: Granted) -> Result<()> {
    match outcome {
        Granted::Yes => Ok(()),
        Granted::Deadlock => trouble("a deadlock where there is none"),
    }
}

async fn connect<P: Peer>(peer: &P, clients: usize) -> Result<Vec<P::Client>> {
    let mut connected = Vec::with_capacity(clients);
    while connected.len() < clients {
        let first = connected.len();
        let some = first..clients.min(first + peer.at_once());
        connected.extend(try_join_all(some.map(|nth| peer.client(nth))).await?);
    }
    Ok(connected)
}

/// What all tasks came to. The first trouble ends the others: dropping the set aborts them.
async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        done.push(ended??);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::mutexes::Mutexes;

    /// Lets everybody in.
    #[derive(Default)]
    struct Open;

    impl Peer for Open {
        type Client = Open;

        async fn client(&self, _: usize) -> Result<Open> {
            Ok(Open)
        }
    }

    impl Client for Open {
        async fn acquire(&mut self, _: &Key) -> Result<Granted> {
            tokio::task::yield_now().await;
            Ok(Granted::Yes)
        }

        async fn release(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn red_when_a_lock_lets_two_in() {
        let window = Duration::from_millis(20);
        let failed = hand_over(&Open, 4, window).await.unwrap_err();
        assert!(failed.to_string().contains("were inside at once"), "{failed}");
    }

    #[tokio::test]
    async fn a_lock_goes_round() {
        let (peer, window) = (Mutexes::default(), Duration::from_millis(60));
        let handed = hand_over(&peer, 4, window).await.unwrap();
        assert!(handed.gap > 0.0 && handed.gap <= handed.gap_p99, "{handed:?}");
        assert!(handed.wait_p99 > 1.0, "three others hold it for 2 ms each: {handed:?}");
        let crowd = crowd(&peer, 4, window).await.unwrap();
        assert!(crowd.rate > 0.0 && crowd.share >= 1.0, "{crowd:?}");
        assert!(uncontended(&peer, 4, window).await.unwrap() > 0.0);
    }

    #[tokio::test]
    async fn a_ring_that_is_not_broken_is_no_figure() {
        let failed = verdict(&Open, 2).await.unwrap_err();
        assert!(failed.to_string().contains("nobody was told"), "{failed}");
    }
}
