//! Is a cycle through permits a deadlock?
//!
//! A permit is any one of several, so waiting for permits is only *maybe* waiting for each of their
//! holders. The answer is to play on, on paper: whoever waits for nothing finishes, gives
//! everything back and leaves every queue; the queues move by the real rule; and so on. Who is left
//! when nothing moves any more is deadlocked. Holds that are being revoked end by themselves, so
//! they count as given back.

use super::{
    queue::{Place, Queuer},
    state::State,
};
use crate::{
    LockMode,
    mode::{CLASSES, Class, ClassSet},
    places::{EntryAt, SessionAt, TicketAt},
};
use std::collections::{BTreeMap, BTreeSet};

/// One resource on paper: who would hold it by now.
struct Paper {
    held: [u32; 4],
    permits: u64,
    /// For each class a place up to which everybody has been let in.
    let_in: [Option<Place>; 4],
}

impl Paper {
    fn held_classes(&self) -> ClassSet {
        let held = CLASSES.into_iter().filter(|&class| self.held[class as usize] > 0);
        held.fold(ClassSet::EMPTY, |set, class| set.with(ClassSet::one(class)))
    }
}

/// The state of the game.
struct Game<'a> {
    state: &'a State,
    /// How many needs a session still has.
    needs: BTreeMap<SessionAt, usize>,
    /// Who has finished.
    finished: BTreeSet<SessionAt>,
    /// Which requests have been let in, on paper.
    granted: BTreeSet<TicketAt>,
    papers: BTreeMap<EntryAt, Paper>,
    /// Who may finish.
    ready: Vec<SessionAt>,
    /// Whose queue may move.
    moved: BTreeSet<EntryAt>,
}

impl State {
    /// Of all whom the session waits for, and itself: those who can never go on.
    pub(super) fn irreducible(&mut self, session: SessionAt) -> BTreeSet<SessionAt> {
        let players = self.graph.reachable(session);
        let mut game = Game {
            state: self,
            needs: BTreeMap::new(),
            finished: BTreeSet::new(),
            granted: BTreeSet::new(),
            papers: BTreeMap::new(),
            ready: Vec::new(),
            moved: BTreeSet::new(),
        };
        for player in players {
            let needs = game.state.waits_of(player);
            game.needs.insert(player, needs);
            if needs == 0 {
                game.ready.push(player);
            }
            for ticket in game.state.sessions[player].tickets.places() {
                game.moved.extend(game.state.tickets[ticket].wants.iter().map(|want| want.entry));
            }
        }
        game.play(session);
        game.needs.into_keys().filter(|player| !game.finished.contains(player)).collect()
    }
}

impl Game<'_> {
    /// Plays until nothing moves, or until the one it is about has finished.
    fn play(&mut self, asked: SessionAt) {
        while !self.finished.contains(&asked) {
            if let Some(player) = self.ready.pop() {
                self.finish(player);
            } else if let Some(entry) = self.moved.pop_first() {
                self.move_queue(entry);
            } else {
                return;
            }
        }
    }

    fn finish(&mut self, player: SessionAt) {
        let session = &self.state.sessions[player];
        for &hold in &session.holds {
            let hold = &self.state.holds[hold];
            if hold.revoked_at.is_none() {
                self.take_off(hold.entry, hold.mode);
            }
            self.moved.insert(hold.entry);
        }
        for ticket in session.tickets.places() {
            for want in &self.state.tickets[ticket].wants {
                self.take_off(want.entry, want.mode);
                self.moved.insert(want.entry);
            }
        }
        self.finished.insert(player);
        for waiting in self.state.graph.declared_on(player) {
            self.meet_need(waiting);
        }
    }

    fn meet_need(&mut self, player: SessionAt) {
        if let Some(needs) = self.needs.get_mut(&player) {
            *needs = needs.saturating_sub(1);
            if *needs == 0 {
                self.ready.push(player);
            }
        }
    }

    /// Lets in, on paper, whoever may be, from the first who still waits.
    fn move_queue(&mut self, entry: EntryAt) {
        let state = self.state;
        let queue = &state.entries[entry].queue;
        let mut blocked = ClassSet::EMPTY;
        let waiting = CLASSES.into_iter().filter_map(|class| self.first_waiting(entry, class));
        let mut next = waiting.min_by_key(|(place, _)| *place);
        while let Some((place, queuer)) = next {
            if !self.granted.contains(&queuer.ticket) {
                if self.admits_all(queuer.ticket, place) {
                    self.let_in(queuer.ticket);
                } else {
                    blocked.insert(queuer.mode.class());
                }
            }
            let held = self.paper(entry).held_classes();
            if queue.is_settled_behind(place, blocked, held) {
                return;
            }
            next = queue.nearest_behind(Some(place), ClassSet::ALL);
        }
    }

    /// The first of a class who has not been let in on paper.
    fn first_waiting(&mut self, entry: EntryAt, class: Class) -> Option<(Place, Queuer)> {
        let state = self.state;
        let mut from = self.paper(entry).let_in[class as usize];
        let mut behind = state.entries[entry].queue.all_behind(from, None, class);
        let first = behind.find(|(place, queuer)| {
            let is_in = self.granted.contains(&queuer.ticket);
            if is_in {
                from = Some(*place);
            }
            !is_in
        });
        self.paper(entry).let_in[class as usize] = from;
        first
    }

    fn let_in(&mut self, ticket: TicketAt) {
        self.granted.insert(ticket);
        let waits = &self.state.tickets[ticket];
        for want in &waits.wants {
            let paper = self.paper(want.entry);
            if waits.upgrade {
                // The old mode goes when the new one comes.
                let own = self.state.own_hold(waits.session, want.entry);
                if let Some(own) = own {
                    let mode = self.state.holds[own].mode;
                    self.take_off(want.entry, mode);
                }
            } else {
                paper.permits += u64::from(want.mode.permits());
            }
            self.paper(want.entry).held[want.mode.class() as usize] += 1;
            self.moved.insert(want.entry);
        }
        self.meet_need(waits.session);
    }

    fn admits_all(&mut self, ticket: TicketAt, place: Place) -> bool {
        let waits = &self.state.tickets[ticket];
        waits.wants.iter().all(|want| {
            let own = self
                .state
                .own_hold(waits.session, want.entry)
                .map(|hold| self.state.holds[hold].mode.class());
            !self.is_held_against(want.entry, want.mode, own)
                && !self.any_before(want.entry, place, want.mode.class().conflicts())
        })
    }

    fn is_held_against(&mut self, entry: EntryAt, mode: LockMode, own: Option<Class>) -> bool {
        let total = self.state.entries[entry].slots.as_ref().map_or(0, |slots| slots.total);
        let paper = self.paper(entry);
        if let LockMode::Permit(n) = mode {
            return paper.permits + u64::from(n) > u64::from(total);
        }
        CLASSES.into_iter().any(|class| {
            let own = u32::from(own == Some(class));
            mode.class().conflicts().contains(class) && paper.held[class as usize] > own
        })
    }

    fn any_before(&mut self, entry: EntryAt, place: Place, classes: ClassSet) -> bool {
        CLASSES
            .into_iter()
            .filter(|&class| classes.contains(class))
            .any(|class| self.first_waiting(entry, class).is_some_and(|(first, _)| first < place))
    }

    fn take_off(&mut self, entry: EntryAt, mode: LockMode) {
        let paper = self.paper(entry);
        paper.held[mode.class() as usize] = paper.held[mode.class() as usize].saturating_sub(1);
        paper.permits = paper.permits.saturating_sub(u64::from(mode.permits()));
    }

    /// The resource as it is now, before anybody has moved.
    fn paper(&mut self, entry: EntryAt) -> &mut Paper {
        let state = self.state;
        self.papers.entry(entry).or_insert_with(|| {
            let mut paper = Paper { held: [0; 4], permits: 0, let_in: [None; 4] };
            for (_, hold) in state.entries[entry].holders.iter() {
                let hold = &state.holds[hold];
                if hold.revoked_at.is_none() {
                    paper.held[hold.mode.class() as usize] += 1;
                    paper.permits += u64::from(hold.mode.permits());
                }
            }
            paper
        })
    }
}
