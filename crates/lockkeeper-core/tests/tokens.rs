//! Tokens as a protected resource sees them: whoever asks after a release was answered gets a
//! larger one (I5), across take-overs of the project as well (I2).

use lockkeeper_core::{
    Acquire, Answer, AskOptions, Credential, Epoch, Ledger, LockMode, LockTable, OpenSession,
    Record, Reign, Release, Resource, SessionId, Settled, TableConfig, Timestamp, Token,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};

struct World {
    table: LockTable,
    ledger: Ledger<Vec<Record>>,
    reign: Reign,
    session: SessionId,
}

impl World {
    fn new() -> World {
        let reign = Reign::first(9);
        let mut world = World {
            table: LockTable::new(TableConfig::default(), reign),
            ledger: Ledger::new(Vec::new()),
            reign,
            session: SessionId::from_u64(0),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let settled = self.turn(OpenSession { agent: "a".into(), ..Default::default() });
        if let Ok(Answer::SessionOpened { session }) = settled.replies()[0].outcome {
            self.session = session;
        }
    }

    fn turn(&mut self, command: impl Into<lockkeeper_core::Command>) -> Settled {
        let effects = self.table.apply(Timestamp(5), command);
        effects.settle(&mut self.ledger).expect("settled in order")
    }

    /// The coordinator dies; another one takes the project over.
    fn take_over(&mut self) {
        let epoch = Epoch::new(self.reign.epoch.get() + 1);
        self.reign = Reign { epoch, id_seed: u64::from(epoch.get()), ..self.reign };
        self.table = LockTable::new(TableConfig::default(), self.reign);
        for record in self.ledger.journal() {
            self.table.replay(record);
        }
        self.ledger = Ledger::new(self.ledger.journal().clone());
    }

    /// Takes a free resource and gives it back; the token in between.
    fn pass(&mut self, key: u8, mode: LockMode) -> Token {
        let options = AskOptions { wait: Some(Duration::ZERO), ..Default::default() };
        let (session, resource) = (self.session, Resource::file(&key.to_string()));
        let settled = self.turn(Acquire { session, resource, mode, options });
        let Ok(Answer::Granted(grants)) = &settled.replies()[0].outcome else {
            panic!("{:?}", settled.replies());
        };
        let by = Credential::Session(session);
        let settled =
            self.turn(Release { by, lock: grants[0].lock, share: None, request_id: None });
        assert!(matches!(settled.replies()[0].outcome, Ok(Answer::Released { remaining: 0, .. })));
        grants[0].token
    }
}

proptest! {
    #[test]
    fn whoever_asks_after_a_release_gets_a_larger_token(
        steps in prop::collection::vec((0..4_u8, 0..8_u8), 1..60)
    ) {
        let mut world = World::new();
        let mut last: BTreeMap<u8, Token> = BTreeMap::new();
        for (key, what) in steps {
            if what == 0 {
                world.take_over();
                continue;
            }
            let modes = [LockMode::Shared, LockMode::Update, LockMode::Exclusive];
            let token = world.pass(key, modes[usize::from(what) % 3]);
            if let Some(earlier) = last.insert(key, token) {
                prop_assert!(token > earlier, "{token} after {earlier}");
            }
        }
    }
}
