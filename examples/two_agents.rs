//! Two agents, each holding what the other wants: the smallest deadlock, from its first lock to its
//! end. Run it with `cargo run --example two_agents`.
//!
//! The core is used by hand here. It has no clock and no thread, so the whole story is a few turns
//! of one table: a command goes in, and what it caused comes out.
#![allow(clippy::print_stdout, reason = "telling the story is what an example is for")]

use lockkeeper_core::{
    Acquire, Answer, AskOptions, Command, Credential, EndCause, EndSession, Forgetful, Grant,
    Ledger, LockMode, LockTable, OpenSession, Refusal, Reign, Release, Reply, Resource, SessionId,
    TableConfig, Timestamp,
};

/// A table with its hand on the clock.
struct Keeper {
    table: LockTable,
    ledger: Ledger<Forgetful>,
    now: Timestamp,
}

impl Keeper {
    fn new() -> Keeper {
        let table = LockTable::new(TableConfig::default(), Reign::first(42));
        Keeper { table, ledger: Ledger::new(Forgetful), now: Timestamp(1_700_000_000_000) }
    }

    /// One turn, 10 ms after the last: the table decides, the journal writes (this one keeps
    /// nothing), and only then are the replies heard. A turn may answer calls of earlier turns.
    fn turn(&mut self, command: impl Into<Command>) -> Vec<Reply> {
        self.now = Timestamp(self.now.0 + 10);
        let effects = self.table.apply(self.now, command);
        let settled = effects.settle(&mut self.ledger).expect("settled in order");
        settled.into_parts().0
    }

    fn open(&mut self, agent: &str) -> SessionId {
        let replies = self.turn(OpenSession { agent: agent.into(), ..OpenSession::default() });
        match replies[0].outcome {
            Ok(Answer::SessionOpened { session }) => session,
            ref other => panic!("{agent} was not let in: {other:?}"),
        }
    }

    fn ask(&mut self, session: SessionId, resource: &Resource) -> Vec<Reply> {
        let (resource, mode) = (resource.clone(), LockMode::Exclusive);
        self.turn(Acquire { session, resource, mode, options: AskOptions::default() })
    }

    fn release(&mut self, session: SessionId, grant: &Grant) {
        let by = Credential::Session(session);
        let replies = self.turn(Release { by, lock: grant.lock, share: None, request_id: None });
        assert!(matches!(replies[0].outcome, Ok(Answer::Released { remaining: 0, .. })));
    }
}

/// The grant in a reply that must be one.
fn granted(reply: &Reply) -> &Grant {
    match &reply.outcome {
        Ok(Answer::Granted(grants)) => &grants[0],
        other => panic!("expected a lock, got {other:?}"),
    }
}

fn main() {
    let mut keeper = Keeper::new();
    let (code, tests) = (Resource::file("src/main.rs"), Resource::database("tests"));

    // Each takes one thing.
    let coder = keeper.open("coder");
    let tester = keeper.open("tester");
    let coder_has = granted(&keeper.ask(coder, &code)[0]).clone();
    println!("coder  takes {code}: token {}", coder_has.token);
    let tester_has = granted(&keeper.ask(tester, &tests)[0]).clone();
    println!("tester takes {tests}: token {}", tester_has.token);

    // The coder wants the other thing too. No reply: it waits.
    assert!(keeper.ask(coder, &tests).is_empty());
    println!("coder  asks for {tests} and waits behind tester");

    // The tester asks for what the coder has. Now nobody could ever move again, so the same turn
    // ends it: the tester, who came last, loses, and the coder gets what it waited for.
    let replies = keeper.ask(tester, &code);
    println!("tester asks for {code}, and the circle is closed:\n");
    let refusal = replies.iter().find_map(|reply| reply.outcome.as_ref().err());
    let Some(Refusal::Deadlock(report)) = refusal else {
        panic!("expected a deadlock, got {replies:?}");
    };
    println!("{report}\n\n{}", report.graph().to_mermaid());
    assert_eq!(report.victim, tester);
    assert_eq!(report.freed, [tester_has.lock]);

    let handed_over = replies.iter().find(|reply| reply.outcome.is_ok());
    let coder_gets = granted(handed_over.expect("the coder is served in the same turn")).clone();
    println!("coder  gets {tests}: token {}, a larger one", coder_gets.token);
    assert_eq!(coder_gets.resource, tests);
    assert!(coder_gets.token > tester_has.token, "a late write of the tester can be told apart");

    // The coder finishes. The tester, whose session lives on, asks again and is served.
    keeper.release(coder, &coder_gets);
    keeper.release(coder, &coder_has);
    println!("coder  releases both");
    let retried = granted(&keeper.ask(tester, &code)[0]).clone();
    println!("tester asks again for {code}: token {}", retried.token);

    for session in [coder, tester] {
        let _ = keeper.turn(EndSession { session, cause: EndCause::Closed });
    }
    assert_eq!(keeper.table.stats().holds, 0);
    println!("both go home; nothing is held");
}
