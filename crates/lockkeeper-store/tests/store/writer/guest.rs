//! Whoever brings a turn writes it in place, where nothing can keep him there.

use super::{Fate, all, claim, gated, submit, table, turn};
use lockkeeper_store::{Retention, StoreError, WriterOptions};
use std::{sync::mpsc::channel, time::Duration};

fn in_place() -> WriterOptions {
    // Nothing old that the thread would come by for.
    let retention = Retention { released: None, audit: None, ..Retention::default() };
    WriterOptions { in_place: true, retention, ..WriterOptions::default() }
}

#[test]
fn where_nothing_happens_whoever_brings_a_turn_writes_it() {
    let (writer, gate) = gated(in_place());
    gate.open();
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let me = std::thread::current().id();
    // The first one ever, and those that come a moment after another one.
    for _ in 0..3 {
        // Right behind the claim the thread may still be at the desk.
        let is_written_here = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let (told, hears) = channel();
            writer.submit(&claim, turn(&mut table), move |outcome| {
                drop(outcome.expect("it is written"));
                told.send(std::thread::current().id()).unwrap();
            });
            // Whoever wrote it: here only if it was told before the call returned.
            hears.try_recv() == Ok(me)
        });
        assert!(is_written_here, "the thread wrote every one of them");
    }
    let inner = writer.clone();
    std::thread::sleep(Duration::from_millis(1));
    // A desk that is taken is waited for by nobody, not even by whoever sits there.
    writer.submit(&claim, turn(&mut table), move |_| inner.close());
    writer.close();
    let (told, hears) = channel();
    writer.submit(&claim, turn(&mut table), move |outcome| told.send(outcome.map(drop)).unwrap());
    assert_eq!(hears.recv(), Ok(Err(StoreError::Closed)));
}

/// Whoever brings a turn may have to go on at once; a disk may take its time.
#[test]
fn what_may_wait_for_a_disk_is_never_written_by_whoever_brings_it() {
    let (writer, gate) = gated(in_place());
    gate.change(|state| state.may_wait = true);
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    for name in ["first", "second"] {
        std::thread::sleep(Duration::from_millis(1));
        // With the gate closed this would not return.
        submit(&writer, &claim, turn(&mut table), name, &told);
        gate.wait(|state| state.came.len() == if name == "first" { 1 } else { 2 });
        assert_eq!(all(&hears), []);
        gate.pass(Fate::Passes);
        assert_eq!(hears.recv(), Ok((name, Ok(()))));
    }
}

#[test]
fn nobody_writes_what_others_are_writing_already() {
    let (writer, gate) = gated(in_place());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    let first = turn(&mut table);
    std::thread::scope(|scope| {
        let (writer, claim, its) = (&writer, &claim, told.clone());
        scope.spawn(move || submit(writer, claim, first, "first", &its));
        gate.wait(|state| state.came.len() == 1);
        // Whoever it is that stands at the gate, here or in the thread: nobody joins them.
        submit(writer, claim, turn(&mut table), "second", &told);
        submit(writer, claim, turn(&mut table), "third", &told);
        gate.open();
    });
    // Whoever was there sees to them, and nobody has to come by.
    let heard = [(); 3].map(|()| hears.recv().unwrap());
    assert_eq!(heard, [("first", Ok(())), ("second", Ok(())), ("third", Ok(()))]);
    writer.close();
    assert_eq!(gate.came().len(), 2, "what came meanwhile went together");
}

#[test]
fn nobody_overtakes_what_was_handed_in_before() {
    for _ in 0..50 {
        let (writer, gate) = gated(in_place());
        gate.open();
        let claim = claim(&writer, "p");
        let mut table = table(&claim);
        let (told, hears) = channel();
        // The thread has hardly woken for this one when the turn comes.
        let first = told.clone();
        writer.after(&claim, move |outcome| first.send(("first", outcome)).unwrap());
        submit(&writer, &claim, turn(&mut table), "second", &told);
        writer.close();
        assert_eq!(all(&hears), [("first", Ok(())), ("second", Ok(()))]);
    }
}
