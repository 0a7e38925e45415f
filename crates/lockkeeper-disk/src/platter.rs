//! What must be on the platter, what may be, and what a power cut leaves.

use crate::{Event, disk::is_passing};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Which of all that may be left is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// What must be there, and nothing else.
    Synced,
    /// All that was written; of failed syncs nothing.
    Written,
    /// All that was written, also what a failed sync had given up.
    Cached,
    /// All that was written, but of the last write any sectors.
    Torn(u64),
    /// Of each sector, length and name any state it had since it was synced.
    Any(u64),
}

/// The files of a folder after a power cut, by name.
pub type Left = BTreeMap<String, Vec<u8>>;

/// The state of a disk: replays its log.
#[derive(Clone, Default, Debug)]
pub struct Platter {
    files: BTreeMap<usize, File>,
    names: BTreeMap<String, Name>,
    events: u64,
}

/// One file. `synced` must be there, `cache` is what everybody sees.
#[derive(Clone, Default, Debug)]
struct File {
    synced: Vec<u8>,
    cache: Vec<u8>,
    waiting: Unsure,
    /// What failed syncs have given up.
    given_up: Unsure,
}

/// States that may be there instead of what was synced, each with the event that made it.
#[derive(Clone, Default, Debug)]
struct Unsure {
    sectors: BTreeMap<usize, Vec<(u64, Vec<u8>)>>,
    lengths: Vec<(u64, usize)>,
}

/// Which file a name leads to: surely, and after each change since.
#[derive(Clone, Default, Debug)]
struct Name {
    synced: Option<usize>,
    waiting: Vec<Option<usize>>,
}

/// Numbers that look random; the same for the same seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }
}

impl Platter {
    pub(crate) fn new(before: &BTreeMap<String, Vec<u8>>) -> Platter {
        let mut platter = Platter::default();
        for (number, (name, bytes)) in before.iter().enumerate() {
            let (synced, cache) = (bytes.clone(), bytes.clone());
            platter.files.insert(number, File { synced, cache, ..File::default() });
            let name_of = Name { synced: Some(number), waiting: Vec::new() };
            platter.names.insert(name.clone(), name_of);
        }
        platter
    }

    /// Takes in what happened next.
    pub fn replay(&mut self, event: &Event) {
        self.events += 1;
        let now = self.events;
        match event {
            Event::Made(file, name) => {
                self.files.entry(*file).or_default();
                self.names.entry(name.clone()).or_default().waiting.push(Some(*file));
            }
            Event::Removed(name) => {
                self.names.entry(name.clone()).or_default().waiting.push(None);
            }
            Event::FolderSynced => self.names.values_mut().for_each(|name| {
                if let Some(last) = name.waiting.pop() {
                    *name = Name { synced: last, waiting: Vec::new() };
                }
            }),
            Event::Wrote(file, at, bytes) => self.file(*file).write(now, *at, bytes),
            Event::Cut(file, length) => self.file(*file).cut(now, *length),
            Event::Synced(file) => self.file(*file).sync(),
            Event::SyncFailed(file) => self.file(*file).give_up(),
        }
    }

    fn file(&mut self, number: usize) -> &mut File {
        self.files.entry(number).or_default()
    }

    /// What a power cut leaves now.
    pub fn leave(&self, cut: Cut) -> Left {
        let mut dice = match cut {
            Cut::Torn(seed) | Cut::Any(seed) => Dice::new(seed),
            Cut::Synced | Cut::Written | Cut::Cached => Dice::new(0),
        };
        let mut left = Left::new();
        for (name, of) in &self.names {
            let file = match cut {
                Cut::Synced => of.synced,
                Cut::Any(_) => match dice.below(of.waiting.len() + 1) {
                    0 => of.synced,
                    nth => of.waiting[nth - 1],
                },
                _ => of.waiting.last().copied().unwrap_or(of.synced),
            };
            if let Some(file) = file.and_then(|file| self.files.get(&file)) {
                left.insert(name.clone(), file.leave(cut, self.events, &mut dice));
            }
        }
        left
    }
}

impl File {
    fn write(&mut self, now: u64, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.waiting.lengths.push((now, end));
        }
        self.cache[at..end].copy_from_slice(bytes);
        self.touch(now, at, end);
    }

    fn cut(&mut self, now: u64, length: usize) {
        let (from, to) = (self.cache.len().min(length), self.cache.len().max(length));
        self.cache.resize(length, 0);
        self.waiting.lengths.push((now, length));
        self.touch(now, from, to);
    }

    /// The sectors between two places have another state now.
    fn touch(&mut self, now: u64, from: usize, to: usize) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let bytes = sector_of(&self.cache, sector).to_vec();
            self.waiting.sectors.entry(sector).or_default().push((now, bytes));
        }
    }

    fn sync(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.lengths.is_empty() {
            self.synced.resize(self.cache.len(), 0);
            self.given_up.lengths.clear();
        }
        for &sector in waiting.sectors.keys() {
            self.given_up.sectors.remove(&sector);
            let bytes = sector_of(&self.cache, sector);
            let at = sector * SECTOR;
            // What was given up may be what made the file longer.
            if self.synced.len() < at + bytes.len() {
                self.synced.resize(at + bytes.len(), 0);
            }
            self.synced[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn give_up(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.given_up.lengths.extend(waiting.lengths);
        for (sector, states) in waiting.sectors {
            self.given_up.sectors.entry(sector).or_default().extend(states);
        }
    }

    fn leave(&self, cut: Cut, last: u64, dice: &mut Dice) -> Vec<u8> {
        let given_up: &[&Unsure] = match cut {
            Cut::Written | Cut::Torn(_) => &[&self.waiting],
            _ => &[&self.given_up, &self.waiting],
        };
        match cut {
            Cut::Synced => self.synced.clone(),
            Cut::Cached => self.cache.clone(),
            Cut::Written | Cut::Torn(_) | Cut::Any(_) => {
                let mut lengths = vec![self.synced.len()];
                let of = given_up.iter().flat_map(|unsure| &unsure.lengths);
                lengths.extend(of.map(|&(_, length)| length));
                let nth =
                    if let Cut::Any(_) = cut { dice.below(lengths.len()) } else { usize::MAX };
                let length = lengths[nth.min(lengths.len() - 1)];
                let mut bytes = self.synced.clone();
                bytes.resize(bytes.len().max(length), 0);
                if let Cut::Any(_) = cut {
                    self.fill_with_anything(&mut bytes, dice);
                }
                let touched: BTreeSet<usize> =
                    given_up.iter().flat_map(|unsure| unsure.sectors.keys().copied()).collect();
                for sector in touched {
                    let of = given_up.iter().filter_map(|unsure| unsure.sectors.get(&sector));
                    let states: Vec<&(u64, Vec<u8>)> = of.flatten().collect();
                    let stays = match cut {
                        Cut::Any(_) => dice.below(states.len() + 1),
                        Cut::Torn(_) if states.last().is_some_and(|state| state.0 == last) => {
                            states.len() - dice.below(2)
                        }
                        _ => states.len(),
                    };
                    if let Some((_, state)) = stays.checked_sub(1).map(|nth| states[nth]) {
                        put(&mut bytes, sector * SECTOR, state);
                    }
                }
                bytes.truncate(length);
                bytes
            }
        }
    }

    /// What lies behind the synced end is zeros, or was never wiped.
    fn fill_with_anything(&self, bytes: &mut [u8], dice: &mut Dice) {
        if dice.below(2) == 0 {
            let new = bytes.iter_mut().skip(self.synced.len());
            new.for_each(|byte| *byte = dice.below(256) as u8);
        }
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> &[u8] {
    let from = (sector * SECTOR).min(bytes.len());
    &bytes[from..(from + SECTOR).min(bytes.len())]
}

/// As much as there is room for.
fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(room) = bytes.get_mut(at..) {
        let count = what.len().min(room.len());
        room[..count].copy_from_slice(&what[..count]);
    }
}

/// Makes a folder hold exactly what was left. What is no part of it, such as the memory that
/// connections shared, is gone.
pub fn lay_out(left: &Left, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_passing(&name) || !left.contains_key(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    left.iter().try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platter(events: &[Event]) -> Platter {
        let mut platter = Platter::default();
        events.iter().for_each(|event| platter.replay(event));
        platter
    }

    fn made() -> Vec<Event> {
        vec![Event::Made(0, "a".to_owned()), Event::FolderSynced]
    }

    fn wrote(at: usize, byte: u8) -> Event {
        Event::Wrote(0, at, vec![byte; SECTOR])
    }

    /// All contents that chance finds.
    fn all(platter: &Platter) -> BTreeSet<Option<Vec<u8>>> {
        (0..200).map(|seed| platter.leave(Cut::Any(seed)).remove("a")).collect()
    }

    #[test]
    fn what_was_synced_is_there_and_nothing_else_is_sure() {
        let mut events = made();
        events.extend([wrote(0, 1), Event::Synced(0), wrote(0, 2), wrote(0, 3)]);
        let platter = platter(&events);
        assert_eq!(platter.leave(Cut::Synced)["a"], [1; SECTOR]);
        assert_eq!(platter.leave(Cut::Written)["a"], [3; SECTOR]);
        let any: BTreeSet<_> = [1, 2, 3].map(|byte| Some(vec![byte; SECTOR])).into();
        assert_eq!(all(&platter), any);
    }

    /// The sectors of one write come one by one.
    #[test]
    fn a_write_can_be_torn() {
        let mut events = made();
        events.extend([wrote(0, 1), wrote(SECTOR, 1), Event::Synced(0)]);
        events.push(Event::Wrote(0, 0, vec![2; 2 * SECTOR]));
        let platter = platter(&events);
        let torn = (0..40).map(|seed| platter.leave(Cut::Torn(seed)).remove("a").unwrap());
        let torn: BTreeSet<[u8; 2]> = torn.map(|bytes| [bytes[0], bytes[SECTOR]]).collect();
        assert_eq!(torn, [[1, 1], [1, 2], [2, 1], [2, 2]].into());
    }

    #[test]
    fn names_are_sure_when_the_folder_is_synced() {
        let mut events = vec![Event::Made(0, "a".to_owned()), wrote(0, 1), Event::Synced(0)];
        assert!(platter(&events).leave(Cut::Synced).is_empty());
        assert!(all(&platter(&events)).contains(&None));
        events.extend([Event::FolderSynced, Event::Removed("a".to_owned())]);
        assert_eq!(platter(&events).leave(Cut::Synced)["a"], [1; SECTOR]);
        assert!(platter(&events).leave(Cut::Written).is_empty());
    }

    /// No later sync brings back what a failed one gave up; writing it again does.
    #[test]
    fn a_sync_after_a_failed_one_proves_nothing() {
        let mut events = made();
        events.extend([wrote(0, 1), Event::Synced(0), wrote(0, 2), Event::SyncFailed(0)]);
        events.extend([wrote(SECTOR, 3), Event::Synced(0)]);
        let first = |platter: &Platter, cut| platter.leave(cut)["a"][0];
        assert_eq!(first(&platter(&events), Cut::Synced), 1);
        assert_eq!(first(&platter(&events), Cut::Written), 1);
        assert_eq!(first(&platter(&events), Cut::Cached), 2);
        assert_eq!(all(&platter(&events)).len(), 2);
        events.extend([wrote(0, 2), Event::Synced(0)]);
        assert_eq!(first(&platter(&events), Cut::Synced), 2);
    }
}
