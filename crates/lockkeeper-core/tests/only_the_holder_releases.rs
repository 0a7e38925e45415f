//! Who does not hold a lock can neither release, renew, upgrade nor downgrade it.

use lockkeeper_core::{
    Acquire, Answer, AskOptions, Command, Credential, Downgrade, Forgetful, Ledger, LockMode,
    LockTable, OpenSession, Refusal, Reign, Release, Renew, Resource, TableConfig, Timestamp,
    Upgrade,
};

struct World(LockTable, Ledger<Forgetful>);

fn told(World(table, ledger): &mut World, command: impl Into<Command>) -> Result<Answer, Refusal> {
    let settled = table.apply(Timestamp(5), command).settle(ledger).expect("in order");
    settled.replies()[0].outcome.clone()
}

#[test]
fn another_sessions_lock_is_not_mine_to_end() {
    let table = LockTable::new(TableConfig::default(), Reign::first(9));
    let mut table = World(table, Ledger::new(Forgetful));
    let mut open =
        || match told(&mut table, OpenSession { agent: "a".into(), ..Default::default() }) {
            Ok(Answer::SessionOpened { session }) => session,
            other => panic!("{other:?}"),
        };
    let (ann, bob) = (open(), open());
    let ask = Acquire {
        session: ann,
        resource: Resource::file("a"),
        mode: LockMode::Exclusive,
        options: AskOptions::default(),
    };
    let Ok(Answer::Granted(grants)) = told(&mut table, ask) else { panic!() };
    let lock = grants[0].lock;
    let by = Credential::Session(bob);
    let release = Release { by, lock, share: None, request_id: None };
    assert!(matches!(told(&mut table, release), Err(Refusal::NotHolder { holder: Some(_), .. })));
    let renew = Renew { by, lock, lease: None, shorten: false, request_id: None };
    assert!(matches!(told(&mut table, renew), Err(Refusal::NotHolder { .. })));
    let down = Downgrade { session: bob, lock, mode: LockMode::Shared, request_id: None };
    assert!(matches!(told(&mut table, down), Err(Refusal::NotHolder { .. })));
    let up = Upgrade { session: bob, lock, options: AskOptions::default() };
    assert!(matches!(told(&mut table, up), Err(Refusal::NotHolder { .. })));
    assert_eq!(table.0.list().len(), 1);
}
