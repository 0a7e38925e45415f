//! A holder is paused for longer than its lease. When it wakes, somebody else has the lock, and it
//! does not know. A lock alone cannot stop its write; a fence at the resource can. Run it with
//! `cargo run --example fenced_write`.
#![allow(clippy::print_stdout, reason = "telling the story is what an example is for")]

use lockkeeper::{Config, FenceGate, LockGuard, LockManager, Resource};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::time::sleep;

const LEASE: Duration = Duration::from_millis(200);

/// A report, kept twice: once behind a fence, once as it is usually done.
struct Report {
    fenced: FenceGate<PathBuf>,
    unfenced: PathBuf,
    started: Instant,
}

impl Report {
    fn new(folder: &Path) -> Report {
        Report {
            fenced: FenceGate::new(folder.join("fenced.md")),
            unfenced: folder.join("unfenced.md"),
            started: Instant::now(),
        }
    }

    /// Writes both copies. The fence takes the token and decides; the other copy takes anything.
    fn write(&self, guard: &LockGuard, text: &str) -> Result<(), Box<dyn Error>> {
        let who = guard.agent();
        fs::write(&self.unfenced, text)?;
        match self.fenced.with(guard.token(), |path| fs::write(path, text)) {
            Ok(written) => {
                written?;
                self.say(who, &format!("writes {text:?} with token {}", guard.token()));
            }
            Err(fenced) => self.say(who, &format!("writes {text:?}, and bounces: {fenced}")),
        }
        Ok(())
    }

    fn say(&self, who: &str, what: &str) {
        // To the tenth of a second: what happens in between is not the point.
        let tenths = (self.started.elapsed().as_millis() + 20) / 100;
        println!("{}.{} s  {who:<8} {what}", tenths / 10, tenths % 10);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let manager = LockManager::open_with(Config::at(folder.path().join("locks.db"))).await?;
    let sleeper = manager.session("demo", "sleeper").await?;
    let walker = manager.session("demo", "walker").await?;
    let report = Report::new(folder.path());
    let resource = Resource::file("report.md");

    // The sleeper has the lock for a fifth of a second, and takes a nap of half of one. This is
    // what a garbage collector, a swapped-out machine or a slow model does to an agent.
    let stale = sleeper.acquire(resource.clone()).lease(LEASE).await?;
    report.say("sleeper", &format!("has the lock, token {}, for {LEASE:?}", stale.token()));
    report.write(&stale, "draft of the sleeper")?;
    report.say("sleeper", "is paused and knows nothing of the world");
    let nap = sleep(LEASE * 5 / 2);

    // The walker queues meanwhile. It gets the lock when the lease is over, and a larger token.
    report.say("walker", "asks for the lock and waits");
    let fresh = walker.acquire(resource.clone()).await?;
    report.say("walker", &format!("has the lock, token {}: the lease is over", fresh.token()));
    report.write(&fresh, "final text of the walker")?;

    // The sleeper wakes in the middle of its work and goes on with it.
    nap.await;
    report.say("sleeper", "wakes up");
    report.write(&stale, "second draft of the sleeper")?;

    // Only now does it ask. A guard never says that it is valid when somebody else's is.
    let why = stale.lost().await;
    report.say("sleeper", &format!("asks its guard: is_valid() is {}, {why}", stale.is_valid()));
    if let Err(error) = stale.release().await {
        report.say("sleeper", &format!("gives it back all the same: {error}"));
    }
    report.say("walker", &format!("is not disturbed: is_valid() is {}", fresh.is_valid()));
    fresh.release().await?;

    println!("\nbehind the fence: {:?}", fs::read_to_string(folder.path().join("fenced.md"))?);
    println!("without a fence:  {:?}", fs::read_to_string(&report.unfenced)?);
    manager.shutdown().await;
    Ok(())
}
