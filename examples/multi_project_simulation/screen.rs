//! What is seen while it runs: a picture that is redrawn in place on a terminal, lines elsewhere.

use crate::{
    news::{Chronicle, Picture},
    tally::read,
    world::World,
};
use lockkeeper::{LockManager, Project, Unavailable};
use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{self, Write as _},
    time::{Duration, Instant},
};

/// How often it looks, and how often the live picture is drawn.
const BEAT: Duration = Duration::from_millis(100);
const BEATS_A_SECOND: usize = 10;

/// A deadlock stays on the screen for so long, because people read slowly.
const READING_TIME: Duration = Duration::from_millis(1500);

pub(crate) struct Screen {
    projects: Vec<Project>,
    live: bool,
    /// How many lines the last picture had.
    drawn: usize,
    /// The grants of each project at each beat of the last second.
    past: VecDeque<Vec<u64>>,
    shown: Option<(Instant, Picture)>,
    started: Instant,
    time: Duration,
}

/// One project at one moment.
struct Now {
    holds: usize,
    tickets: usize,
    grants: u64,
    rate: u64,
    most_wanted: Option<(String, usize)>,
}

impl Screen {
    pub(crate) async fn new(
        manager: &LockManager,
        world: &World,
        live: bool,
        time: Duration,
    ) -> Result<Screen, Unavailable> {
        let mut projects = Vec::new();
        for site in &world.sites {
            projects.push(manager.project(&site.name).await?);
        }
        let past = VecDeque::from([vec![0; projects.len()]]);
        let started = Instant::now();
        Ok(Screen { projects, live, drawn: 0, past, shown: None, started, time })
    }

    /// Watches until the time is over.
    pub(crate) async fn watch(
        &mut self,
        world: &World,
        news: &mut Chronicle,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_line = 0;
        while self.started.elapsed() < self.time {
            beat.tick().await;
            news.catch_up();
            let now = self.look(world).await?;
            if self.live {
                self.draw(world, news, &now)?;
                continue;
            }
            let mut out = io::stdout().lock();
            for picture in news.fresh_pictures() {
                writeln!(out, "{}\n", picture.lines.join("\n"))?;
            }
            let second = self.started.elapsed().as_secs();
            if second > last_line {
                last_line = second;
                writeln!(out, "{}", self.line(world, news, &now))?;
            }
        }
        Ok(())
    }

    async fn look(&mut self, world: &World) -> Result<Vec<Now>, Unavailable> {
        let grants: Vec<u64> = world.sites.iter().map(|site| read(&site.tally.grants)).collect();
        let mut seen = Vec::with_capacity(self.projects.len());
        for (at, project) in self.projects.iter().enumerate() {
            let stats = project.stats().await?;
            let most_wanted = project.contention().await?.into_iter().next();
            let before = self.past.front().map_or(0, |past| past[at]);
            let beats = self.past.len().max(1) as u64;
            seen.push(Now {
                holds: stats.holds,
                tickets: stats.tickets,
                grants: grants[at],
                rate: (grants[at] - before) * BEATS_A_SECOND as u64 / beats,
                most_wanted: most_wanted.map(|one| (one.resource.to_string(), one.waiting)),
            });
        }
        self.past.push_back(grants);
        if self.past.len() > BEATS_A_SECOND {
            self.past.pop_front();
        }
        Ok(seen)
    }

    /// One second in one line.
    fn line(&self, world: &World, news: &Chronicle, now: &[Now]) -> String {
        let sum = |of: fn(&Now) -> u64| now.iter().map(of).sum::<u64>();
        let wanted = now.iter().zip(&world.sites).filter_map(|(now, site)| {
            let (resource, waiting) = now.most_wanted.as_ref()?;
            Some((waiting, format!("{resource} in {}, {waiting} waiting", site.name)))
        });
        let most_wanted = wanted.max_by_key(|(waiting, _)| *waiting);
        let crashes: u64 = world.sites.iter().map(|site| crashes(site)).sum();
        format!(
            "{:>3} s  {:>9} grants, {:>6}/s  {:>4} held {:>4} waiting  {:>5} deadlocks \
             {:>4} crashes  most wanted: {}",
            self.started.elapsed().as_secs(),
            thousands(sum(|now| now.grants)),
            thousands(sum(|now| now.rate)),
            sum(|now| now.holds as u64),
            sum(|now| now.tickets as u64),
            thousands(news.deadlocks()),
            crashes,
            most_wanted.map_or("nothing".to_owned(), |(_, text)| text)
        )
    }

    fn draw(&mut self, world: &World, news: &Chronicle, now: &[Now]) -> io::Result<()> {
        let is_read = self.shown.as_ref().is_none_or(|(at, _)| at.elapsed() > READING_TIME);
        if is_read && let Some(picture) = &news.latest {
            self.shown = Some((Instant::now(), picture.clone()));
        }
        let mut frame = String::new();
        // Writing into a string cannot fail.
        let _ = writeln!(frame, "{}\n", self.progress(news.deadlocks()));
        let _ = writeln!(
            frame,
            "\x1b[1m{:<12}{:>8}{:>9}{:>10}{:>11}{:>9}   most wanted\x1b[0m",
            "", "holding", "waiting", "grants/s", "deadlocks", "crashes"
        );
        for (site, now) in world.sites.iter().zip(now) {
            let deadlocks = news.told.get(site.name.as_str()).map_or(0, |told| told.deadlocks());
            let wanted = match &now.most_wanted {
                Some((resource, waiting)) => format!("{resource} {}", "•".repeat(*waiting)),
                None => String::new(),
            };
            let _ = writeln!(
                frame,
                "{:<12}{:>8}{:>9}{:>10}{:>11}{:>9}   {wanted}",
                site.name,
                now.holds,
                now.tickets,
                thousands(now.rate),
                thousands(deadlocks),
                crashes(site)
            );
        }
        frame.push('\n');
        for line in self.shown.iter().flat_map(|(_, picture)| &picture.lines) {
            let colour = if line.contains('✗') { "\x1b[31m" } else { "" };
            let _ = writeln!(frame, "{colour}{line}\x1b[0m");
        }
        self.show(&frame)
    }

    fn progress(&self, deadlocks: u64) -> String {
        const WIDTH: usize = 30;
        let (gone, all) = (self.started.elapsed().as_secs_f64(), self.time.as_secs_f64());
        let full = ((gone / all).min(1.0) * WIDTH as f64) as usize;
        let (full, empty) = ("━".repeat(full), "─".repeat(WIDTH - full));
        let gone = gone.min(all);
        format!("{full}\x1b[2m{empty}\x1b[0m {gone:.1} s   {deadlocks} deadlocks broken")
    }

    /// Draws over what was drawn last. Long lines are cut, not wrapped: else it would not fit.
    fn show(&mut self, frame: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.drawn > 0 {
            write!(out, "\x1b[{}F", self.drawn)?;
        }
        write!(out, "\x1b[?7l\x1b[J{frame}\x1b[?7h")?;
        self.drawn = frame.lines().count();
        out.flush()
    }

    /// Takes the live picture away, to make room for the table.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if self.live {
            self.show("")?;
        }
        Ok(())
    }
}

fn crashes(site: &crate::world::Site) -> u64 {
    read(&site.tally.panicked) + read(&site.tally.killed)
}

/// 1,234,567.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
