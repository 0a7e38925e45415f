//! Notes that outlive whoever writes them: one file for each process, one line for each note.

use lockkeeper_sim::history::{Note, What};
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Nanoseconds of the one clock that all processes of a machine share, and that nobody sets.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Where one process writes.
pub(crate) struct Diary {
    process: u32,
    file: File,
    calls: AtomicU64,
}

impl Diary {
    pub(crate) fn open(folder: &Path, process: u32) -> Diary {
        let path = folder.join(format!("notes-{process}"));
        let file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
        Diary { process, file, calls: AtomicU64::new(0) }
    }

    /// A line is one write: it is there in one piece, or cut off at the end of the file.
    fn write(&self, note: &Note) {
        let mut line = serde_json::to_vec(note).expect("it can be written");
        line.push(b'\n');
        (&self.file).write_all(&line).expect("there is room");
    }

    /// Something that is no answer.
    pub(crate) fn note(&self, what: What) {
        self.write(&Note { at: now(), process: self.process, call: 0, what });
    }

    /// Somebody else's ill luck, known before it happens.
    pub(crate) fn note_of(&self, process: u32, what: What) {
        self.write(&Note { at: now(), process, call: 0, what });
    }

    /// A question, before it is asked.
    pub(crate) fn ask(&self, what: What) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.write(&Note { at: now(), process: self.process, call, what });
        call
    }

    /// Its answer, after it was heard.
    pub(crate) fn told(&self, call: u64, what: What) {
        self.write(&Note { at: now(), process: self.process, call, what });
    }
}

/// Everything that everybody wrote.
pub(crate) fn read_all(folder: &Path) -> Vec<Note> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if !name.starts_with("notes-") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        // Whoever was killed in the middle of a line has not written it.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        notes.extend(whole.lines().map(|line| -> Note {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        }));
    }
    notes
}
