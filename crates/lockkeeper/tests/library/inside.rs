//! Nobody is inside who should not be: many agents, few resources, all modes, and a count.

use crate::support::{Bench, DEMO, Dice, Room, Visit, both, file, yields};
use lockkeeper::{LockGuard, LockMode, Resource, Session};
use std::sync::Arc;

/// Eight rooms: five with lock modes, three with slots.
pub async fn rooms(bench: &Bench) -> Arc<[Arc<Room>]> {
    let demo = bench.demo().await;
    let mut rooms: Vec<Arc<Room>> =
        (0..5).map(|n| Room::new(file(&format!("room-{n}")), None)).collect();
    for slots in 1..=3 {
        let llm = Resource::llm(&format!("model-{slots}"));
        demo.declare_capacity(llm.clone(), Some(slots)).await.unwrap();
        rooms.push(Room::new(llm, Some(slots)));
    }
    rooms.into()
}

/// What is held and who is inside, in the order in which it has to be given up.
pub struct Inside {
    visit: Visit,
    guard: LockGuard,
}

/// An agent's life: into one room after the other, in any mode, now and then into several at once.
pub async fn live(session: Session, rooms: Arc<[Arc<Room>]>, mut dice: Dice, rounds: usize) {
    for round in 0..rounds {
        if dice.below(10) == 0 {
            several(&session, &rooms, &mut dice).await;
            continue;
        }
        let room = &rooms[dice.below(rooms.len())];
        let ask = session.acquire(room.resource.clone());
        let ask = match (room.capacity, dice.below(4)) {
            (Some(slots), _) => ask.permits(1 + dice.below(slots as usize) as u32),
            (None, 0) => ask.shared(),
            (None, 1) => ask.update(),
            (None, _) => ask.exclusive(),
        };
        let guard = ask.reason(format!("round {round}")).await.unwrap();
        assert!(guard.is_valid());
        let mut inside = Inside { visit: room.enter(&guard), guard };
        yields(dice.below(3)).await;
        if inside.guard.mode() == LockMode::Update && dice.below(2) == 0 {
            inside.guard.upgrade().await.unwrap();
            inside.visit.changed(&inside.guard);
            yields(1).await;
        }
        let Inside { visit, guard } = inside;
        drop(visit);
        match dice.below(2) {
            0 => guard.release().await.unwrap(),
            _ => drop(guard),
        }
    }
}

async fn several(session: &Session, rooms: &[Arc<Room>], dice: &mut Dice) {
    let first = dice.below(5);
    let wanted = [first, (first + 1) % 5, 5 + dice.below(3)];
    let wants = wanted.map(|at| match rooms[at].capacity {
        Some(_) => (rooms[at].resource.clone(), LockMode::Permit(1)),
        None if at == 0 => (rooms[at].resource.clone(), LockMode::Shared),
        None => (rooms[at].resource.clone(), LockMode::Exclusive),
    });
    let guards = session.acquire_each(wants).await.unwrap();
    assert_eq!(guards.len(), 3);
    let visits = wanted.map(|at| rooms[at].enter(guards.get(&rooms[at].resource).unwrap()));
    yields(1).await;
    drop(visits);
    drop(guards);
}

both!(threads: sixty_four_agents_and_eight_rooms, one_room_in_turns, hand_over_in_order);

/// I1, I2, I5, I8, I11, I15, I18.
async fn sixty_four_agents_and_eight_rooms(bench: Bench) {
    let rooms = rooms(&bench).await;
    let rounds = if bench.is_on_file() { 12 } else { 25 };
    let mut agents = Vec::new();
    for n in 0..64 {
        let session = bench.session(&format!("agent-{n}")).await;
        agents.push(tokio::spawn(live(session, rooms.clone(), Dice::new(n), rounds)));
    }
    for agent in agents {
        agent.await.unwrap();
    }
    for room in rooms.iter() {
        room.check();
        assert!(room.visits() > 0, "nobody was ever in {}", room.resource);
    }
    bench.close_empty().await;
}

/// I1: as many as can be want one and the same lock, and hold it for a moment only.
async fn one_room_in_turns(bench: Bench) {
    let room = Room::new(file("src/main.rs"), None);
    let mut agents = Vec::new();
    for n in 0..16 {
        let (session, room) = (bench.session(&format!("agent-{n}")).await, room.clone());
        agents.push(tokio::spawn(async move {
            for _ in 0..40 {
                let guard = session.acquire(room.resource.clone()).await.unwrap();
                let visit = room.enter(&guard);
                tokio::task::yield_now().await;
                drop((visit, guard));
            }
        }));
    }
    for agent in agents {
        agent.await.unwrap();
    }
    room.check();
    assert_eq!(room.visits(), 16 * 40);
    bench.close_empty().await;
}

/// I9: locks are granted in the order in which they were asked for, each with a larger token.
async fn hand_over_in_order(bench: Bench) {
    let (lock, demo) = (file("queue"), bench.demo().await);
    let first = bench.session("first").await.acquire(lock.clone()).await.unwrap();
    let order = Arc::new(std::sync::Mutex::new(vec![(0, first.token())]));
    let mut agents = Vec::new();
    for n in 1..=50 {
        let session = bench.session(&format!("agent-{n}")).await;
        let (order, asked) = (order.clone(), lock.clone());
        agents.push(tokio::spawn(async move {
            let guard = session.acquire(asked).await.unwrap();
            order.lock().unwrap().push((n, guard.token()));
            guard.release().await.unwrap();
        }));
        crate::support::until("queued", async || {
            demo.queue(lock.clone()).await.unwrap().len() == n
        })
        .await;
    }
    drop(first);
    for agent in agents {
        agent.await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    assert_eq!(order.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..=50).collect::<Vec<_>>());
    assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1), "I2: {order:?}");
    bench.close_empty().await;
}

/// I1: locks of two projects never conflict, whatever they are called.
#[tokio::test]
async fn two_projects_are_two_worlds() {
    let bench = Bench::file().await;
    let here = bench.session("a").await.acquire(file("x")).await.unwrap();
    let there = bench.manager.session("elsewhere", "a").await.unwrap();
    let there = there.acquire(file("x")).no_wait().await.unwrap();
    assert!(here.is_valid() && there.is_valid());
    let held = async |name| bench.manager.project(name).await.unwrap().list().await;
    assert_eq!(held(DEMO).await.unwrap().len(), 1);
    assert_eq!(held("elsewhere").await.unwrap().len(), 1);
    drop(here);
    assert_eq!(held(DEMO).await.unwrap().len(), 0);
    assert!(there.is_valid());
    drop(there);
    bench.close_empty().await;
}
