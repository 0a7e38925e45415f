//! The agents: ordinary kameo actors, each with a session of its own. They do one job after the
//! other, badly on purpose: they take locks in any order, overstay leases, and fall over while
//! they hold things. None of them cleans up after itself; that is what the library is for.

use crate::{
    room::{Bounced, Room, Visit},
    tally::one_more,
    world::{Site, World},
};
use kameo::prelude::*;
use lockkeeper::{
    AcquireError, AcquireRequest, AgentContext, ConvertError, LockGuard, LockMode, Lost, Session,
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    panic::panic_any,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How long anybody queues. Long against a deadlock that is broken at once, short against one that
/// is not.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an agent says as it falls over; the panic hook of this program knows it.
pub(crate) const TRIPPED: &str = "tripped over a cable, on purpose";

/// What agents are good at. Their names begin with it.
pub(crate) const ROLES: &[(&str, [u32; 6])] = &[
    //            chain batch review models nap haul
    ("coder", [10, 2, 2, 2, 1, 0]),
    ("reviewer", [2, 0, 12, 2, 1, 0]),
    ("merger", [6, 8, 1, 0, 0, 2]),
    ("planner", [3, 0, 3, 8, 1, 1]),
];

pub(crate) struct Agent {
    session: Session,
    world: Arc<World>,
    site: Arc<Site>,
    weights: [u32; 6],
    /// Whether it goes home now and then, to come back as a new session.
    goes_home: bool,
    dice: SmallRng,
}

/// A lock and the stay in its room. The stay ends first, also when both are dropped in a panic.
struct Held {
    visit: Visit,
    guard: LockGuard,
}

/// Why a job was left. What it held goes back with the last word of the job.
enum Left {
    /// Not obtained, or given up, and counted as such.
    Empty,
    /// A lock that it held is gone.
    Lost,
}

impl From<Bounced> for Left {
    fn from(_: Bounced) -> Left {
        Left::Lost
    }
}

impl Agent {
    /// What it intends is drawn from the seed, its name and its life; what comes of it is a matter
    /// of who is faster.
    pub(crate) fn new(world: &Arc<World>, site: &Arc<Site>, at: usize, it: &AgentContext) -> Agent {
        if it.life() > 1 {
            one_more(&site.tally.restarts);
        }
        let name = format!("{} {} {}", it.project(), it.name(), it.life());
        let seed = name.bytes().fold(world.seed, |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
        });
        Agent {
            session: it.session().clone(),
            world: world.clone(),
            site: site.clone(),
            weights: ROLES[at % ROLES.len()].1,
            goes_home: at.is_multiple_of(3),
            dice: SmallRng::seed_from_u64(seed),
        }
    }
}

impl Actor for Agent {
    type Args = Agent;
    type Error = Infallible;

    async fn on_start(agent: Agent, me: ActorRef<Agent>) -> Result<Agent, Infallible> {
        // Its own mailbox is there and empty.
        let _ = me.tell(NextJob).try_send();
        Ok(agent)
    }
}

/// What an agent tells itself.
struct NextJob;

impl Message<NextJob> for Agent {
    type Reply = ();

    async fn handle(&mut self, _: NextJob, ctx: &mut Context<Self, ()>) {
        if !self.world.is_open() {
            return;
        }
        let pause = self.millis(1.0, 12.0);
        sleep(pause).await;
        if let Err(Left::Lost) = self.job().await {
            one_more(&self.site.tally.left_at_once);
        }
        if self.goes_home && self.dice.random_bool(0.01) {
            return ctx.stop();
        }
        let _ = ctx.actor_ref().tell(NextJob).try_send();
    }
}

impl Agent {
    async fn job(&mut self) -> Result<(), Left> {
        let mut roll = self.dice.random_range(0..self.weights.iter().sum());
        let job = self.weights.iter().position(|&weight| match roll < weight {
            true => true,
            false => {
                roll -= weight;
                false
            }
        });
        match job.unwrap_or(0) {
            0 => self.one_after_the_other().await,
            1 => self.all_at_once().await,
            2 => self.review().await,
            3 => self.ask_a_model().await,
            4 => self.nap().await,
            _ => self.long_haul().await,
        }
    }

    /// Two to four things, each while holding those before it, in any order: the stuff deadlocks
    /// are made of.
    async fn one_after_the_other(&mut self) -> Result<(), Left> {
        let count = self.dice.random_range(2..=4);
        let mut held: Vec<Held> = Vec::with_capacity(count);
        let mut rooms = self.some_rooms(count);
        if self.dice.random_bool(0.4) {
            rooms[0] = self.a_model();
            rooms.shuffle(&mut self.dice);
        }
        for room in &rooms {
            let mode = match room.capacity {
                Some(_) => LockMode::Permit(1),
                None if self.dice.random_bool(0.2) => LockMode::Shared,
                None => LockMode::Exclusive,
            };
            let request = self.session.acquire(room.resource.clone()).mode(mode).wait(PATIENCE);
            // Whoever waits may lose what it has. Then it does not want the rest any more: the
            // request is dropped, and with it the place in the queue.
            let next = tokio::select! {
                next = self.take(room, request) => next?,
                _ = first_lost(&held) => return Err(Left::Lost),
            };
            held.push(next);
            self.work(&held).await?;
        }
        Ok(())
    }

    /// The well-behaved way: all or nothing, and nothing is held while it waits.
    async fn all_at_once(&mut self) -> Result<(), Left> {
        let count = self.dice.random_range(2..=4);
        let rooms = self.some_rooms(count);
        let resources = rooms.iter().map(|room| room.resource.clone());
        let request = self.session.acquire_all(resources).wait(PATIENCE).reason("a merge");
        let asked = Instant::now();
        let guards = request.await.map_err(|error| self.not_obtained(error))?;
        self.obtained(guards.len(), asked);
        let mut held = Vec::with_capacity(count);
        for guard in guards {
            let room = rooms.iter().find(|room| room.resource == *guard.resource());
            let room = room.ok_or(Left::Empty)?;
            held.push(Held { visit: room.enter(&guard).ok_or(Left::Lost)?, guard });
        }
        self.work(&held).await
    }

    /// Reads, then perhaps wants to write: two readers who both do are a deadlock of their own.
    async fn review(&mut self) -> Result<(), Left> {
        let room = self.some_rooms(1).remove(0);
        let mode = match self.dice.random_bool(0.5) {
            true => LockMode::Shared,
            false => LockMode::Update,
        };
        let request = self.session.acquire(room.resource.clone()).mode(mode).wait(PATIENCE);
        let mut held = [self.take(&room, request).await?];
        self.work(&held).await?;
        if self.dice.random_bool(0.6) {
            return Ok(());
        }
        let asked = Instant::now();
        match held[0].guard.upgrade().wait(PATIENCE).await {
            Ok(()) => {
                one_more(&self.site.tally.upgraded);
                self.site.tally.waits.record(asked.elapsed());
            }
            Err(ConvertError::Deadlock(_)) => {
                one_more(&self.site.tally.gave_way);
                return Err(Left::Empty);
            }
            Err(ConvertError::TimedOut { .. } | ConvertError::Busy { .. }) => {
                one_more(&self.site.tally.timed_out);
                return Err(Left::Empty);
            }
            Err(ConvertError::NotHeld { .. }) => return Err(Left::Lost),
            Err(other) => return Err(self.surprised(&other)),
        }
        self.sign_in(&held[0])?;
        self.work(&held).await?;
        // The written is read once more, and others may read it, too.
        held[0].visit.only_reads();
        match held[0].guard.downgrade(LockMode::Shared).await {
            Ok(()) => {}
            Err(ConvertError::NotHeld { .. }) => return Err(Left::Lost),
            Err(other) => return Err(self.surprised(&other)),
        }
        self.sign_in(&held[0])?;
        self.work(&held).await
    }

    /// A slot of a model, or two, perhaps only if it is free.
    async fn ask_a_model(&mut self) -> Result<(), Left> {
        let room = self.a_model();
        let slots = self.dice.random_range(1..=2);
        let request = self.session.acquire(room.resource.clone()).permits(slots);
        let request = match self.dice.random_bool(0.3) {
            true => request.no_wait(),
            false => request.wait(PATIENCE),
        };
        let held = [self.take(&room, request).await?];
        self.work(&held).await
    }

    /// Takes a short lease, sleeps through its end, wakes up, and goes on as if nothing had
    /// happened. It never asks its guard: only the fence can stop it.
    async fn nap(&mut self) -> Result<(), Left> {
        let room = self.some_rooms(1).remove(0);
        let lease = self.millis(15.0, 40.0);
        let request =
            self.session.acquire(room.resource.clone()).wait(PATIENCE).lease(lease).reason("a nap");
        let held = self.take(&room, request).await?;
        let seen = held.visit.begin(&held.guard)?;
        sleep(lease * 3).await;
        held.visit.end(&held.guard, &seen)?;
        Ok(())
    }

    /// Works for several leases; the guard renews itself.
    async fn long_haul(&mut self) -> Result<(), Left> {
        let room = self.some_rooms(1).remove(0);
        let lease = Duration::from_millis(90);
        let request = self.session.acquire(room.resource.clone()).lease(lease).keep_alive();
        let held = self.take(&room, request.wait(PATIENCE)).await?;
        let seen = held.visit.begin(&held.guard)?;
        tokio::select! {
            () = sleep(lease + lease / 2) => {}
            _ = held.guard.lost() => return Err(Left::Lost),
        }
        held.visit.end(&held.guard, &seen)?;
        one_more(&self.site.tally.kept_alive);
        Ok(())
    }

    /// Asks for one lock and enters its room.
    async fn take(&self, room: &Arc<Room>, request: AcquireRequest) -> Result<Held, Left> {
        let asked = Instant::now();
        let guard = request.await.map_err(|error| self.not_obtained(error))?;
        self.obtained(1, asked);
        let visit = room.enter(&guard).ok_or(Left::Lost)?;
        Ok(Held { visit, guard })
    }

    /// Touches what it took last, works for a while, and looks at it again. It leaves at once when
    /// anything it holds is lost.
    async fn work(&mut self, held: &[Held]) -> Result<(), Left> {
        let Some(last) = held.last() else { return Ok(()) };
        let seen = last.visit.begin(&last.guard)?;
        let time = self.millis(0.2, 2.5);
        tokio::select! {
            () = sleep(time) => {}
            _ = first_lost(held) => return Err(Left::Lost),
        }
        if self.dice.random_bool(0.002) {
            one_more(&self.site.tally.panicked);
            panic_any(TRIPPED);
        }
        last.visit.end(&last.guard, &seen)?;
        Ok(())
    }

    fn sign_in(&self, held: &Held) -> Result<(), Left> {
        held.visit.sign_in(&held.guard).then_some(()).ok_or(Left::Lost)
    }

    fn obtained(&self, locks: usize, asked: Instant) {
        for _ in 0..locks {
            one_more(&self.site.tally.grants);
        }
        self.site.tally.waits.record(asked.elapsed());
    }

    fn not_obtained(&self, error: AcquireError) -> Left {
        let tally = &self.site.tally;
        match error {
            AcquireError::Busy { .. } => one_more(&tally.refused),
            AcquireError::TimedOut { .. } => one_more(&tally.timed_out),
            AcquireError::Deadlock(_) => one_more(&tally.gave_way),
            other => return self.surprised(&other),
        }
        Left::Empty
    }

    fn surprised(&self, error: &dyn std::error::Error) -> Left {
        let (project, agent) = (self.session.project(), self.session.agent());
        self.world.surprise(format!("{project}: {agent} was told: {error}"));
        Left::Empty
    }

    fn some_rooms(&mut self, count: usize) -> Vec<Arc<Room>> {
        let mut rooms = self.site.rooms.clone();
        rooms.shuffle(&mut self.dice);
        rooms.truncate(count);
        rooms
    }

    fn a_model(&mut self) -> Arc<Room> {
        let at = self.dice.random_range(0..self.site.models.len());
        self.site.models[at].clone()
    }

    fn millis(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(self.dice.random_range(least..most) / 1000.0)
    }
}

/// Waits until any of them is lost; for ever, if there are none.
async fn first_lost(held: &[Held]) -> Lost {
    let mut watched: Vec<_> = held.iter().map(|one| Box::pin(one.guard.lost())).collect();
    poll_fn(|cx| {
        let lost = watched.iter_mut().find_map(|one| match one.as_mut().poll(cx) {
            Poll::Ready(lost) => Some(lost),
            Poll::Pending => None,
        });
        lost.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
