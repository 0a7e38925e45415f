//! A request id that its asker made up for itself alone: which grants say so.

use lockkeeper_core::*;
use std::time::Duration;

struct Locks {
    table: LockTable,
    now: u64,
}

impl Locks {
    fn turn(&mut self, command: impl Into<Command>) -> Effects {
        self.now += 1;
        self.table.apply(Timestamp(self.now), command)
    }

    fn session(&mut self, agent: &str) -> SessionId {
        let agent = agent.into();
        let open = OpenSession { agent, kind: SessionKind::Attached, priority: 0, lineage: None };
        let turn = self.turn(open);
        let opened = turn.records().iter().find_map(|record| match &record.fact {
            Fact::SessionOpened { session, .. } => Some(*session),
            _ => None,
        });
        opened.expect("a session opens")
    }
}

/// The grants of a turn: of what, and whether their request is fleeting.
fn granted(turn: &Effects) -> Vec<(String, bool)> {
    let grants = turn.records().iter().filter_map(|record| match &record.fact {
        Fact::Granted(granted) => Some((granted.resource.to_string(), granted.fleeting)),
        _ => None,
    });
    grants.collect()
}

/// Only a request that was granted at once, and was for one resource, can do with its hold: one
/// that waits is known by its ticket, and of a batch a part does not tell the whole.
#[test]
fn only_what_is_granted_at_once_and_alone_is_fleeting() {
    let table = LockTable::new(TableConfig::default(), Reign::first(7));
    let mut locks = Locks { table, now: 1_000 };
    let (ann, bob) = (locks.session("ann"), locks.session("bob"));
    let options = |number: u128| AskOptions {
        request_id: Some(RequestId::new(number)),
        fleeting: true,
        wait: Some(Duration::from_secs(9)),
        ..AskOptions::default()
    };
    let ask = |session, key: &str, number| Acquire {
        session,
        resource: Resource::file(key),
        mode: LockMode::Exclusive,
        options: options(number),
    };
    let turn = locks.turn(ask(ann, "a", 1));
    assert_eq!(granted(&turn), [("file:a".to_owned(), true)]);
    // Asked again in the same life it is known, whatever becomes of it later.
    let again = locks.turn(ask(ann, "a", 1));
    assert!(again.records().is_empty(), "{:?}", again.records());
    let wants = ["b", "c"].map(|key| (Resource::file(key), LockMode::Exclusive)).to_vec();
    let turn = locks.turn(AcquireAll { session: ann, wants, options: options(2) });
    assert_eq!(granted(&turn), [("file:b".to_owned(), false), ("file:c".to_owned(), false)]);
    assert_eq!(granted(&locks.turn(ask(bob, "a", 3))), []);
    let lock = locks.table.list()[0].lock;
    let by = Credential::Session(ann);
    let turn = locks.turn(Release { by, lock, share: None, request_id: None });
    assert_eq!(granted(&turn), [("file:a".to_owned(), false)], "bob's, who waited");
}
