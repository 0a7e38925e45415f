//! The closing table: one column for each project, and one for all of them.

use crate::{
    check::{Kept, OnRecord},
    news::{Chronicle, Told},
    room::Most,
    screen::thousands,
    tally::{Histogram, Tally, read},
    world::{Site, World},
};
use std::{io::Write, time::Duration};

const LABEL: usize = 26;
const COLUMN: usize = 11;

/// Deadlocks of so many agents and more are one row.
const LONG_RING: usize = 6;

/// What is told of some projects: of one, or of all.
struct View<'a> {
    sites: Vec<&'a Site>,
    told: Vec<&'a Told>,
    kept: Vec<&'a OnRecord>,
}

impl View<'_> {
    fn sum(&self, of: impl Fn(&Tally) -> u64) -> String {
        thousands(self.sites.iter().map(|site| of(&site.tally)).sum())
    }

    fn told(&self, of: impl Fn(&Told) -> u64) -> String {
        thousands(self.told.iter().map(|told| of(told)).sum())
    }

    fn wait(&self, share: f64) -> String {
        let all: Vec<&Histogram> = self.sites.iter().map(|site| &site.tally.waits).collect();
        millis(Histogram::quantile(&all, share))
    }

    fn rooms(&self, of: impl Fn(&crate::room::Room) -> u64) -> String {
        thousands(self.sites.iter().flat_map(|site| site.all_rooms()).map(|room| of(room)).sum())
    }

    fn most(&self) -> Most {
        let rooms = self.sites.iter().flat_map(|site| &site.rooms);
        rooms.fold(Most::default(), |most, room| most.or(room.most()))
    }

    /// The most slots in use of the nth model, and how many it has.
    fn slots(&self, nth: usize) -> String {
        let models = || self.sites.iter().filter_map(|site| site.models.get(nth));
        let used = models().map(|model| model.most().permits).max().unwrap_or(0);
        let all = models().filter_map(|model| model.capacity).max().unwrap_or(0);
        format!("{used} of {all}")
    }
}

/// Prints the table.
pub(crate) fn print(
    out: &mut impl Write,
    world: &World,
    news: &Chronicle,
    kept: &Kept,
) -> std::io::Result<()> {
    let told = |site: &Site| news.told.get(site.name.as_str());
    let mut views: Vec<View<'_>> = Vec::new();
    for site in &world.sites {
        views.push(View {
            sites: vec![site],
            told: told(site).into_iter().collect(),
            kept: kept.by_project.get(&site.name).into_iter().collect(),
        });
    }
    let sites: Vec<&Site> = world.sites.iter().map(|site| &**site).collect();
    let all_told = news.told.values().collect();
    let mut head: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    head.push("all");
    views.push(View { sites, told: all_told, kept: kept.by_project.values().collect() });

    row(out, "", head.iter().map(|name| name.to_string()))?;
    let mut line =
        |label: &str, cell: &dyn Fn(&View<'_>) -> String| row(out, label, views.iter().map(cell));
    line("locks granted", &|view| view.sum(|tally| read(&tally.grants)))?;
    line("  wait, median", &|view| view.wait(0.5))?;
    line("  wait, p99", &|view| view.wait(0.99))?;
    line("readers turned writers", &|view| view.sum(|tally| read(&tally.upgraded)))?;
    line("not free, did not wait", &|view| view.sum(|tally| read(&tally.refused)))?;
    line("waited in vain", &|view| view.sum(|tally| read(&tally.timed_out)))?;
    line("deadlocks broken", &|view| view.told(Told::deadlocks))?;
    for length in 2..LONG_RING {
        let of = |told: &Told| told.by_length.get(&length).copied().unwrap_or(0);
        line(&format!("  of {length} agents"), &|view| view.told(of))?;
    }
    let of_more = |told: &Told| told.by_length.range(LONG_RING..).map(|(_, count)| count).sum();
    line(&format!("  of {LONG_RING} or more"), &|view| view.told(of_more))?;
    line("  agents that gave way", &|view| view.told(|told| told.victims.len() as u64))?;
    line("locks revoked", &|view| view.told(|told| told.revoked))?;
    line("  by an operator", &|view| view.sum(|tally| read(&tally.forced)))?;
    line("leases overstayed", &|view| view.told(|told| told.expired))?;
    line("  found inside, evicted", &|view| view.rooms(|room| read(&room.evicted)))?;
    line("  stale, bounced", &|view| view.rooms(|room| read(&room.bounced)))?;
    line("kept alive to the end", &|view| view.sum(|tally| read(&tally.kept_alive)))?;
    line("left at once, lock lost", &|view| view.sum(|tally| read(&tally.left_at_once)))?;
    line("agents that panicked", &|view| view.sum(|tally| read(&tally.panicked)))?;
    line("agents killed", &|view| view.sum(|tally| read(&tally.killed)))?;
    line("agents started again", &|view| view.sum(|tally| read(&tally.restarts)))?;
    line("most inside at once", &|_| String::new())?;
    line("  exclusive", &|view| view.most().exclusive.to_string())?;
    line("  readers", &|view| view.most().readers.to_string())?;
    line("  slots of llm:large", &|view| view.slots(0))?;
    line("  slots of llm:small", &|view| view.slots(1))?;
    line("left behind", &|view| thousands(view.kept.iter().map(|kept| kept.left()).sum()))
}

fn row(
    out: &mut impl Write,
    label: &str,
    cells: impl Iterator<Item = String>,
) -> std::io::Result<()> {
    let cells: String = cells.map(|cell| format!("{cell:>COLUMN$}")).collect();
    writeln!(out, "{}", format!("{label:<LABEL$}{cells}").trim_end())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
