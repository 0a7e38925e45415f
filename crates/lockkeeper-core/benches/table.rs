//! `cargo bench -p lockkeeper-core --bench table`: what each step of the table costs.

#[allow(dead_code, reason = "each benchmark plays some of the scenes")]
mod scenes;

use divan::Bencher;
use lockkeeper_core::Resource;
use scenes::{Check, HandOver, Ring, Scene};
use std::collections::HashMap;

fn main() {
    divan::main();
}

fn keys() -> Vec<Resource> {
    (0..1_000).map(|n| Resource::file(&format!("src/module_{n}/lib.rs"))).collect()
}

#[divan::bench(sample_count = 200, sample_size = 1_000)]
fn pair_bare_hash_map(bencher: Bencher<'_, '_>) {
    let keys = keys();
    let mut map: HashMap<Resource, u64> = HashMap::new();
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % keys.len();
        map.insert(keys[at].clone(), at as u64);
        map.remove(&keys[at])
    });
}

#[divan::bench(sample_count = 200, sample_size = 1_000)]
fn pair_uncontended(bencher: Bencher<'_, '_>) {
    let keys = keys();
    let mut scene = Scene::new();
    let session = scene.open();
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % keys.len();
        let lock = scene.ask(session, &keys[at]).expect("free");
        scene.release(session, lock)
    });
}

#[divan::bench(args = [1, 10, 1_000, 10_000], sample_count = 100, sample_size = 200)]
fn hand_over(bencher: Bencher<'_, '_>, waiters: usize) {
    let mut scene = HandOver::new(waiters);
    bencher.bench_local(|| scene.step());
}

#[divan::bench(args = [10, 1_000, 100_000], sample_count = 50, sample_size = 100)]
fn check_nobody_waits_for_the_asker(bencher: Bencher<'_, '_>, agents: usize) {
    let mut scene = Check::nobody_waits_for_the_asker(agents);
    bencher.bench_local(|| scene.step());
}

#[divan::bench(args = [10, 1_000, 100_000], sample_count = 20, sample_size = 5)]
fn check_chain(bencher: Bencher<'_, '_>, agents: usize) {
    let mut scene = Check::chain(agents);
    bencher.bench_local(|| scene.step());
}

#[divan::bench(args = [10, 1_000, 10_000, 100_000], sample_count = 50, sample_size = 20)]
fn check_random_degree_three(bencher: Bencher<'_, '_>, agents: usize) {
    let mut scene = Check::random(agents);
    bencher.bench_local(|| scene.step());
}

#[divan::bench(args = [10, 1_000, 100_000], sample_count = 50, sample_size = 20)]
fn check_hot_hub(bencher: Bencher<'_, '_>, agents: usize) {
    let mut scene = Check::hub(agents);
    bencher.bench_local(|| scene.step());
}

#[divan::bench(args = [2, 8, 1_000], sample_count = 30, sample_size = 1)]
fn verdict_on_a_ring(bencher: Bencher<'_, '_>, length: usize) {
    bencher.with_inputs(|| Ring::new(length)).bench_local_refs(Ring::close);
}
