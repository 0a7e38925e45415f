//! A lock actor is an ordinary kameo actor: whoever prefers messages to methods sends it messages,
//! and gets guards in its answers. Run it with `cargo run --example message_passing`.
#![allow(clippy::print_stdout, reason = "telling the story is what an example is for")]

use kameo::actor::ActorRef;
use lockkeeper::{
    Acquire, Acquired, Answer, AskOptions, Config, EndCause, EndSession, Heard, Inspect, LockActor,
    LockManager, LockMode, News, OpenSession, Resource, SessionId, Wait,
};
use std::{error::Error, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let manager = LockManager::open_with(Config::at(folder.path().join("locks.db"))).await?;
    let mut events = manager.subscribe();

    // The manager starts and supervises the actor; all else is between the two of us.
    let locks: ActorRef<LockActor> = manager.lock_actor("demo").await?;
    let coder = open(&locks, "coder").await?;
    let tester = open(&locks, "tester").await?;
    let resource = Resource::file("src/main.rs");

    // A command is a message. What it grants comes back as guards.
    let ask = |session, slice| Acquire {
        session,
        resource: resource.clone(),
        mode: LockMode::Exclusive,
        options: AskOptions {
            reason: Some("message passing".into()),
            slice,
            ..AskOptions::default()
        },
    };
    let Acquired::Held(coder_has) = locks.ask(ask(coder, None)).await? else {
        return Err("the file is free, so there is nothing to wait for".into());
    };
    println!("coder has {coder_has}");

    // Somebody who cannot wait for long, such as a model's tool call, asks for a slice: the call
    // ends, the place in the queue stays.
    let slice = Some(Duration::from_millis(20));
    let Acquired::Queued { ticket, ahead, .. } = locks.ask(ask(tester, slice)).await? else {
        return Err("the file is taken, so the tester should queue".into());
    };
    println!("tester is queued with a ticket, {ahead} ahead of it");

    // Questions are messages, too.
    if let Some(seen) = locks.ask(Inspect { resource: resource.clone() }).await? {
        for holder in &seen.holders {
            let reason = holder.reason.as_deref().unwrap_or("no reason");
            println!("inspected: {} holds it ({reason})", holder.agent);
        }
        for waiter in &seen.queue {
            println!("inspected: {} waits for it", waiter.agent);
        }
    }

    // To release is to drop. The actor hands the lock over as it hears of it, and the tester, who
    // comes back with its ticket, finds it granted.
    drop(coder_has);
    let again = Wait { session: tester, ticket, slice: None };
    let Acquired::Held(tester_has) = locks.ask(again).await? else {
        return Err("the coder is gone, so it is the tester's turn".into());
    };
    println!("coder drops it, tester has {tester_has}");

    // Whoever needs no answer tells. The end of a session ends all that it holds.
    for session in [coder, tester] {
        let cause = EndCause::Closed;
        locks.tell(EndSession { session, cause }).await?;
    }
    for guard in &tester_has {
        println!("tester's session is ended: {}", guard.lost().await);
    }

    // All of it was news, and news come last: the end of the second session is the last of them.
    println!("\nwhat was heard meanwhile:");
    let mut open_sessions = 2;
    while open_sessions > 0
        && let Some(Heard::Event(heard)) = events.next().await
    {
        let (seq, project) = (heard.event.seq, &heard.project_id);
        match &heard.event.news {
            News::Locked(it) => println!("  {project} {seq}: {} locked {}", it.agent, it.resource),
            News::Unlocked(it) => {
                println!("  {project} {seq}: {} unlocked {}", it.agent, it.resource);
            }
            News::Waiting(it) => println!("  {project} {seq}: {} waits", it.agent),
            News::SessionEnded { agent, cause, .. } => {
                open_sessions -= 1;
                println!("  {project} {seq}: the session of {agent} ended ({cause:?})");
            }
            other => println!("  {project} {seq}: {other:?}"),
        }
    }
    manager.shutdown().await;
    Ok(())
}

/// Opens a session. It lives until it is ended: there is no handle that could be dropped.
async fn open(locks: &ActorRef<LockActor>, agent: &str) -> Result<SessionId, Box<dyn Error>> {
    match locks.ask(OpenSession { agent: agent.into(), ..OpenSession::default() }).await? {
        Answer::SessionOpened { session } => Ok(session),
        other => Err(format!("{agent} was not let in: {other:?}").into()),
    }
}
