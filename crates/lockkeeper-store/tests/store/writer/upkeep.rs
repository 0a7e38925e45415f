//! What is done for the store when everybody is told: what it is owed, and what is old.

use super::{Fate, Gate, all, claim, gated, submit, table, turn};
use lockkeeper_store::{Claim, Retention, Writer, WriterOptions};
use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

/// Moving a log into its file may take long. Whoever was written for does not wait for it, and
/// whoever writes in place does not do it.
#[test]
fn the_store_gets_what_it_is_owed_when_everybody_is_told() {
    for in_place in [false, true] {
        let (writer, gate) = gated(WriterOptions { in_place, ..WriterOptions::default() });
        let claim = claim(&writer, "p");
        let mut table = table(&claim);
        let (told, hears) = channel();
        // With the commit, and not before: the claim may still be followed by some upkeep.
        gate.change(|state| state.gets_untidy = true);
        gate.pass(Fate::Passes);
        submit(&writer, &claim, turn(&mut table), "told", &told);
        assert_eq!(hears.recv(), Ok(("told", Ok(()))), "upkeep stands at the gate");
        gate.wait(|state| state.tidied == 1);
        submit(&writer, &claim, turn(&mut table), "later", &told);
        gate.open();
        writer.close();
        assert_eq!(all(&hears), [("later", Ok(()))]);
        assert_eq!(gate.state.lock().unwrap().tidied, 1);
    }
}

#[test]
fn what_is_old_is_removed_when_there_is_nothing_else_to_do() {
    let every = Duration::from_millis(1);
    let retention = Retention { every, ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention, ..WriterOptions::default() });
    gate.wait(|state| state.pruned >= 5);
    drop(writer);
    let never = Retention { released: None, audit: None, every };
    let (writer, gate) = gated(WriterOptions { retention: never, ..WriterOptions::default() });
    gate.open();
    let _ = claim(&writer, "p");
    writer.close();
    assert_eq!(gate.state.lock().unwrap().pruned, 0);
}

/// Not before it is due; and then not only when there is a moment without work, which may not come.
#[test]
fn what_is_old_is_left_alone_until_it_is_due_and_then_removed_between_other_work() {
    let began = Instant::now();
    let (writer, gate) = gated(WriterOptions::default());
    gate.open();
    for _ in 0..5 {
        let _ = claim(&writer, "p");
    }
    writer.close();
    // On a machine that took so long it was due.
    let is_due = began.elapsed() >= Duration::from_secs(1);
    assert!(gate.state.lock().unwrap().pruned == 0 || is_due);

    let often = Retention { every: Duration::from_millis(1), ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention: often, ..WriterOptions::default() });
    gate.open();
    let claim = claim(&writer, "p");
    let (told, hears) = channel();
    Busy { writer, claim, gate, told, until: Instant::now() + Duration::from_secs(2), left: 100 }
        .goes_on();
    assert!(hears.recv().unwrap(), "nothing was removed while there was other work");
}

/// Hands in the next thing to do whenever one is done, on the writer's own thread: so it never
/// finds its queue empty. Ends when something was removed, or when it has long been due.
struct Busy {
    writer: Writer,
    claim: Claim,
    gate: Arc<Gate>,
    told: Sender<bool>,
    until: Instant,
    /// How many rounds more, behind that.
    left: u32,
}

impl Busy {
    fn goes_on(mut self) {
        let (writer, claim) = (self.writer.clone(), self.claim.clone());
        writer.after(&claim, move |_| {
            let has_pruned = self.gate.state.lock().unwrap().pruned > 0;
            if has_pruned || self.left == 0 {
                return self.told.send(has_pruned).unwrap();
            }
            self.left -= u32::from(Instant::now() > self.until);
            self.goes_on();
        });
    }
}

/// A time too long to be told is never, and a store that panics takes nobody with it.
#[test]
fn whatever_becomes_of_removing_what_is_old_the_writer_goes_on() {
    let seldom = Retention { every: Duration::MAX, ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention: seldom, ..WriterOptions::default() });
    gate.open();
    gate.wait(|state| state.pruned >= 3);
    let _ = claim(&writer, "p");
    writer.close();
    assert_eq!(gate.state.lock().unwrap().pruned, 3);
    let often = Retention { every: Duration::from_millis(1), ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention: often, ..WriterOptions::default() });
    gate.change(|state| state.prune_panics = true);
    gate.open();
    gate.wait(|state| state.pruned >= 3);
    let _ = claim(&writer, "p");
    writer.close();
}
