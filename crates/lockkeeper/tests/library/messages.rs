//! The lock actor as an ordinary kameo actor.

use crate::support::{Bench, both, file, poll_once, secs};
use lockkeeper::{
    Acquire, AcquireAll, Acquired, Answer, AskOptions, CallError, Cancel, CancelTarget, ClaimTasks,
    Command, Credential, DeclareCapacity, DeclareWait, Downgrade, EndCause, EndSession, FinishTask,
    ForceUnlock, ForgetTask, Inspect, List, LockId, LockMode, OpenSession, Refusal, Release,
    ReleaseAll, Renew, ReopenTask, RequestId, Resource, Resume, SessionId, StatsNow, TicketId,
    Token, Upgrade, Wait, WithdrawWait,
};
use std::pin::pin;

fn acquire(session: SessionId, resource: Resource) -> Acquire {
    let (mode, options) = (LockMode::Exclusive, AskOptions::default());
    Acquire { session, resource, mode, options }
}

both!(
    still:
    guards_come_back,
    a_dropped_ask_gives_back,
    plain_answers,
    tickets,
    nothing_that_is_told_stops_it,
);

async fn guards_come_back(bench: Bench) {
    let (a, actor) = (bench.session("a").await, bench.manager.lock_actor("demo").await.unwrap());
    let guards = actor.ask(acquire(a.id(), file("x"))).await.unwrap().held().unwrap();
    let guard = guards.into_vec().remove(0);
    assert!(guard.is_valid());
    let wants = vec![(file("y"), LockMode::Shared), (file("z"), LockMode::Exclusive)];
    let all = AcquireAll { session: a.id(), wants, options: AskOptions::default() };
    let all = actor.ask(all).await.unwrap().held().unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(actor.ask(List {}).await.unwrap().len(), 3);
    assert!(actor.ask(Inspect { resource: file("x") }).await.unwrap().is_some());
    let until = guard.renew(secs(1_000)).await.unwrap();
    assert_eq!(until, guard.expires_at());
    drop(guard);
    all.release().await.unwrap();
    assert_eq!(actor.ask(StatsNow {}).await.unwrap().holds, 0);
    let busy = actor.ask(acquire(SessionId::from_u64(99), file("x"))).await.unwrap_err();
    assert!(busy.to_string().contains("session"), "{busy}");
    drop(a);
    bench.close_empty().await;
}

/// I13: nobody takes the answer, so the guards in it give everything back.
async fn a_dropped_ask_gives_back(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let actor = bench.manager.lock_actor("demo").await.unwrap();
    for settled in [false, true] {
        let mut ask = Box::pin(actor.ask(acquire(a.id(), file("x"))).send());
        assert!(poll_once(ask.as_mut()).await.is_none());
        if settled {
            bench.settle().await;
        }
        drop(ask);
        bench.settle().await;
        drop(b.acquire(file("x")).no_wait().await.unwrap());
        // The same for one that waits: it is granted to nobody, and passes on.
        let held = b.acquire(file("x")).await.unwrap();
        let mut ask = Box::pin(actor.ask(acquire(a.id(), file("x"))).send());
        assert!(poll_once(ask.as_mut()).await.is_none());
        bench.settle().await;
        drop(ask);
        held.release().await.unwrap();
        bench.settle().await;
        drop(b.acquire(file("x")).no_wait().await.unwrap());
    }
    // Told, not asked: nobody can take the guards.
    actor.tell(acquire(a.id(), file("x"))).await.unwrap();
    bench.settle().await;
    assert_eq!(bench.stats().await.holds, 0);
    drop((a, b));
    bench.close_empty().await;
}

/// A raw command is answered plainly, and nothing is released because an answer was not taken.
async fn plain_answers(bench: Bench) {
    let actor = bench.manager.lock_actor("demo").await.unwrap();
    let open = OpenSession { agent: "raw".into(), ..OpenSession::default() };
    let Answer::SessionOpened { session } = actor.ask(Command::from(open)).await.unwrap() else {
        panic!("not opened");
    };
    let ask = Command::from(acquire(session, file("x")));
    let Answer::Granted(grants) = actor.ask(ask).await.unwrap() else { panic!("not granted") };
    let grant = &grants[0];
    bench.settle().await;
    assert_eq!(bench.stats().await.holds, 1);
    actor.tell(Command::from(acquire(session, file("y")))).await.unwrap();
    bench.settle().await;
    assert_eq!(bench.stats().await.holds, 2, "told, and kept until the session ends");
    let by = Credential::Token(grant.token);
    let renew = Renew { by, lock: grant.lock, lease: None, shorten: false, request_id: None };
    assert!(matches!(actor.ask(renew).await.unwrap(), Answer::Renewed { .. }));
    let wrong = Credential::Token(Token::from_u64(grant.token.get() + 7));
    let release = Release { by: wrong, lock: grant.lock, share: None, request_id: None };
    let stale = actor.ask(release).await.unwrap_err();
    let stale = format!("{stale:?}");
    assert!(stale.contains("StaleToken"), "{stale}");
    let release = Release { by, ..release };
    assert!(matches!(actor.ask(release).await.unwrap(), Answer::Released { remaining: 0, .. }));
    let end = EndSession { session, cause: EndCause::Closed };
    let ended = actor.ask(end).await.unwrap();
    assert_eq!(ended, Answer::SessionEnded { released: 1, left: 0 });
    assert_eq!(actor.ask(Command::Tick).await.unwrap(), Answer::Ticked);
    bench.close_empty().await;
}

/// I12: a place that outlives the call; the answer to the second call holds guards again.
async fn tickets(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let actor = bench.manager.lock_actor("demo").await.unwrap();
    let held = b.acquire(file("x")).await.unwrap();
    let options = AskOptions { slice: Some(secs(1)), ..AskOptions::default() };
    let ask = Acquire { options, ..acquire(a.id(), file("x")) };
    let mut asking = pin!(actor.ask(ask).send());
    assert!(poll_once(asking.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(secs(2)).await;
    let Acquired::Queued { ticket, ahead, .. } = asking.await.unwrap() else { panic!("held") };
    assert_eq!(ahead, 0);
    assert_eq!(bench.stats().await.tickets, 1);
    let wait = Wait { session: a.id(), ticket, slice: None };
    let mut waiting = pin!(actor.ask(wait).send());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    drop(held);
    let guards = waiting.await.unwrap().held().unwrap();
    assert!(guards.all_valid());
    drop(guards);
    bench.settle().await;
    assert_eq!(bench.stats().await.holds, 0);
    drop((a, b));
    bench.close_empty().await;
}

/// Whatever is told to it, the actor lives: a refusal nobody hears is no failure.
async fn nothing_that_is_told_stops_it(bench: Bench) {
    let (a, actor) = (bench.session("a").await, bench.manager.lock_actor("demo").await.unwrap());
    let guard = a.acquire(file("x")).await.unwrap();
    let (session, lock) = (SessionId::from_u64(12_345), LockId::from_u128(7));
    let (ticket, task) = (TicketId::from_u64(3), Resource::task("t"));
    let options = AskOptions::default();
    let by = Credential::Session(session);
    let mode = LockMode::Shared;
    macro_rules! tell {
        ($($message:expr),* $(,)?) => {$(
            actor.tell($message).await.unwrap();
            actor.tell(Command::from($message)).await.unwrap();
        )*};
    }
    tell!(
        acquire(session, file("x")),
        acquire(a.id(), file("x")),
        acquire(a.id(), file("")),
        AcquireAll { session, wants: Vec::new(), options: options.clone() },
        Wait { session, ticket, slice: None },
        EndSession { session, cause: EndCause::Idle },
        Cancel { session, target: CancelTarget::Ticket(ticket) },
        Cancel { session: a.id(), target: CancelTarget::Request(RequestId::new(1)) },
        Release { by, lock, share: None, request_id: None },
        Renew { by, lock, lease: None, shorten: true, request_id: None },
        Upgrade { session, lock, options: options.clone() },
        Upgrade { session: a.id(), lock: guard.id(), options: options.clone() },
        Downgrade { session, lock, mode, request_id: None },
        DeclareWait { session, on: a.id() },
        DeclareWait { session: a.id(), on: a.id() },
        WithdrawWait { session, on: session },
        ForceUnlock { resource: file("free"), admin: "me".into(), reason: "no".into() },
        ReleaseAll { agent: "nobody".into() },
        DeclareCapacity { resource: file("x"), capacity: Some(3) },
        DeclareCapacity { resource: file("y"), capacity: Some(0) },
        ClaimTasks { session, claims: Vec::new(), options: options.clone() },
        FinishTask { by, lock, done: true, expect_version: None, request_id: None },
        ReopenTask { task: task.clone(), expect_version: Some(9) },
        ForgetTask { task: task.clone() },
        OpenSession { agent: "x".repeat(100_000).as_str().into(), ..OpenSession::default() },
    );
    actor.tell(Command::Tick).await.unwrap();
    actor.tell(StatsNow {}).await.unwrap();
    actor.tell(List {}).await.unwrap();
    bench.settle().await;
    assert!(actor.is_alive() && guard.is_valid());
    let refused = actor.ask(Command::from(acquire(session, file("x")))).await.unwrap_err();
    let refused = format!("{refused:?}");
    assert!(refused.contains("SessionEnded"), "{refused}");
    assert_eq!(bench.list().await.len(), 1);
    assert_eq!(bench.list().await[0].lock, guard.id(), "it was restarted");
    guard.release().await.unwrap();
    drop(a);
    bench.close_empty().await;
}

/// Resuming twice is for those who rebuild a table; from outside it must not end anybody.
#[tokio::test(start_paused = true)]
async fn a_resume_from_outside() {
    let bench = Bench::file().await.still();
    let (a, actor) = (bench.session("a").await, bench.manager.lock_actor("demo").await.unwrap());
    let guard = a.acquire(file("x")).await.unwrap();
    match actor.ask(Command::from(Resume { orphaned: false })).await {
        Ok(_) => {}
        Err(kameo::error::SendError::HandlerError(CallError::Refused(Refusal::Cancelled))) => {}
        Err(other) => println!("{other:?}"),
    }
    bench.settle().await;
    assert!(guard.is_valid());
    assert_eq!(bench.list().await.len(), 1);
}
