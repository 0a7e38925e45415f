//! libFuzzer in front of one target, by the name in `LOCKKEEPER_FUZZ`. How to run it is in
//! `docs/reliability.md`.
#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("LOCKKEEPER_FUZZ").expect("LOCKKEEPER_FUZZ names a target");
        let found = lockkeeper_fuzz::TARGETS.iter().find(|target| target.name == name);
        found.expect("there is no such target").run
    });
    run(bytes);
});
