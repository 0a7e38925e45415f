//! The first page: one lock, then a second agent that waits for it, and what a refusal looks like.
//! Run it with `cargo run --example quickstart`.
#![allow(clippy::print_stdout, reason = "telling the story is what an example is for")]

use lockkeeper::{AcquireError, LockManager, Resource, Token};
use std::{
    env,
    error::Error,
    fs, io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What the lock is for: here, a file that says who wrote it last.
fn write_with(token: Token) -> io::Result<()> {
    fs::write("main.rs", format!("// written under token {token}\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Everything below happens in a folder that is gone afterwards.
    let folder = tempfile::tempdir()?;
    env::set_current_dir(folder.path())?;

    let manager = LockManager::open("locks.db").await?; // embedded, durable, migrates itself
    let coder = manager.session("demo", "agent-coder").await?; // one agent in one project
    let guard = coder.acquire(Resource::file("src/main.rs")).await?; // waits 300 s, leased 300 s
    write_with(guard.token())?; // the fencing token, for whatever you protect
    guard.release().await?; // or just drop it
    println!("agent-coder took src/main.rs, wrote, and gave it back");
    print!("  {}", fs::read_to_string("main.rs")?);

    // The same lock again, with a reason that others can read.
    let main_rs = Resource::file("src/main.rs");
    let guard = coder.acquire(main_rs.clone()).reason("renaming the parser").await?;
    println!("agent-coder has it again: token {}, a larger one", guard.token());

    // Another agent wants it now or never. A refusal says who, why, and until when.
    let tester = manager.session("demo", "agent-tester").await?;
    match tester.acquire(main_rs.clone()).no_wait().await {
        Err(refusal @ AcquireError::Busy { .. }) => explain(&refusal),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }

    // So it queues. Nobody polls: the lock is handed over in the moment it is given back.
    let waiting = tokio::spawn({
        let (tester, main_rs) = (tester.clone(), main_rs.clone());
        async move { tester.acquire(main_rs).wait(Duration::from_secs(10)).await }
    });
    let demo = manager.project("demo").await?;
    while demo.queue(main_rs.clone()).await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for waiter in demo.queue(main_rs.clone()).await? {
        println!("{} waits for {main_rs} ({})", waiter.agent, waiter.mode);
    }
    drop(guard);
    println!("agent-coder drops its guard");
    let guard = waiting.await??;
    println!("agent-tester has it: token {}, after {:?}", guard.token(), guard.waited());
    write_with(guard.token())?;

    // Who is at home is a question to the project; what a shutdown ends is in its report.
    println!("the owner is {}", demo.get_owner(main_rs).await?.as_deref().unwrap_or("nobody"));
    let report = manager.shutdown().await;
    for holder in report.released.values().flatten() {
        println!("shutdown took {} from {}", holder.resource, holder.agent);
    }
    println!("and the guard knows: is_valid() is {}", guard.is_valid());
    // It is nobody's any more, so dropping it does nothing.
    drop(guard);
    Ok(())
}

/// A refusal in one line, and its parts for a program.
fn explain(refusal: &AcquireError) {
    println!("agent-tester is refused: {refusal}");
    println!("  code {}, retryable {}", refusal.code(), refusal.retryable());
    if let Some(holder) = refusal.holder() {
        let ends_at = UNIX_EPOCH + Duration::from_millis(holder.expires_at.0);
        let left = ends_at.duration_since(SystemTime::now()).unwrap_or_default();
        let left = left.as_secs_f64().round();
        println!("  {} must renew or give it back within {left} s", holder.agent);
    }
}
