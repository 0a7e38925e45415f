//! What a subscriber heard, as JSON.

use lockkeeper::{Events, Project};
use serde_json::Value;

/// Collects the events of a project.
pub struct Heard {
    events: Events,
    pub all: Vec<Value>,
}

impl Heard {
    pub fn subscribe(project: &Project) -> Heard {
        Heard { events: project.subscribe(), all: Vec::new() }
    }

    /// Takes in what has happened by now.
    pub fn drain(&mut self) -> &[Value] {
        while let Some(heard) = self.events.try_next() {
            match heard {
                lockkeeper::Heard::Event(event) => {
                    self.all.push(serde_json::to_value(&*event).unwrap());
                }
                missed => panic!("{missed:?}"),
            }
        }
        &self.all
    }

    pub fn of(&self, word: &str) -> Vec<&Value> {
        self.all.iter().filter(|event| event["event"] == word).collect()
    }

    pub fn count(&self, word: &str) -> usize {
        self.of(word).len()
    }

    /// Each number is one more than the one before.
    pub fn has_no_gap(&self) {
        let numbers: Vec<u64> = self.all.iter().map(|it| it["seq"].as_u64().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    }
}
