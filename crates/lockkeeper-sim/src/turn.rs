//! One turn of the table, laid open: what a test may tamper with to see the checker go red.

use lockkeeper_core::{CallId, Effects, Event, Forgetful, Ledger, Record, Reply};

/// Everything that one command caused.
#[derive(Clone, PartialEq, Debug)]
pub struct Turn {
    /// The number of the command.
    pub call: CallId,
    /// What was written.
    pub records: Vec<Record>,
    /// What was answered.
    pub replies: Vec<Reply>,
    /// What was announced.
    pub events: Vec<Event>,
}

impl Turn {
    /// Settles the effects, and lays them open.
    pub fn of(effects: Effects, ledger: &mut Ledger<Forgetful>) -> Turn {
        let call = effects.call();
        let records = effects.records().to_vec();
        // The journal keeps nothing, so it cannot fail; out of order is a bug of the caller.
        let settled = effects.settle(ledger).expect("each turn is settled as it comes");
        let (replies, events) = settled.into_parts();
        Turn { call, records, replies, events }
    }
}
